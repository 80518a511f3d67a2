"""The examples 50 to 56: agents work below agents, and a workflow's steps stand in its journal."""

from __future__ import annotations

import re
import shutil
from typing import Any

import pytest

from tests.model_server import steps_from_json

from .conftest import Stage, call

needs_bubblewrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed: make sandbox")


def by_text(answers: dict[str, Any]) -> Any:
    """Return a function that answers a request by what stands in it: calls that run side by side come in any order."""

    def answer(request: Any) -> Any:
        said = str(request.body["messages"])
        return next(step(answer) for text, answer in answers.items() if text in said)

    def step(answer: Any) -> Any:
        return steps_from_json([answer])[0]

    return answer


def test_subagents(stage: Stage) -> None:
    work = [
        {"name": "spawn_agent", "arguments": {"agent": "researcher", "input": f"What is {it}?"}}
        for it in ("teal", "ochre")
    ]
    by_word = {
        "blue-green": "Teal is a blue-green.",
        "yellow earth": "Ochre is a yellow earth.",
        "What is teal": call("look_up", word="teal"),
        "What is ochre": call("look_up", word="ochre"),
    }
    said = stage.play("50_subagents", answers=[{"calls": work}, *[by_text(by_word)] * 4, "One is blue, one is yellow."])
    assert said.count("researcher begins\n") == 2
    assert "found: Teal is a blue-green.\n" in said
    assert "found: Ochre is a yellow earth.\n" in said
    assert re.search(r"One is blue, one is yellow\.\n\[2 agents took a part of the tokens: \d+ of \d+\]\n$", said)
    assert sorted(stage.calls()) == [("look_up", "succeeded")] * 2 + [("spawn_agent", "succeeded")] * 2

    async def depths(store: Any) -> list[int]:
        return [session.depth for session in (await store.list_sessions()).items]

    assert sorted(stage.look(depths)) == [0, 1, 1]


def test_blackboard(stage: Stage) -> None:
    answers = [
        call("blackboard_post", key="plan", value="book a hall"),
        "It is planned.",
        call("blackboard_update", key="plan", value="the hall is booked", version=1),
        call("blackboard_update", key="plan", value="the hall is booked for June", version=2),
        "Noted.",
    ]
    said = stage.play("51_blackboard", answers=answers)
    assert said.splitlines() == [
        "It is planned.",
        "plan (version 1): book a hall",
        "blackboard.conflict: there is version 2 by now",
        "Noted.",
        "plan (version 3): the hall is booked for June",
    ]
    assert any("Nothing changed" in text and "book the hall, in June" in text for _, text in stage.log())


def test_research_workflow(stage: Stage) -> None:
    plan = '{"subtopics": ["utensils", "etiquette"]}'
    said = stage.play("52_research_workflow", answers=[plan, "A note.", "A note.", "A report."])
    *steps, report, last = said.splitlines()
    assert sorted(steps) == [f"[{step}: completed]" for step in ("plan", "research[0]/r", "research[1]/r", "write")]
    found = re.fullmatch(r"(run_\w+): completed, 4 steps, \d+ tokens", last)
    assert (report, found is not None) == ("A report.", True)
    assert found is not None
    again = stage.play("52_research_workflow", found[1])
    assert again.startswith("A report.\n")
    assert len(stage.asked) == 4, "what has ended is not done again"


def test_workflow_with_a_person(stage: Stage) -> None:
    said = stage.play("53_workflow_with_a_person", answers=["Dear neighbours."])
    found = re.fullmatch(r"Dear neighbours\.\nwaits for: verdict\n(run_\w+): waiting, None\n", said)
    assert found is not None
    said = stage.play("53_workflow_with_a_person", found[1], "print it", answers=["It is printed."])
    assert said == f"{found[1]}: completed, It is printed.\n"
    assert "Dear neighbours." in str(stage.asked[1]["messages"])


@needs_bubblewrap
def test_worker_processes(stage: Stage) -> None:
    by_word = {
        "1 4 9": "1 4 9",
        "2 3 5": "2 3 5",
        "squares": call("bash", command="for n in 1 2 3; do printf '%s ' $((n * n)); done"),
        "primes": call("bash", command="echo 2 3 5"),
    }
    said = stage.play("54_worker_processes", answers=[by_text(by_word)] * 4)
    assert said == "completed\n2 3 5\n1 4 9\n"
    assert stage.calls() == [], "what a worker did stands in its own database"


def test_dask_cluster(stage: Stage) -> None:
    distributed = pytest.importorskip("distributed")
    dsn = stage.database("postgres")
    words = ("rivers", "mountains", "islands")
    stage.answers(*[by_text({word: f"A sentence on {word}." for word in words})] * 3)
    # Workers in processes of their own, which are killed as well, are in tests/workflow/test_dask.py.
    options = {
        "n_workers": 1,
        "threads_per_worker": 2,
        "processes": False,
        "protocol": "tcp",
        "dashboard_address": None,
    }
    with distributed.LocalCluster(**options) as cluster:
        said = stage.play("55_dask_cluster", cluster.scheduler_address)
    assert said.splitlines() == ["completed", *(f"A sentence on {word}." for word in words)]

    async def paths(store: Any) -> list[str]:
        [run] = await store.list_runs()
        assert run.state == "completed"
        _, steps, _ = await store.read_journal(run.session_id)
        return sorted(step.path for step in steps)

    assert stage.look(paths, dsn) == [f"foreach#1[{number}]/note" for number in range(3)]
    assert len(stage.asked) == 3


def test_agent_writes_workflow(stage: Stage) -> None:
    rivers = ["Rhine", "Po", "Loire"]
    body = {"type": "agent", "id": "note", "spec": {"name": "writer", "system_prompt": "Write."}, "input": "{{river}}"}
    wrong = {"name": "rivers", "root": {"type": "foreach", "items": rivers, "as": "rivr", "body": body}}
    right = {"name": "rivers", "root": {**wrong["root"], "as": "river"}}  # type: ignore[dict-item]
    plan = [call("check_workflow", spec=wrong), call("submit_workflow", spec=right)]
    # The run begins beside the turn that submitted it.
    by_word = {
        "It runs.": "All three are written.",
        "three agents": "It runs.",
        "Rhine": "One.",
        "Po": "Two.",
        "Loire": "Three.",
    }
    said = stage.play("56_agent_writes_workflow", answers=[*plan, *[by_text(by_word)] * 5])
    assert said == "→ check_workflow\n→ submit_workflow\nIt runs.\nrivers: completed\nAll three are written.\n"
    problems = next(text for role, text in stage.logs()[0] if role == "tool")
    assert "river" in problems
    assert "rivr" in problems
