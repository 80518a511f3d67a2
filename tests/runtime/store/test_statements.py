"""What the moves cost: how many statements and commits, and that none of them walks a table."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from power_loop.contracts.messages import ImagePart, Message, Role, TextPart, user_message
from power_loop.contracts.records import Accepted, NewSend, TakenInput
from power_loop.runtime.store.codec import MIN_BLOB_CHARS
from power_loop.runtime.store.open import open_store
from power_loop.runtime.store.sql.sqlite_threads import SqliteTransaction
from power_loop.runtime.store.store import SqlSessionStore
from power_loop.testing.conformance.folds import fold
from tests.conformance.parts import (
    COMPLETED,
    HandClock,
    accepted,
    claim,
    new_send,
    one_send,
    reply,
    reply_with_calls,
    result_step,
)
from tests.runtime.store.parts import Points
from tests.runtime.store.script import MOVES, everything


class Statements:
    """Notes every statement that runs, one on several rows once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ran: list[str] = []
        for name in ("execute", "execute_many", "query"):
            monkeypatch.setattr(SqliteTransaction, name, self._noting(getattr(SqliteTransaction, name)))
        monkeypatch.setattr(SqliteTransaction, "execute_all", self._noting_all(SqliteTransaction.execute_all))

    def _noting(self, original: Any) -> Any:
        async def noted(tx: SqliteTransaction, sql: str, params: Any = ()) -> Any:
            self.ran.append(sql)
            return await original(tx, sql, params)

        return noted

    def _noting_all(self, original: Any) -> Any:
        async def noted(tx: SqliteTransaction, statements: Any) -> Any:
            # The same statement on several rows is one that is prepared once.
            self.ran += dict.fromkeys(sql for sql, _ in statements)
            return await original(tx, statements)

        return noted

    def take(self) -> list[str]:
        ran, self.ran = self.ran, []
        return ran


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlSessionStore]:
    opened = await open_store(tmp_path / "app.db", clock=HandClock())
    yield opened
    await opened.aclose()


async def test_a_plain_turn_is_two_commits_of_at_most_five_statements(
    store: SqlSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.create_session("sess_1", system_prompt="p", metadata={})
    await one_send(store, "sess_1")
    points = store.on_point = Points()
    statements = Statements(monkeypatch)
    held = await accepted(store, "sess_1")
    assert len(statements.take()) <= 5
    await store.append_reply(held.lease, reply(held, end=COMPLETED))
    assert len(statements.take()) <= 5
    assert points.commits == [["accept"], ["append_reply"]]
    with_id = await store.accept(claim("sess_1"), new_send(request_id="r1"))
    assert isinstance(with_id, Accepted)
    assert len(statements.take()) <= 6


async def test_the_cost_of_a_batch_does_not_grow_with_its_calls(
    store: SqlSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.create_session("sess_1", system_prompt="p", metadata={})
    held = await accepted(store, "sess_1")
    statements = Statements(monkeypatch)
    ids = [f"c{number}" for number in range(20)]
    await store.append_reply(held.lease, reply_with_calls(held, *ids))
    assert len(statements.take()) <= 5
    await store.advance_calls(
        held.lease,
        [result_step(2, index, call_id) for index, call_id in enumerate(ids)],
        at_seq=3,
        send_index=1,
        round=1,
        tool_state={"n": 1},
        end=COMPLETED,
    )
    assert len(statements.take()) <= 5


async def test_a_cold_read_takes_seven_statements_and_one_more_for_what_a_fold_pins(
    store: SqlSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.create_session("sess_1", system_prompt="p", metadata={})
    statements = Statements(monkeypatch)
    await store.read_view("sess_1")
    assert len(statements.take()) == 4, "head with fold, send, calls, messages; no model was asked so far"
    for _ in range(4):
        await one_send(store, "sess_1")
    statements.take()
    await store.read_view("sess_1")
    assert len(statements.take()) == 7, "those, what the send and its calls took, and the last model call"
    await store.read_view("sess_1", projected=True)
    assert len(statements.take()) == 8
    for to_seq, pinned in ((2, ()), (4, (1, 3))):
        held = await accepted(store, "sess_1")
        statements.take()
        wanted = fold(to_seq, send_index=held.send_index, pinned_seqs=pinned)
        await store.append_fold(held.lease, wanted, at_seq=held.next_seq)
        assert len(statements.take()) == 4, "guard, lineage, the fold before, insert"
        await store.append_reply(held.lease, reply(held, end=COMPLETED))
        statements.take()
        view = await store.read_view("sess_1")
        assert [one.seq for one in view.pinned] == list(pinned)
        assert len(statements.take()) == 7 + bool(pinned), "however many folds there are"


async def test_messages_without_data_of_media_pay_nothing_for_those_with_it(
    store: SqlSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.create_session("sess_1", system_prompt="p", metadata={})
    statements = Statements(monkeypatch)
    small, big = ImagePart(data="A" * (MIN_BLOB_CHARS - 1)), [ImagePart(data=f"{n:04}" * 1024) for n in range(20)]
    plain: dict[str, int] = {}
    for name, message in (
        ("small", Message(Role.USER, (TextPart("an image"), small))),
        ("text", user_message('what is a "blob":"?')),
        ("media", Message(Role.USER, tuple(big))),
        ("media again", Message(Role.USER, tuple(big))),
        ("text again", user_message("and this?")),
    ):
        held = await store.accept(claim("sess_1"), NewSend(message, "h", {}))
        assert isinstance(held, Accepted)
        plain[name] = len(statements.take())
        await store.append_reply(held.lease, reply(held, end=COMPLETED))
        assert not [sql for sql in statements.take() if "blobs" in sql], "an answer of text"
    assert plain["small"] == plain["text"] == plain["text again"] <= 5
    # Two looks, sixteen at a time, for what is known; and once what is not.
    assert (plain["media"], plain["media again"]) == (plain["text"] + 2 + 20, plain["text"] + 2)
    assert len(await store.get_messages("sess_1", after_seq=0, limit=4)) == 4
    assert not [sql for sql in statements.take() if "blobs" in sql]
    assert len(await store.get_messages("sess_1")) == 10
    assert len([sql for sql in statements.take() if "blobs" in sql]) == 2, "each is read once, sixteen at a time"


async def test_a_write_of_a_turn_begins_with_its_guard(store: SqlSessionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    statements = Statements(monkeypatch)
    for name, move in MOVES:
        await move(store)
        first = statements.take()[0]
        if name in {"append_reply", "advance_calls", "append_fold", "end_send", "reserve", "renew", "release"}:
            assert first.startswith("UPDATE pl_sessions SET ")
            assert "owner = ? AND epoch = ?" in first


async def test_no_statement_walks_a_whole_table(
    store: SqlSessionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements = Statements(monkeypatch)
    for _, move in MOVES:
        await move(store)
    await everything(store)
    await store.get_calls("sess_1", states=())
    await store.get_send("sess_1", request_id="r1")
    await store.get_folds("sess_1")
    await store.get_model_calls("sess_1", before_seq=7)
    await store.find_call_ids("sess_1", ["c1", "c3"])
    await store.search_messages("sess_1", "second")
    page = await store.list_sessions(limit=1, metadata={"b": "x"})
    assert page.next_cursor is None
    connection = sqlite3.connect(tmp_path / "app.db")
    for sql in sorted(set(statements.take())):
        plan = [row[-1] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", [None] * sql.count("?"))]
        walks = [line for line in plan if line.startswith("SCAN") and "CONSTANT ROW" not in line]
        assert walks == [], f"{sql}\n{plan}"
        sorts = [line for line in plan if "TEMP B-TREE" in line]
        assert sorts == [], f"{sql}\n{plan}"
        if "state IN ('requested', 'started', 'waiting')" in sql and sql.startswith("SELECT"):
            # Of the calls, only those of the last send are looked at.
            assert any("(session_id=? AND reply_seq>?)" in line for line in plan), f"{sql}\n{plan}"
    connection.close()


async def test_a_long_prompt_is_not_written_again_with_every_turn(tmp_path: Path) -> None:
    sizes = {}
    for name, prompt in (("short", "p"), ("long", "p" * 1_000_000)):
        store = await open_store(tmp_path / f"{name}.db")
        await store.create_session("sess_1", system_prompt=prompt, metadata={"m": prompt})
        log = tmp_path / f"{name}.db-wal"
        before = log.stat().st_size
        for _ in range(10):
            await one_send(store, "sess_1")
        sizes[name] = log.stat().st_size - before
        await store.aclose()
    assert sizes["long"] <= sizes["short"] + 8 * 4096


async def test_storage_grows_by_a_constant_a_turn(tmp_path: Path) -> None:
    store = await open_store(tmp_path / "app.db")
    await store.create_session("sess_1", system_prompt=None, metadata={})

    async def pages(tx: Any) -> int:
        [(count,)] = await tx.query("PRAGMA page_count")
        return int(count)

    grown = []
    for _ in range(4):
        before = await store._rooms.database.read(pages)
        for _ in range(100):
            await one_send(store, "sess_1", back="x" * 500)
        grown.append(await store._rooms.database.read(pages) - before)
    assert max(grown[1:]) - min(grown[1:]) <= 4
    # 100 turns of half a kilobyte take less than three times their text.
    assert grown[-1] * 4096 < 3 * 100 * 600
    await store.aclose()


async def test_no_statement_of_those_outside_walks_a_whole_table(
    store: SqlSessionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements = Statements(monkeypatch)
    await store.create_session("sess_1", system_prompt=None, metadata={})
    held = await accepted(store, "sess_1")
    await store.put_input("sess_1", new_send("one", request_id="r1"))
    await store.put_input("sess_1", new_send("two"))
    await store.ask_to_cancel("sess_1", reason="so")
    await store.withdraw_input("sess_1", 2)
    await store.get_inbox("sess_1")
    await store.read_signals(["sess_1"])
    news = await store.read_news(held.lease)
    lease = replace(held.lease, signals=news.signals)
    await store.take_inputs(
        lease, [TakenInput(1, new_send("one").message)], at_seq=held.next_seq, send_index=1, round=0
    )
    await store.list_owners()
    await store.find_stalled(dead_owners=["alice"])
    await store.put_input("sess_1", new_send("three"))
    await store.release(lease, hands_back=True)
    assert await store.claim_stalled("bob", ttl_s=30, limit=1, dead_owners=["alice"])
    connection = sqlite3.connect(tmp_path / "app.db")
    for sql in sorted(set(statements.take())):
        plan = [row[-1] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", [None] * sql.count("?"))]
        # What waits and what is held is looked at as a whole: that is an index of just these.
        of_index = ("inbox_waiting", "sessions_by_lease", "CONSTANT ROW", "SCAN w")
        walks = [line for line in plan if line.startswith("SCAN") and not any(name in line for name in of_index)]
        assert walks == [], f"{sql}\n{plan}"
    connection.close()
