"""Is the world outside of the database: a file to which models and tools write what really happened.

What is written survives the death of the process, because the kernel of the machine has it then.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from power_loop import Message, Usage
from power_loop.messages import Role, ToolCallPart

_NAME = "outside"


class Ledger:
    """Adds lines to the file, each whole or not at all, from whatever process and thread."""

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / _NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def note(self, what: str, **facts: Any) -> None:
        """Write down that something happened."""
        line = {"what": what, "pid": os.getpid(), **facts}
        os.write(self._file, json.dumps(line).encode() + b"\n")


def read_ledger(folder: Path) -> list[dict[str, Any]]:
    """Return what happened, in order."""
    path = folder / _NAME
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def digest_of(message: Message) -> str:
    """Return what tells a reply of a model from another one, however its calls' ids were made good."""
    said = [message.text, *((part.name, part.arguments) for part in calls_of(message))]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


def calls_of(message: Message) -> list[ToolCallPart]:
    """Return the calls of a message."""
    return [part for part in message.parts if isinstance(part, ToolCallPart)]


def tokens_of(usage: Usage | None) -> list[int]:
    """Return a usage as plain numbers."""
    if usage is None:
        return []
    return [
        usage.input_tokens,
        usage.output_tokens,
        usage.cached_input_tokens,
        usage.cache_write_tokens,
        usage.reasoning_tokens,
    ]


def problems_of_transcript(messages: Sequence[Message]) -> list[str]:
    """Return what providers would refuse: a call that is not answered once and directly after, and empty messages."""
    problems: list[str] = []
    seen: set[str] = set()
    open_ids: set[str] = set()
    for at, message in enumerate(messages):
        if not message.parts:
            problems.append(f"message {at} is empty")
        result = message.tool_result
        if message.role is Role.TOOL:
            call_id = "" if result is None else result.call_id
            if call_id not in open_ids:
                problems.append(f"message {at} answers {call_id!r}, which is not open there")
            open_ids.discard(call_id)
            continue
        if open_ids:
            problems.append(f"message {at} comes while calls are open: {sorted(open_ids)}")
        ids = [part.id for part in calls_of(message)]
        if len(set(ids)) < len(ids) or seen & set(ids):
            problems.append(f"message {at} has ids of calls that were used before: {ids}")
        seen |= set(ids)
        open_ids = set(ids)
    if open_ids:
        problems.append(f"calls are not answered: {sorted(open_ids)}")
    if messages and messages[0].role is not Role.USER:
        problems.append(f"the first message is of the {messages[0].role.value}")
    return problems
