"""Puts the built-in tools together: sets of them by name, over one environment."""

from __future__ import annotations

from enum import Enum

from power_loop.contracts.choices import choice_of
from power_loop.contracts.clock import Clock
from power_loop.contracts.errors import ConfigError
from power_loop.contracts.shell import ShellBackend
from power_loop.contracts.tools import ToolDefinition
from power_loop.runtime.host.environment import RuntimeEnv
from power_loop.runtime.host.local_shell import LocalShellBackend
from power_loop.runtime.host.paths import PathGuard
from power_loop.runtime.host.pdf import can_read_pdf
from power_loop.tools.ask_user import ask_user_tools
from power_loop.tools.background import background_tools
from power_loop.tools.bash import bash_tools
from power_loop.tools.current_time import current_time_tool
from power_loop.tools.documents import read_pdf_tool
from power_loop.tools.files import edit_file_tool, read_file_tool, write_file_tool
from power_loop.tools.images import view_image_tool
from power_loop.tools.notes import notes_tools
from power_loop.tools.patch import apply_patch_tool
from power_loop.tools.recall import recall_tools
from power_loop.tools.search import glob_tool, grep_tool
from power_loop.tools.skill_folders import Skills
from power_loop.tools.skills import skill_tools
from power_loop.tools.todo import todo_tools
from power_loop.tools.wakeups import wakeup_tools


class ToolPreset(str, Enum):
    """Is a set of built-in tools."""

    EXPLORE = "explore"  # looks at files and changes nothing
    CORE = "core"  # explore, writes files, runs commands, keeps a list of things to do
    FULL = "full"  # core, runs commands in the background, keeps notes, asks the user, recalls originals, wakes itself


def explore_tools(env: RuntimeEnv, *, clock: Clock | None = None) -> tuple[ToolDefinition, ...]:
    """Return the tools that look at files and change nothing: `read_file`, `glob`, `grep`, `view_image`,
    `current_time`, and `read_pdf` where the extra `pdf` is installed."""
    return _looking(PathGuard(env), clock)


def file_tools(env: RuntimeEnv) -> tuple[ToolDefinition, ...]:
    """Return the tools that read and write text files: `read_file`, `write_file`, `edit_file`, `apply_patch`, `glob`,
    `grep`."""
    guard = PathGuard(env)
    return (read_file_tool(guard), *_writing(guard), glob_tool(guard), grep_tool(guard))


def tool_preset(
    preset: ToolPreset | str,
    env: RuntimeEnv,
    *,
    shell: ShellBackend | None = None,
    skills: Skills | None = None,
    clock: Clock | None = None,
) -> tuple[ToolDefinition, ...]:
    """Return the tools of a preset, over one environment; the loop that is given them closes what they hold.

    `explore` has `read_file`, `glob`, `grep`, `view_image`, `current_time`, and `read_pdf` where the extra `pdf` is
    installed: each of them only reads. `core` has these, `write_file`, `edit_file`, `apply_patch`, `bash` and `todo`.
    `full` has these, `background_run`, `background_list`, `background_check`, `background_wait`, `background_stop`,
    `note_write`, `note_read`, `note_list`, `note_remove`, `request_user_input`, `recall_compacted`, `recall_send`,
    `schedule_wakeup`, `list_wakeups` and `cancel_wakeup`.
    With `skills` each of them has `load_skill`, too, which only reads.

    Commands run in `shell` (default: a `LocalShellBackend` of the environment, which is no sandbox). Raises
    `config.invalid`.
    """
    chosen = choice_of(ToolPreset, preset, "preset")
    if not isinstance(env, RuntimeEnv):
        raise ConfigError(f"env is {env!r:.200}: give a RuntimeEnv")
    guard = PathGuard(env)
    tools = [*_looking(guard, clock), *(skill_tools(skills) if skills is not None else ())]
    if chosen is not ToolPreset.EXPLORE:
        backend = LocalShellBackend(env) if shell is None else shell
        tools += (*_writing(guard), *bash_tools(backend), *todo_tools())
        if chosen is ToolPreset.FULL:
            tools += (*background_tools(backend, clock=clock), *notes_tools(), *ask_user_tools(), *recall_tools())
            tools += wakeup_tools()
    return tuple(tools)


def _looking(guard: PathGuard, clock: Clock | None) -> tuple[ToolDefinition, ...]:
    documents = (read_pdf_tool(guard),) if can_read_pdf() else ()
    return (
        *(read_file_tool(guard), glob_tool(guard), grep_tool(guard), view_image_tool(guard)),
        *documents,
        current_time_tool(clock),
    )


def _writing(guard: PathGuard) -> tuple[ToolDefinition, ...]:
    return write_file_tool(guard), edit_file_tool(guard), apply_patch_tool(guard)
