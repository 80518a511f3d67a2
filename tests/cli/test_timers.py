"""`power-loop timers`: lists what comes next, cancels one, and delivers what is due with the application's own loop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from power_loop import After, open_store
from power_loop.cli import timers
from power_loop.messages import user_message
from power_loop.storage import NewTimer
from power_loop.timers import TimerState
from tests.cli.test_command import LIMIT_S, run

_AGENT = """
import asyncio
from power_loop import StatefulAgentLoop
from power_loop.testing import ScriptedLLM


def make(dsn):
    return StatefulAgentLoop(llm=ScriptedLLM(["I am awake."]), dsn=dsn)


async def hang(request):
    print("asked", flush=True)
    await asyncio.Event().wait()


def make_stuck(dsn):
    return StatefulAgentLoop(llm=ScriptedLLM([hang]), dsn=dsn)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    async def make() -> None:
        store = await open_store(tmp_path / "app.db")
        for session_id in ("sess_1", "sess_2"):
            await store.create_session(session_id, system_prompt=None, metadata={})
        for name, session_id, seconds in (("a", "sess_1", 7200), ("b", "sess_2", 3600), ("now", "sess_1", 0)):
            new = NewTimer(f"tmr_{name}", session_id, user_message(name), "h", After(seconds), name=f"{name}\x1b[2J")
            await store.schedule_timer(new)
        await store.aclose()

    asyncio.run(make())
    (tmp_path / "my_agent.py").write_text(_AGENT, "utf-8")
    return tmp_path


def done(folder: Path, *arguments: str) -> list[str]:
    found = run("timers", *arguments, "--dsn", "app.db", folder=folder)
    assert (found.returncode, found.stderr) == (0, ""), found.stderr
    return found.stdout.splitlines()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_a_runner_whose_turn_does_not_rest(folder: Path, number: signal.Signals) -> None:
    command = ["timers", "run", "--app", "my_agent:make_stuck", "--dsn", "app.db"]
    code = f"import sys; from power_loop.cli.main import main; sys.exit(main({command!r}))"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=folder, stdout=subprocess.PIPE, text=True)
    with process:
        try:
            assert process.stdout is not None
            while "asked" not in process.stdout.readline():
                assert process.poll() is None
            deadline = time.monotonic() + LIMIT_S
            # Two that come at once are one.
            while process.poll() is None and time.monotonic() < deadline:
                process.send_signal(number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.1)
            assert process.returncode == -number
        finally:
            process.kill()


def test_a_second_signal_is_one_at_whatever_moment_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    handlers: list[tuple[int, Any]] = []
    handle = signal.signal

    def note(number: int, handler: Any) -> Any:
        handlers.append((number, handler))
        return handle(number, handler)

    async def interrupt() -> None:
        stopped = asyncio.Event()
        timers._stop_on_signals(SimpleNamespace(stop=stopped.set))  # type: ignore[arg-type]
        with monkeypatch.context() as patched:
            patched.setattr(signal, "signal", note)
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.wait_for(stopped.wait(), LIMIT_S)

    before = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        asyncio.run(interrupt())
    finally:
        for number, handler in before:
            signal.signal(number, handler)
    # Not for a moment is Ctrl-C an exception.
    assert handlers == [(signal.SIGTERM, signal.SIG_DFL), (signal.SIGINT, signal.SIG_DFL)]


def test_timers_are_listed_cancelled_delivered_and_forgotten(folder: Path) -> None:
    lines = done(folder)
    assert [line.split()[3] for line in lines[1:]] == ["tmr_now", "tmr_b", "tmr_a"]
    assert "\x1b" not in "".join(lines)
    assert [json.loads(line)["id"] for line in done(folder, "--session", "sess_1", "--json")] == ["tmr_now", "tmr_a"]
    assert done(folder, "cancel", "--timer", "tmr_b") == ["tmr_b: cancelled"]
    assert done(folder, "cancel", "--timer", "tmr_b", "--json") == ['{"id": "tmr_b", "was_armed": false}']
    [line] = done(folder, "run", "--once", "--app", "my_agent:make")
    assert line.split()[2:] == ["tmr_now", "sess_1"]
    assert done(folder, "run", "--once", "--app", "my_agent:make") == []
    found = run("prune", "timers", "--older-than", "0s", "--dsn", "app.db", folder=folder)
    assert found.stdout == "timers: 2 rows removed\n"
    assert [json.loads(line)["id"] for line in done(folder, "list", "--all", "--json")] == ["tmr_a"]

    async def look() -> None:
        store = await open_store(folder / "app.db")
        assert [one.message.text for one in await store.get_messages("sess_1")] == ["now", "I am awake."]
        assert (await store.get_timer("tmr_a")).state is TimerState.ARMED
        await store.aclose()

    asyncio.run(look())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("cancel",), "timers cancel needs --timer"),
        (("run",), "timers run needs --app"),
        (("list", "--timer", "tmr_a"), "--timer is for timers cancel"),
        (("list", "--once"), "--once is for timers run"),
        (("run", "--app", "a:b", "--all"), "--session and --all are for timers list"),
    ],
)
def test_an_option_that_says_nothing_is_refused(folder: Path, arguments: tuple[str, ...], says: str) -> None:
    found = run("timers", *arguments, "--dsn", "app.db", folder=folder)
    assert found.returncode == 2
    assert says in found.stderr
