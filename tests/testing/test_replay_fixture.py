"""A recorded session becomes a regression test: the same code passes it, other code is told what differs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from power_loop import LoopConfig, StatefulAgentLoop, tool
from power_loop.errors import ConfigError
from power_loop.testing import Cassette, ScriptedLLM, call, check_replay_fixture, replay_fixture, write_replay_fixture


@tool(effect="read")
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def loop(**options: Any) -> StatefulAgentLoop:
    made = {"llm": ScriptedLLM([]), "dsn": ":memory:", "tool_registry": [add], **options}
    return StatefulAgentLoop(**made)


@pytest.fixture
async def archive() -> bytes:
    steps = [call("add", {"a": 1, "b": 2}), "Three.", "Yes."]
    async with loop(llm=ScriptedLLM(steps), config=LoopConfig(system_prompt="You count.")) as recorded:
        session_id = await recorded.new_session()
        await recorded.send("One and two?", session_id=session_id)
        await recorded.send("Sure?", session_id=session_id)
        store: Any = await recorded.get_store()
        return bytes(await store.export_session(session_id))


async def test_the_same_code_passes_and_other_code_is_told_what_differs(archive: bytes, tmp_path: Path) -> None:
    path = tmp_path / "fixtures" / "sum.jsonl"
    config = LoopConfig(system_prompt="You count.")
    async with loop(config=config) as today:
        assert (await write_replay_fixture(today, archive, path)).calls == 3
        assert (await check_replay_fixture(today, path)).calls == 3
        assert path.read_bytes() == archive
        with pytest.raises(ConfigError, match="write_replay_fixture"):
            await check_replay_fixture(today, tmp_path / "none.jsonl")
    async with loop(config=LoopConfig(system_prompt="You count well.")) as today:
        with pytest.raises(AssertionError, match=r"system differs at character 10: recorded 'You count\.', asked"):
            await check_replay_fixture(today, path)
        with pytest.raises(AssertionError, match="the system prompt differs"):
            await write_replay_fixture(today, archive, path)
    other = replace(today.tools.get("add"), description="Add.")  # type: ignore[type-var]
    async with loop(config=config, tool_registry=[other]) as today:
        with pytest.raises(AssertionError, match=r"tool 'add', description differs"):
            await check_replay_fixture(today, path)


async def test_its_requests_are_a_cassette_of_the_session(archive: bytes, tmp_path: Path) -> None:
    config = LoopConfig(system_prompt="You count.")
    async with loop(config=config) as today:
        await write_replay_fixture(today, archive, tmp_path / "sum.jsonl")
    with Cassette(tmp_path / "sum.cassette.jsonl") as model:
        async with loop(llm=model, config=config) as live:
            session_id = await live.new_session()
            assert (await live.send("One and two?", session_id=session_id)).final_text == "Three."
            assert (await live.send("Sure?", session_id=session_id)).final_text == "Yes."


async def test_a_session_of_more_calls_than_are_read_at_once_becomes_one_too(
    archive: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_fixture, "PAGE", 2)
    async with loop(config=LoopConfig(system_prompt="You count.")) as today:
        assert (await write_replay_fixture(today, archive, tmp_path / "sum.jsonl")).calls == 3
        assert (await check_replay_fixture(today, tmp_path / "sum.jsonl")).calls == 3
