"""Find the links of real pages with the standard library alone, so that no test checks our code with itself."""

import html
import os
import re
from collections.abc import Iterable, Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin

# Tags that may have a link, and what only looks like one. The parser is slow: it does not get the rest of a page.
_TAG = re.compile(
    r"""<!--.*?-->|<(script|style)\b.*?</\1>|<[a-z](?:"[^"]*"|'[^']*'|[^>"'])*>""", re.DOTALL | re.IGNORECASE
)


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.update(value for name, value in attrs if name in ("href", "src") and value is not None)


_join = cache(urljoin)


@cache
def _hrefs_of(tag: str) -> set[str]:
    """Return the links in one tag. Most tags are on many pages of a site."""
    parser = _Links()
    parser.feed(tag)
    parser.close()
    return parser.found


def find_pages(root: Path) -> list[Path]:
    """Return all HTML files below a folder; symbolic links are followed."""
    return sorted(
        Path(folder, name)
        for folder, _, names in os.walk(root, followlinks=True)
        for name in names
        if name.endswith(".html")
    )


def find_links(page: Path, url: str) -> set[str]:
    """Return the absolute URLs of the page's links to its own server, otherwise exactly as in the page."""
    folder, server = url.rpartition("/")[0] + "/", "/".join(url.split("/")[:3])
    tags = {match[0] for match in _TAG.finditer(page.read_text(encoding="utf-8"))}
    hrefs = {href for tag in tags if "href" in tag or "src" in tag for href in _hrefs_of(tag)}
    # All pages of a folder share what a link means, unless it leaves out the path.
    links = {_join(folder if href[:1] not in ("", "?", "#") else url, href) for href in hrefs}
    return {link for link in links if link == server or link.startswith((f"{server}/", f"{server}?", f"{server}#"))}


def make_page(hrefs: Iterable[str]) -> str:
    """Return an HTML page with these links."""
    return "".join(f'<a href="{html.escape(href)}">a link</a>\n' for href in hrefs)


def vary_paths(paths: Iterable[str]) -> Iterator[str]:
    """Return, for each path of a tree without broken links, a path that differs a little."""
    for number, path in enumerate(sorted(paths)):
        yield (
            path + "~",
            path.swapcase(),
            path + "/",
            path + "?page=2&of=a%20lot#top",
            "/".join("".join(f"%{byte:02x}" for byte in part.encode()) for part in path.split("/")),
            "/" + path[1:].replace("/", "//"),
            path.rpartition("/")[0],
            path.rpartition("/")[0] + "/",
        )[number % 8]
