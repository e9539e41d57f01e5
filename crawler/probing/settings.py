"""Constants of probing that are no options: waits before retries, and what only a service does. Tests shorten them."""

import math
import random
from typing import Final

import msgspec

__all__ = ["CDN_ID", "DEFAULT_SETTINGS", "SERVICE_SETTINGS", "ProberSettings", "RetryPolicy"]


class RetryPolicy(msgspec.Struct, frozen=True):
    """How long a probe waits before its next request.

    Attributes:
        backoff_seconds: The longest wait after the first failure; it doubles with each further failure.
        max_wait_seconds: The longest wait, even if a Retry-After asks for a week.
        max_slow_downs: How often a probe waits for a host that asks for fewer requests, without counting an attempt.
        max_local_faults: How often a probe waits after a fault of this machine before it reports one. With these
            defaults, the waits are about half a minute in all.
    """

    backoff_seconds: float = 0.5
    max_wait_seconds: float = 60.0
    max_slow_downs: int = 10
    max_local_faults: int = 6

    def backoff(self, failures: int) -> float:
        """Return the seconds to wait after this number of failures.

        The random part spreads the retries of probes that failed together.
        """
        return min(self.backoff_seconds * 2.0 ** (failures - 1), self.max_wait_seconds) * random.uniform(0.5, 1.0)


class ProberSettings(msgspec.Struct, frozen=True):
    """Constants that are not options. Tests shorten them.

    Attributes:
        retry: Waits before retries.
        max_deferral_seconds: How long a final retry waits for all other probes.
        max_queue_share: The slots of one caller at most, as a multiple of the slots that are free.
        cdn_loop: What each request says in `CDN-Loop` (RFC 8586) of the service that sends it; None without a service.
    """

    retry: RetryPolicy = RetryPolicy()
    max_deferral_seconds: float = 30.0
    max_queue_share: float = math.inf
    cdn_loop: str | None = None


DEFAULT_SETTINGS: Final = ProberSettings()

CDN_ID: Final = "crawler"
"""The pseudonym of every service in `CDN-Loop`. It tells no more than the default User-Agent, and nothing of a user."""

# One Task of a service leaves a slot in 17 free: the first requests of the next one need not wait for a timeout.
SERVICE_SETTINGS: Final = ProberSettings(max_queue_share=16.0, cdn_loop=CDN_ID)
