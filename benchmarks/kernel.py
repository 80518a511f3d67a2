"""power-loop in the benchmarks, through its public door only."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.conversation import SYSTEM_PROMPT, answer, question
from power_loop import (
    LLMProviderConfig,
    LLMResponse,
    StatefulAgentLoop,
    ToolDefinition,
    ToolRegistry,
    create_llm_service_from_config,
)
from power_loop.events import TextDelta
from power_loop.llm import ModelInfo

# More than any history here: nothing is trimmed or folded away while it is measured.
WINDOW_TOKENS = 100_000_000
LEAN, SDK = "power-loop, lean carrier", "power-loop, SDK carrier"
CARRIERS = {LEAN: "lean", SDK: "sdk"}


class InProcessModel:
    """A model without a wire: it gives the conversation's answers at once."""

    info = ModelInfo(provider="bench", model="bench-model", context_window_tokens=WINDOW_TOKENS)

    def __init__(self) -> None:
        self._asked = 0

    async def generate(self, request: Any, emit: Any) -> LLMResponse:
        """Give the next answer."""
        self._asked += 1
        return LLMResponse.of_text(answer(self._asked - 1))


def remote_model(base_url: str, carrier: str) -> Any:
    """The zero-latency endpoint as a model."""
    config = LLMProviderConfig(
        provider="openai",
        base_url=base_url,
        api_key="k",
        model="bench-model",
        carrier=carrier,
        context_window_tokens=WINDOW_TOKENS,
    )
    return create_llm_service_from_config(config)


def registry(handler: Callable[..., Awaitable[str]], effect: Any) -> ToolRegistry:
    """One tool, `echo`, whose handler takes a number."""
    schema = {"type": "object", "properties": {"value": {"type": "integer"}}, "required": ["value"]}
    tools = ToolRegistry()
    tools.register(
        ToolDefinition(name="echo", description="Give it back.", input_schema=schema, handler=handler, effect=effect)
    )
    return tools


async def seed(dsn: str, messages: int, *, session_id: str | None = None) -> str:
    """Make a session with so many messages by sending; returns its id."""
    async with StatefulAgentLoop(llm=InProcessModel(), dsn=dsn) as loop:
        made = await loop.new_session(system_prompt=SYSTEM_PROMPT, session_id=session_id)
        for n in range(messages // 2):
            await loop.send(question(n), session_id=made)
    return made


class KernelSession:
    """One conversation with the endpoint over one of the carriers."""

    def __init__(self, dsn: str, base_url: str, carrier: str, *, tools: ToolRegistry | None = None) -> None:
        self._dsn = dsn
        self.loop = StatefulAgentLoop(llm=remote_model(base_url, carrier), dsn=dsn, tool_registry=tools)
        self.session_id = ""

    async def fill(self, messages: int) -> None:
        """Begin a session with a history."""
        self.session_id = await seed(self._dsn, messages)

    async def turn(self, text: str) -> str:
        """One durable turn."""
        return (await self.loop.send(text, session_id=self.session_id)).final_text

    async def listen(self, text: str) -> int:
        """One durable turn as a stream; returns how many pieces of text were heard."""
        heard = 0
        async with self.loop.stream(text, session_id=self.session_id) as events:
            async for event in events:
                heard += type(event.payload) is TextDelta
        return heard

    async def close(self) -> None:
        """Let everything go."""
        await self.loop.aclose()


async def crowd(loop: StatefulAgentLoop, sessions: int, turns: int) -> None:
    """So many sessions at once, each with so many turns."""

    async def talk() -> None:
        session_id = await loop.new_session(system_prompt=SYSTEM_PROMPT)
        for n in range(turns):
            await loop.send(question(n), session_id=session_id)

    await asyncio.gather(*(talk() for _ in range(sessions)))
