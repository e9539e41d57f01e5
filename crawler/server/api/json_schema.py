"""JSON Schemas of requests and responses, from the types that validate them."""

import copy
import inspect
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from crawler.core.options import Options
from crawler.core.task_options import TASK_OPTIONS
from crawler.server.api.operation import Operation
from crawler.server.http.problem import Problem

__all__ = ["Schemas"]

Schema = dict[str, Any]

_REF: Final = "#/components/schemas/{name}"

# Constraints of options that their types do not express.
_STATUSES: Final = "^[1-9][0-9]{2}(-[1-9][0-9]{2})?$"
_FIELD_NAME: Final = "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"
_FIELD_VALUE: Final = r"^[\t\x20-\x7e\x80-\xff]*$"
_ONE_FAMILY: Final = {"required": ["ipv4", "ipv6"], "properties": {"ipv4": {"const": True}, "ipv6": {"const": True}}}


class Schemas:
    """The schemas of all types of some operations.

    Args:
        operations: The operations.
        options: The service's, which limit those of a Task.

    Attributes:
        components: The schemas by the names that the document has for them.
    """

    def __init__(self, operations: Iterable[Operation], options: Options) -> None:
        operations = list(operations)
        taken = dict.fromkeys(media.type for operation in operations for media in operation.body.values())
        given = dict.fromkeys(
            media.type
            for operation in operations
            for reply in operation.replies.values()
            for media in reply.content.values()
        )
        types = [type_ for type_ in (*(taken | given), Problem) if type_ is not None]
        found, self.components = msgspec.json.schema_components(types, ref_template=_REF)
        self._of = dict(zip(types, found, strict=True))
        _, only_taken = msgspec.json.schema_components(taken, ref_template=_REF)
        # A response has all members, except those that can be unset.
        structs = [each for each in types if isinstance(each, type) and issubclass(each, msgspec.Struct)]
        fields = [(each.__name__, field) for each in structs for field in msgspec.structs.fields(each)]
        absent = {(name, field.name) for name, field in fields if field.default is msgspec.UNSET}
        for name, schema in self.components.items():
            _polish(schema)
            if name not in only_taken:
                schema["required"] = [each for each in schema["properties"] if (name, each) not in absent]
        self.components["TaskOptions"] = _options()
        self.components["OptionsChoice"] = _bounded(_options(), options)
        for name in ("Batch", "Choices"):
            self.components[name]["properties"]["options"] = {"$ref": _REF.format(name="OptionsChoice")}
        self.components["Summary"]["properties"]["options"] = {"$ref": _REF.format(name="TaskOptions")}

    def of(self, type_: Any) -> Schema:
        """Return the schema of a type."""
        schema: Schema = self._of[type_]
        return schema

    def query(self, type_: type[msgspec.Struct], *, with_options: bool) -> Iterator[Schema]:
        """Yield the parameters of a query, and of the options that it may have too."""
        schema = msgspec.json.schema(type_)["$defs"][type_.__name__]
        _polish(schema)
        for name, member in schema["properties"].items():
            yield _parameter(name, _without_null(member), is_required=name in schema["required"])
        if with_options:
            for name, member in self.components["OptionsChoice"]["properties"].items():
                yield _parameter(name, _as_text(member), is_required=False)


def _options() -> Schema:
    """Return the options that a Task may choose."""
    fields = [(name, type_) for name, type_ in Options.__annotations__.items() if name in TASK_OPTIONS]
    type_ = msgspec.defstruct("TaskOptions", fields, forbid_unknown_fields=True)
    schema: Schema = msgspec.json.schema(type_)["$defs"]["TaskOptions"]
    return {**schema, "description": "Options by name."}


def _bounded(schema: Schema, options: Options) -> Schema:
    """Return the schema of options with the service's limits, and with all constraints that a schema can express."""
    members = schema["properties"]
    members["per_host"]["maximum"] = options.per_host
    members["max_read"]["maximum"] = options.max_read
    members["interval"]["minimum"] = options.interval
    members["accept"]["items"]["pattern"] = _STATUSES
    members["user_agent"]["pattern"] = _FIELD_VALUE
    members["headers"]["propertyNames"] = {"pattern": _FIELD_NAME}
    members["headers"]["additionalProperties"]["pattern"] = _FIELD_VALUE
    del schema["required"]
    about = "Options by name; what is left out is taken from the service."
    return {**schema, "title": "OptionsChoice", "description": about, "not": _ONE_FAMILY}


def _polish(schema: Schema) -> None:
    if "description" in schema:
        schema["description"] = inspect.cleandoc(schema["description"])
    for member in schema["properties"].values():
        if member.get("default", 0) is None:
            del member["default"]


def _parameter(name: str, schema: Schema, *, is_required: bool) -> Schema:
    schema = copy.deepcopy(schema)
    text = schema.pop("description", "")
    return {"name": name, "in": "query", "required": is_required, "description": text, "schema": schema}


def _without_null(schema: Schema) -> Schema:
    """Return the schema of a member in a query, which has no null."""
    if "anyOf" not in schema:
        return schema
    plain: Schema = {name: value for name, value in schema.items() if name != "anyOf"}
    for other in schema["anyOf"]:
        if other != {"type": "null"}:
            plain |= other
    return plain


def _as_text(schema: Schema) -> Schema:
    """Return the schema of an option in a query: each of several values, and each header, is a parameter of its own."""
    if schema.get("type") != "object":
        return _without_null(schema)
    return {
        "description": schema["description"],
        "type": "array",
        "items": {"type": "string", "pattern": f"{_FIELD_NAME[:-1]}:{_FIELD_VALUE[1:]}"},
    }
