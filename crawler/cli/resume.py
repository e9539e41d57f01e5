"""Go on where an interrupted run stopped: read its results, and probe the other lines."""

import csv
import os
from array import array
from bisect import bisect_right
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from pathlib import Path
from typing import BinaryIO, Final
from zlib import crc32

import msgspec

from crawler.core.errors import InputError
from crawler.core.results import Outcome, ProbeResult
from crawler.core.urls import Line, Target
from crawler.formats.result_writers import ResultFormat, escape_formula

__all__ = ["EarlierResults", "read_earlier_results"]

_NO_RESULT: Final = -1
_STEP_BYTES: Final = 64 * 1024


class _Record(msgspec.Struct):
    """What is needed of a result."""

    seq: int
    url: str
    outcome: Outcome


class EarlierResults:
    """The lines that have a result already, in 8 bytes a line.

    Attributes:
        count: Their number.
        is_all_ok: Whether no result has another outcome than ok.
    """

    def __init__(self, format_: ResultFormat) -> None:
        self.count = 0
        self.is_all_ok = True
        self._format = format_
        self._checksums = array("q")  # of the text of each line; _NO_RESULT for a line without a result
        self._next_positions: list[int] = []  # of the lines that were skipped, among those that were not
        self._skipped: list[int] = []  # how many lines were skipped up to there

    def add(self, record: _Record) -> None:
        """Note that a line has a result."""
        if missing := record.seq + 1 - len(self._checksums):
            self._checksums.extend([_NO_RESULT] * missing)
        if self._checksums[record.seq] == _NO_RESULT:
            self._checksums[record.seq] = _checksum(record.url)
            self.count += 1
            self.is_all_ok &= record.outcome == "ok"

    async def skip(self, lines: AsyncIterator[Line]) -> AsyncGenerator[Line, None]:
        """Yield the lines that have no result.

        Raises:
            InputError: The results are those of another list.
        """
        position = skipped = 0
        seq = 0
        async for line in lines:
            if seq >= len(self._checksums) or self._checksums[seq] == _NO_RESULT:
                yield line
                position += 1
            else:
                self._check(seq, line)
                skipped += 1
                if self._next_positions and self._next_positions[-1] == position:
                    self._skipped[-1] = skipped
                else:
                    self._next_positions.append(position)
                    self._skipped.append(skipped)
            seq += 1

    def renumber(self, result: ProbeResult) -> ProbeResult:
        """Return a result of a line that `skip` yielded with the line's `seq` in the whole list."""
        index = bisect_right(self._next_positions, result.seq)
        return msgspec.structs.replace(result, seq=result.seq + (self._skipped[index - 1] if index else 0))

    def _check(self, seq: int, line: Line) -> None:
        text = Target.of(seq, line).text
        if self._checksums[seq] != _checksum(str(escape_formula(text)) if self._format == "csv" else text):
            raise InputError(f"has the results of another list: its URL {seq + 1} is not {text!r:.200}", "--resume")


def read_earlier_results(path: Path, format_: ResultFormat) -> EarlierResults:
    """Read the results in a file; a last one that was cut off is removed from the file.

    Args:
        path: The file; one that does not exist has no results.
        format_: NDJSON or CSV.

    Raises:
        InputError: The file has something else; `place` is its name.
        OSError: The file cannot be read.
    """
    earlier = EarlierResults(format_)
    if path.exists():
        end = _end_of_last_line(path)
        read = _read_csv if format_ == "csv" else _read_ndjson
        with path.open("rb") as file:
            for record in read(_lines_before(end, file), str(path)):
                earlier.add(record)
        os.truncate(path, end)
    return earlier


def _end_of_last_line(path: Path) -> int:
    """Return the position behind the last line break."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - _STEP_BYTES)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            end = start
    return 0


def _lines_before(end: int, file: BinaryIO) -> Iterator[bytes]:
    while end and (line := file.readline()):
        end -= len(line)
        yield line


def _read_ndjson(lines: Iterator[bytes], place: str) -> Iterator[_Record]:
    decode = msgspec.json.Decoder(_Record).decode
    for number, line in enumerate(lines, 1):
        try:
            yield decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise InputError(f"line {number} is not a result in NDJSON", place) from None


def _read_csv(lines: Iterator[bytes], place: str) -> Iterator[_Record]:
    rows = csv.DictReader((line.decode() for line in lines), strict=True)
    try:
        if rows.fieldnames is not None:
            seq, url, outcome = (rows.fieldnames.index(name) for name in ("seq", "url", "outcome"))
        for row in rows.reader:
            yield msgspec.convert({"seq": row[seq], "url": row[url], "outcome": row[outcome]}, _Record, strict=False)
    except (csv.Error, ValueError, IndexError, msgspec.ValidationError):
        raise InputError(f"line {max(rows.line_num, 1)} is not a result in CSV", place) from None


def _checksum(text: str) -> int:
    return crc32(text.encode(errors="replace"))
