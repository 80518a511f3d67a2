"""Lets a model load skills: instructions for one kind of task, which it is told of in short and reads on demand."""

from __future__ import annotations

from typing import Annotated

from power_loop.contracts.errors import ConfigError
from power_loop.contracts.live import LiveState
from power_loop.contracts.tools import ToolDefinition
from power_loop.tools.decorator import tool
from power_loop.tools.numbered_lines import AtLeast, shown_page
from power_loop.tools.one_line import one_line
from power_loop.tools.skill_folders import MAX_SKILL_BYTES, LoadedSkill, SkillCatalogue, Skills

#: How many characters of descriptions the model is shown of all skills together, which are cut where they are more.
MAX_CATALOGUE_CHARS = 12_000
# Of each as much as tells it from the others, whatever the number.
_MIN_DESCRIPTION_CHARS = 60
_MAX_FILES_CHARS = 8_000
_MAX_LINES = 2_000
_MAX_LINE_CHARS = 2_000
# The most bytes of instructions, each of them a character, and what stands before them.
_RESULT_CHARS = MAX_SKILL_BYTES + 15_000

_DESCRIPTION = """\
Load a skill: instructions for one kind of task, and files that belong to it. Where a skill fits the task, load it \
before you begin, and follow it. With `file` you read one of its further files.

"""


def skill_tools(skills: Skills) -> tuple[ToolDefinition, ...]:
    """Return the tool `load_skill`, whose description has the skills as they are: their names and descriptions.

    What a later look finds changed is shown to the model behind all messages, so that the start of its prompt stays as
    it is. Raises `config.invalid`.
    """
    if not isinstance(skills, Skills):
        raise ConfigError(f"skills is {skills!r:.200}: give Skills([folder, ...])")
    told = skills.look()

    def load_skill(
        name: Annotated[str, "The name of the skill."],
        file: Annotated[str | None, "A further file of the skill, as load_skill lists it."] = None,
        offset: Annotated[int, AtLeast(1), "With file: the number of the first line to show."] = 1,
    ) -> str:
        return _shown_skill(skills.load(name)) if file is None else _page_of(skills, name, file, offset)

    live = LiveState("skills", lambda context: _changes(told, skills.catalogue))
    description = _DESCRIPTION + ("The skills:\n" + _listed(told) if told.skills else "There are no skills so far.")
    return (tool(description=description, effect="read", live=live, max_result_chars=_RESULT_CHARS)(load_skill),)


def _listed(catalogue: SkillCatalogue) -> str:
    """Return a line a skill. Whole descriptions where there is room for all, else as much of each as there is."""
    count = max(len(catalogue.skills), 1)
    whole = sum(len(skill.description) for skill in catalogue.skills)
    room = whole if whole <= MAX_CATALOGUE_CHARS else max(MAX_CATALOGUE_CHARS // count, _MIN_DESCRIPTION_CHARS)
    return "\n".join(f"- {skill.name}: {one_line(_cut(skill.description, room))}" for skill in catalogue.skills)


def _cut(text: str, max_chars: int) -> str:
    return text if len(text) <= max_chars else f"{text[: max_chars - 1]}…"


def _changes(told: SkillCatalogue, now: SkillCatalogue) -> str | None:
    """Say which skills are others than the description of the tool tells."""
    if now.skills == told.skills:
        return None
    before = {skill.name: skill.description for skill in told.skills}
    after = {skill.name: skill.description for skill in now.skills}
    lines = []
    changed = SkillCatalogue(tuple(skill for skill in now.skills if before.get(skill.name) != skill.description))
    if changed.skills:
        lines.append(f"Skills that are new, or that have another description by now:\n{_listed(changed)}")
    gone = [name for name in before if name not in after]
    if gone:
        lines.append(f"Skills that are gone: {', '.join(gone)}")
    return "\n".join(lines) or None


def _shown_skill(loaded: LoadedSkill) -> str:
    skill = loaded.skill
    lines = [f"The skill {skill.name}, in the folder {one_line(skill.folder)}."]
    if skill.compatibility is not None:
        lines.append(f"What it needs: {one_line(skill.compatibility)}")
    if loaded.files:
        lines += ["Its further files, which load_skill reads:", _listed_files(loaded)]
    return "\n".join([*lines, "", loaded.instructions or "(It has no instructions.)"])


def _listed_files(loaded: LoadedSkill) -> str:
    lines: list[str] = []
    room = _MAX_FILES_CHARS
    for path, size in loaded.files:
        line = f"- {one_line(path)} ({size:,} bytes)"
        room -= len(line) + 1
        if room < 0:
            break
        lines.append(line)
    is_all = len(lines) == len(loaded.files) and not loaded.has_more_files
    return "\n".join([*lines, *(() if is_all else ("- and more",))])


def _page_of(skills: Skills, name: str, file: str, offset: int) -> str:
    return shown_page(
        skills.read(name, file), file, offset=offset, max_lines=_MAX_LINES, max_line_chars=_MAX_LINE_CHARS
    )
