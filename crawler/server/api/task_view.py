"""Tasks as the API shows them."""

from typing import Any, Final

from aiohttp import web

from crawler.core.options import Options, task_options
from crawler.core.task_summary import Links, Progress, Summary, WebhookState
from crawler.core.tasks import Task, Webhook
from crawler.server.middleware.proxy_headers import prefix
from crawler.server.task_manager import TASK_MANAGER, TaskManager

__all__ = ["ROOT", "location", "progress_of", "summary_of"]

ROOT: Final = "tasks"  # the name of the route of all Tasks


def location(request: web.Request, task: Task) -> str:
    """Where the Task is, also if this application is mounted under another, or shown by a proxy."""
    return f"{prefix(request, request.app[TASK_MANAGER].service)}{request.app.router[ROOT].url_for()}/{task.id}"


def progress_of(state: TaskManager, task: Task) -> Progress:
    """How far the Task is now."""
    done, rate = task.counts.done, state.rate(task)
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
    """The Task as it is now."""
    progress = progress_of(request.app[TASK_MANAGER], task)
    here = location(request, task)
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
        options=_shown(task.options),
        webhook=_webhook_state(task.webhook),
        links=Links(here, f"{here}/results", f"{here}/events", f"{here}/cancel", f"{here}/recheck"),
    )


def _webhook_state(webhook: Webhook | None) -> WebhookState | None:
    """How it is, without its secret."""
    if webhook is None:
        return None
    return WebhookState(webhook.status, webhook.attempts, webhook.due, webhook.last)


def _shown(options: Options) -> dict[str, Any]:
    """What a Task chose. The values of its headers may be passwords, so they stay with it."""
    return task_options(options) | {"headers": dict.fromkeys(options.headers, "...")}
