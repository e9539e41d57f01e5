"""A record has a bound in bytes, whatever a line, a redirect or a header has."""

import msgspec
import pytest

from crawler import Options, ProbeResult
from crawler.core.results import Hop, HopResult, ProbeError, Timings
from crawler.core.urls import MAX_URL_CHARACTERS, Target, Url
from crawler.probing.probe_result import build_result
from crawler.probing.probe_state import ProbeState
from crawler.probing.result_bounds import MAX_RECORD_BYTES
from tests.support.probing import probe_one
from tests.support.site import Site

LONG = "a" * 65_000


def built(text: str, hops: list[Hop], headers: list[tuple[str, str]] | None = None, message: str = "") -> ProbeResult:
    url = Url("http://a/", "http", "a", 80, "/")
    state = ProbeState(0, text, url, url, "GET", 1, hops)
    error = ProbeError.of("http.response.invalid", message) if message else None
    return build_result(state, Options(), HopResult(Timings(), 200, headers=headers or []), error, None)


def hop(url: str) -> Hop:
    return Hop(url, "GET", 302, "192.0.2.1", Timings(1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 6.0))


def test_an_ordinary_result_is_whole() -> None:
    result = built("http://a/", [hop("http://a/"), hop("http://a/b")], [("server", "x" * 1000), ("etag", '"1"')])
    assert result.cut is msgspec.UNSET
    assert b"cut" not in msgspec.json.encode(result)
    assert [each.url for each in result.hops] == ["http://a/", "http://a/b"]
    assert result.headers == {"etag": '"1"', "server": "x" * 1000}


def test_a_long_url_that_answers_is_whole_where_it_matters() -> None:
    """RFC 9110, 4.1: all should support URIs of 8,000 octets. So much of each hop is shown, and all of the last."""
    url = "http://a/" + LONG
    result = built(url, [hop("http://a/" + "b" * 7_900), hop(url)])
    assert result.url == result.final_url == url
    assert result.hops[0].url == "http://a/" + "b" * 7_900
    assert result.hops[1].url == url[:7_999] + "…"
    assert result.cut == ["hops"]


def test_what_is_cut_is_named() -> None:
    names = ["server", "location", "etag"]
    result = built("http://a/", [hop("http://a/")], [(name, LONG) for name in names], message=LONG)
    assert result.cut == ["headers", "error"]
    assert {name: len(value) for name, value in result.headers.items()} == {
        "server": 1_000, "location": 8_000, "etag": 1_000,
    }  # fmt: skip
    assert result.error is not None
    assert len(result.error.message) == 1_000
    assert all(value.endswith("…") for value in (*result.headers.values(), result.error.message))


def test_of_many_hops_the_first_and_the_last_are_kept() -> None:
    result = built("http://a/", [hop(f"http://a/{number}") for number in range(2_000)])
    assert [each.url.rpartition("/")[2] for each in result.hops] == [str(n) for n in (*range(50), *range(1950, 2000))]
    assert result.cut == ["hops"]


@pytest.mark.parametrize("character", ["a", "\xe9", "\U0001f600"])
def test_no_record_is_longer_than_its_bound(character: str) -> None:
    text = "http://a/" + character * (MAX_URL_CHARACTERS - 9)
    names = ["alt-svc", "content-type", "content-length", "server", "etag", "last-modified", "retry-after", "location"]
    hops = [hop("http://a/" + LONG) for _ in range(2_000)]
    result = built(text, hops, [(name, "\x01" * 65_000) for name in names], message="\x01" * 65_000)
    size = len(msgspec.json.encode(result))
    assert size <= MAX_RECORD_BYTES
    assert result.size <= 4 * size and size <= 6 * result.size


@pytest.mark.parametrize("line", ["x" * 1_000_000, b"x" * 1_000_000, b"\xff" * 1_000_000, "\x01" * 1_000_000])
def test_a_line_that_is_too_long_for_a_url_is_cut(line: str | bytes) -> None:
    target = Target.of(0, line)
    assert len(target.text) == MAX_URL_CHARACTERS
    assert isinstance(target.url, ProbeError)
    assert len(target.url.message) < 100


async def test_long_redirects_make_no_long_record(site: Site) -> None:
    """Ten redirects to URLs of 60 KB; before, the record had 1.2 MB."""
    target = site.url("/")
    for number in range(10):
        site.on(f"/{number}", f"HTTP/1.1 302 Found\r\nLocation: /{number + 1}?{LONG}\r\n\r\n".encode())
    site.on("/10", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    result = await probe_one(target + "0")
    assert (result.outcome, result.cut) == ("ok", ["hops"])
    assert result.final_url == f"{target}10?{LONG}"
    assert len(msgspec.json.encode(result)) < 200_000
