"""Holds one turn while it runs: its lease, its window, its open calls, its counters, and how it speaks."""

from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib
import json
import random
from base64 import b32encode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from power_loop.contracts.agent_spec import AgentSpec
from power_loop.contracts.budgets import Budget, PriceTable, sum_of_costs
from power_loop.contracts.cancellation import CancellationToken
from power_loop.contracts.clock import Clock
from power_loop.contracts.errors import HookError
from power_loop.contracts.events import EventPayload, HookFailed, MessageAppended, ProjectionFailed, RoundFinished
from power_loop.contracts.frozen import frozen
from power_loop.contracts.hooks import HookContext, HookPoint, MessageAppendContext, RoundEndContext
from power_loop.contracts.limits import SendLimits
from power_loop.contracts.live import LiveState
from power_loop.contracts.llm import LLMResponse, LLMRetryPolicy, LLMService, Usage
from power_loop.contracts.memory import MemoryProvider
from power_loop.contracts.messages import Message, Role, clean_text
from power_loop.contracts.ports import SessionStore, Signalled
from power_loop.contracts.records import (
    ANY_SIGNALS,
    AgentReport,
    CallRecord,
    CallStep,
    ChildSpending,
    Lease,
    ModelCall,
    News,
    ProjectedMessage,
    SendEnd,
    SendRecord,
)
from power_loop.contracts.states import (
    RESUMABLE_SENDS,
    CallState,
    Effect,
    NextInput,
    OnUnknown,
    SendStatus,
    WaitKind,
)
from power_loop.contracts.tools import ToolOutput, ToolProject
from power_loop.core.bus import AgentEventBus
from power_loop.core.context.assemble import LiveText
from power_loop.core.context.projection import project_send
from power_loop.core.context.prompt import SystemPrompt, prompt_text
from power_loop.core.context.settings import Compaction, MemoryUse, Projection
from power_loop.core.context.window import Window
from power_loop.core.hooks import Consulted, Hooks
from power_loop.core.stray import said
from power_loop.core.turn.agent import Agent
from power_loop.core.turn.decide import OutputCheck, ReplyFacts, TurnFacts
from power_loop.core.turn.desk import Desk
from power_loop.core.turn.options import SendOptions
from power_loop.core.turn.purse import Purse
from power_loop.core.turn.scope import StopCause, TurnScope
from power_loop.core.turn.session_state import SessionState
from power_loop.tools.permissions import PermissionPolicy
from power_loop.tools.recall import recall_tools
from power_loop.tools.registry import ToolRegistry

C = TypeVar("C", bound=HookContext)
T = TypeVar("T")

_UNLIMITED = 1 << 62
# A lease that was proven longer ago than this part of its time is proven again before anything new begins.
_FRESH = 0.6
# So often in a row the inbox is emptied where more is heard of meanwhile. Then the model is asked before the rest is
# taken in: others who speak all the time would never let the turn have a word.
_MAX_HEARINGS = 2


@frozen
class TurnKit:
    """Is what a handle gives to each of its turns.

    `defaults` stand in where a send makes no choice. `max_parallel_tools` bounds the calls of one reply that run at the
    same time. `is_owner_dead` tells whether the process that holds a lease is known to have died. `on_unknown` says
    what becomes of a `once` call of which nobody knows whether it happened. A send that was taken up more than
    `max_recoveries` times is not recovered any more. `budget` is that of each send which has none of its own;
    without `pays_model`, its model's calls take nothing of it.
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
    on_unknown: OnUnknown = OnUnknown.TELL_MODEL
    max_recoveries: int = 20
    compaction: Compaction | None = None
    projection: Projection | None = None
    memory: MemoryProvider | None = None
    memory_use: MemoryUse = field(default_factory=MemoryUse)
    permissions: PermissionPolicy | None = None
    live: tuple[LiveState, ...] = ()
    system_prompt: str | SystemPrompt | None = None
    budget: Budget | None = None
    pays_model: bool = True
    prices: PriceTable | None = None
    random: Callable[[], float] = random.random


class AgentRunner(Protocol):
    """Runs sub-agents for turns."""

    async def run(
        self,
        turn: Turn,
        call: OpenCall,
        spec: AgentSpec,
        input: str,
        session_id: str | None,
        *,
        stopped: CancellationToken,
    ) -> ToolOutput:
        """Give `input` to a sub-agent and return what its call comes to; `stopped` tells why the call is ended."""
        ...

    async def end(self, turn: Turn, reason: str) -> None:
        """End what sub-agents of the send still have to do."""
        ...

    async def end_of(self, call: OpenCall, reason: str) -> None:
        """End what the sub-agent that a call waits for still has to do for it."""
        ...

    async def is_awake(self, call: OpenCall) -> bool:
        """Tell whether a call that waits for a sub-agent may go on, because that waits for nobody any more."""
        ...

    def wake(self, session_id: str) -> None:
        """See to it that the inbox of a session is driven, to which a sub-agent reported."""
        ...


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
    is_keyed: bool = False
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
            is_keyed=record.is_keyed,
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
        "_adds_tools",
        "_own_tools",
        "agent",
        "agents",
        "calls",
        "cost_nanos",
        "dropped_cost_nanos",
        "children",
        "dropped_usage",
        "exhausted",
        "final_text",
        "first_seq",
        "fold_floor_tokens",
        "has_output",
        "has_recalled",
        "hearings",
        "input",
        "insists",
        "is_at_rest",
        "is_behind",
        "kit",
        "known_problems",
        "lacks_tool_calls",
        "lease",
        "limits",
        "live_failures",
        "next_input",
        "options",
        "output",
        "output_problems",
        "path",
        "payer",
        "projected",
        "proven_s",
        "purse",
        "refused_tokens",
        "recalled",
        "repairs",
        "reply",
        "is_awaited",
        "report",
        "wakes",
        "request_id",
        "rest_status",
        "round",
        "rounds",
        "scope",
        "send_index",
        "session_id",
        "text_seq",
        "tool_calls",
        "tool_state",
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
        # The sessions from the top of the tree down to this one, and what is particular about a sub-agent.
        self.path: tuple[str, ...] = (lease.session_id,)
        self.agent: Agent | None = None
        self.agents: AgentRunner | None = None
        # The turn that waits for this one and pays for it; for each send that this one pays for its turn, or what it
        # took.
        self.payer: Turn | None = None
        self.children: dict[tuple[str, int], Turn | ChildSpending] = {}
        self.scope = scope
        self.window = window
        self._own_tools = tools
        self.options = options.over(kit.defaults)
        self.limits = options.limits or kit.limits
        self.send_index = send_index
        self.request_id = request_id
        # A send that names its tools gets these and no others.
        self._adds_tools = options.tools is None
        # The seq at which the send begins.
        self.first_seq = window.next_seq
        # How the projection shows the send, as of the end that was last made ready to be recorded.
        self.projected: tuple[ProjectedMessage, ...] = ()
        # What a sub-agent leaves to its parent with that end.
        self.report: AgentReport | None = None
        # Somebody's turn waits for it, here or elsewhere, and goes on when it ends.
        self.is_awaited = False
        self.wakes: str | None = None
        self.round = 0
        self.rounds = 0
        self.tool_calls = 0
        self.repairs = 0
        self.is_at_rest = False
        self.rest_status: SendStatus | None = None
        # What the turn knows of the inbox; a write that is behind the times changes nothing and tells.
        self.next_input = NextInput.NONE
        # How often the inbox was emptied since the model was asked.
        self.hearings = 0
        # True once news came before the end: if it is decided upon again, it is made whatever else comes.
        self.insists = False
        # True once a write was made without asking whether there is news.
        self.is_behind = False
        self.proven_s = kit.clock.monotonic_s()
        self.known_problems: tuple[str, ...] = ()
        # What the send is about, and what a memory provider gave for it.
        self.input: Message | None = None
        self.has_recalled = False
        self.recalled: LiveText | None = None
        self.live_failures: dict[str, str] = {}
        # The prompt that is worth another try to fold, and the smallest one that was refused for its size, in tokens.
        self.fold_floor_tokens = 0
        self.refused_tokens: int | None = None
        self.usage = self.dropped_usage = Usage()
        # What the model calls of the send cost, where a price was known.
        self.cost_nanos: int | None = None
        self.dropped_cost_nanos: int | None = None
        # What pays for the turn, and with which status and why it could not pay any more.
        self.purse: Purse | None = None
        self.exhausted: tuple[SendStatus, str] | None = None
        self.lacks_tool_calls = False
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
        self.first_seq = send.first_seq
        self.round = self.rounds = send.rounds
        self.tool_calls = send.tool_calls
        self.usage, self.cost_nanos = send.usage, send.cost_nanos
        self.calls = [OpenCall.of(record) for record in calls]
        self.input = self.window.message_at(send.first_seq)
        last = self.window.last_text(since_seq=send.first_seq)
        if last is not None:
            self.text_seq, self.final_text = last

    @property
    def system_prompt(self) -> str | None:
        """What stands in for the session's system prompt: the send's own, or the loop's where the session has none."""
        own = self.options.system_prompt
        if own is not None or self.window.system_prompt is not None:
            return own
        return prompt_text(self.kit.system_prompt, self.tools)

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The session's metadata, a copy for each stranger that is given it: the window's stays what is stored."""
        return copy.deepcopy(self.window.metadata) if self.window.metadata else {}

    async def read_covered(self) -> None:
        """Read what the turn has to know of its send and a fold covers: its input, and the last text that it gave."""
        fold = self.window.fold
        if fold is None:
            return
        if self.input is None and self.first_seq <= fold.to_seq:
            self.input = await self._message_at(self.first_seq)
        if self.text_seq is None and fold.text_seq is not None and fold.text_seq >= self.first_seq:
            message = await self._message_at(fold.text_seq)
            if message is not None:
                self.text_seq, self.final_text = fold.text_seq, message.text or message.refusal

    async def _message_at(self, seq: int) -> Message | None:
        found = await self.kit.store.get_messages(self.session_id, after_seq=seq - 1, limit=1)
        return found[0].message if found and found[0].seq == seq else None

    @property
    def own_tools(self) -> ToolRegistry:
        """The tools of the send, without those that bring something back."""
        return self._own_tools

    @property
    def tools(self) -> ToolRegistry:
        """What the model may call: the tools of the send, and where something is not shown as it was, those that bring
        it back."""
        window = self.window
        if not self._adds_tools or (window.fold is None and not window.shows_records):
            return self._own_tools
        compaction, projection = self.kit.compaction, self.kit.projection
        added = recall_tools(
            compacted=window.fold is not None and (compaction is None or compaction.offers_recall),
            sends=window.shows_records and projection is not None and projection.offers_recall,
        )
        return self._own_tools.with_added(added)

    @property
    def missing_tools(self) -> tuple[str, ...]:
        """The tools that the send was begun with and that are not here."""
        return tuple([name for name in self.options.tools or () if name not in self.tools])

    def count_dropped(self, usage: Usage, cost_nanos: int | None) -> None:
        """Count a reply that was paid for and is not stored: the end of the send tells of it."""
        self.count(usage, cost_nanos)
        self.dropped_usage = self.dropped_usage + usage
        self.dropped_cost_nanos = sum_of_costs(self.dropped_cost_nanos, cost_nanos)

    def count(self, usage: Usage, cost_nanos: int | None) -> None:
        """Count what a model call took."""
        self.usage = self.usage + usage
        self.cost_nanos = sum_of_costs(self.cost_nanos, cost_nanos)

    # ---- what its sub-agents take ----

    @property
    def children_usage(self) -> Usage:
        """What the sub-agents took that this send pays for, and those below them."""
        total = Usage()
        for child in self.children.values():
            total = total + (child.spending().usage if isinstance(child, Turn) else child.usage)
        return total

    @property
    def spent_tokens(self) -> int:
        """How many tokens the send took with its sub-agents."""
        return self.usage.total_tokens + (self.children_usage.total_tokens if self.children else 0)

    @property
    def tokens_left(self) -> int:
        """How many tokens the send may still take: its own limit, and those of all that pay for it."""
        limit = self.limits.max_tokens
        own = _UNLIMITED if limit is None else limit - self.spent_tokens
        return own if self.payer is None else min(own, self.payer.tokens_left)

    def spending(self) -> ChildSpending:
        """Return what the send took so far, everything below it included."""
        children = [one.spending() if isinstance(one, Turn) else one for one in self.children.values()]
        return ChildSpending(
            self.session_id,
            self.send_index,
            self.usage + self.children_usage,
            self.rounds + sum(one.model_calls for one in children),
            self.tool_calls + sum(one.tool_calls for one in children),
            functools.reduce(sum_of_costs, [one.cost_nanos for one in children], self.cost_nanos),
        )

    def note_paid(self, spent: tuple[ChildSpending, ...]) -> None:
        """Take in what sub-agents took before this turn, or in other processes."""
        for one in spent:
            self.children.setdefault((one.session_id, one.send_index), one)

    def be_paid_by(self, payer: Turn) -> None:
        """Let a turn pay for this one from here on."""
        self.payer = payer
        payer.children[self.session_id, self.send_index] = self

    def end_payment(self) -> None:
        """Leave to the payer what this turn took, and nothing else of it."""
        if self.payer is not None:
            self.payer.children[self.session_id, self.send_index] = self.spending()

    # ---- what the decision depends on ----

    def facts(self, *, window_is_full: bool = False) -> TurnFacts:
        """Return the facts as they stand, an unstored reply included."""
        limits, reply = self.limits, self.reply
        states = [call.state for call in (self.calls if reply is None else (*self.calls, *reply.calls))]
        return TurnFacts(
            runnable_calls=states.count(CallState.REQUESTED) + states.count(CallState.STARTED),
            waiting_calls=states.count(CallState.WAITING),
            rounds_left=_UNLIMITED if limits.max_rounds is None else limits.max_rounds - self.rounds,
            tool_calls_left=self.tool_calls_left,
            tokens_left=self.tokens_left,
            stopped=self.scope.status,
            has_follow_up=self.next_input is NextInput.FOLLOW_UP and self.hearings < _MAX_HEARINGS,
            exhausted=None if self.exhausted is None else self.exhausted[0],
            reply=None if reply is None else reply.facts,
            window_is_full=window_is_full,
        )

    @property
    def output_cap(self) -> int | None:
        """How many tokens the next reply may have; None for the model's own cap."""
        cap = self.options.max_output_tokens
        tokens_left = self.tokens_left
        if tokens_left >= _UNLIMITED >> 1:
            return cap
        left = max(tokens_left, 1)
        return min(left, self.kit.llm.info.max_output_tokens if cap is None else cap)

    @property
    def tool_calls_left(self) -> int:
        """How many tool calls the send may still make, its sub-agents included; negative once calls were refused."""
        if self.lacks_tool_calls:
            return -1
        limit = self.limits.max_tool_calls
        own = _UNLIMITED if limit is None else limit - self.spending().tool_calls
        return own if self.payer is None else min(own, self.payer.tool_calls_left)

    # ---- how it writes ----

    async def commit(self, move: Callable[[Lease], Awaitable[T]]) -> T:
        """Make a durable move that is made whatever somebody outside has to say; the turn hears it, and decides behind
        it."""
        try:
            return await self.commit_unless_signalled(move)
        except Signalled as signalled:
            self.hear(signalled.news)
        return await self.commit_at_once(move)

    async def commit_at_once(self, move: Callable[[Lease], Awaitable[T]]) -> T:
        """Make a durable move behind news that were heard: what comes meanwhile is heard by the next one, because
        others who speak all the time would never let the turn have a word."""
        began_s = self.kit.clock.monotonic_s()
        done = await move(dataclasses.replace(self.lease, signals=ANY_SIGNALS))
        self.proven_s = began_s
        self.is_behind = True
        return done

    async def commit_unless_signalled(self, move: Callable[[Lease], Awaitable[T]]) -> T:
        """Make a durable move. Raises `Signalled` for news that may change what is to be done."""
        began_s = self.kit.clock.monotonic_s()
        done = await move(self.lease)
        self.proven_s = began_s
        return done

    async def advance_calls(
        self,
        steps: Sequence[CallStep],
        *,
        tool_state: Mapping[str, Any] | None = None,
        end: SendEnd | None = None,
    ) -> None:
        """Make steps of the ledger, with the messages that they bring at the end of the log."""
        await self.commit(
            lambda lease: self.kit.store.advance_calls(
                lease,
                steps,
                at_seq=self.window.next_seq,
                send_index=self.send_index,
                round=self.round,
                tool_state=tool_state,
                end=end,
            )
        )

    async def end_send(self, end: SendEnd) -> None:
        """Bring the send to rest as it is."""
        await self.commit(lambda lease: self.kit.store.end_send(lease, self.send_index, end))

    def hear(self, news: News) -> None:
        """Take in what somebody outside has to say; what is older than what is known changes nothing."""
        if news.signals <= self.lease.signals:
            return
        self.is_behind = False
        self.lease = dataclasses.replace(self.lease, signals=news.signals)
        self.next_input = news.next_input
        if news.cancel_reason is not None:
            self.scope.stop(StopCause.CANCELLED, news.cancel_reason)

    async def prove_lease(self) -> None:
        """Prove a lease that was last proven a while ago, before anything new begins. Raises `session.lease_lost`.

        A process that was paused finds out here that another one goes on with its session.
        """
        if self.kit.clock.monotonic_s() - self.proven_s > _FRESH * self.kit.lease_ttl_s:
            await self.commit(lambda lease: self.kit.store.renew(lease, ttl_s=self.kit.lease_ttl_s))

    # ---- how it speaks ----

    def announce(self, payload: EventPayload) -> None:
        """Tell subscribers."""
        self.kit.bus.emit(
            payload, session_id=self.session_id, send_index=self.send_index, round=self.round, agent_path=self.path
        )

    def context_of(self, kind: type[HookContext], **facts: Any) -> Any:
        """Return a hook context of this turn."""
        return kind(self.session_id, self.send_index, self.round, self.metadata, **facts)

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
        self.announce(HookFailed(point.value, hook, said(error)))

    # ---- what became durable ----

    async def note_input(self, message: Message, *, is_in_window: bool) -> None:
        """Announce the input of the send, and take it into a window that was kept from before."""
        self.input = message
        if not is_in_window:
            self.window.append((message,))
        self.first_seq = seq = self.window.next_seq - 1
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
        reply = self.window.last_reply()
        tool_calls = 0 if reply is None else len(reply.tool_calls)
        self.announce(RoundFinished(tool_calls))
        await self.tell(RoundEndContext, tool_calls=tool_calls)

    def end_as(
        self,
        status: SendStatus,
        reason: str | None = None,
        *,
        reply: UnstoredReply | None = None,
        messages: Sequence[Message] = (),
    ) -> SendEnd:
        """Return the end to be recorded, with the `messages` that are stored in the same transaction, whose first is
        `reply`'s if there is one: the answer by its place in the log, not once more."""
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
        if self.dropped_cost_nanos is not None:
            recorded["dropped_cost_nanos"] = self.dropped_cost_nanos
        if reason:
            recorded["reason"] = reason
        self.projected = () if status in RESUMABLE_SENDS else self._project(messages)
        text = self.final_text if reply is None else reply.message.text or self.final_text
        report = None if self.agent is None else self.agent.report(self.request_id, status, text, reason)
        self.report = report
        self.wakes = None if self.agent is None or self.is_awaited else self.agent.run_to_wake(status)
        said: dict[str, Any] = {"report": report, "wakes": self.wakes}
        if self.purse is None:
            return SendEnd(status, recorded, self.projected, **said)
        return SendEnd(status, recorded, self.projected, self.purse.owed, has_payers=True, **said)

    def _project(self, messages: Sequence[Message]) -> tuple[ProjectedMessage, ...]:
        """Return how the projection shows the send with `messages` behind what the window has of it."""
        settings = self.kit.projection
        if settings is None:
            return ()
        behind = enumerate(messages, self.window.next_seq)
        projected = project_send(
            (*self.window.messages_since(self.first_seq), *behind),
            send_index=self.send_index,
            settings=settings,
            project_of=self._project_of,
        )
        for name, error in projected.failures.items():
            self.announce(ProjectionFailed(name, said(error)))
        return projected.rows

    def _project_of(self, name: str) -> ToolProject | None:
        definition = self.tools.get(name)
        return None if definition is None else definition.project


def idempotency_key(session_id: str, send_index: int, reply_seq: int, index: int) -> str:
    """Return the key of a call: the same over every retry and resume, made of its place and of nothing that a model
    says."""
    return id_of_place("pl1", f"{session_id}|{send_index}|{reply_seq}|{index}")


def id_of_place(kind: str, place: str) -> str:
    """Return the id of what stands at a place: always the same, and of no other place."""
    return f"{kind}_{b32encode(hashlib.sha256(place.encode()).digest()[:20]).decode('ascii').lower()}"


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
    """Return a step of an open call in the ledger; a key of the call's own goes with it, as other arguments made it."""
    key = call.idempotency_key if call.is_keyed else None
    return CallStep(call.reply_seq, call.index, state, idempotency_key=key, **more)
