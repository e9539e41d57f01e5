"""Middleware that checks requests: their token, or without tokens that they come from this machine; and the quota."""

from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from crawler.core.errors import TaskNotFound
from crawler.core.tasks import Task
from crawler.runtime.logs import add_log_fields
from crawler.server.access import HEALTH_ROUTES, OPEN_ROUTES
from crawler.server.app_keys import AUTHORIZER, QUOTAS, REGISTRY
from crawler.server.http.routing import route_path
from crawler.server.middleware.loop_check import check_loop
from crawler.server.middleware.origin_check import check_origin

__all__ = ["check_access", "owner_of", "task_of", "tasks_of"]

_SAFE_METHODS: Final = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS})
_PROBE_ROUTE: Final = "/api/v1/probe"  # a GET that makes the service send requests, so it needs the scope of a change

_OWNER: Final = web.RequestKey("owner", str)


@web.middleware
async def check_access(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Admit a request, or raise.

    Raises:
        AccessDenied: Its token is missing, unknown or does not allow it.
        LoopDetected: A service has sent it, and it asks for a change.
        QuotaExceeded: Its owner has too many requests in progress.
        web.HTTPException: The service has no tokens, and the request may come from another machine or origin.
    """
    authorizer, route = request.app[AUTHORIZER], route_path(request)
    is_change = request.method not in _SAFE_METHODS or route == _PROBE_ROUTE
    if is_change:
        check_loop(request)
    if authorizer.is_only_local and route not in HEALTH_ROUTES:
        check_origin(request, is_change=is_change)
    elif authorizer.has_tokens and route not in OPEN_ROUTES:
        token = authorizer.authenticate(request.headers.getall(hdrs.AUTHORIZATION, []), is_change=is_change)
        request[_OWNER] = token.name
        add_log_fields(token=token.name)
    owner = owner_of(request)
    # Without tokens all clients are one owner: slow bodies of some must not use up the quota of all.
    if route in OPEN_ROUTES or (owner is None and not request.content.is_eof()):
        return await handler(request)
    with request.app[QUOTAS].request(owner):
        return await handler(request)


def owner_of(request: web.Request) -> str | None:
    """Return the request's owner: the name of its token."""
    return request.get(_OWNER)


async def task_of(request: web.Request) -> Task:
    """Return the Task that the path names, in its present state.

    Raises:
        TaskNotFound: There is none, or it belongs to another owner.
    """
    task = await request.app[REGISTRY].fetch(request.match_info["task_id"])
    if not request.app[AUTHORIZER].may_see(owner_of(request), task):
        raise TaskNotFound(task.id)
    add_log_fields(task=task.id)
    return task


async def tasks_of(request: web.Request) -> list[Task]:
    """Return the Tasks that the request's owner sees, oldest first, in their present state."""
    authorizer, registry, owner = request.app[AUTHORIZER], request.app[REGISTRY], owner_of(request)
    await registry.refresh()
    return [task for task in registry.tasks.values() if authorizer.may_see(owner, task)]
