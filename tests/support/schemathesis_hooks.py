"""What schemathesis has to be told of: bodies that are neither JSON nor plain text, and requests that rightly wait."""

from typing import Any

import schemathesis

schemathesis.serializer.alias(["application/x-ndjson", "text/csv"], "text/plain")  # they are sent as they are


@schemathesis.hook
def map_query(context: Any, query: dict[str, Any] | None) -> dict[str, Any] | None:
    """Have no single URL wait for an hour after another one of its host, as `interval` may ask."""
    if query and isinstance(query.get("interval"), int | float):
        return query | {"interval": min(1, query["interval"])}
    return query
