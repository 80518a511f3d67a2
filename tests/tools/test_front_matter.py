"""Heads of skills are read the same with and without PyYAML, and what is dangerous or unclear is refused."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from power_loop.contracts.errors import ToolError
from power_loop.tools.front_matter import MAX_HEAD_CHARS, read_head, read_with_package, split_front_matter
from power_loop.tools.plain_yaml import NotPlainYamlError, read_plain_yaml

PLAIN: dict[str, dict[str, Any]] = {
    "name: pdf\ndescription: Fill in forms, and more.\n": {"name": "pdf", "description": "Fill in forms, and more."},
    "a: 'it''s'  # said\nb: \"a \\\"b\\\" \\u00e9\\n\"\n": {"a": "it's", "b": 'a "b" é\n'},
    "a: http://x.org/#top\nb: x # y\nc: # nothing\n": {"a": "http://x.org/#top", "b": "x", "c": ""},
    "a: >\n  one\n  two\n\n  three\n\nb: x\n": {"a": "one two\nthree\n", "b": "x"},
    "a: |+\n  one\n\n  two\n\nb: |-\n  x\n": {"a": "one\n\ntwo\n\n", "b": "x"},
    "a:\n- x\n- 'y z'\nb:\n  - 1\n": {"a": ["x", "y z"], "b": ["1"]},
    "a: [Read, 'B, c', Bash(git:*)]  # tools\nb: []\n": {"a": ["Read", "B, c", "Bash(git:*)"], "b": []},
    "metadata:\n  author: me\n  version: '1.0'\n\n# end\nlast: true\n": {
        "metadata": {"author": "me", "version": "1.0"},
        "last": "true",
    },
    "date: 2024-01-01\nno: no\nnothing: null\nnumber: 1_000\n": {
        "date": "2024-01-01",
        "no": "no",
        "nothing": "null",
        "number": "1_000",
    },
}


@pytest.fixture
def without_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)


@pytest.mark.usefixtures("without_package")
@pytest.mark.parametrize("text", PLAIN)
def test_plain_heads_are_read_without_a_package(text: str) -> None:
    assert read_head(text) == PLAIN[text]


@pytest.mark.parametrize("text", PLAIN)
def test_plain_heads_mean_the_same_to_the_package(text: str) -> None:
    assert read_with_package(pytest.importorskip("yaml"), text) == PLAIN[text]


BEYOND = {
    "a: one\n  two\n": ("line 2: it is no 'key: value'", {"a": "one two"}),
    "a: {b: c}\n": ("put it in quotes", {"a": {"b": "c"}}),
    "a: >2\n   x\n": ("'>2' is none of", {"a": " x\n"}),
    'a: "\\x41"\n': ("an escape that is none of", {"a": "A"}),
    "a: 'one\n  two'\n": ("its quote is not closed on the same line", {"a": "one two"}),
    "a: [x,\n  y]\n": ("its list is not closed on the same line", {"a": ["x", "y"]}),
    "a:\n  b:\n    c: d\n": ("indented otherwise", {"a": {"b": {"c": "d"}}}),
    "a: |\n  x\n    y\n": ("indented further", {"a": "x\n  y\n"}),
}


@pytest.mark.parametrize("text", BEYOND)
def test_what_goes_beyond_is_told_with_its_line_and_what_to_install(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reason, value = BEYOND[text]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "yaml", None)
        with pytest.raises(ToolError, match=r"install power-loop\[skills\]") as caught:
            read_head(text)
    assert reason in caught.value.message
    pytest.importorskip("yaml")
    assert read_head(text) == value


# ---- both read the same ----

_SIGNS = [*"aab  :-#'\"[]{},|>\\&*!%@`?~=<.01u/nt", "é", "中", "\xa0", " #", ": ", "- ", "''", '\\"', "\\u00e9", "\\n"]
_BITS = st.lists(st.sampled_from(_SIGNS), max_size=7).map("".join)
_ENDS = st.sampled_from(["", "", " # c", " ", "x"])
_ITEM = st.sampled_from(["a", "b c", "'x'", '"y"', " z "]) | _BITS
_SCALAR = (
    _BITS
    | st.tuples(_BITS, _ENDS).map(lambda one: f"'{one[0]}'{one[1]}")
    | st.tuples(_BITS, _ENDS).map(lambda one: f'"{one[0]}"{one[1]}')
    | st.tuples(st.lists(_ITEM, max_size=3).map(",".join), _ENDS).map(lambda one: f"[{one[0]}]{one[1]}")
)
_INDENT = st.integers(0, 3).map(" ".__mul__)
_LINE = st.tuples(_INDENT, st.sampled_from(["foo", "bar baz", "- i", "k: v", "# c", "", "  more"]) | _BITS).map("".join)
_HEADER = st.sampled_from(["|", ">", "|-", ">-", "|+", ">+", "", "", " # c", ">2"])


@st.composite
def heads(draw: st.DrawFn) -> str:
    lines: list[str] = []
    for key in draw(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=3)):
        if draw(st.booleans()):
            lines.append(f"{key}: {draw(_SCALAR)}")
            continue
        lines.append(f"{key}: {draw(_HEADER)}")
        indent = draw(_INDENT)
        for _ in range(draw(st.integers(0, 4))):
            start = draw(st.sampled_from(["", "", "- ", "p: ", "q: "]))
            lines.append(f"{indent}{start}{draw(_SCALAR)}" if draw(st.booleans()) else draw(_LINE))
    return "\n".join([*lines, ""])


@settings(max_examples=600, deadline=None)
@given(text=heads())
def test_what_is_read_without_the_package_means_the_same_to_it(text: str) -> None:
    try:
        plain = read_plain_yaml(text)
    except NotPlainYamlError:
        return
    if plain:  # a head without a field is told by what it lacks
        assert read_with_package(pytest.importorskip("yaml"), text) == plain


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=200) | st.text(max_size=200).map(str.encode) | heads().map(str.encode))
def test_no_file_brings_anything_but_fields_or_a_reason(data: bytes) -> None:
    for file in (data, b"---\n" + data + b"\n---\nbody"):
        with contextlib.suppress(ToolError):
            assert all(isinstance(key, str) for key in read_head(split_front_matter(file)[0]))


# ---- hostile heads ----

BOMB = "a: &a [x, x]\n" + "".join(
    f"{key}: &{key} [*{before}, *{before}]\n" for before, key in zip("abcdefgh", "bcdefghi", strict=True)
)
HOSTILE = {
    "aliases": (BOMB, "anchor, an alias or a tag"),
    "a tag": ("a: !!python/object/apply:os.system [x]\n", "anchor, an alias or a tag"),
    "depth": ("a: " + "[" * 3_000 + "]" * 3_000 + "\n", "nested more than 8 deep"),
    "size": ("a: " + "x" * MAX_HEAD_CHARS, "are read at most"),
    "many": ("a: {" + ",".join("b" * 2 for _ in range(4_000)) + "}\n", "twice|too many"),
    "a key twice": ("a: {b: c, b: d}\n", "twice"),
    "a key twice, plainly": ("a: b\na: {c: d}\n", "twice"),
    "two documents": ("a: {b: c}\n...\n%YAML 1.1\n---\nd: e\n", "more than one|no YAML"),
    "a list": ("- a\n- {}\n", "no YAML mapping"),
    "a code point beyond all": ('a: "\\UFFFFFFFF"\n', "no YAML"),
    "a control character": ("a: b\x07\n", "character '\\\\x07'"),
    "a line separator": ("a: b\u2028c: d\n", "u2028"),
    "no YAML": ("a: [\n", r"no YAML \(line"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_heads_are_refused(name: str) -> None:
    pytest.importorskip("yaml")
    text, reason = HOSTILE[name]
    with pytest.raises(ToolError, match=reason):
        read_head(text)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "does not begin with a line '---'"),
        (b"# A skill\n", "does not begin with a line '---'"),
        (b"---\nname: x\n", "no line '---' ends its fields"),
        (b"---\nname: \xff\n---\n", r"no UTF-8 \(byte 10\)"),
    ],
)
def test_what_has_no_head_is_told(data: bytes, reason: str) -> None:
    with pytest.raises(ToolError, match=reason):
        split_front_matter(data)


def test_a_mark_and_the_line_ends_of_windows_are_no_part_of_it() -> None:
    head, body = split_front_matter(b"\xef\xbb\xbf---\r\nname: x\r\n--- \r\n\r\nDo it.\r\n---\r\n")
    assert read_head(head) == {"name": "x"}
    assert body == "Do it.\n---"
