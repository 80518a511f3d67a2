"""Finds skills: folders with a `SKILL.md`, in roots that the application names; a broken one is told and left out.

A skill is what https://agentskills.io/specification says it is. Every path goes through the path guard, files are read
within limits, and nothing in a folder is run or granted: `allowed-tools` is told and allows nothing.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from power_loop.contracts.errors import ConfigError, PathRefusedError, ToolError
from power_loop.contracts.frozen import frozen
from power_loop.contracts.messages import clean_text
from power_loop.runtime.host.environment import EnvLimits, RuntimeEnv
from power_loop.runtime.host.files import read_file
from power_loop.runtime.host.paths import PathGuard, Place, translated
from power_loop.tools.front_matter import split_front_matter
from power_loop.tools.skill_head import Skill, read_skill_head
from power_loop.tools.text_files import decode, visible

SKILL_FILE = "SKILL.md"
#: How many skills there may be, in all roots; each is offered to the model at every call.
MAX_SKILLS = 200
MAX_ROOTS = 32
#: How many entries of a root are looked at.
MAX_ENTRIES = 1_000
#: The most bytes of a `SKILL.md`, which is shown whole: the format advises about 20,000.
MAX_SKILL_BYTES = 60_000
#: The most bytes of a further file, which is shown a page at a time.
MAX_FILE_BYTES = 1_000_000
#: How many further files are listed.
MAX_LISTED_FILES = 100

_MAX_QUOTED_CHARS = 200
# A folder of a skill is small: what is deeper or more is found by nobody.
_LIMITS = EnvLimits(max_entries=2_000, max_depth=8)

#: What tells that a file is as it was: its device, inode, size, and when it was changed.
_Mark = tuple[int, int, int, int, int]


@frozen
class SkillProblem:
    """Is a folder that is no skill although it stands among them, and why; `folder` is an absolute path."""

    folder: str
    reason: str


@frozen
class SkillCatalogue:
    """Is what a look at the roots found: the skills by name, those of the first root first, and what is none."""

    skills: tuple[Skill, ...] = ()
    problems: tuple[SkillProblem, ...] = ()

    def get(self, name: str) -> Skill | None:
        """Return the skill of a name, or None."""
        return next((skill for skill in self.skills if skill.name == name), None)


@frozen
class LoadedSkill:
    """Is a skill with its instructions and its further files: paths in its folder, and sizes in bytes.

    `has_more_files` tells that there are more than are listed.
    """

    skill: Skill
    instructions: str
    files: tuple[tuple[str, int], ...]
    has_more_files: bool


class Skills:
    """Is the skills beneath some roots; safe to share between loops and threads.

    Each folder of a root with a `SKILL.md` is a skill. Of two with the same name that of the first root counts, and the
    other one is told as a problem. What is on the disk counts: a changed file is read again, by its time, its size and
    its inode.
    """

    def __init__(self, roots: Sequence[str | os.PathLike[str]]) -> None:
        """Take the folders in which skills lie, and look into them. Raises `config.invalid` for what is no folder."""
        given: Any = roots
        if isinstance(given, (str, bytes)) or not isinstance(given, Sequence) or not 0 < len(given) <= MAX_ROOTS:
            raise ConfigError(f"roots is {given!r:.200}: give a list of 1 to {MAX_ROOTS} folders")
        self._roots = tuple(map(_guard, given))
        self._lock = threading.Lock()
        self._known: dict[str, tuple[_Mark, Skill | str]] = {}
        self._catalogue = SkillCatalogue()
        self.look()

    @property
    def roots(self) -> tuple[Path, ...]:
        """The folders, as absolute paths without links."""
        return tuple(guard.env.workspace for guard in self._roots)

    @property
    def catalogue(self) -> SkillCatalogue:
        """What the last look found; nothing is read for it."""
        return self._catalogue

    def look(self) -> SkillCatalogue:
        """Look what is there and return it: the same object as long as nothing has changed. Blocks for the disk."""
        with self._lock:
            known: dict[str, tuple[_Mark, Skill | str]] = {}
            found = _Found()
            for guard in self._roots:
                self._look_into(guard, found, known)
            self._known = known
            catalogue = SkillCatalogue(tuple(found.skills.values()), tuple(found.problems))
            if catalogue != self._catalogue:
                self._catalogue = catalogue
            return self._catalogue

    def load(self, name: str) -> LoadedSkill:
        """Return a skill as it is on the disk. Raises `tool.failed` where it cannot be had, in words for a model."""
        guard, skill = self._find(name)
        place = guard.find(f"{name}/{SKILL_FILE}")
        read, instructions = _read(place, skill.folder)
        files = _files_of(guard, name)
        return LoadedSkill(read, instructions, tuple(files[:MAX_LISTED_FILES]), len(files) > MAX_LISTED_FILES)

    def read(self, name: str, file: str) -> str:
        """Return the text of a file in a skill's folder. Raises `tool.failed`, and `path.refused` for what does not lie
        in it."""
        guard, skill = self._find(name)
        home = guard.find(name)
        try:
            place = guard.find(f"{name}/{file}")
        except PathRefusedError as error:
            raise _outside(file, skill) from error
        except ToolError as error:
            raise _no_file(file, skill) from error
        # What lies in the root may be another skill's; an absolute path is none in any folder.
        if os.path.isabs(file) or place.parts[: len(home.parts)] != home.parts:
            raise _outside(file, skill)
        if not place.is_file:
            raise _no_file(file, skill)
        content = read_file(place, max_bytes=MAX_FILE_BYTES, advice="its author should split it")
        return decode(content.data, file).text

    def _find(self, name: str) -> tuple[PathGuard, Skill]:
        catalogue = self.look()
        skill = catalogue.get(name)
        if skill is None:
            raise _no_skill(name, catalogue)
        root = os.path.dirname(skill.folder)
        return next(guard for guard in self._roots if str(guard.env.workspace) == root), skill

    def _look_into(self, guard: PathGuard, found: _Found, known: dict[str, tuple[_Mark, Skill | str]]) -> None:
        root = str(guard.env.workspace)
        try:
            names, is_all = _folders_in(guard, root)
            for name in names:
                found.add(os.path.join(root, name), self._look_at(guard, root, name, known))
            if not is_all:
                reason = f"it has more than {MAX_ENTRIES:,} entries, and some are not looked at: move what is no skill"
                found.problems.append(SkillProblem(visible(root), reason))
        except ToolError as error:
            found.problems.append(SkillProblem(visible(root), error.message))

    def _look_at(
        self, guard: PathGuard, root: str, name: str, known: dict[str, tuple[_Mark, Skill | str]]
    ) -> Skill | str:
        """Return the skill in a folder, or why it is none."""
        folder = os.path.join(root, name)
        try:
            place = guard.find(f"{name}/{SKILL_FILE}")
            status = place.status
            if status is None:
                return f"it has no {SKILL_FILE}"
            mark = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            before = self._known.get(folder)
            one = before[1] if before is not None and before[0] == mark else _skill_or_reason(place, folder)
            known[folder] = (mark, one)
        except ToolError as error:
            return error.message
        return one


class _Found:
    """Is what a look has found so far."""

    def __init__(self) -> None:
        self.skills: dict[str, Skill] = {}
        self.problems: list[SkillProblem] = []

    def add(self, folder: str, one: Skill | str) -> None:
        if isinstance(one, Skill):
            first = self.skills.get(one.name)
            if first is None and len(self.skills) < MAX_SKILLS:
                self.skills[one.name] = one
                return
            one = f"there are {MAX_SKILLS} skills already" if first is None else f"{first.folder!r} comes first"
        self.problems.append(SkillProblem(visible(folder), one))


def _guard(root: Any) -> PathGuard:
    try:
        return PathGuard(RuntimeEnv(root, limits=_LIMITS))
    except ConfigError as error:
        raise ConfigError(f"the root {root!r:.200} of skills cannot be used: give a folder that is there") from error


def _folders_in(guard: PathGuard, root: str) -> tuple[list[str], bool]:
    """Return what may be skills in a root, and whether these are all."""
    directory = guard.find(".").folder()
    with translated(root):
        names = directory.names(MAX_ENTRIES + 1)
        # A link may lead to a folder; the guard tells whether it leads out.
        kinds = [(name, directory.stat(name).st_mode) for name in names[:MAX_ENTRIES] if not name.startswith(".")]
    return [name for name, mode in kinds if stat.S_ISDIR(mode) or stat.S_ISLNK(mode)], len(names) <= MAX_ENTRIES


def _skill_or_reason(place: Place, folder: str) -> Skill | str:
    try:
        return _read(place, folder)[0]
    except ToolError as error:
        return error.message


def _read(place: Place, folder: str) -> tuple[Skill, str]:
    """Return a skill and its instructions. Raises `tool.failed` for what is none."""
    content = read_file(place, max_bytes=MAX_SKILL_BYTES, advice="move parts of it to further files of the skill")
    try:
        head, body = split_front_matter(content.data)
        return read_skill_head(head, folder), body
    except ToolError as error:
        raise ToolError(f"{place.shown!r} cannot be used: {error.message}") from error


def _files_of(guard: PathGuard, name: str) -> list[tuple[str, int]]:
    """Return the further files of a skill, one more than are listed if there are more."""
    files: list[tuple[str, int]] = []
    for entry in guard.walk(guard.find(name), skips=frozenset(guard.env.unsearched)):
        if entry.is_file and entry.parts != (SKILL_FILE,):
            files.append((visible("/".join(entry.parts)), entry.status.st_size))
            if len(files) > MAX_LISTED_FILES:
                break
    return files


def _outside(file: str, skill: Skill) -> PathRefusedError:
    return PathRefusedError(
        f"{_quoted(file)} does not lie in the folder of the skill {skill.name!r}: give a path in it, as load_skill"
        " lists them"
    )


def _no_file(file: str, skill: Skill) -> ToolError:
    return ToolError(f"the skill {skill.name!r} has no file {_quoted(file)}: load_skill without file lists them")


def _no_skill(name: str, catalogue: SkillCatalogue) -> ToolError:
    names = ", ".join(skill.name for skill in catalogue.skills)
    return ToolError(f"there is no skill {_quoted(name)}: {f'the skills are {names}' if names else 'there are none'}")


def _quoted(given: str) -> str:
    return repr(clean_text(given[:_MAX_QUOTED_CHARS]))
