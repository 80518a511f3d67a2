"""Makes shell backends of every kind, and says of each that cannot be had here why it is left out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from power_loop.runtime.host.environment import RuntimeEnv
from power_loop.runtime.host.process import Program, run_blocking
from power_loop.runtime.host.shells import KeptShells
from power_loop.sandbox import BubblewrapShellBackend, LocalShellBackend, ShellLimits, WrappedShellBackend

Make = Callable[..., KeptShells]

SANDBOX_CHECK = ("bwrap", "--unshare-all", "--ro-bind", "/", "/", "true")


def sandbox_is_missing() -> str:
    """Return why bubblewrap cannot be had here, seen without the code under test; "" if it can."""
    if shutil.which("bwrap") is None:
        return "there is no bwrap: `make sandbox` installs it"
    ended = run_blocking(Program(SANDBOX_CHECK, dict(os.environ), keeps_errors=True))
    return "" if ended.exit_status == 0 else f"bwrap fails here: {ended.errors and ended.errors.head.decode()}"


def local(folder: Path, **more: Any) -> KeptShells:
    """A backend on this machine as it is."""
    return LocalShellBackend(env_of(folder), **more)


def wrapped(folder: Path, **more: Any) -> KeptShells:
    """A backend behind the launcher that does the least."""
    return WrappedShellBackend(env_of(folder), lambda argv, _: ("env", "--", *argv), **more)


def sandboxed(folder: Path, **more: Any) -> KeptShells:
    """A backend in a sandbox; the test is skipped where there is none."""
    if missing := sandbox_is_missing():
        pytest.skip(missing)
    limits = more.pop("limits", None)
    return BubblewrapShellBackend(env_of(folder), limits=limits, **more)


def env_of(folder: Path) -> RuntimeEnv:
    """An environment whose workspace is a folder in `folder`."""
    workspace = folder / "workspace"
    workspace.mkdir(exist_ok=True)
    return RuntimeEnv(workspace)


BACKENDS: dict[str, Make] = {"local": local, "wrapped": wrapped, "sandboxed": sandboxed}
#: Time limits of a command that is to begin, be it on a busy machine: the first in which it does is enough.
TIME_LIMITS_S = (0.3, 3, 20)
#: Little of everything, so that limits are met.
SMALL = ShellLimits(max_shells=2, max_jobs=2, max_command_bytes=1_000, shown_bytes=100, file_bytes=5_000, grace_s=0.05)
