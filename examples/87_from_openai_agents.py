"""Takes over every session of the OpenAI Agents SDK from its SQLite file.

    python examples/87_from_openai_agents.py conversations.db

You will see each session with its number of messages, and a model that goes on with the first of them. Repeated, it
takes over nothing twice.
"""

import asyncio
import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from history import Said, play

from power_loop import StatefulAgentLoop, create_llm_service_from_env
from power_loop.messages import Role, ToolCallPart

EXAMPLE = Path(__file__).with_name("histories") / "openai_agents.sql"


def read(path: str) -> dict[str, list[dict[str, Any]]]:
    """Return the items of each session, in order."""
    source = ":memory:" if path.endswith(".sql") else f"file:{path}?mode=ro"
    with closing(sqlite3.connect(source, uri=True)) as database:
        if path.endswith(".sql"):
            database.executescript(Path(path).read_text("utf-8"))
        found: dict[str, list[dict[str, Any]]] = {}
        for sid, data in database.execute("SELECT session_id, message_data FROM agent_messages ORDER BY id"):
            found.setdefault(sid, []).append(json.loads(data))
    return found


def said_by(items: list[dict[str, Any]]) -> list[Said]:
    """Return the messages: what the model says and the calls that follow it are one reply; reasoning stays behind."""
    said: list[Said] = []
    for item in items:
        kind = item.get("type", "message")
        if kind == "function_call_output":
            output = item["output"]
            text = output if isinstance(output, str) else "".join(part.get("text", "") for part in output)
            said.append(Said(Role.TOOL, text, call_id=item["call_id"]))
        elif kind == "function_call":
            call = ToolCallPart(item["call_id"], item["name"], item["arguments"])
            before = said.pop() if said and said[-1].role is Role.ASSISTANT else Said(Role.ASSISTANT)
            said.append(Said(Role.ASSISTANT, before.text, calls=(*before.calls, call)))
        elif kind == "message" and item["role"] in ("user", "assistant"):
            content = item["content"]
            text = content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
            said.append(Said(Role.USER if item["role"] == "user" else Role.ASSISTANT, text))
    return said


async def main(path: str) -> None:
    """Take all sessions over, and go on with the first."""
    sessions = await asyncio.to_thread(read, path)
    for sid, items in sessions.items():
        await play(said_by(items), dsn="app.db", session_id=f"agents:{sid}")
    async with StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db") as loop:
        for sid in sessions:
            print(f"agents:{sid} has {len(await loop.get_messages(f'agents:{sid}'))} messages")
        print((await loop.send("Where were we?", session_id=f"agents:{next(iter(sessions))}")).final_text)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if sys.argv[1:] else str(EXAMPLE)))
