"""Resolve names to addresses: callers share a lookup, queries are repeated until the deadline, failures are explained.

Import `resolver` from outside.

    resolver            Resolver: the cache, and lookups in progress
    ├── client          asks c-ares, and the fallback client if c-ares has no answer in time
    │   └── fallback_client   asks every server, again and again until the deadline
    │       └── messages    formats queries, parses responses
    └── failures        messages for failed lookups
"""
