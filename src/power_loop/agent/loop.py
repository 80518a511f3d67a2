"""Is the handle that an application holds: sessions, sends, and what to do with those that wait."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import os
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from types import TracebackType
from typing import Any, TypeVar

from power_loop.agent.asked import (
    AskedSend,
    Cancellation,
    check_call_id,
    check_clock,
    check_files,
    check_store,
    follow,
    is_a,
    on_busy_of,
    read_send,
    read_timer,
    scope_of,
    session_state_of,
)
from power_loop.agent.config import LoopConfig, is_llm_service
from power_loop.agent.firing import CLAIM_TTL_S, Firing, wakes
from power_loop.agent.in_flight import InFlight
from power_loop.agent.inbox import InboxDriver
from power_loop.agent.kit import make_kit
from power_loop.agent.recovery import Recovery, check_pass, check_seconds
from power_loop.agent.replay import ReplayedSend, replay
from power_loop.agent.run_driver import RunDriver, no_conversation, not_driven
from power_loop.agent.stream import TurnStream
from power_loop.agent.subagents import (
    Agents,
    agent_id_of,
    granted,
    is_agent_id,
    kit_of,
    new_session,
    tools_of,
)
from power_loop.agent.sync import SyncRunner, refuse_to_block, twin
from power_loop.agent.workplace import DriveIn, Workplace
from power_loop.contracts.agent_spec import AgentLifecycle, AgentSpec
from power_loop.contracts.answers import Answer, Give
from power_loop.contracts.budgets import Budget, BudgetRecord
from power_loop.contracts.clock import Clock, SystemClock
from power_loop.contracts.errors import (
    AgentSpecError,
    ConfigError,
    InputError,
    LoopClosedError,
    ModelCallNotFoundError,
    PowerLoopError,
    SessionExistsError,
    SessionNotFoundError,
    StoreError,
)
from power_loop.contracts.events import HookFailed, SessionClosed, SessionCreated, TimerCancelled, TimerScheduled
from power_loop.contracts.explanation import CallExplanation
from power_loop.contracts.hooks import HookPoint, SessionEndContext, SessionStartContext
from power_loop.contracts.limits import SendLimits
from power_loop.contracts.llm import LLMService, OutputSchema
from power_loop.contracts.messages import ContentPart, Role, UserInput, content_of
from power_loop.contracts.numbers import is_whole
from power_loop.contracts.ports import SessionStore
from power_loop.contracts.records import FoldRecord, InboxRecord, MessageRecord, Page, SessionRecord, SessionStats
from power_loop.contracts.replays import Replayed
from power_loop.contracts.results import FollowUp, PendingCall, Recovered, StatefulResult
from power_loop.contracts.schedules import Schedule
from power_loop.contracts.session_ids import check_session_id, is_run_id
from power_loop.contracts.states import OPEN_CALLS, OnBusy, SchemaPolicy, SendStatus, SessionState
from power_loop.contracts.timers import TimerMaker, TimerRecord
from power_loop.core.bus import AgentEventBus, EventQueue
from power_loop.core.context.explain import explain_call
from power_loop.core.context.prompt import SystemPrompt, prompt_text
from power_loop.core.context.window import Window, WindowCache
from power_loop.core.hooks import Hooks
from power_loop.core.stray import said
from power_loop.core.turn import begin
from power_loop.core.turn.agent import Agent
from power_loop.core.turn.chain import Waiter, add_waiter, drop_waiter, is_awaited_by, start
from power_loop.core.turn.compact import compact
from power_loop.core.turn.options import SendOptions
from power_loop.core.turn.outcome import pending_call
from power_loop.core.turn.scope import TurnScope
from power_loop.core.turn.seat import Listener, TurnSeat, join
from power_loop.core.turn.turn import Turn, TurnKit
from power_loop.runtime.host.identity import dead_among
from power_loop.runtime.store.open import open_store, schema_policy_of
from power_loop.tools.registry import ToolRegistry, ToolsLike

T = TypeVar("T")
DriveTurn = Callable[[TurnSeat], Coroutine[Any, Any, StatefulResult | None]]

_LOG = logging.getLogger("power_loop")

#: Where sessions are kept when neither a DSN nor a store is given.
DEFAULT_DSN = "app.db"
# So many timers of workflows are delivered at the same time.
_MAX_DELIVERIES = 16


class StatefulAgentLoop:
    """Runs agent turns over a durable store. It holds no conversation: any handle on the same store goes on with any
    session.

    `llm` is the model. `dsn` names the store (default `app.db`, a SQLite file); `store` brings an open one instead,
    which stays the caller's to close. `tool_registry` is what the model may call (a `ToolRegistry`, or a list of tools
    and functions), `hooks` and `event_bus` are the application's ears and brakes. A handle is cheap: the database is
    opened at first use, and shared by all handles of the process that name it. What its tools hold beyond their calls,
    such as shells, is closed with it, unless they came as a `ToolRegistry`: that is closed by who made it.
    """

    __slots__ = (
        "__weakref__",
        "_bus",
        "_clock",
        "_config",
        "_deliveries",
        "_desk_kit",
        "_dsn",
        "_hooks",
        "_inbox",
        "_is_closed",
        "_llm",
        "_opening",
        "_owns_bus",
        "_owns_store",
        "_owns_tools",
        "_prefix",
        "_run_driver",
        "_schema",
        "_store",
        "_sync",
        "_tools",
        "_windows",
        "_work",
    )

    def __init__(
        self,
        *,
        llm: LLMService,
        dsn: str | None = None,
        store: SessionStore | None = None,
        table_prefix: str = "pl_",
        schema: SchemaPolicy | str = SchemaPolicy.AUTO_CREATE,
        config: LoopConfig | None = None,
        tool_registry: ToolsLike = None,
        hooks: Hooks | None = None,
        event_bus: AgentEventBus | None = None,
        clock: Clock | None = None,
    ) -> None:
        if dsn is not None and store is not None:
            raise ConfigError("both dsn and store are given: give one of them")
        if not is_llm_service(llm):
            raise ConfigError(
                f"llm is {llm!r:.200}: give an LLMService, an object with `info`, a ModelInfo, and `async def generate`"
            )
        for name, value, kind in (
            ("config", config, LoopConfig),
            ("hooks", hooks, Hooks),
            ("event_bus", event_bus, AgentEventBus),
        ):
            if value is not None and not isinstance(value, kind):
                raise ConfigError(f"{name} is {value!r:.200}: give an object of the class {kind.__name__}")
        if store is not None:
            check_store(store)
        if clock is not None:
            check_clock(clock)
        self._llm = llm
        self._dsn = DEFAULT_DSN if dsn is None else dsn
        self._store = store
        self._owns_store = store is None
        self._prefix = table_prefix
        self._schema = schema if schema is SchemaPolicy.AUTO_CREATE else schema_policy_of(schema)
        self._config = config
        self._tools = tool_registry
        self._owns_tools = not isinstance(tool_registry, ToolRegistry)
        self._hooks = hooks
        self._bus = event_bus
        self._owns_bus = event_bus is None
        self._clock = clock
        self._is_closed = False
        self._work = InFlight()
        self._inbox: InboxDriver | None = None
        self._opening: asyncio.Task[None] | None = None
        self._desk_kit: tuple[SessionStore, TurnKit] | None = None
        self._windows: WindowCache | None = None
        self._sync: SyncRunner | None = None
        self._run_driver: RunDriver | None = None
        self._deliveries: set[asyncio.Task[None]] = set()

    # ---- what it is made of ----

    @property
    def llm(self) -> LLMService:
        """The model."""
        return self._llm

    @property
    def config(self) -> LoopConfig:
        """The configuration."""
        if self._config is None:
            self._config = LoopConfig()
        return self._config

    @property
    def tools(self) -> ToolRegistry:
        """The tools that the model is offered."""
        if not isinstance(self._tools, ToolRegistry):
            self._tools = ToolRegistry.of(self._tools)
        return self._tools

    @property
    def hooks(self) -> Hooks:
        """The hooks, to add to."""
        if self._hooks is None:
            self._hooks = Hooks()
        return self._hooks

    @property
    def clock(self) -> Clock:
        """The clock that it goes by."""
        return self._now

    @property
    def event_bus(self) -> AgentEventBus:
        """The bus on which the loop's events come, to subscribe to."""
        if self._bus is None:
            self._bus = AgentEventBus(clock=self._clock)
        return self._bus

    async def get_store(self) -> SessionStore:
        """Return the open store. Raises `StoreError`s when it cannot be opened."""
        if self._store is None:
            # Concurrent first uses of an event loop open once; a failed opening is tried again by the next use.
            here, opening = asyncio.get_running_loop(), self._opening
            if opening is None or opening.done() or opening.get_loop() is not here:
                opening = self._opening = here.create_task(self._open())
                opening.add_done_callback(lambda task: task.cancelled() or task.exception())
            await asyncio.shield(opening)
        store = self._store
        if store is None:
            raise _closed()
        return store

    async def _open(self) -> None:
        store = await open_store(self._dsn, table_prefix=self._prefix, schema=self._schema, clock=self._clock)
        if self._store is None and (self._work or not self._is_closed):
            self._store = store
        else:
            # Another event loop was first, or the handle was closed meanwhile.
            await store.aclose()

    # ---- sessions ----

    async def new_session(
        self,
        *,
        system_prompt: str | SystemPrompt | None = None,
        metadata: Mapping[str, Any] | None = None,
        session_id: str | None = None,
        may_exist: bool = False,
    ) -> str:
        """Make a session and return its id. `metadata` is a JSON object. A `SystemPrompt` is stored as the text that it
        is for the loop's tools. A session with this `session_id` that `may_exist` is left as it is. Raises
        `session.exists`, `input.invalid`."""
        self._check_open()
        if session_id is not None:
            check_session_id(session_id)
        made = session_id or self._now.new_id("sess")
        prompt = self._prompt(system_prompt)
        store = await self.get_store()
        try:
            record = await store.create_session(made, system_prompt=prompt, metadata=metadata or {})
        except SessionExistsError:
            if may_exist:
                return made
            raise
        self.event_bus.emit(SessionCreated(), session_id=made)
        if self._hooks is not None and self._hooks.has(HookPoint.SESSION_START):
            await self._hooks.tell(SessionStartContext(made, 0, 0, record.metadata), self._announcer(made))
        return made

    def _prompt(self, prompt: str | SystemPrompt | None) -> str | None:
        return prompt_text(prompt, self.tools if isinstance(prompt, SystemPrompt) else ())

    async def update_session(
        self,
        session_id: str,
        *,
        system_prompt: str | SystemPrompt | None = None,
        clear_system_prompt: bool = False,
        metadata: Mapping[str, Any] | None = None,
    ) -> SessionRecord:
        """Change the system prompt and/or replace the metadata; what is None stays. The next model call sees it."""
        prompt = self._prompt(system_prompt)
        store = await self._ready_store()
        return await store.update_session(
            session_id, system_prompt=prompt, clear_system_prompt=clear_system_prompt, metadata=metadata
        )

    async def get_session(self, session_id: str) -> SessionRecord:
        """Return a session's head. Raises `session.not_found`."""
        return await (await self._ready_store()).get_session(session_id)

    async def list_sessions(
        self,
        *,
        state: SessionState | str | None = None,
        metadata: Mapping[str, Any] | None = None,
        parent_id: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[SessionRecord]:
        """Return a page of sessions, newest first; `metadata` keeps those whose metadata has these top-level values,
        `parent_id` those that a session made for its sub-agents."""
        if metadata is not None and not is_a(metadata, Mapping):
            raise InputError(f"metadata is {metadata!r:.200}: give a dict of the values to look for")
        store = await self._ready_store()
        return await store.list_sessions(
            state=session_state_of(state), metadata=metadata, parent_id=parent_id, cursor=cursor, limit=limit
        )

    async def close_session(self, session_id: str) -> bool:
        """Close a session to further input; it stays readable. What its tools hold is let go of, and a tool that fails
        at that is announced.

        False if it was closed. Raises `session.busy` while a turn runs.
        """
        store = await self._ready_store()
        was_open = await store.close_session(session_id)
        if was_open:
            self.event_bus.emit(SessionClosed(), session_id=session_id)
            announce = self._announcer(session_id)

            def failed(name: str, error: Exception) -> None:
                announce(HookFailed(HookPoint.SESSION_END.value, name, said(error)))

            await self.tools.end_session(session_id, failed)
            if self._hooks is not None and self._hooks.has(HookPoint.SESSION_END):
                record = await store.get_session(session_id)
                context = SessionEndContext(session_id, record.send_count, 0, record.metadata)
                await self._hooks.tell(context, announce)
        return was_open

    async def get_messages(
        self, session_id: str, *, after_seq: int = 0, limit: int | None = None
    ) -> tuple[MessageRecord, ...]:
        """Return the log in order, those after `after_seq`, at most `limit`. Raises `session.not_found`."""
        for name, value in (("after_seq", after_seq), ("limit", 0 if limit is None else limit)):
            if not is_a(value, int) or value < 0:
                raise InputError(f"{name} is {value!r:.200}: give a whole number of at least 0")
        return await (await self._ready_store()).get_messages(session_id, after_seq=after_seq, limit=limit)

    async def explain(self, session_id: str, call: int | None = None) -> CallExplanation:
        """Return what a model call was sent, segment by segment, and what of it is the same as in the call before.

        `call` is the seq of its reply, as `MessageRecord.seq` has it (default: the last call). Raises
        `session.not_found`, `model_call.not_found`.
        """
        if call is not None and not is_a(call, int):
            raise InputError(f"call is {call!r:.200}: give the seq of a reply, or nothing for the last one")
        store = await self._ready_store()
        before_seq = None if call is None else call + 1
        found = await store.get_model_calls(session_id, before_seq=before_seq, limit=2)
        if not found or call not in (None, found[0].reply_seq):
            raise _no_model_call(session_id, call, found[0].reply_seq if found else None)
        return explain_call(session_id, found[0], found[1] if len(found) > 1 else None)

    async def get_folds(self, session_id: str) -> tuple[FoldRecord, ...]:
        """Return the folds of a session, oldest first: the newest stands in the prompt, and `get_messages` still gives
        what they cover. Raises `session.not_found`."""
        store = await self._ready_store()
        await store.get_session(session_id)
        return await store.get_folds(session_id)

    async def get_session_stats(self, session_id: str) -> SessionStats:
        """Return what a session took so far: sends, calls, tokens, bytes."""
        return await (await self._ready_store()).get_stats(session_id)

    async def get_budget(self, session_id: str, *, send_index: int | None = None) -> BudgetRecord | None:
        """Return the budget that pays for a send (default: the last one): its limits, what is spent and held of it, and
        the budgets below it; None where nothing limits the send. Raises `session.not_found`."""
        if send_index is not None and not is_a(send_index, int):
            raise InputError(f"send_index is {send_index!r:.200}: give the number of a send, or nothing for the last")
        store = await self._ready_store()
        send = await store.get_send(session_id, index=send_index)
        if send is None:
            await store.get_session(session_id)
            return None
        key = SendOptions.from_json(send.options).budget_of(session_id, send.index)
        return None if key is None else await store.get_budget(key)

    async def get_tool_result(self, session_id: str, call_id: str) -> tuple[ContentPart, ...] | None:
        """Return the whole result of a tool call, also where the model is shown a preview; None if it has none."""
        check_call_id(call_id)
        return await (await self._ready_store()).get_tool_result(session_id, call_id)

    async def prewarm(self, session_id: str) -> None:
        """Load a session's window, so that the next send does not wait for it."""
        store = await self._ready_store()
        windows = self._window_cache
        head = await store.get_session(session_id)
        kept = windows.take(session_id)
        if kept is None or not kept.is_current(head.next_seq, head.version):
            kept = Window.of(await store.read_view(session_id, projected=self.config.projection is not None))
        windows.put(kept)

    # ---- turns ----

    async def send(
        self,
        content: UserInput,
        *,
        session_id: str,
        tools: ToolsLike | Sequence[str] = None,
        system_prompt: str | SystemPrompt | None = None,
        output_schema: OutputSchema | Mapping[str, Any] | None = None,
        heal_pending: bool = False,
        request_id: str | None = None,
        limits: SendLimits | None = None,
        cancellation: Cancellation | None = None,
        tool_choice: str | None = None,
        max_output_tokens: int | None = None,
        temperature: float | None = None,
        reasoning_effort: str | None = None,
        budget: Budget | None = None,
        on_busy: OnBusy | str = OnBusy.RAISE,
    ) -> StatefulResult:
        """Store an input, run the loop until the turn rests, and return its result.

        `content` is text or content parts. `tools` are the tools of this send: names out of the loop's registry, or
        others. `output_schema` asks for an answer that fits it, as `result.output` (raises `output.invalid` when the
        model cannot). `heal_pending` aborts the open calls of an earlier turn first. A send that is repeated with the
        same `request_id` returns the recorded result. `cancellation` is a `CancellationToken`, an `asyncio.Event` or a
        `threading.Event`. `budget` is what the send may take with all that it sets going (default: the
        configuration's). `on_busy` says what to do while another process drives the session: `"raise"` `session.busy`,
        `"wait"` until its turn rests, or `"queue"` the input: the result has status `queued` then, and the turn that
        runs takes it in at its next round, or it becomes the next turn.

        Raises `session.not_found`, `session.closed`, `session.busy`, `session.pending`, `request.conflict`,
        `input.invalid`, an `LLMError` when the model cannot be reached (`resume()` tries again), a `StoreError` when
        the database cannot.
        """
        self._check_open()
        asked = read_send(
            content,
            registry=self.tools,
            info=self._llm.info,
            tools=tools,
            system_prompt=system_prompt,
            output_schema=output_schema,
            heals=heal_pending,
            request_id=request_id,
            limits=limits,
            tool_choice=tool_choice,
            max_output_tokens=max_output_tokens,
            temperature=temperature,
            reasoning_effort=reasoning_effort,
            budget=budget,
            defaults=self.config,
        )
        busy = on_busy_of(on_busy)
        scope = scope_of(cancellation)
        with self._at_work():
            work = self._send(session_id, asked, scope, on_busy=busy)
            return await join(work, scope)

    def stream(
        self,
        content: UserInput,
        *,
        session_id: str,
        tools: ToolsLike | Sequence[str] = None,
        system_prompt: str | SystemPrompt | None = None,
        output_schema: OutputSchema | Mapping[str, Any] | None = None,
        heal_pending: bool = False,
        request_id: str | None = None,
        limits: SendLimits | None = None,
        cancellation: Cancellation | None = None,
        tool_choice: str | None = None,
        max_output_tokens: int | None = None,
        temperature: float | None = None,
        reasoning_effort: str | None = None,
        budget: Budget | None = None,
        on_busy: OnBusy | str = OnBusy.RAISE,
        with_children: bool = False,
    ) -> TurnStream:
        """Send, and watch: `async with loop.stream(...) as events: async for event in events: ...`; then
        `events.result`.

        Takes what `send` takes. `with_children` yields the events of the sub-agents below the session as well, which
        `event.agent_path` tells apart. Leaving the block early cancels the turn.
        """
        self._check_open()
        asked = read_send(
            content,
            registry=self.tools,
            info=self._llm.info,
            tools=tools,
            system_prompt=system_prompt,
            output_schema=output_schema,
            heals=heal_pending,
            request_id=request_id,
            limits=limits,
            tool_choice=tool_choice,
            max_output_tokens=max_output_tokens,
            temperature=temperature,
            reasoning_effort=reasoning_effort,
            budget=budget,
            defaults=self.config,
        )
        busy = on_busy_of(on_busy)
        scope = TurnScope()

        async def start(events: EventQueue) -> StatefulResult:
            with self._at_work():
                follow(scope, cancellation)
                try:
                    listener = Listener(events, with_children)
                    return await self._send(session_id, asked, scope, on_busy=busy, listener=listener)
                finally:
                    scope.close()

        return TurnStream(start, scope)

    async def resume(
        self,
        session_id: str,
        *,
        answers: Mapping[str, Answer] | None = None,
        tools: ToolsLike = None,
        cancellation: Cancellation | None = None,
        on_busy: OnBusy | str = OnBusy.RAISE,
    ) -> StatefulResult:
        """Drive a session's last send on from whatever the log says, in whatever process; a send that rests gives its
        recorded result, a session without a send one with status `no_send`.

        `answers` are to waiting calls, by call id: `Approve()`, `Deny(reason)`, `Give(result)`; they are stored
        together, then the turn goes on. `tools` stand in for the loop's registry, where the send brought its own; those
        that it was begun with and that are not here are named in `SendStarted.missing_tools`, and a call of one is
        answered with that. `on_busy` is `"raise"` or `"wait"`. Raises `call.not_found`, `call.not_waiting`,
        `input.invalid`, `session.busy`, `config.invalid` where an approved call's tool is not here, and what `send`
        raises.
        """
        self._check_open()
        if answers is not None and not isinstance(answers, Mapping):
            raise InputError(f"answers is {answers!r:.200}: give a dict of answers by call id")
        busy = on_busy_of(on_busy)
        if busy is OnBusy.QUEUE:
            raise InputError("on_busy is 'queue', which is for inputs: resume() can 'raise' or 'wait'")
        scope = scope_of(cancellation)
        registry = self.tools if tools is None else ToolRegistry.of(tools)
        with self._at_work():
            return await join(self._resume(session_id, dict(answers or {}), registry, scope, on_busy=busy), scope)

    async def submit_tool_result(
        self,
        session_id: str,
        call_id: str,
        result: Any,
        *,
        is_error: bool = False,
        tools: ToolsLike = None,
        cancellation: Cancellation | None = None,
    ) -> StatefulResult:
        """Bring the result of a waiting call and go on with the turn, as `resume(answers=..., tools=...)` does.

        The result is whatever a handler may return.
        """
        check_call_id(call_id)
        answers = {call_id: Give(result, is_error)}
        return await self.resume(session_id, answers=answers, tools=tools, cancellation=cancellation)

    async def run_agent_spec(
        self,
        spec: AgentSpec,
        input: UserInput,
        *,
        parent_session_id: str | None = None,
        request_id: str | None = None,
        cancellation: Cancellation | None = None,
    ) -> StatefulResult:
        """Give `input` to an agent in a session of its own and return the result of its send.

        With a `parent_session_id` it stands below that session and has no more than it. Repeated with the same
        `request_id` it meets the same session and the same send. The result of a detached one has status `queued`, and
        its end comes to its parent's inbox. Raises `agent.not_granted`, `agent.limit`, `agent.invalid_spec` and what
        `send` raises.
        """
        self._check_open()
        if not is_a(spec, AgentSpec):
            raise AgentSpecError(f"spec is {spec!r:.200}: give an AgentSpec")
        parts = content_of(input)
        check_files(parts, self._llm.info)
        scope = scope_of(cancellation)
        with self._at_work():
            return await join(self._run_spec(spec, parts, parent_session_id, request_id, scope), scope)

    async def run_leaf(
        self,
        spec: AgentSpec,
        input: UserInput,
        *,
        run_id: str,
        request_id: str,
        cancellation: Cancellation | None = None,
    ) -> StatefulResult:
        """Give `input` to an agent below a workflow's run that another process drives, which waits for it and pays for
        it. Where another process drives that agent already, its end is waited for.

        Otherwise it is what `run_agent_spec` is, and its session stays open for the run to close.
        """
        parts = content_of(input)
        check_files(parts, self._llm.info)
        scope = scope_of(cancellation)
        with self._at_work():
            return await join(self._run_spec(spec, parts, run_id, request_id, scope, is_leaf=True), scope)

    async def get_pending(self, session_id: str) -> tuple[PendingCall, ...]:
        """Return the open calls of a session: those that wait for an answer, and those that a dead process left."""
        store = await self._ready_store()
        await store.get_session(session_id)
        return tuple(pending_call(call) for call in await store.get_calls(session_id, states=tuple(OPEN_CALLS)))

    async def heal_pending(self, session_id: str) -> StatefulResult:
        """Answer the open calls without running them, so that the session takes the next send; the same as
        `send(heal_pending=True)` does first.

        A call that had started is answered as unknown: its effect may have happened. A send that rests without open
        calls stays as it is, one that failed too, and its recorded result is returned; that of a session without a send
        has status `no_send`.
        """
        return await self._settle(session_id, "healed", only_calls=True)

    async def abort_pending(self, session_id: str, *, reason: str = "aborted") -> StatefulResult:
        """End the last send without running its open calls, and return its result, with status `aborted`.

        One that has ended gives its recorded result, a session without a send one with status `no_send`.
        """
        return await self._settle(session_id, reason, only_calls=False)

    async def follow_up(self, session_id: str, content: UserInput, *, request_id: str | None = None) -> FollowUp:
        """Say something more to a session, from any process, and return at once: the turn that runs takes it in at its
        next round; where none runs, this process makes the next turn of it in the background.

        The turn's events tell what becomes of it. Each input is delivered once and in order, whatever dies meanwhile.
        Raises `session.not_found`, `session.closed`, `session.inbox_full`, `request.conflict`, `input.invalid`.
        """
        parts = content_of(content)
        check_files(parts, self._llm.info)
        with self._at_work():
            return await begin.follow_up(await self._seat(session_id, self.tools, TurnScope()), parts, request_id)

    async def enqueue(
        self,
        session_id: str,
        input: UserInput,
        *,
        request_id: str | None = None,
        tools: Sequence[str] | None = None,
        system_prompt: str | SystemPrompt | None = None,
        output_schema: OutputSchema | Mapping[str, Any] | None = None,
        limits: SendLimits | None = None,
        tool_choice: str | None = None,
        max_output_tokens: int | None = None,
        temperature: float | None = None,
        reasoning_effort: str | None = None,
        budget: Budget | None = None,
    ) -> StatefulResult:
        """Leave an input for a `Worker`, in whatever process, and return at once, with status `queued`.

        It becomes a send of its own, behind those that were left before; this process does nothing more for it. Takes
        what `send` takes; `tools` are names out of the loop's registry, which the worker has to have. Repeated with the
        same `request_id` it returns what is known of the first: `queued` until the send has come to rest, then its
        recorded result. Raises `session.not_found`, `session.closed`, `session.inbox_full`, `request.conflict`,
        `input.invalid`.
        """
        asked = read_send(
            input,
            registry=self.tools,
            info=self._llm.info,
            tools=tools,
            system_prompt=system_prompt,
            output_schema=output_schema,
            heals=False,
            request_id=request_id,
            limits=limits,
            tool_choice=tool_choice,
            max_output_tokens=max_output_tokens,
            temperature=temperature,
            reasoning_effort=reasoning_effort,
            budget=budget,
            defaults=self.config,
        )
        with self._at_work():
            seat = replace(await self._seat(session_id, self.tools, TurnScope()), on_waiting=lambda: None)
            options = replace(asked.options, is_whole=True)
            return await begin.queue(seat, asked.parts, options=options, request_id=request_id)

    async def get_inbox(self, session_id: str) -> tuple[InboxRecord, ...]:
        """Return the inputs that wait in a session's inbox, in order."""
        return await (await self._ready_store()).get_inbox(session_id)

    async def withdraw(self, session_id: str, position: int) -> bool:
        """Take an input back that waits in the inbox; False if it does not wait there (any more)."""
        if not is_a(position, int):
            raise InputError(f"position is {position!r:.200}: give what follow_up() or get_inbox() told")
        return await (await self._ready_store()).withdraw_input(session_id, position)

    async def compact(
        self, session_id: str, *, cancellation: Cancellation | None = None, on_busy: OnBusy | str = OnBusy.RAISE
    ) -> FoldRecord | None:
        """Fold the older part of a session at once, also where no fold is due, and return the fold; None where there
        is too little to fold, where a hook did not allow it, or where it failed (`fold.failed` says why).

        The newest reply stays in the window; the log and its sends stay as they are. `LoopConfig.compaction` says how,
        or its defaults where that is None. `on_busy` is `"raise"` or `"wait"`. Raises `session.not_found`,
        `session.busy`, `input.invalid`.
        """
        self._check_open()
        busy = on_busy_of(on_busy)
        if busy is OnBusy.QUEUE:
            raise InputError("on_busy is 'queue', which is for inputs: compact() can 'raise' or 'wait'")
        scope = scope_of(cancellation)

        async def work() -> FoldRecord | None:
            return await compact(await self._turn_seat(session_id, self.tools, scope, on_busy=busy))

        with self._at_work():
            return await join(work(), scope)

    async def cancel(self, session_id: str, *, reason: str = "cancelled") -> bool:
        """Stop a session's turn, in whichever process it runs, and those that wait in line in this one; False if there
        is none.

        It comes to rest within moments, within a second in another process, with status `cancelled`, and its caller
        gets that result. One whose process died is ended here. A hook that is told of what has happened has half a
        second to return then. What waits in the inbox stays there.
        """
        store = await self._ready_store()
        if not is_a(session_id, str):
            return False
        desk = self._kit(store).desk
        was_here = desk.cancel(session_id, reason)
        if desk.is_running(session_id):
            return was_here
        try:
            head = await store.get_session(session_id)
            if head.owner is not None:
                head = await store.ask_to_cancel(session_id, reason=reason)
        except SessionNotFoundError:
            return was_here
        if head.owner is None:
            # A turn in the background that its event loop left holds no lease and runs no more, but would be recovered.
            sent = await store.get_send(session_id)
            if sent is None or sent.status is not SendStatus.RUNNING:
                return was_here
        scope = TurnScope()

        async def end() -> bool:
            if is_run_id(session_id) and head.agent is not None:
                if self._run_driver is None:
                    raise not_driven(session_id)
                return await self._run_driver.end(session_id, reason, scope, epoch=head.epoch)
            seat = await self._turn_seat(session_id, self.tools, scope)
            # One that began here while the store was read would be waited for to its own end.
            has_begun = desk.cancel(session_id, reason)
            return has_begun or await begin.cancel_left(seat, reason, epoch=head.epoch)

        with self._at_work():
            was_ended = await join(end(), scope)
        return was_ended or head.owner is not None or was_here

    # ---- for what stands above it ----

    @property
    def run_driver(self) -> RunDriver | None:
        """Who drives the runs of workflows for this handle: `power_loop.workflow.drive_runs(loop)` sets it."""
        return self._run_driver

    @run_driver.setter
    def run_driver(self, driver: RunDriver) -> None:
        self._run_driver = driver

    async def take_run_seat(self, run_id: str, scope: TurnScope, *, on_busy: OnBusy = OnBusy.RAISE) -> TurnSeat:
        """Return the place in which a workflow's run takes place, for the engine of workflows: nobody else drives a
        run. Raises `session.not_found`."""
        add_waiter(self._as_waiter)
        return await self._seat(run_id, self.tools, scope, on_busy=on_busy, is_run=True)

    def work(self) -> AbstractContextManager[None]:
        """Count what stands above the handle as its own work, so that `aclose()` waits for it: `with loop.work(): ...`.

        Raises `loop.closed`.
        """
        return self._at_work()

    # ---- timers ----

    async def schedule_timer(
        self,
        session_id: str,
        content: UserInput,
        schedule: Schedule,
        *,
        name: str | None = None,
        request_id: str | None = None,
    ) -> TimerRecord:
        """Make a timer that brings `content` to a session as a follow-up when it is due: `At(moment)`,
        `After(seconds)`, `Every(seconds)` or `Cron(expression, zone)`.

        A `TimerRunner`, in whatever process, delivers it. Repeated with the same `request_id` it meets the same timer,
        until that was pruned. Raises `session.not_found`, `session.closed`, `schedule.invalid`,
        `schedule.no_time_zone`, `timer.limit` (`LoopConfig.max_timers`), `request.conflict`, `input.invalid`,
        `workflow.not_a_conversation`.
        """
        new = read_timer(
            session_id,
            content,
            schedule,
            info=self._llm.info,
            name=name,
            request_id=request_id,
            new_id=self._now.new_id,
            max_timers=self.config.max_timers,
        )
        store = await self._ready_store()
        if is_run_id(session_id) and (await store.get_session(session_id)).agent is not None:
            raise no_conversation(session_id)
        made = await store.schedule_timer(new)
        if made.due_at_ms is not None:
            self.event_bus.emit(TimerScheduled(made.id, made.due_at_ms), session_id=session_id)
        return made

    async def cancel_timer(self, timer_id: str) -> bool:
        """End a timer; False if it had ended. Raises `timer.not_found`."""
        store = await self._ready_store()
        was_armed = await store.cancel_timer(timer_id)
        if was_armed:
            timer = await store.get_timer(timer_id)
            self.event_bus.emit(TimerCancelled(timer_id), session_id=timer.session_id)
        return was_armed

    async def list_timers(
        self,
        session_id: str | None = None,
        *,
        include_ended: bool = False,
        cursor: str | None = None,
        limit: int = 100,
    ) -> Page[TimerRecord]:
        """Return a page of armed timers, of one session or of all; ended ones too if `include_ended` says so."""
        store = await self._ready_store()
        return await store.list_timers(session_id, include_ended=include_ended, cursor=cursor, limit=limit)

    async def drive_inbox(self, session_id: str) -> None:
        """Drive what waits in a session's inbox, as this process does with inputs of its own, and return when nothing
        is left that could be driven, or where somebody else drives it. What goes wrong in a turn is told by its
        events. A workflow's run that was woken is driven to its rest, where this handle was told who does that."""
        self._check_open()
        if await self._is_run(session_id):
            if self._run_driver is not None:
                await asyncio.wait((self._run_driver.start(session_id),))
            return
        await self._inbox_driver.drive(session_id)

    async def deliver_due(self, timer_ids: Sequence[str] | None = None) -> tuple[str, ...]:
        """Deliver timers that are due, as a `TimerRunner` does: those of these ids, or those that workflows made.
        Return the sessions that are to be driven behind it."""
        store = self._store or await self.get_store()
        kit = self._kit(store)
        dead = await dead_among(await store.list_timer_owners(within_s=CLAIM_TTL_S), kit.is_owner_dead)
        firing, seen, woken = Firing(self.hooks, self.event_bus), set[str](), list[str]()
        while True:
            claims = await store.claim_timers(
                kit.desk.owner,
                ttl_s=CLAIM_TTL_S,
                limit=_MAX_DELIVERIES,
                timer_ids=timer_ids,
                dead_owners=dead,
                made_by=TimerMaker.WORKFLOW if timer_ids is None else None,
            )
            delivered = await asyncio.gather(*[start(firing.fire(store, claim)) for claim in claims])
            woken += [one.timer.session_id for one in delivered if one is not None and wakes(one)]
            # What a hook has put back for no time at all is left to the next look.
            claimed = {claim.timer.id for claim in claims}
            if len(claims) < _MAX_DELIVERIES or claimed & seen:
                return tuple(woken)
            seen |= claimed
            dead = []

    def deliver_soon(self, timer_id: str) -> None:
        """Deliver a timer in the background if it is due, and have driven what it woke; whoever else delivers timers
        does so where this process ends before."""

        async def deliver() -> None:
            try:
                for session_id in await self.deliver_due((timer_id,)):
                    self._drive_on(session_id)
            except (StoreError, LoopClosedError) as error:
                _LOG.warning("timer %s was not delivered and is left to others: %s", timer_id, error)

        self._begin_delivery(deliver())

    def _begin_delivery(self, work: Coroutine[Any, Any, None]) -> None:
        """Let something that wakes others go on in the background; closing waits for it."""
        in_flight = contextlib.ExitStack()
        in_flight.enter_context(self._work.turn())

        async def counted() -> None:
            # A hook that closes the handle would wait for itself.
            add_waiter(self._as_waiter)
            await work

        # In a context of its own: it is nothing that the turn waits for which happens to start it.
        task = contextvars.Context().run(asyncio.get_running_loop().create_task, counted())
        self._deliveries.add(task)
        task.add_done_callback(lambda _: in_flight.close())
        task.add_done_callback(self._deliveries.discard)

    # ---- replay and time travel ----

    async def replay(self, session: str | bytes, *, upto: int | None = None) -> Replayed:
        """Drive a recorded session again with today's code, tools and configuration, and stop at the first model call
        that is asked something else; the result says where and what.

        `session` is an id, or an archive of `export_session`. `upto` ends it at the call whose reply has that seq. No
        model is asked: each call gets its recorded answer. No tool runs: each call gives its recorded result. Hooks,
        memory, live state, permissions and budgets play no part. It happens in a database of its own, and nothing of
        the session changes. Raises `session.not_found`, `archive.invalid`, `input.invalid`.
        """
        self._check_open()
        if upto is not None and not is_a(upto, int):
            raise InputError(f"upto is {upto!r:.200}: give the seq of a reply, or nothing for the whole session")
        archive = session
        if not isinstance(archive, bytes):
            store: Any = await self._ready_store()
            archive = await store.export_session(session)
        scratch = await open_store(":memory:")
        try:
            return await replay(
                archive,
                scratch,
                info=self._llm.info,
                tools=self.tools,
                config=self.config,
                upto=upto,
                drive=lambda send: _drive_again(send, scratch),
            )
        finally:
            await scratch.aclose()

    async def what_if(
        self,
        session_id: str,
        seq: int,
        content: UserInput | None = None,
        *,
        system_prompt: str | SystemPrompt | None = None,
        llm: LLMService | None = None,
        tools: ToolsLike | Sequence[str] = None,
        limits: SendLimits | None = None,
        cancellation: Cancellation | None = None,
    ) -> StatefulResult:
        """Go back to message `seq` and go on live from there in a fork, with something else: another input `content`
        behind that message, another system prompt, model or tools. Without `content`, `seq` is that of an input, which
        is given again.

        The session stays as it is; the fork is the session of the result. Raises `session.not_found`, `input.invalid`
        where no fork can leave there, and what `send` raises.
        """
        store: Any = await self._ready_store()
        given, at = await _asked_again(store, session_id, seq, content)
        if at:
            fork_id = await store.fork_session(session_id, at=at)
        else:
            head = await store.get_session(session_id)
            fork_id = await self.new_session(system_prompt=head.system_prompt, metadata=head.metadata)
        if system_prompt is not None:
            await self.update_session(fork_id, system_prompt=system_prompt)
        if llm is None:
            return await self.send(given, session_id=fork_id, tools=tools, limits=limits, cancellation=cancellation)
        other = StatefulAgentLoop(
            llm=llm,
            store=store,
            config=self.config,
            tool_registry=self.tools,
            hooks=self.hooks,
            event_bus=self.event_bus,
            clock=self._clock,
        )
        async with other:
            return await other.send(given, session_id=fork_id, tools=tools, limits=limits, cancellation=cancellation)

    # ---- after a process died ----

    async def recover(
        self, *, limit: int = 100, drive: bool = True, older_than_s: float = 0.0
    ) -> tuple[Recovered, ...]:
        """Find the sessions whose process died in the middle of a turn, and those whose inputs wait while nobody drives
        them; drive each as `resume()` would, and return what became of them. What workflows are woken by, and what they
        have to report, is delivered first.

        With `drive=False` they are reported only. `older_than_s` leaves alone what is stalled for less. A send with
        which more than `LoopConfig.max_recoveries` processes died is given up (`send.poisoned`). Many workers may do
        this at once.
        """
        check_pass(limit, older_than_s)
        with self._at_work():
            recovery = await self._recovery()
            if drive:
                token = add_waiter(self._as_waiter)
                try:
                    await self.deliver_due()
                finally:
                    drop_waiter(token)
            return tuple([one async for one in recovery.run(limit=limit, drive=drive, older_than_s=older_than_s)])

    async def recover_forever(
        self, *, every_s: float = 10.0, limit: int = 100, older_than_s: float = 0.0
    ) -> AsyncIterator[Recovered]:
        """Recover again and again, with about `every_s` between two passes, until the loop is closed; yield each report
        as it comes. A pass that fails because the database is away is made again."""
        check_seconds("every_s", every_s, least=0.01)
        check_pass(limit, older_than_s)
        while not self._is_closed:
            try:
                for report in await self.recover(limit=limit, older_than_s=older_than_s):
                    yield report
            except LoopClosedError:
                return
            except StoreError as error:
                _LOG.warning("a pass of recovery failed and is made again: %s", error)
            # Workers that began together do not stay together.
            await self._now.sleep(every_s * (0.75 + random.random() / 2))

    async def workplace(self, on_more: Callable[[], object]) -> Workplace:
        """Return what a `Worker` drives sessions with; `on_more` is called where a session has more to do behind a
        turn. Raises `loop.closed`."""
        kit = self._kit(await self._ready_store())

        def driving(go: DriveTurn) -> DriveIn:
            async def drive(session_id: str, scope: TurnScope) -> StatefulResult | None:
                async def run() -> StatefulResult | None:
                    seat = await self._turn_seat(session_id, self.tools, scope)
                    return await go(replace(seat, on_waiting=on_more))

                if go is begin.recover and await self._is_run(session_id):
                    return await self._go_on_with_run(session_id, scope)
                return await join(run(), scope)

            return drive

        return Workplace(
            kit.store,
            kit.desk,
            kit.lease_ttl_s,
            kit.is_owner_dead,
            self._work.turn,
            lambda: self._is_closed,
            deliver=self.deliver_due,
            recover=driving(begin.recover),
            next_turn=driving(begin.next_turn),
        )

    # ---- the end ----

    async def aclose(self) -> None:
        """Take no more work, wait for the sends in flight, then let the database go. May be called again.

        Raises `input.invalid` inside a hook or a tool of a turn of this loop, which it would wait for. The loop's own
        bus is closed with it: background subscribers get the last events first. A bus that was given stays the caller's
        to close.
        """
        if await is_awaited_by(self._as_waiter):
            raise InputError(
                "aclose() was called by a hook or a tool of a turn of this loop that has not returned, so that it would"
                " wait for itself: start a task for it and return, or close the loop behind the send"
            )
        self._is_closed = True
        await self._work.ended()
        opening = self._opening
        if opening is not None and opening.get_loop() is asyncio.get_running_loop():
            await asyncio.wait((opening,))
        store, self._store = self._store, None if self._owns_store else self._store
        self._desk_kit = None
        self._windows = None
        try:
            if self._owns_tools and isinstance(self._tools, ToolRegistry):
                await self._tools.aclose()
            if self._bus is not None and self._owns_bus:
                await self._bus.aclose()
        finally:
            if store is not None and self._owns_store:
                await store.aclose()

    async def __aenter__(self) -> StatefulAgentLoop:
        self._check_open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # ---- for scripts without an event loop ----

    new_session_sync = twin(new_session)
    send_sync = twin(send)
    resume_sync = twin(resume)
    submit_tool_result_sync = twin(submit_tool_result)
    run_agent_spec_sync = twin(run_agent_spec)
    get_pending_sync = twin(get_pending)
    heal_pending_sync = twin(heal_pending)
    abort_pending_sync = twin(abort_pending)
    follow_up_sync = twin(follow_up)
    enqueue_sync = twin(enqueue)
    get_inbox_sync = twin(get_inbox)
    withdraw_sync = twin(withdraw)
    cancel_sync = twin(cancel)
    recover_sync = twin(recover)
    schedule_timer_sync = twin(schedule_timer)
    cancel_timer_sync = twin(cancel_timer)
    list_timers_sync = twin(list_timers)
    get_messages_sync = twin(get_messages)
    get_folds_sync = twin(get_folds)
    compact_sync = twin(compact)
    explain_sync = twin(explain)
    list_sessions_sync = twin(list_sessions)
    close_session_sync = twin(close_session)
    replay_sync = twin(replay)
    what_if_sync = twin(what_if)

    def close_sync(self) -> None:
        """Do what `aclose` does, and end the thread of the sync methods."""
        self.run_sync(self.aclose())
        runner, self._sync = self._sync, None
        if runner is not None:
            runner.close()

    def run_sync(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what an awaitable of this handle returns, as in `loop.run_sync(loop.get_session_stats(sid))`."""
        refuse_to_block(work)
        runner = self._sync
        if runner is None or not runner.is_here:
            runner = self._sync = SyncRunner()
        return runner.run(work)

    def __enter__(self) -> StatefulAgentLoop:
        self._check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close_sync()

    def __repr__(self) -> str:
        info = self._llm.info
        state = "closed" if self._is_closed else "open"
        return f"<StatefulAgentLoop {info.provider}/{info.model} {state}>"

    # ---- inside ----

    @property
    def _now(self) -> Clock:
        if self._clock is None:
            self._clock = SystemClock()
        return self._clock

    @property
    def _window_cache(self) -> WindowCache:
        if self._windows is None:
            self._windows = WindowCache(max_sessions=self.config.max_cached_sessions)
        return self._windows

    @property
    def _as_waiter(self) -> Waiter:
        """This handle among those that wait for a turn."""
        return (id(self), "")

    def _check_open(self) -> None:
        if self._is_closed:
            raise _closed()

    async def _ready_store(self) -> SessionStore:
        self._check_open()
        return self._store or await self.get_store()

    def _announcer(self, session_id: str) -> Any:
        return lambda payload: self.event_bus.emit(payload, session_id=session_id)

    def _kit(self, store: SessionStore) -> TurnKit:
        known = self._desk_kit
        # A forked child has a name of its own in leases, which its desk knows.
        if known is not None and known[0] is store and known[1].desk.pid == os.getpid():
            return known[1]
        kit = make_kit(self.config, store=store, llm=self._llm, hooks=self.hooks, bus=self.event_bus, clock=self._now)
        self._desk_kit = (store, kit)
        return kit

    async def _seat(
        self,
        session_id: str,
        tools: ToolRegistry,
        scope: TurnScope,
        *,
        on_busy: OnBusy = OnBusy.RAISE,
        listener: Listener | None = None,
        is_run: bool = False,
    ) -> TurnSeat:
        store = self._store or await self.get_store()
        if not is_a(session_id, str):
            await store.get_session(session_id)  # no session has such an id, and the store says so
        kit, agent = self._kit(store), None
        agents = Agents(
            kit,
            self.config,
            seat_of=self._agent_seat,
            wake=self._drive_on,
            end_run=self._end_run,
        )
        if is_agent_id(session_id) or is_run_id(session_id):
            stored = (await store.get_session(session_id)).agent
            if stored is not None:
                if is_run_id(session_id) and not is_run:
                    raise no_conversation(session_id)
                agent = Agent.from_json(stored)
                kit, tools = kit_of(kit, agent, self.config), tools_of(tools, agent)
        return TurnSeat(
            kit,
            self._window_cache,
            session_id,
            tools,
            scope,
            listener,
            on_busy,
            on_waiting=lambda: self._inbox_driver.start(session_id),
            drive_inbox=lambda: self._inbox_driver.drive(session_id),
            agents=agents,
            agent=agent,
        )

    def _drive_on(self, session_id: str) -> None:
        """See to it that a session is driven which somebody woke; a run by those who drive runs."""
        if not is_run_id(session_id):
            self._inbox_driver.start(session_id)
            return
        if self._run_driver is not None and not self._is_closed:
            self._run_driver.start(session_id)

        async def drive_conversation() -> None:
            # One that is called like a run.
            with contextlib.suppress(PowerLoopError):
                if not await self._is_run(session_id):
                    self._inbox_driver.start(session_id)

        self._begin_delivery(drive_conversation())

    async def _end_run(self, run_id: str, reason: str) -> None:
        """End a workflow's run, running or at rest, that was made for a send which comes to rest without it."""
        store = self._store or await self.get_store()
        sent = await store.get_send(run_id)
        if sent is None or sent.status not in (SendStatus.RUNNING, SendStatus.WAITING_FOR_INPUT):
            return
        if not await self.cancel(run_id, reason=reason) and self._run_driver is not None:
            head = await store.get_session(run_id)
            await self._run_driver.end(run_id, reason, TurnScope(), epoch=head.epoch)

    async def _agent_seat(
        self, session_id: str, tools: ToolRegistry | None, scope: TurnScope, payer: Turn | None
    ) -> TurnSeat:
        """Return a seat on the session of a sub-agent, where another's turn is waited for."""
        registry = self.tools if tools is None else tools
        on_busy = OnBusy.RAISE if payer is None else OnBusy.WAIT
        seat = await self._turn_seat(session_id, registry, scope, on_busy=on_busy)
        kit = seat.kit if payer is None or payer.purse is None else replace(seat.kit, budget=None)
        return replace(seat, kit=kit, payer=payer)

    async def _turn_seat(self, session_id: str, tools: ToolRegistry, scope: TurnScope, **more: Any) -> TurnSeat:
        """Return a seat to a task of its own, for which this handle waits."""
        add_waiter(self._as_waiter)
        return await self._seat(session_id, tools, scope, **more)

    async def _send(
        self,
        session_id: str,
        asked: AskedSend,
        scope: TurnScope,
        *,
        on_busy: OnBusy,
        listener: Listener | None = None,
    ) -> StatefulResult:
        seat = await self._turn_seat(session_id, asked.tools, scope, on_busy=on_busy, listener=listener)
        return await begin.send(
            seat, asked.parts, options=asked.options, request_id=asked.request_id, heals=asked.heals
        )

    async def _resume(
        self,
        session_id: str,
        answers: Mapping[str, Answer],
        tools: ToolRegistry,
        scope: TurnScope,
        *,
        on_busy: OnBusy,
    ) -> StatefulResult:
        return await begin.resume(await self._turn_seat(session_id, tools, scope, on_busy=on_busy), answers)

    async def _run_spec(
        self,
        spec: AgentSpec,
        parts: tuple[ContentPart, ...],
        parent_id: str | None,
        request_id: str | None,
        scope: TurnScope,
        *,
        is_leaf: bool = False,
    ) -> StatefulResult:
        store = self._store or await self.get_store()
        key = request_id or self._now.new_id("req")
        parent = None if parent_id is None else await store.get_session(parent_id)
        stored = None if parent is None or parent.agent is None else Agent.from_json(parent.agent)
        above = () if parent is None else (*(() if stored is None else stored.above), parent.id)
        agent = granted(
            spec,
            self.config,
            above=above,
            parent=stored,
            tools=self.tools if stored is None else tools_of(self.tools, stored),
            limits=self.config.limits if stored is None else stored.limits,
            key=key,
        )
        agent_id = agent_id_of(parent_id or "", key)
        place = {} if parent is None else {"parent_send": parent.send_count}
        new = new_session(agent, agent_id, spec, **place)
        await store.create_child(new)
        seat = await self._turn_seat(agent_id, self.tools, scope)
        if is_leaf and parent is not None:
            seat = replace(seat, on_busy=OnBusy.WAIT, awaited_by=(parent.id, parent.send_count))
        payer = None
        if parent is not None:
            # While a send of the parent runs, that is what this work is for.
            sent = await store.get_send(parent.id)
            if sent is not None and sent.status is SendStatus.RUNNING:
                payer = SendOptions.from_json(sent.options).budget_of(parent.id, sent.index)
        options = SendOptions(output_schema=agent.output_schema, budget=agent.budget, payer=payer)
        if agent.lifecycle is AgentLifecycle.DETACHED:
            return await begin.queue(seat, parts, options=options, request_id=key)
        result = await begin.send(seat, parts, options=options, request_id=key, heals=False)
        if (
            agent.lifecycle is AgentLifecycle.EPHEMERAL
            and not is_leaf
            and result.status is not SendStatus.WAITING_FOR_INPUT
        ):
            await store.close_session(agent_id)
        return result

    async def _settle(self, session_id: str, reason: str, *, only_calls: bool) -> StatefulResult:
        self._check_open()
        scope = TurnScope()

        async def settle() -> StatefulResult:
            return await begin.settle(
                await self._turn_seat(session_id, self.tools, scope), reason, only_calls=only_calls
            )

        with self._at_work():
            return await join(settle(), scope)

    @property
    def _inbox_driver(self) -> InboxDriver:
        if self._inbox is None:
            # It is asked for by turns, which hold the handle anyway.
            self._inbox = InboxDriver(self._work, self._next_turn, lambda: self._is_closed)
        return self._inbox

    async def _next_turn(self, session_id: str) -> StatefulResult | None:
        return await self._in_background(session_id, begin.next_turn)

    async def _recover_turn(self, session_id: str) -> StatefulResult | None:
        if await self._is_run(session_id):
            with self._work.turn():
                return await self._go_on_with_run(session_id, TurnScope(is_background=True))
        return await self._in_background(session_id, begin.recover)

    async def _is_run(self, session_id: str) -> bool:
        if not is_run_id(session_id):
            return False
        store = self._store or await self.get_store()
        return (await store.get_session(session_id)).agent is not None

    async def _go_on_with_run(self, run_id: str, scope: TurnScope) -> StatefulResult | None:
        if self._run_driver is None:
            raise not_driven(run_id)
        return await join(self._run_driver.go_on(run_id, scope), scope)

    async def _in_background(self, session_id: str, go: DriveTurn) -> StatefulResult | None:
        """Run a turn that nobody waits for: at the end of its event loop it is left, to be recovered."""
        scope = TurnScope(is_background=True)

        async def run() -> StatefulResult | None:
            return await go(await self._turn_seat(session_id, self.tools, scope))

        with self._work.turn():
            return await join(run(), scope)

    async def _recovery(self) -> Recovery:
        kit = self._kit(self._store or await self.get_store())
        return Recovery(
            kit.store, is_owner_dead=kit.is_owner_dead, recover=self._recover_turn, next_turn=self._next_turn
        )

    def _at_work(self) -> AbstractContextManager[None]:
        """Count a turn as in flight, so that aclose() waits for it."""
        self._check_open()
        return self._work.turn()


#: Is `StatefulAgentLoop.run_agent_spec` as a function: `run_agent_spec(loop, spec, input)`.
run_agent_spec = StatefulAgentLoop.run_agent_spec


def _no_model_call(session_id: str, call: int | None, before: int | None) -> ModelCallNotFoundError:
    if call is None:
        message = f"session {session_id!r} has no model call yet"
    else:
        nearest = "there is none before it either" if before is None else f"the one before it is call {before}"
        message = (
            f"session {session_id!r} has no model call {call}: {nearest}; a call goes by the seq of its reply, which"
            " get_messages() tells"
        )
    return ModelCallNotFoundError(message, session_id=session_id, call=call)


async def _drive_again(send: ReplayedSend, store: SessionStore) -> StatefulResult:
    """Drive one send of a replay, without hooks and without anybody who listens."""
    async with StatefulAgentLoop(llm=send.model, store=store, tool_registry=send.tools, config=send.config) as loop:
        send.model.follow_up = loop.follow_up
        options = send.options
        return await loop.send(
            send.content,
            session_id=send.session_id,
            system_prompt=options.system_prompt,
            output_schema=options.output_schema,
            limits=options.limits,
            tool_choice=options.tool_choice,
            max_output_tokens=options.max_output_tokens,
            temperature=options.temperature,
            reasoning_effort=options.reasoning_effort,
        )


async def _asked_again(
    store: SessionStore, session_id: str, seq: Any, content: UserInput | None
) -> tuple[UserInput, int]:
    """Return the input that is given in a fork, and behind which message. Raises `input.invalid`."""
    head = await store.get_session(session_id)
    if not is_whole(seq, least=1, most=head.next_seq - 1):
        raise InputError(f"seq is {seq!r:.80}: give the seq of a message of session {session_id!r}, as show tells them")
    if content is not None:
        return content, seq
    found = await store.get_messages(session_id, after_seq=seq - 1, limit=1)
    message = found[0].message if found and found[0].seq == seq else None
    if message is None or message.role is not Role.USER:
        raise InputError(
            f"message {seq} of session {session_id!r} is no input that could be given again: give the seq of one, or"
            " content, which comes behind the message"
        )
    parts: Any = message.parts
    return parts, seq - 1


def _closed() -> LoopClosedError:
    return LoopClosedError("this loop was closed with aclose(): make another StatefulAgentLoop on the same DSN")
