"""Lets a model say which facts of a send are worth remembering beyond its session."""

from __future__ import annotations

from power_loop.contracts.errors import ConfigError, LLMProtocolError
from power_loop.contracts.llm import LLMDelta, LLMRequest, LLMResponse, LLMService
from power_loop.contracts.memory import Exchange
from power_loop.contracts.messages import Role, user_message
from power_loop.contracts.numbers import is_whole
from power_loop.contracts.states import SendStatus
from power_loop.core.context import texts
from power_loop.tools.one_line import one_line

# Of a long input or answer, its beginning and its end are read.
_MAX_TEXT_CHARS = 8_000
_MAX_INPUTS = 20
_MAX_FACT_CHARS = 500
_MAX_OUTPUT_TOKENS = 1_000


class LLMFacts:
    """Is an `extract` for `StoreMemory`: a model picks out what to remember of each send that completed.

        memory = StoreMemory("app.db", namespace=by_metadata("user_id"), extract=LLMFacts(llm))

    It reads the user's inputs and the final answer, and no tool's result: what a document says is not remembered as a
    fact about the user. Each send costs one call of `llm`, which no limit or usage of the session counts; it has to fit
    into `MemoryUse.timeout_s`. At most `max_facts` facts come of a send (default 5); `instructions` say more about what
    is worth remembering.
    """

    def __init__(self, llm: LLMService, *, max_facts: int = 5, instructions: str | None = None) -> None:
        """Raises `config.invalid`."""
        if not is_whole(max_facts, least=1, most=50):
            raise ConfigError(f"max_facts is {max_facts!r:.200}: give a whole number from 1 to 50")
        self._llm = llm
        self._max_facts = max_facts
        self._system = texts.fact_instructions(max_facts=max_facts, more=instructions)

    async def __call__(self, exchange: Exchange) -> list[str]:
        """Return the facts. Raises what the model raises."""
        if exchange.status is not SendStatus.COMPLETED:
            return []
        request = LLMRequest(
            (user_message(_shown(exchange)),),
            system=self._system,
            max_output_tokens=min(_MAX_OUTPUT_TOKENS, self._llm.info.max_output_tokens),
        )
        response = await self._llm.generate(request, _ignore)
        if not isinstance(response, LLMResponse):
            raise LLMProtocolError(f"the model service gave a {type(response).__name__}: give an LLMResponse")
        lines = [line.strip() for line in response.message.text.splitlines()]
        facts = [line[2:].strip()[:_MAX_FACT_CHARS] for line in lines if line.startswith(("- ", "* "))]
        return [fact for fact in facts if fact and fact != texts.NO_FACTS][: self._max_facts]


def _shown(exchange: Exchange) -> str:
    said = [message.text for message in exchange.messages if message.role is Role.USER]
    inputs = [text for text in said if not texts.is_repair_request(text)]
    lines = [f"user: {one_line(_ends(text))}" for text in (inputs or [exchange.input_text])[-_MAX_INPUTS:]]
    return "\n".join([*lines, f"assistant: {one_line(_ends(exchange.final_text))}"])


def _ends(text: str) -> str:
    half = _MAX_TEXT_CHARS // 2
    return text if len(text) <= _MAX_TEXT_CHARS else f"{text[:half]} … {text[-half:]}"


def _ignore(delta: LLMDelta) -> None:
    """Take what streams by: nobody watches."""
