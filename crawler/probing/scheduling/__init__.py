"""Hands out the right to have a request in flight: slots, in all and by host. Nothing waits while it holds one.

Import `scheduler` and `work_queue` from outside.

    work_queue          WorkQueue: the items of one caller, queued by host
    ├── fed_stream      a stream whose input arrives while its results are read
    ├── host_limits     the stricter limits of one work queue
    └── scheduler       Scheduler: the slots of all work queues
        └── host_slots  the slots of one host, and what its answers and failures mean for them
            ├── adaptive_limit  fewer slots for a host that fails or slows down
            └── host_distress   for how long a host in trouble gets no requests
"""
