"""Read URL lists from files and from standard input, line by line."""

import asyncio
import errno
import os
import stat
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from pathlib import Path, PurePath
from typing import IO, Final, Literal, TypeAlias, get_args

from crawler.core.errors import InputError
from crawler.core.urls import Line
from crawler.formats.gzip_reader import GzipReader
from crawler.formats.url_lists import InputFormat, open_reader

__all__ = ["FORMAT_CHOICES", "FormatChoice", "count_lines", "format_of", "read_lines", "read_urls"]

FormatChoice: TypeAlias = Literal["auto", InputFormat]
FORMAT_CHOICES: Final[tuple[FormatChoice, ...]] = get_args(FormatChoice)

_FORMATS: Final[dict[str, InputFormat]] = {
    ".txt": "text",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".csv": "csv",
    ".json": "json",
}
_GZIP_MAGIC: Final = b"\x1f\x8b"
_CHUNK_BYTES: Final = 64 * 1024


def count_lines(path: str, choice: FormatChoice = "auto") -> int | None:
    """Count the lines that `read_lines` will yield; None unless the file is plain text that can be read twice.

    Raises:
        OSError: The file cannot be read.
    """
    if path == "-" or not Path(path).is_file() or format_of(path, choice) != "text":
        return None
    reader, count = open_reader("text"), 0
    with Path(path).open("rb") as file:
        if file.peek(len(_GZIP_MAGIC)).startswith(_GZIP_MAGIC):
            return None
        while chunk := file.read(_CHUNK_BYTES):
            count += len(reader.feed(chunk))
    return count + len(reader.close())


async def read_urls(
    urls: Sequence[str], file: str | None, choice: FormatChoice, column: str | None
) -> AsyncGenerator[Line, None]:
    """Yield the URLs of the command line, then those of a file, if there is one."""
    for url in urls:
        try:
            url.encode()
            yield url
        except UnicodeEncodeError:  # the shell's bytes are not UTF-8
            yield os.fsencode(url)
    if file is not None:
        async for line in read_lines(file, choice, column):
            yield line


async def read_lines(path: str, choice: FormatChoice = "auto", column: str | None = None) -> AsyncIterator[Line]:
    """Yield the URLs of a file, compressed with gzip or not.

    Args:
        path: The file; `-` is standard input.
        choice: Its format; `auto` chooses by the file name, and text for an unknown name.
        column: Where the URL is in CSV and NDJSON.

    Raises:
        OSError: The file cannot be read.
        InputError: It does not have its format; `place` is the file, the message has the place in the file.
    """
    try:
        reader = open_reader(format_of(path, choice), column)
        gunzip: GzipReader | None = None
        is_first = True
        async for chunk in _chunks(path):
            if is_first:
                is_first = False
                gunzip = GzipReader() if _GZIP_MAGIC.startswith(chunk[: len(_GZIP_MAGIC)]) else None
            for plain in gunzip.feed(chunk) if gunzip else (chunk,):
                for line in reader.feed(plain):
                    yield line
        if gunzip:
            gunzip.close()
        for line in reader.close():
            yield line
    except InputError as error:
        raise InputError(str(error), "standard input" if path == "-" else path) from None


def format_of(path: str, choice: FormatChoice) -> InputFormat:
    """Return the format to read a file in."""
    if choice != "auto":
        return choice
    name = PurePath(path.lower())
    return _FORMATS.get((PurePath(name.stem) if name.suffix == ".gz" else name).suffix, "text")


def _open(path: str) -> IO[bytes]:
    if path != "-":
        return Path(path).open("rb")
    if sys.stdin is None:  # closed when the process started
        raise OSError(errno.EBADF, os.strerror(errno.EBADF), "standard input")
    return os.fdopen(sys.stdin.fileno(), "rb", buffering=0)


async def _chunks(path: str) -> AsyncIterator[bytes]:
    with _open(path) as file:
        if not _can_block(file):
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk
        else:  # wait for it on the event loop, so that probes continue meanwhile
            reader = asyncio.StreamReader()
            loop = asyncio.get_running_loop()
            descriptor = os.dup(file.fileno())
            transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), file)
            try:
                while chunk := await reader.read(_CHUNK_BYTES):
                    yield chunk
            finally:
                transport.close()
                os.set_blocking(descriptor, True)  # a terminal is shared with other processes, which expect it to block
                os.close(descriptor)


def _can_block(file: IO[bytes]) -> bool:
    """Whether a read can wait for a writer. An event loop cannot watch other files, such as regular ones."""
    mode = os.fstat(file.fileno()).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or file.isatty()
