"""Lets a model run commands beside its conversation, and look after them later."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from power_loop.contracts.clock import Clock, SystemClock
from power_loop.contracts.errors import ConfigError, InputError, ProcessError, ToolError
from power_loop.contracts.live import LiveContext, LiveState
from power_loop.contracts.shell import CommandEnd, JobReport, ShellBackend, ShellJob
from power_loop.contracts.tools import ToolContext, ToolDefinition
from power_loop.runtime.host.identity import is_owner_dead, new_owner_id
from power_loop.tools.bash import output_text
from power_loop.tools.decorator import tool

#: Where the records of a session's background commands stand in its state.
BACKGROUND_KEY = "background"
# As many records are kept of a session; the oldest that have ended go first.
MAX_RECORDS = 32
MAX_WAIT_S = 300.0
# What a model is reminded of at each call, of each command.
_MAX_SHOWN_CHARS = 80
_MAX_COMMAND_CHARS = 2_000

_Record = dict[str, Any]


def background_tools(shell: ShellBackend, *, clock: Clock | None = None) -> tuple[ToolDefinition, ...]:
    """Return `background_run`, `background_list`, `background_check`, `background_wait` and `background_stop`.

    A record of each command stands in the session's state: it lasts as long as the session. The command itself lives
    as long as this process does, and at most until the session is closed or a send of it is cancelled; afterwards its
    record says that it was lost, and where its output is.
    """
    if not callable(getattr(shell, "start", None)) or not callable(getattr(shell, "end_session", None)):
        raise ConfigError(f"shell is {shell!r:.200}: give a ShellBackend, such as LocalShellBackend(env)")
    jobs = _Jobs(shell, clock or SystemClock())
    live = LiveState("background", _live)

    @tool
    async def background_run(context: ToolContext, command: str) -> str:
        """Start a long command, such as a server or a build, beside the conversation, and return at once. It begins in
        the folder of the bash tool.

        Args:
            command: The command, in one or more lines.
        """
        return await jobs.run(context, command)

    @tool(effect="read")
    async def background_list(context: ToolContext) -> str:
        """List the background commands of this session."""
        return await jobs.list_all(context)

    @tool(effect="read")
    async def background_check(context: ToolContext, job: str) -> str:
        """Tell how far a background command is, with its output so far.

        Args:
            job: Its name, such as job_1.
        """
        return await jobs.check(context, job)

    @tool(effect="read", timeout_s=MAX_WAIT_S + 30.0)
    async def background_wait(context: ToolContext, job: str, timeout_s: float = 60.0) -> str:
        """Wait until a background command has ended, and tell how, with its output.

        Args:
            job: Its name, such as job_1.
            timeout_s: Seconds to wait at most, up to 300; it runs on behind that.
        """
        if not 0 < timeout_s <= MAX_WAIT_S:
            raise ToolError(f"timeout_s is {timeout_s!r}: give more than 0 and at most {MAX_WAIT_S:g} seconds")
        return await jobs.check(context, job, wait_s=timeout_s)

    @tool(effect="idempotent")
    async def background_stop(context: ToolContext, job: str) -> str:
        """End a background command with everything that it started.

        Args:
            job: Its name, such as job_1.
        """
        return await jobs.stop(context, job)

    made = (background_run, background_list, background_check, background_wait, background_stop)
    return tuple(dataclasses.replace(one, resource=shell, live=live) for one in made)


class _Jobs:
    """Knows the commands that this process runs, and keeps the records of all in their sessions' states."""

    def __init__(self, shell: ShellBackend, clock: Clock) -> None:
        self._shell = shell
        self._clock = clock
        self._owner = new_owner_id()
        # By the mark of their record; the backend bounds how many are alive, and those that ended go with their record.
        self._alive: dict[str, ShellJob] = {}

    async def run(self, context: ToolContext, command: str) -> str:
        """Start a command and keep a record of it."""
        kept = _records(context)
        if len(kept) >= MAX_RECORDS and not any(one.get("end") for one in kept.values()):
            raise ToolError(f"{len(kept)} background commands have not ended: stop some with background_stop first")
        try:
            job = await self._shell.start(context.session_id, command)
        except (InputError, ProcessError) as error:
            raise ToolError(error.message) from error
        # Other calls may have written theirs meanwhile.
        kept = _records(context)
        for old in [name for name, one in kept.items() if one.get("end")][: max(len(kept) + 1 - MAX_RECORDS, 0)]:
            self._alive.pop(kept.pop(old).get("mark", ""), None)
        # A fork does not give a name anew that its log has.
        stored = context.state.get(BACKGROUND_KEY)
        names = [*kept, *(stored if isinstance(stored, dict) else ())]
        name = f"job_{1 + max(map(_number, names), default=0)}"
        mark = os.urandom(8).hex()
        self._alive[mark] = job
        kept[name] = {
            "command": command[:_MAX_COMMAND_CHARS],
            "mark": mark,
            "session": context.session_id,
            "owner": self._owner,
            "started_at_ms": self._clock.now_ms(),
            "output": job.output_path,
            "end": None,
        }
        context.state[BACKGROUND_KEY] = kept
        return f"{name} runs. background_check or background_wait tell how far it is."

    async def list_all(self, context: ToolContext) -> str:
        """Tell of every record how far its command is."""
        for name in _records(context):
            await self._look(context, name)
        kept = _records(context)
        return "\n".join(self._line(name, one) for name, one in kept.items()) or "There are no background commands."

    async def check(self, context: ToolContext, name: str, *, wait_s: float | None = None) -> str:
        """Tell how far a command is, after waiting for its end if that is wanted."""
        report = await self._look(context, name, wait_s=wait_s)
        line = self._line(name, _records(context)[name])
        return line if report is None else f"{line}\n{output_text(report.output)}"

    async def stop(self, context: ToolContext, name: str) -> str:
        """End a command."""
        job = self._job(_records(context), name)
        if job is not None:
            await job.stop()
        return await self.check(context, name)

    def _job(self, kept: dict[str, _Record], name: str) -> ShellJob | None:
        record = kept.get(name)
        if record is None:
            names = ", ".join(kept) or "none"
            raise ToolError(f"there is no background command {name!r}: there are {names}")
        return self._alive.get(record.get("mark", ""))

    async def _look(self, context: ToolContext, name: str, *, wait_s: float | None = None) -> JobReport | None:
        """Bring a record up to date; return what its command says if that is here."""
        kept = _records(context)
        job, record = self._job(kept, name), kept[name]
        if job is None:
            if not record.get("end") and (record.get("owner") == self._owner or is_owner_dead(record.get("owner", ""))):
                self._keep(context, name, "lost", None)
            return None
        report = await (job.check() if wait_s is None else job.wait(wait_s))
        if report.end is not None and not record.get("end"):
            self._keep(context, name, report.end.value, report.exit_status)
        return report

    def _keep(self, context: ToolContext, name: str, end: str, exit_status: int | None) -> None:
        kept = _records(context)
        kept[name] = {**kept[name], "end": end, "exit_status": exit_status, "ended_at_ms": self._clock.now_ms()}
        context.state[BACKGROUND_KEY] = kept

    def _line(self, name: str, record: Mapping[str, Any]) -> str:
        until_ms = record.get("ended_at_ms") or self._clock.now_ms()
        seconds = max(until_ms - record.get("started_at_ms", until_ms), 0) // 1000
        text = f"{name}: {_state(record)} ({seconds} s): {_short(record)}"
        if record.get("output"):
            text += f"\n  output file: {record['output']}"
        return text


def _records(context: ToolContext | LiveContext) -> dict[str, _Record]:
    """Return the records of the session's own commands in order: a fork has those of its origin in its state as well. A
    state that something else wrote holds none."""
    kept = context.state.get(BACKGROUND_KEY)
    if not isinstance(kept, dict):
        return {}
    return {
        name: dict(one)
        for name, one in kept.items()
        if isinstance(one, dict) and _number(name) and one.get("session") == context.session_id
    }


def _number(name: str) -> int:
    kind, _, number = name.partition("_")
    return int(number) if kind == "job" and number.isascii() and number.isdigit() and len(number) < 9 else 0


def _state(record: Mapping[str, Any]) -> str:
    end = record.get("end")
    if end is None:
        return "running"
    if end == CommandEnd.FINISHED.value:
        return f"ended with exit status {record.get('exit_status')}"
    return _ENDS.get(str(end), "ended")


_ENDS = {
    "lost": "lost, because the process that ran it has ended; its output until then is in its file, if that is still"
    " there",
    CommandEnd.TIMED_OUT.value: "ended, because it ran longer than background commands may",
    CommandEnd.STOPPED.value: "stopped",
    CommandEnd.TOO_MANY_PROCESSES.value: "ended, because it had more processes at once than are allowed",
}


def _short(record: Mapping[str, Any]) -> str:
    command = " ".join(str(record.get("command", "")).split())
    return command if len(command) <= _MAX_SHOWN_CHARS else f"{command[:_MAX_SHOWN_CHARS]}…"


def _live(context: LiveContext) -> str | None:
    """Remind the model of what it started and has not seen the end of."""
    lines = [f"{name}: {_short(one)}" for name, one in _records(context).items() if not one.get("end")]
    return "Background commands that you started and have not seen the end of:\n" + "\n".join(lines) if lines else None
