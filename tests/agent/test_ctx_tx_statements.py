"""What a tool's own statements may hold: the same values and the same marks on every database, and one at a time."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import pytest

from power_loop import SendStatus, tool
from power_loop.records import CallState
from power_loop.testing import ScriptedLLM, call
from power_loop.tools import ToolTransaction

from .bank import Bank, bank, town
from .conftest import MakeLoop
from .parts import error_answers, within_limit

__all__ = ["bank", "town"]


async def _used(make_loop: MakeLoop, bank: Bank, use: Any) -> str | None:
    """Run a tool; return what the model was told where it failed."""
    loop = make_loop(call(use.name), "Done.", store=bank.store, tool_registry=[use])
    sid = await loop.new_session(session_id=bank.sid)
    assert (await within_limit(loop.send("go", session_id=sid))).status is SendStatus.COMPLETED
    assert isinstance(loop.llm, ScriptedLLM)
    told = error_answers(loop.llm.requests[-1])
    [record] = await bank.store.get_calls(bank.sid)
    assert (record.state is CallState.FAILED) is bool(told)
    return told[0] if told else None


async def test_values_of_every_plain_kind_come_back_as_they_went(make_loop: MakeLoop, bank: Bank) -> None:
    is_postgres = bank.dsn.startswith("postgres")
    blob = "BYTEA" if is_postgres else "BLOB"
    table = f"{bank.table}_values"
    await bank.run(
        f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, f DOUBLE PRECISION, b BOOLEAN, raw {blob}, word VARCHAR(200))"
        + (" DEFAULT CHARACTER SET utf8mb4" if bank.dsn.startswith("mysql") else "")
    )
    values: list[tuple[Any, ...]] = [
        (1, 0.1, True, bytes(range(256)), "it's \\ ? %s \U0001f600 \x1a \n"),
        (2, -1.5e300, False, b"", ""),
        (3, 5e-324, None, b"'\\\0", "\\'"),
        (4, 3.0, None, None, None),
    ]

    @tool
    async def keep(tx: ToolTransaction) -> str:
        """Keep values."""
        await tx.execute_many(f"INSERT INTO {table} (id, f, b, raw, word) VALUES (?, ?, ?, ?, ?)", values)
        for row in values:
            assert await tx.query(f"SELECT id, f, b, raw, word FROM {table} WHERE id = ?", [row[0]]) == [row]
        [(count,)] = await tx.query(f"SELECT COUNT(*) FROM {table} WHERE f = ? AND raw = ?", (0.1, values[0][3]))
        assert count == 1
        return "kept"

    assert await _used(make_loop, bank, keep) is None


@pytest.mark.parametrize(
    "params",
    [(Decimal("1.5"),), (datetime.date(2026, 1, 1),), (float("nan"),), (float("inf"),), ([1],), "x", {"a": 1}, (1j,)],
    ids=repr,
)
async def test_what_not_every_database_takes_is_refused_on_all(make_loop: MakeLoop, bank: Bank, params: Any) -> None:
    @tool
    async def odd(tx: ToolTransaction) -> None:
        """Be odd."""
        await tx.execute(f"UPDATE {bank.table} SET cents = 0")
        await tx.execute(f"UPDATE {bank.table} SET cents = ?", params)

    told = await _used(make_loop, bank, odd)
    assert told is not None
    assert "of a statement" in told
    assert await bank.cents() == {"ann": 100, "bob": 100}


@pytest.mark.parametrize("tail", ["; COMMIT", ";COMMIT;", "; UPDATE {} SET cents = 1"])
async def test_a_second_statement_in_one_text_is_refused_before_the_first_has_run(
    make_loop: MakeLoop, bank: Bank, tail: str
) -> None:
    @tool
    async def two(tx: ToolTransaction) -> None:
        """Run two."""
        await tx.execute(f"UPDATE {bank.table} SET cents = 0{tail.format(bank.table)}")

    told = await _used(make_loop, bank, two)
    assert told is not None
    assert "more than one statement" in told
    assert await bank.cents() == {"ann": 100, "bob": 100}


async def test_marks_in_texts_and_comments_and_a_semicolon_at_the_end_are_fine(make_loop: MakeLoop, bank: Bank) -> None:
    @tool
    async def look(tx: ToolTransaction) -> str:
        """Look."""
        sql = f"SELECT name, '?;' FROM {bank.table} /* it's him? */ WHERE name = ? -- who's?\n AND cents > ?;"
        assert await tx.query(sql, ("ann", 5)) == [("ann", "?;")]
        return "seen"

    assert await _used(make_loop, bank, look) is None


async def test_what_a_constraint_refuses_at_commit_fails_the_call_and_not_the_session(
    make_loop: MakeLoop, bank: Bank
) -> None:
    if bank.dsn.startswith("mysql"):
        pytest.skip("no constraint there waits for COMMIT")
    await bank.run(
        f"CREATE TABLE {bank.table}_kid (name VARCHAR(20) REFERENCES {bank.table} DEFERRABLE INITIALLY DEFERRED)"
    )

    @tool
    async def add(tx: ToolTransaction) -> str:
        """Add a kid of nobody."""
        await tx.execute(f"INSERT INTO {bank.table}_kid (name) VALUES (?)", ("nobody",))
        return "added"

    told = await _used(make_loop, bank, add)
    assert told is not None
    assert "foreign key" in told.lower()
