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
INSERT INTO pl_schema_migrations (version, name, applied_at_ms) VALUES (4, 'create tables', (EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::bigint);
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
  CAST(COALESCE(SUM(m.duration_ms), 0) AS BIGINT) AS milliseconds
FROM (
  SELECT created_at_ms, model, session_id, input_tokens, output_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens, is_estimated, 1 AS calls, duration_ms FROM pl_model_calls
  UNION ALL
  SELECT created_at_ms, model, session_id, input_tokens, output_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens, is_estimated, model_calls, 0 FROM pl_folds WHERE model_calls > 0
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
INSERT INTO pl_sessions (id, state, created_at_ms, updated_at_ms, next_seq, send_count, version, owner, previous_owner, epoch, lease_until_ms, lease_ttl_ms, tick, last_op, signals, cancel_epoch, cancel_reason, inbox_count, inbox_taken, forked_from, forked_at_seq, parent_id, parent_send, root_id, depth) VALUES ('sess_child', 'open', 1700000000000, 1700000000000, 3, 1, 0, NULL, NULL, 1700000000001, 0, 30000, 2, '6cd4b1bf11f7ae34', 0, 0, NULL, 0, 0, NULL, NULL, 'sess_parent', 1, 'sess_parent', 1);
INSERT INTO pl_sessions (id, state, created_at_ms, updated_at_ms, next_seq, send_count, version, owner, previous_owner, epoch, lease_until_ms, lease_ttl_ms, tick, last_op, signals, cancel_epoch, cancel_reason, inbox_count, inbox_taken, forked_from, forked_at_seq, parent_id, parent_send, root_id, depth) VALUES ('sess_closed', 'closed', 1700000000000, 1700000000000, 1, 0, 0, NULL, NULL, 1700000000001, 0, 0, 1, 'cd9f63363657b531', 0, 0, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, 0);
INSERT INTO pl_sessions (id, state, created_at_ms, updated_at_ms, next_seq, send_count, version, owner, previous_owner, epoch, lease_until_ms, lease_ttl_ms, tick, last_op, signals, cancel_epoch, cancel_reason, inbox_count, inbox_taken, forked_from, forked_at_seq, parent_id, parent_send, root_id, depth) VALUES ('sess_done', 'open', 1700000000000, 1700000000000, 7, 2, 0, NULL, NULL, 1700000000002, 0, 30000, 9, 'c683c84c6a1492df', 2, 0, NULL, 1, 1, NULL, NULL, NULL, NULL, NULL, 0);
INSERT INTO pl_sessions (id, state, created_at_ms, updated_at_ms, next_seq, send_count, version, owner, previous_owner, epoch, lease_until_ms, lease_ttl_ms, tick, last_op, signals, cancel_epoch, cancel_reason, inbox_count, inbox_taken, forked_from, forked_at_seq, parent_id, parent_send, root_id, depth) VALUES ('sess_effect', 'open', 1700000000000, 1700000000000, 3, 1, 0, 'old-host:1:1:1:0000', NULL, 1700000000001, 1700000030000, 30000, 2, 'ee9dbea33d8fec19', 0, 0, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, 0);
INSERT INTO pl_sessions (id, state, created_at_ms, updated_at_ms, next_seq, send_count, version, owner, previous_owner, epoch, lease_until_ms, lease_ttl_ms, tick, last_op, signals, cancel_epoch, cancel_reason, inbox_count, inbox_taken, forked_from, forked_at_seq, parent_id, parent_send, root_id, depth) VALUES ('sess_folded', 'open', 1700000000000, 1700000000000, 5, 2, 0, NULL, NULL, 1700000000002, 0, 30000, 5, 'ca39a422b2157178', 0, 0, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, 0);
INSERT INTO pl_sessions (id, state, created_at_ms, updated_at_ms, next_seq, send_count, version, owner, previous_owner, epoch, lease_until_ms, lease_ttl_ms, tick, last_op, signals, cancel_epoch, cancel_reason, inbox_count, inbox_taken, forked_from, forked_at_seq, parent_id, parent_send, root_id, depth) VALUES ('sess_fork', 'open', 1700000000000, 1700000000000, 7, 2, 0, NULL, NULL, 1700000000001, 0, 30000, 3, 'f598680490ff2490', 1, 0, NULL, 1, 0, 'sess_done', 4, NULL, NULL, NULL, 0);
INSERT INTO pl_sessions (id, state, created_at_ms, updated_at_ms, next_seq, send_count, version, owner, previous_owner, epoch, lease_until_ms, lease_ttl_ms, tick, last_op, signals, cancel_epoch, cancel_reason, inbox_count, inbox_taken, forked_from, forked_at_seq, parent_id, parent_send, root_id, depth) VALUES ('sess_midturn', 'open', 1700000000000, 1700000000000, 3, 1, 0, 'old-host:1:1:1:0000', NULL, 1700000000001, 1700000030000, 30000, 2, '316e93be7980d187', 0, 0, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, 0);
INSERT INTO pl_sessions (id, state, created_at_ms, updated_at_ms, next_seq, send_count, version, owner, previous_owner, epoch, lease_until_ms, lease_ttl_ms, tick, last_op, signals, cancel_epoch, cancel_reason, inbox_count, inbox_taken, forked_from, forked_at_seq, parent_id, parent_send, root_id, depth) VALUES ('sess_parent', 'open', 1700000000000, 1700000000000, 3, 1, 0, NULL, NULL, 1700000000001, 0, 30000, 2, 'c3a50171749b92c5', 0, 0, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, 0);
INSERT INTO pl_sessions (id, state, created_at_ms, updated_at_ms, next_seq, send_count, version, owner, previous_owner, epoch, lease_until_ms, lease_ttl_ms, tick, last_op, signals, cancel_epoch, cancel_reason, inbox_count, inbox_taken, forked_from, forked_at_seq, parent_id, parent_send, root_id, depth) VALUES ('sess_waiting', 'open', 1700000000000, 1700000000000, 4, 1, 0, NULL, NULL, 1700000000001, 0, 30000, 4, '37ca11a173344fa3', 0, 0, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, 0);
INSERT INTO pl_session_details (session_id, system_prompt, metadata, tool_state, lineage, agent) VALUES ('sess_child', NULL, '{}', '{}', NULL, '{"name":"a"}');
INSERT INTO pl_session_details (session_id, system_prompt, metadata, tool_state, lineage, agent) VALUES ('sess_closed', NULL, '{}', '{}', NULL, NULL);
INSERT INTO pl_session_details (session_id, system_prompt, metadata, tool_state, lineage, agent) VALUES ('sess_done', 'Be ''brief''.', '{"user":"ada","path":"C:\\tmp"}', '{}', NULL, NULL);
INSERT INTO pl_session_details (session_id, system_prompt, metadata, tool_state, lineage, agent) VALUES ('sess_effect', NULL, '{"a":1}', '{}', NULL, NULL);
INSERT INTO pl_session_details (session_id, system_prompt, metadata, tool_state, lineage, agent) VALUES ('sess_folded', NULL, '{}', '{}', NULL, NULL);
INSERT INTO pl_session_details (session_id, system_prompt, metadata, tool_state, lineage, agent) VALUES ('sess_fork', 'Be ''brief''.', '{"user":"ada","path":"C:\\tmp"}', '{}', '{"ancestors":[["sess_done",4]]}', NULL);
INSERT INTO pl_session_details (session_id, system_prompt, metadata, tool_state, lineage, agent) VALUES ('sess_midturn', NULL, '{"a":1}', '{}', NULL, NULL);
INSERT INTO pl_session_details (session_id, system_prompt, metadata, tool_state, lineage, agent) VALUES ('sess_parent', NULL, '{}', '{}', NULL, NULL);
INSERT INTO pl_session_details (session_id, system_prompt, metadata, tool_state, lineage, agent) VALUES ('sess_waiting', NULL, '{}', '{}', NULL, NULL);
INSERT INTO pl_messages (session_id, seq, send_index, round, role, body, created_at_ms) VALUES ('sess_child', 1, 1, 0, 'user', '{"parts":[{"type":"text","text":"Look it up."}]}', 1700000000000);
INSERT INTO pl_messages (session_id, seq, send_index, round, role, body, created_at_ms) VALUES ('sess_child', 2, 1, 1, 'assistant', '{"parts":[{"type":"text","text":"hi there"}],"origin":{"wire":"openai","model":"gpt"}}', 1700000000000);
INSERT INTO pl_messages (session_id, seq, send_index, round, role, body, created_at_ms) VALUES ('sess_done', 1, 1, 0, 'user', '{"parts":[{"type":"text","text":"What is a kernel?"}]}', 1700000000000);
INSERT INTO pl_messages (session_id, seq, send_index, round, role, body, created_at_ms) VALUES ('sess_done', 2, 1, 1, 'assistant', '{"parts":[{"type":"tool_call","id":"call_kernel","name":"look_up","arguments":"{\"word\": \"kernel\"}"}],"origin":{"wire":"custom","model":"scripted"}}', 1700000000000);
INSERT INTO pl_messages (session_id, seq, send_index, round, role, body, created_at_ms) VALUES ('sess_done', 3, 1, 1, 'tool', '{"parts":[{"type":"tool_result","call_id":"call_kernel","content":[{"type":"text","text":"kernel: a word – 言葉 \\ ''quoted'' 🎈\nsecond line"}]}]}', 1700000000000);
INSERT INTO pl_messages (session_id, seq, send_index, round, role, body, created_at_ms) VALUES ('sess_done', 4, 1, 2, 'assistant', '{"parts":[{"type":"text","text":"A kernel is a core.\nIt isn''t \"everything\". \\o/"}],"origin":{"wire":"custom","model":"scripted"}}', 1700000000000);
INSERT INTO pl_messages (session_id, seq, send_index, round, role, body, created_at_ms) VALUES ('sess_done', 5, 2, 0, 'user', '{"parts":[{"type":"text","text":"And 言葉?"}]}', 1700000000000);
INSERT INTO pl_messages (session_id, seq, send_index, round, role, body, created_at_ms) VALUES ('sess_done', 6, 2, 1, 'assistant', '{"parts":[{"type":"text","text":"And 言葉 🎈 is a word."}],"origin":{"wire":"custom","model":"scripted"}}', 1700000000000);
INSERT INTO pl_messages (session_id, seq, send_index, round, role, body, created_at_ms) VALUES ('sess_effect', 1, 1, 0, 'user', '{"parts":[{"type":"text","text":"Send 5."}]}', 1700000000000);
INSERT INTO pl_messages (session_id, seq, send_index, round, role, body, created_at_ms) VALUES ('sess_effect', 2, 1, 1, 'assistant', '{"parts":[{"type":"tool_call","id":"call_send_money","name":"send_money","arguments":"{\"amount\": 5}"}],"origin":{"wire":"custom","model":"scripted"}}', 1700000000000);
INSERT INTO pl_messages (session_id, seq, send_index, round, role, body, created_at_ms) VALUES ('sess_folded', 1, 1, 0, 'user', '{"parts":[{"type":"text","text":"What is this?"},{"type":"image","media_type":"image/png","blob":"70e45d97362d974d2d6e0e4fcbae671161c4c6187fb7b15a25d3a2f1529a81f6"}]}', 1700000000000);
INSERT INTO pl_messages (session_id, seq, send_index, round, role, body, created_at_ms) VALUES ('sess_folded', 2, 1, 1, 'assistant', '{"parts":[{"type":"text","text":"a word – 言葉 \\ ''quoted'' 🎈\nsecond line"}],"origin":{"wire":"openai","model":"gpt"}}', 1700000000000);
INSERT INTO pl_messages (session_id, seq, send_index, round, role, body, created_at_ms) VALUES ('sess_folded', 3, 2, 0, 'user', '{"parts":[{"type":"text","text":"And this?"}]}', 1700000000000);
INSERT INTO pl_messages (session_id, seq, send_index, round, role, body, created_at_ms) VALUES ('sess_folded', 4, 2, 1, 'assistant', '{"parts":[{"type":"text","text":"hi there"}],"origin":{"wire":"openai","model":"gpt"}}', 1700000000000);
INSERT INTO pl_messages (session_id, seq, send_index, round, role, body, created_at_ms) VALUES ('sess_fork', 5, 2, 0, 'user', '{"parts":[{"type":"text","text":"And otherwise?"}]}', 1700000000000);
INSERT INTO pl_messages (session_id, seq, send_index, round, role, body, created_at_ms) VALUES ('sess_fork', 6, 2, 1, 'assistant', '{"parts":[{"type":"text","text":"A fork says something else."}],"origin":{"wire":"custom","model":"scripted"}}', 1700000000000);
INSERT INTO pl_messages (session_id, seq, send_index, round, role, body, created_at_ms) VALUES ('sess_midturn', 1, 1, 0, 'user', '{"parts":[{"type":"text","text":"Read two things."}]}', 1700000000000);
INSERT INTO pl_messages (session_id, seq, send_index, round, role, body, created_at_ms) VALUES ('sess_midturn', 2, 1, 1, 'assistant', '{"parts":[{"type":"tool_call","id":"call_look_up","name":"look_up","arguments":"{\"word\": \"mid\"}"},{"type":"tool_call","id":"call_read_far","name":"read_far","arguments":"{\"word\": \"turn\"}"}],"origin":{"wire":"custom","model":"scripted"}}', 1700000000000);
INSERT INTO pl_messages (session_id, seq, send_index, round, role, body, created_at_ms) VALUES ('sess_parent', 1, 1, 0, 'user', '{"parts":[{"type":"text","text":"Ask an agent."}]}', 1700000000000);
INSERT INTO pl_messages (session_id, seq, send_index, round, role, body, created_at_ms) VALUES ('sess_parent', 2, 1, 1, 'assistant', '{"parts":[{"type":"text","text":"hi there"}],"origin":{"wire":"openai","model":"gpt"}}', 1700000000000);
INSERT INTO pl_messages (session_id, seq, send_index, round, role, body, created_at_ms) VALUES ('sess_waiting', 1, 1, 0, 'user', '{"parts":[{"type":"text","text":"A seat, please."}]}', 1700000000000);
INSERT INTO pl_messages (session_id, seq, send_index, round, role, body, created_at_ms) VALUES ('sess_waiting', 2, 1, 1, 'assistant', '{"parts":[{"type":"tool_call","id":"call_seat","name":"choose_seat","arguments":"{}"},{"type":"tool_call","id":"call_word","name":"look_up","arguments":"{\"word\": \"seat\"}"}],"origin":{"wire":"custom","model":"scripted"}}', 1700000000000);
INSERT INTO pl_messages (session_id, seq, send_index, round, role, body, created_at_ms) VALUES ('sess_waiting', 3, 1, 1, 'tool', '{"parts":[{"type":"tool_result","call_id":"call_word","content":[{"type":"text","text":"seat: a word – 言葉 \\ ''quoted'' 🎈\nsecond line"}]}]}', 1700000000000);
INSERT INTO pl_sends (session_id, idx, request_id, input_hash, status, first_seq, options, result, attempts, started_at_ms, ended_at_ms, accept_op, end_op, paid_by, paid_by_send) VALUES ('sess_child', 1, NULL, 'h1', 'completed', 1, '{}', '{"text_seq":2}', 1, 1700000000000, 1700000000000, '62a72cbb119c110d', '6cd4b1bf11f7ae34', 'sess_parent', 1);
INSERT INTO pl_sends (session_id, idx, request_id, input_hash, status, first_seq, options, result, attempts, started_at_ms, ended_at_ms, accept_op, end_op, paid_by, paid_by_send) VALUES ('sess_done', 1, NULL, '', 'completed', 1, '{}', '{"text_seq":4}', 1, 1700000000000, 1700000000000, '8eb6b1d24a4cb58a', '7817fbf8f793a5a7', NULL, NULL);
INSERT INTO pl_sends (session_id, idx, request_id, input_hash, status, first_seq, options, result, attempts, started_at_ms, ended_at_ms, accept_op, end_op, paid_by, paid_by_send) VALUES ('sess_done', 2, 'req-1', '29bc3b57790a8f7adbfa48ed555b57fb934d71869c427e534f779360b40b6871', 'completed', 5, '{}', '{"text_seq":6}', 1, 1700000000000, 1700000000000, 'e157248642bac825', 'c683c84c6a1492df', NULL, NULL);
INSERT INTO pl_sends (session_id, idx, request_id, input_hash, status, first_seq, options, result, attempts, started_at_ms, ended_at_ms, accept_op, end_op, paid_by, paid_by_send) VALUES ('sess_effect', 1, NULL, 'h1', 'running', 1, '{}', NULL, 1, 1700000000000, NULL, '8611fc66f3b7c9e6', NULL, NULL, NULL);
INSERT INTO pl_sends (session_id, idx, request_id, input_hash, status, first_seq, options, result, attempts, started_at_ms, ended_at_ms, accept_op, end_op, paid_by, paid_by_send) VALUES ('sess_folded', 1, NULL, 'h1', 'completed', 1, '{}', '{"text_seq":2}', 1, 1700000000000, 1700000000000, '34317ad70f73430c', '6e3979c614b9da86', NULL, NULL);
INSERT INTO pl_sends (session_id, idx, request_id, input_hash, status, first_seq, options, result, attempts, started_at_ms, ended_at_ms, accept_op, end_op, paid_by, paid_by_send) VALUES ('sess_folded', 2, NULL, 'h1', 'completed', 3, '{}', '{"text_seq":2}', 1, 1700000000000, 1700000000000, '9afa05cbd80bf5c6', 'ca39a422b2157178', NULL, NULL);
INSERT INTO pl_sends (session_id, idx, request_id, input_hash, status, first_seq, options, result, attempts, started_at_ms, ended_at_ms, accept_op, end_op, paid_by, paid_by_send) VALUES ('sess_fork', 1, NULL, '', 'completed', 1, '{}', '{"text_seq":4}', 1, 1700000000000, 1700000000000, '9a4eefb4c27003c2', NULL, NULL, NULL);
INSERT INTO pl_sends (session_id, idx, request_id, input_hash, status, first_seq, options, result, attempts, started_at_ms, ended_at_ms, accept_op, end_op, paid_by, paid_by_send) VALUES ('sess_fork', 2, NULL, '', 'completed', 5, '{}', '{"text_seq":6}', 1, 1700000000000, 1700000000000, '4921784577c6fcee', 'f598680490ff2490', NULL, NULL);
INSERT INTO pl_sends (session_id, idx, request_id, input_hash, status, first_seq, options, result, attempts, started_at_ms, ended_at_ms, accept_op, end_op, paid_by, paid_by_send) VALUES ('sess_midturn', 1, NULL, 'h1', 'running', 1, '{}', NULL, 1, 1700000000000, NULL, '7f398f30f76938d9', NULL, NULL, NULL);
INSERT INTO pl_sends (session_id, idx, request_id, input_hash, status, first_seq, options, result, attempts, started_at_ms, ended_at_ms, accept_op, end_op, paid_by, paid_by_send) VALUES ('sess_parent', 1, NULL, 'h1', 'completed', 1, '{}', '{"text_seq":2}', 1, 1700000000000, 1700000000000, '9cd78f6f32c8d277', 'c3a50171749b92c5', NULL, NULL);
INSERT INTO pl_sends (session_id, idx, request_id, input_hash, status, first_seq, options, result, attempts, started_at_ms, ended_at_ms, accept_op, end_op, paid_by, paid_by_send) VALUES ('sess_waiting', 1, NULL, '', 'waiting_for_input', 1, '{}', '{}', 1, 1700000000000, 1700000000000, '5ab030e4cf0727a0', '37ca11a173344fa3', NULL, NULL);
INSERT INTO pl_tool_calls (session_id, reply_seq, idx, send_index, call_id, name, arguments, effect, state, attempt, idempotency_key, is_keyed, is_approved, wait_kind, prompt, wait_data, started_at_ms, ended_at_ms, result_seq) VALUES ('sess_done', 2, 0, 1, 'call_kernel', 'look_up', '{"word": "kernel"}', 'read', 'succeeded', 1, 'pl1_rzjf3pgajlg5e54fqrbq5lwq67tibhd3', 0, 0, NULL, NULL, NULL, NULL, 1700000000000, 3);
INSERT INTO pl_tool_calls (session_id, reply_seq, idx, send_index, call_id, name, arguments, effect, state, attempt, idempotency_key, is_keyed, is_approved, wait_kind, prompt, wait_data, started_at_ms, ended_at_ms, result_seq) VALUES ('sess_effect', 2, 0, 1, 'call_send_money', 'send_money', '{"amount": 5}', 'once', 'started', 1, 'key-send_money', 0, 0, NULL, NULL, NULL, 1700000000000, NULL, NULL);
INSERT INTO pl_tool_calls (session_id, reply_seq, idx, send_index, call_id, name, arguments, effect, state, attempt, idempotency_key, is_keyed, is_approved, wait_kind, prompt, wait_data, started_at_ms, ended_at_ms, result_seq) VALUES ('sess_midturn', 2, 0, 1, 'call_look_up', 'look_up', '{"word": "mid"}', 'read', 'started', 1, 'key-look_up', 0, 0, NULL, NULL, NULL, 1700000000000, NULL, NULL);
INSERT INTO pl_tool_calls (session_id, reply_seq, idx, send_index, call_id, name, arguments, effect, state, attempt, idempotency_key, is_keyed, is_approved, wait_kind, prompt, wait_data, started_at_ms, ended_at_ms, result_seq) VALUES ('sess_midturn', 2, 1, 1, 'call_read_far', 'read_far', '{"word": "turn"}', 'read', 'started', 1, 'key-read_far', 0, 0, NULL, NULL, NULL, 1700000000000, NULL, NULL);
INSERT INTO pl_tool_calls (session_id, reply_seq, idx, send_index, call_id, name, arguments, effect, state, attempt, idempotency_key, is_keyed, is_approved, wait_kind, prompt, wait_data, started_at_ms, ended_at_ms, result_seq) VALUES ('sess_waiting', 2, 0, 1, 'call_seat', 'choose_seat', '{}', 'once', 'waiting', 1, 'pl1_zquqebhpwkk4u5w7fhboowyamf5knj73', 0, 0, 'input', 'Which seat?', '{"answer_schema":{"type":"string"}}', 1700000000000, NULL, NULL);
INSERT INTO pl_tool_calls (session_id, reply_seq, idx, send_index, call_id, name, arguments, effect, state, attempt, idempotency_key, is_keyed, is_approved, wait_kind, prompt, wait_data, started_at_ms, ended_at_ms, result_seq) VALUES ('sess_waiting', 2, 1, 1, 'call_word', 'look_up', '{"word": "seat"}', 'read', 'succeeded', 1, 'pl1_ksamxbxbskxrui6kiglfwpho6zhpias4', 0, 0, NULL, NULL, NULL, NULL, 1700000000000, 3);
INSERT INTO pl_model_calls (session_id, reply_seq, send_index, round, model, stop, input_tokens, output_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens, is_estimated, attempts, duration_ms, provider_id, request_id, created_at_ms, estimated_tokens, segments, cost_nanos) VALUES ('sess_child', 2, 1, 1, 'gpt', 'end', 10, 3, 0, 0, 0, 0, 1, 12, NULL, NULL, 1700000000000, NULL, NULL, NULL);
INSERT INTO pl_model_calls (session_id, reply_seq, send_index, round, model, stop, input_tokens, output_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens, is_estimated, attempts, duration_ms, provider_id, request_id, created_at_ms, estimated_tokens, segments, cost_nanos) VALUES ('sess_done', 2, 1, 1, 'scripted', 'tool_calls', 10, 5, 0, 0, 0, 0, 1, 0, NULL, NULL, 1700000000000, 107, '[["tools",94,null,null,"22c87519b3e3f8ab",null],["system",4,null,null,"17891d2219529101",null],["messages",9,1,1,null,null]]', NULL);
INSERT INTO pl_model_calls (session_id, reply_seq, send_index, round, model, stop, input_tokens, output_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens, is_estimated, attempts, duration_ms, provider_id, request_id, created_at_ms, estimated_tokens, segments, cost_nanos) VALUES ('sess_done', 4, 1, 2, 'scripted', 'end', 10, 5, 0, 0, 0, 0, 1, 0, NULL, NULL, 1700000000000, 157, '[["tools",94,null,null,"22c87519b3e3f8ab",null],["system",4,null,null,"17891d2219529101",null],["messages",59,1,3,null,null]]', NULL);
INSERT INTO pl_model_calls (session_id, reply_seq, send_index, round, model, stop, input_tokens, output_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens, is_estimated, attempts, duration_ms, provider_id, request_id, created_at_ms, estimated_tokens, segments, cost_nanos) VALUES ('sess_done', 6, 2, 1, 'scripted', 'end', 10, 5, 0, 0, 0, 0, 1, 0, NULL, NULL, 1700000000000, 183, '[["tools",94,null,null,"22c87519b3e3f8ab",null],["system",4,null,null,"17891d2219529101",null],["messages",85,1,5,null,null]]', NULL);
INSERT INTO pl_model_calls (session_id, reply_seq, send_index, round, model, stop, input_tokens, output_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens, is_estimated, attempts, duration_ms, provider_id, request_id, created_at_ms, estimated_tokens, segments, cost_nanos) VALUES ('sess_effect', 2, 1, 1, 'gpt', 'tool_calls', 10, 3, 0, 0, 0, 0, 1, 12, NULL, NULL, 1700000000000, NULL, NULL, NULL);
INSERT INTO pl_model_calls (session_id, reply_seq, send_index, round, model, stop, input_tokens, output_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens, is_estimated, attempts, duration_ms, provider_id, request_id, created_at_ms, estimated_tokens, segments, cost_nanos) VALUES ('sess_folded', 2, 1, 1, 'gpt', 'end', 10, 3, 0, 0, 0, 0, 1, 12, NULL, NULL, 1700000000000, NULL, NULL, NULL);
INSERT INTO pl_model_calls (session_id, reply_seq, send_index, round, model, stop, input_tokens, output_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens, is_estimated, attempts, duration_ms, provider_id, request_id, created_at_ms, estimated_tokens, segments, cost_nanos) VALUES ('sess_folded', 4, 2, 1, 'gpt', 'end', 10, 3, 0, 0, 0, 0, 1, 12, NULL, NULL, 1700000000000, NULL, NULL, NULL);
INSERT INTO pl_model_calls (session_id, reply_seq, send_index, round, model, stop, input_tokens, output_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens, is_estimated, attempts, duration_ms, provider_id, request_id, created_at_ms, estimated_tokens, segments, cost_nanos) VALUES ('sess_fork', 6, 2, 1, 'scripted', 'end', 10, 5, 0, 0, 0, 0, 1, 0, NULL, NULL, 1700000000000, 183, '[["tools",94,null,null,"22c87519b3e3f8ab",null],["system",4,null,null,"17891d2219529101",null],["messages",85,1,5,null,null]]', NULL);
INSERT INTO pl_model_calls (session_id, reply_seq, send_index, round, model, stop, input_tokens, output_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens, is_estimated, attempts, duration_ms, provider_id, request_id, created_at_ms, estimated_tokens, segments, cost_nanos) VALUES ('sess_midturn', 2, 1, 1, 'gpt', 'tool_calls', 10, 3, 0, 0, 0, 0, 1, 12, NULL, NULL, 1700000000000, NULL, NULL, NULL);
INSERT INTO pl_model_calls (session_id, reply_seq, send_index, round, model, stop, input_tokens, output_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens, is_estimated, attempts, duration_ms, provider_id, request_id, created_at_ms, estimated_tokens, segments, cost_nanos) VALUES ('sess_parent', 2, 1, 1, 'gpt', 'end', 10, 3, 0, 0, 0, 0, 1, 12, NULL, NULL, 1700000000000, NULL, NULL, NULL);
INSERT INTO pl_model_calls (session_id, reply_seq, send_index, round, model, stop, input_tokens, output_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens, is_estimated, attempts, duration_ms, provider_id, request_id, created_at_ms, estimated_tokens, segments, cost_nanos) VALUES ('sess_waiting', 2, 1, 1, 'scripted', 'tool_calls', 10, 5, 0, 0, 0, 0, 1, 0, NULL, NULL, 1700000000000, 103, '[["tools",94,null,null,"22c87519b3e3f8ab",null],["messages",9,1,1,null,null]]', NULL);
INSERT INTO pl_folds (session_id, to_seq, from_seq, last_seq, send_index, round, strategy, model, model_calls, input_tokens, output_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens, is_estimated, tokens_before, tokens_after, refused_tokens, refused_by, text_seq, created_at_ms, pruned_at_ms, cost_nanos, pinned, summary) VALUES ('sess_folded', 2, 1, 3, 2, 1, 'test', 'm', 1, 10, 3, 0, 0, 0, 0, 0, 0, NULL, NULL, NULL, 1700000000000, NULL, NULL, '{"seqs":[1]}', 'a word – 言葉 \ ''quoted'' 🎈
second line');
INSERT INTO pl_project_messages (session_id, seq, to_seq, role, body, created_at_ms) VALUES ('sess_folded', 2, 2, 'assistant', '{"parts":[{"type":"text","text":"An image."}]}', 1700000000000);
INSERT INTO pl_blobs (session_id, digest, created_at_ms, data) VALUES ('sess_folded', '70e45d97362d974d2d6e0e4fcbae671161c4c6187fb7b15a25d3a2f1529a81f6', 1700000000000, 'iVBORw0KGgoAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA');
INSERT INTO pl_memories (namespace, number, text, terms, created_at_ms, source_session_id, metadata) VALUES ('user=ada', 7399924180578442105, 'a word – 言葉 \ ''quoted'' 🎈
second line', 'gmfkmodfgaop ioifcfoaifha jgibebmalbpd echpcdijkodh ijkahabgjggm ohgoekflkjkk edkpfbknfiji pigfakpflbdk', 1700000000000, 'sess_done', '{"kind":"word"}');
INSERT INTO pl_inbox (session_id, position, request_id, input_hash, body, options, created_at_ms, taken_at_ms, send_index, seq, op) VALUES ('sess_done', 1, 'req-3', 'h1', NULL, '{}', 1700000000000, 1700000000000, NULL, NULL, 'd3ffc49327943800');
INSERT INTO pl_inbox (session_id, position, request_id, input_hash, body, options, created_at_ms, taken_at_ms, send_index, seq, op) VALUES ('sess_fork', 1, 'req-2', 'h1', '{"parts":[{"type":"text","text":"By the window."}]}', '{}', 1700000000000, NULL, NULL, NULL, '5df998072c71e455');
INSERT INTO pl_blackboards (session_id, version, last_op) VALUES ('sess_parent', 1, '3165c2edd8121943');
INSERT INTO pl_blackboard_entries (session_id, entry_key, version, author_session_id, created_at_ms, updated_at_ms, value) VALUES ('sess_parent', 'plan/1', 1, 'sess_child', 1700000000000, 1700000000000, '{"do":"a word – 言葉 \\ ''quoted'' 🎈\nsecond line"}');
INSERT INTO pl_budgets (session_id, send_index, parent_session_id, parent_send_index, max_tokens, max_cost_nanos, max_tool_calls, max_ms, deadline_at_ms, spent_tokens, spent_cost_nanos, spent_tool_calls, lost_tokens, lost_cost_nanos, created_at_ms) VALUES ('sess_parent', 1, NULL, NULL, 1000, 2000000000, NULL, NULL, NULL, 0, 0, 0, 0, 0, 1700000000000);
