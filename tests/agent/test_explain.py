"""A handle says of any model call what it was sent, and what of it was not as in the call before."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from power_loop import ImagePart, LLMResponse, LoopConfig, Projection, StatefulAgentLoop, tool
from power_loop.context import CallExplanation, SegmentKind
from power_loop.errors import InputError, LLMContextOverflowError, ModelCallNotFoundError, SessionNotFoundError
from power_loop.hooks import Rewrite, Skip
from power_loop.llm import ModelInfo
from power_loop.testing import ScriptedLLM, call
from tests.tools.test_recall import fold

from .conftest import MakeLoop

SMALL = ModelInfo("openai", "gpt-test", "openai", context_window_tokens=1_500, max_output_tokens=200)


@tool(effect="read")
def look(n: int) -> str:
    """Look."""
    return f"seen {n}"


def kinds(explanation: CallExplanation) -> list[str]:
    return [str(segment) for segment in explanation.segments]


async def explanations(loop: StatefulAgentLoop, session_id: str) -> list[CallExplanation]:
    replies = [one.seq for one in await loop.get_messages(session_id) if one.message.role.value == "assistant"]
    return [await loop.explain(session_id, seq) for seq in replies]


async def test_each_call_is_explained_and_the_last_one_by_default(make_loop: MakeLoop) -> None:
    loop = make_loop(call("look", {"n": 1}), "Done.", "Yes.", tool_registry=[look])
    session_id = await loop.new_session(system_prompt="Be brief.")
    await loop.send("Look.", session_id=session_id)
    await loop.send("Again?", session_id=session_id)
    found = await explanations(loop, session_id)
    assert [(one.call, one.send_index, one.round, one.previous_call) for one in found] == [
        (2, 1, 1, None),
        (4, 1, 2, 2),
        (6, 2, 1, 4),
    ]
    assert [kinds(one) for one in found] == [["tools", "system", f"messages 1-{end}"] for end in (1, 3, 5)]
    assert [one.broken_by for one in found] == [None, None, None]
    assert found[2].shared_tokens == sum(segment.tokens for segment in found[1].segments) > 0
    assert await loop.explain(session_id) == found[-1]


async def test_the_tokens_of_the_segments_are_those_of_the_estimate(make_loop: MakeLoop) -> None:
    @tool(effect="read")
    def big(n: int) -> str:
        """Give much."""
        return "word " * 200

    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    steps = [call("big", {"n": n}) for n in range(6)]
    config = LoopConfig(compaction=None)
    loop = make_loop(llm=ScriptedLLM([*steps, '{"n": 1}'], info=SMALL), tool_registry=[big], config=config)
    session_id = await loop.new_session(system_prompt="Be brief.")
    await loop.send("Go.", session_id=session_id, output_schema=schema)
    found = await explanations(loop, session_id)
    assert {segment.kind for one in found for segment in one.segments} == {
        SegmentKind.TOOLS,
        SegmentKind.SYSTEM,
        SegmentKind.MESSAGES,
        SegmentKind.LEFT_OUT,
        SegmentKind.NOTICE,
    }
    for one in found:
        assert one.estimated_tokens is not None
        # Texts are rounded up to a token each, and the notice of what is left out counts at its most.
        assert abs(one.estimated_tokens - sum(segment.tokens for segment in one.segments)) <= 64


async def test_an_edit_of_the_prompt_breaks_the_prefix_at_the_system_prompt(make_loop: MakeLoop) -> None:
    loop = make_loop("One.", "Two.", tool_registry=[look])
    session_id = await loop.new_session(system_prompt="Be brief.")
    await loop.send("One?", session_id=session_id)
    await loop.update_session(session_id, system_prompt="Be long.")
    await loop.send("Two?", session_id=session_id)
    found = await loop.explain(session_id)
    assert found.broken_by is not None
    assert (found.broken_by.kind, found.reason) == (SegmentKind.SYSTEM, "the system prompt changed")
    assert found.shared_tokens == found.segments[0].tokens


async def test_a_send_that_is_shown_in_short_breaks_the_prefix_where_it_begins(make_loop: MakeLoop) -> None:
    config = LoopConfig(projection=Projection(offers_recall=False))
    loop = make_loop("Hi.", call("look", {"n": 1}), "Done.", "Yes.", tool_registry=[look], config=config)
    session_id = await loop.new_session()
    for text in ("Hello.", "Look.", "More?"):
        await loop.send(text, session_id=session_id)
    found = await loop.explain(session_id)
    assert kinds(found) == ["tools", "messages 1-3", "projected 4-6", "messages 7-7", "notice"]
    assert found.reason == "messages 4 to 6 are shown in short"
    before = await loop.explain(session_id, found.previous_call)
    assert kinds(before) == ["tools", "messages 1-5"]
    assert found.shared_tokens == sum(segment.tokens for segment in found.segments[:2])


async def test_sends_that_are_nothing_but_text_are_no_other_in_short(make_loop: MakeLoop) -> None:
    config = LoopConfig(projection=Projection(offers_recall=False))
    steps = [call("look", {"n": 1}), "Done.", "Yes.", "Yes.", call("look", {"n": 1}), "Done.", "Yes."]
    loop = make_loop(*steps, tool_registry=[look], config=config)
    session_id = await loop.new_session()
    for text in ("Look.", "One?", "Two?"):
        await loop.send(text, session_id=session_id)
    found = await loop.explain(session_id)
    assert kinds(found) == ["tools", "messages 1-1", "projected 2-4", "messages 5-7", "notice"]
    assert found.broken_by is None
    for text in ("Look.", "Three?"):
        await loop.send(text, session_id=session_id)
    assert kinds(await loop.explain(session_id))[1:4] == ["messages 1-1", "projected 2-12", "messages 13-13"]


async def test_a_fold_is_named_as_what_broke_the_prefix(make_loop: MakeLoop) -> None:
    loop = make_loop("One.", "Two.", config=LoopConfig(compaction=None))
    session_id = await loop.new_session()
    await loop.send("One?", session_id=session_id)
    await fold(loop, session_id, 2)
    await loop.send("Two?", session_id=session_id)
    found = await loop.explain(session_id)
    assert kinds(found) == ["tools", "fold 1-2", "messages 3-3"]
    assert found.reason == "the tools came"


async def test_a_fork_is_compared_with_the_calls_that_it_shares(make_loop: MakeLoop) -> None:
    loop = make_loop("One.", "Two.")
    session_id = await loop.new_session()
    await loop.send("One?", session_id=session_id)
    store: Any = await loop.get_store()
    fork = await store.fork_session(session_id)
    await loop.send("Two?", session_id=fork)
    found = await loop.explain(fork)
    assert (found.session_id, found.call, found.previous_call, found.broken_by) == (fork, 4, 2, None)
    assert (await loop.explain(fork, 2)).session_id == fork


async def test_a_request_that_a_hook_rewrote_is_marked(make_loop: MakeLoop) -> None:
    loop = make_loop("One.")
    loop.hooks.add("llm.before", lambda context: Rewrite(request=replace(context.request, system="Other " * 50)))
    session_id = await loop.new_session()
    await loop.send("One?", session_id=session_id)
    found = await loop.explain(session_id)
    assert [segment.kind for segment in found.segments] == [SegmentKind.MESSAGES, SegmentKind.CHANGED]
    assert found.segments[-1].name == "a hook rewrote it"
    assert found.estimated_tokens == sum(segment.tokens for segment in found.segments)


async def test_a_request_of_which_media_were_taken_is_marked(make_loop: MakeLoop) -> None:
    png = ImagePart("image/png", data="iVBORw0KGgoAAAA=")
    llm = ScriptedLLM([LLMContextOverflowError("too long"), "One."])
    loop = make_loop(llm=llm, config=LoopConfig(compaction=None))
    session_id = await loop.new_session()
    await loop.send(["Look.", png], session_id=session_id)
    found = await loop.explain(session_id)
    assert found.segments[-1].name == "media or long texts did not fit"
    assert found.estimated_tokens == sum(segment.tokens for segment in found.segments)


async def test_a_call_that_a_hook_answered_has_no_segments(make_loop: MakeLoop) -> None:
    loop = make_loop()
    loop.hooks.add("llm.before", lambda context: Skip(response=LLMResponse.of_text("Mine.")))
    session_id = await loop.new_session()
    await loop.send("One?", session_id=session_id)
    found = await loop.explain(session_id)
    assert (found.segments, found.estimated_tokens) == ((), None)
    assert "its segments are not known" in str(found)


async def test_what_is_no_model_call_is_refused_with_what_to_look_for(make_loop: MakeLoop) -> None:
    loop = make_loop("One.", "Two.")
    session_id = await loop.new_session()
    with pytest.raises(ModelCallNotFoundError, match="has no model call yet"):
        await loop.explain(session_id)
    await loop.send("One?", session_id=session_id)
    with pytest.raises(ModelCallNotFoundError, match="no model call 7: the one before it is call 2; a call goes by"):
        await loop.explain(session_id, 7)
    with pytest.raises(ModelCallNotFoundError, match="no model call 1: there is none before it") as caught:
        await loop.explain(session_id, 1)
    assert (caught.value.code, caught.value.call) == ("model_call.not_found", 1)
    with pytest.raises(InputError, match="give the seq of a reply"):
        await loop.explain(session_id, "last")  # type: ignore[arg-type]
    with pytest.raises(SessionNotFoundError):
        await loop.explain("sess_none")


def test_a_script_without_an_event_loop_may_ask_too(dsn: str) -> None:
    with StatefulAgentLoop(llm=ScriptedLLM(["One."]), dsn=dsn) as loop:
        session_id = loop.new_session_sync()
        loop.send_sync("One?", session_id=session_id)
        assert loop.explain_sync(session_id).call == 2
