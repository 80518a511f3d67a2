"""A transcript that is too large gets smaller step by step, and stays a transcript that every provider takes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from power_loop.contracts.messages import (
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    Part,
    Role,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    tool_message,
    user_message,
)
from power_loop.core.context.rules import check
from power_loop.core.context.spare import MAX_LEVEL, has_media, spare
from power_loop.core.context.tokens import estimate_message
from power_loop.core.context.transcript import repair
from tests.core.context.logs import wild_logs

LONG = "word " * 5_000
# What the random logs do not hold: texts and media of a weight.
heavy_parts = st.sampled_from(
    (
        TextPart(LONG),
        TextPart(LONG * 6),
        ImagePart(data="aGk=" * 9_000),
        AudioPart(data="aGk="),
        FilePart(url="https://x"),
    )
)


@st.composite
def heavy_logs(draw: st.DrawFn) -> list[Message]:
    log = []
    for message in draw(wild_logs):
        added = draw(st.lists(heavy_parts, max_size=2))
        parts = message.parts
        if message.role is Role.USER:
            parts = (*parts, *added)
        elif message.role is Role.TOOL and isinstance(parts[0] if parts else None, ToolResultPart):
            parts = (ToolResultPart(parts[0].call_id, (*parts[0].content, *added)),)
        log.append(Message(message.role, parts, message.origin))
    return log


def media_of(messages: tuple[Message, ...]) -> int:
    parts: list[Part] = []
    for message in messages:
        for part in message.parts:
            parts += part.content if isinstance(part, ToolResultPart) else (part,)
    return sum(isinstance(part, (ImagePart, FilePart, AudioPart)) for part in parts)


def shape(messages: tuple[Message, ...]) -> list[object]:
    """What sparing never touches: the order, the calls with their results, what the model said."""
    return [
        (
            one.role,
            one.origin,
            one.parts if one.role is Role.ASSISTANT else None,
            one.tool_result and one.tool_result.call_id,
        )
        for one in messages
    ]


@settings(max_examples=150, deadline=None)
@given(heavy_logs(), st.integers(1, MAX_LEVEL))
def test_a_valid_transcript_stays_one_and_keeps_its_order_and_what_the_model_said(
    log: list[Message], level: int
) -> None:
    whole = repair(log).messages
    before = [(id(one), one.parts) for one in whole]
    spared = spare(whole, level)
    assert check(spared.messages) == []
    assert shape(spared.messages) == shape(whole)
    assert spared.media == media_of(whole) - media_of(spared.messages)
    assert [(id(one), one.parts) for one in whole] == before, "the log is as it was"
    changed = [old for old, new in zip(whole, spared.messages, strict=True) if old is not new]
    assert bool(changed) is bool(spared.media or spared.texts)
    assert all(old != new for old, new in zip(whole, spared.messages, strict=True) if old is not new)


@settings(max_examples=60, deadline=None)
@given(heavy_logs())
def test_each_level_leaves_at_most_what_the_one_before_left_and_the_last_no_media(log: list[Message]) -> None:
    whole = repair(log).messages
    levels = [spare(whole, level) for level in range(MAX_LEVEL + 1)]
    assert levels[0].messages == whole
    media = [media_of(one.messages) for one in levels]
    assert media == sorted(media, reverse=True)
    assert not has_media(levels[2].messages)
    tokens = [sum(map(estimate_message, one.messages)) for one in levels]
    assert tokens == sorted(tokens, reverse=True)
    for message in levels[-1].messages:
        for part in message.parts if message.role is Role.USER else ():
            assert isinstance(part, TextPart)
            assert len(part.text) <= 1_000


def test_the_older_media_go_first_and_say_what_they_were() -> None:
    old, new = ImagePart.from_bytes(b"x" * 4_100_000), ImagePart.from_bytes(b"y" * 4_000_000)
    report = FilePart(data="aGk=", filename="report.pdf")
    log = [
        user_message([old, "Look."]),
        Message(Role.ASSISTANT, (ToolCallPart("c1", "read", "{}"),)),
        tool_message("c1", (report,)),
        user_message(new),
    ]
    first, second = spare(log, 1), spare(log, 2)
    assert (first.media, second.media) == (1, 3)
    assert first.messages[0].parts[1] is log[0].parts[1]
    assert first.messages[0].text.startswith("[an image of 4.1 MB was left out")
    assert first.messages[1:] == tuple(log[1:])
    result = second.messages[2].tool_result
    assert result is not None
    assert result.content[0].text.startswith("[the file 'report.pdf' of 1 kB was left out")  # type: ignore[union-attr]


def test_one_medium_alone_goes_at_the_second_level() -> None:
    log = [user_message(["Look.", AudioPart(data="aGk=")])]
    assert [spare(log, level).media for level in range(MAX_LEVEL + 1)] == [0, 0, 1, 1, 1]


def test_long_texts_keep_their_beginning_and_their_end() -> None:
    log = [user_message("BEGIN " + LONG + "END")]
    spared = spare(log, 3)
    assert spared.texts == 1
    text = spared.messages[0].text
    assert text.startswith("BEGIN ")
    assert text.endswith("END")
    assert len(text) <= 5_000
    assert "larger than the model takes" in text
