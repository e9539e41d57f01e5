"""Readers of what the contenders write: each yields a URL and the status of its answer, 0 without one."""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.check import Record

__all__ = ["read_httpx", "read_lines", "read_linkchecker", "read_linkinator", "read_lychee", "read_ours"]


def read_lines(out: Path) -> Iterator[Record]:
    """Read lines of `STATUS URL`."""
    for line in out.read_text().splitlines():
        status, _, url = line.partition(" ")
        yield url, int(status)


def read_ours(out: Path) -> Iterator[Record]:
    """Read NDJSON. A result without a status has an error."""
    for record in map(json.loads, out.read_text().splitlines()):
        yield record["url"], record["status"] or 0


def read_lychee(out: Path) -> Iterator[Record]:
    """Read the report of `--format json --verbose`."""
    report: dict[str, Any] = json.loads(out.read_text())
    for name in ("success_map", "error_map", "timeout_map"):
        for links in report.get(name, {}).values():
            for link in links:
                yield link["url"], link["status"].get("code", 0)


def read_linkchecker(out: Path) -> Iterator[Record]:
    """Read CSV with the columns urlname and result. A result starts with the status, if there is one."""
    for row in csv.DictReader(out.read_text().splitlines(), delimiter=";"):
        status = re.match(r"(\d{3}) ", row["result"])
        yield row["urlname"], int(status[1]) if status else 0


def read_linkinator(out: Path) -> Iterator[Record]:
    """Read JSON. The first link, the page that has the list, has no parent."""
    for link in json.loads(out.read_text())["links"]:
        if link.get("parent"):
            yield link["url"], link["status"] or 0


def read_httpx(out: Path) -> Iterator[Record]:
    """Read NDJSON."""
    for record in map(json.loads, out.read_text().splitlines()):
        yield record["input"], 0 if record.get("failed") else record["status_code"]
