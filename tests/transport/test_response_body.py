"""Bodies are read as far as wanted, in any framing, coding and charset, and no byte more."""

import encodings.aliases
import gzip
import html
import time
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import brotli
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawler import ProbeResult
from crawler.transport.response_body import BodyDeframer, decode_body, find_title
from crawler.transport.response_head import ResponseHead, parse_head
from tests.support.exchange import Exchange
from tests.support.probing import probe_all, probe_one, status_of
from tests.support.site import Site

PAGE = "<!doctype html><html><head><title>{}</title></head><body>Hallo, Welt</body></html>"
TRANSPORTS = pytest.mark.parametrize("transport", ["socket", "aiohttp"])
MIB = 1 << 20


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def head_of(*lines: str) -> ResponseHead:
    parsed = parse_head("\r\n".join(["HTTP/1.1 200 OK", *lines, "", ""]).encode("latin-1"))
    assert parsed is not None
    return parsed[0]


def serve(site: Site, body: bytes, *headers: tuple[str, str], status: int = 200) -> str:
    """Return a URL with this body."""

    async def page(x: Exchange) -> None:
        await x.reply(status, headers, body=body)

    site.on("/page", page)
    return site.url("/page")


# --- Titles, through real probes ---


@TRANSPORTS
@pytest.mark.parametrize(
    ("coding", "compress"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("GZip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", raw_deflate),
        ("br", brotli.compress),
        ("identity", bytes),
        ("gzip, br", lambda data: brotli.compress(gzip.compress(data))),
        ("gzip", lambda data: gzip.compress(data)[:-8]),
        ("gzip", lambda data: gzip.compress(data) + b"and more"),
    ],
    ids=["gzip", "x-gzip", "GZip", "zlib", "raw deflate", "br", "identity", "both", "cut off", "with trailing bytes"],
)
async def test_the_title_of_a_compressed_page_is_found(
    coding: str, compress: Callable[[bytes], bytes], transport: str, site: Site
) -> None:
    url = serve(site, compress(PAGE.format("Fünf").encode()), ("Content-Encoding", coding))
    result = await probe_one(url, title=True, match="Hallo, W.lt", transport=transport)
    assert (status_of(result), result.title, result.matched) == (200, "Fünf", True)
    assert site.requests[0].header("Accept-Encoding") == "gzip, deflate, br"


@TRANSPORTS
@pytest.mark.parametrize(
    ("charset", "content_type", "meta"),
    [
        ("utf-8", "text/html", ""),
        ("utf-8", "text/html; charset=utf-8", ""),
        ("utf-8", 'text/html; charset="UTF-8"', ""),
        ("iso-8859-1", "text/html; charset=ISO-8859-1", ""),
        ("windows-1252", "text/html;charset=windows-1252;x=y", ""),
        ("iso-8859-1", "text/html", "<meta charset=latin1>"),
        ("iso-8859-1", "text/html", '<meta http-equiv="Content-Type" content="text/html; charset=iso-8859-1">'),
        ("utf-8", "text/html; charset=utf-8", "<meta charset=latin1>"),
        ("utf-8", "text/html; charset=klingon", ""),
        ("utf-8", "text/html; charset=utf-7", ""),
        ("utf-8", "text/html; charset=rot13", ""),
        ("utf-8", "text/html; charset=", ""),
        ("utf-16", "text/html; charset=utf-16", ""),
        ("utf-16-le", "text/html; charset=utf-16le", ""),
    ],
)
async def test_a_page_is_decoded_by_the_charset_that_it_names(
    charset: str, content_type: str, meta: str, transport: str, site: Site
) -> None:
    url = serve(site, (meta + PAGE.format("Çà: fünf")).encode(charset), ("Content-Type", content_type))
    assert (await probe_one(url, title=True, transport=transport)).title == "Çà: fünf"


async def test_other_alphabets(site: Site) -> None:
    for charset, title in {"koi8-r": "Привет", "shift_jis": "こんにちは", "gb18030": "你好", "euc-kr": "안녕"}.items():
        url = serve(site, PAGE.format(title).encode(charset), ("Content-Type", f"text/html; charset={charset}"))
        assert (await probe_one(url, title=True)).title == title


@pytest.mark.parametrize(
    ("page", "title"),
    [
        (PAGE.format(" two\r\n\twords "), "two words"),
        (PAGE.format("&lt;b&gt; &amp; &eacute;&#8212;&#x2014;"), "<b> & é——"),
        (PAGE.format(html.escape("</title>")), "</title>"),
        (PAGE.format("<b>not a tag</b>"), "<b>not a tag</b>"),
        ('<TITLE lang="en">loud</TITLE>', "loud"),
        ("<title\n>broken line</title\n>", "broken line"),
        ("<titles>no</titles><title>yes</title>", "yes"),
        ("<title></title>", ""),
        ("<title>never ends", None),
        ("<title" * 3, None),
        ("no page at all", None),
        ("", None),
        (PAGE.format("x" * 1000), "x" * 300),
        (PAGE.format("x" * 100_000), None),
        (PAGE.format("\x1b]0;owned\x07 &#27;[31m \x00\x9b1m"), "]0;owned [31m 1m"),
        (PAGE.format("&#xD800;&#x110000;"), "\ufffd\ufffd"),
    ],
)
def test_titles(page: str, title: str | None) -> None:
    assert find_title(page) == title


@TRANSPORTS
async def test_a_page_without_a_title_has_none(transport: str, site: Site) -> None:
    result = await probe_one(site.url("/ok"), title=True, match="nothing", transport=transport)
    assert (status_of(result), result.title, result.matched) == (200, None, False)


@TRANSPORTS
async def test_the_find_title_an_error_page_is_not_reported(transport: str, site: Site) -> None:
    for status in (404, 500):
        url = serve(site, PAGE.format("Oops").encode(), status=status)
        result = await probe_one(url, title=True, match="Oops", retries=0, transport=transport)
        assert (status_of(result), result.title, result.matched) == (status, None, None)


async def test_a_body_that_is_not_wanted_is_not_reported(site: Site) -> None:
    result = await probe_one(site.url("/title/Hello"))
    assert (result.title, result.matched) == (None, None)
    assert (await probe_one(site.url("/title/Hello"), match="Hello")).title is None
    assert (await probe_one(site.url("/title/Hello"), title=True)).matched is None


@pytest.mark.parametrize("options", [{"title": True}, {"match": "x"}])
async def test_a_wanted_body_is_requested_with_get(options: dict[str, Any], site: Site) -> None:
    results = await probe_all([site.url("/redirect/1"), site.url("/head/405")], **options)
    assert {request.method for request in site.requests} == {"GET"}
    assert {(status_of(result), result.method) for result in results} == {(200, "GET")}


async def test_the_title_is_of_the_final_page(site: Site) -> None:
    result = await probe_one(site.redirect_to(site.url("/title/There")), title=True)
    assert result.title == "There"


@TRANSPORTS
async def test_chunks_are_put_together(transport: str, site: Site) -> None:
    page = PAGE.format("in pieces").encode()

    async def chunks(x: Exchange) -> None:
        await x.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for n in range(0, len(page), 7):
            await x.send(b"%X;ext=1\r\n%b\r\n" % (len(page[n : n + 7]), page[n : n + 7]))
        await x.send(b"0\r\nTrailer: x\r\n\r\n")

    site.on("/chunks", chunks)
    result = await probe_one(site.url("/chunks"), title=True, transport=transport)
    assert (status_of(result), result.title) == (200, "in pieces")


# --- Limits ---


def resident() -> int:
    """Return this process's resident memory in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@TRANSPORTS
@pytest.mark.parametrize("path", ["/bomb", "/endless-body"])
async def test_an_endless_body_is_read_to_its_limit(path: str, transport: str, site: Site) -> None:
    async def probe() -> ProbeResult:
        return await probe_one(site.url(path), title=True, match="never", timeout=40, transport=transport)

    await probe()  # the first probe imports and allocates what later ones share
    before = resident()
    result = await probe()
    assert (status_of(result), result.matched) == (200, False)
    assert result.timings.total < 30_000  # it did not end at its timeout
    assert resident() - before < 20 * MIB


@pytest.mark.parametrize("coding", ["gzip", "br"])
async def test_a_bomb_is_decompressed_to_the_limit(coding: str, site: Site) -> None:
    zeros = bytes(64 * MIB)
    body = {"gzip": gzip.compress, "br": lambda data: brotli.compress(data, quality=1)}[coding](zeros)
    head = head_of(f"Content-Encoding: {coding}")
    assert len(decode_body(head, body, 100_000)) == 100_000


@TRANSPORTS
async def test_bytes_after_the_limit_are_not_searched(transport: str, site: Site) -> None:
    url = serve(site, b" " * 2000 + b"<title>late</title>")
    assert (await probe_one(url, title=True, max_read=2000, transport=transport)).title is None
    assert (await probe_one(url, title=True, max_read=2019, transport=transport)).title == "late"


@TRANSPORTS
async def test_a_slow_body_ends_at_the_deadline_and_the_status_stays(transport: str, site: Site) -> None:
    async def page(x: Exchange) -> None:
        await x.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n<title>early</title>")
        await x.drip(0.1, None)

    site.on("/drip", page)
    started = time.monotonic()
    result = await probe_one(site.url("/drip"), title=True, timeout=0.7, retries=3, transport=transport)
    assert (status_of(result), result.title, result.attempts) == (200, "early", 1)
    assert time.monotonic() - started > 0.6


@TRANSPORTS
async def test_a_body_that_breaks_off_leaves_the_status_and_the_bytes_so_far(transport: str, site: Site) -> None:
    async def page(x: Exchange) -> None:
        await x.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n<title>early</title>")
        x.keeps_open = False

    site.on("/broken", page)
    result = await probe_one(site.url("/broken"), title=True, transport=transport)
    assert (status_of(result), result.title, result.attempts) == (200, "early", 1)


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("titles that begin", "<title " * 150_000),
        ("titles that are never closed", "<title>" * 150_000),
        ("one tag that never ends", "<title " + "a" * MIB),
        ("ends", "</title" * 150_000),
        ("white space", "<title" + " " * MIB),
        ("entities", PAGE.format("&" * 4000)),
    ],
)
def test_no_page_makes_the_search_for_its_title_slow(what: str, text: str) -> None:
    assert cpu_seconds(lambda: find_title(text)) < 2, what


@pytest.mark.parametrize("charset", sorted({*encodings.aliases.aliases.values(), "idna", "punycode"}))
def test_no_charset_is_slow_or_makes_text_that_cannot_be_encoded(charset: str) -> None:
    head = head_of(f"Content-Type: text/html; charset={charset}")
    texts = [b"<title>+2AA-\\ud800\xed\xa0\x80\\x</title>", b"a" * 400_000 + b"-" + b"a9" * 50_000, b"\\u" * 200_000]
    for body in texts:
        assert cpu_seconds(partial(decode_body, head, body, MIB)) < 5
        msgspec.json.encode(decode_body(head, body, MIB))


@pytest.mark.parametrize(("layers", "is_decoded"), [(1, True), (5, True), (6, False), (1000, False)])
def test_at_most_five_codings_are_removed(layers: int, is_decoded: bool) -> None:
    body = b"page"
    for _ in range(layers):
        body = gzip.compress(body, mtime=0)
    text = decode_body(head_of("Content-Encoding: " + ", ".join(["gzip"] * layers)), body, MIB)
    assert (text == "page") is is_decoded


@pytest.mark.parametrize("chunk", [b"1\r\na\r\n", b"1;" + b"x" * 1000 + b"\r\na\r\n"], ids=["small", "verbose"])
def test_a_body_that_is_mostly_framing_ends_early(chunk: bytes) -> None:
    deframer, came = BodyDeframer(head_of("Transfer-Encoding: chunked"), MIB), 0

    def feed() -> None:
        nonlocal came
        data = chunk * (65536 // len(chunk))
        while not deframer.is_complete:
            deframer.feed(data)
            came += len(data)

    assert cpu_seconds(feed) < 20
    assert len(deframer.body) >= 2048
    assert came < 3 * MIB


def cpu_seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


# --- Framing, in any pieces ---


def deframe(head: ResponseHead, pieces: list[bytes], max_bytes: int) -> tuple[bytes, bool]:
    deframer = BodyDeframer(head, max_bytes)
    for piece in pieces:
        if deframer.is_complete:
            break
        deframer.feed(piece)
    return bytes(deframer.body), deframer.is_complete


@st.composite
def in_pieces(draw: st.DrawFn, data: bytes) -> list[bytes]:
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@given(st.data(), st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.integers(1, 200))
def test_chunks_can_be_cut_anywhere(data: st.DataObject, chunks: list[bytes], max_bytes: int) -> None:
    extension = data.draw(st.sampled_from([b"", b";a=b", b' ; quoted="x"', b"   "]))
    wire = b"".join(b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks) + b"0\r\n\r\n"
    body, is_complete = deframe(head_of("Transfer-Encoding: chunked"), data.draw(in_pieces(wire)), max_bytes)
    assert (body, is_complete) == (b"".join(chunks)[:max_bytes], True)


@given(st.data(), st.binary(max_size=100), st.integers(1, 200), st.integers(0, 120))
def test_a_body_with_a_length_can_be_cut_anywhere(
    data: st.DataObject, sent: bytes, max_bytes: int, length: int
) -> None:
    body, is_complete = deframe(head_of(f"Content-Length: {length}"), data.draw(in_pieces(sent)), max_bytes)
    assert body == sent[: min(length, max_bytes)]
    assert is_complete is (len(sent) >= min(length, max_bytes))


@given(st.data(), st.binary(max_size=100), st.integers(1, 200))
def test_without_a_length_all_bytes_are_body(data: st.DataObject, sent: bytes, max_bytes: int) -> None:
    body, is_complete = deframe(head_of(), data.draw(in_pieces(sent)), max_bytes)
    assert (body, is_complete) == (sent[:max_bytes], len(sent) >= max_bytes)


@given(st.data(), st.binary(max_size=300), st.integers(1, 100))
def test_malformed_chunks_can_be_cut_anywhere(data: st.DataObject, wire: bytes, max_bytes: int) -> None:
    head = head_of("Transfer-Encoding: chunked")
    whole = deframe(head, [wire], max_bytes)
    assert len(whole[0]) <= max_bytes
    assert deframe(head, data.draw(in_pieces(wire)), max_bytes) == whole


def test_a_line_that_is_too_long_for_a_chunk_size_ends_the_body() -> None:
    assert deframe(head_of("Transfer-Encoding: chunked"), [b"a" * 1000] * 10, MIB) == (b"", True)


@pytest.mark.parametrize("status", ["204", "304"])
def test_a_response_without_a_body_is_complete_at_once(status: str) -> None:
    parsed = parse_head(f"HTTP/1.1 {status} x\r\nContent-Length: 5\r\n\r\n".encode())
    assert parsed is not None
    assert BodyDeframer(parsed[0], 100).is_complete


# --- Decoding of any bytes ---

CODINGS = ["", "gzip", "deflate", "br", "gzip, br", "br,gzip,deflate", "zstd", ",", "x" * 1000]
CHARSETS = ["", "utf-8", "utf-16", "utf-32", "utf-7", "latin1", "cp037", "idna", "hex", "undefined", "a.b", "--", "0"]


@settings(max_examples=300)
@given(st.binary(max_size=500), st.sampled_from(CODINGS), st.sampled_from(CHARSETS), st.integers(1, 600))
def test_decoding_never_raises_and_the_text_can_be_encoded(
    body: bytes, coding: str, charset: str, max_bytes: int
) -> None:
    head = head_of(f"Content-Encoding: {coding}", f"Content-Type: text/html; charset={charset}")
    msgspec.json.encode(find_title(decode_body(head, body, max_bytes)))


@given(st.binary(max_size=500))
def test_compressed_bodies_are_decompressed(body: bytes) -> None:
    for coding, compress in COMPRESSORS:
        head = head_of(f"Content-Encoding: {coding}", "Content-Type: text/html; charset=latin1")
        assert decode_body(head, compress(body), 500) == body.decode("latin1")


COMPRESSORS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
    ("br", brotli.compress),
]
