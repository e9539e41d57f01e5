"""The commands that talk to a running service: submit, watch, results, cancel, tasks."""

import os
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn, TypeAlias

import msgspec
import typer

from crawler.cli.console import (
    INTERRUPTED,
    OK,
    SOME_NOT_OK,
    exit_on_errors,
    has_terminal,
    open_standard_output,
    print_message,
    progress_bar,
    run,
)
from crawler.cli.flags import SomeFields, with_flags
from crawler.cli.output import OutputChoice, flushed_each_second, open_results, open_writer
from crawler.cli.parameters import (
    ColumnOption,
    DelimiterOption,
    FileOption,
    InputOption,
    OutputFormatOption,
    OutputOption,
    UrlsArgument,
    choose_sources,
)
from crawler.cli.upload import open_upload
from crawler.core.environment import values_of, variables_of
from crawler.core.error_types import ERROR_TYPES
from crawler.core.errors import InputError
from crawler.core.options import Options
from crawler.core.results import Outcome, ProbeResult
from crawler.core.service_options import ServiceOptions
from crawler.core.task_options import TASK_OPTIONS
from crawler.core.tasks import Counts, ResultFilter, Status
from crawler.core.urls import parse_host
from crawler.registry import passes_filter

if TYPE_CHECKING:
    from crawler.cli.client import ServiceClient
    from crawler.core.task_summary import Summary

__all__ = ["COMMANDS"]

_DEFAULT_URL: Final = f"http://{ServiceOptions().host}:{ServiceOptions().port}"
_TOKENS: Final = next(variable for variable in variables_of(ServiceOptions) if variable.field == "tokens")

ServiceOption: TypeAlias = Annotated[
    str, typer.Option("--url", envvar="CRAWLER_URL", metavar="URL", help="URL of the service.")
]
TaskArgument: TypeAlias = Annotated[str, typer.Argument(metavar="ID", help="Id of the Task.")]


@with_flags(choices=SomeFields(Options, TASK_OPTIONS))
def submit(
    choices: dict[str, Any],
    urls: UrlsArgument = None,
    file: FileOption = None,
    input_: InputOption = "auto",
    column: ColumnOption = None,
    delimiter: DelimiterOption = None,
    label: Annotated[
        str | None, typer.Option("--label", metavar="TEXT", help="Name of the Task, to find it by.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Follow the Task until it ends, as the command watch does.")
    ] = False,
    url: ServiceOption = _DEFAULT_URL,
) -> None:
    """Submit URLs to a running service as a Task, and print the Task's id.

    The service's values apply to options that are not given.
    """
    sources = choose_sources(urls, file, input_, column, delimiter)
    query = {name: _option_text(value) for name, value in choices.items()}
    if label is not None:
        query["label"] = label

    async def send() -> "Summary":
        async with _client(url) as client:
            return await client.submit(open_upload(sources), query)

    with exit_on_errors():
        task = run(send())
        print(task.id, flush=True)
    if watch:
        _watch(url, task.id)
    if has_terminal():
        option = "" if url == os.environ.get("CRAWLER_URL", _DEFAULT_URL) else f" --url {url}"
        print_message(
            f"crawler watch{option} {task.id} follows it, crawler results{option} {task.id} prints its results."
        )


def watch(task_id: TaskArgument, url: ServiceOption = _DEFAULT_URL) -> None:
    """Follow a Task until it ends; Ctrl-C ends the command, not the Task.

    Exit code: 0 if all URLs are ok, 1 if some are not, 2 for usage or an unknown Task, 130 on Ctrl-C, 143 on SIGTERM.
    """
    _watch(url, task_id)


def results(
    task_id: TaskArgument,
    format_: OutputFormatOption = None,
    output: OutputOption = None,
    outcome: Annotated[Outcome | None, typer.Option("--outcome", help="Only results with this outcome.")] = None,
    http_status: Annotated[
        int | None, typer.Option("--status", metavar="STATUS", help="Only results with this HTTP status.")
    ] = None,
    error: Annotated[
        str | None, typer.Option("--error", metavar="TYPE", help="Only results with this error type.")
    ] = None,
    host_: Annotated[str | None, typer.Option("--host", metavar="HOST", help="Only URLs of this host.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Print further results until the Task ends.")] = False,
    url: ServiceOption = _DEFAULT_URL,
) -> None:
    """Print the results of a Task, in the order in which they were found.

    Exit code: 0 when they are printed, 2 for usage or an unknown Task, 130 on Ctrl-C, 143 on SIGTERM.
    """
    if error is not None and error not in ERROR_TYPES:
        raise typer.BadParameter("unknown error type", param_hint="--error")
    choice = OutputChoice.of(output, format_)
    wanted = ResultFilter(
        outcome=outcome, status=http_status, error=error, host=None if host_ is None else _parse_host(host_)
    )

    async def write() -> None:
        async with _client(url) as client:
            await client.task(task_id)  # raises for an unknown Task before a file is overwritten
            counts = Counts()
            with open_results(choice, counts) as stream, open_writer(choice, stream, counts, None) as writer:
                found = _follow_results(client, task_id, wanted) if follow else client.results(task_id, wanted)
                async with flushed_each_second(stream), aclosing(found):
                    async for result in found:
                        writer.write(result)
                        counts.add(result.outcome)

    with exit_on_errors(choice.path):
        run(write())


def cancel(
    task_id: TaskArgument,
    delete: Annotated[bool, typer.Option("--delete", help="Delete the Task too, with its results.")] = False,
    url: ServiceOption = _DEFAULT_URL,
) -> None:
    """Stop a Task and keep its results."""

    async def stop() -> "Summary | None":
        async with _client(url) as client:
            if not delete:
                return await client.cancel(task_id)
            await client.delete(task_id)
            return None

    with exit_on_errors():
        task = run(stop())
    if task is not None:
        _print_state(task)


def tasks(
    status: Annotated[Status | None, typer.Option("--status", help="Only Tasks with this status.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, metavar="N", help="Maximum number of Tasks.")] = 100,
    url: ServiceOption = _DEFAULT_URL,
) -> None:
    """List Tasks, newest first: a table on a terminal, else a JSON object a line."""

    async def show() -> None:
        async with _client(url) as client:
            found = client.tasks(status, limit)
            with open_standard_output() as stream:
                if stream.isatty():
                    from crawler.cli.tables import print_tasks
                    from crawler.core.task_summary import Summary

                    print_tasks([msgspec.convert(task, Summary) async for task in found], stream)
                else:
                    async for task in found:
                        stream.write(msgspec.json.encode(task).decode() + "\n")

    with exit_on_errors():
        run(show())


COMMANDS: Final[tuple[Callable[..., Any], ...]] = (submit, watch, results, cancel, tasks)


def _client(url: str) -> "ServiceClient":
    from crawler.cli.client import ServiceClient

    tokens = values_of(_TOKENS)  # each as the service reads it, NAME:SCOPE:SECRET, or the secret alone
    return ServiceClient(url, tokens[0].rpartition(":")[2] if tokens else None)


def _option_text(value: Any) -> str:
    """Format an option for a query string, with a line for each of several values."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "\n".join(f"{name}: {text}" for name, text in value.items())
    return "\n".join(value) if isinstance(value, list) else str(value)


def _watch(url: str, task_id: str) -> NoReturn:
    """Follow a Task to its end, then end the command with its exit code."""

    async def follow() -> "Summary":
        from crawler.core.task_summary import Progress, Summary

        async with _client(url) as client:
            task = await client.task(task_id)
            if task.status != "running":
                return task
            with progress_bar(task.counts, task.total):
                async with aclosing(client.events(task_id, results=False)) as events:
                    async for event in events:
                        if isinstance(event, Progress):
                            _update(task.counts, event.counts)
                        if isinstance(event, Summary):
                            task = event
            return task

    try:
        with exit_on_errors():
            task = run(follow())
    except KeyboardInterrupt:
        print_message(f"crawler: Task {task_id} keeps running")
        raise typer.Exit(INTERRUPTED) from None
    _print_state(task)
    raise typer.Exit(OK if task.is_all_ok else SOME_NOT_OK)


def _print_state(task: "Summary") -> None:
    from crawler.cli.task_description import describe_task

    print_message(describe_task(task))


def _update(counts: Counts, new: Counts) -> None:
    for outcome, number in new.by_outcome():
        setattr(counts, outcome, number)


async def _follow_results(
    client: "ServiceClient", task_id: str, wanted: ResultFilter
) -> AsyncGenerator[ProbeResult, None]:
    async with aclosing(client.events(task_id, results=True)) as events:
        async for event in events:
            if isinstance(event, ProbeResult) and passes_filter(event, wanted):
                yield event


def _parse_host(text: str) -> str:
    try:
        return parse_host(text)
    except InputError as error:
        raise typer.BadParameter(error.message, param_hint="--host") from None
