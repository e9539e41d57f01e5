"""What the contenders write: a sample of each, as the program wrote it, without the fields that are not read."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from bench import records
from bench.check import Record

OK, MISSING = "https://a.test:1/1", "https://b.test:1/missing/2"
REFUSED, MOVED = "https://c.test:2/3", "http://d.test:3/moved/4"
ALL: set[Record] = {(OK, 200), (MISSING, 404), (REFUSED, 0), (MOVED, 200)}

LINES = f"000 {REFUSED}\n404 {MISSING}\n200 {OK}\n200 {MOVED}\n"

LYCHEE: dict[str, Any] = {
    "total": 4,
    "success_map": {
        "/tmp/list.txt": [
            {"url": OK, "status": {"text": "200 OK", "code": 200}},
            {
                "url": MOVED,
                "status": {"text": "200 OK", "code": 200},
                "redirects": {"origin": MOVED, "redirects": [{"url": "https://d.test:1/moved/4", "code": 301}]},
            },
        ]
    },
    "error_map": {
        "/tmp/list.txt": [
            {"url": MISSING, "status": {"text": "Rejected status code: 404 Not Found", "code": 404}},
            {"url": REFUSED, "status": {"text": "Network error: Connection refused", "details": "Connection refused"}},
        ]
    },
    "timeout_map": {},
    "redirect_map": {"/tmp/list.txt": [{"origin": MOVED, "redirects": []}]},
}

LINKCHECKER = f"""urlname;result
{OK};200 OK
{MISSING};404 Not Found
{REFUSED};"ConnectionError: HTTPSConnectionPool(host='c.test', port=2): Max retries exceeded with url: /3 (Caused \
by NewConnectionError(""HTTPSConnection(host='c.test', port=2): Failed to establish a new connection: [Errno 1..."
{MOVED};200 OK
"""

LINKINATOR: dict[str, Any] = {
    "links": [
        {"url": "tmp/list.html", "status": 200, "state": "OK"},
        {"url": OK, "status": 200, "state": "OK", "parent": "tmp/list.html"},
        {"url": REFUSED, "status": 0, "state": "BROKEN", "parent": "tmp/list.html"},
        {"url": MISSING, "status": 404, "state": "BROKEN", "parent": "tmp/list.html"},
        {"url": MOVED, "status": 200, "state": "OK", "parent": "tmp/list.html"},
    ],
    "passed": False,
}

OURS = "".join(
    json.dumps({"url": url, "status": status or None, "error": None if status else {"type": "tcp.refused"}}) + "\n"
    for url, status in ALL
)


@pytest.mark.parametrize(
    ("read", "written"),
    [
        (records.read_ours, OURS),
        (records.read_lines, LINES),
        (records.read_lychee, json.dumps(LYCHEE)),
        (records.read_linkchecker, LINKCHECKER),
        (records.read_linkinator, json.dumps(LINKINATOR)),
    ],
)
def test_each_url_has_its_status(tmp_path: Path, read: Callable[[Path], Iterable[Record]], written: str) -> None:
    out = tmp_path / "out"
    out.write_text(written)
    found = list(read(out))
    assert set(found) == ALL
    assert len(found) == len(ALL)
