"""Arguments and flags that several commands share, as types for their signatures."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from crawler.cli.url_files import FORMAT_CHOICES, FormatChoice
from crawler.formats.result_writers import ResultFormat

__all__ = [
    "ColumnOption",
    "FileOption",
    "InputOption",
    "OutputFormatOption",
    "OutputOption",
    "UrlsArgument",
    "require_urls",
]

UrlsArgument: TypeAlias = Annotated[list[str] | None, typer.Argument(metavar="URL...", help="URLs to probe.")]
FileOption: TypeAlias = Annotated[
    str | None, typer.Option("--file", "-f", metavar="FILE", help="Read URLs from a file; - is stdin.")
]
InputOption: TypeAlias = Annotated[
    FormatChoice,
    typer.Option(
        "--input",
        envvar="CRAWLER_INPUT",
        metavar="|".join(FORMAT_CHOICES),
        help="Format of the file, which may be compressed with gzip. auto: by the file name, else text, a URL a line.",
    ),
]
ColumnOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--column",
        envvar="CRAWLER_COLUMN",
        metavar="NAME",
        help="Where the URL is: a column of CSV by name or number, or a key of NDJSON. Default: url.",
    ),
]
OutputFormatOption: TypeAlias = Annotated[
    ResultFormat | None,
    typer.Option("--format", envvar="CRAWLER_FORMAT", help="Default: table on a terminal, else ndjson."),
]
OutputOption: TypeAlias = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write results to a file, not to stdout.")
]


def require_urls(urls: list[str] | None, file: str | None) -> None:
    """Refuse a command without URLs and without a file.

    Raises:
        BadParameter: Both are missing.
    """
    if not urls and file is None:
        raise typer.BadParameter("name URLs, or a file of them with --file", param_hint="URL")
