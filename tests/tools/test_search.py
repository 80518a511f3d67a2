"""Searches find what is there, in order and within their limits, whatever pattern they are given."""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from power_loop import RuntimeEnv
from power_loop.errors import PathRefusedError, ToolError
from power_loop.sandbox import EnvLimits
from power_loop.tools import file_tools, search
from power_loop.tools.line_patterns import LinePattern, required_text
from power_loop.tools.name_patterns import NamePattern
from tests.tools.hands import Hand


@pytest.fixture
def hand(tmp_path: Path) -> Hand:
    for name, text in {
        "a.py": "import os\ndef f():\r\n    return 'É'\n",
        "src/b.py": "def g(): pass\n",
        "src/deep/c.txt": "def in text\nDEF again\n",
        ".hidden": "def hidden\n",
        ".git/config": "def git\n",
        "node_modules/m.js": "def module\n",
    }.items():
        (tmp_path / "ws" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "ws" / name).write_text(text, newline="")
    (tmp_path / "ws" / "bin").write_bytes(b"def \0 binary")
    (tmp_path / "ws" / "wide.txt").write_bytes("def wide\n".encode("utf-16"))
    (tmp_path / "secret.py").write_text("def secret\n")
    (tmp_path / "ws" / "out").symlink_to("..")
    (tmp_path / "ws" / "out.py").symlink_to("../secret.py")
    return Hand(file_tools(RuntimeEnv(tmp_path / "ws")))


@pytest.mark.parametrize(
    ("pattern", "path", "found"),
    [
        ("*.py", ".", "a.py\nout.py\nsrc/b.py"),
        ("*", "src", "src/b.py\nsrc/deep/\nsrc/deep/c.txt"),
        ("src/*", ".", "src/b.py\nsrc/deep/"),
        ("src/**/*.{py,txt}", ".", "src/b.py\nsrc/deep/c.txt"),
        ("**/deep/**", ".", "src/deep/\nsrc/deep/c.txt"),
        ("[ab].p?", ".", "a.py\nsrc/b.py"),
        (".h*", ".", ".hidden"),
        ("config", ".git", ".git/config"),
        ("*.rs", ".", "(no path found)"),
    ],
)
def test_paths_are_found_by_pattern(pattern: str, path: str, found: str, hand: Hand) -> None:
    assert hand("glob", pattern=pattern, path=path) == found


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (
            {"pattern": r"^def \w"},
            (
                ".hidden:1:def hidden\na.py:2:def f():\nsrc/b.py:1:def g(): pass\nsrc/deep/c.txt:1:def in text\n"
                "wide.txt:1:def wide"
            ),
        ),
        ({"pattern": r"\(\):$"}, "a.py:2:def f():"),
        ({"pattern": "f():", "literal": True}, "a.py:2:def f():"),
        ({"pattern": "f():"}, "(no hit found)"),
        ({"pattern": "DEF", "glob": "*.txt"}, "src/deep/c.txt:2:DEF again"),
        (
            {"pattern": "D[e-f]+ (I|a)", "glob": "*.txt", "ignore_case": True},
            "src/deep/c.txt:1:def in text\nsrc/deep/c.txt:2:DEF again",
        ),
        ({"pattern": "é", "ignore_case": True}, "a.py:3:    return 'É'"),
        ({"pattern": "def", "output": "files", "path": "src"}, "src/b.py\nsrc/deep/c.txt"),
        ({"pattern": "def", "path": "src/b.py"}, "src/b.py:1:def g(): pass"),
        ({"pattern": "def", "path": ".git"}, ".git/config:1:def git"),
        ({"pattern": "secret"}, "(no hit found)"),
    ],
)
def test_lines_are_found_by_expression(arguments: dict[str, object], found: str, hand: Hand) -> None:
    assert hand("grep", **arguments) == found


@pytest.mark.parametrize("name", ["glob", "grep"])
def test_a_search_does_not_leave_the_workspace(name: str, hand: Hand) -> None:
    for path in ("..", "out", "/", "out/ws/../.."):
        with pytest.raises(PathRefusedError):
            hand(name, pattern="*" if name == "glob" else "def", path=path)
    with pytest.raises(ToolError, match="leads out"):
        hand("glob", pattern="../*")


def test_a_search_says_how_much_it_left_out(tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / f"{number}.txt").write_text("x\nx\n")
    (tmp_path / "big.txt").write_text("x" * 200)
    few = Hand(file_tools(RuntimeEnv(tmp_path, limits=EnvLimits(max_results=3, max_read_bytes=100))))
    assert (
        few("glob", pattern="*").splitlines()[3] == "(the first 3 are shown: narrow the path, the pattern or the glob)"
    )
    lines = few("grep", pattern="x").splitlines()
    assert lines[:3] == ["0.txt:1:x", "0.txt:2:x", "1.txt:1:x"]
    assert "there are more hits" in lines[3]
    assert "big.txt has more than 100 bytes and was left out" in few("grep", pattern="x", glob="b*")
    short = Hand(file_tools(RuntimeEnv(tmp_path, limits=EnvLimits(max_entries=2))))
    assert "only the first 2 files and folders were looked at" in short("glob", pattern="*")
    tired = Hand(file_tools(RuntimeEnv(tmp_path, limits=EnvLimits(max_search_s=1e-9))))
    assert "the search ended after 1e-09 seconds" in tired("grep", pattern="x")


def test_what_a_search_shows_fits_into_what_a_model_is_shown_of_a_result(tmp_path: Path) -> None:
    (tmp_path / "a").write_text(("x" * 1_000 + "\n") * 500)
    hand = Hand(file_tools(RuntimeEnv(tmp_path)))
    shown = hand("grep", pattern="x")
    assert len(shown) <= hand.tools["grep"].max_result_chars
    assert "narrow the path" in shown


def test_a_name_that_could_be_taken_for_more_than_one_is_quoted(tmp_path: Path) -> None:
    (tmp_path / "a\nsecret:1:b").write_text("x")
    with open(os.fsencode(tmp_path) + b"/bad\xff", "w") as file:
        file.write("x")
    found = Hand(file_tools(RuntimeEnv(tmp_path)))("grep", pattern="x")
    assert found == '"a\\nsecret:1:b":1:x\n"bad\\\\xff":1:x'


@pytest.mark.parametrize(
    "pattern", ["(a+)+$", "(a|a)*b", "(.*)*x", "(a|aa)+$", "(?:a{1,50}){1,50}b", "(?:a?){60}a{60}"]
)
def test_no_expression_takes_long(pattern: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a" * 5_000 + "!\n" + "plain\n")
    hand = Hand(file_tools(RuntimeEnv(tmp_path)))
    start = time.process_time()
    answer = hand("grep", pattern=pattern)
    # Processor time, which nobody else's work adds to; a search that backtracks takes years here.
    assert time.process_time() - start < 20
    assert isinstance(answer, str)


@pytest.mark.parametrize(
    ("name", "pattern", "said"),
    [
        ("grep", "(", "the pattern cannot be read"),
        ("grep", "", "the pattern is empty"),
        ("grep", r"(a)\1", "the pattern cannot be read"),
        ("grep", "x" * 3_000, "the pattern cannot be read"),
        ("glob", "", "has 0 characters"),
        ("glob", "x" * 3_000, "has 3,000 characters"),
        ("glob", "*a" * 9, "more than 8 stars"),
        ("glob", "{a,b}" * 9, "stands for more than 100"),
    ],
)
def test_a_pattern_that_is_none_is_told(name: str, pattern: str, said: str, hand: Hand) -> None:
    with pytest.raises(ToolError, match=said):
        hand(name, pattern=pattern)


@settings(max_examples=300, deadline=None)
@given(
    source=st.text(alphabet="ab.*+?|()[]^$\\dwx{}1,-", max_size=10), text=st.text(alphabet="abAB1x.-\\ ", max_size=12)
)
def test_a_line_is_found_where_the_expressions_of_python_find_it(source: str, text: str) -> None:
    try:
        wanted = LinePattern(source, is_literal=False, ignores_case=False)
        either = LinePattern(source, is_literal=False, ignores_case=True)
        plain = re.compile(source, re.ASCII)
        folded = re.compile(source, re.ASCII | re.IGNORECASE)
    except (ToolError, re.error, FutureWarning, ValueError):
        return
    # Python's `$` stands before a last line end too, but there is none in a line.
    assert bool(list(wanted.search(text))) == bool(plain.search(text))
    assert bool(list(either.search(text))) == bool(folded.search(text))
    assert not plain.search(text) or required_text(source) in plain.search(text).group()  # type: ignore[union-attr]


PART = st.sampled_from(["a", "b", "*", "?", "**", "a*", "[ab]", "{a,b}"])


@settings(max_examples=200, deadline=None)
@given(
    pattern=st.lists(PART, min_size=2, max_size=5),
    path=st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=5),
)
def test_a_path_pattern_means_what_its_plainest_reading_means(pattern: list[str], path: list[str]) -> None:
    one = {"a": "a", "b": "b", "*": "[^/]*", "?": "[^/]", "a*": "a[^/]*", "[ab]": "[ab]", "{a,b}": "(a|b)"}
    plain = "".join("(?:[^/]+/)*" if part == "**" else one[part] + "/" for part in pattern)
    meant = re.fullmatch(plain, "/".join(path) + "/") is not None
    assert NamePattern("/".join(pattern)).matches(tuple(path)) == meant


@pytest.mark.skipif(shutil.which("rg") is None, reason="rg is missing here: make ripgrep brings it")
@pytest.mark.parametrize("pattern", ["def", r"def \w+", r"import\b", "absent"])
def test_ripgrep_changes_no_answer(pattern: str, hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = hand("grep", pattern=pattern)
    asked = []
    real = search.files_with

    def files_with(*args: object, **options: object) -> object:
        asked.append(real(*args, **options))  # type: ignore[arg-type]
        return asked[-1]

    monkeypatch.setattr(search, "_WORTH_RIPGREP_BYTES", 0)
    monkeypatch.setattr(search, "files_with", files_with)
    assert hand("grep", pattern=pattern) == alone
    assert asked[0] is not None
