"""Keeps the log: one immutable row a message."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from power_loop.contracts.messages import (
    FilePart,
    Message,
    Part,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from power_loop.contracts.records import MessageRecord
from power_loop.runtime.store.blobs import Blobs
from power_loop.runtime.store.codec import AnyBlob, decode_message, encode_message
from power_loop.runtime.store.lineage import Span
from power_loop.runtime.store.sql.database import Row, Statement, Transaction
from power_loop.runtime.store.sql.dialect import Renderer

_NO_LIMIT = (1 << 63) - 1
_COLUMNS = "seq, send_index, round, role, body, created_at_ms"
# How many ranges a statement asks for; one that has fewer asks for nothing in place of the others.
_RANGES = (4, 64)
# Messages that one search looks at, and that it holds at a time.
_MAX_SEARCHED = 2_000
_SEARCHED_AT_ONCE = 100
_ANY_BLOB = AnyBlob()


class Messages:
    """Runs the statements on `messages`, inside of others' transactions."""

    def __init__(self, render: Renderer, blobs: Blobs) -> None:
        self._blobs = blobs
        self._insert = render(
            "INSERT INTO {messages} (session_id, seq, send_index, round, role, body, created_at_ms)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)"
        )
        self._select = render(
            f"SELECT {_COLUMNS} FROM {{messages}} WHERE session_id = ? AND seq > ? ORDER BY seq LIMIT ?"
        )
        self._select_span = render(
            f"SELECT {_COLUMNS} FROM {{messages}} WHERE session_id = ? AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
        )
        one = f"SELECT ?, {_COLUMNS} FROM {{messages}} WHERE session_id = ? AND seq > ? AND seq <= ?"
        self._select_ranges = {count: render(" UNION ALL ".join([one] * count)) for count in _RANGES}
        self._size = render(
            f"SELECT COUNT(*), COALESCE(SUM({render.dialect.byte_length('body')}), 0) FROM {{messages}}"
            " WHERE session_id = ?"
        )

    def inserts(
        self,
        session_id: str,
        rows: Sequence[tuple[str, str]],
        *,
        at_seq: int,
        send_index: int,
        round: int,
        at_ms: int,
    ) -> list[Statement]:
        """Return the statements that append rows of `message_row` in order from `at_seq` on."""
        return [
            (self._insert, (session_id, seq, send_index, round, role, body, at_ms))
            for seq, (role, body) in enumerate(rows, at_seq)
        ]

    async def read(
        self, tx: Transaction, session_id: str, *, after_seq: int = 0, limit: int | None = None
    ) -> tuple[MessageRecord, ...]:
        """Return messages in order."""
        rows = await tx.query(self._select, (session_id, after_seq, _NO_LIMIT if limit is None else limit))
        return tuple(await self._records(tx, session_id, rows))

    async def read_spans(
        self, tx: Transaction, spans: Sequence[Span], *, after_seq: int = 0, limit: int | None = None
    ) -> tuple[MessageRecord, ...]:
        """Return messages in order of a log whose stretches stand under several ids."""
        found: list[MessageRecord] = []
        for span in spans:
            left = _NO_LIMIT if limit is None else limit - len(found)
            if left > 0 and span.to_seq > after_seq:
                params = (span.session_id, max(after_seq, span.after_seq), span.to_seq, left)
                found += await self._records(tx, span.session_id, await tx.query(self._select_span, params))
        return tuple(found)

    async def read_ranges(self, tx: Transaction, ranges: Sequence[Span]) -> tuple[MessageRecord, ...]:
        """Return in order what stands in these stretches, however many there are, with a few statements."""
        if len(ranges) <= 1:
            return await self.read_spans(tx, ranges)
        rows: dict[str, list[Row]] = {}
        for start in range(0, len(ranges), _RANGES[-1]):
            part = ranges[start : start + _RANGES[-1]]
            count = min(count for count in _RANGES if count >= len(part))
            params: list[Any] = []
            for span in part:
                params += (span.session_id, span.session_id, span.after_seq, span.to_seq)
            params += ("", "", 0, 0) * (count - len(part))
            for session_id, *row in await tx.query(self._select_ranges[count], tuple(params)):
                rows.setdefault(session_id, []).append(tuple(row))
        found = [record for session_id, own in rows.items() for record in await self._records(tx, session_id, own)]
        return tuple(sorted(found, key=_seq_of))

    async def read_at(self, tx: Transaction, spans: Sequence[Span], seqs: Sequence[int]) -> tuple[MessageRecord, ...]:
        """Return the messages that stand at these seqs, as far as there are any."""
        ranges: list[Span] = []
        for seq in sorted(seqs):
            owner = next(
                (span.session_id for span in spans if span.after_seq < seq <= span.to_seq), spans[-1].session_id
            )
            if ranges and (ranges[-1].session_id, ranges[-1].to_seq) == (owner, seq - 1):
                ranges[-1] = Span(owner, ranges[-1].after_seq, seq)
            else:
                ranges.append(Span(owner, seq - 1, seq))
        return await self.read_ranges(tx, ranges)

    async def search(
        self, tx: Transaction, spans: Sequence[Span], wanted: str, *, after_seq: int, to_seq: int, limit: int
    ) -> tuple[tuple[MessageRecord, ...], int | None]:
        """Return messages in which something was said, called or answered with text that, folded for case, is in them,
        and the seq behind which the search goes on; None at its end."""
        found: list[MessageRecord] = []
        seq, looked = after_seq, 0
        for span in spans:
            end = min(span.to_seq, to_seq)
            seq = max(seq, span.after_seq)
            while seq < end:
                if looked >= _MAX_SEARCHED:
                    return tuple(found), seq
                rows = await tx.query(self._select_span, (span.session_id, seq, end, _SEARCHED_AT_ONCE))
                looked += len(rows)
                hits = [row for row in rows if wanted in _searchable(span.session_id, row).casefold()]
                hits = hits[: limit - len(found)]
                found += await self._records(tx, span.session_id, hits)
                if len(found) == limit:
                    seq = hits[-1][0]
                    return tuple(found), seq if seq < to_seq else None
                seq = rows[-1][0] if len(rows) == _SEARCHED_AT_ONCE else end
        return tuple(found), None

    async def _records(self, tx: Transaction, session_id: str, rows: Sequence[Row]) -> list[MessageRecord]:
        """Return the messages behind rows, with the data that they refer to."""
        blobs = await self._blobs.of(tx, session_id, [row[4] for row in rows])
        return [_record_of(session_id, row, blobs) for row in rows]

    async def size(self, tx: Transaction, session_id: str) -> tuple[int, int]:
        """Return how many messages there are, and their bytes."""
        [(count, size)] = await tx.query(self._size, (session_id,))
        return count, size


def message_row(message: Message, blobs: dict[str, str] | None = None) -> tuple[str, str]:
    """Return what a message's row holds of the message itself; big data of it goes into `blobs`, if given."""
    return message.role.value, encode_message(message, blobs)


def searchable_text(message: Message) -> str:
    """Return what a search of the log looks at: everything of a message that was said, called or answered."""
    return "\n".join(_texts_of(message.parts))


def _texts_of(parts: Iterable[Part]) -> Iterator[str]:
    for part in parts:
        if isinstance(part, (TextPart, RefusalPart)):
            yield part.text
        elif isinstance(part, ToolCallPart):
            yield f"{part.name} {part.arguments}"
        elif isinstance(part, ToolResultPart):
            yield from _texts_of(part.content)
        elif isinstance(part, FilePart) and part.filename:
            yield part.filename


def _searchable(session_id: str, row: Row) -> str:
    seq, _, _, role, body, _ = row
    return searchable_text(decode_message(role, body, f"message {seq} of session {session_id!r}", _ANY_BLOB))


def _seq_of(record: MessageRecord) -> int:
    return record.seq


def _record_of(session_id: str, row: Row, blobs: Mapping[str, str]) -> MessageRecord:
    seq, send_index, round, role, body, created_at_ms = row
    message = decode_message(role, body, f"message {seq} of session {session_id!r}", blobs)
    return MessageRecord(seq, send_index, round, message, created_at_ms)
