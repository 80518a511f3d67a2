"""The demo runs to its end on every wire and carrier: a real model, a real kill -9, and all its facts hold."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from demo.install_model import is_installed
from tests.real.conftest import Endpoint

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 120


def run_demo(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the demo to its end, and see that it leaves no process of its session behind."""
    command = [sys.executable, "-m", "demo", "--fast", "--folder", str(folder / "demo")]
    environment = {**os.environ, **variables}
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        output, errors = process.communicate(timeout=LIMIT_S)
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


@pytest.mark.parametrize(("wire", "endpoint"), [("openai", "lean"), ("anthropic", "sdk")], indirect=True)
@pytest.mark.promise("kill-at-any-moment")
@pytest.mark.promise("effect-idempotent")
@pytest.mark.promise("effect-once")
@pytest.mark.promise("two-ways-out")
def test_every_fact_of_the_demo_holds(endpoint: Endpoint, tmp_path: Path) -> None:
    done = run_demo(tmp_path, **endpoint.variables)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "✗ kill -9" in done.stdout
    assert done.stdout.count("✓") >= 10
    with sqlite3.connect(tmp_path / "demo" / "app.db") as database:
        assert database.execute("pragma integrity_check").fetchone() == ("ok",)
    database.close()


@pytest.mark.skipif(not is_installed(), reason="the local model is not installed: `make real` installs it")
def test_it_starts_its_own_model_and_speaks_plainly_into_a_pipe(tmp_path: Path) -> None:
    done = run_demo(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\033" not in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_a_dead_endpoint_is_said_in_words(tmp_path: Path) -> None:
    dead = {"BASE_URL": "http://127.0.0.1:9/v1", "API_KEY": "k", "MODEL": "gone"}
    done = run_demo(tmp_path, **{f"POWER_LOOP_{name}": value for name, value in dead.items()})
    assert done.returncode == 1
    assert "llm.connection" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
