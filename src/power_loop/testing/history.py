"""Writes down what clients of a store did and were told, for `check_history` to hold against what the store has."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from power_loop import Effect, PowerLoopError, SessionStore, StatefulResult, ToolContext
from power_loop.records import MessageRecord
from power_loop.storage import OPEN_CALLS, RESUMABLE_SENDS, Accepted, Claim, Lease

T = TypeVar("T")

#: What a client is told with these codes was refused before anything of it was stored. Behind any other error it is
#: open whether the input was taken.
REFUSALS = frozenset(
    {
        "session.busy",
        "session.pending",
        "session.closed",
        "session.not_found",
        "request.conflict",
        "input.invalid",
        "config.invalid",
    }
)


class HistoryLog:
    """Appends to the history of a run, one file for all of its processes; a process that dies loses no line.

        log = HistoryLog("history.jsonl", process="worker-1")
        loop = StatefulAgentLoop(llm=model, store=log.watched(await open_store(dsn)), tool_registry=tools)
        await log.did("send", session_id, loop.send(text, session_id=session_id), input=text)

    `process` is a name that no other process of the run has, one that was started again included. Times are those of
    the machine's monotonic clock, which its processes share.
    """

    def __init__(self, path: str | os.PathLike[str], *, process: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self.process = process
        self._count = 0
        self._seen: dict[str, _Seen] = {}

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    async def did(self, kind: str, session_id: str, act: Awaitable[T], **what: Any) -> T:
        """Await an operation of a client and write down when it began, when it ended, and what it was told.

        `what` goes into the history; `input` is a text that no other operation has but one with the same `request_id`.
        """
        operation = self._begin(kind, session_id, what)
        try:
            value = await act
        except PowerLoopError as error:
            self._end(operation, "fail" if error.code in REFUSALS else "info", code=error.code)
            raise
        except BaseException as error:
            self._end(operation, "info", code=type(error).__name__)
            raise
        self._end(operation, "fail" if _is_nothing(value) else "ok", **_told(value))
        return value

    def note(self, kind: str, session_id: str | None = None, **what: Any) -> None:
        """Write down what happened at one moment: `died` (with `process`), or whatever one likes to find later."""
        self._write(phase="note", kind=kind, session_id=session_id, what=what)

    def answered(self, session_id: str | None, text: str, *, input_tokens: int, output_tokens: int) -> None:
        """Write down an answer that a model gave, and what it cost; its text is that of no other answer."""
        self.note("answer", session_id, text=text, tokens=[input_tokens, output_tokens])

    def effect(self, context: ToolContext, effect: Effect | str, *, stage: str = "had") -> None:
        """Write down that a tool is about to have its effect (`stage="began"`), or has had it."""
        self.note(
            "effect",
            context.session_id,
            stage=stage,
            key=context.idempotency_key,
            call_id=context.call_id,
            effect=Effect(effect).value,
            attempt=context.attempt,
        )

    def watched(self, store: SessionStore) -> SessionStore:
        """Return a store that does what this one does, and writes down every move under a lease."""
        watched: Any = _WatchedStore(self, store)
        found: SessionStore = watched
        return found

    async def look(self, store: SessionStore, session_id: str) -> None:
        """Read a session and write down how long its log was, its digest, and what had come to its end by then."""
        operation = self._begin("look", session_id, {})
        seen = self._seen.setdefault(session_id, _Seen())
        # Another look may be on its way in this process.
        chain = copy.copy(seen.chain)
        for record in await store.get_messages(session_id, after_seq=chain.last_seq):
            chain.add(record)
        seen.chain = max(chain, seen.chain, key=lambda one: one.count)
        told: dict[str, Any] = {"count": chain.count, "digest": chain.digest, "sends": {}, "calls": {}}
        for call in await store.get_calls(session_id):
            if call.state not in OPEN_CALLS and call.call_id not in seen.calls:
                seen.calls.add(call.call_id)
                told["calls"][f"{call.reply_seq}.{call.index}"] = call.state.value
        session = await store.get_session(session_id)
        for index in range(seen.sends + 1, session.send_count + 1):
            send = await store.get_send(session_id, index=index)
            if send is None or send.status in RESUMABLE_SENDS:
                break
            seen.sends = max(index, seen.sends)
            told["sends"][str(index)] = send.status.value
        self._end(operation, "ok", **told)

    def _begin(self, kind: str, session_id: str, what: Mapping[str, Any]) -> str:
        self._count += 1
        operation = f"{self.process}/{self._count}"
        self._write(phase="invoke", id=operation, kind=kind, session_id=session_id, what=what)
        return operation

    def _end(self, operation: str, outcome: str, **told: Any) -> None:
        self._write(phase=outcome, id=operation, told=told)

    def _write(self, **line: Any) -> None:
        line |= {"at": time.monotonic_ns(), "process": self.process}
        os.write(self._file, json.dumps(line, default=str).encode() + b"\n")


class _WatchedStore:
    """Hands everything on, and writes down the moves whose first argument is a lease or a claim to one."""

    def __init__(self, log: HistoryLog, store: SessionStore) -> None:
        self._log = log
        self._watched = store

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._watched, name)
        return self._noted(name, value) if callable(value) else value

    def _noted(self, move: str, act: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **options: Any) -> Any:
            who = args[0] if args else None
            if not isinstance(who, (Lease, Claim)):
                return act(*args, **options)
            what = {"move": move, "owner": who.owner, "epoch": getattr(who, "epoch", None)}
            if isinstance(who, Claim):
                what["ttl_s"] = who.ttl_s
            at_seq = options.get("at_seq", getattr(args[1], "at_seq", None) if len(args) > 1 else None)
            if at_seq is not None:
                what["at_seq"] = at_seq
            return self._log.did("move", who.session_id, act(*args, **options), **what)

        return noted


class Chain:
    """Is the digest of a log up to somewhere, so that two readers can tell that they saw the same."""

    def __init__(self) -> None:
        self.count = 0
        self.last_seq = 0
        self.digest = ""

    def add(self, record: MessageRecord) -> None:
        """Go on with the next message."""
        self.count += 1
        self.last_seq = record.seq
        self.digest = hashlib.sha256(f"{self.digest}{record!r}".encode()).hexdigest()[:16]


@dataclass(slots=True)
class _Seen:
    """Is what this process has read of a session and written down."""

    chain: Chain = field(default_factory=Chain)
    sends: int = 0
    calls: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Operation:
    """Is what a client did. `outcome` is `ok`, `fail` (nothing of it was stored) or `info` (that is open).

    `ended_ns` is None where its process died before it was told. `told` is what it was told.
    """

    id: str
    process: str
    kind: str
    session_id: str
    what: dict[str, Any]
    invoked_ns: int
    outcome: str = "info"
    ended_ns: int | None = None
    told: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Note:
    """Is what happened at one moment."""

    kind: str
    session_id: str | None
    process: str
    at_ns: int
    what: dict[str, Any]


@dataclass(slots=True)
class History:
    """Is what the processes of a run wrote down, in the order in which they did."""

    operations: list[Operation] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)


def read_history(path: str | os.PathLike[str]) -> History:
    """Read a history. Raises ValueError for a file that is none."""
    history = History()
    by_id: dict[str, Operation] = {}
    for line in _lines(Path(path)):
        at, process, phase = line["at"], line["process"], line["phase"]
        if phase == "note":
            history.notes.append(Note(line["kind"], line["session_id"], process, at, line["what"]))
        elif phase == "invoke":
            operation = Operation(line["id"], process, line["kind"], line["session_id"], line["what"], at)
            by_id[operation.id] = operation
            history.operations.append(operation)
        else:
            operation = by_id[line["id"]]
            operation.outcome, operation.ended_ns, operation.told = phase, at, line["told"]
    return history


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for number, text in enumerate(file, 1):
            try:
                yield json.loads(text)
            except ValueError as error:  # noqa: PERF203 - a line of its own is what is wrong
                raise ValueError(f"{path}, line {number}, is no line of a history: {text!r:.200}") from error


def _is_nothing(value: Any) -> bool:
    """Tell whether a result says that nothing came of it, as that of a send that was cancelled before its turn does."""
    return isinstance(value, StatefulResult) and not value.send_index and value.status.value != "queued"


def _told(value: Any) -> dict[str, Any]:
    if isinstance(value, StatefulResult):
        return {
            "status": value.status.value,
            "send_index": value.send_index,
            "text": value.final_text,
            "is_replayed": value.is_replayed,
        }
    if isinstance(value, Accepted):
        return {
            "epoch": value.lease.epoch,
            "next_seq": value.next_seq,
            "send_index": value.send_index,
            "previous_owner": value.previous_owner,
        }
    return {"value": value} if isinstance(value, (bool, int, str)) else {}
