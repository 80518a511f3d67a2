"""A request shows as much of the log as fits, tears nothing apart, and is the same for everyone who knows the log."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from power_loop.contracts.json_schema import SchemaDialect
from power_loop.contracts.llm import LLMRequest, ModelInfo, OutputSchema, ToolSpec
from power_loop.contracts.messages import Message, Role, TextPart, ToolCallPart, tool_message, user_message
from power_loop.core.context import texts
from power_loop.core.context.assemble import Assembled, assemble
from power_loop.core.context.rules import check
from power_loop.core.context.tokens import estimate_message, estimate_request
from power_loop.core.context.window import Window
from tests.core.context.logs import tidy_logs, wild_logs
from tests.core.context.test_window import view_of

LARGE = ModelInfo("test", "m", context_window_tokens=1_000_000, has_json_schema=True)
SCHEMA = OutputSchema({"type": "object", "properties": {"answer": {"type": "integer"}}})
WORDS = "word " * 70  # 100 tokens


def model(window_tokens: int) -> ModelInfo:
    return ModelInfo("test", "m", context_window_tokens=window_tokens, max_output_tokens=100)


def window_of(log: list[Message]) -> Window:
    return Window.of(view_of(log))


def say(text: str) -> Message:
    return Message(Role.ASSISTANT, (TextPart(text),))


def tool_round(number: int, text: str = WORDS) -> list[Message]:
    ask = Message(Role.ASSISTANT, (TextPart(text), ToolCallPart(f"call_{number}", "add", "{}")))
    return [ask, tool_message(f"call_{number}", (TextPart(text),))]


def sends(count: int) -> list[Message]:
    return [message for number in range(count) for message in (user_message(f"{number} {WORDS}"), say(WORDS))]


def trimmed(log: list[Message], window_tokens: int) -> Assembled:
    return assemble(window_of(log), info=model(window_tokens))


# ---- what fits ----


def test_a_request_that_fits_shows_the_whole_transcript_as_the_same_objects() -> None:
    log = [user_message("hi"), *tool_round(1), say("Three.")]
    assembled = assemble(window_of(log), info=LARGE)
    request = assembled.request
    assert isinstance(request.messages, tuple)
    assert all(one is other for one, other in zip(request.messages, log, strict=True))
    assert (assembled.left_out, assembled.problems, request.tail) == (0, (), None)
    assert (request.system, request.cache_key) == ("Be brief.", "sess_1")


def test_a_request_does_not_change_when_the_window_grows() -> None:
    window = window_of([user_message("hi")])
    request = assemble(window, info=LARGE).request
    window.append([say("Hello."), user_message("more")])
    assert len(request.messages) == 1


def test_what_is_asked_for_goes_along() -> None:
    tools = (ToolSpec("add", "Adds.", {"type": "object"}),)
    request = assemble(
        window_of([user_message("hi")]),
        info=LARGE,
        tools=tools,
        system_prompt="Other.",
        output_schema=SCHEMA,
        max_output_tokens=50,
        tail="Now.",
        tool_choice="required",
        temperature=0.5,
        reasoning_effort="low",
        parallel_tool_calls=False,
        extra={"seed": 1},
    ).request
    assert request == LLMRequest(
        messages=(user_message("hi"),),
        system="Other.",
        tools=tools,
        tool_choice="required",
        output_schema=SCHEMA,
        tail="Now.",
        max_output_tokens=50,
        temperature=0.5,
        reasoning_effort="low",
        parallel_tool_calls=False,
        cache_key="sess_1",
        extra={"seed": 1},
    )
    assert request.tools is tools


def test_an_empty_system_prompt_overrides_and_is_not_sent() -> None:
    assert assemble(window_of([user_message("hi")]), info=LARGE, system_prompt="").request.system is None


def test_a_schema_is_asked_for_in_words_where_the_model_takes_none() -> None:
    request = assemble(window_of([user_message("hi")]), info=model(10_000), output_schema=SCHEMA, tail="Now.").request
    assert request.output_schema is None
    assert request.tail == f"Now.\n\n{texts.prompted_schema(SCHEMA)}"
    without = assemble(window_of([user_message("hi")]), info=model(10_000), output_schema=SCHEMA).request
    assert without.tail == texts.prompted_schema(SCHEMA)


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
def test_a_schema_that_the_models_dialect_cannot_express_is_asked_for_in_words(dialect: SchemaDialect) -> None:
    native = ModelInfo("test", "m", has_json_schema=True, schema_dialect=dialect)
    array = OutputSchema({"type": "array", "items": {"type": "integer"}})
    request = assemble(window_of([user_message("hi")]), info=native, output_schema=array).request
    assert (request.output_schema, request.tail) == (None, texts.prompted_schema(array))
    request = assemble(window_of([user_message("hi")]), info=native, output_schema=SCHEMA).request
    assert (request.output_schema, request.tail) == (SCHEMA, None)
    request = assemble(window_of([user_message("hi")]), info=LARGE, output_schema=array).request
    assert (request.output_schema, request.tail) == (array, None)


def test_a_mended_transcript_tells_its_problems() -> None:
    assembled = assemble(window_of([user_message("hi"), tool_message("c1", ())]), info=LARGE)
    assert len(assembled.problems) == 1
    assert len(assembled.request.messages) == 1


# ---- what does not fit ----


def test_the_oldest_sends_are_left_out_and_the_model_is_told() -> None:
    log = sends(20)
    assembled = trimmed(log, 2_100)
    kept = assembled.request.messages
    assert 0 < len(kept) < len(log)
    assert kept == tuple(log[-len(kept) :])
    assert kept[0].role is Role.USER
    assert assembled.left_out == len(log) - len(kept)
    assert assembled.request.tail == texts.left_out(assembled.left_out)
    assert estimate_request(assembled.request) <= 2_000


def test_inside_one_long_send_its_question_stays_and_the_newest_rounds() -> None:
    question = user_message("the question")
    log = [*sends(3), question, *(message for number in range(40) for message in tool_round(number))]
    assembled = trimmed(log, 3_000)
    kept = assembled.request.messages
    assert kept[0] is question
    assert kept[1:] == tuple(log[-len(kept) + 1 :])
    assert kept[1].role is Role.ASSISTANT
    assert check(kept) == []
    assert assembled.left_out == len(log) - len(kept)


def test_the_question_of_a_long_send_counts_too() -> None:
    question = user_message("word " * 700)
    for count in range(10, 50):
        log = [question, *(message for number in range(count) for message in tool_round(number))]
        assembled = trimmed(log, 3_000)
        assert assembled.request.messages[0] is question
        assert estimate_request(assembled.request) <= 2_900


def test_the_newest_round_stays_even_if_it_alone_does_not_fit() -> None:
    question, rounds = user_message("the question"), [*tool_round(1), *tool_round(2, "word " * 70_000)]
    kept = trimmed([*sends(2), question, *rounds], 2_000).request.messages
    assert kept == (question, *rounds[2:])
    huge = user_message("word " * 70_000)
    assert trimmed([*sends(5), huge], 2_000).request.messages == (huge,)


def test_where_prompt_and_tools_leave_no_room_the_newest_still_goes_out() -> None:
    log = sends(4)
    window = window_of(log)
    kept = assemble(window, info=model(2_000), system_prompt="word " * 2_000).request.messages
    assert kept == tuple(log[-2:])
    empty = assemble(Window("sess_1"), info=model(2_000), system_prompt="word " * 2_000)
    assert (empty.request.messages, empty.left_out) == ((), 0)


def test_an_output_cap_as_large_as_the_context_window_leaves_half_of_it_for_the_prompt() -> None:
    log = sends(4)
    info = ModelInfo("test", "m", context_window_tokens=4_096, max_output_tokens=4_096)
    assert assemble(window_of(log), info=info).request.messages == tuple(log)


def test_prompt_tools_tail_and_cap_take_room_from_the_messages() -> None:
    log = sends(9)
    plain = assemble(window_of(log), info=model(2_100))
    assert plain.left_out == 0
    tool = ToolSpec("add", "word " * 140, {"type": "object"})
    for assembled in (
        assemble(window_of(log), info=model(2_100), system_prompt="word " * 140),
        assemble(window_of(log), info=model(2_100), tools=(tool,)),
        assemble(window_of(log), info=model(2_100), tail="word " * 140),
        assemble(window_of(log), info=model(2_100), max_output_tokens=400),
        assemble(window_of(log), info=model(2_100), budget_share=0.8),
        assemble(window_of(log), info=model(2_100), output_schema=OutputSchema({"description": "word " * 140})),
    ):
        assert assembled.left_out > 0
        assert check(assembled.request.messages) == []


# ---- properties ----


@settings(max_examples=200)
@given(st.one_of(tidy_logs(), wild_logs), st.integers(150, 3_000))
def test_whatever_is_left_out_the_rest_is_valid_and_holds_the_newest(log: list[Message], window_tokens: int) -> None:
    window = window_of(log)
    assembled = assemble(window, info=model(window_tokens))
    view, kept = window.transcript.view(), assembled.request.messages
    assert check(kept) == []
    assert assembled.left_out == len(view) - len(kept)
    if not view:
        return
    assert kept[0].role is Role.USER
    assert any(one is view[window.transcript.last_user] for one in kept)
    newest = [index for index, one in enumerate(view) if one.role is not Role.TOOL][-1]
    assert [id(one) for one in kept[len(kept) - (len(view) - newest) :]] == [id(one) for one in view[newest:]]
    # What stays is the end of the transcript, but for the question of the last send.
    body = kept if assembled.left_out == 0 or kept[0] is view[assembled.left_out] else kept[1:]
    assert [id(one) for one in body] == [id(one) for one in view[len(view) - len(body) :]]


@settings(max_examples=200)
@given(tidy_logs(), st.integers(500, 3_000))
def test_what_is_shown_fits_unless_it_is_the_newest_alone(log: list[Message], window_tokens: int) -> None:
    window = window_of(log)
    assembled = assemble(window, info=model(window_tokens))
    view, kept = window.transcript.view(), assembled.request.messages
    newest = [index for index, one in enumerate(view) if one.role is not Role.TOOL][-1]
    is_minimal = len(kept) <= len(view) - newest + 1
    cap = min(100, window_tokens // 2)
    # The notice of what is left out counts as a flat figure, which is a little more than it takes.
    assert 0 <= assembled.tokens - estimate_request(assembled.request) <= (40 if assembled.left_out else 0)
    assert estimate_request(assembled.request) <= window_tokens - cap or is_minimal


@pytest.mark.promise("handle-without-state")
@settings(max_examples=200)
@given(st.one_of(tidy_logs(is_finished=False), wild_logs), st.integers(150, 3_000), st.data())
def test_a_warm_window_gives_the_request_that_a_cold_one_gives(
    log: list[Message], window_tokens: int, data: st.DataObject
) -> None:
    info = model(window_tokens)
    warm = window_of([])
    for count, message in enumerate(log, 1):
        warm.append([message])
        if data.draw(st.booleans(), label="ask"):
            grown, read = assemble(warm, info=info), assemble(window_of(log[:count]), info=info)
            assert grown == read
            pairs = zip(grown.request.messages, read.request.messages, strict=True)
            assert all(one is other for one, other in pairs)
    assert assemble(warm, info=info) == assemble(window_of(log), info=info)


@pytest.mark.parametrize("is_one_send", [True, False])
def test_the_start_of_the_prompt_moves_seldom(is_one_send: bool) -> None:
    window, info = window_of([user_message("the question")]), model(4_100)
    starts = list[int]()
    for number in range(400):
        window.append(tool_round(number, "word " * (1 + number % 97)))
        if not is_one_send:
            window.append([say("Done."), user_message("next")])
        request = assemble(window, info=info).request
        assert estimate_request(request) <= 4_000
        starts.append(id(request.messages[1]))
    moves = sum(one != other for one, other in pairwise(starts))
    total = sum(map(estimate_message, [entry.message for entry in window.entries]))
    # A step frees 40 % of 4,000 tokens.
    assert 5 < moves <= total / 1_600 + 1


def test_a_late_answer_does_not_disturb_the_measure_of_what_came_before() -> None:
    log = sends(10)
    ask = Message(Role.ASSISTANT, (ToolCallPart("late", "add", "{}"),))
    window = window_of([*log, ask, *sends(5)])
    info = model(2_100)
    assemble(window, info=info)
    window.append([tool_message("late", (TextPart(WORDS),)), *sends(3)])
    cold = window_of([*log, ask, *sends(5), tool_message("late", (TextPart(WORDS),)), *sends(3)])
    assert assemble(window, info=info) == assemble(cold, info=info)
