"""One URL, now."""

from typing import Final

from aiohttp import web

from crawler.server.api.params import choose, split_query
from crawler.server.api.schemas import ProbeQuery
from crawler.server.http.responses import json_answer
from crawler.server.task_manager import TASK_MANAGER

__all__ = ["probe"]

_AT_ONCE: Final = 100
_LATER: Final = {"Retry-After": "5"}  # seconds


async def probe(request: web.Request) -> web.Response:
    """The result of one URL, which belongs to no task."""
    state = request.app[TASK_MANAGER]
    query, choices = split_query(request, ProbeQuery)
    options = choose(state.options, choices, {})
    if state.asked >= _AT_ONCE:
        raise web.HTTPServiceUnavailable(headers=_LATER, text=f"{_AT_ONCE} single URLs are being probed; try again")
    return json_answer(await state.probe(query.url, options))
