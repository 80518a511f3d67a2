"""What a dead process left is found and driven: turns in the middle, inputs that wait, and sends that kill."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from power_loop import Approve, HookPoint, LoopConfig, SendStatus, StatefulAgentLoop, tool
from power_loop.errors import InputError, SessionBusyError
from power_loop.hooks import SendStartContext, Veto
from power_loop.records import Found
from power_loop.testing import calls

from .conftest import MakeLoop
from .elsewhere import elsewhere, living_owner
from .parts import said, within_limit
from .test_lease import change, take_over
from .test_recovery import dead_owner


async def died(loop: StatefulAgentLoop, dsn: str, owner: str | None = None, attempts: int = 1) -> str:
    """Return a session whose process died while its model was asked; the loop's next step is used up."""
    sid = await loop.new_session()
    with pytest.raises(Exception, match="down"):
        await loop.send("go", session_id=sid)
    change(
        dsn, "UPDATE pl_sends SET status = 'running', result = NULL, attempts = ? WHERE session_id = ?", attempts, sid
    )
    take_over(dsn, sid, owner or dead_owner())
    return sid


@pytest.mark.promise("recover")
async def test_a_turn_whose_process_died_is_driven_to_its_end(make_loop: MakeLoop, dsn: str) -> None:
    loop = make_loop(RuntimeError("down"), RuntimeError("down"), RuntimeError("down"), "Done.", "Done.")
    dead, expired = await died(loop, dsn), await died(loop, dsn, "far|1|2|away")
    lives = await died(loop, dsn, living_owner())
    change(dsn, "UPDATE pl_sessions SET lease_until_ms = 1 WHERE id = ?", expired)
    reported = await loop.recover(drive=False)
    assert {(one.session_id, one.found, one.status, one.was_driven) for one in reported} == {
        (sid, Found.DEAD_TURN, SendStatus.RUNNING, False) for sid in (dead, expired)
    }
    driven = await within_limit(loop.recover())
    assert {(one.session_id, one.status, one.was_driven, one.error) for one in driven} == {
        (sid, SendStatus.COMPLETED, True, None) for sid in (dead, expired)
    }
    for sid in (dead, expired):
        assert said(await loop.get_messages(sid)) == [("user", "go"), ("assistant", "Done.")]
    with pytest.raises(SessionBusyError):
        await loop.send("again", session_id=lives)
    assert await loop.recover() == ()


@pytest.mark.promise("recover")
async def test_inputs_that_nobody_drives_become_turns(make_loop: MakeLoop, dsn: str) -> None:
    loop = make_loop("Answer.", tool_registry=[])
    gone = elsewhere(make_loop, dsn)
    sid = await loop.new_session()
    take_over(dsn, sid, living_owner())
    for text in ("one", "two"):
        assert (await gone.follow_up(sid, text)).is_turn_running
    # That turn ends, and its process with it.
    change(dsn, "UPDATE pl_sessions SET owner = NULL, lease_until_ms = 0 WHERE id = ?", sid)
    assert await loop.recover(older_than_s=3600) == ()
    [report] = await within_limit(loop.recover())
    assert (report.found, report.waiting_inputs, report.status) == (Found.WAITING_INPUT, 2, SendStatus.COMPLETED)
    assert [text for _, text in said(await loop.get_messages(sid))] == ["one", "two", "Answer."]


async def test_inputs_for_a_dead_turn_are_taken_in_by_it(make_loop: MakeLoop, dsn: str) -> None:
    loop = make_loop(RuntimeError("down"), "Done.")
    sid = await died(loop, dsn)
    change(dsn, "UPDATE pl_sessions SET owner = ?", living_owner())
    await loop.follow_up(sid, "more")
    change(dsn, "UPDATE pl_sessions SET owner = ?", dead_owner())
    [report] = await within_limit(loop.recover())
    assert (report.found, report.waiting_inputs) == (Found.DEAD_TURN, 1)
    assert [text for _, text in said(await loop.get_messages(sid))] == ["go", "more", "Done."]


@pytest.mark.promise("recover")
async def test_a_send_that_ends_every_process_is_given_up(make_loop: MakeLoop, dsn: str) -> None:
    @tool
    def act() -> str:
        """Act."""
        return "never"

    loop = make_loop(RuntimeError("down"), "Fine.", tool_registry=[act], config=LoopConfig(max_recoveries=3))
    sid = await died(loop, dsn, attempts=4)
    [report] = await within_limit(loop.recover())
    assert (report.status, report.error, report.attempts) == (SendStatus.FAILED, "send.poisoned", 4)
    sent = await (await loop.get_store()).get_send(sid)
    assert sent is not None
    assert sent.result is not None
    assert sent.result["reason"].startswith("send.poisoned: ")
    assert await loop.recover() == ()
    assert (await loop.send("again", session_id=sid)).final_text == "Fine."


async def test_answering_a_person_often_poisons_nothing(make_loop: MakeLoop, dsn: str) -> None:
    @tool(requires_approval=True)
    def pay() -> str:
        """Pay."""
        return "paid"

    steps: list[Any] = [calls(("pay", {}), ids=(f"c{n}",)) for n in range(5)]
    loop = make_loop(*steps, "Done.", tool_registry=[pay])
    sid = await loop.new_session()
    await loop.send("go", session_id=sid)
    for n in range(5):
        result = await loop.resume(sid, answers={f"c{n}": Approve()})
    assert result.status is SendStatus.COMPLETED
    sent = await (await loop.get_store()).get_send(sid)
    assert sent is not None
    assert sent.attempts == 1


async def test_a_model_that_is_down_ends_a_recovery_as_failed_and_is_not_asked_on_and_on(
    make_loop: MakeLoop, dsn: str
) -> None:
    loop = make_loop(RuntimeError("down"), RuntimeError("still down"))
    await died(loop, dsn)
    [report] = await within_limit(loop.recover())
    assert (report.status, report.error) == (SendStatus.FAILED, "llm.failed")
    assert await loop.recover() == ()


@pytest.mark.promise("recover")
async def test_of_many_workers_one_drives_each_session(make_loop: MakeLoop, dsn: str) -> None:
    first = make_loop(*[RuntimeError("down")] * 12)
    sids = [await died(first, dsn) for _ in range(12)]
    workers = [elsewhere(make_loop, dsn, *["Done."] * 12), make_loop(*["Done."] * 12)]
    reports = [one for given in await asyncio.gather(*(one.recover() for one in workers)) for one in given]
    assert sorted(one.session_id for one in reports) == sorted(sids)
    assert {one.status for one in reports} == {SendStatus.COMPLETED}
    for sid in sids:
        assert said(await first.get_messages(sid)) == [("user", "go"), ("assistant", "Done.")]


async def test_it_goes_on_for_ever_until_the_loop_is_closed(make_loop: MakeLoop, dsn: str) -> None:
    loop = make_loop(RuntimeError("down"), RuntimeError("down"), "Done.", "Done.")
    first = await died(loop, dsn)
    seen: list[str] = []

    async def watch() -> None:
        async for report in loop.recover_forever(every_s=0.01):
            seen.append(report.session_id)
            if len(seen) == 1:
                seen.append(await died(loop, dsn))
            else:
                await loop.aclose()

    loop.llm._steps.insert(1, "Done.")
    loop.llm._steps[2:4] = [RuntimeError("down"), "Done."]
    await within_limit(watch())
    assert seen[0] == first
    assert seen[1] == seen[2]


async def test_a_pass_that_cannot_be_made_is_refused(make_loop: MakeLoop) -> None:
    loop = make_loop()
    for options in ({"limit": 0}, {"limit": True}, {"older_than_s": -1}, {"older_than_s": "x"}):
        with pytest.raises(InputError):
            await loop.recover(**options)  # type: ignore[arg-type]


@pytest.mark.promise("recover")
async def test_a_dead_turn_that_a_hook_refuses_to_take_up_is_not_asked_for_on_and_on(
    make_loop: MakeLoop, dsn: str
) -> None:
    loop = make_loop(RuntimeError("down"), "Done.")
    sid = await died(loop, dsn)
    change(dsn, "UPDATE pl_sessions SET owner = ?", living_owner())
    await loop.follow_up(sid, "more")
    change(dsn, "UPDATE pl_sessions SET owner = ?", dead_owner())
    asked: list[bool] = []

    def refuse(context: SendStartContext) -> Veto | None:
        asked.append(context.is_resume)
        return Veto("not now") if context.is_resume else None

    hook = loop.hooks.add(HookPoint.SEND_START, refuse)
    [report] = await within_limit(loop.recover())
    assert (report.found, report.status) == (Found.DEAD_TURN, SendStatus.VETOED)
    assert asked == [True]
    # A send comes behind the input, which comes behind the dead turn.
    with pytest.raises(InputError, match="came first"):
        await within_limit(loop.send("mine", session_id=sid))
    assert asked[1:].count(True) <= 2
    loop.hooks.remove(hook)
    [report] = await within_limit(loop.recover())
    assert report.status is SendStatus.COMPLETED
    assert [text for _, text in said(await loop.get_messages(sid))] == ["go", "more", "Done."]
