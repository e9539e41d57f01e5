"""Traces for OpenTelemetry (https://opentelemetry.io), if it is installed: a span per request, and one per Task.

Whether they go anywhere is for the application around this one to say, or for `opentelemetry-instrument`. They have the
templates of routes and no messages of exceptions: paths, queries and those may hold secrets.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from crawler.core.options import VERSION
from crawler.runtime.logs import note

try:
    from opentelemetry import propagate, trace
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, SpanKind, StatusCode
except ImportError:
    _IS_THERE = False
else:
    _IS_THERE = True
    _TRACER = trace.get_tracer("crawler", VERSION)

__all__ = ["fail", "request_span", "task_span"]


@contextmanager
def request_span(method: str, route: str, headers: Mapping[str, str]) -> Iterator[Callable[[int], None]]:
    """The span of a request, in the trace that its client or the application around this one has begun.

    Args:
        method: As HTTP knows it.
        route: The template of its path; empty if there is none.
        headers: May say which trace it belongs to.

    Yields:
        What is to be told the status of the answer.
    """
    if not _IS_THERE:
        yield lambda status: None
        return
    is_within = trace.get_current_span().get_span_context().is_valid
    attributes = {"http.request.method": method, **({"http.route": route} if route else {})}
    with _TRACER.start_as_current_span(
        f"{method} {route}".rstrip(),
        None if is_within else propagate.extract(headers),
        SpanKind.SERVER,
        attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:

        def answered(status: int) -> None:
            span.set_attribute("http.response.status_code", status)
            if status >= 500:
                fail()

        _note(span)
        yield answered


@contextmanager
def task_span(task_id: str) -> Iterator[None]:
    """The span of the work on a Task: a trace of its own, for it outlives its request, with a link to that."""
    if not _IS_THERE:
        yield
        return
    begun_by = trace.get_current_span().get_span_context()
    with _TRACER.start_as_current_span(
        "task",
        Context(),
        attributes={"crawler.task.id": task_id},
        links=[Link(begun_by)] if begun_by.is_valid else None,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        _note(span)
        yield


def fail() -> None:
    """Say that what the span here is of has failed on our side."""
    if _IS_THERE:
        trace.get_current_span().set_status(StatusCode.ERROR)


def _note(span: "trace.Span") -> None:
    """Have lines of the log name the trace, if there is one."""
    context = span.get_span_context()
    if context.is_valid:
        note(trace=trace.format_trace_id(context.trace_id))
