"""Is the wire between a worker and its parent: JSON objects with their length in front, in both directions.

A frame is four bytes of length, the highest first, and so many bytes of JSON: an object whose `type` says what it is.
Nothing here waits or reads: bytes go in, frames come out, however the bytes are cut. What breaks a rule ends the talk.

    worker                                   parent
    hello   protocol, version, pid        ->
                                          <- leaf      leaf, task, bootstrap, folder, model
    begun   leaf                          ->
    beat                                  ->           while it runs, so that silence says something
    event   leaf, event, values           ->
    model   leaf, call, request           ->
                                          <- deltas    call, deltas
                                          <- reply     call, response      (or failed: call, error)
    drop    leaf, call                    ->           the call is not waited for any more
                                          <- cancel    leaf, reason
    outcome leaf, outcome                 ->           the last one of this leaf
"""

from __future__ import annotations

import json
import struct
from typing import Any

from power_loop.contracts.json_schema.text import InvalidJson, loads_strict

#: The version of this protocol: both sides have to speak the same.
PROTOCOL = 1
#: The largest frame. A request carries a whole conversation, with the images and files in it.
MAX_FRAME_BYTES = 64_000_000
#: The least of what one worker may say about one leaf before it is ended: a long conversation, said anew each round.
MAX_LEAF_BYTES = 4_000_000_000
#: How often a worker shows that it is alive, and how long it may be silent while it has a leaf.
BEAT_S, SILENCE_S = 2.0, 30.0

_LENGTH = struct.Struct(">I")

Frame = dict[str, Any]


class BrokenFrameError(ValueError):
    """Says what is wrong with what the other side sent; nothing that it sends may be trusted any more."""


def frame_bytes(frame: Frame, *, max_bytes: int = MAX_FRAME_BYTES) -> bytes:
    """Return a frame as it goes over the wire. Raises `BrokenFrameError` for one that is too large."""
    body = json.dumps(frame, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii")
    if len(body) > max_bytes:
        raise BrokenFrameError(f"a frame of {len(body):,} bytes is more than the {max_bytes:,} that are allowed")
    return _LENGTH.pack(len(body)) + body


class FrameReader:
    """Makes frames of bytes as they come. `max_total_bytes` is what may come until `begin_anew`."""

    __slots__ = ("_data", "_max_bytes", "_max_total", "_total")

    def __init__(self, *, max_bytes: int = MAX_FRAME_BYTES, max_total_bytes: int = MAX_LEAF_BYTES) -> None:
        self._data = bytearray()
        self._max_bytes = max_bytes
        self._max_total = max_total_bytes
        self._total = 0

    @property
    def is_between_frames(self) -> bool:
        """True where an end of the stream cuts nothing off."""
        return not self._data

    def begin_anew(self) -> None:
        """Count what comes from nothing on."""
        self._total = 0

    def feed(self, data: bytes) -> list[Frame]:
        """Take the next bytes and return the frames that they complete. Raises `BrokenFrameError`."""
        self._total += len(data)
        if self._total > self._max_total:
            raise BrokenFrameError(f"more than {self._max_total:,} bytes came about one leaf")
        self._data += data
        frames: list[Frame] = []
        start = 0
        while len(self._data) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._data, start)
            if not 2 <= length <= self._max_bytes:
                raise BrokenFrameError(f"a frame says that it has {length:,} bytes: 2 to {self._max_bytes:,} may be")
            end = start + _LENGTH.size + length
            if len(self._data) < end:
                break
            frames.append(_frame(bytes(self._data[start + _LENGTH.size : end]), self._max_bytes))
            start = end
        del self._data[:start]
        return frames


def _frame(body: bytes, max_bytes: int) -> Frame:
    try:
        frame = loads_strict(body, max_chars=max_bytes)
    except InvalidJson as error:
        raise BrokenFrameError(f"a frame is no JSON that is read here: {error}") from error
    if not isinstance(frame, dict) or not isinstance(frame.get("type"), str):
        raise BrokenFrameError("a frame is no object with a 'type'")
    return frame


def member(frame: Frame, name: str, kind: type[Any]) -> Any:
    """Return a member of a frame. Raises `BrokenFrameError` where it is missing or of another type."""
    value = frame.get(name)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise BrokenFrameError(f"the {name!r} of a {frame['type']!r:.100} frame is no {kind.__name__}")
    return value
