"""Speaks HTTP with an inspector, byte by byte, as a browser or as somebody who is none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from power_loop.contrib.inspect import Inspector

# Long enough for a machine with much else to do; nobody waits that long where it works.
LIMIT_S = 60.0


@dataclass
class Answer:
    """Is what came back; the names of `headers` are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def value(self) -> Any:
        return json.loads(self.body)


class Visitor:
    """Is somebody at an inspector's port, with a cookie once it has `entered`."""

    def __init__(self, inspector: Inspector) -> None:
        self.base, _, self.token = inspector.url.partition("/#token=")
        self.host = self.base.removeprefix("http://")
        self.cookie: str | None = None
        self.inspector = inspector

    async def raw(self, request: bytes) -> bytes:
        """Send bytes, and return all that comes until the other side hangs up."""
        reader, writer = await asyncio.open_connection(*self.host.split(":"))
        try:
            writer.write(request)
            return await asyncio.wait_for(reader.read(), LIMIT_S)
        finally:
            writer.close()

    def head(self, method: str, path: str, headers: dict[str, str | None], body: bytes = b"") -> bytes:
        """Return a request as bytes; None takes out a header that is there otherwise."""
        sent: dict[str, str | None] = {"Host": self.host, "Cookie": self.cookie}
        if method == "POST":
            sent |= {"Origin": self.base, "Content-Type": "application/json", "Content-Length": str(len(body))}
        lines = [f"{name}: {value}" for name, value in {**sent, **headers}.items() if value is not None]
        return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode() + body

    async def ask(self, method: str, path: str, body: Any = None, **headers: str | None) -> Answer:
        """Make a request, with these headers in place of those that a browser would send."""
        content = b"" if body is None else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        found = await self.raw(self.head(method, path, named, content))
        head, _, rest = found.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        return Answer(int(first.split()[1]), {line.split(": ")[0].lower(): line.split(": ")[1] for line in lines}, rest)

    async def enter(self) -> Visitor:
        """Show the token."""
        answer = await self.ask("POST", "/api/enter", {"token": self.token})
        assert answer.status == 204, answer
        self.cookie = answer.headers["set-cookie"].partition(";")[0]
        return self

    async def read(self, what: str, **query: Any) -> Any:
        """Return what a view holds."""
        answer = await self.ask("GET", f"/api/{what}?{urlencode(query)}")
        assert answer.status == 200, answer
        return answer.value

    async def events(self, session_id: str | None = None) -> AsyncIterator[tuple[str, Any]]:
        """Give what the page of a session is told while it is open."""
        reader, writer = await asyncio.open_connection(*self.host.split(":"), limit=2**22)
        query = "" if session_id is None else "?" + urlencode({"session": session_id})
        try:
            writer.write(self.head("GET", f"/api/live{query}", {}))
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
            while True:
                text = (await asyncio.wait_for(reader.readuntil(b"\n\n"), LIMIT_S)).decode("ascii")
                fields = dict(line.partition(": ")[::2] for line in text.strip().split("\n"))
                if "event" in fields:
                    yield fields["event"], json.loads(fields["data"])
        finally:
            writer.close()
