"""The blocking twins, for scripts without an event loop."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from power_loop import SendStatus, StatefulAgentLoop, ToolDefinition, tool
from power_loop.errors import InputError, LLMAuthError, LoopClosedError, SessionNotFoundError
from power_loop.testing import ScriptedLLM, call, calls

from .parts import LIMIT_S, said

FETCH = ToolDefinition("fetch", "Fetch.", {"type": "object", "properties": {}})


def sync_threads() -> int:
    return sum(1 for thread in threading.enumerate() if thread.name == "power-loop-sync")


def test_a_script_holds_a_conversation_without_an_event_loop(dsn: str) -> None:
    @tool
    def act() -> str:
        """Act."""
        return "acted"

    llm = ScriptedLLM([call("act"), "Done.", calls(("fetch", {}), ids=("c",)), "Fetched.", calls(("fetch", {}))])
    with StatefulAgentLoop(llm=llm, dsn=dsn, tool_registry=[act, FETCH]) as loop:
        sid = loop.new_session_sync(system_prompt="Be kind.", metadata={"a": 1})
        assert loop.send_sync("go", session_id=sid).final_text == "Done."
        assert loop.send_sync("go", session_id=sid).status is SendStatus.WAITING_FOR_INPUT
        assert [one.call_id for one in loop.get_pending_sync(sid)] == ["c"]
        assert loop.submit_tool_result_sync(sid, "c", "x").final_text == "Fetched."
        assert loop.resume_sync(sid).is_replayed
        assert loop.send_sync("go", session_id=sid).status is SendStatus.WAITING_FOR_INPUT
        assert loop.heal_pending_sync(sid).status is SendStatus.ABORTED
        assert loop.abort_pending_sync(sid).status is SendStatus.ABORTED
        assert [role for role, _ in said(loop.get_messages_sync(sid, limit=2))] == ["user", "assistant"]
        assert [one.id for one in loop.list_sessions_sync(metadata={"a": 1}).items] == [sid]
        assert loop.close_session_sync(sid) is True
    assert sync_threads() == 0
    with pytest.raises(LoopClosedError):
        loop.send_sync("go", session_id=sid)
    loop.close_sync()
    assert sync_threads() == 0


def test_errors_are_those_of_the_async_twins(dsn: str) -> None:
    with StatefulAgentLoop(llm=ScriptedLLM([LLMAuthError("no"), "Fine."]), dsn=dsn) as loop:
        with pytest.raises(SessionNotFoundError):
            loop.send_sync("go", session_id="none")
        sid = loop.new_session_sync()
        with pytest.raises(LLMAuthError):
            loop.send_sync("go", session_id=sid)
        assert loop.resume_sync(sid).final_text == "Fine."


async def test_in_an_event_loop_a_twin_refuses_to_block_it(dsn: str) -> None:
    loop = StatefulAgentLoop(llm=ScriptedLLM(), dsn=dsn)
    with pytest.raises(InputError, match="await its twin"):
        loop.new_session_sync()
    await loop.aclose()
    assert sync_threads() == 0


def test_several_threads_may_use_one_handle(dsn: str) -> None:
    with StatefulAgentLoop(llm=ScriptedLLM(["Fine."], repeat_last=True), dsn=dsn) as loop:

        def talk(_: int) -> list[str]:
            sid = loop.new_session_sync()
            return [loop.send_sync("go", session_id=sid).final_text for _ in range(5)]

        with ThreadPoolExecutor(8) as pool:
            given = list(pool.map(talk, range(16)))
        assert given == [["Fine."] * 5] * 16
        assert sync_threads() == 1, "one event loop serves them all"


def test_closing_waits_for_what_another_thread_sends(dsn: str) -> None:
    entered, go_on = threading.Event(), threading.Event()

    async def hold(request: Any) -> str:
        entered.set()
        await asyncio.to_thread(go_on.wait, LIMIT_S)
        return "Done."

    loop = StatefulAgentLoop(llm=ScriptedLLM([hold]), dsn=dsn)
    sid = loop.new_session_sync()
    with ThreadPoolExecutor(2) as pool:
        sent = pool.submit(loop.send_sync, "go", session_id=sid)
        assert entered.wait(LIMIT_S)
        closed = pool.submit(loop.close_sync)
        go_on.set()
        assert sent.result(LIMIT_S).final_text == "Done."
        closed.result(LIMIT_S)


def test_a_forgotten_handle_lets_go_of_its_thread(dsn: str) -> None:
    loop = StatefulAgentLoop(llm=ScriptedLLM(["x"]), dsn=dsn)
    sid = loop.new_session_sync()
    loop.send_sync("go", session_id=sid)
    assert sync_threads() == 1
    del loop
    assert sync_threads() == 0


def test_every_twin_takes_and_gives_what_its_async_twin_does() -> None:
    twins = [name for name in dir(StatefulAgentLoop) if name.endswith("_sync") and not name.startswith("_")]
    assert len(twins) == 27
    for name in set(twins) - {"close_sync", "run_sync"}:
        twin, method = getattr(StatefulAgentLoop, name), getattr(StatefulAgentLoop, name.removesuffix("_sync"))
        assert inspect.iscoroutinefunction(method)
        assert not inspect.iscoroutinefunction(twin)
        assert inspect.signature(twin) == inspect.signature(method)
        assert (twin.__name__, twin.__qualname__) == (name, f"StatefulAgentLoop.{name}")
        assert method.__name__ in (twin.__doc__ or "")


def test_what_has_no_twin_runs_all_the_same(dsn: str) -> None:
    with StatefulAgentLoop(llm=ScriptedLLM(["Fine."]), dsn=dsn) as loop:
        sid = loop.new_session_sync()
        loop.send_sync("go", session_id=sid)
        assert loop.run_sync(loop.get_session_stats(sid)).messages == 2


def test_a_wrong_argument_is_refused_where_it_is_given(dsn: str) -> None:
    with StatefulAgentLoop(llm=ScriptedLLM(), dsn=dsn) as loop:
        with pytest.raises(TypeError, match="wrong"):
            loop.send_sync("go", session_id="s", wrong=1)  # type: ignore[call-arg]
        assert sync_threads() == 0


def test_a_script_may_mix_both_kinds(dsn: str, tmp_path: Path) -> None:
    loop = StatefulAgentLoop(llm=ScriptedLLM(["One.", "Two."]), dsn=dsn)
    sid = loop.new_session_sync()
    assert loop.send_sync("a", session_id=sid).final_text == "One."
    assert asyncio.run(loop.send("b", session_id=sid)).final_text == "Two."
    assert len(loop.get_messages_sync(sid)) == 4
    loop.close_sync()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_goes_on_with_the_handle_of_its_parent(dsn: str) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "tests.agent.forking", dsn]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S + 30, check=False)
    assert ended.returncode == 0, ended.stderr
    said = json.loads(ended.stdout)
    assert said["child"]["text"] == said["parent"]["text"] == "Hello."
    assert said["child"]["mine"]
    assert said["child"]["served"] > 0
    assert said["delivering"] == said["beside"] == {"text": "Hello."}
    assert said["parent"]["inputs"] == ["parent", "child", "parent"]
