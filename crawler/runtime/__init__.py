"""Infrastructure of every process: logs, counters, signals, limits.

Every package above may import every module; the modules import only `crawler.core`.

    logs           log lines as text or JSON, with fields, without secrets
    └── log_writer writes log lines on a thread
    tracing        spans for OpenTelemetry, if that is installed
    counters       histograms and counters of probes and of store calls
    loop_lag       how late the event loop runs its callbacks
    awake_clock    a clock that stands still while this process does
    turns          long work on the event loop, in steps
    lifecycle      stop by signals; notify systemd
    cancellation   cancel background work and wait for its end
    waiting        wait for one future for a limited time
    event_loop     run a coroutine on uvloop or on asyncio's own loop
    resources      open files, cores, garbage collection
"""
