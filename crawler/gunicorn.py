"""The service for gunicorn: `gunicorn crawler.gunicorn:app --worker-class aiohttp.GunicornUVLoopWebWorker`."""

from typing import Final

from aiohttp import web
from gunicorn.app.wsgiapp import WSGIApplication
from gunicorn.errors import AppImportError

from crawler.asgi import from_environment
from crawler.core.errors import InputError
from crawler.server.task_manager import TASK_MANAGER

__all__ = ["app"]

_PREDECESSOR: Final = 25.0  # seconds for the worker before, when gunicorn reloads; it takes its leave meanwhile


async def app() -> web.AppRunner:
    """What the command would serve, with its options from the same `CRAWLER_*` variables, for aiohttp's worker.

    Raises:
        AppImportError: It cannot be; gunicorn says so in a line, and ends.
    """
    try:
        made = from_environment(_PREDECESSOR)
    except InputError as error:
        raise AppImportError(f"crawler: {error}") from None
    # Its own settings, from the command line, the environment and its configuration file: it hands them to nobody. To
    # count the workers that run would not do: at a reload there are two for a while.
    if WSGIApplication().cfg.workers > 1 and not made[TASK_MANAGER].registry.is_shared:
        raise AppImportError(
            "crawler: several workers would not know of each other's tasks: run one, with --workers 1, or give them "
            "CRAWLER_REDIS; CRAWLER_PROCESSES has one probe on several processes"
        )
    return _Runner(made)


class _Runner(web.AppRunner):
    def __init__(self, made: web.Application) -> None:
        service = made[TASK_MANAGER].service
        super().__init__(
            made, keepalive_timeout=service.keep_alive, shutdown_timeout=max(service.drain, 5.0), access_log=None
        )

    async def setup(self) -> None:
        try:
            await super().setup()
        except InputError as error:
            raise AppImportError(f"crawler: {error}") from None
