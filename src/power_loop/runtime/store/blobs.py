"""Keeps the data of images, files and sounds beside the log: once a session, however often its messages show them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from power_loop.contracts.errors import StoreCorruptError
from power_loop.runtime.store.codec import BLOB_MEMBER
from power_loop.runtime.store.sql.database import Transaction
from power_loop.runtime.store.sql.dialect import Renderer

# Digests that one statement asks for. Fewer are asked for with the last one repeated, so that there are two statements.
_AT_ONCE = 16
# In JSON a quote within text is escaped: what looks like a reference is one.
_REFERENCE = re.compile(f'{BLOB_MEMBER}"([0-9a-f]{{64}})"')


class Blobs:
    """Runs the statements on `blobs`, inside of others' transactions."""

    def __init__(self, render: Renderer) -> None:
        self._insert = render("INSERT INTO {blobs} (session_id, digest, created_at_ms, data) VALUES (?, ?, ?, ?)")
        self._select = {
            count: render(
                f"SELECT digest, data FROM {{blobs}} WHERE session_id = ? AND digest IN ({', '.join('?' * count)})"
            )
            for count in (1, _AT_ONCE)
        }
        self._known = render(
            f"SELECT digest FROM {{blobs}} WHERE session_id = ? AND digest IN ({', '.join('?' * _AT_ONCE)})"
        )
        self._size = render(
            f"SELECT COALESCE(SUM({render.dialect.byte_length('data')}), 0) FROM {{blobs}} WHERE session_id = ?"
        )

    async def keep(self, tx: Transaction, session_id: str, blobs: Mapping[str, str], *, at_ms: int) -> None:
        """Store those of some data by their digests that the session does not have yet.

        It runs behind the statement that holds the session's head row, so that nobody stores or prunes the same.
        """
        for digests in _chunks(sorted(blobs), (_AT_ONCE,)):
            known = {digest for (digest,) in await tx.query(self._known, (session_id, *digests))}
            for digest in dict.fromkeys(digests):
                if digest not in known:
                    await tx.execute(self._insert, (session_id, digest, at_ms, blobs[digest]))

    async def of(self, tx: Transaction, session_id: str, bodies: Iterable[str]) -> Mapping[str, str]:
        """Return by digest what bodies of messages refer to; nothing is asked where none refers to anything.

        Raises `store.corrupt` for data that is not there.
        """
        wanted = referred(bodies)
        if not wanted:
            return {}
        found: dict[str, str] = {}
        for digests in _chunks(sorted(wanted), (1, _AT_ONCE)):
            rows = await tx.query(self._select[len(digests)], (session_id, *digests))
            found.update((digest, data) for digest, data in rows)
        lost = wanted - found.keys()
        if lost:
            raise StoreCorruptError(
                f"session {session_id!r} is damaged: a message shows data {min(lost)!r}, which is not in the database"
            )
        return found

    async def size(self, tx: Transaction, session_id: str) -> int:
        """Return how many bytes they take."""
        [(size,)] = await tx.query(self._size, (session_id,))
        return int(size)


def referred(bodies: Iterable[object]) -> set[str]:
    """Return the digests that bodies of messages and results refer to; a damaged one, which is no text, to none."""
    texts = [body for body in bodies if isinstance(body, str) and BLOB_MEMBER in body]
    return {digest for body in texts for digest in _REFERENCE.findall(body)}


def _chunks(digests: Sequence[str], sizes: Sequence[int]) -> Iterator[tuple[str, ...]]:
    """Yield the digests in groups of these sizes, the last group filled up with its last member."""
    largest = max(sizes)
    for start in range(0, len(digests), largest):
        part = tuple(digests[start : start + largest])
        size = min(size for size in sizes if size >= len(part))
        yield (*part, *[part[-1]] * (size - len(part)))
