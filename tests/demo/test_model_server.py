"""The local model's server is there when its block begins and gone when its starter is, however that ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from demo.install_model import ModelMissingError, is_installed
from demo.model_server import ROOT, ModelServer

LIMIT_S = 30

needs_model = pytest.mark.skipif(not is_installed(), reason="the local model is not installed: `make real` installs it")

STARTER = """
import sys
from demo.model_server import ModelServer
server = ModelServer(log_path=sys.argv[1])
server.start()
print(server.pid, server.url, flush=True)
sys.stdin.read()
"""


def test_a_missing_model_is_said_and_not_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demo.model_server.is_installed", lambda: False)
    with pytest.raises(ModelMissingError, match=r"python -m demo\.install_model"):
        ModelServer().start()


def test_a_server_that_cannot_start_gives_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demo.model_server.is_installed", lambda: True)
    monkeypatch.setattr(sys, "executable", str(broken_python(tmp_path)))
    with pytest.raises(ModelMissingError, match="exit code 3") as caught:
        ModelServer().start()
    assert "no such instruction" in str(caught.value)


def broken_python(folder: Path) -> Path:
    path = folder / "python"
    path.write_text("#!/bin/sh\necho no such instruction >&2\nexit 3\n")
    path.chmod(0o755)
    return path


@pytest.mark.real
@needs_model
def test_it_answers_on_both_wires_and_ends_with_its_block() -> None:
    with ModelServer() as server:
        pid = server.pid
        question = {"model": "any", "max_tokens": 8, "messages": [{"role": "user", "content": "Hello!"}]}
        openai = post(f"{server.base_url}/chat/completions", question)
        anthropic = post(f"{server.anthropic_base_url}/v1/messages", question)
    assert openai["choices"][0]["message"]["content"]
    assert anthropic["content"][0]["type"] == "text"
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.real
@needs_model
def test_it_ends_when_its_starter_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", STARTER, str(tmp_path / "model.log")]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        _, url = starter.stdout.readline().split()
        urllib.request.urlopen(f"{url}/health", timeout=LIMIT_S).close()
        starter.send_signal(signal.SIGKILL)
    wait_until_refused(url)


def wait_until_refused(url: str) -> None:
    """Return once nobody listens. A connection that stays open meanwhile ends with the server, or when it is bored."""
    address = urllib.parse.urlsplit(url)
    for _ in range(LIMIT_S):
        with contextlib.suppress(ConnectionResetError), socket.socket() as connection:
            connection.settimeout(LIMIT_S)
            if connection.connect_ex((address.hostname, address.port)) != 0:
                return
            connection.recv(1)
    pytest.fail(f"{url} still answers")


def post(url: str, body: dict[str, object]) -> dict[str, object]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
        return json.load(answer)
