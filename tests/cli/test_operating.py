"""The commands that look after a store do what they say, in one line, and make no database by mistake."""

from __future__ import annotations

import asyncio
import io
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from power_loop import SendStatus, open_store
from power_loop.cli import output
from power_loop.storage import SendEnd
from power_loop.testing.conformance.folds import fold
from tests.cli.test_command import run
from tests.conformance.parts import COMPLETED, accepted, new_session, one_send, reply
from tests.conformance.test_archive import a_long_session


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    async def make() -> None:
        store = await open_store(tmp_path / "app.db")
        await a_long_session(store)
        await one_send(store, await new_session(store, "old"))
        await store.close_session("old")
        await store.aclose()

    asyncio.run(make())
    return tmp_path


def done(folder: Path, *arguments: str) -> str:
    """Run a command on the database and return its line."""
    found = run(*arguments, "--dsn", "app.db", folder=folder)
    assert (found.returncode, found.stderr) == (0, ""), found.stderr
    return found.stdout


def test_an_archive_goes_out_and_comes_in(folder: Path) -> None:
    assert "26 rows" in done(folder, "export", "sess_1", "--output", "s.jsonl")
    whole = (folder / "s.jsonl").read_bytes()
    assert done(folder, "export", "sess_1").encode() == whole
    assert done(folder, "import", "s.jsonl", "--session-id", "copy") == "copy\n"
    found = run("import", "s.jsonl", "--dsn", "app.db", folder=folder)
    assert (found.returncode, found.stdout) == (1, "")
    assert "[session.exists]" in found.stderr
    assert done(folder, "import", "s.jsonl", "--on-conflict", "rename").startswith("sess_")
    found = run("import", "s.jsonl", "--dsn", "new.db", folder=folder)
    assert found.stdout == "sess_1\n", "an import may make the database"
    (folder / "s.jsonl").write_bytes(whole[:-5])
    found = run("import", "s.jsonl", "--dsn", "new.db", folder=folder)
    assert "[archive.invalid]" in found.stderr
    assert "[config.invalid]" in run("import", "no.jsonl", "--dsn", "new.db", folder=folder).stderr
    assert not list(folder.glob("*.part"))


@pytest.mark.parametrize("command", [("doctor",), ("export", "sess_1")])
def test_a_stream_that_takes_nothing_ends_a_command_with_a_word(folder: Path, command: tuple[str, ...]) -> None:
    def shell(streams: str) -> subprocess.CompletedProcess[str]:
        words = shlex.join([sys.executable, "-m", "power_loop", *command, "--dsn", "app.db"])
        return subprocess.run(["sh", "-c", f"{words} {streams}"], cwd=folder, capture_output=True, text=True)

    full = shell(">/dev/full")
    assert full.returncode == 1
    assert full.stderr == "power-loop: error: the output cannot be written: No space left on device\n"
    closed = shell(">&- <&-")
    assert (closed.returncode, closed.stderr) == (0, "")
    assert shell("2>&-").returncode == 0


def test_a_dsn_that_is_empty_is_refused_as_that(folder: Path) -> None:
    found = run("doctor", "--dsn", "", folder=folder)
    assert found.returncode == 2
    assert "[store.invalid_dsn]" in found.stderr


def test_sessions_are_forked_and_deleted(folder: Path) -> None:
    assert done(folder, "fork", "sess_1", "--at", "6", "--fork-id", "f") == "f\n"
    found = run("delete", "sess_1", "--dsn", "app.db", folder=folder)
    assert found.returncode == 1
    assert "[session.has_forks]" in found.stderr
    assert done(folder, "delete", "f") == "f: 3 rows removed\n"
    assert "give at=1 or at=4" in run("fork", "sess_1", "--at", "3", "--dsn", "app.db", folder=folder).stderr


def test_what_is_old_goes(folder: Path) -> None:
    assert done(folder, "prune", "sessions", "--older-than", "1d") == "sessions: 0 sessions, 0 rows removed\n"
    assert done(folder, "prune", "sessions", "--older-than", "0s") == "sessions: 1 sessions, 6 rows removed\n"
    assert done(folder, "prune", "results", "--older-than", "0s", "--session", "sess_1") == "results: 1 rows removed\n"
    assert done(folder, "prune", "inbox", "--older-than", "0s") == "inbox: 0 rows removed\n"
    assert run("prune", "results", "--older-than", "soon", "--dsn", "app.db", folder=folder).returncode == 2


def test_messages_that_a_fold_stands_for_go_whatever_their_age(folder: Path) -> None:
    async def make() -> None:
        store = await open_store(folder / "app.db")
        await new_session(store, "folded")
        held = await accepted(store, "folded")
        end = SendEnd(SendStatus.COMPLETED, {"text_seq": 2})
        await store.append_reply(held.lease, reply(held, end=end))
        held = await accepted(store, "folded")
        await store.append_fold(held.lease, fold(2, send_index=2), at_seq=4)
        await store.append_reply(held.lease, reply(held, end=COMPLETED))
        await store.aclose()

    asyncio.run(make())
    told = done(folder, "prune", "compacted", "--session", "folded")
    assert re.fullmatch(r"compacted: 1 rows with \d+ bytes removed\n", told)
    assert done(folder, "prune", "compacted", "--session", "folded") == "compacted: 0 rows removed\n"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("compacted", "--older-than", "0s"), "leave out --older-than"),
        (("sessions",), "such as --older-than 30d"),
        (("sessions", "--older-than", "0s", "--session", "old"), "leave out --session"),
        (("results", "--older-than", "0s", "--include-open"), "leave it out"),
    ],
)
def test_an_option_that_says_nothing_of_what_is_pruned_prunes_nothing(
    folder: Path, arguments: tuple[str, ...], why: str
) -> None:
    found = run("prune", *arguments, "--dsn", "app.db", folder=folder)
    assert (found.returncode, found.stdout) == (1, "")
    assert "[config.invalid]" in found.stderr
    assert why in found.stderr


@pytest.mark.parametrize("is_terminal", [True, False])
async def test_who_waits_at_a_terminal_sees_that_it_goes_on(monkeypatch: pytest.MonkeyPatch, is_terminal: bool) -> None:
    written: list[str] = []
    shown = asyncio.Event()

    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return is_terminal

        def write(self, text: str) -> int:
            written.append(text)
            if "7 rows" in text:
                shown.set()
            return len(text)

    monkeypatch.setattr(sys, "stderr", Screen())
    monkeypatch.setattr(output, "_PATIENCE_S", 0.0)
    monkeypatch.delenv("TERM", raising=False)
    async with output.waiting_for("pruning inbox") as tell:
        tell("7 rows removed")
        if is_terminal:
            await asyncio.wait_for(shown.wait(), 30)
    if is_terminal:
        assert "\r\x1b[Kpruning inbox, 0 s: 7 rows removed" in written
        assert written[-1] == "\r\x1b[K", "the line is gone when it ends"
    else:
        assert not written


def test_the_file_is_looked_after(folder: Path) -> None:
    assert done(folder, "vacuum").startswith("vacuumed: ")
    assert done(folder, "checkpoint") == "the log is empty\n"
    assert "looked through" in done(folder, "backup", "copy.db")
    found = run("backup", "copy.db", "--dsn", "app.db", folder=folder)
    assert (found.returncode, "[input.invalid]" in found.stderr) == (1, True)
    done(folder, "backup", "copy.db", "--overwrite")


@pytest.mark.parametrize(
    "arguments",
    [
        *(("export", "s"), ("fork", "s"), ("delete", "s"), ("vacuum",), ("checkpoint",), ("backup", "b.db")),
        ("prune", "sessions", "--older-than", "1d"),
    ],
)
def test_a_mistyped_database_is_not_made(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    found = run(*arguments, "--dsn", "typo.db", folder=tmp_path)
    assert found.returncode == 1
    assert "there is no such database file" in found.stderr
    assert "`power-loop ddl --missing`" in found.stderr
    assert list(tmp_path.iterdir()) == []
