"""Text files are read, written and edited as a model means it, and never on top of what it has not seen."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from power_loop import RuntimeEnv, StatefulAgentLoop
from power_loop.errors import PathRefusedError, ToolError
from power_loop.runtime.host.files import STAGED_PREFIX
from power_loop.sandbox import EnvLimits
from power_loop.testing import ScriptedLLM, call
from power_loop.tools import file_tools
from power_loop.tools.known_files import MAX_KNOWN_FILES
from tests.tools.hands import Hand, in_a_process_that_dies


@pytest.fixture
def hand(tmp_path: Path) -> Hand:
    return Hand(file_tools(RuntimeEnv(tmp_path)))


def left_behind(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.name.startswith(STAGED_PREFIX)]


def test_lines_are_shown_behind_their_numbers(hand: Hand, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\n\tthree")
    assert hand("read_file", path="a.txt") == "1\tone\n2\t\n3\t\tthree"
    (tmp_path / "empty").write_text("")
    assert hand("read_file", path="empty") == "(the file is empty)"


def test_a_long_file_is_read_page_by_page_and_each_page_says_how_to_go_on(tmp_path: Path) -> None:
    hand = Hand(file_tools(RuntimeEnv(tmp_path, limits=EnvLimits(max_page_lines=2))))
    (tmp_path / "a").write_text("".join(f"{n}\n" for n in range(1, 6)))
    assert hand("read_file", path="a") == "1\t1\n2\t2\n(lines 1 to 2 of 5: go on with offset=3)"
    assert hand("read_file", path="a", offset=5) == "5\t5\n(lines 5 to 5 of 5: this is the end)"
    assert hand("read_file", path="a", offset=2, limit=1) == "2\t2\n(lines 2 to 2 of 5: go on with offset=3)"
    with pytest.raises(ToolError, match="has 5 lines: give an offset from 1 to 5"):
        hand("read_file", path="a", offset=6)


def test_a_page_fits_into_what_a_model_is_shown_of_a_result(hand: Hand, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x" * 100_000 + "\n" + ("y" * 1_500 + "\n") * 100)
    page = hand("read_file", path="a")
    assert len(page) <= hand.tools["read_file"].max_result_chars
    assert "cut: the line has 100,000 characters" in page
    assert "go on with offset=" in page


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x00\x01", "is binary"),
        (b"%PDF-1.7 x", "use read_pdf"),
        (b"\x89PNG\r\n\x1a\n\x00", "use view_image"),
        (b"\xff\xfeodd", "begins as utf-16-le and is none"),
    ],
)
def test_what_is_no_text_is_refused_with_what_to_do(data: bytes, said: str, hand: Hand, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(ToolError, match=said):
        hand("read_file", path="a")


def test_a_file_is_made_with_its_folders_and_replaced_only_when_it_is_known(hand: Hand, tmp_path: Path) -> None:
    assert hand("write_file", path="a/b/c.txt", content="one\n") == "Made a/b/c.txt (1 lines)."
    assert hand("write_file", path="a/b/c.txt", content="two\n") == "Replaced a/b/c.txt (1 lines)."
    (tmp_path / "a" / "b" / "c.txt").write_text("theirs\n")
    with pytest.raises(ToolError, match="has been changed since you read it: read it again"):
        hand("write_file", path="a/b/c.txt", content="three\n")
    (tmp_path / "other").write_text("theirs")
    with pytest.raises(ToolError, match="has not been read"):
        hand("write_file", path="other", content="mine")
    assert (tmp_path / "other").read_text() == "theirs"
    assert left_behind(tmp_path) == []


def test_a_file_keeps_its_mode_mark_and_line_ends(hand: Hand, tmp_path: Path) -> None:
    path = tmp_path / "run.bat"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    path.chmod(0o751)
    assert hand("read_file", path="run.bat") == "1\tone\n2\ttwo"
    hand("edit_file", path="run.bat", old_text="one\ntwo", new_text="one\nhalf\ntwo")
    assert path.read_bytes() == b"\xef\xbb\xbfone\r\nhalf\r\ntwo\r\n"
    hand("write_file", path="run.bat", content="all\nnew\n")
    assert path.read_bytes() == b"\xef\xbb\xbfall\r\nnew\r\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o751


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_a_file_keeps_its_owner(hand: Hand, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one")
    os.chown(tmp_path / "a", 1234, 4321)
    hand("read_file", path="a")
    hand("write_file", path="a", content="two")
    status = (tmp_path / "a").stat()
    assert (status.st_uid, status.st_gid) == (1234, 4321)


def test_a_new_file_has_the_mode_that_the_process_gives_new_files(hand: Hand, tmp_path: Path) -> None:
    hand("write_file", path="a", content="x")
    (tmp_path / "b").write_text("x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_file_that_is_marked_read_only_is_left_alone(hand: Hand, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one")
    (tmp_path / "a").chmod(0o444)
    hand("read_file", path="a")
    with pytest.raises(ToolError, match="marked read-only"):
        hand("edit_file", path="a", old_text="one", new_text="two")


def test_a_link_stays_and_the_file_behind_it_is_written(hand: Hand, tmp_path: Path) -> None:
    (tmp_path / "real").write_text("one")
    (tmp_path / "link").symlink_to("real")
    hand("read_file", path="link")
    assert hand("write_file", path="link", content="two").startswith("Replaced real")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "two"


def test_a_hard_link_to_a_file_outside_is_replaced_and_the_other_file_keeps_its_content(tmp_path: Path) -> None:
    workspace = tmp_path / "ws"
    workspace.mkdir()
    (tmp_path / "outside").write_text("theirs")
    os.link(tmp_path / "outside", workspace / "a")
    hand = Hand(file_tools(RuntimeEnv(workspace)))
    hand("read_file", path="a")
    assert "1 more names, hard links, which keep the old content" in hand("write_file", path="a", content="mine")
    assert (tmp_path / "outside").read_text() == "theirs"


@pytest.mark.parametrize("name", ["write_file", "edit_file"])
def test_a_link_that_leads_out_is_not_written_through(name: str, tmp_path: Path) -> None:
    workspace = tmp_path / "ws"
    workspace.mkdir()
    (tmp_path / "outside").write_text("theirs")
    (workspace / "a").symlink_to("../outside")
    hand = Hand(file_tools(RuntimeEnv(workspace)))
    arguments = {"content": "mine"} if name == "write_file" else {"old_text": "theirs", "new_text": "mine"}
    with pytest.raises(PathRefusedError):
        hand(name, path="a", **arguments)
    assert (tmp_path / "outside").read_text() == "theirs"


def test_an_edit_needs_the_read_that_it_is_based_on(hand: Hand, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one\n")
    with pytest.raises(ToolError, match="read it with read_file first"):
        hand("edit_file", path="a", old_text="one", new_text="two")
    hand("read_file", path="a")
    assert hand("edit_file", path="./a", old_text="one", new_text="two") == "Edited a:\n1\ttwo"
    # What it wrote itself it knows.
    hand("edit_file", path="a", old_text="two", new_text="three")
    (tmp_path / "a").write_text("three and theirs\n")
    with pytest.raises(ToolError, match="read it again, then change it"):
        hand("edit_file", path="a", old_text="three", new_text="four")
    assert (tmp_path / "a").read_text() == "three and theirs\n"


@pytest.mark.parametrize(
    ("old", "said"),
    [
        ("x", r"stands 2 times in 'a' \(lines 1, 3\): give more lines around it, or replace_all"),
        ("1\tx", "leave out the line numbers"),
        ("def f():\n  y", "lines 4 to 5 differ in white space only"),
        ("nowhere", "read the place again and copy it exactly"),
        ("", "old_text is empty"),
        ("2", "would change"),
    ],
)
def test_an_edit_that_is_not_clear_says_why_and_changes_nothing(
    old: str, said: str, hand: Hand, tmp_path: Path
) -> None:
    (tmp_path / "a").write_text("x\n2\nx\ndef f():\n\ty\n")
    hand("read_file", path="a")
    with pytest.raises(ToolError, match=said):
        hand("edit_file", path="a", old_text=old, new_text="2")
    assert (tmp_path / "a").read_text() == "x\n2\nx\ndef f():\n\ty\n"


def test_all_occurrences_are_replaced_where_that_is_asked_for(hand: Hand, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x x\nx")
    hand("read_file", path="a")
    assert hand("edit_file", path="a", old_text="x", new_text="y", replace_all=True).startswith("Edited a 3 times")
    assert (tmp_path / "a").read_text() == "y y\ny"


@settings(max_examples=60, deadline=None)
@given(before=st.binary(max_size=60), after=st.binary(max_size=60), mark=st.sampled_from([b"", b"\xef\xbb\xbf"]))
def test_an_edit_leaves_every_other_byte_as_it_was(
    before: bytes, after: bytes, mark: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    before, after = (part.replace(b"\0", b"-").replace(b"\xfe", b"-") for part in (before, after))
    whole = mark + before + b"<here>" + after
    # A document is not read as text, and what stands there twice is not changed.
    assume(not whole.startswith(b"%PDF-") and whole.count(b"<here>") == 1)
    folder = tmp_path_factory.mktemp("edit")
    hand = Hand(file_tools(RuntimeEnv(folder)))
    (folder / "a").write_bytes(whole)
    hand("read_file", path="a")
    hand("edit_file", path="a", old_text="<here>", new_text="there")
    assert (folder / "a").read_bytes() == mark + before + b"there" + after


def test_utf_16_stays_utf_16(hand: Hand, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes("grüße\r\n".encode("utf-16"))
    assert hand("read_file", path="a") == "1\tgrüße"
    hand("edit_file", path="a", old_text="grüße", new_text="hallo")
    assert (tmp_path / "a").read_bytes() == "hallo\r\n".encode("utf-16")


def test_a_second_attempt_of_an_edit_that_was_made_changes_nothing(hand: Hand, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one\ncut\none more\n")
    for old, new, replaces_all in [("one\n", "one one\n", False), ("one", "two", True), ("cut\n", "", False)]:
        hand("read_file", path="a")
        known = dict(hand.context.state)
        hand("edit_file", path="a", old_text=old, new_text=new, replace_all=replaces_all)
        made = (tmp_path / "a").read_text()
        # The process died before the result was stored: the session knows the file as it was.
        hand.context.state = known
        assert hand.again("edit_file", path="a", old_text=old, new_text=new, replace_all=replaces_all) == "Edited a."
        assert (tmp_path / "a").read_text() == made


def test_a_second_attempt_on_what_somebody_else_wrote_is_refused(hand: Hand, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one\n")
    hand("read_file", path="a")
    (tmp_path / "a").write_text("one, theirs\n")
    with pytest.raises(ToolError, match="has been changed"):
        hand.again("edit_file", path="a", old_text="one", new_text="two")
    with pytest.raises(ToolError, match="has been changed"):
        hand.again("write_file", path="a", content="two")
    assert (tmp_path / "a").read_text() == "one, theirs\n"


def test_a_second_attempt_of_a_write_removes_what_the_first_left_behind(hand: Hand, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    hand("read_file", path="a")

    def die() -> None:
        # Where the file is written and has not its name yet.
        os.rename = lambda *args, **options: os._exit(9)
        hand("write_file", path="a", content="new")

    assert in_a_process_that_dies(die) == 9
    assert (tmp_path / "a").read_text() == "old"
    assert left_behind(tmp_path)
    hand.again("write_file", path="a", content="new")
    assert (tmp_path / "a").read_text() == "new"
    assert left_behind(tmp_path) == []
    hand.again("write_file", path="a", content="new")


def test_limits_hold_and_leave_nothing_behind(tmp_path: Path) -> None:
    limits = EnvLimits(max_write_bytes=10, max_read_bytes=10, max_depth=3)
    hand = Hand(file_tools(RuntimeEnv(tmp_path, limits=limits)))
    with pytest.raises(ToolError, match="has 11 bytes, and 10 are written at most"):
        hand("write_file", path="new/a", content="x" * 11)
    with pytest.raises(PathRefusedError, match="lies 4 folders deep"):
        hand("write_file", path="a/b/c/d", content="x")
    (tmp_path / "big").write_text("x" * 11)
    with pytest.raises(ToolError, match="look for what you need with grep"):
        hand("read_file", path="big")
    assert [path.name for path in tmp_path.iterdir()] == ["big"]


def test_a_session_remembers_a_bounded_number_of_files(hand: Hand, tmp_path: Path) -> None:
    for number in range(MAX_KNOWN_FILES + 5):
        hand("write_file", path=f"{number}", content="x")
    assert len(hand.context.state) == MAX_KNOWN_FILES
    with pytest.raises(ToolError, match="has not been read"):
        hand("edit_file", path="0", old_text="x", new_text="y")
    hand("edit_file", path="9", old_text="x", new_text="y")


@pytest.mark.asyncio
async def test_what_a_session_has_read_is_known_to_the_process_that_goes_on(tmp_path: Path) -> None:
    (tmp_path / "ws").mkdir()
    (tmp_path / "ws" / "a.txt").write_text("one\n")
    dsn = str(tmp_path / "app.db")

    def loop(*steps: object) -> StatefulAgentLoop:
        tools = file_tools(RuntimeEnv(tmp_path / "ws"))
        return StatefulAgentLoop(llm=ScriptedLLM(steps), dsn=dsn, tool_registry=tools)  # type: ignore[arg-type]

    async with loop(call("read_file", {"path": "a.txt"}), "Read.") as first:
        session_id = await first.new_session()
        await first.send("Read it.", session_id=session_id)
    edit = {"path": "a.txt", "old_text": "one", "new_text": "two"}
    async with loop(call("edit_file", edit), call("read_file", {"path": "/etc/passwd"}), "Done.") as second:
        result = await second.send("Change it.", session_id=session_id)
        messages = await second.get_messages(session_id)
    assert result.final_text == "Done."
    assert (tmp_path / "ws" / "a.txt").read_text() == "two\n"
    assert any("leads out of the workspace" in str(message) for message in messages)
