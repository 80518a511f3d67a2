"""Workers: what was left in inboxes is driven by whoever has room: once, in order, fairly, until they are stopped."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from power_loop import HookPoint, LLMRequest, LoopConfig, SendStatus, StatefulAgentLoop, Worker, tool
from power_loop.errors import InputError, LoopClosedError, RequestConflictError, SessionNotFoundError
from power_loop.events import LeaseTaken, SendFinished
from power_loop.hooks import SendStartContext, Veto
from power_loop.records import Found, Recovered
from power_loop.testing import calls

from .conftest import MakeLoop
from .elsewhere import elsewhere, living_owner
from .parts import Ears, Gate, commits_of, said, until, within_limit
from .test_lease import change
from .test_recover import died
from .test_recovery import dead_owner

#: A worker that looks so seldom that a test would end before it does.
NEVER_S = 3600.0


def echo(request: LLMRequest) -> str:
    return f"to {request.messages[-1].text}"


async def idle(*workers: Worker) -> None:
    """Let workers work until there is nothing left to do."""
    await within_limit(asyncio.gather(*(worker.run(until_idle=True) for worker in workers)))


@pytest.mark.promise("fleet")
async def test_an_input_that_is_left_is_not_driven_here_and_becomes_a_send_of_its_own_elsewhere(
    make_loop: MakeLoop, dsn: str
) -> None:
    front, back = make_loop(), elsewhere(make_loop, dsn, *[echo] * 3)
    sid = await front.new_session()
    for n, text in enumerate(("one", "two", "three"), 1):
        left = await front.enqueue(sid, text, request_id=f"r{n}")
        assert (left.status, left.inbox_position, left.send_index) == (SendStatus.QUEUED, n, 0)
    assert [one.position for one in await front.get_inbox(sid)] == [1, 2, 3]
    await idle(Worker(back))
    log = [(role, text) for n in ("one", "two", "three") for role, text in (("user", n), ("assistant", f"to {n}"))]
    assert said(await front.get_messages(sid)) == log
    # Asked again, it tells what came of it.
    result = await front.enqueue(sid, "two", request_id="r2")
    assert (result.status, result.final_text, result.send_index) == (SendStatus.COMPLETED, "to two", 2)
    assert (await front.send("two", session_id=sid, request_id="r2")).is_replayed
    with pytest.raises(RequestConflictError):
        await front.enqueue(sid, "other", request_id="r2")
    with pytest.raises(SessionNotFoundError):
        await front.enqueue("sess_none", "hello")
    assert front.llm.requests == []


async def test_its_options_go_along(make_loop: MakeLoop, dsn: str) -> None:
    @tool
    def look() -> str:
        """Look."""
        return "seen"

    @tool
    def act() -> str:
        """Act."""
        return "done"

    back = elsewhere(make_loop, dsn, '{"n": 7}', tool_registry=[look, act])
    front = make_loop(tool_registry=[look, act])
    sid = await front.new_session()
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    await front.enqueue(
        sid, "go", request_id="r", tools=["look"], output_schema=schema, system_prompt="Be brief.", temperature=0.5
    )
    await idle(Worker(back))
    request = back.llm.requests[0]
    assert ([one.name for one in request.tools], request.temperature, request.system) == (["look"], 0.5, "Be brief.")
    assert (await front.enqueue(sid, "go", request_id="r", output_schema=schema)).output == {"n": 7}


@pytest.mark.promise("fleet")
async def test_a_turn_that_runs_takes_it_not_in(make_loop: MakeLoop, dsn: str) -> None:
    gate = Gate()
    loop = make_loop(gate.then("First."), echo)
    sid = await loop.new_session()
    turn = asyncio.create_task(loop.send("go", session_id=sid))
    await gate.someone()
    await loop.enqueue(sid, "next")
    gate.open()
    assert (await within_limit(turn)).rounds == 1
    # The process whose turn it stood behind goes on with it.
    await within_limit(until(lambda: len(loop.llm.requests) == 2))
    await loop.aclose()
    assert [text for _, text in said(await make_loop().get_messages(sid))] == ["go", "First.", "next", "to next"]


@pytest.mark.promise("fleet")
async def test_what_dead_processes_left_is_driven_and_told_of(make_loop: MakeLoop, dsn: str) -> None:
    first = make_loop(*[RuntimeError("down")] * 3)
    dead, expired = await died(first, dsn), await died(first, dsn, "far|1|2|away")
    lives = await died(first, dsn, living_owner())
    change(dsn, "UPDATE pl_sessions SET lease_until_ms = 1 WHERE id = ?", expired)
    back = elsewhere(make_loop, dsn, "Done.", "Done.")
    ears, turns = Ears(back), list[Recovered]()
    await idle(Worker(back, on_turn=turns.append))
    assert {(one.session_id, one.found, one.status, one.error) for one in turns} == {
        (sid, Found.DEAD_TURN, SendStatus.COMPLETED, None) for sid in (dead, expired)
    }
    # Who had it is told of, not who claimed it.
    assert {one.previous_owner for one in ears.of(LeaseTaken)} >= {"far|1|2|away"}
    assert len(ears.of(LeaseTaken)) == 2
    assert (await back.get_session(lives)).owner is not None


@pytest.mark.promise("fleet")
async def test_two_workers_share_the_sessions_and_never_drive_one_together(make_loop: MakeLoop, dsn: str) -> None:
    loops = [elsewhere(make_loop, dsn), make_loop()]
    inside: set[str] = set()
    together = asyncio.Event()

    async def model(request: LLMRequest) -> str:
        text = request.messages[-1].text
        sid = text.split()[0]
        assert sid not in inside
        inside.add(sid)
        # The first waits for another one to come: nobody drives alone.
        if len(inside) > 1:
            together.set()
        await together.wait()
        inside.remove(sid)
        return f"to {text}"

    sids = [await loops[0].new_session() for _ in range(6)]
    for n in range(4):
        for sid in sids:
            await loops[0].enqueue(sid, f"{sid} {n}")
    for loop in loops:
        loop.llm.add(*[model] * 24)
    workers = [Worker(loop, concurrency=2) for loop in loops]
    await idle(*workers)
    for sid in sids:
        wanted = [text for n in range(4) for text in (f"{sid} {n}", f"to {sid} {n}")]
        assert [text for _, text in said(await loops[0].get_messages(sid))] == wanted
    assert sum(worker.turns for worker in workers) == 24


async def test_it_drives_no_more_than_it_may(make_loop: MakeLoop) -> None:
    gate = Gate()
    loop = make_loop(*[gate.then("Yes.")] * 5)
    sids = [await loop.new_session() for _ in range(5)]
    for sid in sids:
        await loop.enqueue(sid, "go")
    async with Worker(loop, concurrency=2) as worker:
        await within_limit(until(lambda: gate.came == 2))
        store = await loop.get_store()
        assert len(await store.list_owners()) == 1
        held = [sid for sid in sids if (await store.get_session(sid)).owner is not None]
        assert len(held) == 2
        gate.open()
        await within_limit(until(lambda: worker.turns == 5))
    assert gate.came == 5


@pytest.mark.promise("fleet")
async def test_a_session_with_much_to_do_keeps_nobody_waiting(make_loop: MakeLoop) -> None:
    order: list[str] = []

    def model(request: LLMRequest) -> str:
        order.append(request.messages[-1].text[0])
        return "Yes."

    loop = make_loop(*[model] * 12)
    busy, others = await loop.new_session(), [await loop.new_session() for _ in range(2)]
    for n in range(8):
        await loop.enqueue(busy, f"a {n}")
    for name, sid in zip("bc", others, strict=True):
        for n in range(2):
            await loop.enqueue(sid, f"{name} {n}")
    await idle(Worker(loop, concurrency=1))
    # One turn each, then it is the turn of who was served longest ago.
    assert sorted(order[:3]) == sorted(order[3:6]) == ["a", "b", "c"]
    assert order[6:] == ["a"] * 6


async def test_a_session_that_waits_for_a_person_is_left_alone(make_loop: MakeLoop) -> None:
    @tool(requires_approval=True)
    def pay() -> str:
        """Pay."""
        return "paid"

    loop = make_loop(calls(("pay", {}), ids=("c1",)), "Done.", echo, tool_registry=[pay])
    sid = await loop.new_session()
    for text in ("pay", "next"):
        await loop.enqueue(sid, text)
    turns = list[Recovered]()
    await idle(Worker(loop, on_turn=turns.append))
    await idle(Worker(loop, on_turn=turns.append))
    assert [one.status for one in turns] == [SendStatus.WAITING_FOR_INPUT]
    assert [one.position for one in await loop.get_inbox(sid)] == [2]
    assert (await loop.abort_pending(sid)).status is SendStatus.ABORTED
    await within_limit(until(lambda: len(loop.llm.requests) == 2))


@pytest.mark.promise("fleet")
async def test_behind_a_failed_send_it_does_not_ask_on_and_on(make_loop: MakeLoop) -> None:
    loop = make_loop(RuntimeError("down"), echo)
    sid = await loop.new_session()
    for text in ("one", "two"):
        await loop.enqueue(sid, text)
    turns = list[Recovered]()
    await idle(Worker(loop, after_failure_s=NEVER_S, on_turn=turns.append))
    assert [(one.status, one.error) for one in turns] == [(SendStatus.FAILED, "llm.failed")]
    await idle(Worker(loop, after_failure_s=0.0, on_turn=turns.append))
    assert turns[1].status is SendStatus.COMPLETED


@pytest.mark.promise("fleet")
async def test_a_send_that_ends_every_process_is_given_up_and_the_next_goes_on(make_loop: MakeLoop, dsn: str) -> None:
    loop = make_loop(RuntimeError("down"), echo, config=LoopConfig(max_recoveries=3))
    sid = await died(loop, dsn, living_owner(), attempts=4)
    await loop.enqueue(sid, "next")
    change(dsn, "UPDATE pl_sessions SET owner = ?", dead_owner())
    turns = list[Recovered]()
    await idle(Worker(loop, after_failure_s=0.0, on_turn=turns.append))
    assert [(one.status, one.error) for one in turns] == [
        (SendStatus.FAILED, "send.poisoned"),
        (SendStatus.COMPLETED, None),
    ]


async def test_a_session_that_cannot_be_driven_does_not_spin_and_holds_up_no_other(
    make_loop: MakeLoop, dsn: str
) -> None:
    loop = make_loop(echo)
    asked: list[str] = []

    def start(context: SendStartContext) -> None:
        asked.append(context.session_id)
        if context.session_id == bad:
            raise RuntimeError("a hook that is broken")

    loop.hooks.add(HookPoint.SEND_START, start)
    # Of those that came within the same millisecond the lower id is first.
    bad, good = [await loop.new_session(session_id=name) for name in ("bad", "good")]
    for sid in (bad, good):
        await loop.enqueue(sid, "go")
    turns = list[Recovered]()
    await idle(Worker(loop, concurrency=1, on_turn=turns.append))
    assert asked == [bad, good]
    assert [(one.session_id, one.status, one.error) for one in turns] == [
        (bad, None, "hook.failed"),
        (good, SendStatus.COMPLETED, None),
    ]
    # Its lease was given back.
    assert (await loop.get_session(bad)).owner is None


async def test_what_a_hook_refuses_is_gone_and_the_next_goes_on(make_loop: MakeLoop) -> None:
    loop = make_loop(echo)
    loop.hooks.add(HookPoint.SEND_START, lambda context: Veto("no") if context.content[0].text == "bad" else None)
    sid = await loop.new_session()
    for text in ("bad", "good"):
        await loop.enqueue(sid, text)
    await idle(Worker(loop))
    assert [text for _, text in said(await loop.get_messages(sid))] == ["good", "to good"]


@pytest.mark.promise("fleet")
async def test_at_the_end_what_runs_comes_to_rest_and_nothing_more_is_begun(make_loop: MakeLoop) -> None:
    gate = Gate()
    loop = make_loop(gate.then("Done."))
    first, second = [await loop.new_session(session_id=f"s{number}") for number in (1, 2)]
    for sid in (first, second):
        await loop.enqueue(sid, "go")
    worker = Worker(loop, concurrency=1)
    running = asyncio.create_task(worker.run())
    await gate.someone()
    worker.stop()
    gate.open()
    await within_limit(running)
    assert [len(await loop.get_inbox(sid)) for sid in (first, second)] == [0, 1]
    assert said(await loop.get_messages(first))[-1] == ("assistant", "Done.")


@pytest.mark.promise("fleet")
@pytest.mark.parametrize("how", ["no grace", "a second signal", "cancelled"])
async def test_what_takes_too_long_is_handed_back_and_another_worker_goes_on_at_once(
    make_loop: MakeLoop, dsn: str, how: str
) -> None:
    gate = Gate()
    loop, other = make_loop(gate.then("Late.")), elsewhere(make_loop, dsn, "Done.")
    sid = await loop.new_session()
    await loop.enqueue(sid, "go")
    worker = Worker(loop, grace_s=0.0 if how == "no grace" else NEVER_S)
    running = asyncio.create_task(worker.run())
    await gate.someone()
    if how == "cancelled":
        running.cancel()
    else:
        worker.stop()
    if how == "a second signal":
        worker.stop(at_once=True)
    await within_limit(asyncio.wait((running,)))
    assert running.cancelled() == (how == "cancelled")
    assert gate.cancelled == 1
    sent = await (await loop.get_store()).get_send(sid)
    assert sent is not None
    # To be handed back says nothing against it.
    assert (sent.status, sent.attempts) == (SendStatus.RUNNING, 0)
    turns = list[Recovered]()
    await idle(Worker(other, on_turn=turns.append))
    assert [(one.found, one.status) for one in turns] == [(Found.DEAD_TURN, SendStatus.COMPLETED)]
    assert said(await other.get_messages(sid)) == [("user", "go"), ("assistant", "Done.")]


async def test_it_ends_with_its_loop(make_loop: MakeLoop) -> None:
    gate = Gate()
    loop = make_loop(gate.then("Done."))
    sid = await loop.new_session()
    await loop.enqueue(sid, "go")
    running = asyncio.create_task(Worker(loop).run())
    await gate.someone()
    closing = asyncio.create_task(loop.aclose())
    await within_limit(until(lambda: loop._is_closed))
    gate.open()
    await within_limit(asyncio.gather(running, closing))
    with pytest.raises(LoopClosedError):
        await Worker(loop).run()


async def test_nothing_to_do_costs_a_look_and_writes_nothing(make_loop: MakeLoop) -> None:
    loop = make_loop()
    await loop.new_session()
    with commits_of(await loop.get_store()) as moves:
        await idle(Worker(loop))
    assert moves == []


async def test_a_turn_costs_one_transaction_more_than_a_send(make_loop: MakeLoop) -> None:
    loop = make_loop(echo)
    sid = await loop.new_session()
    await loop.enqueue(sid, "go")
    with commits_of(await loop.get_store()) as moves:
        await idle(Worker(loop))
    assert moves == ["claim_stalled", "accept", "append_reply"]


async def test_a_send_of_this_process_may_come_between_a_claim_and_its_turn(make_loop: MakeLoop) -> None:
    gate = Gate()
    loop = make_loop("First.", "Second.", "Third.")
    ears = Ears(loop)
    sid = await loop.new_session()

    async def start(context: SendStartContext) -> None:
        await gate.passing()

    hook = loop.hooks.add(HookPoint.SEND_START, start)
    await loop.enqueue(sid, "one")
    async with Worker(loop):
        await gate.someone()
        assert (await loop.get_session(sid)).owner is not None
        sending = asyncio.create_task(loop.send("two", session_id=sid))
        gate.open()
        assert (await within_limit(sending)).status is SendStatus.COMPLETED
    assert [text for role, text in said(await loop.get_messages(sid)) if role == "user"] == ["one", "two"]
    assert len(ears.of(SendFinished)) == 2
    assert (await loop.get_session(sid)).owner is None
    assert hook is not None


@pytest.mark.parametrize(
    "wrong",
    [{"concurrency": 0}, {"concurrency": True}, {"poll_s": 0}, {"grace_s": -1}, {"after_failure_s": float("nan")}],
)
async def test_what_makes_no_sense_is_refused(make_loop: MakeLoop, wrong: dict[str, Any]) -> None:
    loop: StatefulAgentLoop = make_loop()
    with pytest.raises(InputError, match=next(iter(wrong))):
        Worker(loop, **wrong)


@pytest.mark.parametrize("steps", range(6))
async def test_one_that_is_cancelled_at_the_moment_in_which_it_is_woken_ends(make_loop: MakeLoop, steps: int) -> None:
    worker = Worker(make_loop(), poll_s=NEVER_S)
    waiting = asyncio.create_task(worker._wait(NEVER_S))
    for _ in range(3):
        await asyncio.sleep(0)
    worker.stop()
    for _ in range(steps):
        await asyncio.sleep(0)
    if waiting.cancel():
        with pytest.raises(asyncio.CancelledError):
            await within_limit(waiting)
    else:
        assert waiting.result()
