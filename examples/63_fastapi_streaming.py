"""Streams answers over HTTP, and loses nothing when the connection or the server dies.

    pip install fastapi uvicorn && python examples/63_fastapi_streaming.py
    curl -X POST localhost:8000/sessions
    curl -N localhost:8000/sessions/SESSION/send -H 'Idempotency-Key: 1' --json '{"text": "Tell me a story."}'

You will see the answer as server-sent events: `delta`s, then one `done` with the whole text. Break the request off and
repeat it: the turn went on meanwhile, and you are told how it ended. Kill the server with -9 and repeat it on a new
one: the turn is taken up from the database, and the model is not asked for what is stored already.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Header
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from power_loop import PowerLoopError, StatefulAgentLoop, StatefulResult, create_llm_service_from_env
from power_loop.events import StreamReset, TextDelta

loop = StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db")
turns: dict[tuple[str, str], asyncio.Task[StatefulResult]] = {}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Close the loop with the server: turns that run come to their end first."""
    async with loop:
        yield


app = FastAPI(lifespan=lifespan)


class Say(BaseModel):
    """What a user says."""

    text: str


def turn_of(sid: str, text: str, key: str) -> asyncio.Task[StatefulResult]:
    """Return the turn of a request: the one that runs here, or one that begins, goes on, or gives what is recorded."""
    if (sid, key) not in turns:
        task = turns[sid, key] = asyncio.create_task(loop.send(text, session_id=sid, request_id=key, on_busy="wait"))
        task.add_done_callback(lambda _: turns.pop((sid, key), None))
    return turns[sid, key]


async def told(sid: str, text: str, key: str) -> AsyncIterator[str]:
    """Yield the events of a turn. Whoever leaves early ends this, and not the turn."""
    events = loop.event_bus.stream(session_id=sid, types=[TextDelta, StreamReset])
    turn = turn_of(sid, text, key)
    turn.add_done_callback(lambda _: events.finish())
    try:
        async for event in events:
            if isinstance(event.payload, TextDelta):
                yield f"event: delta\ndata: {json.dumps(event.payload.text)}\n\n"
            else:
                yield "event: reset\ndata: null\n\n"  # what was streamed is void: the model is asked again
        result = await asyncio.shield(turn)
        yield f"event: done\ndata: {json.dumps({'status': result.status.value, 'text': result.final_text})}\n\n"
    except PowerLoopError as error:
        yield f"event: error\ndata: {json.dumps({'code': error.code})}\n\n"
    finally:
        events.finish()


@app.post("/sessions")
async def new_session() -> dict[str, str]:
    """Make a session."""
    return {"session": await loop.new_session()}


@app.post("/sessions/{sid}/send")
async def send(sid: str, say: Say, idempotency_key: str = Header()) -> StreamingResponse:
    """Say something, and stream what comes of it."""
    return StreamingResponse(told(sid, say.text, idempotency_key), media_type="text/event-stream")


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(app, port=int(os.environ.get("PORT", "8000")))
