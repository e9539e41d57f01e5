"""An application with tokens, and requests that send them."""

from typing import Any

from aiohttp import web

import crawler
from crawler import Options, Registry, ServiceOptions
from tests.support.app_client import Client

__all__ = ["ANN", "BOB", "NOBODY", "READER", "bearer", "open_guarded_app", "status_of"]

ANN, BOB, READER, NOBODY = "anns-secret", "bobs-secret", "readers-secret", "nobodys-secret"
TOKENS = ("ann:" + ANN, "bob:write:" + BOB, "ann:read:" + READER)


def bearer(secret: str) -> dict[str, str]:
    """Return the headers that send a token."""
    return {"Authorization": f"Bearer {secret}"}


def open_guarded_app(registry: Registry | None = None, **service: Any) -> web.Application:
    """An application with a token of Ann, one of Bob, and one of Ann that may only read."""
    return crawler.create_app(
        Options(guard="any"), registry=registry, service=ServiceOptions(**{"tokens": TOKENS, **service})
    )


async def status_of(client: Client, method: str, path: str, secret: str) -> int:
    """The status that a request with this token is answered with."""
    body = b'{"urls": ["no url"]}' if path.endswith(("/submit", "/v1/tasks")) else None
    headers = bearer(secret) | {"Content-Type": "application/json"}
    async with client.request(method, path, data=body, headers=headers) as response:
        await response.read()
        return response.status
