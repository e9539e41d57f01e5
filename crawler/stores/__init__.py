"""Registries that outlive the process, each imported only when it is chosen."""
