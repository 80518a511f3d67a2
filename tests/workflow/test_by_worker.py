"""A worker goes on with workflows whose engine died, as it does with sends."""

from __future__ import annotations

import asyncio

import pytest

from power_loop import SendStatus, Worker
from power_loop.errors import LeaseLostError
from power_loop.records import Found, Recovered
from power_loop.workflow import RunStatus, create_workflow, drive_runs, get_run
from tests.agent.conftest import MakeLoop
from tests.agent.elsewhere import elsewhere
from tests.agent.parts import Gate, within_limit
from tests.agent.test_lease import change
from tests.agent.test_recovery import dead_owner

from .parts import Answers, agent, flow


@pytest.mark.promise("fleet")
async def test_a_worker_that_was_told_who_drives_them_goes_on_with_runs(make_loop: MakeLoop, dsn: str) -> None:
    gate = Gate()
    loop, back = make_loop(llm=Answers(one=gate.then("Late."))), elsewhere(make_loop, dsn, llm=Answers(one="Done."))
    running = asyncio.create_task(create_workflow(flow(agent("one")), parent_loop=loop).run())
    await gate.someone()
    change(dsn, "UPDATE pl_sessions SET owner = ? WHERE owner IS NOT NULL", dead_owner())
    turns = list[Recovered]()
    await within_limit(Worker(back, on_turn=turns.append).run(until_idle=True))
    assert [(one.found, one.error) for one in turns] == [(Found.DEAD_TURN, "workflow.not_a_conversation")]
    drive_runs(back)
    await within_limit(Worker(back, on_turn=turns.append).run(until_idle=True))
    assert (turns[1].found, turns[1].status, turns[1].error) == (Found.DEAD_TURN, SendStatus.COMPLETED, None)
    run = await get_run(back, turns[1].session_id)
    assert (run.status, run.output) == (RunStatus.COMPLETED, "Done.")
    gate.open()
    with pytest.raises(LeaseLostError):
        await within_limit(running)
