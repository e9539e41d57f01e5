"""The versioned API: everything under `/api/v1`, its documentation, and what watches the service."""

from typing import Final

from aiohttp import web

from crawler.server.api import events, monitoring, openapi, probe, results, submit, swagger_ui, task_view, tasks

__all__ = ["ROUTES"]

_TASKS: Final = "/api/v1/tasks"
_TASK: Final = _TASKS + "/{task_id}"

ROUTES: Final = [
    web.post(_TASKS, submit.submit),
    web.get(_TASKS, tasks.tasks, name=task_view.ROOT),
    web.get(_TASK, tasks.task),
    web.delete(_TASK, tasks.delete),
    web.get(_TASK + "/results", results.results),
    web.get(_TASK + "/events", events.events),
    web.post(_TASK + "/cancel", tasks.cancel),
    web.post(_TASK + "/recheck", submit.recheck),
    web.get("/api/v1/probe", probe.probe),
    web.get("/healthz", monitoring.healthz),
    web.get("/readyz", monitoring.readyz),
    web.get("/metrics", monitoring.metrics),
    web.get("/openapi.json", openapi.openapi),
    web.get("/docs", swagger_ui.page),
    web.get("/docs/{name}", swagger_ui.file),
]
