"""Runs the commands of an agent through a launcher of the application's: gVisor, a container, another sandbox."""

from __future__ import annotations

import os
from collections.abc import Callable

from power_loop.contracts.errors import ConfigError, ProcessError, SandboxUnavailableError
from power_loop.contracts.shell import ShellLimits
from power_loop.runtime.host.environment import RuntimeEnv
from power_loop.runtime.host.process import EndCause, Program, run
from power_loop.runtime.host.shells import KeptShells, Launch

_PROBE_S = 60.0

#: Puts a launcher's words before those of a program that is to run in the folder of its second argument.
Wrap = Callable[[tuple[str, ...], str], tuple[str, ...]]


class WrappedShellBackend(KeptShells):
    """Runs `wrap(argv, folder)` where another backend would run `argv`: `wrap` gets the words of a bash and where it
    should stand, and returns the launcher's words, those of the bash at their end.

    The launcher has to pass on standard input, output and errors, and to end what it launched when it is killed. It is
    tried once with a program that has to answer; everything raises `sandbox.unavailable` if that fails, and nothing
    runs without it. How well it isolates is the launcher's matter.
    """

    def __init__(
        self,
        env: RuntimeEnv,
        wrap: Wrap,
        *,
        limits: ShellLimits | None = None,
        output_folder: str | os.PathLike[str] | None = None,
        description: str = "",
    ) -> None:
        super().__init__(env, limits=limits, output_folder=output_folder)
        if not callable(wrap):
            raise ConfigError(f"wrap is {wrap!r:.200}: give a function of a program's words and its folder")
        self._wrap = wrap
        self._is_checked = False
        self._refusal: str | None = None
        self.description = description

    async def _check(self) -> None:
        if not self._is_checked:
            await self._probe()
            self._is_checked = True
        if self._refusal is not None:
            raise SandboxUnavailableError(self._refusal)

    async def _probe(self) -> None:
        token = os.urandom(8).hex()
        launch = self._launch(
            ("bash", "--noprofile", "--norc", "-c", 'printf %s "$1"', "bash", token), str(self.env.workspace)
        )
        program = Program(launch.argv, launch.env, folder=launch.folder, keeps_errors=True, timeout_s=_PROBE_S)
        try:
            ended = await run(program)
        except ProcessError as error:
            self._refusal = f"the launcher {launch.argv[0]!r} cannot be used: {error.message}"
            return
        if ended.cause is not EndCause.EXIT or ended.exit_status != 0 or ended.output.head != token.encode("ascii"):
            errors = b"" if ended.errors is None else ended.errors.head
            reason = errors.decode("utf-8", "replace").strip()[:500] or f"it ended with status {ended.exit_status}"
            self._refusal = (
                f"the launcher {launch.argv[0]!r} did not run a program ({reason}), and without it nothing is run:"
                " mend the launcher's words"
            )

    def _launch(self, argv: tuple[str, ...], folder: str) -> Launch:
        words = tuple(self._wrap(argv, folder))
        if not words or not all(isinstance(one, str) for one in words) or words[-len(argv) :] != argv:
            raise ConfigError(f"wrap returned {words!r:.300}: give the launcher's words with those it got at their end")
        return Launch(words, self.env.child_environment(), str(self.env.workspace))
