"""Decides which request comes next, and when: targets become ProbeResults.

From outside, import `prober` (the interface), `factory` (`open_http_prober`), `scheduling` (slots for
webhooks too), `unprobed` (`failed_result`), and `settings`.

    factory          open_http_prober: composes the prober of one process
    prober           Prober, the interface; HttpProber, which queues the targets of each caller
    probe_run        ProbeRun: sends the requests of one caller's probes
    request_headers  the headers of each request
    robots/          lets a probe pass when robots.txt allows it
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
    scheduling/      slots for requests, in all and by host; the queue of each caller
    settings         waits before retries and other constants that tests shorten
"""
