-- What `power-loop ddl` prints; tables are called pl_… unless a table_prefix says otherwise.

CREATE TABLE pl_schema_migrations (
  version INTEGER NOT NULL,
  name TEXT NOT NULL,
  applied_at_ms INTEGER NOT NULL,
  PRIMARY KEY (version)
);
CREATE TABLE pl_sessions (
  id TEXT NOT NULL,
  state TEXT NOT NULL,
  created_at_ms INTEGER NOT NULL,
  updated_at_ms INTEGER NOT NULL,
  next_seq INTEGER NOT NULL,
  send_count INTEGER NOT NULL,
  version INTEGER NOT NULL,
  owner TEXT,
  previous_owner TEXT,
  epoch INTEGER NOT NULL,
  lease_until_ms INTEGER NOT NULL,
  lease_ttl_ms INTEGER NOT NULL,
  tick INTEGER NOT NULL,
  last_op TEXT NOT NULL DEFAULT '',
  signals INTEGER NOT NULL DEFAULT 0,
  cancel_epoch INTEGER NOT NULL DEFAULT 0,
  cancel_reason TEXT,
  inbox_count INTEGER NOT NULL DEFAULT 0,
  inbox_taken INTEGER NOT NULL DEFAULT 0,
  forked_from TEXT,
  forked_at_seq INTEGER,
  parent_id TEXT,
  parent_send INTEGER,
  root_id TEXT,
  depth INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (id)
) WITHOUT ROWID;
CREATE INDEX pl_sessions_by_age ON pl_sessions (created_at_ms, id);
CREATE INDEX pl_sessions_by_lease ON pl_sessions (lease_until_ms, id) WHERE owner IS NOT NULL;
CREATE INDEX pl_sessions_by_origin ON pl_sessions (forked_from, id) WHERE forked_from IS NOT NULL;
CREATE INDEX pl_sessions_by_parent ON pl_sessions (parent_id, id) WHERE parent_id IS NOT NULL;
CREATE TABLE pl_session_details (
  session_id TEXT NOT NULL,
  system_prompt TEXT,
  metadata TEXT NOT NULL,
  tool_state TEXT NOT NULL,
  lineage TEXT,
  agent TEXT,
  PRIMARY KEY (session_id)
) WITHOUT ROWID;
CREATE TABLE pl_messages (
  session_id TEXT NOT NULL,
  seq INTEGER NOT NULL,
  send_index INTEGER NOT NULL,
  round INTEGER NOT NULL,
  role TEXT NOT NULL,
  body TEXT NOT NULL,
  created_at_ms INTEGER NOT NULL,
  PRIMARY KEY (session_id, seq)
) WITHOUT ROWID;
CREATE TABLE pl_sends (
  session_id TEXT NOT NULL,
  idx INTEGER NOT NULL,
  request_id TEXT,
  input_hash TEXT NOT NULL,
  status TEXT NOT NULL,
  first_seq INTEGER NOT NULL,
  options TEXT NOT NULL,
  result TEXT,
  attempts INTEGER NOT NULL,
  started_at_ms INTEGER NOT NULL,
  ended_at_ms INTEGER,
  accept_op TEXT NOT NULL DEFAULT '',
  end_op TEXT,
  paid_by TEXT,
  paid_by_send INTEGER,
  PRIMARY KEY (session_id, idx)
) WITHOUT ROWID;
CREATE UNIQUE INDEX pl_sends_by_request ON pl_sends (session_id, request_id) WHERE request_id IS NOT NULL;
CREATE INDEX pl_sends_by_payer ON pl_sends (paid_by, paid_by_send) WHERE paid_by IS NOT NULL;
CREATE TABLE pl_tool_calls (
  session_id TEXT NOT NULL,
  reply_seq INTEGER NOT NULL,
  idx INTEGER NOT NULL,
  send_index INTEGER NOT NULL,
  call_id TEXT NOT NULL,
  name TEXT NOT NULL,
  arguments TEXT NOT NULL,
  effect TEXT NOT NULL,
  state TEXT NOT NULL,
  attempt INTEGER NOT NULL,
  idempotency_key TEXT NOT NULL,
  is_keyed INTEGER NOT NULL DEFAULT 0,
  is_approved INTEGER NOT NULL,
  wait_kind TEXT,
  prompt TEXT,
  wait_data TEXT,
  started_at_ms INTEGER,
  ended_at_ms INTEGER,
  result_seq INTEGER,
  PRIMARY KEY (session_id, reply_seq, idx)
) WITHOUT ROWID;
CREATE UNIQUE INDEX pl_tool_calls_by_id ON pl_tool_calls (session_id, call_id);
CREATE INDEX pl_tool_calls_by_key ON pl_tool_calls (session_id, idempotency_key) WHERE is_keyed = 1;
CREATE TABLE pl_tool_results (
  session_id TEXT NOT NULL,
  reply_seq INTEGER NOT NULL,
  idx INTEGER NOT NULL,
  body TEXT NOT NULL,
  PRIMARY KEY (session_id, reply_seq, idx)
) WITHOUT ROWID;
CREATE TABLE pl_model_calls (
  session_id TEXT NOT NULL,
  reply_seq INTEGER NOT NULL,
  send_index INTEGER NOT NULL,
  round INTEGER NOT NULL,
  model TEXT NOT NULL,
  stop TEXT NOT NULL,
  input_tokens INTEGER,
  output_tokens INTEGER,
  cached_input_tokens INTEGER,
  cache_write_tokens INTEGER,
  reasoning_tokens INTEGER,
  is_estimated INTEGER NOT NULL,
  attempts INTEGER NOT NULL,
  duration_ms INTEGER NOT NULL,
  provider_id TEXT,
  request_id TEXT,
  created_at_ms INTEGER NOT NULL,
  estimated_tokens INTEGER,
  segments TEXT,
  cost_nanos INTEGER,
  PRIMARY KEY (session_id, reply_seq)
) WITHOUT ROWID;
CREATE TABLE pl_folds (
  session_id TEXT NOT NULL,
  to_seq INTEGER NOT NULL,
  from_seq INTEGER NOT NULL,
  last_seq INTEGER NOT NULL,
  send_index INTEGER NOT NULL,
  round INTEGER NOT NULL,
  strategy TEXT NOT NULL,
  model TEXT,
  model_calls INTEGER NOT NULL,
  input_tokens INTEGER,
  output_tokens INTEGER,
  cached_input_tokens INTEGER,
  cache_write_tokens INTEGER,
  reasoning_tokens INTEGER,
  is_estimated INTEGER NOT NULL,
  tokens_before INTEGER NOT NULL,
  tokens_after INTEGER NOT NULL,
  refused_tokens INTEGER,
  refused_by TEXT,
  text_seq INTEGER,
  created_at_ms INTEGER NOT NULL,
  pruned_at_ms INTEGER,
  cost_nanos INTEGER,
  pinned TEXT NOT NULL,
  summary TEXT NOT NULL,
  PRIMARY KEY (session_id, to_seq)
) WITHOUT ROWID;
CREATE TABLE pl_project_messages (
  session_id TEXT NOT NULL,
  seq INTEGER NOT NULL,
  to_seq INTEGER NOT NULL,
  role TEXT NOT NULL,
  body TEXT NOT NULL,
  created_at_ms INTEGER NOT NULL,
  PRIMARY KEY (session_id, seq)
) WITHOUT ROWID;
CREATE TABLE pl_blobs (
  session_id TEXT NOT NULL,
  digest TEXT NOT NULL,
  created_at_ms INTEGER NOT NULL,
  data TEXT NOT NULL,
  PRIMARY KEY (session_id, digest)
);
CREATE TABLE pl_memories (
  namespace TEXT NOT NULL,
  number INTEGER NOT NULL,
  text TEXT NOT NULL,
  terms TEXT NOT NULL,
  created_at_ms INTEGER NOT NULL,
  source_session_id TEXT,
  metadata TEXT,
  PRIMARY KEY (namespace, number)
) WITHOUT ROWID;
CREATE INDEX pl_memories_by_age ON pl_memories (namespace, created_at_ms, number);
CREATE VIRTUAL TABLE pl_memories_by_terms USING fts5(terms, content='pl_memories', content_rowid='number', tokenize='ascii');
CREATE TABLE pl_inbox (
  session_id TEXT NOT NULL,
  position INTEGER NOT NULL,
  request_id TEXT,
  input_hash TEXT NOT NULL,
  body TEXT,
  options TEXT NOT NULL,
  created_at_ms INTEGER NOT NULL,
  taken_at_ms INTEGER,
  send_index INTEGER,
  seq INTEGER,
  op TEXT NOT NULL,
  PRIMARY KEY (session_id, position)
) WITHOUT ROWID;
CREATE UNIQUE INDEX pl_inbox_by_request ON pl_inbox (session_id, request_id) WHERE request_id IS NOT NULL;
CREATE INDEX pl_inbox_waiting ON pl_inbox (taken_at_ms, session_id, position) WHERE taken_at_ms IS NULL;
CREATE TABLE pl_blackboards (
  session_id TEXT NOT NULL,
  version INTEGER NOT NULL,
  last_op TEXT NOT NULL,
  PRIMARY KEY (session_id)
) WITHOUT ROWID;
CREATE TABLE pl_blackboard_entries (
  session_id TEXT NOT NULL,
  entry_key TEXT NOT NULL,
  version INTEGER NOT NULL,
  author_session_id TEXT,
  created_at_ms INTEGER NOT NULL,
  updated_at_ms INTEGER NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY (session_id, entry_key)
) WITHOUT ROWID;
CREATE TABLE pl_budgets (
  session_id TEXT NOT NULL,
  send_index INTEGER NOT NULL,
  parent_session_id TEXT,
  parent_send_index INTEGER,
  max_tokens INTEGER,
  max_cost_nanos INTEGER,
  max_tool_calls INTEGER,
  max_ms INTEGER,
  deadline_at_ms INTEGER,
  spent_tokens INTEGER NOT NULL,
  spent_cost_nanos INTEGER NOT NULL,
  spent_tool_calls INTEGER NOT NULL,
  lost_tokens INTEGER NOT NULL,
  lost_cost_nanos INTEGER NOT NULL,
  created_at_ms INTEGER NOT NULL,
  PRIMARY KEY (session_id, send_index)
) WITHOUT ROWID;
CREATE INDEX pl_budgets_by_parent ON pl_budgets (parent_session_id, parent_send_index) WHERE parent_session_id IS NOT NULL;
CREATE TABLE pl_budget_holds (
  session_id TEXT NOT NULL,
  number INTEGER NOT NULL,
  level INTEGER NOT NULL,
  budget_session_id TEXT NOT NULL,
  budget_send_index INTEGER NOT NULL,
  is_settled INTEGER NOT NULL,
  tokens INTEGER NOT NULL,
  cost_nanos INTEGER NOT NULL,
  tool_calls INTEGER NOT NULL,
  sure_tokens INTEGER NOT NULL,
  sure_cost_nanos INTEGER NOT NULL,
  created_at_ms INTEGER NOT NULL,
  PRIMARY KEY (session_id, number, level)
) WITHOUT ROWID;
CREATE INDEX pl_budget_holds_by_budget ON pl_budget_holds (budget_session_id, budget_send_index);
CREATE TABLE pl_timers (
  id TEXT NOT NULL,
  session_id TEXT NOT NULL,
  state TEXT NOT NULL,
  name TEXT,
  made_by TEXT NOT NULL,
  schedule TEXT NOT NULL,
  body TEXT NOT NULL,
  input_hash TEXT NOT NULL,
  number INTEGER NOT NULL,
  planned_at_ms INTEGER,
  due_at_ms INTEGER,
  wake_at_ms INTEGER,
  owner TEXT,
  epoch INTEGER NOT NULL,
  delivered INTEGER NOT NULL,
  missed INTEGER NOT NULL,
  vetoed INTEGER NOT NULL,
  failures INTEGER NOT NULL,
  last_error TEXT,
  created_at_ms INTEGER NOT NULL,
  delivered_at_ms INTEGER,
  ended_at_ms INTEGER,
  op TEXT NOT NULL,
  PRIMARY KEY (id)
) WITHOUT ROWID;
CREATE INDEX pl_timers_by_wake ON pl_timers (wake_at_ms, id) WHERE wake_at_ms IS NOT NULL;
CREATE INDEX pl_timers_by_session ON pl_timers (session_id, id);
CREATE INDEX pl_timers_by_end ON pl_timers (ended_at_ms, id) WHERE ended_at_ms IS NOT NULL;
CREATE TABLE pl_workflow_runs (
  session_id TEXT NOT NULL,
  state TEXT NOT NULL,
  parent_session_id TEXT,
  created_at_ms INTEGER NOT NULL,
  updated_at_ms INTEGER NOT NULL,
  ended_at_ms INTEGER,
  name TEXT NOT NULL,
  options TEXT NOT NULL,
  spec TEXT NOT NULL,
  input TEXT NOT NULL,
  output TEXT,
  error TEXT,
  PRIMARY KEY (session_id)
) WITHOUT ROWID;
CREATE INDEX pl_workflow_runs_by_age ON pl_workflow_runs (created_at_ms, session_id);
CREATE INDEX pl_workflow_runs_by_parent ON pl_workflow_runs (parent_session_id, created_at_ms, session_id);
CREATE TABLE pl_workflow_steps (
  session_id TEXT NOT NULL,
  path TEXT NOT NULL,
  node_id TEXT NOT NULL,
  kind TEXT NOT NULL,
  state TEXT NOT NULL,
  attempt INTEGER NOT NULL,
  child_session_id TEXT,
  due_at_ms INTEGER,
  started_at_ms INTEGER,
  ended_at_ms INTEGER,
  ended_nth INTEGER,
  cost_nanos INTEGER,
  usage_json TEXT,
  input TEXT NOT NULL,
  output TEXT,
  error TEXT,
  PRIMARY KEY (session_id, path)
) WITHOUT ROWID;
CREATE TABLE pl_workflow_signals (
  session_id TEXT NOT NULL,
  position INTEGER NOT NULL,
  name TEXT NOT NULL,
  value TEXT NOT NULL,
  created_at_ms INTEGER NOT NULL,
  taken_by TEXT,
  op TEXT NOT NULL,
  PRIMARY KEY (session_id, position)
) WITHOUT ROWID;
INSERT INTO pl_schema_migrations (version, name, applied_at_ms) VALUES (5, 'create tables', (CAST(strftime('%s', 'now') AS INTEGER) * 1000));
CREATE VIEW pl_v_sessions AS
SELECT
  s.id,
  s.state,
  p.status AS last_status,
  CASE WHEN s.owner IS NOT NULL AND s.lease_until_ms - (CAST(strftime('%s', 'now') AS INTEGER) * 1000) > 0 THEN 1 ELSE 0 END AS is_leased,
  s.owner,
  CASE WHEN s.owner IS NOT NULL THEN (s.lease_until_ms - (CAST(strftime('%s', 'now') AS INTEGER) * 1000)) / 1000 END AS lease_seconds_left,
  CASE WHEN p.status = 'running' AND (s.owner IS NULL OR s.lease_until_ms - (CAST(strftime('%s', 'now') AS INTEGER) * 1000) <= 0) THEN 1 ELSE 0 END AS is_orphaned,
  s.epoch,
  s.send_count AS sends,
  s.next_seq - 1 AS last_seq,
  (SELECT COUNT(*) FROM pl_tool_calls c WHERE c.session_id = s.id AND c.state IN ('requested', 'started', 'waiting')) AS open_calls,
  s.inbox_count - s.inbox_taken AS inbox_waiting,
  ((SELECT COALESCE(SUM(t.input_tokens), 0) FROM pl_model_calls t WHERE t.session_id = s.id) + (SELECT COALESCE(SUM(t.input_tokens), 0) FROM pl_folds t WHERE t.session_id = s.id)) AS input_tokens,
  ((SELECT COALESCE(SUM(t.output_tokens), 0) FROM pl_model_calls t WHERE t.session_id = s.id) + (SELECT COALESCE(SUM(t.output_tokens), 0) FROM pl_folds t WHERE t.session_id = s.id)) AS output_tokens,
  (strftime('%Y-%m-%d %H:%M:%S', s.created_at_ms / 1000, 'unixepoch') || '.' || substr('00' || (s.created_at_ms % 1000), -3)) AS created_at,
  (strftime('%Y-%m-%d %H:%M:%S', s.updated_at_ms / 1000, 'unixepoch') || '.' || substr('00' || (s.updated_at_ms % 1000), -3)) AS updated_at,
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
    + (SELECT COALESCE(SUM(t.model_calls), 0) FROM pl_folds t WHERE t.session_id = p.session_id AND t.send_index = p.idx) AS model_calls,
  ((SELECT COALESCE(SUM(t.input_tokens), 0) FROM pl_model_calls t WHERE t.session_id = p.session_id AND t.send_index = p.idx) + (SELECT COALESCE(SUM(t.input_tokens), 0) FROM pl_folds t WHERE t.session_id = p.session_id AND t.send_index = p.idx)) AS input_tokens,
  ((SELECT COALESCE(SUM(t.output_tokens), 0) FROM pl_model_calls t WHERE t.session_id = p.session_id AND t.send_index = p.idx) + (SELECT COALESCE(SUM(t.output_tokens), 0) FROM pl_folds t WHERE t.session_id = p.session_id AND t.send_index = p.idx)) AS output_tokens,
  (SELECT COUNT(*) FROM pl_tool_calls c WHERE c.session_id = p.session_id AND c.send_index = p.idx) AS tool_calls,
  (strftime('%Y-%m-%d %H:%M:%S', p.started_at_ms / 1000, 'unixepoch') || '.' || substr('00' || (p.started_at_ms % 1000), -3)) AS started_at,
  (strftime('%Y-%m-%d %H:%M:%S', p.ended_at_ms / 1000, 'unixepoch') || '.' || substr('00' || (p.ended_at_ms % 1000), -3)) AS ended_at,
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
  LENGTH(CAST(m.body AS BLOB)) AS body_bytes,
  (strftime('%Y-%m-%d %H:%M:%S', m.created_at_ms / 1000, 'unixepoch') || '.' || substr('00' || (m.created_at_ms % 1000), -3)) AS created_at,
  m.body
FROM pl_messages m;
CREATE VIEW pl_v_parts AS
SELECT
  m.session_id,
  m.seq,
  item.key AS part,
  m.role,
  json_extract(item.value, '$.type') AS type,
  COALESCE(json_extract(item.value, '$.text'), json_extract(item.value, '$.content[0].text')) AS text
FROM pl_messages m
JOIN json_each(m.body, '$.parts') item;
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
  (strftime('%Y-%m-%d %H:%M:%S', c.started_at_ms / 1000, 'unixepoch') || '.' || substr('00' || (c.started_at_ms % 1000), -3)) AS started_at,
  (strftime('%Y-%m-%d %H:%M:%S', c.ended_at_ms / 1000, 'unixepoch') || '.' || substr('00' || (c.ended_at_ms % 1000), -3)) AS ended_at,
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
  CASE WHEN s.owner IS NOT NULL AND s.lease_until_ms > (CAST(strftime('%s', 'now') AS INTEGER) * 1000) THEN 1 ELSE 0 END AS is_leased,
  (strftime('%Y-%m-%d %H:%M:%S', m.created_at_ms / 1000, 'unixepoch') || '.' || substr('00' || (m.created_at_ms % 1000), -3)) AS requested_at,
  (strftime('%Y-%m-%d %H:%M:%S', c.started_at_ms / 1000, 'unixepoch') || '.' || substr('00' || (c.started_at_ms % 1000), -3)) AS started_at
FROM pl_tool_calls c
JOIN pl_sessions s ON s.id = c.session_id
LEFT JOIN pl_sends p ON p.session_id = c.session_id AND p.idx = c.send_index
LEFT JOIN pl_messages m ON m.session_id = c.session_id AND m.seq = c.reply_seq
WHERE c.state IN ('requested', 'started', 'waiting');
CREATE VIEW pl_v_usage AS
SELECT
  strftime('%Y-%m-%d', m.created_at_ms / 1000, 'unixepoch') AS day,
  m.model,
  m.session_id,
  COALESCE(SUM(m.calls), 0) AS model_calls,
  COALESCE(SUM(m.input_tokens), 0) AS input_tokens,
  COALESCE(SUM(m.output_tokens), 0) AS output_tokens,
  COALESCE(SUM(m.cached_input_tokens), 0) AS cached_input_tokens,
  COALESCE(SUM(m.cache_write_tokens), 0) AS cache_write_tokens,
  COALESCE(SUM(m.reasoning_tokens), 0) AS reasoning_tokens,
  COALESCE(SUM(m.is_estimated), 0) AS estimated_calls,
  COALESCE(SUM(m.duration_ms), 0) AS milliseconds,
  SUM(m.cost_nanos) AS cost_nanos,
  COALESCE(SUM(m.unpriced), 0) AS unpriced_calls
FROM (
  SELECT created_at_ms, model, session_id, input_tokens, output_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens, is_estimated, cost_nanos, 1 AS calls, duration_ms, CASE WHEN cost_nanos IS NULL THEN 1 ELSE 0 END AS unpriced FROM pl_model_calls
  UNION ALL
  SELECT created_at_ms, model, session_id, input_tokens, output_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens, is_estimated, cost_nanos, model_calls, 0, CASE WHEN cost_nanos IS NULL THEN model_calls ELSE 0 END FROM pl_folds WHERE model_calls > 0
) m
GROUP BY strftime('%Y-%m-%d', m.created_at_ms / 1000, 'unixepoch'), m.model, m.session_id;
CREATE VIEW pl_v_inbox AS
SELECT
  i.session_id,
  i.position,
  i.request_id,
  CASE WHEN i.taken_at_ms IS NULL THEN 1 ELSE 0 END AS is_waiting,
  i.send_index AS send,
  i.seq,
  (strftime('%Y-%m-%d %H:%M:%S', i.created_at_ms / 1000, 'unixepoch') || '.' || substr('00' || (i.created_at_ms % 1000), -3)) AS created_at,
  (strftime('%Y-%m-%d %H:%M:%S', i.taken_at_ms / 1000, 'unixepoch') || '.' || substr('00' || (i.taken_at_ms % 1000), -3)) AS taken_at,
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
  (strftime('%Y-%m-%d %H:%M:%S', f.created_at_ms / 1000, 'unixepoch') || '.' || substr('00' || (f.created_at_ms % 1000), -3)) AS created_at,
  (strftime('%Y-%m-%d %H:%M:%S', f.pruned_at_ms / 1000, 'unixepoch') || '.' || substr('00' || (f.pruned_at_ms % 1000), -3)) AS pruned_at,
  f.pinned,
  f.summary
FROM pl_folds f;
CREATE VIEW pl_v_projected AS
SELECT
  p.session_id,
  p.seq,
  p.to_seq,
  item.key AS part,
  p.role,
  json_extract(item.value, '$.type') AS type,
  COALESCE(json_extract(item.value, '$.text'), json_extract(item.value, '$.content[0].text')) AS text,
  (strftime('%Y-%m-%d %H:%M:%S', p.created_at_ms / 1000, 'unixepoch') || '.' || substr('00' || (p.created_at_ms % 1000), -3)) AS created_at
FROM pl_project_messages p
JOIN json_each(p.body, '$.parts') item;
CREATE VIEW pl_v_memories AS
SELECT
  m.namespace,
  m.number,
  (strftime('%Y-%m-%d %H:%M:%S', m.created_at_ms / 1000, 'unixepoch') || '.' || substr('00' || (m.created_at_ms % 1000), -3)) AS created_at,
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
  (strftime('%Y-%m-%d %H:%M:%S', e.created_at_ms / 1000, 'unixepoch') || '.' || substr('00' || (e.created_at_ms % 1000), -3)) AS created_at,
  (strftime('%Y-%m-%d %H:%M:%S', e.updated_at_ms / 1000, 'unixepoch') || '.' || substr('00' || (e.updated_at_ms % 1000), -3)) AS updated_at,
  LENGTH(CAST(e.value AS BLOB)) AS value_bytes,
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
  (SELECT COALESCE(SUM(h.tokens), 0) FROM pl_budget_holds h WHERE h.budget_session_id = b.session_id AND h.budget_send_index = b.send_index) AS held_tokens,
  b.lost_tokens,
  b.max_cost_nanos,
  b.spent_cost_nanos,
  (SELECT COALESCE(SUM(h.cost_nanos), 0) FROM pl_budget_holds h WHERE h.budget_session_id = b.session_id AND h.budget_send_index = b.send_index) AS held_cost_nanos,
  b.lost_cost_nanos,
  b.max_tool_calls,
  b.spent_tool_calls,
  (SELECT COALESCE(SUM(h.tool_calls), 0) FROM pl_budget_holds h WHERE h.budget_session_id = b.session_id AND h.budget_send_index = b.send_index) AS held_tool_calls,
  (strftime('%Y-%m-%d %H:%M:%S', b.deadline_at_ms / 1000, 'unixepoch') || '.' || substr('00' || (b.deadline_at_ms % 1000), -3)) AS deadline_at,
  (strftime('%Y-%m-%d %H:%M:%S', b.created_at_ms / 1000, 'unixepoch') || '.' || substr('00' || (b.created_at_ms % 1000), -3)) AS created_at
FROM pl_budgets b;
CREATE VIEW pl_v_timers AS
SELECT
  t.id,
  t.session_id,
  t.state,
  t.name,
  t.made_by,
  (strftime('%Y-%m-%d %H:%M:%S', t.due_at_ms / 1000, 'unixepoch') || '.' || substr('00' || (t.due_at_ms % 1000), -3)) AS due_at,
  CASE WHEN t.due_at_ms <= (CAST(strftime('%s', 'now') AS INTEGER) * 1000) THEN 1 ELSE 0 END AS is_due,
  t.owner,
  t.number,
  t.delivered,
  t.missed,
  t.vetoed,
  t.failures,
  t.last_error,
  (strftime('%Y-%m-%d %H:%M:%S', t.delivered_at_ms / 1000, 'unixepoch') || '.' || substr('00' || (t.delivered_at_ms % 1000), -3)) AS delivered_at,
  (strftime('%Y-%m-%d %H:%M:%S', t.created_at_ms / 1000, 'unixepoch') || '.' || substr('00' || (t.created_at_ms % 1000), -3)) AS created_at,
  (strftime('%Y-%m-%d %H:%M:%S', t.ended_at_ms / 1000, 'unixepoch') || '.' || substr('00' || (t.ended_at_ms % 1000), -3)) AS ended_at,
  t.schedule,
  t.body
FROM pl_timers t;
CREATE VIEW pl_v_workflow_runs AS
SELECT
  r.session_id AS run_id,
  r.name,
  r.state,
  CASE WHEN s.owner IS NOT NULL AND s.lease_until_ms - (CAST(strftime('%s', 'now') AS INTEGER) * 1000) > 0 THEN 1 ELSE 0 END AS is_leased,
  s.owner,
  r.parent_session_id,
  (SELECT COUNT(*) FROM pl_workflow_steps t WHERE t.session_id = r.session_id) AS steps,
  (SELECT COUNT(*) FROM pl_workflow_steps t WHERE t.session_id = r.session_id AND t.state = 'completed') AS completed_steps,
  (SELECT COUNT(*) FROM pl_workflow_steps t WHERE t.session_id = r.session_id AND t.state IN ('started', 'waiting')) AS open_steps,
  (SELECT COUNT(*) FROM pl_workflow_signals g WHERE g.session_id = r.session_id AND g.taken_by IS NULL)
    AS open_signals,
  (strftime('%Y-%m-%d %H:%M:%S', r.created_at_ms / 1000, 'unixepoch') || '.' || substr('00' || (r.created_at_ms % 1000), -3)) AS created_at,
  (strftime('%Y-%m-%d %H:%M:%S', r.updated_at_ms / 1000, 'unixepoch') || '.' || substr('00' || (r.updated_at_ms % 1000), -3)) AS updated_at,
  (strftime('%Y-%m-%d %H:%M:%S', r.ended_at_ms / 1000, 'unixepoch') || '.' || substr('00' || (r.ended_at_ms % 1000), -3)) AS ended_at,
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
  (strftime('%Y-%m-%d %H:%M:%S', t.due_at_ms / 1000, 'unixepoch') || '.' || substr('00' || (t.due_at_ms % 1000), -3)) AS due_at,
  (strftime('%Y-%m-%d %H:%M:%S', t.started_at_ms / 1000, 'unixepoch') || '.' || substr('00' || (t.started_at_ms % 1000), -3)) AS started_at,
  (strftime('%Y-%m-%d %H:%M:%S', t.ended_at_ms / 1000, 'unixepoch') || '.' || substr('00' || (t.ended_at_ms % 1000), -3)) AS ended_at,
  t.ended_at_ms - t.started_at_ms AS milliseconds,
  t.input,
  t.output,
  t.error
FROM pl_workflow_steps t;
