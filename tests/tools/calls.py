"""Calls a tool as the loop does: from argument text to what its handler returns."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from power_loop.contracts.cancellation import CancellationToken
from power_loop.contracts.tools import ToolDefinition
from power_loop.tools.prepared import prepare


class CallContext:
    """Is the context of a first call in a session."""

    session_id = "sess_1"
    send_index = 1
    call_id = "call_1"
    tool_name = "tool"
    idempotency_key = "key_1"
    attempt = 1
    deadline_s: float | None = None

    def __init__(self) -> None:
        self.cancellation = CancellationToken()
        self.state: dict[str, Any] = {}
        self.metadata: Mapping[str, Any] = {}
        self.messages: list[str] = []

    def progress(self, message: str, *, fraction: float | None = None) -> None:
        """Keep what was reported."""
        self.messages.append(message)


def call(definition: ToolDefinition, text: str) -> Any:
    """Return what the handler returns for an argument text, which has to be acceptable."""
    prepared = prepare(definition)
    parsed = prepared.parse(text)
    assert parsed.arguments is not None, parsed.problems
    assert definition.handler is not None
    result = definition.handler(**prepared.call_arguments(parsed.arguments, CallContext()))
    return asyncio.run(result) if prepared.is_async else result
