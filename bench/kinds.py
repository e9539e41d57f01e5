"""The kinds of URLs in the benchmarks, and the right answer for each kind."""

from typing import Final, Literal, NamedTuple

__all__ = ["TRUTHS", "Kind", "Truth"]

Kind = Literal[
    "good",  # answers 200 at once
    "secure",  # the same over HTTPS
    "plain",  # the same over HTTP
    "moved",  # redirects once, from HTTP to HTTPS
    "slow",  # answers 200 after one, two or three seconds
    "missing",  # answers 404
    "refused",  # its port refuses connections
    "absent",  # its host does not exist
    "reset",  # resets the connection at the start of the TLS handshake
    "expired",  # has an expired certificate
    "strange",  # has the certificate of an unknown authority
    "silent",  # accepts connections and never answers
    "stuck",  # the same, on one host that has many URLs
]


class Truth(NamedTuple):
    """What is true of the URLs of one kind."""

    status: int
    """Of the last response; 0 if no response can be had."""
    requests: int = 0
    """How many requests nginx gets from a program that finds this out, at least."""


TRUTHS: Final[dict[Kind, Truth]] = {
    "good": Truth(200, 1),
    "secure": Truth(200, 1),
    "plain": Truth(200, 1),
    "moved": Truth(200, 2),
    "slow": Truth(200),  # answered by another server
    "missing": Truth(404, 1),
    "refused": Truth(0),
    "absent": Truth(0),
    "reset": Truth(0),
    "expired": Truth(0),
    "strange": Truth(0),
    "silent": Truth(0),
    "stuck": Truth(0),
}
