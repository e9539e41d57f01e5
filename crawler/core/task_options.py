"""Which options a Task may set, and how far: the service's own options are the limits."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from crawler.core.errors import OptionError
from crawler.core.option_syntax import parse_headers
from crawler.core.options import Options

__all__ = ["TASK_OPTIONS", "apply_stored_options", "apply_task_options", "task_options"]

# Options that concern only the targets of a Task. The other options belong to the whole process, or decide which
# addresses it may reach and which certificates and DNS servers it trusts.
TASK_OPTIONS: Final = frozenset(
    {
        "accept", "connect_timeout", "headers", "http", "insecure", "interval", "ipv4", "ipv6", "match", "max_read",
        "max_redirects", "method", "per_host", "retries", "robots", "timeout", "title", "user_agent",
    }
)  # fmt: skip


def apply_task_options(options: Options, values: Mapping[str, Any], *, strict: bool = True) -> Options:
    """Return the service's options, changed by the options of a Task.

    Args:
        options: The options of the service.
        values: The Task's options by name, as in JSON.
        strict: Whether numbers must be numbers. If not, all values may be strings, as in a query: lists and
            headers have one item a line, headers as `Name: value`.

    Raises:
        OptionError: A name or value is wrong, or a Task may not set it; `place` is the option's name.
    """
    for name in values:
        if name not in Options.__struct_fields__:
            raise OptionError("there is no such option", name)
        if name not in TASK_OPTIONS:
            raise OptionError("cannot be set per Task", name)
    if not strict:
        values = {name: _split_text(name, value) for name, value in values.items()}
    given = Options.of(values, strict=strict)
    names = set(values)
    if given.ipv4 or given.ipv6:
        names |= {"ipv4", "ipv6"}  # the Task's address family replaces the service's
    merged = msgspec.structs.replace(options, **{name: getattr(given, name) for name in names})
    for name, limit in _limited(options, merged).items():
        if limit != getattr(merged, name):
            side = "at least" if name == "interval" else "at most"
            raise OptionError(f"must be {side} {limit}, the service's limit", name)
    return merged


def apply_stored_options(options: Options, stored: Options) -> Options:
    """Return the service's options, changed by the stored options of a Task as far as the service still allows."""
    return msgspec.structs.replace(options, **{**task_options(stored), **_limited(options, stored)})


def task_options(options: Options) -> dict[str, Any]:
    """Return the options that a Task may set, in the order of the fields."""
    return {name: getattr(options, name) for name in Options.__struct_fields__ if name in TASK_OPTIONS}


def _limited(options: Options, requested: Options) -> dict[str, Any]:
    """Return what a Task requests of limited options, limited to what the service's options allow."""
    return {
        "timeout": min(requested.timeout, options.timeout),
        "connect_timeout": min(requested.connect_timeout, options.connect_timeout),
        "per_host": min(requested.per_host, options.per_host),
        "interval": max(requested.interval, options.interval),
        "max_read": min(requested.max_read, options.max_read),
    }


def _split_text(name: str, value: Any) -> Any:
    """Split the text of an option that has several values."""
    default = getattr(Options(), name)
    if not isinstance(value, str) or not isinstance(default, tuple | dict):
        return value
    return parse_headers(value.splitlines()) if isinstance(default, dict) else value.splitlines()
