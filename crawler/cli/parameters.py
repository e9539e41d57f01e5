"""Arguments and flags that several commands share, as types for their signatures."""

import errno
import os
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias, get_args

import typer

from crawler.cli.url_files import FORMAT_CHOICES, FormatChoice, Sources, has_piped_input, is_file
from crawler.core.error_types import ERROR_TYPES
from crawler.core.errors import InputError
from crawler.core.results import Outcome
from crawler.formats.result_writers import Color, ResultFormat

__all__ = [
    "AppendOption",
    "ColorOption",
    "ColumnOption",
    "DelimiterOption",
    "FileOption",
    "InputOption",
    "NoProgressOption",
    "OnlyOption",
    "OutputFormatOption",
    "OutputOption",
    "QuietOption",
    "ResumeOption",
    "SchemeOption",
    "UrlsArgument",
    "choose_sources",
]


_LIST: Final = "The list"
_OUTPUT: Final = "Output"


def _check_kinds(kinds: list[str] | None) -> list[str]:
    known = ["bad", *get_args(Outcome)]
    for kind in kinds or []:
        if kind not in known and kind not in ERROR_TYPES:
            raise typer.BadParameter(f"{kind!r} is none of {', '.join(known)}, and no error type (docs/errors.md)")
    return kinds or []


UrlsArgument: TypeAlias = Annotated[
    list[str] | None,
    typer.Argument(metavar="URL|FILE...", help="URLs to probe, and files of them; - is stdin, also if it is piped in."),
]
FileOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--file",
        "-f",
        metavar="FILE",
        help="Read URLs from a file, whatever its name; - is stdin.",
        rich_help_panel=_LIST,
    ),
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
DelimiterOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--delimiter",
        metavar="SIGN|tab",
        help="What separates the cells of CSV. Default: found out from the header row.",
        rich_help_panel=_LIST,
    ),
]
SchemeOption: TypeAlias = Annotated[
    Literal["https", "http", "none"],
    typer.Option(
        "--scheme",
        envvar="CRAWLER_SCHEME",
        help="Scheme of lines that have none, such as example.org/path; none: they are invalid.",
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


def choose_sources(
    urls: list[str] | None, file: str | None, choice: FormatChoice, column: str | None, delimiter: str | None
) -> Sources:
    """Return where to read URLs: in arguments, a file, or standard input if it is piped in.

    Raises:
        BadParameter: There is nothing to read.
    """
    arguments = [*(urls or []), *([] if file is None else [file])]
    if not arguments and has_piped_input():
        arguments = ["-"]
    if not arguments:
        raise typer.BadParameter("name URLs or files of them, or pipe them in", param_hint="URL")
    if file is not None and not is_file(file):
        raise InputError(os.strerror(errno.EISDIR if Path(file).is_dir() else errno.ENOENT), file)
    return Sources(arguments, choice, column, delimiter)
