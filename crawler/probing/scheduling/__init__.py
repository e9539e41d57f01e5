"""Slots, the right to have one request in flight: how many there are, and which request gets the next one.

Import `scheduler` and `work_queue` from outside.

    work_queue          WorkQueue: the items of one caller, queued by host
    ├── fed_stream      a stream whose input arrives while its results are read
    ├── host_limits     the stricter limits of one work queue
    └── scheduler       Scheduler: the slots of all work queues
        └── host_slots  the slots of one host, and how its answers and failures change them
            ├── adaptive_limit  the number of slots: fewer for a host that fails or slows down
            └── host_backoff    the pauses of a host that refuses or fails requests
"""
