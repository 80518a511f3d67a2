"""A board goes where its session goes, damage on it is found, and whatever is done to it, it is what a model says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from power_loop.contracts.errors import BlackboardConflictError, InvalidArchiveError
from power_loop.runtime.store.open import open_store
from power_loop.runtime.store.sql.database import Transaction
from power_loop.runtime.store.store import SqlSessionStore
from tests.conformance.parts import HandClock, new_session, one_send
from tests.conformance.test_archive import _double, _drop, _set, opened, sealed, without_header


async def a_board(store: SqlSessionStore) -> None:
    """Make a session with a board whose third write took an entry away."""
    await new_session(store)
    await one_send(store, "sess_1")
    await store.post_entry("sess_1", "a", {"x": "言葉"}, author_session_id="sess_other")
    await store.post_entry("sess_1", "b", 1)
    await store.remove_entry("sess_1", "b", expected_version=2)
    await store.post_entry("sess_1", "c", None)


@pytest.mark.promise("portable-archive")
async def test_a_board_goes_with_the_archive_of_its_session_and_goes_on_there(store: SqlSessionStore) -> None:
    await a_board(store)
    archive = await store.export_session("sess_1")
    await store.import_session(archive, session_id="copy")
    assert await store.read_entries("copy") == await store.read_entries("sess_1")
    assert without_header(await store.export_session("copy")) == without_header(archive)
    assert (await store.post_entry("copy", "b", 1)).version == 5
    assert [entry.key for entry in await store.read_entries("sess_1")] == ["a", "c"]
    assert [one async for one in store.diagnose("copy")] == []


async def test_a_board_goes_with_its_session(store: SqlSessionStore) -> None:
    await a_board(store)
    await new_session(store, "sess_2")
    await store.post_entry("sess_2", "a", 2)
    fork = await store.fork_session("sess_1")
    assert await store.read_entries(fork) == ()
    await store.delete_session(fork)
    without = await store.delete_session("sess_2")
    # Head, details, board and entry.
    assert without.rows == 4
    await store.delete_session("sess_1")
    await new_session(store)
    assert await store.read_entries("sess_1") == ()
    assert (await store.post_entry("sess_1", "a", 1)).version == 1
    assert [one async for one in store.diagnose()] == []


async def damaged(store: SqlSessionStore, statement: str) -> None:
    """Run a statement that no code of ours would."""
    sql = store._rooms.render(statement)

    async def body(tx: Transaction) -> None:
        await tx.execute(sql)

    await store._database.write("damage", body)


@pytest.mark.parametrize(
    "statement", ["UPDATE {blackboards} SET version = 1", "DELETE FROM {blackboards} WHERE session_id = 'sess_1'"]
)
async def test_the_doctor_mends_a_board_whose_count_is_behind(store: SqlSessionStore, statement: str) -> None:
    await a_board(store)
    await damaged(store, statement)
    [found] = [one async for one in store.diagnose(repair=True)]
    assert (found.check, found.session_id, found.is_repaired) == ("blackboard.version", "sess_1", True)
    assert [one async for one in store.diagnose()] == []
    assert (await store.post_entry("sess_1", "b", 1)).version == 5


async def test_the_doctor_finds_what_cannot_be_read_and_what_belongs_to_nobody(store: SqlSessionStore) -> None:
    await a_board(store)
    await damaged(store, "UPDATE {blackboard_entries} SET value = '{{nonsense' WHERE entry_key = 'a'")
    await damaged(store, "INSERT INTO {blackboards} (session_id, version, last_op) VALUES ('sess_gone', 3, '')")
    told = {one.check: one async for one in store.diagnose(repair=True)}
    assert {check: one.is_repaired for check, one in told.items()} == {
        "blackboard.damaged": False,
        "row.orphaned": True,
    }
    assert "entry 'a' of the blackboard" in told["blackboard.damaged"].message
    assert [one.check async for one in store.diagnose()] == ["blackboard.damaged"]


CHANGES: dict[str, Callable[[list[Any]], None]] = {
    "no board": _drop("board"),
    "two boards": _double("board"),
    "an entry twice": _double("entry"),
    "a key that is none": _set("entry", "entry_key", "two words"),
    "a version that is still to come": _set("entry", "version", 9),
    "no version": _set("entry", "version", 0),
    "a version beyond all": _set("board", "version", 1 << 62),
    "an author who is none": _set("entry", "author_session_id", "../x"),
    "a value that is no JSON": _set("entry", "value", "{nonsense"),
    "a value that is written otherwise": _set("entry", "value", '{"x": 1}'),
    "a value that is nested without end": _set("entry", "value", "[" * 10_000),
    "a value that is too long": _set("entry", "value", f'"{"x" * 16_384}"'),
    "a token": _set("board", "last_op", "abc"),
}


@pytest.mark.promise("hostile-archive")
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
async def test_a_board_that_does_not_fit_together_is_refused(change: Callable[[list[Any]], None]) -> None:
    store = await open_store(":memory:", clock=HandClock())
    try:
        await a_board(store)
        lines = opened(await store.export_session("sess_1"))
        await store.import_session(sealed(lines), session_id="unchanged")
        change(lines)
        with pytest.raises(InvalidArchiveError):
            await store.import_session(sealed(lines), session_id="changed")
    finally:
        await store.aclose()


_KEYS = st.sampled_from(("a", "a/b", "b", "z"))
_MOVES = st.lists(
    st.tuples(st.sampled_from(("post", "update", "remove")), _KEYS, st.integers(0, 12), st.integers()), max_size=40
)


@pytest.mark.promise("blackboard")
@given(moves=_MOVES)
@settings(max_examples=40)
def test_whatever_is_done_to_a_board_it_is_what_a_model_says(moves: list[tuple[str, str, int, int]]) -> None:
    async def run() -> None:
        store = await open_store(":memory:", clock=HandClock())
        await new_session(store)
        board: dict[str, tuple[int, int]] = {}
        written = 0
        for move, key, back, value in moves:
            # A version that the entry has, or had, or that another entry had.
            version = max(1, written - back)
            there = board.get(key)
            is_taken = there is None if move == "post" else there is not None and there[1] == version
            try:
                if move == "post":
                    await store.post_entry("sess_1", key, value)
                elif move == "update":
                    await store.update_entry("sess_1", key, value, expected_version=version)
                else:
                    await store.remove_entry("sess_1", key, expected_version=version)
            except BlackboardConflictError as conflict:
                found = None if conflict.version is None else (conflict.value, conflict.version)
                assert (is_taken, found) == (False, there)
                continue
            assert is_taken
            written += 1
            board.pop(key, None)
            if move != "remove":
                board[key] = (value, written)
        entries = await store.read_entries("sess_1")
        assert {entry.key: (entry.value, entry.version) for entry in entries} == board
        assert [entry.key for entry in entries] == sorted(board)
        await store.aclose()

    asyncio.run(run())
