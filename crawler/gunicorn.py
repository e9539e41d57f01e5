"""The service for gunicorn: `gunicorn crawler.gunicorn:app --worker-class aiohttp.GunicornUVLoopWebWorker`."""

from typing import Final

from aiohttp import web
from gunicorn.app.wsgiapp import WSGIApplication
from gunicorn.errors import AppImportError

from crawler.asgi import from_environment
from crawler.core.errors import InputError
from crawler.server.app_keys import REGISTRY, SERVICE_OPTIONS

__all__ = ["app"]

_PREDECESSOR_SECONDS: Final = 25.0  # at a reload, the earlier worker still uses the registry until it has stopped


async def app() -> web.AppRunner:
    """Return the application that the command would serve, with its options from the same `CRAWLER_*` variables.

    Raises:
        AppImportError: An option is wrong, or a file cannot be read; gunicorn prints that in one line, and ends.
    """
    try:
        made = from_environment(_PREDECESSOR_SECONDS)
    except InputError as error:
        raise AppImportError(f"crawler: {error}") from None
    # gunicorn does not pass its settings on, so they are read again. The number of running workers does not help,
    # because there are two during a reload.
    if WSGIApplication().cfg.workers > 1 and not made[REGISTRY].is_shared:
        raise AppImportError(
            "crawler: several workers would not share their Tasks. Run one worker (--workers 1), or set CRAWLER_REDIS. "
            "CRAWLER_PROCESSES spreads the probes of one worker over several processes"
        )
    return _Runner(made)


class _Runner(web.AppRunner):
    def __init__(self, made: web.Application) -> None:
        service = made[SERVICE_OPTIONS]
        super().__init__(
            made, keepalive_timeout=service.keep_alive, shutdown_timeout=max(service.drain, 5.0), access_log=None
        )

    async def setup(self) -> None:
        try:
            await super().setup()
        except InputError as error:
            raise AppImportError(f"crawler: {error}") from None
