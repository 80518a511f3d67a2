"""Keeps the tree of sessions: who made a session for an agent of theirs, and what all below one of them took."""

from __future__ import annotations

from typing import Any

from power_loop.contracts.budgets import sum_of_costs
from power_loop.contracts.errors import AgentLimitError, SessionExistsError
from power_loop.contracts.messages import clean_text
from power_loop.contracts.records import ChildSpending, Lease, NewChild, SessionRecord
from power_loop.runtime.store.codec import encode_json
from power_loop.runtime.store.lineage import END_OF_LOG, clipped
from power_loop.runtime.store.sends import Sends
from power_loop.runtime.store.sessions import Sessions, not_found
from power_loop.runtime.store.sql.database import DuplicateKeyError, Transaction
from power_loop.runtime.store.sql.dialect import Renderer
from power_loop.runtime.store.sql.rows import insert_into, row_params
from power_loop.runtime.store.sql.tables import SESSION_DETAILS, SESSIONS
from power_loop.runtime.store.usage import ModelCalls, Spent


class Children:
    """Runs the statements on the tree, inside of others' transactions."""

    def __init__(self, render: Renderer, *, sessions: Sessions, sends: Sends, model_calls: ModelCalls) -> None:
        self._sessions = sessions
        self._sends = sends
        self._model_calls = model_calls
        # Held to the end, so that the children of a send are counted one after the other.
        self._hold = render("SELECT owner, epoch FROM {sessions} WHERE id = ?" + render.dialect.for_update)
        self._count = render("SELECT COUNT(*) FROM {sessions} WHERE parent_id = ? AND parent_send = ?")
        self._parent_of = render("SELECT parent_id FROM {sessions} WHERE id = ?")
        self._below = render("SELECT id FROM {sessions} WHERE parent_id = ? ORDER BY id")
        self._insert_session = render(insert_into(SESSIONS))
        self._insert_details = render(insert_into(SESSION_DETAILS))

    async def create(self, tx: Transaction, lease: Lease | None, new: NewChild, *, at_ms: int, op: str) -> bool:
        """Make a session for an agent; False where it is there already.

        Under a `lease` of the parent's. Raises `session.lease_lost`, `session.not_found` for the parent,
        `session.exists` for an id that is another one's, `agent.limit`.
        """
        if new.parent_id is not None:
            rows = await tx.query(self._hold, (new.parent_id,))
            if not rows:
                raise not_found(new.parent_id)
            if lease is not None and rows[0] != (lease.owner, lease.epoch):
                await self._sessions.raise_lost(tx, lease, None)
        known = await tx.query(self._parent_of, (new.session_id,))
        if known:
            if known[0][0] == new.parent_id:
                return False
            raise _exists(new.session_id)
        await self._check_count(tx, new)
        head: dict[str, Any] = {
            "id": new.session_id,
            "state": "open",
            "created_at_ms": at_ms,
            "updated_at_ms": at_ms,
            "next_seq": 1,
            # An epoch that no deleted session of this id can have reached: what was known of that one is stale.
            "epoch": at_ms,
            "last_op": op,
            "parent_id": new.parent_id,
            "parent_send": new.parent_send,
            "root_id": new.root_id,
            "depth": new.depth,
        }
        details = {
            "session_id": new.session_id,
            "system_prompt": None if new.system_prompt is None else clean_text(new.system_prompt),
            "metadata": encode_json(new.metadata, "metadata of a session"),
            "tool_state": "{}",
            "agent": encode_json(new.agent, "agent of a session"),
        }
        try:
            await tx.execute(self._insert_session, row_params(SESSIONS, head))
        except DuplicateKeyError as error:
            raise _exists(new.session_id) from error
        await tx.execute(self._insert_details, row_params(SESSION_DETAILS, details))
        return True

    async def _check_count(self, tx: Transaction, new: NewChild) -> None:
        if new.max_children is None:
            return
        [(count,)] = await tx.query(self._count, (new.parent_id, new.parent_send))
        if count >= new.max_children:
            raise AgentLimitError(
                f"send {new.parent_send} of session {new.parent_id!r} has {count} sub-agents, and at most"
                f" {new.max_children} are made: go on with what they found, or raise LoopConfig.max_children",
                limit="max_children",
            )

    async def children(self, tx: Transaction, session_id: str) -> tuple[SessionRecord, ...]:
        """Return the sessions directly below one."""
        rows = await tx.query(self._below, (session_id,))
        return tuple([await self._sessions.get(tx, child_id) for (child_id,) in rows])

    async def ids_below(self, tx: Transaction, session_id: str) -> list[str]:
        """Return the ids of all sessions below one; those above stand before those below them."""
        found, level = [], [session_id]
        while level:
            level = [child for parent in level for (child,) in await tx.query(self._below, (parent,))]
            found += level
        return found

    async def spent_below(self, tx: Transaction, session_id: str) -> tuple[int, Spent]:
        """Return how many sessions stand below one, and what all of them took."""
        ids, total = await self.ids_below(tx, session_id), Spent()
        for child_id in ids:
            spans = await self._sessions.spans(tx, child_id)
            spent = await self._model_calls.spent(tx, clipped(spans, from_seq=0, to_seq=END_OF_LOG))
            total += spent
        return len(ids), total

    async def spending(self, tx: Transaction, session_id: str, send_index: int) -> tuple[ChildSpending, ...]:
        """Return what each send took that a send pays for, everything below it included."""
        found = []
        for child_id, index in await self._sends.paid_by(tx, session_id, send_index):
            send = await self._sends.get(tx, child_id, index=index)
            assert send is not None
            usage, rounds, calls = send.usage + send.dropped_usage, send.rounds, send.tool_calls
            cost_nanos = sum_of_costs(send.cost_nanos, send.dropped_cost_nanos)
            for one in await self.spending(tx, child_id, index):
                cost_nanos = sum_of_costs(cost_nanos, one.cost_nanos)
                usage, rounds, calls = usage + one.usage, rounds + one.model_calls, calls + one.tool_calls
            found.append(ChildSpending(child_id, index, usage, rounds, calls, cost_nanos))
        return tuple(found)


def _exists(session_id: str) -> SessionExistsError:
    return SessionExistsError(
        f"session {session_id!r} exists already and is another one's: give another id", session_id=session_id
    )
