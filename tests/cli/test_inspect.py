"""`power-loop inspect` serves its page until it is told to end, and says what is wrong before it prints an address."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from power_loop import StatefulAgentLoop
from power_loop.testing import ScriptedLLM
from tests.cli.inside import run

LIMIT_S = 90.0
APP = """
from power_loop import StatefulAgentLoop
from power_loop.testing import ScriptedLLM

def make(dsn):
    return StatefulAgentLoop(llm=ScriptedLLM(), dsn=dsn)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    async def fill() -> None:
        async with StatefulAgentLoop(llm=ScriptedLLM(["Yes."]), dsn=str(tmp_path / "app.db")) as loop:
            await loop.send("Hello?", session_id=await loop.new_session(session_id="s"))

    asyncio.run(fill())
    Path(tmp_path, "shop.py").write_text(APP, "utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "about"),
    [
        (("app.db",), {"can_write": False, "can_drive": False, "is_attached": False}),
        (("--dsn", "app.db", "--write"), {"can_write": True, "can_drive": False, "is_attached": False}),
        (("app.db", "--write", "--app", "shop:make"), {"can_write": True, "can_drive": True, "is_attached": True}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_it_serves_until_it_is_told_to_end(arguments: tuple[str, ...], about: dict[str, bool], folder: Path) -> None:
    command = [sys.executable, "-m", "power_loop", "inspect", *arguments, "--json"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True, env={**os.environ}) as process:
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]
            assert asyncio.run(_visited(url)) == (about, ["s"])
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 0


def test_the_key_does_not_stand_on_the_command_line_of_a_browser(folder: Path) -> None:
    browser = folder / "browser.py"
    browser.write_text("import pathlib, sys; pathlib.Path('opened').write_text(sys.argv[1])", "utf-8")
    command = [sys.executable, "-m", "power_loop", "inspect", "app.db", "--open", "--json"]
    variables = {**os.environ, "BROWSER": f"{sys.executable} {browser} %s"}
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True, env=variables) as process:
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]
            asyncio.run(_visited(url))  # it answers behind the browser only
            opened = (folder / "opened").read_text("utf-8")
            assert opened.startswith(url.partition("#")[0])
            assert opened != url
            assert asyncio.run(_visited(opened))[1] == ["s"]
        finally:
            process.send_signal(signal.SIGTERM)


async def _visited(url: str) -> tuple[dict[str, bool], list[str]]:
    base, _, token = url.partition("/#token=")
    host = base.removeprefix("http://")

    async def ask(head: str, body: str = "") -> tuple[str, str]:
        reader, writer = await asyncio.open_connection(*host.split(":"))
        writer.write(f"{head}\r\nHost: {host}\r\n\r\n{body}".encode())
        answer = (await asyncio.wait_for(reader.read(), LIMIT_S)).decode()
        writer.close()
        return answer.partition("\r\n\r\n")[0], answer.partition("\r\n\r\n")[2]

    shown = json.dumps({"token": token})
    head, _ = await ask(
        f"POST /api/enter HTTP/1.1\r\nOrigin: {base}\r\nContent-Type: application/json\r\nContent-Length: {len(shown)}",
        shown,
    )
    cookie = next(line for line in head.split("\r\n") if line.startswith("Set-Cookie")).partition(": ")[2]
    cookie = cookie.partition(";")[0]
    _, about = await ask(f"GET /api/about HTTP/1.1\r\nCookie: {cookie}")
    _, sessions = await ask(f"GET /api/sessions HTTP/1.1\r\nCookie: {cookie}")
    return json.loads(about), [one["id"] for one in json.loads(sessions)["sessions"]]


def test_what_is_wrong_is_told_before_an_address_is(folder: Path) -> None:
    for arguments, code in (
        (("none.db",), "store."),
        (("app.db", "--dsn", "app.db"), "config.invalid"),
        ((), "config.invalid"),
        (("app.db", "--port", "99999"), "config.invalid"),
        (("app.db", "--app", "shop:nothing"), "config.invalid"),
    ):
        found = run("inspect", *arguments, folder=folder)
        assert (found.returncode, found.stdout) == (1, ""), arguments
        assert f"[{code}" in found.stderr, found.stderr
    assert not (folder / "none.db").exists()
