"""Is the one path guard: every path that a tool touches is looked up here, beneath the folders of its environment.

A path is walked name by name from a folder that is held by its descriptor. No step follows a link by itself: a link is
read, and where it leads is walked by the same rules, so that one which leads out is refused and nobody who swaps a
folder for a link meanwhile can lead a step elsewhere. Where no name on the way is a link, Linux does the walk in one
call (`openat2` with RESOLVE_BENEATH). What is found is a folder's descriptor and one name in it, by which files are
read, written and replaced. A hard link is a file of the workspace like any other: it is read, and what is written takes
its name alone, so that the file's other names keep what they had.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import fnmatch
import os
import stat
import unicodedata
from collections.abc import Iterator
from enum import Enum

from power_loop.contracts.errors import PathRefusedError, ToolError
from power_loop.contracts.frozen import frozen
from power_loop.runtime.host.directories import HAS_DESCRIPTORS, Directory, HeldDirectory, NamedDirectory
from power_loop.runtime.host.environment import RuntimeEnv

# What Linux takes as one path.
_MAX_PATH_BYTES = 4_096
# What Linux follows in one path.
_MAX_LINKS = 40
# Names that one look-up enters: `..` begins at the root again, so a hostile path could make many of them.
_MAX_STEPS = 2_000
# A folder that is swapped all the time is not waited for.
_MAX_TRIES = 20
_MAX_NAMES_FOR_HINT = 2_000
_MAX_SHOWN_CHARS = 200
_UNSETTLED = (errno.ELOOP, errno.ENOTDIR, errno.ENOENT)
# What Windows takes for a device, whatever its extension.
_DEVICES = frozenset({"CON", "PRN", "AUX", "NUL", *(f"{kind}{n}" for kind in ("COM", "LPT") for n in range(10))})


class Lookup(str, Enum):
    """Is how a folder on the way is reached."""

    KERNEL = "kernel"  # openat2 where it can, else step by step
    STEPS = "steps"  # one openat with O_NOFOLLOW a name
    NAMES = "names"  # by whole paths: for systems without descriptors of folders


@frozen
class Place:
    """Is what a path stands for: a name in a folder that is held, and what has the name (None: nothing).

    `shown` is the path as a model is told it, `parts` its names below the root, links resolved. `status` is of the
    name itself, which is no link.
    """

    directory: Directory
    name: str
    parts: tuple[str, ...]
    shown: str
    is_writable: bool
    status: os.stat_result | None
    made: tuple[tuple[str, ...], ...] = ()

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return self.status is not None and stat.S_ISDIR(self.status.st_mode)

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return self.status is not None and stat.S_ISREG(self.status.st_mode)

    def folder(self) -> Directory:
        """Return the folder that it is. Raises `tool.failed` if it is none."""
        if not self.is_folder:
            raise ToolError(f"{self.shown!r} is {kind_of(self.status)}, no folder: give the path of a folder")
        with translated(self.shown):
            return self.directory.enter(self.name)


@frozen
class Entry:
    """Is one thing that a walk finds: its folder, its name, its parts below where the walk began, and what it is."""

    directory: Directory
    name: str
    parts: tuple[str, ...]
    status: os.stat_result

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.status.st_mode)


@frozen
class _Root:
    path: str
    names: tuple[str, ...]
    identity: tuple[int, int]
    is_writable: bool


class PathGuard:
    """Looks up paths beneath the folders of one environment; safe to share between threads."""

    __slots__ = ("_lookup", "_roots", "env")

    def __init__(self, env: RuntimeEnv, *, lookup: Lookup | None = None) -> None:
        """Take the environment. `lookup` is chosen for the system unless it is given.

        A folder that has another one in its place later is refused.
        """
        self.env = env
        self._lookup = lookup or (Lookup.KERNEL if HAS_DESCRIPTORS else Lookup.NAMES)
        roots = [(env.workspace, True), *((root, False) for root in env.read_only_roots)]
        self._roots = tuple(
            _Root(str(path), _names_of(str(path)), self._open(str(path)).identity(), is_writable)
            for path, is_writable in roots
        )

    def find(self, path: str) -> Place:
        """Return what a path stands for, in the workspace or a read-only root.

        Raises `path.refused` for what leads out or is no path, and `tool.failed` if a folder on the way is missing.
        """
        return _Walk(self, path, for_write=False).run()

    def find_for_write(self, path: str, *, makes_parents: bool = False) -> Place:
        """Return what a path stands for if it may be written; the folders on the way are made if that is asked for.

        Raises `path.refused` for a protected name, too, and for one in a read-only root.
        """
        return _Walk(self, path, for_write=True, makes_parents=makes_parents).run()

    def walk(self, place: Place, *, skips: frozenset[str] = frozenset()) -> Iterator[Entry]:
        """Yield what is in a folder and below it, in order, a folder before what is in it; links are not followed.

        Folders named in `skips` are left out, and what vanishes or cannot be read meanwhile. It goes as deep as the
        limits of the environment allow.
        """
        limits = self.env.limits
        # One more than is looked at, so that whoever counts sees that there are more.
        yield from _walk(place.folder(), (), skips=skips, depth=limits.max_depth, limit=limits.max_entries + 1)

    def root_at(self, names: tuple[str, ...]) -> tuple[_Root, tuple[str, ...]] | None:
        """Return the root that an absolute path lies in and the rest of the path; None if it lies in none."""
        within = [root for root in self._roots if names[: len(root.names)] == root.names]
        if not within:
            return None
        root = max(within, key=lambda one: len(one.names))
        return root, names[len(root.names) :]

    @property
    def workspace(self) -> _Root:
        """The root in which relative paths begin."""
        return self._roots[0]

    def open_root(self, root: _Root) -> Directory:
        """Return a root as it was when the guard was made. Raises `path.refused` if another folder is in its place."""
        with contextlib.suppress(OSError):
            directory = self._open(root.path)
            if directory.identity() == root.identity:
                return directory
        raise PathRefusedError(
            f"{root.path!r} is not the folder any more that it was when the agent was made: tell the user"
        )

    def _open(self, path: str) -> Directory:
        return NamedDirectory(path) if self._lookup is Lookup.NAMES else HeldDirectory.at(path)

    def deep(self, directory: Directory, names: tuple[str, ...]) -> Directory | None:
        """Return a folder deep in another one by one call; None where that cannot be had."""
        if self._lookup is Lookup.KERNEL and isinstance(directory, HeldDirectory):
            return directory.enter_beneath("/".join(names))
        return None

    def check_writable(self, root: _Root, names: tuple[str, ...], shown: str) -> None:
        """Raise `path.refused` for what lies in a read-only root or has a protected name on its way."""
        if not root.is_writable:
            raise PathRefusedError(
                f"{shown!r} lies in a folder that is read only: write in the workspace {self.workspace.path!r}"
            )
        for name in names:
            if self.is_protected(name):
                raise PathRefusedError(
                    f"{shown!r} is not written by tools, because {name!r} is protected: choose another name, or ask the"
                    " user to do it"
                )

    def is_protected(self, name: str) -> bool:
        """Tell whether a name is protected, as any file system may spell it: case, width, invisible characters."""
        plain = _plain(name)
        return any(fnmatch.fnmatchcase(plain, _plain(pattern)) for pattern in self.env.protected)


class _Walk:
    """Is one look-up of one path."""

    __slots__ = ("_guard", "_links", "_makes_parents", "_path", "_steps", "_tries", "directory", "for_write", "names")

    def __init__(self, guard: PathGuard, path: str, *, for_write: bool, makes_parents: bool = False) -> None:
        self._guard = guard
        self._path = path
        self._makes_parents = makes_parents
        self._links = 0
        self._steps = 0
        self._tries = 0
        self.for_write = for_write
        self.names: list[str] = []

    def run(self) -> Place:
        names = _checked_names(self._path)
        if os.path.isabs(self._path):
            root, rest = self._enter_absolute(names)
        else:
            root, rest = self._guard.workspace, names
        made: list[tuple[str, ...]] = []
        self.directory = self._guard.open_root(root)
        pending = self._skip_ahead(rest)
        while pending:
            name = pending.pop()
            if name == "..":
                if not self.names:
                    above = root.names[:-1] if root.names else ()
                    root, rest = self._enter_absolute((*above, *reversed(pending)))
                    self.directory = self._guard.open_root(root)
                    pending = list(reversed(rest))
                    continue
                self.names.pop()
                self._reenter(root)
                continue
            status = self._status(name)
            if status is not None and stat.S_ISLNK(status.st_mode):
                target = self._target(name)
                if target is None:  # it was swapped just now
                    pending.append(name)
                    continue
                pending += reversed(_names_of(target))
                if os.path.isabs(target):
                    root, rest = self._enter_absolute(tuple(reversed(pending)))
                    self.directory = self._guard.open_root(root)
                    self.names = []
                    pending = list(reversed(rest))
                continue
            if not pending:
                return self._place(root, name, status, tuple(made))
            if status is None:
                self._make(root, name, pending)
                made.append((*self.names, name))
            elif not stat.S_ISDIR(status.st_mode):
                raise ToolError(f"{self._shown(root, name)!r} is {kind_of(status)}, no folder, so nothing is below it")
            if not self._enter(name):
                pending.append(name)
        return self._place(root, ".", self._status("."), tuple(made))

    def _skip_ahead(self, rest: tuple[str, ...]) -> list[str]:
        """Go through the folders of a path in one call if that can be had; return what is left, last name first."""
        if len(rest) > 1 and ".." not in rest:
            deep = self._guard.deep(self.directory, rest[:-1])
            if deep is not None:
                self.directory = deep
                self.names = list(rest[:-1])
                return [rest[-1]]
        return list(reversed(rest))

    def _place(self, root: _Root, name: str, status: os.stat_result | None, made: tuple[tuple[str, ...], ...]) -> Place:
        parts = tuple(self.names) if name == "." else (*self.names, name)
        shown = self._shown(root, name)
        if self.for_write:
            self._guard.check_writable(root, parts, shown)
        return Place(self.directory, name, parts, shown, root.is_writable, status, made)

    def _shown(self, root: _Root, name: str) -> str:
        names = self.names if name == "." else [*self.names, name]
        if root is self._guard.workspace:
            return "/".join(names) or "."
        return "/".join((root.path.rstrip("/"), *names))

    def _enter_absolute(self, names: tuple[str, ...]) -> tuple[_Root, tuple[str, ...]]:
        found = self._guard.root_at(names)
        if found is None:
            raise PathRefusedError(
                f"{shortened(self._path)!r} leads out of the workspace {self._guard.workspace.path!r}: give a path in"
                " it, such as 'src/main.py'"
            )
        return found

    def _status(self, name: str) -> os.stat_result | None:
        try:
            return self.directory.stat(name)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise told(error, self._path) from error

    def _target(self, name: str) -> str | None:
        self._links += 1
        if self._links > _MAX_LINKS:
            raise PathRefusedError(
                f"{shortened(self._path)!r} goes through more than {_MAX_LINKS} links: name the file itself"
            )
        try:
            return self.directory.read_link(name)
        except OSError as error:
            self._try_again(error)
            return None

    def _enter(self, name: str) -> bool:
        """Go into a folder; False if something else has its name by now."""
        self._step()
        try:
            self.directory = self.directory.enter(name)
        except OSError as error:
            self._try_again(error)
            return False
        self.names.append(name)
        return True

    def _reenter(self, root: _Root) -> None:
        """Go to where the names lead, from the root: the folder above one may be another than it was."""
        self.directory = self._guard.open_root(root)
        for name in self.names:
            self._step()
            try:
                self.directory = self.directory.enter(name)
            except OSError as error:
                raise told(error, self._path) from error

    def _step(self) -> None:
        self._steps += 1
        if self._steps > _MAX_STEPS:
            raise PathRefusedError(f"{shortened(self._path)!r} has too many names: give a shorter path, without '..'")

    def _try_again(self, error: OSError) -> None:
        self._tries += 1
        if error.errno not in (*_UNSETTLED, errno.EINVAL) or self._tries > _MAX_TRIES:
            raise told(error, self._path) from error

    def _make(self, root: _Root, name: str, pending: list[str]) -> None:
        shown = self._shown(root, name)
        if not self._makes_parents or ".." in pending:
            raise missing(self.directory, name, shown, is_folder=True)
        names = (*self.names, name, *reversed(pending))
        self._guard.check_writable(root, names, shown)
        if len(names) > self._guard.env.limits.max_depth:
            raise PathRefusedError(
                f"{shortened(self._path)!r} lies {len(names)} folders deep: {self._guard.env.limits.max_depth} are made"
                " at most"
            )
        try:
            self.directory.make(name)
        except FileExistsError:
            return
        except (OSError, ValueError) as error:
            raise told(error, shown) from error


class translated:  # noqa: N801 - it is used like a function
    """Says in a tool's error what the system says of a path."""

    __slots__ = ("_shown",)

    def __init__(self, shown: str) -> None:
        self._shown = shown

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise told(error, self._shown) from error


def told(error: OSError | ValueError, path: str) -> ToolError:
    """Return the tool's error for what the system says of a path."""
    shown = shortened(path)
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.ENAMETOOLONG:
        return PathRefusedError(f"{shown!r} has a name that is too long for this file system: give a shorter one")
    if number == errno.ELOOP:
        return PathRefusedError(f"{shown!r} is a link by now, or one that leads in a circle: look again with glob")
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ToolError(f"{shown!r} is not allowed to this process ({_words(error)}): leave it, or ask the user")
    if number in (errno.ENOSPC, errno.EDQUOT):
        return ToolError(f"there is no room on the disk for {shown!r}: nothing was changed; free some, or ask the user")
    if number == errno.ENOENT:
        return ToolError(f"{shown!r} is not there (any more): look again with glob")
    return ToolError(f"{shown!r} cannot be used: {_words(error)}")


def _words(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def missing(directory: Directory, name: str, shown: str, *, is_folder: bool = False) -> ToolError:
    """Return the error for a name that is not in a folder, with the names there that come close."""
    what = "folder" if is_folder else "file"
    try:
        names = [one for one in directory.names(_MAX_NAMES_FOR_HINT) if one.isprintable()]
    except OSError:
        names = []
    close = difflib.get_close_matches(name, names, 3)
    above = shown[: len(shown) - len(name)]
    hint = f"did you mean {' or '.join(repr(above + one) for one in close)}?" if close else "find it with glob"
    return ToolError(f"there is no {what} {shortened(shown)!r}: {hint}")


def kind_of(status: os.stat_result | None) -> str:
    """Return what something is, with its article."""
    mode = 0 if status is None else status.st_mode
    kinds = (
        (stat.S_ISREG, "a file"),
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISLNK, "a link"),
    )
    return next((words for is_kind, words in kinds if is_kind(mode)), "a device" if mode else "not there")


def shortened(path: str) -> str:
    """Return a path as a message shows it."""
    return path if len(path) <= _MAX_SHOWN_CHARS else f"{path[:_MAX_SHOWN_CHARS]}…"


def _checked_names(path: str) -> tuple[str, ...]:
    """Return the names of a path. Raises `path.refused` for what is no path."""
    if not path:
        raise PathRefusedError("the path is empty: give one, such as 'src/main.py', or '.' for the workspace")
    if "\0" in path:
        raise PathRefusedError(f"{shortened(path)!r} holds a NUL character, which no path has: give another path")
    try:
        length = len(path.encode())
    except UnicodeEncodeError:
        raise PathRefusedError(
            f"{shortened(path)!a} holds half a character, which these tools cannot name: rename the file with bash"
        ) from None
    if length > _MAX_PATH_BYTES:
        raise PathRefusedError(f"the path has {length} bytes, and {_MAX_PATH_BYTES} are the most: give a shorter one")
    names = _names_of(path)
    if path.startswith("file:"):
        raise PathRefusedError(f"{shortened(path)!r} is a URL: give the path alone")
    if names and names[0] == "~":
        raise PathRefusedError(f"{shortened(path)!r} lies in a home folder: give a path in the workspace")
    if os.name == "nt":
        _check_windows(path, names)
    return names


def _names_of(path: str) -> tuple[str, ...]:
    if os.name == "nt":
        path = path.replace("\\", "/")
    return tuple(name for name in path.split("/") if name not in ("", "."))


def _check_windows(path: str, names: tuple[str, ...]) -> None:
    """Refuse what Windows reads as something else than a file of this name: devices, streams, trailing dots."""
    for name in names[1:] if os.path.isabs(path) else names:
        stem = name.split(".")[0].rstrip().upper()
        if ":" in name or stem in _DEVICES or (name != ".." and name != name.rstrip(". ")):
            raise PathRefusedError(f"{shortened(path)!r} has the name {name!r}, which Windows reads as something else")


def _plain(name: str) -> str:
    """Return a name without what some file systems do not tell apart: case, width, invisible marks, dots at its end."""
    visible = "".join(char for char in unicodedata.normalize("NFKC", name) if unicodedata.category(char) != "Cf")
    return visible.casefold().rstrip(". ") or name


def _walk(
    directory: Directory, parts: tuple[str, ...], *, skips: frozenset[str], depth: int, limit: int
) -> Iterator[Entry]:
    try:
        names = directory.names(limit)
    except OSError:
        return
    for name in names:
        try:
            status = directory.stat(name)
        except OSError:
            continue
        entry = Entry(directory, name, (*parts, name), status)
        if entry.is_folder and name in skips:
            continue
        yield entry
        if entry.is_folder and len(entry.parts) < depth:
            try:
                below = directory.enter(name)
            except OSError:
                continue
            yield from _walk(below, entry.parts, skips=skips, depth=depth, limit=limit)
