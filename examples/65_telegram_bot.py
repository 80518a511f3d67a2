"""Runs a Telegram bot by long polling: one session a chat, each update answered once.

    TELEGRAM_TOKEN=123:abc python examples/65_telegram_bot.py

You will see each question and answer. A bot that dies gets the same updates again when it starts: an update whose turn
has ended gives the recorded answer, one that was under way is taken up, and the model is not asked twice. (Telegram has
no such ids for what is *sent* to it, so that a message may come twice.)
"""

import asyncio
import json
import os
import urllib.request
from typing import Any

from power_loop import PowerLoopError, StatefulAgentLoop, create_llm_service_from_env

API = os.environ.get("TELEGRAM_API", "https://api.telegram.org")
POLL_S = 50


def ask(method: str, **arguments: Any) -> Any:
    """Ask the Bot API, blocking."""
    url = f"{API}/bot{os.environ['TELEGRAM_TOKEN']}/{method}"
    request = urllib.request.Request(url, json.dumps(arguments).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=POLL_S + 10) as response:
        return json.load(response)["result"]


async def answer(loop: StatefulAgentLoop, update: dict[str, Any]) -> None:
    """Answer one update, in its chat's session."""
    message = update.get("message", {})
    text, chat = message.get("text"), message.get("chat", {}).get("id")
    if not text:
        return
    sid = f"telegram:{chat}"
    await loop.new_session(session_id=sid, metadata={"chat": chat}, may_exist=True)
    try:
        result = await loop.send(text, session_id=sid, request_id=f"update-{update['update_id']}", on_busy="wait")
        said = result.final_text or f"[{result.status.value}]"
    except PowerLoopError as error:
        said = f"I cannot answer just now ({error.code})."
    print(f"{sid}: {text} → {said}", flush=True)
    await asyncio.to_thread(ask, "sendMessage", chat_id=chat, text=said)


async def main() -> None:
    """Poll for ever. The offset that acknowledges updates moves on once they are answered."""
    offset = 0
    async with StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db") as loop:
        while True:
            updates = await asyncio.to_thread(ask, "getUpdates", offset=offset, timeout=POLL_S)
            # Chats are answered side by side; two updates of one chat wait for each other, in order.
            await asyncio.gather(*(answer(loop, update) for update in updates))
            offset = max([offset, *(update["update_id"] + 1 for update in updates)])


if __name__ == "__main__":
    asyncio.run(main())
