"""A model behind the pipe answers as it does before it: replies, pieces, errors; and nothing of a call is left."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from power_loop import LLMDelta, LLMRequest, LLMResponse, Usage
from power_loop.contracts import errors
from power_loop.errors import LLMError
from power_loop.llm import DeltaKind
from power_loop.messages import user_message
from power_loop.testing import ScriptedLLM, call
from power_loop.workflow.proxy import MAX_OPEN_CALLS, ModelDesk, ProxyLLM, error_of, error_value
from power_loop.workflow.worker_frames import BrokenFrameError, Frame
from tests.agent.parts import within_limit

REQUEST = LLMRequest((user_message("Hello."),), system="Be kind.")
LLM_ERRORS = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, LLMError)]


@asynccontextmanager
async def connected(llm: Any) -> AsyncIterator[tuple[ProxyLLM, ModelDesk]]:
    """A proxy and its desk, with the JSON of their frames between them."""

    async def to_worker(frame: Frame) -> None:
        await asyncio.sleep(0)
        proxy.take(json.loads(json.dumps(frame)))

    async def to_parent(frame: Frame) -> None:
        known: Any = {"model": desk.ask, "drop": desk.drop}
        known[frame["type"]](json.loads(json.dumps(frame)))

    desk = ModelDesk(llm, to_worker)
    proxy = ProxyLLM(llm.info, "leaf", to_parent)
    try:
        yield proxy, desk
    finally:
        await desk.aclose()


@pytest.mark.parametrize("reply", ["Well, hello there.", call("add", {"a": 1}, id="c1", text="Let me see.")])
async def test_a_reply_and_its_pieces_are_those_of_the_model(reply: str | LLMResponse) -> None:
    direct: list[LLMDelta] = []
    wanted = await ScriptedLLM([reply]).generate(REQUEST, direct.append)
    llm = ScriptedLLM([reply])
    pieces: list[LLMDelta] = []
    async with connected(llm) as (proxy, desk):
        assert await within_limit(proxy.generate(REQUEST, pieces.append)) == wanted
        assert desk.usage == wanted.usage
    assert llm.requests == [REQUEST]
    assert list(map(repr, pieces)) == list(map(repr, direct))
    assert proxy.info == llm.info


@pytest.mark.parametrize("kind", LLM_ERRORS, ids=lambda one: one.code)
async def test_a_failure_is_that_of_the_model(kind: type[LLMError]) -> None:
    error = kind("It broke.", provider="openai", model="m", status=503, retry_after_s=1.5)
    async with connected(ScriptedLLM([error])) as (proxy, _):
        with pytest.raises(kind) as caught:
            await within_limit(proxy.generate(REQUEST, lambda _: None))
    assert type(caught.value) is kind
    assert vars(caught.value) == vars(error)


async def test_a_model_that_raises_anything_fails_the_call_and_leaves_the_leaf_waiting_for_nothing() -> None:
    async with connected(ScriptedLLM([ZeroDivisionError("oh")])) as (proxy, _):
        with pytest.raises(LLMError, match="ZeroDivisionError: oh"):
            await within_limit(proxy.generate(REQUEST, lambda _: None))


async def test_many_calls_at_once_get_each_its_own_answer() -> None:
    llm = ScriptedLLM([lambda request: f"to {request.system}"], repeat_last=True)
    async with connected(llm) as (proxy, desk):
        asked = [proxy.generate(LLMRequest((user_message("x"),), system=str(n)), lambda _: None) for n in range(5)]
        replies = await within_limit(asyncio.gather(*asked))
    assert [one.message.text for one in replies] == [f"to {n}" for n in range(5)]
    assert desk.usage == Usage(50, 25)


async def test_a_call_that_is_cancelled_in_the_worker_ends_at_the_parent() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def hang(_: LLMRequest) -> str:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return ""

    async with connected(ScriptedLLM([hang, "Next."])) as (proxy, _):
        asked = asyncio.create_task(proxy.generate(REQUEST, lambda _: None))
        await within_limit(begun.wait())
        asked.cancel()
        await within_limit(ended.wait())
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert (await within_limit(proxy.generate(REQUEST, lambda _: None))).message.text == "Next."


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "model", "call": 2, "request": {"messages": []}},
        {"type": "model", "call": 0, "request": {"messages": []}},
        {"type": "model", "call": "1", "request": {"messages": []}},
        {"type": "model", "request": {"messages": []}},
        {"type": "model", "call": 1},
        {"type": "model", "call": 1, "request": []},
        {"type": "model", "call": 1, "request": {"messages": [], "system": 5}},
        {"type": "model", "call": 1, "request": {"messages": [{"role": "user", "parts": [{"is_a": "Message"}]}]}},
    ],
)
async def test_a_forged_request_is_refused_and_no_model_is_called(frame: Frame) -> None:
    llm = ScriptedLLM()
    async with connected(llm) as (_, desk):
        with pytest.raises(BrokenFrameError):
            desk.ask(frame)
    assert llm.requests == []


async def test_more_calls_at_once_than_any_turn_makes_are_refused() -> None:
    async with connected(ScriptedLLM([lambda _: asyncio.Event().wait()], repeat_last=True)) as (_, desk):
        for number in range(1, MAX_OPEN_CALLS + 1):
            desk.ask({"type": "model", "call": number, "request": {"messages": []}})
        with pytest.raises(BrokenFrameError):
            desk.ask({"type": "model", "call": MAX_OPEN_CALLS + 1, "request": {"messages": []}})


def test_an_error_of_a_class_that_nobody_else_knows_keeps_its_code() -> None:
    class OwnError(errors.LLMOverloadedError):
        pass

    back = error_of(error_value(OwnError("busy")))
    assert (type(back), back.message, back.may_retry) == (errors.LLMOverloadedError, "busy", True)


def test_pieces_of_every_kind_can_travel() -> None:
    assert {kind.value for kind in DeltaKind} == {"text", "reasoning", "tool_call"}
