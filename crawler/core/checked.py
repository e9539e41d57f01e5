"""What both records of options are: records whose values are checked."""

from collections.abc import Mapping
from typing import Any, Self

import msgspec

from crawler.core.errors import OptionError

__all__ = ["CheckedOptions"]


class CheckedOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A record whose values are checked where it is made from outside (`of`) and where it is used (`checked`)."""

    def checked(self) -> Self:
        """The same record, once its values are found to be within their bounds.

        Raises:
            OptionError: One is not; `place` is its name.
        """
        return self.of(msgspec.structs.asdict(self))

    @classmethod
    def of(cls, values: Mapping[str, Any], *, strict: bool = True) -> Self:
        """Validate plain values (keyword arguments, JSON, flags) into the record; numbers may be texts if not `strict`.

        Raises:
            OptionError: A name or value is wrong; `place` is the option's name.
        """
        try:
            return msgspec.convert(values, cls, strict=strict)
        except msgspec.ValidationError as error:
            message, _, place = str(error).partition(" - at ")
            raise OptionError(message, place.strip("`").removeprefix("$.") or "options") from None
