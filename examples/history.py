"""Plays a recorded conversation into a session: what the three migrations have in common.

The loop itself drives the turns, with a model that answers what was answered and tools that give what they gave. So the
log, the calls and their results stand in the database as if the conversation had been held here. Nothing is asked and
nothing is done again, and an import that broke off may be repeated.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from power_loop import (
    ContentPart,
    Effect,
    ImagePart,
    LLMRequest,
    LLMResponse,
    LoopConfig,
    StatefulAgentLoop,
    TextPart,
    ToolContext,
    ToolDefinition,
    ToolResult,
)
from power_loop.errors import LLMInvalidRequestError
from power_loop.llm import Emit, ModelInfo
from power_loop.messages import Message, Role, ToolCallPart


@dataclass(frozen=True)
class Said:
    """One message: of a user, of the model with its calls, or the result of the call `call_id`."""

    role: Role
    text: str = ""
    images: tuple[ImagePart, ...] = ()
    calls: tuple[ToolCallPart, ...] = ()
    call_id: str = ""
    is_error: bool = False


class Recorded:
    """Is a model that answers each request with what was answered at that place."""

    info = ModelInfo(provider="recorded", model="recorded")

    def __init__(self, replies: Sequence[Said]) -> None:
        """Take the replies of one turn."""
        self._replies = replies

    async def generate(self, request: LLMRequest, emit: Emit) -> LLMResponse:
        """Give the reply that comes behind those that the turn has already."""
        asked = max(place for place, one in enumerate(request.messages) if one.role is Role.USER)
        given = sum(one.role is Role.ASSISTANT for one in request.messages[asked:])
        if given == len(self._replies):
            raise LLMInvalidRequestError("the recording ends in the middle of this turn: resume() asks a model")
        reply = self._replies[given]
        text = [TextPart(reply.text)] if reply.text else []
        return LLMResponse(Message(Role.ASSISTANT, (*text, *reply.calls)))


def turns(said: Sequence[Said]) -> Iterator[tuple[list[Said], list[Said]]]:
    """Yield what users said, and the replies to it; what nobody has answered is left out."""
    asked: list[Said] = []
    replies: list[Said] = []
    for one in said:
        if one.role is Role.USER:
            if replies:
                yield asked, replies
                asked, replies = [], []
            asked.append(one)
        elif one.role is Role.ASSISTANT and asked:
            replies.append(one)
    if replies:
        yield asked, replies


async def play(said: Sequence[Said], *, dsn: str, session_id: str, system_prompt: str | None = None) -> None:
    """Play a conversation into the session of this id."""
    results = {one.call_id: one for one in said if one.role is Role.TOOL}

    async def give(context: ToolContext, **arguments: Any) -> ToolResult:
        found = results.get(context.call_id, Said(Role.TOOL, "the recording has no result", is_error=True))
        return ToolResult(found.text, is_error=found.is_error)

    names = {call.name for one in said for call in one.calls}
    tools = [
        ToolDefinition(name, "Gives what was recorded.", {"type": "object"}, give, Effect.READ, takes_context="context")
        for name in sorted(names)
    ]
    config = LoopConfig(compaction=None)
    for number, (asked, replies) in enumerate(turns(said)):
        async with StatefulAgentLoop(llm=Recorded(replies), dsn=dsn, tool_registry=tools, config=config) as loop:
            await loop.new_session(session_id=session_id, system_prompt=system_prompt, may_exist=True)
            content: list[ContentPart] = []
            for one in asked:
                content += [TextPart(one.text), *one.images]
            try:
                await loop.send(content, session_id=session_id, request_id=f"import-{number}")
            except LLMInvalidRequestError as error:
                print(error.message)
