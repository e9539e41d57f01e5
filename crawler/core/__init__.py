"""The vocabulary of all packages: options, URLs, Tasks, results and errors. No module does I/O.

Other packages may import every module; each imports only those drawn below it.

    environment           options from environment variables
    error_advice          what a user can try after each type of failure
    task_options          which options a Task may set, within which limits
    service_options       options of the service
    ├── options           options of a probe, and the base class of both
    │   ├── option_syntax parsers of proxies, DNS servers, headers, ...
    │   └── patterns      regular expressions of `match`, searched by RE2
    └── tokens            bearer tokens of clients
    task_summary          the summary of a Task that the service sends
    tasks                 Task, its status, counts and webhook; state of the work queues
    urls                  Url and Target: the lines of a Task, parsed
    └── results           ProbeResult, the result of a probe, and its parts
        ├── error_types   the table of failures
        └── errors        exceptions
"""
