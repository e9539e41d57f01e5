"""Probe in other processes: child processes of this machine, and worker processes of any machine with the same Redis.

From outside, import `ProcessPool` and `ProcessProber` (`--processes N`); with the extra `redis` also `FleetEngine`,
`ChunkWorker` and `read_fleet_status` (`--redis URL`).

Child processes of one machine:

    process_prober  ProcessProber: a prober that hands each host to one child process
    process_run     sends the targets of one caller to the child processes; isolates targets
    child_link      sends targets to a child process, and takes them back if it ends
    process_pool    the child processes, by host
    └── child_process   keeps one running, replaces it when it ends or does not answer
    child           the program of a child process
    messages        what parent and child send each other

Worker processes of a fleet:

    fleet_engine    FleetEngine: queues the chunks of Tasks, and queues stalled ones again
    chunk_worker    ChunkWorker: takes chunks from the queues
    chunk_prober    probes one chunk, and isolates lines that crash worker processes
    chunk_queue     the queues in Redis, kept by docket
    queue_watch     whether these queues pass chunks on, and which ones they have lost
    shared_lock     a readers-writer lock

Both:

    crash_policy    when a target that crashes processes is isolated, and when it is given up
"""
