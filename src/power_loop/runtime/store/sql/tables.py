"""Holds the tables: every column has its one place here, and DDL is rendered from it."""

from __future__ import annotations

from enum import Enum

from power_loop.contracts.frozen import frozen
from power_loop.contracts.states import OPEN_CALLS


class Kind(Enum):
    """Is what a column holds; a dialect knows its type for it."""

    KEY = "key"  # short ASCII, compared byte for byte
    TEXT = "text"  # text of any length
    JSON = "json"  # JSON text, byte for byte as written
    INTEGER = "integer"  # 64 bits; times are epoch milliseconds


@frozen
class Column:
    """Is a column."""

    name: str
    kind: Kind
    is_nullable: bool = False


@frozen
class Index:
    """Is an index. `where` narrows it on databases that can; it may never change what is unique."""

    name: str
    columns: tuple[str, ...]
    is_unique: bool = False
    where: str | None = None


@frozen
class Table:
    """Is a table. `is_clustered` asks for rows that lie in the order of the primary key."""

    name: str
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...]
    is_clustered: bool = True
    indexes: tuple[Index, ...] = ()


def quoted(values: frozenset[str] | set[str]) -> str:
    """Return names of states as a list of SQL literals, in a fixed order."""
    return ", ".join(f"'{value}'" for value in sorted(str(getattr(value, "value", value)) for value in values))


#: What tells a call that keeps its send from ending, as SQL.
IS_OPEN_CALL = f"state IN ({quoted({state.value for state in OPEN_CALLS})})"


def _key(name: str) -> Column:
    return Column(name, Kind.KEY)


def _integer(name: str) -> Column:
    return Column(name, Kind.INTEGER)


def _maybe(name: str, kind: Kind) -> Column:
    return Column(name, kind, is_nullable=True)


SCHEMA_MIGRATIONS = Table(
    "schema_migrations",
    (_integer("version"), _key("name"), _integer("applied_at_ms")),
    primary_key=("version",),
    is_clustered=False,
)

# The head row: small, because every transaction of a turn rewrites it.
SESSIONS = Table(
    "sessions",
    (
        _key("id"),
        _key("state"),
        _integer("created_at_ms"),
        _integer("updated_at_ms"),
        _integer("next_seq"),
        _integer("send_count"),
        _integer("version"),
        _maybe("owner", Kind.KEY),
        _maybe("previous_owner", Kind.KEY),
        _integer("epoch"),
        _integer("lease_until_ms"),
        _integer("lease_ttl_ms"),
        # Counts every write, so that no UPDATE leaves the row as it was: MySQL reports such a one as no row changed.
        _integer("tick"),
    ),
    primary_key=("id",),
    indexes=(Index("sessions_by_age", ("created_at_ms", "id")),),
)

# What of a session is long and changes seldom.
SESSION_DETAILS = Table(
    "session_details",
    (
        _key("session_id"),
        _maybe("system_prompt", Kind.TEXT),
        Column("metadata", Kind.JSON),
        Column("tool_state", Kind.JSON),
    ),
    primary_key=("session_id",),
)

MESSAGES = Table(
    "messages",
    (
        _key("session_id"),
        _integer("seq"),
        _integer("send_index"),
        _integer("round"),
        _key("role"),
        Column("body", Kind.JSON),
        _integer("created_at_ms"),
    ),
    primary_key=("session_id", "seq"),
)

# What a send took is no column: it is counted from `model_calls` and `tool_calls`, which hold it already.
SENDS = Table(
    "sends",
    (
        _key("session_id"),
        _integer("idx"),
        _maybe("request_id", Kind.KEY),
        _key("input_hash"),
        _key("status"),
        _integer("first_seq"),
        Column("options", Kind.JSON),
        _maybe("result", Kind.JSON),
        _integer("attempts"),
        _integer("started_at_ms"),
        _maybe("ended_at_ms", Kind.INTEGER),
    ),
    primary_key=("session_id", "idx"),
    indexes=(Index("sends_by_request", ("session_id", "request_id"), is_unique=True, where="request_id IS NOT NULL"),),
)

TOOL_CALLS = Table(
    "tool_calls",
    (
        _key("session_id"),
        _integer("reply_seq"),
        _integer("idx"),
        _integer("send_index"),
        _key("call_id"),
        Column("name", Kind.TEXT),
        Column("arguments", Kind.TEXT),
        _key("effect"),
        _key("state"),
        _integer("attempt"),
        _key("idempotency_key"),
        _integer("is_approved"),
        _maybe("wait_kind", Kind.KEY),
        _maybe("prompt", Kind.TEXT),
        _maybe("wait_data", Kind.JSON),
        _maybe("started_at_ms", Kind.INTEGER),
        _maybe("ended_at_ms", Kind.INTEGER),
        _maybe("result_seq", Kind.INTEGER),
    ),
    primary_key=("session_id", "reply_seq", "idx"),
    indexes=(Index("tool_calls_by_id", ("session_id", "call_id"), is_unique=True),),
)

# The whole result of a call whose message shows only a part of it.
TOOL_RESULTS = Table(
    "tool_results",
    (_key("session_id"), _integer("reply_seq"), _integer("idx"), Column("body", Kind.JSON)),
    primary_key=("session_id", "reply_seq", "idx"),
)

# Token counts are NULL where the provider sent none.
MODEL_CALLS = Table(
    "model_calls",
    (
        _key("session_id"),
        _integer("reply_seq"),
        _integer("send_index"),
        _integer("round"),
        Column("model", Kind.TEXT),
        _key("stop"),
        _maybe("input_tokens", Kind.INTEGER),
        _maybe("output_tokens", Kind.INTEGER),
        _maybe("cached_input_tokens", Kind.INTEGER),
        _maybe("cache_write_tokens", Kind.INTEGER),
        _maybe("reasoning_tokens", Kind.INTEGER),
        _integer("is_estimated"),
        _integer("attempts"),
        _integer("duration_ms"),
        _maybe("provider_id", Kind.TEXT),
        _maybe("request_id", Kind.TEXT),
        _integer("created_at_ms"),
    ),
    primary_key=("session_id", "reply_seq"),
)

TABLES = (
    SCHEMA_MIGRATIONS,
    SESSIONS,
    SESSION_DETAILS,
    MESSAGES,
    SENDS,
    TOOL_CALLS,
    TOOL_RESULTS,
    MODEL_CALLS,
)
