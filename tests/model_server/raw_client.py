"""An HTTP client that shows every byte: for tests that look at the framing itself."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field


@dataclass
class RawResponse:
    """What came back: `chunks` as they were framed, `complete` when the body ended as its framing says."""

    status: int
    headers: dict[str, str]
    chunks: list[bytes] = field(default_factory=list)
    complete: bool = False

    @property
    def body(self) -> bytes:
        """The chunks as one."""
        return b"".join(self.chunks)


class RawClient:
    """One kept-alive connection."""

    def __init__(self, port: int) -> None:
        """Connect on entering."""
        self._port = port

    async def __aenter__(self) -> RawClient:
        """Connect."""
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Close."""
        self.writer.close()

    async def post(self, path: str, body: bytes, **headers: str) -> RawResponse:
        """Send a request and read the response as far as it comes."""
        self.send(path, body, **headers)
        return await self.read()

    def send(self, path: str, body: bytes, **headers: str) -> None:
        """Send a request; underscores in header names become hyphens."""
        lines = [f"POST {path} HTTP/1.1", "host: local", f"content-length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    async def read(self) -> RawResponse:
        """Read one response as far as it comes."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        pairs = (line.split(": ", 1) for line in head[1:] if line)
        response = RawResponse(int(head[0].split()[1]), dict(pairs))
        try:
            if "content-length" in response.headers:
                response.chunks.append(await self.reader.readexactly(int(response.headers["content-length"])))
                response.complete = True
                return response
            while True:
                size = int(await self.reader.readuntil(b"\r\n"), 16)
                if size:
                    response.chunks.append(await self.reader.readexactly(size))
                await self.reader.readexactly(2)
                if not size:
                    response.complete = True
                    return response
        except asyncio.IncompleteReadError as exc:
            response.chunks.append(exc.partial)
            return response
