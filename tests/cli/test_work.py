"""`power-loop work`: processes drive what is left, end when they are told to, and hand back what does not rest."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from power_loop import SendStatus, StatefulAgentLoop
from power_loop.testing import ScriptedLLM
from tests.cli.test_command import LIMIT_S, run

APP = """
import asyncio, sys
from power_loop import StatefulAgentLoop
from power_loop.testing import ScriptedLLM

def make_loop(dsn):
    return StatefulAgentLoop(llm=ScriptedLLM(["Done."], repeat_last=True), dsn=dsn)

async def hang(request):
    print("asked", flush=True)
    await asyncio.Event().wait()

async def answer_late(request):
    print("asked", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    return "Late."

async def make_stuck(dsn):
    return StatefulAgentLoop(llm=ScriptedLLM([hang]), dsn=dsn)

def make_late():
    return StatefulAgentLoop(llm=ScriptedLLM([answer_late], repeat_last=True), dsn="app.db")
"""


async def leave(folder: Path, count: int) -> list[str]:
    """Leave an input in each of some sessions."""
    async with StatefulAgentLoop(llm=ScriptedLLM(), dsn=str(folder / "app.db")) as loop:
        sids = [await loop.new_session() for _ in range(count)]
        for sid in sids:
            await loop.enqueue(sid, "go", request_id="r")
        return sids


async def sends(folder: Path, sids: list[str]) -> list[tuple[SendStatus, int] | None]:
    """Return where the sends stand, and how often each was taken up."""
    async with StatefulAgentLoop(llm=ScriptedLLM(), dsn=str(folder / "app.db")) as loop:
        store = await loop.get_store()
        found = [await store.get_send(sid) for sid in sids]
        return [None if send is None else (send.status, send.attempts) for send in found]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my_app.py").write_text(APP, "utf-8")
    return tmp_path


@pytest.fixture
def work(folder: Path) -> Iterator[object]:
    """Start workers; none is left behind."""
    started: list[subprocess.Popen[str]] = []

    def start(*options: str) -> subprocess.Popen[str]:
        command = ["work", "--dsn", "app.db", *options]
        code = f"import sys; from power_loop.cli.main import main; sys.exit(main({command!r}))"
        process = subprocess.Popen(
            [sys.executable, "-c", code], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "asked\n"
        return process

    yield start
    for process in started:
        with process:
            process.kill()


@pytest.mark.promise("fleet")
def test_what_is_left_is_driven_and_told_of(folder: Path) -> None:
    sids = asyncio.run(leave(folder, 3))
    done = run("work", "--dsn", "app.db", "--app", "my_app:make_loop", "--until-idle", "--json", folder=folder)
    assert (done.returncode, done.stderr) == (0, "")
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert {one["session_id"] for one in reports} == set(sids)
    assert {(one["found"], one["status"]) for one in reports} == {("waiting_input", "completed")}
    assert asyncio.run(sends(folder, sids)) == [(SendStatus.COMPLETED, 1)] * 3


@pytest.mark.promise("fleet")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_its_turn_rests(folder: Path, work: object, number: signal.Signals) -> None:
    sids = asyncio.run(leave(folder, 2))
    process = work("--app", "my_app:make_late", "--concurrency", "1")  # type: ignore[operator]
    process.send_signal(number)
    process.stdin.write("\n")
    process.stdin.flush()
    said, _ = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, said.count("completed")) == (0, 1)
    assert sorted(asyncio.run(sends(folder, sids)), key=str) == [(SendStatus.COMPLETED, 1), None]


@pytest.mark.promise("fleet")
@pytest.mark.parametrize("grace", ["0", "3600"])
def test_what_does_not_rest_in_time_is_handed_back(folder: Path, work: object, grace: str) -> None:
    sids = asyncio.run(leave(folder, 1))
    process = work("--app", "my_app:make_stuck", "--grace", grace)  # type: ignore[operator]
    process.send_signal(signal.SIGTERM)
    if grace != "0":
        process.send_signal(signal.SIGINT)
    process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0
    assert asyncio.run(sends(folder, sids)) == [(SendStatus.RUNNING, 0)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--app", "my_app"), "MODULE:LOOP"),
        (("--app", "my_app:none"), "cannot be imported"),
        (("--app", "my_app:make_loop", "--concurrency", "0"), "concurrency"),
    ],
)
def test_what_cannot_work_says_why(folder: Path, options: tuple[str, ...], said: str) -> None:
    done = run("work", "--dsn", "app.db", *options, folder=folder)
    assert done.returncode == 2
    assert said in done.stderr
