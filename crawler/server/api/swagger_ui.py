"""Swagger UI (https://swagger.io/tools/swagger-ui/), from files in this package, without other servers."""

from pathlib import Path
from typing import Final

from aiohttp import web

__all__ = ["FILES", "FOLDER", "file", "page"]

FOLDER: Final = Path(__file__).parent / "static"
_PAGE: Final = "index.html"

# The files that the page loads, with their types; nothing else in the folder is served.
FILES: Final = {
    "initializer.js": "text/javascript; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
}

_HEADERS: Final = {
    "Cache-Control": "no-cache",  # the browser keeps files, and asks whether they have changed
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_POLICY: Final = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",  # for the icons in the style sheet
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)


async def page(request: web.Request) -> web.StreamResponse:
    """Interactive documentation of the API."""
    headers = {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": _POLICY}
    return web.FileResponse(FOLDER / _PAGE, headers=_HEADERS | headers)


async def file(request: web.Request) -> web.StreamResponse:
    """A file of the documentation page."""
    name = request.match_info["name"]
    if name not in FILES:
        raise web.HTTPNotFound(text=f"no file {name!r}")
    return web.FileResponse(FOLDER / name, headers=_HEADERS | {"Content-Type": FILES[name]})
