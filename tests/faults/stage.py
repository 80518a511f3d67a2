"""Puts a loop before a model server: a session, a tool with an effect, ears, a clock that never waits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from power_loop import (
    LLMProviderConfig,
    LoopConfig,
    Message,
    SendStatus,
    StatefulAgentLoop,
    StatefulResult,
    create_llm_service_from_config,
    tool,
)
from power_loop.events import LLMCallFailed
from power_loop.messages import Role
from power_loop.testing import FrozenClock
from tests.agent.parts import Ears, within_limit
from tests.model_server import Answer, ModelServer, Usage, call, say

WIRES = ["openai", "anthropic"]
CARRIERS = ["lean", "sdk"]
SECRET = "sk-test-secret-1234"

FOLLOW_UP, FOLLOW_UP_ANSWER = "And then?", "Then seven."
# What each good answer of a test costs.
USAGE = Usage(40, 6)
ANSWER_COST = (40, 6)


@dataclass(frozen=True)
class Way:
    """A wire over a carrier."""

    wire: str
    carrier: str

    def __str__(self) -> str:
        return f"{self.wire}-{self.carrier}"


@dataclass
class Stage:
    """Is one loop on one session that asks one server; `paid` lists the effects of its tool."""

    loop: StatefulAgentLoop
    server: ModelServer
    clock: FrozenClock
    ears: Ears
    session_id: str = ""
    paid: list[str] = field(default_factory=list)

    async def send(self, text: str, **options: Any) -> StatefulResult:
        """Send within a limit of time."""
        return await within_limit(self.loop.send(text, session_id=self.session_id, **options))

    async def resume(self) -> StatefulResult:
        """Resume within a limit of time."""
        return await within_limit(self.loop.resume(self.session_id))

    async def log(self) -> list[Message]:
        """Return the messages of the session."""
        return [record.message for record in await self.loop.get_messages(self.session_id)]

    async def roles(self) -> list[str]:
        """Return who speaks in the log, in order."""
        return [message.role.value for message in await self.log()]

    async def results(self) -> list[tuple[str, bool]]:
        """Return the results in the log, each as its text and whether it is an error."""
        found = []
        for message in await self.log():
            result = message.tool_result
            if result is not None:
                found.append(("".join(getattr(part, "text", "") for part in result.content), result.is_error))
        return found

    @property
    def failures(self) -> list[tuple[str, bool]]:
        """The codes of failed attempts in order, each with whether it was followed by another."""
        return [(one.code, one.retry_in_s is not None) for one in self.ears.of(LLMCallFailed)]


Build = Callable[..., Any]


class Stages:
    """Builds stages on one database, and closes what they opened."""

    def __init__(self, folder: Path) -> None:
        # What is durable is tested elsewhere; here nothing dies.
        self.dsn = f"{folder / 'app.db'}?synchronous=off"
        self._closings: list[Callable[[], Any]] = []

    def stage(self, way: Way, server: ModelServer, *, config: LoopConfig | None = None, **options: Any) -> Stage:
        """Return a stage without a session."""
        options = {"model": "test-model", "api_key": SECRET, "idle_timeout_s": 20.0, **options}
        provider: Any = way.wire
        carrier: Any = way.carrier
        service = create_llm_service_from_config(
            LLMProviderConfig(provider=provider, carrier=carrier, base_url=server.base_url, **options)
        )
        clock, paid = FrozenClock(seed=len(self._closings), skips_sleep=True), list[str]()

        @tool(effect="once")
        async def pay(to: str, context: Any = None) -> str:
            """Pay somebody.

            Args:
                to: Who is paid.
            """
            paid.append(to)
            return f"paid {to}"

        # A fold would take an answer of the script; what comes of faults in a fold is tested with folds.
        config = LoopConfig(compaction=None) if config is None else config
        loop = StatefulAgentLoop(llm=service, dsn=self.dsn, tool_registry=[pay], clock=clock, config=config)
        self._closings += [loop.aclose, service.aclose]
        return Stage(loop, server, clock, Ears(loop), paid=paid)

    async def close(self) -> None:
        """Close loops and services."""
        for closing in self._closings:
            await within_limit(closing())


@asynccontextmanager
async def playing(
    stages: Stages, way: Way, *script: Any, config: LoopConfig | None = None, **options: Any
) -> AsyncIterator[Stage]:
    """Give a stage with a session before a server that says `script`; behind the block the session goes on."""
    async with ModelServer(list(script)) as server:
        stage = stages.stage(way, server, config=config, **options)
        stage.session_id = await stage.loop.new_session(system_prompt="Be brief.")
        yield stage
        assert server.answers_left == 0
        await goes_on(stages, way, stage)


async def goes_on(stages: Stages, way: Way, stage: Stage) -> None:
    """A plain send by a fresh handle, which knows the log alone, is answered; the provider took every request."""
    server = stage.server
    server.extend(say(FOLLOW_UP_ANSWER, usage=USAGE))
    fresh = stages.stage(way, server)
    before = await stage.loop.get_messages(stage.session_id)
    result = await within_limit(fresh.loop.send(FOLLOW_UP, session_id=stage.session_id))
    assert (result.status, result.final_text) == (SendStatus.COMPLETED, FOLLOW_UP_ANSWER)
    assert [one for request in server.requests for one in request.problems] == []
    after = await stage.loop.get_messages(stage.session_id)
    assert [one.message for one in after[: len(before)]] == [one.message for one in before]
    assert [one.message.role for one in after[len(before) :]] == [Role.USER, Role.ASSISTANT]
    session = await stage.loop.get_session(stage.session_id)
    assert (session.owner, await stage.loop.get_pending(stage.session_id)) == (None, ())


def paying(*pieces: str, **options: Any) -> Answer:
    """An answer that calls the tool, its arguments in pieces."""
    answer = call("pay", pieces or ('{"to": ', '"é', 'va"}'))
    return Answer(**{**{name: getattr(answer, name) for name in ("parts",)}, "usage": USAGE, **options})


def cost(result: StatefulResult) -> tuple[int, int]:
    """Return what a send cost."""
    return result.usage.input_tokens, result.usage.output_tokens
