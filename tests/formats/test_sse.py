"""Server-sent events against the examples of the standard."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.core.errors import InputError
from crawler.formats.sse import MAX_EVENT_BYTES, EventReader, ServerSentEvent

# Examples and rules of the standard.
STREAMS = {
    "lines of data are joined": (b"data: a\ndata\ndata:b\n\n", [ServerSentEvent("message", b"a\n\nb", "")]),
    "one space is dropped": (b"data:  a \n\n", [ServerSentEvent("message", b" a ", "")]),
    "comments are ignored": (b": hello\n\ndata: a\n:\ndata: b\n\n", [ServerSentEvent("message", b"a\nb", "")]),
    "an event without data is none": (b"event: x\nid: 7\n\ndata: a\n\n", [ServerSentEvent("message", b"a", "7")]),
    "an id stays until the next": (
        b"id: 1\nevent: x\ndata: a\n\ndata: b\n\nid\ndata: c\n\n",
        [ServerSentEvent("x", b"a", "1"), ServerSentEvent("message", b"b", "1"), ServerSentEvent("message", b"c", "")],
    ),
    "an id with a NUL is none": (
        b"id: 1\ndata: a\n\nid: 2\0\ndata: b\n\n",
        [ServerSentEvent("message", b"a", "1"), ServerSentEvent("message", b"b", "1")],
    ),
    "any end of line": (
        b"data: a\r\rdata: b\r\n\r\ndata: c\n\n",
        [ServerSentEvent("message", each, "") for each in (b"a", b"b", b"c")],
    ),
    "a mark at the start": (b"\xef\xbb\xbfdata: a\n\n", [ServerSentEvent("message", b"a", "")]),
    "an incomplete event is dropped": (b"data: a\n\ndata: b\n", [ServerSentEvent("message", b"a", "")]),
    "unknown fields are ignored": (b"retry: 10\nx: y\ndata: a\n\n", [ServerSentEvent("message", b"a", "")]),
}


def read(*pieces: bytes) -> list[ServerSentEvent]:
    reader = EventReader()
    return [event for piece in pieces for event in reader.feed(piece)]


@pytest.mark.parametrize(("stream", "events"), STREAMS.values(), ids=STREAMS)
def test_a_stream_gives_the_same_events_in_one_piece_and_byte_by_byte(
    stream: bytes, events: list[ServerSentEvent]
) -> None:
    assert read(stream) == events
    assert read(*(bytes([byte]) for byte in stream)) == events


LINES = st.sampled_from([b"data", b"data: a", b"event: e", b"id: 1", b"id: 2", b":", b"", b"\xef\xbb\xbf", b"x" * 50])
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@given(st.lists(st.tuples(LINES, ENDS)), st.lists(st.integers(0, 500)))
def test_the_size_of_the_pieces_does_not_change_the_events(lines: list[tuple[bytes, bytes]], cuts: list[int]) -> None:
    stream = b"".join(part for line in lines for part in line) + b"\n\n"
    places = [0, *sorted(cuts), len(stream)]
    pieces = [stream[start:end] for start, end in pairwise(places)]
    assert read(*pieces) == read(stream)


@pytest.mark.parametrize("piece", [b"data: " + b"a" * 2**20 + b"\n", b"a" * 2**20])
def test_an_event_without_end_does_not_fill_the_memory(piece: bytes) -> None:
    reader = EventReader()
    with pytest.raises(InputError, match="longer"):
        for _ in range(MAX_EVENT_BYTES // 2**20 + 1):
            reader.feed(piece)
