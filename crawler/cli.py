"""The command line: parse, compose, print, exit code."""

import asyncio
import errno
import gc
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, aclosing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Annotated, Any, TextIO

import msgspec
import typer
import uvloop
from typer.core import TyperGroup

from crawler.compose import probe as probe_urls
from crawler.errors import InputError
from crawler.flags import takes
from crawler.lines import count_lines, read_lines
from crawler.models import Counts, ProbeResult
from crawler.options import VERSION, Options, ServiceOptions
from crawler.outputs import Format, open_writer

__all__ = ["main"]

OK, SOME_NOT_OK, USAGE, TERMINATED = 0, 1, 2, 143  # and 130 on Ctrl-C, which typer sees to


_COLLECT_AFTER = 50_000


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
        app(args=arguments, prog_name="crawler")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else OK
    except InputError as error:
        print(f"crawler: {error}", file=sys.stderr)
        return USAGE
    return OK


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
    """Serve the HTTP API: post a batch of URLs, poll its Task."""
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
    urls: Annotated[list[str] | None, typer.Argument(metavar="URL...", help="URLs to probe.")] = None,
    file: Annotated[
        str | None, typer.Option("--file", "-f", metavar="FILE", help="Read URLs from a file, a line each; - is stdin.")
    ] = None,
    format_: Annotated[
        Format | None,
        typer.Option("--format", envvar="CRAWLER_FORMAT", help="Default: table on a terminal, else ndjson."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write results to a file, not to stdout.")
    ] = None,
) -> None:
    """Probe URLs now and print a result for each.

    Exit code: 0 if all are ok, 1 if some are not, 2 for usage, 130 on Ctrl-C, 143 on SIGTERM.
    """
    if not urls and file is None:
        raise typer.BadParameter("name URLs, or a file of them with --file", param_hint="URL")
    urls, counts = urls or [], Counts()
    try:
        total = _total(urls, file) if sys.stderr is not None and sys.stderr.isatty() else None
        with _opened(output) as stream:
            shape = format_ or ("table" if stream.isatty() else "ndjson")
            write = open_writer(shape, stream).write
            with _progress(counts, total, apart=shape == "table" or not stream.isatty()):
                # Results live until they are written; the collector's default looks at them again every 700 objects.
                gc.set_threshold(_COLLECT_AFTER, 20, 100)
                uvloop.run(_probe(_lines(urls, file), options, counts, write))
    except asyncio.CancelledError:
        raise typer.Exit(TERMINATED) from None
    except BrokenPipeError:  # the reader has had enough, as `head` has
        raise typer.Exit(SOME_NOT_OK) from None
    except OSError as error:
        where = error.filename or output or "standard output"
        raise InputError(f"{where}: {error.strerror}") from None
    raise typer.Exit(OK if counts.ok == counts.done else SOME_NOT_OK)


async def _probe(
    lines: AsyncIterator[bytes],
    options: Options,
    counts: Counts,
    write: Callable[[ProbeResult], None],
) -> None:
    # SIGTERM ends it as Ctrl-C does: what is found is written out whole.
    task = asyncio.current_task()
    assert task is not None
    with suppress(ValueError):  # signals are the main thread's, and somebody may run this in another
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with aclosing(probe_urls(lines, **msgspec.structs.asdict(options))) as results:
        async for result in results:
            write(result)
            counts.add(result.outcome)


async def _lines(urls: list[str], file: str | None) -> AsyncIterator[bytes]:
    for url in urls:
        yield os.fsencode(url)  # as the shell gave it, which may not be UTF-8
    if file is not None:
        async for line in read_lines(file):
            yield line


def _total(urls: list[str], file: str | None) -> int | None:
    if file is None:
        return len(urls)
    in_file = count_lines(file)
    return None if in_file is None else len(urls) + in_file


@contextmanager
def _opened(output: Path | None) -> Iterator[TextIO]:
    """Where results go. On a terminal rich has to see what is printed above its bar; elsewhere it is UTF-8 always."""
    if output is None and sys.stdout is None:  # started with it closed
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    if output is None and sys.stdout.isatty():
        yield sys.stdout
        return
    target = sys.stdout.fileno() if output is None else output
    with open(target, "w", encoding="utf-8", newline="", closefd=output is not None) as stream:
        # To a file in blocks; to a pipe each line at once, for somebody may be waiting at its end.
        stream.reconfigure(line_buffering=not stat.S_ISREG(os.fstat(stream.fileno()).st_mode))
        yield stream


def _fill_standard_descriptors() -> None:
    """Open what the process was started without: libuv aborts when a descriptor of its own is 0, 1 or 2."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


def _progress(counts: Counts, total: int | None, *, apart: bool) -> AbstractContextManager[None]:
    """A bar on a terminal. NDJSON and CSV on the same one are for copying, and no bar may cut through them."""
    if not (apart and sys.stderr is not None and sys.stderr.isatty()):
        return nullcontext()
    from crawler.progress import show_progress  # with rich, which nobody needs in a pipe

    return show_progress(counts, total)
