"""Breaks the kernel inside of a child, one promise at a time: a crash test that finds nothing there is blind."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from power_loop.contracts.states import Effect
from power_loop.core.turn import drive, tool_batch, turn
from power_loop.runtime.store import commits, sessions, usage
from power_loop.runtime.store.sql import sqlite_threads


def no_transaction() -> None:
    """Every statement is a transaction of its own."""
    execute, execute_many = sqlite_threads.SqliteTransaction.execute, sqlite_threads.SqliteTransaction.execute_many

    async def execute_alone(self: Any, *args: Any) -> int:
        changed = await execute(self, *args)
        _commit(self)
        return changed

    async def execute_many_alone(self: Any, *args: Any) -> int:
        changed = await execute_many(self, *args)
        _commit(self)
        return changed

    def _commit(tx: Any) -> None:
        tx._cursor.execute("COMMIT")
        tx._cursor.execute("BEGIN IMMEDIATE")

    _replace(sqlite_threads.SqliteTransaction, execute=execute_alone, execute_many=execute_many_alone)


def usage_apart() -> None:
    """What a reply cost is stored behind it, in a transaction of its own."""
    append_reply, append = commits.Commits.append_reply, usage.ModelCalls.append
    late: list[Any] = []

    async def remember(self: Any, tx: Any, *args: Any, **options: Any) -> None:
        late.append((args, options))

    async def append_apart(self: Any, lease: Any, reply: Any) -> None:
        await append_reply(self, lease, reply)
        args, options = late.pop()
        await self._database.write("append_reply", lambda tx: append(self._model_calls, tx, *args, **options))

    _replace(usage.ModelCalls, append=remember)
    _replace(commits.Commits, append_reply=append_apart)


def keeps_lease() -> None:
    """The end of a send does not give the lease back."""
    guard = sessions.Sessions.guard

    async def keep(self: Any, tx: Any, lease: Any, *, is_last: bool, **more: Any) -> None:
        await guard(self, tx, lease, is_last=False, **more)

    _replace(sessions.Sessions, guard=keep)


def no_fence() -> None:
    """Whoever had the lease once may write."""
    make = sessions.Sessions.__init__

    def make_unfenced(self: Any, render: Any) -> None:
        make(self, render)
        for name in ("_guard", "_guard_last", "_release", "_renew"):
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


def _of_records(change: Callable[[Any], None]) -> None:
    """Change every call that is read from the store."""
    of = turn.OpenCall.of

    def of_changed(record: Any) -> Any:
        call = of(record)
        change(call)
        return call

    _replace(turn.OpenCall, of=staticmethod(of_changed))


def _replace(place: Any, **parts: Any) -> None:
    """Put other parts into a class or module; what is not there cannot be replaced."""
    for name, part in parts.items():
        assert hasattr(place, name), f"{place} has no {name!r} (any more)"
        setattr(place, name, part)


MUTANTS: dict[str, Callable[[], None]] = {
    mutant.__name__: mutant
    for mutant in (
        no_transaction,
        usage_apart,
        keeps_lease,
        no_fence,
        starts_unseen,
        forgets_death,
        forgets_some_deaths,
        own_keys,
    )
}
