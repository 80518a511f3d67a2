"""Removes whole sessions, each in one transaction."""

from __future__ import annotations

from power_loop.contracts.errors import PowerLoopError, SessionForkedError
from power_loop.runtime.store.budgets import Budgets
from power_loop.runtime.store.sessions import Sessions, not_found
from power_loop.runtime.store.sql.database import Transaction
from power_loop.runtime.store.sql.dialect import Renderer
from power_loop.runtime.store.sql.rows import SESSION_TABLES

# Forks that an error names.
_NAMED_FORKS = 10


class Removal:
    """Runs the statements that remove a session with everything that is its own, the sessions below it included."""

    def __init__(self, render: Renderer, sessions: Sessions) -> None:
        self._sessions = sessions
        self._budgets = Budgets(render)
        self._lease = render(
            "SELECT owner, lease_until_ms, epoch FROM {sessions} WHERE id = ?" + render.dialect.for_update
        )
        self._below = render("SELECT id FROM {sessions} WHERE parent_id = ? ORDER BY id")
        self._forks = render(f"SELECT id FROM {{sessions}} WHERE forked_from = ? ORDER BY id LIMIT {_NAMED_FORKS + 1}")
        self._deletes = (
            *[render(f"DELETE FROM {{{table.name}}} WHERE session_id = ?") for table in SESSION_TABLES],
            render("DELETE FROM {sessions} WHERE id = ?"),
        )

    async def remove(self, tx: Transaction, session_id: str, *, at_ms: int) -> int | PowerLoopError:
        """Remove a session with those below it and return how many rows that were; an error to raise where the lease of
        one is held or a fork shares its log, with nothing removed. Raises `session.not_found`."""
        if not await tx.query(self._lease, (session_id,)):
            raise not_found(session_id)
        tree, level = [session_id], [session_id]
        while level:
            # Behind the lock on its parent no further child of it is made.
            level = [child for parent in level for (child,) in await tx.query(self._below, (parent,))]
            tree += level
            for child in level:
                await tx.query(self._lease, (child,))
        for one in tree:
            refusal = await self._refusal(tx, one, at_ms=at_ms)
            if refusal is not None:
                return refusal
        for one in tree:
            await self._budgets.settle_left(tx, one)
        return sum([await tx.execute(delete, (one,)) for one in reversed(tree) for delete in self._deletes])

    async def _refusal(self, tx: Transaction, session_id: str, *, at_ms: int) -> PowerLoopError | None:
        [(owner, lease_until_ms, _)] = await tx.query(self._lease, (session_id,))
        if owner is not None and lease_until_ms > at_ms:
            return await self._sessions.refusal(tx, session_id, at_ms=at_ms, needs_open=False)
        forks = [fork_id for (fork_id,) in await tx.query(self._forks, (session_id,))]
        return _has_forks(session_id, forks) if forks else None

    async def epoch(self, tx: Transaction, session_id: str) -> int | None:
        """Return the epoch that a session's lease has reached, and hold its row; None where there is none."""
        rows = await tx.query(self._lease, (session_id,))
        return int(rows[0][2]) if rows else None


def _has_forks(session_id: str, forks: list[str]) -> SessionForkedError:
    shown = ", ".join(map(repr, forks[:_NAMED_FORKS])) + (", …" if len(forks) > _NAMED_FORKS else "")
    return SessionForkedError(
        f"session {session_id!r} stays, because its log is shared by {shown}: delete those first, or export and import"
        " them, which gives them a log of their own",
        session_id=session_id,
        fork_ids=forks[:_NAMED_FORKS],
    )
