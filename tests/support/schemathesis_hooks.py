"""Hooks of schemathesis: bodies that are neither JSON nor plain text, and requests that wait for a good reason."""

from typing import Any

import schemathesis

schemathesis.serializer.alias(["application/x-ndjson", "text/csv"], "text/plain")  # they are sent as they are


@schemathesis.hook
def map_query(context: Any, query: dict[str, Any] | None) -> dict[str, Any] | None:
    """Remove a long `interval`, which would make a single URL wait for an hour."""
    if query and isinstance(query.get("interval"), int | float):
        return query | {"interval": min(1, query["interval"])}
    return query
