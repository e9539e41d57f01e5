"""Spans for OpenTelemetry. Who gets them is set up once in a process, so each test has one of its own."""

import asyncio
import json
import sys
from typing import Any

from tests.support.commands import environment

Span = dict[str, Any]

PROGRAM = """
import asyncio, io, json, logging, sys
import crawler
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from crawler.runtime.logs import JsonFormatter

STREAM = io.StringIO()
HANDLER = logging.StreamHandler(STREAM)
HANDLER.setFormatter(JsonFormatter())
logging.getLogger("crawler").addHandler(HANDLER)
logging.getLogger("crawler").setLevel(logging.INFO)

class Broken(crawler.MemoryRegistry):
    async def record(self, *_):
        raise RuntimeError("PLANTED")

async def asked(client, method, path, **more):
    async with client.request(method, path, **more) as response:
        await response.read()
        return await response.json() if response.content_type == "application/json" else None

async def ended(client, registry):
    task = (await asked(client, "POST", "/submit", json={"urls": ["no url"]}))["task_id"]
    while registry.task(task).status == "running":
        await registry.wait_for_change(task)
    return task
"""

WITH_SPANS = (
    PROGRAM
    + """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

EXPORTER = InMemorySpanExporter()
PROVIDER = TracerProvider()
PROVIDER.add_span_processor(SimpleSpanProcessor(EXPORTER))
trace.set_tracer_provider(PROVIDER)

def told(span):
    return {
        "name": span.name, "kind": span.kind.name, "status": span.status.status_code.name,
        "attributes": dict(span.attributes), "trace": trace.format_trace_id(span.context.trace_id),
        "id": trace.format_span_id(span.context.span_id), "events": len(span.events),
        "parent": span.parent and trace.format_span_id(span.parent.span_id),
        "links": [trace.format_span_id(link.context.span_id) for link in span.links], "whole": span.to_json(),
    }

async def main():
    await asyncio.wait_for(work(), 30)
    lines = [json.loads(line) for line in STREAM.getvalue().splitlines()]
    print(json.dumps([[told(span) for span in EXPORTER.get_finished_spans()], lines]))
"""
)


async def printed(program: str) -> Any:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE, env=environment()
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return json.loads(out)


async def spans_of(work: str) -> tuple[list[Span], list[dict[str, Any]]]:
    """What a program that does this work has exported, and logged."""
    spans, lines = await printed(f"{WITH_SPANS}\n{work}\nasyncio.run(main())")
    return spans, lines


async def test_requests_and_tasks_have_spans() -> None:
    spans, lines = await spans_of("""
async def work():
    registry = crawler.MemoryRegistry()
    async with TestClient(TestServer(crawler.create_app(registry=registry))) as client:
        task = await ended(client, registry)
        parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        await asked(client, "GET", f"/tasks/{task}?key=PLANTED", headers={"traceparent": parent})
        await asked(client, "GET", "/PLANTED?key=PLANTED")
        await asked(client, "PROPFIND", "/tasks")
""")
    by_name = {span["name"]: span for span in spans}
    assert sorted(by_name) == ["GET", "GET /tasks/{task_id}", "POST /submit", "_OTHER", "task"]
    submit, task, read = by_name["POST /submit"], by_name["task"], by_name["GET /tasks/{task_id}"]
    assert (submit["kind"], submit["status"], submit["parent"]) == ("SERVER", "UNSET", None)
    assert submit["attributes"] == {
        "http.request.method": "POST",
        "http.route": "/submit",
        "http.response.status_code": 200,
    }
    assert (task["kind"], task["status"], task["parent"], task["links"]) == ("INTERNAL", "UNSET", None, [submit["id"]])
    assert task["trace"] != submit["trace"]
    assert (read["trace"], read["parent"]) == ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
    assert by_name["GET"]["attributes"] == {"http.request.method": "GET", "http.response.status_code": 404}
    assert "PLANTED" not in str(spans)
    (ready,) = [line for line in lines if line["logger"] == "crawler.worker"]
    assert (ready["task"], ready["trace"]) == (task["attributes"]["crawler.task.id"], task["trace"])
    assert [line["trace"] for line in lines if line.get("route") == "/submit"] == [submit["trace"]]


async def test_faults_of_ours_are_told_and_their_messages_are_not() -> None:
    spans, _ = await spans_of("""
async def work():
    registry = Broken()
    app = crawler.create_app(registry=registry)
    async def fails(request):
        raise RuntimeError("PLANTED")
    app.router.add_get("/fails", fails)
    async with TestClient(TestServer(app)) as client:
        await ended(client, registry)
        await asked(client, "GET", "/fails")
""")
    by_name = {span["name"]: span for span in spans}
    assert {name: span["status"] for name, span in by_name.items()} == {
        "POST /submit": "UNSET",
        "task": "ERROR",
        "GET /fails": "ERROR",
    }
    assert by_name["GET /fails"]["attributes"]["http.response.status_code"] == 500
    assert "PLANTED" not in str(spans)


async def test_an_application_around_it_has_its_trace() -> None:
    spans, _ = await spans_of("""
@web.middleware
async def around(request, handler):
    with trace.get_tracer("host").start_as_current_span("host"):
        return await handler(request)

async def work():
    root = web.Application(middlewares=[around])
    root.add_subapp("/crawler", crawler.create_app())
    async with TestClient(TestServer(root)) as client:
        parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        await asked(client, "GET", "/crawler/tasks", headers={"traceparent": parent})
""")
    inner, host = spans
    assert (inner["name"], inner["parent"], inner["trace"]) == ("GET /tasks", host["id"], host["trace"])


async def test_all_works_where_it_is_not_installed() -> None:
    lines = await printed(f"""
import sys
sys.modules["opentelemetry"] = None
{PROGRAM}
async def main():
    for registry in (crawler.MemoryRegistry(), Broken()):
        async with TestClient(TestServer(crawler.create_app(registry=registry))) as client:
            await ended(client, registry)
    print(json.dumps([json.loads(line) for line in STREAM.getvalue().splitlines()]))

asyncio.run(asyncio.wait_for(main(), 30))
""")
    assert len(lines) == 4
    assert not [line for line in lines if "trace" in line]
