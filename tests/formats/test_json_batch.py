"""The JSON reader against msgspec, which decodes the whole text at once."""

import json
import re
from typing import Annotated, Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.core.errors import InputError, read_validation_error
from crawler.formats.json_batch import MAX_VALUE_BYTES, PATTERNS, BatchReader, JsonError, JsonPatterns


class Batch(msgspec.Struct):
    """The body of a submit."""

    urls: Annotated[list[str], msgspec.Meta(min_length=1)]


def read(text: bytes, step: int = 64 * 1024, patterns: JsonPatterns = PATTERNS) -> list[str]:
    reader = BatchReader(patterns)
    lines = [line for start in range(0, len(text), step) for line in reader.feed(text[start : start + step])]
    return lines + reader.close()


def other_members_of(text: bytes) -> dict[str, Any]:
    reader = BatchReader()
    reader.feed(text)
    reader.close()
    return reader.other_members


def refused(text: bytes, step: int = 64 * 1024) -> InputError:
    with pytest.raises(InputError) as caught:
        read(text, step)
    return caught.value


Reading = list[str] | tuple[str, str] | None
"""URLs; or the message and place of a type error; or None if it is not JSON."""


def read_or_refuse(text: bytes, step: int) -> Reading:
    try:
        return read(text, step)
    except JsonError:
        return None
    except InputError as error:
        return error.message, error.place


def read_by_msgspec(text: bytes) -> Reading:
    try:
        return msgspec.json.decode(text.removeprefix(b"\xef\xbb\xbf"), type=Batch).urls
    except msgspec.ValidationError as error:
        message, place = read_validation_error(error)
        return message, place or "$"
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


# --- The same as msgspec ---

WORDS = [
    *(b"{", b"}", b"[", b"]", b",", b":", b" ", b"\n", b'"', b"\\", b"\x00", b"\x0b", b"\xff", b"\xef\xbb\xbf"),
    *(b'"urls"', b'"a"', b'""', b'"\\u0075rls"', b'"\\""', b'"a\\\\"', b'"\\ud83d\\ude00"', b'"\\ud800"', b'"\\x"'),
    *(b'"\xc3\xa9"', b'"\xff"', b'"\x01"', b'",["', b'{"urls":["a"', b'"a",', b'"]}', b'{"a":1}', b'"b":'),
    *(b"1", b"-", b"0.5e9", b"01", b"1e999", b"null", b"true", b"tru", b"NaN", b"1x", b'1"a"'),
]
GOOD = [
    b'{"urls": ["http://a/", "http://b/\\u00e9"], "options": {"timeout": 5, "header": {"A": "b\\"]}"}}}',
    b'{"note":[[],{},[{"urls":["x"]}],"],["],"urls":["a"]}',
    b' { "a" : null , "urls" : [ "1" , "2" , "3" ] , "b" : -1.5e3 } \n',
]

jsonish = st.lists(st.sampled_from(WORDS), max_size=14).map(b"".join)
batchish = st.tuples(jsonish, jsonish).map(lambda parts: b'{"urls":["a",' + parts[0] + b'"b"],"c":' + parts[1] + b"}")


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """A valid text with a change in one place."""
    text = draw(st.sampled_from(GOOD))
    start = draw(st.integers(0, len(text)))
    end = draw(st.integers(start, min(len(text), start + 3)))
    return text[:start] + draw(st.just(b"") | st.sampled_from(WORDS) | st.binary(max_size=2)) + text[end:]


@given(jsonish | batchish | broken(), st.integers(1, 100))
def test_msgspec_accepts_and_refuses_the_same(text: bytes, step: int) -> None:
    found = read_or_refuse(text, step)
    if found != ("`urls` is given twice", "$"):
        assert found == read_by_msgspec(text)


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1),
    st.booleans(),
    st.sampled_from([None, 0, 3]),
    st.integers(1, 50),
)
def test_any_strings_come_as_they_are(lines: list[str], ascii_only: bool, indent: int | None, step: int) -> None:
    text = json.dumps({"urls": lines}, ensure_ascii=ascii_only, indent=indent).encode()
    assert read(text, step) == lines


@pytest.mark.parametrize("text", GOOD)
def test_any_split_gives_the_same(text: bytes) -> None:
    whole = read(text)
    for step in range(1, len(text)):
        assert read(text, step) == whole


def test_urls_come_before_the_end() -> None:
    reader = BatchReader()
    assert reader.feed(b'{"options": {}, "urls": ["a", "b') == ["a"]
    assert reader.feed(b'"') == ["b"]
    assert reader.feed(b', "c\\') == []
    assert reader.feed(b'"", "d", "e"') == ['c"', "d", "e"]
    assert reader.feed(b"]}") == reader.close() == []


# --- Errors and their places ---


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        (b"[1, 2", "$", "Expected `object`, got `array`"),
        (b"5", "$", "Expected `object`, got `int`"),
        (b"{}", "$", "Object missing required field `urls`"),
        (b'{"url": ["a"]}', "$", "Object missing required field `urls`"),
        (b'{"urls": "a"}', "$.urls", "Expected `array`, got `str`"),
        (b'{"urls": null}', "$.urls", "Expected `array`, got `null`"),
        (b'{"urls": {', "$.urls", "Expected `array`, got `object`"),
        (b'{"urls": []}', "$.urls", "Expected `array` of length >= 1"),
        (b'{"urls": [null]}', "$.urls[0]", "Expected `str`, got `null`"),
        (b'{"urls": ["a", "b", 3]}', "$.urls[2]", "Expected `str`, got `int`"),
        (b'{"urls": ["a", ["b', "$.urls[1]", "Expected `str`, got `array`"),
        (b'{"urls": ["a"], "\\u0075rls": ["b"]}', "$", "`urls` is given twice"),
    ],
)
@pytest.mark.parametrize("step", [1, 1000])
def test_a_wrong_type_is_refused_with_its_place(text: bytes, place: str, message: str, step: int) -> None:
    error = refused(text, step)
    assert (error.place, error.message) == (place, message)
    assert not isinstance(error, JsonError)


@pytest.mark.parametrize(
    ("text", "byte", "message"),
    [
        (b"", 0, "ends too early"),
        (b'{"urls": ["a"', 13, "ends too early"),
        (b'{"urls": ["a\\', 13, "ends too early"),
        (b'{"urls": ["a"], "b": [', 22, "ends too early"),
        (b"https://example.org/", 0, "invalid character"),
        ('{"urls": ["a"]}'.encode("utf-16-le"), 1, "object keys must be strings"),
        (b"{'urls': []}", 1, "object keys must be strings"),
        (b'{"urls" ["a"]}', 8, "expected ':'"),
        (b'{"urls": [tru]}', 14, "invalid character"),
        (b'{"urls": ["a",]}', 14, "trailing comma in array"),
        (b'{"urls": ["a" "b"]}', 14, "expected ',' or ']'"),
        (b'{"urls": ["a"],}', 15, "trailing comma in object"),
        (b'{"urls": ["a"] "b": 1}', 15, "expected ',' or '}'"),
        (b'{"urls": ["a"]}x', 15, "trailing characters"),
        (b'{"urls": ["a", "\x01", "b"]}', 16, "invalid character"),
        (b'{"urls": ["ab", "\xff", "b"]}', 17, "not UTF-8"),
        (b'{"urls": ["ab", "\xff"]}', 17, "not UTF-8"),
        (b'{"a": 01, "urls": ["a"]}', 7, "invalid number"),
        (b'{"a": [1, x], "urls": ["a"]}', 10, "invalid character"),
        (b'{"a\x01": 1}', 3, "invalid character"),
        (b'{"urls": ["\\ud800"]}', 17, "unexpected end of escaped utf-16 surrogate pair"),
    ],
)
@pytest.mark.parametrize("step", [1, 1000])
def test_malformed_json_is_refused_with_the_byte(text: bytes, byte: int, message: str, step: int) -> None:
    error = refused(text, step)
    assert isinstance(error, JsonError)
    assert (error.place, error.message) == (f"byte {byte}", message)


@pytest.mark.parametrize("depth", [100_000, 500_000])
@pytest.mark.parametrize("pair", [(b"[", b"]"), (b'{"a":', b"}")], ids=["arrays", "objects"])
def test_deep_nesting_is_refused(depth: int, pair: tuple[bytes, bytes]) -> None:
    depth //= len(pair[0])
    error = refused(b'{"a": ' + pair[0] * depth + b"1" + pair[1] * depth + b', "urls": ["a"]}')
    assert isinstance(error, JsonError)
    assert (error.place, error.message) == ("byte 6", "nested too deeply")


@pytest.mark.parametrize("step", [10_000, 10_000_000])
def test_the_length_of_every_value_is_bounded(step: int) -> None:
    long = b"x" * (MAX_VALUE_BYTES - 2)
    assert read(b'{"urls": ["a", "%b"]}' % long, step) == ["a", long.decode()]
    error = refused(b'{"urls": ["a", "%bx"]}' % long, step)
    assert (error.place, error.message) == ("$.urls[1]", "longer than 1048576 bytes")
    for text in (b'{"a": "%bx"', b'{"%bx"', b'{"a": [%b]', b'{"a": 1%b11', b'{"urls": ["a"], "b": 1, "c": "%b"'):
        error = refused(text % long.replace(b"x", b"1"), step)
        assert (error.place, error.message) == ("$", "more than 1048576 bytes besides `urls`")
    assert read(b'{"urls":' + b" " * 3_000_000 + b'["a"' + b"\n" * 3_000_000 + b"]}", step) == ["a"]


# --- The other members ---


def test_other_members_may_stand_before_and_after_the_urls() -> None:
    text = b'{"a": [1, {"b": "]"}], "urls": ["x"], "c": null, "a": "\\u00e9"}'
    assert other_members_of(text) == {"a": "\N{LATIN SMALL LETTER E WITH ACUTE}", "c": None}
    assert other_members_of(b'{"urls": ["x"]}') == {}


def test_a_member_that_cannot_be_decoded_is_refused_when_it_is_read() -> None:
    with pytest.raises(InputError, match="out of range"):
        other_members_of(b'{"a": 1e999, "urls": ["x"]}')
    with pytest.raises(JsonError, match="utf-8"):
        other_members_of(b'{"a": "\xff", "urls": ["x"]}')


# --- Work ---


def test_the_buffer_stays_small_for_a_large_list() -> None:
    urls = [f"https://host{number}.example/{number}" for number in range(200_000)]
    text = json.dumps({"urls": urls, "options": {"timeout": 5}}).encode()
    reader, found, most = BatchReader(), 0, 0
    for start in range(0, len(text), 64 * 1024):
        lines = reader.feed(text[start : start + 64 * 1024])
        assert lines == urls[found : found + len(lines)]
        found += len(lines)
        most = max(most, len(reader._buffer))
    assert reader.close() == []
    assert found == len(urls)
    assert most < 2 * 64 * 1024


class CountingPattern:
    """A pattern that counts the bytes it matches."""

    def __init__(self, pattern: re.Pattern[bytes]) -> None:
        self.pattern = pattern
        self.bytes = 0

    def match(self, text: bytes, start: int) -> re.Match[bytes] | None:
        match = self.pattern.match(text, start)
        self.bytes += (match.end() if match else len(text)) - start + 1
        return match


def as_pattern(pattern: CountingPattern) -> re.Pattern[bytes]:
    return cast("re.Pattern[bytes]", pattern)


@pytest.mark.parametrize(
    "text",
    [
        b'{"urls": ["' + b"x" * 1_000_000 + b'"]}',
        b'{"urls": ["' + b'\\",' * 300_000 + b'"]}',
        b'{"a": "' + b'\\",' * 300_000 + b'", "urls": ["a"]}',
        b'{"a": [' + b'"x", [], ' * 100_000 + b'1], "urls": ["a"]}',
        b'{"a": ' + b"1" * 1_000_000 + b', "urls": ["a"]}',
        b'{"urls": ' + b" " * 1_000_000 + b'["a"]}',
    ],
    ids=["plain", "quotes", "other member", "nested", "number", "white space"],
)
def test_a_long_value_in_small_pieces_is_parsed_in_one_pass(text: bytes) -> None:
    counting = [CountingPattern(pattern) for pattern in PATTERNS]
    assert len(read(text, 100, JsonPatterns(*map(as_pattern, counting)))) == 1
    assert sum(pattern.bytes for pattern in counting) < 4 * len(text)
