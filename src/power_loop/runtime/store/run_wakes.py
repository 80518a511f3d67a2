"""Lets a workflow's run that rests be driven on by whoever finds it: its lease becomes nobody's, and is long over."""

from __future__ import annotations

from power_loop.runtime.store.sessions import Sessions
from power_loop.runtime.store.sql.database import Transaction
from power_loop.runtime.store.sql.dialect import Renderer


class RunWakes:
    """Runs the statements, inside of others' transactions: what a run waited for and its waking are one move."""

    def __init__(self, render: Renderer, sessions: Sessions) -> None:
        self._sessions = sessions
        waits = "status = 'waiting_for_input' AND idx = (SELECT h.send_count FROM {sessions} h WHERE h.id = ?)"
        self._free = render(
            "UPDATE {sessions} SET owner = '', lease_until_ms = 1, updated_at_ms = ?, tick = tick + 1"
            " WHERE id = ? AND owner IS NULL AND state = 'open' AND EXISTS (SELECT 1 FROM {workflow_runs} r"
            " WHERE r.session_id = {sessions}.id AND r.ended_at_ms IS NULL) AND EXISTS (SELECT 1 FROM {sends} p"
            " WHERE p.session_id = {sessions}.id AND p.idx = {sessions}.send_count AND p.status = 'waiting_for_input')"
        )
        # Whoever takes it up counts one more, as it does of what a dead process left: here nobody died.
        self._run_on = render(
            "UPDATE {sends} SET status = 'running', result = NULL, ended_at_ms = NULL,"
            f" attempts = CASE WHEN attempts > 0 THEN attempts - 1 ELSE 0 END WHERE session_id = ? AND {waits}"
        )
        self._run = render("SELECT 1 FROM {workflow_runs} WHERE session_id = ?")
        self._touch = render("UPDATE {workflow_runs} SET state = 'running', updated_at_ms = ? WHERE session_id = ?")
        self._hear = render("UPDATE {sessions} SET signals = signals + 1, tick = tick + 1 WHERE id = ?")

    async def is_run(self, tx: Transaction, session_id: str) -> bool:
        """Tell whether a session is a run's."""
        return bool(await tx.query(self._run, (session_id,)))

    async def wake(self, tx: Transaction, run_id: str, *, at_ms: int) -> bool:
        """Wake a run that rests, or let the engine that drives it hear that there is news; True where it rested."""
        await tx.execute(self._hear, (run_id,))
        if not await tx.execute(self._free, (at_ms, run_id)):
            return False
        await tx.execute(self._run_on, (run_id, run_id))
        await tx.execute(self._touch, (at_ms, run_id))
        await self._sessions.tell_of_work(tx, run_id)
        return True
