"""Is an MCP server written with the official SDK, over standard input and output, or by HTTP on a port of its own."""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

import anyio

try:
    from mcp.server.mcpserver import Context, Image
    from mcp.server.mcpserver import MCPServer as Server
except ImportError:
    from mcp.server.fastmcp import Context, Image  # type: ignore[no-redef]
    from mcp.server.fastmcp import FastMCP as Server  # type: ignore[no-redef]
from mcp.types import ToolAnnotations

PIXEL = b"\x89PNG\r\n\x1a\n" + b"\0" * 20


def note(variable: str, mark: str) -> None:
    """Leave a mark in the file that a variable names."""
    with open(os.environ[variable], "a", encoding="utf-8") as log:
        log.write(mark)


server = Server("tests", instructions="For tests.")


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


# The field's name differs between the majors of the SDK; its alias does not.
@server.tool(annotations=ToolAnnotations.model_validate({"readOnlyHint": True}))
def read_note() -> str:
    """Read the note."""
    return "a note"


@server.tool(name="dots.and spaces/ü")
def odd_name() -> str:
    """Have an odd name."""
    return "odd"


@server.tool()
def fail() -> str:
    """Fail."""
    raise ValueError("it does not work")


@server.tool()
def picture() -> Image:
    """Give a picture."""
    return Image(data=PIXEL, format="png")


@server.tool()
async def slow(ctx: Context) -> str:
    """Tell how far it is, then wait for ever."""
    await ctx.report_progress(1, 4)
    try:
        await anyio.sleep_forever()
    finally:
        note("SLOW_LOG", "cancelled")
    return "never"


@server.tool()
async def leave_early(ctx: Context) -> str:
    """End the stream of the answer twice before the answer is there."""
    note("SLOW_LOG", "ran,")
    for way in (0.25, 0.75):
        await ctx.close_sse_stream()
        await ctx.report_progress(way, 1)
    return "it came all the same"


@server.tool()
def die() -> str:
    """Leave a mark and die."""
    note("DEATHS", "x")
    os._exit(7)


@server.tool()
def pid() -> int:
    """Give the process id."""
    return os.getpid()


@server.tool()
def environment() -> list[str]:
    """Give the names of the variables."""
    return sorted(os.environ)


@server.resource("note://today")
def today() -> str:
    """The note of today."""
    return "buy tea"


@server.prompt()
def greet(name: str) -> str:
    """Greet somebody."""
    return f"Say hello to {name}."


class Events:
    """Keeps what was sent, so that a stream can be taken up after any event; what `EventStore` of the SDK asks for."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Any]] = []

    async def store_event(self, stream_id: str, message: Any) -> str:
        self.sent.append((stream_id, message))
        return str(len(self.sent))

    async def replay_events_after(self, last_event_id: str, send_callback: Any) -> str | None:
        from mcp.server.streamable_http import EventMessage

        last = int(last_event_id)
        stream_id = self.sent[last - 1][0]
        for number, (stream, message) in enumerate(self.sent[last:], last + 1):
            if stream == stream_id and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream_id


def serve_http() -> None:
    """Serve by HTTP, and tell the port."""
    import uvicorn

    listening = socket.create_server(("127.0.0.1", 0))
    sys.stdout.write(f"{listening.getsockname()[1]}\n")
    sys.stdout.flush()
    options: Any = {"event_store": Events(), "retry_interval": 10}
    try:
        app = server.streamable_http_app(**options)
    except TypeError:  # the older major of the SDK takes them elsewhere
        app = server.streamable_http_app()
    config = uvicorn.Config(app, log_level="error")
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    serve_http() if sys.argv[1:] == ["http"] else server.run()
