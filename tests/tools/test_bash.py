"""A model runs commands in a shell that lasts, is told honestly how each ended, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from power_loop import Effect, RuntimeEnv, SendStatus, StatefulAgentLoop, ToolDefinition, tool_preset
from power_loop.errors import ConfigError
from power_loop.sandbox import LocalShellBackend, ShellLimits
from power_loop.testing import ScriptedLLM, call, calls, leak_check
from power_loop.tools import bash_tools
from tests.agent.parts import answers, error_answers, within_limit
from tests.runtime.host.shells import TIME_LIMITS_S
from tests.runtime.host.trees import Mark

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="processes are counted in /proc")


@pytest.fixture
def mark() -> Mark:
    return Mark()


@pytest.fixture(autouse=True)
def _nothing_is_left(mark: Mark) -> Iterator[None]:
    with leak_check(kinds=["child process"]):
        yield
        assert mark.alive() == []


def tools(folder: Path, limits: ShellLimits | None = None, **env: Any) -> tuple[ToolDefinition, ...]:
    return bash_tools(LocalShellBackend(RuntimeEnv(folder, **env), limits=limits or ShellLimits(grace_s=0.05)))


def loop_of(*script: Any, tools: Any, dsn: str = ":memory:") -> Any:
    return StatefulAgentLoop(llm=ScriptedLLM(list(script)), dsn=dsn, tool_registry=tools)


def exists(path: str) -> bool:
    return os.path.exists(path)


def bash(command: str, **more: Any) -> Any:
    return call("bash", {"command": command, **more})


async def told(folder: Path, *commands: Any, limits: ShellLimits | None = None, **env: Any) -> list[str]:
    """Return what the model is told of commands, one a round."""
    script = [bash(one) if isinstance(one, str) else one for one in commands]
    async with loop_of(*script, "Done.", tools=tools(folder, limits, **env)) as loop:
        result = await within_limit(loop.send("go", session_id=await loop.new_session()))
        assert result.status is SendStatus.COMPLETED
        return answers(loop.llm.requests[-1])


async def test_the_folder_and_variables_last_from_call_to_call_and_to_the_next_send(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    script = [bash("cd src; X=7"), "Done.", bash('echo "$PWD $X"'), "Done."]
    async with loop_of(*script, tools=tools(tmp_path)) as loop:
        sid = await loop.new_session()
        await loop.send("go", session_id=sid)
        await loop.send("on", session_id=sid)
        assert answers(loop.llm.requests[-1])[-1] == f"{tmp_path}/src 7"


async def test_the_end_of_a_command_is_told_as_it_was(tmp_path: Path) -> None:
    said = await told(tmp_path, "true", "echo a; false", "echo b >&2; exit 3", "echo c", "kill -9 $$", "nonsense_x")
    assert said[0] == "[no output]"
    assert said[1] == "a\n[exit status 1]"
    assert said[2] == (
        "b\n[the command ended the shell, with exit status 3. The next command gets a new shell: it has none of the"
        f" variables that were set, and stands in {tmp_path}]"
    )
    assert said[3] == "c"
    assert "exit status -9" in said[4]
    assert "command not found" in said[5]
    assert "[exit status 127]" in said[5]


async def test_of_a_long_output_both_ends_are_shown_and_the_rest_is_in_a_file_that_the_next_command_reads(
    tmp_path: Path,
) -> None:
    async with loop_of(bash("seq 30000"), "Done.", tools=tools(tmp_path)) as loop:
        sid = await loop.new_session()
        await loop.send("go", session_id=sid)
        [said] = answers(loop.llm.requests[-1])
        assert said.startswith("1\n2\n3\n")
        assert said.endswith("29999\n30000")
        found = re.search(r"\[… ([\d,]+) bytes are left out here; (\S+) holds the first 168,894 bytes", said)
        assert found is not None
        loop.llm.add(bash(f"sed -n 15000p {found[2]}; stat -c %a {found[2]}"), "Done.")
        await loop.send("on", session_id=sid)
        assert answers(loop.llm.requests[-1])[-1] == "15000\n600"
        assert exists(found[2])
    assert not exists(found[2]), "the files of a backend go with it"


@pytest.mark.promise("nobody-left")
async def test_a_command_that_runs_too_long_is_ended_with_its_tree_and_the_next_one_has_a_usable_shell(
    tmp_path: Path, mark: Mark
) -> None:
    tree = f"echo begun; (setsid {mark.sleep} &); {mark.sleep}"
    for timeout_s in TIME_LIMITS_S:
        script = [bash(tree, timeout_s=timeout_s), bash("echo usable"), "Done."]
        async with loop_of(*script, tools=tools(tmp_path)) as loop:
            await within_limit(loop.send("go", session_id=await loop.new_session()))
            first, second = answers(loop.llm.requests[-1])
            ended = f"[ended after {timeout_s} seconds, with everything that it started: give a longer"
            assert first.removeprefix("begun\n").startswith(ended)
            assert error_answers(loop.llm.requests[-1]) == [first]
            assert second == "usable"
            await within_limit(mark.nobody())
        if not first.startswith("["):
            break
    assert first.startswith("begun\n")


@pytest.mark.parametrize("timeout_s", [0, -1, 601])
async def test_a_time_limit_that_is_none_is_refused_with_what_to_give(tmp_path: Path, timeout_s: float) -> None:
    [said] = await told(tmp_path, bash("touch a", timeout_s=timeout_s))
    assert "give more than 0 and at most 600 seconds" in said
    assert not (tmp_path / "a").exists()


async def test_a_command_has_no_variable_that_was_not_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {"OPENAI_API_KEY": "sk-4711", "DATABASE_URL": "postgres://u:pw4711@h/d", "BASH_ENV": "/tmp/x4711"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    # A process that it starts sees no more, nor do those above it in its own tree.
    look = "env; cat /proc/self/environ /proc/$$/environ /proc/$PPID/environ | tr '\\0' '\\n'"
    [said] = await told(tmp_path, look, environment={"GIVEN": "yes"})
    assert "GIVEN=yes" in said
    assert "4711" not in said
    names = {line.partition("=")[0] for line in said.splitlines()}
    assert not names & set(secrets)


async def test_calls_of_one_reply_run_one_after_the_other(tmp_path: Path) -> None:
    batch = calls(*(("bash", {"command": f"echo {n} >>log; cat log"}) for n in range(3)))
    assert await told(tmp_path, batch) == ["0", "0\n1", "0\n1\n2"]


async def test_sessions_have_shells_of_their_own(tmp_path: Path) -> None:
    script = [bash("X=1"), "Done.", bash("echo ${X:-none}"), "Done."]
    async with loop_of(*script, tools=tools(tmp_path)) as loop:
        await loop.send("go", session_id=await loop.new_session())
        await loop.send("go", session_id=await loop.new_session())
        assert answers(loop.llm.requests[-1]) == ["none"]


async def test_a_command_of_no_use_is_refused_with_the_reason(tmp_path: Path) -> None:
    said = await told(tmp_path, bash("echo " + "x" * 2_000), limits=ShellLimits(max_command_bytes=1_000))
    assert "1,000" in said[0] or "1000" in said[0]


async def test_more_processes_than_allowed_end_the_command_and_say_so(tmp_path: Path, mark: Mark) -> None:
    many = f"for n in 1 2 3 4 5 6 7 8; do {mark.sleep} & done; wait"
    said = await told(tmp_path, many, "echo on", limits=ShellLimits(max_processes=4, grace_s=0.05))
    assert "more processes at once than are allowed" in said[0]
    assert said[1] == "on"


@pytest.mark.promise("nobody-left")
async def test_a_cancelled_send_leaves_nobody(tmp_path: Path, mark: Mark) -> None:
    async with loop_of(bash(f"(setsid {mark.sleep} &); {mark.sleep}"), "Done.", tools=tools(tmp_path)) as loop:
        sid = await loop.new_session()
        sending = asyncio.create_task(loop.send("go", session_id=sid))
        await mark.someone(2)
        await loop.cancel(sid)
        result = await within_limit(sending)
        assert result.status is SendStatus.CANCELLED
        await within_limit(mark.nobody())


@pytest.mark.parametrize("how", ["session", "loop"])
@pytest.mark.promise("nobody-left")
async def test_what_was_left_running_ends_with_its_session_and_with_the_loop(
    tmp_path: Path, mark: Mark, how: str
) -> None:
    loop = loop_of(
        bash(f"{mark.sleep} >/dev/null 2>&1 & disown; setsid {mark.sleep} >&- 2>&- &"), "Done.", tools=tools(tmp_path)
    )
    async with loop:
        sid = await loop.new_session()
        await loop.send("go", session_id=sid)
        await mark.someone(2)
        if how == "session":
            await loop.close_session(sid)
            assert mark.alive() == []
    assert mark.alive() == []


async def test_what_a_command_wrote_is_an_effect_that_is_not_made_twice(tmp_path: Path) -> None:
    [definition] = tools(tmp_path)
    assert definition.effect is Effect.ONCE
    assert definition.resource is not None
    await definition.resource.aclose()


async def test_what_is_no_backend_is_refused() -> None:
    with pytest.raises(ConfigError, match="give a ShellBackend"):
        bash_tools("bash")  # type: ignore[arg-type]


async def test_the_preset_has_it_over_the_environment_that_it_was_given_and_the_loop_closes_it(
    tmp_path: Path, mark: Mark
) -> None:
    script = [bash(f"pwd; {mark.sleep} >/dev/null 2>&1 &"), "Done."]
    preset = tool_preset("core", RuntimeEnv(tmp_path))
    async with loop_of(*script, tools=preset) as loop:
        await loop.send("go", session_id=await loop.new_session())
        assert answers(loop.llm.requests[-1]) == [str(tmp_path)]
        await mark.someone()
    assert mark.alive() == []


async def test_a_backend_that_cannot_be_closed_keeps_no_other_open(tmp_path: Path, mark: Mark) -> None:
    class Stuck(LocalShellBackend):
        async def aclose(self) -> None:
            await super().aclose()
            raise OSError("stuck")

    [first] = bash_tools(Stuck(RuntimeEnv(tmp_path)))
    [second] = tools(tmp_path)
    [third] = bash_tools(Stuck(RuntimeEnv(tmp_path)))
    named = [dataclasses.replace(one, name=name) for name, one in (("a", first), ("bash", second), ("c", third))]
    loop = loop_of(bash(f"{mark.sleep} >/dev/null 2>&1 &"), "Done.", tools=named)
    await loop.send("go", session_id=await loop.new_session())
    await mark.someone()
    with pytest.raises(OSError, match="stuck"):
        await loop.aclose()
    assert mark.alive() == []
