"""Tasks as the API shows them: their summary, progress and path."""

from typing import Any

from aiohttp import web

from crawler.core.options import Options
from crawler.core.task_options import task_options
from crawler.core.task_summary import Links, Progress, Summary, WebhookState
from crawler.core.tasks import Task, Webhook
from crawler.server.app_keys import TASK_MANAGER
from crawler.server.http.routing import TASKS_ROUTE
from crawler.server.middleware.proxy_headers import path_prefix

__all__ = ["progress_of", "summary_of", "task_path"]


def task_path(request: web.Request, task: Task) -> str:
    """Return the path of a Task as the client sees it, with those of a mount and of a proxy."""
    return f"{path_prefix(request)}{request.app.router[TASKS_ROUTE].url_for()}/{task.id}"


def progress_of(request: web.Request, task: Task) -> Progress:
    """Return the progress of a Task."""
    done, rate = task.counts.done, request.app[TASK_MANAGER].rate(task)
    eta = (task.total - done) / rate if rate and task.status == "running" else None
    return Progress(
        status=task.status,
        total=task.total,
        done=done,
        counts=task.counts,
        rate=rate and round(rate, 1),
        eta=eta and round(eta, 1),
    )


def summary_of(request: web.Request, task: Task) -> Summary:
    """Return the summary of a Task now."""
    progress = progress_of(request, task)
    path = task_path(request, task)
    return Summary(
        id=task.id,
        label=task.label,
        status=task.status,
        detail=task.detail,
        created=task.created,
        finished=task.finished,
        total=progress.total,
        counts=progress.counts,
        done=progress.done,
        rate=progress.rate,
        eta=progress.eta,
        options=_shown_options(task.options),
        webhook=_webhook_state(task.webhook),
        links=Links(path, f"{path}/results", f"{path}/events", f"{path}/cancel", f"{path}/recheck"),
    )


def _webhook_state(webhook: Webhook | None) -> WebhookState | None:
    if webhook is None:
        return None
    return WebhookState(webhook.status, webhook.attempts, webhook.due, webhook.last)  # not the URL, nor the secret


def _shown_options(options: Options) -> dict[str, Any]:
    """Return the options of a Task without the values of headers, which may be passwords."""
    return task_options(options) | {"headers": dict.fromkeys(options.headers, "...")}
