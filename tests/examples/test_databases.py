"""The examples 70 to 74: sessions live on any database, move, fork, and leave when they are old."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from typing import Any

import pytest

from .conftest import Stage, call


@pytest.mark.parametrize("server", ["sqlite", "postgres", "mysql", "mariadb"])
def test_servers(stage: Stage, server: str) -> None:
    dsn = "app.db" if server == "sqlite" else stage.database(server)
    said = stage.play("70_servers", answers=["Noted.", "Teal."])
    assert re.fullmatch(
        r"[1-9]\d+ characters of SQL are missing\nNoted\.\nTeal\.\n0 characters of SQL are missing\n", said
    )
    assert stage.log(dsn)[2:] == [("user", "What is it?"), ("assistant", "Teal.")]


def test_own_store(stage: Stage) -> None:
    said = stage.play("71_own_store", answers=[call("water", plant="fern"), "Done."])
    first, *moves = said.splitlines()
    assert first == "Done."
    assert {"accept: 1", "append_reply: 2", "advance_calls: 1"} <= {line.partition(" in ")[0] for line in moves}
    assert stage.calls() == [("water", "succeeded")]


def test_export_import(stage: Stage) -> None:
    said = stage.play("72_export_import", answers=["Noted.", "4711."])
    assert said.endswith("archive.invalid: somebody changed it\n4711.\n4 messages there\n")
    assert stage.log("other.db")[:2] == stage.log("app.db")
    assert len(stage.log("other.db")) == 4
    assert (stage.folder / "session.jsonl").read_bytes().count(b"4711") >= 1


def test_time_travel(stage: Stage) -> None:
    said = stage.play("73_time_travel", answers=["Fine.", "See the Forum.", "See the fjord.", "Take the bus."])
    assert re.sub(" +", " ", said) == (
        "as it was: See the Forum.\na fork: See the fjord.\nwhat if: Take the bus.\n[4, 4, 4]\n"
    )
    assert "cannot walk far" in str(stage.asked[3]["messages"][0])
    assert [message["content"] for message in stage.asked[3]["messages"][1:]] == [
        "I have three days.",
        "Fine.",
        "Plan a trip to Rome.",
    ]
    with closing(sqlite3.connect("app.db")) as database:
        assert database.execute("SELECT count(*) FROM pl_messages").fetchone() == (8,), "what is shared is not copied"


def test_retention(stage: Stage) -> None:
    stage.play("00_hello_world", answers=["Hello."])
    assert stage.play("74_retention").startswith("removed 0 sessions, 0 rows\n"), "what is younger than 90 days stays"
    said = stage.play("74_retention", "0")
    removed, log, backup, problems = said.splitlines()
    assert re.fullmatch(r"removed 1 sessions, [1-9]\d* rows", removed)
    assert (log, problems) == ("the log is in the file: True", "0 problems")
    assert re.fullmatch(r"a backup of \d+ bytes is on the disk", backup)

    async def count(store: Any) -> int:
        return len((await store.list_sessions()).items)

    assert (stage.look(count), stage.look(count, "app-backup.db")) == (0, 0)
