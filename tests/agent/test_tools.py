"""Tools as a loop runs them: checked, side by side, in order, within their limits, and whatever they give back."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import Any, Literal

import pytest

from power_loop import (
    CancellationToken,
    Effect,
    ImagePart,
    LoopConfig,
    SendStatus,
    TextPart,
    ToolContext,
    ToolDefinition,
    ToolRegistry,
    ToolResult,
    tool,
)
from power_loop.errors import ToolError
from power_loop.events import ToolBatchFinished, ToolBatchStarted, ToolCallFinished, ToolCallProgressed, ToolCallStarted
from power_loop.messages import ToolCallPart
from power_loop.testing import FrozenClock, ScriptedLLM, call, calls

from .conftest import MakeLoop
from .parts import LIMIT_S, Ears, Gate, answers, error_answers, pass_time, said, until, within_limit

TAG: contextvars.ContextVar[str] = contextvars.ContextVar("tag", default="none")


def schema(**properties: Any) -> dict[str, Any]:
    """Return the schema of an object with these properties, all required."""
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


async def run(make_loop: MakeLoop, tools: Any, *wanted: Any, **options: Any) -> Any:
    """Let a model call tools once and then say Done; return the loop, whose model keeps the requests."""
    loop = make_loop(calls(*wanted), "Done.", tool_registry=tools, **options)
    sid = await loop.new_session()
    result = await within_limit(loop.send("go", session_id=sid))
    assert (result.status, result.final_text) == (SendStatus.COMPLETED, "Done.")
    return loop


# ---- arguments ----


@pytest.mark.promise("arguments-checked")
async def test_the_model_gets_every_problem_of_its_arguments_and_the_handler_does_not_run(make_loop: MakeLoop) -> None:
    ran: list[Any] = []

    @tool
    def book(city: str, nights: int, kind: Literal["single", "double"] = "single") -> str:
        """Book a room."""
        ran.append(city)
        return "booked"

    wrong = ("book", {"city": 5, "nights": "two", "kind": "suite", "smoking": True})
    right = call("book", {"city": "Rome", "nights": 2})
    loop = make_loop(calls(wrong), right, "Done.", tool_registry=[book])
    ears = Ears(loop)
    sid = await loop.new_session()
    await loop.send("go", session_id=sid)
    [told] = error_answers(loop.llm.requests[1])
    for path in ("$.city", "$.nights", "$.kind", "$.smoking"):
        assert path in told
    assert ran == ["Rome"]
    assert answers(loop.llm.requests[2])[1] == "booked"
    assert len(ears.of(ToolCallStarted)) == 1, "a call that does not run is not announced as started"


@pytest.mark.parametrize(
    "text", ['{"a": 1', "nonsense", "[1]", '"a"', '{"a": 1} {"a": 1}', '{"a": NaN}', '{"a":1,"a":2}']
)
@pytest.mark.promise("arguments-checked")
async def test_arguments_that_are_no_json_object_are_told_and_not_run(make_loop: MakeLoop, text: str) -> None:
    ran: list[Any] = []

    @tool
    def take(a: int) -> str:
        """Take."""
        ran.append(a)
        return "taken"

    loop = make_loop(call("take", text), "Done.", tool_registry=[take])
    sid = await loop.new_session()
    result = await loop.send("go", session_id=sid)
    assert result.is_completed
    assert ran == []
    [told] = error_answers(loop.llm.requests[1])
    assert "not valid" in told
    # What the model wrote stays in the log as it was.
    assert (await loop.get_messages(sid))[1].message.tool_calls[0].arguments == text


async def test_no_arguments_may_be_written_as_nothing(make_loop: MakeLoop) -> None:
    @tool(effect="read")
    def look() -> str:
        """Look."""
        return "seen"

    loop = make_loop(call("look", "", id="1"), call("look", "  ", id="2"), "Done.", tool_registry=[look])
    sid = await loop.new_session()
    await loop.send("go", session_id=sid)
    assert answers(loop.llm.requests[2]) == ["seen", "seen"]


@pytest.mark.promise("tool-from-hints")
async def test_handlers_get_values_of_the_hinted_types(make_loop: MakeLoop) -> None:
    seen: list[Any] = []

    @tool
    def log(level: Effect, count: int = 3) -> str:
        """Log."""
        seen.append((level, count))
        return "logged"

    await run(make_loop, [log], ("log", {"level": "once"}), ("log", {"level": "read", "count": 5}))
    assert sorted(seen, key=str) == sorted([(Effect.ONCE, 3), (Effect.READ, 5)], key=str)


async def test_an_unknown_tool_is_told_with_the_names_that_come_close(make_loop: MakeLoop) -> None:
    @tool
    def read_file(path: str) -> str:
        """Read."""
        return "text"

    loop = make_loop(call("reed_file", {"path": "a"}), "Done.", tool_registry=[read_file])
    sid = await loop.new_session()
    await loop.send("go", session_id=sid)
    [told] = error_answers(loop.llm.requests[1])
    assert "'read_file'" in told
    loop.llm.add(call("anything"), "Done.")
    await loop.send("go", session_id=sid, tools=[])
    assert "no tools" in error_answers(loop.llm.requests[3])[-1]


# ---- side by side ----


@pytest.mark.promise("calls-in-parallel")
async def test_calls_of_one_reply_run_side_by_side_and_their_results_keep_their_order(make_loop: MakeLoop) -> None:
    gates = [Gate() for _ in range(3)]

    @tool
    async def work(n: int) -> str:
        """Work."""
        await gates[n].passing()
        return f"result {n}"

    loop = make_loop(calls(*(("work", {"n": n}) for n in range(3))), "Done.", tool_registry=[work])
    ears = Ears(loop, types=(ToolCallFinished, ToolBatchStarted, ToolBatchFinished))
    sid = await loop.new_session()
    turn = asyncio.create_task(loop.send("go", session_id=sid))
    for gate in gates:
        await gate.someone()
    assert [gate.came for gate in gates] == [1, 1, 1], "all three run at the same time"
    for n in (2, 0, 1):
        gates[n].open()
        # The one that finished is durable before the next one ends.
        await within_limit(until(lambda n=n: len(ears.of(ToolCallFinished)) > (2, 0, 1).index(n)))
    await within_limit(turn)
    assert answers(loop.llm.requests[1]) == ["result 0", "result 1", "result 2"]
    ids = [one.call_id for one in ears.of(ToolCallFinished)]
    [batch] = ears.of(ToolBatchStarted)
    assert ids == [batch.call_ids[2], batch.call_ids[0], batch.call_ids[1]], "they are announced as they finish"
    assert ears.of(ToolBatchFinished)[0].call_ids == batch.call_ids


@pytest.mark.promise("calls-in-parallel")
async def test_no_more_calls_run_at_once_than_the_configuration_allows(make_loop: MakeLoop) -> None:
    running, most, total = 0, 0, 0

    @tool
    async def work() -> str:
        """Work."""
        nonlocal running, most, total
        running, total = running + 1, total + 1
        most = max(most, running)
        for _ in range(5):
            await asyncio.sleep(0)
        running -= 1
        return "done"

    await run(make_loop, [work], *[("work", {})] * 20, config=LoopConfig(max_parallel_tools=3))
    assert (most, total) == (3, 20)


async def test_a_tool_that_must_run_alone_runs_alone_and_in_its_place(make_loop: MakeLoop) -> None:
    story: list[str] = []

    def worker(name: str, parallel: bool) -> ToolDefinition:
        async def work(n: int) -> str:
            story.append(f"+{name}{n}")
            for _ in range(3):
                await asyncio.sleep(0)
            story.append(f"-{name}{n}")
            return f"{name}{n}"

        return ToolDefinition(name, "Work.", schema(n={"type": "integer"}), work, parallel=parallel)

    wanted = [("p", {"n": 0}), ("p", {"n": 1}), ("a", {"n": 2}), ("a", {"n": 3}), ("p", {"n": 4}), ("p", {"n": 5})]
    loop = await run(make_loop, [worker("p", True), worker("a", False)], *wanted)
    assert answers(loop.llm.requests[1]) == ["p0", "p1", "a2", "a3", "p4", "p5"]
    assert sorted(story[:2]) == ["+p0", "+p1"]
    assert story[4:8] == ["+a2", "-a2", "+a3", "-a3"]
    assert sorted(story[8:10]) == ["+p4", "+p5"]


async def test_one_failing_call_leaves_its_siblings_alone(make_loop: MakeLoop) -> None:
    @tool
    async def work(n: int) -> str:
        """Work."""
        if n == 1:
            raise ValueError("one is wrong")
        await asyncio.sleep(0)
        return f"result {n}"

    loop = await run(make_loop, [work], *(("work", {"n": n}) for n in range(3)))
    assert answers(loop.llm.requests[1]) == ["result 0", "'work' failed: ValueError: one is wrong", "result 2"]
    assert error_answers(loop.llm.requests[1]) == ["'work' failed: ValueError: one is wrong"]


# ---- threads ----


@pytest.mark.promise("sync-tools-in-threads")
async def test_a_blocking_tool_delays_neither_the_event_loop_nor_another_session(make_loop: MakeLoop) -> None:
    go_on = threading.Event()
    entered = threading.Event()

    @tool
    def block() -> str:
        """Block."""
        entered.set()
        assert go_on.wait(LIMIT_S)
        return threading.current_thread().name

    loop = make_loop(call("block"), tool_registry=[block])
    slow, quick = await loop.new_session(), await loop.new_session()
    held = asyncio.create_task(loop.send("go", session_id=slow))
    await within_limit(until(entered.is_set))
    loop.llm.add(*["Quick."] * 5)
    for _ in range(5):
        assert (await within_limit(loop.send("hi", session_id=quick))).final_text == "Quick."
    assert not held.done()
    loop.llm.add("Done.")
    go_on.set()
    assert (await within_limit(held)).final_text == "Done."
    assert answers(loop.llm.requests[-1]) == ["power-loop-tool"]


@pytest.mark.promise("sync-tools-in-threads")
async def test_blocking_tools_of_one_reply_run_side_by_side(make_loop: MakeLoop) -> None:
    together = threading.Barrier(8, timeout=LIMIT_S)

    @tool
    def meet(n: int) -> int:
        """Meet the others."""
        together.wait()
        return n

    loop = await run(make_loop, [meet], *(("meet", {"n": n}) for n in range(8)))
    assert answers(loop.llm.requests[1]) == [str(n) for n in range(8)]


async def test_a_handler_sees_the_context_variables_of_its_sender(make_loop: MakeLoop) -> None:
    @tool
    def in_thread() -> str:
        """Tell."""
        return TAG.get()

    @tool
    async def in_task() -> str:
        """Tell."""
        return TAG.get()

    token = TAG.set("ours")
    try:
        loop = await run(make_loop, [in_thread, in_task], ("in_thread", {}), ("in_task", {}))
    finally:
        TAG.reset(token)
    assert answers(loop.llm.requests[1]) == ["ours", "ours"]


async def test_a_plain_function_may_hand_out_a_coroutine(make_loop: MakeLoop) -> None:
    async def later() -> str:
        return "later"

    @tool
    def start() -> Any:
        """Start."""
        return later()

    loop = await run(make_loop, [start], ("start", {}))
    assert answers(loop.llm.requests[1]) == ["later"]


# ---- what a handler knows ----


async def test_a_handler_is_told_of_its_call(make_loop: MakeLoop) -> None:
    seen: list[Any] = []

    @tool(timeout_s=50)
    async def look(ctx: ToolContext) -> str:
        """Look."""
        seen.append(
            (ctx.session_id, ctx.send_index, ctx.call_id, ctx.tool_name, ctx.attempt, dict(ctx.metadata)),
        )
        seen.append((ctx.cancellation.is_cancelled, ctx.deadline_s, ctx.idempotency_key))
        return "seen"

    clock = FrozenClock(skips_sleep=True)
    loop = make_loop(call("look", id="c1"), "Done.", tool_registry=[look], clock=clock)
    sid = await loop.new_session(metadata={"user": "ann"})
    before_s = clock.monotonic_s()
    await loop.send("go", session_id=sid)
    facts, (is_cancelled, deadline_s, key) = seen
    assert facts == (sid, 1, "c1", "look", 1, {"user": "ann"})
    assert not is_cancelled
    assert before_s + 50 <= deadline_s <= clock.monotonic_s() + 50
    assert key.startswith("pl1_")


async def test_idempotency_keys_are_of_a_place_and_never_the_same_for_two_calls(make_loop: MakeLoop) -> None:
    keys: list[str] = []

    @tool
    def pay(ctx: ToolContext) -> str:
        """Pay."""
        keys.append(ctx.idempotency_key)
        return "paid"

    loop = make_loop(calls(("pay", {}), ("pay", {})), calls(("pay", {}), ids=("x",)), "Done.", tool_registry=[pay])
    first, second = await loop.new_session(), await loop.new_session()
    await loop.send("go", session_id=first)
    loop.llm.add(calls(("pay", {}), ("pay", {})), "Done.")
    await loop.send("go", session_id=second)
    await loop.aclose()
    assert len(set(keys)) == 5


async def test_progress_comes_as_events_from_tasks_and_threads(make_loop: MakeLoop) -> None:
    @tool
    def in_thread(ctx: ToolContext) -> str:
        """Work."""
        ctx.progress("half", fraction=0.5)
        ctx.progress("whole", fraction=1.0)
        return "done"

    @tool
    async def in_task(ctx: ToolContext) -> str:
        """Work."""
        ctx.progress("begun")
        return "done"

    loop = make_loop(
        calls(("in_thread", {}), ("in_task", {}), ids=("t", "a")), "Done.", tool_registry=[in_thread, in_task]
    )
    ears = Ears(loop)
    sid = await loop.new_session()
    await loop.send("go", session_id=sid)
    told = ears.of(ToolCallProgressed)
    assert [one for one in told if one.name == "in_thread"] == [
        ToolCallProgressed("t", "in_thread", "half", 0.5),
        ToolCallProgressed("t", "in_thread", "whole", 1.0),
    ]
    assert [one for one in told if one.name == "in_task"] == [ToolCallProgressed("a", "in_task", "begun", None)]
    finished = {
        event.payload.call_id: event.seq for event in ears.events if isinstance(event.payload, ToolCallFinished)
    }
    for event in ears.events:
        if isinstance(event.payload, ToolCallProgressed):
            assert event.seq < finished[event.payload.call_id], "progress comes before the end"
            assert (event.session_id, event.send_index, event.round) == (sid, 1, 1)


async def test_progress_is_held_to_what_it_says(make_loop: MakeLoop) -> None:
    @tool(effect="read")
    def work(message: Any, fraction: Any, ctx: ToolContext) -> str:
        """Work."""
        ctx.progress(message, fraction=fraction)
        return "done"

    good = [("a", None), ("b", 0), ("c", 0.5), ("d", 1.0000001), ("e", -3)]
    bad = [(5, None), (None, 0.5), ("x", "half"), ("x", True)]
    asked = [("work", {"message": message, "fraction": fraction}) for message, fraction in good + bad]
    loop = make_loop(calls(*asked), "Done.", tool_registry=[work])
    ears = Ears(loop)
    sid = await loop.new_session()
    await loop.send("go", session_id=sid)
    told = sorted((one.message, one.fraction) for one in ears.of(ToolCallProgressed))
    assert told == [("a", None), ("b", 0.0), ("c", 0.5), ("d", 1.0), ("e", 0.0)]
    errors = error_answers(loop.llm.requests[1])
    assert ["progress() was told" in text for text in errors] == [True] * 4


async def test_state_lasts_as_long_as_the_session_and_no_longer_than_its_commit(make_loop: MakeLoop) -> None:
    @tool
    def count(ctx: ToolContext) -> int:
        """Count."""
        ctx.state["n"] = ctx.state.get("n", 0) + 1
        ctx.state.setdefault("seen", []).append(ctx.state["n"])
        return ctx.state["n"]

    first = make_loop(call("count"), call("count"), "Done.", call("count"), "Done.", tool_registry=[count])
    sid, other = await first.new_session(), await first.new_session()
    await first.send("go", session_id=sid)
    await first.send("go", session_id=sid)
    second = make_loop(call("count"), "Done.", tool_registry=[count])
    await second.send("go", session_id=sid)
    assert answers(second.llm.requests[1]) == ["1", "2", "3", "4"]
    first.llm.add(call("count"), "Done.")
    await first.send("go", session_id=sid)
    assert answers(first.llm.requests[-1])[-1] == "5", "a warm handle sees what another one stored"
    first.llm.add(call("count"), "Done.")
    await first.send("go", session_id=other)
    assert answers(first.llm.requests[-1]) == ["1"], "another session has a state of its own"


async def test_state_of_calls_that_run_side_by_side_is_one(make_loop: MakeLoop) -> None:
    @tool
    async def add(key: str, ctx: ToolContext) -> str:
        """Add."""
        await asyncio.sleep(0)
        ctx.state[key] = True
        return "added"

    @tool(effect="read")
    def show(ctx: ToolContext) -> list[str]:
        """Show."""
        return sorted(ctx.state)

    loop = make_loop(calls(*(("add", {"key": key}) for key in "abc")), call("show"), "Done.", tool_registry=[add, show])
    sid = await loop.new_session()
    await loop.send("go", session_id=sid)
    assert answers(loop.llm.requests[2])[-1] == '["a", "b", "c"]'


@pytest.mark.parametrize("value", [object(), float("nan"), {1, 2}])
@pytest.mark.parametrize("is_inside", [False, True])
async def test_state_that_is_no_json_is_told_and_not_kept(make_loop: MakeLoop, value: Any, is_inside: bool) -> None:
    @tool
    def spoil(ctx: ToolContext) -> str:
        """Spoil."""
        if is_inside:
            ctx.state["good"].append(value)
        else:
            ctx.state["bad"] = value
        return "spoiled"

    @tool(effect="read")
    def show(ctx: ToolContext) -> dict[str, Any]:
        """Show."""
        return dict(ctx.state)

    @tool
    def keep(ctx: ToolContext) -> str:
        """Keep."""
        ctx.state["good"] = [1]
        return "kept"

    loop = make_loop(call("keep"), call("spoil"), call("show"), "Done.", tool_registry=[spoil, show, keep])
    sid = await loop.new_session()
    result = await loop.send("go", session_id=sid)
    assert result.is_completed
    [told] = error_answers(loop.llm.requests[3])
    assert "'spoil'" in told
    assert ("'good' is no JSON" if is_inside else "context.state['bad']") in told
    assert answers(loop.llm.requests[3])[-1] == '{"good": [1]}'


async def test_state_that_a_call_spoils_is_no_loss_of_those_beside_it(make_loop: MakeLoop) -> None:
    @tool
    async def pay(ctx: ToolContext) -> str:
        """Pay."""
        ctx.state["paid"] = True
        return "paid"

    @tool
    async def spoil(ctx: ToolContext) -> str:
        """Spoil."""
        ctx.state["when"] = asyncio
        return "spoiled"

    @tool(effect="read")
    def show(ctx: ToolContext) -> dict[str, Any]:
        """Show."""
        return dict(ctx.state)

    loop = make_loop(calls(("spoil", {}), ("pay", {}), ("spoil", {})), "Done.", tool_registry=[pay, spoil])
    sid = await loop.new_session()
    await loop.send("go", session_id=sid)
    assert len(error_answers(loop.llm.requests[1])) == 2
    assert answers(loop.llm.requests[1])[1] == "paid"
    cold = make_loop(call("show"), "Done.", tool_registry=[show])
    await cold.send("look", session_id=sid)
    assert answers(cold.llm.requests[1])[-1] == '{"paid": true}'


async def test_state_is_at_once_what_a_later_process_reads(make_loop: MakeLoop) -> None:
    @tool
    def keep(ctx: ToolContext) -> str:
        """Keep."""
        ctx.state[1] = (1, 2)
        ctx.state.setdefault("list", []).append({2: None})
        ctx.state.update({None: "none"}, more={"deep": [(3,)]})
        state = ctx.state
        state |= {True: False}
        return repr(sorted(ctx.state.items()))

    @tool(effect="read")
    def show(ctx: ToolContext) -> str:
        """Show."""
        return repr(sorted(ctx.state.items()))

    loop = make_loop(call("keep"), call("show"), "Done.", tool_registry=[keep, show])
    sid = await loop.new_session()
    await loop.send("go", session_id=sid)
    cold = make_loop(call("show"), "Done.", tool_registry=[show])
    await cold.send("look", session_id=sid)
    at_once, warm, later = answers(cold.llm.requests[1])
    assert warm == later
    kept = {"1": [1, 2], "list": [{"2": None}], "null": "none", "more": {"deep": [[3]]}, "true": False}
    assert later == repr(sorted(kept.items()))
    # Inside of a value a change shows its form when the call ends.
    assert at_once == later.replace("'2'", "2")


# ---- limits ----


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_call_that_takes_too_long_is_ended_and_the_model_is_told(make_loop: MakeLoop, is_async: bool) -> None:
    go_on = threading.Event()
    token: list[CancellationToken] = []

    async def wait_async(ctx: ToolContext) -> str:
        token.append(ctx.cancellation)
        await asyncio.Event().wait()
        return "never"

    def wait_sync(ctx: ToolContext) -> str:
        token.append(ctx.cancellation)
        go_on.wait(LIMIT_S)
        return "late"

    handler = wait_async if is_async else wait_sync
    slow = ToolDefinition("slow", "Wait.", schema(), handler, timeout_s=10, takes_context="ctx")
    try:
        running = asyncio.create_task(run(make_loop, [slow], ("slow", {})))
        await within_limit(until(lambda: bool(token)))
        pass_time(10)
        loop = await within_limit(running)
    finally:
        go_on.set()
    [told] = error_answers(loop.llm.requests[1])
    assert "did not finish within 10 seconds" in told
    assert ("still be running" in told) is not is_async
    assert token[0].is_cancelled
    assert token[0].reason == "timeout"


async def test_a_handler_that_ignores_its_time_limit_holds_nothing_up(make_loop: MakeLoop) -> None:
    gate = Gate()
    ended = asyncio.Event()

    async def stubborn() -> str:
        while True:
            try:
                await gate.passing()
            except asyncio.CancelledError:
                continue
            ended.set()
            return "at last"

    slow = ToolDefinition("slow", "Wait.", schema(), stubborn, timeout_s=0.01)
    loop = await run(make_loop, [slow], ("slow", {}))
    [told] = error_answers(loop.llm.requests[1])
    assert "did not finish within 0.01 seconds" in told
    assert "still be running" in told
    gate.open()
    await within_limit(ended.wait())
    await asyncio.sleep(0)


async def test_a_handler_may_answer_within_its_time_and_a_limit_of_none_is_none(make_loop: MakeLoop) -> None:
    @tool(timeout_s=None)
    async def work(ctx: ToolContext) -> str:
        """Work."""
        await asyncio.sleep(0)
        return str(ctx.deadline_s)

    loop = await run(make_loop, [work], ("work", {}))
    assert answers(loop.llm.requests[1]) == ["None"]


# ---- what comes back ----


@pytest.mark.parametrize(
    ("returned", "shown"),
    [
        ("text", "text"),
        (5, "5"),
        (None, "(no output)"),
        ("", "(no output)"),
        ({"a": [1, None, True]}, '{"a": [1, null, true]}'),
        ([1, "x"], '[1, "x"]'),
        (TextPart("part"), "part"),
        (ToolResult("fine"), "fine"),
        ("NUL \0 and \ud800", "NUL \ufffd and \ufffd"),
    ],
)
async def test_a_handler_may_return_text_json_or_parts(make_loop: MakeLoop, returned: Any, shown: str) -> None:
    give = ToolDefinition("give", "Give.", schema(), lambda: returned)
    loop = await run(make_loop, [give], ("give", {}))
    assert answers(loop.llm.requests[1]) == [shown]
    assert error_answers(loop.llm.requests[1]) == []


@pytest.mark.parametrize("returned", [object(), b"\xff", {1: object()}])
async def test_what_cannot_be_shown_is_told_as_an_error(make_loop: MakeLoop, returned: Any) -> None:
    give = ToolDefinition("give", "Give.", schema(), lambda: returned)
    loop = await run(make_loop, [give], ("give", {}))
    [told] = error_answers(loop.llm.requests[1])
    assert "the tool ran" in told


async def test_images_reach_the_model_as_images(make_loop: MakeLoop) -> None:
    picture = ImagePart.from_bytes(b"\x89PNG")

    @tool(effect="read")
    def shoot() -> Any:
        """Shoot."""
        return ToolResult((TextPart("Here:"), picture))

    loop = await run(make_loop, [shoot], ("shoot", {}))
    result = loop.llm.requests[1].messages[-1].tool_result
    assert result.content == (TextPart("Here:"), picture)


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (ToolError("there is no such room"), "there is no such room"),
        (ValueError("bad"), "'fail' failed: ValueError: bad"),
        (KeyError(), "'fail' failed: KeyError"),
        (asyncio.CancelledError("by itself"), "'fail' failed: CancelledError: by itself"),
        (StopIteration(1), "'fail' failed: "),
        (SystemExit(3), "'fail' failed: SystemExit: 3"),
        (TimeoutError("inner"), "'fail' failed: TimeoutError: inner"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("is_async", [True, False])
async def test_what_a_handler_raises_is_told_to_the_model_as_an_error(
    make_loop: MakeLoop, raised: BaseException, told: str, is_async: bool
) -> None:
    async def fail_async() -> str:
        raise raised

    def fail_sync() -> str:
        raise raised

    fail = ToolDefinition("fail", "Fail.", schema(), fail_async if is_async else fail_sync)
    loop = await run(make_loop, [fail], ("fail", {}))
    [text] = error_answers(loop.llm.requests[1])
    assert text.startswith(told)
    assert "Traceback" not in text


async def test_a_result_marked_as_an_error_is_one(make_loop: MakeLoop) -> None:
    give = ToolDefinition("give", "Give.", schema(), lambda: ToolResult("no luck", is_error=True))
    loop = make_loop(call("give"), "Done.", tool_registry=[give])
    ears = Ears(loop)
    sid = await loop.new_session()
    await loop.send("go", session_id=sid)
    assert error_answers(loop.llm.requests[1]) == ["no luck"]
    [finished] = ears.of(ToolCallFinished)
    assert (finished.state, finished.is_error) == ("failed", True)


@pytest.mark.promise("big-results")
async def test_a_huge_result_is_kept_whole_and_shown_as_head_and_tail(make_loop: MakeLoop) -> None:
    whole = "HEAD " + "x" * 1_000_000 + " TAIL"
    give = ToolDefinition("give", "Give.", schema(), lambda: whole, max_result_chars=2_000)
    loop = make_loop(calls(("give", {}), ids=("big",)), "Done.", tool_registry=[give])
    sid = await loop.new_session()
    await loop.send("go", session_id=sid)
    [shown] = answers(loop.llm.requests[1])
    assert len(shown) <= 2_000
    assert shown.startswith("HEAD ")
    assert shown.endswith(" TAIL")
    assert "1,000,010 characters" in shown
    assert said(await loop.get_messages(sid))[2] == ("tool", shown)
    for handle in (loop, make_loop()):
        assert await handle.get_tool_result(sid, "big") == (TextPart(whole),)
        assert await handle.get_tool_result(sid, "no such call") is None
    # The warm handle and the cold one show it alike.
    cold = make_loop("Again.", tool_registry=[give])
    await cold.send("more", session_id=sid)
    assert answers(cold.llm.requests[0]) == [shown]


async def test_a_small_result_is_its_own_whole(make_loop: MakeLoop) -> None:
    give = ToolDefinition("give", "Give.", schema(), lambda: "small")
    loop = make_loop(calls(("give", {}), ids=("c",)), "Done.", tool_registry=[give])
    sid = await loop.new_session()
    await loop.send("go", session_id=sid)
    assert await loop.get_tool_result(sid, "c") == (TextPart("small"),)


@pytest.mark.parametrize("size", [3_900_000, 10_000_000])
async def test_huge_arguments_pass_through_or_are_told_to_be_too_large(make_loop: MakeLoop, size: int) -> None:
    @tool
    def measure(text: str) -> int:
        """Measure."""
        return len(text)

    loop = make_loop(call("measure", {"text": "x" * size}), "Done.", tool_registry=[measure])
    sid = await loop.new_session()
    result = await loop.send("go", session_id=sid)
    assert result.is_completed
    [told] = answers(loop.llm.requests[1])
    assert told == str(size) if size < 4_000_000 else "send less at a time" in told
    assert len((await make_loop().get_messages(sid))[1].message.tool_calls[0].arguments) > size, "nothing is lost"


async def test_a_tool_that_is_taken_away_in_the_middle_is_told_as_unknown(make_loop: MakeLoop) -> None:
    registry = ToolRegistry()

    @registry.tool
    def vanish() -> str:
        """Vanish."""
        return "here"

    def go(request: Any) -> Any:
        registry.unregister("vanish")
        return call("vanish")

    loop = make_loop(go, "Done.", tool_registry=registry)
    sid = await loop.new_session()
    assert (await loop.send("go", session_id=sid)).is_completed
    assert "vanish" in error_answers(loop.llm.requests[1])[0]


async def test_many_rounds_of_many_calls_keep_everything_in_order(make_loop: MakeLoop) -> None:
    @tool(effect="read")
    async def square(n: int) -> int:
        """Square."""
        for _ in range(n % 3):
            await asyncio.sleep(0)
        return n * n

    rounds = [calls(*(("square", {"n": n}) for n in range(start, start + 5))) for start in range(0, 50, 5)]
    loop = make_loop(llm=ScriptedLLM([*rounds, "Done."]), tool_registry=[square])
    sid = await loop.new_session()
    result = await loop.send("go", session_id=sid)
    assert (result.rounds, result.tool_calls) == (11, 50)
    last = loop.llm.requests[-1]
    assert answers(last) == [str(n * n) for n in range(50)]
    asked = [part.id for message in last.messages for part in message.parts if isinstance(part, ToolCallPart)]
    assert [message.tool_result.call_id for message in last.messages if message.tool_result] == asked
