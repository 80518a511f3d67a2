"""Reads what a database file holds, with SQLite alone and nothing of the kernel, leaving out what differs by run."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

# Times, names of processes and tokens of moves: the same story told twice differs in them.
_BY_RUN = frozenset(
    {
        "created_at_ms",
        "updated_at_ms",
        "started_at_ms",
        "ended_at_ms",
        "applied_at_ms",
        "lease_until_ms",
        "lease_ttl_ms",
        "previous_owner",
        "last_op",
        "accept_op",
        "end_op",
        "op",
        "duration_ms",
        # Counts renewals of the lease as well, which come by the clock.
        "tick",
    }
)

# The index of full text and the tables that SQLite keeps it in follow from others, and have no key to be read by.
_INDEX = "pl_memories_by_terms"

Facts = dict[str, list[dict[str, Any]]]


def read_facts(path: Path | str) -> Facts:
    """Return every row of every table by name; `owner` says only whether there is one."""
    connection = sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True)
    try:
        connection.row_factory = sqlite3.Row
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1")]
        names = [name for name in names if name.startswith("pl_") and not name.startswith(_INDEX)]
        return {name.removeprefix("pl_"): _rows(connection, name) for name in names}
    finally:
        connection.close()


def with_ids_of_the_story(facts: Facts) -> Facts:
    """Return facts with the calls named as the stories name them, by their place, whatever a provider called them."""
    names = {
        row["call_id"]: f"call_{row['reply_seq'] - 1}_{json.loads(row['arguments'])['id']}"
        for row in facts.get("tool_calls", ())
    }
    text = json.dumps(facts)
    for old, new in names.items():
        text = text.replace(old, new)
    renamed: Facts = json.loads(text)
    return renamed


def is_sound(path: Path | str) -> bool:
    """Tell whether SQLite finds the file whole."""
    connection = sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True)
    try:
        return bool(connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)])
    finally:
        connection.close()


def log_of(facts: Facts, session_id: str = "s") -> list[tuple[Any, ...]]:
    """Return a session's log as plain tuples: ("user", text), ("assistant", text, calls), ("tool", id, text, error)."""
    return [_entry(row) for row in facts["messages"] if row["session_id"] == session_id]


def _rows(connection: sqlite3.Connection, table: str) -> list[dict[str, Any]]:
    key = ", ".join(row[1] for row in connection.execute(f"PRAGMA table_info({table})") if row[5])
    rows = []
    for row in connection.execute(f"SELECT * FROM {table} ORDER BY {key}"):
        kept = {name: row[name] for name in row.keys() if name not in _BY_RUN}  # noqa: SIM118 - a Row is no mapping
        if "owner" in kept:
            kept["owner"] = kept["owner"] is not None
        rows.append(kept)
    return rows


def _entry(row: dict[str, Any]) -> tuple[Any, ...]:
    parts = json.loads(row["body"])["parts"]
    if row["role"] == "tool":
        result = parts[0]
        text = "".join(part["text"] for part in result["content"])
        return "tool", result["call_id"], text, result.get("is_error", False)
    text = "".join(part["text"] for part in parts if part["type"] == "text")
    if row["role"] == "user":
        return "user", text
    calls = tuple(
        (part["id"], part["name"], json.loads(part["arguments"])) for part in parts if part["type"] == "tool_call"
    )
    return "assistant", text, calls
