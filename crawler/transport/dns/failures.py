"""The messages for failed DNS lookups: one for each status of c-ares, with the servers that were asked."""

from typing import Final

from aiodns.error import (
    ARES_EBADNAME,
    ARES_EBADRESP,
    ARES_ECONNREFUSED,
    ARES_EFORMERR,
    ARES_ENODATA,
    ARES_ENOTFOUND,
    ARES_ENOTIMP,
    ARES_EREFUSED,
    ARES_ESERVFAIL,
    ARES_ETIMEOUT,
    DNSError,
)

__all__ = ["FINAL_STATUSES", "dns_failure"]

FINAL_STATUSES: Final = frozenset({ARES_ENOTFOUND, ARES_ENODATA, ARES_EBADNAME})
"""Statuses that a second lookup would give again."""

_SENTENCES: Final = {
    ARES_ENOTFOUND: "no such name (NXDOMAIN from {servers})",
    ARES_ENODATA: "the name exists but has no {families} address, says {servers}",
    ARES_ESERVFAIL: "SERVFAIL from {servers}: DNSSEC or the zone's servers",
    ARES_EREFUSED: "REFUSED by {servers}: the DNS server does not resolve this name for this machine",
    ARES_ENOTIMP: "NOTIMP from {servers}: the DNS server does not know this kind of query",
    ARES_EFORMERR: "FORMERR from {servers}: the DNS server does not understand the query",
    ARES_EBADRESP: "a malformed answer from DNS server {servers}",
    ARES_EBADNAME: "DNS cannot carry this name: a label is empty or longer than 63 bytes, or the name longer than 253",
    ARES_ECONNREFUSED: "no DNS server can be reached: {servers}",
    ARES_ETIMEOUT: "no answer from DNS server {servers} in time",
}
_MAX_SERVERS_NAMED: Final = 3


def dns_failure(error: DNSError, servers: list[str], families: list[str]) -> DNSError:
    """Return the same failure with a message as its second argument.

    Args:
        error: Its first argument is c-ares' status.
        servers: The addresses of the DNS servers.
        families: The address families of the lookup: "IPv4", "IPv6".
    """
    sentence = _SENTENCES.get(error.args[0])
    if sentence is None:  # a fault of this machine or of c-ares, in c-ares' words
        return DNSError(*error.args)
    named = " or ".join(servers[:_MAX_SERVERS_NAMED]) + " or others" * (len(servers) > _MAX_SERVERS_NAMED)
    return DNSError(error.args[0], sentence.format(servers=named or "any", families=" or ".join(families)))
