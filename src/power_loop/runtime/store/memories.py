"""Keeps what is remembered beyond a session: texts in namespaces, none of which sees another."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from power_loop.contracts.clock import Clock
from power_loop.contracts.errors import InputError
from power_loop.contracts.frozen import frozen
from power_loop.contracts.memory import Memory
from power_loop.contracts.messages import clean_text
from power_loop.contracts.numbers import check_whole
from power_loop.contracts.records import Page
from power_loop.contracts.session_ids import check_session_id
from power_loop.runtime.store.codec import decode_json, encode_json
from power_loop.runtime.store.pruning import checked_age_ms
from power_loop.runtime.store.sql.database import Database, DuplicateKeyError, Params, Row, Transaction
from power_loop.runtime.store.sql.dialect import Renderer
from power_loop.runtime.store.sql.tables import MEMORIES, MEMORIES_BY_TERMS
from power_loop.runtime.store.terms import document_terms, query_terms

MAX_NAMESPACE_CHARS = 200
MAX_TEXT_CHARS = 20_000
#: Memories of a namespace that a search weighs; the database chooses them where more have one of its words.
MAX_CANDIDATES = 300
MAX_FOUND = 100
_MAX_PAGE = 1_000
# Rows that one transaction removes.
_REMOVED_AT_ONCE = 200
# So often an addition is tried again while others add the very same text.
_MAX_ADDS = 5
_PREFIX = "mem_"
_MAX_NUMBER = 1 << 63
_COLUMNS = "number, text, created_at_ms, source_session_id, metadata"
# As in BM25: how much the length of a text counts.
_LENGTH_WEIGHT = 0.3


class MemoryRows:
    """Holds the statements on `memories`."""

    def __init__(self, render: Renderer) -> None:
        self.full_text = render.dialect.full_text(
            MEMORIES_BY_TERMS, render.prefix + MEMORIES_BY_TERMS.name, render.prefix + MEMORIES.name
        )
        self.render = render
        one = "WHERE namespace = ? AND number = ?"
        newest = "WHERE namespace = ? ORDER BY created_at_ms DESC, number DESC"
        behind = "AND (created_at_ms < ? OR (created_at_ms = ? AND number < ?))"
        self.known = render(f"SELECT terms FROM {{memories}} {one}")
        self.insert = render(f"INSERT INTO {{memories}} (namespace, terms, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)")
        self.refresh = render(f"UPDATE {{memories}} SET created_at_ms = ?, source_session_id = ?, metadata = ? {one}")
        self.delete = render(f"DELETE FROM {{memories}} {one}")
        self.count = render("SELECT COUNT(*) FROM {memories} WHERE namespace = ?")
        self.overflow = render(f"SELECT number, terms FROM {{memories}} {newest} LIMIT {_REMOVED_AT_ONCE} OFFSET ?")
        self.newest = render(f"SELECT {_COLUMNS} FROM {{memories}} {newest} LIMIT ?")
        self.page = render(
            f"SELECT {_COLUMNS} FROM {{memories}} WHERE namespace = ? {behind}"
            " ORDER BY created_at_ms DESC, number DESC LIMIT ?"
        )
        self.of_namespace = render(
            f"SELECT namespace, number, terms FROM {{memories}} WHERE namespace = ? LIMIT {_REMOVED_AT_ONCE}"
        )
        self.old = render(
            f"SELECT namespace, number, terms FROM {{memories}} WHERE created_at_ms <= ? LIMIT {_REMOVED_AT_ONCE}"
        )
        self.old_of_namespace = render(
            "SELECT namespace, number, terms FROM {memories} WHERE namespace = ? AND created_at_ms <= ?"
            f" LIMIT {_REMOVED_AT_ONCE}"
        )

    def search(self, namespace: str, terms: Sequence[str]) -> tuple[str, Params]:
        """Return the query for memories that have one of the terms, the likeliest first."""
        columns = ", ".join(f"m.{column}" for column in (*_COLUMNS.split(", "), "terms"))
        if self.full_text is not None:
            sql = self.full_text.query.format(columns=columns)
            return self.render(sql), self.full_text.params(namespace, terms, MAX_CANDIDATES)
        # Terms are as long as each other and stand apart, so that none is found in the middle of two.
        any_of = " OR ".join(["instr(m.terms, ?) > 0"] * len(terms))
        sql = (
            f"SELECT {columns} FROM {{memories}} m WHERE m.namespace = ? AND ({any_of})"
            " ORDER BY m.created_at_ms DESC, m.number DESC LIMIT ?"
        )
        return self.render(sql), (namespace, *terms, MAX_CANDIDATES)


@frozen
class Match:
    """Is a memory that a search found, and its terms."""

    memory: Memory
    number: int
    terms: frozenset[str]


class Memories:
    """Adds, finds and forgets memories, each step in a transaction of its own.

    Every method concerns one namespace, but for `prune`; a namespace is told by its characters, and nothing in it has a
    meaning. Raises `input.invalid` for one that is none.
    """

    def __init__(self, database: Database, clock: Clock, rows: MemoryRows) -> None:
        self._database = database
        self._clock = clock
        self._rows = rows

    async def add(
        self,
        namespace: str,
        text: str,
        *,
        session_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        max_count: int | None = None,
    ) -> Memory:
        """Remember a text, and return it with its id; one that is there already becomes the newest.

        Of more than `max_count` memories the oldest leave. Raises `input.invalid` for a text that is empty or has more
        than 20,000 characters.
        """
        check_namespace(namespace)
        text = _checked_text(text)
        if max_count is not None:
            check_whole("max_count", max_count, least=1)
        if session_id is not None:
            check_session_id(session_id)
        terms = " ".join(document_terms(namespace, text))
        number = _number_of(namespace, text)
        at_ms = self._clock.now_ms()
        encoded = None if metadata is None else encode_json(metadata, "metadata of a memory")
        rows = self._rows

        async def body(tx: Transaction) -> None:
            if await tx.query(rows.known, (namespace, number)):
                await tx.execute(rows.refresh, (at_ms, session_id, encoded, namespace, number))
            else:
                await tx.execute(rows.insert, (namespace, terms, number, text, at_ms, session_id, encoded))
                await self._index(tx, number, terms)
            if max_count is not None:
                for number_over, terms_over in await tx.query(rows.overflow, (namespace, max_count)):
                    await self._delete(tx, namespace, number_over, terms_over)

        for attempt in range(_MAX_ADDS):
            try:
                await self._database.write("add_memory", body)
                break
            except DuplicateKeyError:  # somebody adds the same text at the same time: it is there now
                if attempt == _MAX_ADDS - 1:
                    raise
        return Memory(text, _id_of(number), None, at_ms, session_id, metadata)

    async def search(self, namespace: str, text: str, *, limit: int = 10) -> tuple[Memory, ...]:
        """Return memories that share words with a text, those first that share more and rarer ones, then the newer.

        A text is words and nothing else: no character in it is an operator.
        """
        check_namespace(namespace)
        check_whole("limit", limit, least=1, most=MAX_FOUND)
        if not isinstance(text, str):
            raise InputError(f"what is looked for is {text!r:.200}: give text")
        terms = query_terms(namespace, text)
        if not terms:
            return ()
        sql, params = self._rows.search(namespace, terms)

        async def body(tx: Transaction) -> tuple[list[Row], int]:
            found = await tx.query(sql, params)
            return found, int((await tx.query(self._rows.count, (namespace,)))[0][0]) if found else 0

        found, count = await self._database.read(body)
        return _ranked([_match_of(row) for row in found], terms, count=count)[:limit]

    async def newest(self, namespace: str, *, limit: int = 10) -> tuple[Memory, ...]:
        """Return the newest memories."""
        check_namespace(namespace)
        check_whole("limit", limit, least=1, most=MAX_FOUND)
        return await self._memories(self._rows.newest, (namespace, limit))

    async def page(self, namespace: str, *, cursor: str | None = None, limit: int = 100) -> Page[Memory]:
        """Return a page of all memories, newest first."""
        check_namespace(namespace)
        check_whole("limit", limit, least=1, most=_MAX_PAGE)
        if cursor is None:
            found = await self._memories(self._rows.newest, (namespace, limit + 1))
        else:
            at_ms, number = _place_of(cursor)
            found = await self._memories(self._rows.page, (namespace, at_ms, at_ms, number, limit + 1))
        last = found[limit - 1] if len(found) > limit else None
        return Page(found[:limit], None if last is None else f"{last.created_at_ms}.{last.id}")

    async def forget(self, namespace: str, memory_id: str) -> bool:
        """Forget one memory; False if the namespace has none of this id."""
        check_namespace(namespace)
        number = _number_in(memory_id)
        if number is None:
            return False

        async def body(tx: Transaction) -> bool:
            found = await tx.query(self._rows.known, (namespace, number))
            for (terms,) in found:
                await self._delete(tx, namespace, number, terms)
            return bool(found)

        return await self._database.write("forget_memory", body)

    async def forget_all(self, namespace: str) -> int:
        """Forget everything in a namespace, and return how much that was."""
        check_namespace(namespace)
        return await self._remove("forget_memories", self._rows.of_namespace, (namespace,))

    async def prune(self, *, older_than_s: float, namespace: str | None = None) -> int:
        """Forget what was added more than so many seconds ago, in one namespace or in all; return how much that was."""
        before_ms = self._clock.now_ms() - checked_age_ms(older_than_s)
        if namespace is None:
            return await self._remove("prune_memories", self._rows.old, (before_ms,))
        check_namespace(namespace)
        return await self._remove("prune_memories", self._rows.old_of_namespace, (namespace, before_ms))

    async def _memories(self, sql: str, params: Params) -> tuple[Memory, ...]:
        async def body(tx: Transaction) -> list[Row]:
            return await tx.query(sql, params)

        return tuple([_memory_of(row) for row in await self._database.read(body)])

    async def _remove(self, move: str, sql: str, params: Params) -> int:
        """Remove what a query finds, a bounded number of rows a transaction, until it finds nothing more."""
        count = 0

        async def body(tx: Transaction) -> int:
            found = await tx.query(sql, params)
            for namespace, number, terms in found:
                await self._delete(tx, namespace, number, terms)
            return len(found)

        while removed := await self._database.write(move, body):
            count += removed
        return count

    async def _index(self, tx: Transaction, number: int, terms: str) -> None:
        full_text = self._rows.full_text
        if full_text is not None and full_text.add is not None:
            await tx.execute(full_text.add, (number, terms))

    async def _delete(self, tx: Transaction, namespace: str, number: int, terms: str) -> None:
        full_text = self._rows.full_text
        # Whoever deleted the row has its terms out of the index.
        if await tx.execute(self._rows.delete, (namespace, number)) and full_text is not None and full_text.remove:
            await tx.execute(full_text.remove, (number, terms))


def check_namespace(namespace: Any) -> None:
    """Raise `input.invalid` for what is no namespace."""
    is_text = isinstance(namespace, str) and 0 < len(namespace) <= MAX_NAMESPACE_CHARS
    if not is_text or not namespace.isprintable() or clean_text(namespace) != namespace:
        raise InputError(
            f"the namespace {namespace!r:.200} cannot be used: give 1 to {MAX_NAMESPACE_CHARS} characters that can be"
            " printed, such as a user's id"
        )


# ---- ranking ----


def _ranked(matches: Sequence[Match], terms: Sequence[str], *, count: int) -> tuple[Memory, ...]:
    """Return memories in the order of how well they fit, which is the same whatever database found them."""
    wanted = frozenset(terms)
    holders = dict.fromkeys(terms, 0)
    for match in matches:
        for term in match.terms & wanted:
            holders[term] += 1
    total = max(count, len(matches))
    weights = {term: math.log(1 + (total - held + 0.5) / (held + 0.5)) for term, held in holders.items()}
    mean = sum(len(match.terms) for match in matches) / max(len(matches), 1)

    def score(match: Match) -> float:
        shared = sum(weights[term] for term in terms if term in match.terms)
        return round(shared / (1 - _LENGTH_WEIGHT + _LENGTH_WEIGHT * len(match.terms) / max(mean, 1.0)), 6)

    scored = [(score(match), match) for match in matches]
    scored.sort(key=lambda one: (-one[0], -(one[1].memory.created_at_ms or 0), -one[1].number))
    return tuple([_with_score(match.memory, points) for points, match in scored])


def _with_score(memory: Memory, score: float) -> Memory:
    return Memory(memory.text, memory.id, score, memory.created_at_ms, memory.session_id, memory.metadata)


# ---- rows ----


def _match_of(row: Row) -> Match:
    *of_memory, terms = row
    return Match(_memory_of(tuple(of_memory)), int(row[0]), frozenset(terms.split()))


def _memory_of(row: Row) -> Memory:
    number, text, created_at_ms, session_id, metadata = row
    known = None if metadata is None else decode_json(metadata, f"memory {_id_of(number)!r}")
    return Memory(text, _id_of(number), None, created_at_ms, session_id, known)


def _number_of(namespace: str, text: str) -> int:
    """Return the number of a text in its namespace, the same each time: so that nothing is remembered twice."""
    digest = hashlib.blake2b(f"{namespace}\0{text}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _id_of(number: int) -> str:
    return f"{_PREFIX}{number:016x}"


def _number_in(memory_id: Any) -> int | None:
    """Return the number of an id; None for what is no id."""
    if not isinstance(memory_id, str) or len(memory_id) != len(_PREFIX) + 16 or not memory_id.startswith(_PREFIX):
        return None
    digits = memory_id[len(_PREFIX) :]
    number = int(digits, 16) if set(digits) <= set("0123456789abcdef") else _MAX_NUMBER
    return number if number < _MAX_NUMBER else None


def _place_of(cursor: str) -> tuple[int, int]:
    at_ms, _, memory_id = str(cursor).partition(".")
    number = _number_in(memory_id)
    if number is None or not at_ms.isascii() or not at_ms.isdigit() or len(at_ms) > 18:
        raise InputError(f"{cursor!r:.100} is no cursor: give the `next_cursor` of the page before")
    return int(at_ms), number


def _checked_text(text: Any) -> str:
    if not isinstance(text, str):
        raise InputError(f"a memory is {text!r:.200}: give text")
    checked: str = clean_text(text).strip()
    if not 0 < len(checked) <= MAX_TEXT_CHARS:
        raise InputError(f"a memory has {len(checked):,} characters: give 1 to {MAX_TEXT_CHARS:,}, one fact in each")
    return checked
