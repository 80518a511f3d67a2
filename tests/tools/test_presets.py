"""Presets hold the tools that they promise, and those that explore cannot change a byte."""

from __future__ import annotations

import base64
import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from power_loop import Effect, ImagePart, RuntimeEnv, Skills, ToolPreset, tool_preset
from power_loop.errors import ConfigError, ToolError
from power_loop.runtime.host.pdf import can_read_pdf
from power_loop.sandbox import EnvLimits
from power_loop.tools import explore_tools
from tests.tools.hands import Hand

PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII=")


class NoonClock:
    """Stands still at noon of the third of July 2025, UTC."""

    def now_ms(self) -> int:
        """Return it."""
        return 1_751_544_000_000

    def monotonic_s(self) -> float:
        """Stand still."""
        return 0.0

    async def sleep(self, seconds: float) -> None:
        """Return at once."""

    def new_id(self, kind: str) -> str:
        """Return the same id always."""
        return f"{kind}_1"


EXPLORE = {"read_file", "glob", "grep", "view_image", "read_pdf", "current_time"}
CORE = EXPLORE | {"write_file", "edit_file", "apply_patch", "bash", "todo"}
FULL = CORE | {
    *("background_run", "background_list", "background_check", "background_wait", "background_stop"),
    *("note_write", "note_read", "note_list", "note_remove"),
    *("request_user_input", "recall_compacted", "recall_send"),
    *("schedule_wakeup", "list_wakeups", "cancel_wakeup"),
}


@pytest.mark.parametrize(("name", "tools"), [("explore", EXPLORE), (ToolPreset.CORE, CORE), ("full", FULL)])
def test_a_preset_holds_its_tools(name: ToolPreset | str, tools: set[str], tmp_path: Path) -> None:
    env = RuntimeEnv(tmp_path)
    expected = tools if can_read_pdf() else tools - {"read_pdf"}
    made = [one.name for one in tool_preset(name, env)]
    assert (set(made), len(made)) == (expected, len(expected))
    with_skills = {one.name for one in tool_preset(name, env, skills=Skills([tmp_path]))}
    assert with_skills == expected | {"load_skill"}
    assert all(f"`{tool}`" in (tool_preset.__doc__ or "") for tool in (*tools, "load_skill"))


def test_what_is_no_preset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give one of 'explore', 'core', 'full'"):
        tool_preset("everything", RuntimeEnv(tmp_path))
    with pytest.raises(ConfigError, match="give a RuntimeEnv"):
        tool_preset("core", tmp_path)  # type: ignore[arg-type]


def test_every_tool_that_explores_says_that_it_only_reads(tmp_path: Path) -> None:
    tools = (
        *explore_tools(RuntimeEnv(tmp_path)),
        *tool_preset("explore", RuntimeEnv(tmp_path), skills=Skills([tmp_path])),
    )
    assert {tool.effect for tool in tools} == {Effect.READ}


def snapshot(folder: Path) -> dict[str, tuple[object, ...]]:
    """Return everything of a tree that a tool could change, times of reading aside."""
    found: dict[str, tuple[object, ...]] = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        status = path.lstat()
        data = path.read_bytes() if path.is_file() and not path.is_symlink() else None
        link = os.readlink(path) if path.is_symlink() else None
        found[str(path)] = (status.st_mode, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, data, link)
    return found


_PATHS = (
    "a.txt",
    "a.pdf",
    "src",
    "link",
    "out",
    "..",
    ".",
    "/",
    "*",
    "**",
    "a.png",
    "pipe",
    "new/file",
    ".git/config",
    "~",
)
_TRICKS = ("> x", "; rm -rf .", "$(touch x)", "--", "-o", "--pre=touch", "\0", "x" * 300, "(a+)+$")
_WORDS = st.sampled_from((*_PATHS, *_TRICKS))
_TEXTS = st.lists(_WORDS | st.text(max_size=4), min_size=1, max_size=4).map("/".join) | _WORDS
_CALLS = {
    "read_file": {"path": _TEXTS, "offset": st.integers(1, 9)},
    "glob": {"pattern": _TEXTS, "path": _TEXTS},
    "grep": {"pattern": _TEXTS, "path": _TEXTS, "glob": _TEXTS, "literal": st.booleans()},
    "view_image": {"path": _TEXTS},
    "read_pdf": {"path": _TEXTS, "offset": st.integers(1, 9)},
    "current_time": {"zone": _TEXTS},
    "load_skill": {"name": _TEXTS | st.just("src"), "file": st.none() | _TEXTS},
}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_tool_that_explores_can_change_a_byte(tmp_path: Path, data: st.DataObject) -> None:
    workspace = tmp_path / "ws"
    if not workspace.exists():
        (workspace / "src").mkdir(parents=True)
        (workspace / "a.txt").write_text("a\n")
        (workspace / "src" / "b").write_text("b\n")
        (workspace / "src" / "SKILL.md").write_text("---\nname: src\ndescription: Is one.\n---\n")
        (workspace / "a.pdf").write_bytes(b"%PDF-1.4 broken")
        (workspace / "a.png").write_bytes(PNG)
        (workspace / "link").symlink_to("src")
        (workspace / "out").symlink_to("..")
        os.mkfifo(workspace / "pipe")
        (tmp_path / "outside").write_text("outside")
    before = snapshot(tmp_path)
    env = RuntimeEnv(workspace, limits=EnvLimits(max_search_s=2))
    hand = Hand(tool_preset("explore", env, skills=Skills([workspace])))
    assert hand.tools.keys() - _CALLS.keys() == set(), "a tool that explores is missing here"
    name = data.draw(st.sampled_from(sorted(hand.tools)))
    arguments = {key: data.draw(values) for key, values in _CALLS[name].items()}
    with contextlib.suppress(ToolError):
        hand(name, **arguments)
    assert snapshot(tmp_path) == before


def test_an_image_is_known_by_its_bytes_and_bounded(tmp_path: Path) -> None:
    (tmp_path / "picture.txt").write_bytes(PNG)
    (tmp_path / "text.png").write_text("no picture")
    hand = Hand(explore_tools(RuntimeEnv(tmp_path)))
    assert hand("view_image", path="picture.txt") == [ImagePart.from_bytes(PNG, "image/png")]
    with pytest.raises(ToolError, match="is no PNG, JPEG, GIF or WebP"):
        hand("view_image", path="text.png")
    small = Hand(explore_tools(RuntimeEnv(tmp_path, limits=EnvLimits(max_image_bytes=9))))
    with pytest.raises(ToolError, match="make it smaller"):
        small("view_image", path="picture.txt")


def test_the_time_is_told_in_a_zone(tmp_path: Path) -> None:
    hand = Hand(explore_tools(RuntimeEnv(tmp_path), clock=NoonClock()))
    assert hand("current_time") == "Thursday, 2025-07-03 12:00:00 +0000 (UTC)"
    assert hand("current_time", zone="Asia/Tokyo") == "Thursday, 2025-07-03 21:00:00 +0900 (Asia/Tokyo)"
    for zone in ("Mars/Olympus", "../../etc/passwd", "x" * 500, ""):
        with pytest.raises(ToolError, match="there is no time zone"):
            hand("current_time", zone=zone)


def test_a_file_that_is_no_pdf_is_told(tmp_path: Path) -> None:
    tools = {tool.name for tool in explore_tools(RuntimeEnv(tmp_path))}
    if "read_pdf" not in tools:
        pytest.skip("the extra pdf is not installed")
    (tmp_path / "a").write_text("text")
    (tmp_path / "b").write_bytes(b"%PDF-1.4 broken")
    hand = Hand(explore_tools(RuntimeEnv(tmp_path)))
    with pytest.raises(ToolError, match="is no PDF file: use read_file"):
        hand("read_pdf", path="a")
    with pytest.raises(ToolError, match="is no PDF file that can be read"):
        hand("read_pdf", path="b")
