"""A recording stands for the model that was recorded, whatever the wire: with pieces and failures, without secrets."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from power_loop import (
    AudioPart,
    FilePart,
    ImagePart,
    LLMDelta,
    LLMProviderConfig,
    LLMRequest,
    LLMResponse,
    Message,
    StatefulAgentLoop,
    StopReason,
    TextPart,
    ToolContext,
    ToolSpec,
    Usage,
    create_llm_service_from_config,
    tool,
)
from power_loop.errors import ConfigError, LLMAuthError, LLMError, LLMOverloadedError, LLMRateLimitedError
from power_loop.events import TextDelta
from power_loop.llm import DeltaKind, ModelInfo, OutputSchema
from power_loop.messages import (
    OpaquePart,
    Origin,
    ReasoningPart,
    RefusalPart,
    Role,
    ToolCallPart,
    tool_message,
    user_message,
)
from power_loop.testing import (
    Cassette,
    CassetteMismatchError,
    FrozenClock,
    RecordMode,
    ScriptedLLM,
    call,
    calls,
    leak_check,
)
from tests.agent.parts import Ears, Gate, said, within_limit
from tests.model_server import ModelServer
from tests.testing.behind_server import steps_of

KEY = "sk-proj-0123456789abcdefghij"


def ignore(delta: LLMDelta) -> None:
    """Hear nothing."""


def ask(text: str, **more: Any) -> LLMRequest:
    return LLMRequest((user_message(text),), **more)


@tool(effect="read")
async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool(effect="read")
async def who(context: ToolContext) -> str:
    """Say whose call it is."""
    return f"call {context.call_id} of {context.session_id}"


async def talk(llm: Any, *inputs: str, events: list[Any] | None = None, **options: Any) -> list[tuple[str, str]]:
    """Say things to a new session; return its log as pairs of role and text."""
    clock = options.pop("clock", None) or FrozenClock(skips_sleep=True)
    options.setdefault("tool_registry", [add, who])
    async with StatefulAgentLoop(llm=llm, dsn=":memory:", clock=clock, **options) as loop:
        ears = Ears(loop)
        sid = await loop.new_session(system_prompt="You add.")
        for text in inputs:
            await within_limit(loop.send(text.replace("{sid}", sid), session_id=sid))
        if events is not None:
            events += ears.of(TextDelta)
        return [(role, text.replace(sid, "{sid}")) for role, text in said(await loop.get_messages(sid))]


SCRIPT = [
    calls(("add", {"a": 1, "b": 2}), ("add", {"a": 3, "b": 4}), text="I look."),
    LLMRateLimitedError("Slow down.", retry_after_s=2.0, status=429),
    LLMOverloadedError("Busy.", status=503),
    "Three and seven.",
    "You are welcome.",
]


async def recorded(path: Path, *inputs: str, script: Any = SCRIPT, **options: Any) -> list[tuple[str, str]]:
    with Cassette(path, ScriptedLLM(script), record="once", **options) as llm:
        return await talk(llm, *inputs)


# ---- recording and playing ----


async def test_what_was_recorded_is_played_without_the_model(tmp_path: Path) -> None:
    path = tmp_path / "cassettes" / "sums.jsonl"
    heard: list[list[Any]] = [[], []]
    with Cassette(path, lambda: ScriptedLLM(SCRIPT), record=RecordMode.ONCE) as llm:
        log = await talk(llm, "Sums?", "Thanks.", events=heard[0])
    with Cassette(path, lambda: pytest.fail("nobody is asked"), record="once") as llm:
        assert await talk(llm, "Sums?", "Thanks.", events=heard[1], clock=FrozenClock(seed=9, skips_sleep=True)) == log
        assert llm.unplayed == ()
        assert llm.info == ScriptedLLM().info
    assert heard[0] == heard[1]
    assert [one.text for one in heard[0]][-2:] == [" are", " welcome."]
    assert log[-1] == ("assistant", "You are welcome.")


async def test_failures_are_played_with_all_that_the_kernel_acts_on(tmp_path: Path) -> None:
    await recorded(tmp_path / "c", "Sums?", "Thanks.")
    with Cassette(tmp_path / "c") as llm:
        clock = FrozenClock(skips_sleep=True)
        await talk(llm, "Sums?", "Thanks.", clock=clock)
        failure = llm.calls[1].error
    assert isinstance(failure, LLMRateLimitedError)
    assert (failure.message, failure.status, failure.retry_after_s, failure.may_retry) == ("Slow down.", 429, 2.0, True)
    assert clock.slept[0] >= 2.0


async def test_a_file_says_each_thing_once_and_reads_line_by_line(tmp_path: Path) -> None:
    await recorded(tmp_path / "c", "Sums?", "Thanks.")
    lines = [json.loads(line) for line in (tmp_path / "c").read_text().splitlines()]
    assert lines[0]["power_loop_cassette"] == 1
    kinds = [next(iter(line)) for line in lines[1:]]
    assert kinds == [
        *("system", "tool", "tool", "message", "call"),
        *("message", "message", "message", "call", "call", "call"),
        *("message", "message", "call"),
    ]
    assert lines[5]["call"] == 1
    assert lines[5]["deltas"] == [["text", ["I", " look."]]]
    assert "error" in lines[9]


async def test_ids_of_a_run_stand_in_no_file_and_are_those_of_the_run_that_plays(tmp_path: Path) -> None:
    def answer(request: LLMRequest) -> Any:
        shown = request.messages[-1].tool_result
        return f"I saw {shown.content[0].text}." if shown is not None else call("who")

    log = await recorded(tmp_path / "c", "I am {sid}.", script=[answer, answer])
    text = (tmp_path / "c").read_text()
    assert "I am sess_1." in text
    assert "call call_1 of sess_1" in text
    with Cassette(tmp_path / "c") as llm:
        other = await talk(llm, "I am {sid}.", clock=FrozenClock(seed="other"))
    assert [role for role, _ in other] == [role for role, _ in log]
    assert other[-1][1] == f"I saw {other[-2][1]}.", "the id of its own call, as this run has it"
    assert other[0] == ("user", "I am {sid}.")


async def test_nothing_secret_stands_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_API_KEY", "correct-horse-battery")
    extra = {"headers": {"x-team": "a"}, "Authorization": "Basic aGk=", "user": "u1", "max_tokens": 7}
    request = ask(f"My key is {KEY}, Bearer abcdefghijklmnop0123, and https://me:pass@host/", extra=extra)
    script = ["Take correct-horse-battery.", LLMAuthError(f"refused: {KEY}")]
    with Cassette(tmp_path / "c", ScriptedLLM(script), record="all") as llm:
        assert (await llm.generate(request, ignore)).message.text == script[0], "whoever records is told the whole"
        with pytest.raises(LLMAuthError):
            await llm.generate(request, ignore)
    text = (tmp_path / "c").read_text()
    for secret in (KEY, "abcdefghijklmnop0123", "me:pass", "correct-horse", "x-team", "aGk="):
        assert secret not in text
    assert '"user": "u1", "max_tokens": 7' in text
    with Cassette(tmp_path / "c") as llm:
        assert (await llm.generate(request, ignore)).message.text == "Take <secret>."
        with pytest.raises(LLMAuthError, match="refused: <secret>"):
            await llm.generate(request, ignore)


def blocks(run: str, key: str, name: str) -> Message:
    """Return a reply with blocks of a provider's own, whose ids and secrets are those of one run."""
    thought = {"type": "reasoning", "id": f"rs_{run}00000000", "summary": [f"{name} asks"], "n": 1.0}
    search = {"type": "web_search", "id": f"ws_{run}00000000", "reasoning_id": f"rs_{run}00000000", "api_key": key}
    found = {"type": "web_result", "tool_use_id": f"ws_{run}00000000", "url": f"https://host/?q={name}&k={key}"}
    parts = (
        ReasoningPart(f"{name} asks", raw=json.dumps(thought)),
        *[OpaquePart(json.dumps(one)) for one in (search, found)],
        OpaquePart('{"type" : "kept",  "x": 1.50}'),
        OpaquePart(f"no JSON, {key}"),
    )
    return Message(Role.ASSISTANT, parts, Origin("openai", "gpt"))


async def test_a_providers_own_blocks_are_the_same_in_every_run_and_hold_no_secret(tmp_path: Path) -> None:
    def scrub(text: str) -> str:
        return text.replace("Emma", "<name>").replace("Ann", "<name>")

    said = blocks("aaaa", KEY, "Emma")
    with Cassette(tmp_path / "c", ScriptedLLM([LLMResponse(said)]), record="once", scrub=scrub) as llm:
        given = (await llm.generate(LLMRequest((user_message("Hm?"), said, user_message("And?"))), ignore)).message
        assert given.parts == said.parts, "whoever records is given the whole, to the byte"
    text = (tmp_path / "c").read_text()
    assert not [one for one in (KEY, "Emma", "aaaa") if one in text]
    # Another run meets other ids and another key.
    again = LLMRequest((user_message("Hm?"), blocks("bbbb", KEY[::-1], "Ann"), user_message("And?")))
    with pytest.raises(CassetteMismatchError), Cassette(tmp_path / "c", scrub=scrub) as llm:
        await llm.generate(again, ignore)
    again = LLMRequest((user_message("Hm?"), blocks("bbbb", KEY + "9", "Ann"), user_message("And?")))
    with Cassette(tmp_path / "c", scrub=scrub) as llm:
        played = (await llm.generate(again, ignore)).message.parts
    raws = [one.raw for one in played if isinstance(one, (ReasoningPart, OpaquePart))]
    assert json.loads(raws[0] or "")["id"] == "rs_bbbb00000000", "ids of this run stand where they stood"
    assert json.loads(raws[2] or "") == {
        "type": "web_result",
        "tool_use_id": "ws_bbbb00000000",
        "url": "https://host/?q=<name>&k=<secret>",
    }
    assert raws[3:] == ['{"type" : "kept",  "x": 1.50}', "no JSON, <secret>"]


async def test_a_secret_that_comes_in_pieces_stands_in_no_file(tmp_path: Path) -> None:
    class InPieces(ScriptedLLM):
        async def generate(self, request: LLMRequest, emit: Any) -> LLMResponse:
            for piece in ("My ", KEY[:9], KEY[9:]):
                emit(LLMDelta(DeltaKind.TEXT, piece))
            return LLMResponse.of_text(f"My {KEY}")

    with Cassette(tmp_path / "c", InPieces(), record="once") as llm:
        await llm.generate(ask("Key?"), ignore)
        assert [delta.text for delta in llm.calls[0].deltas] == ["My <secret>"]
    assert KEY[9:] not in (tmp_path / "c").read_text()


async def test_texts_are_changed_by_a_function_of_ones_own(tmp_path: Path) -> None:
    def scrub(text: str) -> str:
        return text.replace("Emma", "<name>").replace("Ann", "<name>")

    await recorded(tmp_path / "c", "I am Emma.", script=["Hello."], scrub=scrub)
    assert "Emma" not in (tmp_path / "c").read_text()
    with Cassette(tmp_path / "c", scrub=scrub) as llm:
        assert (await talk(llm, "I am Ann."))[-1] == ("assistant", "Hello.")


async def test_an_image_stands_in_the_file_once(tmp_path: Path) -> None:
    image = ImagePart.from_bytes(b"\x89PNG" + bytes(range(256)) * 4)
    small = ImagePart.from_bytes(b"\x89PNG")
    linked = ImagePart(url=f"data:image/png;base64,{image.data}")
    request = LLMRequest((Message(Role.USER, (TextPart("See?"), image, small, linked)), user_message((image,))))
    with Cassette(tmp_path / "c", ScriptedLLM(["Yes.", "Yes."]), record="once") as llm:
        await llm.generate(request, ignore)
        await llm.generate(request, ignore)
    text = (tmp_path / "c").read_text()
    assert image.data is not None
    assert text.count(image.data) == 2, "by itself, and in the address"
    with Cassette(tmp_path / "c") as llm:
        assert llm.calls[1].request.messages == request.messages
        await llm.generate(request, ignore)
        await llm.generate(request, ignore)


async def test_a_call_that_was_cancelled_hangs_until_it_is_cancelled(tmp_path: Path) -> None:
    gate = Gate()
    with Cassette(tmp_path / "c", ScriptedLLM([gate.then("Never."), "Later."]), record="once") as llm:
        asked = asyncio.create_task(llm.generate(ask("one"), ignore))
        await gate.someone()
        asked.cancel()
        await asyncio.wait([asked])
        await llm.generate(ask("two"), ignore)
    async with leak_check(kinds=["task"]):
        with Cassette(tmp_path / "c", match="content") as llm:
            asked = asyncio.create_task(llm.generate(ask("one"), ignore))
            assert (await llm.generate(ask("two"), ignore)).message.text == "Later."
            assert not asked.done()
            asked.cancel()
            await asyncio.wait([asked])
        assert asked.cancelled()


async def test_what_a_model_raises_of_its_own_is_played_as_the_kernel_tells_it(tmp_path: Path) -> None:
    class OwnError(LLMRateLimitedError):
        code = "mine.rate"

    async def both(llm: Any) -> list[str]:
        codes = []
        for _ in range(2):
            with pytest.raises((LLMError, ValueError)) as caught:
                await llm.generate(ask("go"), ignore)
            codes.append(str(caught.value))
        return codes

    with Cassette(tmp_path / "c", ScriptedLLM([ValueError("odd"), OwnError("slow")]), record="once") as llm:
        assert await both(llm) == ["odd", "slow"]
    with Cassette(tmp_path / "c") as llm:
        assert await both(llm) == ["ValueError: odd", "slow"]
        assert [type(one.error) for one in llm.calls] == [LLMError, LLMRateLimitedError]


# ---- which call it is ----


async def test_another_request_fails_with_what_differs(tmp_path: Path) -> None:
    first = [user_message("one"), Message(Role.ASSISTANT, (ToolCallPart("c1", "add", '{"a": 1}'),))]
    messages = (*first, tool_message("c1", (TextPart("the sum is 3"),)))
    spec = ToolSpec("add", "Add.", {"type": "object"})
    with Cassette(tmp_path / "c", ScriptedLLM(["x"]), record="once") as llm:
        await llm.generate(LLMRequest(messages, system="Be kind.", tools=(spec,), temperature=0.5), ignore)
    other = (*first, tool_message("c1", (TextPart("the sum is 4"),)), user_message("more"))
    tools = (replace(spec, description="Add!"), ToolSpec("sub", "Subtract.", {}))
    asked = LLMRequest(other, system="Be curt.", tools=tools, max_output_tokens=9, temperature=0.5)

    with pytest.raises(CassetteMismatchError) as caught:
        await Cassette(tmp_path / "c").generate(asked, ignore)
    lines = [
        "call 1 is not the recorded one:",
        "- system differs at character 4: recorded 'Be kind.', asked 'Be curt.'",
        "- tool 'add', description differs at character 4: recorded 'Add.', asked 'Add!'",
        "- tool 'sub' is offered and was not recorded",
        "- message 3, content, text differs at character 12: recorded 'the sum is 3', asked 'the sum is 4'",
        '- 3 messages were recorded and 4 asked; the first more was asked: \'[{"type": "text", "text": "more"}]\'',
        "- max_output_tokens differs at character 1: recorded 'null', asked '9'",
        f"record the cassette {str(tmp_path / 'c')!r} anew with record='all' if that is right",
    ]
    assert str(caught.value).splitlines() == lines


async def test_a_request_that_was_not_recorded_fails_the_send_and_the_block(tmp_path: Path) -> None:
    await recorded(tmp_path / "c", "Sums?", "Thanks.")

    async def swallow() -> None:
        with Cassette(tmp_path / "c") as llm, contextlib.suppress(LLMError):
            await talk(llm, "Other sums?")

    with pytest.raises(CassetteMismatchError, match="message 1, text differs at character 1"):
        await swallow()


async def test_a_call_that_is_not_asked_for_fails_the_block(tmp_path: Path) -> None:
    await recorded(tmp_path / "c", "Sums?", "Thanks.")
    llm = Cassette(tmp_path / "c")
    await talk(llm, "Sums?")
    with pytest.raises(CassetteMismatchError, match="has 5 calls, and 1 of them was not asked for, from call 5 on"):
        llm.check()
    with Cassette(tmp_path / "c", match="content") as llm:
        await talk(llm, "Sums?")
        assert llm.unplayed == (5,)


async def test_one_call_more_than_was_recorded_fails(tmp_path: Path) -> None:
    await recorded(tmp_path / "c", "Hi.", script=["Hello."])
    llm = Cassette(tmp_path / "c")
    await llm.generate(llm.calls[0].request, ignore)
    with pytest.raises(CassetteMismatchError, match="has 1 calls, and one more is asked"):
        await llm.generate(ask("x"), ignore)


async def test_calls_that_run_side_by_side_are_found_by_what_they_ask(tmp_path: Path) -> None:
    texts = [str(number) for number in range(8)]
    with Cassette(tmp_path / "c", ScriptedLLM([lambda request: request.messages[0].text.upper()], repeat_last=True),
                  record="once") as llm:  # fmt: skip
        await asyncio.gather(*(llm.generate(ask(f"n{text}"), ignore) for text in texts))
    with Cassette(tmp_path / "c", match="content") as llm:
        given = await asyncio.gather(*(llm.generate(ask(f"n{text}"), ignore) for text in reversed(texts)))
    assert [one.message.text for one in given] == [f"N{text}" for text in reversed(texts)]


async def test_the_same_question_gets_its_answers_in_order_and_the_last_one_again_if_it_may(tmp_path: Path) -> None:
    with Cassette(tmp_path / "c", ScriptedLLM(["One.", "Two."]), record="once") as llm:
        await llm.generate(ask("go"), ignore)
        await llm.generate(ask("go"), ignore)

    async def said_of(llm: Cassette, count: int) -> list[str]:
        return [(await llm.generate(ask("go"), ignore)).message.text for _ in range(count)]

    with Cassette(tmp_path / "c", match="content", may_repeat=True) as llm:
        assert await said_of(llm, 4) == ["One.", "Two.", "Two.", "Two."]
    llm = Cassette(tmp_path / "c", match="content")
    assert await said_of(llm, 2) == ["One.", "Two."]
    with pytest.raises(CassetteMismatchError, match="may_repeat=True plays it again"):
        await said_of(llm, 1)
    with pytest.raises(CassetteMismatchError, match="the closest is call 1:\n- message 1, text differs"):
        await llm.generate(ask("gone"), ignore)


# ---- what is recorded when ----


async def test_new_calls_are_added_to_what_is_there(tmp_path: Path) -> None:
    await recorded(tmp_path / "c", "Hi.", script=["Hello."])
    for match in ("order", "content"):
        llm = ScriptedLLM([f"Fine, by {match}."])
        with Cassette(tmp_path / "c", llm, record="new", match=match) as cassette:
            await cassette.generate(cassette.calls[0].request, ignore)
            if match == "content":
                await cassette.generate(ask("How?", temperature=0.0), ignore)
            await cassette.generate(ask("How?"), ignore)
        assert len(llm.requests) == 1
    with Cassette(tmp_path / "c") as cassette:
        assert [one.response.message.text for one in cassette.calls if one.response is not None] == [
            "Hello.",
            "Fine, by order.",
            "Fine, by content.",
        ]
        for one in cassette.calls:
            await cassette.generate(one.request, ignore)


async def test_all_is_recorded_anew(tmp_path: Path) -> None:
    await recorded(tmp_path / "c", "Hi.", script=["Hello."])
    with Cassette(tmp_path / "c", ScriptedLLM(["Good day."]), record="all") as llm:
        await llm.generate(ask("Hi!"), ignore)
    with Cassette(tmp_path / "c") as llm:
        assert (await llm.generate(ask("Hi!"), ignore)).message.text == "Good day."


@pytest.mark.parametrize("record", ["once", "all", "new"])
async def test_a_block_that_fails_leaves_the_file_as_it_was(tmp_path: Path, record: str) -> None:
    path = tmp_path / "c"
    if record != "once":
        await recorded(path, "Hi.", script=["Hello."])
    before = path.read_bytes() if path.exists() else None

    async def fail() -> None:
        with Cassette(path, ScriptedLLM(["x"]), record=record, match="content") as llm:
            await llm.generate(ask("half"), ignore)
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    assert (path.read_bytes() if path.exists() else None) == before
    assert os.listdir(tmp_path) == ([] if before is None else ["c"])


def test_what_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    llm = ScriptedLLM(["x"])
    for options, text in [
        ({"record": "some"}, "record is 'some': give one of 'none', 'once', 'new', 'all'"),
        ({"match": "any"}, "match is 'any': give one of 'order', 'content'"),
        ({}, "record it with record='once' and a model"),
        ({"may_repeat": True}, "give match='content'"),
    ]:
        with pytest.raises(ConfigError) as caught:
            Cassette(tmp_path / "c", llm, **options)
        assert text in str(caught.value)
    with pytest.raises(ConfigError, match="of a model: give it as llm"):
        Cassette(tmp_path / "c", record="once")


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda lines: [], "is empty: remove it"),
        (lambda lines: ["{", *lines], r"line 1 of the cassette .* cannot be read \(JSONDecodeError"),
        (lambda lines: [lines[0].replace(": 1", ": 2", 1)], r"version 2, and this power-loop reads versions up to 1"),
        (lambda lines: [lines[0], *lines[2:]], r"line \d+ .*KeyError: 'system-"),
        (lambda lines: [line.replace('"reply"', '"rep"') for line in lines], r"one of reply, error, cancelled"),
        (lambda lines: [line.replace('"stop": "end"', '"stop": "e"') for line in lines], r"line \d+ .*StopReason"),
        (lambda lines: [line.replace('{"type": "text"', '{"type": "x"') for line in lines], r"line \d+ .*'x'"),
    ],
)
async def test_a_damaged_file_is_refused_with_its_line(tmp_path: Path, damage: Any, text: str) -> None:
    await recorded(tmp_path / "c", "Hi.", script=["Hello."])
    lines = (tmp_path / "c").read_text().splitlines()
    (tmp_path / "c").write_text("\n".join(damage(lines)))
    with pytest.raises(ConfigError, match=text):
        Cassette(tmp_path / "c")


async def test_a_file_may_be_edited_by_hand(tmp_path: Path) -> None:
    await recorded(tmp_path / "c", "Hi.", script=["Hello."])
    text = (tmp_path / "c").read_text()
    (tmp_path / "c").write_text(text.replace("Hi.", "Good morning.").replace("Hello.", "Good evening.") + "\n\n")
    with Cassette(tmp_path / "c") as llm:
        assert (await talk(llm, "Good morning."))[-1] == ("assistant", "Good evening.")


# ---- every part and every text ----

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
DATA = st.binary(max_size=300).map(lambda data: base64.b64encode(data).decode())
CONTENT = (
    st.builds(TextPart, TEXTS)
    | st.builds(ImagePart, data=DATA)
    | st.builds(FilePart, data=DATA, filename=st.none() | TEXTS)
    | st.builds(FilePart, file_id=TEXTS)
    | st.builds(AudioPart, DATA, st.sampled_from(["wav", "mp3"]))
)
SAID = (
    st.builds(TextPart, TEXTS)
    | st.builds(ReasoningPart, TEXTS, st.none() | TEXTS, st.none() | st.just("reasoning"))
    | st.builds(RefusalPart, TEXTS)
    | st.builds(OpaquePart, TEXTS)
    | st.builds(ToolCallPart, st.sampled_from(["call_1", "call_2"]), st.just("add"), TEXTS)
)
ORIGINS = st.none() | st.builds(Origin, st.just("openai"), TEXTS)
MESSAGES = (
    st.builds(Message, st.just(Role.USER), st.lists(CONTENT, min_size=1, max_size=3).map(tuple))
    | st.builds(Message, st.just(Role.ASSISTANT), st.lists(SAID, max_size=3).map(tuple), ORIGINS)
    | st.builds(lambda content, is_error: tool_message("call_1", tuple(content), is_error=is_error),
                st.lists(CONTENT, min_size=1, max_size=2), st.booleans())
)  # fmt: skip
REQUESTS = st.builds(
    LLMRequest,
    st.lists(MESSAGES, min_size=1, max_size=4).map(tuple),
    system=st.none() | TEXTS,
    tools=st.just(()) | st.just((ToolSpec("add", "Add.", {"type": "object"}),)),
    tool_choice=st.sampled_from(["auto", "none"]),
    output_schema=st.none() | st.builds(OutputSchema, st.just({"type": "object"}), name=TEXTS),
    tail=st.none() | TEXTS,
    max_output_tokens=st.none() | st.integers(1, 9),
    temperature=st.none() | st.floats(0, 2),
    parallel_tool_calls=st.none() | st.booleans(),
    extra=st.none() | st.dictionaries(st.sampled_from(["seed", "user"]), TEXTS | st.integers(), min_size=1),
)
RESPONSES = st.builds(
    LLMResponse,
    st.builds(Message, st.just(Role.ASSISTANT), st.lists(SAID, max_size=3).map(tuple), ORIGINS),
    st.sampled_from(list(StopReason)),
    st.none() | st.builds(Usage, st.integers(0, 9), st.integers(0, 9), is_estimated=st.booleans()),
    model=st.none() | TEXTS,
)
DELTAS = st.builds(LLMDelta, st.sampled_from(list(DeltaKind)), TEXTS, st.integers(0, 2), st.none() | st.just("add"))


@pytest.fixture(scope="module")
def cassette(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("any") / "c"


@settings(max_examples=40)
@given(REQUESTS, RESPONSES, st.lists(DELTAS, max_size=6))
def test_whatever_is_said_is_played_as_it_was(
    cassette: Path, request_: LLMRequest, response: LLMResponse, deltas: list[LLMDelta]
) -> None:
    path = cassette
    path.unlink(missing_ok=True)

    class Model:
        info = ModelInfo("any", "model", wire="own", has_tools=False)

        async def generate(self, request: LLMRequest, emit: Any) -> LLMResponse:
            for delta in deltas:
                emit(delta)
            return response

    async def run(llm: Any) -> tuple[LLMResponse, list[str]]:
        heard: list[LLMDelta] = []
        given = await llm.generate(request_, heard.append)
        # Only a piece of a call has an index and a name.
        return _numbered(given), [
            repr(one) if one.kind is DeltaKind.TOOL_CALL else f"{one.kind} {one.text}" for one in heard
        ]

    async def both() -> None:
        with Cassette(path, Model(), record="once") as llm:
            first = await run(llm)
        with Cassette(path) as llm:
            assert await run(llm) == first
            assert llm.info == Model.info
        # What is in normal form stays as it is.
        with Cassette(path) as llm:
            await llm.generate(llm.calls[0].request, ignore)

    asyncio.run(both())


def _numbered(response: LLMResponse) -> LLMResponse:
    """The reply with the ids of its calls numbered: what a provider makes up is another one each time."""
    ids = list(dict.fromkeys(call.id for call in response.message.tool_calls))
    parts = [
        replace(one, id=str(ids.index(one.id))) if isinstance(one, ToolCallPart) else one
        for one in response.message.parts
    ]
    return replace(response, message=replace(response.message, parts=tuple(parts)))


# ---- one recording, every wire ----


@contextlib.asynccontextmanager
async def service(server: ModelServer, wire: str, carrier: str) -> AsyncIterator[Any]:
    config = LLMProviderConfig(
        provider=wire, carrier=carrier, base_url=server.base_url, model="test-model", api_key="sk-test-0123456789abcdef"
    )
    made = create_llm_service_from_config(config)
    yield made
    await made.aclose()


@pytest.mark.parametrize("carrier", ["lean", "sdk"])
@pytest.mark.parametrize("wire", ["openai", "anthropic"])
async def test_one_recording_gives_the_same_traffic_over_every_wire(tmp_path: Path, wire: str, carrier: str) -> None:
    if carrier == "sdk":
        pytest.importorskip(wire)
    log = await recorded(tmp_path / "c", "Sums?", "Thanks.")
    with Cassette(tmp_path / "c") as kept:
        await talk(kept, "Sums?", "Thanks.")
    async with ModelServer(steps_of(kept.calls)) as server, service(server, wire, carrier) as llm:
        with Cassette(tmp_path / "again", llm, record="once") as again:
            assert await talk(again, "Sums?", "Thanks.") == log
        assert server.answers_left == 0
    assert [one.request.messages[-1].role for one in again.calls] == [
        one.request.messages[-1].role for one in kept.calls
    ]
    for number, (one, other) in enumerate(zip(kept.calls, again.calls, strict=True), start=1):
        assert type(other.error) is type(one.error), f"call {number}"
        assert _plain(other.request) == _plain(one.request), f"call {number}"
        assert _reply(other.response) == _reply(one.response), f"call {number}"
        assert [d.text for d in other.deltas if d.kind is DeltaKind.TEXT] == [
            d.text for d in one.deltas if d.kind is DeltaKind.TEXT
        ], f"call {number}"
    # What came over a wire plays what was recorded without one, and the other way round.
    with Cassette(tmp_path / "again", match="content") as llm:
        assert await talk(llm, "Sums?", "Thanks.") == log


def _plain(request: LLMRequest) -> Any:
    """What is asked, whichever model said what stands in it."""
    messages = [(message.role, message.parts) for message in request.messages]
    return messages, request.system, [one.name for one in request.tools], request.tool_choice


def _reply(response: LLMResponse | None) -> Any:
    if response is None:
        return None
    # A script leaves ids to the kernel, a provider gives them.
    parts = [replace(one, id="") if isinstance(one, ToolCallPart) else one for one in response.message.parts]
    return parts, response.stop, response.usage
