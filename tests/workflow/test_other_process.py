"""What a second process of this machine says to a run that this one drives."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from power_loop.workflow import RunStatus, create_workflow
from tests.agent.conftest import MakeLoop
from tests.agent.parts import Gate, within_limit

from .parts import Answers, agent, flow

_LIMIT_S = 60


async def said(dsn: str, what: str, run_id: str) -> str:
    """Let another process say something to a run, and return what it was told."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.workflow.other_process",
        *(dsn, what, run_id),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, error = await asyncio.wait_for(process.communicate(), _LIMIT_S)
    assert process.returncode == 0, error.decode()[-4000:]
    return out.decode().strip()


async def test_a_second_process_cancels_a_run_and_its_leaves(make_loop: MakeLoop, dsn: str) -> None:
    gate = Gate()
    loop = make_loop(llm=Answers(slow=gate.then("Never.")))
    workflow = create_workflow(flow([agent("slow"), agent("next")]), parent_loop=loop)
    task = asyncio.ensure_future(workflow.run())
    await gate.someone()
    assert await said(dsn, "cancel", workflow.run_id) == "True"
    result = await within_limit(task)
    assert (result.status, gate.cancelled) == (RunStatus.CANCELLED, 1)
    assert result.error is not None
    assert result.error["message"] == "from afar"
    store: Any = await loop.get_store()
    assert [(await store.get_session(one.id)).owner for one in await store.get_children(workflow.run_id)] == [None]
    assert await said(dsn, "cancel", workflow.run_id) == "False"


async def test_a_second_process_signals_a_run_that_has_other_work(make_loop: MakeLoop, dsn: str) -> None:
    gate = Gate()
    loop = make_loop(llm=Answers(slow=gate.then("Late."), after=lambda _: gate.open() or "After."))
    waits = {"type": "sequence", "id": "s", "steps": [{"type": "wait", "id": "ok", "signal": "go"}, agent("after")]}
    workflow = create_workflow(flow({"type": "parallel", "steps": [waits, agent("slow")]}), parent_loop=loop)
    task = asyncio.ensure_future(workflow.run())
    await gate.someone()
    assert await said(dsn, "signal", workflow.run_id) == "1"
    result = await within_limit(task)
    assert (result.status, result.outputs["ok"], result.outputs["s"]) == (RunStatus.COMPLETED, "now", "After.")
