"""A call that says what it is about: its key goes to the receiver, and what has succeeded is not done again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from power_loop import Approve, Effect, HookPoint, SendStatus, ToolContext, open_store, tool
from power_loop.errors import InputError, ToolDefinitionError, ToolError
from power_loop.hooks import Rewrite
from power_loop.records import CallState
from power_loop.testing import call, calls

from .conftest import MakeLoop
from .parts import Gate, answers, error_answers, until, within_limit

RAN: list[tuple[int, str, int]] = []


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    RAN.clear()


def charging(effect: str = "once", **options: Any) -> Any:
    """Return a tool that is about an order, and fails for order 13."""
    options.setdefault("key", lambda arguments: f"order-{arguments['order']}")

    @tool(effect=effect, **options)
    def charge(order: int, ctx: ToolContext) -> str:
        """Charge an order."""
        RAN.append((order, ctx.idempotency_key, ctx.attempt))
        if order == 13:
            raise ToolError("the card was declined")
        return f"receipt {len(RAN)}"

    return charge


def order(number: int) -> tuple[str, dict[str, int]]:
    return "charge", {"order": number}


async def test_the_key_is_what_the_handler_and_its_receiver_are_given(make_loop: MakeLoop) -> None:
    loop = make_loop(call(*order(17)), "Done.", tool_registry=[charging()])
    sid = await loop.new_session()
    assert (await loop.send("go", session_id=sid)).is_completed
    assert RAN == [(17, "order-17", 1)]


@pytest.mark.parametrize("effect", ["once", "idempotent"])
async def test_what_has_succeeded_is_not_done_again(make_loop: MakeLoop, effect: str) -> None:
    loop = make_loop(call(*order(1)), "One.", call(*order(1)), "Two.", tool_registry=[charging(effect)])
    sid = await loop.new_session()
    await loop.send("charge it", session_id=sid)
    await loop.send("did you charge it?", session_id=sid)
    assert len(RAN) == 1
    again = answers(loop.llm.requests[-1])[-1]
    assert again.startswith("receipt 1")
    assert "not done again" in again
    other = await loop.new_session()
    loop.llm.add(call(*order(1)), "Three.")
    await loop.send("charge it", session_id=other)
    assert len(RAN) == 2, "another session is another matter"


@pytest.mark.promise("known-by-key")
async def test_of_twins_in_one_reply_one_runs(make_loop: MakeLoop) -> None:
    gate = Gate()

    @tool(key=lambda arguments: f"order-{arguments['order']}")
    async def charge(order: int, ctx: ToolContext) -> str:
        """Charge an order."""
        RAN.append((order, ctx.idempotency_key, ctx.attempt))
        await gate.passing()
        return f"receipt {order}"

    wanted = calls(order(1), order(1), order(2), order(1))
    loop = make_loop(wanted, "Done.", tool_registry=[charge])
    sid = await loop.new_session()
    sending = asyncio.create_task(loop.send("go", session_id=sid))
    await within_limit(until(lambda: len(RAN) == 2))
    gate.open()
    assert (await within_limit(sending)).is_completed
    assert sorted(number for number, *_ in RAN) == [1, 2]
    told = answers(loop.llm.requests[-1])
    assert [text.split("(")[0] for text in told] == ["receipt 1", "receipt 1", "receipt 2", "receipt 1"]
    assert [text.count("not done again") for text in told] == [0, 1, 0, 1]


async def test_what_failed_may_be_tried_again_with_the_same_key(make_loop: MakeLoop) -> None:
    loop = make_loop(call(*order(13)), call(*order(13)), "Done.", tool_registry=[charging()])
    sid = await loop.new_session()
    await loop.send("go", session_id=sid)
    assert [key for _, key, _ in RAN] == ["order-13", "order-13"]


@pytest.mark.parametrize("generations", [1, 2])
async def test_a_fork_does_not_do_again_what_was_done_before_it(make_loop: MakeLoop, generations: int) -> None:
    loop = make_loop(call(*order(1)), "One.", call(*order(1)), "Two.", tool_registry=[charging()])
    sid = await loop.new_session()
    await loop.send("charge it", session_id=sid)
    store = await loop.get_store()
    for _ in range(generations):
        sid = await store.fork_session(sid)
    await loop.send("charge it", session_id=sid)
    assert len(RAN) == 1
    assert "not done again" in answers(loop.llm.requests[-1])[-1]


async def test_what_was_done_is_known_also_when_its_whole_result_was_pruned(make_loop: MakeLoop) -> None:
    @tool(key=lambda arguments: "all", max_result_chars=1000)
    def report() -> str:
        """Report."""
        RAN.append((0, "all", 1))
        return "page " * 1000

    loop = make_loop(call("report"), "One.", call("report"), "Two.", tool_registry=[report])
    sid = await loop.new_session()
    await loop.send("report", session_id=sid)
    assert (await (await loop.get_store()).prune_tool_results()).rows == 1
    assert (await loop.send("again", session_id=sid)).is_completed
    assert len(RAN) == 1
    again = answers(loop.llm.requests[-1])[-1]
    assert again.startswith("page ")
    assert again.endswith("recorded then.)")


@pytest.mark.parametrize("choice", ["tell_model", "ask", "rerun"])
async def test_what_took_too_long_may_have_happened(make_loop: MakeLoop, choice: str) -> None:
    gate = Gate()

    @tool(key=lambda arguments: "order-1", timeout_s=0.05, on_unknown=choice)
    async def charge(ctx: ToolContext) -> None:
        """Charge."""
        RAN.append((1, ctx.idempotency_key, ctx.attempt))
        await gate.passing()

    loop = make_loop(call("charge"), "One.", call("charge"), "Two.", tool_registry=[charge])
    sid = await loop.new_session()
    await loop.send("charge it", session_id=sid)
    assert "did not finish within" in error_answers(loop.llm.requests[-1])[-1]
    result = await loop.send("charge it", session_id=sid)
    states = [one.state for one in await (await loop.get_store()).get_calls(sid)]
    if choice == "rerun":
        assert RAN == [(1, "order-1", 1), (1, "order-1", 2)], "somebody said that this is acceptable"
        assert states == [CallState.ABORTED, CallState.ABORTED]
        return
    assert RAN == [(1, "order-1", 1)]
    assert states == [CallState.ABORTED, CallState.UNKNOWN if choice == "tell_model" else CallState.WAITING]
    assert result.is_completed is (choice == "tell_model")


async def test_two_tools_with_the_same_key_are_about_two_things(make_loop: MakeLoop) -> None:
    refund = charging()

    @tool(key=lambda arguments: f"order-{arguments['order']}")
    def charge_twice(order: int) -> str:
        """Charge an order twice."""
        return "another receipt"

    loop = make_loop(call(*order(1)), call("charge_twice", {"order": 1}), "Done.", tool_registry=[refund, charge_twice])
    sid = await loop.new_session()
    await loop.send("go", session_id=sid)
    assert answers(loop.llm.requests[-1])[-1] == "another receipt"


async def test_a_key_follows_arguments_that_a_hook_rewrites(make_loop: MakeLoop) -> None:
    loop = make_loop(call(*order(1)), call(*order(2)), "Done.", tool_registry=[charging()])
    loop.hooks.add(HookPoint.TOOL_BEFORE, lambda context: Rewrite(arguments={"order": 7}), name="seven")
    sid = await loop.new_session()
    await loop.send("go", session_id=sid)
    assert RAN == [(7, "order-7", 1)], "the second call is about the same order now"
    store = await loop.get_store()
    assert {one.idempotency_key for one in await store.get_calls(sid)} == {"order-7"}


async def test_a_key_follows_arguments_that_a_person_edits(make_loop: MakeLoop) -> None:
    def key(arguments: Any) -> str:
        if arguments["order"] == 5:
            raise ValueError("no such order")
        return f"order-{arguments['order']}"

    loop = make_loop(calls(order(1), ids=("c",)), "Done.", tool_registry=[charging(key=key, requires_approval=True)])
    sid = await loop.new_session()
    assert (await loop.send("go", session_id=sid)).status is SendStatus.WAITING_FOR_INPUT
    with pytest.raises(InputError, match="no such order"):
        await loop.resume(sid, answers={"c": Approve({"order": 5})})
    await loop.resume(sid, answers={"c": Approve({"order": 9})})
    assert RAN == [(9, "order-9", 1)]


async def test_a_twin_of_a_call_that_waits_is_not_run(make_loop: MakeLoop) -> None:
    loop = make_loop(
        calls(order(1), order(1), ids=("c", "d")), "Done.", tool_registry=[charging(requires_approval=True)]
    )
    sid = await loop.new_session()
    result = await loop.send("go", session_id=sid)
    assert {one.call_id for one in result.pending} == {"c", "d"}
    await loop.resume(sid, answers={"d": Approve()})
    assert RAN == []
    store = await loop.get_store()
    assert [one.state for one in await store.get_calls(sid)] == [CallState.WAITING, CallState.FAILED]
    await loop.resume(sid, answers={"c": Approve()})
    assert RAN == [(1, "order-1", 1)]
    assert "still waits" in error_answers(loop.llm.requests[-1])[0]


@pytest.mark.parametrize(
    ("key", "told"),
    [
        (lambda arguments: arguments["nope"], "KeyError"),
        (lambda arguments: 17, "17, which is no text"),
        (lambda arguments: "  ", "no text"),
    ],
)
async def test_a_key_that_cannot_be_told_is_an_answer_for_the_model(make_loop: MakeLoop, key: Any, told: str) -> None:
    loop = make_loop(call(*order(1)), "Done.", tool_registry=[charging(key=key)])
    sid = await loop.new_session()
    assert (await loop.send("go", session_id=sid)).is_completed
    assert RAN == []
    assert told in error_answers(loop.llm.requests[-1])[0]


async def test_a_key_may_be_any_text_and_know_its_session(make_loop: MakeLoop) -> None:
    @tool(key=lambda arguments, session_id: f"{session_id} {arguments['text']}")
    def note(text: str, ctx: ToolContext) -> str:
        """Note a text."""
        RAN.append((0, ctx.idempotency_key, ctx.attempt))
        return "noted"

    long = "x" * 300
    wanted = calls(("note", {"text": "é\U0001f600"}), ("note", {"text": long}), ("note", {"text": long + "y"}))
    loop = make_loop(wanted, "Done.", tool_registry=[note])
    sid = await loop.new_session()
    await loop.send("go", session_id=sid)
    keys = {key for _, key, _ in RAN}
    assert len(keys) == 3
    assert f"{sid} é\U0001f600" in keys
    assert sum(key.startswith("sha256_") and len(key) < 80 for key in keys) == 2


async def test_without_keys_no_call_is_looked_up_and_none_costs_a_commit_more(make_loop: MakeLoop) -> None:
    loop = make_loop(call(*order(1)), "Done.", tool_registry=[charging(key=None)])
    sid = await loop.new_session()
    moves: list[str] = []
    store = await loop.get_store()
    store.on_point = lambda point, what: moves.append(what) if point == "commit.after" else None
    await loop.send("go", session_id=sid)
    store.on_point = None
    assert moves == ["accept", "append_reply", "advance_calls", "append_reply"]


def test_a_key_that_says_nothing_is_refused() -> None:
    with pytest.raises(ToolDefinitionError, match="its effect is 'read'"):
        charging("read")
    with pytest.raises(ToolDefinitionError, match="with one argument, the dict"):
        charging(key=lambda: "x")


async def test_a_key_stays_with_its_call_in_the_store(make_loop: MakeLoop, dsn: str) -> None:
    loop = make_loop(calls(order(1), ids=("c",)), "Done.", tool_registry=[charging("idempotent")])
    sid = await loop.new_session()
    await loop.send("go", session_id=sid)
    store = await open_store(dsn)
    [record] = await store.get_keyed_calls(sid, "order-1")
    assert (record.call_id, record.is_keyed, record.effect) == ("c", True, Effect.IDEMPOTENT)
    assert await store.get_keyed_calls(sid, "order-2") == ()
    await store.aclose()
