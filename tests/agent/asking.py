"""Is an agent that asks a person, for processes that are killed."""

from __future__ import annotations

from typing import Any

from power_loop import LLMRequest, StatefulAgentLoop, StatefulResult
from power_loop.testing import ScriptedLLM, call
from power_loop.tools import ask_user_tools


def make_agent(dsn: str) -> StatefulAgentLoop:
    """Return its loop."""
    return StatefulAgentLoop(llm=ScriptedLLM([_answer], repeat_last=True), dsn=dsn, tool_registry=ask_user_tools())


def _answer(request: LLMRequest) -> Any:
    said = [message.tool_result for message in request.messages if message.tool_result is not None]
    if not said:
        return call("request_user_input", {"prompt": "Where to?", "choices": ["Oslo", "Bergen"]})
    return f"To {said[-1].content[0].text}."  # type: ignore[union-attr]


async def ask_and_answer(loop: StatefulAgentLoop, session_id: str) -> StatefulResult:
    """Send, and answer what is asked, whoever asks."""
    result = await loop.send("Book a trip.", session_id=session_id, request_id="trip")
    for waiting in result.pending:
        result = await loop.submit_tool_result(session_id, waiting.call_id, "Oslo")
    return result


async def is_booked(loop: StatefulAgentLoop, session_id: str) -> list[str]:
    """Say what is wrong at the end: it was asked once, and the answer counts."""
    messages = [record.message for record in await loop.get_messages(session_id)]
    asked = sum(len(message.tool_calls) for message in messages)
    wrong = [] if asked == 1 else [f"it was asked {asked} times"]
    return wrong if messages[-1].text == "To Oslo." else [*wrong, f"it ended with {messages[-1].text!r}"]
