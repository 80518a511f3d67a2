"""Keeps what a handle knows of a session between its turns, which is never more than what the store knows."""

from __future__ import annotations

import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from power_loop.contracts.messages import (
    Message,
    OpaquePart,
    Part,
    ReasoningPart,
    RefusalPart,
    Role,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from power_loop.contracts.records import SessionView
from power_loop.core.context.transcript import Transcript

#: How many sessions' windows a cache keeps, and about how many bytes of messages.
MAX_SESSIONS = 1_000
MAX_BYTES = 256 * 1024 * 1024

# What a message and a part take beside their text; wires keep about as much again as the text itself.
_MESSAGE_BYTES = 600
_PART_BYTES = 150
_COPIES = 2


class Window:
    """Is one session as a turn sees it: its log in order, the transcript that it amounts to, and its head's facts.

    `version` counts the edits of prompt and metadata, `next_seq` is the seq of the next message, `epoch` the lease's
    epoch at which this was known; `tool_state` is the session's dict for tools. A turn that changes a window owns it:
    it takes it out of the cache, and puts it back when what it holds is what the store holds.
    """

    __slots__ = (
        "_messages",
        "_seqs",
        "epoch",
        "metadata",
        "next_seq",
        "session_id",
        "size_bytes",
        "system_prompt",
        "tool_state",
        "transcript",
        "version",
    )

    def __init__(
        self,
        session_id: str,
        *,
        system_prompt: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        tool_state: Mapping[str, Any] | None = None,
        version: int = 0,
        epoch: int = 0,
    ) -> None:
        self.session_id = session_id
        self.system_prompt = system_prompt
        self.metadata: Mapping[str, Any] = {} if metadata is None else metadata
        self.tool_state: Mapping[str, Any] = {} if tool_state is None else tool_state
        self.version = version
        self.epoch = epoch
        self.next_seq = 1
        self.size_bytes = 0
        self.transcript = Transcript()
        self._messages: list[Message] = []
        self._seqs = array("q")

    @classmethod
    def of(cls, view: SessionView) -> Window:
        """Return the window of a session that was read from the store."""
        session = view.session
        window = cls(
            session.id,
            system_prompt=session.system_prompt,
            metadata=session.metadata,
            tool_state=view.tool_state,
            version=session.version,
            epoch=session.epoch,
        )
        for record in view.messages:
            window._add(record.message, record.seq)
        window.next_seq = session.next_seq
        return window

    def append(self, messages: Iterable[Message], first_seq: int | None = None) -> None:
        """Take messages that were appended to the log, from `first_seq` on (default: where the window ends).

        A gap is refused with a ValueError: what lies in it would be missing for good.
        """
        if first_seq is not None and first_seq != self.next_seq:
            raise ValueError(
                f"window of session {self.session_id!r} ends before seq {self.next_seq}, and the messages begin at"
                f" {first_seq}: read the session anew"
            )
        for message in messages:
            self._add(message, self.next_seq)

    def is_current(self, next_seq: int, version: int, *, epoch: int | None = None) -> bool:
        """Tell whether the session's head still stands where this window was filled.

        With the `epoch` of a lease that was just taken, also whether nobody held the lease in between: only that shows
        a change of `tool_state`, which moves neither of the others.
        """
        is_same = self.next_seq == next_seq and self.version == version
        return is_same and (epoch is None or epoch == self.epoch + 1)

    @property
    def messages(self) -> Sequence[Message]:
        """The log in order, as it is; do not change it."""
        return self._messages

    def last_text(self, *, since_seq: int = 1) -> tuple[int, str] | None:
        """Return the seq and the text of the last reply that says something, if it stands at `since_seq` or later."""
        for message, seq in zip(reversed(self._messages), reversed(self._seqs), strict=True):
            if seq < since_seq:
                return None
            if message.role is Role.ASSISTANT and (text := message.text or message.refusal):
                return seq, text
        return None

    def has_call(self, call_id: str) -> bool:
        """Tell whether a call of this session has this id."""
        return self.transcript.has_call(call_id)

    def _add(self, message: Message, seq: int) -> None:
        self._messages.append(message)
        self._seqs.append(seq)
        self.next_seq = seq + 1
        self.size_bytes += _MESSAGE_BYTES + sum(map(_part_bytes, message.parts))
        self.transcript.append(message)


class WindowCache:
    """Keeps the windows of the sessions used last, within limits; safe to share between threads.

    `take` hands a window out for good: one that a turn was changing when it failed is simply gone, and the next turn
    reads the session anew.
    """

    def __init__(self, *, max_sessions: int = MAX_SESSIONS, max_bytes: int = MAX_BYTES) -> None:
        self._max_sessions = max_sessions
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._windows: OrderedDict[str, tuple[Window, int]] = OrderedDict()
        self._size_bytes = 0

    def __len__(self) -> int:
        return len(self._windows)

    @property
    def size_bytes(self) -> int:
        """About how many bytes the windows take."""
        return self._size_bytes

    def take(self, session_id: str) -> Window | None:
        """Return the session's window, which is no longer in the cache then; None if there is none."""
        with self._lock:
            return self._take(session_id)

    def put(self, window: Window) -> None:
        """Keep a window as the one used last; those used longest ago leave if there is no room."""
        with self._lock:
            self._take(window.session_id)
            self._windows[window.session_id] = (window, window.size_bytes)
            self._size_bytes += window.size_bytes
            while self._windows and (len(self._windows) > self._max_sessions or self._size_bytes > self._max_bytes):
                _, (_, size_bytes) = self._windows.popitem(last=False)
                self._size_bytes -= size_bytes

    def _take(self, session_id: str) -> Window | None:
        found = self._windows.pop(session_id, None)
        if found is None:
            return None
        self._size_bytes -= found[1]
        return found[0]


def _part_bytes(part: Part) -> int:
    """Return about how many bytes a part takes in memory, its encoded form included."""
    if isinstance(part, TextPart):
        chars = len(part.text)
    elif isinstance(part, ToolResultPart):
        chars = sum(map(_part_bytes, part.content))
    elif isinstance(part, ToolCallPart):
        chars = len(part.arguments)
    elif isinstance(part, ReasoningPart):
        chars = len(part.text) + len(part.raw or "")
    elif isinstance(part, OpaquePart):
        chars = len(part.raw)
    elif isinstance(part, RefusalPart):
        chars = len(part.text)
    else:
        chars = len(part.data or "")
    return _PART_BYTES + _COPIES * chars
