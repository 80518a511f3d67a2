"""Keeps the blackboard of each tree of sessions: entries that are changed by compare-and-set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from power_loop.contracts.blackboard import (
    MAX_ENTRIES,
    MAX_VALUE_BYTES,
    BlackboardEntry,
    check_entry_key,
    is_entry_key,
)
from power_loop.contracts.errors import BlackboardConflictError, BlackboardFullError, InputError
from power_loop.contracts.numbers import check_whole, is_whole
from power_loop.runtime.store.codec import decode_value, encode_value
from power_loop.runtime.store.sessions import not_found
from power_loop.runtime.store.sql.database import Row, Transaction
from power_loop.runtime.store.sql.dialect import Renderer

#: Keys that one read may name.
MAX_KEYS = 100
_COLUMNS = "entry_key, value, version, author_session_id, created_at_ms, updated_at_ms"
# Stands behind every character of a key.
_END_OF_KEYS = "\x7f"


class Boards:
    """Runs the statements on `blackboards` and `blackboard_entries`, inside of others' transactions.

    Whoever writes holds the row of the board first, which orders all writes on it.
    """

    def __init__(self, render: Renderer) -> None:
        lock = render.dialect.for_update
        one = "WHERE session_id = ? AND entry_key = ?"
        self.root = render("SELECT COALESCE(root_id, id) FROM {sessions} WHERE id = ?")
        self.hold_session = render("SELECT id FROM {sessions} WHERE id = ?" + lock)
        self.hold = render("SELECT version, last_op FROM {blackboards} WHERE session_id = ?" + lock)
        self.make = render("INSERT INTO {blackboards} (session_id, version, last_op) VALUES (?, 0, '')")
        self.count_up = render("UPDATE {blackboards} SET version = ?, last_op = ? WHERE session_id = ?")
        self.select = render(f"SELECT {_COLUMNS} FROM {{blackboard_entries}} {one}")
        self.count = render("SELECT COUNT(*) FROM {blackboard_entries} WHERE session_id = ?")
        self.insert = render(
            f"INSERT INTO {{blackboard_entries}} (session_id, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"
        )
        self.change = render(
            f"UPDATE {{blackboard_entries}} SET value = ?, version = ?, author_session_id = ?, updated_at_ms = ? {one}"
        )
        self.delete = render(f"DELETE FROM {{blackboard_entries}} {one}")
        self.page = render(
            f"SELECT {_COLUMNS} FROM {{blackboard_entries}} WHERE session_id = ? AND entry_key > ? AND entry_key >= ?"
            " AND entry_key < ? ORDER BY entry_key LIMIT ?"
        )

    async def board_of(self, tx: Transaction, session_id: str) -> str:
        """Return whose board a session shares: that of the root of its tree. Raises `session.not_found`."""
        rows = await tx.query(self.root, (session_id,))
        if not rows:
            raise not_found(session_id)
        return str(rows[0][0])

    async def has_op(self, tx: Transaction, session_id: str, op: str) -> bool:
        """Tell whether the last write on a session's board has this token, behind one that is still on its way.

        Where another write came behind it, a lost one counts as not made: made again, it meets what itself has written,
        which is a conflict and no second change.
        """
        rows = await tx.query(self.hold, (await self.board_of(tx, session_id),))
        return bool(rows) and rows[0][1] == op


class BoardWork:
    """Is one session's board within one transaction; satisfies `BlackboardTransaction`."""

    def __init__(
        self, tx: Transaction, boards: Boards, session_id: str, *, author: str | None, at_ms: int, op: str
    ) -> None:
        self._tx = tx
        self._boards = boards
        self._session_id = session_id
        self._author = author
        self._at_ms = at_ms
        self._op = op

    async def read(
        self,
        *,
        keys: Sequence[str] | None = None,
        prefix: str = "",
        after: str | None = None,
        limit: int = 100,
    ) -> tuple[BlackboardEntry, ...]:
        """Return entries in order of their keys."""
        wanted = _checked_range(keys, prefix, after, limit)
        board = await self._boards.board_of(self._tx, self._session_id)
        if keys is None:
            end = prefix[:-1] + chr(ord(prefix[-1]) + 1) if prefix else _END_OF_KEYS
            rows = await self._tx.query(self._boards.page, (board, after or "", prefix, end, limit))
        else:
            rows = [row for key in wanted for row in await self._tx.query(self._boards.select, (board, key))][:limit]
        return tuple([_entry_of(board, row) for row in rows])

    async def post(self, key: str, value: Any) -> BlackboardEntry:
        """Put a new entry on the board."""
        check_entry_key(key)
        text = _value_text(key, value)
        board, version = await self._held()
        there = await self._entry(board, key)
        if there is not None:
            raise _conflict(board, key, there, "it cannot be posted: update it with that version")
        [(count,)] = await self._tx.query(self._boards.count, (board,))
        if count >= MAX_ENTRIES:
            raise BlackboardFullError(
                f"{key!r} cannot be posted, because the blackboard of session {board!r} has {count} entries, and may"
                " have no more: remove some, or update one",
                session_id=board,
                max_entries=MAX_ENTRIES,
            )
        version = await self._count_up(board, version)
        row = (key, text, version, self._author, self._at_ms, self._at_ms)
        await self._tx.execute(self._boards.insert, (board, *row))
        return _entry_of(board, row)

    async def update(self, key: str, value: Any, *, expected_version: int) -> BlackboardEntry:
        """Change an entry that has this version."""
        check_entry_key(key)
        _check_version(expected_version)
        text = _value_text(key, value)
        board, version = await self._held()
        there = await self._expected(board, key, expected_version)
        version = await self._count_up(board, version)
        params = (text, version, self._author, self._at_ms, board, key)
        await self._tx.execute(self._boards.change, params)
        return _entry_of(board, (key, text, version, self._author, there.created_at_ms, self._at_ms))

    async def remove(self, key: str, *, expected_version: int) -> None:
        """Take away an entry that has this version."""
        check_entry_key(key)
        _check_version(expected_version)
        board, version = await self._held()
        await self._expected(board, key, expected_version)
        await self._count_up(board, version)
        await self._tx.execute(self._boards.delete, (board, key))

    async def _held(self) -> tuple[str, int]:
        """Return the board and its version, its row held against all others who write; it is made where there is
        none."""
        board = await self._boards.board_of(self._tx, self._session_id)
        rows = await self._tx.query(self._boards.hold, (board,))
        if not rows:
            # Two who post first wait for each other here.
            if not await self._tx.query(self._boards.hold_session, (board,)):
                raise not_found(board)
            rows = await self._tx.query(self._boards.hold, (board,))
        if not rows:
            await self._tx.execute(self._boards.make, (board,))
            return board, 0
        return board, int(rows[0][0])

    async def _count_up(self, board: str, version: int) -> int:
        await self._tx.execute(self._boards.count_up, (version + 1, self._op, board))
        return version + 1

    async def _entry(self, board: str, key: str) -> BlackboardEntry | None:
        rows = await self._tx.query(self._boards.select, (board, key))
        return _entry_of(board, rows[0]) if rows else None

    async def _expected(self, board: str, key: str, version: int) -> BlackboardEntry:
        there = await self._entry(board, key)
        if there is None or there.version != version:
            advice = "post it" if there is None else "read what it holds, and decide again with that version"
            raise _conflict(board, key, there, f"version {version} was expected: {advice}")
        return there


# ---- parts ----


def _entry_of(board: str, row: Row) -> BlackboardEntry:
    key, text, version, author, created_at_ms, updated_at_ms = row
    value = decode_value(text, f"entry {key!r} of the blackboard of session {board!r}")
    return BlackboardEntry(key, value, int(version), author, created_at_ms, updated_at_ms)


def _conflict(board: str, key: str, there: BlackboardEntry | None, why: str) -> BlackboardConflictError:
    is_there = "is not on it" if there is None else f"has version {there.version} and the value {there.value!r:.200}"
    return BlackboardConflictError(
        f"entry {key!r} of the blackboard of session {board!r} {is_there}; {why}",
        session_id=board,
        key=key,
        version=None if there is None else there.version,
        value=None if there is None else there.value,
    )


def _value_text(key: str, value: Any) -> str:
    text = encode_value(value, f"the value of {key!r}")
    size = len(text.encode())
    if size > MAX_VALUE_BYTES:
        raise InputError(
            f"the value of {key!r} has {size} bytes as JSON, and an entry of a blackboard may have {MAX_VALUE_BYTES}:"
            " shorten it, or post it in parts"
        )
    return text


def _check_version(version: Any) -> None:
    if not is_whole(version, least=1):
        raise InputError(f"expected_version is {version!r:.80}: give the version that a read told, a whole number")


def _checked_range(keys: Any, prefix: Any, after: Any, limit: Any) -> list[str]:
    """Return the keys that are asked for, in order and once each. Raises `input.invalid`."""
    check_whole("limit", limit, least=1, most=MAX_ENTRIES)
    for name, value in (("prefix", prefix), ("after", "" if after is None else after)):
        if value != "" and not is_entry_key(value):
            raise InputError(f"{name} is {value!r:.200}, with which no key of a blackboard begins")
    if keys is None:
        return []
    if prefix or after is not None:
        raise InputError("keys go without prefix and after: give one or the other")
    if isinstance(keys, str) or not isinstance(keys, Sequence) or len(keys) > MAX_KEYS:
        raise InputError(f"keys is {keys!r:.200}: give a list of at most {MAX_KEYS}")
    for key in keys:
        check_entry_key(key)
    return sorted(set(keys))
