"""The limit: the least that a durable turn can do in Python, written down once, without a kernel around it.

It keeps each message's JSON, joins a prebuilt body, posts it over one kept-alive connection, splits the events by hand
and commits the rows of a turn with `sqlite3` on the same thread. No retries, no errors, no hooks, no events.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from benchmarks.conversation import SYSTEM_PROMPT

SCHEMA = """
create table if not exists sessions(
  id text primary key, next_seq integer, send_index integer, owner text, epoch integer, lease_until_ms integer);
create table if not exists messages(
  session_id text, seq integer, send_index integer, role text, body text, created_at_ms integer,
  primary key (session_id, seq)) without rowid;
create table if not exists sends(
  session_id text, send_index integer, status text, started_at_ms integer, ended_at_ms integer,
  primary key (session_id, send_index)) without rowid;
create table if not exists model_calls(
  session_id text, send_index integer, round integer, model text, input_tokens integer, output_tokens integer,
  created_at_ms integer);
create table if not exists tool_calls(
  session_id text, call_id text, seq integer, name text, arguments text, state text, result text,
  primary key (session_id, call_id)) without rowid;
"""
Tool = Callable[..., Awaitable[str]]


def open_database(path: str) -> sqlite3.Connection:
    """A database with the durability that the kernel has by default."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("pragma journal_mode=wal")
    database.execute("pragma synchronous=full")
    database.executescript(SCHEMA)
    return database


def encode(message: dict[str, Any]) -> bytes:
    """A message as it stands in a request."""
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()


class LimitSession:
    """One conversation on one connection."""

    def __init__(
        self, database: sqlite3.Connection, port: int, session_id: str, *, tools: Sequence[dict[str, Any]] = ()
    ):
        self._db = database
        self._port = port
        self.session_id = session_id
        self.fragments = [encode({"role": "system", "content": SYSTEM_PROMPT})]
        declared = b',"tools":' + json.dumps(list(tools)).encode() if tools else b""
        self._opening = (
            b'{"model":"bench-model","stream":true,"stream_options":{"include_usage":true}'
            + declared
            + b',"messages":['
        )
        self._seq = self._send = 0

    async def connect(self) -> None:
        """Open the connection."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 20)

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()

    def fill(self, messages: Sequence[dict[str, str]]) -> None:
        """Begin with a history."""
        rows = [(self.session_id, n, 0, one["role"], encode(one).decode(), 0) for n, one in enumerate(messages, 1)]
        self._db.execute("begin immediate")
        self._db.execute("insert into sessions values (?, ?, 0, null, 0, 0)", (self.session_id, len(rows) + 1))
        self._db.executemany("insert into messages values (?, ?, ?, ?, ?, ?)", rows)
        self._db.execute("commit")
        del self.fragments[1:]
        self.fragments += [encode(one) for one in messages]
        self._seq = len(rows)

    def load(self) -> None:
        """Begin with what the database holds."""
        rows = self._db.execute("select seq, body from messages where session_id = ? order by seq", (self.session_id,))
        for seq, body in rows.fetchall():
            self.fragments.append(body.encode())
            self._seq = seq
        row = self._db.execute("select send_index from sessions where id = ?", (self.session_id,)).fetchone()
        self._send = row[0]

    async def turn(self, text: str, tools: dict[str, Tool] | None = None, heard: list[str] | None = None) -> str:
        """One durable turn: the user's row, then a round a reply until one asks for no tool."""
        self._send += 1
        self._begin_turn(encode({"role": "user", "content": text}))
        for round_number in range(1, 1000):
            said, calls, usage = await self._ask(heard)
            if not calls:
                self._end_turn(encode({"role": "assistant", "content": said}), round_number, usage)
                return said
            self._store_calls(
                encode({"role": "assistant", "content": None, "tool_calls": calls}), calls, round_number, usage
            )
            assert tools is not None
            results = await asyncio.gather(
                *(tools[one["function"]["name"]](**json.loads(one["function"]["arguments"])) for one in calls)
            )
            self._store_results(calls, results)
        raise AssertionError("the endpoint asks for tools for ever")

    # --- the model ---

    async def _ask(self, heard: list[str] | None) -> tuple[str, list[dict[str, Any]], dict[str, int]]:
        body = self._opening + b",".join(self.fragments) + b"]}"
        self._writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n" % len(body)
        )
        self._writer.write(body)
        pieces: list[str] = []
        calls: list[dict[str, Any]] = []
        usage: dict[str, int] = {}
        rest = b""
        while True:
            data = rest + await self._reader.read(1 << 18)
            *lines, rest = data.split(b"\n")
            # The endpoint sends each event as a chunk of its own: the lines of the chunk framing are not data lines.
            for line in lines:
                if not line.startswith(b"data: {"):
                    continue
                chunk = json.loads(line[6:])
                choices = chunk["choices"]
                if not choices:
                    usage = chunk["usage"]
                    continue
                delta = choices[0]["delta"]
                piece = delta.get("content")
                if piece:
                    pieces.append(piece)
                    if heard is not None:
                        heard.append(piece)
                elif "tool_calls" in delta:
                    _assemble(calls, delta["tool_calls"])
            if data.endswith(b"\r\n0\r\n\r\n"):
                return "".join(pieces), calls, usage

    # --- the rows ---

    def _begin_turn(self, fragment: bytes) -> None:
        now, db = time.time_ns() // 1_000_000, self._db
        self._seq += 1
        self.fragments.append(fragment)
        db.execute("begin immediate")
        db.execute(
            "update sessions set owner = 'me', epoch = epoch + 1, lease_until_ms = ?, next_seq = ?, send_index = ?"
            " where id = ?",
            (now + 30_000, self._seq + 1, self._send, self.session_id),
        )
        db.execute("insert into sends values (?, ?, 'running', ?, null)", (self.session_id, self._send, now))
        self._insert_message("user", fragment, now)
        db.execute("commit")

    def _end_turn(self, fragment: bytes, round_number: int, usage: dict[str, int]) -> None:
        now, db = time.time_ns() // 1_000_000, self._db
        self._seq += 1
        self.fragments.append(fragment)
        db.execute("begin immediate")
        db.execute(
            "update sessions set owner = null, lease_until_ms = 0, next_seq = ? where id = ?",
            (self._seq + 1, self.session_id),
        )
        self._insert_message("assistant", fragment, now)
        self._insert_usage(round_number, usage, now)
        db.execute(
            "update sends set status = 'completed', ended_at_ms = ? where session_id = ? and send_index = ?",
            (now, self.session_id, self._send),
        )
        db.execute("commit")

    def _store_calls(
        self, fragment: bytes, calls: list[dict[str, Any]], round_number: int, usage: dict[str, int]
    ) -> None:
        now, db = time.time_ns() // 1_000_000, self._db
        self._seq += 1
        self.fragments.append(fragment)
        db.execute("begin immediate")
        db.execute("update sessions set next_seq = ? where id = ?", (self._seq + 1, self.session_id))
        self._insert_message("assistant", fragment, now)
        self._insert_usage(round_number, usage, now)
        rows = [
            (self.session_id, one["id"], self._seq, one["function"]["name"], one["function"]["arguments"])
            for one in calls
        ]
        db.executemany("insert into tool_calls values (?, ?, ?, ?, ?, 'started', null)", rows)
        db.execute("commit")

    def _store_results(self, calls: list[dict[str, Any]], results: list[str]) -> None:
        now, db = time.time_ns() // 1_000_000, self._db
        db.execute("begin immediate")
        for one, result in zip(calls, results, strict=True):
            self._seq += 1
            fragment = encode({"role": "tool", "tool_call_id": one["id"], "content": result})
            self.fragments.append(fragment)
            self._insert_message("tool", fragment, now)
            db.execute(
                "update tool_calls set state = 'succeeded', result = ? where session_id = ? and call_id = ?",
                (result, self.session_id, one["id"]),
            )
        db.execute("update sessions set next_seq = ? where id = ?", (self._seq + 1, self.session_id))
        db.execute("commit")

    def _insert_message(self, role: str, fragment: bytes, now: int) -> None:
        row = (self.session_id, self._seq, self._send, role, fragment.decode(), now)
        self._db.execute("insert into messages values (?, ?, ?, ?, ?, ?)", row)

    def _insert_usage(self, round_number: int, usage: dict[str, int], now: int) -> None:
        counts = (usage["prompt_tokens"], usage["completion_tokens"])
        row = (self.session_id, self._send, round_number, "bench-model", *counts, now)
        self._db.execute("insert into model_calls values (?, ?, ?, ?, ?, ?, ?)", row)


def _assemble(calls: list[dict[str, Any]], deltas: list[dict[str, Any]]) -> None:
    for delta in deltas:
        if delta["index"] == len(calls):
            calls.append({"id": delta["id"], "type": "function", "function": dict(delta["function"])})
        else:
            calls[delta["index"]]["function"]["arguments"] += delta["function"]["arguments"]
