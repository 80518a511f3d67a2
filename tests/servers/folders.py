"""Makes folders that a server's user can reach, and copies prepared data into them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.servers.programs import CACHE


def server_user() -> int:
    """Return the user for a server that refuses to run as root: nobody if we are root, else ourselves."""
    return pwd.getpwnam("nobody").pw_uid if os.getuid() == 0 else os.getuid()


def fresh(name: str) -> Path:
    """Make an empty folder with a short path (a socket's may have 100 characters) that any user may pass through."""
    places = [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]
    place = next((one for one in places if _everyone_passes(one)), places[0])
    folder = Path(tempfile.mkdtemp(prefix=f"pl-{name}-", dir=place))
    folder.chmod(0o711)
    return folder


def give(folder: Path, uid: int) -> None:
    """Make the user the owner of the folder and of all that is in it."""
    if uid == os.getuid():
        return
    for path in (folder, *folder.rglob("*")):
        os.chown(path, uid, uid, follow_symlinks=False)


def copy_prepared(name: str, target: Path, prepare: Callable[[Path], None]) -> None:
    """Copy the data that `prepare` makes to `target`; it is made once on this machine, and again under a new name."""
    template = CACHE / "prepared" / name
    with _alone(CACHE / "prepared" / ".lock"):
        if not template.exists():
            made = fresh("prepare")
            try:
                prepare(made / "data")
                unfinished = template.with_name(f"{name}.{os.getpid()}")
                _copy(made / "data", unfinished)
                unfinished.rename(template)
            finally:
                shutil.rmtree(made, ignore_errors=True)
    _copy(template, target)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _copy(source: Path, target: Path) -> None:
    # cp keeps holes, and shares blocks where the file system can: half the time of shutil.copytree.
    subprocess.run(["cp", "-R", "-p", str(source), str(target)], check=True)


def _everyone_passes(folder: Path) -> bool:
    return folder.exists() and all(one.stat().st_mode & stat.S_IXOTH for one in (folder, *folder.parents))
