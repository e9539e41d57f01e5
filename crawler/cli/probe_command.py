"""The command `crawler probe`."""

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, nullcontext

import msgspec
import typer

from crawler.cli.console import (
    OK,
    SOME_NOT_OK,
    exit_on_errors,
    has_terminal,
    open_output,
    progress_bar,
    run,
)
from crawler.cli.flags import with_flags
from crawler.cli.parameters import (
    ColumnOption,
    FileOption,
    InputOption,
    OutputFormatOption,
    OutputOption,
    UrlsArgument,
    require_urls,
)
from crawler.cli.url_files import FormatChoice, count_lines, read_urls
from crawler.compose import probe as probe_urls
from crawler.core.options import Options
from crawler.core.results import ProbeResult
from crawler.core.tasks import Counts
from crawler.core.urls import Line
from crawler.formats.result_writers import open_writer
from crawler.runtime.logs import LogSettings, configure_logging
from crawler.runtime.resources import tune_garbage_collector

__all__ = ["probe"]


@with_flags(options=Options)
def probe(
    options: Options,
    urls: UrlsArgument = None,
    file: FileOption = None,
    input_: InputOption = "auto",
    column: ColumnOption = None,
    format_: OutputFormatOption = None,
    output: OutputOption = None,
) -> None:
    """Probe URLs now and print a result for each.

    Exit code: 0 if all are ok, 1 if some are not, 2 for usage, 130 on Ctrl-C, 143 on SIGTERM.
    """
    require_urls(urls, file)
    configure_logging(LogSettings())
    urls, counts = urls or [], Counts()
    lines = read_urls(urls, file, input_, column)
    with exit_on_errors(output):
        total = _count_urls(urls, file, input_) if has_terminal() else None
        with open_output(output) as stream:
            chosen_format = format_ or ("table" if stream.isatty() else "ndjson")
            writer = open_writer(chosen_format, stream)
            # NDJSON and CSV on a terminal are for copying, and a progress bar would break their lines.
            has_progress = chosen_format == "table" or not stream.isatty()
            with progress_bar(counts, total) if has_progress else nullcontext():
                tune_garbage_collector()
                run(_probe(lines, options, counts, writer.write))
            writer.close()
    raise typer.Exit(OK if counts.ok == counts.done else SOME_NOT_OK)


async def _probe(
    lines: AsyncIterator[Line], options: Options, counts: Counts, write: Callable[[ProbeResult], None]
) -> None:
    async with aclosing(probe_urls(lines, **msgspec.structs.asdict(options))) as results:
        async for result in results:
            write(result)
            counts.add(result.outcome)


def _count_urls(urls: list[str], file: str | None, choice: FormatChoice) -> int | None:
    if file is None:
        return len(urls)
    in_file = count_lines(file, choice)
    return None if in_file is None else len(urls) + in_file
