"""Folds: summaries that stand for the log up to a seq, in one transaction each, the newest of which counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from power_loop import SessionStore, Usage
from power_loop.context import Segment, SegmentKind
from power_loop.errors import LeaseLostError, StoreCorruptError
from power_loop.records import CallState, NewFold
from power_loop.storage import ANY_SIGNALS, Accepted, ModelCall, NewReply, Signalled
from power_loop.testing.conformance.cases import check, raises
from power_loop.testing.conformance.parts import (
    COMPLETED,
    HandClock,
    accepted,
    answer,
    claim,
    new_session,
    one_send,
    reply,
    reply_with_calls,
    result_step,
)


def fold(to_seq: int, send_index: int = 1, **members: Any) -> NewFold:
    """Return a fold with the dull members filled in."""
    summary = members.pop("summary", f"what was said up to {to_seq}")
    return NewFold(to_seq, summary, send_index, members.pop("round", 1), members.pop("strategy", "test"), **members)


async def long_send(store: SessionStore, rounds: int = 3) -> Accepted:
    """Bring a send to its messages 1 to 1 + 2 * `rounds`, the lease still held."""
    held = await accepted(store, "sess_1")
    for number in range(rounds):
        at_seq = 2 + 2 * number
        await store.append_reply(held.lease, reply_with_calls(held, f"c{at_seq}", at_seq=at_seq, round=number + 1))
        await store.advance_calls(
            held.lease, [result_step(at_seq, 0, f"c{at_seq}")], at_seq=at_seq + 1, send_index=1, round=number + 1
        )
    return held


@check()
async def the_newest_fold_stands_for_everything_up_to_its_end(store: SessionStore, clock: HandClock) -> None:
    await new_session(store)
    held = await long_send(store)
    before = await store.read_view("sess_1")
    assert (before.fold, before.pinned, len(before.messages)) == (None, (), 7)
    wanted = fold(
        5,
        summary="säid – 言葉 \U0001f388",
        model="m",
        model_calls=2,
        usage=Usage(100, 20, 30, 4, 5, is_estimated=True),
        tokens_before=900,
        tokens_after=90,
        refused_tokens=1000,
        refused_by="m",
        text_seq=4,
        pinned_seqs=(1, 3),
    )
    record = await store.append_fold(held.lease, wanted, at_seq=8)
    view = await store.read_view("sess_1")
    assert view.fold == record
    assert (record.session_id, record.from_seq, record.to_seq, record.summary) == ("sess_1", 1, 5, wanted.summary)
    assert (record.created_at_ms, record.pruned_at_ms) == (clock.now_ms(), None)
    for name in ("send_index", "round", "strategy", "pinned_seqs", "model", "model_calls", "usage", "tokens_before"):
        assert getattr(record, name) == getattr(wanted, name), name
    for name in ("tokens_after", "refused_tokens", "refused_by", "text_seq"):
        assert getattr(record, name) == getattr(wanted, name), name
    assert [one.seq for one in view.pinned] == [1, 3]
    assert [one.seq for one in view.messages] == [6, 7]
    assert view.pinned == (before.messages[0], before.messages[2])
    assert await store.get_messages("sess_1") == before.messages, "the originals stay"
    assert view.session.next_seq == 8
    # The send goes on behind it.
    await store.append_reply(held.lease, reply(held, at_seq=8, round=4, end=COMPLETED))
    assert [one.seq for one in (await store.read_view("sess_1")).messages] == [6, 7, 8]


@check()
async def folds_of_folds_follow_each_other(store: SessionStore) -> None:
    await new_session(store)
    held = await long_send(store, rounds=5)
    ends = (3, 5, 11)
    records = [await store.append_fold(held.lease, fold(end), at_seq=12) for end in ends]
    assert [(one.from_seq, one.to_seq) for one in records] == [(1, 3), (4, 5), (6, 11)]
    assert await store.get_folds("sess_1") == tuple(records)
    view = await store.read_view("sess_1")
    assert (view.fold, view.messages) == (records[-1], ())


@check(to_seq=[0, -1, 3, 8, 9])
async def a_fold_covers_what_is_there_and_was_not_folded(store: SessionStore, to_seq: int) -> None:
    await new_session(store)
    held = await long_send(store)
    first = await store.append_fold(held.lease, fold(3), at_seq=8)
    with raises(StoreCorruptError):
        await store.append_fold(held.lease, fold(to_seq), at_seq=8)
    assert await store.get_folds("sess_1") == (first,)
    await store.append_fold(held.lease, fold(4), at_seq=8)


@check(members=[{"pinned_seqs": (6,)}, {"pinned_seqs": (3, 1)}, {"pinned_seqs": (0,)}, {"text_seq": 6}])
async def a_fold_pins_only_what_it_covers(store: SessionStore, members: dict[str, Any]) -> None:
    await new_session(store)
    held = await long_send(store)
    with raises(StoreCorruptError):
        await store.append_fold(held.lease, fold(5, **members), at_seq=8)
    assert await store.get_folds("sess_1") == ()


@check()
async def a_fold_is_fenced_like_every_write_of_a_turn(store: SessionStore, clock: HandClock) -> None:
    await new_session(store)
    held = await long_send(store)
    with raises(LeaseLostError):
        await store.append_fold(held.lease, fold(3), at_seq=7)
    await store.ask_to_cancel("sess_1", reason="stop")
    with raises(Signalled) as told:
        await store.append_fold(held.lease, fold(3), at_seq=8)
    assert told.value.news.cancel_reason == "stop"
    assert await store.get_folds("sess_1") == ()
    heard = replace(held.lease, signals=ANY_SIGNALS)
    await store.append_fold(heard, fold(3), at_seq=8)
    clock.ms += 60_000
    taken = await store.take_up(claim("sess_1", "bob"))
    with raises(LeaseLostError):
        await store.append_fold(heard, fold(5), at_seq=8)
    await store.append_fold(taken.lease, fold(5), at_seq=8)
    assert [one.to_seq for one in await store.get_folds("sess_1")] == [3, 5]


@check()
async def what_a_fold_notes_for_the_tools_is_stored_with_it(store: SessionStore) -> None:
    await new_session(store)
    held = await long_send(store)
    await store.append_fold(held.lease, fold(3, tool_state={"notes": ["ä"]}), at_seq=8)
    assert (await store.read_view("sess_1")).tool_state == {"notes": ["ä"]}
    with raises(StoreCorruptError):
        await store.append_fold(held.lease, fold(3, tool_state={"notes": []}), at_seq=8)
    await store.append_fold(held.lease, fold(5), at_seq=8)
    assert (await store.read_view("sess_1")).tool_state == {"notes": ["ä"]}, "None leaves it as it is"


@check()
async def what_folds_cost_counts_for_the_send_and_the_session(store: SessionStore) -> None:
    await new_session(store)
    await one_send(store, "sess_1")
    held = await accepted(store, "sess_1")
    costs = fold(2, send_index=2, model_calls=3, usage=Usage(1000, 100, 10, 1, 7))
    await store.append_fold(held.lease, costs, at_seq=4)
    await store.append_reply(held.lease, reply(held, at_seq=4, end=COMPLETED))
    first, second = await store.get_send("sess_1", index=1), await store.get_send("sess_1", index=2)
    assert first is not None
    assert second is not None
    assert (first.usage, first.rounds) == (Usage(10, 3), 1)
    assert (second.usage, second.rounds) == (Usage(1010, 103, 10, 1, 7), 1), "a fold is no round"
    stats = await store.get_stats("sess_1")
    assert (stats.model_calls, stats.usage) == (5, Usage(1020, 106, 10, 1, 7))
    # A provider that sends no usage, and a strategy that asks no model.
    await store.append_fold((await accepted(store, "sess_1")).lease, fold(4, send_index=3), at_seq=6)
    assert (await store.get_stats("sess_1")).usage == stats.usage
    assert (await store.get_folds("sess_1"))[-1].usage is None


@check()
async def model_calls_are_read_newest_first_with_what_their_prompts_were_made_of(store: SessionStore) -> None:
    await new_session(store)
    segments = (
        Segment(SegmentKind.SYSTEM, 12, digest="d1"),
        Segment(SegmentKind.MESSAGES, 30, 1, 1),
        Segment(SegmentKind.LIVE, 3, name="名"),
    )
    for number in range(3):
        held = await accepted(store, "sess_1")
        call = ModelCall("gpt", "end", None, 1, 5, estimated_tokens=45 + number, segments=segments)
        await store.append_reply(
            held.lease, NewReply(held.next_seq, held.send_index, 1, (answer(),), call, end=COMPLETED)
        )
    found = await store.get_model_calls("sess_1")
    assert [(one.reply_seq, one.send_index, one.call.estimated_tokens) for one in found] == [
        (6, 3, 47),
        (4, 2, 46),
        (2, 1, 45),
    ]
    assert {one.call.segments for one in found} == {segments}
    assert await store.get_model_calls("sess_1", before_seq=6, limit=1) == (found[1],)
    assert await store.get_model_calls("sess_1", before_seq=2) == ()
    assert (await store.read_view("sess_1")).last_call == found[0]


@check()
async def known_call_ids_are_told_from_fresh_ones(store: SessionStore) -> None:
    await new_session(store)
    await long_send(store, rounds=2)
    assert await store.find_call_ids("sess_1", ["c2", "c3", "c4", "C2", "c2"]) == {"c2", "c4"}
    assert await store.find_call_ids("sess_1", []) == frozenset()
    await new_session(store, "sess_2")
    assert await store.find_call_ids("sess_2", ["c2"]) == frozenset()
    assert [call.state for call in await store.get_calls("sess_1")] == [CallState.SUCCEEDED] * 2
