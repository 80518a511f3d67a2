"""Random moves on a store and on a small model of it give the same outcomes and the same content, to the last byte."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from power_loop import Message, PowerLoopError, SendStatus, SessionState, SessionStore, TextPart, Usage
from power_loop.messages import tool_message, user_message
from power_loop.records import CallState, SendRecord
from power_loop.storage import CALL_STEPS, OPEN_CALLS, Accepted, CallStep, Claim, Lease, NewSend, SendEnd
from power_loop.testing.conformance.cases import Place, check
from power_loop.testing.conformance.parts import HandClock, model_call, reply_with_calls

OWNERS = ("alice", "bob")
SESSIONS = ("sess_a", "sess_b")
TTL_S = 10.0
_REQUESTS = tuple((request, content) for request in ("r1", "r2") for content in ("h1", "h2"))

T = TypeVar("T")


class Draws(Protocol):
    """Decides what comes next in a random history."""

    def choose(self, options: Sequence[T]) -> T:
        """Return one of several."""
        ...

    def number(self, low: int, high: int) -> int:
        """Return a number from low to high."""
        ...


class RandomDraws:
    """Decides by a seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._random = random.Random(seed)

    def __str__(self) -> str:
        return f"seed {self._seed}"

    def choose(self, options: Sequence[T]) -> T:
        return self._random.choice(options)

    def number(self, low: int, high: int) -> int:
        return self._random.randint(low, high)


@dataclass
class ModelSend:
    """Is what the model knows of a send."""

    request_id: str | None
    input_hash: str
    first_seq: int
    status: SendStatus = SendStatus.RUNNING
    attempts: int = 1
    result: dict[str, Any] | None = None
    rounds: int = 0
    calls: int = 0
    tokens: int = 0


@dataclass
class ModelSession:
    """Is what the model knows of a session: plain lists, no tricks."""

    state: SessionState = SessionState.OPEN
    version: int = 0
    owner: str | None = None
    epoch: int = 0
    until_ms: int = 0
    log: list[tuple[int, int, Message]] = field(default_factory=list)
    sends: list[ModelSend] = field(default_factory=list)
    calls: dict[tuple[int, int], tuple[str, CallState]] = field(default_factory=dict)
    tool_state: dict[str, Any] = field(default_factory=dict)

    def open_calls(self) -> list[str]:
        return [call_id for _, (call_id, state) in sorted(self.calls.items()) if state in OPEN_CALLS]

    def is_free(self, now_ms: int, dead_owner: str | None) -> bool:
        return self.owner is None or self.until_ms <= now_ms or self.owner == dead_owner


class Model:
    """Does every move as the port says it; an outcome is a plain value or the code of an error."""

    def __init__(self, names: Sequence[str]) -> None:
        self.sessions = {session_id: ModelSession() for session_id in names}

    def accept(
        self, session_id: str, owner: str, dead: str | None, request: tuple[str, str] | None, now_ms: int
    ) -> Any:
        session = self.sessions[session_id]
        request_id, input_hash = request or (None, "h")
        for index, send in enumerate(session.sends, 1):
            if request_id is not None and send.request_id == request_id:
                return ("send", index) if send.input_hash == input_hash else "request.conflict"
        if session.state is SessionState.CLOSED:
            return "session.closed"
        if not session.is_free(now_ms, dead):
            return "session.busy"
        if session.open_calls():
            return "session.pending"
        previous = session.owner
        if session.sends and session.sends[-1].status in {SendStatus.RUNNING, SendStatus.WAITING_FOR_INPUT}:
            session.sends[-1].status = SendStatus.INTERRUPTED
        self._lease(session, owner, now_ms)
        seq = len(session.log) + 1
        session.sends.append(ModelSend(request_id, input_hash, seq))
        session.log.append((len(session.sends), 0, user_message(f"input {seq}")))
        return ("accepted", session.epoch, len(session.sends), len(session.log) + 1, session.version, previous)

    def take_up(self, session_id: str, owner: str, dead: str | None, now_ms: int) -> Any:
        session = self.sessions[session_id]
        if not session.is_free(now_ms, dead):
            return "session.busy"
        previous = session.owner
        self._lease(session, owner, now_ms)
        resumable = {SendStatus.RUNNING, SendStatus.WAITING_FOR_INPUT, SendStatus.FAILED}
        if session.sends and session.sends[-1].status in resumable:
            send = session.sends[-1]
            # One that waited had come to rest by itself, which is no failed attempt.
            send.attempts += send.status is not SendStatus.WAITING_FOR_INPUT
            send.status, send.result = SendStatus.RUNNING, None
        return ("accepted", session.epoch, len(session.sends), len(session.log) + 1, session.version, previous)

    def append_reply(self, lease: Lease, at_seq: int, calls: int, end: SendStatus | None, now_ms: int) -> Any:
        session = self.sessions[lease.session_id]
        if not self._holds(session, lease) or at_seq != len(session.log) + 1:
            return "session.lease_lost"
        if end is not None and (not session.sends or session.sends[-1].status is not SendStatus.RUNNING):
            return "store.corrupt"
        message, _ = reply_at(at_seq, calls, len(session.sends))
        session.log.append((len(session.sends), 1, message))
        for index in range(calls):
            session.calls[at_seq, index] = (f"c{at_seq}-{index}", CallState.REQUESTED)
        if session.sends:
            send = session.sends[-1]
            send.rounds, send.calls, send.tokens = send.rounds + 1, send.calls + calls, send.tokens + 3
        self._after(session, end, now_ms)
        return None

    def advance(
        self, lease: Lease, steps: list[tuple[tuple[int, int], CallState, bool]], end: SendStatus | None, now_ms: int
    ) -> Any:
        session = self.sessions[lease.session_id]
        if not self._holds(session, lease):
            return "session.lease_lost"
        calls = dict(session.calls)
        messages = []
        for place, state, has_answer in steps:
            if place not in calls or state not in CALL_STEPS.get(calls[place][1], frozenset()):
                return "store.corrupt"
            calls[place] = (calls[place][0], state)
            if has_answer:
                messages.append((len(session.sends), 1, tool_message(calls[place][0], (TextPart("done"),))))
        if end is not None and (not session.sends or session.sends[-1].status is not SendStatus.RUNNING):
            return "store.corrupt"
        session.calls = calls
        session.log += messages
        session.tool_state = {"at": len(session.log)}
        self._after(session, end, now_ms)
        return None

    def end_send(self, lease: Lease, end: SendStatus) -> Any:
        session = self.sessions[lease.session_id]
        if not self._holds(session, lease):
            return "session.lease_lost"
        if not session.sends or session.sends[-1].status is not SendStatus.RUNNING:
            return "store.corrupt"
        self._after(session, end, 0)
        return None

    def renew(self, lease: Lease, now_ms: int) -> Any:
        session = self.sessions[lease.session_id]
        if not self._holds(session, lease):
            return "session.lease_lost"
        self._after(session, None, now_ms)
        return None

    def release(self, lease: Lease) -> Any:
        session = self.sessions[lease.session_id]
        if self._holds(session, lease):
            session.owner, session.until_ms = None, 0

    def close(self, session_id: str, now_ms: int) -> Any:
        session = self.sessions[session_id]
        if session.state is SessionState.CLOSED:
            return False
        if not session.is_free(now_ms, None):
            return "session.busy"
        session.state, session.owner, session.until_ms = SessionState.CLOSED, None, 0
        session.epoch += 1
        return True

    def edit(self, session_id: str) -> Any:
        self.sessions[session_id].version += 1
        return self.sessions[session_id].version

    @staticmethod
    def _holds(session: ModelSession, lease: Lease) -> bool:
        return (session.owner, session.epoch) == (lease.owner, lease.epoch)

    @staticmethod
    def _lease(session: ModelSession, owner: str, now_ms: int) -> None:
        session.owner, session.until_ms = owner, now_ms + round(TTL_S * 1000)
        session.epoch += 1

    @staticmethod
    def _after(session: ModelSession, end: SendStatus | None, now_ms: int) -> None:
        if end is None:
            session.until_ms = now_ms + round(TTL_S * 1000)
        else:
            session.owner, session.until_ms = None, 0
            session.sends[-1].status = end
            session.sends[-1].result = {"end": end.value}


def reply_at(at_seq: int, calls: int, send_index: int, end: SendStatus | None = None) -> tuple[Message, Any]:
    held = Accepted(Lease("", "", 0), send_index, at_seq, 0, 0)
    made = reply_with_calls(held, *(f"c{at_seq}-{index}" for index in range(calls)))
    message = made.messages[0]
    if not calls:
        message = Message(message.role, (TextPart(f"reply {at_seq}"),), message.origin)
    finish = None if end is None else SendEnd(end, {"end": end.value})
    return message, type(made)(at_seq, send_index, 1, (message,), model_call(Usage(2, 1)), calls=made.calls, end=finish)


class Pair:
    """Makes each move on both and compares."""

    def __init__(self, store: SessionStore, clock: HandClock, names: Sequence[str]) -> None:
        self.store = store
        self.clock = clock
        self.names = names
        self.model = Model(names)
        # Every lease that was ever given: a late owner tries with an old one.
        self.leases: list[Lease] = []

    async def move(self, draws: Draws) -> str:
        # Mostly what makes sense where the sessions stand, so that histories get somewhere; sometimes anything.
        is_held = any(session.owner for session in self.model.sessions.values())
        likely = _UNDER_A_LEASE if is_held else _WITHOUT_A_LEASE
        name: str = draws.choose([*likely * 4, *_MOVES])
        expected, actual = await _MOVES[name](self, draws)
        assert actual == expected, f"{name} gave {actual!r}, and has to give {expected!r}"
        return name

    async def outcome(self, call: Any) -> Any:
        try:
            value = await call
        except PowerLoopError as error:
            return error.code
        if isinstance(value, Accepted):
            self.leases.append(value.lease)
            return (
                "accepted",
                value.lease.epoch,
                value.send_index,
                value.next_seq,
                value.version,
                value.previous_owner,
            )
        return ("send", value.index) if isinstance(value, SendRecord) else value

    # ---- the moves ----

    async def accept(self, draws: Draws) -> Any:
        session_id, owner = draws.choose(self.names), draws.choose(OWNERS)
        dead = draws.choose((None, None, *OWNERS))
        request = draws.choose((None, None, *_REQUESTS))
        seq = len(self.model.sessions[session_id].log) + 1
        request_id, input_hash = request or (None, "h")
        new = NewSend(user_message(f"input {seq}"), input_hash, {"n": seq}, request_id)
        expected = self.model.accept(session_id, owner, dead, request, self.clock.ms)
        return expected, await self.outcome(self.store.accept(Claim(session_id, owner, TTL_S, dead), new))

    async def take_up(self, draws: Draws) -> Any:
        session_id, owner = draws.choose(self.names), draws.choose(OWNERS)
        dead = draws.choose((None, None, *OWNERS))
        expected = self.model.take_up(session_id, owner, dead, self.clock.ms)
        return expected, await self.outcome(self.store.take_up(Claim(session_id, owner, TTL_S, dead)))

    def any_lease(self, draws: Draws) -> Lease:
        live = [
            Lease(session_id, session.owner, session.epoch)
            for session_id, session in self.model.sessions.items()
            if session.owner is not None
        ]
        pool = live * 4 + self.leases[-6:]
        return draws.choose(pool) if pool else Lease(self.names[0], "alice", 99)

    async def append_reply(self, draws: Draws) -> Any:
        lease = self.any_lease(draws)
        session = self.model.sessions[lease.session_id]
        at_seq = len(session.log) + 1 + draws.choose((0, 0, 0, 0, -1, 1))
        calls = draws.number(0, 3)
        end = draws.choose((None, SendStatus.COMPLETED, SendStatus.FAILED)) if not calls else None
        _, new = reply_at(at_seq, calls, len(session.sends), end)
        expected = self.model.append_reply(lease, at_seq, calls, end, self.clock.ms)
        return expected, await self.outcome(self.store.append_reply(lease, new))

    async def advance(self, draws: Draws) -> Any:
        lease = self.any_lease(draws)
        session = self.model.sessions[lease.session_id]
        places = [
            place for place, (_, state) in session.calls.items() if state in OPEN_CALLS or draws.choose((False, True))
        ]
        places = places or [(7777, 0)]
        steps = []
        for _ in range(draws.number(1, 3)):
            place = draws.choose(places)
            allowed = CALL_STEPS.get(session.calls.get(place, ("", CallState.ABORTED))[1], frozenset())
            states = [*sorted(allowed) * 3, *CallState]
            steps.append((place, draws.choose(states), draws.choose((False, True))))
        end = draws.choose((None, None, None, SendStatus.WAITING_FOR_INPUT, SendStatus.ABORTED))
        at_seq = len(session.log) + 1
        made = []
        for place, state, has_answer in steps:
            call_id = session.calls.get(place, ("none", None))[0]
            message = tool_message(call_id, (TextPart("done"),)) if has_answer else None
            made.append(CallStep(*place, state, message=message))
        finish = None if end is None else SendEnd(end, {"end": end.value})
        after = {"at": len(session.log) + sum(has_answer for *_, has_answer in steps)}
        send_index = len(session.sends)
        expected = self.model.advance(lease, steps, end, self.clock.ms)
        return expected, await self.outcome(
            self.store.advance_calls(
                lease, made, at_seq=at_seq, send_index=send_index, round=1, tool_state=after, end=finish
            )
        )

    async def end_send(self, draws: Draws) -> Any:
        lease = self.any_lease(draws)
        end = draws.choose((SendStatus.CANCELLED, SendStatus.WAITING_FOR_INPUT, SendStatus.FAILED))
        index = len(self.model.sessions[lease.session_id].sends)
        expected = self.model.end_send(lease, end)
        return expected, await self.outcome(self.store.end_send(lease, index, SendEnd(end, {"end": end.value})))

    async def renew(self, draws: Draws) -> Any:
        lease = self.any_lease(draws)
        return self.model.renew(lease, self.clock.ms), await self.outcome(self.store.renew(lease, ttl_s=TTL_S))

    async def release(self, draws: Draws) -> Any:
        lease = self.any_lease(draws)
        return self.model.release(lease), await self.outcome(self.store.release(lease))

    async def close(self, draws: Draws) -> Any:
        session_id = draws.choose(self.names)
        expected = self.model.close(session_id, self.clock.ms)
        return expected, await self.outcome(self.store.close_session(session_id))

    async def edit(self, draws: Draws) -> Any:
        session_id = draws.choose(self.names)
        expected = self.model.edit(session_id)
        edited = await self.store.update_session(session_id, system_prompt=f"prompt {expected}")
        return expected, edited.version

    async def wait(self, draws: Draws) -> Any:
        self.clock.ms += draws.choose((1, 9_999, 10_000, 60_000))
        return None, None

    # ---- the content ----

    async def compare(self) -> None:
        for session_id, expected in self.model.sessions.items():
            view = await self.store.read_view(session_id)
            head = view.session
            assert (head.state, head.version, head.owner, head.epoch, head.lease_until_ms) == (
                expected.state,
                expected.version,
                expected.owner,
                expected.epoch,
                expected.until_ms,
            )
            assert (head.next_seq, head.send_count) == (len(expected.log) + 1, len(expected.sends))
            assert view.tool_state == expected.tool_state
            assert [(row.send_index, row.round, row.message) for row in view.messages] == expected.log
            assert [row.seq for row in view.messages] == list(range(1, len(expected.log) + 1))
            assert [call.call_id for call in view.calls] == expected.open_calls()
            calls = {
                (call.reply_seq, call.index): (call.call_id, call.state)
                for call in await self.store.get_calls(session_id)
            }
            assert calls == expected.calls
            for index, send in enumerate(expected.sends, 1):
                stored = await self.store.get_send(session_id, index=index)
                assert stored is not None
                assert (stored.status, stored.attempts, stored.result, stored.first_seq, stored.request_id) == (
                    send.status,
                    send.attempts,
                    send.result,
                    send.first_seq,
                    send.request_id,
                )
                assert (stored.rounds, stored.tool_calls, stored.usage.total_tokens) == (
                    send.rounds,
                    send.calls,
                    send.tokens,
                )
                assert stored.options == {"n": send.first_seq}


_MOVES: dict[str, Any] = {
    "accept": Pair.accept,
    "take_up": Pair.take_up,
    "append_reply": Pair.append_reply,
    "advance": Pair.advance,
    "end_send": Pair.end_send,
    "renew": Pair.renew,
    "release": Pair.release,
    "close": Pair.close,
    "edit": Pair.edit,
    "wait": Pair.wait,
}
_UNDER_A_LEASE = ("append_reply", "append_reply", "advance", "advance", "advance", "end_send", "accept")
_WITHOUT_A_LEASE = ("accept", "accept", "take_up", "edit")


_HISTORIES = 10


@check(first=range(0, 60, _HISTORIES))
async def random_moves_do_what_the_model_does(place: Place, clock: HandClock, first: int) -> None:
    store = await place.open(clock)
    try:
        for seed in range(first, first + _HISTORIES):
            draws = RandomDraws(seed)
            await act_against_the_model(store, clock, draws, suffix=f"_{seed}")
    finally:
        await store.aclose()


async def act_against_the_model(store: SessionStore, clock: HandClock, draws: Draws, *, suffix: str = "") -> None:
    """Make 5 to 40 random moves on a store and on the model, and compare every outcome and all that is there."""
    pair = Pair(store, clock, tuple(name + suffix for name in SESSIONS))
    moves: list[str] = []
    try:
        for session_id in pair.names:
            made = await store.create_session(session_id, system_prompt=None, metadata={})
            # Where epochs begin is the store's own affair.
            pair.model.sessions[session_id].epoch = made.epoch
        for _ in range(draws.number(5, 40)):
            moves.append(await pair.move(draws))  # noqa: PERF401 - what was done is told, whatever comes
        await pair.compare()
    except Exception as error:
        raise AssertionError(f"{draws}, behind {moves}: {error}") from error
