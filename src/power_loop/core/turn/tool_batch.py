"""Runs the open calls of a turn: ask, start, run side by side, and commit each outcome as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from power_loop.contracts.errors import HookError, ToolError
from power_loop.contracts.events import (
    ToolBatchFinished,
    ToolBatchStarted,
    ToolCallFinished,
    ToolCallStarted,
    ToolCallWaiting,
)
from power_loop.contracts.hooks import (
    HookPoint,
    Rewrite,
    ToolAfterContext,
    ToolErrorContext,
    ToolsAfterContext,
)
from power_loop.contracts.messages import Message
from power_loop.contracts.ports import Signalled
from power_loop.contracts.records import CallStep, EffectFailure, Lease
from power_loop.contracts.states import LASTING_EFFECTS, CallState
from power_loop.contracts.tools import InTransaction, ToolBody, ToolResult, Waiting
from power_loop.core.context import texts
from power_loop.core.turn.asking import ask, ask_for_all
from power_loop.core.turn.noted_timers import NotedTimers
from power_loop.core.turn.points import pass_point
from power_loop.core.turn.scope import TurnStopped
from power_loop.core.turn.settled import Ready, Settled, park, refuse, settle
from power_loop.core.turn.tool_context import CallContext
from power_loop.core.turn.tool_run import HandlerRun, Outcome, collect, in_transaction
from power_loop.core.turn.turn import OpenCall, Turn, step_of
from power_loop.core.turn.unknown import settle_by_twin, settle_stale
from power_loop.tools.output import Output, error_output, output_of

# Calls that end so soon behind the first share its transaction: it costs about as much as three of them.
_NEIGHBOURS_S = 0.002


def starts_with_reply(turn: Turn, call: OpenCall) -> bool:
    """Tell whether a call is started in the very transaction that stores the reply which asks for it.

    So it is where nothing can come between: no hook and no policy looks at calls, and no approval, no answer from
    outside, no earlier call about the same thing and no turn of its own is waited for.
    """
    hooks = turn.kit.hooks
    prepared = turn.tools.prepared(call.name)
    return (
        prepared is not None
        and prepared.definition.effect in LASTING_EFFECTS
        and prepared.definition.key is None
        and prepared.definition.handler is not None
        and prepared.definition.parallel
        and not prepared.definition.requires_approval
        and turn.kit.permissions is None
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
        settled: list[Settled] = []
        ready: list[Ready] = []
        try:
            for call in self.calls:
                one = await self._prepare(call)
                if isinstance(one, Ready):
                    ready.append(one)
                else:
                    settled.append(one)
            ready, vetoed = await ask_for_all(turn, ready)
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

    async def _prepare(self, call: OpenCall) -> Ready | Settled:
        """Look the tool up, read the arguments, and settle what a died process left started."""
        turn = self._turn
        prepared = turn.tools.prepared(call.name)
        settled = await settle_stale(turn, call, prepared)
        if settled is not None:
            return settled
        if prepared is None:
            return refuse(call, texts.unknown_tool(turn.tools.unknown_name_text(call.name)))
        parsed = prepared.parse(call.arguments)
        if parsed.arguments is None:
            return refuse(call, texts.invalid_arguments(call.name, parsed.problems))
        return Ready(call, prepared, parsed.arguments)

    # ---- while they run ----

    async def _run_group(self, group: Sequence[Ready], settled: list[Settled]) -> list[Settled]:
        """Run calls side by side; return what is settled and not committed yet."""
        turn = self._turn
        running: dict[HandlerRun, Ready] = {}
        try:
            if self._kit.hooks.has(HookPoint.TOOL_BEFORE):
                settled = await self._keep(settled)  # nobody knows how long a hook takes
            queue: list[Ready] = []
            for one in group:
                refused = await ask(turn, one)
                if refused is None:
                    queue.insert(0, one)
                else:
                    settled.append(refused)
            while queue or running:
                turn.scope.check()
                begun = self._take(queue, running.values())
                if any(one.twin_key for one in begun):
                    begun, settled = await self._without_twins(begun, settled)
                starts = [step for one in begun if (step := self._start(one)) is not None]
                # What finishes while this is on its way to the disk goes with the next one.
                settled = await self._keep(settled, starts)
                await turn.prove_lease()
                for one in begun:
                    running[self._launch(one)] = one
                if not running:
                    continue
                ends = {run.ended: run for run in running}
                await turn.scope.interruptible(asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED))
                if not all(ended.done() for ended in ends):
                    await turn.scope.interruptible(asyncio.wait(ends, timeout=_NEIGHBOURS_S))
                for ended, run in ends.items():
                    if ended.done():
                        settled += await self._outcome(running.pop(run), ended.result())
        except TurnStopped:
            for run, outcome in (await collect(list(running))).items():
                # Of a turn that is left, what was cut stays open.
                if not (turn.scope.is_left and outcome.state is CallState.ABORTED):
                    settled += await self._outcome(running[run], outcome)
            if settled:
                await self._commit(settled)
            raise
        except BaseException:
            await collect(list(running))
            raise
        return settled

    def _take(self, queue: list[Ready], running: Iterable[Ready]) -> list[Ready]:
        """Take from the end of the queue what may begin: as many as there is room for, and of those that are about the
        same thing one at a time."""
        busy = [one.twin_key for one in running]
        room = self._kit.max_parallel_tools - len(busy)
        begun: list[Ready] = []
        for one in reversed(tuple(queue)):
            if len(begun) == room:
                break
            if one.twin_key is None or one.twin_key not in busy:
                queue.remove(one)
                begun.append(one)
                busy.append(one.twin_key)
        return begun

    async def _without_twins(self, begun: list[Ready], settled: list[Settled]) -> tuple[list[Ready], list[Settled]]:
        """Return what of those that are about to begin runs, and what is settled and not committed: the others, by
        what earlier calls about the same thing came to."""
        if settled:
            await self._commit(settled)  # what ended just now is one of the earlier ones
        rest: list[Ready] = []
        answered: list[Settled] = []
        for one in begun:
            given = None if one.twin_key is None else await settle_by_twin(self._turn, one)
            if given is None:
                rest.append(one)
            else:
                answered.append(given)
        return rest, answered

    def _start(self, one: Ready) -> CallStep | None:
        """Count an attempt; return the step that makes it durable, where the call has an effect and is not started
        already."""
        call = one.call
        was_started = call.state is CallState.STARTED and not call.is_stale
        if was_started:
            return None
        call.attempt += 1
        if not one.has_lasting_effect:
            return None
        call.state = CallState.STARTED
        call.is_stale = False
        return step_of(call, CallState.STARTED, attempt=call.attempt)

    def _launch(self, one: Ready) -> HandlerRun:
        turn, call, definition = self._turn, one.call, one.prepared.definition
        one.began_s = self._kit.clock.monotonic_s()
        deadline_s = None if definition.timeout_s is None else one.began_s + definition.timeout_s
        context = CallContext(turn, call, deadline_s=deadline_s)
        turn.announce(ToolCallStarted(call.call_id, call.name, one.arguments, call.attempt))
        handler, taken = definition.handler, one.prepared.transaction
        assert handler is not None
        return HandlerRun(
            handler if taken is None else in_transaction(handler, taken),
            lambda: one.prepared.call_arguments(one.arguments, context),
            name=call.name,
            is_async=one.prepared.is_async,
            timeout_s=definition.timeout_s,
            token=context.cancellation,
            threads=self._kit.desk.threads,
            # A handler that is a body has its points where that runs.
            point=None if taken is not None else partial(pass_point, self._kit.store),
            is_held=lambda: context.is_held,
        )

    async def _outcome(self, one: Ready, outcome: Outcome) -> list[Settled]:
        """Return what an outcome settles, after the hooks had their say about the result; nothing if that is committed
        already."""
        if outcome.state is not CallState.ABORTED:
            outcome = self._held_to_state(one, outcome)
        if outcome.body is not None:
            failed = await self._run_body(one, outcome.body)
            if failed is None:
                return []
            outcome = failed
        if outcome.waiting is not None:
            return [replace(park(one.call, outcome.waiting), has_run=True)]
        assert outcome.output is not None
        output = outcome.output
        if outcome.state is not CallState.ABORTED:
            output = await self._rewritten(one, output, outcome.error)
        # Given up, not failed: a later call about the same thing has to know that it may have happened.
        state = CallState.ABORTED if outcome.is_cut and one.is_once_by_key else outcome.state
        return [replace(self._ended(one, state, output), has_run=True)]

    def _ended(self, one: Ready, state: CallState, output: Output) -> Settled:
        # No step to `started` has told of the attempt where there was none.
        attempt = None if one.has_lasting_effect or not one.call.attempt else one.call.attempt
        duration_s = self._kit.clock.monotonic_s() - one.began_s
        return settle(one.call, state, output, one.prepared.definition, duration_s=duration_s, attempt=attempt)

    async def _run_body(self, one: Ready, body: ToolBody) -> Outcome | None:
        """Run a body in the very transaction that settles its call, and announce it; return how it ended if it did not
        come to that."""
        turn = self._turn
        if turn.scope.cause is not None:
            begun = one.has_lasting_effect
            text = texts.cancelled_while_running(may_still_run=False) if begun else texts.CANCELLED_CALL
            return Outcome(CallState.ABORTED, error_output(text))

        def end(returned: Any) -> CallStep:
            output = output_of(returned)
            if isinstance(output, Waiting) or isinstance(returned, InTransaction):
                raise ToolError(texts.NOT_IN_TRANSACTION)
            return self._ended(one, CallState.FAILED if output.is_error else CallState.SUCCEEDED, output).step

        state = turn.tool_state.changed(turn.window.tool_state)
        timers = NotedTimers()
        noted = timers.noting(body)

        def move(lease: Lease) -> Awaitable[CallStep | EffectFailure]:
            return self._kit.store.run_effect(
                lease,
                one.call.name,
                noted,
                end=end,
                at_seq=turn.window.next_seq,
                send_index=turn.send_index,
                round=turn.round,
                tool_state=state,
            )

        try:
            done = await turn.commit_unless_signalled(move)
        except Signalled as signalled:
            # Nothing has happened so far, so that a cancellation is in time.
            turn.hear(signalled.news)
            if turn.scope.status is not None:
                return await self._run_body(one, body)
            done = await turn.commit_at_once(move)
        if isinstance(done, EffectFailure):
            error = done.error
            text = error.message if isinstance(error, ToolError) else texts.crashed(one.call.name, error)
            return Outcome(CallState.FAILED, error_output(text), error=error)
        duration_s = self._kit.clock.monotonic_s() - one.began_s
        for event in timers.events:
            turn.announce(event)
        await self._note([Settled(one.call, done, duration_s=duration_s)], state)
        result = None if done.message is None else done.message.tool_result
        if result is not None:
            told = ToolResult(result.content, result.is_error)
            await turn.tell(ToolAfterContext, call=one.planned(), result=told, is_stored=True)
        return None

    def _held_to_state(self, one: Ready, outcome: Outcome) -> Outcome:
        """Return the outcome of a call; an error where it left something in its state that cannot be kept."""
        state = self._turn.tool_state
        dropped = state.settle(self._turn.window.tool_state) if state else ()
        if not dropped:
            return outcome
        text = texts.state_not_kept(one.call.name, dropped)
        told = error_output(text)
        if outcome.output is not None:
            told = outcome.output._replace(content=(*outcome.output.content, *told.content), is_error=True)
        # A body that has not run does not run then.
        return Outcome(CallState.FAILED, told, error=outcome.error or TypeError(text))

    async def _rewritten(self, one: Ready, output: Output, error: BaseException | None) -> Output:
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

    async def _keep(self, settled: list[Settled], starts: Sequence[CallStep] = ()) -> list[Settled]:
        """Commit if a call begins, or if there is an outcome of one that ran; return what is not committed yet."""
        if not starts and not any(one.has_run for one in settled):
            return settled
        await self._commit(settled, starts)
        return []

    async def _commit(self, settled: list[Settled], starts: Sequence[CallStep] = ()) -> None:
        """Make steps durable in one transaction, in the order of the calls, and announce them."""
        turn = self._turn
        settled = sorted(settled, key=lambda one: (one.call.reply_seq, one.call.index))
        state = turn.tool_state.changed(turn.window.tool_state)
        await turn.advance_calls([*(one.step for one in settled), *starts], tool_state=state)
        await self._note(settled, state)

    async def _note(self, settled: list[Settled], state: dict[str, Any] | None) -> None:
        """Take what became durable into the turn, and announce it."""
        turn = self._turn
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

    def _announce(self, one: Settled) -> None:
        call, step = one.call, one.step
        if one.waiting is not None:
            self._turn.announce(ToolCallWaiting(call.call_id, call.name, one.waiting.kind.value, one.waiting.prompt))
        elif step.message is not None and step.message.tool_result is not None:
            is_error = step.message.tool_result.is_error
            self._turn.announce(ToolCallFinished(call.call_id, call.name, step.state.value, is_error, one.duration_s))


def _groups(ready: list[Ready]) -> list[list[Ready]]:
    """Return the calls in groups that run one after the other; a call that must run alone is a group of its own."""
    groups: list[list[Ready]] = []
    is_open = False
    for one in ready:
        if one.prepared.definition.parallel and is_open:
            groups[-1].append(one)
        else:
            groups.append([one])
            is_open = one.prepared.definition.parallel
    return groups
