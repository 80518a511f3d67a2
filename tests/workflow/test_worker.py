"""A leaf in a worker is the leaf that it is in process: the same answer, events and grants, in a file of its own."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from power_loop import PermissionRule, SendLimits, SendStatus, StatefulAgentLoop, Usage, tool_preset
from power_loop.errors import ConfigError, LLMOverloadedError
from power_loop.runtime.host.environment import RuntimeEnv
from power_loop.testing import ScriptedLLM, call, leak_check
from power_loop.workflow.executors import LeafOutcome, LeafTask
from power_loop.workflow.pool import PoolLimits
from power_loop.workflow.subprocess_executor import SubprocessExecutor
from power_loop.workflow.worker_bootstrap import WorkerBootstrap
from tests.agent.parts import Ears
from tests.workflow.worker_parts import ROOT, Host, leaf, within_limit

SECRET = "sk-secret-4711"
ONE = PoolLimits(size=1, spare=0)


def executor(folder: Path, **bootstrap: Any) -> SubprocessExecutor:
    """An executor whose leaves lie in a folder of the test's."""
    return SubprocessExecutor(WorkerBootstrap(**bootstrap), state_folder=folder / "leaves", pool=ONE)


@pytest.fixture
async def proxied(tmp_path: Path) -> AsyncIterator[SubprocessExecutor]:
    """An executor whose leaves call the model of their host and have the core tools."""
    async with leak_check(), executor(tmp_path, tool_preset="core") as made:
        yield made


async def run(made: SubprocessExecutor, task: LeafTask, *steps: Any) -> tuple[LeafOutcome, Host]:
    """Run a leaf with a scripted model."""
    host = Host(ScriptedLLM(steps))
    outcome = await within_limit(made.run_leaf(task, host))
    assert host.lent == 0
    return outcome, host


async def test_a_leaf_comes_to_what_it_comes_to_in_process(tmp_path: Path, proxied: SubprocessExecutor) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    steps = (
        call("write_file", {"path": "a.txt", "content": "7"}, id="c1"),
        call("read_file", {"path": "a.txt"}),
        '{"n": 7}',
    )
    task = leaf(tools=("write_file", "read_file"), output_schema=schema)
    outcome, host = await run(proxied, task, *steps)
    (tmp_path / "here").mkdir()
    llm = ScriptedLLM(steps)
    tools = tool_preset("core", RuntimeEnv(tmp_path / "here"))
    async with StatefulAgentLoop(llm=llm, dsn=str(tmp_path / "here.db"), tool_registry=tools) as loop:
        ears = Ears(loop)
        result = await loop.run_agent_spec(task.spec, task.input)
    assert outcome == LeafOutcome(SendStatus.COMPLETED, result.final_text, {"n": 7}, result.usage)
    assert [one.type for one in host.events] == [one for one in ears.types if not one.startswith("session.")]
    scripted: Any = host.llm
    assert [(one.system, one.tools) for one in scripted.requests] == [(one.system, one.tools) for one in llm.requests]
    assert [one.messages[0] for one in scripted.requests] == [one.messages[0] for one in llm.requests]


async def test_a_leaf_has_a_file_of_its_own_and_it_goes_with_the_executor(tmp_path: Path) -> None:
    folder = tmp_path / "leaves"
    async with leak_check(folders=[folder]), executor(tmp_path) as made:
        await run(made, leaf("one"), "One.")
        await run(made, leaf("two"), "Two.")
        said = []
        for file in folder.glob("worker-*/*/leaf.db"):
            with closing(sqlite3.connect(file)) as connection:
                said += [row[0] for row in connection.execute("SELECT count(*) FROM pl_sessions")]
        assert said == [1, 1]
    assert list(folder.iterdir()) == []


async def test_a_leaf_has_the_tools_of_its_spec_and_no_other(proxied: SubprocessExecutor) -> None:
    outcome, host = await run(proxied, leaf(tools=("read_file",)), call("bash", {"command": "id"}), "I cannot.")
    assert outcome.final_text == "I cannot."
    scripted: Any = host.llm
    assert [tool.name for tool in scripted.requests[0].tools] == ["read_file"]
    refused = scripted.requests[1].messages[-1].tool_result
    assert refused.is_error
    assert "uid=" not in repr(refused)


async def test_a_tool_that_a_worker_does_not_have_fails_the_leaf(proxied: SubprocessExecutor) -> None:
    outcome, _ = await run(proxied, leaf(tools=("launch_rocket",)))
    assert outcome.error is not None
    assert (outcome.error.code, outcome.is_transient) == ("agent.not_granted", False)


async def test_the_rules_and_limits_of_a_spec_hold(proxied: SubprocessExecutor) -> None:
    rules = (PermissionRule("deny", "bash", reason="No shells."),)
    task = leaf(tools=("bash",), permission_rules=rules, limits=SendLimits(max_rounds=1))
    outcome, host = await run(proxied, task, call("bash", {"command": "id"}), "Stopped.")
    scripted: Any = host.llm
    assert "No shells." in repr(scripted.requests[1].messages[-1])
    assert outcome.status is SendStatus.ROUNDS_EXCEEDED
    assert outcome.error is not None
    assert outcome.error.code == "send.rounds_exceeded"


async def test_a_failed_model_call_is_tried_again_by_nobody_but_the_parent(proxied: SubprocessExecutor) -> None:
    outcome, host = await run(proxied, leaf(), LLMOverloadedError("busy"), "Never said.")
    assert outcome.error is not None
    assert (outcome.error.code, outcome.is_transient) == ("llm.overloaded", True)
    scripted: Any = host.llm
    assert scripted.steps_left == 1


async def test_a_question_to_a_person_is_refused_in_words(tmp_path: Path) -> None:
    async with leak_check(), executor(tmp_path, tool_preset="full") as made:
        asked = call("request_user_input", {"prompt": "Well?"})
        outcome, _ = await run(made, leaf(tools=("request_user_input",)), asked)
    assert outcome.error is not None
    assert outcome.error.code == "worker.failed"
    assert "'request_user_input' waits for an answer" in outcome.error.message


async def test_a_worker_knows_no_key_and_has_no_network(
    proxied: SubprocessExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "POWER_LOOP_API_KEY", "APP_DSN"):
        monkeypatch.setenv(name, SECRET)
    look = "cat /proc/$PPID/environ /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | sort -u; env; cat /proc/net/dev"
    outcome, host = await run(proxied, leaf(tools=("bash",)), call("bash", {"command": look}), "Looked.")
    scripted: Any = host.llm
    seen = repr(scripted.requests[1].messages[-1])
    assert outcome.is_completed
    assert "lo:" in seen
    assert "eth0:" not in seen


async def test_a_model_from_the_environment_is_called_by_the_worker_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POWER_LOOP_MODEL", "gpt-test")
    monkeypatch.setenv("POWER_LOOP_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("POWER_LOOP_MAX_RETRIES", "0")
    async with leak_check(), executor(tmp_path, llm_from_env=True) as made:
        outcome, host = await run(made, leaf(limits=SendLimits(max_seconds=60)))
    # There is nobody at that address: the worker has tried, and not the host's model.
    assert not outcome.is_completed
    scripted: Any = host.llm
    assert scripted.requests == []
    assert any(one.type == "llm.failed" for one in host.events)


async def test_without_a_model_in_the_environment_no_worker_is_started(tmp_path: Path) -> None:
    async with executor(tmp_path, llm_from_env=True) as made:
        outcome, _ = await run(made, leaf())
    assert outcome.error is not None
    assert outcome.error.code == "config.invalid"
    assert "POWER_LOOP_MODEL" in outcome.error.message


async def test_a_model_and_tools_may_come_from_functions_by_name(tmp_path: Path) -> None:
    made = executor(
        tmp_path,
        llm="tests.workflow.worker_parts:tool_user",
        tools="tests.workflow.worker_parts:own_tools",
        import_paths=(ROOT,),
    )
    async with leak_check(), made:
        outcome, _ = await run(made, leaf(tools=("add",)))
    assert (outcome.final_text, outcome.usage) == ("It is 3.", Usage(20, 10))


async def test_a_function_that_is_not_found_fails_the_leaf_with_what_to_do(tmp_path: Path) -> None:
    async with executor(tmp_path, llm="no_such_module:make") as made:
        outcome, _ = await run(made, leaf())
    assert outcome.error is not None
    assert "import_paths" in outcome.error.message


@pytest.mark.parametrize(
    "wrong",
    [
        {"llm": "no colon"},
        {"llm": "os:system; rm"},
        {"llm": 5},
        {"tools": "proxy"},
        {"llm": "proxy", "llm_from_env": True},
        {"tool_preset": "everything"},
        {"workspace": "/no/such/folder"},
        {"read_only_roots": "one text"},
        {"read_only_roots": 5},
        {"variables": "PATH"},
        {"variables": ["A=1"]},
        {"environment": {"A": 1}},
    ],
)
def test_a_bootstrap_that_cannot_work_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        WorkerBootstrap(**wrong)


async def test_a_state_folder_that_others_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "leaves").mkdir()
    (tmp_path / "leaves").chmod(0o777)
    async with executor(tmp_path) as made:
        outcome, _ = await run(made, leaf())
    assert outcome.error is not None
    assert (outcome.error.code, "nobody else can write" in outcome.error.message) == ("config.invalid", True)


def test_the_bootstrap_of_the_readme_can_be_made() -> None:
    bootstrap = WorkerBootstrap(llm_from_env=True, tool_preset="core")
    assert SubprocessExecutor(bootstrap=bootstrap, launcher=lambda plan: plan.argv, timeout_s=120)
    assert "environment" not in repr(WorkerBootstrap(environment={"TOKEN": SECRET}))
    assert json.dumps(os.fspath(ROOT))
