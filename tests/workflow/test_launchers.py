"""A worker in a sandbox cannot get out of it, has no key and no network; without its launcher none is started."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from power_loop.errors import SandboxUnavailableError
from power_loop.testing import ScriptedLLM, call, leak_check
from power_loop.workflow import BubblewrapWorkerLauncher, PoolLimits, SubprocessExecutor, WorkerBootstrap, WorkerPlan
from power_loop.workflow.executors import LeafOutcome
from tests.runtime.host.shells import sandbox_is_missing
from tests.workflow.worker_parts import Host, kill_workers, leaf, within_limit, workers

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="sandboxes are of Linux")
SECRET = "secret-4711"
ONE = PoolLimits(size=1, spare=0)
PAGE = Path(__file__).resolve().parents[2] / "docs" / "en" / "user-guide" / "sandboxing.md"


def bubblewrapped(folder: Path, **bootstrap: Any) -> SubprocessExecutor:
    if missing := sandbox_is_missing():
        pytest.skip(missing)
    return SubprocessExecutor(
        WorkerBootstrap(tool_preset="core", **bootstrap),
        launcher=BubblewrapWorkerLauncher(),
        state_folder=folder / "leaves",
        pool=ONE,
    )


async def said(made: SubprocessExecutor, command: str, path: str = "one") -> str:
    """Return what a command says that a leaf runs."""
    host = Host(ScriptedLLM([call("bash", {"command": command}), "Done."]))
    outcome = await within_limit(made.run_leaf(leaf(path, tools=("bash",)), host))
    assert outcome.is_completed, outcome
    scripted: Any = host.llm
    return str(scripted.requests[1].messages[-1].tool_result.content[0].text)


# ---- bubblewrap ----


@pytest.mark.promise("sandbox-or-nothing")
async def test_a_leaf_in_a_sandbox_cannot_get_out_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("APP_DSN", f"postgresql://u:{SECRET}@h/db")
    (tmp_path / "secret").write_text(SECRET)
    other = tmp_path / "leaves" / "worker-other" / "leaf"
    other.mkdir(parents=True)
    (tmp_path / "leaves").chmod(0o700)
    (other / "leaf.db").write_text(SECRET)
    with closing(socket.socket()) as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        tries = (
            f"cat {tmp_path}/secret {other}/leaf.db /etc/shadow && echo broke-out 1",
            "cat /proc/[0-9]*/environ | tr '\\0' '\\n'; env",
            f"echo x >{tmp_path}/made; echo x >/usr/made; echo x >{tmp_path}/leaves/made",
            f"(echo >/dev/tcp/127.0.0.1/{port}) && echo broke-out 2",
            f"kill -9 {os.getpid()} && echo broke-out 3; ls /proc | grep -x {os.getpid()} && echo broke-out 4",
            "unshare -Ur true && echo broke-out 5; mount -t tmpfs x /mnt && echo broke-out 6",
            "grep -v lo: /proc/net/dev | grep : && echo broke-out 7",
            "touch /usr && echo broke-out 8; ls /home /run /sys && echo broke-out 9",
        )
        async with leak_check(), bubblewrapped(tmp_path) as made:
            text = await said(made, "\n".join(tries))
    assert "broke-out" not in text
    assert SECRET not in text
    assert "PATH=" in text
    assert not any("made" in files for _, _, files in os.walk(tmp_path))


async def test_a_leaf_in_a_sandbox_comes_to_what_it_comes_to_outside(tmp_path: Path) -> None:
    steps = [
        call("write_file", {"path": "a", "content": "7"}, id="c1"),
        call("read_file", {"path": "a"}, id="c2"),
        "7.",
    ]
    hosts = [Host(ScriptedLLM(steps)) for _ in range(2)]
    bare = SubprocessExecutor(WorkerBootstrap(tool_preset="core"), state_folder=tmp_path / "bare", pool=ONE)
    async with leak_check(), bare, bubblewrapped(tmp_path) as boxed:
        task = leaf(tools=("write_file", "read_file"))
        outcomes = [
            await within_limit(one.run_leaf(task, host)) for one, host in zip((bare, boxed), hosts, strict=True)
        ]
    assert outcomes[0] == outcomes[1]
    assert hosts[0].types == hosts[1].types


async def test_a_worker_that_is_killed_in_its_sandbox_goes_on_from_its_file_in_another(tmp_path: Path) -> None:
    def kill(_: Any) -> str:
        kill_workers()
        return "Never heard."

    async with leak_check(), bubblewrapped(tmp_path) as made:
        host = Host(ScriptedLLM([call("bash", {"command": "echo x >>done"}), kill]))
        outcome = await within_limit(made.run_leaf(leaf(tools=("bash",)), host))
        assert outcome.error is not None
        assert (outcome.error.code, outcome.is_transient) == ("worker.died", True)
        again = Host(ScriptedLLM(["Done."]))
        assert (await within_limit(made.run_leaf(leaf(attempt=2, tools=("bash",)), again))).is_completed
        (file,) = (tmp_path / "leaves").glob("worker-*/*/workspace/done")
        assert file.read_text() == "x\n"
    assert workers() == []


async def test_a_workspace_that_is_given_is_shared_and_nothing_beside_it(tmp_path: Path) -> None:
    workspace = tmp_path / "project" / "work"
    workspace.mkdir(parents=True)
    (workspace.parent / "private").write_text(SECRET)
    async with leak_check(), bubblewrapped(tmp_path, workspace=str(workspace)) as made:
        text = await said(made, "echo kept >file; cat ../private; pwd")
    assert (workspace / "file").read_text() == "kept\n"
    assert SECRET not in text
    assert str(workspace) in text


# ---- fail closed ----


async def failed(folder: Path, launcher: Any) -> LeafOutcome:
    host = Host(ScriptedLLM())
    made = SubprocessExecutor(launcher=launcher, state_folder=folder / "leaves", pool=ONE)
    async with leak_check(), made:
        outcome = await within_limit(made.run_leaf(leaf(), host))
        assert workers() == []
    assert host.events == []
    return outcome


def raising(_: WorkerPlan) -> list[str]:
    raise ZeroDivisionError("oh")


async def refusing(_: WorkerPlan) -> list[str]:
    raise SandboxUnavailableError("not today")


@pytest.mark.promise("sandbox-or-nothing")
@pytest.mark.parametrize(
    ("launcher", "word"),
    [
        (raising, "ZeroDivisionError: oh"),
        (refusing, "not today"),
        (lambda _: None, "returned None"),
        (lambda _: "bwrap python", "give a list of words"),
        (lambda _: [], "returned []"),
        (lambda _: ["python", 5], "give words that are text"),
        (lambda plan: ["no-such-sandbox", *plan.argv], "no-such-sandbox"),
        (lambda _: ["false"], "did not bring up a worker"),
        (lambda _: ["true"], "did not bring up a worker"),
        (lambda _: ["sh", "-c", "echo the daemon is not running >&2; exit 1"], "the daemon is not running"),
        (BubblewrapWorkerLauncher(program="no-such-bwrap"), "no-such-bwrap"),
        (BubblewrapWorkerLauncher(program="true"), "sandbox"),
    ],
    ids=[str(one) for one in range(12)],
)
async def test_without_its_launcher_no_worker_is_started(tmp_path: Path, launcher: Any, word: str) -> None:
    outcome = await failed(tmp_path, launcher)
    assert outcome.error is not None
    assert (outcome.error.code, outcome.is_transient) == ("sandbox.unavailable", False)
    assert word in outcome.error.message


async def test_a_launcher_is_told_what_the_leaf_is_granted_and_what_it_has_to_reach(tmp_path: Path) -> None:
    plans: list[WorkerPlan] = []

    async def look(plan: WorkerPlan) -> tuple[str, ...]:
        plans.append(plan)
        return ("env", "--", *plan.argv)

    bootstrap = WorkerBootstrap(tool_preset="core", import_paths=(str(tmp_path),))
    made = SubprocessExecutor(bootstrap, launcher=look, state_folder=tmp_path / "leaves", pool=ONE)
    async with leak_check(), made:
        for tools in (("bash",), ("read_file",), None):
            outcome = await within_limit(made.run_leaf(leaf(f"{tools}", tools=tools), Host()))
            assert outcome.is_completed
    assert [plan.tools for plan in plans[:2]] == [("bash",), ("read_file",)]
    # All that there are, by name.
    assert {"bash", "read_file", "write_file"} <= set(plans[2].tools or ())
    for plan in plans:
        assert (plan.needs_network, plan.workspace) == (False, None)
        assert str(tmp_path) in plan.read_only
        assert not [name for name in plan.env if "KEY" in name or "DSN" in name]


# ---- the recipes of the documentation ----


def recipes() -> dict[str, Any]:
    """The functions of the page that tells of launchers."""
    block = PAGE.read_text("utf-8").partition("<!-- recipes -->")[2].partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {}
    exec(compile(block, "sandboxing.md", "exec"), names)
    return names


def _missing(program: str, check: tuple[str, ...]) -> str:
    if shutil.which(program) is None:
        return f"there is no {program!r} here"
    done = subprocess.run(check, capture_output=True, text=True, timeout=60, check=False)
    return "" if done.returncode == 0 else f"{program} does not work here: {done.stderr.strip()[-200:]}"


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("gvisor", ("runsc", "--rootless", "--network=none", "do", "true")),
        ("docker", ("docker", "info")),
        ("firejail", ("firejail", "--quiet", "--noprofile", "true")),
    ],
)
async def test_a_recipe_runs_leaves_where_its_program_can_be_had(
    tmp_path: Path, name: str, check: tuple[str, ...]
) -> None:
    launcher = recipes()[name]
    if missing := _missing(check[0], check):
        pytest.skip(missing)
    made = SubprocessExecutor(
        WorkerBootstrap(tool_preset="core"), launcher=launcher, state_folder=tmp_path / "leaves", pool=ONE
    )
    async with leak_check(), made:
        assert "outside" not in await said(made, f"ls {Path(__file__).parent} && echo outside")


@pytest.mark.parametrize("name", ["gvisor", "docker", "firejail"])
def test_a_recipe_takes_the_network_from_a_worker_that_needs_none(name: str, tmp_path: Path) -> None:
    words = recipes()[name](
        WorkerPlan(("python", "-I"), {}, ("bash",), str(tmp_path), None, ("/opt/python",), needs_network=False)
    )
    assert any(one in ("--network=none", "--net=none") for one in words)
    assert any(str(tmp_path) in one for one in words)
