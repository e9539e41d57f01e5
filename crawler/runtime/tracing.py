"""Spans for OpenTelemetry (https://opentelemetry.io), if it is installed: one per request and one per Task.

The embedding application or `opentelemetry-instrument` decides where spans go. They carry the templates of routes and
no messages of exceptions, because paths, queries and messages may hold secrets.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from crawler.core.options import VERSION
from crawler.runtime.logs import add_log_fields

try:
    from opentelemetry import propagate, trace
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, SpanKind, StatusCode
except ImportError:
    _IS_INSTALLED = False
else:
    _IS_INSTALLED = True
    _TRACER = trace.get_tracer("crawler", VERSION)

__all__ = ["mark_span_failed", "request_span", "task_span"]


@contextmanager
def request_span(method: str, route: str, headers: Mapping[str, str]) -> Iterator[Callable[[int], None]]:
    """Open the span of a request, in the trace of its client or of the embedding application.

    Args:
        method: The method of the request.
        route: The template of its path; empty if no route matches.
        headers: The headers of the request; they may name its trace.

    Yields:
        A function that takes the status of the response.
    """
    if not _IS_INSTALLED:
        yield lambda status: None
        return
    has_parent = trace.get_current_span().get_span_context().is_valid
    attributes = {"http.request.method": method, **({"http.route": route} if route else {})}
    with _TRACER.start_as_current_span(
        f"{method} {route}".rstrip(),
        None if has_parent else propagate.extract(headers),
        SpanKind.SERVER,
        attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:

        def record_status(status: int) -> None:
            span.set_attribute("http.response.status_code", status)
            if status >= 500:
                mark_span_failed()

        _log_trace_id(span)
        yield record_status


@contextmanager
def task_span(task_id: str) -> Iterator[None]:
    """Open the span of the work on a Task: a trace of its own that links to the request, which it outlives."""
    if not _IS_INSTALLED:
        yield
        return
    request = trace.get_current_span().get_span_context()
    with _TRACER.start_as_current_span(
        "task",
        Context(),
        attributes={"crawler.task.id": task_id},
        links=[Link(request)] if request.is_valid else None,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        _log_trace_id(span)
        yield


def mark_span_failed() -> None:
    """Mark the current span as failed by an error of ours."""
    if _IS_INSTALLED:
        trace.get_current_span().set_status(StatusCode.ERROR)


def _log_trace_id(span: "trace.Span") -> None:
    """Add the id of the trace to log lines, if there is one."""
    context = span.get_span_context()
    if context.is_valid:
        add_log_fields(trace=trace.format_trace_id(context.trace_id))
