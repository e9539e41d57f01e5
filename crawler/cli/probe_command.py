"""The command `crawler probe`."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Literal, TextIO

import msgspec
import typer

from crawler.cli.console import (
    INTERRUPTED,
    OK,
    SOME_NOT_OK,
    Terminated,
    exit_on_errors,
    has_terminal,
    print_message,
    run,
)
from crawler.cli.flags import with_flags
from crawler.cli.output import OutputChoice, flushed_each_second, open_results, open_writer
from crawler.cli.parameters import (
    AppendOption,
    ColorOption,
    ColumnOption,
    DelimiterOption,
    FileOption,
    InputOption,
    NoProgressOption,
    OnlyOption,
    OutputFormatOption,
    OutputOption,
    QuietOption,
    ResumeOption,
    SchemeOption,
    UrlsArgument,
    choose_sources,
)
from crawler.cli.results_file import refuse_own_list
from crawler.cli.resume import EarlierResults
from crawler.cli.run_summary import RunSummary
from crawler.cli.url_files import Sources
from crawler.core.options import Options
from crawler.core.urls import Line
from crawler.formats.result_writers import ResultWriter
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
    delimiter: DelimiterOption = None,
    scheme: SchemeOption = "https",
    format_: OutputFormatOption = None,
    output: OutputOption = None,
    append: AppendOption = False,
    resume: ResumeOption = None,
    only: OnlyOption = None,
    color: ColorOption = "auto",
    quiet: QuietOption = False,
    no_progress: NoProgressOption = False,
) -> None:
    """Probe URLs now and print a result for each.

    Exit code: 0 if all are ok, 1 if some are not, 2 for usage, 130 on Ctrl-C, 129 on SIGHUP, 143 on SIGTERM.
    """
    sources = choose_sources(urls, file, input_, column, delimiter)
    choice = OutputChoice.of(output, format_, append=append, resume=resume, only=only or [], color=color)
    refuse_own_list(choice.path, sources.files)
    configure_logging(LogSettings())
    summary = RunSummary()
    has_progress = has_terminal() and not (quiet or no_progress)
    stopped: int | None = None
    with exit_on_errors(choice.path):
        earlier = choice.read_earlier_results()
        total = _count_lines(sources, earlier) if has_progress else None
        lines: AsyncIterator[Line] = sources.read()
        try:
            with (
                open_results(choice, summary.counts) as stream,
                open_writer(choice, stream, summary.counts, total, has_progress=has_progress) as writer,
            ):
                tune_garbage_collector()
                run(_probe(lines, scheme, options, earlier, choice, summary, writer, stream))
        except KeyboardInterrupt:
            stopped = INTERRUPTED
        except Terminated as error:
            stopped = error.exit_code
    if not quiet and (stopped or summary.counts.done != 1):  # one result says all by itself
        print_message(f"crawler: {_describe_end(summary, total, stopped, choice)}")
    raise typer.Exit(stopped or (OK if summary.is_all_ok and earlier.is_all_ok else SOME_NOT_OK))


async def _probe(
    lines: AsyncIterator[Line],
    scheme: Literal["https", "http", "none"],
    options: Options,
    earlier: EarlierResults,
    choice: OutputChoice,
    summary: RunSummary,
    writer: ResultWriter,
    stream: TextIO,
) -> None:
    from crawler.compose import probe as probe_urls  # slow to import: it needs the prober

    if earlier.count:
        lines = earlier.skip(lines)
    async with (
        flushed_each_second(stream),
        aclosing(
            probe_urls(lines, scheme=None if scheme == "none" else scheme, **msgspec.structs.asdict(options))
        ) as results,
    ):
        async for result in results:
            summary.add(result)
            if not choice.only or choice.wants(result):
                writer.write(earlier.renumber(result) if earlier.count else result)


def _describe_end(summary: RunSummary, total: int | None, stopped: int | None, choice: OutputChoice) -> str:
    """Say what a run comes to, and for one that was stopped how far it came and how to go on."""
    if stopped is None:
        return summary.describe()
    text = f"stopped; {summary.describe(total)}"
    if choice.path is not None and summary.counts.done and not choice.only:
        text += f". --resume {choice.path} goes on"
    return text


def _count_lines(sources: Sources, earlier: EarlierResults) -> int | None:
    """Return the number of lines that have no result yet, if it can be known."""
    count = sources.count_lines()
    return None if count is None else count - earlier.count
