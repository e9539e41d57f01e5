"""Serve crawler's endpoints below /probes of another application: python examples/mounted.py PORT."""

import sys

from aiohttp import web

import crawler

# By default an embedded service probes public addresses only; this one may also probe its own machine.
probes = crawler.create_app(crawler.Options(timeout=5, allow=("127.0.0.0/8",)))


async def statuses(request: web.Request) -> web.Response:
    """Return the status of every Task, read from the inner application."""
    return web.json_response({task_id: task["status"] for task_id, task in probes[crawler.TASKS].items()})


app = web.Application()
app.add_subapp("/probes", probes)
app.router.add_get("/statuses", statuses)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]))
