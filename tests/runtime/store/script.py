"""Is one scripted conversation, move by move, with every kind of write that a store has."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from power_loop.contracts.budgets import Amounts, Budget, BudgetKey, Charge, NewBudget, NewHold
from power_loop.contracts.llm import Usage
from power_loop.contracts.messages import TextPart, user_message
from power_loop.contracts.ports import SessionStore
from power_loop.contracts.records import Accepted, Lease, NewFold, ProjectedMessage, SendEnd
from power_loop.contracts.states import CallState, SendStatus, WaitKind
from tests.conformance.parts import COMPLETED, HandClock, claim, new_send, reply, reply_with_calls, result_step, step

Move = Callable[[SessionStore], Awaitable[object]]

#: Where the first and the second turn stand; leases follow from the moves before, so that no state is kept.
_EPOCH = HandClock().ms
FIRST = Accepted(Lease("sess_1", "alice", _EPOCH + 1), 1, 2, 0, 0)
AGAIN = Accepted(Lease("sess_1", "bob", _EPOCH + 2), 1, 3, 1, 0)
SECOND = Accepted(Lease("sess_1", "bob", _EPOCH + 3), 2, 7, 1, 0)
FOLD = NewFold(6, "two calls", 2, 0, "s", pinned_seqs=(1,), model_calls=1, usage=Usage(5, 1), tool_state={"n": 2})
PAYER = BudgetKey("sess_1", 2)
HOLD = NewHold(1, (PAYER,), input_tokens=100, output_tokens=50, least_output_tokens=50)
CHARGE = Charge(1, (PAYER,), Amounts(120))
ROW = ProjectedMessage(7, 7, user_message("second"))

MOVES: tuple[tuple[str, Move], ...] = (
    ("create_session", lambda store: store.create_session("sess_1", system_prompt="p", metadata={"a": 1})),
    ("accept", lambda store: store.accept(claim("sess_1"), new_send(request_id="r1"))),
    ("renew", lambda store: store.renew(FIRST.lease, ttl_s=60)),
    ("append_reply", lambda store: store.append_reply(FIRST.lease, reply_with_calls(FIRST, "c1", "c2"))),
    ("update_session", lambda store: store.update_session("sess_1", system_prompt="q", metadata={"b": 2})),
    (
        "advance_calls",
        lambda store: store.advance_calls(
            FIRST.lease,
            [
                step(2, 0, CallState.STARTED, attempt=1),
                step(2, 1, CallState.WAITING, wait_kind=WaitKind.INPUT, prompt="which?"),
            ],
            at_seq=3,
            send_index=1,
            round=1,
        ),
    ),
    ("release", lambda store: store.release(FIRST.lease)),
    ("take_up", lambda store: store.take_up(claim("sess_1", "bob"))),
    (
        "advance_calls",
        lambda store: store.advance_calls(
            AGAIN.lease,
            [
                result_step(2, 0, "c1", "shown", whole=(TextPart("whole" * 5000),)),
                result_step(2, 1, "c2", state=CallState.FAILED),
            ],
            at_seq=3,
            send_index=1,
            round=1,
            tool_state={"n": 1},
        ),
    ),
    ("append_reply", lambda store: store.append_reply(AGAIN.lease, reply(AGAIN, at_seq=5, round=2, end=COMPLETED))),
    (
        "accept",
        lambda store: store.accept(
            claim("sess_1", "bob"),
            replace(new_send("second", input_hash="h2"), budget=NewBudget(Budget(max_tokens=1000))),
        ),
    ),
    ("reserve", lambda store: store.reserve(SECOND.lease, HOLD, at_seq=7)),
    ("reserve", lambda store: store.reserve(SECOND.lease, replace(HOLD, number=2), charges=(CHARGE,), at_seq=7)),
    ("append_fold", lambda store: store.append_fold(SECOND.lease, FOLD, at_seq=7)),
    (
        "end_send",
        lambda store: store.end_send(
            SECOND.lease,
            2,
            SendEnd(SendStatus.CANCELLED, {"reason": "so"}, (ROW,), charges=(CHARGE,), has_payers=True),
        ),
    ),
    ("close_session", lambda store: store.close_session("sess_1")),
)


async def everything(store: SessionStore) -> object:
    """Return all that a store holds of the script's session; None before there is one."""
    if not (await store.list_sessions()).items:
        return None
    return (
        await store.read_view("sess_1"),
        await store.read_view("sess_1", projected=True),
        await store.get_calls("sess_1"),
        [await store.get_send("sess_1", index=index) for index in (1, 2)],
        await store.get_tool_result("sess_1", "c1"),
        await store.get_stats("sess_1"),
        await store.get_budget(PAYER),
    )
