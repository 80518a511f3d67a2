"""Keeps a bash for each session, and the commands that run in their background, wherever a launcher puts them."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shlex
import shutil
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from power_loop.contracts.errors import ConfigError, InputError, ProcessError
from power_loop.contracts.frozen import frozen
from power_loop.contracts.numbers import is_number
from power_loop.contracts.shell import CommandEnd, CommandOutput, JobReport, ShellLimits, ShellResult
from power_loop.runtime.host.environment import RuntimeEnv
from power_loop.runtime.host.process import (
    Answered,
    EndCause,
    Ended,
    KeptProcess,
    Output,
    OutputLimits,
    ProcessLimits,
    Program,
)

# A shell that is not ready after so long is none.
_START_S = 60.0
# Where so many sessions stood is remembered, for the next shell of each.
_MAX_FOLDERS = 1_000
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ENDS = {
    EndCause.EXIT: CommandEnd.SHELL_ENDED,
    EndCause.TIMEOUT: CommandEnd.TIMED_OUT,
    EndCause.PROCESSES: CommandEnd.TOO_MANY_PROCESSES,
}

# Commands come on its input, each ended by NUL; behind each it says on its second output how that ended. So one pair of
# pipes is all that a launcher has to pass on. A command sees neither: they are kept at 3 and 4, and closed for it. The
# loop of one round is for a command that says `break`.
_DRIVER = r"""
exec 3<&0 4>&2 </dev/null 2>&1
cd -- "$1" 2>/dev/null
shift
printf '0 %s\0' "$PWD" >&4
while IFS= read -r -d '' -u 3 __command; do
for __once in 1; do eval "$__command" 3<&- 4>&-; done
printf '%s %s\0' "$?" "$PWD" >&4
done
"""
_JOB = 'cd -- "$1" 2>/dev/null; eval "$2"'
_BASH = ("bash", "--noprofile", "--norc", "-c")


@frozen
class Launch:
    """Is how a launcher starts something: the words, the launcher's own environment, and the files that it reads."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    folder: str
    files: Mapping[int, bytes] = field(default_factory=dict)


class KeptShells:
    """Is a `ShellBackend` whose programs are started by `_launch`: what differs between one backend and another."""

    def __init__(
        self, env: RuntimeEnv, *, limits: ShellLimits | None = None, output_folder: str | os.PathLike[str] | None = None
    ) -> None:
        """Take the environment, and where long outputs go (default: a temporary folder, removed at the end)."""
        for name, value, kind in (("env", env, RuntimeEnv), ("limits", limits or ShellLimits(), ShellLimits)):
            if not isinstance(value, kind):
                raise ConfigError(f"{name} is {value!r:.200}: give a {kind.__name__}")
        if os.name != "posix" or shutil.which("bash", path=env.child_environment().get("PATH", os.defpath)) is None:
            raise ConfigError("there is no bash on the PATH of the environment: install one, or add its folder")
        self.env = env
        self.limits = limits or ShellLimits()
        #: What a model should know of the place where commands run.
        self.description = ""
        self._files = _Files(output_folder, self.limits.max_files)
        self._lock = threading.Lock()
        self._shells: dict[str, _Shell] = {}
        self._jobs: dict[str, list[_Job]] = {}
        self._folders: dict[str, str] = {}
        self._is_closed = False

    # ---- what a launcher adds ----

    async def _check(self) -> None:
        """Raise if programs cannot be started as promised."""

    def _launch(self, argv: tuple[str, ...], folder: str) -> Launch:
        """Return how a program is started in a folder."""
        raise NotImplementedError

    # ---- commands ----

    async def run(
        self,
        session_id: str,
        command: str,
        *,
        timeout_s: float,
        folder: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> ShellResult:
        """Run a command in the session's shell: see `ShellBackend.run`."""
        text = self._checked(_with(command, folder, env or {}))
        seconds: Any = timeout_s
        if not is_number(seconds, above=0):
            raise InputError(f"timeout_s is {timeout_s!r:.200}: give seconds above 0")
        await self._check()
        while (result := await self._try(session_id, text, timeout_s)) is None:
            pass
        return result

    async def _try(self, session_id: str, text: str, timeout_s: float) -> ShellResult | None:
        """Run a command in the session's shell; None if that had ended for being idle before the command reached it."""
        shell = self._take(session_id)
        is_kept = False
        try:
            await shell.ready()
            answer = await shell.command(text, timeout_s=timeout_s, output=self._output_limits())
            if isinstance(answer, Answered):
                self._remember(session_id, answer.folder)
                is_kept = True
                return ShellResult(CommandEnd.FINISHED, answer.exit_status, output_of(answer.output), answer.folder)
            if answer.cause is EndCause.IDLE:
                return None
            return self._ended_shell(session_id, answer)
        finally:
            self._give_back(session_id, shell, is_kept=is_kept)

    async def start(self, session_id: str, command: str) -> _Job:
        """Start a command in the background: see `ShellBackend.start`."""
        text = self._checked(command)
        await self._check()
        with self._lock:
            self._check_open()
            alive = {key: [one for one in jobs if not one.is_over] for key, jobs in self._jobs.items()}
            self._jobs = {key: jobs for key, jobs in alive.items() if jobs}
            if sum(map(len, self._jobs.values())) >= self.limits.max_jobs:
                raise InputError(
                    f"{self.limits.max_jobs} background commands run already: stop one, or wait for one, first"
                )
            # The keeper kills it should this be the last that is heard of it.
            job = _Job(
                KeptProcess(
                    self._program(
                        (*_BASH, _JOB, "bash", self._folder_of(session_id), text),
                        self._folder_of(session_id),
                        output=self._output_limits(is_eager=True),
                        timeout_s=self.limits.max_job_s,
                    )
                ),
            )
            self._jobs.setdefault(session_id, []).append(job)
        try:
            # A launcher that cannot start it says so at once.
            await job.check()
        except BaseException:
            job.process.abandon()
            raise
        return job

    # ---- the end ----

    async def end_session(self, session_id: str) -> None:
        """End the shell and the background commands of a session; where it stood is kept for the next shell."""
        with self._lock:
            shell = self._shells.pop(session_id, None)
            jobs = self._jobs.pop(session_id, [])
        # All are told before the first is waited for.
        processes = [job.process for job in jobs if not job.is_over]
        if shell is not None:
            if shell.is_busy:
                shell.process.abandon()  # who waits for its command reads its end
            else:
                processes.append(shell.process)
        for one in processes:
            one.abandon()
        for one in processes:
            await one.wait_gone()

    async def aclose(self) -> None:
        """End all shells and background commands, and take no more."""
        with self._lock:
            self._is_closed = True
            sessions = [*self._shells, *self._jobs]
        try:
            for session_id in dict.fromkeys(sessions):
                await self.end_session(session_id)
        finally:
            self._files.close()

    async def __aenter__(self) -> Any:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # ---- inside ----

    def _checked(self, command: Any) -> str:
        if not isinstance(command, str) or "\0" in command or not command.strip():
            raise InputError(f"the command is {command!r:.200}: give text without NUL")
        size = len(os.fsencode(command.encode("utf-8", "replace")))
        if size > self.limits.max_command_bytes:
            raise InputError(
                f"the command has {size} bytes, and at most {self.limits.max_command_bytes} are taken:"
                " write long text to a file first"
            )
        return command.encode("utf-8", "replace").decode("utf-8")

    def _check_open(self) -> None:
        if self._is_closed:
            raise ProcessError("the shell backend was closed with aclose(): make another one")

    def _folder_of(self, session_id: str) -> str:
        return self._folders.get(session_id, str(self.env.workspace))

    def _remember(self, session_id: str, folder: str) -> None:
        with self._lock:
            self._folders.pop(session_id, None)
            self._folders[session_id] = folder
            if len(self._folders) > _MAX_FOLDERS:
                del self._folders[next(iter(self._folders))]

    def _take(self, session_id: str) -> _Shell:
        """Return the session's shell, which is this caller's until it is given back."""
        with self._lock:
            self._check_open()
            shell = self._shells.get(session_id)
            if shell is not None and shell.is_busy:
                raise InputError("a command runs in this session's shell: wait for it, or stop it, before the next one")
            if shell is not None and not shell.process.is_over():
                shell.is_busy = True
                # The one that was used last stands last.
                self._shells[session_id] = self._shells.pop(session_id)
                return shell
            self._make_room()
            program = self._program(
                (*_BASH, _DRIVER, "bash", self._folder_of(session_id)),
                self._folder_of(session_id),
                output=self._output_limits(),
                timeout_s=_START_S,
                is_shell=True,
                idle_s=self.limits.idle_s,
            )
            shell = self._shells[session_id] = _Shell(KeptProcess(program))
            return shell

    def _make_room(self) -> None:
        for session_id in [key for key, shell in self._shells.items() if shell.process.is_over()]:
            del self._shells[session_id]
        if len(self._shells) < self.limits.max_shells:
            return
        idle = next((key for key, shell in self._shells.items() if not shell.is_busy), None)
        if idle is None:
            raise InputError(f"{self.limits.max_shells} shells are at work already: try again when one is free")
        # Letting it go ends it; its session keeps its folder.
        self._shells.pop(idle).process.abandon()

    def _give_back(self, session_id: str, shell: _Shell, *, is_kept: bool) -> None:
        with self._lock:
            shell.is_busy = False
            if not is_kept and self._shells.get(session_id) is shell:
                del self._shells[session_id]
        if not is_kept:
            shell.process.abandon()

    def _ended_shell(self, session_id: str, ended: Ended) -> ShellResult:
        end = _ENDS.get(ended.cause, CommandEnd.STOPPED)
        status = ended.exit_status if end is CommandEnd.SHELL_ENDED else None
        return ShellResult(end, status, output_of(ended.output), self._folder_of(session_id))

    def _output_limits(self, *, is_eager: bool = False) -> OutputLimits:
        shown, path = self.limits.shown_bytes, self._files.next_path()
        return OutputLimits(shown, shown, path, self.limits.file_bytes, is_eager)

    def _program(self, argv: tuple[str, ...], folder: str, **more: Any) -> Program:
        launch, limits = self._launch(argv, folder), self.limits
        return Program(
            launch.argv,
            launch.env,
            folder=launch.folder,
            files=launch.files,
            grace_s=limits.grace_s,
            limits=ProcessLimits(
                limits.cpu_s, limits.memory_bytes, limits.written_bytes, limits.open_files, limits.max_processes
            ),
            **more,
        )


class _Shell:
    """Is a bash that waits for commands."""

    __slots__ = ("_count", "_is_ready", "is_busy", "process")

    def __init__(self, process: KeptProcess) -> None:
        self.process = process
        self.is_busy = True
        self._count = 0
        self._is_ready = False

    async def ready(self) -> None:
        """Return when it takes commands. Raises `process.failed`."""
        if self._is_ready:
            return
        answer = await self.process.answer(0)
        if isinstance(answer, Ended):
            said = output_of(answer.output)
            raise ProcessError(f"the shell ended before it took a command: {(said.head + said.tail).strip()[:500]!r}")
        self._is_ready = True

    async def command(self, text: str, *, timeout_s: float, output: OutputLimits) -> Answered | Ended:
        """Give it a command and return what came of it."""
        self._count += 1
        self.process.tell_command(self._count, text, timeout_s=timeout_s, output=output)
        return await self.process.answer(self._count)


class _Job:
    """Is a `ShellJob`; its output goes to a file from the start."""

    __slots__ = ("output_path", "process")

    def __init__(self, process: KeptProcess) -> None:
        self.process = process
        self.output_path = process.program.output.path

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.process.is_over()

    async def check(self) -> JobReport:
        """Return how far it is, with its output so far."""
        return self._report(await self.process.look())

    async def wait(self, timeout_s: float) -> JobReport:
        """Return how it ended, or how far it is after `timeout_s` seconds."""
        await self.process.watch(timeout_s=timeout_s)
        return await self.check()

    async def stop(self) -> JobReport:
        """End it with everything that it started, and return how it ended."""
        if self.process.ended is None:
            await self.process.stop(grace_s=self.process.program.grace_s)
        return await self.check()

    def _report(self, output: Output) -> JobReport:
        ended = self.process.ended
        if ended is None:
            return JobReport(None, None, output_of(output))
        end = CommandEnd.FINISHED if ended.cause is EndCause.EXIT else _ENDS.get(ended.cause, CommandEnd.STOPPED)
        status = ended.exit_status if end is CommandEnd.FINISHED else None
        return JobReport(end, status, output_of(output))


class _Files:
    """Names the files that long outputs go to, in a folder that nobody else reads, and removes the oldest."""

    def __init__(self, folder: str | os.PathLike[str] | None, max_files: int) -> None:
        self._given = None if folder is None else os.path.realpath(folder)
        self._made: str | None = None
        self._max_files = max_files
        self._mark = os.urandom(4).hex()
        self._numbers = itertools.count(1)
        self._paths: list[str] = []
        if self._given is not None and not os.path.isdir(self._given):
            raise ConfigError(f"output_folder {self._given!r:.200} is no folder: make it first")

    @property
    def folder(self) -> str:
        """Where the files are."""
        if self._given is not None:
            return self._given
        if self._made is None:
            self._made = os.path.realpath(tempfile.mkdtemp(prefix="power-loop-output-"))
        return self._made

    def next_path(self) -> str:
        """Return the path of a file that is not there yet; the oldest goes when there are too many."""
        path = os.path.join(self.folder, f"output-{self._mark}-{next(self._numbers)}.log")
        self._paths.append(path)
        if len(self._paths) > self._max_files:
            with contextlib.suppress(OSError):
                os.unlink(self._paths.pop(0))
        return path

    def close(self) -> None:
        """Remove the folder if it was made here."""
        made, self._made = self._made, None
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)


def output_of(output: Output) -> CommandOutput:
    """Return an output as text: what is no UTF-8 is replaced."""
    head, tail = (data.decode("utf-8", "replace") for data in (output.head, output.tail))
    if not output.left_out_bytes:
        return CommandOutput(
            (output.head + output.tail).decode("utf-8", "replace"), "", 0, output.path, output.file_bytes
        )
    return CommandOutput(head, tail, output.left_out_bytes, output.path, output.file_bytes)


def _with(command: Any, folder: str | None, env: Mapping[Any, Any]) -> Any:
    """Return a command that goes to a folder first, and has variables of its own."""
    if not isinstance(command, str) or (folder is None and not env):
        return command
    for name, value in env.items():
        if not isinstance(name, str) or not _VARIABLE.fullmatch(name) or not isinstance(value, str):
            raise InputError(f"env holds {name!r:.200}: give names of variables, with texts")
    given = "".join(f"{name}={shlex.quote(value)} " for name, value in env.items())
    text = f"{given}eval {shlex.quote(command)}"
    return text if folder is None else f"if cd -- {shlex.quote(folder)}; then {text}\nelse false; fi"
