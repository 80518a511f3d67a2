"""`power-loop workflow`: specs are checked as files; runs are driven, drawn as trees, told something and stopped."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from power_loop import StatefulAgentLoop
from power_loop.testing import ScriptedLLM
from power_loop.workflow import SubprocessExecutor, WorkflowResult, create_workflow
from tests.cli.inside import run

_AGENT = """
from power_loop import StatefulAgentLoop
from power_loop.testing import ScriptedLLM


def make(dsn):
    return StatefulAgentLoop(llm=ScriptedLLM(["First.", "Second."], repeat_last=True), dsn=dsn)


def make_broken(dsn):
    def fail(request):
        raise ValueError("no")

    return StatefulAgentLoop(llm=ScriptedLLM([fail], repeat_last=True), dsn=dsn)
"""


def leaf(name: str) -> dict[str, Any]:
    return {"type": "agent", "id": name, "spec": {"name": name, "system_prompt": "Work."}, "input": "Go: {{input}}"}


ASK = {"type": "wait", "id": "sure", "person": "Go on?\x1b[2J", "choices": ["yes", "no"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my_agent.py").write_text(_AGENT, "utf-8")
    write(tmp_path, "good.json", {"name": "tea", "input": "tea", "root": leaf("one")})
    steps = {"type": "sequence", "steps": [leaf("one"), ASK, leaf("two")]}
    write(tmp_path, "asks.json", {"name": "asks", "input": "tea", "root": steps})
    write(tmp_path, "bad.json", {"name": "tea", "root": {"type": "agnet", "id": "one"}, "x": 1})
    (tmp_path / "no.json").write_text("{", "utf-8")
    return tmp_path


def write(folder: Path, name: str, spec: Any) -> None:
    (folder / name).write_text(json.dumps(spec), "utf-8")


def workflow(folder: Path, *arguments: str, status: int = 0) -> str:
    """Return what a command printed that ended with this status and without a complaint."""
    done = run("workflow", *arguments, folder=folder, POWER_LOOP_DSN="app.db")
    assert (done.returncode, done.stderr) == (status, ""), done
    return done.stdout


def test_a_spec_is_checked_with_all_that_is_wrong_with_it(folder: Path) -> None:
    assert "it can be run" in workflow(folder, "validate", "good.json")
    assert json.loads(workflow(folder, "validate", "good.json", "--json")) == {"is_valid": True, "problems": []}
    found = run("workflow", "validate", "bad.json", folder=folder)
    assert found.returncode == 1
    assert "2 problems [workflow.invalid_spec]" in found.stderr
    assert "agnet" in found.stdout
    assert "did you mean `agent`" in found.stdout
    told = json.loads(workflow(folder, "validate", "bad.json", "--json", status=1))
    assert (told["is_valid"], len(told["problems"])) == (False, 2)
    assert {one["path"] for one in told["problems"]} == {"x", "root.type"}
    assert json.loads(workflow(folder, "schema"))["$schema"].startswith("https://json-schema.org/")


@pytest.mark.parametrize(
    ("name", "says"), [("none.json", "cannot be read"), ("no.json", "is no JSON"), (".", "cannot")]
)
def test_a_file_that_is_no_spec_is_told_of_in_a_line(folder: Path, name: str, says: str) -> None:
    for action in (("validate", name), ("run", name, "--app", "my_agent:make", "--dsn", "app.db")):
        done = run("workflow", *action, folder=folder)
        assert done.returncode == 1
        assert says in done.stderr
        assert done.stderr.count("\n") == 1
        assert "[config.invalid]" in done.stderr


def test_a_run_is_driven_with_progress_and_drawn_at_its_end(folder: Path) -> None:
    out = workflow(folder, "run", "good.json", "--app", "my_agent:make", "--run-id", "run_tea", "--input", "green")
    lines = out.splitlines()
    assert lines[0] == "run_tea"
    assert lines[1].split() == ["completed", "one", "agent"]
    assert lines[2].startswith("tea  completed  ")
    assert lines[3].split()[:3] == ["one", "agent", "completed"]
    assert lines[-1] == "First."
    # The same id meets the same run, which has ended.
    again = workflow(folder, "run", "good.json", "--app", "my_agent:make", "--run-id", "run_tea", "--json")
    result = json.loads(again)
    assert (result["type"], result["status"], result["output"], len(result["steps"])) == (
        "result",
        "completed",
        "First.",
        1,
    )


def test_a_run_that_fails_says_where_and_gives_its_status(folder: Path) -> None:
    out = workflow(folder, "run", "good.json", "--app", "my_agent:make_broken", status=1)
    assert "failed     one" in out
    assert "llm.failed" in out
    assert out.splitlines()[-1].startswith("llm.failed: ")


def test_a_run_that_waits_is_shown_told_and_gone_on_with(folder: Path) -> None:
    more = ("--app", "my_agent:make")
    events = workflow(folder, "run", "asks.json", *more, "--run-id", "run_1", "--json", status=3).splitlines()
    assert [json.loads(line)["type"] for line in events] == ["step_started", "step_finished", "result"]
    shown = workflow(folder, "status", "run_1")
    assert "asks  waiting" in shown
    lines = shown.splitlines()
    assert lines[1].split()[:2] == ["sequence", "sequence"]
    assert [line.split()[1] for line in lines[2:5]] == ["one", "sure", "two"]
    assert "a person: Go on?\\x1b[2J" in shown
    assert "\x1b" not in shown
    assert "run_1" in workflow(folder, "status")
    assert json.loads(workflow(folder, "status", "--status", "waiting", "--json"))["session_id"] == "run_1"
    assert workflow(folder, "status", "--status", "failed") == "no runs\n"
    # Told without an agent it is left to a worker, or to whoever resumes it.
    assert "power-loop work" in workflow(folder, "signal", "run_1", "sure", "yes")
    assert "running" in workflow(folder, "status")
    out = workflow(folder, "resume", "run_1", *more)
    assert out.splitlines()[-1] == "First."
    [run_] = [json.loads(workflow(folder, "status", "run_1", "--json"))]
    assert (run_["status"], run_["outputs"]["sure"], run_["stats"]["children"]) == ("completed", "yes", 2)


def test_a_signal_with_an_agent_drives_the_run_on_here(folder: Path) -> None:
    more = ("--app", "my_agent:make")
    workflow(folder, "run", "asks.json", *more, "--run-id", "run_1", status=3)
    told = workflow(folder, "signal", "run_1", "sure", "yes", *more, "--json")
    assert json.loads(told) == {"run_id": "run_1", "name": "sure", "position": 1}
    assert "asks  completed" in workflow(folder, "status", "run_1")
    done = run("workflow", "signal", "run_1", "sure", "--dsn", "app.db", folder=folder)
    assert (done.returncode, "[input.invalid]" in done.stderr) == (1, True)


def test_a_run_that_rests_is_stopped_without_an_agent_unless_it_undoes(folder: Path) -> None:
    more = ("--app", "my_agent:make")
    workflow(folder, "run", "asks.json", *more, "--run-id", "run_1", status=3)
    assert "stopped" in workflow(folder, "cancel", "run_1", "--reason", "enough")
    assert "workflow.cancelled: enough" in workflow(folder, "status", "run_1")
    assert json.loads(workflow(folder, "cancel", "run_1", "--json")) == {"run_id": "run_1", "was_stopped": False}
    spec = json.loads((folder / "asks.json").read_text("utf-8"))
    write(folder, "undoes.json", {**spec, "undo_on_cancel": True})
    workflow(folder, "run", "undoes.json", *more, "--run-id", "run_2", status=3)
    done = run("workflow", "cancel", "run_2", "--dsn", "app.db", folder=folder)
    assert done.returncode == 1
    assert "--app" in done.stderr
    assert "stopped" in workflow(folder, "cancel", "run_2", *more)


def test_a_run_that_is_not_there_is_told_of_in_a_line(folder: Path) -> None:
    workflow(folder, "run", "good.json", "--app", "my_agent:make")
    more = ("--app", "my_agent:make")
    for action in (("status", "run_x"), ("cancel", "run_x"), ("resume", "run_x", *more), ("signal", "run_x", "go")):
        done = run("workflow", *action, "--dsn", "app.db", folder=folder)
        assert done.returncode == 1
        assert "[workflow.not_found]" in done.stderr
    assert run("workflow", folder=folder).returncode == 2


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="workers give up the network on Linux only")
def test_what_leaves_took_in_processes_of_their_own_is_told(folder: Path) -> None:
    async def made() -> WorkflowResult:
        loop = StatefulAgentLoop(llm=ScriptedLLM(["Done."]), dsn=str(folder / "app.db"))
        async with loop, SubprocessExecutor(state_folder=folder / "leaves") as executor:
            spec = {"name": "tea", "input": "tea", "root": leaf("one")}
            return await create_workflow(spec, parent_loop=loop, executor=executor, run_id="run_1").run()

    (step,) = asyncio.run(made()).steps
    took = step.usage or {}
    assert took["input_tokens"] > 0
    shown = workflow(folder, "status", "run_1")
    # Of the run, and of its leaf.
    assert shown.count(f"{took['input_tokens']:,} + {took['output_tokens']:,} tokens") == 2
