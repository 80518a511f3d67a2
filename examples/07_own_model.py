"""Brings its own model: anything with an `info` and a `generate` is one.

You will see a conversation with a doctor from 1966 that needs no key and no network. Yours may call a model of your
own, choose one of several, or keep what others answered.
"""

import asyncio
import re

from power_loop import LLMDelta, LLMRequest, LLMResponse, StatefulAgentLoop
from power_loop.llm import DeltaKind, Emit, ModelInfo

RULES = [
    (r"I (?:feel|am) (.*?)\.?$", "Why are you {}?"),
    (r"My (\w+)", "Tell me more about your {}."),
    (r".*", "Please go on."),
]


class Doctor:
    """Answers by rules. It sees the whole conversation, and may say its answer piece by piece."""

    info = ModelInfo(provider="mit", model="doctor")

    async def generate(self, request: LLMRequest, emit: Emit) -> LLMResponse:
        """Answer the last message."""
        said = request.messages[-1].text
        found = ((re.match(pattern, said), answer) for pattern, answer in RULES)
        text = next(answer.format(*match.groups()) for match, answer in found if match)
        for word in re.findall(r"\S+\s*", text):
            emit(LLMDelta(DeltaKind.TEXT, word))
        return LLMResponse.of_text(text)


async def main() -> None:
    """Talk to the doctor."""
    async with StatefulAgentLoop(llm=Doctor(), dsn="app.db") as loop:
        sid = await loop.new_session()
        for text in ("I feel tired.", "My computer annoys me.", "Hm."):
            print(f"> {text}\n{(await loop.send(text, session_id=sid)).final_text}")


if __name__ == "__main__":
    asyncio.run(main())
