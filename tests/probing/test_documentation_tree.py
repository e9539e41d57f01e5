"""A run on real input: every link in thousands of pages of Debian's C++ reference, served by nginx.

The files on disk tell what each link must answer; the code that reads them shares nothing with crawler.
"""

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp.test_utils import TestClient, TestServer

from crawler import Options, create_app
from tests.support.links import find_links, find_pages, make_page, vary_paths
from tests.support.webserver import NGINX, WebServer

DOCUMENTATION = Path(__file__).parents[2] / ".cache/docs/usr/share/cppreference/doc/html"

NAMES = (
    "a b.html", "a+b.html", "100%.html", "%41.html", "what?.html", "a#b.html", "c:d.html", "caf\u00e9.html",
    "cafe\u0301.html", "\U0001f578.html", "it's \"<here>\" & {there}|`^~.html", "back\\slash.html", "-", "...",
)  # fmt: skip
"""Names of files unlike any in the reference."""
FOLDERS = ("shelf", "a shelf", "50% \u00e9?#")
"""Folders with an index file; no folder of the reference has one."""
HREFS = (
    ".", "..", "/", "", "?", "?a=b", "#top", "/docs", "/docs/", "docs//en", "./docs/../docs/en/",
    "a%2Eb.html", "A%20B.html", "what?.html", "a#b.html", "shelf?a=b#c", "shelf%2Findex.html", "caf\u00e9.html",
    "cafe\u0301.html", "cafe.html", "caf%E9.html", "caf%c3%a9.html", "%63%3Ad.html", "./c:d.html", "a|b", "a{b}", "a'b",
    "x" * 200, "mailto:somebody@example.com", "https://example.com/",
)  # fmt: skip
"""Links unlike any in the reference, to files and folders that exist or almost exist."""


@pytest.fixture
def server(tmp_path: Path) -> WebServer:
    """Return a server with the reference under /docs, and beside it the files, folders and links above."""
    if not DOCUMENTATION.is_dir() or not NGINX.exists():
        pytest.fail("`make system` fetches nginx and the pages")
    root, scratch = tmp_path / "root", tmp_path / "nginx"
    for folder in (root, scratch, *(root / name for name in FOLDERS)):
        folder.mkdir()
    (root / "docs").symlink_to(DOCUMENTATION)
    for name in (*NAMES, *(f"{folder}/index.html" for folder in FOLDERS)):
        (root / name).touch()
    existing = [quote(f"/{file.relative_to(root)}") for file in find_pages(root)]
    (root / "more.html").write_text(
        make_page([*HREFS, *map(quote, NAMES), *map(quote, FOLDERS), *vary_paths(existing)]), encoding="utf-8"
    )
    return WebServer(root, scratch)


def links_of_pages(server: WebServer) -> list[set[str]]:
    """Return, for each page, the distinct URLs on this server that it links to."""
    return [
        find_links(page, f"{server.origin}/{quote(str(page.relative_to(server.root)))}")
        for page in find_pages(server.root)
    ]


async def probed(urls: list[str], options: Options) -> dict[str, Any]:
    """Have a service probe URLs; return their results from the first contract."""
    async with TestClient(TestServer(create_app(options))) as client:
        async with client.post("/submit", data=json.dumps({"urls": urls}).encode()) as response:
            task_id = (await response.json())["task_id"]
        while True:
            async with client.get(f"/tasks/{task_id}") as response:
                task: dict[str, Any] = await response.json()
            if task["status"] != "running":
                assert task["status"] == "ready"
                return {url: record["errors"] for url, record in task["result"].items()}
            await asyncio.sleep(0.2)  # between polls, as users of the contract do


@pytest.mark.timeout(180)
async def test_every_answer_agrees_with_the_files_on_disk(server: WebServer) -> None:
    with server.running():
        of_pages = links_of_pages(server)
        urls = set().union(*of_pages)
        answers = {url: server.expected_answers(url) for url in urls}
        # No retries: a connection that fails for no reason has to show.
        found = await probed(sorted(urls), Options(concurrency=64, per_host=64, retries=0, guard="any"))

    # The input is what it claims to be: large, and of every kind.
    assert len(of_pages) > 4_000
    assert sum(map(len, of_pages)) > 300_000
    assert len(urls) > 8_000
    kinds = Counter(tuple(status for _, status in hops) for hops in answers.values())
    assert min(kinds[kind] for kind in [(200,), (404,), (403,), (301, 403)]) > 100
    assert kinds[301, 200] >= len(FOLDERS)

    expected = {url: {} if hops[-1][1] < 400 else {"http": hops[-1][1]} for url, hops in answers.items()}
    assert found.keys() == expected.keys()
    assert {url: (found[url], expected[url]) for url in urls if found[url] != expected[url]} == {}
    # The answers are from requests: nginx logged every path and every redirect, exactly as they are in the pages.
    assert server.logged_answers() == {answer for hops in answers.values() for answer in hops}
