"""Runs a tool's body inside of the transaction that settles its call."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Coroutine, Generator, Sequence
from types import CoroutineType
from typing import Any

from power_loop.contracts.blackboard import BlackboardEntry, BlackboardTransaction
from power_loop.contracts.errors import (
    BlackboardConflictError,
    BlackboardFullError,
    InputError,
    SessionClosedError,
    SessionNotFoundError,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
    StoreUnavailableError,
    TimerLimitError,
    TimerNotFoundError,
)
from power_loop.contracts.errors import TransactionError as MisuseError
from power_loop.contracts.records import CallStep
from power_loop.contracts.schedules import Schedule
from power_loop.contracts.timers import MAX_TIMERS, TimerMaker, TimerRecord, TimerTransaction
from power_loop.contracts.tools import ToolBody
from power_loop.runtime.store.sql.database import Params, RefusedCommitError, Row, T, Transaction
from power_loop.runtime.store.sql.dialect import Dialect
from power_loop.runtime.store.sql.marks import is_single

# What neither ends nor leaves the transaction, on any database: MySQL commits at every CREATE and ALTER.
_ALLOWED = ("SELECT", "INSERT", "UPDATE", "DELETE", "REPLACE", "MERGE", "WITH", "VALUES")
_FIRST_WORD = re.compile(r"(?:\s|\(|--[^\n]*(?:\n|$)|/\*(?!!).*?\*/)*([A-Za-z]*)", re.DOTALL)
#: What the database itself suffers from: the call did not fail by it, and may be made again.
_OF_THE_DATABASE = (StoreUnavailableError, StoreFullError, StoreReadOnlyError)
#: What is refused of a blackboard and of timers before anything is changed: the transaction goes on behind it.
_REFUSED = (
    *(BlackboardConflictError, BlackboardFullError, InputError, SessionNotFoundError),
    *(SessionClosedError, TimerLimitError, TimerNotFoundError),
)


class BodyRaised(Exception):  # noqa: N818  (a signal of this room to its caller, not an error)
    """Says that a tool's body raised something of its own, which no database takes for a failure of its own."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(repr(error))
        self.error = error


class EffectRun:
    """Is a body on its way; the database may run it more than once, and the last run counts.

    `end` makes the step of the call of what the body returned. `tell` hears `effect.before` and `effect.after`.
    """

    def __init__(
        self,
        body: ToolBody,
        end: Callable[[Any], CallStep],
        *,
        dialect: Dialect,
        tell: Callable[[str], None],
    ) -> None:
        self._body = body
        self._end = end
        self._dialect = dialect
        self._tell = tell
        self._error: Exception | None = None
        self._refused: Exception | None = None

    async def step(self, tx: Transaction, board: BlackboardTransaction, timers: TimerTransaction) -> CallStep:
        """Run the body and return the step that settles its call.

        Raises what a statement raised, also where the body kept it to itself, and `BodyRaised` for anything else.
        """
        own = _OwnTransaction(tx, self._dialect, board, timers)
        self._error = self._refused = None
        self._tell("effect.before")
        try:
            step = self._end(await _Watched(self._body(own), own))
        except BaseException as error:  # a stranger's code
            if own.is_stopped:
                raise
            if own.refused is not None and isinstance(error, Exception):
                self._error, self._refused = error, own.refused
                raise own.refused from None
            raise BodyRaised(error) from error
        finally:
            own.is_over = True
        if own.refused is not None:
            self._error = self._refused = own.refused
            raise own.refused
        self._tell("effect.after")
        return step

    def failure(self, raised: StoreError) -> Exception | None:
        """Return what the body died of, where `raised` is what the transaction died of; None if that is the
        database's own trouble."""
        if isinstance(raised, RefusedCommitError):
            # What is checked at COMMIT is the application's: the store has no such constraint.
            return raised
        is_of_a_statement = self._refused is not None and (raised is self._refused or raised.__cause__ is self._refused)
        return self._error if is_of_a_statement and not isinstance(raised, _OF_THE_DATABASE) else None


class _OwnTransaction:
    """Is what a body is given: its statements stand as they are written, on tables of the application's own."""

    __slots__ = ("_dialect", "_tx", "blackboard", "is_busy", "is_over", "is_stopped", "refused", "timers")

    def __init__(
        self, tx: Transaction, dialect: Dialect, board: BlackboardTransaction, timers: TimerTransaction
    ) -> None:
        self._tx = tx
        self.blackboard = _OwnBoard(self, board)
        self.timers = _OwnTimers(self, timers)
        self._dialect = dialect
        self.is_busy = False
        #: Its body has ended.
        self.is_over = False
        #: Its body is ended from outside.
        self.is_stopped = False
        self.refused: Exception | None = None

    async def execute(self, sql: str, params: Params = ()) -> int:
        """Run a statement and return how many rows it changed."""
        changed: int = await self._run(self._tx.execute, sql, _checked(params))
        return changed

    async def execute_many(self, sql: str, rows: Sequence[Params]) -> int:
        """Run a statement once for each of `rows` and return how many rows all of them changed."""
        if not rows:
            return 0
        changed: int = await self._run(self._tx.execute_many, sql, [_checked(row) for row in rows])
        return changed

    async def query(self, sql: str, params: Params = ()) -> list[Row]:
        """Return the rows of a query."""
        rows: list[Row] = await self._run(self._tx.query, sql, _checked(params))
        return rows

    async def _run(self, run: Callable[[str, Any], Coroutine[Any, Any, Any]], sql: str, params: Any) -> Any:
        self.check_free(sql)
        _check(sql, self._dialect)
        return await self.during(run(self._dialect.placeholders(sql), params))

    def check_free(self, what: str) -> None:
        """Raise where nothing more can run."""
        if self.is_over or self.is_busy:
            why = "its body has ended, and what it holds is another's by now" if self.is_over else "another one runs"
            raise MisuseError(f"{what!r:.100} cannot run in the transaction that commits a tool's call: {why}")
        if self.refused is not None:
            raise self.refused

    async def during(self, work: Coroutine[Any, Any, T]) -> T:
        """Await what runs statements of this transaction."""
        self.is_busy = True
        try:
            return await work
        except _REFUSED:
            raise
        except Exception as error:
            self.refused = error
            raise
        finally:
            self.is_busy = False


class _OwnBoard:
    """Is the blackboard as a body is given it."""

    __slots__ = ("_board", "_own")

    def __init__(self, own: _OwnTransaction, board: BlackboardTransaction) -> None:
        self._own = own
        self._board = board

    async def read(
        self,
        *,
        keys: Sequence[str] | None = None,
        prefix: str = "",
        after: str | None = None,
        limit: int = 100,
    ) -> tuple[BlackboardEntry, ...]:
        """Return entries in order of their keys."""
        self._own.check_free("blackboard.read")
        return await self._own.during(self._board.read(keys=keys, prefix=prefix, after=after, limit=limit))

    async def post(self, key: str, value: Any) -> BlackboardEntry:
        """Put a new entry on the board."""
        self._own.check_free("blackboard.post")
        return await self._own.during(self._board.post(key, value))

    async def update(self, key: str, value: Any, *, expected_version: int) -> BlackboardEntry:
        """Change an entry that has this version."""
        self._own.check_free("blackboard.update")
        return await self._own.during(self._board.update(key, value, expected_version=expected_version))

    async def remove(self, key: str, *, expected_version: int) -> None:
        """Take away an entry that has this version."""
        self._own.check_free("blackboard.remove")
        await self._own.during(self._board.remove(key, expected_version=expected_version))


class _OwnTimers:
    """Is the timers of the session as a body is given them."""

    __slots__ = ("_own", "_timers")

    def __init__(self, own: _OwnTransaction, timers: TimerTransaction) -> None:
        self._own = own
        self._timers = timers

    async def schedule(
        self, text: str, schedule: Schedule, *, name: str | None = None, max_timers: int | None = MAX_TIMERS
    ) -> TimerRecord:
        """Make a timer that brings `text` to the session."""
        self._own.check_free("timers.schedule")
        return await self._own.during(self._timers.schedule(text, schedule, name=name, max_timers=max_timers))

    async def cancel(self, timer_id: str, *, made_by: TimerMaker | None = None) -> bool:
        """End a timer of the session, of this maker if one is given; False if it had ended."""
        self._own.check_free("timers.cancel")
        return await self._own.during(self._timers.cancel(timer_id, made_by=made_by))


def _checked(params: Params) -> Params:
    """Return parameters. Raises `store.transaction_misuse` for those that not every database takes."""
    if isinstance(params, (str, bytes)) or not isinstance(params, Sequence):
        raise MisuseError(f"the parameters of a statement are a {type(params).__name__}: give a list or a tuple")
    for number, value in enumerate(params, 1):
        if value is not None and not isinstance(value, (str, int, float, bytes)):
            raise MisuseError(
                f"parameter {number} of a statement is a {type(value).__name__}: give a str, int, float, bool, bytes or"
                " None"
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise MisuseError(f"parameter {number} of a statement is {value!r}, which not every database holds")
    return params


def _check(sql: str, dialect: Dialect) -> None:
    """Raise `store.transaction_misuse` for what could end the transaction."""
    found = _FIRST_WORD.match(sql)
    if found is None or found[1].upper() not in _ALLOWED:
        raise MisuseError(
            f"{sql!r:.100} cannot run in the transaction that commits a tool's call, because it may end it:"
            f" {', '.join(_ALLOWED)} can, and tables are made beforehand"
        )
    if not is_single(sql, dialect.text):
        raise MisuseError(f"{sql!r:.100} is more than one statement, and the second might end it: run one at a time")


class _Watched:
    """Awaits a body, and refuses whatever it awaits beside the statements of its transaction."""

    def __init__(self, coroutine: Any, own: _OwnTransaction) -> None:
        self._coroutine = coroutine
        self._own = own

    def __await__(self) -> Generator[Any, Any, Any]:
        coroutine = self._coroutine
        if not isinstance(coroutine, CoroutineType):
            raise MisuseError(f"the body of a tool's transaction is no async function: it returned {coroutine!r:.100}")
        given: Any = None
        error: BaseException | None = None
        while True:
            try:
                awaited = coroutine.send(given) if error is None else coroutine.throw(error)
            except StopIteration as stop:
                return stop.value
            if not self._own.is_busy:
                # A body that holds on to what it waits for is left where it is.
                with contextlib.suppress(RuntimeError):
                    coroutine.close()
                raise MisuseError(
                    f"a tool's transaction awaited {awaited!r:.200}: its body may await nothing but its transaction, so"
                    " that it never holds the database while it waits; do the rest before it"
                )
            given = error = None
            try:
                given = yield awaited
            except BaseException as raised:  # handed on to the statement that was awaited
                error = raised
                self._own.is_stopped = not isinstance(raised, Exception)
