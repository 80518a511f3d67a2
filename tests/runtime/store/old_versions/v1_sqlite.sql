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
  PRIMARY KEY (id)
) WITHOUT ROWID;
CREATE INDEX pl_sessions_by_age ON pl_sessions (created_at_ms, id);
CREATE TABLE pl_session_details (
  session_id TEXT NOT NULL,
  system_prompt TEXT,
  metadata TEXT NOT NULL,
  tool_state TEXT NOT NULL,
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
  PRIMARY KEY (session_id, idx)
) WITHOUT ROWID;
CREATE UNIQUE INDEX pl_sends_by_request ON pl_sends (session_id, request_id) WHERE request_id IS NOT NULL;
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
  PRIMARY KEY (session_id, reply_seq)
) WITHOUT ROWID;
INSERT INTO pl_schema_migrations (version, name, applied_at_ms) VALUES (1, 'create tables', 1699999999998);
INSERT INTO pl_sessions (id, state, created_at_ms, updated_at_ms, next_seq, send_count, version, owner, previous_owner, epoch, lease_until_ms, lease_ttl_ms, tick) VALUES ('sess_closed', 'closed', 1700000000030, 1700000000031, 1, 0, 0, NULL, NULL, 1, 0, 0, 1);
INSERT INTO pl_sessions (id, state, created_at_ms, updated_at_ms, next_seq, send_count, version, owner, previous_owner, epoch, lease_until_ms, lease_ttl_ms, tick) VALUES ('sess_done', 'open', 1700000000000, 1700000000015, 7, 2, 0, NULL, NULL, 2, 0, 30000, 6);
INSERT INTO pl_sessions (id, state, created_at_ms, updated_at_ms, next_seq, send_count, version, owner, previous_owner, epoch, lease_until_ms, lease_ttl_ms, tick) VALUES ('sess_effect', 'open', 1700000000273, 1700000000280, 3, 1, 0, 'old-host:1:1:1:0000', NULL, 1, 1700000030000, 30000, 2);
INSERT INTO pl_sessions (id, state, created_at_ms, updated_at_ms, next_seq, send_count, version, owner, previous_owner, epoch, lease_until_ms, lease_ttl_ms, tick) VALUES ('sess_midturn', 'open', 1700000000034, 1700000000037, 3, 1, 0, 'old-host:1:1:1:0000', NULL, 1, 1700000030000, 30000, 2);
INSERT INTO pl_sessions (id, state, created_at_ms, updated_at_ms, next_seq, send_count, version, owner, previous_owner, epoch, lease_until_ms, lease_ttl_ms, tick) VALUES ('sess_waiting', 'open', 1700000000019, 1700000000026, 4, 1, 0, NULL, NULL, 1, 0, 30000, 4);
INSERT INTO pl_session_details (session_id, system_prompt, metadata, tool_state) VALUES ('sess_closed', NULL, '{}', '{}');
INSERT INTO pl_session_details (session_id, system_prompt, metadata, tool_state) VALUES ('sess_done', 'Be ''brief''.', '{"user":"ada","path":"C:\\tmp"}', '{}');
INSERT INTO pl_session_details (session_id, system_prompt, metadata, tool_state) VALUES ('sess_effect', NULL, '{}', '{}');
INSERT INTO pl_session_details (session_id, system_prompt, metadata, tool_state) VALUES ('sess_midturn', NULL, '{"a":1}', '{}');
INSERT INTO pl_session_details (session_id, system_prompt, metadata, tool_state) VALUES ('sess_waiting', NULL, '{}', '{}');
INSERT INTO pl_messages (session_id, seq, send_index, round, role, body, created_at_ms) VALUES ('sess_done', 1, 1, 0, 'user', '{"parts":[{"type":"text","text":"What is a kernel?"}]}', 1700000000003);
INSERT INTO pl_messages (session_id, seq, send_index, round, role, body, created_at_ms) VALUES ('sess_done', 2, 1, 1, 'assistant', '{"parts":[{"type":"tool_call","id":"call_ze7769tenj516fpf","name":"look_up","arguments":"{\"word\": \"kernel\"}"}],"origin":{"wire":"custom","model":"scripted"}}', 1700000000008);
INSERT INTO pl_messages (session_id, seq, send_index, round, role, body, created_at_ms) VALUES ('sess_done', 3, 1, 1, 'tool', '{"parts":[{"type":"tool_result","call_id":"call_ze7769tenj516fpf","content":[{"type":"text","text":"kernel: a word – 言葉 \\ ''quoted'' 🎈\nsecond line"}]}]}', 1700000000011);
INSERT INTO pl_messages (session_id, seq, send_index, round, role, body, created_at_ms) VALUES ('sess_done', 4, 1, 2, 'assistant', '{"parts":[{"type":"text","text":"A kernel is a core.\nIt isn''t \"everything\". \\o/"}],"origin":{"wire":"custom","model":"scripted"}}', 1700000000012);
INSERT INTO pl_messages (session_id, seq, send_index, round, role, body, created_at_ms) VALUES ('sess_done', 5, 2, 0, 'user', '{"parts":[{"type":"text","text":"And 言葉?"}]}', 1700000000014);
INSERT INTO pl_messages (session_id, seq, send_index, round, role, body, created_at_ms) VALUES ('sess_done', 6, 2, 1, 'assistant', '{"parts":[{"type":"text","text":"And 言葉 🎈 is a word."}],"origin":{"wire":"custom","model":"scripted"}}', 1700000000015);
INSERT INTO pl_messages (session_id, seq, send_index, round, role, body, created_at_ms) VALUES ('sess_effect', 1, 1, 0, 'user', '{"parts":[{"type":"text","text":"Send 5."}]}', 1700000000276);
INSERT INTO pl_messages (session_id, seq, send_index, round, role, body, created_at_ms) VALUES ('sess_effect', 2, 1, 1, 'assistant', '{"parts":[{"type":"tool_call","id":"call_5v5af2b5ftab6yr1","name":"send_money","arguments":"{\"amount\": 5}"}],"origin":{"wire":"custom","model":"scripted"}}', 1700000000280);
INSERT INTO pl_messages (session_id, seq, send_index, round, role, body, created_at_ms) VALUES ('sess_midturn', 1, 1, 0, 'user', '{"parts":[{"type":"text","text":"Read two things."}]}', 1700000000035);
INSERT INTO pl_messages (session_id, seq, send_index, round, role, body, created_at_ms) VALUES ('sess_midturn', 2, 1, 1, 'assistant', '{"parts":[{"type":"tool_call","id":"call_w7cd6wgcxw9spe4c","name":"look_up","arguments":"{\"word\": \"mid\"}"},{"type":"tool_call","id":"call_hw5n8a6p7hd84d3z","name":"read_far","arguments":"{\"word\": \"turn\"}"}],"origin":{"wire":"custom","model":"scripted"}}', 1700000000037);
INSERT INTO pl_messages (session_id, seq, send_index, round, role, body, created_at_ms) VALUES ('sess_waiting', 1, 1, 0, 'user', '{"parts":[{"type":"text","text":"A seat, please."}]}', 1700000000021);
INSERT INTO pl_messages (session_id, seq, send_index, round, role, body, created_at_ms) VALUES ('sess_waiting', 2, 1, 1, 'assistant', '{"parts":[{"type":"tool_call","id":"call_2nzweygrajncezyb","name":"choose_seat","arguments":"{}"},{"type":"tool_call","id":"call_myv2dh22nkgjkcj1","name":"look_up","arguments":"{\"word\": \"seat\"}"}],"origin":{"wire":"custom","model":"scripted"}}', 1700000000023);
INSERT INTO pl_messages (session_id, seq, send_index, round, role, body, created_at_ms) VALUES ('sess_waiting', 3, 1, 1, 'tool', '{"parts":[{"type":"tool_result","call_id":"call_myv2dh22nkgjkcj1","content":[{"type":"text","text":"seat: a word – 言葉 \\ ''quoted'' 🎈\nsecond line"}]}]}', 1700000000025);
INSERT INTO pl_sends (session_id, idx, request_id, input_hash, status, first_seq, options, result, attempts, started_at_ms, ended_at_ms) VALUES ('sess_done', 1, NULL, '', 'completed', 1, '{}', '{"text_seq":4}', 1, 1700000000003, 1700000000012);
INSERT INTO pl_sends (session_id, idx, request_id, input_hash, status, first_seq, options, result, attempts, started_at_ms, ended_at_ms) VALUES ('sess_done', 2, 'req-1', '29bc3b57790a8f7adbfa48ed555b57fb934d71869c427e534f779360b40b6871', 'completed', 5, '{}', '{"text_seq":6}', 1, 1700000000014, 1700000000015);
INSERT INTO pl_sends (session_id, idx, request_id, input_hash, status, first_seq, options, result, attempts, started_at_ms, ended_at_ms) VALUES ('sess_effect', 1, NULL, '', 'running', 1, '{}', NULL, 1, 1700000000276, NULL);
INSERT INTO pl_sends (session_id, idx, request_id, input_hash, status, first_seq, options, result, attempts, started_at_ms, ended_at_ms) VALUES ('sess_midturn', 1, NULL, '', 'running', 1, '{}', NULL, 1, 1700000000035, NULL);
INSERT INTO pl_sends (session_id, idx, request_id, input_hash, status, first_seq, options, result, attempts, started_at_ms, ended_at_ms) VALUES ('sess_waiting', 1, NULL, '', 'waiting_for_input', 1, '{}', '{}', 1, 1700000000021, 1700000000026);
INSERT INTO pl_tool_calls (session_id, reply_seq, idx, send_index, call_id, name, arguments, effect, state, attempt, idempotency_key, is_approved, wait_kind, prompt, wait_data, started_at_ms, ended_at_ms, result_seq) VALUES ('sess_done', 2, 0, 1, 'call_ze7769tenj516fpf', 'look_up', '{"word": "kernel"}', 'read', 'succeeded', 0, 'pl1_rzjf3pgajlg5e54fqrbq5lwq67tibhd3', 0, NULL, NULL, NULL, NULL, 1700000000011, 3);
INSERT INTO pl_tool_calls (session_id, reply_seq, idx, send_index, call_id, name, arguments, effect, state, attempt, idempotency_key, is_approved, wait_kind, prompt, wait_data, started_at_ms, ended_at_ms, result_seq) VALUES ('sess_effect', 2, 0, 1, 'call_5v5af2b5ftab6yr1', 'send_money', '{"amount": 5}', 'once', 'started', 1, 'pl1_7pupupsl2dcavmbryblca62sprvd3bfs', 0, NULL, NULL, NULL, 1700000000280, NULL, NULL);
INSERT INTO pl_tool_calls (session_id, reply_seq, idx, send_index, call_id, name, arguments, effect, state, attempt, idempotency_key, is_approved, wait_kind, prompt, wait_data, started_at_ms, ended_at_ms, result_seq) VALUES ('sess_midturn', 2, 0, 1, 'call_w7cd6wgcxw9spe4c', 'look_up', '{"word": "mid"}', 'read', 'requested', 0, 'pl1_kvv3r5vqdwbazycjnznc2szavwskqycc', 0, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO pl_tool_calls (session_id, reply_seq, idx, send_index, call_id, name, arguments, effect, state, attempt, idempotency_key, is_approved, wait_kind, prompt, wait_data, started_at_ms, ended_at_ms, result_seq) VALUES ('sess_midturn', 2, 1, 1, 'call_hw5n8a6p7hd84d3z', 'read_far', '{"word": "turn"}', 'read', 'requested', 0, 'pl1_rg7gx5cvbjt62vli47kfyu4l4mrbadvc', 0, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO pl_tool_calls (session_id, reply_seq, idx, send_index, call_id, name, arguments, effect, state, attempt, idempotency_key, is_approved, wait_kind, prompt, wait_data, started_at_ms, ended_at_ms, result_seq) VALUES ('sess_waiting', 2, 0, 1, 'call_2nzweygrajncezyb', 'choose_seat', '{}', 'once', 'waiting', 1, 'pl1_zquqebhpwkk4u5w7fhboowyamf5knj73', 0, 'input', 'Which seat?', '{"answer_schema":{"type":"string"}}', 1700000000023, NULL, NULL);
INSERT INTO pl_tool_calls (session_id, reply_seq, idx, send_index, call_id, name, arguments, effect, state, attempt, idempotency_key, is_approved, wait_kind, prompt, wait_data, started_at_ms, ended_at_ms, result_seq) VALUES ('sess_waiting', 2, 1, 1, 'call_myv2dh22nkgjkcj1', 'look_up', '{"word": "seat"}', 'read', 'succeeded', 0, 'pl1_ksamxbxbskxrui6kiglfwpho6zhpias4', 0, NULL, NULL, NULL, NULL, 1700000000025, 3);
INSERT INTO pl_model_calls (session_id, reply_seq, send_index, round, model, stop, input_tokens, output_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens, is_estimated, attempts, duration_ms, provider_id, request_id, created_at_ms) VALUES ('sess_done', 2, 1, 1, 'scripted', 'tool_calls', 10, 5, 0, 0, 0, 0, 1, 1, NULL, NULL, 1700000000008);
INSERT INTO pl_model_calls (session_id, reply_seq, send_index, round, model, stop, input_tokens, output_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens, is_estimated, attempts, duration_ms, provider_id, request_id, created_at_ms) VALUES ('sess_done', 4, 1, 2, 'scripted', 'end', 10, 5, 0, 0, 0, 0, 1, 0, NULL, NULL, 1700000000012);
INSERT INTO pl_model_calls (session_id, reply_seq, send_index, round, model, stop, input_tokens, output_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens, is_estimated, attempts, duration_ms, provider_id, request_id, created_at_ms) VALUES ('sess_done', 6, 2, 1, 'scripted', 'end', 10, 5, 0, 0, 0, 0, 1, 0, NULL, NULL, 1700000000015);
INSERT INTO pl_model_calls (session_id, reply_seq, send_index, round, model, stop, input_tokens, output_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens, is_estimated, attempts, duration_ms, provider_id, request_id, created_at_ms) VALUES ('sess_effect', 2, 1, 1, 'scripted', 'tool_calls', 10, 5, 0, 0, 0, 0, 1, 1, NULL, NULL, 1700000000280);
INSERT INTO pl_model_calls (session_id, reply_seq, send_index, round, model, stop, input_tokens, output_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens, is_estimated, attempts, duration_ms, provider_id, request_id, created_at_ms) VALUES ('sess_midturn', 2, 1, 1, 'scripted', 'tool_calls', 10, 5, 0, 0, 0, 0, 1, 0, NULL, NULL, 1700000000037);
INSERT INTO pl_model_calls (session_id, reply_seq, send_index, round, model, stop, input_tokens, output_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens, is_estimated, attempts, duration_ms, provider_id, request_id, created_at_ms) VALUES ('sess_waiting', 2, 1, 1, 'scripted', 'tool_calls', 10, 5, 0, 0, 0, 0, 1, 0, NULL, NULL, 1700000000023);
