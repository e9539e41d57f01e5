"""The program `crawler`: its commands, its messages, its exit codes."""

import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from crawler.cli import client_commands
from crawler.cli.console import OK, USAGE, print_message, run
from crawler.cli.file_commands import backup, verify
from crawler.cli.flags import SomeFields, with_flags
from crawler.cli.probe_command import probe
from crawler.cli.serve_command import serve
from crawler.core.environment import drop_service_links
from crawler.core.errors import ChildError, InputError
from crawler.core.options import VERSION, Options
from crawler.core.service_options import WORKER_OPTIONS, ServiceOptions

__all__ = ["main"]


_ROOT_OPTIONS: Final = ("--help", "-h", "--version", "-V", "--install-completion", "--show-completion")
_LIKE_A_URL: Final = re.compile(r"://|^[^.]+\.[^.]|^localhost\b|:[0-9]+")


class _CommandGroup(TyperGroup):
    """Runs `serve` if the command line names no command: `crawler --port 8000` is `crawler serve --port 8000`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        is_completion = ctx.resilient_parsing
        if not is_completion and (
            not args or (args[0].startswith("-") and args[0].partition("=")[0] not in _ROOT_OPTIONS)
        ):
            args = ["serve", *args]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        if name not in self.commands and (_LIKE_A_URL.search(name) or Path(name).is_file()):
            file = "--file " if Path(name).is_file() else ""
            raise InputError(f"No such command {name!r}. Did you mean: crawler probe {file}{name}")
        return super().resolve_command(ctx, args)


def _examples(*commands: str) -> str:
    """Return the examples at the end of a command's `--help`, a paragraph each: typer would join lines."""
    return "\n\n".join(["Examples:", *(f"  crawler {command}" for command in commands)])


app = typer.Typer(
    cls=_CommandGroup,
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
    drop_service_links()
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
    version: Annotated[bool, typer.Option("--version", "-V", metavar="", help="Print the version.")] = False,
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


app.command(epilog=_examples("serve --port 8000", "serve --host 0.0.0.0 --token-file tokens.txt"))(serve)
app.command(
    epilog=_examples("probe https://example.org", "probe -f urls.txt --only bad", "probe -f urls.txt -o results.csv")
)(probe)


@app.command()
@with_flags(service=SomeFields(ServiceOptions, WORKER_OPTIONS), options=Options)
def worker(service: dict[str, Any], options: Options) -> None:
    """Probe for the services that use the same Redis, on this or other machines.

    Ctrl-C stops it: it finishes the probes in flight, and other worker processes do the rest.
    """
    chosen = ServiceOptions.of(service)
    if chosen.redis is None:
        raise InputError("is required", "--redis")
    from crawler.cli.worker_command import run_worker  # slow to import: it needs docket
    from crawler.compose import open_redis

    registry = open_redis(chosen.redis)

    run_worker(options, chosen, registry)


@app.command()
@with_flags(service=SomeFields(ServiceOptions, ("redis",)))
def workers(service: dict[str, Any]) -> None:
    """List the worker processes of a Redis, and the chunks that wait for them."""
    url = service.get("redis")
    if url is None:
        raise InputError("is required", "--redis")
    from crawler.compose import open_redis

    registry = open_redis(url)
    from crawler.cli.tables import print_fleet_status
    from crawler.distributed.chunk_queue import read_fleet_status

    print_fleet_status(run(read_fleet_status(registry)), sys.stdout)


app.command(epilog=_examples("backup tasks-monday.db"))(backup)
app.command(epilog=_examples("verify tasks-monday.db"))(verify)

for command in client_commands.COMMANDS:
    app.command()(command)


def _open_standard_descriptors() -> None:
    """Open descriptors 0 to 2 if they are closed: libuv aborts if it gets one of them for itself."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
