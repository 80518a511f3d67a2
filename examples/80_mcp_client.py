"""Uses the tools of a Model Context Protocol server, which is a program of its own here.

You will see the server's tools under their names, and a model calling one. A tool that the server describes otherwise
later on is not called any more: what you accepted is pinned. `HttpMCPClient` speaks to servers by HTTP.
"""

import asyncio
import json
import sys

from power_loop import StatefulAgentLoop, ToolRegistry, create_llm_service_from_env
from power_loop.contrib.mcp import StdioMCPClient, register_mcp_tools

NOTES = {"shopping": "tea, lemons", "door": "the code is 4711"}
READ = {
    "name": "read",
    "description": "Read a note by its name.",
    "inputSchema": {"type": "object", "properties": {"name": {"enum": list(NOTES)}}, "required": ["name"]},
}


def serve() -> None:
    """Be a server of a few lines; with the official SDK it would be as short."""
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["method"] == "initialize":
            capabilities = {"capabilities": {"tools": {}}, "serverInfo": {"name": "notes", "version": "1"}}
            answer = {"protocolVersion": asked["params"]["protocolVersion"], **capabilities}
        elif asked["method"] == "tools/list":
            answer = {"tools": [READ]}
        elif asked["method"] == "tools/call":
            answer = {"content": [{"type": "text", "text": NOTES[asked["params"]["arguments"]["name"]]}]}
        else:
            continue  # a notification
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": answer}), flush=True)


async def main() -> None:
    """Ask something that is in a note."""
    registry = ToolRegistry()
    async with await StdioMCPClient(sys.executable, [__file__, "serve"]).connect() as client:
        registered = await register_mcp_tools(registry, client, prefix="notes.", effects={"read": "read"})
        print(dict(registered.names))
        async with StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db", tool_registry=registry) as loop:
            sid = await loop.new_session()
            print((await loop.send("What is on my shopping note?", session_id=sid)).final_text)
    await registry.aclose()


if __name__ == "__main__":
    if sys.argv[1:]:
        serve()
    else:
        asyncio.run(main())
