"""Brings its own shell: a `ShellBackend` decides where commands run. This one keeps an audit of them.

You will see the audit after the turn: who ran what, how it ended, and how long it took. A backend that runs commands in
your containers or on another machine has the same five methods.
"""

import asyncio
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from power_loop import RuntimeEnv, StatefulAgentLoop, create_llm_service_from_env
from power_loop.sandbox import LocalShellBackend, ShellBackend, ShellJob, ShellResult
from power_loop.tools import bash_tools


class AuditedShell:
    """Hands commands on to another shell, and writes down what became of each."""

    def __init__(self, inner: ShellBackend) -> None:
        """Take the shell that runs the commands."""
        self._inner = inner
        self.description = inner.description
        self.lines: list[str] = []

    async def run(
        self,
        session_id: str,
        command: str,
        *,
        timeout_s: float,
        folder: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> ShellResult:
        """Run a command, and write it down however it ends."""
        begun, end = time.monotonic(), "broken off"
        try:
            result = await self._inner.run(session_id, command, timeout_s=timeout_s, folder=folder, env=env)
            end = f"{result.end.value} {result.exit_status}"
            return result
        finally:
            self.lines.append(f"{session_id} {command!r} {end}, {time.monotonic() - begun:.1f} s")

    async def start(self, session_id: str, command: str) -> ShellJob:
        """Start a command in the background."""
        self.lines.append(f"{session_id} {command!r} started")
        return await self._inner.start(session_id, command)

    async def end_session(self, session_id: str) -> None:
        """End what a session has."""
        await self._inner.end_session(session_id)

    async def aclose(self) -> None:
        """End everything."""
        await self._inner.aclose()


async def main() -> None:
    """Have a command run, then read the audit."""
    with tempfile.TemporaryDirectory() as workspace:
        shell = AuditedShell(LocalShellBackend(RuntimeEnv(workspace=Path(workspace))))
        async with StatefulAgentLoop(
            llm=create_llm_service_from_env(), dsn="app.db", tool_registry=bash_tools(shell)
        ) as loop:
            sid = await loop.new_session()
            print((await loop.send("Run `echo hello`, then `exit 3`.", session_id=sid)).final_text)
        print(*shell.lines, sep="\n")


if __name__ == "__main__":
    asyncio.run(main())
