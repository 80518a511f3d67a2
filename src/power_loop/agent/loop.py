"""Is the handle that an application holds: sessions, sends, and what to do with those that wait."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, TypeVar

from power_loop.agent.asked import (
    AskedSend,
    Cancellation,
    check_call_id,
    check_clock,
    check_prompt,
    check_store,
    follow,
    is_a,
    read_send,
    scope_of,
    session_state_of,
)
from power_loop.agent.config import LoopConfig
from power_loop.agent.in_flight import InFlight
from power_loop.agent.kit import make_kit
from power_loop.agent.stream import TurnStream
from power_loop.agent.sync import SyncRunner, refuse_to_block, twin
from power_loop.contracts.answers import Answer, Give
from power_loop.contracts.clock import Clock, SystemClock
from power_loop.contracts.errors import ConfigError, InputError, LoopClosedError
from power_loop.contracts.events import SessionClosed, SessionCreated
from power_loop.contracts.hooks import HookPoint, SessionEndContext, SessionStartContext
from power_loop.contracts.llm import LLMService, ModelInfo, OutputSchema
from power_loop.contracts.messages import ContentPart, UserInput
from power_loop.contracts.ports import SessionStore
from power_loop.contracts.records import MessageRecord, Page, SessionRecord, SessionStats
from power_loop.contracts.results import PendingCall, StatefulResult
from power_loop.contracts.session_ids import check_session_id
from power_loop.contracts.states import OPEN_CALLS, SchemaPolicy, SessionState
from power_loop.core.bus import AgentEventBus, EventQueue
from power_loop.core.context.window import Window, WindowCache
from power_loop.core.hooks import Hooks
from power_loop.core.turn import begin
from power_loop.core.turn.budget import SendLimits
from power_loop.core.turn.chain import Waiter, add_waiter, is_awaited_by
from power_loop.core.turn.outcome import pending_call
from power_loop.core.turn.scope import TurnScope
from power_loop.core.turn.turn import TurnKit
from power_loop.runtime.store.open import open_store, schema_policy_of
from power_loop.tools.registry import ToolRegistry, ToolsLike

T = TypeVar("T")

#: Where sessions are kept when neither a DSN nor a store is given.
DEFAULT_DSN = "app.db"


class StatefulAgentLoop:
    """Runs agent turns over a durable store. It holds no conversation: any handle on the same store goes on with any
    session.

    `llm` is the model. `dsn` names the store (default `app.db`, a SQLite file); `store` brings an open one instead,
    which stays the caller's to close. `tool_registry` is what the model may call (a `ToolRegistry`, or a list of tools
    and functions), `hooks` and `event_bus` are the application's ears and brakes. A handle is cheap: the database is
    opened at first use, and shared by all handles of the process that name it.
    """

    __slots__ = (
        "__weakref__",
        "_bus",
        "_clock",
        "_config",
        "_desk_kit",
        "_dsn",
        "_hooks",
        "_is_closed",
        "_llm",
        "_opening",
        "_owns_bus",
        "_owns_store",
        "_prefix",
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
        if not is_a(getattr(llm, "info", None), ModelInfo):
            raise ConfigError(f"llm is {llm!r:.200}: give an LLMService, whose info is a ModelInfo")
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
        self._hooks = hooks
        self._bus = event_bus
        self._owns_bus = event_bus is None
        self._clock = clock
        self._is_closed = False
        self._work = InFlight()
        self._opening: asyncio.Task[None] | None = None
        self._desk_kit: tuple[SessionStore, TurnKit] | None = None
        self._windows: WindowCache | None = None
        self._sync: SyncRunner | None = None

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
        system_prompt: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        session_id: str | None = None,
    ) -> str:
        """Make a session and return its id. `metadata` is a JSON object. Raises `session.exists`, `input.invalid`."""
        self._check_open()
        if session_id is not None:
            check_session_id(session_id)
        made = session_id or self._now.new_id("sess")
        check_prompt(system_prompt)
        store = await self.get_store()
        record = await store.create_session(made, system_prompt=system_prompt, metadata=metadata or {})
        self.event_bus.emit(SessionCreated(), session_id=made)
        if self._hooks is not None and self._hooks.has(HookPoint.SESSION_START):
            await self._hooks.tell(SessionStartContext(made, 0, 0, record.metadata), self._announcer(made))
        return made

    async def update_session(
        self,
        session_id: str,
        *,
        system_prompt: str | None = None,
        clear_system_prompt: bool = False,
        metadata: Mapping[str, Any] | None = None,
    ) -> SessionRecord:
        """Change the system prompt and/or replace the metadata; what is None stays. The next model call sees it."""
        check_prompt(system_prompt)
        store = await self._ready_store()
        return await store.update_session(
            session_id, system_prompt=system_prompt, clear_system_prompt=clear_system_prompt, metadata=metadata
        )

    async def get_session(self, session_id: str) -> SessionRecord:
        """Return a session's head. Raises `session.not_found`."""
        return await (await self._ready_store()).get_session(session_id)

    async def list_sessions(
        self,
        *,
        state: SessionState | str | None = None,
        metadata: Mapping[str, Any] | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[SessionRecord]:
        """Return a page of sessions, newest first; `metadata` keeps those whose metadata has these top-level values."""
        if metadata is not None and not is_a(metadata, Mapping):
            raise InputError(f"metadata is {metadata!r:.200}: give a dict of the values to look for")
        store = await self._ready_store()
        return await store.list_sessions(state=session_state_of(state), metadata=metadata, cursor=cursor, limit=limit)

    async def close_session(self, session_id: str) -> bool:
        """Close a session to further input; it stays readable.

        False if it was closed. Raises `session.busy` while a turn runs.
        """
        store = await self._ready_store()
        was_open = await store.close_session(session_id)
        if was_open:
            self.event_bus.emit(SessionClosed(), session_id=session_id)
            if self._hooks is not None and self._hooks.has(HookPoint.SESSION_END):
                record = await store.get_session(session_id)
                context = SessionEndContext(session_id, record.send_count, 0, record.metadata)
                await self._hooks.tell(context, self._announcer(session_id))
        return was_open

    async def get_messages(
        self, session_id: str, *, after_seq: int = 0, limit: int | None = None
    ) -> tuple[MessageRecord, ...]:
        """Return the log in order, those after `after_seq`, at most `limit`. Raises `session.not_found`."""
        for name, value in (("after_seq", after_seq), ("limit", 0 if limit is None else limit)):
            if not is_a(value, int) or value < 0:
                raise InputError(f"{name} is {value!r:.200}: give a whole number of at least 0")
        return await (await self._ready_store()).get_messages(session_id, after_seq=after_seq, limit=limit)

    async def get_session_stats(self, session_id: str) -> SessionStats:
        """Return what a session took so far: sends, calls, tokens, bytes."""
        return await (await self._ready_store()).get_stats(session_id)

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
            kept = Window.of(await store.read_view(session_id))
        windows.put(kept)

    # ---- turns ----

    async def send(
        self,
        content: UserInput,
        *,
        session_id: str,
        tools: ToolsLike | Sequence[str] = None,
        system_prompt: str | None = None,
        output_schema: OutputSchema | Mapping[str, Any] | None = None,
        heal_pending: bool = False,
        request_id: str | None = None,
        limits: SendLimits | None = None,
        cancellation: Cancellation | None = None,
        tool_choice: str | None = None,
        max_output_tokens: int | None = None,
        temperature: float | None = None,
        reasoning_effort: str | None = None,
    ) -> StatefulResult:
        """Store an input, run the loop until the turn rests, and return its result.

        `content` is text or content parts. `tools` are the tools of this send: names out of the loop's registry, or
        others. `output_schema` asks for an answer that fits it, as `result.output` (raises `output.invalid` when the
        model cannot). `heal_pending` aborts the open calls of an earlier turn first. A send that is repeated with the
        same `request_id` returns the recorded result. `cancellation` is a `CancellationToken`, an `asyncio.Event` or a
        `threading.Event`.

        Raises `session.not_found`, `session.closed`, `session.busy`, `session.pending`, `request.conflict`,
        `input.invalid`, an `LLMError` when the model cannot be reached (`resume()` tries again), a `StoreError` when
        the database cannot.
        """
        self._check_open()
        asked = read_send(
            content,
            registry=self.tools,
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
        )
        scope = scope_of(cancellation)
        with self._at_work():
            work = self._send(session_id, asked, scope)
            return await begin.join(work, scope)

    def stream(
        self,
        content: UserInput,
        *,
        session_id: str,
        tools: ToolsLike | Sequence[str] = None,
        system_prompt: str | None = None,
        output_schema: OutputSchema | Mapping[str, Any] | None = None,
        heal_pending: bool = False,
        request_id: str | None = None,
        limits: SendLimits | None = None,
        cancellation: Cancellation | None = None,
        tool_choice: str | None = None,
        max_output_tokens: int | None = None,
        temperature: float | None = None,
        reasoning_effort: str | None = None,
    ) -> TurnStream:
        """Send, and watch: `async with loop.stream(...) as events: async for event in events: ...`; then
        `events.result`.

        Takes what `send` takes. Leaving the block early cancels the turn.
        """
        self._check_open()
        asked = read_send(
            content,
            registry=self.tools,
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
        )
        scope = TurnScope()

        async def start(listener: EventQueue) -> StatefulResult:
            with self._at_work():
                follow(scope, cancellation)
                try:
                    return await self._send(session_id, asked, scope, listener)
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
    ) -> StatefulResult:
        """Drive a session's last send on from whatever the log says, in whatever process; a send that rests gives its
        recorded result, a session without a send one with status `no_send`.

        `answers` are to waiting calls, by call id: `Approve()`, `Deny(reason)`, `Give(result)`; they are stored
        together, then the turn goes on. `tools` stand in for the loop's registry, where the send brought its own; those
        that it was begun with and that are not here are named in `SendStarted.missing_tools`, and a call of one is
        answered with that. Raises `call.not_found`, `call.not_waiting`, `input.invalid`, `session.busy`,
        `config.invalid` where an approved call's tool is not here, and what `send` raises.
        """
        self._check_open()
        if answers is not None and not isinstance(answers, Mapping):
            raise InputError(f"answers is {answers!r:.200}: give a dict of answers by call id")
        scope = scope_of(cancellation)
        registry = self.tools if tools is None else ToolRegistry.of(tools)
        with self._at_work():
            return await begin.join(self._resume(session_id, dict(answers or {}), registry, scope), scope)

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

    async def cancel(self, session_id: str, *, reason: str = "cancelled") -> bool:
        """Stop a session's turns in this process, those that wait in line too, whichever handle runs them; False if
        there is none.

        They come to rest within moments with status `cancelled`, and their callers get that result. A hook that is told
        of what has happened has half a second to return then.
        """
        store = await self._ready_store()
        return is_a(session_id, str) and self._kit(store).desk.cancel(session_id, reason)

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
    get_pending_sync = twin(get_pending)
    heal_pending_sync = twin(heal_pending)
    abort_pending_sync = twin(abort_pending)
    get_messages_sync = twin(get_messages)
    list_sessions_sync = twin(list_sessions)
    close_session_sync = twin(close_session)

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
        self, session_id: str, tools: ToolRegistry, scope: TurnScope, listener: EventQueue | None = None
    ) -> begin.TurnSeat:
        add_waiter(self._as_waiter)
        store = self._store or await self.get_store()
        if not is_a(session_id, str):
            await store.get_session(session_id)  # no session has such an id, and the store says so
        return begin.TurnSeat(self._kit(store), self._window_cache, session_id, tools, scope, listener)

    async def _send(
        self, session_id: str, asked: AskedSend, scope: TurnScope, listener: EventQueue | None = None
    ) -> StatefulResult:
        seat = await self._seat(session_id, asked.tools, scope, listener)
        return await begin.send(
            seat, asked.parts, options=asked.options, request_id=asked.request_id, heals=asked.heals
        )

    async def _resume(
        self, session_id: str, answers: Mapping[str, Answer], tools: ToolRegistry, scope: TurnScope
    ) -> StatefulResult:
        return await begin.resume(await self._seat(session_id, tools, scope), answers)

    async def _settle(self, session_id: str, reason: str, *, only_calls: bool) -> StatefulResult:
        self._check_open()
        scope = TurnScope()

        async def settle() -> StatefulResult:
            return await begin.settle(await self._seat(session_id, self.tools, scope), reason, only_calls=only_calls)

        with self._at_work():
            return await begin.join(settle(), scope)

    def _at_work(self) -> AbstractContextManager[None]:
        """Count a turn as in flight, so that aclose() waits for it."""
        self._check_open()
        return self._work.turn()


def _closed() -> LoopClosedError:
    return LoopClosedError("this loop was closed with aclose(): make another StatefulAgentLoop on the same DSN")
