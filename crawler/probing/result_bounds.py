"""Bound the bytes of a result: a target chooses how long its redirects and headers are, and there are many results.

What is too long is cut, ends in `…`, and its field is named in `cut`. The URL of the line stays whole.
"""

from typing import Final

from crawler.core.results import Hop, ProbeResult

__all__ = ["MAX_RECORD_BYTES", "shorten_hop", "shorten_result"]

MAX_RECORD_BYTES: Final = 640 * 1024
"""Of the JSON of a result. `url` and `final_url` may take 320 KiB of it: 64 Ki characters each, of several bytes."""

_MARK: Final = "…"  # in no URL: there it is percent-encoded
_MAX_TEXT: Final = 8_000  # that every implementation should support as a URL (RFC 9110, 4.1)
_MAX_HEADER: Final = 1_000
_MAX_HOPS: Final = 100
_MAX_HOP_TEXTS: Final = 64 * 1024  # of the URLs of all hops


def shorten_hop(hop: Hop) -> None:
    """Cut the URL of a hop that is not the last one: while a probe lasts, each hop is in memory."""
    hop.url = _shorten(hop.url, _MAX_TEXT)


def shorten_result(result: ProbeResult) -> ProbeResult:
    """Cut what is too long, in place."""
    cut = []
    if result.hops and _shorten_hops(result):
        cut.append("hops")
    for name, value in result.headers.items():
        if len(value) > _MAX_HEADER:
            result.headers[name] = _shorten(value, _MAX_TEXT if name == "location" else _MAX_HEADER)
            if result.headers[name] != value and "headers" not in cut:
                cut.append("headers")
    if result.error is not None and len(result.error.message) > _MAX_HEADER:
        result.error = type(result.error)(
            result.error.type, result.error.phase, _shorten(result.error.message, _MAX_HEADER), result.error.transient
        )
        cut.append("error")
    if cut:
        result.cut = cut
    return result


def _shorten_hops(result: ProbeResult) -> bool:
    hops = result.hops
    if len(hops) == 1 and len(hops[0].url) <= _MAX_TEXT:  # nearly always
        return False
    length = sum(len(hop.url) for hop in hops)
    if len(hops) <= _MAX_HOPS and length <= _MAX_TEXT:
        return False
    if is_cut := len(hops) > _MAX_HOPS:
        hops = hops[: _MAX_HOPS // 2] + hops[-_MAX_HOPS // 2 :]
    limit = min(_MAX_TEXT, _MAX_HOP_TEXTS // len(hops)) if length > _MAX_HOP_TEXTS else _MAX_TEXT
    for hop in hops:
        hop.url = _shorten(hop.url, limit)
        is_cut = is_cut or hop.url.endswith(_MARK)
    result.hops = hops
    return is_cut


def _shorten(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + _MARK
