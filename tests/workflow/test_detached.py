"""Detached runs: they go on by themselves, and the session that they were made for hears of their end once."""

from __future__ import annotations

from typing import Any

import pytest

from power_loop.errors import RunSessionError
from power_loop.events import SendFinished
from power_loop.workflow import RunStatus, create_workflow, get_run, resume_run
from tests.agent.conftest import MakeLoop
from tests.agent.parts import Ears, Gate, until

from .parts import Answers, agent, flow


@pytest.mark.promise("workflow-detached")
async def test_the_end_of_a_detached_run_wakes_its_session_once(make_loop: MakeLoop) -> None:
    gate = Gate()
    llm = Answers(one=gate.then("First."), two="Second.")
    loop = make_loop(llm=llm)
    ears = Ears(loop)
    sid = await loop.new_session(system_prompt="Boss.")
    workflow = create_workflow(flow([agent("one"), agent("two")]), parent_loop=loop, parent_session_id=sid)
    run_id = await workflow.start(detached=True)
    assert run_id == workflow.run_id
    await gate.someone()
    assert (await get_run(loop, run_id)).status is RunStatus.RUNNING
    assert llm.counts["Boss."] == 0
    gate.open()
    await until(lambda: any(one.result.session_id == sid for one in ears.of(SendFinished)))
    result = await resume_run(loop, sid, run_id)
    assert (result.status, result.output) == (RunStatus.COMPLETED, "Second.")
    messages = [record.message.text for record in await loop.get_messages(sid)]
    assert len(messages) == 2
    assert run_id in messages[0]
    assert "Second." in messages[0]
    assert messages[1] == "Said: Boss."
    assert await loop.get_inbox(sid) == ()


async def test_nobody_talks_to_a_run(make_loop: MakeLoop) -> None:
    loop = make_loop(llm=Answers())
    result = await create_workflow(flow(agent("one")), parent_loop=loop).run()
    doors: list[Any] = [
        lambda: loop.send("Hello.", session_id=result.run_id),
        lambda: loop.resume(result.run_id),
        lambda: loop.follow_up(result.run_id, "Hello."),
        lambda: loop.abort_pending(result.run_id),
    ]
    for door in doors:
        with pytest.raises(RunSessionError, match="resume_run"):
            await door()
    store: Any = await loop.get_store()
    with pytest.raises(RunSessionError):
        await store.export_session(result.run_id)
    with pytest.raises(RunSessionError):
        await store.fork_session(result.run_id)
