"""A send: one input carried to its answer, whatever the model, and what its result says."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from power_loop import (
    CancellationToken,
    ImagePart,
    LLMRequest,
    LLMResponse,
    LoopConfig,
    Message,
    SendLimits,
    SendStatus,
    StatefulAgentLoop,
    StopReason,
    TextPart,
    ToolRegistry,
    Usage,
    open_store,
    tool,
)
from power_loop.errors import (
    ConfigError,
    InputError,
    LLMAuthError,
    LLMContextOverflowError,
    LLMError,
    ToolDefinitionError,
)
from power_loop.events import SendFailed, TranscriptRepaired, WindowTrimmed
from power_loop.llm import Emit, ModelInfo, OutputSchema
from power_loop.messages import RefusalPart, Role
from power_loop.testing import ScriptedLLM, call, calls

from .conftest import MakeLoop
from .parts import CountingStore, Ears, Gate, answers, commits_of, error_answers, said, within_limit


@tool(effect="read")
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
def note(text: str) -> str:
    """Write a note."""
    return f"noted {text}"


def ends(text: str, stop: StopReason) -> LLMResponse:
    """Return a reply that ends so."""
    parts = (TextPart(text),) if text else ()
    return LLMResponse(Message(Role.ASSISTANT, parts), stop, Usage(7, 3))


@pytest.mark.promise("durable-conversation")
async def test_a_conversation_goes_on_in_a_handle_that_knows_nothing_but_dsn_and_id(make_loop: MakeLoop) -> None:
    first = make_loop("Noted.")
    sid = await first.new_session(system_prompt="Be kind.")
    await first.send("My color is teal.", session_id=sid)
    await first.aclose()
    second = make_loop("Teal.")
    result = await second.send("Which is it?", session_id=sid)
    assert (result.final_text, result.status, result.send_index) == ("Teal.", SendStatus.COMPLETED, 2)
    [request] = second.llm.requests
    assert request.system == "Be kind."
    assert said(request.messages) == [
        ("user", "My color is teal."),
        ("assistant", "Noted."),
        ("user", "Which is it?"),
    ]


async def test_a_result_tells_how_the_turn_ended_and_what_it_took(make_loop: MakeLoop) -> None:
    loop = make_loop(call("add", {"a": 1, "b": 2}), "Three.", tool_registry=[add])
    sid = await loop.new_session()
    result = await loop.send("1 + 2?", session_id=sid, request_id="req-1")
    assert result.session_id == sid
    assert result.status is SendStatus.COMPLETED
    assert result.is_completed
    assert (result.final_text, result.rounds, result.tool_calls) == ("Three.", 2, 1)
    assert (result.usage.input_tokens, result.usage.output_tokens, result.usage.is_estimated) == (20, 10, False)
    assert (result.pending, result.output, result.reason) == ((), None, None)
    assert (result.request_id, result.is_replayed) == ("req-1", False)


async def test_the_final_text_is_the_last_that_the_model_said(make_loop: MakeLoop) -> None:
    loop = make_loop(call("add", {"a": 1, "b": 2}, text="Let me see."), ends("", StopReason.END), tool_registry=[add])
    sid = await loop.new_session()
    result = await loop.send("1 + 2?", session_id=sid)
    assert (result.status, result.final_text) == (SendStatus.EMPTY, "Let me see.")


async def test_content_parts_are_stored_and_sent_in_order(make_loop: MakeLoop) -> None:
    loop = make_loop("A cat.")
    image = ImagePart.from_bytes(b"\x89PNG", "image/png")
    sid = await loop.new_session()
    await loop.send(["What is", image, TextPart("this?"), "  "], session_id=sid)
    wanted = (TextPart("What is"), image, TextPart("this?"))
    assert loop.llm.requests[0].messages[0].parts == wanted
    assert (await make_loop().get_messages(sid))[0].message.parts == wanted


@pytest.mark.parametrize("content", ["", "  \n", [], [""], None, 5, [5], [None], {"a": 1}, b"x", [TextPart(" ")]])
@pytest.mark.promise("bad-input")
async def test_an_input_that_is_none_is_refused_and_nothing_is_stored(make_loop: MakeLoop, content: Any) -> None:
    loop = make_loop("Fine.")
    sid = await loop.new_session()
    with pytest.raises(InputError):
        await loop.send(content, session_id=sid)
    assert await loop.get_messages(sid) == ()
    assert (await loop.send("Hi.", session_id=sid)).send_index == 1


@pytest.mark.parametrize(
    "options",
    [
        {"tools": ["nothing"]},
        {"tools": 5},
        {"tools": [5]},
        {"tool_choice": "nothing"},
        {"tool_choice": ["add"]},
        {"output_schema": {"type": "nonsense"}},
        {"output_schema": 5},
        {"output_schema": OutputSchema({"type": "object"}, name="not a name")},
        {"cancellation": 5},
        {"limits": 5},
        {"max_output_tokens": 0},
        {"max_output_tokens": "5"},
        {"temperature": "hot"},
        {"temperature": float("nan")},
        {"system_prompt": 5},
        {"reasoning_effort": 5},
        {"request_id": ""},
        {"request_id": "x" * 10_000},
        {"request_id": 5},
    ],
    ids=repr,
)
@pytest.mark.promise("bad-input")
async def test_an_option_that_cannot_be_used_is_refused_and_nothing_is_stored(
    make_loop: MakeLoop, options: dict[str, Any]
) -> None:
    loop = make_loop("Fine.", tool_registry=[add])
    sid = await loop.new_session()
    for ask in (loop.send, self_streaming(loop)):
        with pytest.raises((InputError, ConfigError, ToolDefinitionError)):
            await ask("Hi.", session_id=sid, **options)
    assert await loop.get_messages(sid) == ()
    assert (await loop.send("Hi.", session_id=sid)).final_text == "Fine."


def self_streaming(loop: StatefulAgentLoop) -> Any:
    """Return `send` by way of `stream`."""

    async def ask(content: Any, **options: Any) -> Any:
        async with loop.stream(content, **options) as events:
            return await events.wait()

    return ask


async def test_options_of_a_send_hold_for_that_send_alone(make_loop: MakeLoop) -> None:
    config = LoopConfig(max_output_tokens=500, temperature=0.5, reasoning_effort="low")
    loop = make_loop("One.", "Two.", tool_registry=[add, note], config=config)
    sid = await loop.new_session(system_prompt="Session's.")
    await loop.send(
        "a",
        session_id=sid,
        tools=["note"],
        system_prompt="Send's.",
        tool_choice="note",
        max_output_tokens=50,
        temperature=0.0,
        reasoning_effort="high",
    )
    await loop.send("b", session_id=sid)
    first, second = loop.llm.requests
    assert (first.system, [one.name for one in first.tools], first.tool_choice) == ("Send's.", ["note"], "note")
    assert (first.max_output_tokens, first.temperature, first.reasoning_effort) == (50, 0.0, "high")
    assert (second.system, [one.name for one in second.tools], second.tool_choice) == (
        "Session's.",
        ["add", "note"],
        "auto",
    )
    assert (second.max_output_tokens, second.temperature, second.reasoning_effort) == (500, 0.5, "low")


async def test_a_send_may_bring_tools_of_its_own_or_none(make_loop: MakeLoop) -> None:
    def greet(name: str) -> str:
        """Greet."""
        return f"Hello, {name}."

    loop = make_loop(call("greet", {"name": "Ann"}), "Greeted.", "Plain.", tool_registry=[add])
    sid = await loop.new_session()
    await loop.send("a", session_id=sid, tools=[greet])
    assert answers(loop.llm.requests[1]) == ["Hello, Ann."]
    await loop.send("b", session_id=sid, tools=[])
    assert [len(request.tools) for request in loop.llm.requests] == [1, 1, 0]


async def test_a_forced_call_is_forced_once(make_loop: MakeLoop) -> None:
    loop = make_loop(call("add", {"a": 1, "b": 1}), "Two.", tool_registry=[add])
    sid = await loop.new_session()
    result = await loop.send("1 + 1?", session_id=sid, tool_choice="required")
    assert result.is_completed
    assert [request.tool_choice for request in loop.llm.requests] == ["required", "auto"]


async def test_tools_that_are_registered_later_are_offered_later(make_loop: MakeLoop) -> None:
    registry = ToolRegistry([add])
    loop = make_loop("One.", "Two.", tool_registry=registry)
    sid = await loop.new_session()
    await loop.send("a", session_id=sid)
    registry.register(note)
    await loop.send("b", session_id=sid)
    assert [[one.name for one in request.tools] for request in loop.llm.requests] == [["add"], ["add", "note"]]


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (ends("Half an ans", StopReason.LENGTH), SendStatus.TRUNCATED),
        (ends("Half an ans", StopReason.CONTEXT_FULL), SendStatus.TRUNCATED),
        (ends("I will not.", StopReason.REFUSAL), SendStatus.REFUSED),
        (ends("", StopReason.CONTENT_FILTER), SendStatus.CONTENT_FILTERED),
        (ends("Done", StopReason.STOP_SEQUENCE), SendStatus.COMPLETED),
        (ends("", StopReason.END), SendStatus.EMPTY),
        (ends("  \n", StopReason.END), SendStatus.EMPTY),
        (LLMResponse(Message(Role.ASSISTANT, (RefusalPart("No."),)), StopReason.REFUSAL), SendStatus.REFUSED),
    ],
)
async def test_a_reply_that_is_no_plain_answer_has_a_status_and_the_session_goes_on(
    make_loop: MakeLoop, reply: LLMResponse, status: SendStatus
) -> None:
    loop = make_loop(reply, "Fine.")
    sid = await loop.new_session()
    result = await loop.send("a", session_id=sid)
    assert (result.status, result.final_text) == (status, reply.message.text or reply.message.refusal)
    assert not result.is_completed or status is SendStatus.COMPLETED
    later = await loop.send("b", session_id=sid)
    assert (later.status, later.final_text) == (SendStatus.COMPLETED, "Fine.")


async def test_a_paused_reply_is_sent_back_and_goes_on(make_loop: MakeLoop) -> None:
    loop = make_loop(ends("Searching", StopReason.PAUSE), "Found.")
    sid = await loop.new_session()
    result = await loop.send("a", session_id=sid)
    assert (result.status, result.final_text, result.rounds) == (SendStatus.COMPLETED, "Found.", 2)
    assert said(loop.llm.requests[1].messages) == [("user", "a"), ("assistant", "Searching")]


@pytest.mark.parametrize("stop", [StopReason.LENGTH, StopReason.CONTENT_FILTER, StopReason.CONTEXT_FULL])
async def test_no_call_of_an_unfinished_reply_runs_and_the_model_is_told(make_loop: MakeLoop, stop: StopReason) -> None:
    ran: list[str] = []

    @tool
    def erase(path: str) -> str:
        """Erase a file."""
        ran.append(path)
        return "erased"

    cut = calls(("erase", {"path": "/a"}), ("erase", '{"path": "/'))
    loop = make_loop(LLMResponse(cut.message, stop, cut.usage), "I see.", tool_registry=[erase])
    sid = await loop.new_session()
    result = await loop.send("a", session_id=sid)
    assert result.status is SendStatus.COMPLETED
    assert ran == []
    told = error_answers(loop.llm.requests[1])
    assert len(told) == 2
    assert all("was not run" in text for text in told)


@pytest.mark.promise("own-model")
async def test_a_model_of_ones_own_takes_ten_lines(make_loop: MakeLoop) -> None:
    class Echo:
        info = ModelInfo(provider="own", model="echo")

        async def generate(self, request: LLMRequest, emit: Emit) -> LLMResponse:
            return LLMResponse.of_text(request.messages[-1].text.upper())

    loop = make_loop(llm=Echo())
    sid = await loop.new_session()
    result = await loop.send("hello", session_id=sid)
    assert result.final_text == "HELLO"
    assert result.usage.is_estimated, "what a model does not say is estimated and marked, never another call's"
    assert result.usage.total_tokens > 0


async def test_a_model_that_raises_something_else_fails_the_send_with_a_code_and_resume_tries_again(
    make_loop: MakeLoop,
) -> None:
    loop = make_loop(RuntimeError("out of order"), "Back again.")
    ears = Ears(loop)
    sid = await loop.new_session()
    with pytest.raises(LLMError, match="RuntimeError: out of order") as caught:
        await loop.send("a", session_id=sid)
    assert caught.value.code == "llm.failed"
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert [failed.code for failed in ears.of(SendFailed)] == ["llm.failed"]
    result = await loop.resume(sid)
    assert (result.status, result.final_text, result.send_index) == (SendStatus.COMPLETED, "Back again.", 1)


async def test_a_failed_send_is_followed_by_a_plain_one(make_loop: MakeLoop) -> None:
    loop = make_loop(LLMAuthError("the key is refused"), "Fine.")
    sid = await loop.new_session()
    with pytest.raises(LLMAuthError):
        await loop.send("a", session_id=sid)
    assert (await loop.send("b", session_id=sid)).final_text == "Fine."
    assert said(loop.llm.requests[1].messages) == [("user", "a"), ("user", "b")]


async def test_sends_to_one_session_run_one_after_the_other_in_order_of_arrival(make_loop: MakeLoop) -> None:
    gate = Gate()
    loop = make_loop(gate.then("0."), *[f"{n}." for n in range(1, 6)])
    sid = await loop.new_session()
    first = asyncio.create_task(loop.send("0", session_id=sid))
    await gate.someone()
    others = [asyncio.create_task(loop.send(str(n), session_id=sid)) for n in range(1, 6)]
    for _ in range(20):
        await asyncio.sleep(0)
    gate.open()
    results = await within_limit(asyncio.gather(first, *others))
    assert [(one.send_index, one.final_text) for one in results] == [(n + 1, f"{n}.") for n in range(6)]
    texts = [text for _, text in said(await loop.get_messages(sid))]
    assert texts == [text for n in range(6) for text in (str(n), f"{n}.")]


async def test_a_send_that_is_cancelled_in_the_queue_leaves_no_trace(make_loop: MakeLoop) -> None:
    gate = Gate()
    loop = make_loop(gate.then("First."), "Third.")
    sid = await loop.new_session()
    first = asyncio.create_task(loop.send("1", session_id=sid))
    await gate.someone()
    token = CancellationToken()
    by_token = asyncio.create_task(loop.send("2", session_id=sid, cancellation=token))
    by_task = asyncio.create_task(loop.send("3", session_id=sid))
    last = asyncio.create_task(loop.send("4", session_id=sid))
    for _ in range(5):
        await asyncio.sleep(0)
    token.cancel()
    by_task.cancel()
    assert (await within_limit(by_token)).status is SendStatus.CANCELLED
    with pytest.raises(asyncio.CancelledError):
        await within_limit(by_task)
    gate.open()
    assert (await within_limit(first)).final_text == "First."
    assert (await within_limit(last)).final_text == "Third."
    assert [text for _, text in said(await loop.get_messages(sid))] == ["1", "First.", "4", "Third."]


async def test_sends_to_different_sessions_do_not_wait_for_each_other(make_loop: MakeLoop) -> None:
    gate = Gate()
    loop = make_loop(gate.then("Slow."), "Quick.")
    slow, quick = await loop.new_session(), await loop.new_session()
    held = asyncio.create_task(loop.send("a", session_id=slow))
    await gate.someone()
    assert (await within_limit(loop.send("b", session_id=quick))).final_text == "Quick."
    gate.open()
    assert (await within_limit(held)).final_text == "Slow."


@pytest.mark.promise("two-transactions")
@pytest.mark.parametrize("history", [1, 40])
async def test_a_plain_send_is_two_transactions_and_a_tool_round_at_most_two_more(
    make_loop: MakeLoop, dsn: str, history: int
) -> None:
    store = CountingStore(await open_store(dsn))
    loop = make_loop(*["."] * history, store=store, tool_registry=[add, note])
    sid = await loop.new_session()
    for n in range(history):
        await loop.send(str(n), session_id=sid)
    store.asked.clear()
    with commits_of(store._store) as moves:
        loop.llm.add("Plain.")
        await loop.send("a", session_id=sid)
        assert moves == ["accept", "append_reply"]
        moves.clear()
        loop.llm.add(call("add", {"a": 1, "b": 1}), "Two.")
        await loop.send("b", session_id=sid)
        assert moves == ["accept", "append_reply", "advance_calls", "append_reply"]
        moves.clear()
        loop.llm.add(calls(("note", {"text": "x"}), ("add", {"a": 1, "b": 1})), "Noted.")
        await loop.send("c", session_id=sid)
        assert len(moves) <= 5
    # A warm send reads nothing of the log, whatever its length.
    assert "read_view" not in store.asked
    assert "get_messages" not in store.asked
    await store.aclose()


async def test_one_idempotent_call_costs_two_transactions_more(make_loop: MakeLoop, dsn: str) -> None:
    store = await open_store(dsn)
    loop = make_loop(call("note", {"text": "x"}), "Noted.", store=store, tool_registry=[note])
    sid = await loop.new_session()
    with commits_of(store) as moves:
        await loop.send("a", session_id=sid)
    assert len(moves) == 4
    await store.aclose()


async def test_a_prompt_that_does_not_fit_is_trimmed_and_said_so(make_loop: MakeLoop) -> None:
    info = ModelInfo("scripted", "small", context_window_tokens=600, max_output_tokens=100)
    llm = ScriptedLLM(["Yes. " * 40], info=info, repeat_last=True)
    loop = make_loop(llm=llm, config=LoopConfig(compaction=None))
    ears = Ears(loop)
    sid = await loop.new_session()
    for n in range(12):
        await loop.send(f"Question {n}. " + "word " * 30, session_id=sid)
    assert ears.of(WindowTrimmed)
    last = llm.requests[-1]
    assert last.messages[0].role is Role.USER
    assert said(last.messages)[-1][1].startswith("Question 11.")
    assert len(last.messages) < 23
    assert "did not fit" in (last.tail or "")
    assert len(await loop.get_messages(sid)) == 24, "the log keeps everything"


async def test_an_overflow_is_answered_with_less_and_not_counted_as_a_retry(make_loop: MakeLoop) -> None:
    loop = make_loop(*[f"{n}. " + "word " * 50 for n in range(6)], config=LoopConfig(compaction=None))
    sid = await loop.new_session()
    for n in range(6):
        await loop.send(f"{n}? " + "word " * 50, session_id=sid)
    overflow = LLMContextOverflowError("too long")
    loop.llm.add(overflow, overflow, "Short.")
    result = await loop.send("And?", session_id=sid)
    assert (result.status, result.final_text) == (SendStatus.COMPLETED, "Short.")
    sizes = [len(request.messages) for request in loop.llm.requests[6:]]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 3
    assert said(loop.llm.requests[-1].messages)[-1] == ("user", "And?")


async def test_an_overflow_that_nothing_can_shorten_is_the_error(make_loop: MakeLoop) -> None:
    loop = make_loop(LLMContextOverflowError("too long"), "Fine.")
    sid = await loop.new_session()
    with pytest.raises(LLMContextOverflowError):
        await loop.send("a", session_id=sid)
    assert (await loop.send("b", session_id=sid)).final_text == "Fine."


async def test_a_model_without_tools_is_offered_none(make_loop: MakeLoop) -> None:
    info = ModelInfo("scripted", "plain", has_tools=False)
    loop = make_loop(llm=ScriptedLLM(["Fine."], info=info), tool_registry=[add])
    sid = await loop.new_session()
    await loop.send("a", session_id=sid)
    assert loop.llm.requests[0].tools == ()


async def test_call_ids_that_come_twice_get_ids_of_their_own(make_loop: MakeLoop) -> None:
    same = calls(("add", {"a": 1, "b": 1}), ("add", {"a": 2, "b": 2}), ids=("x", "x"))
    again = call("add", {"a": 3, "b": 3}, id="x")
    loop = make_loop(same, again, "Done.", tool_registry=[add])
    ears = Ears(loop)
    sid = await loop.new_session()
    await loop.send("a", session_id=sid)
    last = loop.llm.requests[-1]
    asked = [part.id for message in last.messages for part in message.tool_calls]
    answered = [message.tool_result.call_id for message in last.messages if message.tool_result]
    assert asked == answered
    assert len(set(asked)) == 3
    assert answers(last) == ["2", "4", "6"]
    assert ears.of(TranscriptRepaired) == [], "the log itself is valid"


async def test_a_handle_shows_what_it_is_made_of(make_loop: MakeLoop) -> None:
    loop = make_loop("x", config=LoopConfig(limits=SendLimits(max_rounds=3)))
    assert loop.config.limits.max_rounds == 3
    assert loop.tools.names == ()
    assert repr(loop) == "<StatefulAgentLoop scripted/scripted open>"
    await loop.aclose()
    assert repr(loop) == "<StatefulAgentLoop scripted/scripted closed>"


@pytest.mark.parametrize(
    "options",
    [
        {"max_parallel_tools": 0},
        {"max_parallel_tools": True},
        {"max_output_repairs": -1},
        {"max_cached_sessions": "x"},
        {"lease_ttl_s": 0},
        {"lease_ttl_s": "x"},
        {"max_output_tokens": 0},
        {"temperature": "hot"},
        {"limits": 5},
        {"retry": 5},
    ],
    ids=repr,
)
@pytest.mark.promise("bad-input")
def test_a_config_that_cannot_work_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        LoopConfig(**options)


async def test_without_a_cache_every_send_is_cold_and_right(make_loop: MakeLoop) -> None:
    loop = make_loop("One.", "Two.", config=LoopConfig(max_cached_sessions=0))
    sid = await loop.new_session()
    await loop.send("a", session_id=sid)
    await loop.send("b", session_id=sid)
    assert said(loop.llm.requests[1].messages) == [("user", "a"), ("assistant", "One."), ("user", "b")]
