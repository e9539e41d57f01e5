"""Operations that show the state of the service: to load balancers, and to Prometheus."""

from http import HTTPStatus
from typing import Final

from aiohttp import hdrs, web

from crawler.server.api.schemas import Checks, Fleet, Health, Readiness, Unready
from crawler.server.app_keys import HEALTH, METRICS, TASK_MANAGER
from crawler.server.http.problem import problem_response
from crawler.server.http.responses import json_response

__all__ = ["healthz", "metrics", "readyz"]

_NO_STORE: Final[dict[str, str]] = {hdrs.CACHE_CONTROL: "no-store"}


async def healthz(request: web.Request) -> web.Response:
    """Whether the service answers."""
    return json_response(Health(healthy=True), headers=_NO_STORE)


async def readyz(request: web.Request) -> web.Response:
    """Whether the service can do its work; if not (503), why."""
    faults = await request.app[HEALTH].find_faults()
    checks = Checks(**{name: fault or "ok" for name, fault in faults.items()})
    fleet = Fleet.of(await request.app[TASK_MANAGER].engine.fleet_status())
    wrong = [f"{name}: {fault}" for name, fault in faults.items() if fault]
    if not wrong:
        return json_response(Readiness(ready=True, checks=checks, fleet=fleet), headers=_NO_STORE)
    problem = Unready.of(HTTPStatus.SERVICE_UNAVAILABLE, "; ".join(wrong), ready=False, checks=checks, fleet=fleet)
    return problem_response(problem, _NO_STORE)


async def metrics(request: web.Request) -> web.Response:
    """The metrics of the service, for Prometheus."""
    content, media_type = await request.app[METRICS].render(",".join(request.headers.getall(hdrs.ACCEPT, [])))
    return web.Response(body=content, headers={hdrs.CONTENT_TYPE: media_type, hdrs.VARY: hdrs.ACCEPT})
