"""URLs of a file or of standard input, as they come."""

import asyncio
import errno
import os
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path, PurePath
from typing import IO, Final, Literal, TypeAlias, get_args

from crawler.core.errors import InputError
from crawler.core.urls import Line
from crawler.formats.gzip_reader import GzipReader
from crawler.formats.url_lists import InputFormat, open_reader

__all__ = ["CHOICES", "Choice", "count_lines", "format_of", "read_lines"]

Choice: TypeAlias = Literal["auto", InputFormat]
CHOICES: Final[tuple[Choice, ...]] = get_args(Choice)

_BY_SUFFIX: Final[dict[str, InputFormat]] = {
    ".txt": "text",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".csv": "csv",
    ".json": "json",
}
_GZIP: Final = b"\x1f\x8b"
_CHUNK: Final = 64 * 1024


def count_lines(path: str, choice: Choice = "auto") -> int | None:
    """How many lines `read_lines` will give; None for what can be read only once, or is no plain text.

    Raises:
        OSError: The file cannot be read.
    """
    if path == "-" or not Path(path).is_file() or format_of(path, choice) != "text":
        return None
    reader, count = open_reader("text"), 0
    with Path(path).open("rb") as file:
        if file.peek(len(_GZIP)).startswith(_GZIP):
            return None
        while chunk := file.read(_CHUNK):
            count += len(reader.feed(chunk))
    return count + len(reader.close())


async def read_lines(path: str, choice: Choice = "auto", column: str | None = None) -> AsyncIterator[Line]:
    """The URLs of a file (`-`: of standard input), which may be packed with gzip.

    Args:
        path: The file.
        choice: Its format; `auto` goes by the name, and takes everything else for text.
        column: Where the URL stands in CSV and NDJSON.

    Raises:
        OSError: The file cannot be read.
        InputError: It is not of its format; the place is the file, the message has the place in it.
    """
    try:
        reader = open_reader(format_of(path, choice), column)
        gunzip: GzipReader | None = None
        begun = False
        async for chunk in _chunks(path):
            if not begun:
                begun = True
                gunzip = GzipReader() if _GZIP.startswith(chunk[: len(_GZIP)]) else None
            for plain in gunzip.feed(chunk) if gunzip else (chunk,):
                for line in reader.feed(plain):
                    yield line
        if gunzip:
            gunzip.close()
        for line in reader.close():
            yield line
    except InputError as error:
        raise InputError(str(error), "standard input" if path == "-" else path) from None


def format_of(path: str, choice: Choice) -> InputFormat:
    """What a file is to be read as."""
    if choice != "auto":
        return choice
    name = PurePath(path.lower())
    return _BY_SUFFIX.get((PurePath(name.stem) if name.suffix == ".gz" else name).suffix, "text")


def _open(path: str) -> IO[bytes]:
    if path != "-":
        return Path(path).open("rb")
    if sys.stdin is None:  # started with it closed
        raise OSError(errno.EBADF, os.strerror(errno.EBADF), "standard input")
    return os.fdopen(sys.stdin.fileno(), "rb", buffering=0)


async def _chunks(path: str) -> AsyncIterator[bytes]:
    with _open(path) as file:
        if not _may_wait(file):
            while chunk := file.read(_CHUNK):
                yield chunk
        else:  # it must not hold up the probes while it has nothing
            reader = asyncio.StreamReader()
            loop = asyncio.get_running_loop()
            descriptor = os.dup(file.fileno())
            transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), file)
            try:
                while chunk := await reader.read(_CHUNK):
                    yield chunk
            finally:
                transport.close()
                os.set_blocking(descriptor, True)  # a terminal is shared with whoever comes after us
                os.close(descriptor)


def _may_wait(file: IO[bytes]) -> bool:
    """Whether reading waits for somebody. Of the others (files, /dev/null) an event loop cannot be told."""
    mode = os.fstat(file.fileno()).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or file.isatty()
