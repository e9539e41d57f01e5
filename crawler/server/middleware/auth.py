"""Who may do what: callers with a token, whose Tasks are their own, or without one programs of this machine."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from aiohttp import hdrs, web

from crawler.core.errors import TaskNotFound
from crawler.core.service_options import ServiceOptions
from crawler.core.tasks import Task
from crawler.core.tokens import Token, find_token, parse_tokens, read_tokens
from crawler.runtime.logs import add_log_fields
from crawler.server.middleware.origin_check import check_origin
from crawler.server.task_manager import TASK_MANAGER

__all__ = ["ANCHOR", "AUTHORIZER", "Authorizer", "check_access", "owner_of", "route_of", "task_of", "tasks_of"]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# Below where this application is mounted: paths that say nothing of Tasks, and who asks for them has no token.
_HEALTH: Final = frozenset({"/healthz", "/readyz"})  # asked by load balancers, which name an address as Host
_OPEN: Final = _HEALTH | {"/openapi.json", "/docs"}
_READING: Final = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS})
_WORKING: Final = "/api/v1/probe"  # is a GET, but has the service send requests

_OWNER: Final = web.RequestKey("owner", str)
_BEARER: Final = 'Bearer realm="crawler"'


class Authorizer:
    """The rules of one application.

    Args:
        service: Has the tokens.
        only_local: Whether, if there are no tokens, only programs of this machine are served.

    Raises:
        InputError: The file of tokens cannot be read, or has something else in it.
    """

    def __init__(self, service: ServiceOptions, *, only_local: bool) -> None:
        self._tokens = parse_tokens(service.tokens, "tokens")
        if service.token_file is not None:
            self._tokens += read_tokens(Path(service.token_file))
        self._shares = service.share_tasks
        self._only_local = only_local

    @property
    def has_tokens(self) -> bool:
        """Whether a token is needed."""
        return bool(self._tokens)

    def check(self, request: web.Request) -> None:
        """Let a request in, and remember whose it is.

        Raises:
            web.HTTPException: It may not come in; the headers of a 401 or 403 are those of RFC 6750.
        """
        path = route_of(request)
        is_change = request.method not in _READING or path == _WORKING
        if self._tokens:
            if not _is_open(request):
                token = self._token(request)
                if is_change and token.scope == "read":
                    raise web.HTTPForbidden(
                        text="this token may only read", headers=_challenge("insufficient_scope", 'scope="write"')
                    )
                request[_OWNER] = token.name
                add_log_fields(token=token.name)
        elif self._only_local and path not in _HEALTH:
            check_origin(request, is_change=is_change)

    def may_see(self, owner: str | None, task: Task) -> bool:
        """Whether a Task is there for this caller. Without tokens there is one caller: the machine's user."""
        return not self._tokens or self._shares or task.owner == owner

    def _token(self, request: web.Request) -> Token:
        given = request.headers.getall(hdrs.AUTHORIZATION, [])
        if len(given) > 1:
            raise web.HTTPBadRequest(text="Authorization: is given twice", headers=_challenge("invalid_request"))
        scheme, _, secret = "".join(given).partition(" ")
        if scheme.lower() != "bearer":
            raise web.HTTPUnauthorized(text="Authorization: a bearer token is needed", headers=_challenge())
        token = find_token(secret.strip(), self._tokens)
        if token is None:
            raise web.HTTPUnauthorized(
                text="Authorization: there is no such token", headers=_challenge("invalid_token")
            )
        return token


AUTHORIZER: Final = web.AppKey("AUTHORIZER", Authorizer)
ANCHOR: Final = "submit"  # the name of a route, by which is known where this application is mounted


@web.middleware
async def check_access(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let in who may come in, unless he has too much under way."""
    request.app[AUTHORIZER].check(request)
    owner = owner_of(request)
    # Where all are one, bodies that do not come to their end may not keep everybody out.
    if _is_open(request) or (owner is None and not request.content.is_eof()):
        return await handler(request)
    with request.app[TASK_MANAGER].quotas.request(owner):
        return await handler(request)


def owner_of(request: web.Request) -> str | None:
    """Whose the request is: the name of its token."""
    return request.get(_OWNER)


async def task_of(request: web.Request) -> Task:
    """The Task that the path names, as it is now.

    Raises:
        TaskNotFound: There is none, or not for this caller.
    """
    task = await request.app[TASK_MANAGER].registry.fetch(request.match_info["task_id"])
    if not request.app[AUTHORIZER].may_see(owner_of(request), task):
        raise TaskNotFound(task.id)
    add_log_fields(task=task.id)
    return task


async def tasks_of(request: web.Request) -> list[Task]:
    """The Tasks that are there for this caller, oldest first, as they are now."""
    access, owner = request.app[AUTHORIZER], owner_of(request)
    await request.app[TASK_MANAGER].registry.refresh()
    return [task for task in request.app[TASK_MANAGER].registry.tasks.values() if access.may_see(owner, task)]


def _is_open(request: web.Request) -> bool:
    path = route_of(request)
    return path in _OPEN or path.startswith("/docs/")


def route_of(request: web.Request) -> str:
    """The path of the route, without that of the mount; empty if there is no such route."""
    resource = request.match_info.route.resource
    mount = request.app.router[ANCHOR].canonical.removesuffix("/submit")
    return "" if resource is None else resource.canonical.removeprefix(mount)


def _challenge(error: str = "", more: str = "") -> dict[str, str]:
    parts = [_BEARER, f'error="{error}"' if error else "", more]
    return {hdrs.WWW_AUTHENTICATE: ", ".join(filter(None, parts))}
