"""Examples of requests and responses. Those of responses are made from the records that responses are made from."""

from typing import Any, Final

import msgspec

from crawler.core.options import Options
from crawler.core.results import Hop, ProbeError, ProbeResult, Timings
from crawler.core.task_options import task_options
from crawler.core.task_summary import Links, Progress, Summary
from crawler.core.tasks import Counts
from crawler.formats.result_writers import COLUMNS
from crawler.server.api.schemas import ResultPage, TaskPage

__all__ = [
    "BATCH",
    "CHOICES",
    "CSV",
    "EVENTS",
    "FAILED",
    "HEALTH",
    "LINES",
    "NDJSON",
    "OK",
    "PAGE",
    "READY",
    "RESULT",
    "RESULT_LINES",
    "RESULT_ROWS",
    "SUMMARY",
    "TASKS",
    "TASK_ID",
    "UNREADY",
    "URLS",
]

TASK_ID: Final = "5b24719a-8105-429d-a7af-db067412adf9"
URLS: Final = ["https://example.org/", "https://example.org/missing"]
_CREATED: Final = 1_795_357_077

# --- Bodies ---

CHOICES: Final = {"options": {"timeout": 10, "retries": 2}, "label": "nightly"}
BATCH: Final = {"urls": URLS, **CHOICES}
LINES: Final = "".join(f"{url}\n" for url in URLS)
NDJSON: Final = "".join(f'{{"url": "{url}"}}\n' for url in URLS)
CSV: Final = "url,note\n" + "".join(f"{url},{number}\n" for number, url in enumerate(URLS, 1))

# --- Responses ---

_TIMES: Final = Timings(dns=1.2, connect=10.0, ssl=21.3, send=0.1, wait=40.2, receive=0.0, total=72.8)
OK: Final = ProbeResult(
    seq=0,
    url=URLS[0],
    timestamp=_CREATED + 1,
    outcome="ok",
    status=200,
    method="HEAD",
    attempts=1,
    final_url=URLS[0],
    hops=[Hop(URLS[0], "HEAD", 200, "203.0.113.7", _TIMES, http_version="1.1")],
    timings=_TIMES,
    ip="203.0.113.7",
    headers={"content-type": "text/html"},
)
_REFUSED: Final = ProbeError.of("tcp.refused", "connection refused")
FAILED: Final = ProbeResult(
    seq=1,
    url=URLS[1],
    timestamp=_CREATED + 2,
    outcome="failed",
    method="HEAD",
    attempts=2,
    error=_REFUSED,
    errors={"http": _REFUSED.group},
)
_TASK_PATH: Final = f"/api/v1/tasks/{TASK_ID}"
_PROGRESS: Final = Progress(status="ready", total=2, done=2, counts=Counts(ok=1, failed=1), rate=1.5, eta=None)
_SUMMARY: Final = Summary(
    **{name: getattr(_PROGRESS, name) for name in Progress.__struct_fields__},
    id=TASK_ID,
    label="nightly",
    detail=None,
    created=_CREATED,
    finished=_CREATED + 2,
    options=task_options(Options(timeout=10, retries=2)),
    webhook=None,
    links=Links(_TASK_PATH, *(f"{_TASK_PATH}/{name}" for name in Links.__struct_fields__[1:])),
)


def _to_plain(record: object) -> Any:
    return msgspec.to_builtins(record)


def _event(name: str, record: object, head: str = "") -> str:
    return f"event: {name}\n{head}data: {msgspec.json.encode(record).decode()}\n\n"


def _row(result: ProbeResult) -> str:
    cells = (column(result) for column in COLUMNS.values())
    return ",".join("" if cell is None else str(cell) for cell in cells) + "\r\n"


HEALTH: Final = {"healthy": True}
_CHECKS: Final = {"store": "ok", "resolver": "ok", "loop": "ok", "prober": "ok", "service": "ok"}
READY: Final = {"ready": True, "checks": _CHECKS}
UNREADY: Final = {
    "type": "about:blank",
    "title": "Service Unavailable",
    "status": 503,
    "detail": "store: has no space left",
    "ready": False,
    "checks": _CHECKS | {"store": "has no space left"},
    "fleet": {"workers": 3, "pending": 20, "oldest": 1.5, "redelivered": 0},
}
SUMMARY: Final = _to_plain(_SUMMARY)
TASKS: Final = _to_plain(TaskPage([_SUMMARY], None))
RESULT: Final = _to_plain(OK)
PAGE: Final = _to_plain(ResultPage([OK, FAILED], None))
RESULT_LINES: Final = "".join(msgspec.json.encode(result).decode() + "\n" for result in (OK, FAILED))
RESULT_ROWS: Final = ",".join(COLUMNS) + "\r\n" + _row(OK) + _row(FAILED)
EVENTS: Final = (
    _event("result", OK, "id: 1\n")
    + _event("result", FAILED, "id: 2\n")
    + _event("progress", _PROGRESS)
    + _event("end", _SUMMARY)
)
