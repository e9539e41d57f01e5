"""Makes the ProbeResult from the state of a probe and its last answer."""

import time

from crawler.core.options import Options
from crawler.core.results import (
    REPORTED_HEADERS,
    HopResult,
    Outcome,
    ProbeError,
    ProbeResult,
    Timings,
    first_contract_errors,
)
from crawler.probing.probe_state import ProbeState
from crawler.probing.result_bounds import shorten_result
from crawler.transport.http.response_body import body_text, find_title

__all__ = ["build_result"]


def build_result(
    state: ProbeState,
    options: Options,
    hop: HopResult,
    error: ProbeError | None,
    matched: bool | None,
    *,
    place: int = -1,
) -> ProbeResult:
    """Return the result of a probe that ends with this answer, or with this error.

    Args:
        state: The state of the probe.
        options: The options of the probe.
        hop: The answer.
        error: Why there is no answer.
        matched: Whether the body has what the option `match` looks for.
        place: The answer's place in `state.hops`.
    """
    hops = state.hops
    outcome = _outcome(options, hop.status, error)
    errors = first_contract_errors(hop.status, error)
    if options.accept and error is None and hop.status is not None:
        errors = {} if outcome == "ok" else {"http": hop.status}
    result = ProbeResult(
        seq=state.seq,
        url=state.text,
        timestamp=int(time.time()),
        outcome=outcome,
        status=hop.status,
        method=hops[place].method if hops else None,
        attempts=state.attempts,
        error=error,
        errors=errors,
        final_url=hops[place].url if hops else None,
        hops=hops,
        timings=hops[0].timings if len(hops) == 1 else _total_timings([each.timings for each in hops]),
        ip=hop.ip,
        tls=hop.tls,
        title=find_title(body_text(hop.body)) if options.title and hop.body is not None else None,
        matched=matched,
        headers={name: value for name, value in reversed(hop.headers) if name in REPORTED_HEADERS},
    )
    return shorten_result(result)


def _outcome(options: Options, status: int | None, error: ProbeError | None) -> Outcome:
    if error is None:
        return "ok" if status is not None and options.accepts(status) else "http_error"
    if error.group == "BLOCKED":
        return "blocked"
    return "invalid" if error.phase == "url" and status is None else "failed"


def _total_timings(parts: list[Timings]) -> Timings:
    """Add up each phase; a phase that occurs in no part stays None."""
    total = Timings()
    for part in parts:
        for name in Timings.__struct_fields__:
            if (value := getattr(part, name)) is not None:
                setattr(total, name, round((getattr(total, name) or 0.0) + value, 3))
    return total
