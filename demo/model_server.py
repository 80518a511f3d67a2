"""Starts the small model behind its endpoints as a child process that never outlives the one that started it."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType

from demo.install_model import ANOTHER_MODEL, ModelMissingError, is_installed
from demo.serve_model import ALIAS, CONTEXT_TOKENS, DEFAULT_OUTPUT_TOKENS

ROOT = Path(__file__).resolve().parents[1]
# Under a second on an idle machine; a crowded one may read the file from a cold disk.
START_S = 60.0
STOP_S = 5.0
_LOOK_S = 0.02
_LOG_TAIL_CHARS = 2000


class ModelServer:
    """The small model on a free port of this machine: a context manager that starts it and ends it.

    Its standard input is a pipe from this process, and it ends when that closes: an exit, a crash and a kill -9 of this
    process end it alike. `parallel` requests are answered at once. `log_path` names a file for its words; without one
    they are kept as long as it runs.
    """

    def __init__(self, *, parallel: int = 1, log_path: str | os.PathLike[str] | None = None) -> None:
        self._parallel = parallel
        self._log_path = Path(log_path) if log_path is not None else None
        self._own_log: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[str] | None = None
        self.url = ""
        self.started_in_s = 0.0

    @property
    def base_url(self) -> str:
        """What an OpenAI client takes as its base URL."""
        return f"{self.url}/v1"

    @property
    def anthropic_base_url(self) -> str:
        """What an Anthropic client takes as its base URL."""
        return self.url

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        if self._process is None:
            raise RuntimeError("the model server is not running")
        return self._process.pid

    def environment(self, *, provider: str = "openai") -> dict[str, str]:
        """Return the variables that `create_llm_service_from_env` reads, for this model over the wire of `provider`."""
        return {
            "POWER_LOOP_PROVIDER": provider,
            "POWER_LOOP_BASE_URL": self.base_url if provider == "openai" else self.anthropic_base_url,
            "POWER_LOOP_API_KEY": "none-needed",
            "POWER_LOOP_MODEL": ALIAS,
            "POWER_LOOP_MAX_OUTPUT_TOKENS": str(DEFAULT_OUTPUT_TOKENS),
            "POWER_LOOP_CONTEXT_WINDOW_TOKENS": str(CONTEXT_TOKENS),
        }

    def __enter__(self) -> ModelServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start and wait until it answers. Raises ModelMissingError with the end of its log."""
        if not is_installed():
            raise ModelMissingError(
                f"the local model is not installed: run `python -m demo.install_model`.\n{ANOTHER_MODEL}"
            )
        if self._log_path is None:
            self._own_log = tempfile.TemporaryDirectory(prefix="power-loop-model-")
            self._log_path = Path(self._own_log.name) / "model.log"
        begun = time.monotonic()
        command = [sys.executable, "-m", "demo.serve_model", "--parallel", str(self._parallel)]
        try:
            with self._log_path.open("ab") as log:
                self._process = subprocess.Popen(
                    command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
                )
            self.url = self._read_address(begun + START_S)
            self._wait_until_healthy(begun + START_S)
        except BaseException:
            self.stop()
            raise
        self.started_in_s = time.monotonic() - begun

    def stop(self) -> None:
        """End it, however far it came; stopping twice is fine."""
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
        if self._own_log is not None:
            self._own_log.cleanup()
            self._own_log = None
            self._log_path = None

    def _read_address(self, deadline_s: float) -> str:
        """Return the address that the server prints; a thread reads it, because a pipe is read without a time limit."""
        assert self._process is not None
        assert self._process.stdout is not None
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        pipe = self._process.stdout
        threading.Thread(target=lambda: lines.put(pipe.readline()), daemon=True).start()
        try:
            line = lines.get(timeout=max(0.0, deadline_s - time.monotonic()))
        except queue.Empty:
            raise self._failure(f"did not say its address within {START_S:.0f} s") from None
        if not line.startswith("listening "):
            raise self._failure(f"ended before it listened ({self._end_in_words()})")
        return line.split()[1]

    def _wait_until_healthy(self, deadline_s: float) -> None:
        assert self._process is not None
        # This machine is never reached by a proxy, whatever the environment says.
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while time.monotonic() < deadline_s:
            if self._process.poll() is not None:
                raise self._failure(f"ended while it loaded the model ({self._end_in_words()})")
            try:
                with direct.open(f"{self.url}/health", timeout=START_S):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(_LOOK_S)
        raise self._failure(f"was not ready within {START_S:.0f} s")

    def _end_in_words(self) -> str:
        assert self._process is not None
        try:
            code = self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            return "it is still there, without its output"
        if code == -signal.SIGILL:
            return "this processor lacks instructions that the runtime's wheel is built for, AVX2 on x86"
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def _failure(self, what: str) -> ModelMissingError:
        assert self._log_path is not None
        words = self._log_path.read_text("utf-8", "replace")[-_LOG_TAIL_CHARS:].strip()
        said = f" Its last words:\n{words}" if words else ""
        return ModelMissingError(f"the local model server {what}.{said}\n{ANOTHER_MODEL}")
