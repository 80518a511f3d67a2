"""Holds the index of words against the memories that it is to find, and builds it anew."""

from __future__ import annotations

from typing import Any

from power_loop.contracts.diagnosis import Finding, FindingKind
from power_loop.runtime.store.sql.database import Database, Transaction
from power_loop.runtime.store.sql.dialect import Renderer
from power_loop.runtime.store.sql.tables import MEMORIES, MEMORIES_BY_TERMS

# Memories whose terms are held in memory at the same time.
_PAGE = 500


class WordIndex:
    """Is the index that stands beside the memories; where a database keeps it by itself, there is nothing to hold."""

    def __init__(self, database: Database, render: Renderer) -> None:
        self._database = database
        self._full_text = render.dialect.full_text(
            MEMORIES_BY_TERMS, render.prefix + MEMORIES_BY_TERMS.name, render.prefix + MEMORIES.name
        )
        sizes = "" if self._full_text is None else self._full_text.sizes
        self._page = render(
            f"SELECT m.namespace, m.number, m.terms, d.sz FROM {{memories}} m LEFT JOIN {sizes} d ON d.id = m.number"
            " WHERE m.namespace > ? OR (m.namespace = ? AND m.number > ?) ORDER BY m.namespace, m.number LIMIT ?"
        )
        self._strays = render(f"SELECT COUNT(*) FROM {sizes} WHERE id NOT IN (SELECT number FROM {{memories}})")

    async def examine(self, *, repairs: bool) -> Finding | None:
        """Return what is wrong with the index as a whole; with `repairs` it is built anew then."""
        full_text = self._full_text
        if full_text is None or full_text.rebuild is None:
            return None
        rebuild = full_text.rebuild
        [(strays,)] = await self._database.read(lambda tx: tx.query(self._strays))
        lost = await self._lost()
        if not strays and not lost:
            return None
        message = f"the index of words does not find {lost} memories as they are, and finds {strays} that are not there"
        if repairs:
            await self._database.write("repair", lambda tx: tx.execute(rebuild))
        return Finding(FindingKind.INCONSISTENT, "memory.index", "", message, "it is built anew", is_repaired=repairs)

    async def _lost(self) -> int:
        """Count the memories whose terms are not, one after the other and no others, what the index has of them."""
        last: tuple[Any, ...] = ("", "", 0)
        count = 0

        async def body(tx: Transaction) -> tuple[int, tuple[Any, ...] | None]:
            rows = await tx.query(self._page, (*last, _PAGE))
            wrong = [row for row in rows if not await self._is_found(tx, *row[1:])]
            return len(wrong), (rows[-1][0], rows[-1][0], rows[-1][1]) if rows else None

        while True:
            wrong, end = await self._database.read(body)
            count += wrong
            if end is None:
                return count
            last = end

    async def _is_found(self, tx: Transaction, number: int, terms: object, size: object) -> bool:
        if not isinstance(terms, str) or not isinstance(size, bytes):
            return False
        length = _varint(size)
        if length != len(terms.split()):
            return False
        assert self._full_text is not None
        phrase = '"' + terms.replace('"', '""') + '"'
        return not length or bool(await tx.query(self._full_text.phrase, (phrase, number)))


def _varint(data: bytes) -> int:
    """Return the first number of a row of sizes (https://www.sqlite.org/fileformat2.html#varint)."""
    value = 0
    for byte in data[:8]:
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            break
    return value
