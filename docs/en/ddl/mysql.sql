-- What `power-loop ddl` prints; tables are called pl_… unless a table_prefix says otherwise.

CREATE TABLE pl_schema_migrations (
  version BIGINT NOT NULL,
  name VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  applied_at_ms BIGINT NOT NULL,
  PRIMARY KEY (version)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE pl_sessions (
  id VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  state VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  created_at_ms BIGINT NOT NULL,
  updated_at_ms BIGINT NOT NULL,
  next_seq BIGINT NOT NULL,
  send_count BIGINT NOT NULL,
  version BIGINT NOT NULL,
  owner VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */,
  previous_owner VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */,
  epoch BIGINT NOT NULL,
  lease_until_ms BIGINT NOT NULL,
  lease_ttl_ms BIGINT NOT NULL,
  tick BIGINT NOT NULL,
  last_op VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL DEFAULT (''),
  signals BIGINT NOT NULL DEFAULT 0,
  cancel_epoch BIGINT NOT NULL DEFAULT 0,
  cancel_reason LONGTEXT,
  inbox_count BIGINT NOT NULL DEFAULT 0,
  inbox_taken BIGINT NOT NULL DEFAULT 0,
  forked_from VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */,
  forked_at_seq BIGINT,
  parent_id VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */,
  parent_send BIGINT,
  root_id VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */,
  depth BIGINT NOT NULL DEFAULT 0,
  PRIMARY KEY (id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE INDEX pl_sessions_by_age ON pl_sessions (created_at_ms, id);
CREATE INDEX pl_sessions_by_lease ON pl_sessions (lease_until_ms, id);
CREATE INDEX pl_sessions_by_origin ON pl_sessions (forked_from, id);
CREATE INDEX pl_sessions_by_parent ON pl_sessions (parent_id, id);
CREATE TABLE pl_session_details (
  session_id VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  system_prompt LONGTEXT,
  metadata LONGTEXT NOT NULL,
  tool_state LONGTEXT NOT NULL,
  lineage LONGTEXT,
  agent LONGTEXT,
  PRIMARY KEY (session_id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE pl_messages (
  session_id VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  seq BIGINT NOT NULL,
  send_index BIGINT NOT NULL,
  round BIGINT NOT NULL,
  role VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  body LONGTEXT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  PRIMARY KEY (session_id, seq)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE pl_sends (
  session_id VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  idx BIGINT NOT NULL,
  request_id VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */,
  input_hash VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  status VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  first_seq BIGINT NOT NULL,
  options LONGTEXT NOT NULL,
  result LONGTEXT,
  attempts BIGINT NOT NULL,
  started_at_ms BIGINT NOT NULL,
  ended_at_ms BIGINT,
  accept_op VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL DEFAULT (''),
  end_op VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */,
  paid_by VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */,
  paid_by_send BIGINT,
  PRIMARY KEY (session_id, idx)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE UNIQUE INDEX pl_sends_by_request ON pl_sends (session_id, request_id);
CREATE INDEX pl_sends_by_payer ON pl_sends (paid_by, paid_by_send);
CREATE TABLE pl_tool_calls (
  session_id VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  reply_seq BIGINT NOT NULL,
  idx BIGINT NOT NULL,
  send_index BIGINT NOT NULL,
  call_id VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  name LONGTEXT NOT NULL,
  arguments LONGTEXT NOT NULL,
  effect VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  state VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  attempt BIGINT NOT NULL,
  idempotency_key VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  is_keyed BIGINT NOT NULL DEFAULT 0,
  is_approved BIGINT NOT NULL,
  wait_kind VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */,
  prompt LONGTEXT,
  wait_data LONGTEXT,
  started_at_ms BIGINT,
  ended_at_ms BIGINT,
  result_seq BIGINT,
  PRIMARY KEY (session_id, reply_seq, idx)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE UNIQUE INDEX pl_tool_calls_by_id ON pl_tool_calls (session_id, call_id);
CREATE INDEX pl_tool_calls_by_key ON pl_tool_calls (session_id, idempotency_key);
CREATE TABLE pl_tool_results (
  session_id VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  reply_seq BIGINT NOT NULL,
  idx BIGINT NOT NULL,
  body LONGTEXT NOT NULL,
  PRIMARY KEY (session_id, reply_seq, idx)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE pl_model_calls (
  session_id VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  reply_seq BIGINT NOT NULL,
  send_index BIGINT NOT NULL,
  round BIGINT NOT NULL,
  model LONGTEXT NOT NULL,
  stop VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  input_tokens BIGINT,
  output_tokens BIGINT,
  cached_input_tokens BIGINT,
  cache_write_tokens BIGINT,
  reasoning_tokens BIGINT,
  is_estimated BIGINT NOT NULL,
  attempts BIGINT NOT NULL,
  duration_ms BIGINT NOT NULL,
  provider_id LONGTEXT,
  request_id LONGTEXT,
  created_at_ms BIGINT NOT NULL,
  estimated_tokens BIGINT,
  segments LONGTEXT,
  cost_nanos BIGINT,
  PRIMARY KEY (session_id, reply_seq)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE pl_folds (
  session_id VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  to_seq BIGINT NOT NULL,
  from_seq BIGINT NOT NULL,
  last_seq BIGINT NOT NULL,
  send_index BIGINT NOT NULL,
  round BIGINT NOT NULL,
  strategy VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  model LONGTEXT,
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
  refused_by LONGTEXT,
  text_seq BIGINT,
  created_at_ms BIGINT NOT NULL,
  pruned_at_ms BIGINT,
  cost_nanos BIGINT,
  pinned LONGTEXT NOT NULL,
  summary LONGTEXT NOT NULL,
  PRIMARY KEY (session_id, to_seq)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE pl_project_messages (
  session_id VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  seq BIGINT NOT NULL,
  to_seq BIGINT NOT NULL,
  role VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  body LONGTEXT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  PRIMARY KEY (session_id, seq)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE pl_blobs (
  session_id VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  digest VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  created_at_ms BIGINT NOT NULL,
  data LONGTEXT NOT NULL,
  PRIMARY KEY (session_id, digest)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE pl_memories (
  namespace VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  number BIGINT NOT NULL,
  text LONGTEXT NOT NULL,
  terms LONGTEXT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  source_session_id VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */,
  metadata LONGTEXT,
  PRIMARY KEY (namespace, number)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE INDEX pl_memories_by_age ON pl_memories (namespace, created_at_ms, number);
CREATE FULLTEXT INDEX pl_memories_by_terms ON pl_memories (terms);
CREATE TABLE pl_inbox (
  session_id VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  position BIGINT NOT NULL,
  request_id VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */,
  input_hash VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  body LONGTEXT,
  options LONGTEXT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  taken_at_ms BIGINT,
  send_index BIGINT,
  seq BIGINT,
  op VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  PRIMARY KEY (session_id, position)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE UNIQUE INDEX pl_inbox_by_request ON pl_inbox (session_id, request_id);
CREATE INDEX pl_inbox_waiting ON pl_inbox (taken_at_ms, session_id, position);
CREATE TABLE pl_blackboards (
  session_id VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  version BIGINT NOT NULL,
  last_op VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  PRIMARY KEY (session_id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE pl_blackboard_entries (
  session_id VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  entry_key VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  version BIGINT NOT NULL,
  author_session_id VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */,
  created_at_ms BIGINT NOT NULL,
  updated_at_ms BIGINT NOT NULL,
  value LONGTEXT NOT NULL,
  PRIMARY KEY (session_id, entry_key)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE pl_budgets (
  session_id VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  send_index BIGINT NOT NULL,
  parent_session_id VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */,
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
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE INDEX pl_budgets_by_parent ON pl_budgets (parent_session_id, parent_send_index);
CREATE TABLE pl_budget_holds (
  session_id VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  number BIGINT NOT NULL,
  level BIGINT NOT NULL,
  budget_session_id VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  budget_send_index BIGINT NOT NULL,
  is_settled BIGINT NOT NULL,
  tokens BIGINT NOT NULL,
  cost_nanos BIGINT NOT NULL,
  tool_calls BIGINT NOT NULL,
  sure_tokens BIGINT NOT NULL,
  sure_cost_nanos BIGINT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  PRIMARY KEY (session_id, number, level)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE INDEX pl_budget_holds_by_budget ON pl_budget_holds (budget_session_id, budget_send_index);
CREATE TABLE pl_timers (
  id VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  session_id VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  state VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  name LONGTEXT,
  made_by VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  schedule LONGTEXT NOT NULL,
  body LONGTEXT NOT NULL,
  input_hash VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  number BIGINT NOT NULL,
  planned_at_ms BIGINT,
  due_at_ms BIGINT,
  wake_at_ms BIGINT,
  owner VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */,
  epoch BIGINT NOT NULL,
  delivered BIGINT NOT NULL,
  missed BIGINT NOT NULL,
  vetoed BIGINT NOT NULL,
  failures BIGINT NOT NULL,
  last_error LONGTEXT,
  created_at_ms BIGINT NOT NULL,
  delivered_at_ms BIGINT,
  ended_at_ms BIGINT,
  op VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  PRIMARY KEY (id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE INDEX pl_timers_by_wake ON pl_timers (wake_at_ms, id);
CREATE INDEX pl_timers_by_session ON pl_timers (session_id, id);
CREATE INDEX pl_timers_by_end ON pl_timers (ended_at_ms, id);
CREATE TABLE pl_workflow_runs (
  session_id VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  state VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  parent_session_id VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */,
  created_at_ms BIGINT NOT NULL,
  updated_at_ms BIGINT NOT NULL,
  ended_at_ms BIGINT,
  name LONGTEXT NOT NULL,
  options LONGTEXT NOT NULL,
  spec LONGTEXT NOT NULL,
  input LONGTEXT NOT NULL,
  output LONGTEXT,
  error LONGTEXT,
  PRIMARY KEY (session_id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE INDEX pl_workflow_runs_by_age ON pl_workflow_runs (created_at_ms, session_id);
CREATE INDEX pl_workflow_runs_by_parent ON pl_workflow_runs (parent_session_id, created_at_ms, session_id);
CREATE TABLE pl_workflow_steps (
  session_id VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  path VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  node_id VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  kind VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  state VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  attempt BIGINT NOT NULL,
  child_session_id VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */,
  due_at_ms BIGINT,
  started_at_ms BIGINT,
  ended_at_ms BIGINT,
  ended_nth BIGINT,
  cost_nanos BIGINT,
  usage_json LONGTEXT,
  input LONGTEXT NOT NULL,
  output LONGTEXT,
  error LONGTEXT,
  PRIMARY KEY (session_id, path)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE pl_workflow_signals (
  session_id VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  position BIGINT NOT NULL,
  name LONGTEXT NOT NULL,
  value LONGTEXT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  taken_by VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */,
  op VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */ NOT NULL,
  PRIMARY KEY (session_id, position)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
INSERT INTO pl_schema_migrations (version, name, applied_at_ms) VALUES (5, 'create tables', CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED));
CREATE OR REPLACE VIEW pl_v_sessions AS
SELECT
  s.id,
  s.state,
  p.status AS last_status,
  CASE WHEN s.owner IS NOT NULL AND s.lease_until_ms - CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED) > 0 THEN 1 ELSE 0 END AS is_leased,
  s.owner,
  CASE WHEN s.owner IS NOT NULL THEN CAST((s.lease_until_ms - CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED)) / 1000 AS SIGNED) END AS lease_seconds_left,
  CASE WHEN p.status = 'running' AND (s.owner IS NULL OR s.lease_until_ms - CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED) <= 0) THEN 1 ELSE 0 END AS is_orphaned,
  s.epoch,
  s.send_count AS sends,
  s.next_seq - 1 AS last_seq,
  (SELECT COUNT(*) FROM pl_tool_calls c WHERE c.session_id = s.id AND c.state IN ('requested', 'started', 'waiting')) AS open_calls,
  s.inbox_count - s.inbox_taken AS inbox_waiting,
  ((SELECT CAST(COALESCE(SUM(t.input_tokens), 0) AS SIGNED) FROM pl_model_calls t WHERE t.session_id = s.id) + (SELECT CAST(COALESCE(SUM(t.input_tokens), 0) AS SIGNED) FROM pl_folds t WHERE t.session_id = s.id)) AS input_tokens,
  ((SELECT CAST(COALESCE(SUM(t.output_tokens), 0) AS SIGNED) FROM pl_model_calls t WHERE t.session_id = s.id) + (SELECT CAST(COALESCE(SUM(t.output_tokens), 0) AS SIGNED) FROM pl_folds t WHERE t.session_id = s.id)) AS output_tokens,
  (TIMESTAMP('1970-01-01 00:00:00.000') + INTERVAL s.created_at_ms * 1000 MICROSECOND) AS created_at,
  (TIMESTAMP('1970-01-01 00:00:00.000') + INTERVAL s.updated_at_ms * 1000 MICROSECOND) AS updated_at,
  s.forked_from,
  s.forked_at_seq,
  s.parent_id,
  s.parent_send,
  s.root_id,
  s.depth
FROM pl_sessions s
LEFT JOIN pl_sends p ON p.session_id = s.id AND p.idx = s.send_count;
CREATE OR REPLACE VIEW pl_v_sends AS
SELECT
  p.session_id,
  p.idx AS send,
  p.status,
  p.request_id,
  p.first_seq,
  p.attempts,
  (SELECT COUNT(*) FROM pl_model_calls m WHERE m.session_id = p.session_id AND m.send_index = p.idx)
    + (SELECT CAST(COALESCE(SUM(t.model_calls), 0) AS SIGNED) FROM pl_folds t WHERE t.session_id = p.session_id AND t.send_index = p.idx) AS model_calls,
  ((SELECT CAST(COALESCE(SUM(t.input_tokens), 0) AS SIGNED) FROM pl_model_calls t WHERE t.session_id = p.session_id AND t.send_index = p.idx) + (SELECT CAST(COALESCE(SUM(t.input_tokens), 0) AS SIGNED) FROM pl_folds t WHERE t.session_id = p.session_id AND t.send_index = p.idx)) AS input_tokens,
  ((SELECT CAST(COALESCE(SUM(t.output_tokens), 0) AS SIGNED) FROM pl_model_calls t WHERE t.session_id = p.session_id AND t.send_index = p.idx) + (SELECT CAST(COALESCE(SUM(t.output_tokens), 0) AS SIGNED) FROM pl_folds t WHERE t.session_id = p.session_id AND t.send_index = p.idx)) AS output_tokens,
  (SELECT COUNT(*) FROM pl_tool_calls c WHERE c.session_id = p.session_id AND c.send_index = p.idx) AS tool_calls,
  (TIMESTAMP('1970-01-01 00:00:00.000') + INTERVAL p.started_at_ms * 1000 MICROSECOND) AS started_at,
  (TIMESTAMP('1970-01-01 00:00:00.000') + INTERVAL p.ended_at_ms * 1000 MICROSECOND) AS ended_at,
  p.ended_at_ms - p.started_at_ms AS milliseconds,
  p.result,
  p.paid_by,
  p.paid_by_send
FROM pl_sends p;
CREATE OR REPLACE VIEW pl_v_messages AS
SELECT
  m.session_id,
  m.seq,
  m.send_index AS send,
  m.round,
  m.role,
  OCTET_LENGTH(m.body) AS body_bytes,
  (TIMESTAMP('1970-01-01 00:00:00.000') + INTERVAL m.created_at_ms * 1000 MICROSECOND) AS created_at,
  m.body
FROM pl_messages m;
CREATE OR REPLACE VIEW pl_v_parts AS
SELECT
  m.session_id,
  m.seq,
  (item.number - 1) AS part,
  m.role,
  item.type AS type,
  COALESCE(item.text, item.content) AS text
FROM pl_messages m
JOIN JSON_TABLE(CASE WHEN INSTR(m.body, '\\ud') > 0 THEN REPLACE(REPLACE(REPLACE(m.body, '\\\\', CHAR(1 USING utf8mb4)), '\\ud', '\\u0'), CHAR(1 USING utf8mb4), '\\\\') ELSE m.body END, '$.parts[*]' COLUMNS (number FOR ORDINALITY, type VARCHAR(64) PATH '$.type', text LONGTEXT /*M!100600 CHARACTER SET utf8mb4 */ PATH '$.text', content LONGTEXT /*M!100600 CHARACTER SET utf8mb4 */ PATH '$.content[0].text')) item;
CREATE OR REPLACE VIEW pl_v_tool_calls AS
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
  (TIMESTAMP('1970-01-01 00:00:00.000') + INTERVAL c.started_at_ms * 1000 MICROSECOND) AS started_at,
  (TIMESTAMP('1970-01-01 00:00:00.000') + INTERVAL c.ended_at_ms * 1000 MICROSECOND) AS ended_at,
  c.ended_at_ms - c.started_at_ms AS milliseconds,
  c.idempotency_key
FROM pl_tool_calls c;
CREATE OR REPLACE VIEW pl_v_pending AS
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
  CASE WHEN s.owner IS NOT NULL AND s.lease_until_ms > CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED) THEN 1 ELSE 0 END AS is_leased,
  (TIMESTAMP('1970-01-01 00:00:00.000') + INTERVAL m.created_at_ms * 1000 MICROSECOND) AS requested_at,
  (TIMESTAMP('1970-01-01 00:00:00.000') + INTERVAL c.started_at_ms * 1000 MICROSECOND) AS started_at
FROM pl_tool_calls c
JOIN pl_sessions s ON s.id = c.session_id
LEFT JOIN pl_sends p ON p.session_id = c.session_id AND p.idx = c.send_index
LEFT JOIN pl_messages m ON m.session_id = c.session_id AND m.seq = c.reply_seq
WHERE c.state IN ('requested', 'started', 'waiting');
CREATE OR REPLACE VIEW pl_v_usage AS
SELECT
  DATE_FORMAT((TIMESTAMP('1970-01-01 00:00:00.000') + INTERVAL m.created_at_ms * 1000 MICROSECOND), '%Y-%m-%d') AS day,
  m.model,
  m.session_id,
  CAST(COALESCE(SUM(m.calls), 0) AS SIGNED) AS model_calls,
  CAST(COALESCE(SUM(m.input_tokens), 0) AS SIGNED) AS input_tokens,
  CAST(COALESCE(SUM(m.output_tokens), 0) AS SIGNED) AS output_tokens,
  CAST(COALESCE(SUM(m.cached_input_tokens), 0) AS SIGNED) AS cached_input_tokens,
  CAST(COALESCE(SUM(m.cache_write_tokens), 0) AS SIGNED) AS cache_write_tokens,
  CAST(COALESCE(SUM(m.reasoning_tokens), 0) AS SIGNED) AS reasoning_tokens,
  CAST(COALESCE(SUM(m.is_estimated), 0) AS SIGNED) AS estimated_calls,
  CAST(COALESCE(SUM(m.duration_ms), 0) AS SIGNED) AS milliseconds,
  CAST(SUM(m.cost_nanos) AS SIGNED) AS cost_nanos,
  CAST(COALESCE(SUM(m.unpriced), 0) AS SIGNED) AS unpriced_calls
FROM (
  SELECT created_at_ms, model, session_id, input_tokens, output_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens, is_estimated, cost_nanos, 1 AS calls, duration_ms, CASE WHEN cost_nanos IS NULL THEN 1 ELSE 0 END AS unpriced FROM pl_model_calls
  UNION ALL
  SELECT created_at_ms, model, session_id, input_tokens, output_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens, is_estimated, cost_nanos, model_calls, 0, CASE WHEN cost_nanos IS NULL THEN model_calls ELSE 0 END FROM pl_folds WHERE model_calls > 0
) m
GROUP BY DATE_FORMAT((TIMESTAMP('1970-01-01 00:00:00.000') + INTERVAL m.created_at_ms * 1000 MICROSECOND), '%Y-%m-%d'), m.model, m.session_id;
CREATE OR REPLACE VIEW pl_v_inbox AS
SELECT
  i.session_id,
  i.position,
  i.request_id,
  CASE WHEN i.taken_at_ms IS NULL THEN 1 ELSE 0 END AS is_waiting,
  i.send_index AS send,
  i.seq,
  (TIMESTAMP('1970-01-01 00:00:00.000') + INTERVAL i.created_at_ms * 1000 MICROSECOND) AS created_at,
  (TIMESTAMP('1970-01-01 00:00:00.000') + INTERVAL i.taken_at_ms * 1000 MICROSECOND) AS taken_at,
  i.body
FROM pl_inbox i;
CREATE OR REPLACE VIEW pl_v_folds AS
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
  (TIMESTAMP('1970-01-01 00:00:00.000') + INTERVAL f.created_at_ms * 1000 MICROSECOND) AS created_at,
  (TIMESTAMP('1970-01-01 00:00:00.000') + INTERVAL f.pruned_at_ms * 1000 MICROSECOND) AS pruned_at,
  f.pinned,
  f.summary
FROM pl_folds f;
CREATE OR REPLACE VIEW pl_v_projected AS
SELECT
  p.session_id,
  p.seq,
  p.to_seq,
  (item.number - 1) AS part,
  p.role,
  item.type AS type,
  COALESCE(item.text, item.content) AS text,
  (TIMESTAMP('1970-01-01 00:00:00.000') + INTERVAL p.created_at_ms * 1000 MICROSECOND) AS created_at
FROM pl_project_messages p
JOIN JSON_TABLE(CASE WHEN INSTR(p.body, '\\ud') > 0 THEN REPLACE(REPLACE(REPLACE(p.body, '\\\\', CHAR(1 USING utf8mb4)), '\\ud', '\\u0'), CHAR(1 USING utf8mb4), '\\\\') ELSE p.body END, '$.parts[*]' COLUMNS (number FOR ORDINALITY, type VARCHAR(64) PATH '$.type', text LONGTEXT /*M!100600 CHARACTER SET utf8mb4 */ PATH '$.text', content LONGTEXT /*M!100600 CHARACTER SET utf8mb4 */ PATH '$.content[0].text')) item;
CREATE OR REPLACE VIEW pl_v_memories AS
SELECT
  m.namespace,
  m.number,
  (TIMESTAMP('1970-01-01 00:00:00.000') + INTERVAL m.created_at_ms * 1000 MICROSECOND) AS created_at,
  m.source_session_id AS session_id,
  m.text,
  m.metadata
FROM pl_memories m;
CREATE OR REPLACE VIEW pl_v_blackboard AS
SELECT
  e.session_id,
  e.entry_key,
  e.version,
  e.author_session_id,
  (TIMESTAMP('1970-01-01 00:00:00.000') + INTERVAL e.created_at_ms * 1000 MICROSECOND) AS created_at,
  (TIMESTAMP('1970-01-01 00:00:00.000') + INTERVAL e.updated_at_ms * 1000 MICROSECOND) AS updated_at,
  OCTET_LENGTH(e.value) AS value_bytes,
  e.value
FROM pl_blackboard_entries e;
CREATE OR REPLACE VIEW pl_v_budgets AS
SELECT
  b.session_id,
  b.send_index AS send,
  b.parent_session_id,
  b.parent_send_index AS parent_send,
  b.max_tokens,
  b.spent_tokens,
  (SELECT CAST(COALESCE(SUM(h.tokens), 0) AS SIGNED) FROM pl_budget_holds h WHERE h.budget_session_id = b.session_id AND h.budget_send_index = b.send_index) AS held_tokens,
  b.lost_tokens,
  b.max_cost_nanos,
  b.spent_cost_nanos,
  (SELECT CAST(COALESCE(SUM(h.cost_nanos), 0) AS SIGNED) FROM pl_budget_holds h WHERE h.budget_session_id = b.session_id AND h.budget_send_index = b.send_index) AS held_cost_nanos,
  b.lost_cost_nanos,
  b.max_tool_calls,
  b.spent_tool_calls,
  (SELECT CAST(COALESCE(SUM(h.tool_calls), 0) AS SIGNED) FROM pl_budget_holds h WHERE h.budget_session_id = b.session_id AND h.budget_send_index = b.send_index) AS held_tool_calls,
  (TIMESTAMP('1970-01-01 00:00:00.000') + INTERVAL b.deadline_at_ms * 1000 MICROSECOND) AS deadline_at,
  (TIMESTAMP('1970-01-01 00:00:00.000') + INTERVAL b.created_at_ms * 1000 MICROSECOND) AS created_at
FROM pl_budgets b;
CREATE OR REPLACE VIEW pl_v_timers AS
SELECT
  t.id,
  t.session_id,
  t.state,
  t.name,
  t.made_by,
  (TIMESTAMP('1970-01-01 00:00:00.000') + INTERVAL t.due_at_ms * 1000 MICROSECOND) AS due_at,
  CASE WHEN t.due_at_ms <= CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED) THEN 1 ELSE 0 END AS is_due,
  t.owner,
  t.number,
  t.delivered,
  t.missed,
  t.vetoed,
  t.failures,
  t.last_error,
  (TIMESTAMP('1970-01-01 00:00:00.000') + INTERVAL t.delivered_at_ms * 1000 MICROSECOND) AS delivered_at,
  (TIMESTAMP('1970-01-01 00:00:00.000') + INTERVAL t.created_at_ms * 1000 MICROSECOND) AS created_at,
  (TIMESTAMP('1970-01-01 00:00:00.000') + INTERVAL t.ended_at_ms * 1000 MICROSECOND) AS ended_at,
  t.schedule,
  t.body
FROM pl_timers t;
CREATE OR REPLACE VIEW pl_v_workflow_runs AS
SELECT
  r.session_id AS run_id,
  r.name,
  r.state,
  CASE WHEN s.owner IS NOT NULL AND s.lease_until_ms - CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED) > 0 THEN 1 ELSE 0 END AS is_leased,
  s.owner,
  r.parent_session_id,
  (SELECT COUNT(*) FROM pl_workflow_steps t WHERE t.session_id = r.session_id) AS steps,
  (SELECT COUNT(*) FROM pl_workflow_steps t WHERE t.session_id = r.session_id AND t.state = 'completed') AS completed_steps,
  (SELECT COUNT(*) FROM pl_workflow_steps t WHERE t.session_id = r.session_id AND t.state IN ('started', 'waiting')) AS open_steps,
  (SELECT COUNT(*) FROM pl_workflow_signals g WHERE g.session_id = r.session_id AND g.taken_by IS NULL)
    AS open_signals,
  (TIMESTAMP('1970-01-01 00:00:00.000') + INTERVAL r.created_at_ms * 1000 MICROSECOND) AS created_at,
  (TIMESTAMP('1970-01-01 00:00:00.000') + INTERVAL r.updated_at_ms * 1000 MICROSECOND) AS updated_at,
  (TIMESTAMP('1970-01-01 00:00:00.000') + INTERVAL r.ended_at_ms * 1000 MICROSECOND) AS ended_at,
  r.output,
  r.error
FROM pl_workflow_runs r
LEFT JOIN pl_sessions s ON s.id = r.session_id;
CREATE OR REPLACE VIEW pl_v_workflow_steps AS
SELECT
  t.session_id AS run_id,
  t.path,
  t.node_id,
  t.kind,
  t.state,
  t.attempt,
  t.child_session_id,
  (TIMESTAMP('1970-01-01 00:00:00.000') + INTERVAL t.due_at_ms * 1000 MICROSECOND) AS due_at,
  (TIMESTAMP('1970-01-01 00:00:00.000') + INTERVAL t.started_at_ms * 1000 MICROSECOND) AS started_at,
  (TIMESTAMP('1970-01-01 00:00:00.000') + INTERVAL t.ended_at_ms * 1000 MICROSECOND) AS ended_at,
  t.ended_at_ms - t.started_at_ms AS milliseconds,
  t.input,
  t.output,
  t.error
FROM pl_workflow_steps t;
