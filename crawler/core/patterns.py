"""Regular expressions of the option `match`, searched in linear time.

A client's expression may need exponential time in Python's `re`. RE2 searches in time linear in the text. It is
optional (the extra `match`), because its binding `google-re2` has no wheel for musl.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from typing import Any, Final

from crawler.core.errors import OptionError

__all__ = ["compile_pattern", "has_match"]

_MAX_PATTERN_CHARACTERS: Final = 1_000
_MAX_PROGRAM_STEPS: Final = 2_000  # of the compiled pattern; at worst a step takes 10 ns for each byte of text
_MAX_INLINE_COST: Final = 2**20  # steps times characters that may run on the event loop: 10 ms at worst
_MAX_MEMORY_BYTES: Final = 2**19  # of one compiled pattern; with 2 MiB, compiling what is refused takes 50 ms
_MAX_THREADS: Final = 4  # for long searches of all Tasks; asyncio's own threads stay free for files and names


@lru_cache(maxsize=128)
def compile_pattern(pattern: str) -> Any:
    """Compile an expression of RE2's syntax.

    Raises:
        OptionError: RE2 is not installed, the expression is not valid, or it is too large.
    """
    try:
        import re2  # takes 8 ms, so it is imported only for `match`
    except ImportError:
        raise OptionError("needs RE2, which urlprober[match] installs", "match") from None
    if len(pattern) > _MAX_PATTERN_CHARACTERS:
        raise OptionError(f"has more than {_MAX_PATTERN_CHARACTERS:,} characters", "match")
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MAX_MEMORY_BYTES
    options.never_capture = True  # only whether it matches is reported
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        reason = b" ".join(error.args).decode("utf-8", "replace")
        raise OptionError(f"not a regular expression of RE2: {reason}", "match") from None
    except UnicodeEncodeError:
        raise OptionError("not valid Unicode text", "match") from None
    if compiled.programsize > _MAX_PROGRAM_STEPS:
        raise OptionError("too large a regular expression: it repeats too much", "match")
    return compiled


async def has_match(pattern: str, text: str) -> bool:
    """Whether the text has a match. Long searches run in a thread, where RE2 releases the interpreter lock.

    Raises:
        OptionError: `compile_pattern` refuses the expression.
    """
    compiled = compile_pattern(pattern)
    if compiled.programsize * len(text) <= _MAX_INLINE_COST:
        return compiled.search(text) is not None
    return await asyncio.get_running_loop().run_in_executor(_threads(), compiled.search, text) is not None


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_MAX_THREADS, thread_name_prefix="match")
