"""The crash tests find a kernel that breaks its promises: each broken variant is caught by the cell that is meant for
it, and the kernel as it is passes the same cells."""

from __future__ import annotations

import contextlib
import itertools
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from power_loop import LLMRequest, LLMResponse, PowerLoopError, StatefulAgentLoop, Usage, open_store
from power_loop.errors import SessionBusyError
from power_loop.messages import user_message
from power_loop.storage import Claim, NewSend
from power_loop.testing import ScriptedLLM, crash_matrix
from power_loop.testing.history import HistoryLog, read_history
from power_loop.testing.history_check import check_history
from tests.conformance.backends import SERVERS
from tests.crash.broken import (
    CAUGHT,
    STORY,
    Alone,
    Busy,
    ClockJump,
    Conformance,
    Equivalent,
    HalfDone,
    Kill,
    LateBeat,
    Lie,
    LostCommit,
    MatrixRow,
    Race,
    Zombie,
    rows,
)
from tests.crash.full import agents
from tests.crash.harness import Theatre
from tests.crash.mutants import MUTANTS, broken
from tests.crash.races import ROOT, run_races
from tests.crash.stories import STORIES
from tests.crash.verdict import carried_out, judge, left_alone, with_follow_up
from tests.servers import shared_server
from tests.servers.proxy import Proxy, Trap

_HOUR_MS = 3_600_000
# No test takes so long.
_LONG_LEASE_S = 600.0
# What of a send a COMMIT brings, with the move that it ends.
_COMMIT_OF = {"input": "accept", "answer": "append_reply"}
_STOPPED = {"stopped": int(signal.SIGSTOP)}
_ENDED = {"exit": 0}


def of_kind(kind: type[Any], *, with_kernel: bool = True) -> Any:
    """Return the variants that a kind of cell finds, each with its cell; and for each such cell the kernel itself."""
    cells = [(name, cell) for name, cell in CAUGHT.items() if isinstance(cell, kind)]
    kernel = [(None, cell) for cell in dict.fromkeys(cell for _, cell in cells)] if with_kernel else []
    return pytest.mark.parametrize(
        ("mutant", "cell"), [pytest.param(name, cell, id=f"{name or 'kernel'}-{cell}") for name, cell in cells + kernel]
    )


@of_kind(Kill)
def test_the_verdict_on_a_kill_finds_it(theatre: Theatre, mutant: str | None, cell: Kill) -> None:
    story = STORIES[STORY]
    scene = theatre.dead(STORY, (cell.at, cell.time), mutant=mutant)
    dead = scene.facts()
    goes_on = cell.then in ("carry_out", "send_again")
    expected = carried_out(story, dead) if goes_on else with_follow_up(left_alone(story, dead))
    assert theatre.play(scene, STORY, cell.then, mutant=mutant) == _ENDED
    if mutant is None:
        judge(story, dead, scene, expected)
        return
    with pytest.raises(AssertionError, match=cell.says):
        judge(story, dead, scene, expected)


@of_kind(HalfDone)
def test_what_a_killed_process_leaves_tells_a_half_transaction(
    theatre: Theatre, mutant: str | None, cell: HalfDone
) -> None:
    place = (cell.at, 1)
    before = theatre.reference(STORY).state_at(place)
    assert (theatre.dead(STORY, place, mutant=mutant).facts() == before) is (mutant is None)


@of_kind(Zombie)
def test_what_a_stopped_process_is_told_tells_a_missing_fence(
    theatre: Theatre, mutant: str | None, cell: Zombie
) -> None:
    """The log's numbers are a second fence: the new owner waits in its model call, so that nothing else is in the
    way."""
    scene, nursery = theatre.beginning(), theatre.nursery
    stops = {"mutant": mutant, "stop_at": [("model.asked", 1)], "signal": "SIGSTOP"}
    old = nursery.start(scene, STORY, "carry_out", is_first=True, **stops)
    assert nursery.wait(old) == _STOPPED
    new = nursery.start(scene.beside(), STORY, "carry_out", ahead_ms=_HOUR_MS, **stops)
    assert nursery.wait(new) == _STOPPED
    nursery.go_on(old)
    assert nursery.wait(old) == _ENDED
    nursery.kill(new)
    nursery.wait(new)
    [own] = scene.outcomes()
    assert own.get("error", own.get("status")) == ("session.lease_lost" if mutant is None else "completed")


@of_kind(LateBeat)
def test_what_a_stopped_process_renews_tells_a_missing_fence(
    theatre: Theatre, mutant: str | None, cell: LateBeat
) -> None:
    scene, nursery = theatre.beginning(), theatre.nursery
    stops = {"stop_at": [("model.asked", 1)], "signal": "SIGSTOP"}
    old = nursery.start(scene, "slow", "carry_out", is_first=True, mutant=mutant, **stops)
    assert nursery.wait(old) == _STOPPED
    assert theatre.play(scene.beside(), "slow", "carry_out", ahead_ms=_HOUR_MS, mutant=mutant) == _ENDED
    nursery.go_on(old)
    assert nursery.wait(old) == _ENDED
    assert ("commit.after renew" in scene.points()) is (mutant is not None)


@of_kind(Busy)
def test_what_another_process_is_told_tells_whether_an_owner_is_thought_to_live(
    theatre: Theatre, mutant: str | None, cell: Busy
) -> None:
    scene, nursery = theatre.beginning(), theatre.nursery
    stops = {"mutant": mutant, "stop_at": [("model.asked", 1)], "signal": "SIGSTOP"}
    holder = nursery.start(scene, STORY, "carry_out", is_first=True, **stops)
    assert nursery.wait(holder) == _STOPPED
    other = scene.beside()
    assert theatre.play(other, STORY, "follow_up", mutant=mutant) == _ENDED
    nursery.kill(holder)
    nursery.wait(holder)
    [told] = other.outcomes()
    assert told.get("error", told.get("status")) == ("session.busy" if mutant is None else "completed")


@of_kind(Alone)
async def test_a_history_of_one_client_tells_it(tmp_path: Path, mutant: str | None, cell: Alone) -> None:
    """The one who cancels and who says more is the model, so that the turn is in the middle of its call."""
    log, dsn = HistoryLog(tmp_path / "history", process="client"), str(tmp_path / "app.db")
    answers = itertools.count(1)

    async def answer(request: LLMRequest) -> LLMResponse:
        if request.messages[-1].text == "Stop.":
            # As another process does; this one hears of it at its next write.
            await log.did("cancel", "s", store.ask_to_cancel("s", reason="enough"))
        if request.messages[-1].text == "Listen.":
            for text in ("First.", "Second."):
                await log.did("follow_up", "s", loop.follow_up("s", text), input=text)
        text = f"Answer {next(answers)}."
        log.answered("s", text, input_tokens=3, output_tokens=2)
        return LLMResponse.of_text(text, usage=Usage(3, 2))

    with broken(mutant):
        store = await open_store(dsn)
        await store.create_session("s", system_prompt=None, metadata={})
        loop = StatefulAgentLoop(llm=ScriptedLLM([answer], repeat_last=True), store=log.watched(store))
        for text in ("Stop.", "Listen."):
            await log.did("send", "s", loop.send(text, session_id="s"), input=text)
        await loop.drive_inbox("s")
        await loop.aclose()
        await store.aclose()
    log.close()
    await check(dsn, tmp_path / "history", mutant, says=cell.says)


@of_kind(Race, with_kernel=False)
def test_a_history_of_a_race_tells_it(tmp_path: Path, mutant: str, cell: Race) -> None:
    report = run_races(str(tmp_path / "app.db"), seed=1, operations=120, deaths=0.0, stops=0.0, mutant=mutant)
    assert any(re.search(cell.says, problem) for problem in report.problems), report


@pytest.fixture(params=SERVERS, ids=[server.name for server in SERVERS])
async def tables(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """A prefix of its own on each server."""
    async with request.param.fresh() as fresh:
        fresh.server = request.param.name
        yield fresh


@of_kind(LostCommit)
async def test_a_history_over_a_cut_connection_tells_it(
    tables: Any, tmp_path: Path, mutant: str | None, cell: LostCommit
) -> None:
    """Where nobody knows whether a COMMIT came, it is looked for; who guesses is found by what the client was told."""
    server = shared_server(tables.server)
    log = HistoryLog(tmp_path / "history", process="client")
    with Proxy(server) as proxy, broken(mutant):
        # What is encrypted, the proxy could not tell apart.
        store = await open_store(f"{proxy.dsn(tables.dsn)}?sslmode=disable", table_prefix=tables.prefix)
        await store.create_session("s", system_prompt=None, metadata={})
        spring, traps = proxy.cut_after if cell.is_executed else proxy.cut_before, list[Trap]()

        def set_trap(point: str, move: str) -> None:
            # The next COMMIT is the one that is meant.
            if (point, move) == ("commit.before", _COMMIT_OF[cell.of]) and not traps:
                traps.append(spring(b"COMMIT"))

        def answer(request: LLMRequest) -> LLMResponse:
            log.answered("s", "Hello.", input_tokens=3, output_tokens=2)
            return LLMResponse.of_text("Hello.", usage=Usage(3, 2))

        store.on_point = set_trap
        loop = StatefulAgentLoop(llm=ScriptedLLM([answer], repeat_last=True), store=log.watched(store))
        with contextlib.suppress(PowerLoopError):
            await log.did("send", "s", loop.send("Hi.", session_id="s"), input="Hi.")
        await loop.aclose()
        await store.aclose()
        assert [trap.happened.is_set() for trap in traps] == [True]
    log.close()
    await check(tables.dsn, tmp_path / "history", mutant, says=cell.says, table_prefix=tables.prefix)


async def check(dsn: str, history: Path, mutant: str | None, *, says: str, **options: Any) -> None:
    """Hold a history against its store: a broken variant is found by the check that is named, the kernel by none."""
    store = await open_store(dsn, **options)
    report = await check_history(store, read_history(history))
    await store.aclose()
    if mutant is None:
        report.raise_for_problems()
    else:
        assert says in {problem.check for problem in report.problems}, report


@of_kind(ClockJump)
async def test_a_process_whose_clock_jumps_takes_no_lease_on_a_server(
    tables: Any, monkeypatch: pytest.MonkeyPatch, mutant: str | None, cell: ClockJump
) -> None:
    with broken(mutant):
        store = await open_store(tables.dsn, table_prefix=tables.prefix)
        await store.create_session("s", system_prompt=None, metadata={})
        await store.accept(Claim("s", "alice", _LONG_LEASE_S), NewSend(user_message("Hi."), "h", {}))
        real = time.time_ns
        monkeypatch.setattr(time, "time_ns", lambda: real() + _HOUR_MS * 1_000_000)
        refused = pytest.raises(SessionBusyError) if mutant is None else contextlib.nullcontext()
        with refused:
            await store.take_up(Claim("s", "bob", _LONG_LEASE_S))
        await store.aclose()


@of_kind(Conformance)
def test_the_published_suite_finds_it(tmp_path: Path, mutant: str | None, cell: Conformance) -> None:
    command = [sys.executable, "-m", "tests.crash.conform", mutant or "", cell.room, cell.says, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (int(mutant is not None), "")


@of_kind(MatrixRow)
def test_a_row_of_the_matrix_finds_it(mutant: str | None, cell: MatrixRow) -> None:
    scenario = next(one for one in agents.SCENARIOS if one.name == cell.row.partition("/")[0])
    agent = agents.make_loop if mutant is None else f"tests.crash.full.broken_agents:{mutant}"
    # Some break it even where nothing dies.
    finds = contextlib.nullcontext() if mutant is None else pytest.raises(AssertionError, match=cell.says)
    with finds:
        crash_matrix(agent, scenarios=scenario, only=f"sqlite/{cell.row}", workers=1).raise_for_violations()


@of_kind(Lie)
def test_what_callers_were_told_tells_who_speaks_too_soon(theatre: Theatre, mutant: str | None, cell: Lie) -> None:
    scene = theatre.beginning()
    stops = {"stop_at": [("commit.before append_reply", 1)], "mutant": mutant}
    assert theatre.play(scene, "plain", "crowd", **stops) == {"exit": -signal.SIGKILL}
    done = {row["session_id"] for row in scene.facts()["sends"] if row["status"] == "completed"}
    assert (set(scene.told()) <= done) is (mutant is None)


@of_kind(Equivalent, with_kernel=False)
def test_nothing_tells_an_equivalent_variant(theatre: Theatre, mutant: str, cell: Equivalent) -> None:
    story = STORIES[STORY]
    for place in (("commit.after append_reply", 1), ("effect.after charge:a", 1)):
        scene = theatre.dead(STORY, place, mutant=mutant)
        dead = scene.facts()
        assert theatre.play(scene, STORY, "carry_out", mutant=mutant) == _ENDED
        judge(story, dead, scene, carried_out(story, dead))


def test_every_variant_has_its_cell_and_its_row() -> None:
    assert CAUGHT.keys() == MUTANTS.keys()
    found = rows()
    assert len([cell for cell in CAUGHT.values() if not isinstance(cell, Equivalent)]) >= 20
    assert all(all(row) for row in found)
