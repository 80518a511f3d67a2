"""Finds the sessions that nobody drives although something is to be done, by index and never by walking all of them."""

from __future__ import annotations

from collections.abc import Sequence

from power_loop.contracts.clock import Clock
from power_loop.contracts.records import StalledSession
from power_loop.contracts.states import SendStatus
from power_loop.runtime.store.codec import decode_choice
from power_loop.runtime.store.sql.database import Database, Row, Transaction
from power_loop.runtime.store.sql.dialect import Renderer

_MAX_INTEGER = (1 << 63) - 1


class Stalled:
    """Reads leases that are over, leases of dead owners, and inboxes of sessions at rest."""

    def __init__(self, render: Renderer) -> None:
        columns = (
            "SELECT s.id, s.owner, s.epoch, s.lease_until_ms, s.inbox_count - s.inbox_taken, p.status, s.send_count,"
            " COALESCE(p.attempts, 0)"
        )
        last_send = "LEFT JOIN {sends} p ON p.session_id = s.id AND p.idx = s.send_count"
        # A lease that is free is at 0: where no index leaves those out, the lower bound does.
        held = (
            f"{columns} FROM {{sessions}} s {last_send} WHERE s.owner IS NOT NULL AND s.lease_until_ms BETWEEN 1 AND ?"
            # What somebody waits for and pays for goes on with the send of theirs, as long as that runs.
            " AND (p.paid_by IS NULL OR p.status <> 'running' OR NOT EXISTS (SELECT 1 FROM {sends} y"
            " WHERE y.session_id = p.paid_by AND y.idx = p.paid_by_send AND y.status = 'running'))"
        )
        self._expired = render(f"{held} ORDER BY s.lease_until_ms, s.id LIMIT ?")
        self._of_owner = render(
            f"{held} AND s.lease_until_ms > ? AND s.owner = ? ORDER BY s.lease_until_ms, s.id LIMIT ?"
        )
        # What a worker can do something about: a dead turn, or inputs in a session that waits for no person.
        has_work = (
            " AND (p.status = 'running' OR (s.inbox_count > s.inbox_taken AND s.state = 'open'"
            " AND COALESCE(p.status, '') <> 'waiting_for_input'))"
        )
        self._expired_work = render(f"{held}{has_work} ORDER BY s.lease_until_ms, s.id LIMIT ?")
        self._work_of_owner = render(
            f"{held} AND s.lease_until_ms > ? AND s.owner = ?{has_work} ORDER BY s.lease_until_ms, s.id LIMIT ?"
        )
        self._owners = render(
            "SELECT DISTINCT owner FROM {sessions} WHERE owner IS NOT NULL AND lease_until_ms BETWEEN ? AND ?"
        )
        self._waiting = render(
            f"{columns} FROM (SELECT i.session_id, MIN(i.created_at_ms) AS created_at_ms FROM {{inbox}} i"
            " WHERE i.taken_at_ms IS NULL GROUP BY i.session_id) w JOIN {sessions} s ON s.id = w.session_id"
            f" {last_send} WHERE w.created_at_ms <= ? AND s.owner IS NULL AND s.state = 'open' LIMIT ?"
        )

        # A session waits since its first input came, or since its last send began: who was served last comes last.
        self._waiting_work = render(
            f"{columns} FROM (SELECT i.session_id, MIN(i.created_at_ms) AS since_ms FROM {{inbox}} i"
            " WHERE i.taken_at_ms IS NULL GROUP BY i.session_id) w JOIN {sessions} s ON s.id = w.session_id"
            f" {last_send} WHERE s.owner IS NULL AND s.state = 'open' AND COALESCE(p.status, '') <> 'waiting_for_input'"
            " AND (COALESCE(p.status, '') <> 'failed' OR p.ended_at_ms <= ?)"
            " ORDER BY CASE WHEN p.started_at_ms > w.since_ms THEN p.started_at_ms ELSE w.since_ms END, s.id LIMIT ?"
        )

    async def owners(self, tx: Transaction, *, at_ms: int) -> tuple[str, ...]:
        """Return who holds leases that are not over."""
        return tuple([owner for (owner,) in await tx.query(self._owners, (at_ms + 1, _MAX_INTEGER))])

    async def find(
        self, tx: Transaction, *, at_ms: int, dead_owners: Sequence[str], older_than_ms: int, limit: int
    ) -> tuple[StalledSession, ...]:
        """Return what is stalled, at most `limit`."""
        since_ms = at_ms - older_than_ms
        rows = list(await tx.query(self._expired, (since_ms, limit)))
        for owner in dead_owners:
            if len(rows) < limit:
                rows += await tx.query(self._of_owner, (_MAX_INTEGER, at_ms, owner, limit - len(rows)))
        if len(rows) < limit:
            rows += await tx.query(self._waiting, (since_ms, limit - len(rows)))
        return tuple([_record_of(row) for row in rows])

    async def work(
        self, tx: Transaction, *, at_ms: int, dead_owners: Sequence[str], failed_within_ms: int, limit: int
    ) -> tuple[StalledSession, ...]:
        """Return what somebody can do something about, dead turns first, at most `limit`."""
        rows = list(await tx.query(self._expired_work, (at_ms, limit)))
        for owner in dead_owners:
            if len(rows) < limit:
                rows += await tx.query(self._work_of_owner, (_MAX_INTEGER, at_ms, owner, limit - len(rows)))
        if len(rows) < limit:
            rows += await tx.query(self._waiting_work, (at_ms - failed_within_ms, limit - len(rows)))
        return tuple([_record_of(row) for row in rows])


class StalledReads:
    """Reads them with the time of the store."""

    def __init__(self, database: Database, clock: Clock, stalled: Stalled) -> None:
        self._database = database
        self._clock = clock
        self._stalled = stalled

    async def owners(self) -> tuple[str, ...]:
        """Return who holds leases that are not over."""
        at_ms = self._clock.now_ms()
        return await self._database.read(lambda tx: self._stalled.owners(tx, at_ms=at_ms))

    async def find(self, *, dead_owners: Sequence[str], older_than_ms: int, limit: int) -> tuple[StalledSession, ...]:
        """Return what is stalled."""
        at_ms = self._clock.now_ms()
        return await self._database.read(
            lambda tx: self._stalled.find(
                tx, at_ms=at_ms, dead_owners=dead_owners, older_than_ms=older_than_ms, limit=limit
            )
        )


def _record_of(row: Row) -> StalledSession:
    session_id, owner, epoch, until_ms, waiting, status, index, attempts = row
    where = f"status of send {index} of session {session_id!r}"
    return StalledSession(
        session_id=session_id,
        owner=owner or None,
        epoch=epoch,
        lease_until_ms=until_ms,
        waiting_inputs=waiting,
        send_status=None if status is None else decode_choice(SendStatus, status, where),
        send_index=index,
        attempts=attempts,
    )
