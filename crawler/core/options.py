"""Every option, its bounds and its default: the only place that has them.

The command line, the environment (`CRAWLER_*`), the library's keyword arguments and the documentation are all made from
two records: `Options` here, and `ServiceOptions`. A field's `Meta` carries its help, and in `extra` what else `--help`
shows: its panel, its flags where they differ from the field's name, and its metavar.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

import msgspec
from msgspec import Meta

from crawler.core.errors import OptionError, read_validation_error
from crawler.core.option_syntax import (
    check_headers,
    check_proxy,
    parse_headers,
    parse_resolve,
    parse_server,
    parse_statuses,
)
from crawler.core.patterns import compile_pattern

__all__ = ["TASK_OPTIONS", "VERSION", "WORKER_OPTIONS", "CheckedOptions", "Options", "task_options"]

VERSION: Final = "0.1.0"

# What a Task may choose of the options: what is asked of its own targets, and how gently. The others are of the whole
# process, or decide whom it may reach and by whose word.
TASK_OPTIONS: Final = frozenset(
    {
        "accept", "connect_timeout", "headers", "insecure", "interval", "ipv4", "ipv6", "match", "max_read",
        "max_redirects", "method", "per_host", "retries", "robots", "timeout", "title", "user_agent",
    }
)  # fmt: skip

# What concerns a worker for services on other machines, of the options of a service.
WORKER_OPTIONS: Final = ("redis", "drain", "log_level", "log_json")

ProcessCount = Annotated[int, Meta(ge=1, le=256)] | Literal["auto"]

_DEFAULT_PROCESSES: Final = 1

# Panels of `--help`.
_PACE: Final = {"panel": "Pace"}
_REQUEST: Final = {"panel": "Requests"}
_NETWORK: Final = {"panel": "Network"}


class CheckedOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A record whose values are checked where it is made from outside (`of`) and where it is used (`validated`)."""

    def validated(self) -> Self:
        """The same record, once its values are found to be within their bounds.

        Raises:
            OptionError: One is not; `place` is its name.
        """
        return self.of(msgspec.structs.asdict(self))

    @classmethod
    def of(cls, values: Mapping[str, Any], *, strict: bool = True) -> Self:
        """Validate plain values (keyword arguments, JSON, flags) into the record; numbers may be texts if not `strict`.

        Raises:
            OptionError: A name or value is wrong; `place` is the option's name.
        """
        try:
            return msgspec.convert(values, cls, strict=strict)
        except msgspec.ValidationError as error:
            message, place = read_validation_error(error)
            raise OptionError(message, place.removeprefix("$.") or "options") from None


class Options(CheckedOptions, frozen=True, kw_only=True):
    """How to probe. Seconds for times, counts for the rest."""

    concurrency: Annotated[
        int, Meta(ge=1, le=20_000, description="Requests under way at once, over all hosts.", extra=_PACE)
    ] = 256
    per_host: Annotated[
        int, Meta(ge=1, le=20_000, description="Requests under way at once to one host.", extra=_PACE)
    ] = 8
    processes: Annotated[
        ProcessCount,
        Meta(description="Processes that probe; auto is one for each core.", extra={**_PACE, "metavar": "N|auto"}),
    ] = _DEFAULT_PROCESSES
    workers: Annotated[
        ProcessCount | None,
        Meta(description="Old name of --processes.", extra={**_PACE, "metavar": "N|auto", "hidden": True}),
    ] = None
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
    ] = msgspec.field(default_factory=dict)
    max_redirects: Annotated[int, Meta(ge=0, le=50, description="Redirects to follow.", extra=_REQUEST)] = 10
    accept: Annotated[
        tuple[str, ...],
        Meta(
            max_length=100,
            description="Statuses that count as ok, as 200 or 200-299; repeatable; else all below 400.",
            extra={**_REQUEST, "metavar": "STATUS[-STATUS]"},
        ),
    ] = ()
    match: Annotated[
        str | None,
        Meta(
            description="Report whether the body matches this regular expression, of RE2's syntax (extra: match).",
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

    def accepts(self, status: int) -> bool:
        """Whether a status counts as ok."""
        return status in parse_statuses(self.accept) if self.accept else status < 400

    def with_task_options(self, values: Mapping[str, Any], *, strict: bool = True) -> Self:
        """These options with what a Task chooses.

        Args:
            values: The choices by name, as JSON has them.
            strict: Whether numbers have to be numbers. If not they may be texts, as in a query, and so may what has
                several values: one a line, headers as `Name: value`.

        Raises:
            OptionError: A Task cannot choose that; `place` is its name.
        """
        for name in values:
            if name not in self.__struct_fields__:
                raise OptionError("there is no such option", name)
            if name not in TASK_OPTIONS:
                raise OptionError("is the service's to choose", name)
        if not strict:
            values = {name: _from_text(name, value) for name, value in values.items()}
        choices = self.of(values, strict=strict)
        names = set(values)
        if choices.ipv4 or choices.ipv6:
            names |= {"ipv4", "ipv6"}  # one family in place of the other
        chosen = msgspec.structs.replace(self, **{name: getattr(choices, name) for name in names})
        for name, bound in self._bounds(chosen).items():
            if bound != getattr(chosen, name):
                side = "at least" if name == "interval" else "at most"
                raise OptionError(f"{side} {bound}, the service's", name)
        return chosen

    def with_stored(self, stored: "Options") -> Self:
        """These options with what a Task chose once, as far as they still allow it."""
        return msgspec.structs.replace(self, **{**task_options(stored), **self._bounds(stored)})

    def _bounds(self, chosen: "Options") -> dict[str, Any]:
        """What a Task has instead where it goes further than the service."""
        return {
            "per_host": min(chosen.per_host, self.per_host),
            "interval": max(chosen.interval, self.interval),
            "max_read": min(chosen.max_read, self.max_read),
        }

    def with_guard(self, policy: Literal["public", "any"]) -> Self:
        """These options with an `auto` guard decided."""
        return msgspec.structs.replace(self, guard=policy) if self.guard == "auto" else self

    def __post_init__(self) -> None:
        """Check what a single field's bounds cannot say."""
        if self.workers is not None:
            if self.processes not in (_DEFAULT_PROCESSES, self.workers):
                raise OptionError("is the old name of processes; give one of the two", "workers")
            # From here on only `processes` has it: a record that is copied with other `processes` must not conflict.
            msgspec.structs.force_setattr(self, "processes", self.workers)
            msgspec.structs.force_setattr(self, "workers", None)
        if self.ipv4 and self.ipv6:
            raise OptionError("excludes ipv6", "ipv4")
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


def task_options(options: Options) -> dict[str, Any]:
    """What a Task chose, or left as the service has it, in the order of the fields."""
    return {name: getattr(options, name) for name in Options.__struct_fields__ if name in TASK_OPTIONS}


def _from_text(name: str, value: Any) -> Any:
    """What a text says that stands for several values, one a line."""
    default = getattr(Options(), name)
    if not isinstance(value, str) or not isinstance(default, tuple | dict):
        return value
    return parse_headers(value.splitlines()) if isinstance(default, dict) else value.splitlines()
