"""Is what a run gives to its leaves: a session below its own, a model that it pays for, and a word when to end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from power_loop.agent.subagents import Agents, agent_id_of
from power_loop.contracts.agent_spec import AgentSpec
from power_loop.contracts.cancellation import CancellationToken
from power_loop.contracts.errors import AgentGrantError, LLMError, OutputError, PowerLoopError, SessionNotFoundError
from power_loop.contracts.events import EventPayload
from power_loop.contracts.hooks import HookPoint, LLMAfterContext, LLMBeforeContext, Rewrite, Skip, Veto
from power_loop.contracts.llm import Emit, LLMRequest, LLMResponse, LLMService, ModelInfo, Usage
from power_loop.contracts.ports import SessionStore
from power_loop.contracts.results import StatefulResult
from power_loop.contracts.states import CallState, Effect, SendStatus
from power_loop.core.turn.lent_model import LentModel, Meter
from power_loop.core.turn.outcome import recorded_result
from power_loop.core.turn.turn import OpenCall, Turn
from power_loop.workflow.executors import LeafError, LeafOutcome, LeafTask

#: How the status of a leaf's send is called where it says why the leaf failed: `send.tokens_exceeded`.
STATUS_CODE = "send.{}"
_NO_FAILURE = (SendStatus.COMPLETED, SendStatus.WAITING_FOR_INPUT)


def transient_codes(root: type[PowerLoopError] = LLMError) -> frozenset[str]:
    """Return the codes of the errors after which another try may go better."""
    own = {root.code} if getattr(root, "retryable", False) else set()
    return frozenset(own.union(*(transient_codes(one) for one in root.__subclasses__())))


#: The codes of errors after which another try may go better.
TRANSIENT = transient_codes()


class RunHost:
    """Is the host of one leaf; satisfies `LeafHost`."""

    __slots__ = ("_agents", "_leaf_id", "_models", "_paid", "_stop", "_turn")

    def __init__(
        self, turn: Turn, key: str, agents: Agents, stop: CancellationToken, models: Mapping[str, LLMService]
    ) -> None:
        self._turn = turn
        self._leaf_id = agent_id_of(turn.session_id, key)
        self._agents = agents
        self._stop = stop
        self._models = models
        self._paid: list[Meter] = []

    @property
    def store(self) -> SessionStore:
        """The store of the run."""
        return self._turn.kit.store

    @property
    def stop(self) -> CancellationToken:
        """Says when the leaf is to end."""
        return self._stop

    @property
    def paid_usage(self) -> Usage:
        """What the leaf took of lent models, which was paid for already."""
        total = Usage()
        for meter in self._paid:
            total = total + meter.usage
        return total

    @property
    def paid_nanos(self) -> int:
        """What that cost."""
        return sum(meter.cost_nanos or 0 for meter in self._paid)

    def announce(self, payload: EventPayload) -> None:
        """Tell the subscribers of the run's loop what happens in the leaf."""
        turn = self._turn
        # Whatever it says of itself, it is no word of the run.
        turn.kit.bus.emit(payload, session_id=self._leaf_id, send_index=1, agent_path=(*turn.path, self._leaf_id))

    @contextlib.contextmanager
    def lend_model(self, spec: AgentSpec) -> Iterator[LLMService]:
        """Lend the model of a spec as long as the block lasts. Raises `agent.not_granted`."""
        turn = self._turn
        name = spec.model or (None if turn.agent is None else turn.agent.model)
        if name is not None and name not in self._models:
            raise AgentGrantError(
                f"the leaf {spec.name!r} cannot have the model {name!r}: LoopConfig.models has"
                f" {', '.join(map(repr, self._models)) or 'none'}"
            )
        meter = Meter()
        self._paid.append(meter)
        try:
            yield _HookedModel(turn, turn.kit.llm if name is None else self._models[name], meter)
        finally:
            meter.is_over = True

    async def run_in_process(self, task: LeafTask) -> LeafOutcome:
        """Run the leaf as a session below the run's, in its store."""
        call = OpenCall(
            0, 0, task.path, "workflow", "", Effect.IDEMPOTENT, CallState.STARTED, task.key, attempt=task.attempt
        )
        result = await self._agents.run_leaf(self._turn, call, task.spec, task.input, stopped=self._stop)
        return outcome_of(result)

    async def recorded(self, task: LeafTask) -> LeafOutcome | None:
        """Return what the store has of a leaf that another process runs; None as long as it has not come to rest."""
        turn, store = self._turn, self.store
        leaf_id = agent_id_of(turn.session_id, task.key)
        try:
            sent = await store.get_send(leaf_id, request_id=task.key)
        except SessionNotFoundError:
            return None  # nobody has begun it
        if sent is None or sent.status is SendStatus.RUNNING:
            return None
        for one in await store.get_children_spending(turn.session_id, turn.send_index):
            if one.session_id == leaf_id:
                turn.children[leaf_id, one.send_index] = one
        return outcome_of(await recorded_result(store, sent))

    async def give_up(self, task: LeafTask, reason: str) -> bool:
        """Ask another process to stop a leaf, unless somebody else drives the run by now; False if none drives it."""
        turn = self._turn
        head = await self.store.get_session(turn.session_id)
        if (head.owner, head.epoch) != (turn.lease.owner, turn.lease.epoch):
            return False
        try:
            leaf = await self.store.ask_to_cancel(agent_id_of(turn.session_id, task.key), reason=reason)
        except SessionNotFoundError:
            return False
        return leaf.owner is not None


class _HookedModel:
    """Is a lent model whose calls pass the hooks of the run's loop."""

    def __init__(self, turn: Turn, llm: LLMService, meter: Meter) -> None:
        self._turn = turn
        self._lent = LentModel(turn, llm, meter)

    @property
    def info(self) -> ModelInfo:
        """What the model is."""
        return self._lent.info

    async def generate(self, request: LLMRequest, emit: Emit) -> LLMResponse:
        """Return a reply. Raises `llm.failed` where a hook vetoes the call, and what a lent model raises."""
        turn, hooks = self._turn, self._turn.kit.hooks
        if hooks.has(HookPoint.LLM_BEFORE):
            before: LLMBeforeContext = turn.context_of(LLMBeforeContext, request=request)
            consulted = await hooks.consult(before)
            self._refuse_veto(consulted.decision)
            if isinstance(consulted.decision, Skip) and consulted.decision.response is not None:
                return consulted.decision.response
            request = consulted.context.request
        response = await self._lent.generate(request, emit)
        if hooks.has(HookPoint.LLM_AFTER):
            after: LLMAfterContext = turn.context_of(LLMAfterContext, request=request, response=response)
            decision = (await hooks.consult(after)).decision
            self._refuse_veto(decision)
            if isinstance(decision, Rewrite) and decision.response is not None:
                return decision.response
        return response

    def _refuse_veto(self, decision: Any) -> None:
        if isinstance(decision, Veto):
            raise LLMError(f"a hook forbids this model call: {decision.reason}", model=self.info.model)


def outcome_of(result: StatefulResult) -> LeafOutcome:
    """Return the outcome of a leaf whose send stands in the run's store."""
    error = None
    if result.status not in _NO_FAILURE:
        error = _error_of(result)
    return LeafOutcome(
        result.status,
        result.final_text,
        result.output,
        result.usage,
        result.cost,
        error,
        result.session_id,
        is_transient=error is not None and error.code in TRANSIENT,
    )


def _error_of(result: StatefulResult) -> LeafError:
    reason = result.reason or f"the agent's send ended as {result.status.value}"
    if result.status is SendStatus.OUTPUT_INVALID:
        return LeafError(OutputError.code, reason)
    code, separator, message = reason.partition(": ")
    if result.status is SendStatus.FAILED and separator and " " not in code:
        return LeafError(code, message)
    return LeafError(STATUS_CODE.format(result.status.value), reason)
