CREATE TABLE agent_sessions (
  session_id TEXT PRIMARY KEY,
  created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
  updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
);
CREATE TABLE agent_messages (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  session_id TEXT NOT NULL REFERENCES agent_sessions (session_id) ON DELETE CASCADE,
  message_data TEXT NOT NULL,
  created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
);
INSERT INTO agent_sessions (session_id) VALUES ('ada'), ('ben');
INSERT INTO agent_messages (session_id, message_data) VALUES
  ('ada', '{"role": "user", "content": "What is 17 and 4?"}'),
  ('ada', '{"type": "reasoning", "id": "rs_1", "summary": []}'),
  ('ada', '{"type": "function_call", "id": "fc_1", "call_id": "call_7", "name": "add", "arguments": "{\"a\": 17, \"b\": 4}"}'),
  ('ada', '{"type": "function_call_output", "call_id": "call_7", "output": "21"}'),
  ('ada', '{"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [{"type": "output_text", "text": "It is 21.", "annotations": []}]}'),
  ('ben', '{"role": "user", "content": [{"type": "input_text", "text": "Hello."}]}'),
  ('ben', '{"type": "message", "id": "msg_2", "role": "assistant", "status": "completed", "content": [{"type": "output_text", "text": "Good day.", "annotations": []}]}');
