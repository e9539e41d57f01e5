"""A minimal aiohttp application for the same requests: it reads the same bodies and encodes the same answers.

    python -m bench.minimal_app FOLDER

FOLDER has the answers of the service, in files with the names in ANSWERS.
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


class Submission(msgspec.Struct):
    """The body of a submit request."""

    urls: list[str]


async def submit(request: web.Request) -> web.Response:
    """Decode the URLs and drop them."""
    submission = msgspec.json.decode(await request.read(), type=Submission)
    assert submission.urls
    return web.json_response(body=msgspec.json.encode({"task_id": str(uuid.uuid4())}))


def make_handler(content: object) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Return a handler that encodes `content` anew for each response."""

    async def handler(request: web.Request) -> web.Response:
        return web.json_response(body=msgspec.json.encode(content))

    return handler


async def serve(folder: Path) -> None:
    """Serve until killed."""
    app = web.Application()
    task, summary, results = (
        make_handler(msgspec.json.decode((folder / name).read_bytes(), type=type_)) for name, type_ in ANSWERS.items()
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
