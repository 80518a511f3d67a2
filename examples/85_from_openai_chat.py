"""Takes over a conversation from the messages of OpenAI's Chat Completions, as many applications keep them.

    python examples/85_from_openai_chat.py messages.json

You will see what was said, calls and results among it, standing in a session, and a model that goes on from there.
"""

import asyncio
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from history import Said, play

from power_loop import ImagePart, StatefulAgentLoop, create_llm_service_from_env
from power_loop.messages import Role, ToolCallPart

EXAMPLE = Path(__file__).with_name("histories") / "openai_chat.json"


def text_of(content: Any) -> str:
    """Return the text of a message's content, which is a text or a list of parts."""
    if isinstance(content, str):
        return content
    return "".join(part.get("text") or part.get("refusal") or "" for part in content or ())


def said_by(messages: Iterable[dict[str, Any]]) -> list[Said]:
    """Return the messages, those that instruct aside."""
    said = []
    for one in messages:
        text = text_of(one.get("content"))
        if one["role"] == "user":
            parts = one["content"] if isinstance(one["content"], list) else []
            urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
            said.append(Said(Role.USER, text, images=tuple(ImagePart(url=url) for url in urls)))
        elif one["role"] == "assistant":
            calls = [(call["id"], call["function"]) for call in one.get("tool_calls") or ()]
            parts_of = tuple(ToolCallPart(call_id, asked["name"], asked["arguments"]) for call_id, asked in calls)
            said.append(Said(Role.ASSISTANT, text, calls=parts_of))
        elif one["role"] == "tool":
            said.append(Said(Role.TOOL, text, call_id=one["tool_call_id"]))
    return said


async def main(path: str) -> None:
    """Take a conversation over, and go on with it."""
    messages = json.loads(await asyncio.to_thread(Path(path).read_text, "utf-8"))
    prompt = "\n\n".join(text_of(one["content"]) for one in messages if one["role"] in ("system", "developer"))
    sid = f"openai-{Path(path).stem}"
    await play(said_by(messages), dsn="app.db", session_id=sid, system_prompt=prompt)
    async with StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db") as loop:
        for record in await loop.get_messages(sid):
            said = record.message.tool_result or record.message
            print(f"{record.message.role.value}: {said.text or [call.name for call in record.message.tool_calls]}")
        print((await loop.send("Where were we?", session_id=sid)).final_text)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if sys.argv[1:] else str(EXAMPLE)))
