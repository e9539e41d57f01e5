"""Tables and encodings that other programs write: each is read exactly, or refused with its line and a reason.

The witness is the writer: Python's csv module with any dialect, whose cells are known.
"""

import csv
import io
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.core.errors import InputError
from crawler.core.urls import Line
from crawler.formats.url_lists import INPUT_FORMATS, InputFormat, open_reader

DELIMITERS = [",", ";", "\t", "|"]
URLS = ["http://a/", "http://a/b;c", "http://a/b,c", "http://a/b|c", 'http://a/"', "http://a/?q=1;2,3|4"]


def read(data: bytes, step: int = 1000, column: str | None = None, delimiter: str | None = None) -> list[Line]:
    reader = open_reader("csv", column, delimiter)
    lines: list[Line] = []
    for start in range(0, len(data), step):
        lines += reader.feed(data[start : start + step])
    return [*lines, *reader.close()]


def refusal(data: bytes, step: int = 1000, **how: str) -> str:
    with pytest.raises(InputError) as caught:
        read(data, step, **how)
    return str(caught.value)


# --- Dialects ---


@pytest.mark.parametrize("delimiter", DELIMITERS)
@pytest.mark.parametrize("step", [1, 1000])
def test_the_delimiter_is_found_out_from_the_header(delimiter: str, step: int) -> None:
    rows = [["n", "url", "1,5"], ["1", "http://a/", "x"], ["2", "http://b/", ""]]
    text = "\r\n".join(delimiter.join(row) for row in rows).replace("1,5", "price")
    assert read(text.encode(), step) == ["http://a/", "http://b/"]


@pytest.mark.parametrize(
    "data",
    [
        b"sep=;\nurl;title\nhttp://a/;home\n",
        b"SEP=;\r\n\r\nurl;title\r\nhttp://a/;home",
        b'"sep=;"\nurl;title\nhttp://a/;home\n',
        b"url;title, long\nhttp://a/;home, sweet\n",  # the comma finds no column `url`
        b'"url";"a;b"\n"http://a/";"x;y"\n',
        b"\n\nurl\ttitle\nhttp://a/\thome\n",
        b"url|title\rhttp://a/|home\r",
        b"url;price\nhttp://a/;1,5\n",
    ],
)
@pytest.mark.parametrize("step", [1, 1000])
def test_tables_as_programs_write_them(data: bytes, step: int) -> None:
    assert read(data, step) == ["http://a/"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"url\nhttp://a/b,c\n", "line 2: has 2 cells for 1 column; a cell with ',' in it must be quoted"),
        (b"url\n\nhttp://a/,\n", "line 3: has 2 cells for 1 column; a cell with ',' in it must be quoted"),
        (b"url,n\nhttp://a/b,c,1\n", "line 2: has 3 cells for 2 columns; a cell with ',' in it must be quoted"),
        (b"url;n\nhttp://a/b;c;1\n", "line 2: has 3 cells for 2 columns; a cell with ';' in it must be quoted"),
        (b'url;n\n1;"\n";2\n', "line 3: has 3 cells for 2 columns; a cell with ';' in it must be quoted"),
        (b"url;a,url\nhttp://a/;b\n", "line 1: ',' or ';' may separate the columns; name the delimiter"),
        (b"url^title\nhttp://a/^home\n", "line 1: '^' may separate the columns; name the delimiter, or the column"),
        (b"url:title\nhttp://a/:home\n", "line 1: ':' may separate the columns; name the delimiter, or the column"),
        (b"'url'\n'http://a/'\n", 'line 1: "\'" may separate the columns; name the delimiter, or the column'),
        (b"sep=;\nurl,n\nhttp://a/,1\n", "line 2: ',' may separate the columns; name the delimiter, or the column"),
    ],
)
@pytest.mark.parametrize("step", [1, 1000])
def test_a_url_that_may_be_cut_is_refused_with_its_line(data: bytes, message: str, step: int) -> None:
    assert refusal(data, step) == message


def test_a_delimiter_can_be_named() -> None:
    assert read(b"url;a,url\nhttp://a/;b,c\n", delimiter=";") == ["http://a/"]
    assert read(b"url:n\nx:1\n", delimiter=":") == ["x"]
    for name in ("tab", "\t", "\\t"):
        assert read(b"url\tn\nhttp://a/\t1\n", delimiter=name) == ["http://a/"]


@pytest.mark.parametrize("delimiter", ["", ";;", '"', "\n", "\0", "x", "1", "\N{BULLET}"])
def test_what_cannot_be_a_delimiter_is_refused(delimiter: str) -> None:
    with pytest.raises(InputError) as caught:
        open_reader("csv", None, delimiter)
    assert caught.value.place == "delimiter"


@pytest.mark.parametrize("format_", [each for each in INPUT_FORMATS if each != "csv"])
def test_only_csv_has_a_delimiter(format_: InputFormat) -> None:
    with pytest.raises(InputError, match="has no delimiter to choose"):
        open_reader(format_, None, ";")


cells = st.sampled_from([*URLS, "", " ", "x", "a b", "1,5", "a;b", "a\nb", '"quoted"', "\N{SNOWMAN}"])


@given(
    st.integers(1, 4).flatmap(lambda width: st.lists(st.lists(cells, min_size=width, max_size=width), max_size=5)),
    st.sampled_from(DELIMITERS),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le-bom"]),
    st.integers(1, 40),
)
def test_any_table_that_python_writes_is_read_exactly_or_refused(
    rows: list[list[str]], delimiter: str, quoting: Literal[0, 1, 2], end: str, encoding: str, step: int
) -> None:
    width = len(rows[0]) if rows else 1
    header = [f"column {number}" for number in range(1, width)] + ["url"]
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, quoting=quoting, lineterminator=end)
    writer.writerows([header, *rows])
    text = file.getvalue()
    data = b"\xff\xfe" + text.encode("utf-16-le") if encoding == "utf-16-le-bom" else text.encode(encoding)
    expected = [row[-1] for row in rows if len(row) > 1 or not row[0].isspace()]
    try:
        lines = read(data, step)
    except InputError as error:
        # A lone column does not show its delimiter, so a comma in it may be one.
        assert width == 1
        assert "must be quoted" in str(error)
    else:
        assert lines == expected


# --- Encodings ---

ENCODED = {
    "utf-8": b"\xef\xbb\xbf",
    "utf-16-le": b"\xff\xfe",
    "utf-16-be": b"\xfe\xff",
    "utf-32-le": b"\xff\xfe\0\0",
    "utf-32-be": b"\0\0\xfe\xff",
}
LISTS: dict[InputFormat, str] = {
    "text": "http://a/\nhttp://\u20ac/\n",
    "csv": "url\nhttp://a/\nhttp://\u20ac/\n",
    "ndjson": '"http://a/"\n{"url": "http://\u20ac/"}\n',
    "json": '{"urls": ["http://a/", "http://\u20ac/"]}',
}


@pytest.mark.parametrize("encoding", ENCODED)
@pytest.mark.parametrize("format_", INPUT_FORMATS)
@pytest.mark.parametrize("step", [1, 3, 1000])
def test_a_byte_order_mark_names_the_encoding(encoding: str, format_: InputFormat, step: int) -> None:
    data = ENCODED[encoding] + LISTS[format_].encode(encoding)
    reader = open_reader(format_)
    lines: list[Line] = []
    for start in range(0, len(data), step):
        lines += reader.feed(data[start : start + step])
    lines += reader.close()
    assert [line.decode() if isinstance(line, bytes) else line for line in lines] == ["http://a/", "http://\u20ac/"]


@pytest.mark.parametrize("format_", INPUT_FORMATS)
@pytest.mark.parametrize("data", [b"\xff\xfea", b"\xff\xfe\x00\xd8a\0", b"\xfe\xff\xdc\0"])
def test_what_is_not_in_the_encoding_of_its_mark_is_refused(data: bytes, format_: InputFormat) -> None:
    reader = open_reader(format_)
    with pytest.raises(InputError, match="although its byte order mark says so"):
        reader.feed(data)
        reader.close()
