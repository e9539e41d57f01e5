"""The options of a probe with their bounds and defaults.

Two records, `Options` here and `ServiceOptions`, define the flags of the command, the environment variables
(`CRAWLER_*`), the keyword arguments of the library and the tables in the documentation. A field's `Meta` has its help
text, and in `extra` what else `--help` shows: its panel, its flags if they differ from the field's name, its metavar.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

import msgspec
from msgspec import Meta
from msgspec.inspect import LiteralType, Metadata, StrType, type_info

from crawler.core.errors import OptionError, read_validation_error
from crawler.core.option_syntax import (
    check_headers,
    check_proxy,
    parse_resolve,
    parse_server,
    parse_statuses,
)
from crawler.core.patterns import compile_pattern

__all__ = ["VERSION", "CheckedOptions", "Options"]

VERSION: Final = "0.1.0"

ProcessCount = Annotated[int, Meta(ge=1, le=256)] | Literal["auto"]

_DEFAULT_PROCESSES: Final = 1

# Panels of `--help`.
_SPEED: Final = {"panel": "Speed and retries"}
_REQUEST: Final = {"panel": "Requests"}
_NETWORK: Final = {"panel": "Network"}


class CheckedOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A record of options that can be validated.

    Call `of` for values from outside. Call `validated` for a record that a caller made, because the constructor of a
    msgspec struct checks no types.
    """

    def validated(self) -> Self:
        """Return the same record if all values have the right type and are within their bounds.

        Raises:
            OptionError: A value is wrong; `place` is the option's name.
        """
        return self.of(msgspec.structs.asdict(self))

    @classmethod
    def of(cls, values: Mapping[str, Any], *, strict: bool = True) -> Self:
        """Validate plain values: keyword arguments, JSON or flags. Unless `strict`, numbers may be strings.

        Raises:
            OptionError: A name or value is wrong; `place` is the option's name.
        """
        try:
            return msgspec.convert(values, cls, strict=strict)
        except msgspec.ValidationError as error:
            message, place = read_validation_error(error)
            name = place.removeprefix("$.")
            raise OptionError(cls._explain(message, name, values.get(name)), name or "options") from None

    @classmethod
    def _explain(cls, message: str, name: str, value: object) -> str:
        """Return what a wrong value may be, where msgspec's message does not say it."""
        field = next((field for field in type_info(cls).fields if field.name == name), None)  # type: ignore[attr-defined]
        if field is None or not isinstance(field.type, Metadata):
            return message
        if isinstance(field.type.type, LiteralType) and isinstance(value, str):
            return f"{value!r} is none of {', '.join(map(str, field.type.type.values))}"
        if isinstance(field.type.type, StrType) and field.type.type.pattern is not None and isinstance(value, str):
            return f"{value!r} is not of the form {(field.type.extra or {}).get('metavar', 'TEXT')}"
        return message


class Options(CheckedOptions, frozen=True, kw_only=True):
    """How to probe. Times are in seconds."""

    concurrency: Annotated[
        int, Meta(ge=1, le=20_000, description="Requests in progress at once, over all hosts.", extra=_SPEED)
    ] = 256
    per_host: Annotated[
        int, Meta(ge=1, le=20_000, description="Requests in progress at once to one host.", extra=_SPEED)
    ] = 8
    processes: Annotated[
        ProcessCount,
        Meta(description="Processes that probe; auto is one per core.", extra={**_SPEED, "metavar": "N|auto"}),
    ] = _DEFAULT_PROCESSES
    workers: Annotated[
        ProcessCount | None,
        Meta(description="Old name of --processes.", extra={**_SPEED, "metavar": "N|auto", "hidden": True}),
    ] = None
    timeout: Annotated[
        float,
        Meta(gt=0, le=3600, description="Seconds for a whole probe: all phases, hops and attempts.", extra=_SPEED),
    ] = 30.0
    connect_timeout: Annotated[
        float,
        Meta(gt=0, le=3600, description="Seconds for a TCP connection, and again for its TLS handshake.", extra=_SPEED),
    ] = 10.0
    retries: Annotated[int, Meta(ge=0, le=20, description="Retries after a transient failure.", extra=_SPEED)] = 1
    retry_budget: Annotated[
        float,
        Meta(
            ge=0,
            le=20,
            description="Retries that a list may use per finished URL, after its first 100 retries.",
            extra={**_SPEED, "metavar": "SHARE"},
        ),
    ] = 0.5
    interval: Annotated[
        float, Meta(ge=0, le=3600, description="Seconds between the starts of two requests to one host.", extra=_SPEED)
    ] = 0.0
    method: Annotated[
        Literal["auto", "HEAD", "GET"],
        Meta(description="auto sends HEAD, and repeats every bad answer with GET.", extra=_REQUEST),
    ] = "auto"
    http: Annotated[
        Literal["auto", "1", "2"],
        Meta(
            description="HTTP version over https. auto asks by HTTP/2 too before a bad result that may be due to 1.1.",
            extra=_REQUEST,
        ),
    ] = "auto"
    user_agent: Annotated[str, Meta(max_length=512, description="The User-Agent header to send.", extra=_REQUEST)] = (
        f"crawler/{VERSION}"
    )
    headers: Annotated[
        dict[str, str],
        Meta(
            description="A header to send; repeatable. "
            "Another origin gets only Accept, Accept-Language, User-Agent and Referer.",
            extra={**_REQUEST, "flags": ("--header", "-H"), "metavar": "'NAME: VALUE'"},
        ),
    ] = msgspec.field(default_factory=dict)
    max_redirects: Annotated[int, Meta(ge=0, le=50, description="Redirects to follow.", extra=_REQUEST)] = 20
    accept: Annotated[
        tuple[str, ...],
        Meta(
            max_length=100,
            description="Statuses that count as ok, for example 200 or 200-299; repeatable. Default: all below 400.",
            extra={**_REQUEST, "metavar": "STATUS[-STATUS]"},
        ),
    ] = ()
    match: Annotated[
        str | None,
        Meta(
            description="Report whether the body matches this regular expression in RE2 syntax (extra: match).",
            extra={**_REQUEST, "metavar": "REGEX"},
        ),
    ] = None
    title: Annotated[bool, Meta(description="Report the title of HTML pages.", extra=_REQUEST)] = False
    max_read: Annotated[
        int,
        Meta(
            ge=1,
            le=2**30,
            description="Bytes of body to read at most for match and title, before and after decompression.",
            extra=_REQUEST,
        ),
    ] = 2**20
    robots: Annotated[bool, Meta(description="Obey robots.txt and its crawl-delay.", extra=_REQUEST)] = False
    guard: Annotated[
        Literal["auto", "public", "any"],
        Meta(
            description="Addresses to connect to. auto is any for probe and for a service on loopback, else public.",
            extra=_NETWORK,
        ),
    ] = "auto"
    allow: Annotated[
        tuple[str, ...],
        Meta(description="Network that a public guard allows too; repeatable.", extra={**_NETWORK, "metavar": "CIDR"}),
    ] = ()
    proxy: Annotated[
        str | None,
        Meta(
            description="Proxy for all requests: http, https, socks5 (names resolved here) or socks5h (by the proxy).",
            extra={**_NETWORK, "metavar": "URL"},
        ),
    ] = None
    cafile: Annotated[
        str | None,
        Meta(
            description="PEM file of authorities to trust instead of the system's.",
            extra={**_NETWORK, "metavar": "FILE"},
        ),
    ] = None
    insecure: Annotated[bool, Meta(description="Accept any certificate.", extra=_NETWORK)] = False
    cert: Annotated[
        str | None,
        Meta(
            description="PEM file of a client certificate, for servers that ask for one.",
            extra={**_NETWORK, "metavar": "FILE"},
        ),
    ] = None
    key: Annotated[
        str | None,
        Meta(description="PEM file of its private key, if not in --cert.", extra={**_NETWORK, "metavar": "FILE"}),
    ] = None
    tls: Annotated[
        Literal["auto", "openssl", "rustls"],
        Meta(
            description="TLS library, for diagnosis. auto asks OpenSSL about all that rustls refuses.",
            extra=_NETWORK,
        ),
    ] = "auto"
    dns: Annotated[
        tuple[str, ...],
        Meta(
            description="DNS server to ask instead of the system's; repeatable.",
            extra={**_NETWORK, "metavar": "HOST[:PORT]"},
        ),
    ] = ()
    resolve: Annotated[
        tuple[str, ...],
        Meta(
            description="Address to use for a host and port instead of asking DNS; repeatable.",
            extra={**_NETWORK, "metavar": "HOST:PORT:ADDRESS"},
        ),
    ] = ()
    ipv4: Annotated[bool, Meta(description="Use IPv4 only.", extra={**_NETWORK, "flags": ("--ipv4", "-4")})] = False
    ipv6: Annotated[bool, Meta(description="Use IPv6 only.", extra={**_NETWORK, "flags": ("--ipv6", "-6")})] = False

    @property
    def wants_body(self) -> bool:
        """Whether an option needs the body of the response."""
        return self.title or self.match is not None

    def accepts(self, status: int) -> bool:
        """Whether a status counts as ok."""
        return status in parse_statuses(self.accept) if self.accept else status < 400

    def without_header_values(self) -> Self:
        """Return these options with the names of the headers only: the values take up to 32 KiB of memory."""
        return msgspec.structs.replace(self, headers=dict.fromkeys(self.headers, "")) if self.headers else self

    def with_guard(self, policy: Literal["public", "any"]) -> Self:
        """Return these options, with `policy` for a guard that is `auto`."""
        return msgspec.structs.replace(self, guard=policy) if self.guard == "auto" else self

    def __post_init__(self) -> None:
        """Check the values that need more than bounds.

        Raises:
            OptionError: A value is wrong.
        """
        if self.workers is not None:
            if self.processes not in (_DEFAULT_PROCESSES, self.workers):
                raise OptionError("is the old name of processes; set only one of the two", "workers")
            # From here on only `processes` has it: a record that is copied with other `processes` must not conflict.
            msgspec.structs.force_setattr(self, "processes", self.workers)
            msgspec.structs.force_setattr(self, "workers", None)
        if self.ipv4 and self.ipv6:
            raise OptionError("excludes ipv6", "ipv4")
        if self.key is not None and self.cert is None:
            raise OptionError("needs cert too", "key")
        if self.proxy is not None:
            check_proxy(self.proxy, self.guard)
        if self.match is not None:
            compile_pattern(self.match)
        for server in self.dns:
            parse_server(server)
        for entry in self.resolve:
            parse_resolve(entry)
        parse_statuses(self.accept)
        check_headers(self.headers, "headers")
        check_headers({"User-Agent": self.user_agent}, "user_agent")
