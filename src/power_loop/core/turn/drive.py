"""Drives a turn to its rest: decide, do, commit, announce, and again."""

from __future__ import annotations

from functools import partial

from power_loop.contracts.errors import LeaseLostError, PowerLoopError, StoreError
from power_loop.contracts.events import (
    LLMCallFinished,
    RoundStarted,
    SendFailed,
    SendFinished,
)
from power_loop.contracts.hooks import (
    HookPoint,
    RoundDecideContext,
    RoundStartContext,
    SendEndContext,
    Veto,
)
from power_loop.contracts.messages import Message, tool_message
from power_loop.contracts.ports import Signalled
from power_loop.contracts.records import CallStep, ModelCallRecord, NewCall, NewReply, SendEnd
from power_loop.contracts.results import StatefulResult
from power_loop.contracts.states import LASTING_EFFECTS, CallState, SendStatus, WaitKind
from power_loop.core.context import texts
from power_loop.core.turn.decide import (
    Abort,
    Action,
    AskAgain,
    CallModel,
    Conclude,
    Finish,
    Fold,
    OutputCheck,
    RunTools,
    TakeInput,
    decide,
)
from power_loop.core.turn.folding import fold, is_due
from power_loop.core.turn.follow_ups import take_inputs
from power_loop.core.turn.model_call import Vetoed, ask_model
from power_loop.core.turn.outcome import result_of
from power_loop.core.turn.paying import OutOfBudget
from power_loop.core.turn.remembering import exchange_of, recall, remember
from power_loop.core.turn.scope import StopCause, TurnStopped
from power_loop.core.turn.structured import output_error
from power_loop.core.turn.tool_batch import run_batch, starts_with_reply
from power_loop.core.turn.turn import OpenCall, Turn, UnstoredReply, step_of


async def drive(turn: Turn) -> StatefulResult:
    """Return the result at which the turn rests. Raises what ended it otherwise, with the send recorded as failed."""
    try:
        while True:
            result = await _step(turn)
            if result is not None:
                return result
    except LeaseLostError as error:
        turn.announce(SendFailed(error.code, error.message))
        raise
    except Exception as error:
        await _fail(turn, error)
        raise


async def _step(turn: Turn) -> StatefulResult | None:
    """Make the one next move; return the result if the turn rests with it."""
    turn.scope.check_left()
    try:
        # What is recalled counts when it is decided whether the window is full.
        if turn.scope.cause is None and turn.reply is None and not turn.calls:
            await recall(turn)
        action = await _decided(turn)
        turn.insists = turn.insists and isinstance(action, Finish)
        if turn.scope.cause is StopCause.LEASE_LOST:
            raise LeaseLostError(_LOST.format(turn.session_id), session_id=turn.session_id)
        if turn.reply is not None:
            reason = _reason(turn, turn.reply, action)
            await _store_reply(turn, turn.reply, action, reason)
            if isinstance(action, (Finish, Abort)):
                return await _rest(turn, action.status, reason)
        if isinstance(action, CallModel):
            await _call_model(turn, None)
        elif isinstance(action, Conclude):
            await _call_model(turn, action.status)
        elif isinstance(action, Fold):
            await fold(turn)
        elif isinstance(action, RunTools):
            await run_batch(turn)
            if not turn.calls:
                await turn.end_round()
        elif isinstance(action, TakeInput):
            await take_inputs(turn)
        elif isinstance(action, Finish):
            reason = None if turn.exhausted is None else turn.exhausted[1]
            return await _finish(turn, action.status, reason)
        elif isinstance(action, Abort):
            return await abort(turn, action.status, reason=turn.scope.reason)
    except TurnStopped:
        return None
    except Signalled as signalled:
        # What was about to be written was the end, and somebody outside had something to say before.
        turn.hear(signalled.news)
        turn.insists = True
        return None
    except Vetoed as veto:
        if turn.reply is None:
            return await abort(turn, SendStatus.VETOED, reason=veto.reason)
        # What was said and paid for is kept; what it asks for is not done.
        await _store_reply(turn, turn.reply, Abort(SendStatus.VETOED), veto.reason)
        return await _rest(turn, SendStatus.VETOED, veto.reason)
    return None


def _reason(turn: Turn, reply: UnstoredReply, action: Action) -> str | None:
    """Return why a send ends with a reply, where its status does not say it all."""
    if isinstance(action, Abort):
        return turn.scope.reason
    is_refusal = isinstance(action, Finish) and action.status is SendStatus.REFUSED
    return (reply.message.refusal or None) if is_refusal else None


_LOST = (
    "the lease of session {!r} was taken over while this turn ran: nothing more was written by it."
    " Another process drives the session on; read its messages, or send again"
)


async def _decided(turn: Turn) -> Action:
    action = decide(turn.facts(window_is_full=is_due(turn)))
    if turn.kit.hooks.has(HookPoint.ROUND_DECIDE) and not isinstance(action, Abort):
        context: RoundDecideContext = turn.context_of(RoundDecideContext, action=type(action).__name__)
        decision = (await turn.consult(context)).decision
        if isinstance(decision, Veto):
            raise Vetoed(decision.reason)
    return action


# ---- the model's part ----


async def _call_model(turn: Turn, concludes: SendStatus | None) -> None:
    await turn.prove_lease()
    turn.round += 1
    turn.hearings = 0
    turn.announce(RoundStarted())
    if turn.kit.hooks.has(HookPoint.ROUND_START):
        started: RoundStartContext = turn.context_of(RoundStartContext)
        decision = (await turn.consult(started)).decision
        if isinstance(decision, Veto):
            raise Vetoed(decision.reason)
    try:
        turn.reply = await ask_model(turn, concludes)
    except OutOfBudget as out:
        # A last call that is not paid for does not change what the send ends with.
        turn.exhausted = (concludes or out.status, out.reason)


async def _store_reply(turn: Turn, reply: UnstoredReply, action: Action, reason: str | None) -> None:
    """Commit a reply with all that belongs to it: its calls, the answers to those that do not run, the end of the
    send."""
    at_seq = turn.window.next_seq
    if isinstance(action, Abort):
        _abort_planned(reply)
    answered = tuple(sorted(reply.answers))
    messages = [reply.message, *(reply.answers[index] for index in answered)]
    if isinstance(action, AskAgain) and reply.repair is not None:
        messages.append(reply.repair)
        turn.repairs += 1
    _start_first_calls(turn, reply)
    end = None
    if isinstance(action, (Finish, Abort)):
        end = turn.end_as(action.status, reason, reply=reply, messages=messages)
    charges = () if turn.purse is None or end is not None else turn.purse.owed
    stored = NewReply(
        at_seq=at_seq,
        send_index=turn.send_index,
        round=turn.round,
        messages=tuple(messages),
        call=reply.call,
        calls=tuple(_new_call(call) for call in reply.calls),
        answered=answered,
        end=end,
        charges=charges,
    )
    # News may change whether the send ends with its answer; that it was stopped, they do not.
    commit = turn.commit_unless_signalled if isinstance(action, Finish) and not turn.insists else turn.commit
    await commit(lambda lease: turn.kit.store.append_reply(lease, stored))
    if turn.purse is not None:
        turn.purse.paid(charges)
    turn.reply = None
    turn.window.last_call = ModelCallRecord(at_seq, turn.send_index, turn.round, reply.call, turn.kit.clock.now_ms())
    turn.calls += [call for call in reply.calls if call.state in (CallState.REQUESTED, CallState.STARTED)]
    turn.has_output = reply.facts.output is OutputCheck.VALID
    turn.output, turn.output_problems = reply.output, reply.output_problems
    call = reply.call
    turn.announce(
        LLMCallFinished(
            call.model, call.attempts, call.stop, reply.response.usage, call.duration_ms / 1000, call.request_id
        )
    )
    await turn.note_appended(messages)
    if not turn.calls:
        await turn.end_round()


def _abort_planned(reply: UnstoredReply) -> None:
    for call in reply.calls:
        if call.state is CallState.REQUESTED:
            call.state = CallState.ABORTED
            reply.answers[call.index] = tool_message(call.call_id, texts.content(texts.CANCELLED_CALL), is_error=True)


def _start_first_calls(turn: Turn, reply: UnstoredReply) -> None:
    """Mark the calls that start at once as started, so that the reply and their start are one transaction."""
    open_calls = [call for call in reply.calls if call.state is CallState.REQUESTED]
    for call in open_calls[: turn.kit.max_parallel_tools]:
        prepared = turn.tools.prepared(call.name)
        if prepared is not None and not prepared.definition.parallel:
            return
        if starts_with_reply(turn, call):
            call.state = CallState.STARTED
            call.attempt = 1


def _new_call(call: OpenCall) -> NewCall:
    return NewCall(
        call.call_id,
        call.index,
        call.name,
        call.arguments,
        call.effect,
        call.state,
        call.idempotency_key,
        call.is_keyed,
    )


# ---- the ends ----


async def _finish(turn: Turn, status: SendStatus, reason: str | None) -> StatefulResult:
    end = turn.end_as(status, reason)
    commit = turn.commit if turn.insists else turn.commit_unless_signalled
    await commit(lambda lease: turn.kit.store.end_send(lease, turn.send_index, end))
    return await _rest(turn, status, reason)


async def abort(turn: Turn, status: SendStatus, *, reason: str | None = None) -> StatefulResult:
    """Settle every open call without running it, end the send with `status`, and return the result."""
    turn.reply = None
    await _end_agents(turn, reason or status.value)
    steps, messages = _giving_up(turn)
    await _settle(turn, steps, messages, turn.end_as(status, reason, messages=messages))
    return await _rest(turn, status, reason)


async def _end_agents(turn: Turn, reason: str) -> None:
    """End what the sub-agents of the send still have to do, before it comes to rest without them."""
    if turn.agents is not None and turn.calls and turn.children:
        await turn.agents.end(turn, reason)


async def rest_again(turn: Turn) -> None:
    """Let a send that waits for nothing but answers wait on, after it was taken up in vain."""
    if turn.calls and all(call.state is CallState.WAITING for call in turn.calls):
        await turn.end_send(turn.end_as(SendStatus.WAITING_FOR_INPUT))
        turn.is_at_rest = True


async def settle_open_calls(turn: Turn) -> None:
    """Answer every open call of a send that has ended with what became of it, in one transaction."""
    await _end_agents(turn, "its parent's call was given up")
    await _settle(turn, *_giving_up(turn), None)


def _giving_up(turn: Turn) -> tuple[list[CallStep], list[Message]]:
    """Return the steps that settle the open calls without running them, and the messages that these bring."""
    steps: list[CallStep] = []
    messages: list[Message] = []
    for call in turn.calls:
        state, text = _given_up(call)
        message = tool_message(call.call_id, texts.content(text), is_error=True)
        messages.append(message)
        steps.append(step_of(call, state, message=message))
    return steps, messages


async def _settle(turn: Turn, steps: list[CallStep], messages: list[Message], end: SendEnd | None) -> None:
    if steps:
        await turn.advance_calls(steps, end=end)
    elif end is not None:
        await turn.end_send(end)
    turn.calls.clear()
    await turn.note_appended(messages)


def _given_up(call: OpenCall) -> tuple[CallState, str]:
    """Return how a call ends that is given up, and what the model is told, by what is known of its effect."""
    # One that was started with its reply and not found started has not begun.
    has_run = call.is_stale or (call.attempt > 0 and call.state is not CallState.STARTED)
    if has_run and (call.is_stale or call.effect in LASTING_EFFECTS):
        return CallState.UNKNOWN, texts.unknown_outcome(call.name)
    if call.state is CallState.WAITING and call.wait_kind is WaitKind.RESULT:
        return CallState.ABORTED, texts.cancelled_wait(call.name)
    return CallState.ABORTED, texts.had_no_effect(call.name) if has_run else texts.CANCELLED_CALL


async def _rest(turn: Turn, status: SendStatus, reason: str | None = None) -> StatefulResult:
    """Announce the result of a send that rests."""
    turn.is_at_rest = True
    turn.rest_status = status
    exchange = exchange_of(turn, status)
    turn.window.take_projection(turn.projected)
    result = result_of(turn, status, reason)
    turn.announce(SendFinished(result))
    _wake_parent(turn)
    if status is SendStatus.CANCELLED:
        # What the tools of a cancelled send left running, such as background commands.
        await turn.tools.end_session(turn.session_id, partial(turn.hook_failed, HookPoint.SEND_END))
    await turn.tell(SendEndContext, result=result)
    await remember(turn, exchange)
    if status is SendStatus.OUTPUT_INVALID:
        raise output_error(turn.session_id, turn.final_text, turn.output_problems)
    return result


def _wake_parent(turn: Turn) -> None:
    """Let a report be read that was left with the end of the send, or the run go on that rested until then."""
    for woken_id in (None if turn.report is None else turn.report.session_id, turn.wakes):
        if turn.agents is not None and woken_id is not None:
            turn.agents.wake(woken_id)


async def _fail(turn: Turn, error: Exception) -> None:
    """Record that a send failed, so that resume() finds it; if even that cannot be stored, the lease runs out."""
    if turn.is_at_rest:
        return
    code = error.code if isinstance(error, PowerLoopError) else "internal"
    if turn.purse is not None:
        turn.purse.lose_owed()
    try:
        reason = f"{code}: {error}"[:_MAX_REASON_CHARS]
        await turn.end_send(turn.end_as(SendStatus.FAILED, reason))
        turn.is_at_rest = True
        turn.rest_status = SendStatus.FAILED
        _wake_parent(turn)
    except (StoreError, LeaseLostError):
        pass  # the error that is being raised says more
    turn.announce(SendFailed(code, str(error)))


_MAX_REASON_CHARS = 2_000
