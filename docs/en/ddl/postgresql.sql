-- What `power-loop ddl` prints; tables are called pl_… unless a table_prefix says otherwise.

CREATE TABLE pl_schema_migrations (
  version BIGINT NOT NULL,
  name TEXT COLLATE "C" NOT NULL,
  applied_at_ms BIGINT NOT NULL,
  PRIMARY KEY (version)
);
CREATE TABLE pl_sessions (
  id TEXT COLLATE "C" NOT NULL,
  state TEXT COLLATE "C" NOT NULL,
  created_at_ms BIGINT NOT NULL,
  updated_at_ms BIGINT NOT NULL,
  next_seq BIGINT NOT NULL,
  send_count BIGINT NOT NULL,
  version BIGINT NOT NULL,
  owner TEXT COLLATE "C",
  previous_owner TEXT COLLATE "C",
  epoch BIGINT NOT NULL,
  lease_until_ms BIGINT NOT NULL,
  lease_ttl_ms BIGINT NOT NULL,
  tick BIGINT NOT NULL,
  last_op TEXT COLLATE "C" NOT NULL DEFAULT '',
  signals BIGINT NOT NULL DEFAULT 0,
  cancel_epoch BIGINT NOT NULL DEFAULT 0,
  cancel_reason TEXT,
  inbox_count BIGINT NOT NULL DEFAULT 0,
  inbox_taken BIGINT NOT NULL DEFAULT 0,
  forked_from TEXT COLLATE "C",
  forked_at_seq BIGINT,
  parent_id TEXT COLLATE "C",
  parent_send BIGINT,
  root_id TEXT COLLATE "C",
  depth BIGINT NOT NULL DEFAULT 0,
  PRIMARY KEY (id)
);
CREATE INDEX pl_sessions_by_age ON pl_sessions (created_at_ms, id);
CREATE INDEX pl_sessions_by_lease ON pl_sessions (lease_until_ms, id) WHERE owner IS NOT NULL;
CREATE INDEX pl_sessions_by_origin ON pl_sessions (forked_from, id) WHERE forked_from IS NOT NULL;
CREATE INDEX pl_sessions_by_parent ON pl_sessions (parent_id, id) WHERE parent_id IS NOT NULL;
CREATE TABLE pl_session_details (
  session_id TEXT COLLATE "C" NOT NULL,
  system_prompt TEXT,
  metadata TEXT NOT NULL,
  tool_state TEXT NOT NULL,
  lineage TEXT,
  agent TEXT,
  PRIMARY KEY (session_id)
);
CREATE TABLE pl_messages (
  session_id TEXT COLLATE "C" NOT NULL,
  seq BIGINT NOT NULL,
  send_index BIGINT NOT NULL,
  round BIGINT NOT NULL,
  role TEXT COLLATE "C" NOT NULL,
  body TEXT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  PRIMARY KEY (session_id, seq)
);
CREATE TABLE pl_sends (
  session_id TEXT COLLATE "C" NOT NULL,
  idx BIGINT NOT NULL,
  request_id TEXT COLLATE "C",
  input_hash TEXT COLLATE "C" NOT NULL,
  status TEXT COLLATE "C" NOT NULL,
  first_seq BIGINT NOT NULL,
  options TEXT NOT NULL,
  result TEXT,
  attempts BIGINT NOT NULL,
  started_at_ms BIGINT NOT NULL,
  ended_at_ms BIGINT,
  accept_op TEXT COLLATE "C" NOT NULL DEFAULT '',
  end_op TEXT COLLATE "C",
  paid_by TEXT COLLATE "C",
  paid_by_send BIGINT,
  PRIMARY KEY (session_id, idx)
);
CREATE UNIQUE INDEX pl_sends_by_request ON pl_sends (session_id, request_id) WHERE request_id IS NOT NULL;
CREATE INDEX pl_sends_by_payer ON pl_sends (paid_by, paid_by_send) WHERE paid_by IS NOT NULL;
CREATE TABLE pl_tool_calls (
  session_id TEXT COLLATE "C" NOT NULL,
  reply_seq BIGINT NOT NULL,
  idx BIGINT NOT NULL,
  send_index BIGINT NOT NULL,
  call_id TEXT COLLATE "C" NOT NULL,
  name TEXT NOT NULL,
  arguments TEXT NOT NULL,
  effect TEXT COLLATE "C" NOT NULL,
  state TEXT COLLATE "C" NOT NULL,
  attempt BIGINT NOT NULL,
  idempotency_key TEXT COLLATE "C" NOT NULL,
  is_keyed BIGINT NOT NULL DEFAULT 0,
  is_approved BIGINT NOT NULL,
  wait_kind TEXT COLLATE "C",
  prompt TEXT,
  wait_data TEXT,
  started_at_ms BIGINT,
  ended_at_ms BIGINT,
  result_seq BIGINT,
  PRIMARY KEY (session_id, reply_seq, idx)
);
CREATE UNIQUE INDEX pl_tool_calls_by_id ON pl_tool_calls (session_id, call_id);
CREATE INDEX pl_tool_calls_by_key ON pl_tool_calls (session_id, idempotency_key) WHERE is_keyed = 1;
CREATE TABLE pl_tool_results (
  session_id TEXT COLLATE "C" NOT NULL,
  reply_seq BIGINT NOT NULL,
  idx BIGINT NOT NULL,
  body TEXT NOT NULL,
  PRIMARY KEY (session_id, reply_seq, idx)
);
CREATE TABLE pl_model_calls (
  session_id TEXT COLLATE "C" NOT NULL,
  reply_seq BIGINT NOT NULL,
  send_index BIGINT NOT NULL,
  round BIGINT NOT NULL,
  model TEXT NOT NULL,
  stop TEXT COLLATE "C" NOT NULL,
  input_tokens BIGINT,
  output_tokens BIGINT,
  cached_input_tokens BIGINT,
  cache_write_tokens BIGINT,
  reasoning_tokens BIGINT,
  is_estimated BIGINT NOT NULL,
  attempts BIGINT NOT NULL,
  duration_ms BIGINT NOT NULL,
  provider_id TEXT,
  request_id TEXT,
  created_at_ms BIGINT NOT NULL,
  estimated_tokens BIGINT,
  segments TEXT,
  cost_nanos BIGINT,
  PRIMARY KEY (session_id, reply_seq)
);
CREATE TABLE pl_folds (
  session_id TEXT COLLATE "C" NOT NULL,
  to_seq BIGINT NOT NULL,
  from_seq BIGINT NOT NULL,
  last_seq BIGINT NOT NULL,
  send_index BIGINT NOT NULL,
  round BIGINT NOT NULL,
  strategy TEXT COLLATE "C" NOT NULL,
  model TEXT,
  model_calls BIGINT NOT NULL,
  input_tokens BIGINT,
  output_tokens BIGINT,
  cached_input_tokens BIGINT,
  cache_write_tokens BIGINT,
  reasoning_tokens BIGINT,
  is_estimated BIGINT NOT NULL,
  tokens_before BIGINT NOT NULL,
  tokens_after BIGINT NOT NULL,
  refused_tokens BIGINT,
  refused_by TEXT,
  text_seq BIGINT,
  created_at_ms BIGINT NOT NULL,
  pruned_at_ms BIGINT,
  cost_nanos BIGINT,
  pinned TEXT NOT NULL,
  summary TEXT NOT NULL,
  PRIMARY KEY (session_id, to_seq)
);
CREATE TABLE pl_project_messages (
  session_id TEXT COLLATE "C" NOT NULL,
  seq BIGINT NOT NULL,
  to_seq BIGINT NOT NULL,
  role TEXT COLLATE "C" NOT NULL,
  body TEXT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  PRIMARY KEY (session_id, seq)
);
CREATE TABLE pl_blobs (
  session_id TEXT COLLATE "C" NOT NULL,
  digest TEXT COLLATE "C" NOT NULL,
  created_at_ms BIGINT NOT NULL,
  data TEXT NOT NULL,
  PRIMARY KEY (session_id, digest)
);
CREATE TABLE pl_memories (
  namespace TEXT COLLATE "C" NOT NULL,
  number BIGINT NOT NULL,
  text TEXT NOT NULL,
  terms TEXT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  source_session_id TEXT COLLATE "C",
  metadata TEXT,
  PRIMARY KEY (namespace, number)
);
CREATE INDEX pl_memories_by_age ON pl_memories (namespace, created_at_ms, number);
CREATE INDEX pl_memories_by_terms ON pl_memories USING gin (to_tsvector('simple', terms));
CREATE TABLE pl_inbox (
  session_id TEXT COLLATE "C" NOT NULL,
  position BIGINT NOT NULL,
  request_id TEXT COLLATE "C",
  input_hash TEXT COLLATE "C" NOT NULL,
  body TEXT,
  options TEXT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  taken_at_ms BIGINT,
  send_index BIGINT,
  seq BIGINT,
  op TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (session_id, position)
);
CREATE UNIQUE INDEX pl_inbox_by_request ON pl_inbox (session_id, request_id) WHERE request_id IS NOT NULL;
CREATE INDEX pl_inbox_waiting ON pl_inbox (taken_at_ms, session_id, position) WHERE taken_at_ms IS NULL;
CREATE TABLE pl_blackboards (
  session_id TEXT COLLATE "C" NOT NULL,
  version BIGINT NOT NULL,
  last_op TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (session_id)
);
CREATE TABLE pl_blackboard_entries (
  session_id TEXT COLLATE "C" NOT NULL,
  entry_key TEXT COLLATE "C" NOT NULL,
  version BIGINT NOT NULL,
  author_session_id TEXT COLLATE "C",
  created_at_ms BIGINT NOT NULL,
  updated_at_ms BIGINT NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY (session_id, entry_key)
);
CREATE TABLE pl_budgets (
  session_id TEXT COLLATE "C" NOT NULL,
  send_index BIGINT NOT NULL,
  parent_session_id TEXT COLLATE "C",
  parent_send_index BIGINT,
  max_tokens BIGINT,
  max_cost_nanos BIGINT,
  max_tool_calls BIGINT,
  max_ms BIGINT,
  deadline_at_ms BIGINT,
  spent_tokens BIGINT NOT NULL,
  spent_cost_nanos BIGINT NOT NULL,
  spent_tool_calls BIGINT NOT NULL,
  lost_tokens BIGINT NOT NULL,
  lost_cost_nanos BIGINT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  PRIMARY KEY (session_id, send_index)
);
CREATE INDEX pl_budgets_by_parent ON pl_budgets (parent_session_id, parent_send_index) WHERE parent_session_id IS NOT NULL;
CREATE TABLE pl_budget_holds (
  session_id TEXT COLLATE "C" NOT NULL,
  number BIGINT NOT NULL,
  level BIGINT NOT NULL,
  budget_session_id TEXT COLLATE "C" NOT NULL,
  budget_send_index BIGINT NOT NULL,
  is_settled BIGINT NOT NULL,
  tokens BIGINT NOT NULL,
  cost_nanos BIGINT NOT NULL,
  tool_calls BIGINT NOT NULL,
  sure_tokens BIGINT NOT NULL,
  sure_cost_nanos BIGINT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  PRIMARY KEY (session_id, number, level)
);
CREATE INDEX pl_budget_holds_by_budget ON pl_budget_holds (budget_session_id, budget_send_index);
CREATE TABLE pl_timers (
  id TEXT COLLATE "C" NOT NULL,
  session_id TEXT COLLATE "C" NOT NULL,
  state TEXT COLLATE "C" NOT NULL,
  name TEXT,
  made_by TEXT COLLATE "C" NOT NULL,
  schedule TEXT NOT NULL,
  body TEXT NOT NULL,
  input_hash TEXT COLLATE "C" NOT NULL,
  number BIGINT NOT NULL,
  planned_at_ms BIGINT,
  due_at_ms BIGINT,
  wake_at_ms BIGINT,
  owner TEXT COLLATE "C",
  epoch BIGINT NOT NULL,
  delivered BIGINT NOT NULL,
  missed BIGINT NOT NULL,
  vetoed BIGINT NOT NULL,
  failures BIGINT NOT NULL,
  last_error TEXT,
  created_at_ms BIGINT NOT NULL,
  delivered_at_ms BIGINT,
  ended_at_ms BIGINT,
  op TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (id)
);
CREATE INDEX pl_timers_by_wake ON pl_timers (wake_at_ms, id) WHERE wake_at_ms IS NOT NULL;
CREATE INDEX pl_timers_by_session ON pl_timers (session_id, id);
CREATE INDEX pl_timers_by_end ON pl_timers (ended_at_ms, id) WHERE ended_at_ms IS NOT NULL;
CREATE TABLE pl_workflow_runs (
  session_id TEXT COLLATE "C" NOT NULL,
  state TEXT COLLATE "C" NOT NULL,
  parent_session_id TEXT COLLATE "C",
  created_at_ms BIGINT NOT NULL,
  updated_at_ms BIGINT NOT NULL,
  ended_at_ms BIGINT,
  name TEXT NOT NULL,
  options TEXT NOT NULL,
  spec TEXT NOT NULL,
  input TEXT NOT NULL,
  output TEXT,
  error TEXT,
  PRIMARY KEY (session_id)
);
CREATE INDEX pl_workflow_runs_by_age ON pl_workflow_runs (created_at_ms, session_id);
CREATE INDEX pl_workflow_runs_by_parent ON pl_workflow_runs (parent_session_id, created_at_ms, session_id);
CREATE TABLE pl_workflow_steps (
  session_id TEXT COLLATE "C" NOT NULL,
  path TEXT COLLATE "C" NOT NULL,
  node_id TEXT COLLATE "C" NOT NULL,
  kind TEXT COLLATE "C" NOT NULL,
  state TEXT COLLATE "C" NOT NULL,
  attempt BIGINT NOT NULL,
  child_session_id TEXT COLLATE "C",
  due_at_ms BIGINT,
  started_at_ms BIGINT,
  ended_at_ms BIGINT,
  ended_nth BIGINT,
  cost_nanos BIGINT,
  usage_json TEXT,
  input TEXT NOT NULL,
  output TEXT,
  error TEXT,
  PRIMARY KEY (session_id, path)
);
CREATE TABLE pl_workflow_signals (
  session_id TEXT COLLATE "C" NOT NULL,
  position BIGINT NOT NULL,
  name TEXT NOT NULL,
  value TEXT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  taken_by TEXT COLLATE "C",
  op TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (session_id, position)
);
INSERT INTO pl_schema_migrations (version, name, applied_at_ms) VALUES (5, 'create tables', (EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::bigint);
CREATE VIEW pl_v_sessions AS
SELECT
  s.id,
  s.state,
  p.status AS last_status,
  CASE WHEN s.owner IS NOT NULL AND s.lease_until_ms - (EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::bigint > 0 THEN 1 ELSE 0 END AS is_leased,
  s.owner,
  CASE WHEN s.owner IS NOT NULL THEN CAST((s.lease_until_ms - (EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::bigint) / 1000 AS BIGINT) END AS lease_seconds_left,
  CASE WHEN p.status = 'running' AND (s.owner IS NULL OR s.lease_until_ms - (EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::bigint <= 0) THEN 1 ELSE 0 END AS is_orphaned,
  s.epoch,
  s.send_count AS sends,
  s.next_seq - 1 AS last_seq,
  (SELECT COUNT(*) FROM pl_tool_calls c WHERE c.session_id = s.id AND c.state IN ('requested', 'started', 'waiting')) AS open_calls,
  s.inbox_count - s.inbox_taken AS inbox_waiting,
  ((SELECT CAST(COALESCE(SUM(t.input_tokens), 0) AS BIGINT) FROM pl_model_calls t WHERE t.session_id = s.id) + (SELECT CAST(COALESCE(SUM(t.input_tokens), 0) AS BIGINT) FROM pl_folds t WHERE t.session_id = s.id)) AS input_tokens,
  ((SELECT CAST(COALESCE(SUM(t.output_tokens), 0) AS BIGINT) FROM pl_model_calls t WHERE t.session_id = s.id) + (SELECT CAST(COALESCE(SUM(t.output_tokens), 0) AS BIGINT) FROM pl_folds t WHERE t.session_id = s.id)) AS output_tokens,
  (to_timestamp(s.created_at_ms / 1000.0) AT TIME ZONE 'UTC') AS created_at,
  (to_timestamp(s.updated_at_ms / 1000.0) AT TIME ZONE 'UTC') AS updated_at,
  s.forked_from,
  s.forked_at_seq,
  s.parent_id,
  s.parent_send,
  s.root_id,
  s.depth
FROM pl_sessions s
LEFT JOIN pl_sends p ON p.session_id = s.id AND p.idx = s.send_count;
CREATE VIEW pl_v_sends AS
SELECT
  p.session_id,
  p.idx AS send,
  p.status,
  p.request_id,
  p.first_seq,
  p.attempts,
  (SELECT COUNT(*) FROM pl_model_calls m WHERE m.session_id = p.session_id AND m.send_index = p.idx)
    + (SELECT CAST(COALESCE(SUM(t.model_calls), 0) AS BIGINT) FROM pl_folds t WHERE t.session_id = p.session_id AND t.send_index = p.idx) AS model_calls,
  ((SELECT CAST(COALESCE(SUM(t.input_tokens), 0) AS BIGINT) FROM pl_model_calls t WHERE t.session_id = p.session_id AND t.send_index = p.idx) + (SELECT CAST(COALESCE(SUM(t.input_tokens), 0) AS BIGINT) FROM pl_folds t WHERE t.session_id = p.session_id AND t.send_index = p.idx)) AS input_tokens,
  ((SELECT CAST(COALESCE(SUM(t.output_tokens), 0) AS BIGINT) FROM pl_model_calls t WHERE t.session_id = p.session_id AND t.send_index = p.idx) + (SELECT CAST(COALESCE(SUM(t.output_tokens), 0) AS BIGINT) FROM pl_folds t WHERE t.session_id = p.session_id AND t.send_index = p.idx)) AS output_tokens,
  (SELECT COUNT(*) FROM pl_tool_calls c WHERE c.session_id = p.session_id AND c.send_index = p.idx) AS tool_calls,
  (to_timestamp(p.started_at_ms / 1000.0) AT TIME ZONE 'UTC') AS started_at,
  (to_timestamp(p.ended_at_ms / 1000.0) AT TIME ZONE 'UTC') AS ended_at,
  p.ended_at_ms - p.started_at_ms AS milliseconds,
  p.result,
  p.paid_by,
  p.paid_by_send
FROM pl_sends p;
CREATE VIEW pl_v_messages AS
SELECT
  m.session_id,
  m.seq,
  m.send_index AS send,
  m.round,
  m.role,
  OCTET_LENGTH(m.body) AS body_bytes,
  (to_timestamp(m.created_at_ms / 1000.0) AT TIME ZONE 'UTC') AS created_at,
  m.body
FROM pl_messages m;
CREATE VIEW pl_v_parts AS
SELECT
  m.session_id,
  m.seq,
  (item.number - 1) AS part,
  m.role,
  (item.value ->> 'type') AS type,
  COALESCE(item.value ->> 'text', item.value -> 'content' -> 0 ->> 'text') AS text
FROM pl_messages m
JOIN LATERAL json_array_elements((CASE WHEN strpos(m.body, '\ud') > 0 THEN replace(replace(replace(m.body, '\\', chr(1)), '\ud', '\u0'), chr(1), '\\') ELSE m.body END)::json -> 'parts') WITH ORDINALITY item(value, number) ON TRUE;
CREATE VIEW pl_v_tool_calls AS
SELECT
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
  (to_timestamp(c.started_at_ms / 1000.0) AT TIME ZONE 'UTC') AS started_at,
  (to_timestamp(c.ended_at_ms / 1000.0) AT TIME ZONE 'UTC') AS ended_at,
  c.ended_at_ms - c.started_at_ms AS milliseconds,
  c.idempotency_key
FROM pl_tool_calls c;
CREATE VIEW pl_v_pending AS
SELECT
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
  CASE WHEN s.owner IS NOT NULL AND s.lease_until_ms > (EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::bigint THEN 1 ELSE 0 END AS is_leased,
  (to_timestamp(m.created_at_ms / 1000.0) AT TIME ZONE 'UTC') AS requested_at,
  (to_timestamp(c.started_at_ms / 1000.0) AT TIME ZONE 'UTC') AS started_at
FROM pl_tool_calls c
JOIN pl_sessions s ON s.id = c.session_id
LEFT JOIN pl_sends p ON p.session_id = c.session_id AND p.idx = c.send_index
LEFT JOIN pl_messages m ON m.session_id = c.session_id AND m.seq = c.reply_seq
WHERE c.state IN ('requested', 'started', 'waiting');
CREATE VIEW pl_v_usage AS
SELECT
  to_char((to_timestamp(m.created_at_ms / 1000.0) AT TIME ZONE 'UTC'), 'YYYY-MM-DD') AS day,
  m.model,
  m.session_id,
  CAST(COALESCE(SUM(m.calls), 0) AS BIGINT) AS model_calls,
  CAST(COALESCE(SUM(m.input_tokens), 0) AS BIGINT) AS input_tokens,
  CAST(COALESCE(SUM(m.output_tokens), 0) AS BIGINT) AS output_tokens,
  CAST(COALESCE(SUM(m.cached_input_tokens), 0) AS BIGINT) AS cached_input_tokens,
  CAST(COALESCE(SUM(m.cache_write_tokens), 0) AS BIGINT) AS cache_write_tokens,
  CAST(COALESCE(SUM(m.reasoning_tokens), 0) AS BIGINT) AS reasoning_tokens,
  CAST(COALESCE(SUM(m.is_estimated), 0) AS BIGINT) AS estimated_calls,
  CAST(COALESCE(SUM(m.duration_ms), 0) AS BIGINT) AS milliseconds,
  CAST(SUM(m.cost_nanos) AS BIGINT) AS cost_nanos,
  CAST(COALESCE(SUM(m.unpriced), 0) AS BIGINT) AS unpriced_calls
FROM (
  SELECT created_at_ms, model, session_id, input_tokens, output_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens, is_estimated, cost_nanos, 1 AS calls, duration_ms, CASE WHEN cost_nanos IS NULL THEN 1 ELSE 0 END AS unpriced FROM pl_model_calls
  UNION ALL
  SELECT created_at_ms, model, session_id, input_tokens, output_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens, is_estimated, cost_nanos, model_calls, 0, CASE WHEN cost_nanos IS NULL THEN model_calls ELSE 0 END FROM pl_folds WHERE model_calls > 0
) m
GROUP BY to_char((to_timestamp(m.created_at_ms / 1000.0) AT TIME ZONE 'UTC'), 'YYYY-MM-DD'), m.model, m.session_id;
CREATE VIEW pl_v_inbox AS
SELECT
  i.session_id,
  i.position,
  i.request_id,
  CASE WHEN i.taken_at_ms IS NULL THEN 1 ELSE 0 END AS is_waiting,
  i.send_index AS send,
  i.seq,
  (to_timestamp(i.created_at_ms / 1000.0) AT TIME ZONE 'UTC') AS created_at,
  (to_timestamp(i.taken_at_ms / 1000.0) AT TIME ZONE 'UTC') AS taken_at,
  i.body
FROM pl_inbox i;
CREATE VIEW pl_v_folds AS
SELECT
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
  (to_timestamp(f.created_at_ms / 1000.0) AT TIME ZONE 'UTC') AS created_at,
  (to_timestamp(f.pruned_at_ms / 1000.0) AT TIME ZONE 'UTC') AS pruned_at,
  f.pinned,
  f.summary
FROM pl_folds f;
CREATE VIEW pl_v_projected AS
SELECT
  p.session_id,
  p.seq,
  p.to_seq,
  (item.number - 1) AS part,
  p.role,
  (item.value ->> 'type') AS type,
  COALESCE(item.value ->> 'text', item.value -> 'content' -> 0 ->> 'text') AS text,
  (to_timestamp(p.created_at_ms / 1000.0) AT TIME ZONE 'UTC') AS created_at
FROM pl_project_messages p
JOIN LATERAL json_array_elements((CASE WHEN strpos(p.body, '\ud') > 0 THEN replace(replace(replace(p.body, '\\', chr(1)), '\ud', '\u0'), chr(1), '\\') ELSE p.body END)::json -> 'parts') WITH ORDINALITY item(value, number) ON TRUE;
CREATE VIEW pl_v_memories AS
SELECT
  m.namespace,
  m.number,
  (to_timestamp(m.created_at_ms / 1000.0) AT TIME ZONE 'UTC') AS created_at,
  m.source_session_id AS session_id,
  m.text,
  m.metadata
FROM pl_memories m;
CREATE VIEW pl_v_blackboard AS
SELECT
  e.session_id,
  e.entry_key,
  e.version,
  e.author_session_id,
  (to_timestamp(e.created_at_ms / 1000.0) AT TIME ZONE 'UTC') AS created_at,
  (to_timestamp(e.updated_at_ms / 1000.0) AT TIME ZONE 'UTC') AS updated_at,
  OCTET_LENGTH(e.value) AS value_bytes,
  e.value
FROM pl_blackboard_entries e;
CREATE VIEW pl_v_budgets AS
SELECT
  b.session_id,
  b.send_index AS send,
  b.parent_session_id,
  b.parent_send_index AS parent_send,
  b.max_tokens,
  b.spent_tokens,
  (SELECT CAST(COALESCE(SUM(h.tokens), 0) AS BIGINT) FROM pl_budget_holds h WHERE h.budget_session_id = b.session_id AND h.budget_send_index = b.send_index) AS held_tokens,
  b.lost_tokens,
  b.max_cost_nanos,
  b.spent_cost_nanos,
  (SELECT CAST(COALESCE(SUM(h.cost_nanos), 0) AS BIGINT) FROM pl_budget_holds h WHERE h.budget_session_id = b.session_id AND h.budget_send_index = b.send_index) AS held_cost_nanos,
  b.lost_cost_nanos,
  b.max_tool_calls,
  b.spent_tool_calls,
  (SELECT CAST(COALESCE(SUM(h.tool_calls), 0) AS BIGINT) FROM pl_budget_holds h WHERE h.budget_session_id = b.session_id AND h.budget_send_index = b.send_index) AS held_tool_calls,
  (to_timestamp(b.deadline_at_ms / 1000.0) AT TIME ZONE 'UTC') AS deadline_at,
  (to_timestamp(b.created_at_ms / 1000.0) AT TIME ZONE 'UTC') AS created_at
FROM pl_budgets b;
CREATE VIEW pl_v_timers AS
SELECT
  t.id,
  t.session_id,
  t.state,
  t.name,
  t.made_by,
  (to_timestamp(t.due_at_ms / 1000.0) AT TIME ZONE 'UTC') AS due_at,
  CASE WHEN t.due_at_ms <= (EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::bigint THEN 1 ELSE 0 END AS is_due,
  t.owner,
  t.number,
  t.delivered,
  t.missed,
  t.vetoed,
  t.failures,
  t.last_error,
  (to_timestamp(t.delivered_at_ms / 1000.0) AT TIME ZONE 'UTC') AS delivered_at,
  (to_timestamp(t.created_at_ms / 1000.0) AT TIME ZONE 'UTC') AS created_at,
  (to_timestamp(t.ended_at_ms / 1000.0) AT TIME ZONE 'UTC') AS ended_at,
  t.schedule,
  t.body
FROM pl_timers t;
CREATE VIEW pl_v_workflow_runs AS
SELECT
  r.session_id AS run_id,
  r.name,
  r.state,
  CASE WHEN s.owner IS NOT NULL AND s.lease_until_ms - (EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::bigint > 0 THEN 1 ELSE 0 END AS is_leased,
  s.owner,
  r.parent_session_id,
  (SELECT COUNT(*) FROM pl_workflow_steps t WHERE t.session_id = r.session_id) AS steps,
  (SELECT COUNT(*) FROM pl_workflow_steps t WHERE t.session_id = r.session_id AND t.state = 'completed') AS completed_steps,
  (SELECT COUNT(*) FROM pl_workflow_steps t WHERE t.session_id = r.session_id AND t.state IN ('started', 'waiting')) AS open_steps,
  (SELECT COUNT(*) FROM pl_workflow_signals g WHERE g.session_id = r.session_id AND g.taken_by IS NULL)
    AS open_signals,
  (to_timestamp(r.created_at_ms / 1000.0) AT TIME ZONE 'UTC') AS created_at,
  (to_timestamp(r.updated_at_ms / 1000.0) AT TIME ZONE 'UTC') AS updated_at,
  (to_timestamp(r.ended_at_ms / 1000.0) AT TIME ZONE 'UTC') AS ended_at,
  r.output,
  r.error
FROM pl_workflow_runs r
LEFT JOIN pl_sessions s ON s.id = r.session_id;
CREATE VIEW pl_v_workflow_steps AS
SELECT
  t.session_id AS run_id,
  t.path,
  t.node_id,
  t.kind,
  t.state,
  t.attempt,
  t.child_session_id,
  (to_timestamp(t.due_at_ms / 1000.0) AT TIME ZONE 'UTC') AS due_at,
  (to_timestamp(t.started_at_ms / 1000.0) AT TIME ZONE 'UTC') AS started_at,
  (to_timestamp(t.ended_at_ms / 1000.0) AT TIME ZONE 'UTC') AS ended_at,
  t.ended_at_ms - t.started_at_ms AS milliseconds,
  t.input,
  t.output,
  t.error
FROM pl_workflow_steps t;
