"""Results of targets that get no request."""

import time

from crawler.core.options import Options
from crawler.core.results import ProbeError, ProbeResult
from crawler.core.urls import Target, Url
from crawler.probing.probe import Probe

__all__ = ["failed_result", "result_without_request"]


def failed_result(target: Target, options: Options, error: ProbeError) -> ProbeResult:
    """Return the result of a target that is not probed, for the reason that `error` gives."""
    probe = Probe.of(target, options, time.monotonic)
    probe.fail(error)
    return probe.result


def result_without_request(target: Target, options: Options) -> ProbeResult | None:
    """Return the result of a target that needs no request: a duplicate of a known one, or a line that is no URL."""
    if target.known_result is None and isinstance(target.url, Url):
        return None
    return Probe.of(target, options, time.monotonic).result
