"""Any log becomes a transcript that providers take; the log and what was said in it stay as they are."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from power_loop.contracts.messages import (
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
from power_loop.core.context import texts
from power_loop.core.context.rules import check
from power_loop.core.context.tokens import estimate_message
from power_loop.core.context.transcript import MAX_PROBLEMS, Transcript, repair
from power_loop.tools.output import NO_OUTPUT
from tests.core.context.logs import tidy_logs, wild_logs
from tests.model_server import check_anthropic_request, check_openai_request


def reply(*parts: str | ToolCallPart | ReasoningPart) -> Message:
    return Message(Role.ASSISTANT, tuple(TextPart(part) if isinstance(part, str) else part for part in parts))


def call(call_id: str, name: str = "add") -> ToolCallPart:
    return ToolCallPart(call_id, name, "{}")


def result(call_id: str, text: str = "3") -> Message:
    return tool_message(call_id, (TextPart(text),))


def ids_of(messages: Any) -> list[str]:
    """The order of a transcript, as `u`, `a:c1,c2` for a reply that calls, `r:c1` for a result."""
    order = []
    for message in messages:
        if message.role is Role.USER:
            order.append("u")
        elif message.role is Role.ASSISTANT:
            order.append("a" + "".join(f":{one.id}" for one in message.tool_calls))
        else:
            order.append(f"r:{message.tool_result.call_id}")
    return order


def said(messages: Any, role: Role) -> list[str]:
    kinds = TextPart if role is Role.USER else (TextPart, RefusalPart)
    parts = [part for message in messages if message.role is role for part in message.parts]
    return [part.text for part in parts if isinstance(part, kinds) and part.text.strip()]


def frozen(log: list[Message]) -> list[tuple[int, Role, tuple[object, ...]]]:
    return [(id(message), message.role, message.parts) for message in log]


# ---- properties ----


@pytest.mark.promise("valid-transcript")
@pytest.mark.promise("immutable-log")
@settings(max_examples=300)
@given(wild_logs)
def test_any_log_becomes_a_valid_transcript_and_is_not_touched(log: list[Message]) -> None:
    before = frozen(log)
    repaired = repair(log)
    assert check(repaired.messages) == []
    assert frozen(log) == before
    assert bool(repaired.problems) or list(repaired.messages) == log or _only_reordered(log, repaired.messages)


def _only_reordered(log: list[Message], view: Any) -> bool:
    """Answers that came in another order, or blank ones, are what a loop writes in peace: no problem to tell of."""
    blank = [one for one in log if one.role is Role.TOOL and one not in view]
    return len(log) == len(view) and len(blank) == len([one for one in view if one not in log])


@settings(max_examples=200)
@given(wild_logs)
def test_repairing_twice_changes_nothing_more(log: list[Message]) -> None:
    once = repair(log)
    twice = repair(once.messages)
    assert twice.problems == ()
    assert len(twice.messages) == len(once.messages)
    assert all(new is old for new, old in zip(twice.messages, once.messages, strict=True))


@settings(max_examples=200)
@given(wild_logs)
def test_the_same_log_gives_the_same_objects_so_that_wires_encode_once(log: list[Message]) -> None:
    first, second = repair(log), repair(log)
    assert len(first.messages) == len(second.messages)
    assert all(one is other for one, other in zip(first.messages, second.messages, strict=True))
    assert first.problems == second.problems


@settings(max_examples=200)
@given(wild_logs)
def test_everything_that_users_and_model_said_stays_in_its_order(log: list[Message]) -> None:
    view = repair(log).messages
    expected_users = said(log, Role.USER)
    assert [text for text in said(view, Role.USER) if text != texts.OPENING] == expected_users
    assert said(view, Role.ASSISTANT) == said(log, Role.ASSISTANT)
    replies = [message for message in log if message.role is Role.ASSISTANT]
    assert sum(len(message.tool_calls) for message in view) == sum(len(message.tool_calls) for message in replies)


@settings(max_examples=200)
@given(wild_logs, st.data())
def test_appending_one_by_one_equals_repairing_all_wherever_somebody_looks(log: list[Message], data: Any) -> None:
    transcript = Transcript()
    view = transcript.view()
    for count, message in enumerate(log, 1):
        transcript.append(message)
        if data.draw(st.booleans(), label="look"):
            whole = repair(log[:count])
            assert transcript.view() is view
            assert len(view) == len(whole.messages)
            assert all(new is old for new, old in zip(view, whole.messages, strict=True))
            assert transcript.problems == whole.problems
            assert transcript.tokens == sum(map(estimate_message, view))
            assert transcript.last_user == max(
                (index for index, one in enumerate(view) if one.role is Role.USER), default=-1
            )
        if data.draw(st.booleans(), label="measure"):
            wanted = data.draw(st.integers(-5, 600), label="tokens")
            sums = [sum(map(estimate_message, transcript.view()[:index])) for index in range(len(view) + 1)]
            expected = next((index for index, total in enumerate(sums) if total >= wanted), len(sums))
            assert transcript.first_behind(wanted) == expected


@settings(max_examples=150)
@given(tidy_logs())
def test_what_the_loop_writes_needs_no_mending(log: list[Message]) -> None:
    repaired = repair(log)
    assert repaired.problems == ()
    assert sorted(map(id, repaired.messages)) == sorted(map(id, log))
    assert check(repaired.messages) == []


@pytest.mark.promise("valid-transcript")
@settings(max_examples=200)
@given(tidy_logs(is_finished=False))
def test_a_log_cut_anywhere_by_a_kill_needs_nothing_but_the_missing_answers(log: list[Message]) -> None:
    repaired = repair(log)
    assert check(repaired.messages) == []
    assert all("has no result" in problem for problem in repaired.problems)
    stand_ins = [one for one in repaired.messages if not any(one is own for own in log)]
    assert len(stand_ins) == len(repaired.problems)
    assert len(repaired.messages) == len(log) + len(stand_ins)


@settings(max_examples=200)
@given(wild_logs)
def test_both_providers_take_any_log(log: list[Message]) -> None:
    messages = repair(log).messages
    if not messages:
        return
    spoken = [*messages, user_message("Go on.")]
    assert check_openai_request({"model": "gpt-test", "messages": openai_messages(spoken)}) == []
    body = {"model": "claude-test", "max_tokens": 100, "messages": anthropic_messages(spoken)}
    assert check_anthropic_request(body) == []


IMAGE_BLOCK = {"type": "image", "source": {"type": "url", "url": "https://host/a.png"}}


# A plain encoding, in which nothing is mended: what is wrong in the transcript is wrong in the request.


def openai_messages(messages: list[Message]) -> list[dict[str, Any]]:
    encoded: list[dict[str, Any]] = []
    for message in messages:
        found = message.tool_result
        if found is not None:
            text = " ".join(part.text for part in found.content if isinstance(part, TextPart)) or "(media)"
            encoded.append({"role": "tool", "tool_call_id": found.call_id, "content": text})
            continue
        parts = [{"type": "text", "text": part.text} for part in message.parts if isinstance(part, TextPart)]
        if message.role is Role.USER:
            media = [{"type": "image_url", "image_url": {"url": "https://host/a.png"}}]
            encoded.append({"role": "user", "content": parts or media})
            continue
        one: dict[str, Any] = {"role": "assistant", "content": parts or None}
        if message.tool_calls:
            one["tool_calls"] = [
                {"id": part.id, "type": "function", "function": {"name": part.name, "arguments": part.arguments}}
                for part in message.tool_calls
            ]
        refusals = [part.text for part in message.parts if isinstance(part, RefusalPart)]
        if refusals:
            one["refusal"] = refusals[0]
        elif not parts and not message.tool_calls:
            # Only another model's blocks: a wire that does not know them says so in words.
            one["content"] = "(blocks)"
        encoded.append(one)
    return encoded


def anthropic_messages(messages: list[Message]) -> list[dict[str, Any]]:
    encoded: list[dict[str, Any]] = []
    for message in messages:
        blocks: list[dict[str, Any]] = []
        for part in message.parts:
            if isinstance(part, (TextPart, RefusalPart)):
                blocks.append({"type": "text", "text": part.text})
            elif isinstance(part, ToolCallPart):
                blocks.append({"type": "tool_use", "id": part.id, "name": part.name, "input": {}})
            elif isinstance(part, ReasoningPart):
                if part.raw is not None:
                    blocks.append({"type": "thinking", "thinking": part.text, "signature": "s"})
            elif isinstance(part, OpaquePart):
                blocks.append(json.loads(part.raw))
            elif message.role is Role.USER:
                blocks.append(IMAGE_BLOCK)
        found = message.tool_result
        if found is not None:
            inner = [
                {"type": "text", "text": part.text} if isinstance(part, TextPart) else IMAGE_BLOCK
                for part in found.content
            ]
            blocks = [{"type": "tool_result", "tool_use_id": found.call_id, "content": inner}]
        encoded.append({"role": "assistant" if message.role is Role.ASSISTANT else "user", "content": blocks})
    return encoded


# ---- cases ----


def test_results_in_the_order_of_completion_move_into_the_order_of_the_calls_without_a_word() -> None:
    log = [user_message("hi"), reply(call("c1"), call("c2"), call("c3")), result("c3"), result("c1"), result("c2")]
    repaired = repair(log)
    assert ids_of(repaired.messages) == ["u", "a:c1:c2:c3", "r:c1", "r:c2", "r:c3"]
    assert repaired.problems == ()


def test_what_stands_between_a_call_and_its_result_moves_behind_them() -> None:
    log = [user_message("hi"), reply(call("c1")), user_message("hurry"), reply("Wait."), result("c1")]
    repaired = repair(log)
    assert ids_of(repaired.messages) == ["u", "a:c1", "r:c1", "u", "a"]
    assert repaired.problems == ("message 5 answers call 'c1' late: it moves to its call",)


def test_an_unanswered_call_is_answered_by_a_stand_in_until_its_result_comes() -> None:
    transcript = Transcript()
    transcript.extend([user_message("hi"), reply(call("c1"), call("c2")), result("c2"), user_message("and?")])
    view = transcript.view()
    assert ids_of(view) == ["u", "a:c1:c2", "r:c1", "r:c2", "u"]
    missing = view[2].tool_result
    assert missing is not None
    assert missing.is_error
    assert missing.content == (TextPart(texts.MISSING_RESULT),)
    assert transcript.problems == ("call 'c1' has no result",)
    real = result("c1")
    transcript.append(real)
    assert transcript.view()[2] is real
    assert transcript.problems == ("message 5 answers call 'c1' late: it moves to its call",)


def test_a_result_to_nothing_and_a_second_result_are_left_out() -> None:
    first, second = result("c1", "first"), result("c1", "second")
    repaired = repair([user_message("hi"), result("c9"), reply(call("c1")), first, second])
    assert ids_of(repaired.messages) == ["u", "a:c1", "r:c1"]
    assert repaired.messages[2] is first
    assert repaired.problems == (
        "message 2 answers call 'c9' that nobody made: it is left out",
        "message 5 answers call 'c1' again: it is left out",
    )


def test_an_id_that_is_used_again_is_renamed_in_call_and_result() -> None:
    log = [user_message("hi"), reply(call("c1")), result("c1", "a"), reply(call("c1")), result("c1", "b")]
    view = repair(log).messages
    assert ids_of(view) == ["u", "a:c1", "r:c1", "a:c1_2", "r:c1_2"]
    assert [one.tool_result.content[0] for one in view if one.tool_result] == [TextPart("a"), TextPart("b")]


def test_an_id_that_stands_twice_in_one_reply_takes_the_results_in_their_order() -> None:
    view = repair([user_message("hi"), reply(call("c1"), call("c1")), result("c1", "a"), result("c1", "b")]).messages
    assert ids_of(view) == ["u", "a:c1:c1_2", "r:c1", "r:c1_2"]
    assert [one.tool_result.content[0] for one in view if one.tool_result] == [TextPart("a"), TextPart("b")]


def test_a_result_belongs_to_the_newest_unanswered_call_of_its_id() -> None:
    log = [user_message("hi"), reply(call("c1")), reply(call("c1")), result("c1", "new"), result("c1", "old")]
    found = [one.tool_result for one in repair(log).messages if one.tool_result]
    assert [(one.call_id, one.content) for one in found] == [("c1", (TextPart("old"),)), ("c1_2", (TextPart("new"),))]
    missing = repair(log[:-1]).messages[2].tool_result
    assert missing is not None
    assert missing.is_error


def test_one_object_that_stands_at_several_places_becomes_another_at_each() -> None:
    ask, answer = reply(call("c1")), result("c1")
    log = [user_message("hi"), ask, answer, ask, answer, ask, answer]
    once, again = repair(log), repair(log)
    assert ids_of(once.messages) == ["u", "a:c1", "r:c1", "a:c1_2", "r:c1_2", "a:c1_3", "r:c1_3"]
    assert check(once.messages) == []
    assert all(one is other for one, other in zip(once.messages, again.messages, strict=True))


def test_a_fresh_id_is_never_one_that_the_log_holds_already_and_a_later_twin_gives_way() -> None:
    log = [user_message("hi"), reply(call("c1_2"), call("c1"), call("c1")), reply(call("c1_3"))]
    assert ids_of(repair(log).messages)[1] == "a:c1_2:c1:c1_3"
    assert ids_of(repair(log).messages)[5] == "a:c1_3_2"


@pytest.mark.parametrize("bad", ["", "id with spaces", "a" * 41, "été", "toolu/1"])
def test_an_id_that_providers_refuse_is_replaced_in_call_and_result(bad: str) -> None:
    repaired = repair([user_message("hi"), reply(call(bad)), result(bad)])
    assert check(repaired.messages) == []
    assert repaired.messages[2].tool_result is not None
    assert repaired.messages[2].tool_result.content == (TextPart("3"),)
    assert "cannot be sent" in repaired.problems[0]


def test_a_tool_name_that_providers_refuse_is_made_portable() -> None:
    view = repair([user_message("hi"), reply(call("c1", "functions.read file"), call("c2", "")), result("c1")]).messages
    assert [one.name for one in view[1].tool_calls] == ["functions_read_file", "unnamed"]


def test_a_log_that_does_not_begin_with_a_user_gets_an_opening() -> None:
    answer = reply("Good morning.")
    repaired = repair([answer, user_message("hi")])
    assert [message.text for message in repaired.messages] == [texts.OPENING, "Good morning.", "hi"]
    assert repaired.messages[1] is answer


def test_messages_that_say_nothing_are_left_out() -> None:
    log = [
        Message(Role.USER, ()),
        Message(Role.USER, (TextPart(" \n"),)),
        user_message("hi"),
        reply(),
        reply("  "),
        reply(ReasoningPart("hm", "{}")),
        Message(Role.TOOL, ()),
    ]
    repaired = repair(log)
    assert repaired.messages == (log[2],)
    assert len(repaired.problems) == 6


def test_empty_texts_leave_a_reply_whose_reasoning_stays_byte_for_byte() -> None:
    thinking = ReasoningPart("hm", '{"type":"thinking","signature":"s"}')
    view = repair([user_message("hi"), reply(thinking, "", call("c1")), result("c1")]).messages
    assert view[1].parts == (thinking, call("c1"))
    assert view[1].parts[0] is thinking


def test_a_block_of_reasoning_at_the_end_of_a_reply_is_left_out_and_a_field_of_reasoning_stays() -> None:
    block, field = ReasoningPart("hm", "{}"), ReasoningPart("hm", None, "reasoning_content")
    view = repair([user_message("hi"), reply("Four.", block), reply("Five.", field)]).messages
    assert view[1].parts == (TextPart("Four."),)
    assert view[2].parts == (TextPart("Five."), field)


def test_an_empty_result_says_that_it_is_empty() -> None:
    log = [user_message("hi"), reply(call("c1"), call("c2")), tool_message("c1", ()), result("c2", " ")]
    view = repair(log).messages
    assert [one.tool_result.content for one in view if one.tool_result] == [(TextPart(NO_OUTPUT),)] * 2
    picture = tool_message("c1", (TextPart(""), ImagePart(data="aGk=")))
    view = repair([user_message("hi"), reply(call("c1")), picture]).messages
    assert view[2].tool_result is not None
    assert view[2].tool_result.content == (ImagePart(data="aGk="),)


def test_a_broken_log_tells_a_bounded_number_of_problems() -> None:
    orphans = [result(f"c{number}") for number in range(5 * MAX_PROBLEMS)]
    problems = repair([user_message("hi"), *orphans]).problems
    assert len(problems) == MAX_PROBLEMS + 1
    assert problems[-1] == f"and {4 * MAX_PROBLEMS} more"
    calls = [call(f"c{number}") for number in range(3 * MAX_PROBLEMS)]
    problems = repair([user_message("hi"), reply(*calls)]).problems
    assert len(problems) == MAX_PROBLEMS + 1
    assert problems[-1] == f"and {2 * MAX_PROBLEMS} more"


def test_ten_thousand_calls_of_one_id_are_no_problem_of_time() -> None:
    log = [user_message("hi"), *[reply(call("c1")) for _ in range(10_000)]]
    view = repair(log).messages
    assert len({one.tool_calls[0].id for one in view if one.tool_calls}) == 10_000


def test_has_call_knows_the_ids_of_the_log_and_of_the_view() -> None:
    transcript = Transcript()
    transcript.extend([user_message("hi"), reply(call("c1")), reply(call("c1"))])
    assert transcript.has_call("c1")
    assert transcript.has_call("c1_2")
    assert not transcript.has_call("c2")
