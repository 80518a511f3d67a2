"""What a shell for an agent is: a backend that runs commands for sessions, and what it says of them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Protocol

from power_loop.contracts.errors import ConfigError
from power_loop.contracts.frozen import frozen
from power_loop.contracts.numbers import is_number, is_whole


class CommandEnd(str, Enum):
    """Is how a command ended: it finished; it ended its shell with it (`exit`); it ran longer than it was given; it was
    stopped; or it had more processes than allowed. In all but the first the next command gets a new shell."""

    FINISHED = "finished"
    SHELL_ENDED = "shell_ended"
    TIMED_OUT = "timed_out"
    STOPPED = "stopped"
    TOO_MANY_PROCESSES = "too_many_processes"


@frozen
class CommandOutput:
    """Is what a command wrote, both of its outputs in order: its beginning, its end, and how many bytes lie between.

    `path` is the file with the whole of it, or its first `file_bytes` bytes where that is less; None if it was short.
    """

    head: str = ""
    tail: str = ""
    left_out_bytes: int = 0
    path: str | None = None
    file_bytes: int = 0


@frozen
class ShellResult:
    """Is what became of a command. `exit_status` is None where there is none: the command was killed. `folder` is where
    the shell stands for the next one."""

    end: CommandEnd
    exit_status: int | None
    output: CommandOutput
    folder: str


@frozen
class JobReport:
    """Is how far a background command is: `end` is None while it runs."""

    end: CommandEnd | None
    exit_status: int | None
    output: CommandOutput


@frozen
class ShellLimits:
    """Is how much the shells of a backend take.

    `max_shells` shells (default 16) and `max_jobs` background commands (16) are alive at once; a shell that got no
    command for `idle_s` seconds ends (600). A command is at most `max_command_bytes` long (100,000). Of an output its
    first and its last `shown_bytes` are kept (12,000), and up to `file_bytes` of it in a file (16,000,000), at most
    `max_files` of them (64). What is ended has `grace_s` seconds for it before it is killed (1). A background command
    runs for at most `max_job_s` seconds (3,600).

    For each process: `cpu_s` seconds of processor time, `memory_bytes` of address space, files of at most
    `written_bytes`, `open_files` descriptors (default None: as the host has it). `max_processes` run at once in one
    shell or job (default 512).
    """

    max_shells: int = 16
    max_jobs: int = 16
    idle_s: float = 600.0
    max_command_bytes: int = 100_000
    shown_bytes: int = 12_000
    file_bytes: int = 16_000_000
    max_files: int = 64
    grace_s: float = 1.0
    max_job_s: float = 3_600.0
    cpu_s: int | None = None
    memory_bytes: int | None = None
    written_bytes: int | None = None
    open_files: int | None = None
    max_processes: int | None = 512

    def __post_init__(self) -> None:
        for name in self.__shape__.names:  # type: ignore[attr-defined]
            value = getattr(self, name)
            is_time = name in ("idle_s", "grace_s", "max_job_s")
            if value is None and name in _OPTIONAL:
                continue
            if not (is_number(value, above=0) if is_time else is_whole(value, least=1)):
                kind = "number of seconds" if is_time else "whole number"
                raise ConfigError(f"ShellLimits({name}={value!r:.200}) is no limit: give a {kind} above 0")


_OPTIONAL = ("cpu_s", "memory_bytes", "written_bytes", "open_files", "max_processes")


class ShellJob(Protocol):
    """Is a command that runs in the background of a session."""

    @property
    def output_path(self) -> str | None:
        """The file that its output goes to."""
        ...

    async def check(self) -> JobReport:
        """Return how far it is, with its output so far."""
        ...

    async def wait(self, timeout_s: float) -> JobReport:
        """Return how it ended, or how far it is after `timeout_s` seconds."""
        ...

    async def stop(self) -> JobReport:
        """End it with everything that it started, and return how it ended."""
        ...


class ShellBackend(Protocol):
    """Runs commands for sessions: one shell a session, in which the folder and variables last from one command to the
    next."""

    @property
    def description(self) -> str:
        """What a model should know of the place where commands run, in one sentence; "" if nothing is special."""
        ...

    async def run(
        self,
        session_id: str,
        command: str,
        *,
        timeout_s: float,
        folder: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> ShellResult:
        """Run a command in the session's shell and return what became of it.

        After `timeout_s` seconds it is ended with everything that it started. `folder` is where the shell goes first,
        `env` are variables of this command alone. Cancelled, nothing of the command is alive any more. Raises
        `input.invalid`, `process.failed`, and `sandbox.unavailable` where commands would have to run outside of the
        sandbox that was asked for.
        """
        ...

    async def start(self, session_id: str, command: str) -> ShellJob:
        """Start a command in the background, in the folder of the session's shell. Raises what `run` raises."""
        ...

    async def end_session(self, session_id: str) -> None:
        """End the shell and the background commands of a session."""
        ...

    async def aclose(self) -> None:
        """End all shells and background commands, and take no more."""
        ...
