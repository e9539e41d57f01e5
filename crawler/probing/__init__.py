"""Decides which request comes next, and when: targets become ProbeResults.

From outside, import `prober` (the interface), `factory` (`open_http_prober`), `scheduler` and `work_queue` (slots for
webhooks too), `unprobed` (`failed_result`), and `settings`.

    factory          open_http_prober: composes the prober of one process
    prober           Prober, the interface; HttpProber, which queues the targets of each caller
    probe_run        ProbeRun: sends the requests of one caller's probes
    request_headers  the headers of each request
    robots_gate      lets a probe pass when robots.txt allows it
    robots           the known rules of robots.txt files
    robots_rules     reads a file for one user agent, and compares URLs with it
    head_support     which hosts answer HEAD as they answer GET
    unprobed         results of targets that get no request
    probe            Probe: what follows each answer; the table of rules, no I/O
    answer           what an answer says by itself
    http_versions    when HTTP/2 may have the answer that HTTP/1.1 has not, and which hosts decline it
    redirects        where a redirect leads, and what goes along
    cookies          the cookies of one probe
    statuses         what the statuses of servers mean
    probe_result     makes the ProbeResult
    probe_state      the state of a probe, which moves with it to another process
    work_queue       WorkQueue: the items of one caller, queued by host
    host_limits      the stricter limits of one work queue
    scheduler        Scheduler: hands out slots, in all and by host
    host_slots       the slots of one host, and what its answers and failures mean for them
    adaptive_limit   fewer slots for a host that fails or slows down
    host_distress    for how long a host in trouble gets no requests
    fed_stream       a stream whose input arrives while its results are read
    settings         waits before retries and other constants that tests shorten
"""
