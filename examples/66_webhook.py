"""Answers a webhook that is repeated, such as Slack's events: accepted durably at once, answered later, once.

Needs `pip install fastapi uvicorn`, SLACK_SIGNING_SECRET and SLACK_TOKEN. You will see events accepted within
milliseconds, and answers posted when the model has them. Slack repeats an event that it takes for lost, with the same
`event_id`: it is the same input. A worker in the same process makes the turns; run more of them elsewhere if you like.
"""

import asyncio
import hashlib
import hmac
import json
import os
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException, Request

from power_loop import HookPoint, StatefulAgentLoop, Worker, create_llm_service_from_env
from power_loop.hooks import SendEndContext

API = os.environ.get("SLACK_API", "https://slack.com/api")
loop = StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db")


def post(channel: str, text: str) -> None:
    """Post a message, blocking."""
    body = json.dumps({"channel": channel, "text": text}).encode()
    headers = {"content-type": "application/json", "authorization": f"Bearer {os.environ['SLACK_TOKEN']}"}
    urllib.request.urlopen(urllib.request.Request(f"{API}/chat.postMessage", body, headers), timeout=30).close()


@loop.hooks.on(HookPoint.SEND_END)
async def tell(context: SendEndContext) -> None:
    """Post what came of a turn. Its result is durable by now."""
    text = context.result.final_text or f"[{context.result.status.value}]"
    await asyncio.to_thread(post, context.metadata["channel"], text)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Work while the server runs."""
    async with loop, Worker(loop, concurrency=8, poll_s=0.2):
        yield


app = FastAPI(lifespan=lifespan)


def check(body: bytes, headers: Any) -> None:
    """Refuse what Slack has not signed, and what is old."""
    stamp = headers.get("x-slack-request-timestamp", "0")
    secret = os.environ["SLACK_SIGNING_SECRET"].encode()
    signature = "v0=" + hmac.new(secret, f"v0:{stamp}:".encode() + body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(signature, headers.get("x-slack-signature", "")) or abs(time.time() - int(stamp)) > 300:
        raise HTTPException(401)


@app.post("/slack/events")
async def events(request: Request) -> dict[str, Any]:
    """Take an event: stored first, acknowledged then."""
    body = await request.body()
    check(body, request.headers)
    asked = json.loads(body)
    if asked["type"] == "url_verification":
        return {"challenge": asked["challenge"]}
    event = asked["event"]
    if event["type"] != "app_mention":
        return {}
    sid = f"slack:{event['channel']}:{event.get('thread_ts', event['ts'])}"
    await loop.new_session(session_id=sid, metadata={"channel": event["channel"]}, may_exist=True)
    left = await loop.enqueue(sid, event["text"], request_id=asked["event_id"])
    return {"status": left.status.value}


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(app)
