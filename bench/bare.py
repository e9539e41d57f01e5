"""The least that aiohttp can do for the same requests: the same body read, the same answers encoded, and nothing else.

    python -m bench.bare FOLDER

FOLDER has the answers of the service, by the names in ANSWERS.
"""

import asyncio
import sys
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import msgspec
import uvloop
from aiohttp import web

from crawler.core.task_summary import Summary
from crawler.server.api.schemas import ResultPage

ANSWERS: Final[dict[str, type[object]]] = {"task": dict, "summary": Summary, "results": ResultPage}


class Batch(msgspec.Struct):
    """What is submitted."""

    urls: list[str]


async def submit(request: web.Request) -> web.Response:
    """Take a batch in and forget it."""
    batch = msgspec.json.decode(await request.read(), type=Batch)
    assert batch.urls
    return web.json_response(body=msgspec.json.encode({"task_id": str(uuid.uuid4())}))


def answer(content: object) -> Callable[[web.Request], Awaitable[web.Response]]:
    """What answers with this, encoded anew each time."""

    async def handler(request: web.Request) -> web.Response:
        return web.json_response(body=msgspec.json.encode(content))

    return handler


async def serve(folder: Path) -> None:
    """Serve until killed."""
    app = web.Application()
    task, summary, results = (
        answer(msgspec.json.decode((folder / name).read_bytes(), type=type_)) for name, type_ in ANSWERS.items()
    )
    app.add_routes(
        [
            web.post("/submit", submit),
            web.get("/tasks/{task_id}", task),
            web.get("/api/v1/tasks/{task_id}", summary),
            web.get("/api/v1/tasks/{task_id}/results", results),
        ]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1])))
