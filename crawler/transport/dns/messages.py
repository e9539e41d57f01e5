"""Format DNS queries for addresses, and parse the responses (RFC 1035, 4). No EDNS, because nothing here needs it."""

import socket
import struct
from typing import Final, NamedTuple

from aiodns.error import (
    ARES_EBADNAME,
    ARES_EBADRESP,
    ARES_EFORMERR,
    ARES_ENODATA,
    ARES_ENOTFOUND,
    ARES_ENOTIMP,
    ARES_EREFUSED,
    ARES_ESERVFAIL,
    DNSError,
)

__all__ = ["Addresses", "Question", "format_query", "is_truncated", "parse_response"]

_HEADER: Final = struct.Struct("!6H")  # id, flags, and the numbers of questions, answers, authorities, additionals
_RECORD: Final = struct.Struct("!2HIH")  # type, class, TTL, length of the data
_RESPONSE, _TRUNCATED, _RECURSION_DESIRED, _RCODE = 0x8000, 0x0200, 0x0100, 0x000F
_CLASS_IN: Final = 1
_TYPES: Final = {socket.AF_INET: 1, socket.AF_INET6: 28}
_ADDRESS_LENGTHS: Final = {socket.AF_INET: 4, socket.AF_INET6: 16}
_STATUS_BY_RCODE: Final = {  # RFC 1035, 4.1.1
    1: ARES_EFORMERR,
    2: ARES_ESERVFAIL,
    3: ARES_ENOTFOUND,
    4: ARES_ENOTIMP,
    5: ARES_EREFUSED,
}


class Addresses(NamedTuple):
    """The addresses of one name, and for how many seconds they are valid."""

    addresses: list[str]
    ttl: float


class Question(NamedTuple):
    """The question of a query: the addresses of a name in one family."""

    host: str
    family: socket.AddressFamily

    def encoded(self) -> bytes:
        """Return the bytes of the question in a message. `host` must be ASCII, as in a normalised URL.

        Raises:
            DNSError: A label is empty or too long.
        """
        labels = self.host.removesuffix(".").encode("ascii").split(b".")
        if not all(0 < len(label) < 64 for label in labels):
            raise DNSError(ARES_EBADNAME)
        name = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
        return name + struct.pack("!2H", _TYPES[self.family], _CLASS_IN)


def format_query(message_id: int, question: Question) -> bytes:
    """Return a recursive query: the server asks other servers for us."""
    return _HEADER.pack(message_id, _RECURSION_DESIRED, 1, 0, 0, 0) + question.encoded()


def is_truncated(message: bytes) -> bool:
    """Return whether the whole response has to be fetched over TCP."""
    return len(message) >= _HEADER.size and bool(_HEADER.unpack_from(message)[1] & _TRUNCATED)


def parse_response(message: bytes, message_id: int, question: Question) -> Addresses | None:
    """Parse a response; None if it does not belong to this query, because it is late or forged.

    Raises:
        DNSError: The server gives no address; the argument is c-ares' status.
    """
    asked = question.encoded()
    start = _HEADER.size + len(asked)
    if len(message) < start:
        return None
    found_id, flags, _, answers, _, _ = _HEADER.unpack_from(message)
    if found_id != message_id or not flags & _RESPONSE or message[_HEADER.size : start].lower() != asked.lower():
        return None
    if (rcode := flags & _RCODE) != 0:
        raise DNSError(_STATUS_BY_RCODE.get(rcode, ARES_EBADRESP))
    addresses, ttls = [], []
    try:
        for _ in range(answers):
            start = _skip_name(message, start)
            type_, class_, ttl, length = _RECORD.unpack_from(message, start)
            data = message[start + _RECORD.size : start + _RECORD.size + length]
            start += _RECORD.size + length
            if class_ == _CLASS_IN and type_ == _TYPES[question.family]:
                if len(data) != _ADDRESS_LENGTHS[question.family]:
                    raise DNSError(ARES_EBADRESP)
                addresses.append(socket.inet_ntop(question.family, data))
            ttls.append(ttl)
    except (IndexError, struct.error):
        raise DNSError(ARES_EBADRESP) from None
    if not addresses:
        raise DNSError(ARES_ENODATA)
    return Addresses(addresses, float(min(ttls)))


def _skip_name(message: bytes, start: int) -> int:
    """Return the position after a name. A compression pointer ends a name (RFC 1035, 4.1.4)."""
    while (length := message[start]) != 0:
        if length >= 0xC0:
            return start + 2
        start += 1 + length
    return start + 1
