"""The doctor: each kind of damage is found, what can be mended is, and the session goes on; a healthy store is left
alone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from power_loop import Approve, LoopConfig, SendStatus, StatefulAgentLoop, ToolDefinition, open_store, tool
from power_loop.contracts.messages import ImagePart, Message, Role, TextPart, user_message
from power_loop.contracts.records import Claim, ModelCall, NewFold, NewReply, NewSend, ProjectedMessage, SendEnd
from power_loop.errors import SessionNotFoundError, StoreCorruptError
from power_loop.records import Finding, FindingKind
from power_loop.runtime.store.codec import MIN_BLOB_CHARS
from power_loop.testing import ScriptedLLM, call, calls

from .bank import Bank, bank, town
from .conftest import MakeLoop
from .parts import within_limit
from .test_recovery import EVERY, TOOLS, every_death

__all__ = ["bank", "town"]


@tool
def act(n: int) -> str:
    """Act."""
    return f"acted {n} " + "x" * 200


@tool(requires_approval=True)
def ask(n: int) -> str:
    """Ask first."""
    return "approved"


SMALL = ToolDefinition("act", "Act.", act.input_schema, act.handler, max_result_chars=50)


def model(request: Any) -> Any:
    last = request.messages[-1]
    return "Done." if last.tool_result is not None else calls(("act", {"n": 1}), ("act", {"n": 2}))


def loop_on(make_loop: MakeLoop, bank: Bank, llm: Any = None) -> StatefulAgentLoop:
    chosen = llm or ScriptedLLM([model], repeat_last=True)
    return make_loop(llm=chosen, store=bank.store, tool_registry=[SMALL, ask])


async def two_sends(make_loop: MakeLoop, bank: Bank, *others: str) -> StatefulAgentLoop:
    """Return a loop with sessions of two sends each: user, reply, two answers, reply."""
    loop = loop_on(make_loop, bank)
    for sid in (bank.sid, *others):
        await loop.new_session(session_id=sid)
        for text in ("one", "two"):
            assert (await loop.send(text, session_id=sid)).is_completed
    return loop


async def found(bank: Bank, session_id: str | None = None, *, repair: bool = False) -> list[Finding]:
    """Return what is found of the test's own sessions: others left theirs damaged in the same store."""
    told = [finding async for finding in bank.store.diagnose(session_id, repair=repair)]
    return [finding for finding in told if finding.session_id in (bank.sid, bank.other)]


async def _problems(bank: Bank) -> list[Finding]:
    return [finding for finding in await found(bank) if finding.is_problem]


async def test_a_healthy_store_has_nothing_to_find(make_loop: MakeLoop, bank: Bank) -> None:
    await two_sends(make_loop, bank)
    assert await found(bank) == []
    assert await found(bank, bank.sid, repair=True) == []
    with pytest.raises(SessionNotFoundError):
        await found(bank, "sess_9")


ORPHAN_CALL = (
    "INSERT INTO {p}tool_calls (session_id, reply_seq, idx, send_index, call_id, name, arguments, effect, state,"
    " attempt, idempotency_key, is_keyed, is_approved) VALUES ('{sid}', 6, 9, 2, 'lost', 'act', '{{}}', 'once',"
    " 'requested', 0, 'k', 0, 0)"
)
BUDGET = (
    "INSERT INTO {p}budgets (session_id, send_index, spent_tokens, spent_cost_nanos, spent_tool_calls, lost_tokens,"
    " lost_cost_nanos, created_at_ms) VALUES "
)
HOLD = (
    "INSERT INTO {p}budget_holds (session_id, number, level, budget_session_id, budget_send_index, is_settled, tokens,"
    " cost_nanos, tool_calls, sure_tokens, sure_cost_nanos, created_at_ms)"
    " VALUES ('{sid}', 1, 0, 'sess_root', 1, 0, 5, 0, 0, 5, 0, 0)"
)
# Damage: what is done to the rows of a session, the check that finds it.
MENDED = [
    ("UPDATE {p}sessions SET next_seq = 4 WHERE id = '{sid}'", "session.next_seq"),
    ("UPDATE {p}sessions SET next_seq = 40 WHERE id = '{sid}'", "session.next_seq"),
    ("UPDATE {p}sessions SET send_count = 7 WHERE id = '{sid}'", "session.send_count"),
    ("UPDATE {p}sessions SET send_count = 0 WHERE id = '{sid}'", "session.send_count"),
    ("UPDATE {p}sessions SET inbox_count = 3 WHERE id = '{sid}'", "inbox.counts"),
    ("UPDATE {p}sessions SET owner = 'gone', lease_until_ms = 5 WHERE id = '{sid}'", "lease.left"),
    ("DELETE FROM {p}session_details WHERE session_id = '{sid}'", "session.details"),
    ("UPDATE {p}sessions SET parent_id = 'gone', root_id = 'gone', depth = 1 WHERE id = '{sid}'", "session.orphaned"),
    ("UPDATE {p}sends SET paid_by = 'gone', paid_by_send = 1 WHERE session_id = '{sid}' AND idx = 2", "send.unpaid"),
    ("UPDATE {p}sends SET status = 'running' WHERE session_id = '{sid}' AND idx = 1", "send.left_behind"),
    ("UPDATE {p}sends SET status = 'waiting_for_input' WHERE session_id = '{sid}' AND idx = 2", "send.left_behind"),
    ("UPDATE {p}sends SET status = 'running' WHERE session_id = '{sid}' AND idx = 2", "send.unattended"),
    ("UPDATE {p}tool_calls SET state = 'started' WHERE session_id = '{sid}' AND reply_seq = 7", "call.answered"),
    ("UPDATE {p}tool_calls SET result_seq = NULL WHERE session_id = '{sid}' AND reply_seq = 2", "call.result_seq"),
    ("UPDATE {p}tool_calls SET result_seq = 999 WHERE session_id = '{sid}' AND reply_seq = 2", "call.result_seq"),
    (
        ORPHAN_CALL,
        "call.orphaned",
    ),
    (
        "INSERT INTO {p}tool_results (session_id, reply_seq, idx, body) VALUES ('{sid}', 2, 9, '[]')",
        "result.orphaned",
    ),
    (
        HOLD,
        "budget.held",
    ),
    (f"{BUDGET} ('{{sid}}', 7, 0, 0, 0, 0, 0, 0)", "budget.orphaned"),
]
TIMER = (
    "INSERT INTO {p}timers (id, session_id, state, made_by, schedule, body, input_hash, number, planned_at_ms,"
    " due_at_ms, wake_at_ms, epoch, delivered, missed, vetoed, failures, created_at_ms, op)"
    " VALUES ('tmr_{sid}', '{sid}', 'armed', 'model', '{{\"kind\": \"at\", \"at_ms\": 5}}',"
    ' \'{{"parts":[{{"type":"text","text":"x"}}]}}\', \'\', 1, 5, 5, 9000000000000, 0, 0, 0, 0, 0, 1, \'\')'
)
CANNOT_BE = [
    (TIMER.replace('"at_ms": 5', '"at_ms": -5'), "timer.damaged"),
    (TIMER.replace("'armed'", "'ticking'"), "timer.damaged"),
    (TIMER.replace("parts", "pieces"), "timer.damaged"),
    (TIMER.replace("'armed'", "'done'"), "timer.state"),
    (TIMER.replace("0, 0, 0, 0, 0, 1", "0, -1, 0, 0, 0, 1"), "timer.damaged"),
    ("DELETE FROM {p}messages WHERE session_id = '{sid}' AND seq = 5", "log.gap"),
    ("DELETE FROM {p}messages WHERE session_id = '{sid}' AND seq = 1", "send.orphaned"),
    ("UPDATE {p}messages SET body = '{{\"parts\":[' WHERE session_id = '{sid}' AND seq = 4", "log.damaged"),
    ("UPDATE {p}messages SET role = 'ghost' WHERE session_id = '{sid}' AND seq = 4", "log.damaged"),
    ("UPDATE {p}sends SET options = 'no' WHERE session_id = '{sid}' AND idx = 1", "send.damaged"),
    ("UPDATE {p}sends SET status = 'fine' WHERE session_id = '{sid}' AND idx = 1", "send.damaged"),
    ("UPDATE {p}sends SET attempts = -1 WHERE session_id = '{sid}' AND idx = 1", "send.damaged"),
    ("UPDATE {p}sends SET idx = 9 WHERE session_id = '{sid}' AND idx = 2", "send.gap"),
    ("UPDATE {p}sessions SET epoch = -4 WHERE id = '{sid}'", "session.damaged"),
    ("UPDATE {p}session_details SET metadata = '[]' WHERE session_id = '{sid}'", "session.damaged"),
    ("UPDATE {p}tool_calls SET effect = 'magic' WHERE session_id = '{sid}' AND reply_seq = 2", "call.damaged"),
    ("DELETE FROM {p}tool_calls WHERE session_id = '{sid}' AND reply_seq = 2 AND idx = 0", "log.call_without_row"),
    ("UPDATE {p}model_calls SET reply_seq = 6 WHERE session_id = '{sid}' AND reply_seq = 7", "usage.orphaned"),
    (f"{BUDGET} ('{{sid}}', 1, 29, 0, 0, 0, 0, 0)", "budget.unpaid"),
    (f"{BUDGET} ('{{sid}}', 1, 30, 0, -1, 0, 0, 0)", "budget.damaged"),
    ("UPDATE {p}model_calls SET input_tokens = -1 WHERE session_id = '{sid}' AND reply_seq = 7", "usage.damaged"),
    ("UPDATE {p}model_calls SET segments = '[[5]]' WHERE session_id = '{sid}' AND reply_seq = 7", "usage.damaged"),
    ("UPDATE {p}model_calls SET send_index = 1 WHERE session_id = '{sid}' AND reply_seq = 7", "usage.damaged"),
    ("UPDATE {p}tool_calls SET send_index = 1 WHERE session_id = '{sid}' AND reply_seq = 7", "call.damaged"),
    ("UPDATE {p}tool_results SET body = 'no' WHERE session_id = '{sid}' AND reply_seq = 2", "result.damaged"),
    ("UPDATE {p}tool_results SET body = '{{' WHERE session_id = '{sid}' AND reply_seq = 2", "result.damaged"),
    ("UPDATE {p}messages SET send_index = 1 WHERE session_id = '{sid}' AND seq = 9", "log.send"),
    ("UPDATE {p}messages SET send_index = 1 WHERE session_id = '{sid}' AND seq > 5", "log.send"),
    ("DELETE FROM {p}sends WHERE session_id = '{sid}'", "send.gap"),
    # Of what happened there the rows of the calls are all that is left.
    ("DELETE FROM {p}messages WHERE session_id = '{sid}' AND seq = 7", "call.orphaned"),
    ("DELETE FROM {p}messages WHERE session_id = '{sid}' AND seq > 6", "call.orphaned"),
    # Its seq is not given to another message, which the send would take for its own.
    ("DELETE FROM {p}messages WHERE session_id = '{sid}' AND seq > 5", "session.next_seq"),
]


# What stands for a log: folds, the projection, and the data of images. The session has two folds, up to 5 and 9, rows
# for 12 to 13 and 14 to 15, and one image, which message 11 shows.
FOLDED_MENDED = [
    ("UPDATE {p}folds SET from_seq = 2 WHERE session_id = '{sid}' AND to_seq = 5", "fold.range"),
    ("UPDATE {p}folds SET from_seq = 4 WHERE session_id = '{sid}' AND to_seq = 9", "fold.range"),
    ("DELETE FROM {p}folds WHERE session_id = '{sid}' AND to_seq = 5", "fold.range"),
    ("UPDATE {p}project_messages SET body = '{{' WHERE session_id = '{sid}' AND seq = 12", "projection.damaged"),
    ("UPDATE {p}project_messages SET role = 'ghost' WHERE session_id = '{sid}' AND seq = 14", "projection.damaged"),
    ("UPDATE {p}project_messages SET to_seq = 99 WHERE session_id = '{sid}' AND seq = 14", "projection.orphaned"),
    ("UPDATE {p}project_messages SET to_seq = 11 WHERE session_id = '{sid}' AND seq = 12", "projection.orphaned"),
    ("UPDATE {p}project_messages SET to_seq = 14 WHERE session_id = '{sid}' AND seq = 12", "projection.overlap"),
    (
        "INSERT INTO {p}blobs (session_id, digest, created_at_ms, data) VALUES ('{sid}', 'd', 1, 'x')",
        "blob.orphaned",
    ),
]
FOLDED_CANNOT_BE = [
    ("UPDATE {p}folds SET to_seq = 99 WHERE session_id = '{sid}' AND to_seq = 9", "fold.range"),
    ("UPDATE {p}folds SET last_seq = 99 WHERE session_id = '{sid}' AND to_seq = 9", "fold.range"),
    ("UPDATE {p}folds SET last_seq = 8 WHERE session_id = '{sid}' AND to_seq = 9", "fold.range"),
    ("UPDATE {p}folds SET pinned = '{{\"seqs\":[10]}}' WHERE session_id = '{sid}' AND to_seq = 9", "fold.pinned"),
    ("UPDATE {p}folds SET text_seq = 10 WHERE session_id = '{sid}' AND to_seq = 9", "fold.pinned"),
    ("UPDATE {p}folds SET pinned = '{{\"seqs\":[\"x\"]}}' WHERE session_id = '{sid}' AND to_seq = 9", "fold.damaged"),
    ("UPDATE {p}folds SET pinned = 'no' WHERE session_id = '{sid}' AND to_seq = 5", "fold.damaged"),
    ("UPDATE {p}folds SET model_calls = -1 WHERE session_id = '{sid}' AND to_seq = 5", "fold.damaged"),
    ("DELETE FROM {p}blobs WHERE session_id = '{sid}'", "blob.missing"),
    ("UPDATE {p}blobs SET data = REPLACE(data, 'Q', 'R') WHERE session_id = '{sid}'", "blob.damaged"),
]
# What is left of messages that are gone: it is told, and is not removed on top of it.
FOLDED_LEFT = [
    ("DELETE FROM {p}messages WHERE session_id = '{sid}' AND seq = 11", "blob.orphaned"),
    ("DELETE FROM {p}messages WHERE session_id = '{sid}' AND seq = 12", "projection.orphaned"),
    ("DELETE FROM {p}messages WHERE session_id = '{sid}' AND seq > 13", "projection.orphaned"),
    ("UPDATE {p}messages SET role = 'ghost', body = '{{' WHERE session_id = '{sid}' AND seq = 11", "blob.orphaned"),
]


async def a_folded_session(make_loop: MakeLoop, bank: Bank) -> None:
    """Make sends of a message and its answer, of which the two folds were made in the fifth and the sixth."""
    await loop_on(make_loop, bank).new_session(session_id=bank.sid)
    folds = {5: NewFold(5, "Five.", send_index=5, round=0, strategy="s", pinned_seqs=(3,), text_seq=4)}
    folds[6] = NewFold(9, "Nine.", send_index=6, round=0, strategy="s", pinned_seqs=(3, 9))
    for number in range(1, 9):
        image = ImagePart(data="QUJD" * MIN_BLOB_CHARS)
        message = Message(Role.USER, (image,)) if number == 6 else user_message(f"input {number}")
        held = await bank.store.accept(Claim(bank.sid, "somebody", 60.0), NewSend(message, "", {}))
        if number in folds:
            await bank.store.append_fold(held.lease, folds[number], at_seq=held.next_seq)
        answer_seq = held.next_seq
        rows = {6: (ProjectedMessage(12, 13, user_message("six")),), 8: (ProjectedMessage(14, 15, user_message("7")),)}
        await bank.store.append_reply(
            held.lease,
            NewReply(
                answer_seq,
                number,
                1,
                (Message(Role.ASSISTANT, (TextPart("Done."),)),),
                ModelCall("m", "end", None, 1, 1),
                end=SendEnd(SendStatus.COMPLETED, {"text_seq": answer_seq}, rows.get(number, ())),
            ),
        )


def _ids(cases: list[tuple[str, str]]) -> list[str]:
    return [f"{number}-{check}" for number, (_, check) in enumerate(cases)]


@pytest.mark.promise("doctor")
@pytest.mark.parametrize(("damage", "check"), MENDED, ids=_ids(MENDED))
async def test_what_the_rows_tell_is_mended_and_the_session_goes_on(
    make_loop: MakeLoop, bank: Bank, damage: str, check: str
) -> None:
    loop = await two_sends(make_loop, bank)
    log = await loop.get_messages(bank.sid)
    await bank.run(damage.format(p=bank.prefix, sid=bank.sid))
    problems = await _problems(bank)
    assert check in {one.check for one in problems}
    assert {one.session_id for one in problems} == {bank.sid}
    assert await _problems(bank) == problems, "looking changes nothing"
    mended = await found(bank, repair=True)
    assert [one.is_repaired for one in mended if one.check == check] == [True] * len(
        [one for one in problems if one.check == check]
    )
    if check == "send.unattended":
        # Marked as a lease is that ran out, it is one that recover() finds.
        assert [one.check for one in await _problems(bank)] == ["send.stalled"]
        assert (await within_limit(loop.resume(bank.sid))).final_text == "Done."
    assert await _problems(bank) == []
    assert (await loop.get_messages(bank.sid))[: len(log)] == log, "a log is never touched"
    assert (await within_limit(loop.send("on", session_id=bank.sid))).is_completed
    assert await _problems(bank) == []


@pytest.mark.promise("doctor")
@pytest.mark.parametrize(("damage", "check"), CANNOT_BE, ids=_ids(CANNOT_BE))
async def test_what_only_an_invented_fact_would_mend_is_told_and_left(
    make_loop: MakeLoop, bank: Bank, damage: str, check: str
) -> None:
    await two_sends(make_loop, bank)
    await bank.run(damage.format(p=bank.prefix, sid=bank.sid))
    problems = await _problems(bank)
    assert check in {one.check for one in problems}
    assert {one.session_id for one in problems} == {bank.sid}
    await found(bank, repair=True)
    left = await _problems(bank)
    assert [one.message for one in left if one.check == check] == [
        one.message for one in problems if one.check == check
    ]
    assert all(one.repair is None for one in left)


@pytest.mark.promise("doctor")
@pytest.mark.parametrize(("damage", "check"), FOLDED_MENDED, ids=_ids(FOLDED_MENDED))
async def test_what_stands_for_a_log_is_mended_by_the_log(
    make_loop: MakeLoop, bank: Bank, damage: str, check: str
) -> None:
    await a_folded_session(make_loop, bank)
    assert await found(bank) == []
    log = await bank.store.get_messages(bank.sid)
    await bank.run(damage.format(p=bank.prefix, sid=bank.sid))
    problems = await _problems(bank)
    assert [one.check for one in problems] == [check]
    assert [one.is_repaired for one in await found(bank, repair=True)] == [True]
    assert await found(bank) == []
    assert await bank.store.get_messages(bank.sid) == log, "a log is never touched"
    view = await bank.store.read_view(bank.sid, projected=True)
    assert view.fold is not None
    assert view.fold.summary == "Nine."
    shown = [seq for row in view.projected for seq in range(row.seq, row.to_seq + 1)]
    assert sorted([*shown, *(one.seq for one in view.messages)]) == list(range(10, 17))
    assert (await within_limit(loop_on(make_loop, bank).send("on", session_id=bank.sid))).is_completed


@pytest.mark.promise("doctor")
@pytest.mark.parametrize(("damage", "check"), FOLDED_CANNOT_BE, ids=_ids(FOLDED_CANNOT_BE))
async def test_a_summary_or_data_that_no_row_gives_back_is_told_and_left(
    make_loop: MakeLoop, bank: Bank, damage: str, check: str
) -> None:
    await a_folded_session(make_loop, bank)
    await bank.run(damage.format(p=bank.prefix, sid=bank.sid))
    problems = await _problems(bank)
    assert {one.check for one in problems} == {check}
    assert [one.is_repaired for one in await found(bank, repair=True)] == [False] * len(problems)
    assert await _problems(bank) == problems


@pytest.mark.promise("doctor")
@pytest.mark.parametrize(("damage", "check"), FOLDED_LEFT, ids=_ids(FOLDED_LEFT))
async def test_what_is_left_of_a_lost_message_is_told_and_kept(
    make_loop: MakeLoop, bank: Bank, damage: str, check: str
) -> None:
    await a_folded_session(make_loop, bank)
    await bank.run(damage.format(p=bank.prefix, sid=bank.sid))
    problems = await _problems(bank)
    assert check in {one.check for one in problems}
    assert not any(one.is_repaired for one in await found(bank, repair=True) if one.check == check)
    assert [one for one in await _problems(bank) if one.check == check] == [
        one for one in problems if one.check == check
    ]


FORK_DAMAGE = [
    (
        "UPDATE {p}session_details SET lineage = '{{\"ancestors\":[[\"ghost\",10]]}}' WHERE session_id = '{fork}'",
        "fork.lineage",
    ),
    (
        "UPDATE {p}session_details SET lineage = '{{\"ancestors\":[[\"{sid}\",7]]}}' WHERE session_id = '{fork}'",
        "fork.lineage",
    ),
    ("UPDATE {p}sessions SET forked_from = 'ghost' WHERE id = '{fork}'", "fork.lineage"),
    ("UPDATE {p}sessions SET next_seq = 8 WHERE id = '{sid}'", "fork.origin"),
    ("DELETE FROM {p}sessions WHERE id = '{sid}'", "fork.origin"),
]


@pytest.mark.promise("doctor")
@pytest.mark.parametrize(("damage", "check"), FORK_DAMAGE, ids=_ids(FORK_DAMAGE))
async def test_a_fork_is_held_against_the_sessions_whose_log_it_shares(
    make_loop: MakeLoop, bank: Bank, damage: str, check: str
) -> None:
    await two_sends(make_loop, bank)
    fork = await bank.store.fork_session(bank.sid, fork_id=bank.other)
    assert await found(bank, fork) == []
    await bank.run(damage.format(p=bank.prefix, sid=bank.sid, fork=fork))
    problems = await found(bank, fork)
    assert [one.check for one in problems if one.is_problem and one.check.startswith("fork.")][:1] == [check]
    assert await found(bank, fork, repair=True) == problems, "nothing tells which of them is right"


async def test_a_damaged_session_is_not_forked_with_a_raw_error(make_loop: MakeLoop, bank: Bank) -> None:
    await two_sends(make_loop, bank)
    await bank.run(f"DELETE FROM {bank.prefix}messages WHERE session_id = '{bank.sid}' AND seq = 10")
    with pytest.raises(StoreCorruptError, match="message 10 is not there"):
        await bank.store.fork_session(bank.sid)
    await bank.run(f"DELETE FROM {bank.prefix}sends WHERE session_id = '{bank.sid}'")
    with pytest.raises(StoreCorruptError, match="send 2, of which message 9 is, is not there"):
        await bank.store.fork_session(bank.sid, at=9)
    await bank.run(f"DELETE FROM {bank.prefix}session_details WHERE session_id = '{bank.sid}'")
    with pytest.raises(StoreCorruptError, match="its details are not there"):
        await bank.store.fork_session(bank.sid)


@pytest.mark.parametrize(
    ("damage", "check"),
    [
        ("UPDATE pl_model_calls SET reply_seq = 'x' WHERE session_id = '{sid}' AND reply_seq = 2", "usage.damaged"),
        ("UPDATE pl_model_calls SET send_index = 'x' WHERE session_id = '{sid}'", "usage.damaged"),
        ("UPDATE pl_model_calls SET input_tokens = 'x' WHERE session_id = '{sid}'", "usage.damaged"),
        ("UPDATE pl_model_calls SET input_tokens = 1e400 WHERE session_id = '{sid}'", "usage.damaged"),
        ("UPDATE pl_messages SET send_index = 'x' WHERE session_id = '{sid}' AND seq = 4", "log.damaged"),
        (
            "INSERT INTO pl_blobs VALUES ('{sid}', X'00', 1, 'x'), ('{sid}', 'd', 1, X'00')",
            "blob.damaged",
        ),
        ("UPDATE pl_sessions SET next_seq = 'many' WHERE id = '{sid}'", "session.damaged"),
        ("UPDATE pl_sends SET first_seq = X'00' WHERE session_id = '{sid}'", "send.damaged"),
        ("UPDATE pl_tool_calls SET attempt = 'x', state = X'05' WHERE session_id = '{sid}'", "call.damaged"),
        ("UPDATE pl_messages SET body = X'ff00fe' WHERE session_id = '{sid}' AND seq = 4", "log.damaged"),
        ("UPDATE pl_messages SET seq = 'x' WHERE session_id = '{sid}' AND seq = 4", "log.damaged"),
        (
            "UPDATE pl_session_details SET lineage = '{{\"ancestors\": [[\"a\", 1e400]]}}' WHERE session_id = '{sid}'",
            "session.damaged",
        ),
    ],
)
async def test_values_of_the_wrong_kind_are_told_and_end_no_examination(
    make_loop: MakeLoop, dsn: str, damage: str, check: str
) -> None:
    loop = make_loop(calls(("look", {})), "Done.")
    sid = await loop.new_session()
    await loop.send("go", session_id=sid)
    with sqlite3.connect(dsn) as database:
        database.execute(damage.format(sid=sid))
    database.close()
    store = await loop.get_store()
    for repair in (False, True):
        assert check in {one.check async for one in store.diagnose(repair=repair)}
    with contextlib.suppress(StoreCorruptError):
        await store.export_session(sid)


async def test_an_answer_that_comes_twice_or_to_no_call_is_told(make_loop: MakeLoop, bank: Bank) -> None:
    loop = await two_sends(make_loop, bank)
    [first, *_] = await bank.store.get_calls(bank.sid)
    copy = (
        f"INSERT INTO {bank.prefix}messages (session_id, seq, send_index, round, role, body, created_at_ms)"
        f" SELECT session_id, {{seq}}, send_index, round, role, {{body}}, created_at_ms FROM {bank.prefix}messages"
        f" WHERE session_id = '{bank.sid}' AND seq = {first.result_seq}"
    )
    await bank.run(
        copy.format(seq=11, body="body"), copy.format(seq=12, body=f"REPLACE(body, '{first.call_id}', 'nobody')")
    )
    checks = {one.check for one in await _problems(bank)}
    left = {"log.answered_twice", "log.answer_without_call", "log.send"}
    assert checks == {*left, "session.next_seq"}
    await found(bank, repair=True)
    assert {one.check for one in await _problems(bank)} == left
    assert (await within_limit(loop.send("on", session_id=bank.sid))).is_completed


async def test_rows_of_no_session_are_removed_and_those_of_a_forks_history_are_not(
    make_loop: MakeLoop, bank: Bank
) -> None:
    await two_sends(make_loop, bank, bank.other)
    fork = await bank.store.fork_session(bank.other, fork_id=f"{bank.sid}_c")
    assert await found(bank) == []
    await bank.run(*[f"DELETE FROM {bank.prefix}sessions WHERE id = '{sid}'" for sid in (bank.sid, bank.other)])
    orphans = await found(bank, repair=True)
    assert {one.check for one in orphans} == {"row.orphaned"}
    assert {one.session_id for one in orphans if one.is_repaired} == {bank.sid}
    assert {one.session_id for one in orphans if not one.is_repaired} == {bank.other}
    assert {one.session_id for one in await found(bank)} == {bank.other}
    assert len(await bank.store.get_messages(fork)) == 10


INDEX_DAMAGE = {
    "INSERT INTO {i} ({i}) VALUES ('delete-all')": (2, 0),
    "DELETE FROM {i} WHERE rowid = (SELECT MIN(number) FROM {m})": (1, 0),
    "DELETE FROM {m} WHERE number = (SELECT MIN(number) FROM {m})": (0, 1),
    "UPDATE {m} SET terms = (SELECT terms FROM {m} WHERE text = 'likes tea')": (1, 0),
    "UPDATE {m} SET terms = terms || ' ' || terms WHERE text = 'likes tea'": (1, 0),
    "INSERT INTO {i} (rowid, terms) VALUES (7, 'word')": (0, 1),
}


@pytest.mark.promise("doctor")
@pytest.mark.parametrize(("damage", "wrong"), INDEX_DAMAGE.items())
async def test_an_index_of_words_that_is_out_of_step_with_the_memories_is_told_and_built_anew(
    dsn: str, damage: str, wrong: tuple[int, int]
) -> None:
    store = await open_store(dsn)
    if store.memories._rows.full_text is None:
        pytest.skip("SQLite has no FTS5 here")
    for text in ("likes tea", "lives in Paris"):
        await store.memories.add("ann", text)
    assert [one async for one in store.diagnose(repair=True)] == []
    with closing(sqlite3.connect(dsn)) as database, database:
        database.execute(damage.format(i="pl_memories_by_terms", m="pl_memories"))
    [told] = [one async for one in store.diagnose()]
    assert (told.kind, told.check, told.is_repaired) == (FindingKind.INCONSISTENT, "memory.index", False)
    lost, strays = wrong
    assert f"does not find {lost} memories as they are, and finds {strays} that are not there" in told.message
    [mended] = [one async for one in store.diagnose(repair=True)]
    assert mended.is_repaired
    assert [one async for one in store.diagnose()] == []
    left = {one.text for one in await store.memories.newest("ann")}
    assert {one.text for one in await store.memories.search("ann", "tea Paris")} == left
    await store.aclose()


async def test_what_waits_and_what_is_unknown_is_listed_and_is_no_damage(make_loop: MakeLoop, bank: Bank) -> None:
    loop = loop_on(make_loop, bank, ScriptedLLM([call("ask", {"n": 1}, id="c"), "Done."]))
    await loop.new_session(session_id=bank.sid)
    assert (await loop.send("go", session_id=bank.sid)).status is SendStatus.WAITING_FOR_INPUT
    [waits] = await found(bank)
    assert (waits.kind, waits.check, waits.is_problem) == (FindingKind.PENDING, "call.open", False)
    assert "'c' of 'ask' is waiting for its approval: Run ask?" in waits.message
    await loop.resume(bank.sid, answers={"c": Approve()})
    assert await found(bank) == []
    await bank.run(f"UPDATE {bank.prefix}tool_calls SET state = 'unknown' WHERE session_id = '{bank.sid}'")
    [unknown] = await found(bank, repair=True)
    assert (unknown.kind, unknown.is_problem, unknown.is_repaired) == (FindingKind.UNKNOWN, False, False)
    assert "pl1_" in unknown.message, "with the key under which somebody can ask elsewhere"


async def test_a_session_whose_turn_runs_is_not_mended(make_loop: MakeLoop, bank: Bank) -> None:
    await two_sends(make_loop, bank)
    await bank.store.accept(Claim(bank.sid, "somebody", 86_400.0), NewSend(user_message("x"), "", {}))
    await bank.run(f"UPDATE {bank.prefix}sends SET status = 'running' WHERE session_id = '{bank.sid}' AND idx = 1")
    [left] = await found(bank, repair=True)
    assert (left.check, left.is_repaired) == ("send.left_behind", False)
    assert [one.check for one in await _problems(bank)] == ["send.left_behind"]


async def test_a_log_that_is_broken_all_over_is_told_in_few_words(make_loop: MakeLoop, bank: Bank) -> None:
    await two_sends(make_loop, bank)
    await bank.run(
        *[
            f"INSERT INTO {bank.prefix}tool_results (session_id, reply_seq, idx, body)"
            f" VALUES ('{bank.sid}', 3, {n}, '[]')"
            for n in range(50)
        ]
    )
    told = await found(bank, repair=True)
    assert len(told) == 21
    assert told[-1].message == "and 30 more of these"
    assert await found(bank) == []


async def test_nothing_is_wrong_with_what_a_process_leaves_that_dies_at_any_commit(
    make_loop: MakeLoop, tmp_path: Path
) -> None:
    async def go(loop: StatefulAgentLoop, sid: str) -> None:
        assert (await loop.send("go", session_id=sid)).is_completed

    def clever(request: Any) -> Any:
        return "Done." if any(message.tool_calls for message in request.messages) else EVERY

    llm = ScriptedLLM([clever], repeat_last=True)
    # Nobody's lease runs out while one of them after the other is looked at.
    config = LoopConfig(lease_ttl_s=86_400)
    deaths = await every_death(make_loop, tmp_path, go, llm=llm, tool_registry=TOOLS, config=config)
    for point, path, sid in deaths:
        store = await open_store(path)
        checks = {one.check for one in [one async for one in store.diagnose()]}
        assert checks <= {"call.open", "call.unknown"}, point
        loop = make_loop(llm=ScriptedLLM([clever], repeat_last=True), dsn=path, tool_registry=TOOLS)
        await loop.resume(sid)
        assert {one.check for one in [one async for one in store.diagnose()]} <= {"call.unknown"}, point
        await store.aclose()


async def test_the_command_prints_a_table_or_lines_of_json_and_exits_by_what_it_found(
    make_loop: MakeLoop, bank: Bank
) -> None:
    await two_sends(make_loop, bank)

    async def doctor(*options: str, session: str = bank.sid) -> tuple[int, str]:
        where = ("--dsn", bank.dsn, "--table-prefix", bank.prefix, "--session", session)
        command = ("-m", "power_loop", "doctor", *where, *options)
        child = await asyncio.create_subprocess_exec(
            sys.executable, *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        out, _ = await within_limit(child.communicate())
        return child.returncode or 0, out.decode()

    assert await doctor() == (0, "nothing found\n")
    await bank.run(f"UPDATE {bank.prefix}sessions SET send_count = 9 WHERE id = '{bank.sid}'")
    status, out = await doctor("--json")
    told = json.loads(out)
    assert (status, told["check"], told["kind"], told["is_problem"]) == (1, "session.send_count", "inconsistent", True)
    status, out = await doctor()
    assert status == 1
    assert "--repair: send_count is set to 2" in out
    status, out = await doctor("--repair")
    assert status == 1
    assert "mended: send_count is set to 2" in out
    assert "1 inconsistent; 1 mended" in out
    assert (await doctor())[0] == 0
    status, out = await doctor(session="sess_none")
    assert status == 2
    assert "session.not_found" in out
