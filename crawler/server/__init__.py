"""The parts of a running service: the HTTP API, access rules, quotas, background jobs, health and metrics.

`crawler.service` composes an application from these modules; `crawler.asgi` bridges it to ASGI servers. A module may
import those below it:

    first_contract/      the four operations of the first version
    api/                 the versioned API, its documentation, and monitoring
    asgi_bridge          requests that come as ASGI messages
    middleware/          what every request passes: log, counters, errors, proxies, access
    http/                bodies, responses, problems, routes, the listening socket and its limits
    app_keys             what handlers share, each by its own typed key
    background/          the leader's jobs: webhooks, retention
    task_manager         begins and ends Tasks
    single_probes        probes of URLs that belong to no Task
    counting_prober      counts the results of another prober
    access, quotas       rules without HTTP: what a token allows, and how much at once
    health, metrics      whether the service can work, and its counters and gauges
    places               what few clients may use at once, with a share for each token
    request_counters     the counters of requests
    settings             intervals and timeouts that are no options
"""
