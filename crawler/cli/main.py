"""The command line: parse, compose, print, exit code."""

import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, nullcontext
from typing import Annotated, Any

import msgspec
import typer
from typer.core import TyperGroup

from crawler.cli import client_commands
from crawler.cli.console import (
    OK,
    SOME_NOT_OK,
    USAGE,
    Column,
    File,
    Input,
    Output,
    Shape,
    Urls,
    check_given,
    ended_well,
    lines_of,
    opened,
    progress,
    run,
    tell,
)
from crawler.cli.flags import SomeFields, takes
from crawler.cli.url_files import Choice, count_lines
from crawler.compose import open_redis
from crawler.compose import probe as probe_urls
from crawler.core.errors import ChildError, InputError
from crawler.core.options import VERSION, WORKER_OPTIONS, Options
from crawler.core.results import ProbeResult
from crawler.core.service_options import ServiceOptions
from crawler.core.tasks import Counts
from crawler.core.urls import Line
from crawler.formats.result_writers import open_writer
from crawler.runtime.logs import Settings, write_logs
from crawler.runtime.rlimits import collect_rarely

__all__ = ["main"]


class _ServesByDefault(TyperGroup):
    """`crawler --port 8000` is `crawler serve --port 8000`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ("--help", "-h", "--version")):
            args = ["serve", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_ServesByDefault,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["--help", "-h"]},
)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and give its exit code: 0 all is well, 1 some URL is not, 2 usage, 130 interrupted."""
    _fill_standard_descriptors()
    try:
        code = app(args=arguments, prog_name="crawler", standalone_mode=False)
    except SystemExit as end:
        code = end.code
    except typer.TyperException as error:  # typer would put it into a box, of more lines the narrower the terminal
        tell(f"crawler: {error.format_message()}")
        return USAGE
    except (InputError, ChildError) as error:
        tell(f"crawler: {error}")
        return USAGE
    return code if isinstance(code, int) else OK


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", metavar="", help="Print the version.")] = False,
) -> None:
    """Probe URLs in batches: does each answer, what, how fast in each phase, and if not, why.

    Without a command, [bold]crawler[/] serves. Every option can also come from the
    environment variable that its help names.
    """
    if version:
        print(VERSION)
        raise typer.Exit


@app.command()
@takes(service=ServiceOptions, options=Options)
def serve(service: ServiceOptions, options: Options) -> None:
    """Serve the HTTP API: post a batch of URLs, poll its Task.

    Under opentelemetry-instrument, and with the extra otel, requests and Tasks are traced.
    """
    from crawler.service import run_service  # with aiohttp, which no other command needs

    def announce(url: str) -> None:
        print(f"crawler serves on {url}. Submit a batch, then look at its task:\n")
        print(f"""  curl {url}/submit -d '{{"urls": ["https://example.org"]}}'""")
        print(f"  curl {url}/tasks/TASK_ID\n\nCtrl-C stops it.", flush=True)

    try:
        run_service(service.host, service.port, options=options, service=service, announce=announce)
    except OSError as error:
        raise InputError(f"cannot listen on {service.host}:{service.port}: {error.strerror}") from None


@app.command()
@takes(options=Options)
def probe(
    options: Options,
    urls: Urls = None,
    file: File = None,
    input_: Input = "auto",
    column: Column = None,
    format_: Shape = None,
    output: Output = None,
) -> None:
    """Probe URLs now and print a result for each.

    Exit code: 0 if all are ok, 1 if some are not, 2 for usage, 130 on Ctrl-C, 143 on SIGTERM.
    """
    check_given(urls, file)
    write_logs(Settings())
    urls, counts = urls or [], Counts()
    lines = lines_of(urls, file, input_, column)
    with ended_well(output):
        total = _total(urls, file, input_) if sys.stderr is not None and sys.stderr.isatty() else None
        with opened(output) as stream:
            shape = format_ or ("table" if stream.isatty() else "ndjson")
            write = open_writer(shape, stream).write
            # NDJSON and CSV on a terminal are for copying, and no bar may cut through them.
            apart = shape == "table" or not stream.isatty()
            with progress(counts, total) if apart else nullcontext():
                collect_rarely()
                run(_probe(lines, options, counts, write))
    raise typer.Exit(OK if counts.ok == counts.done else SOME_NOT_OK)


@app.command()
@takes(service=SomeFields(ServiceOptions, WORKER_OPTIONS), options=Options)
def worker(service: dict[str, Any], options: Options) -> None:
    """Probe for services on other machines, which have the same Redis.

    Ctrl-C stops it: what it has begun is finished, the rest goes to other workers.
    """
    chosen = ServiceOptions.of(service)
    if chosen.redis is None:
        raise InputError("is needed", "--redis")
    registry = open_redis(chosen.redis)
    from crawler.cli.worker_command import run_worker  # with docket, which no other command needs

    run_worker(options, chosen, registry)


@app.command()
@takes(service=SomeFields(ServiceOptions, ("redis",)))
def workers(service: dict[str, Any]) -> None:
    """List the workers that have a Redis in common, and what waits for them."""
    url = service.get("redis")
    if url is None:
        raise InputError("is needed", "--redis")
    registry = open_redis(url)
    from crawler.cli.tables import print_fleet_status  # with rich, which nobody needs in a pipe
    from crawler.distributed.chunk_queue import read_fleet_status

    print_fleet_status(run(read_fleet_status(registry)), sys.stdout)


for command in client_commands.COMMANDS:
    app.command()(command)


async def _probe(
    lines: AsyncIterator[Line],
    options: Options,
    counts: Counts,
    write: Callable[[ProbeResult], None],
) -> None:
    async with aclosing(probe_urls(lines, **msgspec.structs.asdict(options))) as results:
        async for result in results:
            write(result)
            counts.add(result.outcome)


def _total(urls: list[str], file: str | None, choice: Choice) -> int | None:
    if file is None:
        return len(urls)
    in_file = count_lines(file, choice)
    return None if in_file is None else len(urls) + in_file


def _fill_standard_descriptors() -> None:
    """Open what the process was started without: libuv aborts when a descriptor of its own is 0, 1 or 2."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
