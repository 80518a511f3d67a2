"""The runs of workflows: their journals are written under a lease, and an end brings all that belongs to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from power_loop import After, SendStatus, SessionState, SessionStore
from power_loop.errors import InputError, LeaseLostError, RunNotFoundError, StoreCorruptError
from power_loop.messages import user_message
from power_loop.storage import (
    ANY_SIGNALS,
    Accepted,
    NewChild,
    NewRun,
    NewTimer,
    RunEnd,
    RunWrite,
    SendEnd,
    Signalled,
    WorkflowStepRecord,
)
from power_loop.testing.conformance.cases import Place, check, raises
from power_loop.testing.conformance.parts import HandClock, accepted, answer, claim, new_send, new_session
from power_loop.timers import Schedule, TimerMaker

AGENT = {"name": "tea"}
SPEC = {"name": "tea", "root": {"type": "agent", "id": "a"}}


def new_run(run_id: str = "run_1", *, parent_id: str | None = None, **members: Any) -> NewRun:
    """Return a run to be made, below a session if one is named."""
    place: dict[str, Any] = (
        {} if parent_id is None else {"parent_id": parent_id, "parent_send": 1, "root_id": parent_id, "depth": 1}
    )
    session = NewChild(run_id, None, AGENT, **place)
    return replace(NewRun(session, "tea", SPEC, {"topic": "茶"}, {"a": 1}, parent_id), **members)


def step(path: str = "a", state: str = "started", **members: Any) -> WorkflowStepRecord:
    """Return a step of the first run."""
    return WorkflowStepRecord("run_1", path, path, "agent", state, **members)


async def begun(store: SessionStore, *, parent_id: str | None = None) -> Accepted:
    """Make the first run and begin it."""
    await store.create_run(new_run(parent_id=parent_id))
    return await accepted(store, "run_1")


async def advance(store: SessionStore, held: Accepted, write: RunWrite, end: RunEnd | None = None) -> None:
    """Make a move of a run's engine."""
    await store.advance_run(held.lease, write, at_seq=held.next_seq, send_index=held.send_index, end=end)


def ended(state: str = "completed", **members: Any) -> RunEnd:
    """Return the end of a run."""
    send = SendEnd(SendStatus.COMPLETED, {"text_seq": 2})
    return replace(RunEnd(state, send, output=["茶"], message=answer("Tea.")), **members)


@check()
async def a_run_is_made_once_and_read_as_it_was_made(store: SessionStore, clock: HandClock) -> None:
    made = await store.create_run(new_run())
    assert (made.session_id, made.name, made.state, made.ended_at_ms) == ("run_1", "tea", "running", None)
    assert (made.spec, made.input, made.options) == (SPEC, {"topic": "茶"}, {"a": 1})
    clock.ms += 1000
    assert await store.create_run(new_run(name="other")) == made
    assert (await store.get_session("run_1")).agent == AGENT
    assert await store.get_run("run_1") == made
    with raises(RunNotFoundError):
        await store.get_run("run_2")
    await new_session(store)
    with raises(RunNotFoundError):
        await store.read_journal("sess_1")


@check()
async def steps_are_written_together_and_read_as_they_were_written(store: SessionStore) -> None:
    held = await begun(store)
    first = step("a", started_at_ms=5, input={"q": "茶"}, child_session_id="agt_1", due_at_ms=9)
    await advance(store, held, RunWrite(made=(first, step("b[0]/x"))))
    usage = {"input_tokens": 3, "output_tokens": 4}
    done = replace(first, state="completed", output={"n": [1]}, usage=usage, cost_nanos=7, ended_at_ms=8, ended_nth=1)
    failed = step("b[0]/x", "failed", attempt=2, error={"code": "llm.timeout", "message": "…"})
    await advance(store, held, RunWrite(made=(step("c"),), changed=(done, failed)))
    run, steps, signals = await store.read_journal("run_1")
    assert (run.state, steps, signals) == ("running", (done, failed, step("c")), ())
    await advance(store, held, RunWrite(dropped=("c",), spec={**SPEC, "name": "coffee"}))
    run, steps, _ = await store.read_journal("run_1")
    assert (run.name, run.spec["name"], steps) == ("coffee", "coffee", (done, failed))


@check()
async def a_move_that_does_not_fit_the_journal_writes_nothing(store: SessionStore) -> None:
    held = await begun(store)
    for write in (
        RunWrite(made=(step("a"),), changed=(step("b"),)),
        RunWrite(made=(step("a"),), taken=((1, "a"),)),
        RunWrite(made=(step("a"),), dropped=("b",)),
    ):
        with raises(StoreCorruptError):
            await advance(store, held, write)
    assert (await store.read_journal("run_1"))[1] == ()


@check()
async def an_engine_that_was_replaced_writes_nothing(store: SessionStore) -> None:
    held = await begun(store)
    await advance(store, held, RunWrite(made=(step("a"),)))
    again = await store.take_up(claim("run_1", "bob", dead_owner="alice"))
    for end in (None, ended()):
        with raises(LeaseLostError):
            await advance(store, held, RunWrite(changed=(step("a", "completed"),)), end)
    await advance(store, again, RunWrite(changed=(step("a", "failed"),)))
    assert [one.state for one in (await store.read_journal("run_1"))[1]] == ["failed"]


@check()
async def the_end_of_a_run_brings_all_that_belongs_to_it(store: SessionStore, clock: HandClock) -> None:
    await new_session(store)
    await accepted(store, "sess_1")
    held = await begun(store, parent_id="sess_1")
    leaf = NewChild("agt_1", None, AGENT, parent_id="run_1", parent_send=1, root_id="sess_1", depth=2)
    await store.create_child(leaf, lease=held.lease)
    await advance(store, held, RunWrite(made=(step("a", child_session_id="agt_1"),)))
    clock.ms += 1000
    timers = (_timer("end", "sess_1", After(0)), _timer("none", "sess_2", After(0)))
    write = RunWrite(changed=(step("a", "completed", child_session_id="agt_1"),), closes=("agt_1",))
    await advance(store, held, write, ended(timers=timers))
    run, [one], _ = await store.read_journal("run_1")
    assert (run.state, run.output, run.error, run.ended_at_ms) == ("completed", ["茶"], None, clock.ms)
    assert one.state == "completed"
    assert [(await store.get_session(name)).state for name in ("run_1", "agt_1")] == [SessionState.CLOSED] * 2
    send = await store.get_send("run_1")
    assert send is not None
    assert send.status is SendStatus.COMPLETED
    assert [record.message.text for record in await store.get_messages("run_1")] == ["hello", "Tea."]
    [timer] = (await store.list_timers()).items
    assert (timer.id, timer.session_id, timer.made_by) == ("tmr_end", "sess_1", TimerMaker.WORKFLOW)
    [due] = await store.claim_timers("alice", ttl_s=60, limit=5, made_by=TimerMaker.WORKFLOW)
    assert (await store.deliver_timer(due, due.timer.message, input_hash="")) is not None
    assert [record.request_id for record in await store.get_inbox("sess_1")] == ["tmr_end:1"]
    assert await store.claim_timers("alice", ttl_s=60, limit=5, made_by=TimerMaker.WORKFLOW) == ()
    with raises(LeaseLostError):
        await advance(store, held, RunWrite(), ended("failed"))


@check()
async def a_run_that_waits_rests_and_goes_on(store: SessionStore) -> None:
    held = await begun(store)
    rests = RunEnd("waiting", SendEnd(SendStatus.WAITING_FOR_INPUT, {}), is_final=False)
    await advance(store, held, RunWrite(made=(step("a", "waiting"),)), rests)
    run = await store.get_run("run_1")
    assert (run.state, run.ended_at_ms) == ("waiting", None)
    assert (await store.get_session("run_1")).state is SessionState.OPEN
    again = await store.take_up(claim("run_1", "bob"))
    await advance(store, again, RunWrite(changed=(step("a", "completed"),)))
    assert (await store.get_run("run_1")).state == "running"
    await advance(store, again, RunWrite(), ended())
    assert (await store.get_run("run_1")).state == "completed"


def _timer(name: str, session_id: str, schedule: Schedule) -> NewTimer:
    message = user_message("It is done.")
    return NewTimer(f"tmr_{name}", session_id, message, "", schedule, made_by=TimerMaker.WORKFLOW, max_timers=None)


_WAITS = SendEnd(SendStatus.WAITING_FOR_INPUT, {})


async def _is_left(store: SessionStore) -> bool:
    """Tell whether the first run is there for whoever drives what is left, and take it."""
    found = await store.claim_stalled("worker", ttl_s=60, limit=5)
    assert [one.session_id for one in found] in ([], ["run_1"])
    return bool(found)


@check()
async def a_run_that_rests_is_woken_by_its_timer(store: SessionStore, clock: HandClock) -> None:
    held = await begun(store)
    for nth in (1, 2):
        rests = RunEnd("waiting", _WAITS, is_final=False, timers=(_timer(f"{nth}", "run_1", After(60)),))
        await advance(store, held, RunWrite(), rests)
        assert not await _is_left(store)
        # Each rest has its own: what it was woken by otherwise counts no more.
        assert [one.id for one in (await store.list_timers("run_1")).items] == [f"tmr_{nth}"]
        clock.ms += 60_000
        [claim_of_it] = await store.claim_timers("alice", ttl_s=60, limit=5)
        delivery = await store.deliver_timer(claim_of_it, claim_of_it.timer.message, input_hash="")
        assert delivery is not None
        assert (delivery.woke_run, delivery.input, delivery.timer.is_armed) == (True, None, False)
        assert (await store.get_run("run_1")).state == "running"
        assert await store.get_inbox("run_1") == ()
        assert await _is_left(store)
        held = await store.take_up(claim("run_1", "alice", dead_owner="worker"))
        sent = await store.get_send("run_1")
        # Whoever was woken had not died.
        assert sent is not None
        assert (sent.status, sent.attempts) == (SendStatus.RUNNING, 1)
    await advance(store, held, RunWrite(), ended())
    assert (await store.list_timers()).items == ()


@check()
async def a_signal_wakes_a_run_that_rests_and_no_other(store: SessionStore) -> None:
    held = await begun(store)
    await store.signal_run("run_1", "go")
    assert not await _is_left(store)
    signals = (await store.get_run_signals("run_1"))[-1].position
    heard = replace(held.lease, signals=ANY_SIGNALS)
    rests = RunEnd("waiting", _WAITS, is_final=False)
    await store.advance_run(heard, RunWrite(), at_seq=held.next_seq, send_index=1, end=rests)
    assert not await _is_left(store)
    assert (await store.signal_run("run_1", "go")).position == signals + 1
    assert await _is_left(store)


@check()
async def the_end_of_a_leaf_wakes_its_run_in_the_same_move(store: SessionStore) -> None:
    held = await begun(store)
    place: dict[str, Any] = {"parent_id": "run_1", "parent_send": 1, "root_id": "run_1", "depth": 1}
    await store.create_child(NewChild("agt_1", None, AGENT, **place), lease=held.lease)
    leaf = await accepted(store, "agt_1")
    await advance(store, held, RunWrite(), RunEnd("waiting", _WAITS, is_final=False))
    assert not await _is_left(store)
    await store.end_send(leaf.lease, leaf.send_index, SendEnd(SendStatus.COMPLETED, {}, wakes="run_1"))
    assert await _is_left(store)


@check()
async def what_a_send_pays_for_is_left_only_once_that_does_not_run(store: SessionStore, clock: HandClock) -> None:
    await new_session(store)
    payer = await accepted(store, "sess_1")
    await store.create_run(new_run(parent_id="sess_1"))
    new = replace(new_send(), paid_by=("sess_1", payer.send_index))
    assert isinstance(await store.accept(claim("run_1", "dead"), new), Accepted)

    async def found() -> list[str]:
        return [one.session_id for one in await store.find_stalled(dead_owners=["dead"])]

    assert await found() == []
    await store.end_send(payer.lease, payer.send_index, SendEnd(SendStatus.COMPLETED, {}))
    assert await found() == ["run_1"]


@check()
async def signals_stand_in_order_and_reach_one_step_each(store: SessionStore) -> None:
    held = await begun(store)
    first = await store.signal_run("run_1", "go", {"n": "茶"})
    second = await store.signal_run("run_1", "go")
    assert [(one.position, one.name, one.value, one.taken_by) for one in (first, second)] == [
        (1, "go", {"n": "茶"}, None),
        (2, "go", None, None),
    ]
    with raises(Signalled) as heard:
        await advance(store, held, RunWrite(made=(step("a", "waiting"),)))
    held = replace(held, lease=replace(held.lease, signals=heard.value.news.signals))
    await advance(store, held, RunWrite(made=(step("a", "completed"),), taken=((1, "a"),)))
    with raises(StoreCorruptError):
        await advance(store, held, RunWrite(taken=((1, "b"),)))
    signals = (await store.read_journal("run_1"))[2]
    assert [one.taken_by for one in signals] == ["a", None]
    assert await store.get_run_signals("run_1", after=1) == (second,)


@check()
async def nobody_signals_a_run_that_is_none_or_has_ended(store: SessionStore) -> None:
    held = await begun(store)
    # The last is an id that no session can have.
    for run_id in ("run_2", "run_\ud800"):
        with raises(RunNotFoundError):
            await store.signal_run(run_id, "go")
        with raises(RunNotFoundError):
            await store.read_journal(run_id)
    for name in ("", "x" * 256):
        with raises(InputError):
            await store.signal_run("run_1", name)
    await advance(store, held, RunWrite(), ended())
    with raises(InputError):
        await store.signal_run("run_1", "go")


@check()
async def runs_are_listed_newest_first(store: SessionStore, clock: HandClock) -> None:
    await new_session(store)
    await accepted(store, "sess_1")
    for number in range(1, 6):
        await store.create_run(new_run(f"run_{number}", parent_id="sess_1" if number % 2 else None))
        clock.ms += 1000 * (number != 3)
    held = await accepted(store, "run_1")
    await store.advance_run(held.lease, RunWrite(), at_seq=held.next_seq, send_index=1, end=ended("failed"))

    async def ids(**wanted: Any) -> list[str]:
        return [one.session_id for one in await store.list_runs(**wanted)]

    assert await ids() == ["run_5", "run_4", "run_3", "run_2", "run_1"]
    assert await ids(state="failed") == ["run_1"]
    assert await ids(parent_session_id="sess_1") == ["run_5", "run_3", "run_1"]
    last = (await store.list_runs(limit=2))[-1]
    assert await ids(before=(last.created_at_ms, last.session_id), limit=2) == ["run_3", "run_2"]


@check()
async def a_run_goes_with_the_session_above_it(place: Place, clock: HandClock) -> None:
    store: Any = await place.open(clock)
    try:
        if not hasattr(store, "delete_session"):
            return
        await new_session(store)
        held = await accepted(store, "sess_1")
        await store.release(held.lease)
        run = await begun(store, parent_id="sess_1")
        await advance(store, run, RunWrite(made=(step("a"),)))
        await store.signal_run("run_1", "go")
        await store.release(run.lease)
        await store.delete_session("sess_1")
        with raises(RunNotFoundError):
            await store.get_run("run_1")
        assert [one async for one in store.diagnose() if one.is_problem] == []
    finally:
        await store.aclose()
