"""Calls that are given up: the model is told what is known of them, and a session never stays stuck."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from typing import Any

import pytest

from power_loop import Approve, Deny, SendStatus, StatefulAgentLoop, ToolDefinition, tool
from power_loop.errors import ConfigError
from power_loop.events import SendStarted
from power_loop.hooks import RequireApproval
from power_loop.records import CallState, WaitKind
from power_loop.testing import call, calls
from power_loop.tools import Waiting

from .conftest import MakeLoop
from .parts import LIMIT_S, Ears, answers, error_answers, said, within_limit

RAN: list[Any] = []
UNKNOWN = "may or may not have happened"


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    RAN.clear()


def asking(kind: WaitKind, effect: Any = "once") -> ToolDefinition:
    """Return a tool that does something and waits then."""

    @tool(name="ask", effect=effect)
    def ask() -> Waiting:
        """Ask."""
        RAN.append("ask")
        return Waiting("Well?", kind)

    return ask


@tool(requires_approval=True)
def pay() -> str:
    """Pay."""
    RAN.append("pay")
    return "paid"


FETCH = ToolDefinition("fetch", "Fetch.", {"type": "object", "properties": {}})


async def waiting(make_loop: MakeLoop, name: str, *tools: Any) -> tuple[StatefulAgentLoop, str]:
    loop = make_loop(calls((name, {}), ids=("c1",)), "Done.", tool_registry=list(tools))
    sid = await loop.new_session()
    assert (await loop.send("go", session_id=sid)).status is SendStatus.WAITING_FOR_INPUT
    return loop, sid


async def state_of(loop: StatefulAgentLoop, sid: str) -> CallState:
    [found] = await (await loop.get_store()).get_calls(sid)
    return found.state


# ---- waiting calls that are given up ----


@pytest.mark.parametrize("way", ["heal", "abort", "send"])
@pytest.mark.parametrize(
    ("definition", "state", "told"),
    [
        (asking(WaitKind.INPUT), CallState.UNKNOWN, UNKNOWN),
        (asking(WaitKind.RESULT), CallState.UNKNOWN, UNKNOWN),
        (asking(WaitKind.INPUT, "idempotent"), CallState.UNKNOWN, UNKNOWN),
        (asking(WaitKind.INPUT, "read"), CallState.ABORTED, "before it had any effect"),
        (FETCH, CallState.ABORTED, UNKNOWN),
        (pay, CallState.ABORTED, "It had no effect."),
    ],
)
async def test_a_waiting_call_that_is_given_up_is_told_of_as_far_as_it_is_known(
    make_loop: MakeLoop, way: str, definition: ToolDefinition, state: CallState, told: str
) -> None:
    loop, sid = await waiting(make_loop, definition.name, definition)
    other = make_loop("Done.")
    if way == "heal":
        await other.heal_pending(sid)
    elif way == "abort":
        await other.abort_pending(sid)
    await other.send("more", session_id=sid, heal_pending=way == "send")
    assert told in error_answers(other.llm.requests[0])[0]
    assert await state_of(loop, sid) is state


async def test_a_call_that_ran_and_was_approved_is_unknown_when_it_is_given_up_before_it_runs_on(
    make_loop: MakeLoop,
) -> None:
    ask = asking(WaitKind.APPROVAL)
    loop, sid = await waiting(make_loop, "ask", ask)
    stopped = asyncio.Event()

    async def stop(context: Any) -> None:
        await loop.cancel(sid)
        await stopped.wait()

    loop.hooks.add("round.decide", stop)
    result = await within_limit(loop.resume(sid, answers={"c1": Approve()}))
    assert (result.status, RAN) == (SendStatus.CANCELLED, ["ask"])
    assert await state_of(loop, sid) is CallState.UNKNOWN
    assert UNKNOWN in said(await loop.get_messages(sid))[-1][1]


async def test_an_attempt_is_kept_while_a_call_waits(make_loop: MakeLoop) -> None:
    for effect in ("once", "read"):
        loop, sid = await waiting(make_loop, "ask", asking(WaitKind.INPUT, effect))
        [found] = await (await loop.get_store()).get_calls(sid)
        assert (found.state, found.attempt) == (CallState.WAITING, 1)


@pytest.mark.parametrize("door", ["heal_pending", "abort_pending", "send"])
async def test_open_calls_of_a_send_that_has_ended_are_settled(make_loop: MakeLoop, dsn: str, door: str) -> None:
    loop, sid = await waiting(make_loop, "pay", pay)
    with sqlite3.connect(dsn) as connection:
        connection.execute("UPDATE pl_sends SET status = 'cancelled', result = '{}'")
    connection.close()
    other = make_loop("Fine.", tool_registry=[pay])
    if door != "send":
        result = await getattr(other, door)(sid)
        assert (result.status, result.send_index) == (SendStatus.CANCELLED, 1)
        assert await other.get_pending(sid) == ()
    result = await other.send("more", session_id=sid, heal_pending=door == "send")
    assert (result.final_text, RAN) == ("Fine.", [])
    assert await state_of(loop, sid) is CallState.ABORTED


# ---- a process without the tools ----


async def test_a_call_is_not_approved_where_its_tool_is_missing_and_waits_on(make_loop: MakeLoop) -> None:
    loop, sid = await waiting(make_loop, "pay", pay)
    other = make_loop("Done.")
    with pytest.raises(ConfigError, match=r"no tool 'pay'.*tools="):
        await other.resume(sid, answers={"c1": Approve()})
    [pending] = await loop.get_pending(sid)
    assert pending.wait_kind is WaitKind.APPROVAL
    assert (await other.resume(sid, answers={"c1": Approve()}, tools=[pay])).final_text == "Done."
    assert RAN == ["pay"]


async def test_a_call_may_be_denied_where_its_tool_is_missing(make_loop: MakeLoop) -> None:
    _, sid = await waiting(make_loop, "pay", pay)
    assert (await make_loop("Done.").resume(sid, answers={"c1": Deny("no")})).final_text == "Done."


async def test_a_result_may_be_brought_with_the_tools_that_the_send_brought(make_loop: MakeLoop) -> None:
    loop = make_loop(call("fetch"))
    sid = await loop.new_session()
    result = await loop.send("go", session_id=sid, tools=[FETCH, pay])
    [pending] = result.pending
    other = make_loop("Done.")
    other.hooks.add("tool.before", lambda context: RequireApproval("?"))
    assert (await other.submit_tool_result(sid, pending.call_id, "here", tools=[FETCH, pay])).final_text == "Done."
    assert [one.name for one in other.llm.requests[0].tools] == ["fetch", "pay"]
    assert answers(other.llm.requests[0]) == ["here"]


async def test_a_send_that_goes_on_without_its_tools_says_so(make_loop: MakeLoop) -> None:
    loop = make_loop(call("fetch"))
    sid = await loop.new_session()
    [pending] = (await loop.send("go", session_id=sid, tools=[FETCH, pay])).pending
    other = make_loop("Done.", tool_registry=[pay])
    ears = Ears(other)
    await other.submit_tool_result(sid, pending.call_id, "here")
    assert ears.of(SendStarted) == [SendStarted(None, is_resume=True, missing_tools=("fetch",))]


# ---- probes ----


async def left_started(make_loop: MakeLoop, dsn: str, definition: ToolDefinition) -> str:
    """Return a session whose call of `definition` was started by a process that is gone."""
    loop, sid = await waiting(make_loop, definition.name, definition)
    await loop.aclose()
    with sqlite3.connect(dsn) as connection:
        connection.execute("UPDATE pl_tool_calls SET state = 'started', attempt = 1, wait_kind = NULL")
        connection.execute("UPDATE pl_sends SET status = 'running'")
    connection.close()
    return sid


def probed(probe: Any, **options: Any) -> ToolDefinition:
    return tool(name="pay", requires_approval=True, description="Pay.", probe=probe, **options)(
        lambda: RAN.append("pay")
    )


async def test_a_plain_probe_runs_in_a_thread(make_loop: MakeLoop, dsn: str) -> None:
    threads: list[threading.Thread] = []

    def probe(key: str) -> str:
        threads.append(threading.current_thread())
        return "paid"

    definition = probed(probe)
    sid = await left_started(make_loop, dsn, definition)
    loop = make_loop("Done.", tool_registry=[definition])
    assert (await within_limit(loop.resume(sid))).is_completed
    assert answers(loop.llm.requests[0]) == ["paid"]
    assert threads[0] is not threading.main_thread()


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_probe_that_takes_longer_than_its_tool_may_cannot_tell(
    make_loop: MakeLoop, dsn: str, is_async: bool
) -> None:
    release = threading.Event()

    def probe(key: str) -> str:
        release.wait(LIMIT_S)
        return "paid"

    async def probe_async(key: str) -> str:
        await asyncio.get_running_loop().create_future()
        return "paid"

    definition = probed(probe_async if is_async else probe, timeout_s=0.05)
    sid = await left_started(make_loop, dsn, definition)
    loop = make_loop("Done.", tool_registry=[definition])
    try:
        assert (await within_limit(loop.resume(sid))).is_completed
    finally:
        release.set()
    assert UNKNOWN in error_answers(loop.llm.requests[0])[0]


async def test_what_a_plain_probe_hands_out_is_awaited(make_loop: MakeLoop, dsn: str) -> None:
    running = asyncio.get_running_loop()

    def probe(key: str) -> Any:
        found = asyncio.Future(loop=running)
        running.call_soon_threadsafe(found.set_result, "paid")
        return found

    definition = probed(probe)
    sid = await left_started(make_loop, dsn, definition)
    loop = make_loop("Done.", tool_registry=[definition])
    assert (await within_limit(loop.resume(sid))).is_completed
    assert answers(loop.llm.requests[0]) == ["paid"]


async def test_a_turn_may_be_cancelled_while_a_probe_hangs(make_loop: MakeLoop, dsn: str) -> None:
    begun = asyncio.Event()

    async def probe(key: str) -> str:
        begun.set()
        await asyncio.get_running_loop().create_future()
        return "paid"

    definition = probed(probe)
    sid = await left_started(make_loop, dsn, definition)
    loop = make_loop("Done.", tool_registry=[definition])
    resuming = asyncio.create_task(loop.resume(sid))
    await within_limit(begun.wait())
    assert await loop.cancel(sid)
    assert (await within_limit(resuming)).status is SendStatus.CANCELLED
    assert await state_of(loop, sid) is CallState.UNKNOWN
