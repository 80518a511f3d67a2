"""Writes an archive of a session as lines of JSON, and reads one that a stranger may have made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from power_loop.contracts.errors import InvalidArchiveError
from power_loop.contracts.frozen import frozen
from power_loop.contracts.numbers import MAX_INTEGER, is_whole
from power_loop.contracts.session_ids import is_session_id
from power_loop.contracts.version import __version__
from power_loop.runtime.store.sql.tables import (
    BLACKBOARD_ENTRIES,
    BLACKBOARDS,
    BLOBS,
    BUDGETS,
    FOLDS,
    INBOX,
    MESSAGES,
    MODEL_CALLS,
    PROJECT_MESSAGES,
    SENDS,
    SESSION_DETAILS,
    SESSIONS,
    TOOL_CALLS,
    TOOL_RESULTS,
    Column,
    Kind,
    Table,
)

FORMAT = "power-loop session"
#: Counts up with every change of what the lines hold; an archive of a later one is refused.
VERSION = 3
# The version of the tables whose columns the lines of an archive hold: an earlier archive lacks what came later.
_TABLES_OF = {1: 2, 2: 3, VERSION: 4}
#: The largest archive that is read if the caller does not say otherwise, in bytes: it is held in memory.
MAX_ARCHIVE_BYTES = 1024 * 1024 * 1024
#: Characters of a number: no integer of a row has more than 19, and what tools note has no use for more.
MAX_NUMBER_CHARS = 400

_MAX_KEY_CHARS = 255
_MAX_HEADER_BYTES = 4096
_SHOWN_CHARS = 80

#: What stays behind: the lease and what belongs to it, the tokens of writes, whose log it was, whose child it is, and
#: who paid beside it.
LEFT_OUT: Mapping[str, frozenset[str]] = {
    "sessions": frozenset(
        {"id", "owner", "previous_owner", "epoch", "lease_until_ms", "lease_ttl_ms", "tick", "last_op", "signals"}
        | {"cancel_epoch", "cancel_reason", "forked_from", "forked_at_seq"}
        | {"parent_id", "parent_send", "root_id", "depth"}
    ),
    "session_details": frozenset({"lineage", "agent"}),
    "sends": frozenset({"accept_op", "end_op", "paid_by", "paid_by_send"}),
    "inbox": frozenset({"op"}),
    "budgets": frozenset({"parent_session_id", "parent_send_index"}),
    "blackboards": frozenset({"last_op"}),
}


@frozen
class Kept:
    """Is a table whose rows an archive keeps: the word for one row, and the columns that go with it."""

    word: str
    table: Table
    columns: tuple[Column, ...]


def _kept(word: str, table: Table) -> Kept:
    left_out = LEFT_OUT.get(table.name, frozenset()) | {"session_id"}
    return Kept(word, table, tuple([column for column in table.columns if column.name not in left_out]))


SESSION = _kept("session", SESSIONS)
DETAILS = _kept("details", SESSION_DETAILS)
MESSAGE = _kept("message", MESSAGES)
SEND = _kept("send", SENDS)
MODEL_CALL = _kept("model_call", MODEL_CALLS)
TOOL_CALL = _kept("tool_call", TOOL_CALLS)
TOOL_RESULT = _kept("tool_result", TOOL_RESULTS)
INPUT = _kept("input", INBOX)
FOLD = _kept("fold", FOLDS)
PROJECTED = _kept("projected", PROJECT_MESSAGES)
BLOB = _kept("blob", BLOBS)
BOARD = _kept("board", BLACKBOARDS)
ENTRY = _kept("entry", BLACKBOARD_ENTRIES)
BUDGET = _kept("budget", BUDGETS)

#: In the order of an archive's lines.
LINES = (
    SESSION,
    DETAILS,
    MESSAGE,
    SEND,
    MODEL_CALL,
    TOOL_CALL,
    TOOL_RESULT,
    INPUT,
    FOLD,
    PROJECTED,
    BLOB,
    BOARD,
    ENTRY,
    BUDGET,
)
_ONCE = frozenset({SESSION.word, DETAILS.word})

Values = dict[str, Any]


@frozen
class Archive:
    """Is a session out of an archive: its id, and by the word for it the rows of each kind, in order.

    `lines` tells for each row in which line it stands.
    """

    session_id: str
    rows: Mapping[str, Sequence[Values]]
    lines: Mapping[str, int]


# ---- writing ----


def write_archive(session_id: str, rows: Mapping[str, Sequence[Sequence[Any]]]) -> bytes:
    """Return the archive of a session; the values of `rows` stand in the order of each kind's columns."""
    lines: list[bytes] = []
    for kept in LINES:
        names = [column.name for column in kept.columns]
        lines += [_line({kept.word: dict(zip(names, row, strict=True))}) for row in rows[kept.word]]
    body = b"".join(lines)
    header = {
        "format": FORMAT,
        "version": VERSION,
        "power_loop": __version__,
        "session_id": session_id,
        "counts": {kept.word: len(rows[kept.word]) for kept in LINES},
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    return _line(header) + body


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode() + b"\n"


# ---- reading ----


def read_archive(data: bytes | str, *, max_bytes: int = MAX_ARCHIVE_BYTES) -> Archive:
    """Return what an archive holds, every line of it checked by itself; `archive_checks` sees how they fit together.

    Raises `archive.invalid`, which tells the line.
    """
    if not isinstance(data, (bytes, bytearray, str)):
        refuse(1, f"it is a {type(data).__name__}: give the bytes or the text that export_session() gave")
    if len(data) > max_bytes:
        refuse(1, f"it has {len(data)} bytes, more than max_bytes={max_bytes}")
    try:
        raw = data.encode() if isinstance(data, str) else bytes(data)
    except UnicodeEncodeError as error:
        refuse(1, f"it is no text that can be stored: {error}")
    if len(raw) > max_bytes:
        refuse(1, f"it has {len(raw)} bytes, more than max_bytes={max_bytes}")
    head, line_end, body = raw.partition(b"\n")
    session_id, tables, counts = _read_header(head, body if line_end else None)
    return _read_rows(session_id, tables, counts, body)


def refuse(line: int, reason: str) -> NoReturn:
    """Raise `archive.invalid`."""
    raise InvalidArchiveError(
        f"the archive cannot be imported: line {line}: {reason}; nothing was written", line=line, reason=reason
    )


def strict_json(text: str, line: int, what: str) -> Any:
    """Return the value of JSON text in which no key stands twice and no number is out of all bounds."""
    try:
        return _STRICT.decode(text)
    except (ValueError, RecursionError) as error:
        shown = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        refuse(line, f"{what} is no JSON that is taken: {shown}")


def _bounded(digits: str) -> int:
    if len(digits) > MAX_NUMBER_CHARS:
        raise ValueError(f"a number of {len(digits)} characters")
    return int(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    if len(digits) > MAX_NUMBER_CHARS or value in (float("inf"), float("-inf")):
        raise ValueError(f"the number {digits[:_SHOWN_CHARS]}")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name}, which is no JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key that stands twice in an object")
    return value


_STRICT = json.JSONDecoder(
    parse_int=_bounded, parse_float=_finite, parse_constant=_no_constant, object_pairs_hook=_unique
)


def _read_header(head: bytes, body: bytes | None) -> tuple[str, int, Mapping[str, int]]:
    """Return the id, the version of the tables that the lines follow, and the counts of the lines."""
    if len(head) > _MAX_HEADER_BYTES:
        refuse(1, "it is no archive: its first line is too long for a header")
    header = strict_json(_decoded(head, 1), 1, "the header")
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        refuse(1, f"it is no archive of a session: the header's format is not {FORMAT!r}")
    version = header.get("version")
    if not is_whole(version, least=1):
        refuse(1, f"its version is {version!r:.80}, which is none")
    if version > VERSION:
        refuse(1, f"it has version {version}, this power-loop reads up to {VERSION}: upgrade power-loop")
    session_id, counts = header.get("session_id"), header.get("counts")
    if not is_session_id(session_id):
        refuse(1, f"{session_id!r:.80} can be the id of no session")
    words = {kept.word for kept in LINES if kept.table.since <= _TABLES_OF[version]}
    if not isinstance(counts, dict) or set(counts) != words or not all(type(n) is int for n in counts.values()):
        refuse(1, f"its counts are not those of {', '.join(sorted(words))}")
    if body is None or header.get("sha256") != hashlib.sha256(body).hexdigest():
        refuse(1, "it was changed or cut: what follows does not have the header's sha256")
    return str(session_id), _TABLES_OF[version], counts


def _read_rows(session_id: str, tables: int, counts: Mapping[str, int], body: bytes) -> Archive:
    rows: dict[str, list[Values]] = {kept.word: [] for kept in LINES}
    lines: dict[str, int] = {}
    order = {kept.word: (place, kept) for place, kept in enumerate(LINES)}
    last_place = 0
    parts = body.split(b"\n")
    if parts.pop() != b"":
        refuse(len(parts) + 2, "the last line does not end")
    for number, part in enumerate(parts, 2):
        value = strict_json(_decoded(part, number), number, "the line")
        if not isinstance(value, dict) or len(value) != 1:
            refuse(number, "it is not one object with one member")
        [(word, values)] = value.items()
        if word not in counts:
            refuse(number, f"{word!r:.80} is none of {', '.join(counts)}"[:300])
        place, kept = order[word]
        if place < last_place:
            refuse(number, f"a {word} stands behind a {LINES[last_place].word}, where none belongs")
        last_place = place
        lines.setdefault(word, number)
        rows[word].append(_checked_row(kept, values, number, tables))
    for word, found in rows.items():
        if len(found) != counts.get(word, 0) or (word in _ONCE and len(found) != 1):
            refuse(1, f"it has {len(found)} lines of kind {word}, and the header says {counts.get(word, 0)}")
    return Archive(session_id, rows, lines)


def _decoded(part: bytes, line: int) -> str:
    try:
        return part.decode()
    except UnicodeDecodeError as error:
        refuse(line, f"it is no UTF-8: {error}")


def _checked_row(kept: Kept, values: Any, line: int, tables: int) -> Values:
    """Return a row whose members are the columns that its table has in a version, each of its kind; later ones are
    empty."""
    if not isinstance(values, dict):
        refuse(line, f"the {kept.word} is no object")
    names = [column.name for column in kept.columns if column.since <= tables]
    if sorted(values) != sorted(names):
        unknown = sorted(set(values) - set(names))
        missing = sorted(set(names) - set(values))
        told = f"{unknown[0]!r:.80} is not known" if unknown else f"{missing[0]!r} is missing"
        refuse(line, f"the {kept.word} has not the members that belong to it: {told}")
    for column in kept.columns:
        if column.since > tables:
            values[column.name] = None
            continue
        reason = _why_not(column, values[column.name])
        if reason is not None:
            refuse(line, f"{column.name} of the {kept.word} {reason}")
    return values


def _why_not(column: Column, value: Any) -> str | None:
    """Return why a column cannot hold a value; None if it can."""
    if value is None:
        return None if column.is_nullable else "is missing"
    if column.kind is Kind.INTEGER:
        if not is_whole(value):
            return f"is {value!r:.80}, which is no whole number from 0 to {MAX_INTEGER}"
        return None
    if not isinstance(value, str):
        return f"is a {type(value).__name__}, where text belongs"
    if column.kind is Kind.KEY and len(value) > _MAX_KEY_CHARS:
        return f"has {len(value)} characters, more than {_MAX_KEY_CHARS}"
    if "\0" in value:
        return "has a NUL character, which no database holds"
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            return "has a half of a character, which no database holds"
    return None
