"""Skills are found, read on demand and kept apart; a hostile or broken folder harms no other and leads nowhere."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from power_loop import Effect, Skills
from power_loop.errors import ConfigError, PathRefusedError, ToolError
from power_loop.tools import Skill, SkillProblem, skill_folders, skill_tools
from power_loop.tools.skill_folders import MAX_FILE_BYTES, MAX_LISTED_FILES, MAX_SKILL_BYTES
from power_loop.tools.skills import MAX_CATALOGUE_CHARS
from tests.tools.hands import Hand

SECRET = "the secret of another folder"


def write_skill(root: Path, name: str, body: str = "Do it.", *, more: str = "", **fields: str) -> Path:
    """Write a skill and return its folder."""
    head = {"name": name, "description": f"Does {name}.", **fields}
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{key}: {value}\n" for key, value in head.items())
    (folder / "SKILL.md").write_text(f"---\n{lines}{more}---\n\n{body}\n", "utf-8")
    return folder


def names_of(skills: Skills) -> list[str]:
    return [skill.name for skill in skills.look().skills]


def reasons(skills: Skills) -> dict[str, str]:
    return {os.path.basename(one.folder): one.reason for one in skills.look().problems}


def test_a_skill_is_a_folder_with_a_head_and_instructions(tmp_path: Path) -> None:
    more = "allowed-tools: Bash(git:*) Read\nmetadata:\n  author: me\n  version: 1.0\nunknown: [x]\n"
    folder = write_skill(tmp_path, "pdf-forms", "Fill in.", more=more, license="MIT", compatibility="Needs pypdf.")
    (folder / "scripts").mkdir()
    (folder / "scripts" / "fill.py").write_text("print(1)\n")
    skills = Skills([tmp_path])
    skill = Skill(
        "pdf-forms",
        "Does pdf-forms.",
        str(folder),
        license="MIT",
        compatibility="Needs pypdf.",
        allowed_tools=("Bash(git:*)", "Read"),
        metadata={"author": "me", "version": "1.0"},
    )
    assert (skills.catalogue.skills, skills.catalogue.problems, skills.roots) == ((skill,), (), (tmp_path,))
    loaded = skills.load("pdf-forms")
    assert (loaded.skill, loaded.instructions, loaded.files) == (skill, "Fill in.", (("scripts/fill.py", 9),))
    assert skills.read("pdf-forms", "scripts/fill.py") == "print(1)\n"


# ---- what is none is told, and harms no other ----

BROKEN: dict[str, tuple[bytes | None, str]] = {
    "nothing": (None, "it has no SKILL.md"),
    "no-head": (b"Do it.", "does not begin with a line '---'"),
    "no-name": (b"---\ndescription: x\n---\n", "its name is None: give at most 64"),
    "no-description": (b"---\nname: no-description\n---\n", "it has no description"),
    "another-name": (
        b"---\nname: other\ndescription: x\n---\n",
        "and its folder is 'another-name': give both the same",
    ),
    "Upper": (b"---\nname: Upper\ndescription: x\n---\n", "its name is 'Upper': give at most 64 lower-case"),
    "two--hyphens": (b"---\nname: two--hyphens\ndescription: x\n---\n", "lower-case letters and digits"),
    "n" * 65: (b"---\nname: " + b"n" * 65 + b"\ndescription: x\n---\n", "its name has 65 characters, and 64"),
    "long-words": (
        b"---\nname: long-words\ndescription: " + b"x" * 1_025 + b"\n---\n",
        "its description has 1,025 characters, and 1,024",
    ),
    "a-list": (b"---\nname: a-list\ndescription: [x]\n---\n", "its description is no text"),
    "odd-metadata": (b"---\nname: odd-metadata\ndescription: x\nmetadata: [x]\n---\n", "its metadata is no mapping"),
    "odd-tools": (b"---\nname: odd-tools\ndescription: x\nallowed-tools:\n  a: b\n---\n", "its allowed-tools are no"),
    "no-utf8": (b"---\nname: no-utf8\ndescription: \xff\n---\n", "it is no UTF-8"),
    "huge": (b"---\nname: huge\ndescription: x\n---\n" + b"x" * MAX_SKILL_BYTES, "60,000 are read at most"),
    "bomb": (b"---\nname: &a bomb\ndescription: [*a, *a]\n---\n", "its fields"),
}


def test_each_broken_skill_is_told_with_its_reason_and_the_others_are_there(tmp_path: Path) -> None:
    for name, (data, _) in BROKEN.items():
        (tmp_path / name).mkdir()
        if data is not None:
            (tmp_path / name / "SKILL.md").write_bytes(data)
    write_skill(tmp_path, "whole")
    (tmp_path / "README.md").write_text("no folder")
    write_skill(tmp_path, ".hidden")
    skills = Skills([tmp_path])
    assert names_of(skills) == ["whole"]
    told = reasons(skills)
    assert told.keys() == BROKEN.keys()
    for name, (_, reason) in BROKEN.items():
        assert reason in told[name], name
    with pytest.raises(ToolError, match="there is no skill 'huge': the skills are whole"):
        skills.load("huge")


def test_what_is_no_file_and_what_leads_out_is_no_skill(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    write_skill(root, "whole")
    write_skill(outside, "away", SECRET)
    (root / "away").symlink_to(outside / "away")
    (root / "file").mkdir()
    (root / "file" / "SKILL.md").symlink_to(outside / "away" / "SKILL.md")
    (root / "pipe").mkdir()
    os.mkfifo(root / "pipe" / "SKILL.md")
    (root / "folder" / "SKILL.md").mkdir(parents=True)
    (root / "circle").symlink_to("circle")
    os.mkdir(os.fsencode(root) + b"/\xff")
    skills = Skills([root])
    assert names_of(skills) == ["whole"]
    told = reasons(skills)
    assert told.keys() == {"away", "file", "pipe", "folder", "circle", "\\xff"}
    assert "is a pipe" in told["pipe"]
    for name in ("away", "file"):
        assert "leads out" in told[name]
    assert all(isinstance(problem, SkillProblem) for problem in skills.catalogue.problems)


def test_the_first_root_wins_and_the_other_skill_is_told(tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    write_skill(first, "pdf", "Mine.")
    write_skill(second, "pdf", "Theirs.")
    write_skill(second, "csv")
    (third / "csv").mkdir(parents=True)
    skills = Skills([first, second, third])
    assert [(skill.name, skill.folder) for skill in skills.look().skills] == [
        ("pdf", str(first / "pdf")),
        ("csv", str(second / "csv")),
    ]
    assert skills.load("pdf").instructions == "Mine."
    shadowed, nothing = skills.catalogue.problems
    assert (shadowed.folder, shadowed.reason) == (str(second / "pdf"), f"{str(first / 'pdf')!r} comes first")
    assert nothing.folder == str(third / "csv")
    (first / "pdf" / "SKILL.md").write_text("broken")
    assert skills.load("pdf").instructions == "Theirs.", "what is no skill shadows none"


def test_a_root_whose_place_another_folder_takes_is_told(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    write_skill(first, "pdf")
    write_skill(second, "csv")
    skills = Skills([first, second])
    first.rename(tmp_path / "moved")
    first.symlink_to(second)
    assert names_of(skills) == ["csv"]
    [problem] = skills.catalogue.problems
    assert (problem.folder, "is not the folder any more" in problem.reason) == (str(first), True)


def test_there_are_only_so_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skill_folders, "MAX_SKILLS", 2)
    for name in ("a", "b", "c"):
        write_skill(tmp_path, name)
    skills = Skills([tmp_path])
    assert names_of(skills) == ["a", "b"]
    assert reasons(skills) == {"c": "there are 2 skills already"}
    monkeypatch.setattr(skill_folders, "MAX_ENTRIES", 2)
    [problem] = skills.look().problems
    assert (problem.folder, "more than 2 entries" in problem.reason) == (str(tmp_path), True)


@pytest.mark.parametrize("roots", ["skills", b"skills", [], None, 5, ["missing"], [5], ["SKILL.md"], ["x"] * 33])
def test_roots_that_are_none_are_refused(roots: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "SKILL.md").write_text("")
    with pytest.raises(ConfigError, match=r"roots is|the root .* of skills cannot be used"):
        Skills(roots)
    with pytest.raises(ConfigError, match="give Skills"):
        skill_tools(roots)


# ---- what is on the disk counts ----


def test_changes_are_seen_and_what_has_not_changed_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def counted(place: Any, **options: Any) -> Any:
        read.append(place.shown)
        return skill_files_read(place, **options)

    skill_files_read = skill_folders.read_file
    monkeypatch.setattr(skill_folders, "read_file", counted)
    write_skill(tmp_path, "a")
    write_skill(tmp_path, "b")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "SKILL.md").write_text("broken")
    skills = Skills([tmp_path])
    assert read == ["a/SKILL.md", "b/SKILL.md", "c/SKILL.md"]
    before = skills.look()
    assert skills.look() is before
    assert len(read) == 3
    write_skill(tmp_path, "b", description="Another one.")
    write_skill(tmp_path, "c")
    (tmp_path / "a").rename(tmp_path / "away")
    after = skills.look()
    assert [(skill.name, skill.description) for skill in after.skills] == [("b", "Another one."), ("c", "Does c.")]
    assert [os.path.basename(problem.folder) for problem in after.problems] == ["away"]
    assert sorted(read[3:]) == ["away/SKILL.md", "b/SKILL.md", "c/SKILL.md"]
    write_skill(tmp_path, "b", "Other words.")
    assert skills.load("b").instructions == "Other words."


# ---- further files ----


def test_a_file_is_read_only_if_it_lies_in_the_folder_of_its_skill(tmp_path: Path) -> None:
    root = tmp_path / "root"
    folder = write_skill(root, "a")
    other = write_skill(root, "b")
    (other / "secret.txt").write_text(SECRET)
    (tmp_path / "outside.txt").write_text(SECRET)
    (folder / "inside.txt").write_text("fine")
    (folder / "good").symlink_to("inside.txt")
    (folder / "link").symlink_to("../b/secret.txt")
    (folder / "out").symlink_to("../../outside.txt")
    (folder / "up").symlink_to("..")
    (folder / "root").symlink_to("/")
    (folder / "binary").write_bytes(b"\0\1")
    (folder / "huge").write_bytes(b"x" * (MAX_FILE_BYTES + 1))
    os.mkfifo(folder / "pipe")
    skills = Skills([root])
    assert (skills.read("a", "inside.txt"), skills.read("a", "./good")) == ("fine", "fine")
    outside = [
        *(
            "../b/secret.txt",
            "link",
            "out",
            "up/b/secret.txt",
            "root/etc/passwd",
            "../../outside.txt",
            "..",
            "x/../../b",
        ),
        *(str(folder / "inside.txt"), "/etc/passwd", "\0", "\ud800", "x" * 5_000, "a/" * 3_000, "../a/../b/SKILL.md"),
    ]
    for path in outside:
        with pytest.raises((PathRefusedError, ToolError)) as caught:
            skills.read("a", path)
        assert SECRET not in caught.value.message
        assert "glob" not in caught.value.message
    for path in ("missing", "missing/file", "pipe", ".", "", "inside.txt/x"):
        with pytest.raises(ToolError, match="load_skill"):
            skills.read("a", path)
    for path, reason in (("binary", "is binary"), ("huge", "are read at most: its author")):
        with pytest.raises(ToolError, match=reason):
            skills.read("a", path)


def test_whoever_swaps_a_file_for_a_link_meanwhile_leads_nowhere(tmp_path: Path) -> None:
    root = tmp_path / "root"
    folder = write_skill(root, "a")
    (write_skill(root, "b") / "more.md").write_text(SECRET)
    (tmp_path / "more.md").write_text(SECRET)
    targets = ("../b/more.md", "../../more.md", "fine.md")
    (folder / "fine.md").write_text("fine")
    (folder / "more.md").symlink_to("fine.md")
    skills = Skills([root])
    is_over = threading.Event()

    def swap() -> None:
        for target in itertools.cycle(targets):
            if is_over.is_set():
                return
            (folder / "next").symlink_to(target)
            (folder / "next").replace(folder / "more.md")

    swapper = threading.Thread(target=swap)
    swapper.start()
    said = set()
    try:
        for _ in range(1_000):
            with contextlib.suppress(ToolError):
                said.add(skills.read("a", "more.md"))
    finally:
        is_over.set()
        swapper.join()
    assert said <= {"fine"}


def test_the_files_that_are_listed_are_bounded_and_are_no_links(tmp_path: Path) -> None:
    folder = write_skill(tmp_path, "a")
    for number in range(MAX_LISTED_FILES + 5):
        (folder / f"{number:03}.txt").write_text("x")
    (folder / "000-link").symlink_to("/etc/passwd")
    loaded = Skills([tmp_path]).load("a")
    assert len(loaded.files) == MAX_LISTED_FILES
    assert loaded.has_more_files
    assert all(name.endswith(".txt") for name, _ in loaded.files)


# ---- the tool ----


def test_the_tool_tells_the_skills_and_gives_instructions_and_files(tmp_path: Path) -> None:
    folder = write_skill(
        tmp_path, "pdf", "Use `more.md`.", description='Reads "PDF" files.', compatibility="Needs luck."
    )
    (folder / "more.md").write_text("one\ntwo\nthree\n")
    (folder / "odd\nname").write_text("")
    hand = Hand(skill_tools(Skills([tmp_path])))
    definition = hand.tools["load_skill"]
    assert definition.effect is Effect.READ
    assert definition.description.endswith('The skills:\n- pdf: "Reads \\"PDF\\" files."')
    assert hand("load_skill", name="pdf") == (
        f'The skill pdf, in the folder "{folder}".\n'
        'What it needs: "Needs luck."\n'
        "Its further files, which load_skill reads:\n"
        '- "more.md" (14 bytes)\n'
        '- "odd\\nname" (0 bytes)\n'
        "\n"
        "Use `more.md`."
    )
    assert hand("load_skill", name="pdf", file="more.md") == "1\tone\n2\ttwo\n3\tthree"
    assert hand("load_skill", name="pdf", file="more.md", offset=3) == "3\tthree\n(lines 3 to 3 of 3: this is the end)"
    assert hand("load_skill", name="pdf", file="odd\nname") == "(the file is empty)"
    with pytest.raises(ToolError, match=r"'more\.md' has 3 lines: give an offset from 1 to 3"):
        hand("load_skill", name="pdf", file="more.md", offset=4)
    with pytest.raises(ToolError, match="there is no skill 'PDF': the skills are pdf"):
        hand("load_skill", name="PDF")


def test_the_catalogue_is_bounded_and_says_something_of_every_skill(tmp_path: Path) -> None:
    for number in range(200):
        write_skill(tmp_path, f"skill-{number}", description="x" * 1_000)
    write_skill(tmp_path, "skill-0", description='</tools> "\\u2028" and more')
    [definition] = skill_tools(Skills([tmp_path]))
    listed = definition.description.partition("The skills:\n")[2]
    assert len(listed.splitlines()) == 200
    assert all("x" * 50 in line or "and more" in line for line in listed.splitlines())
    assert "</" not in listed
    assert len(listed) < MAX_CATALOGUE_CHARS + 200 * 40


def test_no_name_reaches_a_skill_that_is_none(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write_skill(root, "a")
    write_skill(tmp_path, "outside", SECRET)
    hand = Hand(skill_tools(Skills([root])))
    for name in ("../outside", "", ".", "a/", "a/../a", "A", "\0", "\ud800", "x" * 100_000, "a\n", "\u202ea"):
        with pytest.raises(ToolError, match="there is no skill") as caught:
            hand("load_skill", name=name)
        assert len(caught.value.message) < 1_500
