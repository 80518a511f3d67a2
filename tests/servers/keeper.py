"""Is the process that keeps one private server: it starts it when asked, and ends it when nobody needs it any more.

`python -S -m tests.servers.keeper FOLDER NOTE UID COMMAND…` reads `start` from its standard input and answers with the
pid. Whoever needs the server holds a shared lock on `FOLDER/needed`, which the kernel takes away however that process
ends; the keeper waits for the lock itself, then kills the server and removes the folder and the note. It is nobody's
child, so that it outlives the process that asked for it as long as another one needs the server.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

from tests.servers.processes import kill_family

_PR_SET_PDEATHSIG = 1


class Keeper:
    """Is the state of this process: at most one server."""

    def __init__(self, folder: Path, note: Path, *, uid: int, command: list[str]) -> None:
        self.folder, self.note, self.command = folder, note, command
        self.user = {} if uid == os.getuid() else {"user": uid, "group": uid, "extra_groups": []}
        self.server: subprocess.Popen[bytes] | None = None
        self.turn = threading.Lock()

    def start(self) -> int:
        """Start the server and return its pid."""
        with self.turn, (self.folder / "log").open("ab") as log:
            self.server = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
                **self.user,  # type: ignore[arg-type]
            )
        threading.Thread(target=self.server.wait, daemon=True).start()
        return self.server.pid

    def end_when_unneeded(self) -> None:
        """Wait until no process needs the server, then leave nothing behind."""
        needed = os.open(self.folder / "needed", os.O_RDWR)
        fcntl.lockf(needed, fcntl.LOCK_EX)
        with self.turn:
            if self.server is not None and self.server.returncode is None:
                kill_family(self.server.pid)
            shutil.rmtree(self.folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                self.note.unlink()
            os._exit(0)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main(folder: str, note: str, uid: str, *command: str) -> None:
    """Answer the process that started this one, as long as there is one."""
    keeper = Keeper(Path(folder), Path(note), uid=int(uid), command=list(command))
    if os.fork():
        os._exit(0)
    os.setsid()
    # A Ctrl-C is for the tests; the keeper goes when they have gone.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    unneeded = threading.Thread(target=keeper.end_when_unneeded)
    unneeded.start()
    for line in sys.stdin:
        if line.strip() == "start":
            print(keeper.start(), flush=True)
    unneeded.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
