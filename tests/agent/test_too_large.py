"""What is larger than a model takes ends no session: something of it is left out, told, and the log keeps it all."""

from __future__ import annotations

from typing import Any

import pytest

from power_loop import HookPoint, ImagePart, LLMRequest, Message, TextPart, tool
from power_loop.core.context.rules import check
from power_loop.errors import LLMContextOverflowError, LLMTooLargeError
from power_loop.events import LLMCallFailed, WindowTrimmed
from power_loop.hooks import LLMBeforeContext
from power_loop.messages import ToolResultPart
from power_loop.testing import ScriptedLLM, calls

from .conftest import MakeLoop
from .parts import Ears, text_of

IMAGE = ImagePart.from_bytes(b"\x89PNG" + b"x" * 1_500_000)
NOTE = "[an image of 1.5 MB was left out"


def chars_of(messages: Any) -> int:
    total = 0
    for message in messages:
        for part in message.parts:
            for one in part.content if isinstance(part, ToolResultPart) else (part,):
                total += len(getattr(one, "text", None) or getattr(one, "data", None) or "")
    return total


class Narrow:
    """Is a model that refuses what is too long, with one error or another."""

    def __init__(self, max_chars: int, error: type[Exception], *steps: Any) -> None:
        self.max_chars = max_chars
        self.error = error
        self.steps = list(steps)
        self.refused = 0

    def __call__(self, request: LLMRequest) -> Any:
        assert check(request.messages) == []
        if chars_of(request.messages) > self.max_chars:
            self.refused += 1
            return self.error("it is too large")
        return self.steps.pop(0) if self.steps else "Fine."

    @property
    def llm(self) -> ScriptedLLM:
        return ScriptedLLM([self], repeat_last=True)


@pytest.mark.promise("no-fault-bricks")
async def test_an_image_that_no_provider_takes_ends_no_session(make_loop: MakeLoop) -> None:
    model = Narrow(1_000_000, LLMTooLargeError)
    loop = make_loop(llm=model.llm)
    ears = Ears(loop)
    sid = await loop.new_session()
    for content in ("Hi.", ["Look.", IMAGE], "Forget it.", "Hello?"):
        assert (await loop.send(content, session_id=sid)).final_text == "Fine."
    assert model.refused == 3
    shown = loop.llm.requests[-1].messages
    assert len(shown) == 7, "the image is the only thing that is missing"
    assert NOTE in text_of(shown[2])
    assert ears.of(WindowTrimmed)[-1] == WindowTrimmed(left_out=0, media=1)
    assert {one.code for one in ears.of(LLMCallFailed)} == {"llm.too_large"}
    assert (await loop.get_messages(sid))[2].message.parts[1] == IMAGE, "the log keeps everything"


async def test_of_several_images_the_newest_is_the_last_to_go(make_loop: MakeLoop) -> None:
    model = Narrow(3_000_000, LLMTooLargeError)
    loop = make_loop(llm=model.llm)
    sid = await loop.new_session()
    await loop.send(["One.", IMAGE], session_id=sid)
    await loop.send(["Two.", IMAGE], session_id=sid)
    await loop.send("Compare.", session_id=sid)
    shown = loop.llm.requests[-1].messages
    assert NOTE in text_of(shown[0])
    assert shown[2].parts[1] == IMAGE


@pytest.mark.parametrize("error", [LLMContextOverflowError, LLMTooLargeError])
async def test_one_input_that_alone_is_too_long_keeps_its_beginning_and_its_end(
    make_loop: MakeLoop, error: type[Exception]
) -> None:
    model = Narrow(40_000, error)
    loop = make_loop(llm=model.llm)
    ears = Ears(loop)
    sid = await loop.new_session()
    for content in ("Hi.", "BEGIN " + "word " * 20_000 + "END", "Small.", "Hello?"):
        assert (await loop.send(content, session_id=sid)).final_text == "Fine."
    cut = next(one for one in loop.llm.requests[1:] if chars_of(one.messages) <= 40_000)
    assert text_of(cut.messages[-1]).startswith("BEGIN ")
    assert text_of(cut.messages[-1]).endswith("END")
    assert any(one.texts for one in ears.of(WindowTrimmed))


@tool(effect="read")
def fetch() -> str:
    """Fetch."""
    return "y" * 20_000


@pytest.mark.promise("no-fault-bricks")
async def test_many_results_that_together_are_too_long_end_no_session(make_loop: MakeLoop) -> None:
    model = Narrow(40_000, LLMContextOverflowError, calls(*[("fetch", {})] * 10), "All read.")
    loop = make_loop(llm=model.llm, tool_registry=[fetch])
    sid = await loop.new_session()
    assert (await loop.send("Read all.", session_id=sid)).final_text == "All read."
    assert len(loop.llm.requests[-1].messages) == 12, "each result is there, if not the whole of it"
    assert (await loop.send("Go on.", session_id=sid)).is_completed


async def test_a_long_conversation_with_a_heavy_end_still_reaches_the_last_way_out(make_loop: MakeLoop) -> None:
    """The tries that leave out old messages do not use up those that spare the newest one."""
    model = Narrow(5_000_000, LLMContextOverflowError)
    loop = make_loop(llm=model.llm)
    sid = await loop.new_session()
    for n in range(20):
        await loop.send(f"{n}. " + "word " * 100, session_id=sid)
    model.max_chars = 3_000
    result = await loop.send("word " * 1_000, session_id=sid)
    assert result.final_text == "Fine."


@pytest.mark.parametrize("error", [LLMContextOverflowError, LLMTooLargeError])
async def test_what_nothing_makes_smaller_is_the_error_after_bounded_tries(
    make_loop: MakeLoop, error: type[Exception]
) -> None:
    model = Narrow(0, error)
    loop = make_loop(llm=model.llm)
    sid = await loop.new_session()
    with pytest.raises(error):
        await loop.send(["word " * 50_000, IMAGE, IMAGE], session_id=sid)
    assert model.refused == 5
    model.max_chars = 10_000_000
    assert (await loop.send("Small.", session_id=sid)).is_completed


async def test_hooks_see_the_smaller_request_as_well(make_loop: MakeLoop) -> None:
    model = Narrow(1_000_000, LLMTooLargeError)
    loop = make_loop(llm=model.llm)
    seen: list[Message] = []
    loop.hooks.add(HookPoint.LLM_BEFORE, lambda context: _keep(seen, context))
    sid = await loop.new_session()
    await loop.send(["Look.", IMAGE], session_id=sid)
    assert [isinstance(one.parts[1], TextPart) for one in seen] == [False, True]


def _keep(seen: list[Message], context: LLMBeforeContext) -> None:
    seen.append(context.request.messages[-1])
