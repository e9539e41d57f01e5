"""Readers of URL lists in every input format.

A reader does no I/O and keeps only what is incomplete: `feed` it bytes in pieces of any size, and it returns the same
lines.
"""

from collections.abc import Sequence
from typing import Final, Literal, Protocol, TypeAlias, get_args

from crawler.core.errors import InputError
from crawler.core.urls import Line
from crawler.formats.csv_reader import CsvReader
from crawler.formats.json_batch import BatchReader
from crawler.formats.line_readers import NdjsonReader, TextReader

__all__ = ["INPUT_FORMATS", "InputFormat", "UrlListReader", "open_reader"]

InputFormat: TypeAlias = Literal["text", "ndjson", "csv", "json"]
INPUT_FORMATS: Final[tuple[InputFormat, ...]] = get_args(InputFormat)

_DEFAULT_KEY: Final = "url"


class UrlListReader(Protocol):
    """Turns bytes into lines, each a URL as submitted. After an `InputError` it cannot be used any more."""

    def feed(self, data: bytes) -> Sequence[Line]:
        """Add more input and return the lines that have become complete."""

    def close(self) -> Sequence[Line]:
        """End the input and return the last lines."""


def open_reader(format_: InputFormat, column: str | None = None, delimiter: str | None = None) -> UrlListReader:
    """Make a reader of a format.

    Args:
        format_: One of `INPUT_FORMATS`.
        column: The column of the URLs in CSV, by its name in the header row or its number from 1; in NDJSON the key of
            the objects. None for `url`, or the only column.
        delimiter: What separates the cells of CSV: one ASCII character, or `tab`. None to find it out.

    Raises:
        InputError: The format has no columns, or this cannot be a delimiter.
    """
    if delimiter is not None:
        delimiter = "\t" if delimiter in ("tab", "\\t") else delimiter
        if format_ != "csv":
            raise InputError(f"{format_} has no delimiter to choose", "delimiter")
        if len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n\0' or delimiter.isalnum():
            raise InputError(f"{delimiter!r} is not a delimiter: one sign, or tab", "delimiter")
    if format_ == "csv":
        return CsvReader(column, delimiter)
    if format_ == "ndjson":
        return NdjsonReader(_DEFAULT_KEY if column is None else column)
    if column is not None:
        raise InputError(f"{format_} has no columns to choose from", "column")
    return TextReader() if format_ == "text" else BatchReader()
