"""Holds one turn while it runs: its lease, its window, its open calls, its counters, and how it speaks."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from base64 import b32encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from power_loop.contracts.clock import Clock
from power_loop.contracts.errors import HookError
from power_loop.contracts.events import EventPayload, HookFailed, MessageAppended, RoundFinished
from power_loop.contracts.frozen import frozen
from power_loop.contracts.hooks import HookContext, HookPoint, MessageAppendContext, RoundEndContext
from power_loop.contracts.llm import LLMResponse, LLMRetryPolicy, LLMService, Usage
from power_loop.contracts.messages import Message, Role, clean_text
from power_loop.contracts.ports import SessionStore
from power_loop.contracts.records import CallRecord, CallStep, Lease, ModelCall, SendEnd, SendRecord
from power_loop.contracts.states import CallState, Effect, SendStatus, WaitKind
from power_loop.core.bus import AgentEventBus
from power_loop.core.context.window import Window
from power_loop.core.hooks import Consulted, Hooks
from power_loop.core.turn.budget import SendLimits
from power_loop.core.turn.decide import OutputCheck, ReplyFacts, TurnFacts
from power_loop.core.turn.desk import Desk
from power_loop.core.turn.options import SendOptions
from power_loop.core.turn.scope import TurnScope
from power_loop.core.turn.session_state import SessionState
from power_loop.tools.registry import ToolRegistry

C = TypeVar("C", bound=HookContext)

_UNLIMITED = 1 << 62


@frozen
class TurnKit:
    """Is what a handle gives to each of its turns.

    `defaults` stand in where a send makes no choice. `max_parallel_tools` bounds the calls of one reply that run at the
    same time. `is_owner_dead` tells whether the process that holds a lease is known to have died.
    """

    store: SessionStore
    llm: LLMService
    hooks: Hooks
    bus: AgentEventBus
    clock: Clock
    desk: Desk
    retry: LLMRetryPolicy
    defaults: SendOptions
    limits: SendLimits
    lease_ttl_s: float
    max_parallel_tools: int
    max_output_repairs: int
    is_owner_dead: Callable[[str], bool]
    random: Callable[[], float] = random.random


@dataclass(slots=True)
class OpenCall:
    """Is a call that is not settled.

    `is_stale` marks one that was started in a turn that did not live to see its outcome.
    """

    reply_seq: int
    index: int
    call_id: str
    name: str
    arguments: str
    effect: Effect
    state: CallState
    idempotency_key: str
    attempt: int = 0
    is_approved: bool = False
    is_stale: bool = False
    wait_kind: WaitKind | None = None
    prompt: str | None = None
    wait_data: Any = None

    @classmethod
    def of(cls, record: CallRecord) -> OpenCall:
        """Return the open call of a stored one."""
        return cls(
            record.reply_seq,
            record.index,
            record.call_id,
            record.name,
            record.arguments,
            record.effect,
            record.state,
            record.idempotency_key,
            record.attempt,
            record.is_approved,
            is_stale=record.state is CallState.STARTED,
            wait_kind=record.wait_kind,
            prompt=record.prompt,
            wait_data=record.wait_data,
        )


@dataclass(slots=True)
class UnstoredReply:
    """Is a reply on its way into the store: its message with ids that are unique, its calls, and answers to those that
    do not run."""

    response: LLMResponse
    message: Message
    facts: ReplyFacts
    call: ModelCall
    calls: tuple[OpenCall, ...] = ()
    answers: dict[int, Message] = field(default_factory=dict)
    repair: Message | None = None
    output: Any = None
    output_problems: tuple[str, ...] = ()


class Turn:
    """Is one drive of one session, from taking the lease to rest."""

    __slots__ = (
        "calls",
        "dropped_usage",
        "final_text",
        "is_at_rest",
        "kit",
        "has_output",
        "known_problems",
        "lease",
        "limits",
        "options",
        "output",
        "output_problems",
        "repairs",
        "reply",
        "request_id",
        "round",
        "rounds",
        "scope",
        "send_index",
        "session_id",
        "text_seq",
        "tool_calls",
        "tool_state",
        "tools",
        "usage",
        "window",
    )

    def __init__(
        self,
        kit: TurnKit,
        *,
        lease: Lease,
        scope: TurnScope,
        window: Window,
        tools: ToolRegistry,
        options: SendOptions,
        send_index: int,
        request_id: str | None,
    ) -> None:
        self.kit = kit
        self.lease = lease
        self.session_id = lease.session_id
        self.scope = scope
        self.window = window
        self.tools = tools
        self.options = options.over(kit.defaults)
        self.limits = options.limits or kit.limits
        self.send_index = send_index
        self.request_id = request_id
        self.round = 0
        self.rounds = 0
        self.tool_calls = 0
        self.repairs = 0
        self.is_at_rest = False
        self.known_problems: tuple[str, ...] = ()
        self.usage = self.dropped_usage = Usage()
        self.calls: list[OpenCall] = []
        self.reply: UnstoredReply | None = None
        # Tools change their dict as they like; the window's stays what is stored.
        self.tool_state = SessionState(window.tool_state)
        self.text_seq: int | None = None
        self.final_text = ""
        self.has_output = False
        self.output: Any = None
        self.output_problems: tuple[str, ...] = ()

    def go_on_from(self, send: SendRecord, calls: Sequence[CallRecord]) -> None:
        """Take up a stored send: its counters, its open calls, the last text that it gave."""
        self.round = self.rounds = send.rounds
        self.tool_calls = send.tool_calls
        self.usage = send.usage
        self.calls = [OpenCall.of(record) for record in calls]
        last = self.window.last_text(since_seq=send.first_seq)
        if last is not None:
            self.text_seq, self.final_text = last

    @property
    def missing_tools(self) -> tuple[str, ...]:
        """The tools that the send was begun with and that are not here."""
        return tuple([name for name in self.options.tools or () if name not in self.tools])

    def count_dropped(self, usage: Usage) -> None:
        """Count a reply that was paid for and is not stored: the end of the send tells of it."""
        self.usage = self.usage + usage
        self.dropped_usage = self.dropped_usage + usage

    # ---- what the decision depends on ----

    def facts(self) -> TurnFacts:
        """Return the facts as they stand, an unstored reply included."""
        limits, reply = self.limits, self.reply
        states = [call.state for call in (self.calls if reply is None else (*self.calls, *reply.calls))]
        return TurnFacts(
            runnable_calls=states.count(CallState.REQUESTED) + states.count(CallState.STARTED),
            waiting_calls=states.count(CallState.WAITING),
            rounds_left=_UNLIMITED if limits.max_rounds is None else limits.max_rounds - self.rounds,
            tool_calls_left=self.tool_calls_left,
            tokens_left=_UNLIMITED if limits.max_tokens is None else limits.max_tokens - self.usage.total_tokens,
            stopped=self.scope.status,
            reply=None if reply is None else reply.facts,
        )

    @property
    def tool_calls_left(self) -> int:
        """How many tool calls the send may still make; negative once calls were refused."""
        limit = self.limits.max_tool_calls
        return _UNLIMITED if limit is None else limit - self.tool_calls

    # ---- how it speaks ----

    def announce(self, payload: EventPayload) -> None:
        """Tell subscribers."""
        self.kit.bus.emit(payload, session_id=self.session_id, send_index=self.send_index, round=self.round)

    def context_of(self, kind: type[HookContext], **facts: Any) -> Any:
        """Return a hook context of this turn."""
        return kind(self.session_id, self.send_index, self.round, self.window.metadata, **facts)

    async def tell(self, kind: type[HookContext], **facts: Any) -> None:
        """Tell hooks of a point where nothing is decided."""
        if self.kit.hooks.has(kind.point):
            await self.kit.hooks.tell(self.context_of(kind, **facts), self.announce, wait=self.scope.patiently)

    async def consult(self, context: C) -> Consulted[C]:
        """Ask the hooks that guard a step. A failure of theirs is announced, and raised as `hook.failed`."""
        try:
            return await self.scope.interruptible(self.kit.hooks.consult(context))
        except HookError as error:
            self.hook_failed(context.point, error.hook, error.__cause__ or error)
            raise

    def hook_failed(self, point: HookPoint, hook: str, error: BaseException) -> None:
        """Announce that a hook raised where a raise ends nothing."""
        self.announce(HookFailed(point.value, hook, f"{type(error).__name__}: {error}"))

    # ---- what became durable ----

    async def note_input(self, message: Message, *, is_in_window: bool) -> None:
        """Announce the input of the send, and take it into a window that was kept from before."""
        if not is_in_window:
            self.window.append((message,))
        seq = self.window.next_seq - 1
        self.announce(MessageAppended(seq, message))
        await self.tell(MessageAppendContext, first_seq=seq, messages=(message,))

    async def note_appended(self, messages: Sequence[Message]) -> None:
        """Take messages that are in the log into the window, and announce them."""
        if not messages:
            return
        first_seq = self.window.next_seq
        self.window.append(messages)
        for seq, message in enumerate(messages, first_seq):
            if message.role is Role.ASSISTANT and (text := message.text or message.refusal):
                self.text_seq, self.final_text = seq, text
            self.announce(MessageAppended(seq, message))
        await self.tell(MessageAppendContext, first_seq=first_seq, messages=messages)

    async def end_round(self) -> None:
        """Announce that a reply and all its calls are settled."""
        replies = (message for message in reversed(self.window.messages) if message.role is Role.ASSISTANT)
        reply = next(replies, None)
        tool_calls = 0 if reply is None else len(reply.tool_calls)
        self.announce(RoundFinished(tool_calls))
        await self.tell(RoundEndContext, tool_calls=tool_calls)

    def end_as(self, status: SendStatus, reason: str | None = None, *, reply: UnstoredReply | None = None) -> SendEnd:
        """Return the end to be recorded, with the reply that is stored in the same transaction if there is one: the
        answer by its place in the log, not once more."""
        recorded: dict[str, Any] = {}
        text_seq, has_output = self.text_seq, self.has_output
        if reply is not None:
            has_output = reply.facts.output is OutputCheck.VALID
            if reply.message.text or reply.message.refusal:
                text_seq = self.window.next_seq
        if text_seq is not None:
            recorded["text_seq"] = text_seq
        if has_output:
            recorded["has_output"] = True
        if self.dropped_usage.total_tokens:
            recorded["dropped_usage"] = dataclasses.asdict(self.dropped_usage)
        if reason:
            recorded["reason"] = reason
        return SendEnd(status, recorded)


def idempotency_key(session_id: str, send_index: int, reply_seq: int, index: int) -> str:
    """Return the key of a call: the same over every retry and resume, made of its place and of nothing that a model
    says."""
    place = f"{session_id}|{send_index}|{reply_seq}|{index}".encode()
    return "pl1_" + b32encode(hashlib.sha256(place).digest()[:20]).decode("ascii").lower()


def json_object_of(value: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return what a hook, a handler or a person gave as JSON text, and as whoever reads that text has it.

    Raises ValueError for what is no JSON object.
    """
    try:
        text = clean_text(json.dumps(dict(value), ensure_ascii=False, allow_nan=False))
        return text, json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{value!r:.200} is no JSON object: {error}") from error


def step_of(call: OpenCall, state: CallState, **more: Any) -> CallStep:
    """Return a step of an open call in the ledger."""
    return CallStep(call.reply_seq, call.index, state, **more)
