"""Intervals and timeouts of the server that users need not set. Tests shorten them."""

from typing import Final

import msgspec

__all__ = ["ServerSettings", "WebhookSettings"]

_MINUTE: Final = 60.0
_HOUR: Final = 3600.0


class WebhookSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How webhooks are delivered.

    Attributes:
        retry_delays: Seconds from one attempt to the next. After the attempt that follows the last delay, the delivery
            has failed. The delays are those that Standard Webhooks recommends.
        max_retry_after_seconds: The longest wait that a Retry-After can ask for.
        local_retry_seconds: The delay after a fault of this machine or of the store; it does not count as an attempt.
        timeout_seconds: Time for a whole request.
        connect_timeout_seconds: Time for its connection.
        concurrency: Requests at once.
        per_host: Requests at once to one host.
        max_owner_share: Requests at once of one owner's webhooks, as a multiple of those that others may begin.
    """

    retry_delays: tuple[float, ...] = (
        5.0, 5 * _MINUTE, 30 * _MINUTE, 2 * _HOUR, 5 * _HOUR, 10 * _HOUR, 14 * _HOUR, 20 * _HOUR, 24 * _HOUR
    )  # fmt: skip
    max_retry_after_seconds: float = 24 * _HOUR
    local_retry_seconds: float = _MINUTE
    timeout_seconds: float = 20.0
    connect_timeout_seconds: float = 10.0
    concurrency: int = 32
    per_host: int = 8
    max_owner_share: float = 1.0


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Intervals and timeouts.

    Attributes:
        stall_seconds: How long a client may read nothing of a stream. Meanwhile a deletion may wait for the stream.
        progress_seconds: The shortest interval between two progress events of a Task.
        heartbeat_seconds: The longest silence in a stream of events; proxies close silent connections.
        leader_retry_seconds: The pause before the next attempt to lead, and to requeue stalled work.
        retention_seconds: The interval between two searches for Tasks to delete.
        webhooks: How webhooks are delivered.
    """

    stall_seconds: float = 300.0
    progress_seconds: float = 1.0
    heartbeat_seconds: float = 15.0
    leader_retry_seconds: float = 5.0
    retention_seconds: float = 60.0
    webhooks: WebhookSettings = WebhookSettings()
