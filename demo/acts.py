"""The acts of the demo, each run in a process of its own: `python -m demo.acts NAME`, as `demo.act_process` does."""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Awaitable, Callable, Iterable
from contextlib import redirect_stdout
from typing import Any

from demo.telling import tell
from demo.tools import demo_tools
from power_loop import PowerLoopError, StatefulAgentLoop, create_llm_service_from_env
from power_loop.hooks import LLMBeforeContext
from power_loop.messages import ToolCallPart
from power_loop.records import CallRecord, MessageRecord

# A small model that does not call a tool in one wording does so in another.
PAY = ("Pay 40 euros to Anna.", "Pay 12 euros to Ben.", "Pay 25 euros to Tom.")
RING = ("Ring the bell 3 times.", "Ring the bell 2 times.", "Ring the bell twice.")


async def remember() -> str:
    """Hold the conversation of the project's first code block."""
    loop = StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db")
    sid = await loop.new_session()
    await loop.send("Remember my favorite color is teal.", session_id=sid)
    answer = await loop.send("What's my favorite color?", session_id=sid)
    print(answer.final_text)
    return sid


async def talk() -> None:
    """First act: a conversation, and what the database holds of it."""
    said = io.StringIO()
    with redirect_stdout(said):
        session_id = await remember()
    async with _loop() as loop:
        tell("talked", **await _state(loop, session_id), printed=said.getvalue().strip())


async def act_and_die(session_id: str) -> None:
    """Second act: two sessions ask for a tool each; both handlers wait in the middle, to be killed there."""
    async with _loop() as loop:
        other_id = await loop.new_session()
        tell("opened", session=other_id)
        await asyncio.gather(
            _ask_until_it_acts(loop, session_id, PAY),
            _ask_until_it_acts(loop, other_id, RING),
        )


async def _ask_until_it_acts(loop: StatefulAgentLoop, session_id: str, wordings: Iterable[str]) -> None:
    """Ask in one wording after the other; the send that reaches a handler does not return."""
    for wording in wordings:
        tell("asked", session=session_id, text=wording)
        result = await loop.send(wording, session_id=session_id)
        tell("no_call", asked=wording, said=result.final_text)


async def go_on(*session_ids: str) -> None:
    """Third act: what the database holds after the kill, and how a fresh process goes on from it."""
    async with _loop() as loop:
        for session_id in session_ids:
            tell("held", **await _state(loop, session_id))
        try:
            await loop.send("Hello?", session_id=session_ids[0])
        except PowerLoopError as error:
            tell("refused", code=error.code, message=error.message)
        for session_id in session_ids:
            result = await loop.resume(session_id)
            tell("resumed", **await _state(loop, session_id), status=result.status.value)


async def recall(session_id: str) -> None:
    """Fourth act: a cold process asks what the first one told, and shows what the model was sent."""
    async with StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db") as loop:

        @loop.hooks.on("llm.before")
        def see(context: LLMBeforeContext) -> None:
            tell("prompt", texts=[message.text for message in context.request.messages])

        result = await loop.send("What's my favorite color?", session_id=session_id)
        tell("recalled", text=result.final_text)


def _loop() -> StatefulAgentLoop:
    return StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db", tool_registry=demo_tools())


async def _state(loop: StatefulAgentLoop, session_id: str) -> dict[str, Any]:
    """Return what the store holds of a session: its messages and its calls."""
    messages = await loop.get_messages(session_id)
    store = await loop.get_store()
    calls = await store.get_calls(session_id)
    return {
        "session": session_id,
        "messages": [_message(record) for record in messages],
        "calls": [_call(record) for record in calls],
    }


def _message(record: MessageRecord) -> dict[str, Any]:
    message = record.message
    result = message.tool_result
    calls = [part for part in message.parts if isinstance(part, ToolCallPart)]
    answer = "" if result is None else "".join(getattr(part, "text", "") for part in result.content)
    return {
        "seq": record.seq,
        "role": message.role.value,
        "text": message.text or answer,
        "calls": [{"id": call.id, "name": call.name, "arguments": call.arguments} for call in calls],
        "answers": None if result is None else result.call_id,
    }


def _call(record: CallRecord) -> dict[str, Any]:
    return {
        "id": record.call_id,
        "name": record.name,
        "effect": record.effect.value,
        "state": record.state.value,
        "attempt": record.attempt,
        "key": record.idempotency_key,
    }


ACTS: dict[str, Callable[..., Awaitable[None]]] = {
    "talk": talk,
    "act_and_die": act_and_die,
    "go_on": go_on,
    "recall": recall,
}


async def run(name: str, *arguments: str) -> None:
    """Run one act. An error that has a code is said in its own words, without a traceback."""
    try:
        await ACTS[name](*arguments)
    except PowerLoopError as error:
        sys.exit(f"{error.code}: {error.message}")


if __name__ == "__main__":
    asyncio.run(run(*sys.argv[1:]))
