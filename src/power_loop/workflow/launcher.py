"""Says how a worker is started: bare, in a sandbox of Linux namespaces, or by a launcher of the application's."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import power_loop
from power_loop.contracts.errors import ConfigError, PowerLoopError, SandboxUnavailableError
from power_loop.contracts.frozen import frozen
from power_loop.contracts.numbers import is_whole
from power_loop.core.stray import said
from power_loop.runtime.host.bubblewrap import Bubblewrap, sandbox_options, seccomp_files
from power_loop.runtime.host.shells import Launch

# An installed package is found without the path; a checkout is not. It stands last, so that it hides nothing.
_START = "import sys; sys.path.append(sys.argv[1]); from power_loop.workflow.worker import main; main()"


@frozen
class WorkerPlan:
    """Is what a worker is started for.

    `argv` is its command, `env` its whole environment, which holds no key. `tools` are the names of the tools that its
    leaves are granted: all that there are where a leaf's spec names none, and None where a function of its bootstrap
    makes them, which runs in the worker. It writes in `folder`, which is its own, and in `workspace` (None: its leaves
    have theirs in `folder`); it reads `read_only`, its Python among them. `needs_network` tells that it makes its model
    calls itself.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    tools: tuple[str, ...] | None
    folder: str
    workspace: str | None
    read_only: tuple[str, ...]
    needs_network: bool


class WorkerLauncher(Protocol):
    """Wraps the command of a worker: a function from its plan to the launcher's words, the worker's at their end.

    It may be async. The launcher has to pass on standard input and output, and to end what it launched when it is
    killed. Whatever it raises fails the leaf; no worker runs without it.
    """

    def __call__(self, plan: WorkerPlan) -> Sequence[str] | Launch | Awaitable[Sequence[str] | Launch]:
        """Return the words."""
        ...


class BubblewrapWorkerLauncher:
    """Starts workers in a sandbox of Linux namespaces, which `bwrap` makes; where it cannot, none is started.

    Of this machine's files a worker has its own folder and the workspace, written, and the system, its Python and the
    read-only roots, read only. It has a network only where it makes its model calls itself: with `llm="proxy"` it has
    none. `tmp_bytes` is the size of its `/tmp`, and of `/dev/shm` (default 256 MiB). Raises `config.invalid`.
    """

    def __init__(self, *, tmp_bytes: int = 256 * 2**20, program: str = "bwrap") -> None:
        size: Any = tmp_bytes
        if not is_whole(size, least=1):
            raise ConfigError(f"tmp_bytes is {size!r:.200}: give a whole number above 0")
        self.tmp_bytes = tmp_bytes
        # One that holds the network back too is tried for both.
        self._bubblewrap = Bubblewrap(program, shares_network=False)

    async def __call__(self, plan: WorkerPlan) -> Launch:
        """Return the sandbox's words. Raises `sandbox.unavailable`."""

        def launch(argv: tuple[str, ...], path: str, *, shares_network: bool = False) -> Launch:
            workspaces = [] if plan.workspace is None else [plan.workspace]
            options = sandbox_options(
                read_only=plan.read_only,
                written=[*workspaces, plan.folder],
                folder=plan.folder,
                shares_network=shares_network,
                tmp_bytes=self.tmp_bytes,
            )
            return Launch((path, *options, "--", *argv), {**plan.env, "TMPDIR": "/tmp"}, plan.folder, seccomp_files())

        await self._bubblewrap.check(launch)
        return launch(plan.argv, self._bubblewrap.path, shares_network=plan.needs_network)


def worker_argv() -> tuple[str, ...]:
    """Return the command of a worker on this machine: this Python, with nothing of its user's."""
    return (sys.executable, "-I", "-c", _START, _package_folder())


def python_folders() -> tuple[str, ...]:
    """Return the folders without which this Python does not find itself and the package."""
    wanted = [sys.prefix, sys.base_prefix, os.path.dirname(os.path.realpath(sys.executable)), _package_folder()]
    found = dict.fromkeys(os.path.realpath(one) for one in wanted)
    system = ("/usr", "/bin", "/lib")
    return tuple(one for one in found if not any(one == root or one.startswith(f"{root}/") for root in system))


async def launch_of(launcher: WorkerLauncher | None, plan: WorkerPlan) -> Launch:
    """Return how a worker is started. Raises `sandbox.unavailable` for a launcher that does not say."""
    if launcher is None:
        return Launch(plan.argv, plan.env, plan.folder)
    try:
        words: Any = launcher(plan)
        if inspect.isawaitable(words):
            words = await words
    except PowerLoopError:
        raise
    except Exception as error:  # it is the application's own code
        raise SandboxUnavailableError(
            f"the worker launcher raised {said(error)}, and no worker is started without it: mend it"
        ) from error
    if isinstance(words, Launch):
        return words
    if isinstance(words, (str, bytes)) or not isinstance(words, Sequence) or not words:
        raise SandboxUnavailableError(f"the worker launcher returned {words!r:.200}: give a list of words")
    if not all(isinstance(one, str) and "\0" not in one for one in words):
        raise SandboxUnavailableError(f"the worker launcher returned {words!r:.200}: give words that are text")
    return Launch(tuple(words), plan.env, plan.folder)


def _package_folder() -> str:
    return str(Path(power_loop.__file__).resolve().parents[1])
