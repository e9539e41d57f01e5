"""The commands for the file of a service: backup and verify."""

from pathlib import Path
from typing import Annotated, Any

import typer

from crawler.cli.console import OK, SOME_NOT_OK, print_message
from crawler.cli.flags import SomeFields, with_flags
from crawler.core.errors import InputError, StoreError
from crawler.core.service_options import ServiceOptions

__all__ = ["backup", "verify"]


@with_flags(service=SomeFields(ServiceOptions, ("registry",)))
def backup(
    service: dict[str, Any],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The copy; it must not exist yet.")],
) -> int:
    """Copy the file of Tasks, also while a service uses it.

    Exit code 1 means that the file is damaged or the copy could not be written; then there is no copy.
    """
    from crawler.compose import sqlite_path  # slow to import: it needs the prober

    if (path := sqlite_path(ServiceOptions.of(service))) is None:
        raise InputError("memory has no file to copy", "--registry")
    from crawler.stores.sqlite.backup import copy_file

    try:
        count = copy_file(path, file)
    except StoreError as error:
        print_message(f"crawler: {error}")
        return SOME_NOT_OK
    print_message(f"{file} has {count} {'Task' if count == 1 else 'Tasks'}.")
    return OK


def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file of Tasks, or a copy of one.")],
) -> int:
    """Check whether a file of Tasks is sound. It may be in use, and is not changed.

    Exit code 1 means that it is damaged.
    """
    from crawler.stores.sqlite.backup import find_damage

    findings = find_damage(file)
    for finding in findings:
        print_message(f"crawler: {file}: {finding}")
    if not findings:
        print_message(f"{file} is sound.")
    return SOME_NOT_OK if findings else OK
