"""Proactive content negotiation: the choice of a media type (RFC 9110, 12.5.1)."""

import re
from collections.abc import Mapping
from typing import Final, TypeVar

__all__ = ["choose_media_type"]

T = TypeVar("T")

_RANGE: Final = re.compile(r"\s*(?P<type>[^\s;,/]+/[^\s;,/]+)\s*(?P<parameters>(?:;.*)?)", re.S)
_QUALITY: Final = re.compile(r";\s*q\s*=\s*(?P<q>[01](?:\.\d{0,3})?)\s*(?:;|$)", re.I)


def choose_media_type(accept: str, offers: Mapping[str, T]) -> T | None:
    """Return the offer that an Accept header prefers, the first one of equals; None if it accepts no offer."""
    ranges: dict[str, float] = {}
    for part in accept.split(","):
        if match := _RANGE.fullmatch(part):
            quality = _QUALITY.search(match["parameters"])
            ranges[match["type"].lower()] = float(quality["q"]) if quality else 1.0
    best = max(offers, key=lambda offer: _quality(offer, ranges))
    return offers[best] if _quality(best, ranges) > 0 or not accept.strip() else None


def _quality(offer: str, ranges: Mapping[str, float]) -> float:
    """Return the quality of an offer: that of the most specific range that contains it."""
    kind = offer.partition("/")[0]
    for name in (offer, f"{kind}/*", "*/*"):
        if name in ranges:
            return ranges[name]
    return 0.0
