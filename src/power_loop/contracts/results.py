"""What a send gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from power_loop.contracts.frozen import frozen
from power_loop.contracts.llm import Usage
from power_loop.contracts.states import SendStatus, WaitKind


@frozen
class PendingCall:
    """Is a tool call that is open. With a `wait_kind` it waits for an answer; `prompt` says what is asked.

    `arguments` are the parsed arguments (the raw text under `"_raw"` where they are no JSON object), `answer_schema`
    the JSON Schema of an acceptable answer, `data` whatever the asking side wants shown.
    """

    call_id: str
    name: str
    arguments: Mapping[str, Any]
    state: str
    wait_kind: WaitKind | None = None
    prompt: str | None = None
    answer_schema: Mapping[str, Any] | None = None
    data: Mapping[str, Any] | None = None


@frozen
class StatefulResult:
    """Is how a turn ended: `status` first, then `final_text`, the last that the model said.

    `output` is the parsed answer where an `output_schema` was given and the answer is whole and fits it, also one that
    a limit brought about. `reason` says why a send was refused (in the model's words), stopped, vetoed or failed.
    `pending` lists what a `waiting_for_input` send asks. `rounds` and `tool_calls` count model calls and tool calls of
    the whole send, `usage` its tokens. `is_replayed` tells that a repeated `request_id` gave back the recorded result.
    """

    session_id: str
    send_index: int
    status: SendStatus
    final_text: str = ""
    output: Any = None
    pending: tuple[PendingCall, ...] = ()
    usage: Usage = field(default_factory=Usage)
    rounds: int = 0
    tool_calls: int = 0
    request_id: str | None = None
    reason: str | None = None
    is_replayed: bool = False

    @property
    def is_completed(self) -> bool:
        """True if the model answered."""
        return self.status is SendStatus.COMPLETED
