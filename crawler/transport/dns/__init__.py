"""Names to addresses: each looked up once, asked again until the deadline, failures explained.

Import `resolver` from outside.

    resolver            Resolver: known addresses, lookups that callers share
    ├── client          asks c-ares, then more patiently
    │   └── fallback_client   asks every server until the deadline
    │       └── messages    formats queries, reads responses
    └── failures        what failed lookups mean, in words
"""
