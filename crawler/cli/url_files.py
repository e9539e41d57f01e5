"""Read URL lists from files and from standard input, line by line."""

import asyncio
import errno
import os
import stat
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from pathlib import Path, PurePath
from typing import IO, Final, Literal, NamedTuple, TypeAlias, get_args

from crawler.core.errors import InputError
from crawler.core.urls import Line
from crawler.formats.unpacking import MAGIC_BYTES, Unpacker, find_unpacker, is_beginning_of_magic
from crawler.formats.url_lists import InputFormat, open_reader

__all__ = [
    "FORMAT_CHOICES", "FormatChoice", "Sources", "count_lines", "format_of", "has_piped_input", "is_file", "read_lines"
]  # fmt: skip

FormatChoice: TypeAlias = Literal["auto", InputFormat]
FORMAT_CHOICES: Final[tuple[FormatChoice, ...]] = get_args(FormatChoice)

_FORMATS: Final[dict[str, InputFormat]] = {
    ".txt": "text",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
}
_PACKED: Final = frozenset({".gz", ".xz", ".bz2", ".zst", ".zip"})
_MAX_PATH_CHARACTERS: Final = 4096
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
        try:
            if find_unpacker(file.peek(MAGIC_BYTES)[:MAGIC_BYTES]) is not None:
                return None
            while chunk := file.read(_CHUNK_BYTES):
                count += len(reader.feed(chunk))
            return count + len(reader.close())
        except InputError:  # `read_lines` raises it
            return None


class Sources(NamedTuple):
    """Where a command reads URLs.

    Attributes:
        arguments: URLs and files, as on the command line; `-` is standard input.
        choice: The format of the files.
        column: Where the URL is in CSV and NDJSON.
        delimiter: What separates the cells of CSV.
    """

    arguments: Sequence[str]
    choice: FormatChoice = "auto"
    column: str | None = None
    delimiter: str | None = None

    @property
    def files(self) -> list[str]:
        """The arguments that are files."""
        return [argument for argument in self.arguments if is_file(argument)]

    def count_lines(self) -> int | None:
        """Count the lines; None unless all files are plain text that can be read twice.

        Raises:
            OSError: A file cannot be read.
        """
        counts = [count_lines(each, self.choice) if is_file(each) else 1 for each in self.arguments]
        return None if None in counts else sum(filter(None, counts))

    async def read(self) -> AsyncGenerator[Line, None]:
        """Yield the lines, in the order of the arguments.

        Raises:
            OSError: A file cannot be read.
            InputError: It does not have its format.
        """
        for argument in self.arguments:
            if is_file(argument):
                async for line in read_lines(argument, self.choice, self.column, self.delimiter):
                    yield line
            else:
                try:
                    argument.encode()
                    yield argument
                except UnicodeEncodeError:  # the shell's bytes are not UTF-8
                    yield os.fsencode(argument)


def is_file(argument: str) -> bool:
    """Whether an argument is a list of URLs: standard input, or a file that exists."""
    if argument == "-":
        return True
    if "://" in argument or "\0" in argument or len(argument) > _MAX_PATH_CHARACTERS:
        return False
    return Path(argument).exists() and not Path(argument).is_dir()


def has_piped_input() -> bool:
    """Whether standard input is a pipe or a file, which `crawler probe` without arguments reads."""
    if sys.stdin is None:
        return False
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError):  # it is no stream of the system
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISREG(mode)


async def read_lines(
    path: str, choice: FormatChoice = "auto", column: str | None = None, delimiter: str | None = None
) -> AsyncIterator[Line]:
    """Yield the URLs of a file, compressed or not.

    Args:
        path: The file; `-` is standard input.
        choice: Its format; `auto` chooses by the file name, and text for an unknown name.
        column: Where the URL is in CSV and NDJSON.
        delimiter: What separates the cells of CSV.

    Raises:
        OSError: The file cannot be read.
        InputError: It does not have its format; `place` is the file, the message has the place in the file.
    """
    try:
        reader = open_reader(format_of(path, choice), column, delimiter)
        unpacker: Unpacker | None = None
        is_first = True
        async for chunk in _begin_whole(_chunks(path)):
            if is_first:
                is_first = False
                unpacker = find_unpacker(chunk[:MAGIC_BYTES])
            for plain in unpacker.feed(chunk) if unpacker else (chunk,):
                for line in reader.feed(plain):
                    yield line
        if unpacker:
            unpacker.close()
        for line in reader.close():
            yield line
    except InputError as error:
        raise InputError(str(error), "standard input" if path == "-" else path) from None


async def _begin_whole(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield chunks, of which the first shows how the list is compressed."""
    first: bytes | None = b""
    async for chunk in chunks:
        if first is None:
            yield chunk
        elif not is_beginning_of_magic(first := first + chunk):
            yield first
            first = None
    if first:
        yield first


def format_of(path: str, choice: FormatChoice) -> InputFormat:
    """Return the format to read a file in."""
    if choice != "auto":
        return choice
    name = PurePath(path.lower())
    return _FORMATS.get((PurePath(name.stem) if name.suffix in _PACKED else name).suffix, "text")


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
