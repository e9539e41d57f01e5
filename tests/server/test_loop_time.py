"""No body, robots.txt, pattern, URL or result holds the loop: the watchdog of the suite measures each step.

The inputs are those that cost the most for their length: blank, short, wide, nested, long, packed lines.
"""

import gzip
import io
from collections.abc import AsyncIterator, Iterator
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawler import MemoryRegistry, ServiceOptions
from crawler.core.errors import InputError, OptionError
from crawler.core.patterns import compile_pattern
from crawler.core.urls import Url, parse_url, resolve_redirect
from crawler.formats.url_lists import INPUT_FORMATS, InputFormat, open_reader
from crawler.probing.robots.rules import RobotsRules
from crawler.runtime.turns import Turns, complete_in_turns
from crawler.server.http.request_body import read_lines
from crawler.stores.ordering import prepare_line
from tests.support.api import Api, serving_api
from tests.support.loop_watchdog import counting_tests, no_hold, watched_loop

KIB: Final = 1024
MIB: Final = KIB * KIB
TYPES: Final[dict[InputFormat, str]] = {
    "text": "text/plain",
    "ndjson": "application/x-ndjson",
    "csv": "text/csv",
    "json": "application/json",
}
STARTS: Final[dict[InputFormat, bytes]] = {"text": b"", "ndjson": b"", "csv": b"url\n", "json": b'{"urls":["x"'}


@pytest.fixture(autouse=True)
def tests_count() -> Iterator[None]:
    with counting_tests():
        yield


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with serving_api(MemoryRegistry(), ServiceOptions(drain=0, max_body=2**23)) as api:
        yield api


PARTS: Final = [
    b"\n", b"\r\n", b" ", b",", b",\n", b'"', b'""', b"a\n", b"a", b"\xff\n", b'"a"\n', b"[", b"]", b"[],", b"{",
    b'{"a":', b'"a":1,', b',"a"', b"0,", b"\\", b"\0", b'{"url":"a","x":[', b"http://a/\n", b"\xc3\xa9\n", b"'=\n",
]  # fmt: skip


@settings(max_examples=20)
@given(
    st.sampled_from(INPUT_FORMATS),
    st.lists(st.tuples(st.lists(st.sampled_from(PARTS), min_size=1, max_size=3).map(b"".join), st.integers(1, 300))),
)
def test_no_list_holds_the_loop(format_: InputFormat, parts: list[tuple[bytes, int]]) -> None:
    data = STARTS[format_] + b"".join(part * (kib * KIB // len(part)) for part, kib in parts)

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 64 * KIB):
            yield data[start : start + 64 * KIB]

    async def count_lines(count: int, size: int) -> None:
        pass

    async def read() -> None:
        try:
            turns = Turns()
            async for line in read_lines(chunks(), open_reader(format_), count_lines):
                prepare_line(line)
                if turns.is_over:  # as all stores do
                    await turns.next()
        except InputError:
            pass

    loop = watched_loop()
    try:
        with no_hold():
            loop.run_until_complete(loop.create_task(read()))
    finally:
        loop.close()


BODIES: Final[dict[str, tuple[InputFormat, bytes, int, str]]] = {
    "blank CSV": ("csv", b"url\nx\n" + b"\n" * 1_100_000, 422, "more than 1000000 lines without a URL"),
    "blank text": ("text", b"x\n" + b" \n" * 1_100_000, 422, "more than 1000000 lines without a URL"),
    "blank NDJSON": ("ndjson", b'"x"\n' + b"\n" * 1_100_000, 422, "more than 1000000 lines without a URL"),
    "wide row": ("csv", b"url\n" + b"," * 20_000 + b"\n", 422, "more than 16384 cells"),
    "nested lines": ("ndjson", b'{"url":"x","a":[' + b"[]," * 300_000 + b"[]]}\n", 201, ""),
    "nested member": ("json", b'{"urls":["x"],"options":[' + b"[]," * 60_000 + b"[]]}", 422, "besides `urls`"),
    "deep member": ("json", b'{"urls":["x"],"options":' + b"[" * 900_000, 400, "ends too early"),
    "short lines": ("text", b"x\n" * 100_000, 201, ""),
    "long line": ("text", b"x" * 3_000_000, 201, ""),
}


@pytest.mark.parametrize("name", BODIES)
async def test_no_body_holds_the_loop(api: Api, name: str) -> None:
    format_, data, status, words = BODIES[name]
    headers = {"Content-Type": TYPES[format_]}
    if len(data) > MIB:
        data, headers["Content-Encoding"] = gzip.compress(data), "gzip"
    answer = await api.ask("POST", "/tasks", status, data=io.BytesIO(data), headers=headers)
    assert words in (answer.json["detail"] or "")


async def test_packed_bytes_count_too(api: Api) -> None:
    """Empty members of gzip unpack to nothing; without a Content-Length only their packed bytes tell their number."""
    member = gzip.compress(b"")

    async def body() -> AsyncIterator[bytes]:
        for _ in range(2**23 // len(member) // 1000 + 2):
            yield member * 1000

    headers = {"Content-Type": "text/plain", "Content-Encoding": "gzip"}
    await api.refuses("POST", "/tasks", 413, "more than 8388608 bytes", data=body(), headers=headers)


FILES: Final = {
    "stars": b"".join(b"Disallow: %s%d\n" % (b"*" * 480, number) for number in range(1000)),
    "pieces": b"".join(b"Disallow: /*%s%d\n" % (b"a*" * 8000, number) for number in range(31)),
    "plain": b"".join(b"Disallow: /%d\n" % number for number in range(30_000)),
    "encoded": b"".join(b"Disallow: /%s%d\n" % (b"%e4" * 160, number) for number in range(1000)),
    "junk": b"a\n" * 250_000,
    "blank": b"\n" * 500_000,
}


@pytest.mark.parametrize("name", FILES)
async def test_no_robots_file_and_no_path_holds_the_loop(name: str) -> None:
    data = b"User-agent: *\n" + FILES[name]
    rules = await complete_in_turns(RobotsRules.parse_in_steps(data[: 500 * KIB], "crawler"))
    assert rules.size < 2.5 * 2**20  # of the cache's 16 MiB for all
    for part in ("a", "%e4", "\xe4", "*"):
        await complete_in_turns(rules.allows_in_steps("/b" + part * (64 * KIB // len(part))))


PATTERNS: Final = [r"\pL{1,100}", r"(\pL\pN){1,60}", r"\PL{1,40}", "(?:[a-z]{1,40}){1,30}", ".{1,500}", "a|" * 499]


@pytest.mark.parametrize("pattern", PATTERNS)
async def test_no_pattern_holds_the_loop(pattern: str) -> None:
    try:
        compile_pattern(pattern)
    except OptionError as error:
        assert "too large" in str(error) or "RE2" in str(error)


@pytest.mark.parametrize("part", ["a", "%e4", "\xe4", "a:", "a.", "xn--a.", " ", "../", "@", "[", "\\", "|"])
async def test_no_url_holds_the_loop(part: str) -> None:
    long = part * (64 * KIB // len(part))
    for text in (long, f"http://{long}", f"http://a/{long}", f"http://{long}@a/"):
        parse_url(text)
    base = parse_url("http://a.example/" + "a/" * 32_000)
    assert isinstance(base, Url)
    resolve_redirect(base, long)
