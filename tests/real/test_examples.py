"""Examples run as they are on a live model: what they print is its own affair, what they leave is not."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from power_loop import open_store
from power_loop.records import CallState
from tests.real.conftest import Endpoint

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 240
ON_ONE_WIRE = pytest.mark.parametrize(("wire", "endpoint"), [("openai", "lean")], indirect=True)


def run(endpoint: Endpoint, folder: Path, name: str, *arguments: str) -> str:
    """Run an example as a process in a folder of its own; return what it printed."""
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py"), *arguments]
    environment = {**os.environ, **endpoint.variables}
    ended = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def look(folder: Path) -> tuple[list[str], list[CallState]]:
    """Return the roles of the only session's log, and the states of its calls."""

    async def read() -> tuple[list[str], list[CallState]]:
        store = await open_store(str(folder / "app.db"))
        try:
            [session] = (await store.list_sessions()).items
            log = await store.get_messages(session.id)
            calls = await store.get_calls(session.id)
            return [record.message.role.value for record in log], [one.state for one in calls]
        finally:
            await store.aclose()

    return asyncio.run(read())


@ON_ONE_WIRE
def test_a_streamed_answer(endpoint: Endpoint, tmp_path: Path) -> None:
    said = run(endpoint, tmp_path, "01_streaming")
    assert said.rpartition("[")[2].partition(",")[0] in ("completed", "truncated")
    assert look(tmp_path) == (["user", "assistant"], [])


@ON_ONE_WIRE
def test_a_conversation_of_two_processes(endpoint: Endpoint, tmp_path: Path) -> None:
    first = run(endpoint, tmp_path, "02_another_process", "Remember my favorite color is teal.")
    second = run(endpoint, tmp_path, "02_another_process", "What's my favorite color?")
    assert first.endswith("[2 messages so far]\n")
    assert second.endswith("[4 messages so far]\n")
    assert look(tmp_path) == (["user", "assistant"] * 2, [])


@ON_ONE_WIRE
def test_a_process_that_is_killed_in_a_tool(endpoint: Endpoint, tmp_path: Path) -> None:
    said = run(endpoint, tmp_path, "12_kill_and_resume")
    assert said.startswith("the child ended with -9\nopen: pack ")
    roles, states = look(tmp_path)
    assert roles[0] == "user"
    assert "tool" in roles
    assert states
    assert set(states) == {CallState.SUCCEEDED}
