"""A unified diff is applied as a whole or not at all, and says which hunk does not fit and what the file has there."""

from __future__ import annotations

import contextlib
import difflib
import errno
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from power_loop import RuntimeEnv
from power_loop.errors import PathRefusedError, ToolError
from power_loop.runtime.host.directories import HeldDirectory
from power_loop.runtime.host.files import STAGED_PREFIX
from power_loop.sandbox import EnvLimits
from power_loop.tools import file_tools
from tests.tools.hands import Hand, in_a_process_that_dies

ONE_TO_NINE = "".join(f"line {n}\n" for n in range(1, 10))
CHANGE = "--- a/f\n+++ b/f\n@@ -2,3 +2,3 @@\n line 2\n-line 3\n+LINE 3\n line 4\n"


class ReadingHand(Hand):
    """Is the hand of a model that reads every file of a folder before it gives a patch."""

    def __init__(self, folder: Path, **limits: Any) -> None:
        super().__init__(file_tools(RuntimeEnv(folder, **limits)))
        self.folder = folder

    def __call__(self, name: str, **arguments: Any) -> Any:
        if name == "apply_patch" and self.context.attempt == 1:
            self.read_all()
        return super().__call__(name, **arguments)

    def read_all(self) -> None:
        for path in sorted(self.folder.rglob("*")):
            with contextlib.suppress(ToolError):
                super().__call__("read_file", path=str(path.relative_to(self.folder)))


@pytest.fixture
def hand(tmp_path: Path) -> ReadingHand:
    (tmp_path / "f").write_text(ONE_TO_NINE)
    return ReadingHand(tmp_path)


def tree(folder: Path) -> dict[str, bytes | None]:
    """Return all that is in a folder."""
    found = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in found}


def changed(text: str = ONE_TO_NINE) -> str:
    return text.replace("line 3", "LINE 3")


@pytest.mark.parametrize(
    "patch",
    [
        CHANGE,
        CHANGE.replace("-2,3 +2,3", "-4,3 +4,3"),  # another line number
        CHANGE.replace("-2,3 +2,3", "-2,9 +2,1"),  # wrong counts
        CHANGE.replace("@@ -2,3 +2,3 @@", "@@ ... @@"),
        CHANGE.replace("@@ -2,3 +2,3 @@", "@@"),
        CHANGE.replace("a/f", "f").replace("b/f", "f"),
        CHANGE.replace("a/f", "a/f\t2024-01-01 00:00:00").replace("b/f", "b/f\t2024-01-02"),
        "diff --git a/f b/f\nindex 1234567..89abcde 100644\n" + CHANGE,
        "Here is the patch:\n\n" + CHANGE + "\nThat is all.\n",
        "```diff\n" + CHANGE + "```\n",
        CHANGE.removesuffix("\n"),
        CHANGE.replace("\n", "\r\n"),
        CHANGE.replace(" line 4\n", " line 4\n\n\n"),
    ],
)
def test_what_models_get_wrong_in_headers_and_counts_is_taken(patch: str, hand: ReadingHand, tmp_path: Path) -> None:
    if "\r" in patch:
        (tmp_path / "f").write_bytes(ONE_TO_NINE.replace("\n", "\r\n").encode())
    assert hand("apply_patch", patch=patch) == "Changed f."
    assert (tmp_path / "f").read_bytes().replace(b"\r", b"").decode() == changed()


def test_lines_that_look_like_headers_are_lines_where_the_counts_say_so(hand: ReadingHand, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("-- a/x\nkeep\n")
    patch = "--- a/f\n+++ b/f\n@@ -1,2 +1,2 @@\n--- a/x\n+++ b/y\n keep\n"
    hand("apply_patch", patch=patch)
    assert (tmp_path / "f").read_text() == "++ b/y\nkeep\n"


def test_an_empty_line_stands_for_a_context_line_of_one_space(hand: ReadingHand, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("a\n\nb\n")
    hand("apply_patch", patch="--- f\n+++ f\n@@ -1,3 +1,3 @@\n a\n\n-b\n+c\n")
    assert (tmp_path / "f").read_text() == "a\n\nc\n"


def test_several_files_are_changed_made_deleted_and_renamed_at_once(hand: ReadingHand, tmp_path: Path) -> None:
    (tmp_path / "old").write_text("gone\n")
    (tmp_path / "from").write_text("moved\n")
    (tmp_path / "from").chmod(0o755)
    patch = (
        CHANGE + "diff --git a/new/deep/file b/new/deep/file\nnew file mode 100755\n--- /dev/null\n"
        "+++ b/new/deep/file\n@@ -0,0 +1,2 @@\n+#!/bin/sh\n+true\n\\ No newline at end of file\n"
        "--- a/old\n+++ /dev/null\n@@ -1 +0,0 @@\n-gone\n"
        "diff --git a/from b/to\nsimilarity index 50%\nrename from from\nrename to to\n"
        "--- a/from\n+++ b/to\n@@ -1 +1 @@\n-moved\n+moved on\n"
    )
    said = hand("apply_patch", patch=patch)
    assert said == "Changed f.\nMade new/deep/file.\nDeleted old.\nRenamed from to to."
    assert tree(tmp_path) == {
        "f": changed().encode(),
        "new": None,
        "new/deep": None,
        "new/deep/file": b"#!/bin/sh\ntrue",
        "to": b"moved on\n",
    }
    assert os.access(tmp_path / "new" / "deep" / "file", os.X_OK)
    assert os.access(tmp_path / "to", os.X_OK)
    # What it made it knows.
    hand("edit_file", path="to", old_text="moved on", new_text="stays")


def test_an_empty_file_is_made_and_deleted_and_a_mode_is_changed(hand: ReadingHand, tmp_path: Path) -> None:
    hand("apply_patch", patch="diff --git a/e b/e\nnew file mode 100644\nindex 0000000..e69de29\n")
    assert (tmp_path / "e").read_bytes() == b""
    hand("apply_patch", patch="diff --git a/e b/e\nold mode 100644\nnew mode 100755\n")
    assert os.access(tmp_path / "e", os.X_OK)
    hand("apply_patch", patch="diff --git a/e b/e\ndeleted file mode 100755\nindex e69de29..0000000\n")
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize(
    ("patch", "said"),
    [
        (CHANGE.replace(" line 2", " line two"), r"hunk 1 of 'f' .* does not fit: its lines do not stand in the file"),
        (CHANGE.replace(" line 4", " line four"), "line 4 of the file is 'line 4', and the hunk has 'line four'"),
        ("--- f\n+++ f\n@@\n+new\n", "only adds lines and does not say where"),
        ("--- g\n+++ g\n@@ -1 +1 @@\n-a\n+b\n", "there is no file 'g'"),
        ("--- /dev/null\n+++ f\n@@ -0,0 +1 @@\n+a\n", "is there already"),
        ("--- f\n+++ /dev/null\n@@ -1 +0,0 @@\n-line 1\n", "not all of its lines"),
        ("@@ -1 +1 @@\n-a\n+b\n", "does not say: put"),
        ("*** Begin Patch\n*** End Patch\n", "no unified diff"),
        ("nothing at all", "changes nothing"),
        ("--- f\n+++ f\n", "has no hunk"),
        ("diff --git a/f b/f\nGIT binary patch\nx\n", "is binary"),
        ("diff --git a/l b/l\nnew file mode 120000\n--- /dev/null\n+++ b/l\n@@ -0,0 +1 @@\n+/etc\n", "mode '120000'"),
        (CHANGE + CHANGE, "names 'f' twice"),
        ("--- /dev/null\n+++ b/../out\n@@ -0,0 +1 @@\n+x\n", "leads out of the workspace"),
        ("--- /dev/null\n+++ b/.git/hooks/x\n@@ -0,0 +1 @@\n+x\n", "is protected"),
        ("diff --git a/f b/g\nrename from f\nrename to ../g\n", "leads out of the workspace"),
    ],
)
def test_what_does_not_fit_is_told_and_nothing_is_changed(
    patch: str, said: str, hand: ReadingHand, tmp_path: Path
) -> None:
    # What would have been made before stays unmade, its folders as well.
    first = "--- /dev/null\n+++ b/made/here\n@@ -0,0 +1 @@\n+x\n"
    before = tree(tmp_path)
    for one in (patch, first + patch):
        with pytest.raises(ToolError, match=said):
            hand("apply_patch", patch=one)
        assert tree(tmp_path) == before
        if not patch.startswith(("--- ", "diff ")):
            break


def test_a_hunk_that_fits_at_several_places_is_refused_unless_its_number_tells(
    hand: ReadingHand, tmp_path: Path
) -> None:
    (tmp_path / "f").write_text("x\ny\nx\ny\n")
    with pytest.raises(ToolError, match=r"fits at several places \(lines 1, 3\): give more context"):
        hand("apply_patch", patch="--- f\n+++ f\n@@ -9,2 +9,2 @@\n-x\n+z\n y\n")
    hand("apply_patch", patch="--- f\n+++ f\n@@ -3,2 +3,2 @@\n-x\n+z\n y\n")
    assert (tmp_path / "f").read_text() == "x\ny\nz\ny\n"


@pytest.mark.parametrize("failing", range(1, 12))
def test_a_failure_in_the_middle_takes_everything_back(
    failing: int, hand: ReadingHand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "g").write_text("two\n")
    (tmp_path / "h").write_text("three\n")
    patch = (
        CHANGE + "--- /dev/null\n+++ b/made/here\n@@ -0,0 +1 @@\n+x\n"
        "--- a/g\n+++ /dev/null\n@@ -1 +0,0 @@\n-two\n--- a/h\n+++ b/h\n@@ -1 +1 @@\n-three\n+four\n"
    )
    before = tree(tmp_path)
    done = 0

    def fails(name: str) -> Any:
        real = getattr(HeldDirectory, name)

        def step(self: HeldDirectory, *args: Any) -> Any:
            nonlocal done
            done += 1
            if done == failing:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(self, *args)

        return step

    for name in ("rename", "link", "sync"):
        monkeypatch.setattr(HeldDirectory, name, fails(name))
    said = ""
    try:
        hand("apply_patch", patch=patch)
    except ToolError as error:
        said = error.message
    if said:
        assert "no room on the disk" in said
        assert tree(tmp_path) == before
    else:
        # What fails is a second name, which some file systems do not have: it is done without.
        assert sorted(tree(tmp_path)) == ["f", "h", "made", "made/here"]


@pytest.mark.parametrize("moment", range(1, 14))
def test_a_patch_whose_process_dies_anywhere_is_brought_to_its_end_by_the_second_attempt(
    moment: int, hand: ReadingHand, tmp_path: Path
) -> None:
    (tmp_path / "g").write_text("two\n")
    (tmp_path / "from").write_text("moved\n")
    patch = (
        CHANGE + "--- /dev/null\n+++ b/made/here\n@@ -0,0 +1 @@\n+x\n--- a/g\n+++ /dev/null\n@@ -1 +0,0 @@\n-two\n"
        "diff --git a/from b/to\nrename from from\nrename to to\n"
    )
    left = [moment]

    def deadly(real: Any) -> Any:
        def step(*args: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                os._exit(9)
            return real(*args, **options)

        return step

    def die() -> None:
        os.rename, os.link, os.unlink = deadly(os.rename), deadly(os.link), deadly(os.unlink)
        hand("apply_patch", patch=patch)

    hand.read_all()
    # Behind the last step it comes to its end.
    assert in_a_process_that_dies(die) in (9, 0)
    for path in ("f", "g", "from", "to", "made/here"):
        # Each file is as it was or as it becomes.
        if (tmp_path / path).exists():
            assert (tmp_path / path).read_text() in (ONE_TO_NINE, changed(), "two\n", "moved\n", "x\n")
    hand.again("apply_patch", patch=patch)
    assert tree(tmp_path) == {
        "f": changed().encode(),
        "made": None,
        "made/here": b"x\n",
        "to": b"moved\n",
    }
    hand.again("apply_patch", patch=patch)
    assert not [name for name in tree(tmp_path) if STAGED_PREFIX in name]


def test_a_patch_that_was_applied_is_not_applied_again_by_a_call_of_its_own(hand: ReadingHand, tmp_path: Path) -> None:
    hand("apply_patch", patch=CHANGE)
    with pytest.raises(ToolError, match="line 3 of the file is 'LINE 3'"):
        hand("apply_patch", patch=CHANGE)


CHANGES = {
    "change": CHANGE,
    "change of mode": "diff --git a/f b/f\nold mode 100644\nnew mode 100755\n",
    "delete": "--- a/f\n+++ /dev/null\n@@ -1,9 +0,0 @@\n" + "".join(f"-line {n}\n" for n in range(1, 10)),
    "delete whole": "diff --git a/f b/f\ndeleted file mode 100644\n",
    "rename": "diff --git a/f b/g\nrename from f\nrename to g\n",
    "rename and change": "diff --git a/f b/g\nrename from f\nrename to g\n" + CHANGE.replace("b/f", "b/g"),
}


@pytest.mark.parametrize("patch", CHANGES.values(), ids=CHANGES)
def test_a_patch_needs_the_read_that_it_is_based_on(patch: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_text(ONE_TO_NINE)
    hand = Hand(file_tools(RuntimeEnv(tmp_path)))
    made = "--- /dev/null\n+++ b/made\n@@ -0,0 +1 @@\n+x\n"
    with pytest.raises(ToolError, match="'f' has not been read"):
        hand("apply_patch", patch=made + patch)
    hand("read_file", path="f")
    (tmp_path / "f").write_text(ONE_TO_NINE + "line 10\n")
    with pytest.raises(ToolError, match="'f' has been changed since you read it"):
        hand("apply_patch", patch=made + patch)
    assert list(tree(tmp_path)) == ["f"]
    (tmp_path / "f").write_text(ONE_TO_NINE)
    hand("apply_patch", patch=made + patch)
    assert "made" in tree(tmp_path)


def test_limits_hold(tmp_path: Path) -> None:
    hand = Hand(file_tools(RuntimeEnv(tmp_path, limits=EnvLimits(max_patch_files=1, max_write_bytes=3))))
    made = "--- /dev/null\n+++ b/{}\n@@ -0,0 +1 @@\n+{}\n"
    with pytest.raises(ToolError, match="changes 2 files, and 1 are the most"):
        hand("apply_patch", patch=made.format("a", "x") + made.format("b", "x"))
    with pytest.raises(ToolError, match="would have 5 bytes, and 3 are the most"):
        hand("apply_patch", patch=made.format("deep/a", "long"))
    assert tree(tmp_path) == {}


def test_a_read_only_root_is_not_patched(tmp_path: Path) -> None:
    (tmp_path / "ws").mkdir()
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "f").write_text(ONE_TO_NINE)
    hand = Hand(file_tools(RuntimeEnv(tmp_path / "ws", read_only_roots=(tmp_path / "lib",))))
    name = f"{tmp_path}/lib/f"
    with pytest.raises(PathRefusedError, match="read only"):
        hand("apply_patch", patch=f"--- {name}\n+++ {name}\n" + CHANGE.split("\n", 2)[2])


LINES = st.lists(st.sampled_from(["a", "b", "", "-- x", "++ y", "@@", " z", "\\ n", "diff --git"]), max_size=12)


@settings(max_examples=150, deadline=None)
@given(old=LINES, new=LINES, context=st.integers(0, 3), has_end=st.booleans())
def test_every_diff_of_two_texts_turns_the_one_into_the_other(
    old: list[str], new: list[str], context: int, has_end: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("diff")
    before, after = ("".join(f"{line}\n" for line in lines) for lines in (old, new))
    if not has_end:
        before, after = before.removesuffix("\n"), after.removesuffix("\n")
    lines = difflib.unified_diff(before.splitlines(True), after.splitlines(True), "a/f", "b/f", n=context)
    end = "\n\\ No newline at end of file\n"
    pieces = [line if line.endswith("\n") else line + end for line in lines]
    if not pieces:
        return
    (folder / "f").write_text(before)
    hand = ReadingHand(folder)
    hand("apply_patch", patch="".join(pieces))
    assert (folder / "f").read_text() == after


@settings(max_examples=100, deadline=None)
@given(
    patch=st.lists(
        st.sampled_from(["--- a/f", "+++ b/f", "+++ /dev/null", "@@ -1,2 +1 @@", "@@", " a", "-a", "+b", "", "\\", "x"])
        | st.text(max_size=5),
        max_size=12,
    ).map("\n".join)
)
def test_any_text_is_a_patch_that_is_applied_or_refused(patch: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "f").write_text("a\nb\na\n")
    before = tree(folder)
    try:
        ReadingHand(folder)("apply_patch", patch=patch)
    except ToolError:
        assert tree(folder) == before
