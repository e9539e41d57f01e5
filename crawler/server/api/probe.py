"""The operation that probes one URL, now."""

from aiohttp import web

from crawler.server.api.params import choose_options, split_query
from crawler.server.api.schemas import ProbeQuery
from crawler.server.app_keys import OPTIONS, SINGLE_PROBES
from crawler.server.http.presence import while_connected
from crawler.server.http.responses import json_response
from crawler.server.middleware.auth import owner_of

__all__ = ["probe"]


async def probe(request: web.Request) -> web.Response:
    """Probe one URL at once, without a Task."""
    query, given = split_query(request, ProbeQuery)
    options = choose_options(request.app[OPTIONS], given, {})
    work = request.app[SINGLE_PROBES].probe(query.url, options, owner_of(request))
    return json_response(await while_connected(request, work))
