"""Parse and normalise submitted lines into targets.

Ada, the URL parser of Node.js, reads URLs by the WHATWG standard (https://url.spec.whatwg.org/), as browsers do. This
module also refuses what is rather a mistake, and URLs that cannot be connected to: control characters inside, white
space inside a line of a text file, names that are not valid in DNS, port 0. Fragments are never sent, so nothing in
them matters.
"""

import base64
import re
from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias
from urllib.parse import unquote_to_bytes

import ada_url
import msgspec

from crawler.core.errors import InputError
from crawler.core.results import ProbeError, ProbeResult

__all__ = [
    "DEFAULT_PORTS",
    "MAX_URL_CHARACTERS",
    "Line",
    "Target",
    "Url",
    "find_plain_host",
    "parse_host",
    "parse_url",
    "read_targets",
    "resolve_redirect",
]

Line: TypeAlias = str | bytes  # of a list as submitted; bytes may not be UTF-8

DEFAULT_PORTS: Final = {"http": 80, "https": 443}

MAX_URL_CHARACTERS: Final = 64 * 1024  # no server accepts a URL of this length

# Of a text that is one URL for certain, and of a line: what follows a blank there may be a comment.
# Characters that nobody sees come from pages and documents, never from a URL that works.
_INVISIBLE: Final = "\u00a0\u1680\u2000-\u200f\u2028\u2029\u202f\u205f\u2060\u3000\ufeff"
_AMBIGUOUS: Final = re.compile(rf"[\x00-\x1f\x7f\ud800-\udfff{_INVISIBLE}]|\x20(?=https?://)", re.IGNORECASE)
_AMBIGUOUS_IN_LINE: Final = re.compile(rf"[\x00-\x20\x7f\ud800-\udfff{_INVISIBLE}]")
_LONE_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")
# URLs that Ada would return unchanged: most URLs of most lists. Matching takes a quarter of the time of parsing.
_PLAIN_NAME: Final = r"(?:(?!xn--)[a-z0-9](?:[a-z0-9-]{0,61}+(?<!-))?\.){1,3}+[a-z]{2,24}+"
_OCTET: Final = r"(?:[1-9]?[0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5])"
_PLAIN_URL: Final = re.compile(
    rf"(?P<scheme>https?)://(?P<host>{_PLAIN_NAME}|(?:{_OCTET}\.){{3}}{_OCTET})"
    r"(?::(?P<port>[1-9][0-9]{3}|[1-5][0-9]{4}|6[0-4][0-9]{3}))?"
    r"(?P<path>/(?:[A-Za-z0-9_~-][A-Za-z0-9_~.-]*+/?+)*+(?:\?[A-Za-z0-9_~.=&/-]*+)?+)"
)
# What Ada returns for URLs of these schemes; user name and password may be left out.
_NORMAL_URL: Final = re.compile(
    r"(?P<scheme>https?)://(?:(?P<user>[^/@:]*)(?::(?P<password>[^/@]*))?@)?"
    r"(?P<authority>(?P<host>\[[^]]*\]|[^/:]*)(?::(?P<port>[0-9]+))?)(?P<path>/[^#]*)"
)
_PERCENT_ENCODED: Final = {code: f"%{code:02X}" for code in range(0x80, 0x100)}
_MAX_HOST_CHARACTERS: Final = 253  # of a name in DNS, without the dot at its end
_NOT_IN_HOST: Final = re.compile(r"[/\\?#@\s]")
_MARGIN: Final = " \t\r\n\f\v" + "".join(re.findall(f"[{_INVISIBLE}]", "".join(map(chr, range(0x80, 0x10000)))))
# A text without a scheme that names a host: with a dot, a port or brackets, or localhost.
_BARE: Final = re.compile(
    r"//[^/?#]|(?!(?:tel|sms|fax|callto|geo|urn|data):)(?:localhost|[^:/?#@\[\]\s]+\.[^:/?#@\[\]\s.]+\.?|[^:/?#@\[\]\s]+(?=:[0-9])|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:[/?#]|$)",
    re.IGNORECASE,
)


class Url(msgspec.Struct, frozen=True, gc=False):
    """A URL in its normal form, without fragment.

    Attributes:
        href: The whole URL, without user name and password; equal for equal targets.
        scheme: http or https.
        host: The name in ASCII without a dot at its end, or the IP address without brackets.
        port: 1 to 65535.
        path: Path and query, as sent in the request line.
        authorization: The user name and password in the URL, as the header `Authorization: Basic` has them (RFC 7617).
    """

    href: str
    scheme: str
    host: str
    port: int
    path: str
    authorization: str | None = None

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port (RFC 6454). URLs of one origin share credentials."""
        return self.scheme, self.host, self.port

    @property
    def authority(self) -> str:
        """The value of the Host header: IPv6 in brackets, no default port; a dot at the end of the name stays."""
        return self.href[len(self.scheme) + 3 : -len(self.path)]


class Target(msgspec.Struct, gc=False):
    """One line of a Task.

    Attributes:
        seq: Its position in the submitted list, from 0.
        text: The line as submitted; of one that is too long for a URL, its beginning.
        url: The URL, or the reason why the line is not one.
        known_result: The result of an earlier duplicate line, which makes a probe unnecessary; else None.
    """

    seq: int
    text: str
    url: Url | ProbeError
    known_result: ProbeResult | None = None

    @property
    def dedupe_key(self) -> tuple[str, str | None]:
        """Equal for duplicate lines, which share one probe: the same URL with the same credentials."""
        return (self.url.href, self.url.authorization) if isinstance(self.url, Url) else (self.text, None)

    @property
    def host(self) -> str:
        """The host to connect to; empty if the line is not a URL."""
        return self.url.host if isinstance(self.url, Url) else ""

    @classmethod
    def of(cls, seq: int, text: Line, scheme: str | None = None) -> "Target":
        """Parse one text, or one line of a text file as bytes; these must be UTF-8.

        Args:
            seq: Its position in the list.
            text: The text or line.
            scheme: That of a text which has none, such as `example.org/path`; None if such a text is no URL.
        """
        if isinstance(text, str):
            url = parse_url(text, scheme=scheme)
            text = _shorten(text)
            # A lone surrogate cannot be encoded in UTF-8, so no output could contain it.
            return cls(seq, text if isinstance(url, Url) else text.encode(errors="replace").decode(), url)
        try:
            line = text.decode()
        except UnicodeDecodeError as error:
            reason = ProbeError.of("url.invalid", f"not UTF-8 at byte {error.start}")
            return cls(seq, _shorten(text.decode(errors="replace")), reason)
        return cls(seq, _shorten(line), parse_url(line, is_line=True, scheme=scheme))


def _shorten(text: str) -> str:
    """Cut a text that is too long for a URL: megabytes would be in every record of it."""
    return text if len(text) <= MAX_URL_CHARACTERS else text.strip(_MARGIN)[:MAX_URL_CHARACTERS]


def read_targets(lines: Iterable[Line]) -> Iterator[Target]:
    """Number the lines from 0 and parse each."""
    return (Target.of(seq, line) for seq, line in enumerate(lines))


def parse_url(text: str, *, is_line: bool = False, scheme: str | None = None) -> Url | ProbeError:
    """Parse a URL as submitted. For a text that is not a URL or is ambiguous, the error is returned, not raised.

    Args:
        text: The URL. Blanks in it are percent-encoded, as by browsers.
        is_line: Whether it is a line of a text file. Then a blank makes it ambiguous, and `<` and `>` around it and a
            comma after it are no part of it.
        scheme: That of a text which has none; None if such a text is no URL.
    """
    text = text.strip(_MARGIN)
    if len(text) > MAX_URL_CHARACTERS:
        return ProbeError.of("url.invalid", f"longer than {MAX_URL_CHARACTERS} characters; the rest is cut off")
    if plain := _PLAIN_URL.fullmatch(text):
        scheme, port = plain["scheme"], plain["port"]
        return Url(text, scheme, plain["host"], int(port) if port else DEFAULT_PORTS[scheme], plain["path"])
    if is_line:
        text = text.rstrip(",").strip(_MARGIN)
        if text.startswith("<") and text.endswith(">"):
            text = text[1:-1]
    text, mark, fragment = text.partition("#")
    ambiguous = _AMBIGUOUS_IN_LINE if is_line else _AMBIGUOUS
    if (found := ambiguous.search(text)) or (found := _LONE_SURROGATE.search(fragment)):
        place = found.start() + 1 + (len(text) + 1 if found.string is fragment else 0)
        return ProbeError.of("url.invalid", f"{_describe(found[0])} at character {place}")
    if scheme is not None and _BARE.match(text):
        text = f"{scheme}:{text}" if text.startswith("//") else f"{scheme}://{text}"
    try:
        # The mark stays, for a blank before it is no margin.
        return _read_normal(ada_url.normalize_url(text + mark).removesuffix("#"))
    except ValueError:
        return ProbeError.of("url.invalid", _explain(text))


def parse_host(text: str, place: str = "") -> str:
    """Normalise a host as in `Url.host`: lower case, ASCII, no dot at the end, no brackets.

    Raises:
        InputError: The text is not a host, or more than a host; it has this `place`.
    """
    url = parse_url(f"http://[{text}]/" if ":" in text and "[" not in text else f"http://{text}/")
    # A text with other parts of a URL in it may still parse to a URL with a host alone.
    if _NOT_IN_HOST.search(text) or not isinstance(url, Url) or url.port != 80 or url.path != "/":
        raise InputError("is not a host", place)
    return url.host


def find_plain_host(text: str) -> str | None:
    """Return the host of a URL that is in its normal form already, without parsing it; None if that is not certain."""
    return plain["host"] if len(text) <= MAX_URL_CHARACTERS and (plain := _PLAIN_URL.fullmatch(text)) else None


def resolve_redirect(base: Url, location: str) -> Url | ProbeError:
    """Resolve the Location header of a redirect against the URL that answered. An error is returned, not raised.

    As in browsers, TAB, CR and LF vanish wherever they stand, and each byte that is not ASCII is percent-encoded.

    Args:
        base: The URL of the request.
        location: The bytes of the header, decoded as Latin-1. Servers send UTF-8, Latin-1 and white space.
    """
    if len(location) > MAX_URL_CHARACTERS:
        return ProbeError.of("http.response.invalid", f"the Location is longer than {MAX_URL_CHARACTERS} characters")
    location, mark, _ = location.partition("#")  # the mark stays, for a blank before it is no margin
    try:
        href = ada_url.join_url(base.href, location.translate(_PERCENT_ENCODED) + mark)
        url = _read_normal(href.removesuffix("#"))
    except ValueError:
        return ProbeError.of("http.response.invalid", "the redirect's Location is not a URL")
    if isinstance(url, Url) and len(url.href) > MAX_URL_CHARACTERS:
        return ProbeError.of("http.response.invalid", f"leads to a URL of more than {MAX_URL_CHARACTERS} characters")
    return url


def _read_normal(href: str) -> Url | ProbeError:
    """Split a URL that Ada has normalised, without a fragment."""
    parts = _NORMAL_URL.fullmatch(href)
    if parts is None:
        return ProbeError.of("url.scheme", f"{href.partition(':')[0]}: is neither http nor https")
    scheme, user, password, authority, host, digits, path = parts.groups()
    if host[0] == "[":
        host = host[1:-1]
    else:
        host = host.removesuffix(".")  # the dot of the DNS root changes neither the query nor the certificate's name
        if len(host) > _MAX_HOST_CHARACTERS or not all(0 < len(label) < 64 for label in host.split(".")):
            return ProbeError.of("url.invalid", "the host has an empty label or is longer than DNS allows")
    port = int(digits) if digits else DEFAULT_PORTS[scheme]
    if port == 0:
        return ProbeError.of("url.invalid", "port 0 does not exist")
    if "|" in path:
        path, mark, query = path.partition("?")
        path = (
            path.replace("|", "%7C") + mark + query
        )  # the standard keeps it; Chromium, whose URLs servers see, does not
    authorization = None
    if user is not None:
        pair = unquote_to_bytes(user) + b":" + unquote_to_bytes(password or "")
        authorization = "Basic " + base64.b64encode(pair).decode()
    return Url(f"{scheme}://{authority}{path}", scheme, host, port, path, authorization)


def _describe(character: str) -> str:
    if "\ud800" <= character <= "\udfff":
        return "a lone surrogate"
    if character > "\x7f":
        return f"the invisible character U+{ord(character):04X}"
    return "white space" if character.isspace() else "a control character"


def _explain(text: str) -> str:
    if not text:
        return "empty"
    if "://" not in text:
        return "no scheme; a URL begins with http:// or https://"
    return "not a URL by the WHATWG standard"
