"""Text in, targets out: parse, normalise, refuse.

URLs are read as the WHATWG standard says (https://url.spec.whatwg.org/), by Ada, the parser of Node.js. On top of it
stands what a prober refuses because two readers could understand it differently: white space and control characters
inside, names that DNS cannot carry, port 0.
"""

import base64
import re
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Final, TypeVar
from urllib.parse import unquote_to_bytes

import can_ada
import msgspec

from crawler.core.errors import InputError
from crawler.core.results import ProbeError, ProbeResult

__all__ = [
    "DEFAULT_PORTS",
    "MAX_URL_CHARACTERS",
    "Target",
    "Url",
    "find_plain_host",
    "iterate",
    "parse_host",
    "parse_url",
    "read_targets",
    "resolve_redirect",
]

T = TypeVar("T")

DEFAULT_PORTS: Final = {"http": 80, "https": 443}

MAX_URL_CHARACTERS: Final = 64 * 1024  # characters; no server takes a URL of this length

_DOUBTFUL = re.compile(r"[\x00-\x20\x7f\ud800-\udfff]")
# What Ada would give back as it is: most URLs of most lists, told without it in a third of the time.
_PLAIN_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>(?:(?!xn--)[a-z0-9](?:[a-z0-9-]{0,61}+(?<!-))?\.){1,3}+[a-z]{2,24}+)"
    r"(?::(?P<port>[1-9][0-9]{3}|[1-5][0-9]{4}))?"
    r"(?P<path>/(?:[A-Za-z0-9_~-][A-Za-z0-9_~.-]*+/?+)*+(?:\?[A-Za-z0-9_~.=&/-]*+)?+)"
)
_NOT_IN_HOST = re.compile(r"[/\\?#@\s]")
_MARGIN = " \t\r\n\f\v\ufeff"  # the last is the mark that some editors begin a file with


class Url(msgspec.Struct, frozen=True, gc=False):
    """A URL in its normal form, without fragment.

    Attributes:
        href: The whole URL, without user information; equal for equal targets.
        scheme: http or https.
        host: The name in ASCII, or the address without brackets.
        port: 1 to 65535.
        path: Path and query, as sent in the request line.
        authorization: Value of the Authorization header that user information in the URL asks for.
    """

    href: str
    scheme: str
    host: str
    port: int
    path: str
    authorization: str | None = None

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port: what may share credentials (RFC 6454)."""
        return self.scheme, self.host, self.port

    @property
    def authority(self) -> str:
        """The Host header: brackets for IPv6, no default port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if DEFAULT_PORTS[self.scheme] == self.port else f"{host}:{self.port}"


class Target(msgspec.Struct, gc=False):
    """One line of a Task: its position, its text as submitted, and the URL or why it is none.

    `known_result` is what an equal line before it was found to be: then there is nothing left to probe.
    """

    seq: int
    text: str
    url: Url | ProbeError
    known_result: ProbeResult | None = None

    @property
    def dedupe_key(self) -> tuple[str, str | None]:
        """Equal for lines of which one probe serves all: the same URL, asked for with the same credentials."""
        return (self.url.href, self.url.authorization) if isinstance(self.url, Url) else (self.text, None)

    @property
    def host(self) -> str:
        """The host to ask; empty if the line is no URL."""
        return self.url.host if isinstance(self.url, Url) else ""

    @classmethod
    def of(cls, seq: int, text: str | bytes) -> "Target":
        """Read one line; bytes have to be UTF-8."""
        if isinstance(text, str):
            url = parse_url(text)
            # Half of a surrogate pair has no UTF-8, so no output could carry it.
            return cls(seq, text if isinstance(url, Url) else text.encode(errors="replace").decode(), url)
        try:
            return cls.of(seq, text.decode())
        except UnicodeDecodeError as error:
            reason = ProbeError.of("url.invalid", f"not UTF-8 at byte {error.start}")
            return cls(seq, text.decode(errors="replace"), reason)


def read_targets(lines: Iterable[str | bytes]) -> Iterator[Target]:
    """Number the lines and read each."""
    return (Target.of(seq, line) for seq, line in enumerate(lines))


async def iterate(items: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[T]:
    """Go through either kind of iterable."""
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


def parse_url(text: str) -> Url | ProbeError:
    """Read a URL as submitted; what cannot be normalised without doubt is a `ProbeError`, not raised."""
    text = text.strip(_MARGIN)
    if len(text) > MAX_URL_CHARACTERS:
        return ProbeError.of("url.invalid", f"longer than {MAX_URL_CHARACTERS} characters")
    if plain := _PLAIN_URL.fullmatch(text):
        scheme, port = plain["scheme"], plain["port"]
        return Url(text, scheme, plain["host"], int(port) if port else DEFAULT_PORTS[scheme], plain["path"])
    if doubt := _DOUBTFUL.search(text):
        return ProbeError.of("url.invalid", f"{_describe(doubt[0])} at character {doubt.start() + 1}")
    try:
        return _normalise(can_ada.parse(text))
    except ValueError:
        return ProbeError.of("url.invalid", _guess(text))


def parse_host(text: str, place: str = "") -> str:
    """A host in the form that `Url.host` has: lower case, ASCII, no dot at the end, no brackets.

    Raises:
        InputError: The text is not a host, or not only that; `place` says where it was given.
    """
    url = parse_url(f"http://[{text}]/" if ":" in text and "[" not in text else f"http://{text}/")
    # A text with another part of a URL in it can still give a URL that looks like one of a host alone.
    if _NOT_IN_HOST.search(text) or not isinstance(url, Url) or url.href != f"http://{url.authority}/":
        raise InputError("is not a host", place)
    return url.host


def find_plain_host(text: str) -> str | None:
    """The host of a URL that is in its normal form already, if that can be told at a glance."""
    return plain["host"] if len(text) <= MAX_URL_CHARACTERS and (plain := _PLAIN_URL.fullmatch(text)) else None


def resolve_redirect(base: Url, location: str) -> Url | ProbeError:
    """Where a redirect leads: `Location` resolved against the URL that answered.

    `location` is the header's bytes as Latin-1. Servers send UTF-8, Latin-1 and white space in it; as browsers do, any
    byte that a URL cannot have is percent-encoded as it came.
    """
    quoted = "".join(c if "\x20" < c < "\x7f" else f"%{ord(c):02X}" for c in location.strip(_MARGIN))
    try:
        return _normalise(can_ada.parse(base.href) + quoted)
    except ValueError:
        return ProbeError.of("http.response.invalid", "the redirect's Location is not a URL")


def _normalise(url: can_ada.URL) -> Url | ProbeError:
    scheme = url.protocol[:-1]
    if scheme not in DEFAULT_PORTS:
        return ProbeError.of("url.scheme", f"{scheme}: is not http or https")
    authorization = None
    if url.has_credentials():
        pair = unquote_to_bytes(url.username) + b":" + unquote_to_bytes(url.password)
        authorization = "Basic " + base64.b64encode(pair).decode()
        url.username = url.password = ""
    if url.has_hash():
        url.hash = ""
    host = url.hostname
    if host.endswith("."):  # the root's dot changes neither the name asked for nor the certificate's
        url.hostname = host = host[:-1]
    if host.startswith("["):
        host = host[1:-1]
    elif len(host) > 253 or not all(0 < len(label) < 64 for label in host.split(".")):
        return ProbeError.of("url.invalid", "the host has an empty label or is longer than DNS allows")
    port = int(url.port or DEFAULT_PORTS[scheme])
    if port == 0:
        return ProbeError.of("url.invalid", "port 0 cannot be connected to")
    return Url(url.href, scheme, host, port, url.href[len(url.origin) :], authorization)


def _describe(character: str) -> str:
    if character.isspace():
        return "white space"
    return "half of a surrogate pair" if character > "\x7f" else "a control character"


def _guess(text: str) -> str:
    if not text:
        return "empty"
    if "://" not in text:
        return "no scheme; a URL begins with http:// or https://"
    return "not a URL by the WHATWG standard"
