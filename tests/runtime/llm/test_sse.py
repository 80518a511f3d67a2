"""The event parser: the same events however the bytes are cut, in every dialect that servers speak."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from power_loop.runtime.llm.sse import Event, EventParser


def parse(stream: bytes, sizes: list[int] | None = None) -> list[Event]:
    parser = EventParser()
    events: list[Event] = []
    at = 0
    for size in sizes or ():
        events += parser.feed(stream[at : at + size])
        at += size
    events += parser.feed(stream[at:])
    return events + parser.close()


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\ndata: b\n\n", [("", "a"), ("", "b")]),
        (b"data:a\n\n", [("", "a")]),
        (b"data:  a\n\n", [("", " a")]),
        (b"data\n\n", [("", "")]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [("", "a"), ("", "b")]),
        (b"data: a\r\rdata: b\r\r", [("", "a"), ("", "b")]),
        (b"\xef\xbb\xbfdata: a\n\n", [("", "a")]),
        (b": keep-alive\n\ndata: a\n\n: more\n\n", [("", "a")]),
        (b"event: ping\ndata: {}\n\n", [("ping", "{}")]),
        (b"event: ping\n\ndata: a\n\n", [("", "a")]),
        (b"id: 4\nretry: 10\nflavour: plain\ndata: a\n\n", [("", "a")]),
        (b'data: {\ndata: "a": 1\ndata: }\n\n', [("", '{\n"a": 1\n}')]),
        (b"data: a", [("", "a")]),
        (b"data: a\n", [("", "a")]),
        (b"data: \xff\n\n", [("", "\ufffd")]),
        (b"", []),
        (b"\n\n\n", []),
        ("data: \u2028\x85\n\n".encode(), [("", "\u2028\x85")]),
    ],
)
def test_a_stream_gives_the_events_that_the_standard_says(stream: bytes, events: list[Event]) -> None:
    assert parse(stream) == events


LINES = st.sampled_from(
    [b"data: x", b"data:{}", b"data: h\xc3\xa9\xf0\x9f\x92\xa1", b"event: e", b": c", b"", b"id: 1", b"data", b"\xff"]
)


@given(
    st.lists(st.tuples(LINES, st.sampled_from([b"\n", b"\r\n", b"\r"])), max_size=20),
    st.lists(st.integers(1, 9), max_size=60),
)
def test_how_the_bytes_are_cut_changes_nothing(lines: list[tuple[bytes, bytes]], sizes: list[int]) -> None:
    stream = b"".join(line + end for line, end in lines)
    assert parse(stream, sizes) == parse(stream) == parse(stream, [1] * len(stream))


def test_what_comes_after_the_last_line_end_waits_for_more() -> None:
    parser = EventParser()
    assert parser.feed(b"data: a\n\ndata: b") == [("", "a")]
    assert parser.feed(b"c\n") == []
    assert parser.feed(b"\n") == [("", "bc")]


def test_a_line_of_megabytes_in_small_pieces_is_joined_once() -> None:
    parser = EventParser()
    piece = b"x" * 1000
    parser.feed(b"data: ")
    for _ in range(20_000):
        assert parser.feed(piece) == []
    assert parser.feed(b"\n\n") == [("", "x" * 20_000_000)]
