"""An archive is a session, byte for byte, on every backend; and what is no archive leaves no trace."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from power_loop.contracts.errors import (
    InputError,
    InvalidArchiveError,
    SessionBusyError,
    SessionExistsError,
    SessionForkedError,
    SessionNotFoundError,
    SessionPendingError,
)
from power_loop.contracts.explanation import Segment, SegmentKind
from power_loop.contracts.llm import Usage
from power_loop.contracts.messages import ImagePart, Message, Role, TextPart
from power_loop.contracts.records import NewReply, NewSend, ProjectedMessage, SendEnd
from power_loop.contracts.states import CallState, SendStatus
from power_loop.runtime.store.archive_format import LEFT_OUT, LINES
from power_loop.runtime.store.open import open_store
from power_loop.runtime.store.sql.tables import TABLES
from power_loop.runtime.store.store import SqlSessionStore
from power_loop.testing.conformance.folds import fold
from power_loop.testing.conformance.projections import row
from tests.conformance.backends import BACKENDS
from tests.conformance.histories import grow
from tests.conformance.parts import (
    COMPLETED,
    HandClock,
    accepted,
    answer,
    claim,
    model_call,
    new_send,
    new_session,
    one_send,
    reply,
    reply_with_calls,
    result_step,
    step,
    waiting_call,
)

# A fresh database for each example is what takes the time.
SESSIONS_AT_ONCE = 4
ANY = settings(
    max_examples=5, deadline=None, suppress_health_check=list(HealthCheck), phases=(Phase.explicit, Phase.generate)
)


def without_header(archive: bytes) -> bytes:
    return archive.partition(b"\n")[2]


async def a_long_session(store: SqlSessionStore) -> None:
    """Make a session that has a row of every kind."""
    await new_session(store, system_prompt="be 😀", metadata={"a": [1, 2.5, None]})
    held = await store.accept(claim("sess_1"), new_send("hi", request_id="r1", options={"x": 1}))
    await store.append_reply(held.lease, reply_with_calls(held, "c1", "c2"))
    steps = [result_step(2, 0, "c1", "a part", whole=(TextPart("whole"),)), result_step(2, 1, "c2")]
    await store.advance_calls(held.lease, steps, at_seq=3, send_index=1, round=1, tool_state={"n": 1})
    await store.append_reply(held.lease, reply(held, at_seq=5, round=2, end=COMPLETED))
    await one_send(store, "sess_1")
    picture = Message(Role.USER, (ImagePart(data=BIG),))
    held = await store.accept(claim("sess_1"), NewSend(picture, "h3", {}))
    for wanted in (fold(2, send_index=3), fold(5, send_index=3, pinned_seqs=(1,), usage=Usage(5, 2), text_seq=5)):
        await store.append_fold(held.lease, wanted, at_seq=9)
    call = model_call(estimated_tokens=9, segments=(Segment(SegmentKind.MESSAGES, 9, 6, 8),))
    rows = (ProjectedMessage(8, 8, picture), row(9, 9))
    end = SendEnd(SendStatus.COMPLETED, {"text_seq": 9}, rows)
    await store.append_reply(held.lease, NewReply(9, 3, 1, (answer(),), call, end=end))


BIG = "QUJD" * 1024
# What is held for calls that run ends with them: a call that had started runs on in the store where it is. A timer
# fires where it was made, and nowhere a second time. Of a run no archive is made.
_OF_RUNS = ("workflow_runs", "workflow_steps", "workflow_signals")
NOT_OF_A_SESSION = ("schema_migrations", "memories", "budget_holds", "timers", *_OF_RUNS)


@pytest.mark.promise("portable-archive")
async def test_out_in_and_out_again_is_the_same_bytes(store: SqlSessionStore) -> None:
    await a_long_session(store)
    archive = await store.export_session("sess_1")
    assert await store.import_session(archive, session_id="copy") == "copy"
    assert without_header(await store.export_session("copy")) == without_header(archive)
    await store.delete_session("sess_1")
    assert await store.import_session(archive.decode()) == "sess_1", "text does as well"
    assert await store.export_session("sess_1") == archive
    assert await store.get_tool_result("sess_1", "c1") == (TextPart("whole"),)
    assert (await store.read_view("sess_1")).tool_state == {"n": 1}
    stats, copied = await store.get_stats("sess_1"), await store.get_stats("copy")
    assert (stats.usage, stats.tool_calls, stats.stored_bytes) == (copied.usage, copied.tool_calls, copied.stored_bytes)


@pytest.mark.promise("portable-archive")
@pytest.mark.parametrize("backend", BACKENDS, ids=[backend.name for backend in BACKENDS])
@given(data=st.data())
@ANY
def test_sessions_of_any_shape_are_the_same_on_every_backend(backend: Any, data: st.DataObject) -> None:
    """The reference is a database in memory, so that each backend is held against every other one by it."""

    async def run() -> None:
        clock, same_clock = HandClock(), HandClock()
        reference = await open_store(":memory:", clock=same_clock)
        try:
            async with backend.fresh() as place:
                store = await place.open(clock)
                try:
                    for number in range(SESSIONS_AT_ONCE):
                        drawn: list[Any] = []
                        session_id = f"sess_{number}"
                        draw = lambda one, drawn=drawn: _kept(drawn, data.draw(one))  # noqa: E731
                        await grow(store, clock, draw, session_id)
                        again = iter(drawn)
                        await grow(reference, same_clock, lambda _, again=again: next(again), session_id)
                        await _compare(reference, store, session_id)
                finally:
                    await store.aclose()
        finally:
            await reference.aclose()

    asyncio.run(run())


def _kept(drawn: list[Any], value: Any) -> Any:
    drawn.append(value)
    return value


async def _compare(reference: SqlSessionStore, store: SqlSessionStore, session_id: str) -> None:
    # The same moves give the same archive.
    archive = await store.export_session(session_id)
    assert await reference.export_session(session_id) == archive
    # From there to here, and from here to there.
    came, back = f"{session_id}_came", f"{session_id}_back"
    await reference.import_session(archive, session_id=came)
    assert without_header(await reference.export_session(came)) == without_header(archive)
    await store.import_session(await reference.export_session(session_id), session_id=back)
    assert without_header(await store.export_session(back)) == without_header(archive)


async def test_a_fork_is_exported_with_its_whole_history(store: SqlSessionStore) -> None:
    await a_long_session(store)
    fork = await store.fork_session("sess_1", at=6, fork_id="fork")
    await one_send(store, fork)
    second = await store.fork_session(fork, fork_id="second")
    await one_send(store, second, "more")
    archive = await store.export_session(second)
    await store.import_session(archive, session_id="own")
    assert without_header(await store.export_session("own")) == without_header(archive)
    assert (await store.get_session("own")).forked_from is None
    own, shared = await store.read_view("own"), await store.read_view(second)
    assert own.messages == shared.messages
    assert own.tool_state == shared.tool_state
    assert await store.get_calls("own") == await store.get_calls(second)
    assert await store.get_tool_result("own", "c1") == (TextPart("whole"),)
    assert (await store.get_stats("own")).usage == (await store.get_stats(second)).usage
    for index in (1, 2, 3, 4):
        mine, theirs = await store.get_send("own", index=index), await store.get_send(second, index=index)
        assert mine is not None
        assert theirs is not None
        assert (mine.status, mine.first_seq, mine.rounds, mine.usage) == (
            *(theirs.status, theirs.first_seq, theirs.rounds, theirs.usage),
        )


async def test_a_session_in_mid_turn_arrives_as_after_a_crash_and_nobody_holds_it(store: SqlSessionStore) -> None:
    await new_session(store)
    held = await waiting_call(store, "sess_1", "c1", "c2", "c3")
    steps = [step(2, 0, CallState.STARTED, attempt=1), step(2, 1, CallState.WAITING, prompt="may I?")]
    await store.advance_calls(held.lease, steps, at_seq=3, send_index=1, round=1)
    approved = step(2, 1, CallState.REQUESTED, is_approved=True, arguments='{"b":2}')
    await store.advance_calls(held.lease, [approved], at_seq=3, send_index=1, round=1)
    await store.import_session(await store.export_session("sess_1"), session_id="copy")
    head = await store.get_session("copy")
    assert (head.owner, head.lease_until_ms) == (None, 0)
    calls = await store.get_calls("copy")
    assert [call.state for call in calls] == [CallState.STARTED, CallState.REQUESTED, CallState.REQUESTED]
    assert [call.idempotency_key for call in calls] == ["key-c1", "key-c2", "key-c3"], "so that receivers know them"
    assert not calls[1].is_approved, "an approval is not carried along"
    assert calls[1].arguments == '{"b":2}'
    with pytest.raises(SessionPendingError):
        await accepted(store, "copy", "bob")
    taken = await store.take_up(claim("copy", "bob"))
    assert (taken.send_index, taken.next_seq) == (1, 3)
    await store.renew(held.lease, ttl_s=5)
    assert (await store.get_session("sess_1")).owner == "alice", "and the original goes on"


async def test_what_an_id_has_already_decides_the_caller(store: SqlSessionStore) -> None:
    await a_long_session(store)
    archive = await store.export_session("sess_1")
    with pytest.raises(SessionExistsError, match="on_conflict"):
        await store.import_session(archive)
    renamed = await store.import_session(archive, on_conflict="rename")
    assert renamed.startswith("sess_")
    assert renamed != "sess_1"
    assert await store.import_session(archive, session_id="free", on_conflict="rename") == "free"
    await one_send(store, "sess_1")
    epoch = (await store.get_session("sess_1")).epoch
    assert await store.import_session(archive, on_conflict="replace") == "sess_1"
    assert await store.export_session("sess_1") == archive
    assert (await store.get_session("sess_1")).epoch > epoch, "so that no process goes on from what it knew"


@pytest.mark.parametrize("choice", ["rename", "replace"])
async def test_many_who_import_the_same_at_once_each_get_what_they_asked_for(
    store: SqlSessionStore, choice: str
) -> None:
    await a_long_session(store)
    archive = await store.export_session("sess_1")
    await store.delete_session("sess_1")
    ids = await asyncio.gather(*[store.import_session(archive, on_conflict=choice) for _ in range(6)])
    assert set(ids) >= {"sess_1"}
    assert len(set(ids)) == (6 if choice == "rename" else 1)
    there = (await store.list_sessions()).items
    assert {one.id for one in there} == set(ids)
    for one in there:
        again = await store.export_session(one.id)
        assert without_header(again) == without_header(archive)


async def test_what_is_held_or_shared_is_not_replaced(store: SqlSessionStore) -> None:
    await a_long_session(store)
    archive = await store.export_session("sess_1")
    fork = await store.fork_session("sess_1")
    with pytest.raises(SessionForkedError):
        await store.import_session(archive, on_conflict="replace")
    await store.delete_session(fork)
    await accepted(store, "sess_1")
    with pytest.raises(SessionBusyError):
        await store.import_session(archive, on_conflict="replace")
    assert len(await store.get_messages("sess_1")) == 10


async def test_what_cannot_be_exported_or_imported_is_told(store: SqlSessionStore) -> None:
    for session_id in ("sess_0", "../x", ""):
        with pytest.raises(SessionNotFoundError):
            await store.export_session(session_id)
    await new_session(store)
    archive = await store.export_session("sess_1")
    with pytest.raises(InputError):
        await store.import_session(archive, session_id="a/b")
    with pytest.raises(InvalidArchiveError, match="max_bytes=10"):
        await store.import_session(archive, max_bytes=10)


# ---- hostile archives ----


def sealed(lines: list[Any], **header: Any) -> bytes:
    """Return an archive of lines, of which the first is the header, with the checksum and counts that fit."""
    body = b"".join(
        (line if isinstance(line, bytes) else json.dumps(line, ensure_ascii=False).encode("utf-8", "surrogatepass"))
        + b"\n"
        for line in lines[1:]
    )
    counts = {kept.word: 0 for kept in LINES}
    for line in lines[1:]:
        for word in line if isinstance(line, dict) else ():
            counts[word] = counts.get(word, 0) + 1
    head = {**lines[0], "counts": counts, "sha256": hashlib.sha256(body).hexdigest(), **header}
    return json.dumps(head).encode() + b"\n" + body


def opened(archive: bytes) -> list[Any]:
    return [json.loads(line) for line in archive.decode().splitlines()]


def _set(word: str, name: str, value: Any, *, nth: int = 0) -> Callable[[list[Any]], None]:
    def change(lines: list[Any]) -> None:
        [row for row in lines[1:] if word in row][nth][word][name] = value

    return change


def _drop(word: str, *, nth: int = 0) -> Callable[[list[Any]], None]:
    def change(lines: list[Any]) -> None:
        lines.remove([row for row in lines[1:] if word in row][nth])

    return change


def _double(word: str, *, nth: int = 0) -> Callable[[list[Any]], None]:
    def change(lines: list[Any]) -> None:
        row = [row for row in lines[1:] if word in row][nth]
        lines.insert(lines.index(row), row)

    return change


DEEP = "[" * 100_000 + "]" * 100_000


def _pruned_to_the_end(lines: list[Any]) -> None:
    for name, value in (("to_seq", 10), ("last_seq", 10), ("pruned_at_ms", 1)):
        _set("fold", name, value, nth=1)(lines)


def _unshown() -> dict[str, Any]:
    data = BIG + "RUY="
    return {"digest": hashlib.sha256(data.encode()).hexdigest(), "created_at_ms": 1, "data": data}


CHANGES: dict[str, Callable[[list[Any]], None]] = {
    "a gap in the log": _drop("message", nth=2),
    "a seq twice": _double("message", nth=2),
    "a seq out of order": _set("message", "seq", 9),
    "a log that ends early": _set("session", "next_seq", 5),
    "no first message": _set("session", "next_seq", 0),
    "an unknown role": _set("message", "role", "system"),
    "a role that its parts do not fit": _set("message", "role", "tool"),
    "an unknown state": _set("session", "state", "on fire"),
    "an unknown status": _set("send", "status", "done"),
    "a status that is never stored": _set("send", "status", "no_send"),
    "a send that runs before another": _set("send", "status", "running"),
    "a send less": _drop("send", nth=1),
    "a send that begins elsewhere": _set("send", "first_seq", 2),
    "a send that begins before the one before": _set("send", "first_seq", 1, nth=1),
    "a message of another send": _set("message", "send_index", 2),
    "a message of no send": _set("message", "send_index", 77),
    "a request id that is none": _set("send", "request_id", ""),
    "a request id twice": _set("send", "request_id", "r1", nth=1),
    "a body that is none": _set("message", "body", "hello"),
    "a body of another shape": _set("message", "body", '{"parts":[{"type":"rm -rf"}]}'),
    "a body with room for more": _set("message", "body", '{"parts":[{"type":"text","text":"hi"}], "x":1}'),
    "a body that is nested without end": _set("message", "body", DEEP),
    "metadata that is no object": _set("details", "metadata", "[1]"),
    "metadata that is nested without end": _set("details", "metadata", f'{{"a":{DEEP}}}'),
    "metadata with a key twice": _set("details", "metadata", '{"a":1,"a":2}'),
    "metadata with NaN": _set("details", "metadata", '{"a":NaN}'),
    "metadata with a number beyond all": _set("details", "metadata", '{"a":1e999}'),
    "metadata with a very long number": _set("details", "metadata", '{"a":' + "9" * 5000 + "}"),
    "a number that no column holds": _set("message", "created_at_ms", 1 << 63),
    "a negative number": _set("message", "round", -1),
    "a number that is text": _set("message", "round", "1"),
    "a number that is true": _set("message", "round", True),
    "a number with a fraction": _set("message", "round", 1.0),
    "a number that makes sums overflow": _set("model_call", "input_tokens", 10**13),
    "text that is a number": _set("message", "role", 1),
    "text that is missing": _set("message", "body", None),
    "a NUL": _set("details", "system_prompt", "a\0b"),
    "half a character": _set("details", "system_prompt", "\ud800"),
    "an id that is too long": _set("tool_call", "call_id", "c" * 300),
    "a reply that is none": _set("model_call", "reply_seq", 1),
    "a reply beyond the log": _set("model_call", "reply_seq", 99),
    "a model call twice": _double("model_call"),
    "a call of no reply": _set("tool_call", "reply_seq", 1),
    "a call that nobody asked for": _set("tool_call", "call_id", "c9"),
    "a call twice": _double("tool_call"),
    "a call less": _drop("tool_call"),
    "a call without its answer": _set("tool_call", "result_seq", None),
    "an answer to another call": _set("tool_call", "result_seq", 4),
    "an answer before the question": _set("tool_call", "result_seq", 1),
    "an unknown effect": _set("tool_call", "effect", "free"),
    "an open call before the last send": _set("tool_call", "state", "requested"),
    "a flag that is none": _set("tool_call", "is_approved", 2),
    "a whole result of no call": _set("tool_result", "idx", 7),
    "a whole result that is none": _set("tool_result", "body", "[[]]"),
    "a mark with more in it": _set("tool_result", "body", '{"pruned_at_ms":1,"size_bytes":1,"x":1}'),
    "a mark without a time": _set("tool_result", "body", '{"size_bytes":1}'),
    "more inputs gone than came": _set("session", "inbox_taken", 3),
    "inputs that are not there": _set("session", "inbox_count", 3),
    "a fold that begins elsewhere": _set("fold", "from_seq", 2, nth=1),
    "a fold less": _drop("fold"),
    "a fold beyond the log": _set("fold", "to_seq", 99, nth=1),
    "a fold of a log that was longer": _set("fold", "last_seq", 99),
    "a fold that stands before its own end": _set("fold", "last_seq", 4, nth=1),
    "a fold of no send": _set("fold", "send_index", 9),
    "a fold that pins what it does not cover": _set("fold", "pinned", '{"seqs":[6]}', nth=1),
    "a fold that pins nothing": _set("fold", "pinned", "[]"),
    "a fold that pins a text": _set("fold", "pinned", '{"seqs":["1"]}'),
    "a fold that pins twice": _set("fold", "pinned", '{"seqs":[1,1]}'),
    "a fold whose answer it does not cover": _set("fold", "text_seq", 6, nth=1),
    "a fold that makes sums overflow": _set("fold", "input_tokens", 10**13),
    "a fold with a flag that is none": _set("fold", "is_estimated", 2),
    "a fold without its summary": _set("fold", "summary", None),
    "a pruned fold at the end of the log": lambda lines: _pruned_to_the_end(lines),
    "a row for no message": _set("projected", "to_seq", 99, nth=1),
    "a row that ends before it begins": _set("projected", "to_seq", 7),
    "rows that overlap": _set("projected", "to_seq", 9),
    "a row that calls": _set(
        "projected", "body", '{"parts":[{"type":"tool_call","id":"c","name":"n","arguments":""}]}'
    ),
    "a row of no role": _set("projected", "role", "god"),
    "data that is not there": _drop("blob"),
    "data under another digest": _set("blob", "data", BIG + "RA=="),
    "data that is small": _set("blob", "data", "QUJD"),
    "data that nothing shows": lambda lines: lines.append({"blob": {**_unshown()}}),
    "data twice": _double("blob"),
    "segments that are none": _set("model_call", "segments", "[7]"),
    "segments of no kind": _set("model_call", "segments", '[["god",1,1,1,null,null]]'),
    "segments that hold a list": _set("model_call", "segments", '[["system",[],null,null,null,null]]'),
    "segments that are nested without end": _set("model_call", "segments", DEEP),
    "an unknown column": _set("message", "is_admin", 1),
    "a lease": _set("session", "owner", "mallory"),
    "an unknown kind": lambda lines: lines.append({"gift": {}}),
    "two kinds in a line": lambda lines: lines.append({"message": {}, "send": {}}),
    "a row that is a list": lambda lines: lines.append({"input": []}),
    "a line that is a number": lambda lines: lines.append(7),
    "a line that is nested without end": lambda lines: lines.append(DEEP.encode()),
    "a line that is no JSON": lambda lines: lines.append(b'{"message":'),
    "a line that is no UTF-8": lambda lines: lines.append(b'{"message":"\xff"}'),
    "a key twice": lambda lines: lines.append(b'{"message":{"seq":1,"seq":2}}'),
    "NaN": lambda lines: lines.append(b'{"message":{"seq":NaN}}'),
    "kinds in another order": lambda lines: lines.append(lines.pop(1)),
    "two heads": _double("session"),
    "no head": _drop("session"),
    "no details": _drop("details"),
}


@pytest.mark.promise("hostile-archive")
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
async def test_an_archive_that_does_not_fit_together_is_refused(change: Callable[[list[Any]], None]) -> None:
    store = await open_store(":memory:", clock=HandClock())
    try:
        await a_long_session(store)
        lines = opened(await store.export_session("sess_1"))
        await store.import_session(sealed(lines), session_id="unchanged")
        change(lines)
        with pytest.raises(InvalidArchiveError) as raised:
            await store.import_session(sealed(lines), session_id="changed")
        assert raised.value.line >= 1
        assert f"line {raised.value.line}: " in raised.value.message
        assert len(raised.value.message) < 1000
        with pytest.raises(SessionNotFoundError):
            await store.get_session("changed")
    finally:
        await store.aclose()


@pytest.mark.promise("hostile-archive")
async def test_who_pays_for_a_send_stays_where_it_came_from() -> None:
    store = await open_store(":memory:", clock=HandClock())
    try:
        await a_long_session(store)
        await store.put_input("sess_1", new_send("later", request_id="later"))
        lines = opened(await store.export_session("sess_1", include_inbox=True))
        for word in ("send", "input"):
            _set(word, "options", '{"payer":["sess_1",1],"temperature":0}')(lines)
        await store.import_session(sealed(lines), session_id="changed")
        sent, waiting = await store.get_send("changed", index=1), await store.get_inbox("changed")
        assert sent is not None
        assert sent.options == {"temperature": 0}
        assert waiting[0].options == {"temperature": 0}
    finally:
        await store.aclose()


@pytest.mark.parametrize(
    "header",
    [
        {"version": 4},
        {"version": 0},
        {"version": True},
        {"version": "1"},
        {"format": "zip"},
        {"session_id": "../../etc/passwd"},
        {"session_id": "C:\\x"},
        {"session_id": ""},
        {"session_id": None},
        {"session_id": "a" * 65},
        {"counts": {}},
        {"counts": None},
        {"sha256": None},
        {"sha256": "0" * 64},
        {"padding": "x" * 10_000},
    ],
)
async def test_a_header_that_is_none_is_refused(header: dict[str, Any]) -> None:
    store = await open_store(":memory:", clock=HandClock())
    try:
        await a_long_session(store)
        archive = sealed(opened(await store.export_session("sess_1")), **header)
        await store.delete_session("sess_1")
        with pytest.raises(InvalidArchiveError, match="line 1: "):
            await store.import_session(archive)
        assert (await store.list_sessions()).items == ()
    finally:
        await store.aclose()


@pytest.mark.parametrize("junk", [b"", b"\n", b"{}", b"null\n", b"PK\x03\x04", "é\ud800", None, 7, ["a"], b"[" * 1000])
async def test_what_is_no_archive_at_all_is_refused(junk: Any) -> None:
    store = await open_store(":memory:", clock=HandClock())
    try:
        with pytest.raises(InvalidArchiveError):
            await store.import_session(junk)
    finally:
        await store.aclose()


@pytest.mark.promise("hostile-archive")
@given(data=st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_mutated_archive_is_refused_or_is_a_session(data: st.DataObject) -> None:
    """Bytes are changed with and without a checksum that fits; what is taken can be read to its end."""

    async def run() -> None:
        store = await open_store(":memory:", clock=HandClock())
        try:
            await a_long_session(store)
            archive = bytearray(await store.export_session("sess_1"))
            for _ in range(data.draw(st.integers(1, 3))):
                at = data.draw(st.integers(0, len(archive) - 1))
                cut = data.draw(st.integers(0, 12))
                archive[at : at + cut] = data.draw(st.binary(max_size=8))
            changed = bytes(archive)
            if data.draw(st.booleans()):
                changed = _sealed_again(changed)
            try:
                await store.import_session(changed, session_id="mutant")
            except InvalidArchiveError:
                assert len((await store.list_sessions()).items) == 1
                return
            await store.read_view("mutant")
            await store.get_calls("mutant")
            await store.get_stats("mutant")
            again = await store.export_session("mutant")
            await store.import_session(again, session_id="again")
            assert (await store.get_send("mutant")) is not None
        finally:
            await store.aclose()

    asyncio.run(run())


def _sealed_again(archive: bytes) -> bytes:
    head, _, body = archive.partition(b"\n")
    try:
        header = json.loads(head)
        header["sha256"] = hashlib.sha256(body).hexdigest()
        return json.dumps(header).encode() + b"\n" + body
    except (ValueError, TypeError):
        return archive


def test_every_column_is_in_an_archive_or_left_out_by_name() -> None:
    """A new column of a session's rows has to be decided on: it changes the format, so that its version counts up."""
    kept = {(line.table.name, column.name) for line in LINES for column in line.columns}
    left_out = {(table, name) for table, names in LEFT_OUT.items() for name in names}
    all_columns = {(table.name, column.name) for table in TABLES for column in table.columns}
    not_of_a_session = {(table, name) for table, name in all_columns if table in NOT_OF_A_SESSION}
    ids = {(table.name, "session_id") for table in TABLES} & all_columns
    assert kept | left_out | not_of_a_session | ids == all_columns
    assert sorted(kept) == sorted((table, name) for table, names in VERSION_3.items() for name in names.split())
    for older in (VERSION_1, VERSION_2):
        assert kept >= {(table, name) for table, names in older.items() for name in names.split()}


async def test_an_archive_of_version_1_is_read_and_its_data_stays_where_it_is(store: SqlSessionStore) -> None:
    await a_long_session(store)
    lines = opened(await store.export_session("sess_1"))
    reference = f'"blob":"{hashlib.sha256(BIG.encode()).hexdigest()}"'
    kept: list[Any] = [{**lines[0], "version": 1}]
    for line in lines[1:]:
        [(word, values)] = line.items()
        if word in ("fold", "projected", "blob", "board", "entry", "budget"):
            continue
        names = {
            kept_line.word: VERSION_1[kept_line.table.name] for kept_line in LINES if kept_line.table.name in VERSION_1
        }
        old = {name: values[name] for name in names[word].split()}
        if "body" in old and old["body"] is not None:
            old["body"] = old["body"].replace(reference, f'"data":"{BIG}"')
        kept.append({word: old})
    archive = sealed(kept, counts={one: sum(one in line for line in kept[1:]) for one in names})
    await store.import_session(archive, session_id="old")
    assert await store.get_messages("old") == await store.get_messages("sess_1")
    assert [one async for one in store.diagnose("old")] == []
    again = await store.export_session("old")
    assert await store.import_session(again, session_id="again") == "again"
    assert await store.get_messages("again") == await store.get_messages("sess_1")
    with pytest.raises(InvalidArchiveError, match="none of"):
        await store.import_session(sealed([*kept, lines[-1]], counts=dict.fromkeys(names, 0)), session_id="mixed")


VERSION_1: dict[str, str] = {
    "inbox": "body created_at_ms input_hash options position request_id send_index seq taken_at_ms",
    "messages": "body created_at_ms role round send_index seq",
    "model_calls": (
        "attempts cache_write_tokens cached_input_tokens created_at_ms duration_ms input_tokens "
        "is_estimated model output_tokens provider_id reasoning_tokens reply_seq request_id round "
        "send_index stop"
    ),
    "sends": ("attempts ended_at_ms first_seq idx input_hash options request_id result started_at_ms status"),
    "session_details": "metadata system_prompt tool_state",
    "sessions": "created_at_ms inbox_count inbox_taken next_seq send_count state updated_at_ms version",
    "tool_calls": (
        "arguments attempt call_id effect ended_at_ms idempotency_key idx is_approved is_keyed name "
        "prompt reply_seq result_seq send_index started_at_ms state wait_data wait_kind"
    ),
    "tool_results": "body idx reply_seq",
}
VERSION_2: dict[str, str] = {
    **VERSION_1,
    "model_calls": f"{VERSION_1['model_calls']} estimated_tokens segments",
    "folds": (
        "cache_write_tokens cached_input_tokens created_at_ms from_seq input_tokens is_estimated last_seq model "
        "model_calls output_tokens pinned pruned_at_ms reasoning_tokens refused_by refused_tokens round send_index "
        "strategy summary text_seq to_seq tokens_after tokens_before"
    ),
    "project_messages": "body created_at_ms role seq to_seq",
    "blobs": "created_at_ms data digest",
}
VERSION_3: dict[str, str] = {
    **VERSION_2,
    "model_calls": f"{VERSION_2['model_calls']} cost_nanos",
    "folds": f"{VERSION_2['folds']} cost_nanos",
    "budgets": (
        "created_at_ms deadline_at_ms lost_cost_nanos lost_tokens max_cost_nanos max_ms max_tokens max_tool_calls "
        "send_index spent_cost_nanos spent_tokens spent_tool_calls"
    ),
    "blackboards": "version",
    "blackboard_entries": "author_session_id created_at_ms entry_key updated_at_ms value version",
}


async def test_a_send_that_waits_for_a_person_goes_with_the_archive(store: SqlSessionStore) -> None:
    await new_session(store)
    held = await waiting_call(store, "sess_1", "c1")
    waits = step(2, 0, CallState.WAITING, prompt="how many?", wait_data={"max": 3})
    end = SendEnd(SendStatus.WAITING_FOR_INPUT, {})
    await store.advance_calls(held.lease, [waits], at_seq=3, send_index=1, round=1, end=end)
    await store.import_session(await store.export_session("sess_1"), session_id="copy")
    view = await store.read_view("copy")
    assert view.send is not None
    assert view.send.status is SendStatus.WAITING_FOR_INPUT
    assert [(call.prompt, call.wait_data) for call in view.calls] == [("how many?", {"max": 3})]
