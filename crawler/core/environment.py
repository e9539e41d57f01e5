"""Options from environment variables: `CRAWLER_` and the name of the option's flag, as `CRAWLER_CONNECT_TIMEOUT`.

The command's flags and the applications without a command line (`crawler.asgi`, `crawler.gunicorn`) share these names.
"""

import os
from collections.abc import Mapping, MutableMapping
from typing import Any, Final, NamedTuple, TypeVar

from msgspec.inspect import BoolType, DictType, Field, FloatType, IntType, Metadata, UnionType, VarTupleType, type_info

from crawler.core.errors import OptionError
from crawler.core.option_syntax import parse_headers
from crawler.core.options import CheckedOptions

__all__ = ["Variable", "drop_service_links", "options_from_environment", "values_of", "variable_of", "variables_of"]

RecordT = TypeVar("RecordT", bound=CheckedOptions)

_PREFIX: Final = "CRAWLER_"
_LINK_VARIABLES: Final = ("CRAWLER_PORT", "CRAWLER_HOST")
_BOOLEANS: Final = dict.fromkeys(("1", "true", "t", "yes", "y", "on"), True) | dict.fromkeys(
    ("0", "false", "f", "no", "n", "off"), False
)


class Variable(NamedTuple):
    """The environment variables of one option.

    Attributes:
        field: The option's name in its record.
        flags: Its names on the command line; the variable is named after the first.
        name: The variable. For an option with several values it has one value a line, because headers contain blanks.
        list_name: A second variable, whose values are separated by blanks or commas; empty if there is none.
        type: The option's type, as `msgspec.inspect` describes it.
    """

    field: str
    flags: tuple[str, ...]
    name: str
    list_name: str
    type: Any

    @property
    def is_list(self) -> bool:
        """Whether the option can have several values."""
        return isinstance(self.type, DictType | VarTupleType)


def drop_service_links(environment: MutableMapping[str, str] = os.environ) -> None:
    """Remove variables that Kubernetes sets for a Service of the name `crawler`, in the form of Docker's links.

    `CRAWLER_PORT` is then `tcp://10.0.0.1:7777`, and no option of ours: see "Environment variables" in
    https://kubernetes.io/docs/concepts/services-networking/service/.
    """
    for name in _LINK_VARIABLES:
        if "://" in environment.get(name, ""):
            del environment[name]


def variable_of(field: Field) -> Variable:
    """Return the variables of a record's field."""
    meta = field.type
    assert isinstance(meta, Metadata), f"{field.name} has no description"
    extra: dict[str, Any] = meta.extra or {}
    flags = extra.get("flags", ("--" + field.name.replace("_", "-"),))
    name = _PREFIX + flags[0].removeprefix("--").replace("-", "_").upper()
    return Variable(field.name, flags, name, extra.get("list", ""), meta.type)


def variables_of(record: type[CheckedOptions]) -> list[Variable]:
    """Return the variables of a record's fields, in their order."""
    return [variable_of(field) for field in type_info(record).fields]  # type: ignore[attr-defined]


def values_of(variable: Variable, environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the values that the environment has for an option with several values, without duplicates."""
    lines = environment.get(variable.name, "").splitlines()
    return list(dict.fromkeys([*lines, *environment.get(variable.list_name, "").replace(",", " ").split()]))


def options_from_environment(record: type[RecordT], environment: Mapping[str, str] = os.environ) -> RecordT:
    """Read a record of options. An option whose variable is missing or empty keeps its default.

    Raises:
        OptionError: A value is wrong; `place` is the variable's name.
    """
    variables = {variable.field: variable for variable in variables_of(record)}
    values: dict[str, Any] = {}
    try:
        for field, variable in variables.items():
            if variable.is_list:
                if given := values_of(variable, environment):
                    values[field] = parse_headers(given) if isinstance(variable.type, DictType) else given
            elif text := environment.get(variable.name):
                values[field] = _parse(variable.type, text, field)
        return record.of(values)
    except OptionError as error:
        option = variables.get(error.place.split("[")[0].split(".")[0])
        raise OptionError(error.message, option.name if option else error.place) from None


def _parse(type_: Any, text: str, field: str) -> Any:
    """Parse a text by the type of its option: as a boolean or a number. For every other type, return the text."""
    if isinstance(type_, BoolType):
        if (value := _BOOLEANS.get(text.strip().lower())) is None:
            raise OptionError(f"{text!r} is neither true nor false", field)
        return value
    if isinstance(type_, FloatType):
        try:
            return float(text)
        except ValueError:
            raise OptionError(f"{text!r} is not a number", field) from None
    is_either = isinstance(type_, UnionType) and any(isinstance(kind, IntType) for kind in type_.types)
    if isinstance(type_, IntType) or (is_either and text.isdecimal()):
        try:
            return int(text)
        except ValueError:
            raise OptionError(f"{text!r} is not an integer", field) from None
    return text
