"""Keeps going when a model is down: retries with a bound in time, then another model.

Two faults are put before the model, so that there is something to see: you will see the first call retried, and the
second one answered by the fallback. Every failure has a code.
"""

import asyncio

from power_loop import (
    AgentEvent,
    LLMRequest,
    LLMResponse,
    LLMRetryPolicy,
    LLMService,
    LoopConfig,
    StatefulAgentLoop,
    create_llm_service_from_env,
)
from power_loop.errors import LLMError, LLMOverloadedError
from power_loop.events import LLMCallFailed
from power_loop.llm import Emit
from power_loop.testing import Fault, FaultyLLM


class Fallback:
    """Asks a second model where the first one is overloaded. The retry policy stands above both."""

    def __init__(self, first: LLMService, second: LLMService) -> None:
        """Take the model to prefer, and the one to fall back to."""
        self.info = first.info
        self._first, self._second = first, second

    async def generate(self, request: LLMRequest, emit: Emit) -> LLMResponse:
        """Ask the first; where it has no room, the second."""
        try:
            return await self._first.generate(request, emit)
        except LLMOverloadedError as error:
            print(f"[{error.code}: asking the other model]")
            return await self._second.generate(request, emit)


def show(event: AgentEvent) -> None:
    """Tell of a failed attempt."""
    match event.payload:
        case LLMCallFailed(code=code, retry_in_s=float(wait_s)):
            print(f"[{code}: again in {wait_s:.2f} s]")
        case LLMCallFailed(code=code):
            print(f"[{code}: that was the last attempt]")


async def main() -> None:
    """Ask twice, each time through a fault."""
    model = create_llm_service_from_env()
    faults = [Fault(1, "error", code="llm.rate_limited"), Fault(3, "error", code="llm.overloaded")]
    config = LoopConfig(retry=LLMRetryPolicy(max_attempts=4, base_delay_s=0.05, total_s=60))
    llm = Fallback(FaultyLLM(model, faults), model)
    async with StatefulAgentLoop(llm=llm, dsn="app.db", config=config) as loop:
        loop.event_bus.subscribe(show, types=[LLMCallFailed])
        sid = await loop.new_session()
        try:
            print((await loop.send("Are you there?", session_id=sid)).final_text)
            print((await loop.send("Still there?", session_id=sid)).final_text)
        except LLMError as error:  # the input is stored: loop.resume(sid) tries again, today or tomorrow
            print(error.code)


if __name__ == "__main__":
    asyncio.run(main())
