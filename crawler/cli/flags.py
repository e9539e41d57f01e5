"""Records of options as flags of a command: what stands in `options.py` is spelled nowhere again.

`@takes(options=Options)` gives a command a flag and a `CRAWLER_*` environment variable for every field of the record,
and hands it the validated record as its argument `options`. `@takes(choices=Some(Options, names))` does so for the
fields of these names, and hands it those that were given, by name.
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

__all__ = ["Flag", "SomeFields", "flags_of", "takes"]


class Flag(NamedTuple):
    """One option as a user sees it."""

    field: str
    names: tuple[str, ...]
    variable: Variable
    default: Any
    help: str
    type: Any
    metavar: str
    panel: str
    is_hidden: bool  # from `--help`: an old name


class SomeFields(NamedTuple):
    """Some of a record's fields, of which a command wants to know which were given."""

    record: type[CheckedOptions]
    fields: Collection[str]


def flags_of(record: type[CheckedOptions]) -> list[Flag]:
    """The flags of a record's fields, in their order."""
    return [_flag(field) for field in type_info(record).fields]  # type: ignore[attr-defined]


def takes(**records: type[CheckedOptions] | SomeFields) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Replace each named parameter of a command by flags for the fields of the record that it wants."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(command, eval_str=True)
        flags = {name: _wanted(record) for name, record in records.items()}

        @functools.wraps(command)
        def run(**given: Any) -> Any:
            for name, record in records.items():
                values = {flag.field: given.pop(flag.field) for flag in flags[name]}
                given[name] = _taken(record, flags[name], values)
            return command(**given)

        own = [parameter for name, parameter in signature.parameters.items() if name not in records]
        made = [_parameter(flag) for name in records for flag in flags[name]]
        parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in [*own, *made]]
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def _flag(field: Field) -> Flag:
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
    hint = _HINTS[type(flag.type)] | None if flag.default is None else _HINTS[type(flag.type)]
    variable = flag.variable
    if variable.is_list:
        more = f"; {variable.list_name}, between blanks or commas" if variable.list_name else ""
        option = typer.Option(
            *flag.names,
            default_factory=lambda: values_of(variable),
            show_default=False,
            metavar=flag.metavar,
            help=rf"{flag.help} \[env var: {variable.name}, one a line{more}]",
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
        flag.field, inspect.Parameter.KEYWORD_ONLY, default=flag.default, annotation=Annotated[hint, option]
    )


# msgspec checks the values; typer only needs to know how to read one from the command line.
_HINTS: Final[dict[type, Any]] = {
    IntType: int,
    FloatType: float,
    BoolType: bool,
    StrType: str,
    LiteralType: str,
    UnionType: str | None,
    DictType: list[str],
    VarTupleType: list[str],
}


def _wanted(record: type[CheckedOptions] | SomeFields) -> list[Flag]:
    if not isinstance(record, SomeFields):
        return flags_of(record)
    # None stands for what is not given.
    return [flag._replace(default=None) for flag in flags_of(record.record) if flag.field in record.fields]


def _taken(record: type[CheckedOptions] | SomeFields, flags: list[Flag], given: Mapping[str, Any]) -> Any:
    """What the command gets of the values given to it, checked."""
    try:
        values = {flag.field: _value(flag, given[flag.field]) for flag in flags}
        if not isinstance(record, SomeFields):
            return record.of(values)
        chosen = {name: value for name, value in values.items() if value not in (None, [], {})}
        record.record.of(chosen)
        return chosen
    except OptionError as error:
        flag = next((flag for flag in flags if error.place.split("[")[0].split(".")[0] == flag.field), None)
        raise typer.BadParameter(error.message, param_hint=flag.names[0] if flag else None) from None


def _value(flag: Flag, given: Any) -> Any:
    if isinstance(flag.type, DictType):
        return parse_headers(given)
    is_number = isinstance(flag.type, UnionType) and any(isinstance(kind, IntType) for kind in flag.type.types)
    return int(given) if is_number and given and given.isdecimal() else given
