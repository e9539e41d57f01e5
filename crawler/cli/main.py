"""The program `crawler`: its commands, its messages, its exit codes."""

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from crawler.cli import client_commands
from crawler.cli.console import OK, USAGE, print_message, run
from crawler.cli.flags import SomeFields, with_flags
from crawler.cli.probe_command import probe
from crawler.compose import open_redis
from crawler.core.errors import ChildError, InputError
from crawler.core.options import VERSION, Options
from crawler.core.service_options import WORKER_OPTIONS, ServiceOptions

__all__ = ["main"]


class _ServeByDefault(TyperGroup):
    """Runs `serve` if the command line names no command: `crawler --port 8000` is `crawler serve --port 8000`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ("--help", "-h", "--version")):
            args = ["serve", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_ServeByDefault,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["--help", "-h"]},
)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: The arguments of the command line, without the program's name; by default those of the process.

    Returns:
        0 for success, 1 if some URL is not ok, 2 for wrong usage, 130 for Ctrl-C, 143 for SIGTERM.
    """
    _open_standard_descriptors()
    try:
        code = app(args=arguments, prog_name="crawler", standalone_mode=False)
    except SystemExit as end:
        code = end.code
    except typer.TyperException as error:  # on one line; typer prints a box of several lines
        print_message(f"crawler: {error.format_message()}")
        return USAGE
    except (InputError, ChildError) as error:
        print_message(f"crawler: {error}")
        return USAGE
    return code if isinstance(code, int) else OK


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", metavar="", help="Print the version.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", metavar="", help="With --version: also which libraries do TLS.")
    ] = False,
) -> None:
    """Check lists of URLs: whether each answers, with which status, how fast, and why it failed.

    Without a command, [bold]crawler[/] serves. Each option can also come from the
    environment variable that its help names.
    """
    if version:
        print(VERSION)
        if verbose:
            from crawler.transport.tls.rustls import describe_tls_libraries  # only https needs it

            print(f"TLS: {describe_tls_libraries()}")
        raise typer.Exit


@app.command()
@with_flags(service=ServiceOptions, options=Options)
def serve(service: ServiceOptions, options: Options) -> None:
    """Serve the HTTP API: submit a list of URLs, poll its Task.

    With the extra otel, opentelemetry-instrument traces requests and Tasks.
    """
    from crawler.service import run_service  # slow to import: it needs aiohttp

    def announce(url: str) -> None:
        print(f"crawler serves on {url}. Submit URLs, then look at their Task:\n")
        print(f"""  curl {url}/submit -d '{{"urls": ["https://example.org"]}}'""")
        print(f"  curl {url}/tasks/TASK_ID\n\nCtrl-C stops it.", flush=True)

    try:
        run_service(service.host, service.port, options=options, service=service, announce=announce)
    except OSError as error:
        raise InputError(f"cannot listen on {service.host}:{service.port}: {error.strerror}") from None


app.command()(probe)


@app.command()
@with_flags(service=SomeFields(ServiceOptions, WORKER_OPTIONS), options=Options)
def worker(service: dict[str, Any], options: Options) -> None:
    """Probe for the services that use the same Redis, on this or other machines.

    Ctrl-C stops it: it finishes the probes in flight, and other worker processes do the rest.
    """
    chosen = ServiceOptions.of(service)
    if chosen.redis is None:
        raise InputError("is required", "--redis")
    registry = open_redis(chosen.redis)
    from crawler.cli.worker_command import run_worker  # slow to import: it needs docket

    run_worker(options, chosen, registry)


@app.command()
@with_flags(service=SomeFields(ServiceOptions, ("redis",)))
def workers(service: dict[str, Any]) -> None:
    """List the worker processes of a Redis, and the chunks that wait for them."""
    url = service.get("redis")
    if url is None:
        raise InputError("is required", "--redis")
    registry = open_redis(url)
    from crawler.cli.tables import print_fleet_status
    from crawler.distributed.chunk_queue import read_fleet_status

    print_fleet_status(run(read_fleet_status(registry)), sys.stdout)


for command in client_commands.COMMANDS:
    app.command()(command)


def _open_standard_descriptors() -> None:
    """Open descriptors 0 to 2 if they are closed: libuv aborts if it gets one of them for itself."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
