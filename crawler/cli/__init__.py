"""The command line: `crawler serve`, `probe`, `worker`, and the commands that are clients of a running service.

From outside, import `main.main` (the entry point) and `flags` (options as flags, which documents and tests read).

    main               the program: its commands, errors and exit codes
    probe_command      probe
    serve_command      serve
    client_commands    submit, watch, results, cancel, tasks
    worker_command     worker
    client             a running service over HTTP; needs aiohttp
    upload             uploads a URL list to a service
    flags              records of options as flags and environment variables
    parameters         flags and arguments that several commands share
    console            standard streams, signals, exit codes
    url_files          URL lists in files and on standard input
    output             where results go, in which format, and which of them
    results_file       a results file, which destroys nothing that is there
    resume             the results of a run that was stopped
    run_summary        what a run comes to, in one line
    progress           rows of results and the progress bar; needs rich
    tables             Tasks and workers as tables; needs rich
    task_description   a Task in one line

Modules that need aiohttp or rich are imported by the commands that use them, because these take long to import.
"""
