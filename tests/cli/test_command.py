"""The `power-loop` command: what a person and a script see of it, whatever the subcommand."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from power_loop import __version__
from power_loop.cli import ddl, main, output
from power_loop.storage import schema_ddl

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "s3cret-w0rd"
LIMIT_S = 60


def run(*arguments: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("POWER_LOOP_")}
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "power_loop", *arguments],
        cwd=folder,
        env={**environment, **variables},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def test_help_names_every_command_and_the_exit_statuses(tmp_path: Path) -> None:
    done = run("--help", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for word in ("ddl", "exit status"):
        assert word in done.stdout
    assert run("--version", folder=tmp_path).stdout == f"power-loop {__version__}\n"


def test_the_installed_command_is_the_module() -> None:
    assert '\npower-loop = "power_loop.cli.main:main"\n' in (ROOT / "pyproject.toml").read_text("utf-8")
    script = Path(sys.executable).parent / "power-loop"
    if not script.exists():
        pytest.skip("power-loop is not installed here, only importable")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.stdout == f"power-loop {__version__}\n"


@pytest.mark.parametrize("arguments", [(), ("no-such-command",), ("ddl",), ("ddl", "--dsn")])
def test_a_wrong_command_line_is_status_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run(*arguments, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: power-loop")
    assert done.stdout == ""


def test_a_failure_is_status_1_and_one_line_with_its_code(tmp_path: Path) -> None:
    done = run("ddl", "--dsn", "bogus://x", folder=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("power-loop: error: unknown database 'bogus'")
    assert done.stderr.endswith("[store.invalid_dsn]\n")
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stderr, "nobody looks at colours in a pipe"


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "mysql", "mariadb", "MySQL"])
@pytest.mark.parametrize("rest", ["", f"pl:{PASSWORD}@nowhere.invalid/app"])
def test_ddl_of_a_server_needs_no_server(tmp_path: Path, scheme: str, rest: str) -> None:
    done = run("ddl", "--dsn", f"{scheme}://{rest}", "--table-prefix", "chat_", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == schema_ddl(f"{scheme}://", table_prefix="chat_")
    assert "CREATE TABLE chat_sessions" in done.stdout
    assert PASSWORD not in done.stdout


def test_ddl_makes_a_database_and_missing_finds_it_whole(tmp_path: Path) -> None:
    whole = run("ddl", "--dsn", "app.db", folder=tmp_path).stdout
    assert os.listdir(tmp_path) == []
    missing = run("ddl", "--dsn", "app.db", "--missing", folder=tmp_path)
    assert (missing.returncode, missing.stdout, os.listdir(tmp_path)) == (0, whole, [])
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection:
        connection.executescript(whole)
        assert run("ddl", "--dsn", "app.db", "--missing", folder=tmp_path).stdout == ""
        connection.executescript("DROP INDEX pl_sends_by_request; DROP VIEW pl_v_usage")
        said = run("ddl", "--missing", folder=tmp_path, POWER_LOOP_DSN="app.db").stdout
        assert said.count(";\n") == 2
        connection.executescript(said)
    assert run("ddl", "--dsn", "app.db", "--missing", folder=tmp_path).stdout == ""


def test_a_password_is_never_printed(tmp_path: Path) -> None:
    dsn = f"postgresql://pl:{PASSWORD}@127.0.0.1:1/app?connect_timeout_s=1&retry_s=0"
    for arguments, variables in [
        (("ddl", "--missing", "--dsn", dsn), {}),
        (("ddl", "--missing"), {"POWER_LOOP_DSN": dsn}),
        (("ddl", "--help"), {"POWER_LOOP_DSN": dsn}),
        (("ddl", "--missing", "--dsn", f"{dsn}&no_such_parameter=1"), {}),
        (("ddl", "--dsn", f"no-such-kind://pl:{PASSWORD}@host/app"), {}),
    ]:
        done = run(*arguments, folder=tmp_path, **variables)
        assert done.returncode == ("--help" not in arguments)
        assert PASSWORD not in done.stdout + done.stderr


def test_who_stops_reading_is_not_complained_about(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "power_loop", "ddl", "--dsn", "app.db"]
    reads, writes = os.pipe()
    os.close(reads)
    done = subprocess.run(command, stdout=writes, stderr=subprocess.PIPE, text=True, cwd=tmp_path, check=False)
    os.close(writes)
    assert (done.returncode, done.stderr) == (141, "")


def test_ctrl_c_is_the_shell_s_status_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(ddl, "schema_ddl", interrupted)
    assert main.main(["ddl", "--dsn", "app.db"]) == 130


class Terminal:
    """Is a stream that a person looks at."""

    def isatty(self) -> bool:
        return True


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert output.paint("word", "red", Terminal()) == "\x1b[31mword\x1b[0m"  # type: ignore[arg-type]
    monkeypatch.setenv("NO_COLOR", "1")
    assert output.paint("word", "red", Terminal()) == "word"  # type: ignore[arg-type]


def test_an_error_that_nobody_foresaw_is_one_line_and_its_traceback_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def broken(*_: object, **__: object) -> str:
        raise ZeroDivisionError("by \x1b[2J")

    monkeypatch.setattr(ddl, "schema_ddl", broken)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert main.main(["ddl", "--dsn", "app.db"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("power-loop: error: ZeroDivisionError: by \\x1b[2J; its traceback is in ")
    assert said.err.count("\n") == 1
    [kept] = tmp_path.iterdir()
    assert str(kept) in said.err
    assert "Traceback" in kept.read_text("utf-8")
    assert kept.stat().st_mode & 0o077 == 0
