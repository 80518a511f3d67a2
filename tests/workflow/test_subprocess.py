"""Workers that die, hang, run out of time or lie: the leaf has an outcome that says so, and nothing of it is left."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from power_loop import SendStatus
from power_loop.contracts.events import EventPayload, SendStarted, TextDelta, ToolCallStarted
from power_loop.contracts.version import __version__
from power_loop.sandbox import ShellLimits
from power_loop.testing import ScriptedLLM, call, leak_check
from power_loop.workflow import subprocess_executor
from power_loop.workflow.executors import LeafOutcome
from power_loop.workflow.pool import PoolLimits
from power_loop.workflow.subprocess_executor import SubprocessExecutor
from power_loop.workflow.worker_bootstrap import WorkerBootstrap
from power_loop.workflow.worker_frames import SILENCE_S
from tests.agent.parts import pass_time, until
from tests.runtime.host.trees import Mark, runs, state_of
from tests.workflow.worker_parts import ROOT, Host, kill_workers, leaf, within_limit, workers

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="workers are looked at in /proc")
ONE = PoolLimits(size=1, spare=0)
# A time that no test waits for: it is let pass.
_LONG_S = 60.0
CORE = WorkerBootstrap(tool_preset="core")


@pytest.fixture
def mark() -> Mark:
    return Mark()


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[SubprocessExecutor]:
    """An executor with one worker and the core tools."""
    async with leak_check(), SubprocessExecutor(CORE, state_folder=tmp_path / "leaves", pool=ONE) as made:
        yield made


def written_by(folder: Path) -> list[Path]:
    """The files `done` in the workspaces of leaves."""
    return list((folder / "leaves").glob("worker-*/*/workspace/done"))


def written(folder: Path) -> str:
    """What the leaf's commands wrote into the file `done` of its workspace."""
    (file,) = written_by(folder)
    return file.read_text()


def code_of(outcome: LeafOutcome) -> tuple[str, bool]:
    assert outcome.error is not None
    assert outcome.error.message
    return outcome.error.code, outcome.is_transient


class Killer(Host):
    """Kills the workers at the first event of a kind."""

    def __init__(self, kind: type[EventPayload], *steps: Any) -> None:
        super().__init__(ScriptedLLM(steps))
        self.kind = kind

    def announce(self, payload: EventPayload) -> None:
        super().announce(payload)
        if isinstance(payload, self.kind):
            kill_workers()


# ---- killed ----


async def test_a_worker_that_is_killed_in_a_model_call_goes_on_from_its_file(
    tmp_path: Path, core: SubprocessExecutor
) -> None:
    def kill(_: Any) -> str:
        kill_workers()
        return "Never heard."

    task = leaf(tools=("bash",))
    host = Host(ScriptedLLM([call("bash", {"command": "echo x >>done"}), kill]))
    outcome = await within_limit(core.run_leaf(task, host))
    assert code_of(outcome) == ("worker.died", True)
    assert outcome.error is not None
    assert "signal 9" in outcome.error.message
    assert outcome.usage.total_tokens == 30
    again = Host(ScriptedLLM(["Done."]))
    outcome = await within_limit(core.run_leaf(leaf(attempt=2, tools=("bash",)), again))
    assert (outcome.status, outcome.final_text) == (SendStatus.COMPLETED, "Done.")
    # What it had done it has not done again.
    assert written(tmp_path) == "x\n"
    scripted: Any = again.llm
    assert [one.role.value for one in scripted.requests[0].messages] == ["user", "assistant", "tool"]


async def test_a_worker_that_is_killed_in_a_tool_does_not_do_it_twice(tmp_path: Path, core: SubprocessExecutor) -> None:
    class Later(Host):
        def announce(self, payload: EventPayload) -> None:
            super().announce(payload)
            if isinstance(payload, ToolCallStarted):
                asyncio.get_running_loop().create_task(self.kill())

        async def kill(self) -> None:
            # A shell makes a file before it writes to it.
            await until(lambda: any(one.read_text() == "x\n" for one in written_by(tmp_path)))
            kill_workers()

    task = leaf(tools=("bash",))
    host = Later(ScriptedLLM([call("bash", {"command": "echo x >>done; sleep 600"})]))
    outcome = await within_limit(core.run_leaf(task, host))
    assert code_of(outcome) == ("worker.died", True)
    again = Host(ScriptedLLM(["Nobody knows."]))
    outcome = await within_limit(core.run_leaf(task, again))
    assert outcome.is_completed
    assert written(tmp_path) == "x\n"
    scripted: Any = again.llm
    (told,) = [one.tool_result for one in scripted.requests[0].messages if one.tool_result]
    assert told.is_error


@pytest.mark.parametrize("kind", [SendStarted, TextDelta])
async def test_a_worker_that_is_killed_early_begins_again(core: SubprocessExecutor, kind: type[EventPayload]) -> None:
    outcome = await within_limit(core.run_leaf(leaf(), Killer(kind, "Lost.")))
    if not outcome.is_completed:  # the reply may have come to its end before the signal
        assert code_of(outcome) == ("worker.died", True)
        outcome = await within_limit(core.run_leaf(leaf(attempt=2), Host(ScriptedLLM(["Done."]))))
        assert outcome.final_text in ("Done.", "Lost.")
    assert outcome.is_completed


async def test_a_leaf_that_came_to_its_end_and_was_not_heard_is_not_run_again(core: SubprocessExecutor) -> None:
    first = await within_limit(core.run_leaf(leaf(), Host(ScriptedLLM(["Done."]))))
    silent = Host(ScriptedLLM())
    second = await within_limit(core.run_leaf(leaf(), silent))
    assert (second.status, second.final_text) == (first.status, first.final_text)
    scripted: Any = silent.llm
    assert scripted.requests == []


async def test_another_attempt_at_a_leaf_that_ended_is_a_new_one(core: SubprocessExecutor) -> None:
    await within_limit(core.run_leaf(leaf(), Host(ScriptedLLM(["Not good enough."]))))
    second = await within_limit(core.run_leaf(leaf(attempt=2), Host(ScriptedLLM(["Better."]))))
    changed = await within_limit(core.run_leaf(leaf(attempt=2, input="Something else."), Host(ScriptedLLM(["Else."]))))
    assert (second.final_text, changed.final_text) == ("Better.", "Else.")


async def test_a_waiting_worker_that_is_killed_is_replaced_and_no_leaf_notices(core: SubprocessExecutor) -> None:
    await within_limit(core.run_leaf(leaf("one"), Host()))
    kill_workers()
    assert (await within_limit(core.run_leaf(leaf("two"), Host()))).is_completed


PARENT = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
from power_loop.testing import ScriptedLLM, call
from power_loop.workflow.subprocess_executor import SubprocessExecutor
from power_loop.workflow.worker_bootstrap import WorkerBootstrap
from power_loop.workflow.worker_frames import SILENCE_S
from tests.workflow.worker_parts import Host, leaf

async def main():
    made = SubprocessExecutor(WorkerBootstrap(tool_preset="core"), state_folder=sys.argv[2])
    await made.run_leaf(leaf(tools=("bash",)), Host(ScriptedLLM([call("bash", {"command": sys.argv[3]})])))

asyncio.run(main())
"""


async def test_workers_and_their_tools_die_with_their_parent(tmp_path: Path, mark: Mark) -> None:
    argv = [sys.executable, "-c", PARENT, ROOT, str(tmp_path / "leaves"), mark.sleep]
    parent = subprocess.Popen(argv)  # noqa: ASYNC220 - a parent of its own, which is killed
    try:
        await mark.someone()
        alive = workers()
        assert alive
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    await mark.nobody()
    await within_limit(until(lambda: not [pid for pid in alive if runs(pid)]))


# ---- too long, told to stop, too much ----


async def test_a_leaf_that_takes_too_long_is_killed_with_its_tools(tmp_path: Path, mark: Mark) -> None:
    # Nothing but the leaf's own time is over.
    made = SubprocessExecutor(CORE, state_folder=tmp_path / "leaves", pool=ONE, silence_s=2 * _LONG_S)
    async with leak_check(), made:
        host = Host(ScriptedLLM([call("bash", {"command": mark.sleep})]))
        running = asyncio.create_task(made.run_leaf(leaf(tools=("bash",), timeout_s=_LONG_S), host))
        await mark.someone()
        pass_time(_LONG_S)
        assert code_of(await within_limit(running)) == ("worker.timeout", True)
        await mark.nobody()


async def test_a_leaf_that_is_told_to_stop_comes_to_rest_by_itself(
    core: SubprocessExecutor, mark: Mark, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It has the time for it that a busy machine takes.
    monkeypatch.setattr(subprocess_executor, "_GRACE_S", _LONG_S)
    host = Host(ScriptedLLM([call("bash", {"command": mark.sleep})]))
    running = asyncio.create_task(core.run_leaf(leaf(tools=("bash",)), host))
    await mark.someone()
    (pid,) = workers()
    host.stop.cancel("enough")
    outcome = await within_limit(running)
    assert outcome.status is SendStatus.CANCELLED
    assert outcome.error is not None
    assert outcome.error.message == "enough"
    await mark.nobody()
    # The worker is well, and does the next one.
    assert (await within_limit(core.run_leaf(leaf("two"), Host()))).is_completed
    assert workers() == [pid]


async def test_a_worker_that_does_not_listen_is_killed_when_it_is_told_to_stop(
    core: SubprocessExecutor, mark: Mark
) -> None:
    host = Host(ScriptedLLM([call("bash", {"command": mark.sleep})]))
    running = asyncio.create_task(core.run_leaf(leaf(tools=("bash",)), host))
    await mark.someone()
    kill_workers(signal.SIGSTOP)
    host.stop.cancel("enough")
    assert (await within_limit(running)).status is SendStatus.CANCELLED
    await mark.nobody()


async def test_a_leaf_that_is_stopped_already_is_not_begun(core: SubprocessExecutor) -> None:
    host = Host()
    host.stop.cancel("too late")
    assert (await within_limit(core.run_leaf(leaf(), host))).status is SendStatus.CANCELLED
    scripted: Any = host.llm
    assert scripted.requests == []


async def test_nothing_goes_on_behind_a_task_that_is_cancelled(core: SubprocessExecutor, mark: Mark) -> None:
    host = Host(ScriptedLLM([call("bash", {"command": mark.sleep})]))
    running = asyncio.create_task(core.run_leaf(leaf(tools=("bash",)), host))
    await mark.someone()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await within_limit(running)
    assert (mark.alive(), workers(), host.lent) == ([], [], 0)


async def test_a_worker_that_hangs_is_killed_by_its_silence(core: SubprocessExecutor, mark: Mark) -> None:
    host = Host(ScriptedLLM([call("bash", {"command": mark.sleep})]))
    running = asyncio.create_task(core.run_leaf(leaf(tools=("bash",)), host))
    await mark.someone()
    (pid,) = workers()
    kill_workers(signal.SIGSTOP)
    await within_limit(until(lambda: state_of(pid) == "T"))
    # What it said before is heard first.
    for _ in range(100):
        await asyncio.sleep(0)
    pass_time(SILENCE_S)
    assert code_of(await within_limit(running)) == ("worker.silent", True)
    await mark.nobody()


async def test_a_tool_that_takes_too_much_memory_does_not_take_the_parents(tmp_path: Path) -> None:
    bootstrap = WorkerBootstrap(tools="tests.workflow.worker_parts:greedy_tools", import_paths=(ROOT,))
    limits = ShellLimits(memory_bytes=700_000_000)
    made = SubprocessExecutor(bootstrap, state_folder=tmp_path / "leaves", pool=ONE, limits=limits)
    async with leak_check(), made:
        host = Host(ScriptedLLM([call("take", {"megabytes": 2_000}), "It did not work."]))
        outcome = await within_limit(made.run_leaf(leaf(tools=("take",)), host))
    scripted: Any = host.llm
    assert "taken" not in repr(scripted.requests[-1].messages[-1])
    assert outcome.final_text == "It did not work."


# ---- that lie ----

HOSTILE = r"""
import json, os, struct, sys, time

def read():
    head = os.read(0, 4)
    if not head:
        sys.exit(0)
    (length,) = struct.unpack(">I", head)
    body = b""
    while len(body) < length:
        body += os.read(0, length - len(body))
    return json.loads(body)

def put(data):
    view = memoryview(data)
    while view:
        view = view[os.write(1, view):]

def say(**frame):
    body = json.dumps(frame).encode()
    put(struct.pack(">I", len(body)) + body)

def raw(body):
    put(struct.pack(">I", len(body)) + body)

def outcome(**more):
    say(type="outcome", leaf=leaf, outcome={"status": "completed", "final_text": "Mine.", **more})

version, what = sys.argv[1:]
if what == "noise first":
    put(b"Welcome to my sandbox!\n")
say(type="hello", protocol=2 if what == "protocol" else 1, version="0.0" if what == "version" else version, pid=1)
read()
if what == "unready":
    sys.exit(3)
say(type="ready")
leaf = read()["leaf"]
if what == "early":
    outcome()
say(type="begun", leaf=leaf)
exec(what)
time.sleep(600)
"""
LIES = {
    # Its first four bytes are no length that a frame may have: of random ones one in seventy is.
    "garbage": "put(b'\\xfe' + os.urandom(2_000))",
    "huge length": "put(b'\\xff\\xff\\xff\\xff')",
    "text": "put(b'hello, hello, hello')",
    "not utf-8": 'raw(b\'{"type":"\\xff\\xfe"}\')',
    "not a number": 'raw(b\'{"type":"beat","at":NaN}\')',
    "deep": "raw(b'{\"type\":' + b'[' * 100_000 + b'}')",
    "long number": "raw(b'{\"type\":\"beat\",\"n\":' + b'9' * 100_000 + b'}')",
    "unknown type": "say(type='format_disk', leaf=leaf)",
    "another leaf": "say(type='outcome', leaf='0' * 24, outcome={'status': 'completed', 'final_text': 'x'})",
    "no leaf": "say(type='event', event='delta.text', values={'text': 'x'})",
    "begun twice": "say(type='begun', leaf=leaf)",
    "unknown event": "say(type='event', leaf=leaf, event='os.system', values={})",
    "forged event": "say(type='event', leaf=leaf, event='delta.text', values={'text': 5})",
    "forged result": "say(type='event', leaf=leaf, event='send.finished', values={'result': {'status': 'rooted'}})",
    "forged request": "say(type='model', leaf=leaf, call=1, request={'messages': 'all'})",
    "calls out of turn": "say(type='model', leaf=leaf, call=7, request={'messages': []})",
    "no outcome": "say(type='outcome', leaf=leaf, outcome=[])",
    "no end": "outcome(status='running')",
    "waits": "outcome(status='waiting_for_input')",
    "somebody's session": "outcome(session_id='sess_of_somebody')",
    "completed with an error": "outcome(error={'code': 'x', 'message': 'y'})",
    "failed without one": "outcome(status='failed')",
    "huge numbers": "outcome(usage={'input_tokens': 10**300})",
    "output that does not fit": "outcome(output={'n': 'seven'})",
    "early": "pass",
}
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def liar(what: str) -> Callable[[Any], list[str]]:
    """A launcher that launches something else."""
    return lambda _: [sys.executable, "-I", "-S", "-c", HOSTILE, __version__, what]


async def lied(folder: Path, what: str, **more: Any) -> tuple[LeafOutcome, Host]:
    host = more.pop("host", None) or Host(ScriptedLLM())
    timeout_s = more.pop("timeout_s", None)
    options: dict[str, Any] = {"state_folder": folder / "leaves", "pool": ONE, "launcher": liar(what), **more}
    async with leak_check(folders=[folder]), SubprocessExecutor(**options) as made:
        outcome = await within_limit(made.run_leaf(leaf(output_schema=SCHEMA, timeout_s=timeout_s), host))
        assert made._pool.alive == 0
    scripted: Any = host.llm
    assert scripted.requests == []
    return outcome, host


@pytest.mark.parametrize("lie", LIES)
async def test_a_worker_that_lies_is_killed_and_nothing_of_it_is_believed(tmp_path: Path, lie: str) -> None:
    outcome, host = await lied(tmp_path, lie if lie == "early" else LIES[lie])
    assert code_of(outcome) == ("worker.protocol", False)
    assert (host.events, outcome.final_text, outcome.output) == ([], "", None)


@pytest.mark.parametrize("lie", ["protocol", "version", "unready", "noise first"])
async def test_a_launcher_that_brings_up_no_worker_of_ours_fails_the_leaf(tmp_path: Path, lie: str) -> None:
    outcome, _ = await lied(tmp_path, lie)
    assert code_of(outcome) == ("sandbox.unavailable", False)


@pytest.mark.parametrize(
    ("act", "code"),
    [
        ("sys.exit(0)", "worker.died"),
        ("put(b'\\0\\0\\0\\x20{'); sys.exit(1)", "worker.died"),
        ("os.kill(os.getpid(), 9)", "worker.died"),
        ("os.close(0); os.close(1)", "worker.died"),
        ("time.sleep(600)", "worker.silent"),
        ("put(b'\\0\\0\\1\\0'); time.sleep(600)", "worker.silent"),
    ],
)
async def test_a_worker_that_says_no_more_is_given_up(tmp_path: Path, act: str, code: str) -> None:
    # One that ends by itself has the time for it that a busy machine takes.
    outcome, _ = await lied(tmp_path, act, silence_s=0.5 if code == "worker.silent" else SILENCE_S)
    assert code_of(outcome) == (code, True)


async def test_a_flood_of_events_holds_up_nobody_and_ends_with_the_leafs_time(tmp_path: Path) -> None:
    flood = "while True: say(type='event', leaf=leaf, event='delta.text', values={'text': 'x' * 1000})"
    host = Host(ScriptedLLM())

    async def other() -> None:
        turns = 0
        while turns < 10 or len(host.events) < 100:
            await asyncio.sleep(0.01)
            turns += 1
        pass_time(_LONG_S)

    beside = asyncio.create_task(other())
    outcome, _ = await lied(tmp_path, flood, host=host, timeout_s=_LONG_S, silence_s=2 * _LONG_S)
    assert code_of(outcome) == ("worker.timeout", True)
    assert beside.done()
    await beside


async def test_what_a_worker_says_behind_its_outcome_is_nobodys(tmp_path: Path) -> None:
    twice = "outcome(output={'n': 1}); outcome(output={'n': 2}); say(type='beat')"
    launcher = liar(twice)
    pool = PoolLimits(size=1, spare=0, max_uses=5)
    async with leak_check(), SubprocessExecutor(launcher=launcher, state_folder=tmp_path / "l", pool=pool) as made:
        first = await within_limit(made.run_leaf(leaf(output_schema=SCHEMA), Host()))
        second = await within_limit(made.run_leaf(leaf("two", output_schema=SCHEMA), Host()))
    assert first.output == {"n": 1}
    # What was left of the first is not taken for the second's.
    assert second.output == {"n": 1} or code_of(second)[0] == "worker.protocol"


# ---- its folder ----


async def test_a_folder_that_somebody_cleaned_away_is_made_anew(tmp_path: Path) -> None:
    pool = PoolLimits(size=1, spare=0, max_uses=1)
    async with leak_check(), SubprocessExecutor(state_folder=tmp_path / "leaves", pool=pool) as made:
        for name in ("one", "two"):
            outcome = await within_limit(made.run_leaf(leaf(name), Host()))
            assert (outcome.status, outcome.error) == (SendStatus.COMPLETED, None)
            assert (tmp_path / "leaves").stat().st_mode & 0o077 == 0
            shutil.rmtree(tmp_path / "leaves")


async def test_the_files_of_leaves_that_ended_long_ago_are_removed_while_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess_executor, "_MOST_DONE", 2)
    async with leak_check(), SubprocessExecutor(state_folder=tmp_path / "leaves", pool=ONE) as made:
        for number in range(5):
            outcome = await within_limit(made.run_leaf(leaf(f"leaf{number}"), Host()))
            assert outcome.status is SendStatus.COMPLETED
            assert len(list((tmp_path / "leaves").glob("worker-*/*/leaf.db"))) == min(number + 1, 3)
