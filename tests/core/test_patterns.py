"""Regular expressions from callers: every search ends, and none blocks the event loop."""

import asyncio
import random
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.core.errors import OptionError
from crawler.core.options import Options
from crawler.core.patterns import compile_pattern, has_match

MIB = 2**20


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("needle", "hay needle hay", True),
        ("needle", "hay", False),
        ("", "", True),
        ("^a.c$", "abc", True),
        ("(?i)grüße", "GRÜSSE GRÜßE", True),
        (r"\p{Greek}", "latin λ", True),
        (r"\d+ of \d+", "3 of 14", True),
        ("a.b", "a\nb", False),
        ("(?s)a.b", "a\nb", True),
    ],
)
async def test_a_text_has_a_match_or_not(pattern: str, text: str, found: bool) -> None:
    assert await has_match(pattern, text) is found


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+$", "(.*a){20}$", "^(([a-z])+.)+[A-Z]([a-z])+$"])
async def test_nested_repetition_takes_linear_time(pattern: str) -> None:
    """Python's `re` would need exponential time."""
    assert await has_match(pattern, "a" * MIB + "!") is False


async def test_a_long_search_does_not_block_the_loop() -> None:
    """RE2 has no small automaton for this pattern."""
    chance = random.Random(1)
    text = "".join(chance.choice("ab") for _ in range(MIB // 4))
    search = asyncio.ensure_future(has_match("(a|b)*a(a|b){50}c", text))
    steps = 0
    while not search.done():
        await asyncio.sleep(0)
        steps += 1
    assert await search is False
    assert steps > 100


@pytest.mark.parametrize(
    "pattern",
    [
        "(",
        "[",
        "*",
        "(?=look)",
        r"(a)\1",
        "\ud800",
        "x" * 1001,
        "((((a{9}){9}){9}){9}){9}",
        "(.{1,100}){10}",
        "(x{1,1000}){1000}",
    ],
)
def test_an_invalid_or_too_large_expression_is_refused(pattern: str) -> None:
    with pytest.raises(OptionError) as refused:
        compile_pattern(pattern)
    assert refused.value.place == "match"
    assert refused.value.message


def test_a_refusal_says_why() -> None:
    with pytest.raises(OptionError, match="not a regular expression of RE2: missing ]"):
        compile_pattern("[a")


def test_without_re2_an_expression_is_refused_and_the_extra_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "re2", None)  # makes the import fail
    compile_pattern.cache_clear()
    with pytest.raises(OptionError, match=r"urlprober\[match\]") as refused:
        Options(match="x")
    assert refused.value.place == "match"
    assert Options().match is None


@given(st.text(max_size=40), st.text(max_size=40))
async def test_any_text_compiles_or_is_refused(pattern: str, text: str) -> None:
    try:
        compile_pattern(pattern)
    except OptionError as error:
        assert error.place == "match"
    else:
        assert await has_match(pattern, text) in (True, False)
