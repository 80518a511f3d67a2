"""Estimates follow the kind of text, count once, and see every part of a request."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from power_loop.contracts.llm import LLMRequest, OutputSchema, ToolSpec
from power_loop.contracts.messages import (
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    OpaquePart,
    ReasoningPart,
    RefusalPart,
    Role,
    TextPart,
    ToolCallPart,
    tool_message,
    user_message,
)
from power_loop.core.context.tokens import estimate_message, estimate_request, estimate_text, estimate_tool

LONG = "word " * 700


def one_by_one(text: str) -> int:
    """The same estimate, one character at a time."""
    weights = {1: 4, 2: 7, 3: 14, 4: 42}
    total = sum(weights[len(character.encode("utf-8", "surrogatepass"))] for character in text)
    return -(-total // 14)


@given(st.text(st.characters(exclude_categories=())))
def test_counting_by_lengths_equals_counting_each_character(text: str) -> None:
    assert estimate_text(text) == one_by_one(text)


@given(st.text(), st.text())
def test_more_text_is_never_fewer_tokens(text: str, more: str) -> None:
    assert estimate_text(text) <= estimate_text(text + more) <= estimate_text(text) + estimate_text(more)


# Counts of o200k_base and of a Claude tokenizer lie between these bounds for such texts.
@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("", 0, 0),
        ("The quick brown fox jumps over the lazy dog. " * 20, 180, 280),
        ('{"city":"Paris","days":[1,2,3],"units":"metric"}' * 20, 250, 420),
        ("敏捷的棕色狐狸跳过懒狗。" * 20, 160, 300),
        ("Быстрая лисица прыгает через ленивую собаку. " * 20, 220, 500),
        ("🙂" * 20, 20, 80),
    ],
)
def test_an_estimate_lies_near_what_tokenizers_count(text: str, least: int, most: int) -> None:
    assert least <= estimate_text(text) <= most


def test_a_message_is_counted_once() -> None:
    message = user_message(LONG)
    assert estimate_message(message) >= estimate_text(LONG)
    message.memo["tokens"] = 7
    assert estimate_message(message) == 7


@pytest.mark.parametrize(
    "message",
    [
        user_message(LONG),
        Message(Role.ASSISTANT, (TextPart(LONG),)),
        Message(Role.ASSISTANT, (RefusalPart(LONG),)),
        Message(Role.ASSISTANT, (ToolCallPart("c1", "add", LONG),)),
        Message(Role.ASSISTANT, (ReasoningPart(LONG),)),
        Message(Role.ASSISTANT, (ReasoningPart("", LONG),)),
        Message(Role.ASSISTANT, (OpaquePart(LONG),)),
        tool_message("c1", (TextPart(LONG),)),
        tool_message("c1", (TextPart("x"), TextPart(LONG))),
    ],
)
def test_the_text_of_every_kind_of_part_is_counted(message: Message) -> None:
    assert estimate_text(LONG) <= estimate_message(message) <= estimate_text(LONG) + 30


@pytest.mark.parametrize("part", [ImagePart(data="x" * 10**6), FilePart(data="x" * 10**6), AudioPart("x" * 10**6)])
def test_media_count_a_flat_figure_and_not_their_bytes(part: ImagePart) -> None:
    assert 1_000 < estimate_message(user_message([part])) < 5_000
    assert 1_000 < estimate_message(tool_message("c1", (part,))) < 5_000


def test_a_tool_counts_its_words_and_its_schema_once() -> None:
    tool = ToolSpec("add", LONG, {"type": "object", "description": LONG})
    assert 2 * estimate_text(LONG) < estimate_tool(tool) < 2 * estimate_text(LONG) + 60
    tool.memo["tokens"] = 7
    assert estimate_tool(tool) == 7


def test_a_request_counts_everything_that_goes_along() -> None:
    request = LLMRequest(
        (user_message(LONG),),
        system=LONG,
        tools=(ToolSpec("add", LONG, {}),),
        tail=LONG,
        output_schema=OutputSchema({"type": "object", "description": LONG}),
    )
    assert 5 * estimate_text(LONG) <= estimate_request(request) <= 5 * estimate_text(LONG) + 100
    assert estimate_request(LLMRequest(())) == 0
