"""How a command writes results: which of them, in which format, to which file or to standard output."""

import asyncio
import sys
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final, Literal, NamedTuple, Self, TextIO

from crawler.cli.console import open_standard_output
from crawler.cli.results_file import ResultsFile, find_unfinished
from crawler.cli.resume import EarlierResults, read_earlier_results
from crawler.core.errors import InputError
from crawler.core.results import ProbeResult
from crawler.core.tasks import Counts
from crawler.formats.result_writers import Color, ResultFormat, ResultWriter
from crawler.formats.result_writers import open_writer as open_format_writer
from crawler.runtime.cancellation import in_background

__all__ = ["OutputChoice", "flushed_each_second", "open_results", "open_writer"]

_FORMATS_BY_SUFFIX: Final[dict[str, ResultFormat]] = {".csv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson"}
_FLUSH_SECONDS: Final = 1.0


class OutputChoice(NamedTuple):
    """What the user has chosen.

    Attributes:
        path: The file for results; None for standard output.
        format: None for a table on a terminal, else NDJSON.
        mode: Whether results replace those in the file, are added to them, or complete those of an interrupted run.
        only: `bad`, outcomes and error types of the results to write; empty for all.
        color: Whether tables have colours.
    """

    path: Path | None = None
    format: ResultFormat | None = None
    mode: Literal["replace", "append", "resume"] = "replace"
    only: Collection[str] = ()
    color: Color = "auto"

    @classmethod
    def of(
        cls,
        output: Path | None,
        format_: ResultFormat | None,
        *,
        append: bool = False,
        resume: Path | None = None,
        only: Collection[str] = (),
        color: Color = "auto",
    ) -> Self:
        """Check that the options go together.

        Raises:
            InputError: They do not.
        """
        path = None if output == Path("-") else output
        if append and path is None:
            raise InputError("needs a file: --output FILE", "--append")
        if resume is not None:
            for other, name in ((output, "--output"), (append or None, "--append"), (only or None, "--only")):
                if other is not None:
                    raise InputError(f"does not go together with {name}: it adds all results to its file", "--resume")
            path = resume
        if path is not None and format_ is None:
            format_ = _FORMATS_BY_SUFFIX.get(path.suffix.lower(), "ndjson")
        if resume is not None and format_ == "table":
            raise InputError("reads NDJSON and CSV, no table", "--resume")
        return cls(path, format_, "append" if append else "resume" if resume else "replace", only, color)

    def read_earlier_results(self) -> EarlierResults:
        """Return the results of the run to resume; without one, there are none.

        Raises:
            InputError: The file has something else.
        """
        if self.mode != "resume":
            return EarlierResults("ndjson")
        assert self.path is not None
        assert self.format is not None
        return read_earlier_results(find_unfinished(self.path), self.format)

    def wants(self, result: ProbeResult) -> bool:
        """Whether a result is to be written."""
        if not self.only:
            return True
        kinds = {result.outcome, result.error and result.error.type, "bad" if result.outcome != "ok" else "ok"}
        return not kinds.isdisjoint(self.only)


@contextmanager
def open_results(choice: OutputChoice, counts: Counts) -> Iterator[TextIO]:
    """Open the file for results, or standard output.

    Args:
        choice: Names the file.
        counts: Those of the run; without a result, a run that fails leaves no new file.

    Raises:
        OSError: It cannot be written.
        InputError: Results of an interrupted run would be lost.
    """
    if choice.path is None:
        with open_standard_output() as stream:
            yield stream
    else:
        open_file = ResultsFile.create if choice.mode == "replace" else ResultsFile.extend
        with open_file(choice.path, counts) as file:
            yield file.stream


@contextmanager
def open_writer(
    choice: OutputChoice, stream: TextIO, counts: Counts, total: int | None, *, has_progress: bool = False
) -> Iterator[ResultWriter]:
    """Open a writer of results to a stream, and show a progress bar meanwhile.

    A bar stands below the rows if both are on a terminal. NDJSON and CSV on a terminal are for copying: they get no
    bar, which would break their lines.
    """
    format_ = choice.format or ("table" if stream.isatty() else "ndjson")
    is_continued = choice.mode != "replace" and stream.seekable() and stream.tell() > 0
    if has_progress and (format_ == "table" or not stream.isatty()):
        from crawler.cli.progress import ProgressDisplay  # imports rich, which takes long
        from crawler.formats.table import open_console

        if stream.isatty():
            with ProgressDisplay(open_console(stream, choice.color), counts, total) as display:
                display.write_header()
                yield display
            return
        with ProgressDisplay(open_console(sys.stderr, choice.color), counts, total):
            yield from _write_all(choice, format_, stream, is_continued)
    else:
        yield from _write_all(choice, format_, stream, is_continued)


def _write_all(
    choice: OutputChoice, format_: ResultFormat, stream: TextIO, is_continued: bool
) -> Iterator[ResultWriter]:
    writer = open_format_writer(format_, stream, color=choice.color, is_continued=is_continued)
    yield writer
    writer.close()


@asynccontextmanager
async def flushed_each_second(stream: TextIO) -> AsyncIterator[None]:
    """Write out what a stream has collected at least once a second, so that others can read the results.

    A terminal is written to by a thread of its own, or line by line.
    """
    if stream.isatty():
        yield
        return

    async def flush() -> None:
        while True:
            await asyncio.sleep(_FLUSH_SECONDS)
            stream.flush()

    async with in_background(flush()):
        yield
