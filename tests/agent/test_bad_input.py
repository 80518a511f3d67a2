"""Input that cannot be right, and text that no database takes: a coded error or a mended text, and nothing lost."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from power_loop import (
    ImagePart,
    LLMResponse,
    LoopConfig,
    Message,
    PowerLoopError,
    SchemaPolicy,
    SendStatus,
    StatefulAgentLoop,
    StopReason,
    TextPart,
    ToolDefinition,
    open_store,
    tool,
)
from power_loop.errors import ConfigError, InputError, ToolDefinitionError
from power_loop.messages import Role, ToolCallPart
from power_loop.testing import ScriptedLLM, call

from .conftest import MakeLoop
from .parts import answers, said, within_limit

ODD = "a\0b \ud83d half \udc00 end \ud83d\ude00 \uffff \u2028"
#: What becomes of it: a NUL and a half of a character are marked, two halves that belong together are one.
MENDED = "a\ufffdb \ufffd half \ufffd end 😀 \uffff \u2028"


@pytest.mark.promise("bad-input")
async def test_text_that_no_database_takes_is_mended_wherever_it_comes_from(make_loop: MakeLoop) -> None:
    @tool
    def odd() -> Any:
        """Give odd text."""
        return ODD

    loop = make_loop(call("odd", text=ODD), ODD, tool_registry=[odd])
    sid = await loop.new_session(system_prompt=ODD, metadata={"note": ODD})
    result = await loop.send(ODD, session_id=sid)
    assert (result.status, result.final_text) == (SendStatus.COMPLETED, MENDED)
    log = said(await make_loop().get_messages(sid))
    assert log == [("user", MENDED), ("assistant", MENDED), ("tool", MENDED), ("assistant", MENDED)]
    assert loop.llm.requests[0].system == MENDED
    # The warm handle shows the model what the database holds.
    loop.llm.add("Fine.")
    await loop.send("again", session_id=sid)
    assert said(loop.llm.requests[-1].messages)[:4] == log
    assert (await make_loop().get_session(sid)).metadata["note"].startswith("a")


async def test_odd_names_ids_and_arguments_of_a_model_are_survived(make_loop: MakeLoop) -> None:
    calls = [
        ToolCallPart("", "", ""),
        ToolCallPart("\0", "n\0me", '{"a": "\ud800"}'),
        ToolCallPart("x" * 5_000, "y" * 5_000, "[" * 5_000),
        ToolCallPart("id", "look", "{}"),
        ToolCallPart("id", "look", "null"),
    ]

    @tool(effect="read")
    def look() -> str:
        """Look."""
        return "seen"

    reply = LLMResponse(Message(Role.ASSISTANT, tuple(calls)), StopReason.TOOL_CALLS)
    loop = make_loop(reply, "Fine.", "Again.", tool_registry=[look])
    sid = await loop.new_session()
    result = await loop.send("go", session_id=sid)
    assert (result.status, result.tool_calls) == (SendStatus.COMPLETED, 5)
    assert "seen" in answers(loop.llm.requests[1])
    cold = make_loop("Cold.", tool_registry=[look])
    assert (await cold.send("again", session_id=sid)).final_text == "Cold."
    sent = cold.llm.requests[0].messages
    ids = [part.id for message in sent for part in message.tool_calls]
    assert len(set(ids)) == 5
    assert all(0 < len(one) <= 40 for one in ids)


any_text = st.text(st.characters(codec=None), min_size=1, max_size=30).filter(str.strip)


@pytest.mark.promise("bad-input")
@settings(max_examples=60)
@given(st.lists(any_text, min_size=1, max_size=4))
def test_any_text_is_the_same_in_memory_and_on_disk(texts: list[str]) -> None:
    async def talk() -> None:
        store = await open_store(":memory:")
        warm = StatefulAgentLoop(llm=ScriptedLLM([*texts, "Fine."]), store=store)
        sid = await warm.new_session()
        for text in texts:
            assert (await warm.send(text, session_id=sid)).final_text == TextPart(text).text
        stored = said(await warm.get_messages(sid))
        assert stored == [(role, TextPart(text).text) for text in texts for role in ("user", "assistant")]
        cold = StatefulAgentLoop(llm=ScriptedLLM(["Fine."]), store=store)
        await warm.send("again", session_id=sid)
        assert said(warm.llm.requests[-1].messages) == [*stored, ("user", "again")]
        await cold.send("again", session_id=sid)
        assert said(cold.llm.requests[-1].messages)[: len(stored)] == stored
        await store.aclose()

    asyncio.run(talk())


@pytest.mark.parametrize("session_id", [None, 5, b"x", "", "x" * 1_000, ("a",)])
@pytest.mark.promise("bad-input")
async def test_a_session_id_of_no_kind_is_unknown(make_loop: MakeLoop, session_id: Any) -> None:
    loop = make_loop("x")
    for door in (
        loop.send("hi", session_id=session_id),
        loop.resume(session_id),
        loop.get_messages(session_id),
        loop.close_session(session_id),
        loop.get_pending(session_id),
        loop.prewarm(session_id),
    ):
        with pytest.raises(PowerLoopError) as caught:
            await door
        assert caught.value.code == "session.not_found"
        assert isinstance(session_id, str) or "`await loop.new_session()`" in caught.value.message


ODD_VALUES: list[Any] = [5, b"x", [], [1], {}, {"a": object()}, object(), 1.5, True, lambda: 1]


@pytest.mark.parametrize("value", ODD_VALUES, ids=lambda value: type(value).__name__)
@pytest.mark.promise("bad-input")
async def test_no_argument_of_a_wrong_kind_gives_anything_but_a_coded_error(make_loop: MakeLoop, value: Any) -> None:
    loop = make_loop(llm=ScriptedLLM(["x"], repeat_last=True))
    sid = await loop.new_session()
    await loop.send("hi", session_id=sid)
    usual: dict[str, dict[str, Any]] = {
        "new_session": {},
        "update_session": {"session_id": sid},
        "get_session": {"session_id": sid},
        "list_sessions": {},
        "get_messages": {"session_id": sid},
        "get_session_stats": {"session_id": sid},
        "get_tool_result": {"session_id": sid, "call_id": "c"},
        "prewarm": {"session_id": sid},
        "send": {"content": "hi", "session_id": sid},
        "resume": {"session_id": sid},
        "submit_tool_result": {"session_id": sid, "call_id": "c", "result": 1},
        "get_pending": {"session_id": sid},
        "heal_pending": {"session_id": sid},
        "abort_pending": {"session_id": sid},
        "cancel": {"session_id": sid},
        "close_session": {"session_id": (await loop.new_session())},
    }
    for name, arguments in usual.items():
        method = getattr(loop, name)
        for parameter in inspect.signature(method).parameters:
            with contextlib.suppress(PowerLoopError):
                await within_limit(method(**{**arguments, parameter: value}))
    for name in ("config", "hooks", "event_bus", "schema", "clock"):
        with pytest.raises(ConfigError, match=name):
            make_loop(**{name: value})
    with pytest.raises(ConfigError, match="store"):
        StatefulAgentLoop(llm=loop.llm, store=value)
    assert (await loop.send("still here", session_id=sid)).is_completed


@pytest.mark.parametrize("answers_given", [5, ["c1"], "c1", {1: 2}, {"c1": None}])
@pytest.mark.promise("bad-input")
async def test_answers_of_no_kind_are_refused(make_loop: MakeLoop, answers_given: Any) -> None:
    fetch = ToolDefinition("fetch", "Fetch.", {"type": "object", "properties": {}})
    loop = make_loop(call("fetch", id="c1"), "Fine.", tool_registry=[fetch])
    sid = await loop.new_session()
    await loop.send("go", session_id=sid)
    with pytest.raises(PowerLoopError) as caught:
        await loop.resume(sid, answers=answers_given)
    assert caught.value.code in ("input.invalid", "call.not_found")
    assert len(await loop.get_pending(sid)) == 1
    assert (await loop.submit_tool_result(sid, "c1", "x")).is_completed


@pytest.mark.promise("bad-input")
async def test_tools_that_cannot_be_offered_are_refused_before_anything_is_stored(make_loop: MakeLoop) -> None:
    def good() -> str:
        """Be good."""
        return "good"

    loop = make_loop("Fine.")
    sid = await loop.new_session()
    wrong: list[Any] = [
        [ToolDefinition("not a name!", "x", {"type": "object"}, good)],
        [ToolDefinition("x", "x", {"type": "nonsense"}, good)],
        [good, good, ToolDefinition("good", "other", {"type": "object", "properties": {}}, good)],
        [lambda x: x],
        {"a": good},
        7,
    ]
    for tools in wrong:
        with pytest.raises((ToolDefinitionError, ConfigError)):
            await loop.send("go", session_id=sid, tools=tools)
    assert await loop.get_messages(sid) == ()
    assert (await loop.send("go", session_id=sid, tools=[good])).final_text == "Fine."


@pytest.mark.promise("bad-input")
async def test_a_registry_that_cannot_be_is_an_error_at_first_use(dsn: str) -> None:
    loop = StatefulAgentLoop(llm=ScriptedLLM(["x"]), dsn=dsn, tool_registry=5)  # type: ignore[arg-type]
    sid = await loop.new_session()
    with pytest.raises(ConfigError):
        await loop.send("go", session_id=sid)
    await loop.aclose()


@pytest.mark.parametrize("reply", [None, 5, "text", object(), {"content": "x"}])
@pytest.mark.promise("bad-input")
async def test_a_model_that_returns_no_reply_is_a_coded_error(make_loop: MakeLoop, reply: Any) -> None:
    class Odd:
        info = ScriptedLLM().info
        replies = [reply]  # noqa: RUF012

        async def generate(self, request: Any, emit: Any) -> Any:
            return self.replies.pop() if self.replies else LLMResponse.of_text("Fine.")

    loop = make_loop(llm=Odd())
    sid = await loop.new_session()
    with pytest.raises(PowerLoopError) as caught:
        await loop.send("go", session_id=sid)
    assert caught.value.code.startswith("llm.")
    assert (await loop.resume(sid)).final_text == "Fine."


async def test_a_model_that_replies_in_another_role_or_with_foreign_parts_is_survived(make_loop: MakeLoop) -> None:
    odd = LLMResponse(Message(Role.ASSISTANT, (TextPart(""), TextPart("Hello."))))
    loop = make_loop(odd, "Fine.")
    sid = await loop.new_session()
    assert (await loop.send("go", session_id=sid)).final_text == "Hello."
    assert (await loop.send("again", session_id=sid)).final_text == "Fine."


async def test_a_very_long_history_and_a_very_long_message_are_kept(make_loop: MakeLoop) -> None:
    loop = make_loop("y" * 3_000_000, "Fine.", config=LoopConfig(compaction=None))
    sid = await loop.new_session()
    await loop.send("x" * 3_000_000, session_id=sid)
    assert [len(text) for _, text in said(await make_loop().get_messages(sid))] == [3_000_000, 3_000_000]
    result = await loop.send("again", session_id=sid)
    assert result.final_text == "Fine.", "what does not fit is left out of the request, not of the log"
    assert len(await loop.get_messages(sid)) == 4


@pytest.mark.parametrize("bad", ["a/b", "..", "a..b", ".a", "a\\b", "a b", "é", "x" * 65, "", 5, b"a"])
@pytest.mark.promise("bad-input")
async def test_an_id_that_would_be_another_place_in_a_file_name_is_refused(make_loop: MakeLoop, bad: Any) -> None:
    loop = make_loop()
    with pytest.raises(InputError, match="session_id"):
        await loop.new_session(session_id=bad)
    assert await loop.new_session(session_id="user:7.b-c_D") == "user:7.b-c_D"


@pytest.mark.parametrize("schema", ["auto_create", "verify", SchemaPolicy.VERIFY])
async def test_a_schema_policy_may_be_named_by_its_word(make_loop: MakeLoop, schema: Any) -> None:
    await make_loop().new_session()
    assert await make_loop(schema=schema).new_session()


@pytest.mark.parametrize("text", [5, None, b"x", ["x"]])
@pytest.mark.promise("bad-input")
def test_a_text_part_that_holds_no_text_is_refused(text: Any) -> None:
    with pytest.raises(InputError, match="the text of a TextPart is"):
        TextPart(text)


async def test_an_image_of_bytes_is_refused_with_what_to_do(make_loop: MakeLoop) -> None:
    loop = make_loop()
    sid = await loop.new_session()
    image: Any = b"\x89PNG"
    with pytest.raises(InputError, match="bytes to from_bytes"):
        await loop.send([ImagePart(data=image)], session_id=sid)
    assert await loop.get_messages(sid) == ()


async def test_a_call_id_that_no_database_takes_is_mended(make_loop: MakeLoop) -> None:
    @tool(effect="read")
    def look() -> str:
        """Look."""
        return "seen"

    reply = LLMResponse(Message(Role.ASSISTANT, (ToolCallPart("\ud800x\0", "look", "{}"),)), StopReason.TOOL_CALLS)
    loop = make_loop(reply, "Fine.", tool_registry=[look])
    sid = await loop.new_session()
    assert (await loop.send("go", session_id=sid)).final_text == "Fine."
    log = await make_loop().get_messages(sid)
    assert log[1].message.tool_calls[0].id == "\ufffdx\ufffd"
    assert [part.text for part in (await loop.get_tool_result(sid, "\ufffdx\ufffd")) or ()] == ["seen"]


async def test_metadata_of_any_json_comes_back_as_it_was(make_loop: MakeLoop) -> None:
    value = {"a": [1, 2.5, None, True, {"b": "ü"}], "": {}, "big": 2**70, "deep": [[[[[]]]]]}
    loop = make_loop()
    sid = await loop.new_session(metadata=value)
    assert (await make_loop().get_session(sid)).metadata == value
