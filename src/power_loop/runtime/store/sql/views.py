"""Holds the views for people who look with SQL: times that can be read, states by name, sums that are made already."""

from __future__ import annotations

from power_loop.contracts.states import SendStatus
from power_loop.runtime.store.sql.dialect import Dialect
from power_loop.runtime.store.sql.tables import IS_OPEN_CALL, TABLES

#: The views by name, without the prefix. No code reads them: a database without them works as well.
VIEWS = (
    "v_sessions",
    "v_sends",
    "v_messages",
    "v_parts",
    "v_tool_calls",
    "v_pending",
    "v_usage",
    "v_inbox",
    "v_folds",
    "v_projected",
    "v_memories",
    "v_blackboard",
    "v_budgets",
    "v_timers",
    "v_workflow_runs",
    "v_workflow_steps",
)


def view_statements(dialect: Dialect, prefix: str, *, there: frozenset[str], is_stale: bool) -> list[str]:
    """Return the statements that make the views which are not `there`, and, if these are stale, change those that are.

    `there` holds names with the prefix.
    """
    names = {table.name: prefix + table.name for table in TABLES}
    return [
        statement
        for view, query in zip(VIEWS, _queries(dialect), strict=True)
        if is_stale or prefix + view not in there
        for statement in dialect.create_view(prefix + view, query.format_map(names), is_there=prefix + view in there)
    ]


def _queries(dialect: Dialect) -> tuple[str, ...]:
    """Return the query of each of `VIEWS`, in their order."""
    return (
        _sessions(dialect),
        _sends(dialect),
        _messages(dialect),
        _parts(dialect),
        _tool_calls(dialect),
        _pending(dialect),
        _usage(dialect),
        _inbox(dialect),
        _folds(dialect),
        _projected(dialect),
        _memories(dialect),
        _blackboard(dialect),
        _budgets(dialect),
        _timers(dialect),
        _workflow_runs(dialect),
        _workflow_steps(dialect),
    )


def _total(dialect: Dialect, table: str, column: str, session: str, send: str | None = None) -> str:
    """Return the query for the sum of a column over a session's rows, or over those of one of its sends."""
    total = dialect.as_integer(f"COALESCE(SUM(t.{column}), 0)")
    where = f"t.session_id = {session}" if send is None else f"t.session_id = {session} AND t.send_index = {send}"
    return f"(SELECT {total} FROM {{{table}}} t WHERE {where})"


def _sessions(dialect: Dialect) -> str:
    def tokens(column: str) -> str:
        return f"({_total(dialect, 'model_calls', column, 's.id')} + {_total(dialect, 'folds', column, 's.id')})"

    left = f"s.lease_until_ms - {dialect.now_ms}"
    is_orphaned = f"p.status = '{SendStatus.RUNNING.value}' AND (s.owner IS NULL OR {left} <= 0)"
    return f"""SELECT
  s.id,
  s.state,
  p.status AS last_status,
  CASE WHEN s.owner IS NOT NULL AND {left} > 0 THEN 1 ELSE 0 END AS is_leased,
  s.owner,
  CASE WHEN s.owner IS NOT NULL THEN {dialect.as_integer(f"({left}) / 1000")} END AS lease_seconds_left,
  CASE WHEN {is_orphaned} THEN 1 ELSE 0 END AS is_orphaned,
  s.epoch,
  s.send_count AS sends,
  s.next_seq - 1 AS last_seq,
  (SELECT COUNT(*) FROM {{tool_calls}} c WHERE c.session_id = s.id AND c.{IS_OPEN_CALL}) AS open_calls,
  s.inbox_count - s.inbox_taken AS inbox_waiting,
  {tokens("input_tokens")} AS input_tokens,
  {tokens("output_tokens")} AS output_tokens,
  {dialect.time_of("s.created_at_ms")} AS created_at,
  {dialect.time_of("s.updated_at_ms")} AS updated_at,
  s.forked_from,
  s.forked_at_seq,
  s.parent_id,
  s.parent_send,
  s.root_id,
  s.depth
FROM {{sessions}} s
LEFT JOIN {{sends}} p ON p.session_id = s.id AND p.idx = s.send_count"""


def _sends(dialect: Dialect) -> str:
    def tokens(column: str) -> str:
        place = ("p.session_id", "p.idx")
        return f"({_total(dialect, 'model_calls', column, *place)} + {_total(dialect, 'folds', column, *place)})"

    return f"""SELECT
  p.session_id,
  p.idx AS send,
  p.status,
  p.request_id,
  p.first_seq,
  p.attempts,
  (SELECT COUNT(*) FROM {{model_calls}} m WHERE m.session_id = p.session_id AND m.send_index = p.idx)
    + {_total(dialect, "folds", "model_calls", "p.session_id", "p.idx")} AS model_calls,
  {tokens("input_tokens")} AS input_tokens,
  {tokens("output_tokens")} AS output_tokens,
  (SELECT COUNT(*) FROM {{tool_calls}} c WHERE c.session_id = p.session_id AND c.send_index = p.idx) AS tool_calls,
  {dialect.time_of("p.started_at_ms")} AS started_at,
  {dialect.time_of("p.ended_at_ms")} AS ended_at,
  p.ended_at_ms - p.started_at_ms AS milliseconds,
  p.result,
  p.paid_by,
  p.paid_by_send
FROM {{sends}} p"""


def _messages(dialect: Dialect) -> str:
    return f"""SELECT
  m.session_id,
  m.seq,
  m.send_index AS send,
  m.round,
  m.role,
  {dialect.byte_length("m.body")} AS body_bytes,
  {dialect.time_of("m.created_at_ms")} AS created_at,
  m.body
FROM {{messages}} m"""


def _parts(dialect: Dialect) -> str:
    item = dialect.json_items("m.body", "parts")
    return f"""SELECT
  m.session_id,
  m.seq,
  {item.number} AS part,
  m.role,
  {item.type} AS type,
  {item.text} AS text
FROM {{messages}} m
{item.join}"""


def _tool_calls(dialect: Dialect) -> str:
    return f"""SELECT
  c.session_id,
  c.send_index AS send,
  c.reply_seq,
  c.idx AS call_index,
  c.call_id,
  c.name,
  c.effect,
  c.state,
  c.attempt,
  c.is_approved,
  c.wait_kind,
  c.prompt,
  c.arguments,
  c.result_seq,
  {dialect.time_of("c.started_at_ms")} AS started_at,
  {dialect.time_of("c.ended_at_ms")} AS ended_at,
  c.ended_at_ms - c.started_at_ms AS milliseconds,
  c.idempotency_key
FROM {{tool_calls}} c"""


def _pending(dialect: Dialect) -> str:
    return f"""SELECT
  c.session_id,
  c.call_id,
  c.name,
  c.state,
  c.wait_kind,
  c.prompt,
  c.arguments,
  c.effect,
  c.attempt,
  p.status AS send_status,
  CASE WHEN s.owner IS NOT NULL AND s.lease_until_ms > {dialect.now_ms} THEN 1 ELSE 0 END AS is_leased,
  {dialect.time_of("m.created_at_ms")} AS requested_at,
  {dialect.time_of("c.started_at_ms")} AS started_at
FROM {{tool_calls}} c
JOIN {{sessions}} s ON s.id = c.session_id
LEFT JOIN {{sends}} p ON p.session_id = c.session_id AND p.idx = c.send_index
LEFT JOIN {{messages}} m ON m.session_id = c.session_id AND m.seq = c.reply_seq
WHERE c.{IS_OPEN_CALL}"""


def _usage(dialect: Dialect) -> str:
    tokens = ("input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens", "reasoning_tokens")

    def total(column: str) -> str:
        return dialect.as_integer(f"COALESCE(SUM(m.{column}), 0)")

    columns = f"created_at_ms, model, session_id, {', '.join(tokens)}, is_estimated, cost_nanos"
    unpriced = "CASE WHEN cost_nanos IS NULL THEN {} ELSE 0 END"
    day = dialect.day_of("m.created_at_ms")
    # A fold of another strategy than a model's took none.
    return f"""SELECT
  {day} AS day,
  m.model,
  m.session_id,
  {total("calls")} AS model_calls,
{"".join(f"  {total(column)} AS {column},{chr(10)}" for column in tokens)}  {total("is_estimated")} AS estimated_calls,
  {total("duration_ms")} AS milliseconds,
  {dialect.as_integer("SUM(m.cost_nanos)")} AS cost_nanos,
  {total("unpriced")} AS unpriced_calls
FROM (
  SELECT {columns}, 1 AS calls, duration_ms, {unpriced.format(1)} AS unpriced FROM {{model_calls}}
  UNION ALL
  SELECT {columns}, model_calls, 0, {unpriced.format("model_calls")} FROM {{folds}} WHERE model_calls > 0
) m
GROUP BY {day}, m.model, m.session_id"""


def _inbox(dialect: Dialect) -> str:
    return f"""SELECT
  i.session_id,
  i.position,
  i.request_id,
  CASE WHEN i.taken_at_ms IS NULL THEN 1 ELSE 0 END AS is_waiting,
  i.send_index AS send,
  i.seq,
  {dialect.time_of("i.created_at_ms")} AS created_at,
  {dialect.time_of("i.taken_at_ms")} AS taken_at,
  i.body
FROM {{inbox}} i"""


def _folds(dialect: Dialect) -> str:
    return f"""SELECT
  f.session_id,
  f.from_seq,
  f.to_seq,
  f.send_index AS send,
  f.round,
  f.strategy,
  f.model,
  f.model_calls,
  f.input_tokens,
  f.output_tokens,
  f.tokens_before,
  f.tokens_after,
  {dialect.time_of("f.created_at_ms")} AS created_at,
  {dialect.time_of("f.pruned_at_ms")} AS pruned_at,
  f.pinned,
  f.summary
FROM {{folds}} f"""


def _projected(dialect: Dialect) -> str:
    item = dialect.json_items("p.body", "parts")
    return f"""SELECT
  p.session_id,
  p.seq,
  p.to_seq,
  {item.number} AS part,
  p.role,
  {item.type} AS type,
  {item.text} AS text,
  {dialect.time_of("p.created_at_ms")} AS created_at
FROM {{project_messages}} p
{item.join}"""


def _memories(dialect: Dialect) -> str:
    return f"""SELECT
  m.namespace,
  m.number,
  {dialect.time_of("m.created_at_ms")} AS created_at,
  m.source_session_id AS session_id,
  m.text,
  m.metadata
FROM {{memories}} m"""


def _blackboard(dialect: Dialect) -> str:
    return f"""SELECT
  e.session_id,
  e.entry_key,
  e.version,
  e.author_session_id,
  {dialect.time_of("e.created_at_ms")} AS created_at,
  {dialect.time_of("e.updated_at_ms")} AS updated_at,
  {dialect.byte_length("e.value")} AS value_bytes,
  e.value
FROM {{blackboard_entries}} e"""


def _budgets(dialect: Dialect) -> str:
    def held(column: str) -> str:
        total = dialect.as_integer(f"COALESCE(SUM(h.{column}), 0)")
        where = "h.budget_session_id = b.session_id AND h.budget_send_index = b.send_index"
        return f"(SELECT {total} FROM {{budget_holds}} h WHERE {where})"

    return f"""SELECT
  b.session_id,
  b.send_index AS send,
  b.parent_session_id,
  b.parent_send_index AS parent_send,
  b.max_tokens,
  b.spent_tokens,
  {held("tokens")} AS held_tokens,
  b.lost_tokens,
  b.max_cost_nanos,
  b.spent_cost_nanos,
  {held("cost_nanos")} AS held_cost_nanos,
  b.lost_cost_nanos,
  b.max_tool_calls,
  b.spent_tool_calls,
  {held("tool_calls")} AS held_tool_calls,
  {dialect.time_of("b.deadline_at_ms")} AS deadline_at,
  {dialect.time_of("b.created_at_ms")} AS created_at
FROM {{budgets}} b"""


def _timers(dialect: Dialect) -> str:
    return f"""SELECT
  t.id,
  t.session_id,
  t.state,
  t.name,
  t.made_by,
  {dialect.time_of("t.due_at_ms")} AS due_at,
  CASE WHEN t.due_at_ms <= {dialect.now_ms} THEN 1 ELSE 0 END AS is_due,
  t.owner,
  t.number,
  t.delivered,
  t.missed,
  t.vetoed,
  t.failures,
  t.last_error,
  {dialect.time_of("t.delivered_at_ms")} AS delivered_at,
  {dialect.time_of("t.created_at_ms")} AS created_at,
  {dialect.time_of("t.ended_at_ms")} AS ended_at,
  t.schedule,
  t.body
FROM {{timers}} t"""


def _workflow_runs(dialect: Dialect) -> str:
    def steps(condition: str) -> str:
        return f"(SELECT COUNT(*) FROM {{workflow_steps}} t WHERE t.session_id = r.session_id{condition})"

    left = f"s.lease_until_ms - {dialect.now_ms}"
    return f"""SELECT
  r.session_id AS run_id,
  r.name,
  r.state,
  CASE WHEN s.owner IS NOT NULL AND {left} > 0 THEN 1 ELSE 0 END AS is_leased,
  s.owner,
  r.parent_session_id,
  {steps("")} AS steps,
  {steps(" AND t.state = 'completed'")} AS completed_steps,
  {steps(" AND t.state IN ('started', 'waiting')")} AS open_steps,
  (SELECT COUNT(*) FROM {{workflow_signals}} g WHERE g.session_id = r.session_id AND g.taken_by IS NULL)
    AS open_signals,
  {dialect.time_of("r.created_at_ms")} AS created_at,
  {dialect.time_of("r.updated_at_ms")} AS updated_at,
  {dialect.time_of("r.ended_at_ms")} AS ended_at,
  r.output,
  r.error
FROM {{workflow_runs}} r
LEFT JOIN {{sessions}} s ON s.id = r.session_id"""


def _workflow_steps(dialect: Dialect) -> str:
    return f"""SELECT
  t.session_id AS run_id,
  t.path,
  t.node_id,
  t.kind,
  t.state,
  t.attempt,
  t.child_session_id,
  {dialect.time_of("t.due_at_ms")} AS due_at,
  {dialect.time_of("t.started_at_ms")} AS started_at,
  {dialect.time_of("t.ended_at_ms")} AS ended_at,
  t.ended_at_ms - t.started_at_ms AS milliseconds,
  t.input,
  t.output,
  t.error
FROM {{workflow_steps}} t"""
