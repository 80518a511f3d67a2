"""What a send gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from decimal import Decimal
from enum import Enum
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
    the whole send, `usage` its tokens, `cost` what they cost by `LoopConfig.prices`, None where no price was known;
    `children_usage` is the part of the tokens that its sub-agents took. `is_replayed` tells that a repeated
    `request_id` gave back the recorded result.
    A `queued` input has its `inbox_position`; its `send_index` is 0 until a turn takes it in.
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
    inbox_position: int | None = None
    cost: Decimal | None = None
    children_usage: Usage = field(default_factory=Usage)

    @property
    def is_completed(self) -> bool:
        """True if the model answered."""
        return self.status is SendStatus.COMPLETED


@frozen
class FollowUp:
    """Is an input that `follow_up()` left: its `position` in the session's inbox.

    `is_turn_running` tells that a turn runs which takes it in at its next round; else it becomes the next turn. Where
    the same `request_id` had come before, `is_known` is set and `send_index` says which send has the input, None while
    it waits; `position` is None of one that never was in the inbox.
    """

    session_id: str
    position: int | None
    request_id: str | None
    is_turn_running: bool
    is_known: bool = False
    send_index: int | None = None


class Found(str, Enum):
    """Is what is the matter with a session that `recover()` found."""

    DEAD_TURN = "dead_turn"  # its process ended in the middle of a turn
    WAITING_INPUT = "waiting_input"  # inputs wait in its inbox, and nobody drives it
    LEFT_LEASE = "left_lease"  # its lease was left by a process that had nothing more to do with it


@frozen
class Recovered:
    """Is a session that `recover()` found: what was the matter, and the status of its last send behind it.

    `waiting_inputs` and `attempts` (how often the send had been taken up) are as they were found. `error` is the code
    of the error that its turn ended with.
    """

    session_id: str
    found: Found
    status: SendStatus | None
    waiting_inputs: int = 0
    attempts: int = 0
    was_driven: bool = False
    error: str | None = None
