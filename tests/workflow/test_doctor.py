"""The doctor reads the rows of runs: what is there without a run, what contradicts itself, what cannot be decoded."""

from __future__ import annotations

from typing import Any

import pytest

from power_loop import StatefulAgentLoop
from power_loop.records import Finding, FindingKind
from power_loop.testing import FrozenClock
from power_loop.workflow import create_workflow, signal_run
from tests.agent.conftest import MakeLoop
from tests.agent.parts import within_limit
from tests.agent.test_lease import change

from .parts import Answers, agent, flow

RUN = "run_1"


async def findings(loop: StatefulAgentLoop, *, repair: bool = False) -> list[Finding]:
    store: Any = await loop.get_store()
    return [one async for one in store.diagnose(repair=repair)]


async def two_runs(make_loop: MakeLoop) -> StatefulAgentLoop:
    """Return a loop with a run that has ended and one that waits, a signal behind and a time before it."""
    loop = make_loop(llm=Answers(), clock=FrozenClock(1_700_000_000_000))
    told = {"type": "wait", "id": "told", "signal": "told"}
    spec = flow([told, agent("one")])
    await create_workflow(spec, parent_loop=loop, run_id=RUN).run()
    await signal_run(loop, RUN, "told", {"n": 1})
    await within_limit(loop.aclose())
    loop = make_loop(llm=Answers(), clock=FrozenClock(1_700_000_000_000))
    later = {"type": "wait", "id": "later", "delay_s": 3_600}
    await create_workflow(flow([later, agent("one")]), parent_loop=loop, run_id="run_2").start()
    await within_limit(loop.aclose())
    return make_loop(llm=Answers(), clock=FrozenClock(1_700_000_000_000))


async def test_healthy_runs_have_nothing_to_find(make_loop: MakeLoop) -> None:
    assert await findings(await two_runs(make_loop)) == []


@pytest.mark.parametrize(
    ("damage", "check"),
    [
        ("UPDATE pl_workflow_runs SET spec = '{' WHERE session_id = 'run_1'", "run.damaged"),
        ("UPDATE pl_workflow_runs SET output = 'no' WHERE session_id = 'run_1'", "run.damaged"),
        ("UPDATE pl_workflow_runs SET ended_at_ms = 'then' WHERE session_id = 'run_1'", "run.damaged"),
        ("UPDATE pl_workflow_runs SET ended_at_ms = NULL WHERE session_id = 'run_1'", "run.state"),
        ("UPDATE pl_workflow_runs SET ended_at_ms = 5 WHERE session_id = 'run_2'", "run.state"),
        ("UPDATE pl_workflow_steps SET output = '{' WHERE path = 'one'", "step.damaged"),
        ("UPDATE pl_workflow_steps SET error = 'no' WHERE path = 'one'", "step.damaged"),
        ("UPDATE pl_workflow_steps SET usage_json = '{\"drinks\": 5}' WHERE path = 'one'", "step.damaged"),
        ("UPDATE pl_workflow_steps SET ended_at_ms = NULL WHERE path = 'one'", "step.damaged"),
        ("UPDATE pl_workflow_steps SET ended_at_ms = 5 WHERE path = 'later'", "step.damaged"),
        ("UPDATE pl_workflow_signals SET value = '{'", "signal.damaged"),
        ("UPDATE pl_workflow_signals SET taken_by = 'nobody'", "signal.damaged"),
    ],
)
async def test_what_cannot_be_is_told(make_loop: MakeLoop, dsn: str, damage: str, check: str) -> None:
    loop = await two_runs(make_loop)
    change(dsn, damage)
    [finding] = await findings(loop)
    assert (finding.check, finding.kind, finding.repair) == (check, FindingKind.INCONSISTENT, None)
    assert [one.is_repaired for one in await findings(loop, repair=True)] == [False]


async def test_steps_and_signals_without_a_run_are_removed(make_loop: MakeLoop, dsn: str) -> None:
    loop = await two_runs(make_loop)
    change(dsn, "DELETE FROM pl_workflow_runs WHERE session_id = 'run_1'")
    found = await findings(loop)
    assert [(one.kind, one.check) for one in found] == [
        (FindingKind.ORPHANED, "step.orphaned"),
        (FindingKind.ORPHANED, "signal.orphaned"),
    ]
    assert all(one.is_repaired for one in await findings(loop, repair=True))
    assert await findings(loop) == []


async def test_a_run_without_its_session_is_removed(make_loop: MakeLoop, dsn: str) -> None:
    loop = await two_runs(make_loop)
    change(dsn, "DELETE FROM pl_sessions WHERE id = 'run_2'")
    tables = {one.message.split(" of ")[1].split(" ")[0] for one in await findings(loop)}
    assert {"pl_workflow_runs", "pl_workflow_steps", "pl_timers"} <= tables
    assert all(one.is_repaired for one in await findings(loop, repair=True))
    assert await findings(loop) == []


async def test_a_run_that_nobody_will_wake_is_told(make_loop: MakeLoop, dsn: str) -> None:
    loop = await two_runs(make_loop)
    [timer] = (await loop.list_timers("run_2")).items
    await loop.cancel_timer(timer.id)
    [finding] = await findings(loop)
    assert (finding.kind, finding.check, finding.session_id) == (FindingKind.STALLED, "run.no_alarm", "run_2")


async def test_a_run_that_somebody_drives_needs_nobody_to_wake_it(make_loop: MakeLoop, dsn: str) -> None:
    loop = await two_runs(make_loop)
    # Its timer came while an engine had just taken it up, and had written nothing.
    change(dsn, "UPDATE pl_sessions SET owner = 'me', lease_until_ms = 1700000030000 WHERE id = 'run_2'")
    change(dsn, "UPDATE pl_sends SET status = 'running' WHERE session_id = 'run_2'")
    [timer] = (await loop.list_timers("run_2")).items
    await loop.cancel_timer(timer.id)
    assert await findings(loop) == []
