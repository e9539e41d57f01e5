"""Measures this prober against others, on one machine; README.md says how and why so."""
