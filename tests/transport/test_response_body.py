"""Bodies are read as far as wanted, in any framing and coding, and no byte more; and their titles are found."""

import gzip
import html
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import brotli
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawler import ProbeResult
from crawler.transport.http.response_body import BodyDeframer, body_text, decompress_body, find_title
from crawler.transport.http.response_head import ResponseHead, parse_head
from tests.support.exchange import Exchange
from tests.support.probing import probe_all, probe_one, status_of
from tests.support.site import Site

PAGE = "<!doctype html><html><head><title>{}</title></head><body>Hallo, Welt</body></html>"
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
    coding: str, compress: Callable[[bytes], bytes], site: Site
) -> None:
    headers = [("Content-Encoding", coding), ("Content-Type", "text/html; charset=utf-8")]
    url = serve(site, compress(PAGE.format("Fünf").encode()), *headers)
    result = await probe_one(url, title=True, match="Hallo, W.lt")
    assert (status_of(result), result.title, result.matched) == (200, "Fünf", True)
    assert site.requests[0].header("Accept-Encoding") == "gzip, deflate, br"


async def test_a_page_is_decoded_by_the_encoding_that_it_names(site: Site) -> None:
    url = serve(site, PAGE.format("Fünf").encode("cp1252"), ("Content-Type", "text/html; charset=latin1"))
    assert (await probe_one(url, title=True)).title == "Fünf"


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


async def test_a_page_without_a_title_has_none(site: Site) -> None:
    result = await probe_one(site.url("/ok"), title=True, match="nothing")
    assert (status_of(result), result.title, result.matched) == (200, None, False)


async def test_the_find_title_an_error_page_is_not_reported(site: Site) -> None:
    for status in (404, 500):
        url = serve(site, PAGE.format("Oops").encode(), status=status)
        result = await probe_one(url, title=True, match="Oops", retries=0)
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


async def test_chunks_are_put_together(site: Site) -> None:
    page = PAGE.format("in pieces").encode()

    async def chunks(x: Exchange) -> None:
        await x.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for n in range(0, len(page), 7):
            await x.send(b"%X;ext=1\r\n%b\r\n" % (len(page[n : n + 7]), page[n : n + 7]))
        await x.send(b"0\r\nTrailer: x\r\n\r\n")

    site.on("/chunks", chunks)
    result = await probe_one(site.url("/chunks"), title=True)
    assert (status_of(result), result.title) == (200, "in pieces")


# --- Limits ---


def resident() -> int:
    """Return this process's resident memory in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.parametrize("path", ["/bomb", "/endless-body"])
async def test_an_endless_body_is_read_to_its_limit(path: str, site: Site) -> None:
    async def probe() -> ProbeResult:
        return await probe_one(site.url(path), title=True, match="never", timeout=40)

    await probe()  # the first probe imports and allocates what later ones share
    before = resident()
    result = await probe()
    assert (status_of(result), result.matched) == (200, None)  # what was not read may have it
    assert result.timings.total < 30_000  # it did not end at its timeout
    assert resident() - before < 20 * MIB


@pytest.mark.parametrize("coding", ["gzip", "br"])
async def test_a_bomb_is_decompressed_to_the_limit(coding: str, site: Site) -> None:
    zeros = bytes(64 * MIB)
    body = {"gzip": gzip.compress, "br": lambda data: brotli.compress(data, quality=1)}[coding](zeros)
    head = head_of(f"Content-Encoding: {coding}")
    read = decompress_body(head, body, 100_000, is_whole=True)
    assert (len(read.data), read.is_cut) == (100_000, True)


async def test_bytes_after_the_limit_are_not_searched(site: Site) -> None:
    url = serve(site, b" " * 2000 + b"<title>late</title>")
    assert (await probe_one(url, title=True, max_read=2000)).title is None
    assert (await probe_one(url, title=True, max_read=2019)).title == "late"


async def test_a_slow_body_ends_at_the_deadline_and_the_status_stays(site: Site) -> None:
    async def page(x: Exchange) -> None:
        await x.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n<title>early</title>")
        await x.drip(0.1, None)

    site.on("/drip", page)
    started = time.monotonic()
    result = await probe_one(site.url("/drip"), title=True, timeout=0.7, retries=3)
    assert (status_of(result), result.title, result.attempts) == (200, "early", 1)
    assert time.monotonic() - started > 0.6


async def test_a_body_that_breaks_off_leaves_the_status_and_the_bytes_so_far(site: Site) -> None:
    async def page(x: Exchange) -> None:
        await x.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n<title>early</title>")
        x.keeps_open = False

    site.on("/broken", page)
    result = await probe_one(site.url("/broken"), title=True)
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


@pytest.mark.parametrize(("layers", "is_decoded"), [(1, True), (5, True), (6, False), (1000, False)])
def test_at_most_five_codings_are_removed(layers: int, is_decoded: bool) -> None:
    body = b"page"
    for _ in range(layers):
        body = gzip.compress(body, mtime=0)
    head = head_of("Content-Encoding: " + ", ".join(["gzip"] * layers))
    assert (decompress_body(head, body, MIB, is_whole=True).data == b"page") is is_decoded


@pytest.mark.parametrize("chunk", [b"1\r\na\r\n", b"1;" + b"x" * 1000 + b"\r\na\r\n"], ids=["small", "verbose"])
def test_a_body_that_is_mostly_framing_ends_early(chunk: bytes) -> None:
    deframer, came = BodyDeframer(head_of("Transfer-Encoding: chunked"), MIB), 0

    def feed() -> None:
        nonlocal came
        data = chunk * (65536 // len(chunk))
        while not deframer.is_done:
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
        if deframer.is_done:
            break
        deframer.feed(piece)
    return bytes(deframer.body), deframer.is_done


@st.composite
def in_pieces(draw: st.DrawFn, data: bytes) -> list[bytes]:
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@given(st.data(), st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.integers(1, 200))
def test_chunks_can_be_cut_anywhere(data: st.DataObject, chunks: list[bytes], max_bytes: int) -> None:
    extension = data.draw(st.sampled_from([b"", b";a=b", b' ; quoted="x"', b"   "]))
    wire = b"".join(b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks) + b"0\r\n\r\n"
    body, is_done = deframe(head_of("Transfer-Encoding: chunked"), data.draw(in_pieces(wire)), max_bytes)
    assert (body, is_done) == (b"".join(chunks)[:max_bytes], True)


@given(st.data(), st.binary(max_size=100), st.integers(1, 200), st.integers(0, 120))
def test_a_body_with_a_length_can_be_cut_anywhere(
    data: st.DataObject, sent: bytes, max_bytes: int, length: int
) -> None:
    body, is_done = deframe(head_of(f"Content-Length: {length}"), data.draw(in_pieces(sent)), max_bytes)
    assert body == sent[: min(length, max_bytes)]
    assert is_done is (len(sent) >= min(length, max_bytes))


@given(st.data(), st.binary(max_size=100), st.integers(1, 200))
def test_without_a_length_all_bytes_are_body(data: st.DataObject, sent: bytes, max_bytes: int) -> None:
    body, is_done = deframe(head_of(), data.draw(in_pieces(sent)), max_bytes)
    assert (body, is_done) == (sent[:max_bytes], len(sent) >= max_bytes)


@given(st.data(), st.binary(max_size=300), st.integers(1, 100))
def test_malformed_chunks_can_be_cut_anywhere(data: st.DataObject, wire: bytes, max_bytes: int) -> None:
    head = head_of("Transfer-Encoding: chunked")
    whole = deframe(head, [wire], max_bytes)
    assert len(whole[0]) <= max_bytes
    assert deframe(head, data.draw(in_pieces(wire)), max_bytes) == whole


def test_a_line_that_is_too_long_for_a_chunk_size_ends_the_body() -> None:
    assert deframe(head_of("Transfer-Encoding: chunked"), [b"a" * 1000] * 20, MIB) == (b"", True)


@pytest.mark.parametrize("status", ["204", "304"])
def test_a_response_without_a_body_is_complete_at_once(status: str) -> None:
    parsed = parse_head(f"HTTP/1.1 {status} x\r\nContent-Length: 5\r\n\r\n".encode())
    assert parsed is not None
    deframer = BodyDeframer(parsed[0], 100)
    assert (deframer.is_done, deframer.is_whole) == (True, True)


CHUNKS: dict[bytes, tuple[bytes, bool]] = {
    b"2\r\nhi\r\n0\r\n\r\n": (b"hi", True),
    b"2\nhi\n0\n\n": (b"hi", True),  # bare LF
    b"2\nhi\r\n0\n\n": (b"hi", True),
    b"2 \r\nhi\r\n0\r\n\r\n": (b"hi", True),
    b"2;a=b\r\nhi\r\n0\r\n\r\n": (b"hi", True),
    b"2 ;x\r\nhi\r\n0\r\n\r\n": (b"hi", True),
    b"00000000000000000002\r\nhi\r\n0\r\n\r\n": (b"hi", True),
    b"1\r\nh\r\nA\r\ni123456789\r\n0\r\n\r\n": (b"hi123456789", True),
    b"2\r\nhi\r\n0\r\nTrailer: x": (b"hi", True),  # to Chromium incomplete, but all of the body is here
    b"2\r\nhi\r\n": (b"hi", False),
    b"2\r\nhi": (b"hi", False),
    b"5\r\nhi": (b"hi", False),
    b"": (b"", False),
    # malformed: net::ERR_INVALID_CHUNKED_ENCODING
    b" 2\r\nhi\r\n0\r\n\r\n": (b"", False),
    b"\t2\r\nhi\r\n0\r\n\r\n": (b"", False),
    b"2\t\r\nhi\r\n0\r\n\r\n": (b"", False),
    b"\r\n2\r\nhi\r\n0\r\n\r\n": (b"", False),
    b"0x2\r\nhi\r\n0\r\n\r\n": (b"", False),
    b"2g\r\nhi\r\n0\r\n\r\n": (b"", False),
    b"-2\r\nhi\r\n0\r\n\r\n": (b"", False),
    b"+2\r\nhi\r\n0\r\n\r\n": (b"", False),
    b"2\r\r\nhi\r\n0\r\n\r\n": (b"", False),
    b"FFFFFFFFFFFFFFFFF\r\nhi": (b"", False),
    b"xyz\r\nhi": (b"", False),
    b"2\r\nhi!\r\n0\r\n\r\n": (b"hi", False),
    b"2\r\nhi0\r\n\r\n": (b"hi", False),
    b"2\r\nhi\r\n 0\r\n\r\n": (b"hi", False),
    b"2\r\nhi\r\n\r\n2\r\nho\r\n0\r\n\r\n": (b"hi", False),
}


@pytest.mark.parametrize("wire", CHUNKS)
def test_chunks_are_read_as_by_a_browser(wire: bytes) -> None:
    """The witness is Chromium 156: what its `fetch` returned for this body, or its net error."""
    deframer = BodyDeframer(head_of("Transfer-Encoding: chunked"), 100)
    for byte in wire:
        if not deframer.is_done:
            deframer.feed(bytes([byte]))
    deframer.end()
    assert (bytes(deframer.body), deframer.is_whole) == CHUNKS[wire]


@pytest.mark.parametrize("coding", ["identity", "chunked;q=1", "xchunked", '"chunked"'])
def test_another_transfer_coding_is_not_removed(coding: str) -> None:
    """As in Chromium 156."""
    deframer = BodyDeframer(head_of(f"Transfer-Encoding: {coding}"), 100)
    deframer.feed(b"2\r\nhi\r\n")
    deframer.end()
    assert (bytes(deframer.body), deframer.is_whole) == (b"2\r\nhi\r\n", True)


async def test_what_a_cut_body_does_not_show_is_not_known(site: Site) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
    site.on("/whole", head % 5 + b"early")
    site.on("/cut", head % 1000 + b"early")
    site.on("/closed", b"HTTP/1.1 200 OK\r\n\r\nearly")
    site.on("/chunks", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nearly\r\n")
    packed = gzip.compress(b"early" * 100)
    site.on("/packed", b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + packed[:-10])
    paths = ["/whole", "/cut", "/closed", "/chunks", "/packed"]
    found = await probe_all([site.url(path) for path in paths], match="early")
    assert [result.matched for result in found] == [True] * 5
    missing = await probe_all([site.url(path) for path in paths], match="later")
    assert [result.matched for result in missing] == [False, None, False, None, None]
    assert (await probe_one(site.url("/whole"), match="y", max_read=4)).matched is None
    assert (await probe_one(site.url("/whole"), match="z", max_read=5)).matched is False


# --- Any bytes ---

CODINGS = ["", "gzip", "deflate", "br", "gzip, br", "br,gzip,deflate", "zstd", ",", "x" * 1000]
LABELS = [
    "",
    "utf-8",
    "utf-16",
    "utf-32",
    "utf-7",
    "latin1",
    "idna",
    "hex",
    "x-user-defined",
    "hz-gb-2312",
    "a.b",
    "--",
]


@settings(max_examples=300)
@given(st.binary(max_size=500), st.sampled_from(CODINGS), st.sampled_from(LABELS), st.integers(1, 600))
def test_decoding_never_raises_and_the_text_can_be_encoded(
    body: bytes, coding: str, label: str, max_bytes: int
) -> None:
    head = head_of(f"Content-Encoding: {coding}", f"Content-Type: text/html; charset={label}")
    msgspec.json.encode(find_title(body_text(decompress_body(head, body, max_bytes, is_whole=True))))


@given(st.binary(max_size=500))
def test_compressed_bodies_are_decompressed(body: bytes) -> None:
    for coding, compress in COMPRESSORS:
        read = decompress_body(head_of(f"Content-Encoding: {coding}"), compress(body), 501, is_whole=True)
        assert (read.data, read.is_cut) == (body, False)


COMPRESSORS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
    ("br", brotli.compress),
]
