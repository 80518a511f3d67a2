"""Chats over a WebSocket: pieces as they come, a stop button, and a page to try it.

    pip install fastapi uvicorn websockets && python examples/64_websocket_chat.py

Open http://127.0.0.1:8000. You will see answers grow, and the stop button end them. Reload the page: the session's id
stands in the address, and the conversation is there.
"""

import asyncio

from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from fastapi.responses import HTMLResponse

from power_loop import StatefulAgentLoop, create_llm_service_from_env
from power_loop.events import TextDelta
from power_loop.messages import Role

PAGE = """<!doctype html><meta charset="utf-8"><title>Chat</title><pre id="log"></pre>
<form id="form"><input id="text" size="60" autofocus> <button>send</button></form><button id="stop">stop</button>
<script>
location.hash ||= crypto.randomUUID()
const socket = new WebSocket(`ws://${location.host}/chat/${location.hash.slice(1)}`)
const say = words => document.getElementById("log").append(words)
socket.onmessage = message => say(message.data)
form.onsubmit = () => { say(`\\n> ${text.value}\\n`); socket.send(text.value); text.value = ""; return false }
stop.onclick = () => socket.send("/stop")
</script>"""

app = FastAPI()


@app.get("/", response_class=HTMLResponse)
async def page() -> str:
    """Serve the page."""
    return PAGE


async def answer(loop: StatefulAgentLoop, sid: str, text: str, socket: WebSocket) -> None:
    """Stream one answer."""
    async with loop.stream(text, session_id=sid) as events:
        async for event in events:
            if isinstance(event.payload, TextDelta):
                await socket.send_text(event.payload.text)
    await socket.send_text(f"\n[{events.result.status.value}]\n")


@app.websocket("/chat/{sid}")
async def chat(socket: WebSocket, sid: str) -> None:
    """Talk to one user, in the session of this id."""
    await socket.accept()
    async with StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db") as loop:
        await loop.new_session(session_id=sid, may_exist=True)
        for record in await loop.get_messages(sid):
            mark = "> " if record.message.role is Role.USER else ""
            await socket.send_text(f"{mark}{record.message.text}\n")
        answers: list[asyncio.Task[None]] = []
        try:
            while True:
                text = await socket.receive_text()
                if text == "/stop":
                    await loop.cancel(sid, reason="the user pressed stop")
                else:  # one turn after the other: sends to a session wait for each other
                    answers.append(asyncio.create_task(answer(loop, sid, text, socket)))
        except WebSocketDisconnect:
            await loop.cancel(sid, reason="the user left")
            await asyncio.gather(*answers, return_exceptions=True)


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(app)
