"""Runs the open calls of a turn: ask, start, run side by side, and commit each outcome as it comes."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from power_loop.contracts.errors import HookError
from power_loop.contracts.events import (
    ToolBatchFinished,
    ToolBatchStarted,
    ToolCallFinished,
    ToolCallStarted,
    ToolCallWaiting,
)
from power_loop.contracts.frozen import frozen
from power_loop.contracts.hooks import (
    Decision,
    HookPoint,
    Park,
    PlannedCall,
    RequireApproval,
    Rewrite,
    Skip,
    ToolAfterContext,
    ToolBeforeContext,
    ToolErrorContext,
    ToolsAfterContext,
    ToolsBeforeContext,
    Veto,
)
from power_loop.contracts.messages import Message, clean_text, tool_message
from power_loop.contracts.records import CallStep
from power_loop.contracts.states import CallState, Effect, WaitKind
from power_loop.contracts.tools import ToolDefinition, ToolProbe, ToolResult, Waiting
from power_loop.core.context import texts
from power_loop.core.turn.chain import start
from power_loop.core.turn.scope import TurnStopped
from power_loop.core.turn.tool_context import CallContext
from power_loop.core.turn.tool_run import HandlerRun, Outcome, collect
from power_loop.core.turn.turn import OpenCall, Turn, json_object_of, step_of
from power_loop.tools.output import Output, error_output, output_of
from power_loop.tools.prepared import PreparedTool, is_async_handler

# Calls that end so soon behind the first share its transaction: it costs about as much as three of them.
_NEIGHBOURS_S = 0.002


@dataclass(slots=True)
class _Ready:
    """Is a call that may run: its tool, its checked arguments."""

    call: OpenCall
    prepared: PreparedTool
    arguments: dict[str, Any]
    began_s: float = 0.0

    def planned(self) -> PlannedCall:
        call = self.call
        return PlannedCall(
            call.call_id,
            self.prepared.definition,
            self.arguments,
            call.idempotency_key,
            max(call.attempt, 1),
            call.is_approved,
        )


@frozen
class _Settled:
    """Is a step that is ready to be committed, and what is announced behind it.

    `has_run` marks the outcome of a handler, which is made durable before another one begins.
    """

    call: OpenCall
    step: CallStep
    waiting: Waiting | None = None
    duration_s: float = 0.0
    has_run: bool = False


class _NoAnswer(Exception):  # noqa: N818  (a signal of this room to itself, not an error)
    """Says that a probe cannot tell what became of its call."""


def starts_with_reply(turn: Turn, call: OpenCall) -> bool:
    """Tell whether a call is started in the very transaction that stores the reply which asks for it.

    So it is where nothing can come between: no hook looks at calls, and no approval, no answer from outside and no turn
    of its own is waited for.
    """
    hooks = turn.kit.hooks
    prepared = turn.tools.prepared(call.name)
    return (
        prepared is not None
        and prepared.definition.effect is not Effect.READ
        and prepared.definition.handler is not None
        and prepared.definition.parallel
        and not prepared.definition.requires_approval
        and not hooks.has(HookPoint.TOOL_BEFORE)
        and not hooks.has(HookPoint.TOOLS_BEFORE)
    )


async def run_batch(turn: Turn) -> None:
    """Bring every open call that waits for nobody to an outcome or to waiting.

    Raises `TurnStopped` with the finished ones committed.
    """
    await _Batch(turn).run()


class _Batch:
    """Is the open calls of a turn on their way."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._kit = turn.kit
        self.calls = [call for call in turn.calls if call.state is not CallState.WAITING]
        self._messages: list[Message] = []

    async def run(self) -> None:
        turn = self._turn
        ids = tuple(call.call_id for call in self.calls)
        turn.announce(ToolBatchStarted(ids))
        settled: list[_Settled] = []
        ready: list[_Ready] = []
        try:
            for call in self.calls:
                one = await self._prepare(call)
                if isinstance(one, _Ready):
                    ready.append(one)
                else:
                    settled.append(one)
            ready, vetoed = await self._ask_for_all(ready)
        except TurnStopped:
            if settled:
                await self._commit(settled)
            raise
        settled += vetoed
        planned = tuple(one.planned() for one in ready)
        for group in _groups(ready):
            settled = await self._run_group(group, settled)
        if settled:
            await self._commit(settled)
        turn.announce(ToolBatchFinished(ids))
        await turn.tell(ToolsAfterContext, calls=planned, messages=tuple(self._messages))

    # ---- before they run ----

    async def _prepare(self, call: OpenCall) -> _Ready | _Settled:
        """Look the tool up, read the arguments, and settle what a died process left started."""
        turn = self._turn
        prepared = turn.tools.prepared(call.name)
        if call.is_stale and call.effect is Effect.ONCE:
            return await self._settle_unknown(call, prepared)
        if prepared is None:
            return self._fail(call, texts.unknown_tool(turn.tools.unknown_name_text(call.name)))
        parsed = prepared.parse(call.arguments)
        if parsed.arguments is None:
            return self._fail(call, texts.invalid_arguments(call.name, parsed.problems))
        return _Ready(call, prepared, parsed.arguments)

    async def _settle_unknown(self, call: OpenCall, prepared: PreparedTool | None) -> _Settled:
        """Ask the tool's probe what became of a call whose process died; without an answer the outcome is unknown."""
        definition = None if prepared is None else prepared.definition
        if definition is not None and definition.probe is not None:
            try:
                given = await self._probed(definition.probe, call.idempotency_key, definition.timeout_s)
            except _NoAnswer:
                pass
            else:
                if given is None:
                    return self._fail(call, texts.had_no_effect(call.name))
                output = output_of(given)
                if isinstance(output, Output):
                    state = CallState.FAILED if output.is_error else CallState.SUCCEEDED
                    return self._settle(call, state, output, definition)
        return self._settle(call, CallState.UNKNOWN, error_output(texts.unknown_outcome(call.name)))

    async def _probed(self, probe: ToolProbe, key: str, timeout_s: float | None) -> Any:
        """Return what a probe says within the tool's time limit. Raises `_NoAnswer`, whatever the probe does instead.

        A plain function is run in a thread, like a handler.
        """

        async def ask() -> Any:
            given = probe(key) if is_async_handler(probe) else await self._kit.desk.threads.run(partial(probe, key))
            return await given if inspect.isawaitable(given) else given

        asking = start(ask())
        # One that is left behind may still fail.
        asking.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            await self._turn.scope.interruptible(asyncio.wait((asking,), timeout=timeout_s))
            if not asking.done() or asking.cancelled() or asking.exception() is not None:
                raise _NoAnswer
            return asking.result()
        finally:
            if not asking.done():
                asking.cancel()

    async def _ask_for_all(self, ready: list[_Ready]) -> tuple[list[_Ready], list[_Settled]]:
        turn, hooks = self._turn, self._kit.hooks
        if not ready or not hooks.has(HookPoint.TOOLS_BEFORE):
            return ready, []
        context = turn.context_of(ToolsBeforeContext, calls=tuple(one.planned() for one in ready))
        try:
            decision = (await turn.consult(context)).decision
        except HookError:
            decision = Veto(texts.CHECK_FAILED)
        if isinstance(decision, Veto):
            return [], [self._fail(one.call, texts.denied(one.call.name, decision.reason)) for one in ready]
        return ready, []

    async def _ask(self, one: _Ready) -> _Settled | None:
        """Ask the hooks and the tool's own rule whether a call may run; None if it may."""
        call, definition = one.call, one.prepared.definition
        decision, arguments = await self._consult(one)
        if arguments is not one.arguments:
            refused = self._rewrite(one, arguments)
            if refused is not None:
                return refused
        if isinstance(decision, Veto):
            return self._fail(call, texts.denied(call.name, decision.reason))
        if isinstance(decision, Skip):
            return self._settle_output(call, output_of(decision.result))
        if isinstance(decision, Park):
            return self._park(call, Waiting(decision.prompt, decision.kind, decision.answer_schema, decision.data))
        if not call.is_approved and (isinstance(decision, RequireApproval) or definition.requires_approval):
            asked = decision if isinstance(decision, RequireApproval) else RequireApproval(f"Run {call.name}?")
            return self._park(call, Waiting(asked.prompt, WaitKind.APPROVAL, data=asked.data))
        if definition.handler is None:
            return self._park(call, Waiting(f"The result of {call.name}.", WaitKind.RESULT))
        return None

    async def _consult(self, one: _Ready) -> tuple[Decision | None, Mapping[str, Any]]:
        """Return what the hooks decide about a call, and its arguments as they leave them."""
        turn, hooks = self._turn, self._kit.hooks
        if not hooks.has(HookPoint.TOOL_BEFORE):
            return None, one.arguments
        context: ToolBeforeContext = turn.context_of(ToolBeforeContext, call=one.planned())
        try:
            consulted = await turn.consult(context)
        except HookError:
            return Veto(texts.CHECK_FAILED), one.arguments
        return consulted.decision, consulted.context.call.arguments

    def _rewrite(self, one: _Ready, arguments: Mapping[str, Any]) -> _Settled | None:
        try:
            text, changed = json_object_of(arguments)
        except ValueError as error:
            self._turn.hook_failed(HookPoint.TOOL_BEFORE, "arguments", error)
            return self._fail(one.call, texts.denied(one.call.name, texts.CHECK_FAILED))
        problems = one.prepared.problems(changed)
        if problems:
            return self._fail(one.call, texts.invalid_arguments(one.call.name, problems))
        if changed != one.arguments:
            # An approval was given for other arguments than these.
            one.call.is_approved = False
            one.call.arguments = text
            one.arguments = changed
        return None

    # ---- while they run ----

    async def _run_group(self, group: Sequence[_Ready], settled: list[_Settled]) -> list[_Settled]:
        """Run calls side by side; return what is settled and not committed yet."""
        turn = self._turn
        running: dict[HandlerRun, _Ready] = {}
        try:
            if self._kit.hooks.has(HookPoint.TOOL_BEFORE):
                settled = await self._keep(settled)  # nobody knows how long a hook takes
            queue: list[_Ready] = []
            for one in group:
                refused = await self._ask(one)
                if refused is None:
                    queue.insert(0, one)
                else:
                    settled.append(refused)
            while queue or running:
                turn.scope.check()
                room = self._kit.max_parallel_tools - len(running)
                begun = [queue.pop() for _ in range(min(room, len(queue)))]
                starts = [step for one in begun if (step := self._start(one)) is not None]
                # What finishes while this is on its way to the disk goes with the next one.
                settled = await self._keep(settled, starts)
                for one in begun:
                    running[self._launch(one)] = one
                ends = {run.ended: run for run in running}
                await turn.scope.interruptible(asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED))
                if not all(ended.done() for ended in ends):
                    await turn.scope.interruptible(asyncio.wait(ends, timeout=_NEIGHBOURS_S))
                for ended, run in ends.items():
                    if ended.done():
                        settled.append(await self._outcome(running.pop(run), ended.result()))
        except TurnStopped:
            for run, outcome in (await collect(list(running))).items():
                settled.append(await self._outcome(running[run], outcome))
            if settled:
                await self._commit(settled)
            raise
        except BaseException:
            await collect(list(running))
            raise
        return settled

    def _start(self, one: _Ready) -> CallStep | None:
        """Count an attempt; return the step that makes it durable, where the call has an effect and is not started
        already."""
        call = one.call
        was_started = call.state is CallState.STARTED and not call.is_stale
        if was_started:
            return None
        call.attempt += 1
        if call.effect is Effect.READ:
            return None
        call.state = CallState.STARTED
        call.is_stale = False
        return step_of(call, CallState.STARTED, attempt=call.attempt)

    def _launch(self, one: _Ready) -> HandlerRun:
        turn, call, definition = self._turn, one.call, one.prepared.definition
        one.began_s = self._kit.clock.monotonic_s()
        deadline_s = None if definition.timeout_s is None else one.began_s + definition.timeout_s
        context = CallContext(turn, call, deadline_s=deadline_s)
        turn.announce(ToolCallStarted(call.call_id, call.name, one.arguments, call.attempt))
        assert definition.handler is not None
        return HandlerRun(
            definition.handler,
            lambda: one.prepared.call_arguments(one.arguments, context),
            name=call.name,
            is_async=one.prepared.is_async,
            timeout_s=definition.timeout_s,
            token=context.cancellation,
            threads=self._kit.desk.threads,
        )

    async def _outcome(self, one: _Ready, outcome: Outcome) -> _Settled:
        """Return what an outcome settles, after the hooks had their say about the result."""
        duration_s = self._kit.clock.monotonic_s() - one.began_s
        if outcome.state is not CallState.ABORTED:
            outcome = self._held_to_state(one, outcome)
        if outcome.waiting is not None:
            return replace(self._park(one.call, outcome.waiting), has_run=True)
        assert outcome.output is not None
        output = outcome.output
        if outcome.state is not CallState.ABORTED:
            output = await self._rewritten(one, output, outcome.error)
        settled = self._settle(one.call, outcome.state, output, one.prepared.definition, duration_s)
        return replace(settled, has_run=True)

    def _held_to_state(self, one: _Ready, outcome: Outcome) -> Outcome:
        """Return the outcome of a call; an error where it left something in its state that cannot be kept."""
        state = self._turn.tool_state
        dropped = state.settle(self._turn.window.tool_state) if state else ()
        if not dropped:
            return outcome
        text = texts.state_not_kept(one.call.name, dropped)
        told = error_output(text)
        if outcome.output is not None:
            told = outcome.output._replace(content=(*outcome.output.content, *told.content), is_error=True)
        return Outcome(CallState.FAILED, told, error=outcome.error or TypeError(text))

    async def _rewritten(self, one: _Ready, output: Output, error: BaseException | None) -> Output:
        turn, hooks = self._turn, self._kit.hooks
        kind: Any = ToolAfterContext if error is None else ToolErrorContext
        if not hooks.has(kind.point):
            return output
        facts: dict[str, Any] = {"call": one.planned(), "result": ToolResult(output.content, output.is_error)}
        if error is not None:
            facts["error"] = error
        try:
            # The tool has run: stopping the turn does not take its outcome away.
            decision = await hooks.ask(turn.context_of(kind, **facts), wait=turn.scope.patiently)
        except HookError as failure:
            turn.hook_failed(kind.point, failure.hook, failure.__cause__ or failure)
            return output
        if isinstance(decision, Rewrite) and decision.result is not None:
            rewritten = output_of(decision.result)
            if isinstance(rewritten, Output):
                return rewritten
        return output

    # ---- after ----

    def _fail(self, call: OpenCall, text: str) -> _Settled:
        return self._settle(call, CallState.FAILED, error_output(text))

    def _settle_output(self, call: OpenCall, output: Output | Waiting) -> _Settled:
        if isinstance(output, Waiting):
            return self._park(call, output)
        return self._settle(call, CallState.FAILED if output.is_error else CallState.SUCCEEDED, output)

    def _settle(
        self,
        call: OpenCall,
        state: CallState,
        output: Output,
        definition: ToolDefinition | None = None,
        duration_s: float = 0.0,
    ) -> _Settled:
        shown = output.content
        if definition is not None:
            shown = output.preview(definition.max_result_chars)
        message = tool_message(call.call_id, shown, is_error=output.is_error)
        whole = output.content if shown is not output.content else None
        return _Settled(call, step_of(call, state, message=message, whole=whole), duration_s=duration_s)

    def _park(self, call: OpenCall, waiting: Waiting) -> _Settled:
        """Let a call wait; what cannot be put to anybody is an error for the model."""
        asked: dict[str, Any] = {}
        if waiting.answer_schema is not None:
            asked["answer_schema"] = waiting.answer_schema
        if waiting.data is not None:
            asked["data"] = waiting.data
        try:
            kind, data, prompt = WaitKind(waiting.kind), json_object_of(asked)[1] or None, clean_text(waiting.prompt)
        except (ValueError, TypeError) as error:
            return self._fail(call, texts.cannot_be_asked(call.name, str(error)))
        call.wait_kind, call.prompt, call.wait_data = kind, prompt, data
        step = step_of(
            call,
            CallState.WAITING,
            # A read that ran has left no trace of it so far.
            attempt=call.attempt or None,
            wait_kind=kind,
            prompt=prompt,
            wait_data=data,
            arguments=call.arguments,
            is_approved=False,
        )
        return _Settled(call, step, waiting=waiting)

    async def _keep(self, settled: list[_Settled], starts: Sequence[CallStep] = ()) -> list[_Settled]:
        """Commit if a call begins, or if there is an outcome of one that ran; return what is not committed yet."""
        if not starts and not any(one.has_run for one in settled):
            return settled
        await self._commit(settled, starts)
        return []

    async def _commit(self, settled: list[_Settled], starts: Sequence[CallStep] = ()) -> None:
        """Make steps durable in one transaction, in the order of the calls, and announce them."""
        turn = self._turn
        settled = sorted(settled, key=lambda one: (one.call.reply_seq, one.call.index))
        state = turn.tool_state.changed(turn.window.tool_state)
        await self._kit.store.advance_calls(
            turn.lease,
            [*(one.step for one in settled), *starts],
            at_seq=turn.window.next_seq,
            send_index=turn.send_index,
            round=turn.round,
            tool_state=state,
        )
        if state is not None:
            turn.window.tool_state = state
        messages = [one.step.message for one in settled if one.step.message is not None]
        self._messages += messages
        for one in settled:
            one.call.state = one.step.state
            if one.waiting is None:
                turn.calls.remove(one.call)
        await turn.note_appended(messages)
        for one in settled:
            self._announce(one)

    def _announce(self, one: _Settled) -> None:
        call, step = one.call, one.step
        if one.waiting is not None:
            self._turn.announce(ToolCallWaiting(call.call_id, call.name, one.waiting.kind.value, one.waiting.prompt))
        elif step.message is not None and step.message.tool_result is not None:
            is_error = step.message.tool_result.is_error
            self._turn.announce(ToolCallFinished(call.call_id, call.name, step.state.value, is_error, one.duration_s))


def _groups(ready: list[_Ready]) -> list[list[_Ready]]:
    """Return the calls in groups that run one after the other; a call that must run alone is a group of its own."""
    groups: list[list[_Ready]] = []
    is_open = False
    for one in ready:
        if one.prepared.definition.parallel and is_open:
            groups[-1].append(one)
        else:
            groups.append([one])
            is_open = one.prepared.definition.parallel
    return groups
