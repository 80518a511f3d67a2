"""A user's own model may get its replies wrong: that is a coded error, told once, and the session goes on."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from power_loop import HookPoint, LLMResponse, Message, Usage
from power_loop.errors import ConfigError, LLMProtocolError
from power_loop.hooks import Rewrite, Skip
from power_loop.llm import ModelInfo
from power_loop.messages import Role
from power_loop.testing import ScriptedLLM

from .conftest import MakeLoop

FINE = LLMResponse.of_text("Fine.")


class Own:
    """Gives what it was told to, without a look at it."""

    def __init__(self, *given: Any) -> None:
        self.info = ScriptedLLM().info
        self.given = list(given)
        self.asked = 0

    async def generate(self, request: Any, emit: Any) -> Any:
        self.asked += 1
        return self.given.pop(0)


@pytest.mark.promise("no-fault-bricks")
@pytest.mark.parametrize(
    "wrong",
    [
        None,
        "hello",
        LLMResponse(Message(Role.ASSISTANT, ("x",))),  # type: ignore[arg-type]
        dataclasses.replace(FINE, stop="banana"),
        dataclasses.replace(FINE, usage={"input": 1}),
        dataclasses.replace(FINE, usage=Usage(-5, -5)),
    ],
)
async def test_a_reply_that_is_none_is_a_coded_error_and_the_session_goes_on(make_loop: MakeLoop, wrong: Any) -> None:
    model = Own(wrong, FINE, FINE)
    loop = make_loop(llm=model)
    sid = await loop.new_session()
    with pytest.raises(LLMProtocolError, match="the model service gave") as caught:
        await loop.send("a", session_id=sid)
    assert caught.value.code == "llm.protocol"
    assert model.asked == 1, "the same code would give the same once more"
    assert (await loop.resume(sid)).final_text == "Fine."
    assert (await loop.send("b", session_id=sid)).usage.total_tokens > 0


class Unmade:
    """Is a model whose class would pass for it, by its `info`."""

    info = ModelInfo(provider="mine", model="unmade")

    async def generate(self, request: Any, emit: Any) -> LLMResponse:
        return FINE


class Mute:
    """Has no `generate`."""

    info = ModelInfo(provider="mine", model="mute")


@pytest.mark.parametrize("llm", [None, object(), "gpt", {"info": 1}, ScriptedLLM, Unmade, Mute()])
def test_what_is_no_model_is_refused_at_once(make_loop: MakeLoop, llm: Any) -> None:
    with pytest.raises(ConfigError, match="give an LLMService") as caught:
        make_loop(llm=llm)
    assert caught.value.code == "config.invalid"


async def test_the_word_of_a_stop_reason_will_do(make_loop: MakeLoop) -> None:
    loop = make_loop(llm=Own(dataclasses.replace(FINE, stop="end")))
    result = await loop.send("a", session_id=await loop.new_session())
    assert result.is_completed


@pytest.mark.parametrize(
    ("point", "decision"),
    [
        (HookPoint.LLM_BEFORE, Skip(response=dataclasses.replace(FINE, stop="banana"))),
        (HookPoint.LLM_AFTER, Rewrite(response=dataclasses.replace(FINE, usage=Usage(-1)))),
    ],
)
async def test_a_reply_that_a_hook_gives_is_held_to_the_same(
    make_loop: MakeLoop, point: HookPoint, decision: Any
) -> None:
    loop = make_loop("Fine.")
    handle = loop.hooks.add(point, lambda _: decision)
    sid = await loop.new_session()
    with pytest.raises(LLMProtocolError, match="a hook gave"):
        await loop.send("a", session_id=sid)
    handle.remove()
    loop.llm.add("Fine.")
    assert (await loop.send("b", session_id=sid)).final_text == "Fine."
