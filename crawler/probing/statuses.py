"""What the statuses of servers mean for a probe."""

from typing import Final

__all__ = ["REDIRECT_STATUSES", "SLOW_DOWN_STATUSES", "TRANSIENT_STATUSES"]

REDIRECT_STATUSES: Final = frozenset({301, 302, 303, 307, 308})
SLOW_DOWN_STATUSES: Final = frozenset({429, 503})  # may have Retry-After (RFC 9110, 10.2.3; RFC 6585, 4)

# The same request may get another answer later.
TRANSIENT_STATUSES: Final = frozenset(
    {
        408, 429, 500, 502, 503, 504, 522, 524,  # those after which curl repeats a request (`--retry`)
        425,  # "too early": the client should repeat the request (RFC 8470, 5.2)
        520, 521, 523,  # Cloudflare cannot reach the origin; not 525 and 526, which are about the origin's TLS
        529, 530,  # overloaded; Cloudflare cannot resolve the origin or has lost its tunnel
    }
)  # fmt: skip
