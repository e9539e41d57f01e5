"""What is read of bodies: as much as is asked for, whatever its framing, coding and charset, and not a byte more."""

import encodings.aliases
import gzip
import html
import time
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import brotli
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawler import ProbeResult
from crawler.transport.response_body import BodyDeframer, decode_body, find_title
from crawler.transport.response_head import ResponseHead, parse_head
from tests.support.exchange import Exchange
from tests.support.probing import probe_all, probe_one, verdict
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
    """A URL with this body."""

    async def page(x: Exchange) -> None:
        await x.reply(status, headers, body=body)

    site.on("/page", page)
    return site.url("/page")


# --- The title, through real probes ---


@TRANSPORTS
@pytest.mark.parametrize(
    ("coding", "pack"),
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
    ids=["gzip", "x-gzip", "GZip", "zlib", "raw deflate", "br", "identity", "both", "cut off", "with a rest"],
)
async def test_a_packed_page_has_its_title(
    coding: str, pack: Callable[[bytes], bytes], transport: str, site: Site
) -> None:
    url = serve(site, pack(PAGE.format("Fünf").encode()), ("Content-Encoding", coding))
    result = await probe_one(url, title=True, match="Hallo, W.lt", transport=transport)
    assert (verdict(result), result.title, result.matched) == (200, "Fünf", True)
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
async def test_a_page_is_read_in_the_charset_that_it_names(
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
def test_what_a_title_is(page: str, title: str | None) -> None:
    assert find_title(page) == title


@TRANSPORTS
async def test_a_page_without_a_title_has_none(transport: str, site: Site) -> None:
    result = await probe_one(site.url("/ok"), title=True, match="nothing", transport=transport)
    assert (verdict(result), result.title, result.matched) == (200, None, False)


@TRANSPORTS
async def test_the_find_title_an_error_page_is_not_reported(transport: str, site: Site) -> None:
    for status in (404, 500):
        url = serve(site, PAGE.format("Oops").encode(), status=status)
        result = await probe_one(url, title=True, match="Oops", retries=0, transport=transport)
        assert (verdict(result), result.title, result.matched) == (status, None, None)


async def test_nothing_is_said_of_a_body_that_nobody_asked_for(site: Site) -> None:
    result = await probe_one(site.url("/title/Hello"))
    assert (result.title, result.matched) == (None, None)
    assert (await probe_one(site.url("/title/Hello"), match="Hello")).title is None
    assert (await probe_one(site.url("/title/Hello"), title=True)).matched is None


@pytest.mark.parametrize("options", [{"title": True}, {"match": "x"}])
async def test_head_is_not_used_where_a_body_is_wanted(options: dict[str, object], site: Site) -> None:
    results = await probe_all([site.url("/redirect/1"), site.url("/head/405")], **options)
    assert {request.method for request in site.requests} == {"GET"}
    assert {(verdict(result), result.method) for result in results} == {(200, "GET")}


async def test_a_title_is_that_of_the_page_that_a_redirect_leads_to(site: Site) -> None:
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
    assert (verdict(result), result.title) == (200, "in pieces")


# --- Bounds ---


def resident() -> int:
    """Bytes of memory that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@TRANSPORTS
@pytest.mark.parametrize("path", ["/bomb", "/endless-body"])
async def test_a_body_without_end_is_read_to_its_cap(path: str, transport: str, site: Site) -> None:
    async def probe() -> ProbeResult:
        return await probe_one(site.url(path), title=True, match="never", timeout=20, transport=transport)

    await probe()  # what is imported, allocated and kept by then is not the body's
    before, started = resident(), time.monotonic()
    result = await probe()
    assert (verdict(result), result.matched) == (200, False)
    assert time.monotonic() - started < 5
    assert resident() - before < 20 * MIB


@pytest.mark.parametrize("coding", ["gzip", "br"])
async def test_a_bomb_is_unpacked_to_the_cap(coding: str, site: Site) -> None:
    zeros = bytes(64 * MIB)
    body = {"gzip": gzip.compress, "br": lambda data: brotli.compress(data, quality=1)}[coding](zeros)
    head = head_of(f"Content-Encoding: {coding}")
    assert len(decode_body(head, body, 100_000)) == 100_000


@TRANSPORTS
async def test_what_comes_behind_the_cap_is_not_looked_at(transport: str, site: Site) -> None:
    url = serve(site, b" " * 2000 + b"<title>late</title>")
    assert (await probe_one(url, title=True, max_read=2000, transport=transport)).title is None
    assert (await probe_one(url, title=True, max_read=2019, transport=transport)).title == "late"


@TRANSPORTS
async def test_a_body_that_drips_ends_at_the_deadline_and_the_status_stays(transport: str, site: Site) -> None:
    async def page(x: Exchange) -> None:
        await x.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n<title>early</title>")
        await x.drip(0.1, None)

    site.on("/drip", page)
    started = time.monotonic()
    result = await probe_one(site.url("/drip"), title=True, timeout=0.7, retries=3, transport=transport)
    assert (verdict(result), result.title, result.attempts) == (200, "early", 1)
    assert 0.6 < time.monotonic() - started < 2


@TRANSPORTS
async def test_a_body_that_breaks_off_leaves_the_status_and_what_came(transport: str, site: Site) -> None:
    async def page(x: Exchange) -> None:
        await x.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n<title>early</title>")
        x.keeps_open = False

    site.on("/broken", page)
    result = await probe_one(site.url("/broken"), title=True, transport=transport)
    assert (verdict(result), result.title, result.attempts) == (200, "early", 1)


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
    assert took(lambda: find_title(text)) < 0.2, what


@pytest.mark.parametrize("charset", sorted({*encodings.aliases.aliases.values(), "idna", "punycode"}))
def test_no_charset_makes_the_text_slow_or_impossible_to_write(charset: str) -> None:
    head = head_of(f"Content-Type: text/html; charset={charset}")
    texts = [b"<title>+2AA-\\ud800\xed\xa0\x80\\x</title>", b"a" * 400_000 + b"-" + b"a9" * 50_000, b"\\u" * 200_000]
    for body in texts:
        assert took(partial(decode_body, head, body, MIB)) < 0.5
        msgspec.json.encode(decode_body(head, body, MIB))


@pytest.mark.parametrize(("layers", "is_unpacked"), [(1, True), (5, True), (6, False), (1000, False)])
def test_a_body_is_unpacked_five_times_at_most(layers: int, is_unpacked: bool) -> None:
    body = b"page"
    for _ in range(layers):
        body = gzip.compress(body, mtime=0)
    text = decode_body(head_of("Content-Encoding: " + ", ".join(["gzip"] * layers)), body, MIB)
    assert (text == "page") is is_unpacked


@pytest.mark.parametrize("chunk", [b"1\r\na\r\n", b"1;" + b"x" * 1000 + b"\r\na\r\n"], ids=["small", "verbose"])
def test_chunks_that_are_mostly_framing_end_early(chunk: bytes) -> None:
    unframer, came = BodyDeframer(head_of("Transfer-Encoding: chunked"), MIB), 0

    def feed() -> None:
        nonlocal came
        data = chunk * (65536 // len(chunk))
        while not unframer.is_complete:
            unframer.feed(data)
            came += len(data)

    assert took(feed) < 3
    assert len(unframer.body) >= 2048
    assert came < 3 * MIB


def took(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


# --- Framing, in any pieces ---


def unframed(head: ResponseHead, pieces: list[bytes], cap: int) -> tuple[bytes, bool]:
    unframer = BodyDeframer(head, cap)
    for piece in pieces:
        if unframer.is_complete:
            break
        unframer.feed(piece)
    return bytes(unframer.body), unframer.is_complete


@st.composite
def in_pieces(draw: st.DrawFn, data: bytes) -> list[bytes]:
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@given(st.data(), st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.integers(1, 200))
def test_chunks_mean_the_same_however_they_are_cut(data: st.DataObject, chunks: list[bytes], cap: int) -> None:
    extension = data.draw(st.sampled_from([b"", b";a=b", b' ; quoted="x"', b"   "]))
    wire = b"".join(b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks) + b"0\r\n\r\n"
    body, is_complete = unframed(head_of("Transfer-Encoding: chunked"), data.draw(in_pieces(wire)), cap)
    assert (body, is_complete) == (b"".join(chunks)[:cap], True)


@given(st.data(), st.binary(max_size=100), st.integers(1, 200), st.integers(0, 120))
def test_a_length_means_the_same_however_it_is_cut(data: st.DataObject, sent: bytes, cap: int, length: int) -> None:
    body, is_complete = unframed(head_of(f"Content-Length: {length}"), data.draw(in_pieces(sent)), cap)
    assert body == sent[: min(length, cap)]
    assert is_complete is (len(sent) >= min(length, cap))


@given(st.data(), st.binary(max_size=100), st.integers(1, 200))
def test_without_a_length_all_is_body(data: st.DataObject, sent: bytes, cap: int) -> None:
    body, is_complete = unframed(head_of(), data.draw(in_pieces(sent)), cap)
    assert (body, is_complete) == (sent[:cap], len(sent) >= cap)


@given(st.data(), st.binary(max_size=300), st.integers(1, 100))
def test_any_bytes_in_place_of_chunks_are_endured_in_the_same_way(data: st.DataObject, wire: bytes, cap: int) -> None:
    head = head_of("Transfer-Encoding: chunked")
    whole = unframed(head, [wire], cap)
    assert len(whole[0]) <= cap
    assert unframed(head, data.draw(in_pieces(wire)), cap) == whole


def test_a_line_too_long_to_be_a_chunk_size_ends_the_body() -> None:
    assert unframed(head_of("Transfer-Encoding: chunked"), [b"a" * 1000] * 10, MIB) == (b"", True)


@pytest.mark.parametrize("status", ["204", "304"])
def test_an_answer_that_has_no_body_is_complete_at_once(status: str) -> None:
    parsed = parse_head(f"HTTP/1.1 {status} x\r\nContent-Length: 5\r\n\r\n".encode())
    assert parsed is not None
    assert BodyDeframer(parsed[0], 100).is_complete


# --- Text, of anything ---

CODINGS = ["", "gzip", "deflate", "br", "gzip, br", "br,gzip,deflate", "zstd", ",", "x" * 1000]
CHARSETS = ["", "utf-8", "utf-16", "utf-32", "utf-7", "latin1", "cp037", "idna", "hex", "undefined", "a.b", "--", "0"]


@settings(max_examples=300)
@given(st.binary(max_size=500), st.sampled_from(CODINGS), st.sampled_from(CHARSETS), st.integers(1, 600))
def test_the_text_of_a_body_never_raises_and_can_be_written(body: bytes, coding: str, charset: str, cap: int) -> None:
    head = head_of(f"Content-Encoding: {coding}", f"Content-Type: text/html; charset={charset}")
    msgspec.json.encode(find_title(decode_body(head, body, cap)))


@given(st.binary(max_size=500))
def test_what_was_packed_is_unpacked(body: bytes) -> None:
    for coding, pack in PACKERS:
        head = head_of(f"Content-Encoding: {coding}", "Content-Type: text/html; charset=latin1")
        assert decode_body(head, pack(body), 500) == body.decode("latin1")


PACKERS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
    ("br", brotli.compress),
]
