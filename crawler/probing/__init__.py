"""Decides which request comes next, and when: targets become ProbeResults.

From outside, import `prober` (the interface), `factory` (`open_http_prober`), `scheduling` (slots for
webhooks too), `unprobed` (`failed_result`), and `settings`.

    factory          open_http_prober: composes the prober of one process
    prober           Prober, the interface; HttpProber, which queues the targets of each caller
    probe_run        ProbeRun: sends the requests of one caller's probes
    second_request   the next request, made beside one that is still not answered
    request_headers  the headers of each request
    robots/          lets a probe pass if robots.txt allows it
    head_support     which hosts answer HEAD as they answer GET
    unprobed         results of targets that get no request
    probe            Probe: what follows each answer; the table of rules and their steps, no I/O
    situation        the conditions of the rules
    answer           Answer: the input of these rules
    http_versions    when to repeat a request over HTTP/2, and which hosts decline it
    redirects        the URL after a redirect, and the credentials and cookies that it gets
    authentication   answers the challenge of a 401 with the user name and password of the URL
    cookies          the cookies of one probe
    strict_transport the hosts that require https (HSTS), for one probe
    statuses         what the statuses of servers mean
    probe_result     makes the ProbeResult
    result_bounds    cuts what is too long for one
    probe_state      the state of a probe, which moves with it to another process
    scheduling/      slots for requests, in all and for each host; the queue of each caller
    settings         waits before retries and other constants that tests shorten
"""
