"""The official SDK: the call of its documentation, and its client given a prebuilt body. Nothing is stored."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from openai import AsyncOpenAI

from benchmarks.conversation import SYSTEM_PROMPT
from benchmarks.limit import encode

Tool = Callable[..., Awaitable[str]]
# The SDK's own switch for a response that is handed over as it streams.
RAW_RESPONSE_HEADER = "X-Stainless-Raw-Response"


class SdkSession:
    """One conversation by `chat.completions.create(stream=True)`, its history in a list."""

    def __init__(self, client: AsyncOpenAI, *, tools: Sequence[dict[str, Any]] = ()):
        self._client = client
        self._options: dict[str, Any] = {"tools": list(tools)} if tools else {}
        self.messages: list[dict[str, Any]] = []
        self.fill(())

    def fill(self, messages: Sequence[dict[str, str]]) -> None:
        """Begin with a history."""
        self.messages = [{"role": "system", "content": SYSTEM_PROMPT}, *map(dict, messages)]

    async def turn(self, text: str, tools: dict[str, Tool] | None = None, heard: list[str] | None = None) -> str:
        """One turn, with as many rounds as the model asks for tools."""
        self.messages.append({"role": "user", "content": text})
        while True:
            stream = await self._client.chat.completions.create(
                model="bench-model",
                messages=self.messages,  # type: ignore[arg-type]
                stream=True,
                stream_options={"include_usage": True},
                **self._options,
            )
            pieces: list[str] = []
            calls: list[dict[str, Any]] = []
            async for chunk in stream:
                if not chunk.choices:
                    continue
                delta = chunk.choices[0].delta
                if delta.content:
                    pieces.append(delta.content)
                    if heard is not None:
                        heard.append(delta.content)
                for part in delta.tool_calls or ():
                    function = part.function
                    assert function is not None
                    if part.index == len(calls):
                        named = {"name": function.name, "arguments": function.arguments or ""}
                        calls.append({"id": part.id, "type": "function", "function": named})
                    else:
                        calls[part.index]["function"]["arguments"] += function.arguments
            if not calls:
                self.messages.append({"role": "assistant", "content": "".join(pieces)})
                return "".join(pieces)
            self.messages.append({"role": "assistant", "content": None, "tool_calls": calls})
            assert tools is not None
            results = await asyncio.gather(
                *(tools[one["function"]["name"]](**json.loads(one["function"]["arguments"])) for one in calls)
            )
            for one, result in zip(calls, results, strict=True):
                self.messages.append({"role": "tool", "tool_call_id": one["id"], "content": result})


class PrebuiltSession:
    """One conversation through the client's own request door: joined fragments in, events split by hand."""

    def __init__(self, client: AsyncOpenAI):
        self._client = client
        self.fragments: list[bytes] = []
        self.fill(())

    def fill(self, messages: Sequence[dict[str, str]]) -> None:
        """Begin with a history."""
        self.fragments = [encode({"role": "system", "content": SYSTEM_PROMPT}), *map(encode, map(dict, messages))]

    async def turn(self, text: str) -> str:
        """One turn without tools."""
        self.fragments.append(encode({"role": "user", "content": text}))
        opening = b'{"model":"bench-model","stream":true,"stream_options":{"include_usage":true},"messages":['
        headers = {"content-type": "application/json", RAW_RESPONSE_HEADER: "stream"}
        response: Any = await self._client.post(
            "/chat/completions",
            cast_to=object,
            content=opening + b",".join(self.fragments) + b"]}",
            options={"headers": headers},
        )
        pieces: list[str] = []
        rest = b""
        async for data in response.iter_bytes():
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                if line.startswith(b"data: {"):
                    choices = json.loads(line[6:])["choices"]
                    if choices and (piece := choices[0]["delta"].get("content")):
                        pieces.append(piece)
        await response.close()
        self.fragments.append(encode({"role": "assistant", "content": "".join(pieces)}))
        return "".join(pieces)
