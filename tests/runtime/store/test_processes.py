"""Several processes on one file: first boots, writers, forks, kills at every commit, and the end of a process."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from power_loop.runtime.store.open import open_store
from tests.conformance.parts import HandClock
from tests.runtime.store.processes import last_words, run_together, start
from tests.runtime.store.script import MOVES, everything


async def test_eight_processes_that_boot_at_once_all_work(tmp_path: Path) -> None:
    dsn = str(tmp_path / "app.db")
    await asyncio.to_thread(run_together, "boot", 8, dsn)
    store = await open_store(dsn)
    assert len((await store.list_sessions()).items) == 8
    await store.aclose()
    with sqlite3.connect(dsn) as connection:
        assert connection.execute("SELECT COUNT(*) FROM pl_schema_migrations").fetchall() == [(1,)]
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


async def test_four_processes_write_one_file_and_lose_and_mix_nothing(tmp_path: Path) -> None:
    dsn = str(tmp_path / "app.db")
    store = await open_store(dsn)
    await store.create_session("shared", system_prompt=None, metadata={})
    await asyncio.to_thread(run_together, "write", 4, dsn, 25)
    shared = [row.message.text for row in await store.get_messages("shared")]
    inputs, replies = shared[::2], shared[1::2]
    assert sorted(inputs) == sorted(f"{number}/{turn}" for number in range(4) for turn in range(25))
    assert replies == [f"to {text}" for text in inputs]
    for number in range(4):
        own = [row.message.text for row in await store.get_messages(f"own_{number}")]
        assert own[::2] == [f"{number}/{turn}" for turn in range(25)]
        # In the shared session each process's turns are in its own order.
        assert [text for text in inputs if text.startswith(f"{number}/")] == own[::2]
    await store.aclose()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_and_its_parent_both_go_on(tmp_path: Path) -> None:
    assert last_words(start("fork", tmp_path / "app.db")) == {"child": 0}
    with sqlite3.connect(tmp_path / "app.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        counts = connection.execute("SELECT session_id, COUNT(*) FROM pl_messages GROUP BY 1 ORDER BY 1").fetchall()
        assert counts == [("child", 100), ("parent", 100)]
    connection.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_database_in_memory_does_not_follow_into_a_forked_child() -> None:
    assert last_words(start("fork_with_memory", ":memory:")) == {"code": "store.failed"}


def test_a_process_that_ends_without_closing_commits_what_it_began(tmp_path: Path) -> None:
    assert last_words(start("exit_without_closing", tmp_path / "app.db")) == {"done": True}
    assert os.listdir(tmp_path) == ["app.db"]
    with sqlite3.connect(tmp_path / "app.db") as connection:
        assert connection.execute("SELECT id FROM pl_sessions ORDER BY 1").fetchall() == [("sess_1",), ("sess_2",)]
    connection.close()


async def moments_of(path: Path) -> list[object]:
    """Return what a store holds before the script and after each of its moves."""
    store = await open_store(path, clock=HandClock())
    moments = [await everything(store)]
    for _, move in MOVES:
        await move(store)
        moments.append(await everything(store))
    await store.aclose()
    return moments


@pytest.mark.parametrize("at", range(2 * len(MOVES)))
async def test_a_kill_at_any_commit_leaves_the_moment_before_or_after_that_move(tmp_path: Path, at: int) -> None:
    moments = await moments_of(tmp_path / "whole.db")
    dsn = str(tmp_path / "killed.db")
    said = await asyncio.to_thread(last_words, start("die_at", dsn, at), status=-signal.SIGKILL)
    assert said == {"point": ("commit.before", "commit.after")[at % 2], "move": MOVES[at // 2][0]}
    killed = await open_store(dsn, clock=HandClock())
    assert await everything(killed) == moments[(at + 1) // 2]
    # What was cut off can be done again, to the same end as if nothing had happened.
    for _, move in MOVES[(at + 1) // 2 :]:
        await move(killed)
    assert await everything(killed) == moments[-1]
    await killed.aclose()


async def test_the_moments_of_the_script_are_told_apart_and_it_has_no_other_commits(tmp_path: Path) -> None:
    # Every move changes something; a renewal moves the lease.
    moments = await moments_of(tmp_path / "whole.db")
    assert all(before != after for before, after in itertools.pairwise(moments))
    finished = await asyncio.to_thread(last_words, start("die_at", tmp_path / "not_killed.db", 999))
    assert finished == {"finished": 2 * len(MOVES)}


async def test_another_process_that_closes_leaves_the_log_to_those_who_are_still_there(tmp_path: Path) -> None:
    """A process loses its locks on a file with any descriptor of it that it closes: then nobody knows it is there."""
    path = tmp_path / "app.db"
    store = await open_store(path)
    await store.create_session("sess_1", system_prompt=None, metadata={})
    for _ in range(10):
        await asyncio.gather(*[store.get_session("sess_1") for _ in range(20)])
    look = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('SELECT COUNT(*) FROM pl_sessions').fetchall()"
    await asyncio.to_thread(subprocess.run, [sys.executable, "-I", "-S", "-c", look, str(path)], check=True)
    assert sorted(os.listdir(tmp_path)) == ["app.db", "app.db-shm", "app.db-wal"]
    # Nor does a second opening in this process, under other parameters, take the locks of the first.
    second = await open_store(f"{path}?busy_timeout_s=1")
    await second.get_session("sess_1")
    await second.aclose()
    await asyncio.to_thread(subprocess.run, [sys.executable, "-I", "-S", "-c", look, str(path)], check=True)
    assert sorted(os.listdir(tmp_path)) == ["app.db", "app.db-shm", "app.db-wal"]
    await store.aclose()
    assert os.listdir(tmp_path) == ["app.db"]
