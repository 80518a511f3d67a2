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
    """Is a column.

    `since` is the first version of the tables that has it. One that came later than its table and may not be NULL has
    '' or 0 where nothing is said: in the rows that were there, and in those of a process that does not know it yet.
    """

    name: str
    kind: Kind
    is_nullable: bool = False
    since: int = 1


@frozen
class Index:
    """Is an index. `where` narrows it on databases that can; it may never change what is unique.

    One with a `text_key` finds rows by the words of its one column. Where it is a table of its own, that key, which is
    an integer column, says which row a text is of.
    """

    name: str
    columns: tuple[str, ...]
    is_unique: bool = False
    where: str | None = None
    since: int = 1
    text_key: str | None = None


@frozen
class Table:
    """Is a table. `is_clustered` asks for rows that lie in the order of the primary key."""

    name: str
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...]
    is_clustered: bool = True
    indexes: tuple[Index, ...] = ()
    since: int = 1


def quoted(values: frozenset[str] | set[str]) -> str:
    """Return names of states as a list of SQL literals, in a fixed order."""
    return ", ".join(f"'{value}'" for value in sorted(str(getattr(value, "value", value)) for value in values))


#: What tells a call that keeps its send from ending, as SQL.
IS_OPEN_CALL = f"state IN ({quoted({state.value for state in OPEN_CALLS})})"


def _key(name: str, *, since: int = 1) -> Column:
    return Column(name, Kind.KEY, since=since)


def _integer(name: str, *, since: int = 1) -> Column:
    return Column(name, Kind.INTEGER, since=since)


def _maybe(name: str, kind: Kind, *, since: int = 1) -> Column:
    return Column(name, kind, is_nullable=True, since=since)


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
        # The token of the last write under a lease: tells whether it landed where a connection was lost during COMMIT.
        _key("last_op", since=2),
        # Counts up whenever somebody outside wants the ear of the running turn; every write of a turn knows the count.
        _integer("signals", since=2),
        # The epoch whose turn is asked to stop, and why; 0 is none.
        _integer("cancel_epoch", since=2),
        _maybe("cancel_reason", Kind.TEXT, since=2),
        # How many inputs the inbox was given, and how many of them stand in the log.
        _integer("inbox_count", since=2),
        _integer("inbox_taken", since=2),
        # The session whose log this one shares up to a seq.
        _maybe("forked_from", Kind.KEY, since=2),
        _maybe("forked_at_seq", Kind.INTEGER, since=2),
        # The session whose agent made this one, in which of its sends; the session at the top; how far below it stands.
        _maybe("parent_id", Kind.KEY, since=4),
        _maybe("parent_send", Kind.INTEGER, since=4),
        _maybe("root_id", Kind.KEY, since=4),
        _integer("depth", since=4),
    ),
    primary_key=("id",),
    indexes=(
        Index("sessions_by_age", ("created_at_ms", "id")),
        Index("sessions_by_lease", ("lease_until_ms", "id"), where="owner IS NOT NULL", since=2),
        Index("sessions_by_origin", ("forked_from", "id"), where="forked_from IS NOT NULL", since=2),
        Index("sessions_by_parent", ("parent_id", "id"), where="parent_id IS NOT NULL", since=4),
    ),
)

# What of a session is long and changes seldom.
SESSION_DETAILS = Table(
    "session_details",
    (
        _key("session_id"),
        _maybe("system_prompt", Kind.TEXT),
        Column("metadata", Kind.JSON),
        Column("tool_state", Kind.JSON),
        # The sessions whose logs stand before this one's own, oldest first, each with the last seq that is shared.
        _maybe("lineage", Kind.JSON, since=2),
        # What the agent of a session may do, where it is not the loop's own.
        _maybe("agent", Kind.JSON, since=4),
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
        # The tokens of the writes that accepted and that ended it.
        _key("accept_op", since=2),
        _maybe("end_op", Kind.KEY, since=2),
        # The session and the send that wait for this one and pay for it.
        _maybe("paid_by", Kind.KEY, since=4),
        _maybe("paid_by_send", Kind.INTEGER, since=4),
    ),
    primary_key=("session_id", "idx"),
    indexes=(
        Index("sends_by_request", ("session_id", "request_id"), is_unique=True, where="request_id IS NOT NULL"),
        Index("sends_by_payer", ("paid_by", "paid_by_send"), where="paid_by IS NOT NULL", since=4),
    ),
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
        # 1 where the tool's own `key` gave it: only such a call is looked for by its key.
        _integer("is_keyed", since=2),
        _integer("is_approved"),
        _maybe("wait_kind", Kind.KEY),
        _maybe("prompt", Kind.TEXT),
        _maybe("wait_data", Kind.JSON),
        _maybe("started_at_ms", Kind.INTEGER),
        _maybe("ended_at_ms", Kind.INTEGER),
        _maybe("result_seq", Kind.INTEGER),
    ),
    primary_key=("session_id", "reply_seq", "idx"),
    indexes=(
        Index("tool_calls_by_id", ("session_id", "call_id"), is_unique=True),
        Index("tool_calls_by_key", ("session_id", "idempotency_key"), where="is_keyed = 1", since=2),
    ),
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
        # What the prompt was estimated at, and what it was made of.
        _maybe("estimated_tokens", Kind.INTEGER, since=3),
        _maybe("segments", Kind.JSON, since=3),
        # In nano-units of the price table's currency; NULL where no price was known.
        _maybe("cost_nanos", Kind.INTEGER, since=4),
    ),
    primary_key=("session_id", "reply_seq"),
)

# Summaries that stand for the log up to a seq; the newest one counts, the older ones are its history. What is long
# stands last, so that sums are made without reading it.
FOLDS = Table(
    "folds",
    (
        _key("session_id"),
        _integer("to_seq"),
        _integer("from_seq"),
        # The last seq of the log when the fold was made: a fork sees the folds that were made before it left.
        _integer("last_seq"),
        _integer("send_index"),
        _integer("round"),
        _key("strategy"),
        _maybe("model", Kind.TEXT),
        _integer("model_calls"),
        _maybe("input_tokens", Kind.INTEGER),
        _maybe("output_tokens", Kind.INTEGER),
        _maybe("cached_input_tokens", Kind.INTEGER),
        _maybe("cache_write_tokens", Kind.INTEGER),
        _maybe("reasoning_tokens", Kind.INTEGER),
        _integer("is_estimated"),
        _integer("tokens_before"),
        _integer("tokens_after"),
        _maybe("refused_tokens", Kind.INTEGER),
        _maybe("refused_by", Kind.TEXT),
        _maybe("text_seq", Kind.INTEGER),
        _integer("created_at_ms"),
        # When the originals were removed.
        _maybe("pruned_at_ms", Kind.INTEGER),
        _maybe("cost_nanos", Kind.INTEGER, since=4),
        Column("pinned", Kind.JSON),
        Column("summary", Kind.TEXT),
    ),
    primary_key=("session_id", "to_seq"),
    since=3,
)

# Finished sends as plain text. Derived: each row can be made again from the messages that it stands for.
PROJECT_MESSAGES = Table(
    "project_messages",
    (
        _key("session_id"),
        _integer("seq"),
        _integer("to_seq"),
        _key("role"),
        Column("body", Kind.JSON),
        _integer("created_at_ms"),
    ),
    primary_key=("session_id", "seq"),
    since=3,
)

# Big data of images, files and sounds, once a session however often its messages show them.
BLOBS = Table(
    "blobs",
    (_key("session_id"), _key("digest"), _integer("created_at_ms"), Column("data", Kind.TEXT)),
    primary_key=("session_id", "digest"),
    # The key's index finds a row that is megabytes long without passing others.
    is_clustered=False,
    since=3,
)

MEMORIES_BY_TERMS = Index("memories_by_terms", ("terms",), since=3, text_key="number")

# What is remembered beyond a session, of which none of these rows is a part. `terms` are what a text is found by.
MEMORIES = Table(
    "memories",
    (
        _key("namespace"),
        _integer("number"),
        Column("text", Kind.TEXT),
        Column("terms", Kind.TEXT),
        _integer("created_at_ms"),
        _maybe("source_session_id", Kind.KEY),
        _maybe("metadata", Kind.JSON),
    ),
    primary_key=("namespace", "number"),
    indexes=(Index("memories_by_age", ("namespace", "created_at_ms", "number"), since=3), MEMORIES_BY_TERMS),
    since=3,
)

# Inputs for a session whose turn somebody else runs, in order. What was delivered keeps its row without the body, so
# that a repeated request is recognized.
INBOX = Table(
    "inbox",
    (
        _key("session_id"),
        _integer("position"),
        _maybe("request_id", Kind.KEY),
        _key("input_hash"),
        _maybe("body", Kind.JSON),
        Column("options", Kind.JSON),
        _integer("created_at_ms"),
        _maybe("taken_at_ms", Kind.INTEGER),
        _maybe("send_index", Kind.INTEGER),
        _maybe("seq", Kind.INTEGER),
        _key("op"),
    ),
    primary_key=("session_id", "position"),
    indexes=(
        Index("inbox_by_request", ("session_id", "request_id"), is_unique=True, where="request_id IS NOT NULL"),
        Index("inbox_waiting", ("taken_at_ms", "session_id", "position"), where="taken_at_ms IS NULL"),
    ),
    since=2,
)

# A tree of sessions has one board, under the id of the session at its root. `version` counts the writes on it, of which
# `last_op` is the token of the last.
BLACKBOARDS = Table(
    "blackboards",
    (_key("session_id"), _integer("version"), _key("last_op")),
    primary_key=("session_id",),
    since=4,
)

# `key` is a word of SQL. The author is NULL where the application wrote.
BLACKBOARD_ENTRIES = Table(
    "blackboard_entries",
    (
        _key("session_id"),
        _key("entry_key"),
        _integer("version"),
        _maybe("author_session_id", Kind.KEY),
        _integer("created_at_ms"),
        _integer("updated_at_ms"),
        Column("value", Kind.JSON),
    ),
    primary_key=("session_id", "entry_key"),
    since=4,
)

# What a send may take, with all that it sets going, and what was paid of it; `lost` is the part of what was spent of
# which there is no reply. Money is in nano-units.
BUDGETS = Table(
    "budgets",
    (
        _key("session_id"),
        _integer("send_index"),
        _maybe("parent_session_id", Kind.KEY),
        _maybe("parent_send_index", Kind.INTEGER),
        _maybe("max_tokens", Kind.INTEGER),
        _maybe("max_cost_nanos", Kind.INTEGER),
        _maybe("max_tool_calls", Kind.INTEGER),
        _maybe("max_ms", Kind.INTEGER),
        _maybe("deadline_at_ms", Kind.INTEGER),
        _integer("spent_tokens"),
        _integer("spent_cost_nanos"),
        _integer("spent_tool_calls"),
        _integer("lost_tokens"),
        _integer("lost_cost_nanos"),
        _integer("created_at_ms"),
    ),
    primary_key=("session_id", "send_index"),
    indexes=(
        Index(
            "budgets_by_parent",
            ("parent_session_id", "parent_send_index"),
            where="parent_session_id IS NOT NULL",
            since=4,
        ),
    ),
    since=4,
)

# What a session's running calls may take of each budget that pays for them, the nearest at level 0. The sure part is
# spent whatever becomes of the call; of one that came to its end, and is paid with the next move of its turn, that is
# all of it. A session that no turn runs on has none.
BUDGET_HOLDS = Table(
    "budget_holds",
    (
        _key("session_id"),
        _integer("number"),
        _integer("level"),
        _key("budget_session_id"),
        _integer("budget_send_index"),
        _integer("is_settled"),
        _integer("tokens"),
        _integer("cost_nanos"),
        _integer("tool_calls"),
        _integer("sure_tokens"),
        _integer("sure_cost_nanos"),
        _integer("created_at_ms"),
    ),
    primary_key=("session_id", "number", "level"),
    indexes=(Index("budget_holds_by_budget", ("budget_session_id", "budget_send_index"), since=4),),
    since=4,
)

# What a session is to be woken by, and with which input. `wake_at_ms` is when somebody has to look at the row: when it
# is due, when the claim of it is over, or when it is tried again; NULL where it has ended. `epoch` counts its claims.
TIMERS = Table(
    "timers",
    (
        _key("id"),
        _key("session_id"),
        _key("state"),
        _maybe("name", Kind.TEXT),
        _key("made_by"),
        Column("schedule", Kind.JSON),
        Column("body", Kind.JSON),
        _key("input_hash"),
        # The number of the next firing, from 1 on; the moment that the schedule gave it, and when it is due: later
        # where jitter or a hook says so.
        _integer("number"),
        _maybe("planned_at_ms", Kind.INTEGER),
        _maybe("due_at_ms", Kind.INTEGER),
        _maybe("wake_at_ms", Kind.INTEGER),
        _maybe("owner", Kind.KEY),
        _integer("epoch"),
        _integer("delivered"),
        _integer("missed"),
        _integer("vetoed"),
        # How often the next firing failed so far, and what the last failure said.
        _integer("failures"),
        _maybe("last_error", Kind.TEXT),
        _integer("created_at_ms"),
        _maybe("delivered_at_ms", Kind.INTEGER),
        _maybe("ended_at_ms", Kind.INTEGER),
        # The token of the last write.
        _key("op"),
    ),
    primary_key=("id",),
    indexes=(
        Index("timers_by_wake", ("wake_at_ms", "id"), where="wake_at_ms IS NOT NULL", since=5),
        Index("timers_by_session", ("session_id", "id"), since=5),
        Index("timers_by_end", ("ended_at_ms", "id"), where="ended_at_ms IS NOT NULL", since=5),
    ),
    since=5,
)

# A workflow's run, which is a session; what is long stands last.
WORKFLOW_RUNS = Table(
    "workflow_runs",
    (
        _key("session_id"),
        _key("state"),
        _maybe("parent_session_id", Kind.KEY),
        _integer("created_at_ms"),
        _integer("updated_at_ms"),
        _maybe("ended_at_ms", Kind.INTEGER),
        Column("name", Kind.TEXT),
        Column("options", Kind.JSON),
        Column("spec", Kind.JSON),
        Column("input", Kind.JSON),
        _maybe("output", Kind.JSON),
        _maybe("error", Kind.JSON),
    ),
    primary_key=("session_id",),
    indexes=(
        Index("workflow_runs_by_age", ("created_at_ms", "session_id"), since=5),
        Index("workflow_runs_by_parent", ("parent_session_id", "created_at_ms", "session_id"), since=5),
    ),
    since=5,
)

# One row an instance of a step; `usage_json` only where a leaf's session is in no table here.
WORKFLOW_STEPS = Table(
    "workflow_steps",
    (
        _key("session_id"),
        _key("path"),
        _key("node_id"),
        _key("kind"),
        _key("state"),
        _integer("attempt"),
        _maybe("child_session_id", Kind.KEY),
        _maybe("due_at_ms", Kind.INTEGER),
        _maybe("started_at_ms", Kind.INTEGER),
        _maybe("ended_at_ms", Kind.INTEGER),
        _maybe("ended_nth", Kind.INTEGER),
        _maybe("cost_nanos", Kind.INTEGER),
        _maybe("usage_json", Kind.JSON),
        Column("input", Kind.JSON),
        _maybe("output", Kind.JSON),
        _maybe("error", Kind.JSON),
    ),
    primary_key=("session_id", "path"),
    since=5,
)

# What was said to a run from outside, in order.
WORKFLOW_SIGNALS = Table(
    "workflow_signals",
    (
        _key("session_id"),
        _integer("position"),
        Column("name", Kind.TEXT),
        Column("value", Kind.JSON),
        _integer("created_at_ms"),
        _maybe("taken_by", Kind.KEY),
        _key("op"),
    ),
    primary_key=("session_id", "position"),
    since=5,
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
    FOLDS,
    PROJECT_MESSAGES,
    BLOBS,
    MEMORIES,
    INBOX,
    BLACKBOARDS,
    BLACKBOARD_ENTRIES,
    BUDGETS,
    BUDGET_HOLDS,
    TIMERS,
    WORKFLOW_RUNS,
    WORKFLOW_STEPS,
    WORKFLOW_SIGNALS,
)
