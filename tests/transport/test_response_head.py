"""Response heads: which are accepted, how they are parsed, and which are refused.

The witness of the tables is Chromium 156: each head was served to its `fetch`, over plain HTTP and over TLS, and the
tables say what it made of it: status, fields, body, or a net error. Where we do otherwise, a comment says so.
"""

import math
import time
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crawler.transport.http.response_head import (
    MAX_HEAD_BYTES,
    HeadError,
    NotHTTP,
    ResponseHead,
    parse_cut_head,
    parse_head,
)

OK = b"HTTP/1.1 200 OK\r\n"
Fields = list[tuple[str, str]]


def read(data: bytes) -> ResponseHead:
    """Parse a complete head."""
    parsed = parse_head(data)
    assert parsed is not None
    return parsed[0]


def fields(lines: bytes) -> Fields:
    return read(OK + lines + b"\r\n").fields


# --- Accepted, because browsers accept it ---

STATUS_LINES: dict[bytes, tuple[int, tuple[int, int]]] = {
    b"HTTP/1.1 404 Not Found": (404, (1, 1)),
    b"HTTP/1.0 404 Not Found": (404, (1, 0)),
    b"http/1.1 404 x": (404, (1, 1)),
    b"HtTp/1.0 404 x": (404, (1, 0)),
    b"HTTP/1.1 404": (404, (1, 1)),  # no reason
    b"HTTP/1.1 404 ": (404, (1, 1)),
    b"HTTP/1.1 404OK": (404, (1, 1)),
    b"HTTP/1.1   404   x": (404, (1, 1)),
    b"HTTP/1.1 404\tx": (404, (1, 1)),
    b"HTTP/1.1 404 Tr\xe8s bien \xff\x80": (404, (1, 1)),
    b"HTTP/1.1 302 Found: here": (302, (1, 1)),
    # a status of any length
    b"HTTP/1.1 099 Odd": (99, (1, 1)),
    b"HTTP/1.1 000": (0, (1, 1)),
    b"HTTP/1.1 999 Odd": (999, (1, 1)),
    b"HTTP/1.1 20 OK": (20, (1, 1)),
    b"HTTP/1.1 2000 OK": (2000, (1, 1)),
    b"HTTP/1.1 0404 OK": (404, (1, 1)),
    # no status: 200
    b"HTTP/1.1 OK": (200, (1, 1)),
    b"HTTP/1.1": (200, (1, 1)),
    b"HTTP/1.1 ": (200, (1, 1)),
    b"HTTP/1.1200 OK": (200, (1, 1)),
    b"HTTP/1.1 -20 OK": (200, (1, 1)),
    b"HTTP/1.1 OK 404": (200, (1, 1)),
    b"HTTP/1.1 \xb2\xb2\xb2 OK": (200, (1, 1)),  # superscripts
    b"HTTP/1.1\t404 x": (200, (1, 1)),
    b"HTTP/1.1 \t404 x": (200, (1, 1)),
    b"HTTP": (200, (1, 0)),
    b"HTTPS are the first letters": (200, (1, 0)),
    # other versions; only 1.1 and later ones have chunks, as the bodies show
    b"HTTP 404 OK": (404, (1, 0)),
    b"HTTP/ 404 x": (404, (1, 0)),
    b"HTTP/1 404 x": (404, (1, 0)),
    b"HTTP/1. 404 x": (404, (1, 0)),
    b"HTTP/x.y 404 x": (404, (1, 0)),
    b"HTTP/2 404": (404, (1, 0)),
    b"HTTP/0.9 404 x": (404, (1, 0)),
    b"HTTP/11 404 x": (404, (1, 0)),
    b"HTTP/1.15 404 x": (404, (1, 1)),
    b"HTTP/2.0 404 x": (404, (1, 1)),
    b"HTTP/3.7 404 x": (404, (1, 1)),
    b"HTTP/11.1 404 x": (404, (1, 1)),
}


@pytest.mark.parametrize("line", STATUS_LINES)
@pytest.mark.parametrize("stray", [b"", b"\n", b"\r\n", b"\n\n", b"\r\n\r\n", b"\n\r\n", b"abcd", b"HTT"])
def test_a_status_line_is_read_with_up_to_four_stray_bytes_before_it(line: bytes, stray: bytes) -> None:
    data = stray + line + b"\r\nA: b\r\n\r\n"
    head = read(data + b"the body")
    assert (head.status, head.version) == STATUS_LINES[line]
    assert head.fields == [("a", "b")]
    assert parse_head(data + b"the body") == (head, len(data))


@pytest.mark.parametrize("start", [b"ICY 200 OK\r\nicy-name: x\r\n\r\n", b"icy 404 no\r\n\r\n", b"ICY/1.0", b"ICYXY"])
def test_an_icy_response_is_ok_over_plain_http_and_all_of_it_is_body(start: bytes) -> None:
    parsed = parse_head(start + b"abc")
    assert parsed is not None
    assert (parsed[0].status, parsed[0].fields, parsed[1]) == (200, [], 0)
    assert not parsed[0].is_persistent
    with pytest.raises(NotHTTP):
        parse_head(start + b"abc", is_encrypted=True)


CUT: dict[bytes, tuple[int, Fields] | None] = {
    b"HTTP/1.1 404": (404, []),
    b"HTTP/1.1 404 x\r": (404, []),
    b"HTTP/1.1 404 x\r\n": (404, []),
    b"HTTP/1.1 404 x\r\nA: b": (404, [("a", "b")]),
    b"HTTP/1.1 404 x\r\nA: b\r\n": (404, [("a", "b")]),
    b"HTTP/1.1 302 x\r\nLocation: /other": (302, [("location", "/other")]),
    b"\r\nHTTP/1.1 302 x\r\nLocation: /other\r\n": (302, [("location", "/other")]),
    b"HTTP/1.1 OK\r\n": (200, []),
    b"HTTP/1.1\r\nA: b": (200, [("a", "b")]),
    b"ICY ": (200, []),
    b"HTT": None,
    b"": None,
    b"HTTP/1.1": None,  # to Chromium this is 200, and the next one 40
    b"HTTP/1.1 40": None,
}


@pytest.mark.parametrize("data", CUT)
def test_a_head_that_ends_with_the_stream_needs_a_status_line_and_no_empty_line(data: bytes) -> None:
    assert parse_head(data) is None
    head = parse_cut_head(data)
    assert (None if head is None else (head.status, head.fields)) == CUT[data]


@pytest.mark.parametrize("status", [99, 100, 101, 199, 200, 599, 600, 999])
def test_any_three_digits_are_a_status(status: int) -> None:
    assert read(b"HTTP/1.1 %03d x\r\n\r\n" % status).status == status


@pytest.mark.parametrize(
    ("status", "is_interim"),
    [(99, False), (100, True), (101, True), (102, True), (103, True), (199, True), (200, False)],
)
def test_interim_statuses(status: int, is_interim: bool) -> None:
    assert read(b"HTTP/1.1 %03d x\r\n\r\n" % status).is_interim is is_interim


FIELDS: dict[bytes, Fields] = {
    b"": [],
    b"Server: x\r\n": [("server", "x")],
    b"Server:x\r\n": [("server", "x")],
    b"SERVER: \t x y \t\r\n": [("server", "x y")],
    b"Server:\r\n": [("server", "")],
    b": x\r\n": [("", "x")],
    b"A: 1\nB: 2\n": [("a", "1"), ("b", "2")],  # bare LF
    b"A: 1\nB: 2\r\nC: 3\n": [("a", "1"), ("b", "2"), ("c", "3")],
    b"A: b: c:\r\n": [("a", "b: c:")],
    b"Na me: x\r\n": [("na me", "x")],
    b"Name : x\r\n": [("name", "x")],
    b"a line without one\r\nA: 1\r\n": [("a", "1")],
    b"A: one\r\n two\r\n\tthree\nB: 2\r\n": [("a", "one two three"), ("b", "2")],  # folded
    b"A: one\r\n \r\n  two\r\n": [("a", "one  two")],
    b"A:\r\n one\r\n": [("a", "one")],
    b" folds: nothing\r\nA: 1\r\n": [("a", "1")],
    b"A: 1\r\na: 2\r\nA: 1\r\n": [("a", "1"), ("a", "2"), ("a", "1")],
    b"A: caf\xe9 \xff\x80\r\n": [("a", "caf\xe9 \xff\x80")],
    b"\xc9: 1\r\n": [("\xe9", "1")],
    b"A: 1\rB: 2\r\n": [("a", "1"), ("b", "2")],  # bare CR
    b"A: 1\r\r\nB: 2\r\n\rC: 3\r\n": [("a", "1"), ("b", "2"), ("c", "3")],
    b"A: one\r two\r\n": [("a", "one two")],
    b"a line without one\r\n Location: /a\r\n": [("a line without one location", "/a")],  # Chromium drops both
    b"Content-Length: 2\r\nContent-Length: 2\r\n": [("content-length", "2")] * 2,
    b"Content-Length: 2\r\nContent-Length: 2, 2\r\n": [("content-length", "2"), ("content-length", "2, 2")],
    b"Content-Length: five\r\n": [("content-length", "five")],
    b"Content-Disposition: inline\r\nContent-Disposition: inline\r\n": [("content-disposition", "inline")] * 2,
    b'Content-Disposition: inline; f="a,b"\r\n': [("content-disposition", 'inline; f="a,b"')],
    b'Content-Disposition: inline; f="a\\",b"\r\n': [("content-disposition", 'inline; f="a\\",b"')],
    b'Content-Disposition: inline; f="a,b\r\n': [("content-disposition", 'inline; f="a,b')],
    b"Content-Disposition: inline, inline\r\n": [("content-disposition", "inline, inline")],
    b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n": [("content-length", "2"), ("transfer-encoding", "chunked")],
    b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\nContent-Length: 3\r\n": [
        ("transfer-encoding", "chunked"),
        ("content-length", "2"),
        ("content-length", "3"),
    ],
    b"Location: /a\r\nLocation: /a\r\n": [("location", "/a")] * 2,
}


@pytest.mark.parametrize("lines", FIELDS)
def test_fields_are_parsed_as_by_a_browser(lines: bytes) -> None:
    assert fields(lines) == FIELDS[lines]


@pytest.mark.parametrize("end", [b"\r\n\r\n", b"\n\n", b"\r\n\n", b"\n\r\n"])
def test_a_head_ends_with_an_empty_line_of_either_kind(end: bytes) -> None:
    data = b"HTTP/1.1 200 OK\r\nA: 1" + end
    parsed = parse_head(data + b"\r\n\r\nbody")
    assert parsed is not None
    assert (parsed[0].fields, parsed[1]) == ([("a", "1")], len(data))


def test_ten_thousand_fields_are_parsed() -> None:
    lines = b"".join(b"X-%d: a\r\n" % number for number in range(10_000))
    assert fields(lines) == [(f"x-{number}", "a") for number in range(10_000)]


def test_a_head_may_be_as_long_as_in_a_browser() -> None:
    def head(size: int) -> bytes:
        return OK + b"A: ".ljust(size - len(OK) - 4, b"a") + b"\r\n\r\n"

    parsed = parse_head(head(MAX_HEAD_BYTES) + b"body")
    assert parsed is not None
    assert parsed[1] == MAX_HEAD_BYTES
    with pytest.raises(HeadError, match="more than"):
        parse_head(head(MAX_HEAD_BYTES + 1))
    assert parse_head(OK.ljust(MAX_HEAD_BYTES, b"a")) is None
    with pytest.raises(HeadError, match="more than"):
        parse_head(OK.ljust(MAX_HEAD_BYTES + 1, b"a"))


def test_get_returns_the_first_value() -> None:
    head = read(OK + b"A: 1\r\nB: 2\r\na: 3\r\n\r\n")
    assert (head.get("a"), head.get("b"), head.get("c")) == ("1", "2", None)


# --- Refused, because it has no clear meaning ---

REFUSED: dict[bytes, type[HeadError]] = {
    b"<html>HTTP/0.9 has no status line</html>\n\n": NotHTTP,
    b"<!doctype html>": NotHTTP,
    b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64": NotHTTP,  # HTTP/2: a SETTINGS frame
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n": NotHTTP,
    b"\x15\x03\x03\0\x02\x02\x46": NotHTTP,  # TLS: an alert, whole
    b"\x16\x03\x03\0\x7a\x02\0\0\x76\x03\x03": NotHTTP,  # TLS: a ServerHello
    b"SSH-2.0-OpenSSH_9.2\r\n": NotHTTP,
    b"220 mail.test ESMTP\r\n": NotHTTP,
    b"-ERR unknown command\r\n": NotHTTP,
    b"\n\n\n\n\nHTTP/1.1 200 OK\r\n\r\n": NotHTTP,  # five stray bytes
    bytes(range(256)): NotHTTP,
    b"\0HTTP/1.1 200 OK\r\n\r\n": NotHTTP,
    b"a\0bHTTP/1.1 200 OK\r\n\r\n": NotHTTP,
    b"abc\0HTTP/1.1 200 OK\r\n\r\n": NotHTTP,
    b" ICY 200\r\n\r\n": NotHTTP,
    b"HTTP/1.1\0 200 x\r\n\r\n": HeadError,
    OK + b"A\0: b\r\n\r\n": HeadError,
    OK + b"A: a\0b\r\n\r\n": HeadError,
    b"HTTP/1.1 200 \0\r\n\r\n": HeadError,
    OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n": HeadError,
    OK + b"content-length: 2\r\nA: b\r\nCONTENT-LENGTH: 02\r\n\r\n": HeadError,
    OK + b"Content-Length: 42\r\nContent-Length: 42,30\r\n\r\n": HeadError,
    OK + b"Content-Length: 030, 30\r\n\r\n": HeadError,
    OK + b"Content-Length: 2,3\r\n\r\n": HeadError,
    OK + b"Content-Length: \r\nContent-Length: 2\r\n\r\n": HeadError,
    OK + b"Content-Length: 2,\r\nContent-Length: 2\r\n\r\n": HeadError,
    OK + b"Content-Length: 2\r\nContent-Length: five\r\n\r\n": HeadError,
    OK + b"Transfer-Encoding: gzip\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n": HeadError,
    OK + b"Transfer-Encoding: identity\r\nContent-Length: 2, 3\r\n\r\n": HeadError,
    b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2, 3\r\n\r\n": HeadError,
    b"HTTP/2 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2, 3\r\n\r\n": HeadError,
    OK + b"Location: /a\r\nLocation: /b\r\n\r\n": HeadError,
    OK + b"Location: /a\r\nTransfer-Encoding: chunked\r\nLocation: /b\r\n\r\n": HeadError,
    b"HTTP/1.1 302 x\r\nLocation: \r\nLocation: /b\r\n\r\n": HeadError,
    OK + b"Content-Disposition: inline\r\nContent-Disposition: attachment\r\n\r\n": HeadError,
    OK + b"Content-Disposition: inline\r\nContent-Disposition: Inline\r\n\r\n": HeadError,
    OK + b"Content-Disposition: \r\nContent-Disposition: attachment\r\n\r\n": HeadError,
    OK + b"Content-Disposition: inline; f=a,b\r\n\r\n": HeadError,
    OK + b"Content-Disposition: inline; f='a,b'\r\n\r\n": HeadError,
    OK + b"Content-Disposition: inline,\r\n\r\n": HeadError,
}


@pytest.mark.parametrize("data", REFUSED)
def test_a_head_without_a_clear_meaning_is_refused(data: bytes) -> None:
    with pytest.raises(HeadError) as refusal:
        parse_head(data)
    assert refusal.type is REFUSED[data]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", 'it begins with "SSH-2.0-OpenSSH_9.2"'),
        (b"220 mail.test ESMTP\r\n", 'it begins with "220 mail.test ESMTP"'),
        (b"<!doctype html>" + b"x" * 100, 'it begins with "<!doctype html>xxxxxxxxxxxxxxxxxxxxxxxxx"'),
        (b"\xfe\x1b[31m", r'it begins with "\xfe\x1b[31m"'),
        (b"\x15\x03\x03\0\x02\x02\x46", "it is TLS"),
        (b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64", "it is HTTP/2"),
    ],
)
def test_the_message_shows_how_another_protocol_begins(data: bytes, words: str) -> None:
    with pytest.raises(NotHTTP) as refusal:
        parse_head(data)
    assert words in str(refusal.value)


@pytest.mark.parametrize("size", range(1, 8))
def test_another_protocol_is_refused_however_it_is_cut(size: int) -> None:
    data = b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64"
    with pytest.raises(NotHTTP):
        parse_in_pieces(data, [size])


# --- Heads that arrive in pieces ---


def parse_in_pieces(data: bytes, cuts: list[int]) -> tuple[ResponseHead, int] | None:
    """Parse a head that arrives in pieces, cut at these places."""
    received, searched = bytearray(), 0
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, end in pairwise(places):
        received += data[start:end]
        if (parsed := parse_head(received, searched)) is not None:
            return parsed
        searched = len(received)
    return None


def outcome(data: bytes, cuts: list[int]) -> object:
    try:
        return parse_in_pieces(data, cuts)
    except HeadError as error:
        return type(error)


SCRAPS = [
    b"HTTP/1.1 200 OK", b"http/1.0 404", b"HTTP", b"HT", b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\n\n", b" ", b"\t", b":",
    b"A: b", b"Content-Length: 2", b"Content-Length: 3", b"Location: /", b"Transfer-Encoding: chunked", b"\0", b"\xff",
]  # fmt: skip
lumps = st.lists(st.sampled_from(SCRAPS) | st.binary(max_size=4), max_size=12).map(b"".join)
anything = st.binary(max_size=64) | lumps | lumps.map(lambda lump: OK + lump + b"\r\n\r\n")


@given(anything, st.lists(st.integers(0, 300), max_size=8))
@settings(max_examples=500, deadline=None)
@example(b"\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", [1, 3, 4, 9])
@example(OK + b"\r\n", [len(OK) - 1, len(OK), len(OK) + 1])
@example(b"\x15\x03\x03\0\x02\x02\x46", [3])
def test_a_head_can_be_cut_anywhere(data: bytes, cuts: list[int]) -> None:
    assert outcome(data, cuts) == outcome(data, list(range(len(data))))


@pytest.mark.parametrize("data", [*REFUSED, *(OK + lines + b"\r\n" for lines in FIELDS)])
def test_byte_by_byte_gives_the_same_as_all_at_once(data: bytes) -> None:
    assert outcome(data, list(range(len(data)))) == outcome(data, [])


def test_bytes_are_searched_once() -> None:
    data = OK + b"\r\n" + b"a" * 10
    assert parse_head(data, len(OK) - 2) is not None
    assert parse_head(data, len(data)) is None


@given(st.binary() | anything, st.integers(0, 400))
@settings(max_examples=500, deadline=None)
def test_only_head_errors_are_raised(data: bytes, searched: int) -> None:
    try:
        parsed = parse_head(data, min(searched, len(data)))
    except HeadError:
        return
    if parsed is not None:
        head, size = parsed
        assert 0 < size <= len(data) or data.lower().startswith(b"icy")
        assert 0 <= head.status <= 999_999_999
        for name, value in head.fields:
            assert not {"\r", "\n", "\0"} & {*name, *value}
            assert value == value.strip(" \t")
        for method in ("HEAD", "GET"):
            assert (head.body_length(method) or 0) >= 0
        assert head.is_persistent in (True, False)


HOSTILE: dict[str, bytes] = {
    "folds of a long value": OK + b"A: ".ljust(MAX_HEAD_BYTES // 2, b"a") + b"\n " * (MAX_HEAD_BYTES // 4 - 16),
    "folds of one blank": OK + b"A: b" + b"\n " * (MAX_HEAD_BYTES // 2 - 16),
    "blanks": OK + b"A:".ljust(MAX_HEAD_BYTES - 64, b" ") + b"b",
    "blanks, and a fold": OK + b"A:".ljust(MAX_HEAD_BYTES - 64, b" ") + b"b\r\n c",
    "blanks before a colon": OK + b"A".ljust(MAX_HEAD_BYTES - 64, b" ") + b": b",
    "blanks in the status line": b"HTTP/1.1".ljust(MAX_HEAD_BYTES - 64, b" "),
    "CR": OK + b"\r" * (MAX_HEAD_BYTES - 64),
    "CR LF CR": OK + b"a\r\n\r" * (MAX_HEAD_BYTES // 4 - 16),
    "fields": OK + b"a:\n" * (MAX_HEAD_BYTES // 3 - 16),
    "quotes": OK + b"Content-Disposition: ," + b'\\"' * (MAX_HEAD_BYTES // 2 - 64) + b"\\",
    "open quotes": OK + b"Content-Disposition: " + b',"' * (MAX_HEAD_BYTES // 2 - 64),
    "commas": OK + b"Content-Length: " + b"," * (MAX_HEAD_BYTES - 64),
    "CR and blanks": OK + b"A: b" + b"\r\r\r " * (MAX_HEAD_BYTES // 4 - 16),
    "equal lengths": OK + b"Content-Length:1\n" * (MAX_HEAD_BYTES // 17 - 16),
    "colons": OK + b":" * (MAX_HEAD_BYTES - 64),
}


@pytest.mark.parametrize("trouble", HOSTILE)
def test_parsing_takes_linear_time(trouble: str) -> None:
    """Less than three times an ordinary head of that size; a quadratic parser takes seven times as long and more."""

    def seconds(data: bytes) -> float:
        started = time.process_time()
        outcome(data + b"\r\n\r\n", [])
        return time.process_time() - started

    ordinary = hostile = math.inf
    for _ in range(30):  # alternating, because the load of the machine changes
        ordinary = min(ordinary, seconds(HOSTILE["fields"]))
        hostile = min(hostile, seconds(HOSTILE[trouble]))
        if hostile < 3 * ordinary:
            return
    pytest.fail(f"{hostile * 1000:.1f} ms, an ordinary one {ordinary * 1000:.1f} ms")


def test_a_slow_head_is_searched_once() -> None:
    data, received, searched = OK.ljust(60_000, b"a"), bytearray(), 0
    started = time.process_time()
    for byte in data:
        received.append(byte)
        assert parse_head(received, searched) is None
        searched = len(received)
    assert time.process_time() - started < 10  # searching all bytes each time takes half a minute


# --- After the head ---

BODIES: list[tuple[str, int, bytes, int | None]] = [
    ("GET", 200, b"Content-Length: 5\r\n", 5),
    ("GET", 200, b"Content-Length: 0\r\n", 0),
    ("GET", 200, b"Content-Length: 5\r\nContent-Length: 5\r\n", 5),
    ("GET", 404, b"Content-Length: 5\r\n", 5),
    ("GET", 200, b"", None),  # to the end of the connection
    ("GET", 200, b"Transfer-Encoding: chunked\r\n", None),
    ("GET", 200, b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", None),
    ("GET", 200, b"Transfer-Encoding: gzip, , CHUNKED\r\nContent-Length: 5\r\n", None),
    ("GET", 200, b"Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\nContent-Length: 5\r\n", None),
    ("GET", 200, b"Transfer-Encoding: gzip\r\nContent-Length: 5\r\n", 5),
    ("GET", 200, b"Transfer-Encoding: xchunked\r\nContent-Length: 5\r\n", 5),
    ("GET", 200, b"Content-Length: five\r\n", None),
    ("GET", 200, b"Content-Length: -5\r\n", None),
    ("GET", 200, b"Content-Length: +5\r\n", None),
    ("GET", 200, b"Content-Length: 5, 5\r\n", 5),
    ("GET", 200, b"Content-Length: 0x5\r\n", None),
    ("GET", 200, b"Content-Length: \xb2\r\n", None),
    ("GET", 200, b"Content-Length: " + b"9" * 18 + b"\r\n", 10**18 - 1),
    ("GET", 200, b"Content-Length: " + b"9" * 5000 + b"\r\n", None),
    ("GET", 204, b"Content-Length: 5\r\n", 0),
    ("GET", 304, b"Content-Length: 5\r\n", 0),
    ("GET", 304, b"Transfer-Encoding: chunked\r\n", 0),
    ("HEAD", 200, b"Content-Length: 5\r\n", 0),
    ("HEAD", 200, b"Transfer-Encoding: chunked\r\n", 0),
    ("HEAD", 404, b"", 0),
]


@pytest.mark.parametrize(("method", "status", "lines", "length"), BODIES)
def test_body_length(method: str, status: int, lines: bytes, length: int | None) -> None:
    """RFC 9112, 6.3; but a coding that is not chunked leaves the length valid, as in Chromium."""
    assert read(b"HTTP/1.1 %d x\r\n%b\r\n" % (status, lines)).body_length(method) == length


PERSISTENCE: list[tuple[bytes, bytes, bool]] = [
    (b"1.1", b"", True),
    (b"1.1", b"Connection: keep-alive\r\n", True),
    (b"1.1", b"Connection: close\r\n", False),
    (b"1.1", b"Connection: Close\r\n", False),
    (b"1.1", b"Connection: keep-alive, close\r\n", False),
    (b"1.1", b"Connection: keep-alive\r\nConnection: close\r\n", False),
    (b"1.1", b"Connection: Upgrade\r\n", True),
    (b"1.1", b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", False),  # RFC 9112, 6.3: smuggling
    (b"1.0", b"", False),
    (b"1.0", b"Connection: keep-alive\r\n", True),
    (b"1.0", b"Connection: Keep-Alive\r\n", True),
    (b"1.0", b"Connection: x\r\nConnection: keep-alive\r\n", True),
    (b"1.0", b"Connection: close, keep-alive\r\n", False),
    (b"1.0", b"Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n", False),  # RFC 9112, 6.1
    (b"1.1", b"Transfer-Encoding: chunked\r\n", True),
    (b"0.9", b"", False),
    (b"2.0", b"", True),
]


@pytest.mark.parametrize(("version", "lines", "is_persistent"), PERSISTENCE)
def test_persistence(version: bytes, lines: bytes, is_persistent: bool) -> None:
    """RFC 9112, 9.3."""
    assert read(b"HTTP/%b 200 OK\r\n%b\r\n" % (version, lines)).is_persistent is is_persistent
