"""A turn on a fork or an imported session is a turn like any other: the model sees what was said, whoever holds it."""

from __future__ import annotations

from typing import Any

import pytest

from power_loop import Approve, HookPoint, SendStatus, StatefulAgentLoop, ToolContext, open_store, tool
from power_loop.errors import LLMError, SessionPendingError
from power_loop.hooks import RequireApproval, ToolBeforeContext
from power_loop.records import OnConflict
from power_loop.testing import ScriptedLLM, call

from .conftest import MakeLoop


def said_to(llm: ScriptedLLM) -> list[str]:
    """Return what the model saw in the last request, a word for each message."""
    return [f"{message.role.value[0]}:{message.text}" for message in llm.requests[-1].messages]


@pytest.mark.promise("forks")
async def test_the_model_sees_the_shared_history_and_only_its_own_future(make_loop: MakeLoop, dsn: str) -> None:
    llm = ScriptedLLM(["Noted.", "Teal.", "Fine.", "Magenta.", "Teal still."])
    loop = make_loop(llm=llm)
    sid = await loop.new_session(system_prompt="be brief")
    await loop.send("teal", session_id=sid)
    await loop.send("which?", session_id=sid)
    store = await open_store(dsn)
    fork = await store.fork_session(sid, at=2)
    await loop.send("magenta", session_id=fork)
    assert said_to(llm) == ["u:teal", "a:Noted.", "u:magenta"]
    assert llm.requests[-1].system == "be brief"
    cold = make_loop(llm=llm)
    await cold.send("which?", session_id=fork)
    assert said_to(llm) == ["u:teal", "a:Noted.", "u:magenta", "a:Fine.", "u:which?"]
    await loop.send("and now?", session_id=sid)
    assert said_to(llm) == ["u:teal", "a:Noted.", "u:which?", "a:Teal.", "u:and now?"]
    await store.aclose()


async def test_a_fork_in_the_middle_of_a_turn_asks_for_something_new(make_loop: MakeLoop, dsn: str) -> None:
    forks: list[str] = []
    keys: list[str] = []

    @tool(effect="once")
    async def look(ctx: ToolContext) -> str:
        """Look."""
        keys.append(ctx.idempotency_key)
        if not forks:
            store = await open_store(dsn)
            forks.append(await store.fork_session(ctx.session_id))
            await store.aclose()
        return "found"

    llm = ScriptedLLM([call("look"), "Done.", call("look"), "Done as well."])
    loop = make_loop(llm=llm, tool_registry=[look])
    sid = await loop.new_session()
    await loop.send("go", session_id=sid)
    [fork] = forks
    resumed = await loop.resume(fork)
    assert resumed.status is SendStatus.INTERRUPTED
    result = await loop.send("go again", session_id=fork)
    assert (result.status, result.final_text) == (SendStatus.COMPLETED, "Done as well.")
    assert len(set(keys)) == 2, "what the fork does is not what its origin did"
    assert [record.message.text for record in await loop.get_messages(fork)][:2] == ["go", "go again"]


async def test_a_failed_send_may_be_tried_again_in_a_fork(make_loop: MakeLoop, dsn: str) -> None:
    llm = ScriptedLLM([LLMError("down"), "Up."])
    loop = make_loop(llm=llm)
    sid = await loop.new_session()
    with pytest.raises(LLMError):
        await loop.send("hello?", session_id=sid)
    store = await open_store(dsn)
    fork = await store.fork_session(sid)
    assert (await loop.resume(fork)).final_text == "Up."
    assert [message.message.text for message in await loop.get_messages(fork)] == ["hello?", "Up."]
    assert len(await loop.get_messages(sid)) == 1
    assert await loop.get_session_stats(fork) != await loop.get_session_stats(sid)
    await store.aclose()


async def test_a_call_that_waits_for_a_person_is_answered_where_the_session_was_carried(
    make_loop: MakeLoop, dsn: str, tmp_path: Any
) -> None:
    ran: list[str] = []

    @tool()
    async def pay(ctx: ToolContext) -> str:
        """Pay."""
        ran.append(ctx.idempotency_key)
        return "paid"

    def ask(_: ToolBeforeContext) -> RequireApproval:
        return RequireApproval("may I pay?")

    loop = make_loop(call("pay"), tool_registry=[pay])
    loop.hooks.add(HookPoint.TOOL_BEFORE, ask)
    sid = await loop.new_session()
    assert (await loop.send("pay", session_id=sid)).status is SendStatus.WAITING_FOR_INPUT
    here = await open_store(dsn)
    there = await open_store(tmp_path / "there.db")
    assert await there.import_session(await here.export_session(sid), on_conflict=OnConflict.RAISE) == sid
    await here.delete_session(sid)
    other = StatefulAgentLoop(llm=ScriptedLLM(["Paid."]), store=there, tool_registry=[pay])
    other.hooks.add(HookPoint.TOOL_BEFORE, ask)
    [pending] = await other.get_pending(sid)
    with pytest.raises(SessionPendingError):
        await other.send("and?", session_id=sid)
    result = await other.resume(sid, answers={pending.call_id: Approve()})
    assert (result.final_text, len(ran)) == ("Paid.", 1)
    await other.aclose()
    await there.aclose()
    await here.aclose()
