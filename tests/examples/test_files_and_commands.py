"""The examples 40 to 44: files are read within their folder, and commands run where the example says."""

from __future__ import annotations

import os
import shutil

import pytest

from .conftest import EXAMPLES, Stage, call

needs_bubblewrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed: make sandbox")


def test_files(stage: Stage) -> None:
    answers = [
        call("glob", pattern="*.md"),
        call("read_file", path="../../00_hello_world.py"),
        call("read_file", path="tone.md"),
        "Plain.",
    ]
    said = stage.play("40_files", str(EXAMPLES / "skills" / "release-notes"), "What is the tone?", answers=answers)
    assert said.endswith("→ read_file {'path': 'tone.md'}\nPlain.\n")
    results = [text for role, text in stage.log() if role == "tool"]
    assert "SKILL.md" in results[0]
    assert "leads out of the workspace" in results[1]
    assert "Plain and short" in results[2]
    assert [state for _, state in stage.calls()] == ["succeeded", "failed", "succeeded"]


@needs_bubblewrap
def test_sandbox(stage: Stage) -> None:
    commands = ("echo hello > hello.txt && cat hello.txt", "env", "ls /root")
    said = stage.play("41_sandbox", answers=[*(call("bash", command=command) for command in commands), "Done."])
    results = [text for role, text in stage.log() if role == "tool"]
    assert results[0] == "hello"
    assert "POWER_LOOP_API_KEY" not in results[1]
    assert os.environ["POWER_LOOP_BASE_URL"] not in results[1]
    assert "No such file or directory" in results[2]
    assert said.endswith("Done.\n")


@needs_bubblewrap
def test_coding_agent(stage: Stage) -> None:
    answers = [
        call("bash", command="python3 test_mean.py"),
        call("read_file", path="mean.py"),
        call("edit_file", path="mean.py", old_text="(len(numbers) + 1)", new_text="len(numbers)"),
        call("bash", command="python3 test_mean.py"),
        "The divisor was one too large.",
    ]
    said = stage.play("42_coding_agent", answers=answers)
    assert said.endswith("The divisor was one too large.\ndef mean(numbers):\n    return sum(numbers) / len(numbers)\n")
    results = [text for role, text in stage.log() if role == "tool"]
    assert "AssertionError" in results[0]
    assert results[3].startswith("ok")


def test_background_work(stage: Stage) -> None:
    started = call("background_run", command="for n in 1 2 3; do echo step $n; sleep 0.1; done")
    said = stage.play(
        "43_background_work",
        answers=[started, "It runs.", "The Rhine.", call("background_wait", job="job_1"), "step 3"],
    )
    assert said.splitlines()[1::2] == ["It runs.", "The Rhine.", "step 3"]
    assert "step 3" in [text for role, text in stage.log() if role == "tool"][1]
    assert stage.calls() == [("background_run", "succeeded"), ("background_wait", "succeeded")]


def test_own_shell(stage: Stage) -> None:
    said = stage.play(
        "44_own_shell", answers=[call("bash", command="echo hello"), call("bash", command="exit 3"), "Done."]
    )
    done, first, second = said.splitlines()
    assert done == "Done."
    assert "'echo hello' finished 0" in first
    assert "'exit 3' shell_ended 3" in second
    assert ("tool", "hello") in stage.log()
