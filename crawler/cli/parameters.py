"""Arguments and flags that several commands share, as types for their signatures."""

from pathlib import Path
from typing import Annotated, Final, TypeAlias, get_args

import typer

from crawler.cli.url_files import FORMAT_CHOICES, FormatChoice
from crawler.core.error_types import ERROR_TYPES
from crawler.core.results import Outcome
from crawler.formats.result_writers import Color, ResultFormat

__all__ = [
    "AppendOption",
    "ColorOption",
    "ColumnOption",
    "FileOption",
    "InputOption",
    "NoProgressOption",
    "OnlyOption",
    "OutputFormatOption",
    "OutputOption",
    "QuietOption",
    "ResumeOption",
    "UrlsArgument",
    "require_urls",
]


_LIST: Final = "The list"
_OUTPUT: Final = "Output"


def _check_kinds(kinds: list[str] | None) -> list[str]:
    known = ["bad", *get_args(Outcome)]
    for kind in kinds or []:
        if kind not in known and kind not in ERROR_TYPES:
            raise typer.BadParameter(f"{kind!r} is none of {', '.join(known)}, and no error type (docs/errors.md)")
    return kinds or []


UrlsArgument: TypeAlias = Annotated[list[str] | None, typer.Argument(metavar="URL...", help="URLs to probe.")]
FileOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--file", "-f", metavar="FILE", help="Read URLs from a file; - is stdin.", rich_help_panel=_LIST),
]
InputOption: TypeAlias = Annotated[
    FormatChoice,
    typer.Option(
        "--input",
        envvar="CRAWLER_INPUT",
        metavar="|".join(FORMAT_CHOICES),
        help="Format of the file, which may be compressed with gzip. auto: by the file name, else text, a URL a line.",
        rich_help_panel=_LIST,
    ),
]
ColumnOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--column",
        envvar="CRAWLER_COLUMN",
        metavar="NAME",
        help="Where the URL is: a column of CSV by name or number, or a key of NDJSON. Default: url.",
        rich_help_panel=_LIST,
    ),
]
OutputFormatOption: TypeAlias = Annotated[
    ResultFormat | None,
    typer.Option(
        "--format", envvar="CRAWLER_FORMAT", help="Default: table on a terminal, else ndjson.", rich_help_panel=_OUTPUT
    ),
]
OutputOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Write results to a file, CSV if it is named so; - is stdout. "
        "They stand in FILE.part until all are there.",
        rich_help_panel=_OUTPUT,
    ),
]
AppendOption: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--append", help="Add the results to the file of --output, and keep those in it.", rich_help_panel=_OUTPUT
    ),
]
ResumeOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--resume",
        metavar="FILE",
        help="Go on with a run that was stopped: probe the lines that have no result in FILE, and add theirs.",
        rich_help_panel=_OUTPUT,
    ),
]
OnlyOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="bad|KIND",
        callback=_check_kinds,
        help="Write only the bad results, all but ok, or those of an outcome or error type; repeatable.",
        rich_help_panel=_OUTPUT,
    ),
]
ColorOption: TypeAlias = Annotated[
    Color,
    typer.Option(
        "--color",
        envvar="CRAWLER_COLOR",
        help="Colours; auto is on a terminal, without NO_COLOR.",
        rich_help_panel=_OUTPUT,
    ),
]
QuietOption: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", help="Print results and errors alone: no progress bar, no summary.", rich_help_panel=_OUTPUT
    ),
]
NoProgressOption: TypeAlias = Annotated[
    bool, typer.Option("--no-progress", help="Show no progress bar.", rich_help_panel=_OUTPUT)
]


def require_urls(urls: list[str] | None, file: str | None) -> None:
    """Refuse a command without URLs and without a file.

    Raises:
        BadParameter: Both are missing.
    """
    if not urls and file is None:
        raise typer.BadParameter("name URLs, or a file of them with --file", param_hint="URL")
