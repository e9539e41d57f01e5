"""Middleware that redirects a path with a slash too many, as people type it, to the path without it."""

from aiohttp import web
from aiohttp.typedefs import Handler

from crawler.server.middleware.proxy_headers import path_prefix

__all__ = ["redirect_trailing_slash"]


@web.middleware
async def redirect_trailing_slash(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer `/tasks/` with a redirect to `/tasks` (308, so that a POST stays one), if that exists."""
    is_unknown = isinstance(request.match_info.http_exception, web.HTTPNotFound)
    if is_unknown and request.path.endswith("/") and (path := request.rel_url.raw_path.rstrip("/")):
        shorter = request.rel_url.with_path(path, encoded=True, keep_query=True)
        found = await request.app.router.resolve(request.clone(rel_url=shorter))
        if not isinstance(found.http_exception, web.HTTPNotFound):
            raise web.HTTPPermanentRedirect(f"{path_prefix(request)}{shorter}")
    return await handler(request)
