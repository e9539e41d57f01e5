"""URLs of a file or a pipe, as they come."""

import asyncio
import bz2
import gzip
import lzma
import os
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import cast

import pytest
from backports import zstd
from hypothesis import assume, example, given
from hypothesis import strategies as st

from crawler.cli.url_files import FORMAT_CHOICES, FormatChoice, count_lines, format_of, read_lines
from crawler.core.errors import InputError
from crawler.core.urls import Line

DEADLINE = 5.0
"""Seconds that no reading here takes."""


MAGIC = (
    b"\x1f\x8b", b"\xfd7zXZ\x00", b"BZh", b"\x28\xb5\x2f\xfd", b"PK\x03\x04",
    b"%PDF", b"PAR1", b"SQLite f", b"\xd0\xcf\x11\xe0",
)  # fmt: skip


async def lines_of(path: Path | str, choice: FormatChoice = "auto", column: str | None = None) -> list[Line]:
    async with asyncio.timeout(DEADLINE):
        return [line async for line in read_lines(str(path), choice, column)]


@pytest.fixture
def file(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "urls.txt"
    path.write_bytes(content)
    return path


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"\n", []),
        (b"a\nb\n", [b"a", b"b"]),
        (b"a\nb", [b"a", b"b"]),
        (b"a\r\nb\r\n", [b"a", b"b"]),
        (b"\n\na\n \t \n\r\nb\n\n", [b"a", b"b"]),
        (b"  a  \n\tb\t\n", [b"a", b"b"]),
        (b"a b\n", [b"a b"]),
        (b"a\rb", [b"a", b"b"]),
        (b"\xef\xbb\xbfa\n", [b"a"]),
        (b"\xef\xbb\xbf\n", []),
        (b"\xff\xfea\x00\n\x00\n\x00", [b"a"]),
        ("a\u2028b\u0085c\n".encode(), ["a\u2028b\u0085c".encode()]),
    ],
)
async def test_lines_come_without_their_ends_and_blank_ones_not_at_all(
    file: Path, content: bytes, lines: list[bytes]
) -> None:
    assert await lines_of(file) == lines
    assert count_lines(str(file)) == len(lines)


@pytest.mark.parametrize("content", [b"\n".join([b"a" * 120_000, b"b", b"c" * 65_536, b"d" * 65_535])], ids=["long"])
async def test_a_line_longer_than_one_read_is_one_line(file: Path, content: bytes) -> None:
    assert await lines_of(file) == content.split(b"\n")


@given(st.lists(st.binary(max_size=40), max_size=20), st.sampled_from([b"\n", b"\r\n"]))
@example([b"\xef\xbb\xbf"], b"\n")
def test_any_file_has_as_many_lines_as_are_counted(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], end: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.txt"
    file.write_bytes(end.join(lines))
    content = file.read_bytes()
    # Other encodings, packed lists and lines that end in CR have tests of their own.
    assume(not content.startswith((b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff", *MAGIC)) and b"\r" not in b"".join(lines))
    stripped = [line.strip() for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n")]
    expected = [line for line in stripped if line and not line.startswith(b"#")]
    assert asyncio.run(lines_of(file)) == expected
    assert count_lines(str(file)) == len(expected)


# --- Formats ---

CONTENT: dict[str, bytes] = {
    "text": b"a\nb\n",
    "ndjson": b'"a"\n{"url": "b"}\n',
    "csv": b"n,url\n1,a\n2,b\n",
    "json": b'{"urls": ["a", "b"]}',
}
BY_NAME: list[tuple[str, str]] = [
    ("urls", "text"),
    ("urls.txt", "text"),
    ("urls.lst", "text"),
    ("urls.csv.old", "text"),
    ("urls.CSV", "csv"),
    ("urls.2026.csv", "csv"),
    ("urls.ndjson", "ndjson"),
    ("urls.jsonl", "ndjson"),
    ("urls.json", "json"),
    (".json", "text"),
]


@pytest.mark.parametrize(("name", "format_"), BY_NAME)
async def test_the_name_tells_the_format_and_the_content_whether_it_is_packed(
    tmp_path: Path, name: str, format_: str
) -> None:
    plain, packed = CONTENT[format_], gzip.compress(CONTENT[format_])
    for called, content in ((name, plain), (name, packed), (name + ".gz", packed), (name + ".gz", plain)):
        file = tmp_path / called
        await asyncio.to_thread(file.write_bytes, content)
        lines = await lines_of(file)
        assert [line if isinstance(line, str) else line.decode() for line in lines] == ["a", "b"], called
        assert count_lines(str(file)) == (2 if format_ == "text" and content is plain else None)


async def test_a_format_that_is_chosen_overrules_the_name(tmp_path: Path) -> None:
    file = tmp_path / "urls.csv"
    for format_, content in CONTENT.items():
        await asyncio.to_thread(file.write_bytes, content)
        assert len(await lines_of(file, cast(FormatChoice, format_))) == 2
    assert await lines_of(file, "text") == [CONTENT["json"]]
    assert count_lines(str(file), "text") == 1
    assert count_lines(str(file), "json") is None


def test_the_choices() -> None:
    assert FORMAT_CHOICES == ("auto", "text", "ndjson", "csv", "json")


async def test_the_column_is_chosen(tmp_path: Path) -> None:
    file = tmp_path / "urls.csv"
    await asyncio.to_thread(file.write_bytes, CONTENT["csv"])
    assert await lines_of(file, column="n") == ["1", "2"]


@pytest.mark.parametrize(
    ("name", "content", "column", "message"),
    [
        ("a.ndjson", b'"a"\n\n1\n', None, "line 3: Expected `str | object`, got `int`"),
        ("a.csv", b"n,link\n", None, "line 1: no column 'url' among 'n', 'link'"),
        ("a.json", b'{"urls": ["a", 1]}', None, "$.urls[1]: Expected `str`, got `int`"),
        ("a.json", b'{"urls": ["a"', None, "byte 13: ends too early"),
        ("a.txt", b"a", "url", "column: text has no columns to choose from"),
        ("a.txt", gzip.compress(b"a", mtime=0)[:-1], None, "the gzip data ends too early"),
        ("a.txt", b"\x1f\x8babc", None, "is not gzip, or damaged"),
    ],
)
async def test_a_file_that_breaks_its_format_is_an_error_that_names_file_and_place(
    tmp_path: Path, name: str, content: bytes, column: str | None, message: str
) -> None:
    file = tmp_path / name
    await asyncio.to_thread(file.write_bytes, content)
    with pytest.raises(InputError) as caught:
        await lines_of(file, column=column)
    assert (caught.value.place, caught.value.message) == (str(file), message)


async def test_gzip_comes_through_a_pipe_in_chunks_of_any_size(pipe: Path) -> None:
    reader = asyncio.ensure_future(lines_of(pipe))
    with await asyncio.to_thread(pipe.open, "wb", buffering=0) as writer:
        for byte in gzip.compress(b"a\nb"):
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
    assert await reader == [b"a", b"b"]


# --- Pipes and devices ---


async def test_lines_of_a_pipe_come_before_its_end(pipe: Path) -> None:
    async with asyncio.timeout(DEADLINE), aclosing(cast(AsyncGenerator[Line, None], read_lines(str(pipe)))) as lines:
        first = asyncio.ensure_future(anext(lines))
        with await asyncio.to_thread(pipe.open, "wb", buffering=0) as writer:
            writer.write(b"a\nb")
            assert await first == b"a"
            second = asyncio.ensure_future(anext(lines))
            writer.write(b"b\n")
            assert await second == b"bb"
        assert [line async for line in lines] == []


async def test_a_pipe_that_says_nothing_holds_nothing_up(pipe: Path) -> None:
    reader = asyncio.ensure_future(lines_of(pipe))
    with await asyncio.to_thread(pipe.open, "wb", buffering=0) as writer:
        assert await asyncio.wait_for(asyncio.sleep(0, "went on"), DEADLINE) == "went on"
        assert not reader.done()
        writer.write(b"a")
    assert await reader == [b"a"]


async def test_a_reader_that_stops_early_closes_the_pipe(pipe: Path) -> None:
    async with asyncio.timeout(DEADLINE):
        lines = cast(AsyncGenerator[Line, None], read_lines(str(pipe)))
        first = asyncio.ensure_future(anext(lines))
        with await asyncio.to_thread(pipe.open, "wb", buffering=0) as writer:
            writer.write(b"a\nb\n")
            assert await first == b"a"
            await lines.aclose()
            os.set_blocking(writer.fileno(), False)
            while True:  # the loop closes its end in its next turns
                try:
                    writer.write(b"c\n")
                except BrokenPipeError:
                    break
                await asyncio.sleep(0)


async def test_a_device_that_no_event_loop_can_watch_is_read() -> None:
    assert await lines_of("/dev/null") == []


@pytest.mark.parametrize("path", ["-", "/dev/null", "/nonexistent"])
def test_what_can_be_read_only_once_is_not_counted(path: str) -> None:
    assert count_lines(path) is None


def test_a_pipe_is_not_counted(pipe: Path) -> None:
    assert count_lines(str(pipe)) is None


async def test_what_cannot_be_read_is_an_error_that_names_it(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing", tmp_path / "missing" / "x", tmp_path / ("a" * 300)):
        with pytest.raises(OSError) as caught:
            await lines_of(path)
        assert caught.value.filename == str(path)
        assert caught.value.strerror


# --- Compressed lists ---


def pack_zstd(data: bytes) -> bytes:
    """Pack with a checksum, as the command zstd does."""
    return zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1})


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress, "xz": lzma.compress, "bzip2": bz2.compress, "zstd": pack_zstd
}  # fmt: skip


@pytest.mark.parametrize("kind", PACKERS)
async def test_a_compressed_list_is_known_by_its_first_bytes(kind: str, tmp_path: Path) -> None:
    file, lines = tmp_path / "urls.csv.any", [f"http://a/{number}".encode() for number in range(30_000)]
    pack = PACKERS[kind]
    packed = pack(b"\n".join(lines[:10_000]) + b"\n") + pack(b"\n".join(lines[10_000:]))  # two streams in a row
    await asyncio.to_thread(file.write_bytes, packed)
    assert await lines_of(file) == lines
    assert count_lines(str(file)) is None


@pytest.mark.parametrize("kind", PACKERS)
async def test_a_compressed_list_that_is_cut_or_damaged_is_refused(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "urls"
    packed = PACKERS[kind](bytes(range(256)) * 50)
    for content, reason in ((packed[:-3], "ends too early"), (packed[:30] + bytes(40) + packed[70:], "")):
        await asyncio.to_thread(file.write_bytes, content)
        with pytest.raises(InputError, match=f"{file}: .*{reason}"):
            await lines_of(file)


@pytest.mark.parametrize("suffix", ["gz", "xz", "bz2", "zst"])
async def test_the_name_before_the_suffix_says_the_format(suffix: str) -> None:
    assert [format_of(f"a.{each}.{suffix}", "auto") for each in ("csv", "tsv", "jsonl", "json", "txt")] == [
        "csv", "csv", "ndjson", "json", "text"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"PK\x03\x04" + bytes(20), "a zip archive or an Office document"),
        (b"%PDF-1.7", "a PDF document"),
        (b"PAR1" + bytes(20), "a Parquet file"),
        (b"SQLite format 3\0", "a SQLite database"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "an old Office document"),
    ],
)
async def test_what_is_no_list_is_named(content: bytes, what: str, tmp_path: Path) -> None:
    file = tmp_path / "urls"
    await asyncio.to_thread(file.write_bytes, content)
    with pytest.raises(InputError, match=f"{file}: is {what}"):
        await lines_of(file)


async def test_without_its_package_zstd_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "urls.zst"
    await asyncio.to_thread(file.write_bytes, zstd.compress(b"http://a/"))
    for name in ("compression.zstd", "backports.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r"is compressed with zstd: install backports\.zstd, or decompress it"):
        await lines_of(file)
