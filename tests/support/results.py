"""What results look like, for the tests of every package."""

import io
from typing import Final, get_args

from hypothesis import strategies as st

from crawler.core.results import Outcome, ProbeError, ProbeResult
from crawler.formats.result_writers import ResultFormat, open_writer

OUTCOMES: Final[tuple[Outcome, ...]] = get_args(Outcome)

# The keys of a result in JSON, in their order (the contract of `/api/v1`); more may follow.
RESULT_KEYS = [
    "seq", "url", "timestamp", "outcome", "status", "method", "attempts", "error", "errors", "final_url", "hops",
    "timings", "ip", "tls", "headers",
]  # fmt: skip

# Every character that UTF-8 can encode: targets have no other.
TEXT: Final = st.text(st.characters(exclude_categories=["Cs"]))


def a_result(
    url: str = "http://a/", *, seq: int = 0, outcome: Outcome = "ok", status: int | None = 200, error: str | None = None
) -> ProbeResult:
    """A result whose probe failed with the message `error`, if there is one."""
    problem = ProbeError.of("http.failed", error) if error is not None else None
    return ProbeResult(seq=seq, url=url, timestamp=1_790_000_000, outcome=outcome, status=status, error=problem)


def written(format_: ResultFormat, *results: ProbeResult) -> str:
    """What the writer of a format writes for these results."""
    stream = io.StringIO(newline="")
    writer = open_writer(format_, stream)
    for result in results:
        writer.write(result)
    writer.close()
    return stream.getvalue()
