"""Removes the originals that a fold stands for, as far as nothing shows them or points at them any more."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from power_loop.contracts.frozen import frozen
from power_loop.contracts.records import FoldRecord
from power_loop.contracts.upkeep import Pruned
from power_loop.runtime.store.blobs import referred
from power_loop.runtime.store.codec import BLOB_MEMBER, decode_json
from power_loop.runtime.store.folds import Folds, pinned_seqs
from power_loop.runtime.store.lineage import spans_of
from power_loop.runtime.store.pruning import IS_FREE, PAGE_ROWS, OnProgress, id_range
from power_loop.runtime.store.sql.database import Database, Params, Row, Transaction
from power_loop.runtime.store.sql.dialect import Renderer

# Forks, and forks of these, that are looked at; a session that has more keeps its originals.
_MAX_FORKS = 1_000


_Remove = Callable[[Transaction, str, "_Plan", Sequence[Row], int], Coroutine[Any, Any, Pruned]]


@frozen
class _Plan:
    """Is what of a session may go: everything up to `to_seq` that is not in `kept`, which its own rows point at."""

    to_seq: int
    kept: frozenset[int]


class CompactedPruning:
    """Prunes what folds cover, in small transactions: what was done stays done if the rest is not, and a second run
    goes on. A session whose lease is held is left alone."""

    def __init__(self, database: Database, render: Renderer) -> None:
        self._database = database
        self._folds = Folds(render)
        size = render.dialect.byte_length
        self._sessions = render(
            "SELECT DISTINCT f.session_id FROM {folds} f WHERE f.session_id > ? AND f.session_id >= ?"
            f" AND f.session_id <= ? ORDER BY f.session_id LIMIT {PAGE_ROWS}"
        )
        # The end of a log is never pruned: a fold that was made there waits until the log has gone on.
        self._newest = render(
            "SELECT MAX(f.to_seq) FROM {folds} f JOIN {sessions} s ON s.id = f.session_id"
            " WHERE f.session_id = ? AND f.last_seq < s.next_seq - 1"
        )
        self._pins = render("SELECT pinned, text_seq FROM {folds} WHERE session_id = ? AND to_seq >= ?")
        self._results = render(
            "SELECT idx, result FROM {sends} WHERE session_id = ? AND idx > ? AND first_seq <= ?"
            f" AND result IS NOT NULL ORDER BY idx LIMIT {PAGE_ROWS}"
        )
        self._forks = render(
            "SELECT s.id, d.lineage FROM {sessions} s JOIN {session_details} d ON d.session_id = s.id"
            f" WHERE s.forked_from = ? ORDER BY s.id LIMIT {_MAX_FORKS + 1}"
        )
        self._guard = render(f"UPDATE {{sessions}} SET tick = tick + 1 WHERE id = ? AND {IS_FREE.replace('s.', '')}")
        self._still = render(
            f"UPDATE {{sessions}} SET tick = tick + 1 WHERE id = ? AND tick = ? AND {IS_FREE.replace('s.', '')}"
        )
        self._tick = render("SELECT tick FROM {sessions} WHERE id = ?")
        self._mark = render(
            "UPDATE {folds} SET pruned_at_ms = ? WHERE session_id = ? AND to_seq <= ? AND pruned_at_ms IS NULL"
        )
        self._messages = render(
            f"SELECT seq, {size('body')} FROM {{messages}} WHERE session_id = ? AND seq > ? AND seq <= ?"
            f" ORDER BY seq LIMIT {PAGE_ROWS}"
        )
        self._delete_message = render("DELETE FROM {messages} WHERE session_id = ? AND seq = ?")
        self._whole = render(
            f"SELECT r.reply_seq, r.idx, {size('r.body')}, c.result_seq FROM {{tool_calls}} c JOIN {{tool_results}} r"
            " ON r.session_id = c.session_id AND r.reply_seq = c.reply_seq AND r.idx = c.idx"
            " WHERE c.session_id = ? AND c.reply_seq < ? AND c.result_seq >= ? AND c.result_seq <= ?"
        )
        self._delete_whole = render("DELETE FROM {tool_results} WHERE session_id = ? AND reply_seq = ? AND idx = ?")
        self._projected = render(
            f"SELECT seq, {size('body')} FROM {{project_messages}} WHERE session_id = ? AND seq > ? AND seq <= ?"
            f" ORDER BY seq LIMIT {PAGE_ROWS}"
        )
        self._delete_projected = render("DELETE FROM {project_messages} WHERE session_id = ? AND seq = ?")
        self._blobs = render(f"SELECT digest, {size('data')} FROM {{blobs}} WHERE session_id = ? ORDER BY digest")
        self._delete_blob = render("DELETE FROM {blobs} WHERE session_id = ? AND digest = ?")
        contains = render.dialect.contains("body")
        self._bodies = tuple(
            render(
                f"SELECT {', '.join(key)}, body FROM {{{table}}} WHERE session_id = ? AND ({key[0]} > ?"
                f" OR ({key[0]} = ? AND {key[-1]} > ?)) AND {contains} ORDER BY {', '.join(key)} LIMIT {PAGE_ROWS}"
            )
            for table, key in (
                ("messages", ("seq",)),
                ("tool_results", ("reply_seq", "idx")),
                ("project_messages", ("seq",)),
            )
        )

    async def prune(self, session_id: str | None, *, at_ms: int, tell: OnProgress | None = None) -> Pruned:
        """Remove originals of one session or of all."""
        total = Pruned()
        low, high = id_range(session_id)
        last = ""
        while True:
            found = await self._read(self._sessions, (last, low, high))
            for (owner,) in found:
                total += await self._session(owner, at_ms)
                if tell is not None:
                    tell(total)
            if len(found) < PAGE_ROWS:
                return total
            last = found[-1][0]

    async def _session(self, session_id: str, at_ms: int) -> Pruned:
        plan = await self._plan(session_id)
        if plan is None:
            return Pruned()
        total = Pruned()
        for select, remove in (
            (self._messages, self._remove_messages),
            (self._projected, self._remove_projected),
        ):
            last = 0
            while True:
                rows = await self._read(select, (session_id, last, plan.to_seq))

                async def body(tx: Transaction, rows: Sequence[Row] = rows, remove: _Remove = remove) -> Pruned | None:
                    # First, so that no turn begins and nobody makes a fork meanwhile.
                    if not await tx.execute(self._guard, (session_id, at_ms)):
                        return None
                    shown = await self._shown_by_forks(tx, session_id)
                    if shown is None:
                        return None
                    gone = [row for row in rows if not any(low < row[0] <= high for low, high in shown)]
                    return await remove(tx, session_id, plan, gone, at_ms)

                removed = await self._database.write("prune_compacted", body) if rows else Pruned()
                if removed is None:
                    return total + Pruned(skipped=1)
                total += removed
                if len(rows) < PAGE_ROWS:
                    break
                last = rows[-1][0]
        return total + await self.unshown_blobs(session_id, at_ms=at_ms)

    async def _plan(self, session_id: str) -> _Plan | None:
        """Return what may go: what is behind the fold is settled, so that it stays as it is read here."""

        async def body(tx: Transaction) -> _Plan | None:
            [(to_seq,)] = await tx.query(self._newest, (session_id,))
            if to_seq is None:
                return None
            kept: set[int] = set()
            for pinned, text_seq in await tx.query(self._pins, (session_id, to_seq)):
                kept.update(pinned_seqs(pinned, f"fold of session {session_id!r}"))
                kept.add(text_seq or 0)
            kept |= await self._answers(tx, session_id, to_seq)
            return _Plan(int(to_seq), frozenset(kept))

        return await self._database.read(body)

    async def _answers(self, tx: Transaction, session_id: str, to_seq: int) -> set[int]:
        """Return the seqs that are recorded answers of sends which began up to a seq."""
        found: set[int] = set()
        last = 0
        while True:
            rows = await tx.query(self._results, (session_id, last, to_seq))
            for index, result in rows:
                seq = decode_json(result, f"result of send {index} of session {session_id!r}").get("text_seq")
                if isinstance(seq, int):
                    found.add(seq)
            if len(rows) < PAGE_ROWS:
                return found
            last = rows[-1][0]

    async def _shown_by_forks(self, tx: Transaction, session_id: str) -> list[tuple[int, int]] | None:
        """Return which stretches of a session's log its forks and theirs show: (behind this seq, up to this one).

        None where there are too many forks to tell.
        """
        shown: list[tuple[int, int]] = []
        origins, looked = [session_id], 0
        while origins:
            rows = await tx.query(self._forks, (origins.pop(),))
            looked += len(rows)
            if looked > _MAX_FORKS:
                return None
            for fork_id, lineage in rows:
                origins.append(fork_id)
                spans = spans_of(fork_id, lineage)
                share = max([span.to_seq for span in spans[:-1] if span.session_id == session_id], default=0)
                if share:
                    fold = await self._folds.newest(tx, spans)
                    shown += _shown_with(fold, share)
                    shown += [(seq - 1, seq) for seq in await self._answers(tx, fork_id, share)]
        return shown

    async def _remove_messages(
        self, tx: Transaction, session_id: str, plan: _Plan, rows: Sequence[Row], at_ms: int
    ) -> Pruned:
        gone = [(seq, size) for seq, size in rows if seq not in plan.kept]
        if not gone:
            return Pruned()
        await tx.execute(self._mark, (at_ms, session_id, plan.to_seq))
        seqs = {seq for seq, _ in gone}
        params = (session_id, max(seqs), min(seqs), max(seqs))
        wholes = [row for row in await tx.query(self._whole, params) if row[3] in seqs]
        await tx.execute_many(self._delete_message, [(session_id, seq) for seq in seqs])
        if wholes:
            await tx.execute_many(
                self._delete_whole, [(session_id, reply_seq, index) for reply_seq, index, *_ in wholes]
            )
        freed = sum(size for _, size in gone) + sum(size for _, _, size, _ in wholes)
        return Pruned(rows=len(gone) + len(wholes), freed_bytes=freed)

    async def _remove_projected(
        self, tx: Transaction, session_id: str, plan: _Plan, rows: Sequence[Row], at_ms: int
    ) -> Pruned:
        if rows:
            await tx.execute_many(self._delete_projected, [(session_id, seq) for seq, _ in rows])
        return Pruned(rows=len(rows), freed_bytes=sum(size for _, size in rows))

    # ---- data that nothing shows any more ----

    async def unshown_blobs(self, session_id: str, *, at_ms: int) -> Pruned:
        """Remove the data that no message, whole result or row of the projection refers to any more.

        Where the session is written meanwhile everything stays: the next prune comes to it.
        """

        async def look(tx: Transaction) -> tuple[int, list[Row]]:
            blobs = await tx.query(self._blobs, (session_id,))
            ticks = await tx.query(self._tick, (session_id,))
            if not blobs or not ticks:
                return 0, []
            shown: set[str] = set()
            for select in self._bodies:
                place: tuple[int, int] = (-1, -1)
                while True:
                    rows = await tx.query(select, (session_id, place[0], place[0], place[1], f'{BLOB_MEMBER}"'))
                    shown |= referred(row[-1] for row in rows)
                    if len(rows) < PAGE_ROWS:
                        break
                    place = (rows[-1][0], rows[-1][-2])
            return ticks[0][0], [row for row in blobs if row[0] not in shown]

        tick, unshown = await self._database.read(look)
        if not unshown:
            return Pruned()

        async def remove(tx: Transaction) -> Pruned:
            if not await tx.execute(self._still, (session_id, tick, at_ms)):
                return Pruned()
            await tx.execute_many(self._delete_blob, [(session_id, digest) for digest, _ in unshown])
            return Pruned(rows=len(unshown), freed_bytes=sum(size for _, size in unshown))

        return await self._database.write("prune_blobs", remove)

    async def _read(self, select: str, params: Params) -> list[Row]:
        return await self._database.read(lambda tx: tx.query(select, params))


def _shown_with(fold: FoldRecord | None, share: int) -> list[tuple[int, int]]:
    """Return which stretches of the first `share` messages are shown where this fold counts."""
    if fold is None:
        return [(0, share)]
    return [(fold.to_seq, max(share, fold.to_seq)), *[(seq - 1, seq) for seq in fold.pinned_seqs]]
