"""Serve crawler's endpoints below /probes of a FastAPI application: python examples/hosted.py PORT."""

import sys

import uvicorn
from fastapi import FastAPI

import crawler
from crawler.asgi import AsgiApplication

# By default an embedded service probes public addresses only; this one may also probe its own machine.
inner = crawler.create_app(crawler.Options(timeout=5, allow=("127.0.0.0/8",)))
probes = AsgiApplication(inner)

app = FastAPI(lifespan=probes.lifespan)
app.mount("/probes", probes)


@app.get("/statuses")
async def statuses() -> dict[str, str]:
    """Return the status of every Task, read from the inner application."""
    return {task_id: task["status"] for task_id, task in inner[crawler.TASKS].items()}


uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=False)
