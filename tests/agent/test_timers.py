"""Timers: they wake a session when they are due, once each, whatever it is doing and whoever asks."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import Counter
from typing import Any

import pytest

from power_loop import After, At, Cron, Every, HookPoint, LoopConfig, Message, StatefulAgentLoop, TimerRunner, Worker
from power_loop.errors import (
    ConfigError,
    InputError,
    ScheduleError,
    SessionNotFoundError,
    StoreNewerError,
    TimerLimitError,
    TimeZoneMissingError,
)
from power_loop.events import (
    SendFinished,
    TimerCancelled,
    TimerFailed,
    TimerFired,
    TimerPostponed,
    TimerScheduled,
    TimerSkipped,
    ToolCallFinished,
)
from power_loop.hooks import Postpone, Rewrite, TimerFireContext, Veto
from power_loop.messages import Role
from power_loop.testing import FrozenClock, ScriptedLLM, call, calls
from power_loop.timers import Missed, TimerMaker, TimerState
from power_loop.tools import ToolTransaction, WakeupPolicy, tool, wakeup_tools
from tests.agent.bank import SHARED

from .conftest import MakeLoop
from .elsewhere import living_owner
from .parts import Ears, Gate, pass_time, until, within_limit
from .test_recovery import dead_owner

DAY_S = 86_400
_START_MS = 1_704_067_200_000  # the first of January 2024, UTC


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock(_START_MS)


def idle(loop: StatefulAgentLoop, **options: Any) -> TimerRunner:
    """Return a runner that leaves recovery to others."""
    return TimerRunner(loop, recover_every_s=None, **options)


async def users(loop: StatefulAgentLoop, session_id: str) -> list[str]:
    """Return what was said to a session, in order."""
    return [one.message.text for one in await loop.get_messages(session_id) if one.message.role is Role.USER]


def ends_of(ears: Ears, session_id: str) -> int:
    """Return how many turns of a session have ended."""
    return len([one for one in ears.events if one.session_id == session_id and isinstance(one.payload, SendFinished)])


async def count_of(ears: Ears, kind: type[Any], count: int = 1) -> list[Any]:
    """Return events of a kind, once there are so many."""
    await within_limit(until(lambda: len(ears.of(kind)) >= count))
    return ears.of(kind)


@pytest.mark.promise("durable-timers")
async def test_a_timer_wakes_its_session_when_it_is_due_and_another_process_may_run_it(
    make_loop: MakeLoop, clock: FrozenClock
) -> None:
    loop = make_loop(clock=clock)
    sid = await loop.new_session()
    made = await loop.schedule_timer(sid, "Look at the build.", After(3600), name="build")
    assert (made.due_at_ms, made.name) == (_START_MS + 3_600_000, "build")
    await loop.aclose()
    other = make_loop("It is green.", clock=clock)
    ears = Ears(other)
    async with idle(other):
        await within_limit(clock.until_asleep())
        assert await users(other, sid) == []
        clock.advance(3600)
        await count_of(ears, SendFinished)
    assert await users(other, sid) == ["Look at the build."]
    [fired] = ears.of(TimerFired)
    assert (fired.timer_id, fired.number, fired.position, fired.due_at_ms) == (made.id, 1, 1, None)
    [ended] = (await other.list_timers(sid, include_ended=True)).items
    assert (ended.state, ended.delivered) == (TimerState.DONE, 1)
    assert (await other.list_timers(sid)).items == ()


async def test_a_runner_wakes_for_a_timer_that_its_process_makes(make_loop: MakeLoop) -> None:
    loop = make_loop("At once.")
    sid = await loop.new_session()
    ears = Ears(loop)
    # It would look again after an hour.
    async with idle(loop, poll_s=3600):
        await loop.schedule_timer(sid, "Now.", After(0))
        await count_of(ears, SendFinished)
    assert await users(loop, sid) == ["Now."]


async def test_a_turn_that_runs_takes_a_firing_in(make_loop: MakeLoop, clock: FrozenClock) -> None:
    gate = Gate()
    loop = make_loop(gate.then("First."), "Second.", clock=clock)
    sid = await loop.new_session()
    await loop.schedule_timer(sid, "And the timer.", At(_START_MS))
    sending = asyncio.create_task(loop.send("Go.", session_id=sid))
    await gate.someone()
    [delivery] = await idle(loop).fire_due()
    assert delivery.is_turn_running
    gate.open()
    assert (await within_limit(sending)).final_text == "Second."
    assert await users(loop, sid) == ["Go.", "And the timer."]


async def test_a_slow_session_delays_no_other(make_loop: MakeLoop, clock: FrozenClock) -> None:
    gate = Gate()

    async def answer(request: Any) -> Any:
        if "slow" in request.messages[-1].text:
            await gate.passing()
        return "Done."

    loop = make_loop(llm=ScriptedLLM([answer], repeat_last=True), clock=clock)
    ears = Ears(loop)
    for name in ("slow", "fast"):
        await loop.new_session(session_id=name)
        await loop.schedule_timer(name, f"A {name} one.", Every(60, max_runs=5))
    async with idle(loop, max_turns=2):
        for minute in range(1, 6):
            await within_limit(clock.until_asleep())
            clock.advance(60)
            await within_limit(until(lambda: len(ears.of(TimerFired)) >= 2 * minute))  # noqa: B023 - awaited here
            await within_limit(until(lambda: ends_of(ears, "fast") >= minute))  # noqa: B023 - awaited here
        await gate.someone()
        assert gate.came == 1
        gate.open()
    assert await users(loop, "fast") == ["A fast one."] * 5
    assert await users(loop, "slow") == ["A slow one."] * 5


@pytest.mark.promise("timer-hook")
async def test_a_hook_may_veto_postpone_and_rewrite(make_loop: MakeLoop, clock: FrozenClock) -> None:
    loop = make_loop("Done.", clock=clock)
    ears, seen = Ears(loop), list[TimerFireContext]()
    decisions: list[Any] = [Veto("not now"), Postpone(30), Rewrite(content="Something else."), None]

    @loop.hooks.on(HookPoint.TIMER_FIRE)
    async def decide(context: TimerFireContext) -> Any:
        seen.append(context)
        return decisions.pop(0)

    sid = await loop.new_session(metadata={"user": "ann"})
    await loop.schedule_timer(sid, "Original.", Every(60, max_runs=1))
    runner = idle(loop)
    for seconds in (60, 60, 30):
        clock.advance(seconds)
        await runner.fire_due()
    await within_limit(runner.drained())
    assert await users(loop, sid) == ["Something else."]
    assert [(one.timer.number, one.content[0], one.late_s) for one in seen[:1]] == [
        (1, seen[0].timer.message.parts[0], 0.0)
    ]
    assert [one.timer.number for one in seen] == [1, 2, 2]
    assert seen[0].metadata == {"user": "ann"}
    [skipped], [postponed] = ears.of(TimerSkipped), ears.of(TimerPostponed)
    assert (skipped.number, skipped.reason, skipped.due_at_ms) == (1, "not now", _START_MS + 120_000)
    assert (postponed.number, postponed.due_at_ms) == (2, _START_MS + 150_000)
    [timer] = (await loop.list_timers(include_ended=True)).items
    assert (timer.state, timer.delivered, timer.vetoed) == (TimerState.DONE, 1, 1)


@pytest.mark.promise("timer-hook")
async def test_a_hook_that_fails_or_hangs_has_the_firing_come_again(make_loop: MakeLoop, clock: FrozenClock) -> None:
    loop = make_loop("Done.", clock=clock)
    ears = Ears(loop)
    tries: list[int] = []

    @loop.hooks.on(HookPoint.TIMER_FIRE)
    async def decide(context: TimerFireContext) -> Any:
        tries.append(context.timer.failures)
        if len(tries) == 1:
            raise ValueError("it is broken")
        if len(tries) == 2:
            pass_time(20)
            await asyncio.Event().wait()
        return Postpone(-1) if len(tries) == 3 else None

    sid = await loop.new_session()
    await loop.schedule_timer(sid, "Wake.", At(_START_MS))
    runner = idle(loop, hook_timeout_s=20, claim_ttl_s=60)
    for wait_s in (0, 1, 2, 4):
        clock.advance(wait_s)
        await within_limit(runner.fire_due())
    await within_limit(runner.drained())
    assert tries == [0, 1, 2, 3]
    failed = ears.of(TimerFailed)
    assert [one.after_s for one in failed] == [1, 2, 4]
    assert "it is broken" in failed[0].error
    assert "longer than 20 s" in failed[1].error
    assert "seconds above 0" in failed[2].error
    assert await users(loop, sid) == ["Wake."]


@pytest.mark.promise("durable-timers")
async def test_a_year_of_schedules_runs_without_waiting(make_loop: MakeLoop, clock: FrozenClock) -> None:
    loop = make_loop(llm=ScriptedLLM(["Noted."], repeat_last=True), clock=clock)
    sid = await loop.new_session()
    await loop.schedule_timer(sid, "week", Cron("0 9 * * MON", "Europe/Berlin"), name="week")
    await loop.schedule_timer(sid, "month", Cron("30 2 1 * *", "America/New_York"))
    await loop.schedule_timer(sid, "rhythm", Every(28 * DAY_S))
    store, runner = await loop.get_store(), idle(loop)
    while clock.now_ms() < _START_MS + 366 * DAY_S * 1000:
        left_s = await store.next_timer_in_s()
        assert left_s is not None
        clock.advance(left_s)
        await within_limit(runner.fire_due())
        await within_limit(runner.drained())
    said = Counter(await users(loop, sid))
    # It ends with the first run of the next year.
    assert said == {"week": 53, "month": 13, "rhythm": 13}
    assert len((await loop.list_timers()).items) == 3


@pytest.mark.parametrize(("missed", "texts"), [(Missed.ONCE, 1), (Missed.ALL, 5), (Missed.SKIP, 0)])
async def test_runs_that_nobody_delivered_are_one_all_or_none(
    make_loop: MakeLoop, clock: FrozenClock, missed: Missed, texts: int
) -> None:
    loop = make_loop(llm=ScriptedLLM(["Noted."], repeat_last=True), clock=clock)
    ears = Ears(loop)
    sid = await loop.new_session()
    await loop.schedule_timer(sid, "hour", Every(3600, missed=missed))
    clock.advance(5 * 3600 + 90)
    runner = idle(loop)
    await within_limit(runner.fire_due())
    await within_limit(runner.drained())
    assert await users(loop, sid) == ["hour"] * texts
    [timer] = (await loop.list_timers()).items
    assert timer.due_at_ms == _START_MS + 6 * 3_600_000
    assert (timer.delivered, timer.missed) == (texts, 5 - texts)
    assert [one.reason for one in ears.of(TimerSkipped)] == (["it came 14490 seconds late"] if not texts else [])


@pytest.mark.parametrize("late_s", [0, 30, 60, 61])
async def test_a_run_that_is_not_too_late_comes_also_behind_those_that_are(
    make_loop: MakeLoop, clock: FrozenClock, late_s: int
) -> None:
    loop = make_loop(llm=ScriptedLLM(["Noted."], repeat_last=True), clock=clock)
    sid = await loop.new_session()
    for schedule in (Every(3600, missed=Missed.SKIP), Cron("0 * * * *", missed=Missed.SKIP)):
        await loop.schedule_timer(sid, "hour", schedule)
    clock.advance(5 * 3600 + late_s)
    runner = idle(loop)
    await within_limit(runner.fire_due())
    await within_limit(runner.drained())
    for timer in (await loop.list_timers()).items:
        assert (timer.delivered, timer.missed) == ((1, 4) if late_s <= 60 else (0, 5))
        assert timer.due_at_ms == _START_MS + 6 * 3_600_000


async def test_what_is_no_timer_is_refused(make_loop: MakeLoop) -> None:
    loop = make_loop(config=LoopConfig(max_timers=1))
    sid = await loop.new_session()
    for wrong, error in (
        (loop.schedule_timer(sid, "", After(1)), InputError),
        (loop.schedule_timer(sid, "x", 5), ScheduleError),  # type: ignore[arg-type]
        (loop.schedule_timer(sid, "x", Cron("0 0 * * *", "Mars/Olympus")), TimeZoneMissingError),
        (loop.schedule_timer(sid, "x", After(1), name=""), InputError),
        (loop.schedule_timer(sid, "x", After(1), request_id=""), InputError),
        (loop.schedule_timer("sess_9", "x", After(1)), SessionNotFoundError),
        (loop.cancel_timer("other"), InputError),
    ):
        with pytest.raises(error):
            await wrong
    first = await loop.schedule_timer(sid, "x", After(1), request_id="once")
    assert (await loop.schedule_timer(sid, "x", After(1), request_id="once")).id == first.id
    with pytest.raises(TimerLimitError):
        await loop.schedule_timer(sid, "x", After(1))
    assert await loop.cancel_timer(first.id)
    assert not await loop.cancel_timer(first.id)
    for options in ({"max_turns": 0}, {"poll_s": 0}, {"hook_timeout_s": 90}, {"recover_every_s": -1}):
        with pytest.raises(ConfigError):
            TimerRunner(loop, **options)  # type: ignore[arg-type]


async def test_a_runner_drives_what_a_dead_one_had_delivered(make_loop: MakeLoop, clock: FrozenClock) -> None:
    loop = make_loop("Driven.", clock=clock)
    sid = await loop.new_session()
    await loop.schedule_timer(sid, "Wake.", At(_START_MS))
    store = await loop.get_store()
    # As if its process had died behind the delivery.
    [claim] = await store.claim_timers("dead", ttl_s=60, limit=1)
    await store.deliver_timer(claim, claim.timer.message, input_hash="")
    ears = Ears(loop)
    async with TimerRunner(loop):
        await count_of(ears, SendFinished)
    assert await users(loop, sid) == ["Wake."]


async def test_a_runner_of_a_fleet_delivers_and_leaves_the_rest_to_workers(make_loop: MakeLoop) -> None:
    loop = make_loop("Driven by a worker.")
    sid = await loop.new_session()
    await loop.schedule_timer(sid, "Wake.", After(0))
    runner = TimerRunner(loop, drives=False)
    await within_limit(runner.fire_due())
    await within_limit(runner.drained())
    assert [one.message.text for one in await loop.get_inbox(sid) if one.message is not None] == ["Wake."]
    await within_limit(Worker(loop).run(until_idle=True))
    assert await users(loop, sid) == ["Wake."]
    assert (await loop.get_messages(sid))[-1].message.text == "Driven by a worker."


async def test_a_runner_that_is_cancelled_ends_at_once_and_loses_nothing(
    make_loop: MakeLoop, clock: FrozenClock
) -> None:
    gate, asked = Gate(), Gate()
    loop = make_loop(llm=ScriptedLLM([gate.then("Slow."), "Quick."]), clock=clock)
    loop.hooks.add(HookPoint.TIMER_FIRE, lambda context: asked.passing() if context.timer.name == "held" else None)
    slow, held = await loop.new_session(), await loop.new_session()
    await loop.schedule_timer(slow, "Slow one.", After(0))
    await loop.schedule_timer(held, "Held one.", After(0), name="held")
    running = asyncio.create_task(TimerRunner(loop).run())
    await gate.someone()
    await asked.someone()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await within_limit(running)
    assert (asked.cancelled, gate.cancelled) == (1, 0)
    gate.open()
    asked.open()
    clock.advance(61)
    runner = idle(loop)
    assert len(await within_limit(runner.fire_due())) == 1
    await within_limit(runner.drained())
    assert (await users(loop, slow), await users(loop, held)) == (["Slow one."], ["Held one."])


async def test_a_loop_that_is_closed_ends_its_runner(make_loop: MakeLoop, clock: FrozenClock) -> None:
    loop = make_loop(clock=clock)
    running = asyncio.create_task(TimerRunner(loop).run())
    await within_limit(clock.until_asleep(2))
    await loop.aclose()
    clock.advance(60)
    await within_limit(running)


@pytest.mark.promise("durable-timers")
@pytest.mark.parametrize("backend", SHARED, ids=[backend.name for backend in SHARED])
async def test_four_runners_deliver_each_of_a_hundred_timers_once(backend: Any) -> None:
    async with backend.fresh() as place:
        options: dict[str, Any] = {"dsn": place.dsn, "table_prefix": getattr(place, "prefix", "pl_")}
        loops = [StatefulAgentLoop(llm=ScriptedLLM(["Noted."], repeat_last=True), **options) for _ in range(4)]
        try:
            sids = [await loops[0].new_session() for _ in range(10)]
            for number in range(100):
                await loops[0].schedule_timer(sids[number % 10], f"timer {number}", After(0))
            store = await loops[0].get_store()
            runners = [idle(loop, max_deliveries=5, poll_s=0.05) for loop in loops]
            async with contextlib.AsyncExitStack() as stack:
                for runner in runners:
                    await stack.enter_async_context(runner)
                # Nobody is told when all four are done.
                while (await loops[0].list_timers(limit=1)).items:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            # Closing them waits for the turns that they began; what one left to a turn of another is taken in there.
            said = Counter([text for sid in sids for text in await users(loops[0], sid)])
            assert said == {f"timer {number}": 1 for number in range(100)}
            assert [one async for one in store.diagnose() if one.is_problem] == []
        finally:
            for loop in loops:
                await within_limit(loop.aclose())


# ---- the model's own ----


async def test_a_model_schedules_lists_and_cancels_its_wake_ups(make_loop: MakeLoop, clock: FrozenClock) -> None:
    loop = make_loop(
        calls(
            ("schedule_wakeup", {"note": "Look at the oven.", "in_minutes": 20}),
            ("schedule_wakeup", {"note": "Stand up.", "cron": "0 9 * * MON-FRI", "zone": "Europe/Berlin"}),
            ("schedule_wakeup", {"note": "Party.", "at": "2024-02-01T20:00", "zone": "Europe/Berlin"}),
            ("schedule_wakeup", {"note": "Breathe.", "every_minutes": 30, "max_runs": 2}),
        ),
        call("list_wakeups", {"zone": "Europe/Berlin"}),
        "I will.",
        "It is done.",
        clock=clock,
        tool_registry=wakeup_tools(),
    )
    ears = Ears(loop)
    sid = await loop.new_session()
    async with idle(loop):
        assert (await loop.send("Remind me.", session_id=sid)).is_completed
        timers = sorted((await loop.list_timers(sid)).items, key=lambda timer: timer.due_at_ms or 0)
        assert [timer.name for timer in timers] == ["Look at the oven.", "Breathe.", "Stand up.", "Party."]
        assert {timer.made_by for timer in timers} == {TimerMaker.MODEL}
        results = await answers(loop, sid)
        assert all(text.startswith("Scheduled tmr_") for text in results[:4])
        assert results[0].endswith("It is due at Monday, 2024-01-01 00:20:00 +0000 (UTC).")
        assert results[2].endswith("It is due at Thursday, 2024-02-01 20:00:00 +0100 (Europe/Berlin).")
        assert '"comes": "cron 0 9 * * MON-FRI (Europe/Berlin)"' in results[4].replace('":"', '": "')
        await within_limit(clock.until_asleep())
        clock.advance(20 * 60)
        await count_of(ears, SendFinished, 2)
    assert (await users(loop, sid))[-1] == "A wake-up that you scheduled is due. Your note: Look at the oven."
    last = timers[-1].id
    again = make_loop(
        calls(("cancel_wakeup", {"wakeup_id": last}), ("cancel_wakeup", {"wakeup_id": last})),
        call("cancel_wakeup", {"wakeup_id": "tmr_none"}),
        "Gone.",
        clock=clock,
        tool_registry=wakeup_tools(),
    )
    await again.send("No party.", session_id=sid)
    texts = (await answers(again, sid))[-3:]
    assert texts[:2] == [f"Cancelled {last}.", f"{last} had come or was cancelled before."]
    assert texts[2].startswith(f"Nothing changed: session {sid!r} has no timer 'tmr_none'")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "exactly one of"),
        ({"in_minutes": 1, "cron": "* * * * *"}, "exactly one of"),
        ({"in_minutes": -1}, "give seconds"),
        ({"at": "soon"}, "give a time such as"),
        ({"at": "2024-02-01T20:00", "zone": "Mars"}, "no time zone 'Mars'"),
        ({"in_minutes": 1, "zone": "Mars"}, "no time zone 'Mars'"),
        ({"every_minutes": 5, "zone": "Mars"}, "no time zone 'Mars'"),
        ({"cron": "0 0 L * *"}, "no L, W, # or ?"),
        ({"every_minutes": 0.5}, "every 1 minutes at most"),
        ({"in_minutes": 1, "note": " "}, "the note is empty"),
        ({"in_minutes": 1, "note": "x" * 4001}, "shorten it"),
    ],
)
async def test_a_model_is_told_what_is_wrong_and_nothing_is_made(
    make_loop: MakeLoop, arguments: dict[str, Any], says: str
) -> None:
    loop = make_loop(call("schedule_wakeup", {"note": "Hm.", **arguments}), "I see.", tool_registry=wakeup_tools())
    sid = await loop.new_session()
    await loop.send("Go.", session_id=sid)
    [text] = await answers(loop, sid)
    assert text.startswith("Nothing changed: ")
    assert says in text
    assert (await loop.list_timers()).items == ()


async def test_a_model_has_no_more_wake_ups_than_its_policy_allows(make_loop: MakeLoop) -> None:
    asked = ("schedule_wakeup", {"note": "Again.", "in_minutes": 1})
    loop = make_loop(calls(asked, asked, asked), "I see.", tool_registry=wakeup_tools(WakeupPolicy(max_wakeups=2)))
    sid = await loop.new_session()
    await loop.send("Go.", session_id=sid)
    assert ["may have 2" in text for text in await answers(loop, sid)] == [False, False, True]
    assert len((await loop.list_timers(sid)).items) == 2
    for wrong in ({"max_wakeups": 0}, {"min_every_s": 0}):
        with pytest.raises(ConfigError):
            WakeupPolicy(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cron", "is_rare"),
    [
        ("0 * * * *", True),
        ("0 9 * * MON-FRI", True),
        ("30 0-23 * * *", True),
        ("*/30 * * * *", False),
        ("0,1 9 * * *", False),
        ("0,59 1,2 29 2 *", False),
    ],
)
async def test_no_expression_of_a_model_comes_more_often_than_its_policy_allows(
    make_loop: MakeLoop, cron: str, is_rare: bool
) -> None:
    policy = WakeupPolicy(min_every_s=3600)
    asked = call("schedule_wakeup", {"note": "Again.", "cron": cron, "zone": "Europe/Berlin"})
    loop = make_loop(asked, "I see.", tool_registry=wakeup_tools(policy))
    sid = await loop.new_session()
    await loop.send("Go.", session_id=sid)
    [text] = await answers(loop, sid)
    assert ("every 60 minutes at most" in text, len((await loop.list_timers(sid)).items)) == (not is_rare, is_rare)


async def answers(loop: StatefulAgentLoop, session_id: str) -> list[str]:
    """Return what the model was told of its calls, in order."""
    found: list[Message] = [one.message for one in await loop.get_messages(session_id)]
    results = [one.tool_result for one in found]
    return [one.content[0].text for one in results if one is not None]  # type: ignore[union-attr]


async def test_what_a_dead_process_of_this_machine_had_claimed_is_delivered_at_once(
    make_loop: MakeLoop, clock: FrozenClock
) -> None:
    loop = make_loop(clock=clock)
    sid = await loop.new_session()
    await loop.schedule_timer(sid, "Wake.", At(_START_MS), name="dead's")
    store = await loop.get_store()
    [lost] = await store.claim_timers(dead_owner(), ttl_s=60, limit=1)
    runner = idle(loop, drives=False)
    [delivery] = await within_limit(runner.fire_due())
    assert delivery.timer.delivered == 1
    # Whoever it was that died, what it may still write counts no more.
    assert await store.deliver_timer(lost, lost.timer.message, input_hash="") is None
    # One whose owner lives is its to deliver, until its claim is over.
    await loop.schedule_timer(sid, "Again.", At(_START_MS))
    await store.claim_timers(living_owner(), ttl_s=60, limit=1)
    assert await runner.fire_due() == ()
    assert [one.message.text for one in await loop.get_inbox(sid) if one.message is not None] == ["Wake."]


async def test_a_runner_ends_with_the_coded_error_where_a_newer_version_has_the_tables(
    make_loop: MakeLoop, clock: FrozenClock, dsn: str
) -> None:
    loop = make_loop(clock=clock)
    sid = await loop.new_session()
    await loop.schedule_timer(sid, "Wake.", At(_START_MS))
    with contextlib.closing(sqlite3.connect(dsn)) as database, database:
        database.execute(
            "INSERT INTO pl_schema_migrations SELECT MAX(version) + 1, 'later', 0 FROM pl_schema_migrations"
        )
    with pytest.raises(StoreNewerError):
        await within_limit(idle(loop).run())
    with pytest.raises(StoreNewerError):
        await within_limit(TimerRunner(loop).run())
    with pytest.raises(StoreNewerError):
        await idle(loop).fire_due()
    assert (await loop.list_timers(sid)).items[0].is_armed


async def test_what_a_model_does_with_timers_is_announced_as_what_the_application_does(make_loop: MakeLoop) -> None:
    loop = make_loop(
        call("schedule_wakeup", {"note": "Look.", "in_minutes": 20}), "I will.", tool_registry=wakeup_tools()
    )
    ears = Ears(loop)
    sid = await loop.new_session()
    await loop.send("Remind me.", session_id=sid)
    [timer] = (await loop.list_timers(sid)).items
    assert [(one.timer_id, one.due_at_ms) for one in ears.of(TimerScheduled)] == [(timer.id, timer.due_at_ms)]
    again = make_loop(call("cancel_wakeup", {"wakeup_id": timer.id}), "Gone.", tool_registry=wakeup_tools())
    ears = Ears(again)
    await again.send("No.", session_id=sid)
    assert [one.timer_id for one in ears.of(TimerCancelled)] == [timer.id]
    kinds = [type(one.payload) for one in ears.events]
    assert kinds.index(TimerCancelled) < kinds.index(ToolCallFinished)


async def test_nothing_is_announced_of_a_timer_whose_call_failed(make_loop: MakeLoop) -> None:
    @tool(effect="transactional")
    async def remind(tx: ToolTransaction) -> str:
        """Remind."""
        await tx.timers.schedule("Wake.", After(60))
        raise ValueError("no")

    loop = make_loop(call("remind", {}), "Hm.", tool_registry=[remind])
    ears = Ears(loop)
    sid = await loop.new_session()
    await loop.send("Go.", session_id=sid)
    assert (ears.of(TimerScheduled), (await loop.list_timers(sid)).items) == ([], ())


async def test_a_model_cancels_what_it_scheduled_and_what_else_its_policy_allows(make_loop: MakeLoop) -> None:
    loop = make_loop(tool_registry=wakeup_tools())
    sid = await loop.new_session()
    timer = await loop.schedule_timer(sid, "Send the bill.", After(60))
    asked = call("cancel_wakeup", {"wakeup_id": timer.id})
    bound = make_loop(asked, "Hm.", tool_registry=wakeup_tools())
    await bound.send("Go.", session_id=sid)
    [text] = await answers(bound, sid)
    assert text.startswith(f"Nothing changed: timer {timer.id!r} was made by the application")
    assert (await loop.list_timers(sid)).items == (timer,)
    free = make_loop(asked, "Gone.", tool_registry=wakeup_tools(WakeupPolicy(cancels_all=True)))
    await free.send("Go.", session_id=sid)
    assert (await loop.list_timers(sid)).items == ()
