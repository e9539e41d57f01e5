"""The command `crawler serve`, and what it says when it listens."""

from contextlib import suppress
from pathlib import Path

from crawler.cli.flags import with_flags
from crawler.core.errors import InputError
from crawler.core.options import Options
from crawler.core.service_options import ServiceOptions

__all__ = ["serve"]


@with_flags(service=ServiceOptions, options=Options)
def serve(service: ServiceOptions, options: Options) -> None:
    """Serve the HTTP API: submit a list of URLs, poll its Task.

    With the extra otel, opentelemetry-instrument traces requests and Tasks.
    """
    from crawler.service import choose_guard, run_service  # slow to import: it needs aiohttp

    def announce(url: str) -> None:
        root = url + service.prefix
        with suppress(OSError):  # nobody reads it
            print(_describe_service(root, choose_guard(options, service, service.host), service), flush=True)

    try:
        run_service(service.host, service.port, options=options, service=service, announce=announce)
    except OSError as error:
        reason = f"cannot listen on {service.host}:{service.port}: {error.strerror}"
        raise InputError(f"{reason}; --host and --port name another address") from None


def _describe_service(url: str, options: Options, service: ServiceOptions) -> str:
    """Say how to use the service, where it keeps Tasks, and what it probes."""
    header = " -H 'Authorization: Bearer SECRET'" if service.tokens or service.token_file else ""
    rows = {
        "Submit URLs": f"""curl {url}/submit{header} -d '{{"urls": ["https://example.org"]}}'""",
        "See their Task": f"curl {url}/tasks/TASK_ID{header}",
        "The API": f"{url}/docs",
        "Tasks are kept": _describe_storage(service),
        "Probes reach": _describe_guard(options),
    }
    width = max(map(len, rows))
    lines = (f"  {name:<{width}}  {text}" for name, text in rows.items())
    return "\n".join([f"crawler serves on {url}. Ctrl-C stops it.", "", *lines])


def _describe_storage(service: ServiceOptions) -> str:
    if service.redis is not None:
        return f"in Redis, for {service.keep_days:g} days after their end"
    from crawler.compose import sqlite_path

    if (path := sqlite_path(service)) is None:
        return "in memory, until the service stops (--registry memory)"
    with suppress(ValueError):
        path = Path("~", path.relative_to(Path.home()))
    return f"in {path}, for {service.keep_days:g} days after their end"


def _describe_guard(options: Options) -> str:
    if options.guard == "any":
        return "every address, also those of this machine and its networks (--guard any)"
    allowed = f" and {', '.join(options.allow)}" if options.allow else ""
    return f"public addresses{allowed} (--guard public)"
