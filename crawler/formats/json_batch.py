"""A batch as JSON, `{"urls": [...], ...}`, read as it arrives.

msgspec reads every value, so it is as strict as always. What stands here only finds where values end, in one pass over
the bytes, and keeps none for longer than it takes to have its end.
"""

import re
from collections.abc import Generator
from typing import Annotated, Any, Final, TypeAlias, TypeVar

import msgspec

from crawler.core.errors import InputError, read_validation_error

__all__ = ["MAX_VALUE_BYTES", "BatchReader", "JsonError"]

T = TypeVar("T")
Steps: TypeAlias = Generator[None, None, T]  # stops where more input is needed

MAX_VALUE_BYTES: Final = 1024 * 1024  # bytes of one URL, and of all other members of the object
_PIECE: Final = 64 * 1024  # at most so much is looked at in one go

_QUOTE, _COMMA, _COLON, _ARRAY, _ARRAY_END, _OBJECT, _OBJECT_END = b'",:[]{}'
_OPENING: Final = b"[{"

# Possessive throughout: no byte is looked at twice.
_SPACE: Final = re.compile(rb"[ \t\r\n]*+")
_WORD: Final = re.compile(rb"[^ \t\r\n,\]}]*+")  # numbers, true, false, null, and what msgspec will refuse
_NESTED: Final = re.compile(rb'[^"\[\]{}]*+')
_STRING: Final = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.S)
_STRINGS: Final = re.compile(rb'(?:[ \t\r\n]*+"[^"\\]*+(?:\\.[^"\\]*+)*+"[ \t\r\n]*+,)*+', re.S)

_MARGIN: Final = b" " * 16  # without it, msgspec takes what is wrong near the end for what is missing there
_MALFORMED: Final = re.compile(r"JSON is malformed: (.*) \(byte (\d+)\)")


class JsonError(InputError):
    """What is no JSON, or stops half way."""


class _BatchHead(msgspec.Struct):
    urls: Annotated[list[str], msgspec.Meta(min_length=1)]


class _Key(msgspec.Struct):
    urls: bool = False


class _Other(msgspec.Struct):
    """No fields: msgspec checks the members that it skips, but makes nothing of them."""


_BATCH: Final = msgspec.json.Decoder(_BatchHead)
_KEY: Final = msgspec.json.Decoder(_Key)
_OTHER: Final = msgspec.json.Decoder(_Other)
_URLS: Final = msgspec.json.Decoder(list[str])


class BatchReader:
    """`feed` it bytes for the URLs that are complete by now, and `close` it after the last.

    Both accept, refuse and give what msgspec would for the whole; but `urls` may stand there only once. After an error
    it is of no more use.

    Raises:
        JsonError: It is no JSON, or stops half way.
        InputError: It is JSON, but no batch, or a value in it is too long.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at = 0  # the buffer is done with up to here
        self._dropped = 0  # bytes of the input before the buffer
        self._lines: list[str] = []
        self._count = 0
        self._in_urls = self._has_urls = self._whole = False
        self._others: list[bytes] = []
        self._others_size = 0
        self._steps = self._document()
        next(self._steps)

    def feed(self, data: bytes) -> list[str]:
        """The URLs that are complete by now and were not before."""
        for start in range(0, len(data), _PIECE):
            self._buffer += data[start : start + _PIECE]
            next(self._steps)
        lines, self._lines = self._lines, []
        return lines

    def close(self) -> list[str]:
        """The last URLs: none, for the array has an end."""
        lines = self.feed(b" ")  # white space ends a word, and nothing else
        if not self._whole:
            raise JsonError("stops half way", f"byte {self._dropped + len(self._buffer) - 1}")
        return lines

    @property
    def rest(self) -> dict[str, Any]:
        """The other members of the object; complete after `close`.

        Raises:
            InputError: One of them can be skipped but not read: a number out of range, text that is not UTF-8.
        """
        try:
            return msgspec.json.decode(b"{" + b",".join(self._others) + b"}", type=dict[str, Any])
        except msgspec.ValidationError as error:
            raise InputError(read_validation_error(error)[0], "$") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise JsonError(f"cannot be read: {error}", "$") from None

    # The grammar

    def _document(self) -> Steps[None]:
        if (yield from self._next()) != _OBJECT:
            self._read(_BATCH, b"", (yield from self._wrong()), b"")
        yield from self._object()
        if not self._has_urls:
            raise InputError("Object missing required field `urls`", "$")
        self._whole = True
        yield from self._next()
        raise self._not_json("trailing characters")

    def _object(self) -> Steps[None]:
        byte = yield from self._after()
        while byte != _OBJECT_END:
            if byte != _QUOTE:
                raise self._not_json("object keys must be strings")
            yield from self._member()
            byte = yield from self._next()
            if byte == _COMMA:
                byte = yield from self._after()
                if byte == _OBJECT_END:
                    raise self._not_json("trailing comma in object")
            elif byte != _OBJECT_END:
                raise self._not_json("expected ',' or '}'")
        self._at += 1

    def _member(self) -> Steps[None]:
        key = yield from self._value()
        is_urls = self._read(_KEY, b"{", key, b":true}").urls
        if (yield from self._next()) != _COLON:
            raise self._not_json("expected ':'")
        self._at += 1
        if is_urls:
            if self._has_urls:
                raise InputError("`urls` stands there twice", "$")
            self._has_urls = self._in_urls = True
            yield from self._urls()
            self._in_urls = False
        else:
            value = yield from self._value()
            self._read(_OTHER, b'{"":', value, b"}")
            self._others.append(key + b":" + value)
            self._others_size += len(key) + len(value)
            self._check_length(0)

    def _urls(self) -> Steps[None]:
        if (yield from self._next()) != _ARRAY:
            self._in_urls = False
            self._read(_BATCH, b'{"urls":', (yield from self._wrong()), b"}", "$.urls")
        if (yield from self._after()) == _ARRAY_END:
            raise InputError("Expected `array` of length >= 1", "$.urls")
        while True:
            match = _STRINGS.match(self._buffer, self._at)
            assert match is not None
            if match.end() > self._at:
                self._take(self._cut(match.end() - self._at - 1))
                self._at += 1
            byte = yield from self._next()  # of the last string, or of the one that is not whole yet
            if byte == _ARRAY_END:
                raise self._not_json("trailing comma in array")
            self._take((yield from self._value()) if byte == _QUOTE else (yield from self._wrong()))
            byte = yield from self._next()
            if byte not in b",]":
                raise self._not_json("expected ',' or ']'")
            self._at += 1
            if byte == _ARRAY_END:
                return

    def _take(self, elements: bytes) -> None:
        lines = self._read(_URLS, b"[", elements, b"]", f"$.urls[{self._count}]")
        self._lines += lines
        self._count += len(lines)

    # Its words

    def _next(self) -> Steps[int]:
        """The next byte that is no white space. It is not taken."""
        while True:
            match = _SPACE.match(self._buffer, self._at)
            assert match is not None
            self._at = match.end()
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            yield from self._more(0)

    def _after(self) -> Steps[int]:
        """The same after this byte, which is taken."""
        self._at += 1
        return (yield from self._next())

    def _value(self) -> Steps[bytes]:
        """Take the next value. Where it ends is known, but not yet whether it is right."""
        byte = yield from self._next()
        if byte == _QUOTE:
            size = yield from self._to_end_of_string(1)
        elif byte in _OPENING:
            size, depth = 1, 1
            while depth:
                size = 1 + (yield from self._while(_NESTED, size))
                byte = self._buffer[self._at + size - 1]
                if byte == _QUOTE:
                    size = yield from self._to_end_of_string(size)
                else:
                    depth += 1 if byte in _OPENING else -1
        else:
            size = max(1, (yield from self._while(_WORD, 0)))
        self._check_length(size)
        return self._cut(size)

    def _wrong(self) -> Steps[bytes]:
        """Take as much of a value of the wrong type as msgspec looks at before it says so."""
        byte = yield from self._next()
        return self._cut(1) if byte in _OPENING else (yield from self._value())

    def _to_end_of_string(self, size: int) -> Steps[int]:
        while True:
            size = yield from self._while(_STRING, size)
            if self._buffer[self._at + size] == _QUOTE:
                return size + 1
            yield from self._more(size)  # a backslash, and what it escapes is still to come

    def _while(self, pattern: re.Pattern[bytes], size: int) -> Steps[int]:
        """How far a pattern goes that begins `size` bytes from here: up to a byte that is there and does not fit."""
        while True:
            match = pattern.match(self._buffer, self._at + size)
            assert match is not None
            size = match.end() - self._at
            if match.end() < len(self._buffer):
                return size
            yield from self._more(size)

    def _more(self, size: int) -> Steps[None]:
        """Wait for more input; `size` bytes from here have been looked at and are needed."""
        self._check_length(size)
        self._dropped += self._at
        del self._buffer[: self._at]
        self._at = 0
        yield

    def _cut(self, size: int) -> bytes:
        self._at += size
        return bytes(self._buffer[self._at - size : self._at])

    def _check_length(self, size: int) -> None:
        if self._in_urls and size > MAX_VALUE_BYTES:
            raise InputError(f"longer than {MAX_VALUE_BYTES} bytes", f"$.urls[{self._count}]")
        if not self._in_urls and self._others_size + size > MAX_VALUE_BYTES:
            raise InputError(f"more than {MAX_VALUE_BYTES} bytes besides `urls`", "$")

    def _read(self, decoder: msgspec.json.Decoder[T], before: bytes, value: bytes, after: bytes, place: str = "$") -> T:
        """Have msgspec read what was taken last; `before` and `after` are put around it."""
        start = self._dropped + self._at - len(value)
        try:
            return decoder.decode(before + value + after + _MARGIN)
        except msgspec.ValidationError as error:
            raise InputError(read_validation_error(error)[0], place) from None
        except msgspec.DecodeError as error:
            malformed = _MALFORMED.fullmatch(str(error))
            if malformed is None:
                raise JsonError(str(error), f"byte {start}") from None
            raise JsonError(malformed[1], f"byte {start + int(malformed[2]) - len(before)}") from None
        except UnicodeDecodeError:
            raise JsonError("not UTF-8", f"byte {start + _first_that_is_not_utf_8(value)}") from None
        except RecursionError:
            raise JsonError("nested too deeply", f"byte {start}") from None

    def _not_json(self, reason: str) -> JsonError:
        return JsonError(reason, f"byte {self._dropped + self._at}")


def _first_that_is_not_utf_8(text: bytes) -> int:
    try:
        text.decode()
    except UnicodeDecodeError as error:
        return error.start
    return 0
