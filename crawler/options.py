"""Every option, its bounds and its default: the only place that has them.

The command line, the environment (`CRAWLER_*`), the library's keyword arguments and the documentation are all
made from these two records. A field's `Meta` carries its help, and in `extra` what else `--help` shows: its panel, its
flags where they differ from the field's name, and its metavar.
"""

import ipaddress
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

import msgspec
from msgspec import Meta

from crawler.errors import OptionError

__all__ = ["VERSION", "Checked", "Options", "ServiceOptions", "parse_server"]

VERSION: Final = "0.1.0"

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")  # RFC 9110, 5.5; one byte a character
_SERVER = re.compile(r"(?:\[(?P<v6>.*:.*)\]|(?P<v4>[^:]*))(?::(?P<port>[0-9]{1,5}))?|(?P<bare>.*)")
_RESOLVE = re.compile(r"(?P<host>[!-9;-~]+):(?P<port>[0-9]{1,5}):(?:\[(?P<v6>.*:.*)\]|(?P<bare>.*))")
# Framing and hop-by-hop fields are the transport's: a user who sets them breaks the message, not the target.
_RESERVED = frozenset(
    {
        "connection", "content-length", "expect", "host", "keep-alive", "proxy-authenticate", "proxy-authorization",
        "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip

# Panels of `--help`.
_PACE: Final = {"panel": "Pace"}
_REQUEST: Final = {"panel": "Requests"}
_NETWORK: Final = {"panel": "Network"}


class Checked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A record whose values are checked where it is made from outside (`of`) and where it is used (`checked`)."""

    def checked(self) -> Self:
        """The same record, once its values are found to be within their bounds.

        Raises:
            OptionError: One is not; `place` is its name.
        """
        return self.of(msgspec.structs.asdict(self))

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Validate plain values (keyword arguments, JSON, flags) into the record.

        Raises:
            OptionError: A name or value is wrong; `place` is the option's name.
        """
        try:
            return msgspec.convert(values, cls)
        except msgspec.ValidationError as error:
            message, _, place = str(error).partition(" - at ")
            raise OptionError(message, place.strip("`").removeprefix("$.") or "options") from None


class Options(Checked, frozen=True, kw_only=True):
    """How to probe. Seconds for times, counts for the rest."""

    concurrency: Annotated[
        int, Meta(ge=1, le=20_000, description="Requests under way at once, over all hosts.", extra=_PACE)
    ] = 256
    per_host: Annotated[
        int, Meta(ge=1, le=20_000, description="Requests under way at once to one host.", extra=_PACE)
    ] = 8
    timeout: Annotated[
        float,
        Meta(gt=0, le=3600, description="Time a probe may work in all: every phase, hop and attempt.", extra=_PACE),
    ] = 30.0
    connect_timeout: Annotated[
        float,
        Meta(gt=0, le=3600, description="Time for a TCP connection, and again for its TLS handshake.", extra=_PACE),
    ] = 10.0
    retries: Annotated[
        int, Meta(ge=0, le=20, description="More attempts after a failure that may pass.", extra=_PACE)
    ] = 1
    retry_budget: Annotated[
        float,
        Meta(
            ge=0,
            le=20,
            description="Retries that a batch may make for each URL that is done; a hundred are free.",
            extra={**_PACE, "metavar": "SHARE"},
        ),
    ] = 0.5
    interval: Annotated[
        float, Meta(ge=0, le=3600, description="Time from one request to a host to the next.", extra=_PACE)
    ] = 0.0
    method: Annotated[
        Literal["auto", "HEAD", "GET"],
        Meta(description="auto asks with HEAD and confirms every bad answer with GET.", extra=_REQUEST),
    ] = "auto"
    user_agent: Annotated[str, Meta(max_length=512, description="The User-Agent sent.", extra=_REQUEST)] = (
        f"crawler/{VERSION}"
    )
    headers: Annotated[
        dict[str, str],
        Meta(
            description="A header to send; repeatable. Dropped when a redirect leaves the origin.",
            extra={**_REQUEST, "flags": ("--header", "-H"), "metavar": "'NAME: VALUE'"},
        ),
    ] = {}
    max_redirects: Annotated[int, Meta(ge=0, le=50, description="Redirects to follow.", extra=_REQUEST)] = 10
    match: Annotated[
        str | None,
        Meta(
            description="Say whether the body matches this regular expression.",
            extra={**_REQUEST, "metavar": "REGEX"},
        ),
    ] = None
    title: Annotated[bool, Meta(description="Report the title of HTML pages.", extra=_REQUEST)] = False
    max_read: Annotated[
        int,
        Meta(ge=1, le=2**30, description="Bytes of body to read for these, and to unpack.", extra=_REQUEST),
    ] = 2**20
    robots: Annotated[bool, Meta(description="Obey robots.txt, with its crawl-delay.", extra=_REQUEST)] = False
    guard: Annotated[
        Literal["auto", "public", "any"],
        Meta(
            description="Addresses that may be dialled. auto is any for the owner's own use (probe, a service on "
            "loopback), public for all else.",
            extra=_NETWORK,
        ),
    ] = "auto"
    allow: Annotated[
        tuple[str, ...],
        Meta(description="Network to open in a public guard; repeatable.", extra={**_NETWORK, "metavar": "CIDR"}),
    ] = ()
    transport: Annotated[
        Literal["socket", "aiohttp"],
        Meta(description="What makes the requests: our own connections, or aiohttp's client.", extra=_NETWORK),
    ] = "socket"
    proxy: Annotated[
        str | None,
        Meta(
            description="Proxy for all requests, http:// or socks5://; by aiohttp's client.",
            extra={**_NETWORK, "metavar": "URL"},
        ),
    ] = None
    cafile: Annotated[
        str | None,
        Meta(description="PEM file of authorities to trust, not the system's.", extra={**_NETWORK, "metavar": "FILE"}),
    ] = None
    insecure: Annotated[bool, Meta(description="Accept any certificate.", extra=_NETWORK)] = False
    dns: Annotated[
        tuple[str, ...],
        Meta(
            description="DNS server to ask, not the system's; repeatable.",
            extra={**_NETWORK, "metavar": "HOST[:PORT]"},
        ),
    ] = ()
    resolve: Annotated[
        tuple[str, ...],
        Meta(
            description="Address to use for a host and port, without asking DNS; repeatable.",
            extra={**_NETWORK, "metavar": "HOST:PORT:ADDRESS"},
        ),
    ] = ()
    ipv4: Annotated[bool, Meta(description="Use IPv4 only.", extra={**_NETWORK, "flags": ("--ipv4", "-4")})] = False
    ipv6: Annotated[bool, Meta(description="Use IPv6 only.", extra={**_NETWORK, "flags": ("--ipv6", "-6")})] = False

    @property
    def wants_body(self) -> bool:
        """Whether anything of the response's body is asked for."""
        return self.title or self.match is not None

    def guarded(self, policy: Literal["public", "any"]) -> Self:
        """These options with an `auto` guard decided."""
        return msgspec.structs.replace(self, guard=policy) if self.guard == "auto" else self

    def __post_init__(self) -> None:
        """Check what a single field's bounds cannot say."""
        if self.ipv4 and self.ipv6:
            raise OptionError("excludes ipv6", "ipv4")
        if self.proxy is not None:
            _check_proxy(self.proxy, self.guard)
        if self.match is not None:
            _check_regex(self.match)
        for server in self.dns:
            parse_server(server)
        for entry in self.resolve:
            parse_resolve(entry)
        for name, value in self.headers.items():
            _check_header(name, value, "headers")
        _check_header("User-Agent", self.user_agent, "user_agent")


class ServiceOptions(Checked, frozen=True, kw_only=True):
    """How to serve."""

    host: Annotated[str, Meta(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="Port to listen on; 0 picks a free one.")] = 7777
    max_body: Annotated[int, Meta(ge=1, description="Bytes a request's body may have.")] = 32 * 2**20


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


def _check_proxy(url: str, guard: str) -> None:
    if not url.startswith(("http://", "socks5://", "socks5h://", "socks4://")):
        raise OptionError(f"{url!r} does not begin with http:// or socks5://", "proxy")
    if guard == "public":
        raise OptionError("excludes a public guard, which cannot see whom a proxy dials", "proxy")


def _check_regex(pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise OptionError(f"not a regular expression: {error}", "match") from None


def _check_header(name: str, value: str, place: str) -> None:
    """Refuse what could split the request or change its framing (RFC 9110, RFC 9112)."""
    if not _TOKEN.fullmatch(name):
        raise OptionError(f"{name!r} is not a header name", place)
    if name.lower() in _RESERVED:
        raise OptionError(f"{name} is set by the transport and cannot be given", place)
    if not _FIELD_VALUE.fullmatch(value):
        raise OptionError(f"the value of {name} has a control character or one outside Latin-1", place)
