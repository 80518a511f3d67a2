"""Commands beside the conversation are looked after, recorded with their session, and never outlive it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from power_loop import RuntimeEnv, SendStatus, StatefulAgentLoop
from power_loop.errors import ConfigError
from power_loop.sandbox import LocalShellBackend, ShellLimits
from power_loop.testing import ScriptedLLM, call, leak_check
from power_loop.tools import background_tools, bash_tools
from power_loop.tools.background import MAX_RECORDS
from tests.agent.parts import answers, error_answers, until, within_limit
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


def loop_of(folder: Path, *script: Any, dsn: str = ":memory:", limits: ShellLimits | None = None) -> Any:
    files = folder / "output"
    files.mkdir(exist_ok=True)
    shell = LocalShellBackend(RuntimeEnv(folder), limits=limits or ShellLimits(grace_s=0.05), output_folder=files)
    tools = [*bash_tools(shell), *background_tools(shell)]
    return StatefulAgentLoop(llm=ScriptedLLM(list(script)), dsn=dsn, tool_registry=tools)


def start(command: str) -> Any:
    return call("background_run", {"command": command})


def job(name: str, number: int = 1, **more: Any) -> Any:
    return call(f"background_{name}", {"job": f"job_{number}", **more})


async def told(loop: Any, sid: str) -> list[str]:
    result = await within_limit(loop.send("go", session_id=sid))
    assert result.status is SendStatus.COMPLETED
    return answers(loop.llm.requests[-1])


async def test_a_command_is_started_listed_checked_waited_for_and_its_end_is_told(tmp_path: Path) -> None:
    pipe = tmp_path / "go"
    os.mkfifo(pipe)
    script = [
        start(f"echo begun; read x <{pipe}; echo got $x; exit 3"),
        call("background_list"),
        job("check"),
        call("bash", {"command": f"echo on >{pipe}"}),
        job("wait", timeout_s=100),
        call("background_list"),
        "Done.",
    ]
    async with loop_of(tmp_path, *script) as loop:
        ran, listed, checked, _, waited, last = await told(loop, await loop.new_session())
        assert ran == "job_1 runs. background_check or background_wait tell how far it is."
        assert listed.startswith("job_1: running (")
        assert f"output file: {tmp_path}/output/" in listed
        assert checked.startswith("job_1: running (")
        assert waited.startswith("job_1: ended with exit status 3 (")
        assert waited.endswith("begun\ngot on")
        assert last.startswith("job_1: ended with exit status 3 (")


async def test_waiting_ends_at_its_time_limit_and_the_command_runs_on(tmp_path: Path, mark: Mark) -> None:
    async with loop_of(tmp_path, start(mark.sleep), job("wait", timeout_s=0.05), "Done.") as loop:
        sid = await loop.new_session()
        _, waited = await told(loop, sid)
        assert waited.startswith("job_1: running (")
        assert waited.endswith("[no output yet]")
        await mark.someone()


async def test_a_stopped_command_leaves_nobody(tmp_path: Path, mark: Mark) -> None:
    script = [start(f"(setsid {mark.sleep} &); {mark.sleep}"), job("stop"), job("stop"), "Done."]
    async with loop_of(tmp_path, *script) as loop:
        _, stopped, again = await told(loop, await loop.new_session())
        assert stopped.startswith("job_1: stopped (")
        assert again.startswith("job_1: stopped ("), "stopping twice is no mistake"
        assert mark.alive() == []


async def test_a_command_begins_in_the_folder_of_the_shell(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    script = [call("bash", {"command": "cd src"}), start("pwd"), job("wait"), "Done."]
    async with loop_of(tmp_path, *script) as loop:
        assert (await told(loop, await loop.new_session()))[-1].endswith(f"\n{tmp_path}/src")


async def test_a_model_is_reminded_of_what_runs_until_it_has_seen_its_end(tmp_path: Path, mark: Mark) -> None:
    async with loop_of(tmp_path, start(mark.sleep), "Done.", "Still.", job("stop"), "Done.") as loop:
        sid = await loop.new_session()
        await told(loop, sid)
        await told(loop, sid)
        await told(loop, sid)
        shown = ["not seen the end of" in (one.tail or "") for one in loop.llm.requests]
        assert shown == [False, True, True, True, False]


async def test_a_fork_neither_sees_nor_ends_the_commands_of_its_origin(tmp_path: Path, mark: Mark) -> None:
    script = [
        *(start(mark.sleep), "Done."),
        *(call("background_list"), job("stop"), start("echo of the fork"), job("wait", 2), "Done."),
        *(call("background_list"), job("stop"), "Done."),
    ]
    async with loop_of(tmp_path, *script) as loop:
        sid = await loop.new_session()
        await told(loop, sid)
        fork = await (await loop.get_store()).fork_session(sid)
        before = len(loop.llm.requests)
        _, listed, stopped, ran, waited = await told(loop, fork)
        assert not any("not seen the end of" in (one.tail or "") for one in loop.llm.requests[before : before + 2])
        assert listed == "There are no background commands."
        assert error_answers(loop.llm.requests[-1]) == ["there is no background command 'job_1': there are none"]
        assert stopped == "there is no background command 'job_1': there are none"
        # The name of the origin's command stands in the log that they share.
        assert ran.startswith("job_2 runs.")
        assert waited.endswith("of the fork")
        await mark.someone()
        await told(loop, sid)
        _, listed, stopped = answers(loop.llm.requests[-1])
        assert listed.startswith("job_1: running (")
        assert "\njob_" not in listed
        assert stopped.startswith("job_1: stopped (")


@pytest.mark.parametrize("how", ["session", "loop"])
async def test_a_command_ends_with_its_session_and_with_the_loop(tmp_path: Path, mark: Mark, how: str) -> None:
    async with loop_of(tmp_path, start(f"(setsid {mark.sleep} &); {mark.sleep}"), "Done.") as loop:
        sid = await loop.new_session()
        await told(loop, sid)
        await mark.someone(2)
        if how == "session":
            await loop.close_session(sid)
            assert mark.alive() == []
    assert mark.alive() == []


async def test_a_cancelled_send_ends_the_commands_of_its_session_and_of_no_other(tmp_path: Path, mark: Mark) -> None:
    other = Mark()
    script = [start(other.sleep), "Done.", start(mark.sleep), job("wait", timeout_s=300), "Done."]
    async with loop_of(tmp_path, *script) as loop:
        await told(loop, await loop.new_session())
        await other.someone()
        sid = await loop.new_session()
        sending = asyncio.create_task(loop.send("go", session_id=sid))
        await mark.someone()
        await within_limit(_until_waiting(loop))
        await loop.cancel(sid)
        assert (await within_limit(sending)).status is SendStatus.CANCELLED
        await within_limit(mark.nobody())
        assert other.alive()
    assert other.alive() == []


async def _until_waiting(loop: Any) -> None:
    while len(loop.llm.requests) < 4:  # noqa: ASYNC110 - what is waited for has no event
        await asyncio.sleep(0)


async def test_a_session_sees_only_commands_of_its_own(tmp_path: Path, mark: Mark) -> None:
    script = [start(mark.sleep), "Done.", call("background_list"), job("stop"), job("check", 7), "Done."]
    async with loop_of(tmp_path, *script) as loop:
        await told(loop, await loop.new_session())
        listed, *_ = await told(loop, await loop.new_session())
        assert listed == "There are no background commands."
        for said in error_answers(loop.llm.requests[-1]):
            assert "there is no background command" in said
            assert "there are none" in said
        assert mark.alive()


async def test_commands_are_bounded_and_the_model_is_told_what_to_do(tmp_path: Path, mark: Mark) -> None:
    limits = ShellLimits(max_jobs=1, grace_s=0.05)
    script = [start(mark.sleep), start("echo two"), job("stop"), start("echo three"), "Done."]
    async with loop_of(tmp_path, *script, limits=limits) as loop:
        said = await told(loop, await loop.new_session())
        assert "1 background commands run already: stop one, or wait for one, first" in said[1]
        assert said[3].startswith("job_2 runs")


async def test_records_are_bounded_and_those_that_ended_first_go_first(tmp_path: Path) -> None:
    steps = [step for number in range(1, MAX_RECORDS + 3) for step in (start(f"echo {number}"), job("wait", number))]
    sends = [one for at in range(0, len(steps), 20) for one in (*steps[at : at + 20], "On.")]
    async with loop_of(tmp_path, *sends, call("background_list"), "Done.") as loop:
        sid = await loop.new_session()
        for _ in range(sends.count("On.") + 1):
            await told(loop, sid)
        listed = answers(loop.llm.requests[-1])[-1]
        names = [line.partition(":")[0] for line in listed.splitlines() if line.startswith("job_")]
        assert names == [f"job_{number}" for number in range(3, MAX_RECORDS + 3)]


@pytest.mark.parametrize("timeout_s", [0, 301])
async def test_a_time_to_wait_that_is_none_is_refused(tmp_path: Path, timeout_s: float) -> None:
    async with loop_of(tmp_path, start("true"), job("wait", timeout_s=timeout_s), "Done.") as loop:
        assert "give more than 0 and at most 300 seconds" in (await told(loop, await loop.new_session()))[1]


async def test_a_command_that_runs_too_long_is_ended_and_told(tmp_path: Path, mark: Mark) -> None:
    limits = ShellLimits(max_job_s=0.1, grace_s=0.05)
    async with loop_of(tmp_path, start(mark.sleep), job("wait"), "Done.", limits=limits) as loop:
        _, said = await told(loop, await loop.new_session())
        assert "ended, because it ran longer than background commands may" in said


PROCESS = """
import asyncio, sys
from pathlib import Path
from tests.tools.test_background import loop_of, start

async def main():
    loop = loop_of(Path(sys.argv[1]), start("echo begun; " + sys.argv[3]), "Done.", dsn=sys.argv[2])
    sid = await loop.new_session()
    await loop.send("go", session_id=sid)
    print(sid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.promise("nobody-left")
def test_a_command_whose_process_was_killed_is_told_as_lost_with_its_output_and_leaves_nobody(
    tmp_path: Path, mark: Mark
) -> None:
    dsn = str(tmp_path / "a.db")
    command = [sys.executable, "-c", PROCESS, str(tmp_path), dsn, mark.sleep]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2], text=True) as process:
        assert process.stdout is not None
        sid = process.stdout.readline().strip()
        assert sid
        # The shell that is to say so bears the mark as well, before it says anything.
        [file] = (tmp_path / "output").iterdir()
        asyncio.run(within_limit(until(lambda: file.read_text() == "begun\n")))
        asyncio.run(mark.someone())
        process.send_signal(signal.SIGKILL)
    asyncio.run(mark.nobody())
    said = asyncio.run(_told_elsewhere(tmp_path, dsn, sid))
    assert len(said) == 4
    for one in said:
        assert one.startswith("job_1: lost, because the process that ran it has ended")
        assert f"output file: {file}" in one
    assert file.read_text() == "begun\n"


async def _told_elsewhere(folder: Path, dsn: str, sid: str) -> list[str]:
    script = [call("background_list"), job("check"), job("wait"), job("stop"), "Done."]
    async with loop_of(folder, *script, dsn=dsn) as loop:
        return (await told(loop, sid))[1:]


async def test_what_is_no_backend_is_refused() -> None:
    with pytest.raises(ConfigError, match="give a ShellBackend"):
        background_tools(None)  # type: ignore[arg-type]
