"""Is what an operator asks of a store: archives, forks, removal, prunes, and the care of the database itself."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import Any

from power_loop.contracts.choices import choice_of
from power_loop.contracts.clock import Clock
from power_loop.contracts.errors import (
    PowerLoopError,
    SessionExistsError,
    StoreCorruptError,
)
from power_loop.contracts.numbers import check_whole
from power_loop.contracts.session_ids import check_session_id, is_session_id
from power_loop.contracts.upkeep import BackedUp, Checkpointed, OnConflict, Pruned, Vacuumed
from power_loop.runtime.store.archive import Archives
from power_loop.runtime.store.archive_checks import check_archive
from power_loop.runtime.store.archive_format import MAX_ARCHIVE_BYTES, read_archive, write_archive
from power_loop.runtime.store.codec import encode_json
from power_loop.runtime.store.commits import new_op
from power_loop.runtime.store.forks import Forks
from power_loop.runtime.store.originals import CompactedPruning
from power_loop.runtime.store.pruning import OnProgress, Pruning, checked_age_ms
from power_loop.runtime.store.removal import Removal
from power_loop.runtime.store.sessions import Sessions, not_found
from power_loop.runtime.store.sql.database import Database, T, Transaction
from power_loop.runtime.store.sql.dialect import Renderer
from power_loop.runtime.store.sql.tables import TABLES

# So often an import is tried anew while others make the very same session.
_MORE_IMPORTS = 20


class Operations:
    """Looks after sessions and their database. None of it runs a turn, and none of it touches a session whose lease is
    held, but for reading it."""

    _database: Database
    _clock: Clock
    _render: Renderer
    _heads: Sessions

    # ---- archives ----

    async def export_session(self, session_id: str, *, include_inbox: bool = False) -> bytes:
        """Return a session as an archive: lines of JSON, the first of which tells format, version, counts and checksum.

        It is one consistent snapshot, and the same bytes on every backend; a fork's archive holds its whole history.
        A lease, an approval that was not used yet and the inputs that wait in the inbox stay behind; `include_inbox`
        takes the inputs along, which then are delivered in both places.
        """
        _known_id(session_id)
        archives = Archives(self._render)

        async def body(tx: Transaction) -> Mapping[str, Any]:
            return await archives.read(tx, session_id, with_inbox=include_inbox)

        rows = await self._database.read(body)
        try:
            return write_archive(session_id, rows)
        except (TypeError, ValueError) as error:
            raise StoreCorruptError(
                f"session {session_id!r} cannot be exported, because a row of it holds a value that is no text and no"
                f" number ({error}): store.diagnose() and power-loop doctor tell where"
            ) from error

    async def import_session(
        self,
        archive: bytes | str,
        *,
        session_id: str | None = None,
        on_conflict: OnConflict | str = OnConflict.RAISE,
        max_bytes: int = MAX_ARCHIVE_BYTES,
    ) -> str:
        """Write the session of an archive, all of it or nothing, and return its id, which is that of the archive unless
        `session_id` or a conflict gives it another one.

        Nothing runs by it: a session that was in mid-turn stands as after a crash, where `resume()` treats a call that
        had started by its effect. Raises `archive.invalid`, `session.exists`; with `replace` also `session.busy` and
        `session.has_forks`.
        """
        choice = choice_of(OnConflict, on_conflict, "on_conflict")
        if session_id is not None:
            check_session_id(session_id)
        check_whole("max_bytes", max_bytes, least=1)
        found = read_archive(archive, max_bytes=max_bytes)
        check_archive(found)
        wanted = found.session_id if session_id is None else session_id
        spare_id = self._clock.new_id("sess")
        archives, removal = Archives(self._render), self._removal()
        at_ms, op = self._clock.now_ms(), new_op()

        async def body(tx: Transaction) -> str | PowerLoopError:
            # An epoch that no earlier session of this id has reached: what a process knows of that one is stale.
            name, epoch = wanted, at_ms
            if choice is not OnConflict.RAISE:
                last_epoch = await removal.epoch(tx, wanted)
                if last_epoch is not None and choice is OnConflict.RENAME:
                    name = spare_id
                elif last_epoch is not None:
                    refusal = await removal.remove(tx, wanted, at_ms=at_ms)
                    if isinstance(refusal, PowerLoopError):
                        return refusal
                    epoch = max(epoch, last_epoch + 1)
            await archives.write(tx, found, name, epoch=epoch, op=op)
            return name

        async def landed(tx: Transaction) -> bool:
            return any([await self._heads.has_op(tx, name, op) for name in (wanted, spare_id)])

        for _ in range(0 if choice is OnConflict.RAISE else _MORE_IMPORTS):
            # Whoever made it between the look and the write: what is to happen then has been said.
            with contextlib.suppress(SessionExistsError):
                return _raised(await self._database.write("import_session", body, landed=landed))
        return _raised(await self._database.write("import_session", body, landed=landed))

    # ---- forks and removal ----

    async def fork_session(
        self,
        session_id: str,
        *,
        at: int | None = None,
        fork_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> str:
        """Make a session that shares this one's log up to the message `at` and goes on by itself; return its id.

        No message is copied. Without `at` it is the last message at which no call is open; prompt and metadata come
        along, the dict of the tools only where the fork leaves at the end of the log. A send in which it leaves is
        `interrupted` there. Raises `session.not_found`, `session.exists`, `input.invalid` for an `at` at which calls
        have no answer, or that is no seq.
        """
        _known_id(session_id)
        if fork_id is not None:
            check_session_id(fork_id)
        name = self._clock.new_id("sess") if fork_id is None else fork_id
        text = None if metadata is None else encode_json(metadata, "metadata of a session")
        forks, at_ms, op = Forks(self._render), self._clock.now_ms(), new_op()

        async def body(tx: Transaction) -> None:
            await forks.fork(tx, session_id, name, at_seq=at, metadata=text, at_ms=at_ms, op=op)

        await self._database.write("fork_session", body, landed=lambda tx: self._heads.has_op(tx, name, op))
        return name

    async def delete_session(self, session_id: str) -> Pruned:
        """Remove a session and everything that is its own, the sessions of its sub-agents included, in one transaction.

        Raises `session.not_found`, `session.busy` while the lease of one of them is held, and `session.has_forks` while
        others share its log.
        """
        _known_id(session_id)
        at_ms, removal = self._clock.now_ms(), self._removal()

        async def body(tx: Transaction) -> int | PowerLoopError:
            return await removal.remove(tx, session_id, at_ms=at_ms)

        async def landed(tx: Transaction) -> bool:
            # It was there when the body ran.
            return await removal.epoch(tx, session_id) is None

        outcome = await self._database.write("delete_session", body, landed=landed)
        return Pruned(rows=_raised(outcome), sessions=1)

    # ---- prunes ----

    async def prune_sessions(
        self, *, older_than_s: float, include_open: bool = False, on_progress: OnProgress | None = None
    ) -> Pruned:
        """Remove closed sessions that nothing changed for so many seconds; open ones too if `include_open` says so.

        `on_progress` hears after each transaction what is gone so far; what it raises ends the prune there.
        Sessions whose lease is held, or whose log a remaining fork shares, stay and are counted as skipped.
        """
        at_ms, before_ms = self._times(older_than_s)
        return await self._pruning().sessions(
            before_ms=before_ms, at_ms=at_ms, with_open=include_open, tell=on_progress
        )

    async def prune_tool_results(
        self, session_id: str | None = None, *, older_than_s: float = 0.0, on_progress: OnProgress | None = None
    ) -> Pruned:
        """Remove whole results of calls that ended so many seconds ago, of one session or of all.

        What the model was shown of them stays in the log; asking for one raises `call.result_pruned`. Images, files and
        sounds that nothing else shows go with them, and `freed_bytes` is what all of it held.
        """
        at_ms, before_ms = self._times(older_than_s)
        await self._check_there(session_id)
        touched: set[str] = set()
        gone = await self._pruning().whole_results(
            session_id, before_ms=before_ms, at_ms=at_ms, touched=touched, tell=on_progress
        )
        originals = CompactedPruning(self._database, self._render)
        for owner in sorted(touched):
            gone += await originals.unshown_blobs(owner, at_ms=at_ms)
            if on_progress is not None:
                on_progress(gone)
        return gone

    async def prune_inbox(
        self, session_id: str | None = None, *, older_than_s: float = 0.0, on_progress: OnProgress | None = None
    ) -> Pruned:
        """Forget inputs that left their inbox so many seconds ago, of one session or of all.

        Their messages stay. A request id is recognized no longer if its input was forgotten.
        """
        at_ms, before_ms = self._times(older_than_s)
        await self._check_there(session_id)
        return await self._pruning().inputs(session_id, before_ms=before_ms, at_ms=at_ms, tell=on_progress)

    async def prune_timers(
        self, session_id: str | None = None, *, older_than_s: float = 0.0, on_progress: OnProgress | None = None
    ) -> Pruned:
        """Forget timers that ended so many seconds ago, of one session or of all. An id is recognized no longer if its
        timer was forgotten."""
        _, before_ms = self._times(older_than_s)
        await self._check_there(session_id)
        return await self._pruning().timers(session_id, before_ms=before_ms, tell=on_progress)

    async def prune_compacted_messages(
        self, session_id: str | None = None, *, on_progress: OnProgress | None = None
    ) -> Pruned:
        """Remove the messages that the newest fold of a session stands for, with their whole results, of one session or
        of all; `freed_bytes` is what they held.

        What is pinned, the recorded answers of sends, and everything that a fork of the session shows stay. No prompt
        changes by it; but what is gone can be recalled, searched and exported no more, and no fork can leave there.
        """
        at_ms, _ = self._times(0.0)
        await self._check_there(session_id)
        return await CompactedPruning(self._database, self._render).prune(session_id, at_ms=at_ms, tell=on_progress)

    # ---- the database itself ----

    async def vacuum(self) -> Vacuumed:
        """Give space that removed rows left back to the disk. SQLite: the file is written anew, which takes as much
        free space again and holds writers up; PostgreSQL: `VACUUM (ANALYZE)`; MySQL: `OPTIMIZE TABLE`.
        """
        return await self._database.vacuum([self._render.prefix + table.name for table in TABLES])

    async def checkpoint(self) -> Checkpointed:
        """Bring everything that stands in SQLite's write-ahead log into the file, and empty the log.

        Other databases see to that by themselves: nothing is done there.
        """
        return await self._database.checkpoint()

    async def backup(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> BackedUp:
        """Write a SQLite database as it is at one moment into a file of its own, while others go on writing.

        The file appears when it is whole, is on the disk, and was looked through. Raises `input.invalid` where there is
        a file already, `store.unsupported` on a server, whose own tools do that.
        """
        return await self._database.backup(os.fspath(path), overwrite=overwrite)

    # ---- parts ----

    def _removal(self) -> Removal:
        return Removal(self._render, self._heads)

    def _pruning(self) -> Pruning:
        return Pruning(self._database, self._render, self._removal())

    def _times(self, older_than_s: Any) -> tuple[int, int]:
        """Return the time, and that before which something is old enough."""
        at_ms = self._clock.now_ms()
        return at_ms, at_ms - checked_age_ms(older_than_s)

    async def _check_there(self, session_id: str | None) -> None:
        if session_id is None:
            return
        _known_id(session_id)

        async def body(tx: Transaction) -> None:
            await self._heads.get(tx, session_id)

        await self._database.read(body)


def _known_id(session_id: str) -> None:
    if not is_session_id(session_id):
        raise not_found(session_id)


def _raised(outcome: T | PowerLoopError) -> T:
    """Return what a transaction gave back; raise it if it is an error, for whose sake nothing had to be undone."""
    if isinstance(outcome, PowerLoopError):
        raise outcome
    return outcome
