"""How the service is: for load balancers, and for Prometheus."""

from http import HTTPStatus
from typing import Final

import msgspec
from aiohttp import hdrs, web

from crawler.server.api.operations import PROBLEM, Unready
from crawler.server.api.schemas import Checks, Fleet, Health, Readiness
from crawler.server.http.responses import json_answer
from crawler.server.metrics import METRICS
from crawler.server.task_manager import TASK_MANAGER

__all__ = ["healthz", "metrics", "readyz"]

_FRESH: Final = {"Cache-Control": "no-store"}


async def healthz(request: web.Request) -> web.Response:
    """Whether the service answers."""
    return json_answer(Health(healthy=True), headers=_FRESH)


async def readyz(request: web.Request) -> web.Response:
    """Whether the service can do its work; if not (503), why."""
    troubles = await request.app[TASK_MANAGER].health.troubles()
    checks = Checks(**{name: trouble or "ok" for name, trouble in troubles.items()})
    fleet = Fleet.of(await request.app[TASK_MANAGER].engine.fleet_status())
    wrong = [f"{name}: {trouble}" for name, trouble in troubles.items() if trouble]
    if not wrong:
        return json_answer(Readiness(ready=True, checks=checks, fleet=fleet), headers=_FRESH)
    status = HTTPStatus.SERVICE_UNAVAILABLE
    content = Unready("about:blank", status.phrase, status, "; ".join(wrong), ready=False, checks=checks, fleet=fleet)
    return web.Response(status=status, body=msgspec.json.encode(content), content_type=PROBLEM, headers=_FRESH)


async def metrics(request: web.Request) -> web.Response:
    """What the service counts, as Prometheus reads it."""
    content, media_type = await request.app[METRICS].shown(",".join(request.headers.getall(hdrs.ACCEPT, [])))
    return web.Response(body=content, headers={hdrs.CONTENT_TYPE: media_type, hdrs.VARY: hdrs.ACCEPT})
