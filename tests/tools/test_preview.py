"""A preview shows the beginning and the end of a long result, and says what is left out between them."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from power_loop.contracts.messages import FilePart, ImagePart, TextPart
from power_loop.tools.output import MAX_OUTPUT_CHARS, Output, output_of

_IMAGE = ImagePart(url="https://example.com/a.png")
_NOTE = re.compile(r"\[… ([\d,]+) of ([\d,]+) characters are left out here; the whole result is kept …\]\n")


def preview(content: Any, max_chars: int) -> Any:
    return Output(content).preview(max_chars)


_parts = st.lists(
    st.one_of(
        st.text("ab\nä😀", min_size=1, max_size=400).map(TextPart),
        st.integers(300, 900).map(lambda size: TextPart("x" * size)),
        st.just(_IMAGE),
    ),
    min_size=1,
    max_size=5,
).map(tuple)


def _texts(content: Any) -> str:
    return "".join(part.text for part in content if isinstance(part, TextPart))


@given(_parts, st.integers(1, 1_500))
def test_a_preview_is_a_head_a_note_and_a_tail(content: tuple[Any, ...], max_chars: int) -> None:
    shown = preview(content, max_chars)
    whole, short = _texts(content), _texts(shown)
    if len(whole) <= max_chars:
        assert shown is content
        return
    [note] = _NOTE.finditer(short)
    left_out, total = (int(number.replace(",", "")) for number in note.groups())
    head, tail = short[: note.start()], short[note.end() :]
    # The note begins a line: of its own, unless the head ends one.
    assert head.endswith("\n")
    head = head[: total - left_out - len(tail)]
    assert len(short) <= max(max_chars, len(note[0]) + 1)
    assert whole.startswith(head)
    assert whole.endswith(tail)
    assert left_out + len(head) + len(tail) == total == len(whole)
    assert [part for part in shown if part is _IMAGE] == [part for part in content if part is _IMAGE]
    assert all(part.text for part in shown if isinstance(part, TextPart))


def test_both_ends_have_about_the_same_size() -> None:
    [part] = preview((TextPart("a" * 5_000 + "z" * 5_000),), 1_000)
    assert isinstance(part, TextPart)
    head, _, _, tail = _NOTE.split(part.text)
    head = head.removesuffix("\n")
    assert 440 < len(head) < 470
    assert abs(len(head) - len(tail)) <= 1


def test_the_cut_moves_to_the_end_of_a_line_that_is_near() -> None:
    lines = "".join(f"line {number}\n" for number in range(10_000))
    [part] = preview((TextPart(lines),), 2_000)
    assert isinstance(part, TextPart)
    kept = _NOTE.split(part.text)
    assert re.fullmatch(r"(line \d+\n)+", kept[0])
    assert re.fullmatch(r"(line \d+\n)+", kept[-1])
    assert len(part.text) > 1_900


def test_images_stay_where_they_are() -> None:
    before, middle, after = TextPart("a" * 1_000), TextPart("m" * 1_000), TextPart("z" * 1_000)
    file = FilePart(file_id="f")
    shown = preview((before, _IMAGE, middle, file, after), 600)
    assert [type(part) for part in shown] == [TextPart, ImagePart, FilePart, TextPart]
    assert shown[1] is _IMAGE
    assert shown[2] is file
    assert _NOTE.search(shown[0].text)  # type: ignore[union-attr]


def test_a_limit_that_is_too_small_for_the_note_shows_the_note_alone() -> None:
    [part] = preview((TextPart("a" * 1_000),), 1)
    assert isinstance(part, TextPart)
    assert _NOTE.fullmatch(part.text.removeprefix("\n"))


def test_an_image_alone_is_no_text_to_cut() -> None:
    content = (_IMAGE,)
    assert preview(content, 1) is content


def test_a_result_that_was_too_long_to_be_kept_is_not_said_to_be_kept() -> None:
    output = output_of("a" * (MAX_OUTPUT_CHARS + 1))
    assert isinstance(output, Output)
    [part] = output.preview(1_000)
    assert isinstance(part, TextPart)
    assert "too long to be kept whole" in part.text
    assert "whole result is kept" not in part.text
