"""The commands that are clients of a running service: submit, watch, results, cancel, tasks."""

import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn, TypeAlias

import msgspec
import typer

from crawler.cli.console import (
    INTERRUPTED,
    OK,
    SOME_NOT_OK,
    Column,
    File,
    Input,
    Output,
    Shape,
    Urls,
    check_given,
    ended_well,
    lines_of,
    opened,
    progress,
    run,
    tell,
)
from crawler.cli.flags import SomeFields, takes
from crawler.cli.url_files import Choice, format_of
from crawler.core.environment import values_of, variables_of
from crawler.core.errors import ERROR_TYPES, InputError
from crawler.core.options import TASK_OPTIONS, Options
from crawler.core.results import Outcome, ProbeResult
from crawler.core.service_options import ServiceOptions
from crawler.core.tasks import Counts, ResultFilter, Status
from crawler.core.urls import Line, parse_host
from crawler.formats.result_writers import open_writer
from crawler.registry import is_wanted

if TYPE_CHECKING:
    from crawler.cli.client import ListUpload, ServiceClient
    from crawler.core.task_summary import Summary

__all__ = ["COMMANDS"]

_URL: Final = f"http://{ServiceOptions().host}:{ServiceOptions().port}"
_PIECE: Final = 64 * 1024
_TOKENS: Final = next(variable for variable in variables_of(ServiceOptions) if variable.field == "tokens")

Service: TypeAlias = Annotated[
    str, typer.Option("--url", envvar="CRAWLER_URL", metavar="URL", help="Where the service is.")
]
TaskId: TypeAlias = Annotated[str, typer.Argument(metavar="ID", help="The task's id.")]


@takes(choices=SomeFields(Options, TASK_OPTIONS))
def submit(
    choices: dict[str, Any],
    urls: Urls = None,
    file: File = None,
    input_: Input = "auto",
    column: Column = None,
    label: Annotated[
        str | None, typer.Option("--label", metavar="TEXT", help="A name for the task, to find it by.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Then follow it to its end, as the command watch does.")
    ] = False,
    url: Service = _URL,
) -> None:
    """Submit URLs to a running service as a task, and print the task's id.

    Options that are not given are as the service has them.
    """
    check_given(urls, file)
    query = {name: _as_text(value) for name, value in choices.items()}
    if label is not None:
        query["label"] = label

    async def send() -> "Summary":
        async with _client(url) as client:
            return await client.submit(_upload(urls or [], file, input_, column), query)

    with ended_well():
        task = run(send())
        print(task.id, flush=True)
    if watch:
        _watch(url, task.id)
    if sys.stderr is not None and sys.stderr.isatty():
        there = "" if url == os.environ.get("CRAWLER_URL", _URL) else f" --url {url}"
        tell(f"crawler watch{there} {task.id} follows it, crawler results{there} {task.id} shows what it finds.")


def watch(task_id: TaskId, url: Service = _URL) -> None:
    """Follow a task to its end; Ctrl-C stops following it, not the task.

    Exit code: 0 if all is ok, 1 if some is not, 2 for usage or an unknown task, 130 on Ctrl-C, 143 on SIGTERM.
    """
    _watch(url, task_id)


def results(
    task_id: TaskId,
    format_: Shape = None,
    output: Output = None,
    outcome: Annotated[Outcome | None, typer.Option("--outcome", help="Only results with this outcome.")] = None,
    http_status: Annotated[
        int | None, typer.Option("--status", metavar="STATUS", help="Only results with this HTTP status.")
    ] = None,
    error: Annotated[
        str | None, typer.Option("--error", metavar="TYPE", help="Only results with this error type.")
    ] = None,
    host_: Annotated[str | None, typer.Option("--host", metavar="HOST", help="Only URLs of this host.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the task has ended.")] = False,
    url: Service = _URL,
) -> None:
    """Print the results of a task, in the order in which they were found.

    Exit code: 0 once they are printed, 2 for usage or an unknown task, 130 on Ctrl-C, 143 on SIGTERM.
    """
    if error is not None and error not in ERROR_TYPES:
        raise typer.BadParameter("there is no such error type", param_hint="--error")
    where = ResultFilter(outcome=outcome, status=http_status, error=error, host=None if host_ is None else _host(host_))

    async def write() -> None:
        async with _client(url) as client:
            await client.task(task_id)  # for an unknown one, no file is touched
            with opened(output) as stream:
                writer = open_writer(format_ or ("table" if stream.isatty() else "ndjson"), stream)
                found = _followed(client, task_id, where) if follow else client.results(task_id, where)
                async with aclosing(found):
                    async for result in found:
                        writer.write(result)

    with ended_well(output):
        run(write())


def cancel(
    task_id: TaskId,
    delete: Annotated[bool, typer.Option("--delete", help="Forget it too, with its results.")] = False,
    url: Service = _URL,
) -> None:
    """Stop a task; the results that it has stay."""

    async def stop() -> "Summary | None":
        async with _client(url) as client:
            if not delete:
                return await client.cancel(task_id)
            await client.delete(task_id)
            return None

    with ended_well():
        task = run(stop())
    if task is not None:
        _tell_state(task)


def tasks(
    status: Annotated[Status | None, typer.Option("--status", help="Only tasks with this status.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, metavar="N", help="How many at most.")] = 100,
    url: Service = _URL,
) -> None:
    """List tasks, newest first: a table on a terminal, else a JSON object a line."""

    async def show() -> None:
        async with _client(url) as client:
            found = client.tasks(status, limit)
            with opened(None) as stream:
                if stream.isatty():
                    from crawler.cli.tables import print_tasks
                    from crawler.core.task_summary import Summary

                    print_tasks([msgspec.convert(task, Summary) async for task in found], stream)
                else:
                    async for task in found:
                        stream.write(msgspec.json.encode(task).decode() + "\n")

    with ended_well():
        run(show())


COMMANDS: Final[tuple[Callable[..., Any], ...]] = (submit, watch, results, cancel, tasks)


def _client(url: str) -> "ServiceClient":
    from crawler.cli.client import ServiceClient  # with aiohttp's client, which only these commands need

    tokens = values_of(_TOKENS)
    return ServiceClient(
        url, tokens[0].rpartition(":")[2] if tokens else None
    )  # spelt as for the service, or the secret alone


# --- What is submitted ---


def _as_text(value: Any) -> str:
    """An option as a query has it: several values are a line each."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "\n".join(f"{name}: {text}" for name, text in value.items())
    return "\n".join(value) if isinstance(value, list) else str(value)


def _upload(urls: Sequence[str], file: str | None, input_: Choice, column: str | None) -> "ListUpload":
    from crawler.cli.client import ListUpload

    # In a text no URL is empty or has a line feed in it. In other formats one can be like that, and has its result too.
    is_text = file is None or format_of(file, input_) == "text"
    encode, kind = _in_json, "application/x-ndjson"
    if is_text and all(url == url.strip() != "" and "\n" not in url for url in urls):
        encode, kind = _in_text, "text/plain"
    repeats = file is None or (file != "-" and Path(file).is_file())
    return ListUpload(kind, lambda: _pieces(lines_of(urls, file, input_, column), encode), repeats=repeats)


async def _pieces(lines: AsyncGenerator[Line, None], encode: Callable[[Line], bytes]) -> AsyncIterator[bytes]:
    piece = bytearray()
    async with aclosing(lines):
        async for line in lines:
            piece += encode(line)
            piece += b"\n"
            if len(piece) > _PIECE:
                yield bytes(piece)
                piece.clear()
    yield bytes(piece)


def _in_text(line: Line) -> bytes:
    return line.encode() if isinstance(line, str) else line


def _in_json(line: Line) -> bytes:
    try:
        return msgspec.json.encode(line if isinstance(line, str) else line.decode())
    except UnicodeDecodeError:
        raise InputError("is not UTF-8, and can be submitted in a list of plain text only", repr(line)) from None


# --- What a task does ---


def _watch(url: str, task_id: str) -> NoReturn:
    """Follow a Task to its end, and end the command."""

    async def follow() -> "Summary":
        from crawler.core.task_summary import Progress, Summary

        async with _client(url) as client:
            task = await client.task(task_id)
            if task.status != "running":
                return task
            with progress(task.counts, task.total):
                async with aclosing(client.events(task_id, results=False)) as events:
                    async for event in events:
                        if isinstance(event, Progress):
                            _update(task.counts, event.counts)
                        if isinstance(event, Summary):
                            task = event
            return task

    try:
        with ended_well():
            task = run(follow())
    except KeyboardInterrupt:
        tell(f"crawler: task {task_id} goes on, unwatched")
        raise typer.Exit(INTERRUPTED) from None
    _tell_state(task)
    raise typer.Exit(OK if task.is_all_ok else SOME_NOT_OK)


def _tell_state(task: "Summary") -> None:
    from crawler.cli.task_summary import describe_task  # with rich, which takes long to import

    tell(describe_task(task))


def _update(counts: Counts, new: Counts) -> None:
    for outcome, number in new.by_outcome():
        setattr(counts, outcome, number)


async def _followed(client: "ServiceClient", task_id: str, where: ResultFilter) -> AsyncGenerator[ProbeResult, None]:
    async with aclosing(client.events(task_id, results=True)) as events:
        async for event in events:
            if isinstance(event, ProbeResult) and is_wanted(event, where):
                yield event


def _host(text: str) -> str:
    try:
        return parse_host(text)
    except InputError as error:
        raise typer.BadParameter(error.message, param_hint="--host") from None
