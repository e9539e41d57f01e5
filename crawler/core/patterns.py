"""Regular expressions of strangers: RE2's, whose time grows with the text and not with its powers."""

import asyncio
from functools import lru_cache
from typing import Any, Final

from crawler.core.errors import OptionError

__all__ = ["compile_pattern", "has_match"]

_LENGTH: Final = 1_000  # characters
_STEPS: Final = 2_000  # of the program that it becomes; at worst each takes 10 ns for each byte of text
_AT_ONCE: Final = 2**20  # steps times characters that the loop may wait for: 10 ms at worst
_MEMORY: Final = 2 * 2**20  # bytes that one may use


@lru_cache(maxsize=128)
def compile_pattern(pattern: str) -> Any:
    """Make a search of it.

    Raises:
        OptionError: It is no expression of RE2's, or too large.
    """
    import re2  # 8 ms, for those only who use it

    if len(pattern) > _LENGTH:
        raise OptionError(f"has more than {_LENGTH:,} characters", "match")
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MEMORY
    options.never_capture = True  # that it matches is all that is told
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        reason = b" ".join(error.args).decode("utf-8", "replace")
        raise OptionError(f"not a regular expression of RE2: {reason}", "match") from None
    except UnicodeEncodeError:
        raise OptionError("not a text", "match") from None
    if compiled.programsize > _STEPS:
        raise OptionError("too large a regular expression: it repeats too much", "match")
    return compiled


async def has_match(pattern: str, text: str) -> bool:
    """Whether a text has a match, without holding up the loop: RE2 searches in a thread while Python goes on."""
    compiled = compile_pattern(pattern)
    if compiled.programsize * len(text) <= _AT_ONCE:
        return compiled.search(text) is not None
    return await asyncio.to_thread(compiled.search, text) is not None
