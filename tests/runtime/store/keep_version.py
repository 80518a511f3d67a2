"""Writes what the tables look like at the version that the code has, with sessions in every state, as scripts to keep.

`python -m tests.runtime.store.keep_version FOLDER` is run once for a version: on the last commit that had it, before
the number in `sql/migrations.py` counts up. The scripts go to `old_versions`, where `test_migrations.py` begins. The
rows come from real turns in SQLite with a clock that is moved by hand, and are the same for every kind of database.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from power_loop import AgentEventBus, StatefulAgentLoop, ToolRegistry, tool
from power_loop.contracts.budgets import Budget, NewBudget
from power_loop.contracts.messages import ImagePart, Message, Origin, Role, TextPart, ToolCallPart
from power_loop.contracts.records import Accepted, NewCall, NewChild, NewReply, NewSend, ProjectedMessage, SendEnd
from power_loop.contracts.states import CallState, Effect, SendStatus
from power_loop.runtime.store.open import open_store
from power_loop.runtime.store.schema import schema_ddl
from power_loop.runtime.store.sql.migrations import SCHEMA_VERSION
from power_loop.runtime.store.sql.tables import MEMORIES, MEMORIES_BY_TERMS, SCHEMA_MIGRATIONS, TABLES
from power_loop.runtime.store.store import SqlSessionStore
from power_loop.testing import ScriptedLLM
from power_loop.testing.conformance.folds import fold
from power_loop.testing.conformance.parts import (
    COMPLETED,
    TEN_AND_THREE,
    HandClock,
    accepted,
    answer,
    claim,
    model_call,
    new_send,
    reply,
)
from power_loop.testing.scripted import call, calls
from power_loop.tools import Waiting

_WORDS = "a word – 言葉 \\ 'quoted' 🎈\nsecond line"
_OWNER = "old-host:1:1:1:0000"


@tool(effect="read")
def look_up(word: str) -> str:
    """Look a word up."""
    return f"{word}: {_WORDS}"


@tool
def choose_seat() -> Waiting:
    """Let the traveller choose a seat."""
    return Waiting("Which seat?", answer_schema={"type": "string"})


_DIED = (
    ("sess_midturn", "Read two things.", Effect.READ, {"look_up": '{"word": "mid"}', "read_far": '{"word": "turn"}'}),
    ("sess_effect", "Send 5.", Effect.ONCE, {"send_money": '{"amount": 5}'}),
)


def started(held: Accepted, effect: Effect, asked: Mapping[str, str]) -> NewReply:
    """Return a reply whose calls have started."""
    parts = tuple(ToolCallPart(f"call_{name}", name, arguments) for name, arguments in asked.items())
    calls = tuple(
        NewCall(part.id, index, part.name, part.arguments, effect, CallState.STARTED, f"key-{part.name}")
        for index, part in enumerate(parts)
    )
    message = Message(Role.ASSISTANT, parts, Origin("custom", "scripted"))
    return NewReply(held.next_seq, held.send_index, 1, (message,), model_call(stop="tool_calls"), calls=calls)


async def make_sessions(dsn: str) -> None:
    """Make a session in every state: at rest, forked, waiting, in mid-turn, in mid-effect, closed."""
    clock = HandClock()
    store = await open_store(dsn, clock=clock)
    llm = ScriptedLLM(
        [
            call("look_up", {"word": "kernel"}, id="call_kernel"),
            'A kernel is a core.\nIt isn\'t "everything". \\o/',
            "And 言葉 🎈 is a word.",
            "A fork says something else.",
            calls(("choose_seat", {}), ("look_up", {"word": "seat"}), ids=("call_seat", "call_word")),
        ]
    )
    tools = ToolRegistry([look_up, choose_seat])
    async with StatefulAgentLoop(
        llm=llm, store=store, tool_registry=tools, clock=clock, event_bus=AgentEventBus(clock=clock)
    ) as loop:
        ada = {"user": "ada", "path": "C:\\tmp"}
        await store.create_session("sess_done", system_prompt="Be 'brief'.", metadata=ada)
        await loop.send("What is a kernel?", session_id="sess_done")
        await loop.send("And 言葉?", session_id="sess_done", request_id="req-1")
        await store.fork_session("sess_done", at=4, fork_id="sess_fork")
        await loop.send("And otherwise?", session_id="sess_fork")
        await store.create_session("sess_waiting", system_prompt=None, metadata={})
        await loop.send("A seat, please.", session_id="sess_waiting")
    for session_id, request_id in (("sess_fork", "req-2"), ("sess_done", "req-3")):
        await store.put_input(session_id, new_send("By the window.", request_id=request_id))
    await store.withdraw_input("sess_done", 1)
    for session_id, text, effect, asked in _DIED:
        await store.create_session(session_id, system_prompt=None, metadata={"a": 1})
        held = await accepted(store, session_id, _OWNER, text)
        await store.append_reply(held.lease, started(held, effect, asked))
    await store.create_session("sess_closed", system_prompt=None, metadata={})
    await store.close_session("sess_closed")
    await make_folded(store)
    await make_tree(store)
    await store.memories.add("user=ada", _WORDS, session_id="sess_done", metadata={"kind": "word"})
    await store.aclose()


async def make_folded(store: SqlSessionStore) -> None:
    """Make a session with an image, a fold, and a row of the projection."""
    await store.create_session("sess_folded", system_prompt=None, metadata={})
    shown = Message(Role.USER, (TextPart("What is this?"), ImagePart.from_bytes(b"\x89PNG\r\n\x1a\n" + bytes(4000))))
    held = await store.accept(claim("sess_folded", _OWNER), NewSend(shown, "h1", {}))
    assert isinstance(held, Accepted)
    row = ProjectedMessage(2, 2, Message(Role.ASSISTANT, (TextPart("An image."),)))
    end = SendEnd(SendStatus.COMPLETED, {"text_seq": 2}, (row,))
    first = NewReply(held.next_seq, held.send_index, 1, (answer(_WORDS),), model_call(), end=end)
    await store.append_reply(held.lease, first)
    held = await accepted(store, "sess_folded", _OWNER, "And this?")
    made = fold(2, held.send_index, summary=_WORDS, pinned_seqs=(1,), model="m", model_calls=1, usage=TEN_AND_THREE)
    await store.append_fold(held.lease, made, at_seq=held.next_seq)
    await store.append_reply(held.lease, reply(held, end=COMPLETED))


async def make_tree(store: SqlSessionStore) -> None:
    """Make a session with a budget, a session of an agent below it that this pays for, and a blackboard of both."""
    await store.create_session("sess_parent", system_prompt=None, metadata={})
    paying = replace(new_send("Ask an agent."), budget=NewBudget(Budget(max_tokens=1000, max_cost=Decimal(2))))
    held = await store.accept(claim("sess_parent", _OWNER), paying)
    assert isinstance(held, Accepted)
    await store.create_child(NewChild("sess_child", None, {"name": "a"}, {}, "sess_parent", 1, "sess_parent", 1))
    paid = replace(new_send("Look it up."), paid_by=("sess_parent", 1))
    below = await store.accept(claim("sess_child", _OWNER), paid)
    assert isinstance(below, Accepted)
    await store.append_reply(below.lease, reply(below, end=COMPLETED))
    await store.post_entry("sess_child", "plan/1", {"do": _WORDS}, author_session_id="sess_child")
    await store.append_reply(held.lease, reply(held, end=COMPLETED))


def literal(value: Any, *, doubles_backslashes: bool) -> str:
    """Return a value as SQL."""
    if not isinstance(value, str):
        return "NULL" if value is None else str(value)
    text = value.replace("'", "''")
    return f"'{text.replace(chr(92), chr(92) * 2) if doubles_backslashes else text}'"


def script(database: Path, scheme: str) -> str:
    """Return the script that makes the tables, the views and the rows in a database of a kind."""
    lines = [schema_ddl(scheme)]
    with closing(sqlite3.connect(database)) as connection:
        for table in TABLES:
            if table is SCHEMA_MIGRATIONS:
                continue
            names = ", ".join(column.name for column in table.columns)
            order = ", ".join(table.primary_key)
            for row in connection.execute(f"SELECT {names} FROM pl_{table.name} ORDER BY {order}"):
                values = ", ".join([literal(value, doubles_backslashes=scheme == "mysql://") for value in row])
                lines.append(f"INSERT INTO pl_{table.name} ({names}) VALUES ({values});\n")
    if scheme == "old.db":
        # Only here are the words of the memories a table beside them.
        (words,) = MEMORIES_BY_TERMS.columns
        lines.append(
            f"INSERT INTO pl_{MEMORIES_BY_TERMS.name} (rowid, {words})"
            f" SELECT {MEMORIES_BY_TERMS.text_key}, {words} FROM pl_{MEMORIES.name};\n"
        )
    return "".join(lines)


def main(folder: Path) -> None:
    """Write the scripts."""
    with tempfile.TemporaryDirectory() as scratch:
        database = Path(scratch) / "old.db"
        asyncio.run(make_sessions(str(database)))
        for name, scheme in (("sqlite", "old.db"), ("postgres", "postgresql://"), ("mysql", "mysql://")):
            path = folder / f"v{SCHEMA_VERSION}_{name}.sql"
            path.write_text(script(database, scheme), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
