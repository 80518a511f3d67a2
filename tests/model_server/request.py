"""A request as it arrived: kept whole, so that a test can look at every byte of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import Any


class Wire(Enum):
    """The two wire formats."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"


@dataclass
class Request:
    """One HTTP request.

    `number` counts from 1 over the server's life, `connection` likewise; header names are lower case. `problems` are
    the provider rules that the body breaks, `status` is what was answered (0 while it is being answered, or if
    nothing was), `finished` says that the response left whole, `client_left` that the client closed the connection
    before that.
    """

    number: int
    connection: int
    method: str
    path: str
    headers: dict[str, str]
    raw: bytes
    problems: list[str] = field(default_factory=list)
    status: int = 0
    finished: bool = False
    client_left: bool = False

    @cached_property
    def body(self) -> Any:
        """The parsed JSON body; None when it is empty or no JSON."""
        try:
            return json.loads(self.raw) if self.raw else None
        except ValueError:
            return None

    @property
    def wire(self) -> Wire:
        """The wire format that the path belongs to."""
        if self.path.startswith("/v1/messages") or "anthropic-version" in self.headers:
            return Wire.ANTHROPIC
        return Wire.OPENAI

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The messages of the body."""
        messages: list[dict[str, Any]] = self.body["messages"]
        return messages

    @property
    def streaming(self) -> bool:
        """Whether a stream was asked for."""
        return bool(isinstance(self.body, dict) and self.body.get("stream"))

    @property
    def last_text(self) -> str:
        """The text of the last user message that holds text ("" if none does)."""
        for message in reversed(self.messages):
            if message.get("role") != "user":
                continue
            content = message.get("content")
            if isinstance(content, str):
                return content
            texts = [part["text"] for part in content or () if part.get("type") == "text"]
            if texts:
                return "".join(texts)
        return ""
