"""The options of the service, their bounds and their defaults."""

from typing import Annotated, Final, Literal

from msgspec import Meta

from crawler.core.option_syntax import parse_secret
from crawler.core.options import CheckedOptions
from crawler.core.tokens import parse_tokens

__all__ = ["ServiceOptions"]

# Panels of `--help`.
_ACCESS: Final = {"panel": "Access"}
_LIMITS: Final = {"panel": "Limits"}
_PROXY: Final = {"panel": "TLS and proxies"}
_LOGS: Final = {"panel": "Logs"}


class ServiceOptions(CheckedOptions, frozen=True, kw_only=True):
    """How to serve."""

    host: Annotated[str, Meta(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="Port to listen on; 0 picks a free one.")] = 7777
    registry: Annotated[
        str,
        Meta(
            pattern="^(memory|sqlite|sqlite:///.+)$",
            description="Where Tasks live: in memory, or in a SQLite file, which is one of the user's if not named.",
            extra={"metavar": "memory|sqlite[:///PATH]"},
        ),
    ] = "sqlite"
    redis: Annotated[
        str | None,
        Meta(
            description="Redis or Valkey where Tasks live instead, for any number of services and workers.",
            extra={"metavar": "URL"},
        ),
    ] = None
    keep_days: Annotated[
        float,
        Meta(
            ge=0, le=100_000, description="Days for which a Task is kept once it has ended.", extra={"metavar": "DAYS"}
        ),
    ] = 30.0
    keep_tasks: Annotated[int, Meta(ge=0, description="Tasks that are kept once they have ended.")] = 10_000
    keep_bytes: Annotated[int, Meta(ge=0, description="Bytes beyond which the Tasks that ended first are deleted.")] = (
        20 * 2**30
    )
    max_body: Annotated[int, Meta(ge=1, description="Bytes a request's body may have, also once unpacked.")] = 2**28
    webhook_secret: Annotated[
        str | None,
        Meta(
            description="What signs webhooks that have no secret of their own: whsec_ and 24 to 64 bytes in base64.",
            extra={"metavar": "SECRET"},
        ),
    ] = None
    tokens: Annotated[
        tuple[str, ...],
        Meta(
            description="A bearer token that requests have to show, with who has it and whether he may only read; "
            "repeatable.",
            extra={
                **_ACCESS,
                "flags": ("--token",),
                "list": "CRAWLER_TOKENS",
                "metavar": "[NAME:[read|write:]]SECRET",
            },
        ),
    ] = ()
    token_file: Annotated[
        str | None, Meta(description="File with more of these, one a line.", extra={**_ACCESS, "metavar": "FILE"})
    ] = None
    share_tasks: Annotated[bool, Meta(description="Let every token see and end the Tasks of all.", extra=_ACCESS)] = (
        False
    )
    allow_anonymous: Annotated[
        bool,
        Meta(
            description="Serve without a token whoever can reach it, other machines and web pages too.", extra=_ACCESS
        ),
    ] = False
    max_urls: Annotated[int, Meta(ge=1, description="URLs that a Task may have.", extra=_LIMITS)] = 10_000_000
    max_tasks: Annotated[int, Meta(ge=1, description="Tasks that may run at once.", extra=_LIMITS)] = 10_000
    token_tasks: Annotated[
        int, Meta(ge=1, description="Tasks that one token may have running at once.", extra=_LIMITS)
    ] = 10_000
    token_urls: Annotated[
        int, Meta(ge=1, description="URLs that one token may have waiting at once.", extra=_LIMITS)
    ] = 100_000_000
    token_requests: Annotated[
        int,
        Meta(
            ge=1,
            description="Requests that one token, or all who need none, may have under way at once.",
            extra=_LIMITS,
        ),
    ] = 500
    max_connections: Annotated[
        int, Meta(ge=1, le=100_000, description="Connections of clients at once.", extra=_LIMITS)
    ] = 1_000
    receive_timeout: Annotated[
        float,
        Meta(
            gt=0,
            le=3600,
            description="Time for the head of a request, and in which some more of its body has to come.",
            extra=_LIMITS,
        ),
    ] = 30.0
    keep_alive: Annotated[
        float, Meta(gt=0, le=3600, description="Time for which a connection is kept without a request.", extra=_LIMITS)
    ] = 75.0
    drain: Annotated[
        float,
        Meta(
            ge=0,
            le=15,
            description="Time that probes and answers under way have when it is stopped.",
            extra=_LIMITS,
        ),
    ] = 10.0
    tls_cert: Annotated[
        str | None,
        Meta(
            description="PEM file of the service's certificate and those between it and its authority.",
            extra={**_PROXY, "metavar": "FILE"},
        ),
    ] = None
    tls_key: Annotated[
        str | None,
        Meta(description="PEM file of its key, if that is not in the same file.", extra={**_PROXY, "metavar": "FILE"}),
    ] = None
    forwarded_allow: Annotated[
        tuple[str, ...],
        Meta(
            description="Network of proxies whose X-Forwarded-For, -Proto and -Host are believed; repeatable.",
            extra={**_PROXY, "metavar": "CIDR"},
        ),
    ] = ()
    root_path: Annotated[
        str,
        Meta(
            pattern="^/([A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*)?$",
            description="Path under which a proxy shows the service, which it takes off.",
            extra={**_PROXY, "metavar": "PATH"},
        ),
    ] = "/"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(
            description="What is logged to standard error: this, and what is worse.",
            extra={**_LOGS, "metavar": "debug|info|warning|error"},
        ),
    ] = "info"
    log_json: Annotated[bool, Meta(description="Log JSON, an object a line, instead of text.", extra=_LOGS)] = False

    @property
    def prefix(self) -> str:
        """What a proxy has taken off from the front of a path: nothing, or `/this`."""
        return self.root_path.removesuffix("/")

    def __post_init__(self) -> None:
        """Check what a pattern cannot say."""
        if self.webhook_secret is not None:
            parse_secret(self.webhook_secret, "webhook_secret")
        parse_tokens(self.tokens, "tokens")
