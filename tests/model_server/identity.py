"""The ids, signatures and token counts that a reply makes up, and the memory of what was issued."""

from __future__ import annotations

import base64
import hashlib
import time
from dataclasses import dataclass, field
from typing import Any

from .request import Request
from .script import AUTO_ID, ESTIMATED, Answer, Reasoning, RedactedReasoning, Refusal, Text, ToolCall, Usage

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def token(length: int, *seed: object) -> str:
    """A random-looking text of letters and digits that is always the same for the same seed."""
    number = int.from_bytes(hashlib.sha512(repr(seed).encode()).digest(), "big")
    letters = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        letters.append(ALPHABET[digit])
    return "".join(letters)


@dataclass(frozen=True, slots=True)
class IssuedThinking:
    """A thinking block as it was sent: `content` is its text, or the data of a redacted one."""

    kind: str
    content: str
    seal: str
    model: str


@dataclass
class Ledger:
    """What the server has issued.

    Thinking blocks by their seal, which of them stood before which tool call, and the last blocks of paused turns.
    """

    by_seal: dict[str, IssuedThinking] = field(default_factory=dict)
    before_call: dict[str, tuple[IssuedThinking, ...]] = field(default_factory=dict)
    paused: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Identity:
    """The made-up names of one reply."""

    seed: str
    request: Request
    answer: Answer

    @property
    def model(self) -> str:
        """The model that says it answered."""
        return self.answer.model or str(self.request.body.get("model", ""))

    @property
    def created(self) -> int:
        """Unix seconds."""
        return int(time.time())

    def response_id(self) -> str:
        """The id of the response: chatcmpl-… or msg_…"""
        if self.answer.id is not None:
            return self.answer.id
        prefix, length = ("msg_01", 22) if self.request.wire.value == "anthropic" else ("chatcmpl-", 29)
        return prefix + token(length, self.seed, "response", self.request.number)

    def call_id(self, call: ToolCall, ordinal: int) -> str | None:
        """The id of a tool call, None when it is left out."""
        if call.id != AUTO_ID:
            return call.id
        prefix, length = ("toolu_01", 22) if self.request.wire.value == "anthropic" else ("call_", 24)
        return prefix + token(length, self.seed, "call", self.request.number, ordinal)

    def seal(self, part: Reasoning | RedactedReasoning, ordinal: int) -> str:
        """The signature of a thinking block, or the data of a redacted one."""
        given = part.signature if isinstance(part, Reasoning) else part.data
        if given is not None:
            return given
        opaque = token(80, self.seed, "seal", self.request.number, ordinal)
        return base64.b64encode(opaque.encode()).decode()

    def usage(self) -> Usage | None:
        """The usage to report; an estimated one counts a token for each four bytes."""
        if self.answer.usage is not ESTIMATED:
            return self.answer.usage
        shown = hidden = 0
        for part in self.answer.parts:
            if isinstance(part, (Text, Refusal)):
                shown += sum(map(len, part.pieces))
            elif isinstance(part, Reasoning):
                hidden += sum(map(len, part.pieces))
            elif isinstance(part, ToolCall):
                shown += len(part.name) + len(part.argument_text)
        reasoning = (hidden + 3) // 4
        return Usage(
            input_tokens=max(1, len(self.request.raw) // 4),
            output_tokens=max(1, (shown + 3) // 4) + reasoning,
            reasoning_tokens=reasoning,
        )

    def raw_usage(self) -> dict[str, Any] | None:
        """The usage object that the script gives word for word, if it does."""
        usage = self.answer.usage
        return dict(usage.raw) if usage is not None and usage.raw is not None else None
