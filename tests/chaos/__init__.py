"""Inject faults while the product works, and check that nothing acknowledged was lost.

    fleet           services, worker processes and their Redis; `python -m tests.chaos.fleet`
    service         one service on SQLite; `python -m tests.chaos.service`
    pauses          one process that is stopped for a while; `python -m tests.chaos.pauses`
    clients         submit, read and remember, while a fleet suffers faults
    processes       the processes of a fleet, started again when they have ended
    short_leases    a process of a fleet whose leases are short

`test_fleet`, `test_service` and `test_pauses` are short runs for the suite; `make chaos` runs longer.
"""
