"""The effect ledger: only the steps that a call's lifecycle allows, each together with the message it brings."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

from power_loop import Effect, ImagePart, Message, SendStatus, SessionStore, TextPart
from power_loop.errors import LeaseLostError, StoreCorruptError
from power_loop.messages import OpaquePart, Origin, ReasoningPart, Role, ToolCallPart, tool_message
from power_loop.records import CallRecord, CallState, EffectFailure, WaitKind
from power_loop.storage import CALL_STEPS, OPEN_CALLS, Accepted, CallStep, NewCall, NewReply, SendEnd
from power_loop.testing.conformance.cases import check, raises
from power_loop.testing.conformance.parts import (
    COMPLETED,
    HandClock,
    accepted,
    claim,
    model_call,
    new_session,
    reply,
    reply_with_calls,
    result_step,
    step,
    waiting_call,
)


async def _advance(store: SessionStore, held: Accepted, *steps: CallStep, at_seq: int = 3, **members: object) -> None:
    await store.advance_calls(held.lease, steps, at_seq=at_seq, send_index=1, round=1, **members)  # type: ignore[arg-type]


@check()
async def a_reply_its_calls_and_its_cost_are_stored_together(store: SessionStore, clock: HandClock) -> None:
    await new_session(store)
    held = await accepted(store, "sess_1")
    parts = (
        ReasoningPart("thinking", raw='{"type": "thinking",  "signature":"é\\u00e9"}'),
        OpaquePart('{"x":1.0}'),
        TextPart("I look."),
        ToolCallPart("c1", "look", '{"at": "x"}'),
        ToolCallPart("c2", "burn", "{broken"),
    )
    message = Message(Role.ASSISTANT, parts, Origin("anthropic", "claude"))
    refused = tool_message("c2", (TextPart("not run"),), is_error=True)
    calls = (
        NewCall("c1", 0, "look", '{"at": "x"}', Effect.READ, CallState.STARTED, "k1"),
        NewCall("c2", 1, "burn", "{broken", Effect.ONCE, CallState.FAILED, "k2"),
    )
    clock.ms += 9
    await store.append_reply(
        held.lease, NewReply(2, 1, 1, (message, refused), model_call(), calls=calls, answered=(1,))
    )
    view = await store.read_view("sess_1")
    assert [row.message for row in view.messages[1:]] == [message, refused]
    assert [(row.seq, row.round, row.send_index) for row in view.messages] == [(1, 0, 1), (2, 1, 1), (3, 1, 1)]
    first, second = await store.get_calls("sess_1")
    assert first == CallRecord(
        "c1", 2, 0, 1, "look", '{"at": "x"}', Effect.READ, CallState.STARTED, 1, "k1", started_at_ms=clock.ms
    )
    assert second == CallRecord(
        "c2", 2, 1, 1, "burn", "{broken", Effect.ONCE, CallState.FAILED, 0, "k2", ended_at_ms=clock.ms, result_seq=3
    )
    assert view.calls == (first,)
    assert view.send is not None
    assert (view.send.tool_calls, view.send.rounds) == (2, 1)


@check()
async def a_call_goes_its_way_and_its_answers_keep_the_order_given(store: SessionStore, clock: HandClock) -> None:
    await new_session(store)
    held = await waiting_call(store, "sess_1", "c1", "c2")
    clock.ms += 1
    started_at = clock.ms
    await _advance(store, held, step(2, 0, CallState.STARTED, attempt=1), step(2, 1, CallState.STARTED, attempt=1))
    clock.ms += 1
    await _advance(
        store,
        held,
        result_step(2, 1, "c2", "second first"),
        result_step(2, 0, "c1", "oh no", state=CallState.FAILED),
        tool_state={"seen": ["c1", "c2"]},
    )
    first, second = await store.get_calls("sess_1")
    assert (first.state, first.result_seq, first.attempt) == (CallState.FAILED, 4, 1)
    assert (second.state, second.result_seq, second.attempt) == (CallState.SUCCEEDED, 3, 1)
    assert (first.started_at_ms, first.ended_at_ms) == (started_at, clock.ms)
    view = await store.read_view("sess_1")
    assert [row.message.tool_result.call_id for row in view.messages[2:] if row.message.tool_result] == ["c2", "c1"]
    assert view.calls == ()
    assert view.tool_state == {"seen": ["c1", "c2"]}
    assert view.session.next_seq == 5
    await store.append_reply(held.lease, reply(held, at_seq=5, round=2, end=COMPLETED))


@check()
async def a_call_waits_for_a_person_and_goes_on_with_what_they_approved(store: SessionStore) -> None:
    await new_session(store)
    held = await waiting_call(store, "sess_1", "c1")
    asked = step(
        2,
        0,
        CallState.WAITING,
        wait_kind=WaitKind.APPROVAL,
        prompt="May it run? \ud800",
        wait_data={"risk": ["high", None]},
    )
    await _advance(store, held, asked, end=SendEnd(SendStatus.WAITING_FOR_INPUT, {"pending": 1}))
    view = await store.read_view("sess_1")
    [call] = view.calls
    assert (call.state, call.wait_kind, call.prompt) == (CallState.WAITING, WaitKind.APPROVAL, "May it run? \ufffd")
    assert call.wait_data == {"risk": ["high", None]}
    assert view.session.owner is None
    assert view.send is not None
    assert view.send.status is SendStatus.WAITING_FOR_INPUT

    taken = await store.take_up(claim("sess_1", "bob"))
    await store.advance_calls(
        taken.lease,
        [step(2, 0, CallState.REQUESTED, arguments='{"at":"y"}', is_approved=True)],
        at_seq=taken.next_seq,
        send_index=1,
        round=1,
    )
    [call] = await store.get_calls("sess_1")
    assert (call.state, call.arguments, call.is_approved) == (CallState.REQUESTED, '{"at":"y"}', True)
    assert (call.wait_kind, call.prompt, call.wait_data) == (None, None, None)
    await _advance(store, taken, step(2, 0, CallState.STARTED, attempt=1))
    [call] = await store.get_calls("sess_1")
    assert (call.arguments, call.is_approved, call.attempt) == ('{"at":"y"}', True, 1)


_ALL_STEPS = list(itertools.product(CallState, CallState))


async def _bring_to(store: SessionStore, session_id: str, state: CallState) -> Accepted:
    await new_session(store, session_id)
    held = await accepted(store, session_id)
    first = state if state in {CallState.REQUESTED, CallState.STARTED, CallState.WAITING} else CallState.STARTED
    await store.append_reply(held.lease, reply_with_calls(held, "c1", state=first))
    if first is not state:
        await _advance(store, held, step(2, 0, state))
    return held


@check()
async def exactly_the_steps_of_the_lifecycle_are_possible(store: SessionStore) -> None:
    for number, (before, after) in enumerate(_ALL_STEPS):
        session_id = f"sess_{number}"
        held = await _bring_to(store, session_id, before)
        if after in CALL_STEPS.get(before, frozenset()):
            await _advance(store, held, step(2, 0, after))
            [call] = await store.get_calls(session_id)
            assert call.state is after
            assert (call.ended_at_ms is None) == (after in OPEN_CALLS)
        else:
            view = await store.read_view(session_id)
            with raises(StoreCorruptError) as caught:
                await _advance(store, held, step(2, 0, after))
            assert caught.value.code == "store.corrupt"
            assert repr(before.value) in str(caught.value)
            assert await store.read_view(session_id) == view


@check()
async def one_step_that_is_not_allowed_undoes_the_others_of_its_move(store: SessionStore) -> None:
    await new_session(store)
    held = await waiting_call(store, "sess_1", "c1", "c2", "c3")
    await _advance(store, held, result_step(2, 1, "c2"))
    before = await store.read_view("sess_1")
    for bad in (result_step(2, 1, "c2", "again"), step(2, 1, CallState.STARTED), result_step(2, 9, "c9")):
        with raises(StoreCorruptError):
            await _advance(
                store, held, result_step(2, 0, "c1"), bad, result_step(2, 2, "c3"), at_seq=4, tool_state={"x": 1}
            )
        assert await store.read_view("sess_1") == before


@check()
async def steps_of_one_call_can_follow_each_other_in_one_move(store: SessionStore) -> None:
    await new_session(store)
    held = await waiting_call(store, "sess_1", "c1", "c2")
    await _advance(
        store,
        held,
        step(2, 0, CallState.STARTED, attempt=1),
        result_step(2, 0, "c1"),
        step(2, 1, CallState.STARTED, attempt=1),
        result_step(2, 1, "c2"),
    )
    states = [(call.state, call.result_seq) for call in await store.get_calls("sess_1")]
    assert states == [(CallState.SUCCEEDED, 3), (CallState.SUCCEEDED, 4)]


@check()
async def a_call_id_is_used_once_in_a_session(store: SessionStore) -> None:
    await new_session(store)
    await new_session(store, "sess_2")
    held = await waiting_call(store, "sess_1", "c1")
    await _advance(store, held, result_step(2, 0, "c1"))
    before = await store.read_view("sess_1")
    with raises(StoreCorruptError):
        await store.append_reply(held.lease, reply_with_calls(held, "c2", "c1", at_seq=4, round=2))
    assert await store.read_view("sess_1") == before
    await waiting_call(store, "sess_2", "c1")


@check()
async def calls_are_read_by_state_and_in_order(store: SessionStore) -> None:
    await new_session(store)
    held = await waiting_call(store, "sess_1", "z", "a", "m")
    await _advance(store, held, result_step(2, 1, "a"), step(2, 2, CallState.WAITING, wait_kind=WaitKind.INPUT))

    async def ids(*states: CallState) -> list[str]:
        return [call.call_id for call in await store.get_calls("sess_1", states=states)]

    assert [call.call_id for call in await store.get_calls("sess_1")] == ["z", "a", "m"]
    assert await ids(*OPEN_CALLS) == ["z", "m"]
    assert await ids(CallState.SUCCEEDED) == ["a"]
    assert await ids(CallState.SUCCEEDED, CallState.WAITING) == ["a", "m"]
    assert await ids(CallState.UNKNOWN) == []
    assert await ids() == []


@check()
async def a_whole_result_is_kept_beside_its_preview(store: SessionStore) -> None:
    await new_session(store)
    held = await waiting_call(store, "sess_1", "c1", "c2", "c3")
    whole = (TextPart("x" * 1_000_000), ImagePart(data="AAAA", detail="low"))
    await _advance(store, held, result_step(2, 0, "c1", "xxx…", whole=whole), result_step(2, 1, "c2", "short"))
    assert await store.get_tool_result("sess_1", "c1") == whole
    assert await store.get_tool_result("sess_1", "c2") == (TextPart("short"),)
    assert await store.get_tool_result("sess_1", "c3") is None
    assert await store.get_tool_result("sess_1", "nothing") is None
    messages = await store.get_messages("sess_1", after_seq=2)
    assert messages[0].message == tool_message("c1", (TextPart("xxx…"),))
    assert (await store.get_stats("sess_1")).stored_bytes > 1_000_000


@check()
async def nothing_is_written_under_a_lease_that_was_lost(store: SessionStore, clock: HandClock) -> None:
    await new_session(store)
    held = await waiting_call(store, "sess_1", "c1")
    await store.release(held.lease)
    await store.take_up(claim("sess_1", "bob"))
    before = await store.read_view("sess_1")
    for late in (
        _advance(store, held, result_step(2, 0, "c1"), tool_state={"x": 1}),
        _advance(store, held, step(2, 0, CallState.STARTED)),
        store.append_reply(held.lease, reply(held, at_seq=3, round=2)),
        store.append_reply(held.lease, reply(held, at_seq=3, round=2, end=COMPLETED)),
        store.end_send(held.lease, 1, COMPLETED),
        store.renew(held.lease, ttl_s=30),
    ):
        with raises(LeaseLostError) as caught:
            await late
        assert caught.value.code == "session.lease_lost"
        assert "'bob'" in str(caught.value)
    await store.release(held.lease)
    assert await store.read_view("sess_1") == before


@check(at_seq=[1, 2, 4, 99])
async def a_write_made_for_another_place_in_the_log_is_refused(store: SessionStore, at_seq: int) -> None:
    await new_session(store)
    held = await waiting_call(store, "sess_1", "c1")
    before = await store.read_view("sess_1")
    with raises(LeaseLostError):
        await store.append_reply(held.lease, reply(held, at_seq=at_seq))
    with raises(LeaseLostError):
        await _advance(store, held, result_step(2, 0, "c1"), at_seq=at_seq)
    assert await store.read_view("sess_1") == before


@check()
async def a_call_is_found_by_the_key_that_its_tool_gave_it(store: SessionStore) -> None:
    await new_session(store)
    held = await accepted(store, "sess_1")
    asked = reply_with_calls(held, "c1", "c2", "c3")
    keys = ("order-1", "order-1 ", "ORDER-1")
    named = tuple(
        dataclasses.replace(call, idempotency_key=key, is_keyed=True)
        for call, key in zip(asked.calls, keys, strict=True)
    )
    own = NewCall("c4", 3, "look", "{}", Effect.ONCE, CallState.REQUESTED, "order-1")
    parts = (*asked.messages[0].parts, ToolCallPart("c4", "look", "{}"))
    message = dataclasses.replace(asked.messages[0], parts=parts, memo={})
    await store.append_reply(held.lease, dataclasses.replace(asked, messages=(message,), calls=(*named, own)))

    async def found(key: str) -> list[str]:
        return [call.call_id for call in await store.get_keyed_calls("sess_1", key)]

    for key, call_id in zip(keys, ("c1", "c2", "c3"), strict=True):
        assert await found(key) == [call_id], "keys are compared character for character"
    assert await found("order-9") == []
    await _advance(store, held, step(2, 1, CallState.STARTED, attempt=1, idempotency_key="order-9"))
    assert await found("order-9") == ["c2"]
    await new_session(store, "sess_2")
    assert await store.get_keyed_calls("sess_2", "order-1") == ()


def _ending(held: Accepted) -> Callable[[Any], CallStep]:
    def end(returned: Any) -> CallStep:
        return result_step(held.next_seq, 0, "c1", str(returned), attempt=1)

    return end


@check()
async def a_body_and_the_step_of_its_call_are_one_write(store: SessionStore, clock: HandClock) -> None:
    await new_session(store)
    held = await waiting_call(store, "sess_1", "c1")

    async def fails(tx: Any) -> str:
        raise LookupError("no such account")

    async def gives(tx: Any) -> str:
        return "moved"

    place: dict[str, Any] = {"end": _ending(held), "at_seq": 3, "send_index": 1, "round": 1}
    before = await store.read_view("sess_1")
    failure = await store.run_effect(held.lease, "look", fails, tool_state={"x": 1}, **place)
    assert isinstance(failure, EffectFailure)
    assert isinstance(failure.error, LookupError)
    after = await store.read_view("sess_1")
    assert (after.messages, after.calls, after.tool_state) == (before.messages, before.calls, before.tool_state)
    done = await store.run_effect(held.lease, "look", gives, tool_state={"x": 1}, **place)
    assert isinstance(done, CallStep)
    view = await store.read_view("sess_1")
    assert [row.message for row in view.messages[2:]] == [done.message]
    assert (view.calls, view.tool_state, view.session.next_seq) == ((), {"x": 1}, 4)
    [call] = await store.get_calls("sess_1")
    assert (call.state, call.attempt, call.result_seq) == (CallState.SUCCEEDED, 1, 3)


@check()
async def a_body_does_not_run_under_a_lease_that_was_lost(store: SessionStore) -> None:
    await new_session(store)
    held = await waiting_call(store, "sess_1", "c1")
    await store.release(held.lease)
    await store.take_up(claim("sess_1", "bob"))
    ran: list[str] = []

    async def body(tx: Any) -> str:
        ran.append("here")
        return "moved"

    with raises(LeaseLostError):
        await store.run_effect(held.lease, "look", body, end=_ending(held), at_seq=3, send_index=1, round=1)
    assert ran == []
