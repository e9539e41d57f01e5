"""The operation that probes one URL, now."""

from aiohttp import web

from crawler.server.api.params import choose_options, split_query
from crawler.server.api.schemas import ProbeQuery
from crawler.server.app_keys import OPTIONS, SINGLE_PROBES
from crawler.server.http.responses import json_response

__all__ = ["probe"]


async def probe(request: web.Request) -> web.Response:
    """Probe one URL at once, without a Task."""
    query, given = split_query(request, ProbeQuery)
    options = choose_options(request.app[OPTIONS], given, {})
    return json_response(await request.app[SINGLE_PROBES].probe(query.url, options))
