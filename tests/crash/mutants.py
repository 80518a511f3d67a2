"""Breaks the kernel inside of a child, one promise at a time: a crash test that finds nothing there is blind."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import FunctionType
from typing import Any

from power_loop.agent import kit, subagents
from power_loop.contracts.messages import Message
from power_loop.contracts.states import Effect
from power_loop.contracts.timers import TimerClaim
from power_loop.core.turn import drive, tool_batch, turn
from power_loop.runtime.store import (
    budgets,
    commits,
    inbox,
    sends,
    sessions,
    timer_moves,
    tool_calls,
    usage,
    workflow_commits,
)
from power_loop.runtime.store.messages import message_row
from power_loop.runtime.store.sql import server_clock, server_work, sqlite_threads
from power_loop.runtime.store.sql.database import Counts
from power_loop.workflow import run as runs
from power_loop.workflow.journal import Journal, StepState

# A statement that changes nothing, in the place of one that should.
_NOTHING: Any = ("SELECT 1", ())
# How to mend what was broken, the last first.
_UNDONE: list[Callable[[], None]] = []
# Is set by a client that was told its answer.
believed = threading.Event()
# Nothing waits for so long unless it is broken.
_LONG_S = 60.0
_SAME_EPOCH = (r"epoch = epoch \+ 1", "epoch = epoch")


def no_transaction() -> None:
    """Every statement is a transaction of its own."""
    execute = sqlite_threads.SqliteTransaction.execute

    async def execute_alone(self: Any, sql: str, params: Any = ()) -> int:
        changed = await execute(self, sql, params)
        self._cursor.execute("COMMIT")
        self._cursor.execute("BEGIN IMMEDIATE")
        return changed

    async def execute_all_alone(self: Any, statements: Any) -> list[int]:
        return [await execute_alone(self, *statement) for statement in statements]

    _replace(sqlite_threads.SqliteTransaction, execute=execute_alone, execute_all=execute_all_alone)


def usage_apart() -> None:
    """What a reply cost is stored behind it, in a transaction of its own."""
    append_reply, insert = commits.Commits.append_reply, usage.ModelCalls.insert
    late: list[Any] = []

    def remember(self: Any, *args: Any, **options: Any) -> Any:
        late.append(insert(self, *args, **options))
        return _NOTHING

    async def append_apart(self: Any, lease: Any, reply: Any) -> Any:
        outcome = await append_reply(self, lease, reply)
        statement = late.pop()
        await self._database.write("append_reply", lambda tx: tx.execute(*statement))
        return outcome

    _replace(usage.ModelCalls, insert=remember)
    _replace(commits.Commits, append_reply=append_apart)


def keeps_lease() -> None:
    """The end of a send does not give the lease back."""
    guard = sessions.Sessions.guard

    def keep(self: Any, lease: Any, *, is_last: bool, **more: Any) -> Any:
        return guard(self, lease, is_last=False, **more)

    _replace(sessions.Sessions, guard=keep)


def no_fence() -> None:
    """Whoever had the lease once may write."""
    make = sessions.Sessions.__init__

    def make_unfenced(self: Any, render: Any) -> None:
        make(self, render)
        for name in ("_guard", "_guard_last", "_guard_end", "_release", "_renew"):
            sql = getattr(self, name)
            assert "owner = ? AND epoch = ?" in sql
            sql = sql.replace("owner = ? AND epoch = ?", "? IS NOT NULL AND ? IS NOT NULL")
            setattr(self, name, sql.replace("AND next_seq = ?", "AND ? IS NOT NULL"))

    _replace(sessions.Sessions, __init__=make_unfenced)


def starts_unseen() -> None:
    """That a call starts is not written down."""

    def start(self: Any, one: Any) -> None:
        one.call.attempt += 1

    _replace(drive, starts_with_reply=lambda turn, call: False)
    _replace(tool_batch._Batch, _start=start)


def forgets_death() -> None:
    """A call that a dead process had started counts as one's own."""
    _of_records(lambda call: setattr(call, "is_stale", False))


def forgets_some_deaths() -> None:
    """Of the calls that a dead process had started only those that may not run again are noticed."""
    _of_records(lambda call: setattr(call, "is_stale", call.is_stale and call.effect is Effect.ONCE))


def own_keys() -> None:
    """Each process runs calls under keys of its own."""
    _of_records(lambda call: setattr(call, "idempotency_key", f"pl1_{os.getpid()}"))


def runs_once_calls_again() -> None:
    """A call that must not come twice runs again where a dead process had started it."""

    async def run_again(turn: Any, call: Any, prepared: Any) -> None:
        return None

    _replace(tool_batch, settle_stale=run_again)


def keys_by_attempt() -> None:
    """A call that runs again has another key."""
    _of_records(lambda call: setattr(call, "idempotency_key", f"{call.idempotency_key}.{call.attempt}"))


def leaves_calls_open() -> None:
    """The result of a call is stored, and its row in the ledger says nothing of it."""
    updates = tool_calls.ToolCalls.updates

    def say_nothing(self: Any, session_id: str, steps: Any) -> Any:
        made = updates(self, session_id, steps)
        return [_NOTHING] * len(steps.rows) + made[len(steps.rows) :]

    _replace(tool_calls.ToolCalls, updates=say_nothing)


def sends_over_open_calls() -> None:
    """A new send is taken while calls of the last one are open."""
    take = sessions.Sessions.take_for_new_send

    async def see_none(self: Any, *args: Any, **more: Any) -> Any:
        head = await take(self, *args, **more)
        return None if head is None else dataclasses.replace(head, open_calls=0)

    _replace(sessions.Sessions, take_for_new_send=see_none)


def interrupts_nothing() -> None:
    """A send that its owner did not bring to rest runs for ever, behind the next one."""

    async def leave(self: Any, *args: Any, **more: Any) -> None:
        return None

    _replace(sends.Sends, interrupt=leave)


def restarts_what_ended() -> None:
    """A resume lets a send run again that had ended."""
    _reword(sends.Sends, _run_again=(r" AND status IN \([^)]*\)", ""))


def forgets_requests() -> None:
    """Nobody looks whether a request was made before."""
    get = sends.Sends.get

    async def find_nothing(self: Any, *args: Any, request_id: str | None = None, **more: Any) -> Any:
        return None if request_id is not None else await get(self, *args, **more)

    _replace(sends.Sends, get=find_nothing)


def same_epoch() -> None:
    """Whoever takes a lease over has the epoch of the one before."""
    _reword(sessions.Sessions, _take=_SAME_EPOCH, _take_for_new=_SAME_EPOCH)


def renews_blindly() -> None:
    """A lease is lengthened for whoever had it once."""
    _reword(sessions.Sessions, _renew=("owner = \\? AND epoch = \\?", "? IS NOT NULL AND ? IS NOT NULL"))


def place_unchecked() -> None:
    """A write does not look whether the log stands where it was made for."""
    unchecked = ("AND next_seq = \\?", "AND ? IS NOT NULL")
    _reword(sessions.Sessions, _guard=unchecked, _guard_last=unchecked)


def dead_seem_alive() -> None:
    """An owner that died is taken for one that lives, until its lease is over."""
    _replace(kit, is_owner_dead=lambda owner: False)


def living_seem_dead() -> None:
    """An owner that lives is taken for one that died."""
    _replace(kit, is_owner_dead=lambda owner: True)


def tells_before_commit() -> None:
    """A caller is told that its reply is stored before it is."""
    make = sqlite_threads.SqliteThreads.__init__

    def make_hasty(self: Any, file: Any, point: Any, *more: Any) -> None:
        def tell(place: str, batch: Any) -> None:
            replies = [job for job in batch if job.move == "append_reply"] if place == "commit.before" else []
            if replies:
                sqlite_threads._release(replies)
                believed.wait(_LONG_S)
            point(place, batch)

        make(self, file, tell, *more)

    _replace(sqlite_threads.SqliteThreads, __init__=make_hasty)


def reads_in_pieces() -> None:
    """The queries of one read are not on one snapshot."""
    query = sqlite_threads.SqliteTransaction.query
    last = threading.local()

    async def query_alone(self: Any, sql: str, params: Any = ()) -> Any:
        if "writer" not in threading.current_thread().name:
            if getattr(last, "cursor", None) is self._cursor:
                self._cursor.execute("COMMIT")
                # Somebody else writes behind the first query, and this one sees it.
                _wait_for_a_commit(self._counts)
                self._cursor.execute("BEGIN")
            last.cursor = self._cursor
        return await query(self, sql, params)

    _replace(sqlite_threads.SqliteTransaction, query=query_alone)


def _wait_for_a_commit(counts: Counts) -> None:
    # While a database is opened nobody writes.
    before, until = counts.commits, time.monotonic() + 1.0
    while counts.commits == before and time.monotonic() < until:
        time.sleep(0.001)


def inbox_twice() -> None:
    """An input that is taken out of the inbox stays in it, so that it is delivered a second time."""
    takes, seen = inbox.Inbox.takes, set()

    def take_later(self: Any, session_id: str, places: Any, *, at_ms: int) -> Any:
        made = takes(self, session_id, places, at_ms=at_ms)
        first = [(session_id, place[0]) not in seen for place in places]
        seen.update((session_id, place[0]) for place in places)
        return [_NOTHING if is_first else one for is_first, one in zip(first, made, strict=True)]

    _replace(inbox.Inbox, takes=take_later)


def inbox_apart() -> None:
    """An input leaves the inbox in a transaction of its own, before the one that brings it into the log."""
    take_inputs, takes = commits.Commits.take_inputs, inbox.Inbox.takes

    async def take_apart(self: Any, lease: Any, inputs: Any, **more: Any) -> Any:
        places = [(taken.position, more["send_index"], more["at_seq"]) for taken in inputs]
        statements = takes(self._inbox, lease.session_id, places, at_ms=self._clock.now_ms())
        await self._database.write("take_inputs", lambda tx: tx.execute_all(statements))
        return await take_inputs(self, lease, inputs, **more)

    def take_nothing(self: Any, session_id: str, places: Any, *, at_ms: int) -> Any:
        return [_NOTHING] * len(places)

    _replace(commits.Commits, take_inputs=take_apart)
    _replace(inbox.Inbox, takes=take_nothing)


def inbox_backwards() -> None:
    """The input that came last is delivered first."""
    _reword(inbox.Inbox, _waiting=("ORDER BY position", "ORDER BY position DESC"))


def holds_nothing() -> None:
    """A budget grants what a call may take and does not keep it for the call."""
    reserve = budgets.Budgets.reserve

    async def grant_only(self: Any, tx: Any, *args: Any, **more: Any) -> Any:
        class Forgetful:
            def __getattr__(self, name: str) -> Any:
                return getattr(tx, name)

            async def execute_many(self, sql: str, params: Any) -> int:
                return 0 if sql == holds else int(await tx.execute_many(sql, params))

        holds = self._hold
        return await reserve(self, Forgetful(), *args, **more)

    _replace(budgets.Budgets, reserve=grant_only)


def settles_twice() -> None:
    """What a call came to is paid twice."""
    settles = budgets.Budgets.settles

    def pay_twice(self: Any, session_id: str, charges: Any) -> Any:
        made = settles(self, session_id, charges)
        return [*made[: len(made) - len(charges)], *made]

    _replace(budgets.Budgets, settles=pay_twice)


def keeps_holds_of_the_dead() -> None:
    """What a dead process held of a budget is paid for, and stays held."""
    _reword(budgets.Budgets, _give_all_back=(r"DELETE FROM (\S+)", r"UPDATE \1 SET level = level"))


def makes_agents_anew() -> None:
    """A call that runs again in another process makes a session of its own for its work."""
    of_call = subagents.agent_id_of

    def of_process(parent_id: str, key: str) -> str:
        return of_call(parent_id, f"{key}.{os.getpid()}")

    _replace(subagents, agent_id_of=of_process)


def fires_twice() -> None:
    """A timer moves on in a transaction of its own behind its firing, and each try of that is another request."""

    async def deliver(self: Any, claim: TimerClaim, message: Message, input_hash: str) -> Any:
        position = await _leave_firing(self, claim, message, f"{claim.timer.request_id}.{claim.timer.epoch}")
        return await _move_on(self, claim, position)

    _replace(timer_moves.TimerMoves, deliver=deliver)


def loses_firings() -> None:
    """A timer moves on in a transaction of its own, before the one that brings its firing to the session."""

    async def deliver(self: Any, claim: TimerClaim, message: Message, input_hash: str) -> Any:
        await _move_on(self, claim, None)
        position = await _leave_firing(self, claim, message, claim.timer.request_id)
        return await self._database.write(
            "deliver_timer", lambda tx: self._delivery(tx, claim.timer.id, position, False)
        )

    _replace(timer_moves.TimerMoves, deliver=deliver)


async def _leave_firing(moves: Any, claim: TimerClaim, message: Message, request_id: str) -> int:
    async def body(tx: Any) -> int:
        session_id, op = claim.timer.session_id, commits.new_op()
        await moves._sessions.count_input(tx, session_id, at_ms=claim.at_ms)
        position = (await moves._sessions.inbox_of(tx, session_id))[0]
        facts = {"input_hash": "h", "body": message_row(message)[1], "options": "{}", "at_ms": claim.at_ms, "op": op}
        await tx.execute(*moves._inbox.insert(session_id, position, request_id=request_id, **facts))
        await moves._sessions.tell_of_work(tx, session_id)
        return int(position)

    return int(await moves._database.write("deliver_timer", body))


async def _move_on(moves: Any, claim: TimerClaim, position: int | None) -> Any:
    async def body(tx: Any) -> Any:
        counts = {"delivered": 1, "missed": 0, "vetoed": 0}
        await moves._rows.move_on(tx, claim, at_ms=claim.at_ms, op=commits.new_op(), **counts)
        return await moves._delivery(tx, claim.timer.id, position, False)

    return await moves._database.write("deliver_timer", body)


def steps_apart() -> None:
    """What came of a workflow's steps is stored behind the move that it belongs to, in a transaction of its own."""
    advance = workflow_commits.RunCommits.advance

    async def advance_apart(self: Any, lease: Any, write: Any, **more: Any) -> None:
        late = self._rows.writes(lease.session_id, dataclasses.replace(write, made=(), taken=(), dropped=(), spec=None))
        await advance(self, lease, dataclasses.replace(write, changed=()), **more)
        if late:
            await self._database.write("advance_run", lambda tx: tx.execute_all(late))

    _replace(workflow_commits.RunCommits, advance=advance_apart)


def runs_finished_steps_again() -> None:
    """Whoever goes on with a workflow does again what its agents had finished."""
    read = runs.journal_of

    def forget(run: Any, steps: Any, signals: Any) -> Journal:
        journal = read(run, steps, signals)
        for record in list(journal.records.values()):
            if record.kind == "agent" and record.state is StepState.COMPLETED and not signals:
                again = {"state": StepState.STARTED, "attempt": record.attempt + 1, "output": None}
                journal.note(dataclasses.replace(record, **again, ended_at_ms=None, more={}))
        return journal

    _replace(runs, journal_of=forget)


def cancels_the_next() -> None:
    """A cancel stops whichever turn hears of it."""
    news = sessions.Sessions.news

    async def hear(self: Any, tx: Any, lease: Any) -> Any:
        found = await news(self, tx, lease)
        rows = await tx.query(self._news, (lease.session_id,))
        return found if not rows[0][3] else dataclasses.replace(found, cancel_reason=rows[0][4] or "cancelled")

    _replace(sessions.Sessions, news=hear)


def retries_blindly() -> None:
    """A write whose COMMIT was lost is made again without a look whether it had landed."""

    async def never(self: Any, *args: Any) -> bool:
        return False

    _replace(server_work.Server, _has_landed=never)


def believes_blindly() -> None:
    """A write whose COMMIT was lost is thought to have landed."""

    async def always(self: Any, *args: Any) -> bool:
        return True

    _replace(server_work.Server, _has_landed=always)


def process_clock() -> None:
    """A lease on a server is judged by the clock of the process that asks."""
    _replace(server_clock.ServerClock, now_ms=lambda self: time.time_ns() // 1_000_000)


def _of_records(change: Callable[[Any], None]) -> None:
    """Change every call that is read from the store."""
    of = turn.OpenCall.of

    def of_changed(record: Any) -> Any:
        call = of(record)
        change(call)
        return call

    _replace(turn.OpenCall, of=staticmethod(of_changed))


def _reword(kind: Any, **statements: tuple[str, str]) -> None:
    """Change the text of statements that a class keeps, each by a pattern that has to be found and what comes for it.

    The statements stay those of SQLite: a server's parameters have numbers.
    """
    make = kind.__init__

    def make_reworded(self: Any, *args: Any, **more: Any) -> None:
        make(self, *args, **more)
        for name, (pattern, text) in statements.items():
            changed, count = re.subn(pattern, text, getattr(self, name))
            assert count, f"{pattern!r} is not in {name} (any more)"
            setattr(self, name, changed)

    _replace(kind, __init__=make_reworded)


def _replace(place: Any, **parts: Any) -> None:
    """Put other parts into a class or module; what is not there cannot be replaced."""
    for name, part in parts.items():
        assert hasattr(place, name), f"{place} has no {name!r} (any more)"
        _UNDONE.append(partial(setattr, place, name, inspect.getattr_static(place, name)))
        setattr(place, name, part)


@contextlib.contextmanager
def broken(mutant: str | None) -> Iterator[None]:
    """Break the kernel in this process for the length of a block."""
    if mutant is not None:
        MUTANTS[mutant]()
    try:
        yield
    finally:
        while _UNDONE:
            _UNDONE.pop()()


MUTANTS: dict[str, Callable[[], None]] = {
    name: made
    for name, made in list(globals().items())
    if isinstance(made, FunctionType) and made.__module__ == __name__ and not name.startswith("_") and name != "broken"
}
