"""Runs the commands of an agent on this machine as it is: in a process tree of their own, and in no sandbox."""

from __future__ import annotations

from power_loop.runtime.host.shells import KeptShells, Launch


class LocalShellBackend(KeptShells):
    """Runs commands in a bash of each session, with the environment that a `RuntimeEnv` names.

    It keeps order and not secrets: a command may read and write whatever this process's user may, the memory and the
    environment of other processes among it. For commands that nobody vouches for there is `BubblewrapShellBackend`.
    """

    def _launch(self, argv: tuple[str, ...], folder: str) -> Launch:
        # The shell goes to its folder by itself, which may have been removed meanwhile.
        return Launch(argv, self.env.child_environment(), str(self.env.workspace))
