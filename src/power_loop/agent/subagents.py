"""Runs sub-agents: each a session below its parent's, driven with a part of what the parent has."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any

from power_loop.agent.config import LoopConfig
from power_loop.contracts.agent_spec import AgentLifecycle, AgentSpec
from power_loop.contracts.cancellation import CancellationToken
from power_loop.contracts.errors import (
    AgentGrantError,
    AgentLimitError,
    AgentSpecError,
    HookError,
    LeaseLostError,
    PowerLoopError,
    SessionBusyError,
    SessionNotFoundError,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
    StoreUnavailableError,
    ToolError,
)
from power_loop.contracts.events import AgentFinished, AgentStarted, SessionClosed, SessionCreated
from power_loop.contracts.hooks import SubagentEndContext, SubagentStartContext, Veto
from power_loop.contracts.limits import SendLimits
from power_loop.contracts.llm import LLMService
from power_loop.contracts.messages import Message, Role, content_of
from power_loop.contracts.records import NewChild, NewSend, SendRecord
from power_loop.contracts.results import StatefulResult
from power_loop.contracts.session_ids import is_run_id
from power_loop.contracts.states import SendStatus, WaitKind
from power_loop.contracts.tools import ToolOutput, ToolResult, Waiting
from power_loop.core.context import texts
from power_loop.core.turn import begin
from power_loop.core.turn.agent import Agent, policy_of
from power_loop.core.turn.chain import start
from power_loop.core.turn.options import SendOptions, output_schema_of
from power_loop.core.turn.outcome import recorded_result
from power_loop.core.turn.scope import StopCause, TurnScope
from power_loop.core.turn.seat import TurnSeat
from power_loop.core.turn.turn import OpenCall, Turn, TurnKit, id_of_place
from power_loop.tools.registry import ToolRegistry

#: The ids of the sessions of agents begin so: of others it is not asked what their agent may do.
AGENT_PREFIX = "agt"
#: The name of the tool with which a model gives work to sub-agents.
SPAWN_AGENT = "spawn_agent"

# How often a sub-agent is taken up that another process took over, or whose database was away for a moment.
_TRIES = 3
# With these codes a send failed because its database was away.
_PASSING = frozenset({StoreError.code, StoreUnavailableError.code, StoreFullError.code, StoreReadOnlyError.code})
_UNENDED = frozenset({SendStatus.RUNNING, SendStatus.WAITING_FOR_INPUT})

#: Gives a seat on the session of an agent: with the tools that there are for it, its stop switch, and who pays.
SeatOf = Callable[[str, ToolRegistry | None, TurnScope, Turn | None], Coroutine[Any, Any, TurnSeat]]


def is_agent_id(session_id: str) -> bool:
    """Tell whether a session may be an agent's."""
    return session_id.startswith(f"{AGENT_PREFIX}_")


def agent_id_of(parent_id: str, key: str) -> str:
    """Return the id of the session that a call's work is done in: the same however often the call runs."""
    return id_of_place(AGENT_PREFIX, f"{parent_id}|{key}")


# ---- what an agent has ----


def granted(
    spec: AgentSpec,
    config: LoopConfig,
    *,
    above: tuple[str, ...],
    parent: Agent | None,
    tools: ToolRegistry,
    limits: SendLimits,
    key: str | None,
) -> Agent:
    """Return what the agent of a spec may do below `parent`, whose tools and limits are these.

    Raises `agent.not_granted` for what the parent does not have, `agent.limit` for a tree that is too deep.
    """
    depth = len(above)
    if depth > config.max_agent_depth:
        raise AgentLimitError(
            f"session {above[-1]!r} stands {depth - 1} below the top of its tree, and max_agent_depth is"
            f" {config.max_agent_depth}: do the work yourself, or raise LoopConfig.max_agent_depth",
            limit="max_agent_depth",
        )
    names = tools.names if spec.tools is None else tuple(spec.tools)
    unknown = [name for name in names if name not in tools]
    if unknown:
        raise AgentGrantError(
            f"the sub-agent {spec.name!r} cannot have {', '.join(map(repr, unknown))}: its parent has"
            f" {', '.join(map(repr, tools.names)) or 'no tools'}"
        )
    if depth == config.max_agent_depth:
        names = tuple(name for name in names if name != SPAWN_AGENT)
    model = spec.model or (None if parent is None else parent.model)
    _check_model(spec.name, model, config)
    own = policy_of(spec)
    above_policies = () if parent is None else parent.policies
    return Agent(
        name=spec.name,
        above=above,
        tools=names,
        model=model,
        limits=limits if spec.limits is None else spec.limits.within(limits),
        policies=above_policies if own is None else (own, *above_policies),
        lifecycle=spec.lifecycle,
        output_schema=output_schema_of(spec.output_schema),
        key=key,
        budget=spec.budget,
    )


def _check_model(name: str, model: str | None, config: LoopConfig) -> None:
    if model is not None and model not in config.models:
        raise AgentGrantError(
            f"the sub-agent {name!r} cannot have the model {model!r}: LoopConfig.models has"
            f" {', '.join(map(repr, config.models)) or 'none'}"
        )


def kit_of(kit: TurnKit, agent: Agent, config: LoopConfig) -> TurnKit:
    """Return what a loop gives to the turns of an agent. Raises `agent.not_granted` for a model that is not here."""
    _check_model(agent.name, agent.model, config)
    return replace(
        kit,
        llm=kit.llm if agent.model is None else config.models[agent.model],
        limits=agent.limits,
        permissions=agent.permissions(kit.permissions),
    )


def tools_of(tools: ToolRegistry, agent: Agent) -> ToolRegistry:
    """Return those of the tools that there are which an agent has; a call of another is answered with that."""
    return tools.subset([name for name in agent.tools if name in tools])


def new_session(agent: Agent, session_id: str, spec: AgentSpec, **place: Any) -> NewChild:
    """Return the session that is to be made for an agent; `place` is its place below a parent's send."""
    above = agent.above
    return NewChild(
        session_id,
        spec.system_prompt,
        agent.to_json(),
        {"agent": agent.name},
        parent_id=above[-1] if above else None,
        root_id=above[0] if above else None,
        depth=len(above),
        **place,
    )


# ---- how it runs ----


class Agents:
    """Runs the sub-agents of one turn; satisfies `AgentRunner`."""

    __slots__ = ("_config", "_end_run", "_kit", "_seat_of", "_wake")

    def __init__(
        self,
        kit: TurnKit,
        config: LoopConfig,
        *,
        seat_of: SeatOf,
        wake: Callable[[str], object],
        end_run: Callable[[str, str], Awaitable[None]],
    ) -> None:
        self._kit = kit
        self._config = config
        self._seat_of = seat_of
        self._wake = wake
        self._end_run = end_run

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
        """Give `input` to a sub-agent and return what its call comes to."""
        if not isinstance(spec, AgentSpec):
            raise AgentSpecError(f"spec is {spec!r:.200}: give an AgentSpec")
        key = call.idempotency_key
        message = Message(Role.USER, content_of(input))
        agent_id = agent_id_of(turn.session_id, key) if session_id is None else session_id
        if session_id is None:
            most = self._config.max_children
            agent, known = await self._new_agent(turn, call, spec, agent_id, input, max_children=most)
        else:
            agent, known = await self._linked_agent(turn, call, spec, agent_id, input)
        turn.announce(AgentStarted(call.call_id, agent.name, agent_id, known is not None))
        # What the parent's budget does not pay for, nobody does.
        payer = turn.purse.payers[0] if turn.purse is not None else None
        options = SendOptions(output_schema=agent.output_schema, budget=agent.budget, payer=payer)
        if agent.lifecycle is AgentLifecycle.DETACHED:
            seat = await self._seat_of(agent_id, turn.own_tools, TurnScope(), None)
            await begin.leave(seat, NewSend(message, key, options.to_json(), key))
            return texts.agent_works(agent.name, agent_id)
        result = await self._result(turn, agent_id, message, options, key, stopped)
        if result.status is not SendStatus.WAITING_FOR_INPUT and agent.lifecycle is AgentLifecycle.EPHEMERAL:
            await self._close(turn, agent_id)
        turn.announce(AgentFinished(call.call_id, agent.name, agent_id, result))
        ended = turn.context_of(SubagentEndContext, call_id=call.call_id, spec=spec, result=result)
        await self._kit.hooks.tell(ended, turn.announce)
        return _output(agent, result)

    async def run_leaf(
        self,
        turn: Turn,
        call: OpenCall,
        spec: AgentSpec,
        input: str,
        *,
        stopped: CancellationToken,
        caller: LLMService | None = None,
    ) -> StatefulResult:
        """Give `input` to a sub-agent of a workflow's run and return what it came to; what it came to before is
        returned as it is. Its session stays open: the move that records the outcome closes it.

        A run bounds its leaves itself, so that `max_children` does not count them. A `caller` stands where the model
        stands and takes nothing: budgets pay for its tool calls alone. Raises what kept the sub-agent from ending.
        """
        key = call.idempotency_key
        message = Message(Role.USER, content_of(input))
        agent_id = agent_id_of(turn.session_id, key)
        # Nobody but the run hears of its end.
        spec = replace(spec, lifecycle=AgentLifecycle.EPHEMERAL)
        agent, known = await self._new_agent(turn, call, spec, agent_id, input, max_children=None)
        turn.announce(AgentStarted(call.call_id, agent.name, agent_id, known is not None))
        if known is not None and known.status not in _UNENDED and not _was_cut_off(known):
            result = await recorded_result(self._kit.store, known)
        else:
            payer = turn.purse.payers[0] if turn.purse is not None else None
            options = SendOptions(output_schema=agent.output_schema, budget=agent.budget, payer=payer)
            try:
                result = await self._result(turn, agent_id, message, options, key, stopped, caller)
            except ToolError as error:
                raise error.__cause__ or error from None
        turn.announce(AgentFinished(call.call_id, agent.name, agent_id, result))
        ended = turn.context_of(SubagentEndContext, call_id=call.call_id, spec=spec, result=result)
        await self._kit.hooks.tell(ended, turn.announce)
        return result

    async def end(self, turn: Turn, reason: str) -> None:
        """End what sub-agents of the send still have to do."""
        for agent_id, index in tuple(turn.children):
            if is_run_id(agent_id):
                # One that cannot be ended here keeps no session from its rest.
                with contextlib.suppress(PowerLoopError):
                    await self._end_run(agent_id, reason)
            else:
                await self.end_one(agent_id, index, reason)

    async def end_of(self, call: OpenCall, reason: str) -> None:
        """End what the sub-agent that a call waits for still has to do for it."""
        agent_id = _asked_agent(call)
        with contextlib.suppress(SessionNotFoundError):
            sent = await self._kit.store.get_send(agent_id, request_id=call.idempotency_key)
            if sent is not None:
                await self.end_one(agent_id, sent.index, reason)

    async def end_one(self, agent_id: str, index: int, reason: str) -> None:
        """End what a sub-agent still has to do in a send, if there is anything."""
        store = self._kit.store
        with contextlib.suppress(SessionNotFoundError):
            sent = await store.get_send(agent_id, index=index)
            if sent is None or sent.status not in _UNENDED:
                return
            self._kit.desk.cancel(agent_id, reason)
            try:
                seat = await self._seat_of(agent_id, None, TurnScope(), None)
                await begin.settle(seat, reason)
            except SessionBusyError:
                await store.ask_to_cancel(agent_id, reason=reason)

    async def is_awake(self, call: OpenCall) -> bool:
        """Tell whether a call that waits for a sub-agent may go on, because that waits for nobody any more."""
        agent_id, store = _asked_agent(call), self._kit.store
        try:
            sent = await store.get_send(agent_id, request_id=call.idempotency_key)
            if sent is None or sent.status is not SendStatus.WAITING_FOR_INPUT:
                return True
            calls = await store.get_calls(agent_id)
        except SessionNotFoundError:
            return True
        waiting = [one for one in calls if one.wait_kind is WaitKind.AGENT and one.result_seq is None]
        return any([await self.is_awake(OpenCall.of(one)) for one in waiting])

    def wake(self, session_id: str) -> None:
        """See to it that the inbox of a session is driven, to which a sub-agent reported."""
        self._wake(session_id)

    # ---- before it runs ----

    async def _new_agent(
        self,
        turn: Turn,
        call: OpenCall,
        spec: AgentSpec,
        agent_id: str,
        input: str,
        *,
        max_children: int | None,
    ) -> tuple[Agent, SendRecord | None]:
        """Return the agent of a call, with its session made, and what it was given if it was given its work already."""
        store, key = self._kit.store, call.idempotency_key
        try:
            head = await store.get_session(agent_id)
        except SessionNotFoundError:
            limits = turn.limits if spec.lifecycle is not AgentLifecycle.DETACHED else _limits_left(turn)
            agent = granted(
                spec,
                self._config,
                above=turn.path,
                parent=turn.agent,
                tools=turn.own_tools,
                limits=limits,
                key=key,
            )
            await self._ask(turn, call, spec, agent_id, input)
            place = {"parent_send": turn.send_index, "max_children": max_children}
            await store.create_child(new_session(agent, agent_id, spec, **place), lease=turn.lease)
            self._kit.bus.emit(SessionCreated(), session_id=agent_id, agent_path=(*turn.path, agent_id))
            return agent, None
        if head.agent is None:
            raise AgentGrantError(f"session {agent_id!r} is no agent's: a call cannot give it work")
        return Agent.from_json(head.agent), await store.get_send(agent_id, request_id=key)

    async def _linked_agent(
        self, turn: Turn, call: OpenCall, spec: AgentSpec, agent_id: str, input: str
    ) -> tuple[Agent, SendRecord | None]:
        """Return an agent that its parent goes on talking to, and what it was given if it was given this already."""
        store = self._kit.store
        head = await store.get_session(agent_id)
        agent = None if head.agent is None else Agent.from_json(head.agent)
        if agent is None or head.parent_id != turn.session_id or agent.lifecycle is not AgentLifecycle.LINKED:
            raise AgentGrantError(
                f"session {agent_id!r} is no linked sub-agent of session {turn.session_id!r}: only such a one can be"
                " spoken to again"
            )
        known = await store.get_send(agent_id, request_id=call.idempotency_key)
        if known is None:
            await self._ask(turn, call, spec, agent_id, input)
        return agent, known

    async def _ask(self, turn: Turn, call: OpenCall, spec: AgentSpec, agent_id: str, input: str) -> None:
        """Ask the hooks whether a sub-agent may begin. Raises `tool.failed` where one vetoes it, or cannot tell."""
        context = turn.context_of(
            SubagentStartContext, call_id=call.call_id, spec=spec, agent_session_id=agent_id, input=input
        )
        try:
            decision = await self._kit.hooks.ask(context)
        except HookError as error:
            turn.hook_failed(context.point, error.hook, error.__cause__ or error)
            raise ToolError(texts.denied(call.name, texts.CHECK_FAILED)) from error
        if isinstance(decision, Veto):
            raise ToolError(texts.denied(call.name, decision.reason))

    # ---- while it runs ----

    async def _result(
        self,
        turn: Turn,
        agent_id: str,
        message: Message,
        options: SendOptions,
        key: str,
        stopped: CancellationToken,
        caller: LLMService | None = None,
    ) -> StatefulResult:
        """Return what a sub-agent comes to, whoever drives it: its send is begun, taken up, waited for or read."""
        store = self._kit.store
        for attempt in range(1, _TRIES + 1):
            # What is left with its parent at the end of an event loop is left as it is.
            scope = TurnScope(is_background=turn.scope.is_background)

            async def work(scope: TurnScope = scope) -> StatefulResult:
                seat = await self._seat_of(agent_id, turn.own_tools, scope, turn)
                if caller is not None:
                    kit = replace(seat.kit, llm=caller, pays_model=False, budget=None, memory=None, compaction=None)
                    seat = replace(seat, kit=kit)
                content: Any = message.parts
                return await begin.send(seat, content, options=options, request_id=key, heals=False, digest=key)

            try:
                return await self._joined(work(), scope, turn, agent_id, stopped)
            except (LeaseLostError, StoreError):
                if attempt == _TRIES:
                    raise
            except PowerLoopError as error:
                sent = await store.get_send(agent_id, request_id=key)
                if sent is None or sent.status in _UNENDED:
                    raise ToolError(error.message) from error
                return await recorded_result(store, sent)
        raise AssertionError  # the last try returns or raises

    async def _joined(
        self,
        work: Coroutine[Any, Any, StatefulResult],
        scope: TurnScope,
        turn: Turn,
        agent_id: str,
        stopped: CancellationToken,
    ) -> StatefulResult:
        """Run the turn of a sub-agent in a task of its own; it comes to rest before its call does."""
        task = start(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.done():
                _stop(scope, turn.scope, stopped)
                while not task.done():
                    with contextlib.suppress(asyncio.CancelledError):
                        await asyncio.wait((task,))
            if not task.cancelled() and task.exception() is None and not task.result().send_index:
                # Somebody else drives it, who has to hear of it too.
                with contextlib.suppress(PowerLoopError):
                    await self._kit.store.ask_to_cancel(agent_id, reason=scope.reason)
            raise
        finally:
            scope.close()

    async def _close(self, turn: Turn, agent_id: str) -> None:
        """Close the session of an agent that has done its work."""
        if await self._kit.store.close_session(agent_id):
            self._kit.bus.emit(SessionClosed(), session_id=agent_id, agent_path=(*turn.path, agent_id))
            for resource in turn.own_tools.resources:
                await resource.end_session(agent_id)


def _stop(scope: TurnScope, parent: TurnScope, stopped: CancellationToken) -> None:
    """Stop the turn of a sub-agent as its parent's was; where that failed or is left, it is left as well."""
    if parent.cause is StopCause.OUT_OF_TIME:
        scope.stop(StopCause.OUT_OF_TIME, parent.reason)
    elif parent.cause is StopCause.CANCELLED and not parent.is_left:
        scope.stop(StopCause.CANCELLED, parent.reason)
    elif parent.cause is None and not (stopped.is_cancelled and stopped.reason == "stopped"):
        scope.stop(StopCause.CANCELLED, stopped.reason or "the call that waits for it was cancelled")
    else:
        scope.leave("its parent's turn goes on elsewhere")


def _limits_left(turn: Turn) -> SendLimits:
    """Return what a turn has left, for an agent that works on behind it."""
    limits = turn.limits
    return replace(
        limits,
        max_tokens=None if limits.max_tokens is None else max(turn.tokens_left, 1),
        max_tool_calls=None if limits.max_tool_calls is None else max(turn.tool_calls_left, 0),
    )


def _was_cut_off(sent: SendRecord) -> bool:
    """Tell whether a send failed because its database was away for a while, so that it goes on."""
    code = str((sent.result or {}).get("reason", "")).partition(":")[0]
    return sent.status is SendStatus.FAILED and code in _PASSING


def _asked_agent(call: OpenCall) -> Any:
    """Return the session of the sub-agent that a call waits for."""
    asked: Any = (call.wait_data or {}).get("data") or {}
    return asked.get("session_id")


def _output(agent: Agent, result: StatefulResult) -> ToolOutput:
    """Return what a call gets of a sub-agent that came to rest."""
    if result.status is SendStatus.WAITING_FOR_INPUT:
        pending = [
            {
                "call_id": one.call_id,
                "name": one.name,
                "wait_kind": None if one.wait_kind is None else one.wait_kind.value,
                "prompt": one.prompt,
            }
            for one in result.pending
        ]
        data = {"session_id": result.session_id, "agent": agent.name, "pending": pending}
        return Waiting(texts.agent_waits(agent.name), WaitKind.AGENT, data=data)
    is_linked = agent.lifecycle is AgentLifecycle.LINKED
    text = texts.agent_answer(
        agent.name,
        result.final_text,
        status=result.status.value,
        reason=result.reason,
        linked_id=result.session_id if is_linked else None,
    )
    return ToolResult(text, is_error=result.status is not SendStatus.COMPLETED)
