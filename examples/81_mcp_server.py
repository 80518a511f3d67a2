"""Serves an agent to any client of the Model Context Protocol, such as an editor, over standard input and output.

You will see a client start the server, make a session, and send to it; `answer` would approve a call that waits. For a
client of yours, enter the command `python examples/81_mcp_server.py serve`, or `power-loop mcp --app my_app:make_loop`.
"""

import asyncio
import os
import sys

from power_loop import StatefulAgentLoop, create_llm_service_from_env, tool
from power_loop.contrib.mcp import StdioMCPClient, serve_stdio


@tool(effect="read")
def find_book(title: str) -> str:
    """Find a book in the library."""
    return f"{title} stands on shelf {len(title)}"


async def serve() -> None:
    """Be the server."""
    async with StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db", tool_registry=[find_book]) as loop:
        await serve_stdio(loop)


async def main() -> None:
    """Be a client: an editor does the same."""
    # A server gets a few harmless variables only, and what it is given here.
    env = {name: value for name, value in os.environ.items() if name.startswith(("POWER_LOOP_", "PYTHONPATH"))}
    async with await StdioMCPClient(sys.executable, [__file__, "serve"], env=env).connect() as client:
        print(", ".join(one.name for one in await client.list_tools()))
        made = await client.call_tool("new_session", {"title": "books"})
        sid = (made.structured or {})["session_id"]
        said = await client.call_tool("send", {"session_id": sid, "text": "Where is Emma?", "request_id": "1"})
        print((said.structured or {})["final_text"])


if __name__ == "__main__":
    asyncio.run(serve() if sys.argv[1:] else main())
