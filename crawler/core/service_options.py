"""The options of the service with their bounds and defaults."""

import re
from typing import Annotated, Final, Literal

from msgspec import Meta

from crawler.core.errors import OptionError
from crawler.core.option_syntax import parse_secret
from crawler.core.options import CheckedOptions
from crawler.core.tokens import parse_tokens

__all__ = ["WORKER_OPTIONS", "ServiceOptions"]

# The options that also apply to `crawler worker`.
WORKER_OPTIONS: Final = ("redis", "drain", "log_level", "log_json")

# Panels of `--help`.
_ACCESS: Final = {"panel": "Access"}
_LIMITS: Final = {"panel": "Limits"}
_PROXY: Final = {"panel": "TLS and proxies"}
# As browsers write it (RFC 6454, section 6.2).
_ORIGIN: Final = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
_LOGS: Final = {"panel": "Logs"}


class ServiceOptions(CheckedOptions, frozen=True, kw_only=True):
    """How to serve. Times are in seconds unless their name says otherwise."""

    host: Annotated[str, Meta(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="Port to listen on; 0 picks a free one.")] = 7777
    registry: Annotated[
        str,
        Meta(
            pattern="^(memory|sqlite|sqlite:///.+)$",
            description="Where to store Tasks: in memory or in a SQLite file, by default one in the state directory.",
            extra={"metavar": "memory|sqlite[:///PATH]"},
        ),
    ] = "sqlite"
    redis: Annotated[
        str | None,
        Meta(
            description="Redis or Valkey to store Tasks in instead, shared by services and worker processes.",
            extra={"metavar": "URL"},
        ),
    ] = None
    keep_days: Annotated[
        float,
        Meta(ge=0, le=100_000, description="Days for which an ended Task is kept.", extra={"metavar": "DAYS"}),
    ] = 30.0
    keep_tasks: Annotated[int, Meta(ge=0, description="Ended Tasks to keep at most; the oldest are deleted.")] = 10_000
    keep_bytes: Annotated[
        int, Meta(ge=0, description="Bytes of stored Tasks to keep; beyond it the oldest ended Tasks are deleted.")
    ] = 20 * 2**30
    max_body: Annotated[
        int, Meta(ge=1, description="Largest body of a request in bytes, before and after decompression.")
    ] = 2**28
    webhook_secret: Annotated[
        str | None,
        Meta(
            description="Secret that signs webhooks without their own: whsec_ and 24 to 64 bytes in base64.",
            extra={"metavar": "SECRET"},
        ),
    ] = None
    tokens: Annotated[
        tuple[str, ...],
        Meta(
            description="Bearer token that requests must send, with the name of its owner and read or write access; "
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
        str | None, Meta(description="File with more tokens, one a line.", extra={**_ACCESS, "metavar": "FILE"})
    ] = None
    share_tasks: Annotated[bool, Meta(description="Let every token read and stop the Tasks of all.", extra=_ACCESS)] = (
        False
    )
    allow_anonymous: Annotated[
        bool,
        Meta(description="Serve any client that can reach the service without a token, also web pages.", extra=_ACCESS),
    ] = False
    cors_origins: Annotated[
        tuple[str, ...],
        Meta(
            description="Origin of web pages that may use the API with a token, for example https://example.org; "
            "repeatable.",
            extra={**_ACCESS, "flags": ("--cors-origin",), "metavar": "ORIGIN"},
        ),
    ] = ()
    max_urls: Annotated[int, Meta(ge=1, description="URLs in one Task at most.", extra=_LIMITS)] = 10_000_000
    max_tasks: Annotated[int, Meta(ge=1, description="Tasks that run at once at most.", extra=_LIMITS)] = 10_000
    token_tasks: Annotated[
        int, Meta(ge=1, description="Tasks of one token that run at once at most.", extra=_LIMITS)
    ] = 10_000
    token_urls: Annotated[
        int, Meta(ge=1, description="URLs of one token that wait at once at most.", extra=_LIMITS)
    ] = 100_000_000
    token_requests: Annotated[
        int,
        Meta(
            ge=1,
            description="Requests of one token, or of all clients without one, in progress at once at most.",
            extra=_LIMITS,
        ),
    ] = 500
    max_connections: Annotated[
        int, Meta(ge=1, le=100_000, description="Open connections of clients at most.", extra=_LIMITS)
    ] = 1_000
    receive_timeout: Annotated[
        float,
        Meta(
            gt=0,
            le=3600,
            description="Seconds to receive the head of a request, and between two pieces of its body.",
            extra=_LIMITS,
        ),
    ] = 30.0
    keep_alive: Annotated[
        float, Meta(gt=0, le=3600, description="Seconds to keep an idle connection of a client open.", extra=_LIMITS)
    ] = 75.0
    drain: Annotated[
        float,
        Meta(
            ge=0,
            le=15,
            description="Seconds that probes and responses in progress have to end when the service stops.",
            extra=_LIMITS,
        ),
    ] = 10.0
    tls_cert: Annotated[
        str | None,
        Meta(
            description="PEM file of the service's certificate, followed by the intermediate certificates.",
            extra={**_PROXY, "metavar": "FILE"},
        ),
    ] = None
    tls_key: Annotated[
        str | None,
        Meta(
            description="PEM file of the private key, if it is not in the same file.",
            extra={**_PROXY, "metavar": "FILE"},
        ),
    ] = None
    forwarded_allow: Annotated[
        tuple[str, ...],
        Meta(
            description="Network of reverse proxies whose X-Forwarded-For, -Proto and -Host are trusted; repeatable.",
            extra={**_PROXY, "metavar": "CIDR"},
        ),
    ] = ()
    root_path: Annotated[
        str,
        Meta(
            pattern="^/([A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*)?$",
            description="Path prefix that a reverse proxy removes before it forwards a request.",
            extra={**_PROXY, "metavar": "PATH"},
        ),
    ] = "/"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(
            description="Lowest level to log to standard error.",
            extra={**_LOGS, "metavar": "debug|info|warning|error"},
        ),
    ] = "info"
    log_json: Annotated[bool, Meta(description="Log JSON, one object a line, instead of text.", extra=_LOGS)] = False

    @property
    def prefix(self) -> str:
        """The path prefix that a reverse proxy removes: empty or `/prefix`."""
        return self.root_path.removesuffix("/")

    def __post_init__(self) -> None:
        """Check the values that need more than a pattern.

        Raises:
            OptionError: A value is wrong.
        """
        for number, origin in enumerate(self.cors_origins):
            if _ORIGIN.fullmatch(origin) is None:
                raise OptionError(
                    f"{origin!r} is not an origin, such as https://example.org", f"cors_origins[{number}]"
                )
        if self.cors_origins and not (self.tokens or self.token_file):
            raise OptionError("needs --token or --token-file: without a token, no other page is served", "cors_origins")
        if self.webhook_secret is not None:
            parse_secret(self.webhook_secret, "webhook_secret")
        parse_tokens(self.tokens, "tokens")
