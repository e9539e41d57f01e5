"""Parsers and checks of the options that are more than a word or a number."""

import base64
import ipaddress
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from crawler.core.errors import InputError, OptionError
from crawler.core.urls import parse_host

__all__ = [
    "ProxyAddress",
    "check_headers",
    "check_proxy",
    "parse_headers",
    "parse_proxy",
    "parse_resolve",
    "parse_secret",
    "parse_server",
    "parse_statuses",
]

_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_HEADER_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")  # RFC 9110, 5.5; one byte a character
_SERVER: Final = re.compile(r"(?:\[(?P<v6>.*:.*)\]|(?P<v4>[^:]*))(?::(?P<port>[0-9]{1,5}))?|(?P<bare>.*)")
_RESOLVE: Final = re.compile(r"(?P<host>[!-9;-~]+):(?P<port>[0-9]{1,5}):(?:\[(?P<v6>.*:.*)\]|(?P<bare>.*))")
_PROXY: Final = re.compile(
    r"(?P<scheme>https?|socks5h?)://(?:(?P<user>[^/?#]*)@)?(?P<host>\[[^\]]*\]|[^:@/?#]+)(?::(?P<port>[0-9]{1,5}))?/?",
    re.IGNORECASE,
)
# As in Chromium (net/docs/proxy.md); curl's is 1080, and 443 for https.
_PROXY_PORTS: Final = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
_MAX_SOCKS_CREDENTIAL_BYTES: Final = 255  # RFC 1929, 2
_STATUSES: Final = re.compile(r"([1-9][0-9]{2})(?:-([1-9][0-9]{2}))?")
# The transport sets the framing and hop-by-hop fields. A user who sets them breaks the request.
_RESERVED_HEADERS: Final = frozenset(
    {
        "connection", "content-length", "expect", "host", "keep-alive", "proxy-authenticate", "proxy-authorization",
        "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
_SECRET_PREFIX: Final = "whsec_"
_MAX_HEADERS_BYTES: Final = 32 * 1024  # every request sends them, and servers accept no more
_MAX_HEADERS: Final = 100  # that Apache accepts (LimitRequestFields); each takes memory besides its text
_MAX_HEADER_NAME_BYTES: Final = 100


def parse_server(text: str) -> tuple[str, int]:
    """Parse `HOST[:PORT]` of a DNS server; the default port is 53. An IPv6 address with a port needs brackets.

    Raises:
        OptionError: The address or the port is not valid.
    """
    try:
        match = _SERVER.fullmatch(text)
        if match is None or not 0 < (port := int(match["port"] or 53)) < 65536:
            raise ValueError
        return str(ipaddress.ip_address(match["v6"] or match["v4"] or match["bare"])), port
    except ValueError:
        raise OptionError(f"{text!r} is not an IP address with an optional port", "dns") from None


def parse_resolve(text: str) -> tuple[tuple[str, int], str]:
    """Parse `HOST:PORT:ADDRESS` into ((host, port), address).

    Raises:
        OptionError: The text has another form.
    """
    try:
        match = _RESOLVE.fullmatch(text)
        if match is None or not 0 < (port := int(match["port"])) < 65536:
            raise ValueError
        host = match["host"].lower().removesuffix(".")  # as in the URL of a target
        return (host, port), str(ipaddress.ip_address(match["v6"] or match["bare"]))
    except ValueError:
        raise OptionError(f"{text!r} is not of the form HOST:PORT:ADDRESS", "resolve") from None


@lru_cache(maxsize=128)
def parse_statuses(texts: tuple[str, ...]) -> frozenset[int]:
    """Parse texts of the form `STATUS[-STATUS]` into the set of all their statuses.

    Raises:
        OptionError: A text has another form, or its range is empty.
    """
    statuses: set[int] = set()
    for text in texts:
        match = _STATUSES.fullmatch(text)
        wanted = range(int(match[1]), int(match[2] or match[1]) + 1) if match else ()
        if not wanted:
            raise OptionError(
                f"{text!r} is neither a status from 100 to 999 nor a range of them, such as 200-299", "accept"
            )
        statuses.update(wanted)
    return frozenset(statuses)


def parse_headers(lines: Iterable[str]) -> dict[str, str]:
    """Parse headers, one `Name: value` a line.

    Raises:
        OptionError: A line has another form.
    """
    pairs = [line.partition(":") for line in lines]
    for name, colon, _ in pairs:
        if not colon:
            raise OptionError(f"{name!r} is not of the form 'Name: value'", "headers")
    return {name.strip(): value.strip() for name, _, value in pairs}


def check_headers(headers: Mapping[str, str], place: str) -> None:
    """Refuse headers that could split the request or change its framing (RFC 9110, RFC 9112).

    Raises:
        OptionError: A header is not valid or is reserved, or the headers are too long.
    """
    if len(headers) > _MAX_HEADERS:
        raise OptionError(f"more than {_MAX_HEADERS} headers", place)
    for name, value in headers.items():
        if len(name) > _MAX_HEADER_NAME_BYTES:
            raise OptionError(f"a name has more than {_MAX_HEADER_NAME_BYTES} bytes", place)
        if not _HEADER_NAME.fullmatch(name):
            raise OptionError(f"{name!r} is not a header name", place)
        if name.lower() in _RESERVED_HEADERS:
            raise OptionError(f"{name} is set by the transport and cannot be changed", place)
        if not _HEADER_VALUE.fullmatch(value):
            raise OptionError(f"the value of {name} has a control character or a character outside Latin-1", place)
    if sum(len(name) + len(value) for name, value in headers.items()) > _MAX_HEADERS_BYTES:
        raise OptionError(f"more than {_MAX_HEADERS_BYTES} bytes in total", place)


def parse_secret(text: str, place: str) -> bytes:
    """Decode the secret of a webhook: `whsec_` followed by 24 to 64 bytes in base64.

    Raises:
        OptionError: The text has another form. The message does not show it.
    """
    try:
        key = base64.b64decode(text.removeprefix(_SECRET_PREFIX), validate=True)
    except ValueError:  # wrong base64, or not ASCII
        key = b""
    if not text.startswith(_SECRET_PREFIX) or not 24 <= len(key) <= 64:
        raise OptionError(f"is not {_SECRET_PREFIX} followed by 24 to 64 bytes in base64", place)
    return key


class ProxyAddress(NamedTuple):
    """Where a proxy listens, what it speaks, and what it may require.

    Attributes:
        scheme: http, https, socks5 or socks5h.
        host: As in `Url.host`.
        port: 1 to 65535.
        credentials: User and password, percent-decoded; None without a user.
    """

    scheme: str
    host: str
    port: int
    credentials: tuple[bytes, bytes] | None

    @property
    def resolves_names(self) -> bool:
        """Whether the proxy gets the names of targets; with socks5:// it gets addresses, as from curl."""
        return self.scheme != "socks5"

    def __str__(self) -> str:
        """Host and port, without credentials."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        """The same: no traceback shows the credentials."""
        return str(self)


def parse_proxy(text: str) -> ProxyAddress:
    """Parse `SCHEME://[USER[:PASSWORD]@]HOST[:PORT]`.

    Raises:
        OptionError: The text has another form. The message does not show it, because it may have a password.
    """
    match = _PROXY.fullmatch(text)
    if match is None:
        raise OptionError("is not a proxy such as http://host:3128, https://host or socks5h://host:1080", "proxy")
    scheme = match["scheme"].lower()
    port = int(match["port"] or _PROXY_PORTS[scheme])
    if not 0 < port < 65536:
        raise OptionError(f"{port} is not a port", "proxy")
    try:
        host = parse_host(match["host"])
    except InputError:
        raise OptionError("has a host that is neither a name nor an address", "proxy") from None
    if match["user"] is None:
        return ProxyAddress(scheme, host, port, None)
    user, _, password = match["user"].partition(":")
    credentials = unquote_to_bytes(user), unquote_to_bytes(password)
    if scheme.startswith("socks") and not all(len(part) <= _MAX_SOCKS_CREDENTIAL_BYTES for part in credentials):
        raise OptionError(f"has a user or password of more than {_MAX_SOCKS_CREDENTIAL_BYTES} bytes", "proxy")
    return ProxyAddress(scheme, host, port, credentials)


def check_proxy(text: str, guard: str) -> None:
    """Refuse a text that is not a proxy, and with the public guard a proxy that resolves names.

    Raises:
        OptionError: The proxy is refused.
    """
    if parse_proxy(text).resolves_names and guard == "public":
        raise OptionError(
            "excludes a public guard, which cannot check addresses that a proxy resolves; socks5:// resolves here",
            "proxy",
        )
