"""Serve two crawlers in one application, which requires a key: python examples/several.py PORT."""

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from crawler import Options, ServiceOptions, SqliteRegistry, create_app


@web.middleware
async def require_key(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Refuse requests without the key; this covers the requests to both crawlers too."""
    if request.headers.get("X-Key") != "open":
        raise web.HTTPUnauthorized
    return await handler(request)


# One for a few URLs, kept in memory; one for long lists, slower, kept in a file of its own.
quick = create_app(Options(timeout=2), service=ServiceOptions(max_urls=100))
nightly = create_app(Options(per_host=1, interval=1), registry=SqliteRegistry(Path("nightly.db")))

app = web.Application(middlewares=[require_key])
app.add_subapp("/quick", quick)
app.add_subapp("/nightly", nightly)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]))
