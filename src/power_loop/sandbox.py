"""Is the public shelf of sandboxes: where the commands and files of agents are, and what walls them in."""

from __future__ import annotations

from power_loop.contracts.shell import (
    CommandEnd,
    CommandOutput,
    JobReport,
    ShellBackend,
    ShellJob,
    ShellLimits,
    ShellResult,
)
from power_loop.runtime.host.bubblewrap import BubblewrapShellBackend
from power_loop.runtime.host.environment import EnvLimits, RuntimeEnv
from power_loop.runtime.host.local_shell import LocalShellBackend
from power_loop.runtime.host.piped_process import PipedProcess
from power_loop.runtime.host.wrapped_shell import WrappedShellBackend

__all__ = [
    "BubblewrapShellBackend",
    "CommandEnd",
    "CommandOutput",
    "EnvLimits",
    "JobReport",
    "LocalShellBackend",
    "PipedProcess",
    "RuntimeEnv",
    "ShellBackend",
    "ShellJob",
    "ShellLimits",
    "ShellResult",
    "WrappedShellBackend",
]
