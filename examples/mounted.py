"""Serve crawler's endpoints below /probes of another application: python examples/mounted.py PORT."""

import sys

from aiohttp import web  # noqa: TID251

import crawler

probes = crawler.create_app(crawler.Options(timeout=5))


async def statuses(request: web.Request) -> web.Response:
    """The status of every Task, read from the application that runs them."""
    return web.json_response({task_id: task["status"] for task_id, task in probes[crawler.TASKS].items()})


app = web.Application()
app.add_subapp("/probes", probes)
app.router.add_get("/statuses", statuses)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]))
