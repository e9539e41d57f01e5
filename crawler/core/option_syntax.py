"""The forms of options that are more than a word or a number."""

import base64
import ipaddress
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from crawler.core.errors import OptionError

__all__ = [
    "check_headers",
    "check_proxy",
    "parse_headers",
    "parse_resolve",
    "parse_secret",
    "parse_server",
    "parse_statuses",
]

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")  # RFC 9110, 5.5; one byte a character
_SERVER = re.compile(r"(?:\[(?P<v6>.*:.*)\]|(?P<v4>[^:]*))(?::(?P<port>[0-9]{1,5}))?|(?P<bare>.*)")
_RESOLVE = re.compile(r"(?P<host>[!-9;-~]+):(?P<port>[0-9]{1,5}):(?:\[(?P<v6>.*:.*)\]|(?P<bare>.*))")
_STATUSES = re.compile(r"([1-9][0-9]{2})(?:-([1-9][0-9]{2}))?")
# Framing and hop-by-hop fields are the transport's: a user who sets them breaks the message, not the target.
_RESERVED = frozenset(
    {
        "connection", "content-length", "expect", "host", "keep-alive", "proxy-authenticate", "proxy-authorization",
        "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
_SECRET: Final = "whsec_"
_HEADERS: Final = 32 * 1024  # bytes; they are sent with each request, and servers take no more


def parse_server(text: str) -> tuple[str, int]:
    """Split `HOST[:PORT]` of a DNS server; an IPv6 address with a port stands in brackets.

    Raises:
        OptionError: Not an address, or not a port.
    """
    try:
        spelt = _SERVER.fullmatch(text)
        if spelt is None or not 0 < (port := int(spelt["port"] or 53)) < 65536:
            raise ValueError
        return str(ipaddress.ip_address(spelt["v6"] or spelt["v4"] or spelt["bare"])), port
    except ValueError:
        raise OptionError(f"{text!r} is not an IP address with an optional port", "dns") from None


def parse_resolve(text: str) -> tuple[tuple[str, int], str]:
    """Split `HOST:PORT:ADDRESS` into what is asked for and the answer.

    Raises:
        OptionError: It has another form.
    """
    try:
        spelt = _RESOLVE.fullmatch(text)
        if spelt is None or not 0 < (port := int(spelt["port"])) < 65536:
            raise ValueError
        host = spelt["host"].lower().removesuffix(".")  # as targets have it
        return (host, port), str(ipaddress.ip_address(spelt["v6"] or spelt["bare"]))
    except ValueError:
        raise OptionError(f"{text!r} is not of the form HOST:PORT:ADDRESS", "resolve") from None


@lru_cache(maxsize=128)
def parse_statuses(texts: tuple[str, ...]) -> frozenset[int]:
    """All statuses of some `STATUS[-STATUS]`.

    Raises:
        OptionError: One has another form, or is empty.
    """
    statuses: set[int] = set()
    for text in texts:
        spelt = _STATUSES.fullmatch(text)
        wanted = range(int(spelt[1]), int(spelt[2] or spelt[1]) + 1) if spelt else ()
        if not wanted:
            raise OptionError(f"{text!r} is neither a status from 100 to 999 nor two with a - between", "accept")
        statuses.update(wanted)
    return frozenset(statuses)


def parse_headers(lines: Iterable[str]) -> dict[str, str]:
    """Read headers, a `Name: value` each.

    Raises:
        OptionError: One has another form.
    """
    pairs = [line.partition(":") for line in lines]
    for name, colon, _ in pairs:
        if not colon:
            raise OptionError(f"{name!r} is not of the form 'Name: value'", "headers")
    return {name.strip(): value.strip() for name, _, value in pairs}


def check_headers(headers: Mapping[str, str], place: str) -> None:
    """Refuse what could split the request or change its framing (RFC 9110, RFC 9112).

    Raises:
        OptionError: A header could.
    """
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name):
            raise OptionError(f"{name!r} is not a header name", place)
        if name.lower() in _RESERVED:
            raise OptionError(f"{name} is set by the transport and cannot be given", place)
        if not _FIELD_VALUE.fullmatch(value):
            raise OptionError(f"the value of {name} has a control character or one outside Latin-1", place)
    if sum(len(name) + len(value) for name, value in headers.items()) > _HEADERS:
        raise OptionError(f"more than {_HEADERS} bytes in all", place)


def parse_secret(text: str, place: str) -> bytes:
    """The key that a webhook's secret stands for: `whsec_` and in base64 24 to 64 bytes.

    Raises:
        OptionError: It has another form; it is not shown.
    """
    try:
        key = base64.b64decode(text.removeprefix(_SECRET), validate=True)
    except ValueError:  # of it or of what is not ASCII
        key = b""
    if not text.startswith(_SECRET) or not 24 <= len(key) <= 64:
        raise OptionError(f"is not {_SECRET} followed by 24 to 64 bytes in base64", place)
    return key


def check_proxy(url: str, guard: str) -> None:
    """Refuse what is no proxy, and one behind which the guard would see nothing.

    Raises:
        OptionError: It is one of these.
    """
    if not url.startswith(("http://", "socks5://", "socks5h://", "socks4://")):
        raise OptionError(f"{url!r} does not begin with http:// or socks5://", "proxy")
    if guard == "public":
        raise OptionError("excludes a public guard, which cannot see whom a proxy dials", "proxy")
