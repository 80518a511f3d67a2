"""`power-loop chat` in a real terminal, with a model behind a real wire: it streams, asks, is cancelled, goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.cli.terminal import LIMIT_S, Terminal
from tests.model_server import ThreadedModelServer, call, faults, say

HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202e"


def environment(server: ThreadedModelServer) -> dict[str, str]:
    return {
        "POWER_LOOP_BASE_URL": server.base_url,
        "POWER_LOOP_API_KEY": "k",
        "POWER_LOOP_MODEL": "gpt-test",
        "POWER_LOOP_DSN": "app.db",
    }


@contextmanager
def chat(folder: Path, script: list[Any], *arguments: str) -> Iterator[tuple[Terminal, ThreadedModelServer]]:
    with (
        ThreadedModelServer(script) as server,
        Terminal("chat", *arguments, folder=folder, environment=environment(server)) as terminal,
    ):
        yield terminal, server


def run(
    server: ThreadedModelServer, folder: Path, *arguments: str, given: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "power_loop", *arguments],
        cwd=folder,
        env={**os.environ, **environment(server)},
        input=given,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def test_it_streams_asks_before_it_writes_and_tells_the_model_what_was_refused(tmp_path: Path) -> None:
    write = {"path": "note.txt", "content": "hello"}
    script = [
        say("Good ", f"day.{HOSTILE}"),
        call("write_file", {**write, "path": "no.txt"}),
        say("Then not."),
        call("write_file", write),
        say("It is written."),
    ]
    with chat(tmp_path, script, "--tools", "core") as (terminal, server):
        terminal.expect("> ")
        terminal.press("Hello, \\\nyou.\n")
        terminal.expect("Good day.\\x1b]0;owned\\x07\\x1b[2J\\u202e\n")
        terminal.expect("> ")
        terminal.press("Write.\n")
        assert "no.txt" in terminal.expect("allow it? ")
        terminal.press("perhaps\n")
        terminal.expect("allow it? ")
        terminal.press("n not there\n")
        terminal.expect("Then not.")
        terminal.expect("> ")
        terminal.press("Write it elsewhere.\n")
        terminal.expect("allow it? ")
        terminal.press("y\n")
        assert "succeeded" in terminal.expect("It is written.")
        terminal.expect("> ")
        terminal.press("/cost\n")
        terminal.expect("3 sends, 5 model calls")
        terminal.press("/nothing\n")
        terminal.expect("/quit")
        terminal.press("/quit\n")
        assert terminal.end() == 0
        assert server.requests[0].messages[-1]["content"] == "Hello, \nyou."
        assert "not there" in json.dumps(server.requests[2].messages[-1])
    assert (tmp_path / "note.txt").read_text("utf-8") == "hello"
    assert not (tmp_path / "no.txt").exists()
    assert "\x1b]0" not in terminal.screen
    assert "Traceback" not in terminal.screen


def test_what_was_typed_before_a_question_was_seen_is_no_answer_to_it(tmp_path: Path) -> None:
    write = call("write_file", {"path": "a.txt", "content": "x"})
    script = [replace(write, faults=(faults.hang_after(0, "answer"),))]
    with chat(tmp_path, script, "--tools", "core") as (terminal, server):
        terminal.expect("> ")
        terminal.press("Write.\n")
        server.wait_for_hang()
        terminal.press("y\ny\n")
        # The terminal shows what it was given.
        terminal.expect("y\ny\n")
        server.release("answer")
        terminal.expect("allow it? ")
        terminal.press("l\n")
        terminal.expect("waits for an approval")
        terminal.press("/quit\n")
        assert terminal.end() == 0
    assert not (tmp_path / "a.txt").exists()


def test_ctrl_c_cancels_the_turn_and_another_one_leaves(tmp_path: Path) -> None:
    script = [say("One ", "two.", faults=(faults.hang_after(1),)), say("Here again.")]
    with chat(tmp_path, script) as (terminal, _):
        terminal.expect("> ")
        terminal.press("Count.\n")
        terminal.expect("One ")
        terminal.press("\x03")
        terminal.expect("(cancelled")
        terminal.expect("> ")
        terminal.press("Are you there?\n")
        terminal.expect("Here again.")
        terminal.expect("> ")
        terminal.press("\x03")
        assert terminal.end() == 130
    assert "Traceback" not in terminal.screen


def test_a_session_goes_on_in_another_process_with_what_waits_shown(tmp_path: Path) -> None:
    write = call("write_file", {"path": "b.txt", "content": "x"})
    with ThreadedModelServer([write, say("Written."), say("Yes.")]) as server:
        first = run(server, tmp_path, "chat", "--tools", "core", "--json", given="Write.\n")
        lines = [json.loads(line) for line in first.stdout.splitlines()]
        assert (first.returncode, lines[0]["type"], lines[-1]["type"]) == (1, "session", "result")
        assert lines[-1]["status"] == "waiting_for_input"
        assert "power-loop resume" in first.stderr
        session_id, [waiting] = lines[0]["session_id"], lines[-1]["pending"]
        with Terminal(
            "chat", session_id, "--tools", "core", folder=tmp_path, environment=environment(server)
        ) as terminal:
            terminal.expect(f"{waiting['call_id']} write_file")
            terminal.expect("/resume goes on with it")
            terminal.expect("> ")
            terminal.press("Something else.\n")
            terminal.expect("[session.pending]")
            terminal.press("/quit\n")
            assert terminal.end() == 0
        options = ("resume", session_id, "--tools", "core")
        done = run(server, tmp_path, *options, "--approve", waiting["call_id"])
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.endswith("Written.\n")
        late = run(server, tmp_path, *options, "--deny", waiting["call_id"])
        assert (late.returncode, late.stdout) == (1, "")
        assert "[call.not_waiting]" in late.stderr
        more = run(server, tmp_path, "chat", session_id, "-m", "Well?")
        assert (more.returncode, more.stdout) == (0, "Yes.\n")
    assert (tmp_path / "b.txt").exists()


def test_a_mistake_is_a_line_and_no_traceback(tmp_path: Path) -> None:
    with ThreadedModelServer([]) as server:
        for arguments, code in (
            (("chat", "none"), "[store.schema]"),
            (("chat", "--app", "no_such:thing"), "[config.invalid]"),
            (("resume", "none"), "[store.schema]"),
        ):
            done = run(server, tmp_path, *arguments)
            assert done.returncode == 1
            assert done.stdout == ""
            assert code in done.stderr
            assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
