"""Takes over a conversation from LangChain or LangGraph: `messages_to_dict(...)`, or the dumped messages of a thread.

    python examples/86_from_langgraph.py thread.json

You will see what was said, calls and results among it, standing in a session, and a model that goes on from there. In
LangGraph, `[m.model_dump() for m in graph.get_state(config).values["messages"]]` is such a dump.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from history import Said, play

from power_loop import StatefulAgentLoop, create_llm_service_from_env
from power_loop.messages import Role, ToolCallPart

EXAMPLE = Path(__file__).with_name("histories") / "langgraph.json"
ROLES = {"human": Role.USER, "ai": Role.ASSISTANT, "tool": Role.TOOL}


def text_of(content: Any) -> str:
    """Return the text of a message's content, which is a text or a list of texts and blocks."""
    if isinstance(content, str):
        return content
    return "".join(block if isinstance(block, str) else block.get("text", "") for block in content)


def said_by(messages: list[dict[str, Any]]) -> list[Said]:
    """Return the messages, those that instruct aside."""
    said = []
    for one in messages:
        data = one.get("data", one)  # messages_to_dict puts the members one level deeper than model_dump
        if one["type"] not in ROLES:
            continue
        calls = tuple(
            ToolCallPart(call["id"], call["name"], json.dumps(call["args"], ensure_ascii=False))
            for call in data.get("tool_calls") or ()
        )
        said.append(
            Said(
                ROLES[one["type"]],
                text_of(data["content"]),
                calls=calls,
                call_id=data.get("tool_call_id", ""),
                is_error=data.get("status") == "error",
            )
        )
    return said


async def main(path: str) -> None:
    """Take a thread over, and go on with it."""
    messages = json.loads(await asyncio.to_thread(Path(path).read_text, "utf-8"))
    prompts = [text_of(one.get("data", one)["content"]) for one in messages if one["type"] == "system"]
    sid = f"langgraph-{Path(path).stem}"
    await play(said_by(messages), dsn="app.db", session_id=sid, system_prompt="\n\n".join(prompts))
    async with StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db") as loop:
        for record in await loop.get_messages(sid):
            said = record.message.tool_result or record.message
            print(f"{record.message.role.value}: {said.text or [call.name for call in record.message.tool_calls]}")
        print((await loop.send("Where were we?", session_id=sid)).final_text)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if sys.argv[1:] else str(EXAMPLE)))
