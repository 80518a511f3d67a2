"""The server as a child process, started and ended by a test or a benchmark."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# What it was told last is in its log by then, be the machine ever so busy.
STOP_S = 60.0


class ModelServerProcess:
    """`python -m tests.model_server` with its address; ends with the block, and with the process that started it."""

    def __init__(
        self,
        script: list[Any] | None = None,
        *,
        folder: str | Path | None = None,
        bench: bool = False,
        seed: str | None = None,
    ) -> None:
        """`script` is the JSON form, kept in `folder` together with the log that `events` reads."""
        self._arguments = ["--bench"] if bench else []
        if seed is not None:
            self._arguments += ["--seed", seed]
        self._log_path: Path | None = None
        if folder is not None:
            self._log_path = Path(folder) / "model_server.jsonl"
            self._arguments += ["--log", str(self._log_path)]
        if script is not None:
            if folder is None:
                raise ValueError("a script needs a folder to be kept in")
            path = Path(folder) / "model_server_script.json"
            path.write_text(json.dumps(script), "utf-8")
            self._arguments += ["--script", str(path)]
        self.url = ""

    @property
    def base_url(self) -> str:
        """What an OpenAI client takes as its base URL."""
        return self.url + "/v1"

    @property
    def anthropic_base_url(self) -> str:
        """What an Anthropic client takes as its base URL."""
        return self.url

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def __enter__(self) -> ModelServerProcess:
        """Start it and wait for its address."""
        command = [sys.executable, "-m", "tests.model_server", *self._arguments]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith("listening "):
            self._process.kill()
            self._process.communicate()
            raise RuntimeError(f"the model server did not start: {' '.join(command)}")
        self.url = line.split()[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it by closing its standard input."""
        try:
            self._process.communicate(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """The logged events so far, of one name if given (`request`, `answered`, `open`, `close`, `hang`, `error`)."""
        if self._log_path is None:
            raise ValueError("without a folder there is no log")
        lines = self._log_path.read_bytes().split(b"\n")[:-1]
        return [event for event in map(json.loads, lines) if name is None or event["event"] == name]
