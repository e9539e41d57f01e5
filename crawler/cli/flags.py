"""Make the flags of a command from records of options, so that each option is defined once, in its record.

`@with_flags(options=Options)` gives a command a flag and a `CRAWLER_*` environment variable for each field of the
record, and passes it the validated record as its argument `options`. `@with_flags(choices=SomeFields(Options, names))`
does so for the fields with these names, and passes it a dictionary of those that the user gave.
"""

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, Final, NamedTuple

import typer
from msgspec.inspect import (
    BoolType,
    DictType,
    Field,
    FloatType,
    IntType,
    LiteralType,
    Metadata,
    StrType,
    UnionType,
    VarTupleType,
    type_info,
)

from crawler.core.environment import Variable, values_of, variable_of
from crawler.core.errors import OptionError
from crawler.core.option_syntax import parse_headers
from crawler.core.options import CheckedOptions

__all__ = ["Flag", "SomeFields", "flags_of", "with_flags"]


class Flag(NamedTuple):
    """One option as a user sees it in `--help`."""

    field: str
    names: tuple[str, ...]
    variable: Variable
    default: Any
    help: str
    type: Any
    metavar: str
    panel: str
    is_hidden: bool  # not shown in `--help`: an old name


class SomeFields(NamedTuple):
    """A selection of a record's fields; the command receives only those that the user gave."""

    record: type[CheckedOptions]
    fields: Collection[str]


def flags_of(record: type[CheckedOptions]) -> list[Flag]:
    """Return the flags of a record, in the order of its fields."""
    return [_make_flag(field) for field in type_info(record).fields]  # type: ignore[attr-defined]


def with_flags(**records: type[CheckedOptions] | SomeFields) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Replace parameters of a command by flags.

    Args:
        records: For each parameter, the record whose fields become flags.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(command, eval_str=True)
        flags = {name: _flags_for(record) for name, record in records.items()}

        @functools.wraps(command)
        def run_command(**given: Any) -> Any:
            for name, record in records.items():
                values = {flag.field: given.pop(flag.field) for flag in flags[name]}
                given[name] = _build_argument(record, flags[name], values)
            return command(**given)

        own = [parameter for name, parameter in signature.parameters.items() if name not in records]
        made = [_parameter(flag) for name in records for flag in flags[name]]
        parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in [*own, *made]]
        run_command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run_command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run_command

    return decorate


def _make_flag(field: Field) -> Flag:
    variable, meta = variable_of(field), field.type
    assert isinstance(meta, Metadata)
    shown: dict[str, Any] = meta.extra or {}
    return Flag(
        field=field.name,
        names=variable.flags,
        variable=variable,
        default=() if variable.is_list else field.default,
        help=(meta.extra_json_schema or {})["description"],
        type=meta.type,
        metavar=shown.get("metavar") or _metavar(meta.type),
        panel=shown.get("panel", "Options"),
        is_hidden=shown.get("hidden", False),
    )


def _metavar(type_: Any) -> str:
    if isinstance(type_, LiteralType):
        return "|".join(sorted(map(str, type_.values), key=str.lower))
    return {IntType: "N", FloatType: "SECONDS", BoolType: ""}.get(type(type_), "TEXT")


def _parameter(flag: Flag) -> inspect.Parameter:
    type_hint = _TYPE_HINTS[type(flag.type)] | None if flag.default is None else _TYPE_HINTS[type(flag.type)]
    variable = flag.variable
    if variable.is_list:
        list_variable = f"; {variable.list_name}, between blanks or commas" if variable.list_name else ""
        option = typer.Option(
            *flag.names,
            default_factory=lambda: values_of(variable),
            show_default=False,
            metavar=flag.metavar,
            help=rf"{flag.help} \[env var: {variable.name}, one a line{list_variable}]",
            rich_help_panel=flag.panel,
        )
        return inspect.Parameter(flag.field, inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[list[str], option])
    option = typer.Option(
        *flag.names,
        envvar=variable.name,
        help=flag.help,
        metavar=flag.metavar,
        show_default=flag.default not in (None, False),
        rich_help_panel=flag.panel,
        hidden=flag.is_hidden,
    )
    return inspect.Parameter(
        flag.field, inspect.Parameter.KEYWORD_ONLY, default=flag.default, annotation=Annotated[type_hint, option]
    )


# msgspec validates the values; typer only needs to know how to read one from the command line.
_TYPE_HINTS: Final[dict[type, Any]] = {
    IntType: int,
    FloatType: float,
    BoolType: bool,
    StrType: str,
    LiteralType: str,
    UnionType: str | None,
    DictType: list[str],
    VarTupleType: list[str],
}


def _flags_for(record: type[CheckedOptions] | SomeFields) -> list[Flag]:
    if not isinstance(record, SomeFields):
        return flags_of(record)
    # The default None marks a flag that was not given.
    return [flag._replace(default=None) for flag in flags_of(record.record) if flag.field in record.fields]


def _build_argument(record: type[CheckedOptions] | SomeFields, flags: list[Flag], given: Mapping[str, Any]) -> Any:
    """Validate the values of a record's flags.

    Returns:
        The record, or for `SomeFields` the given values by field.

    Raises:
        BadParameter: A value is wrong.
    """
    try:
        values = {flag.field: _parse_value(flag, given[flag.field]) for flag in flags}
        if not isinstance(record, SomeFields):
            return record.of(values)
        chosen = {name: value for name, value in values.items() if value not in (None, [], {})}
        record.record.of(chosen)
        return chosen
    except OptionError as error:
        flag = next((flag for flag in flags if error.place.split("[")[0].split(".")[0] == flag.field), None)
        raise typer.BadParameter(error.message, param_hint=flag.names[0] if flag else None) from None


def _parse_value(flag: Flag, given: Any) -> Any:
    if isinstance(flag.type, DictType):
        return parse_headers(given)
    is_number = isinstance(flag.type, UnionType) and any(isinstance(kind, IntType) for kind in flag.type.types)
    return int(given) if is_number and given and given.isdecimal() else given
