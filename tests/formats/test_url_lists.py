"""Every input format, fed in pieces of any size."""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from itertools import cycle
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.core.errors import InputError
from crawler.core.urls import MAX_URL_CHARACTERS, Line
from crawler.formats.gzip_reader import GzipReader
from crawler.formats.json_batch import MAX_VALUE_BYTES
from crawler.formats.url_lists import INPUT_FORMATS, InputFormat, open_reader

LONGEST_LINE: Final = 2 * MAX_URL_CHARACTERS
BOM: Final = b"\xef\xbb\xbf"
ALL_AT_ONCE: Final = [10_000_000]

sizes = st.lists(st.integers(1, 20), min_size=1, max_size=5)
"""Sizes of the pieces of an input; the list repeats."""


def pieces(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    start = 0
    for size in cycle(sizes):
        if start >= len(data):
            return
        yield data[start : start + size]
        start += size


def read(format_: InputFormat, data: bytes, sizes: list[int] = ALL_AT_ONCE, column: str | None = None) -> list[Line]:
    reader = open_reader(format_, column)
    return [*(line for piece in pieces(data, sizes) for line in reader.feed(piece)), *reader.close()]


def refused(
    format_: InputFormat, data: bytes, sizes: list[int] = ALL_AT_ONCE, column: str | None = None
) -> tuple[str, str]:
    with pytest.raises(InputError) as caught:
        read(format_, data, sizes, column)
    return caught.value.place, caught.value.message


# --- All formats ---

SAME: dict[InputFormat, bytes] = {
    "text": b"http://a/\r\n\nhttp://b/\n",
    "ndjson": b'"http://a/"\n{"n": 1, "url": "http://b/"}\n',
    "csv": b'url,name\r\n"http://a/",a\r\nhttp://b/,"b, the\r\nsecond"\r\n',
    "json": b'{"urls": ["http://a/", "http://b/"]}',
}


def text_of(line: Line) -> str:
    return line if isinstance(line, str) else line.decode()


@pytest.mark.parametrize("format_", INPUT_FORMATS)
def test_the_size_of_the_pieces_does_not_change_the_urls(format_: InputFormat) -> None:
    for size in range(1, len(SAME[format_]) + 1):
        assert [*map(text_of, read(format_, SAME[format_], [size]))] == ["http://a/", "http://b/"]


@pytest.mark.parametrize("format_", ["text", "json"])
def test_a_format_without_columns_refuses_a_column(format_: InputFormat) -> None:
    with pytest.raises(InputError, match="has no columns"):
        open_reader(format_, "url")


@pytest.mark.parametrize("format_", INPUT_FORMATS)
def test_a_byte_order_mark_is_dropped(format_: InputFormat) -> None:
    for step in (1, 2, 3, 4, 100):
        assert [*map(text_of, read(format_, BOM + SAME[format_], [step]))] == ["http://a/", "http://b/"]


@pytest.mark.parametrize("data", [b"a\rb\n", b"a\rb\r\nc", b"\ra\n"])
@pytest.mark.parametrize("step", [1, 100])
def test_ends_of_lines_of_two_kinds_are_refused(data: bytes, step: int) -> None:
    """A URL with a stray CR in it must not become two."""
    place, message = refused("text", data, [step])
    assert (place, message[:24]) == ("", "some lines end in CR and")


@pytest.mark.parametrize("format_", ["text", "ndjson", "csv"])
def test_lines_are_returned_as_soon_as_they_are_complete(format_: InputFormat) -> None:
    reader = open_reader(format_)
    found: list[Line] = []
    lines = SAME[format_].splitlines(keepends=True)
    for line in lines[: -1 if format_ != "csv" else -2]:
        found += reader.feed(line)
    assert [*map(text_of, found)] == ["http://a/"]


# --- Text ---


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (BOM, []),
        (b"\xef", [b"\xef"]),
        (b"\xef\xbb", [b"\xef\xbb"]),
        (b" \n\t\n\r\n", []),
        (b" a b \r\n\tc", [b"a b", b"c"]),
        (b"a\rb", [b"a", b"b"]),
        (b"a\r\rb\r", [b"a", b"b"]),
        (b"\ra\r#b\rc", [b"a", b"c"]),
        (b"a\r\nb\rc\n", [b"a", b"b\rc"]),
        (b"# a list\na\n #b\nc # d\n", [b"a", b"c # d"]),
        (b"a\n" + BOM + b"b", [b"a", BOM + b"b"]),
    ],
)
def test_text_has_a_url_a_line(data: bytes, lines: list[Line]) -> None:
    assert read("text", data) == read("text", data, [1]) == lines


@given(st.lists(st.sampled_from([b"a", b"http://a/", b"\n", b"\r\n", b" ", b"\t", b"\xff", BOM])).map(b"".join), sizes)
def test_any_pieces_of_text_give_the_same_lines(data: bytes, sizes: list[int]) -> None:
    stripped = [line.strip() for line in data.removeprefix(BOM).split(b"\n")]
    assert read("text", data, sizes) == [line for line in stripped if line]


@pytest.mark.parametrize("step", [1000, 100_000, 10_000_000])
def test_a_line_of_text_that_is_too_long_is_cut(step: int) -> None:
    blank, long = b" " * 200_000, b"x" * (LONGEST_LINE - 2)
    data = b"\n".join([b"a", long + b"  y" + long, blank + b"b" + blank, long + b"yz", long + b"yz" * 100_000, blank])
    assert read("text", data, [step]) == [b"a", long, b"b", long + b"yz", long + b"yz"]


# --- NDJSON ---


def test_ndjson_has_strings_or_objects() -> None:
    data = b'"a"\n\n \r\n{"url": "b", "x": [1]}\r\n {"url":"\\u00e9","url":"c"} \n"d"'
    assert read("ndjson", data) == read("ndjson", data, [1]) == ["a", "b", "c", "d"]
    assert read("ndjson", b'{"url": 1, "a b": "c"}', column="a b") == ["c"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"1", "Expected `str | object`, got `int`"),
        (b"[1]", "Expected `str | object`, got `array`"),
        (b"{}", "Object missing required field `url`"),
        (b'{"URL": "a"}', "Object missing required field `url`"),
        (b'{"url": null}', "Expected `str`, got `null`"),
        (b"http://a/", "is not JSON: invalid character (byte 0)"),
        (b'"a" "b"', "is not JSON: trailing characters (byte 5)"),
        (b'{"url":', "is not JSON: Input data was truncated"),
        (b'"\xff"', "is not JSON: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
        (b'{"a":' + b"[" * 100_000, "nested too deeply"),
    ],
)
@pytest.mark.parametrize("step", [7, 10_000_000])
def test_a_wrong_line_of_ndjson_is_refused_with_its_number(line: bytes, message: str, step: int) -> None:
    assert refused("ndjson", b'"a"\n\n' + line + b'\n"b"\n', [step]) == ("line 3", message)
    assert refused("ndjson", line, [step]) == ("line 1", message)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))), st.sampled_from([b"\n", b"\r\n"]), sizes)
def test_any_strings_of_ndjson_are_returned_unchanged(lines: list[str], end: bytes, sizes: list[int]) -> None:
    data = end.join(json.dumps(line if line else {"url": line}).encode() for line in lines)
    assert read("ndjson", data, sizes) == lines


# --- CSV ---

HEADERS = b'id,"Link, short",link,URL,2\r\n1,2,3,4,5\r\n'


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        (None, "4"),
        ("url", "4"),
        ("link", "3"),
        ("LINK ", "3"),
        ("link, short", "2"),
        ("2", "5"),
        ("1", "1"),
        ("3", "3"),
        ("5", "5"),
    ],
)
def test_a_column_is_chosen_by_name_or_number(column: str | None, cell: str) -> None:
    assert read("csv", HEADERS, column=column) == [cell]


def test_an_exact_name_comes_before_another_case() -> None:
    assert read("csv", b"URL,url\n1,2\n") == ["2"]
    assert read("csv", b"URL,x,url\n1,2,3\n", column="URL") == ["1"]


def test_a_single_column_needs_no_name() -> None:
    assert read("csv", b" anything\nhttp://a/\n") == ["http://a/"]


@pytest.mark.parametrize("column", ["", "0", "6", "-1", "1.0", "links", "9" * 5000])
def test_an_unknown_column_is_refused_with_the_list_of_columns(column: str) -> None:
    place, message = refused("csv", b"\n" + HEADERS, [3], column)
    assert place == "line 2"
    assert message == f"no column {column!r} among 'id', 'Link, short', 'link', 'URL', '2'"


def test_a_header_row_is_needed() -> None:
    assert refused("csv", b"a,b\n1,2\n") == ("line 1", "no column 'url' among 'a', 'b'")
    assert refused("csv", b"") == refused("csv", b"\r\n\n") == ("line 1", "has no header row")
    message = "the header row has a URL instead of a column name"
    assert refused("csv", b"http://a/\nhttp://b/\n") == ("line 1", message)
    assert refused("csv", b"1,http://a/\n2,http://b/\n", column="2") == ("line 1", message)


def test_a_long_header_row_is_shortened_in_the_message() -> None:
    _, message = refused("csv", b",".join(b"%d" % number for number in range(100_000)), column="x")
    assert len(message) < 500


def test_blank_rows_of_csv_are_skipped() -> None:
    data = b'n,url\r\n1,a\r\n\r\n2\r\n3,\r\n4,"b\r\n,""c"""\r\n \r\n,\r\n5,"d"e"\r\n6, "f"\r\n7,h'
    lines = ["a", "", "", 'b\r\n,"c"', "", 'de"', ' "f"', "h"]
    assert read("csv", data) == read("csv", data, [1]) == lines
    assert read("csv", b'url\n""\n\na\n') == ["", "a"]


def test_a_cell_that_is_not_utf_8_is_returned_as_bytes() -> None:
    assert read("csv", b"url,\xff\nhttp://\xe9/,\n\xc3\xa9,\xff\n") == [
        b"http://\xe9/",
        "\N{LATIN SMALL LETTER E WITH ACUTE}",
    ]


@pytest.mark.parametrize("step", [1, 10_000_000])
def test_broken_csv_is_refused_with_its_line(step: int) -> None:
    assert refused("csv", b'url\na\n"b\nc\n', [step]) == ("line 3", "a quoted cell has no end")
    assert refused("csv", b'url\n"', [step]) == ("line 2", "a quoted cell has no end")
    long = b'url,text\n"a\nb",\nc,' + b"x" * 131_073 + b"\n"
    assert refused("csv", long, [step]) == ("line 4", "field larger than field limit (131072)")
    place, message = refused("csv", b'url\n"a\nb"\nc\rd\n', [step])
    assert place == "line 4"
    assert message.startswith("new-line character")


def rows_of(text: str) -> list[list[str]] | None:
    """The cells that the csv module reads; None if it fails or the last row is incomplete."""
    try:
        *rows, last = csv.reader(io.StringIO(text + "\nend", newline="\n"))
    except csv.Error:
        return None
    return rows if last == ["end"] else None


@given(st.lists(st.sampled_from([*'ab,"\n\r ', "\r\n", '""', ',"', '",'])).map("".join), sizes)
def test_the_csv_module_reads_the_same(body: str, sizes: list[int]) -> None:
    text = "n,url\n" + body
    rows = rows_of(text)
    try:
        lines = read("csv", text.encode(), sizes)
    except InputError:
        assert rows is None or any(len(row) > 2 for row in rows)
    else:
        assert rows is not None
        whole = [row for row in rows[1:] if row and not (len(row) == 1 and row[0].isspace())]
        assert lines == [row[1] if len(row) > 1 else "" for row in whole]


# --- Limits ---


@pytest.mark.parametrize("step", [1000, 70_000, 10_000_000])
def test_long_lines_are_refused(step: int) -> None:
    long = b"x" * MAX_VALUE_BYTES
    message = "longer than 1048576 bytes"
    assert refused("ndjson", b'"a"\n"' + long, [step]) == ("line 2", message)
    assert refused("ndjson", b'"a"\n"' + long + b'"\n"b"', [step]) == ("line 2", message)
    assert read("ndjson", b'"' + long[2:] + b'"\n', [step]) == [long[2:].decode()]
    assert refused("csv", b"url\na\n" + long + b"x,", [step]) == ("line 3", message)
    for lines in (b"\nc" * (MAX_VALUE_BYTES // 2 + 1), b"\n" * (MAX_VALUE_BYTES + 1)):
        assert refused("csv", b'url\na\n"b' + lines, [step]) == ("line 3", message)


@pytest.mark.parametrize("format_", ["text", "ndjson", "csv"])
def test_a_large_list_is_returned_piece_by_piece(format_: InputFormat) -> None:
    head, line = {"text": (b"", b"%s\n"), "ndjson": (b"", b'{"url": "%s"}\n'), "csv": (b"n,url\n", b'"1\n2",%s\n')}[
        format_
    ]
    reader, found = open_reader(format_), 0
    reader.feed(head)
    for start in range(0, 200_000, 1000):
        urls = [f"http://host{number}/" for number in range(start, start + 1000)]
        data = b"".join(line % url.encode() for url in urls)
        assert [*map(text_of, reader.feed(data))] == urls
        found += len(urls)
    assert reader.close() == []
    assert found == 200_000


# --- gzip ---


def unpacked(data: bytes, sizes: list[int] = ALL_AT_ONCE) -> bytes:
    gunzip = GzipReader()
    plain = b"".join(part for piece in pieces(data, sizes) for part in gunzip.feed(piece))
    gunzip.close()
    return plain


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=4), st.integers(0, 30), sizes)
def test_any_members_of_gzip_in_any_pieces_are_decompressed(
    members: list[bytes], padding: int, sizes: list[int]
) -> None:
    data = b"".join(map(gzip.compress, members)) + b"\0" * padding
    assert unpacked(data, sizes) == b"".join(members)
    for end in range(len(data) - padding - len(gzip.compress(members[-1])) + 1, len(data) - padding):
        with pytest.raises(InputError, match="ends too early"):
            unpacked(data[:end], sizes)


@pytest.mark.parametrize("size", [0, 1024 * 1024 - 1, 1024 * 1024, 1024 * 1024 + 1, 3 * 1024 * 1024 + 258])
@pytest.mark.parametrize("level", [0, 1, 9])
def test_output_that_fills_a_piece_is_decompressed_to_its_last_byte(size: int, level: int) -> None:
    assert unpacked(gzip.compress(b"x" * size, level)) == b"x" * size


def test_data_that_is_not_gzip_is_refused() -> None:
    good = gzip.compress(b"http://a/\n" * 100)
    wrong_sum = good[:-8] + zlib.crc32(b"x").to_bytes(4, "little") + good[-4:]
    for data in (b"http://a/\n", good[:20] + b"\xff\xff\xff\xff" + good[24:], wrong_sum, good + b"rest"):
        with pytest.raises(InputError, match="is not gzip, or damaged"):
            unpacked(data)
    with pytest.raises(InputError, match="ends too early"):
        unpacked(b"")


def test_a_decompression_bomb_is_never_in_memory_as_a_whole() -> None:
    bomb = gzip.compress(gzip.compress(b" " * 20_000_000))
    gunzip = GzipReader()
    inner = GzipReader()
    reader = open_reader("text")
    unpacked = 0
    for part in gunzip.feed(bomb):
        for plain in inner.feed(part):
            assert len(plain) <= 64 * 1024
            assert reader.feed(plain) == []
            unpacked += len(plain)
    inner.close()
    gunzip.close()
    assert unpacked == 20_000_000
