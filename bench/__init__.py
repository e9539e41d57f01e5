"""Benchmarks of the prober and of the service, on one machine; README.md explains the method."""
