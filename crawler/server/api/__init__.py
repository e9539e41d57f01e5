"""The versioned API under `/api/v1`, its documentation, and the operations that monitor the service.

From outside, `ROUTES` and `OPERATIONS` are imported, and `openapi` for the document.

    ROUTES: handlers by path
      submit, tasks, results, events, probe, monitoring    handlers, one module for each kind of operation
      openapi, swagger_ui      the OpenAPI document and its page
    OPERATIONS: what each operation accepts and replies
      operations               the table
      examples                 examples for it
    shared by handlers
      params                   queries and headers, validated
      content_negotiation      the choice of a media type
      task_view                Tasks as summaries (`core.task_summary`)
      json_schema              schemas of the records below
      operation                how an operation is described
      schemas                  bodies, responses and queries, as records
"""

from typing import Final

from aiohttp import web

from crawler.server.api import events, monitoring, openapi, probe, results, submit, swagger_ui, tasks
from crawler.server.api.operations import OPERATIONS
from crawler.server.http.routing import TASKS_ROUTE

__all__ = ["OPERATIONS", "ROUTES"]

_TASKS: Final = "/api/v1/tasks"
_TASK: Final = _TASKS + "/{task_id}"

ROUTES: Final = [
    web.post(_TASKS, submit.submit),
    web.get(_TASKS, tasks.show_tasks, name=TASKS_ROUTE),
    web.get(_TASK, tasks.show_task),
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
