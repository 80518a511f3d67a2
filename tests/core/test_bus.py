"""Events reach their subscribers in one order, and no subscriber can harm a run or another subscriber."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import threading
import weakref
from collections.abc import Callable

import pytest

from power_loop.contracts.errors import ConfigError
from power_loop.contracts.events import AgentEvent, EventPayload, RoundStarted, SendStarted, StreamReset, TextDelta
from power_loop.core import bus as bus_module
from power_loop.core.background import TaskServer
from power_loop.core.bus import AgentEventBus, EventQueue
from power_loop.testing import FrozenClock

#: Longer than any machine stands still.
LIMIT_S = 60.0


def emit(bus: AgentEventBus, *texts: str, session_id: str = "s") -> None:
    for text in texts:
        bus.emit(TextDelta(text), session_id=session_id)


def texts_of(events: list[AgentEvent]) -> list[str]:
    return [event.payload.text for event in events if isinstance(event.payload, TextDelta)]


def fail(event: AgentEvent) -> None:
    raise ValueError("broken subscriber")


# ---- delivery ----


@pytest.mark.promise("events")
def test_an_event_carries_its_place_its_time_and_a_seq_without_gaps() -> None:
    clock, seen = FrozenClock(5_000), list[AgentEvent]()
    bus = AgentEventBus(clock=clock)
    bus.subscribe(seen.append)
    bus.emit(TextDelta("a"), session_id="s1", send_index=2, round=3)
    clock.advance(2.5)
    bus.emit(RoundStarted(), session_id="s2")
    first, second = seen
    assert (first.seq, first.at_ms, first.monotonic_s) == (1, 5_000, 0.0)
    assert (first.session_id, first.send_index, first.round, first.type) == ("s1", 2, 3, "delta.text")
    assert (second.seq, second.at_ms, second.session_id, second.send_index, second.round) == (2, 7_500, "s2", 0, 0)


def test_a_subscriber_gets_the_types_and_the_session_it_asked_for() -> None:
    bus = AgentEventBus()
    all_of_them, deltas, of_one, both = (list[AgentEvent]() for _ in range(4))
    bus.subscribe(all_of_them.append)
    bus.subscribe(deltas.append, types=[TextDelta, StreamReset])
    bus.subscribe(of_one.append, session_id="b")
    bus.subscribe(both.append, types=[EventPayload], session_id="a")
    emit(bus, "1", session_id="a")
    emit(bus, "2", session_id="b")
    bus.emit(RoundStarted(), session_id="b")
    bus.emit(StreamReset(1), session_id="a")
    assert [event.seq for event in all_of_them] == [1, 2, 3, 4]
    assert [event.seq for event in deltas] == [1, 2, 4]
    assert [event.seq for event in of_one] == [2, 3]
    assert [event.seq for event in both] == [1, 4]


def test_an_event_that_nobody_wants_is_not_made() -> None:
    class NoClock(FrozenClock):
        def now_ms(self) -> int:
            raise AssertionError("nobody asked")

    bus = AgentEventBus(clock=NoClock())
    assert not bus.is_listening
    assert not bus.wants(TextDelta)
    emit(bus, "unheard")
    seen = list[AgentEvent]()
    subscription = bus.subscribe(seen.append, types=[RoundStarted])
    assert bus.is_listening
    assert bus.wants(RoundStarted)
    assert not bus.wants(TextDelta)
    emit(bus, "unheard")
    subscription.unsubscribe()
    assert not bus.is_listening
    assert not bus.wants(RoundStarted)
    assert seen == []


def test_seq_has_no_gaps_and_grows_for_every_subscriber_however_many_threads_emit() -> None:
    bus, seen, seen_twice = AgentEventBus(), list[AgentEvent](), list[AgentEvent]()
    bus.subscribe(seen.append)
    bus.subscribe(seen_twice.append)
    gate = threading.Barrier(4)

    def work(name: str) -> None:
        gate.wait()
        emit(bus, *(f"{name}{number}" for number in range(500)))

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    assert [event.seq for event in seen] == list(range(1, 2001))
    assert seen == seen_twice
    for name in "abcd":
        own = [text for text in texts_of(seen) if text[0] == name]
        assert own == [f"{name}{number}" for number in range(500)]


def test_when_emit_returns_the_event_is_with_everybody_whatever_other_threads_emit() -> None:
    bus, stop = AgentEventBus(), threading.Event()
    missed, thieves = list[str](), set[str]()

    def look(event: AgentEvent) -> None:
        (text,) = texts_of([event])
        if text.partition(" ")[0] != threading.current_thread().name:
            thieves.add(text)

    def work() -> None:
        name = threading.current_thread().name
        with bus.subscribe(seen[name].append, session_id=name):
            for number in range(300):
                emit(bus, f"{name} {number}", session_id=name)
                if len(seen[name]) != number + 1:
                    missed.append(f"{name} {number}")

    def shout() -> None:
        while not stop.is_set():
            emit(bus, "loud", session_id="loud")

    seen = {name: list[AgentEvent]() for name in "abc"}
    bus.subscribe(look)
    loud = threading.Thread(target=shout, name="loud")
    threads = [threading.Thread(target=work, name=name) for name in seen]
    for thread in (loud, *threads):
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    stop.set()
    loud.join(LIMIT_S)
    assert not loud.is_alive()
    assert missed == []
    assert thieves == set()
    assert [len(events) for events in seen.values()] == [300, 300, 300]


def test_a_subscriber_that_waits_for_another_thread_to_leave_the_bus_hangs_nobody() -> None:
    bus = AgentEventBus()
    other = bus.subscribe(lambda event: None)

    def leave_elsewhere(event: AgentEvent) -> None:
        thread = threading.Thread(target=other.unsubscribe)
        thread.start()
        thread.join(LIMIT_S)
        assert not thread.is_alive()

    subscription = bus.subscribe(leave_elsewhere)
    emit(bus, "a")
    assert subscription.errors == 0


def test_what_a_subscriber_emits_comes_after_what_it_answers_for_everyone() -> None:
    bus = AgentEventBus()
    first, second = list[str](), list[str]()

    def answer(event: AgentEvent) -> None:
        first.extend(texts_of([event]))
        if texts_of([event]) == ["question"]:
            emit(bus, "answer 1", "answer 2")

    bus.subscribe(answer)
    bus.subscribe(lambda event: second.extend(texts_of([event])))
    emit(bus, "question", "next")
    assert first == second == ["question", "answer 1", "answer 2", "next"]


def test_a_subscriber_may_leave_and_others_may_come_while_an_event_is_delivered() -> None:
    bus, seen = AgentEventBus(), list[str]()

    def leave(event: AgentEvent) -> None:
        seen.append("leaves")
        leaving.unsubscribe()
        other.unsubscribe()
        bus.subscribe(lambda event: seen.append("came"))

    leaving = bus.subscribe(leave)
    other = bus.subscribe(lambda event: seen.append("was taken out before its turn"))
    emit(bus, "1")
    assert seen == ["leaves"]
    emit(bus, "2")
    assert seen == ["leaves", "came"]
    assert not leaving.is_active


def test_a_subscriber_that_comes_later_gets_what_is_emitted_from_then_on() -> None:
    bus, first, second = AgentEventBus(), list[AgentEvent](), list[AgentEvent]()
    assert not bus.wants(TextDelta)
    bus.subscribe(first.append)
    emit(bus, "a")
    bus.subscribe(second.append)
    emit(bus, "b")
    assert (texts_of(first), texts_of(second)) == (["a", "b"], ["b"])


def test_a_subscription_ends_with_its_block_and_may_be_ended_twice() -> None:
    bus, seen = AgentEventBus(), list[AgentEvent]()
    with bus.subscribe(seen.append) as subscription:
        emit(bus, "in")
    emit(bus, "out")
    subscription.unsubscribe()
    assert texts_of(seen) == ["in"]


@pytest.mark.promise("nothing-global")
def test_two_buses_share_nothing() -> None:
    one, other = AgentEventBus(), AgentEventBus()
    seen, seen_by_other = list[AgentEvent](), list[AgentEvent]()
    one.subscribe(seen.append)
    other.subscribe(seen_by_other.append)
    emit(one, "a", "b")
    emit(other, "c")
    assert [event.seq for event in seen] == [1, 2]
    assert [event.seq for event in seen_by_other] == [1]


# ---- subscribers that misbehave ----


@pytest.mark.promise("events")
def test_a_raising_subscriber_is_counted_and_logged_and_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    bus, seen = AgentEventBus(), list[AgentEvent]()
    broken = bus.subscribe(fail)
    bus.subscribe(seen.append)
    with caplog.at_level(logging.ERROR, "power_loop"):
        emit(bus, *map(str, range(100)))
    assert len(seen) == 100
    assert broken.errors == 100
    # A thread of another test may have something to say, too.
    told = [record for record in caplog.records if "'fail' raised" in record.message]
    assert [record.args[1] for record in told if isinstance(record.args, tuple)] == [1, 10, 100]
    assert told[0].exc_info is not None


def test_a_subscriber_cannot_look_like_a_cancelled_turn(caplog: pytest.LogCaptureFixture) -> None:
    def ask_a_cancelled_task(event: AgentEvent) -> None:
        raise asyncio.CancelledError

    bus = AgentEventBus()
    subscription = bus.subscribe(ask_a_cancelled_task)
    emit(bus, "a")
    assert subscription.errors == 1


def test_an_interrupt_passes_and_what_waits_is_delivered_before_the_next_event() -> None:
    bus, seen = AgentEventBus(), list[str]()

    def interrupt(event: AgentEvent) -> None:
        if texts_of([event]) == ["stop"]:
            emit(bus, "waits")
            raise KeyboardInterrupt

    bus.subscribe(lambda event: seen.extend(texts_of([event])))
    bus.subscribe(interrupt)
    with pytest.raises(KeyboardInterrupt):
        emit(bus, "stop")
    emit(bus, "next")
    assert seen == ["stop", "waits", "next"]


def test_a_coroutine_that_nobody_would_await_is_an_error_of_the_subscriber() -> None:
    async def later(event: AgentEvent) -> None:
        raise AssertionError("never runs")

    bus = AgentEventBus()
    subscription = bus.subscribe(lambda event: later(event))
    emit(bus, "a")
    gc.collect()
    assert subscription.errors == 1


def test_what_subscribers_emit_is_bounded_and_keeps_its_seqs_without_gaps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bus_module, "MAX_WAITING_EVENTS", 10)
    bus, seen = AgentEventBus(), list[AgentEvent]()

    def flood(event: AgentEvent) -> None:
        if event.seq == 1:
            emit(bus, *map(str, range(25)))

    bus.subscribe(flood)
    bus.subscribe(seen.append)
    emit(bus, "first")
    assert [event.seq for event in seen] == list(range(1, 12))
    assert bus.dropped == 15


@pytest.mark.parametrize(
    ("subscribe", "says"),
    [
        (lambda bus: bus.subscribe("no function"), "cannot be called"),
        (lambda bus: bus.subscribe(print, types=[str]), "types holds"),
        (lambda bus: bus.subscribe(print, types=TextDelta), None),
        (lambda bus: bus.subscribe(print, background=True, max_queue=0), "max_queue is 0"),
        (lambda bus: bus.subscribe(asyncio.sleep), "background=True"),
    ],
)
def test_a_subscription_that_cannot_work_is_refused(
    subscribe: Callable[[AgentEventBus], object], says: str | None
) -> None:
    bus = AgentEventBus()
    if says is None:
        subscribe(bus)
        assert bus.wants(TextDelta)
        assert not bus.wants(RoundStarted)
        return
    with pytest.raises(ConfigError, match=says):
        subscribe(bus)
    assert not bus.is_listening


# ---- background, sync ----


async def test_a_blocking_background_subscriber_never_holds_up_the_emitter() -> None:
    bus, seen = AgentEventBus(), list[AgentEvent]()
    gate = threading.Event()
    threads = set()

    def block(event: AgentEvent) -> None:
        threads.add(threading.current_thread())
        assert gate.wait(LIMIT_S)
        seen.append(event)

    subscription = bus.subscribe(block, background=True)
    emit(bus, *map(str, range(50)))
    assert seen == []
    assert not await bus.drain(timeout_s=0.01)
    gate.set()
    assert await bus.drain(timeout_s=LIMIT_S)
    assert [event.seq for event in seen] == list(range(1, 51))
    assert subscription.dropped == 0
    (thread,) = threads
    assert thread.daemon
    assert thread is not threading.current_thread()


async def test_drain_waits_for_the_event_that_is_being_served() -> None:
    bus, started, gate = AgentEventBus(), threading.Event(), threading.Event()

    def block(event: AgentEvent) -> None:
        started.set()
        assert gate.wait(LIMIT_S)

    bus.subscribe(block, background=True)
    emit(bus, "a")
    assert started.wait(LIMIT_S)
    assert not await bus.drain(timeout_s=0.01)
    gate.set()
    assert await bus.drain(timeout_s=LIMIT_S)


async def test_a_full_queue_drops_its_oldest_events_and_counts_them() -> None:
    bus, seen = AgentEventBus(), list[AgentEvent]()
    started, gate = threading.Event(), threading.Event()

    def block(event: AgentEvent) -> None:
        started.set()
        assert gate.wait(LIMIT_S)
        seen.append(event)

    subscription = bus.subscribe(block, background=True, max_queue=5)
    emit(bus, "0")
    assert started.wait(LIMIT_S)
    emit(bus, *map(str, range(1, 21)))
    gate.set()
    assert await bus.drain(timeout_s=LIMIT_S)
    assert texts_of(seen) == ["0", "16", "17", "18", "19", "20"]
    assert subscription.dropped == 15


async def test_a_raising_background_subscriber_goes_on_with_the_next_event() -> None:
    bus, seen = AgentEventBus(), list[AgentEvent]()

    def exit_at_two(event: AgentEvent) -> None:
        if event.seq == 2:
            raise SystemExit
        seen.append(event)

    subscription = bus.subscribe(exit_at_two, background=True)
    emit(bus, "a", "b", "c")
    assert await bus.drain(timeout_s=LIMIT_S)
    assert texts_of(seen) == ["a", "c"]
    assert subscription.errors == 1


async def test_a_background_thread_ends_without_work_and_comes_back_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("power_loop.core.background.THREAD_LINGER_S", 0.001)
    bus, threads = AgentEventBus(), list[threading.Thread]()
    bus.subscribe(lambda event: threads.append(threading.current_thread()), background=True)
    for count in range(1, 4):
        emit(bus, "a")
        assert await bus.drain(timeout_s=LIMIT_S)
        assert len(threads) == count
        threads[-1].join(LIMIT_S)
        assert not threads[-1].is_alive()


async def test_after_unsubscribe_no_further_call_begins() -> None:
    bus, seen = AgentEventBus(), list[AgentEvent]()
    started, gate = threading.Event(), threading.Event()

    def block(event: AgentEvent) -> None:
        started.set()
        assert gate.wait(LIMIT_S)
        seen.append(event)

    subscription = bus.subscribe(block, background=True)
    emit(bus, "a", "b", "c")
    assert started.wait(LIMIT_S)
    idle = asyncio.ensure_future(subscription.wait_until_idle())
    await asyncio.sleep(0)
    subscription.unsubscribe()
    emit(bus, "d")
    gate.set()
    await asyncio.wait_for(idle, LIMIT_S)
    assert texts_of(seen) == ["a"]


# ---- background, async ----


async def test_an_async_background_subscriber_is_served_in_order_in_the_event_loop() -> None:
    bus, seen = AgentEventBus(), list[AgentEvent]()
    loop = asyncio.get_running_loop()

    async def slow(event: AgentEvent) -> None:
        assert asyncio.get_running_loop() is loop
        await asyncio.sleep(0)
        seen.append(event)

    bus.subscribe(slow, background=True)
    emit(bus, *map(str, range(50)))
    await loop.run_in_executor(None, functools.partial(emit, bus, "from a thread"))
    assert await bus.drain(timeout_s=LIMIT_S)
    assert [event.seq for event in seen] == list(range(1, 52))
    assert texts_of(seen)[-1] == "from a thread"


async def test_an_async_object_and_a_partial_count_as_async() -> None:
    class Sink:
        def __init__(self) -> None:
            self.seen = list[str]()

        async def __call__(self, event: AgentEvent) -> None:
            self.seen += texts_of([event])

    async def note(into: list[str], event: AgentEvent) -> None:
        into += texts_of([event])

    bus, sink, noted = AgentEventBus(), Sink(), list[str]()
    bus.subscribe(sink, background=True)
    bus.subscribe(functools.partial(note, noted), background=True)
    emit(bus, "a")
    assert await bus.drain(timeout_s=LIMIT_S)
    assert sink.seen == noted == ["a"]


async def test_an_async_subscriber_that_never_waits_leaves_room_for_other_tasks() -> None:
    bus = AgentEventBus()
    order = list[str]()

    async def note(event: AgentEvent) -> None:
        order.append("event")

    async def other() -> None:
        order.append("other")

    bus.subscribe(note, background=True)
    emit(bus, *map(str, range(500)))
    await asyncio.gather(bus.drain(timeout_s=LIMIT_S), other())
    assert order.count("event") == 500
    assert order.index("other") < 100


async def test_a_raising_async_subscriber_is_counted_and_goes_on() -> None:
    bus, seen = AgentEventBus(), list[AgentEvent]()

    async def fail_first(event: AgentEvent) -> None:
        if event.seq == 1:
            raise ValueError("broken")
        seen.append(event)

    subscription = bus.subscribe(fail_first, background=True)
    emit(bus, "a", "b")
    assert await bus.drain(timeout_s=LIMIT_S)
    assert texts_of(seen) == ["b"]
    assert subscription.errors == 1


async def test_a_serving_task_that_is_cancelled_before_its_first_step_is_replaced() -> None:
    bus, seen = AgentEventBus(), list[AgentEvent]()

    async def note(event: AgentEvent) -> None:
        seen.append(event)

    bus.subscribe(note, background=True)
    emit(bus, "a")
    (task,) = asyncio.all_tasks() - {asyncio.current_task()}
    task.cancel()
    await asyncio.wait([task])
    assert seen == []
    emit(bus, "b")
    assert await bus.drain(timeout_s=LIMIT_S)
    assert texts_of(seen) == ["a", "b"]


async def test_an_event_that_comes_while_the_serving_task_ends_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    bus, seen, late = AgentEventBus(), list[AgentEvent](), ["late"]
    look = TaskServer._next

    def look_and_be_late(server: TaskServer) -> AgentEvent | None:
        event = look(server)
        if event is None and late:
            thread = threading.Thread(target=emit, args=(bus, late.pop()))
            thread.start()
            thread.join(LIMIT_S)
        return event

    async def note(event: AgentEvent) -> None:
        seen.append(event)

    monkeypatch.setattr(TaskServer, "_next", look_and_be_late)
    bus.subscribe(note, background=True)
    emit(bus, "in time")
    (task,) = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.wait([task])
    await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})
    assert texts_of(seen) == ["in time", "late"]


def test_events_of_an_async_subscriber_wait_for_an_event_loop_and_outlive_a_closed_one() -> None:
    bus, seen = AgentEventBus(), list[str]()

    async def note(event: AgentEvent) -> None:
        seen.extend(texts_of([event]))

    async def emit_and_leave(text: str) -> None:
        emit(bus, text)

    async def drain() -> bool:
        return await bus.drain(timeout_s=LIMIT_S)

    bus.subscribe(note, background=True)
    emit(bus, "before any loop")
    assert seen == []
    assert asyncio.run(drain())
    assert seen == ["before any loop"]
    # The second loop ends before its task took a step.
    asyncio.run(emit_and_leave("left behind"))
    emit(bus, "between loops")
    assert asyncio.run(drain())
    assert seen == ["before any loop", "left behind", "between loops"]


async def test_aclose_serves_what_is_queued_and_ends_all_subscriptions() -> None:
    bus, seen, inline = AgentEventBus(), list[AgentEvent](), list[AgentEvent]()

    async def note(event: AgentEvent) -> None:
        await asyncio.sleep(0)
        seen.append(event)

    bus.subscribe(note, background=True)
    bus.subscribe(inline.append)
    emit(bus, "a", "b")
    await bus.aclose(timeout_s=LIMIT_S)
    emit(bus, "late")
    assert texts_of(seen) == texts_of(inline) == ["a", "b"]
    assert not bus.is_listening


async def test_aclose_lets_a_subscriber_go_that_never_ends(caplog: pytest.LogCaptureFixture) -> None:
    bus, gate = AgentEventBus(), threading.Event()
    bus.subscribe(lambda event: assert_true(gate.wait(LIMIT_S)), background=True)
    emit(bus, "a")
    await bus.aclose(timeout_s=0.01)
    gate.set()
    assert "still busy" in caplog.text
    assert not bus.is_listening


async def test_aclose_cancels_an_async_subscriber_that_never_ends(caplog: pytest.LogCaptureFixture) -> None:
    bus, ends = AgentEventBus(), list[str]()

    async def hang(event: AgentEvent) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ends.extend(texts_of([event]))

    bus.subscribe(hang, background=True)
    emit(bus, "a", "b")
    await asyncio.wait_for(bus.aclose(timeout_s=0.01), LIMIT_S)
    assert ends == ["a"]
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert "still busy" in caplog.text


async def test_a_background_subscriber_may_close_the_bus_and_waits_for_the_others_only() -> None:
    bus, seen = AgentEventBus(), list[str]()
    in_task, in_thread = asyncio.get_running_loop().create_future(), threading.Event()

    async def note(event: AgentEvent) -> None:
        await asyncio.sleep(0)
        seen.extend(texts_of([event]))

    async def close(event: AgentEvent) -> None:
        await bus.aclose(timeout_s=LIMIT_S * 10)
        in_task.set_result(None)

    bus.subscribe(close, background=True)
    bus.subscribe(note, background=True)
    emit(bus, "a")
    await asyncio.wait_for(in_task, LIMIT_S)
    assert seen == ["a"]
    assert not bus.is_listening

    def close_from_a_thread(event: AgentEvent) -> None:
        asyncio.run(bus.aclose(timeout_s=LIMIT_S * 10))
        in_thread.set()

    bus.subscribe(close_from_a_thread, background=True)
    emit(bus, "b")
    assert await asyncio.to_thread(in_thread.wait, LIMIT_S)


async def test_unsubscribing_lets_the_call_that_runs_come_to_its_end() -> None:
    bus, gate, seen = AgentEventBus(), asyncio.Event(), list[str]()

    async def slow(event: AgentEvent) -> None:
        await gate.wait()
        seen.extend(texts_of([event]))

    subscription = bus.subscribe(slow, background=True)
    emit(bus, "a", "b")
    await asyncio.sleep(0)
    subscription.unsubscribe()
    gate.set()
    await asyncio.wait_for(subscription.wait_until_idle(), LIMIT_S)
    assert seen == ["a"]


def assert_true(value: bool) -> None:
    assert value


# ---- streams ----


async def test_a_stream_yields_events_in_order_until_it_is_finished() -> None:
    bus = AgentEventBus()
    queue = bus.stream(session_id="s", types=[TextDelta])
    emit(bus, "a")
    emit(bus, "other", session_id="t")
    bus.emit(SendStarted(None, False), session_id="s")
    emit(bus, "b")
    assert queue.waiting == 2
    queue.finish()
    emit(bus, "late")
    assert not bus.is_listening
    assert [texts_of([event])[0] async for event in queue] == ["a", "b"]
    assert [event async for event in queue] == []


async def test_a_consumer_that_sleeps_is_woken_once_for_all_that_came() -> None:
    loop = asyncio.get_running_loop()
    queue, bus = EventQueue(), AgentEventBus()
    bus.subscribe(queue.put)
    batches = list[int]()

    async def consume() -> None:
        async for _ in queue:
            batches.append(queue.waiting)

    consumer = asyncio.ensure_future(consume())
    await asyncio.sleep(0)
    wakes = []
    original = loop.call_soon
    loop.call_soon = lambda *args, **kw: wakes.append(args[0]) or original(*args, **kw)  # type: ignore[assignment]
    try:
        emit(bus, *map(str, range(1000)))
    finally:
        loop.call_soon = original  # type: ignore[method-assign]
    assert len(wakes) == 1
    queue.finish()
    await asyncio.wait_for(consumer, LIMIT_S)
    assert batches == list(range(999, -1, -1))


async def test_a_stream_takes_events_and_its_end_from_other_threads() -> None:
    bus = AgentEventBus()
    queue = bus.stream()

    def work() -> None:
        emit(bus, *map(str, range(2000)))
        queue.finish()

    thread = threading.Thread(target=work)
    seen = list[AgentEvent]()

    async def consume() -> None:
        async for event in queue:
            seen.append(event)
            if len(seen) == 1:
                await asyncio.sleep(0)

    consumer = asyncio.ensure_future(consume())
    await asyncio.sleep(0)
    thread.start()
    await asyncio.wait_for(consumer, LIMIT_S)
    thread.join(LIMIT_S)
    assert texts_of(seen) == list(map(str, range(2000)))


async def test_an_event_that_another_thread_puts_while_the_consumer_falls_asleep_wakes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop, bus, queue = asyncio.get_running_loop(), AgentEventBus(), EventQueue()
    bus.subscribe(queue.put)
    create_future = loop.create_future

    def emit_first() -> asyncio.Future[None]:
        monkeypatch.undo()
        emit(bus, "a")
        return create_future()

    monkeypatch.setattr(loop, "create_future", emit_first)
    step = queue.__anext__()
    with pytest.raises(StopIteration) as stopped:
        step.send(None)
    assert texts_of([stopped.value.value]) == ["a"]


async def test_a_consumer_that_is_cancelled_loses_no_event() -> None:
    queue, bus = EventQueue(), AgentEventBus()
    bus.subscribe(queue.put)
    waiting = asyncio.ensure_future(queue.__anext__())
    await asyncio.sleep(0)
    waiting.cancel()
    emit(bus, "a")
    await asyncio.wait([waiting])
    emit(bus, "b")
    queue.finish()
    assert [texts_of([event])[0] async for event in queue] == ["a", "b"]


async def test_a_second_consumer_is_refused() -> None:
    queue = EventQueue()
    first = asyncio.ensure_future(queue.__anext__())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="one consumer"):
        await queue.__anext__()
    queue.finish()
    with pytest.raises(StopAsyncIteration):
        await first


async def test_a_bus_that_nobody_holds_is_freed_with_its_subscribers() -> None:
    bus, seen = AgentEventBus(), list[AgentEvent]()

    async def note(event: AgentEvent) -> None:
        seen.append(event)

    bus.subscribe(note, background=True)
    emit(bus, "a")
    assert await bus.drain(timeout_s=LIMIT_S)
    reference = weakref.ref(bus)
    del bus
    gc.collect()
    assert reference() is None
