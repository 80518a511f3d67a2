"""One writer a session: a lease is kept while a turn runs, and whoever lost it writes nothing."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any

import pytest

from power_loop import LoopConfig, StatefulAgentLoop, tool
from power_loop.errors import LeaseLostError, SessionBusyError
from power_loop.events import LeaseTaken, SendFailed, SendFinished
from power_loop.runtime.host.identity import new_owner_id
from power_loop.testing import calls
from power_loop.timers import SystemClock

from .conftest import MakeLoop
from .parts import LIMIT_S, Ears, Gate, said, within_limit
from .test_recovery import dead_owner

#: The shortest that is allowed: it is renewed ten times a second.
SHORT = LoopConfig(lease_ttl_s=0.3)


def change(dsn: str, sql: str, *params: Any) -> None:
    """Do what another process would do to the database."""
    connection = sqlite3.connect(dsn, timeout=LIMIT_S)
    connection.execute(sql, params)
    connection.commit()
    connection.close()


def take_over(dsn: str, sid: str, owner: str = "someone|1|2|else") -> None:
    """Let another process hold the session's lease, for long."""
    change(
        dsn,
        "UPDATE pl_sessions SET owner = ?, epoch = epoch + 1, lease_until_ms = ?, lease_ttl_ms = 1000000 WHERE id = ?",
        owner,
        SystemClock().now_ms() + 1_000_000,
        sid,
    )


async def lease_until_ms(loop: StatefulAgentLoop, sid: str) -> int:
    return (await loop.get_session(sid)).lease_until_ms


async def renewed_until(loop: StatefulAgentLoop, sid: str, until_ms: int) -> None:
    while await lease_until_ms(loop, sid) < until_ms:  # noqa: ASYNC110 - the database tells nobody
        await asyncio.sleep(0)


@pytest.mark.promise("one-writer")
async def test_a_long_turn_keeps_its_lease(make_loop: MakeLoop) -> None:
    gate = Gate()
    loop = make_loop(gate.then("Done."), config=SHORT)
    sid = await loop.new_session()
    turn = asyncio.create_task(loop.send("go", session_id=sid))
    await gate.someone()
    first = await lease_until_ms(loop, sid)
    # Three renewals are longer than the lease was at first.
    await within_limit(renewed_until(loop, sid, first + 300))
    assert not turn.done()
    gate.open()
    assert (await within_limit(turn)).final_text == "Done."
    assert (await loop.get_session(sid)).owner is None


@pytest.mark.promise("one-writer")
async def test_a_turn_whose_lease_was_taken_over_stops_and_writes_nothing(make_loop: MakeLoop, dsn: str) -> None:
    gate = Gate()
    loop = make_loop(gate.then("Never."), config=SHORT)
    ears = Ears(loop)
    sid = await loop.new_session()
    turn = asyncio.create_task(loop.send("go", session_id=sid))
    await gate.someone()
    take_over(dsn, sid)
    # Nobody opens the gate: the heartbeat finds out and stops the model call.
    with pytest.raises(LeaseLostError, match="nothing more was written"):
        await within_limit(turn)
    assert gate.cancelled == 1
    assert said(await loop.get_messages(sid)) == [("user", "go")]
    assert [one.code for one in ears.of(SendFailed)] == ["session.lease_lost"]
    assert ears.of(SendFinished) == []
    record = await loop.get_session(sid)
    assert record.owner == "someone|1|2|else", "the other's lease is not given back"
    with pytest.raises(SessionBusyError) as caught:
        await loop.send("again", session_id=sid)
    assert caught.value.owner == "someone|1|2|else"


@pytest.mark.promise("one-writer")
async def test_the_outcome_of_a_tool_is_not_written_by_a_turn_that_lost_its_lease(
    make_loop: MakeLoop, dsn: str
) -> None:
    ran: list[int] = []

    @tool
    def act() -> str:
        """Act."""
        ran.append(1)
        take_over(dsn, sid)
        return "acted"

    loop = make_loop(calls(("act", {}), ids=("c",)), "Never.", tool_registry=[act])
    sid = await loop.new_session()
    with pytest.raises(LeaseLostError):
        await within_limit(loop.send("go", session_id=sid))
    assert ran == [1]
    assert len(loop.llm.requests) == 1
    assert [one.state for one in await loop.get_pending(sid)] == ["started"], "the ledger tells the truth"
    assert [role for role, _ in said(await loop.get_messages(sid))] == ["user", "assistant"]


async def test_a_lease_that_ran_out_is_taken_over_and_said_so(make_loop: MakeLoop, dsn: str) -> None:
    loop = make_loop("Fine.")
    ears = Ears(loop)
    sid = await loop.new_session()
    take_over(dsn, sid)
    with pytest.raises(SessionBusyError):
        await loop.send("go", session_id=sid)
    change(dsn, "UPDATE pl_sessions SET lease_until_ms = 1 WHERE id = ?", sid)
    assert (await loop.send("go", session_id=sid)).final_text == "Fine."
    assert ears.of(LeaseTaken) == [LeaseTaken("someone|1|2|else")]


async def test_the_lease_of_a_dead_process_is_taken_over_at_once(make_loop: MakeLoop, dsn: str) -> None:
    loop = make_loop("Fine.")
    sid = await loop.new_session()
    dead = dead_owner()
    take_over(dsn, sid, dead)
    ears = Ears(loop)
    assert (await loop.send("go", session_id=sid)).final_text == "Fine."
    assert ears.of(LeaseTaken) == [LeaseTaken(dead)]


async def test_the_lease_of_a_living_process_is_not_taken_over(make_loop: MakeLoop, dsn: str) -> None:
    loop = make_loop("Never.")
    sid = await loop.new_session()
    # This very process under another name, as an open database of another DSN has one.
    take_over(dsn, sid, new_owner_id())
    with pytest.raises(SessionBusyError):
        await loop.send("go", session_id=sid)


async def test_a_session_is_free_once_its_turn_rests(make_loop: MakeLoop) -> None:
    gate = Gate()
    loop = make_loop(RuntimeError("down"), gate.then("never"), "Fine.")
    sid = await loop.new_session()
    with pytest.raises(Exception, match="down"):
        await loop.send("a", session_id=sid)
    assert (await loop.get_session(sid)).owner is None, "also after an error"
    turn = asyncio.create_task(loop.send("b", session_id=sid))
    await gate.someone()
    assert (await loop.get_session(sid)).owner is not None
    turn.cancel()
    await asyncio.wait([turn])
    assert (await loop.get_session(sid)).owner is None, "and after a cancellation"
