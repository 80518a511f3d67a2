"""Keeps what a handle knows of a session between its turns, which is never more than what the store knows."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any

from power_loop.contracts.explanation import SegmentKind
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
    user_message,
)
from power_loop.contracts.records import (
    FoldRecord,
    MessageRecord,
    ModelCallRecord,
    ProjectedMessage,
    SessionView,
)
from power_loop.core.context import texts
from power_loop.core.context.tokens import estimate_message
from power_loop.core.context.transcript import Transcript

#: How many sessions' windows a cache keeps, and about how many bytes of messages.
MAX_SESSIONS = 1_000
MAX_BYTES = 256 * 1024 * 1024

# What a message and a part take beside their text; wires keep about as much again as the text itself.
_MESSAGE_BYTES = 600
_PART_BYTES = 150
_COPIES = 2


class Window:
    """Is one session as a turn sees it: what stands behind its newest fold, the transcript that this amounts to, and
    its head's facts.

    The transcript begins with the fold's summary and what it pinned; then come, in order, finished sends as the
    projection shows them and messages as they are. `version` counts the edits of prompt and metadata, `next_seq` is the
    seq of the next message, `epoch` the lease's epoch at which this was known; `tool_state` is the session's dict for
    tools, `last_call` the last model call. `shows_records` tells that a row of the projection lists calls. A turn that
    changes a window owns it: it takes it out of the cache, and puts it back when what it holds is what the store holds.
    """

    __slots__ = (
        "_entries",
        "_pinned",
        "_runs",
        "epoch",
        "fold",
        "last_call",
        "metadata",
        "next_seq",
        "session_id",
        "shows_records",
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
        self.fold: FoldRecord | None = None
        self.last_call: ModelCallRecord | None = None
        self.shows_records = False
        self.transcript = Transcript()
        self._pinned: list[Entry] = []
        self._entries: list[Entry] = []
        self._runs: list[Run] = []

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
        window.fold = view.fold
        window.last_call = view.last_call
        window._pinned = [_entry_of(record) for record in view.pinned]
        entries = [Entry(one.seq, one.to_seq, one.message, is_projected=True) for one in view.projected]
        entries += map(_entry_of, view.messages)
        window._entries = sorted(entries, key=attrgetter("seq"))
        window._show()
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
            entry = Entry(self.next_seq, self.next_seq, message)
            self._entries.append(entry)
            self._add(entry, SegmentKind.MESSAGES)
            self.next_seq += 1

    def take_fold(self, fold: FoldRecord) -> None:
        """Show a fold that was stored in place of what it covers."""
        at = {entry.seq: entry for entry in (*self._pinned, *self._entries)}
        self._pinned = [at[seq] for seq in fold.pinned_seqs if seq in at]
        self._entries = [entry for entry in self._entries if entry.seq > fold.to_seq]
        self.fold = fold
        self._show()

    def take_projection(self, rows: Sequence[ProjectedMessage]) -> None:
        """Show rows of the projection that were stored in place of what they stand for."""
        if not rows:
            return
        first, last = rows[0].seq, rows[-1].to_seq
        kept = [entry for entry in self._entries if not first <= entry.seq <= last]
        kept += [Entry(row.seq, row.to_seq, row.message, is_projected=True) for row in rows]
        self._entries = sorted(kept, key=attrgetter("seq"))
        self._show()

    def is_current(self, next_seq: int, version: int, *, epoch: int | None = None) -> bool:
        """Tell whether the session's head still stands where this window was filled.

        With the `epoch` of a lease that was just taken, also whether nobody held the lease in between: only that shows
        a change of `tool_state`, which moves neither of the others.
        """
        is_same = self.next_seq == next_seq and self.version == version
        return is_same and (epoch is None or epoch == self.epoch + 1)

    @property
    def first_seq(self) -> int:
        """The seq of the first message that no fold covers."""
        return 1 if self.fold is None else self.fold.to_seq + 1

    @property
    def pinned(self) -> Sequence[Entry]:
        """What the fold covers and shows all the same; do not change it."""
        return self._pinned

    @property
    def runs(self) -> Sequence[Run]:
        """What the transcript is made of, in order; do not change it."""
        return self._runs

    @property
    def entries(self) -> Sequence[Entry]:
        """What stands behind the fold, in order; do not change it."""
        return self._entries

    def messages_since(self, seq: int) -> list[tuple[int, Message]]:
        """Return what stands behind the fold from `seq` on as it is in the log, each message with its seq, in order."""
        found: list[tuple[int, Message]] = []
        for entry in reversed(self._entries):
            if entry.seq < seq or entry.is_projected:
                break
            found.append((entry.seq, entry.message))
        return found[::-1]

    def message_at(self, seq: int) -> Message | None:
        """Return the message of this seq, if the window shows it as it is."""
        entries = (*self._pinned, *reversed(self._entries))
        return next((entry.message for entry in entries if entry.seq == seq and not entry.is_projected), None)

    def last_text(self, *, since_seq: int = 1) -> tuple[int, str] | None:
        """Return the seq and the text of the last reply that says something, if it stands at `since_seq` or later and
        no fold covers it."""
        for entry in reversed(self._entries):
            if entry.seq < since_seq or entry.is_projected:
                return None
            message = entry.message
            if message.role is Role.ASSISTANT and (text := message.text or message.refusal):
                return entry.seq, text
        return None

    def last_reply(self) -> Message | None:
        """Return the last reply behind the fold."""
        entries = reversed(self._entries)
        return next((entry.message for entry in entries if entry.message.role is Role.ASSISTANT), None)

    def has_call(self, call_id: str) -> bool:
        """Tell whether a call that the window shows has this id."""
        return self.transcript.has_call(call_id)

    def _show(self) -> None:
        """Make the transcript anew."""
        self.size_bytes = 0
        self.transcript = Transcript()
        self._runs = []
        self.shows_records = False
        if self.fold is not None:
            self._add(Entry(1, self.fold.to_seq, fold_message(self.fold)), SegmentKind.FOLD)
        for entry in self._pinned:
            self._add(entry, SegmentKind.PINNED)
        for entry in self._entries:
            self._add(entry, SegmentKind.MESSAGES if entry.is_as_it_was else SegmentKind.PROJECTED)

    def _add(self, entry: Entry, kind: SegmentKind) -> None:
        message = entry.message
        if entry.is_projected and message.role is Role.ASSISTANT:
            self.shows_records = self.shows_records or texts.has_record(message.text)
        self.size_bytes += _MESSAGE_BYTES + sum(map(_part_bytes, message.parts))
        self.transcript.append(message)
        runs = self._runs
        if kind is SegmentKind.PROJECTED and len(runs) > 1 and runs[-1].is_projected and runs[-2].kind is kind:
            # What stood between two sends that are shown in short belongs to them, so that the runs stay few.
            between = runs.pop()
            runs[-1].tokens += between.tokens
        if not runs or runs[-1].kind is not kind:
            runs.append(Run(kind, entry.seq))
        run = runs[-1]
        run.to_seq = entry.to_seq
        run.tokens += estimate_message(message)
        run.is_projected = run.is_projected and entry.is_projected


class Entry:
    """Is one message that a window shows for the log from `seq` to `to_seq`: a message of the log as it is, or a row of
    the projection."""

    __slots__ = ("is_projected", "message", "seq", "to_seq")

    def __init__(self, seq: int, to_seq: int, message: Message, *, is_projected: bool = False) -> None:
        self.seq = seq
        self.to_seq = to_seq
        self.message = message
        self.is_projected = is_projected

    @property
    def is_as_it_was(self) -> bool:
        """True where it shows what the log would: what the projection writes itself comes from no model."""
        return not self.is_projected or self.message.role is Role.USER or self.message.origin is not None


class Run:
    """Is a stretch of the transcript of one kind: which part of the log it stands for, and about how many tokens it
    takes; `is_projected` where all of it comes from rows of the projection."""

    __slots__ = ("from_seq", "is_projected", "kind", "to_seq", "tokens")

    def __init__(self, kind: SegmentKind, from_seq: int) -> None:
        self.kind = kind
        self.from_seq = self.to_seq = from_seq
        self.tokens = 0
        self.is_projected = True


def fold_message(fold: FoldRecord) -> Message:
    """Return how a fold is shown to the model."""
    return shown_fold(fold.summary, fold.to_seq)


def shown_fold(summary: str, to_seq: int) -> Message:
    """Return how a summary that stands for the log up to `to_seq` is shown to the model."""
    return user_message(texts.folded(summary, to_seq=to_seq))


def _entry_of(record: MessageRecord) -> Entry:
    return Entry(record.seq, record.seq, record.message)


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
