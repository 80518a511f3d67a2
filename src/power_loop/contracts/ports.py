"""What the loop asks of a store: the whole list of durable moves and reads, in no database's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from power_loop.contracts.messages import ContentPart
from power_loop.contracts.records import (
    Accepted,
    CallRecord,
    CallStep,
    Claim,
    Lease,
    MessageRecord,
    NewReply,
    NewSend,
    Page,
    SendEnd,
    SendRecord,
    SessionRecord,
    SessionStats,
    SessionView,
)
from power_loop.contracts.states import CallState, SessionState


class SessionStore(Protocol):
    """Keeps sessions. Every method is one transaction or one consistent read; a cancelled caller never leaves one open.

    A write that was begun is carried to its end even if its caller is cancelled. All methods raise `StoreError`s for
    what the database does, and `session.not_found` for an unknown session.
    """

    @property
    def memo(self) -> dict[str, Any]:
        """Scratch space that all handles of one open database share in this process; each user has a key of its own."""
        ...

    async def aclose(self) -> None:
        """Let the database go; the last user closes it."""
        ...

    # ---- sessions ----

    async def create_session(
        self, session_id: str, *, system_prompt: str | None, metadata: Mapping[str, Any]
    ) -> SessionRecord:
        """Make a session. Raises `session.exists`."""
        ...

    async def get_session(self, session_id: str) -> SessionRecord:
        """Return the head of a session."""
        ...

    async def list_sessions(
        self,
        *,
        state: SessionState | None = None,
        metadata: Mapping[str, Any] | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[SessionRecord]:
        """Return a page of sessions, newest first; `metadata` keeps those whose metadata has these top-level values."""
        ...

    async def update_session(
        self,
        session_id: str,
        *,
        system_prompt: str | None = None,
        clear_system_prompt: bool = False,
        metadata: Mapping[str, Any] | None = None,
    ) -> SessionRecord:
        """Change the prompt and/or replace the metadata, and count `version` up. What is None stays."""
        ...

    async def close_session(self, session_id: str) -> bool:
        """Close a session to input; False if it was closed before.

        Raises `session.busy` while a turn holds its lease.
        """
        ...

    # ---- reads ----

    async def read_view(self, session_id: str) -> SessionView:
        """Return everything a turn needs to know, read in one snapshot."""
        ...

    async def get_messages(
        self, session_id: str, *, after_seq: int = 0, limit: int | None = None
    ) -> tuple[MessageRecord, ...]:
        """Return messages in order of `seq`, those after `after_seq`, at most `limit`."""
        ...

    async def get_calls(self, session_id: str, *, states: Sequence[CallState] | None = None) -> tuple[CallRecord, ...]:
        """Return calls of the ledger in order, of these states only if given."""
        ...

    async def get_send(
        self, session_id: str, *, index: int | None = None, request_id: str | None = None
    ) -> SendRecord | None:
        """Return a send by its index or its request id; the last one if neither is given. None if there is none.

        Raises `input.invalid` for what can be no request id.
        """
        ...

    async def get_tool_result(self, session_id: str, call_id: str) -> tuple[ContentPart, ...] | None:
        """Return the whole result of a call, also where the log shows the model only a preview; None if it has none."""
        ...

    async def get_stats(self, session_id: str) -> SessionStats:
        """Return what a session took so far."""
        ...

    # ---- the durable moves of a turn ----

    async def accept(self, claim: Claim, new: NewSend) -> Accepted | SendRecord:
        """Take the lease and store the input of a new send, or return the send that has this `request_id` already.

        A send that an earlier process left `running` without open calls becomes `interrupted`. Raises `session.closed`,
        `session.busy`, `session.pending` (open calls), `request.conflict`.
        """
        ...

    async def take_up(self, claim: Claim) -> Accepted:
        """Take the lease to drive the last send on: it becomes `running` and its `attempts` count up.

        Raises `session.busy`.
        """
        ...

    async def append_reply(self, lease: Lease, reply: NewReply) -> None:
        """Store a reply, its calls, its usage and, if the send ends with it, the end. Raises `session.lease_lost`."""
        ...

    async def advance_calls(
        self,
        lease: Lease,
        steps: Sequence[CallStep],
        *,
        at_seq: int,
        send_index: int,
        round: int,
        tool_state: Mapping[str, Any] | None = None,
        end: SendEnd | None = None,
    ) -> None:
        """Make steps of the ledger; their messages get the seqs from `at_seq` on, in the order given.

        `tool_state` replaces the session's dict for tools. A step that `CALL_STEPS` does not allow from where the row
        stands is `store.corrupt`, and nothing is written. Raises `session.lease_lost`.
        """
        ...

    async def end_send(self, lease: Lease, send_index: int, end: SendEnd) -> None:
        """Bring a send to rest and release the lease. Raises `session.lease_lost`."""
        ...

    async def renew(self, lease: Lease, *, ttl_s: float) -> None:
        """Lengthen the lease. Raises `session.lease_lost`."""
        ...

    async def release(self, lease: Lease) -> None:
        """Give the lease back without another change; does nothing if it is lost already."""
        ...
