"""Frames come out as they went in, however the bytes are cut; bytes that are none are refused, and cost little."""

from __future__ import annotations

import contextlib
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from power_loop.workflow.worker_frames import BrokenFrameError, Frame, FrameReader, frame_bytes, member

PLAIN = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(-1e300, 1e300) | st.text(max_size=5)
NAMES = st.text(max_size=3)
JSON = PLAIN | st.lists(PLAIN, max_size=3) | st.dictionaries(NAMES, PLAIN, max_size=3)
FRAMES = st.lists(st.dictionaries(NAMES, JSON, max_size=3).map(lambda rest: {**rest, "type": "beat"}), max_size=4)


def raw(body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + body


def cut(data: bytes, at: list[int]) -> list[bytes]:
    places = sorted({min(one, len(data)) for one in at})
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


@given(FRAMES, st.lists(st.integers(0, 500)))
def test_frames_come_out_in_order_however_they_are_cut(frames: list[Frame], places: list[int]) -> None:
    reader = FrameReader()
    data = b"".join(map(frame_bytes, frames))
    assert [one for chunk in cut(data, places) for one in reader.feed(chunk)] == frames
    assert reader.is_between_frames


@given(st.binary(max_size=200), st.lists(st.integers(0, 200)))
def test_bytes_that_are_no_frames_are_refused_or_waited_for_and_nothing_else(data: bytes, places: list[int]) -> None:
    outcomes = []
    for chunks in ([data], cut(data, places)):
        reader = FrameReader(max_bytes=1_000)
        try:
            outcomes.append([one for chunk in chunks for one in reader.feed(chunk)])
        except BrokenFrameError:
            outcomes.append(None)
    assert outcomes[0] == outcomes[1]


@given(FRAMES.filter(bool), st.data())
def test_a_frame_with_a_wrong_byte_is_a_frame_or_refused(frames: list[Frame], data: Any) -> None:
    whole = bytearray(b"".join(map(frame_bytes, frames)))
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BrokenFrameError):
        assert all(isinstance(one["type"], str) for one in FrameReader(max_bytes=10_000).feed(bytes(whole)))


@pytest.mark.parametrize(
    "body",
    [
        b'{"type":"beat","at":NaN}',
        b'{"type":"beat","at":1e999}',
        b'{"type":"beat","type":"outcome"}',
        b'{"type":"beat","count":' + b"9" * 5_000 + b"}",
        b'{"type":"beat","deep":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
        b'{"type":"\xff\xfe"}',
        b'\xef\xbb\xbf{"type":"beat"}',
        b"[]",
        b'{"type":1}',
        b"{}",
        b"  ",
    ],
    ids=lambda body: repr(body[:24]),
)
def test_json_that_is_dangerous_or_no_frame_is_refused(body: bytes) -> None:
    with pytest.raises(BrokenFrameError):
        FrameReader().feed(raw(body))


@pytest.mark.parametrize("length", [0, 1, 1_001, 2**31, 2**32 - 1])
def test_a_length_is_judged_before_anything_of_it_is_kept(length: int) -> None:
    with pytest.raises(BrokenFrameError, match="2 to 1,000 may be"):
        FrameReader(max_bytes=1_000).feed(struct.pack(">I", length))


def test_what_one_leaf_may_say_is_bounded_and_counted_anew_for_the_next() -> None:
    reader = FrameReader(max_total_bytes=100)
    frame = raw(json.dumps({"type": "beat", "x": "y" * 30}).encode())
    reader.feed(frame)
    reader.begin_anew()
    reader.feed(frame)
    with pytest.raises(BrokenFrameError, match="more than 100 bytes"):
        reader.feed(frame)


def test_a_frame_that_is_too_large_is_not_made() -> None:
    with pytest.raises(BrokenFrameError, match="more than the 100"):
        frame_bytes({"type": "reply", "text": "x" * 100}, max_bytes=100)


@pytest.mark.parametrize("value", [None, "1", True, 1.0, [1]])
def test_a_member_of_another_type_is_refused(value: Any) -> None:
    with pytest.raises(BrokenFrameError, match="'call' of a 'model' frame is no int"):
        member({"type": "model", "call": value}, "call", int)
