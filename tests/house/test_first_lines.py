"""The code blocks that open the project's description run as they are written, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.model_server import ModelServerProcess

LIMIT_S = 150

FIRST_BLOCK = """\
from power_loop import StatefulAgentLoop, create_llm_service_from_env

# The loop is a thin, stateless handle over a store. Default = one SQLite file (zero infra);
# swap dsn= to "postgresql://…/app" or "mysql://…/app" and nothing else changes.
loop = StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db")
sid = await loop.new_session()
await loop.send("Remember my favorite color is teal.", session_id=sid)
print((await loop.send("What's my favorite color?", session_id=sid)).final_text)
# → "Your favorite color is teal."   (durable; survives restarts)
"""

SECOND_BLOCK = """\
# Cold start, another process — reconstruct the loop and continue. No state to serialize/carry.
loop = StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db")
print((await loop.send("And my second-favorite?", session_id=sid)).final_text)
"""

WEB_HANDLER_BLOCK = """\
# Web handler / worker: build a loop per request, resume the user's session, done.
loop = StatefulAgentLoop(llm=create_llm_service_from_env(), dsn=DSN)
await loop.prewarm(session_id)                       # optional: pre-load the active window
result = await loop.send(user_text, session_id=session_id)
"""

# A console with `await` at the top; `given` is what stood there before, `kept` what is wanted of it afterwards.
CONSOLE = """
import ast, asyncio, inspect, json, sys
source, given, kept = json.load(sys.stdin)
names = {}
exec("from power_loop import StatefulAgentLoop, create_llm_service_from_env", names) if given else None
names.update(given)
outcome = eval(compile(source, "block", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
asyncio.run(outcome) if inspect.iscoroutine(outcome) else None
print(json.dumps({name: names[name] for name in kept}))
"""


def run_block(
    source: str, folder: Path, server: ModelServerProcess, *kept: str, **given: Any
) -> tuple[str, dict[str, Any]]:
    """Run a block in a process of its own; return what it printed and the variables in `kept`."""
    endpoint = {"BASE_URL": server.base_url, "API_KEY": "k", "MODEL": "gpt-test"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CONSOLE],
        input=json.dumps([source, given, kept]),
        env={**os.environ, **{f"POWER_LOOP_{name}": value for name, value in endpoint.items()}},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "nothing is left open, and nothing complains"
    printed, _, variables = done.stdout.rstrip("\n").rpartition("\n")
    return printed, json.loads(variables)


@pytest.mark.promise("first-lines")
@pytest.mark.promise("durable-conversation")
def test_the_first_two_blocks_hold_one_conversation_over_two_processes(tmp_path: Path) -> None:
    answers = ["Noted.", "Your favorite color is teal.", "I do not know that yet."]
    with ModelServerProcess(answers, folder=tmp_path) as server:
        printed, variables = run_block(FIRST_BLOCK, tmp_path, server, "sid")
        assert printed == "Your favorite color is teal."
        assert (tmp_path / "app.db").is_file()
        printed, _ = run_block(SECOND_BLOCK, tmp_path, server, sid=variables["sid"])
        assert printed == "I do not know that yet."
        last = server.events("request")[-1]["body"]["messages"]
    assert [(message["role"], message["content"]) for message in last] == [
        ("user", "Remember my favorite color is teal."),
        ("assistant", "Noted."),
        ("user", "What's my favorite color?"),
        ("assistant", "Your favorite color is teal."),
        ("user", "And my second-favorite?"),
    ]


@pytest.mark.promise("loop-a-request")
def test_the_web_handler_block_runs_as_written(tmp_path: Path) -> None:
    with ModelServerProcess(["Noted.", "Your favorite color is teal.", "Hello."], folder=tmp_path) as server:
        _, variables = run_block(FIRST_BLOCK, tmp_path, server, "sid")
        given = {"DSN": "app.db", "session_id": variables["sid"], "user_text": "Hi!"}
        run_block(f"{WEB_HANDLER_BLOCK}print(result.final_text)\n", tmp_path, server, **given)
        assert len(server.events("request")[-1]["body"]["messages"]) == 5
