"""Lets a model run commands in a shell that lasts as long as its session."""

from __future__ import annotations

import dataclasses
import time

from power_loop.contracts.errors import ConfigError, InputError, ProcessError, ToolError
from power_loop.contracts.shell import CommandEnd, CommandOutput, ShellBackend, ShellResult
from power_loop.contracts.tools import ToolContext, ToolDefinition, ToolResult
from power_loop.tools.decorator import tool

DEFAULT_COMMAND_S = 120.0
MAX_COMMAND_S = 600.0
# What the shell itself needs beside its command: to start, and to kill what did not end.
_MARGIN_S = 30.0
_DESCRIPTION = (
    "Run a command in bash and return its output. The folder and variables last from call to call. Commands read no"
    " input, so use the non-interactive options of programs."
)


def bash_tools(shell: ShellBackend) -> tuple[ToolDefinition, ...]:
    """Return the tool `bash`, which runs commands on a shell backend.

    Its effect is `once`: a command whose process died while it ran is not run again. The loop whose tools these are
    ends the session's shell when a send is cancelled or the session is closed, and the backend with itself; a
    `ToolRegistry` that is shared between loops is closed by who made it.
    """
    if not callable(getattr(shell, "run", None)) or not callable(getattr(shell, "end_session", None)):
        raise ConfigError(f"shell is {shell!r:.200}: give a ShellBackend, such as LocalShellBackend(env)")

    @tool(
        description=f"{_DESCRIPTION} {shell.description}".strip(),
        parallel=False,
        timeout_s=MAX_COMMAND_S + _MARGIN_S,
    )
    async def bash(context: ToolContext, command: str, timeout_s: float = DEFAULT_COMMAND_S) -> ToolResult:
        """Run a command.

        Args:
            command: The command, in one or more lines.
            timeout_s: Seconds after which it is ended, at most 600.
        """
        if not 0 < timeout_s <= MAX_COMMAND_S:
            raise ToolError(f"timeout_s is {timeout_s!r}: give more than 0 and at most {MAX_COMMAND_S:g} seconds")
        allowed_s = _allowed_s(context, timeout_s)
        try:
            result = await shell.run(context.session_id, command, timeout_s=allowed_s)
        except (InputError, ProcessError) as error:
            raise ToolError(error.message) from error
        return _shown(result, allowed_s)

    return (dataclasses.replace(bash, resource=shell),)


def _allowed_s(context: ToolContext, timeout_s: float) -> float:
    """End a command a moment before its call would be ended: then the model is told what it wrote until then."""
    if context.deadline_s is None:
        return timeout_s
    return max(min(timeout_s, context.deadline_s - time.monotonic() - 2.0), 0.1)


def _shown(result: ShellResult, timeout_s: float) -> ToolResult:
    notes = []
    if result.end is CommandEnd.FINISHED:
        if result.exit_status:
            notes.append(f"[exit status {result.exit_status}]")
        if not (result.output.head or result.output.tail or notes):
            notes.append("[no output]")
    else:
        notes.append(f"[{_ENDS[result.end].format(status=result.exit_status, seconds=timeout_s)}. {_NEW_SHELL}")
        notes[-1] += f" and stands in {result.folder}]"
    return ToolResult("\n".join([*_texts(result.output), *notes]), is_error=result.end in _ERRORS)


_NEW_SHELL = "The next command gets a new shell: it has none of the variables that were set,"
_ENDS = {
    CommandEnd.SHELL_ENDED: "the command ended the shell, with exit status {status}",
    CommandEnd.TIMED_OUT: (
        "ended after {seconds:g} seconds, with everything that it started: give a longer timeout_s, or run it with"
        " background_run if you have that"
    ),
    CommandEnd.STOPPED: "stopped from outside, with everything that it started",
    CommandEnd.TOO_MANY_PROCESSES: "ended, because it had more processes at once than are allowed",
}
_ERRORS = (CommandEnd.TIMED_OUT, CommandEnd.STOPPED, CommandEnd.TOO_MANY_PROCESSES)


def _texts(output: CommandOutput) -> list[str]:
    """Return the output in pieces, with a note where its middle is left out."""
    if not output.left_out_bytes:
        return [output.head.rstrip("\n")] if output.head else []
    note = f"[… {output.left_out_bytes:,} bytes are left out here"
    if output.path is not None:
        note += f"; {output.path} holds the first {output.file_bytes:,} bytes of the output, for grep or sed -n"
    return [output.head, f"{note} …]", output.tail.rstrip("\n")]


def output_text(output: CommandOutput) -> str:
    """Return an output as a model is shown it."""
    return "\n".join(_texts(output)) or "[no output yet]"
