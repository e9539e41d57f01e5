"""Constants of probing that tests shorten: waits before retries, and how long a final retry is deferred."""

import random
from typing import Final

import msgspec

__all__ = ["DEFAULT_SETTINGS", "ProberSettings", "RetryPolicy"]


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
    """

    retry: RetryPolicy = RetryPolicy()
    max_deferral_seconds: float = 30.0


DEFAULT_SETTINGS: Final = ProberSettings()
