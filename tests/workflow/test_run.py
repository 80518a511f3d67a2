"""Workflows that run: the one of the description as printed, failures, retries, waits, budgets, and who hears."""

from __future__ import annotations

from typing import Any

import pytest

from power_loop import SendStatus, SessionState
from power_loop.errors import RunNotFoundError
from power_loop.workflow import RunStatus, create_workflow, get_run, list_runs, resume_run
from tests.agent.conftest import MakeLoop

from .parts import RESEARCH, SUBTOPICS, asked, prompt_of, researcher


@pytest.mark.promise("workflows")
async def test_the_workflow_of_the_readme_runs_as_printed(make_loop: MakeLoop) -> None:
    llm = researcher()
    loop = make_loop(llm=llm)
    spec = RESEARCH
    result = await create_workflow(spec, parent_loop=loop).run()
    assert (result.status, result.output) == (RunStatus.COMPLETED, "All about tea.")
    notes = [f"Notes on {topic}." for topic in SUBTOPICS]
    assert result.outputs == {"plan": {"subtopics": SUBTOPICS}, "research": notes, "write": "All about tea."}
    prompts = sorted(prompt_of(request) for request in llm.requests)
    assert prompts[1] == "Synthesize the notes."
    assert prompts[2:] == sorted(f"Write 2 sentences on {topic}." for topic in SUBTOPICS)
    [told] = [asked(request) for request in llm.requests if prompt_of(request).startswith("Synthesize")]
    assert all(note in told for note in notes)
    assert result.usage.total_tokens == 5 * 15
    again = await resume_run(loop, None, result.run_id)
    assert again == await get_run(loop, result.run_id) == result
    assert sum(llm.counts.values()) == 5


async def test_a_run_is_a_session_with_its_leaves_below_it(make_loop: MakeLoop) -> None:
    loop = make_loop(llm=researcher())
    result = await create_workflow(RESEARCH, parent_loop=loop).run()
    store: Any = await loop.get_store()
    head = await store.get_session(result.run_id)
    assert (head.state, head.parent_id, head.metadata) == (SessionState.CLOSED, None, {"workflow": "research"})
    leaves = await store.get_children(result.run_id)
    assert [one.state for one in leaves] == [SessionState.CLOSED] * 5
    assert {one.child_session_id for one in result.steps} == {one.id for one in leaves}
    send = await store.get_send(result.run_id)
    assert send.status is SendStatus.COMPLETED
    said = [record.message.text for record in await loop.get_messages(result.run_id)]
    assert said == ["the Japanese tea ceremony", "All about tea."]
    assert [one async for one in store.diagnose()] == []
    assert [one.session_id for one in await list_runs(loop, status="completed")] == [result.run_id]


async def test_a_run_that_has_ended_is_pruned_with_its_leaves(make_loop: MakeLoop) -> None:
    loop = make_loop(llm=researcher())
    result = await create_workflow(RESEARCH, parent_loop=loop).run()
    store: Any = await loop.get_store()
    leaf = await store.get_session(result.steps[0].child_session_id or "")
    assert leaf.parent_id == result.run_id
    await store.prune_sessions(older_than_s=0)
    with pytest.raises(RunNotFoundError):
        await get_run(loop, result.run_id)
    assert (await loop.list_sessions()).items == ()
    assert [one async for one in store.diagnose()] == []
