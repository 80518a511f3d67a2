"""A response on its way out: frames and bytes that a fault may still change before they leave."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

from .request import Wire


class ScriptError(Exception):
    """The script asks for something that the wire cannot carry."""


@dataclass(frozen=True, slots=True)
class Hang:
    """Send nothing more until the gate of this name is released."""

    gate: str = ""


@dataclass(frozen=True, slots=True)
class Pause:
    """Send nothing for this many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Cut:
    """Close the connection here; with `reset` by a TCP reset, which also throws away what was not read yet."""

    reset: bool = False


Signal = Hang | Pause | Cut
Piece = bytes | Signal


@dataclass(slots=True)
class Frame:
    """One event of a stream.

    `kind` is one of start, delta, finish, usage, done, other.
    `raw` replaces the encoding; `endless` repeats it for ever.
    """

    kind: str
    payload: Any = None
    event: str | None = None
    raw: bytes | None = None
    signal: Signal | None = None
    endless: bool = False


def encode_json(value: Any) -> bytes:
    """Compact JSON in UTF-8; a text with lone surrogates is sent escaped, as it cannot be encoded."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


@dataclass
class Reply:
    """A response before it is sent.

    A stream has `frames`, a whole response has `body`. The layout fields say how frames become bytes; `filters` change
    the bytes after that. `final_chunk=False` closes without the chunk that ends a chunked body.
    """

    wire: Wire
    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list)
    frames: list[Frame] | None = None
    body: bytes | Iterable[bytes] = b""
    line_ends: tuple[bytes, ...] = (b"\n",)
    after_colon: bytes = b" "
    multiline: bool = False
    filters: list[Callable[[Iterator[Piece]], Iterator[Piece]]] = field(default_factory=list)
    final_chunk: bool = True

    @property
    def stream(self) -> list[Frame]:
        """The frames, for a fault that only a stream can have."""
        self.require_stream()
        assert self.frames is not None
        return self.frames

    def require_stream(self) -> None:
        """Raise ScriptError if this is no stream."""
        if self.frames is None:
            raise ScriptError("this fault is one of a stream, and the request asked for none")

    def place_after(self, deltas: int) -> int:
        """The index in the frames right after so many content deltas (0: right before the first)."""
        seen = 0
        for place, frame in enumerate(self.stream):
            if frame.kind == "delta":
                if seen == deltas:
                    return place
                seen += 1
                if seen == deltas:
                    return place + 1
        if seen == deltas == 0:
            return len(self.stream)
        raise ScriptError(f"the answer has {seen} deltas, the fault wants {deltas}")

    def insert_after(self, deltas: int, *frames: Frame) -> None:
        """Put frames right after so many content deltas."""
        place = self.place_after(deltas)
        self.stream[place:place] = frames

    def pieces(self) -> Iterator[Piece]:
        """What leaves, piece by piece: bytes to send as one chunk each, and signals."""
        if self.frames is not None:
            flow: Iterator[Piece] = self._encoded(self.frames)
        elif isinstance(self.body, bytes):
            flow = iter((self.body,))
        else:
            flow = iter(self.body)
        for one in self.filters:
            flow = one(flow)
        return flow

    def _encoded(self, frames: Iterable[Frame]) -> Iterator[Piece]:
        ends = cycle(self.line_ends)
        for frame in frames:
            if frame.signal is not None:
                yield frame.signal
                continue
            encoded = frame.raw if frame.raw is not None else self._encode(frame, ends)
            yield encoded
            while frame.endless:
                yield encoded

    def _encode(self, frame: Frame, ends: Iterator[bytes]) -> bytes:
        lines = [] if frame.event is None else [b"event:" + self.after_colon + frame.event.encode()]
        if isinstance(frame.payload, bytes):
            data = [frame.payload]
        elif self.multiline:
            data = json.dumps(frame.payload, indent=1).encode().split(b"\n")
        else:
            data = [encode_json(frame.payload)]
        lines += [b"data:" + self.after_colon + line for line in data]
        return b"".join(line + next(ends) for line in [*lines, b""])


Fault = Callable[[Reply], None]
