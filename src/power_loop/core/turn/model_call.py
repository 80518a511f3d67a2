"""Asks the model for one reply: hooks, attempts, and what the reply means for the turn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from power_loop.contracts.errors import LLMContextOverflowError, LLMError, LLMTimeoutError, LLMTooLargeError
from power_loop.contracts.events import (
    LLMCallFailed,
    LLMCallStarted,
    ReasoningDelta,
    StreamReset,
    TextDelta,
    ToolCallDelta,
    TranscriptRepaired,
    WindowTrimmed,
)
from power_loop.contracts.frozen import frozen
from power_loop.contracts.hooks import HookPoint, LLMAfterContext, LLMBeforeContext, Rewrite, Skip, Veto
from power_loop.contracts.llm import (
    DeltaKind,
    LLMDelta,
    LLMRequest,
    LLMResponse,
    StopReason,
    Usage,
)
from power_loop.contracts.messages import Message, ToolCallPart, tool_message, user_message
from power_loop.contracts.records import ModelCall
from power_loop.contracts.states import CallState, Effect, SendStatus
from power_loop.core.context import texts
from power_loop.core.context.assemble import Assembled, assemble
from power_loop.core.context.spare import MAX_LEVEL, Spared, has_media, spare
from power_loop.core.context.tokens import estimate_message, estimate_request
from power_loop.core.turn.decide import OutputCheck, ReplyFacts
from power_loop.core.turn.given_reply import read_reply
from power_loop.core.turn.retry import retry_delay_s
from power_loop.core.turn.scope import StrayCancellation, TookTooLong, TurnStopped
from power_loop.core.turn.structured import check_output
from power_loop.core.turn.turn import OpenCall, Turn, UnstoredReply, idempotency_key

# After a provider's overflow the oldest messages go until this part of the prompt is left, so many times.
OVERFLOW_SHRINK = 0.5
MAX_TRIMS = 4


class Vetoed(Exception):  # noqa: N818  (a signal of the loop to itself, not an error)
    """Says that a hook ended the send, and why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@frozen
class _Fit:
    """Is how a prompt is made smaller than it would be: the `share` of the window's budget that it may take, the
    `level` of sparing what stays, and how often the share was made smaller."""

    share: float = 1.0
    level: int = 0
    trims: int = 0


_WHOLE = _Fit()


@frozen
class _Prompt:
    """Is a request as the hooks leave it, about how many tokens it has, and the reply if a hook gave it."""

    request: LLMRequest
    tokens: int
    given: LLMResponse | None = None


async def ask_model(turn: Turn, concludes: SendStatus | None) -> UnstoredReply:
    """Return the next reply, not stored yet.

    Raises `Vetoed`, `TurnStopped`, or the `LLMError` that no retry could mend.
    """
    began_s = turn.kit.clock.monotonic_s()
    prompt = await _prompt(turn, concludes, _WHOLE)
    attempts = 0
    if prompt.given is None:
        prompt, attempts = await _generate(turn, prompt, concludes)
    response = prompt.given
    assert response is not None
    if turn.kit.hooks.has(HookPoint.LLM_AFTER):
        try:
            response = await _allowed(turn, prompt, response)
        except BaseException:
            if attempts:
                turn.count_dropped(_usage(prompt, response))
            raise
    duration_ms = round((turn.kit.clock.monotonic_s() - began_s) * 1000)
    return _understand(turn, prompt, response, concludes=concludes, attempts=attempts, duration_ms=duration_ms)


async def _allowed(turn: Turn, prompt: _Prompt, response: LLMResponse) -> LLMResponse:
    """Return a reply as the hooks leave it. Raises `Vetoed`."""
    context: LLMAfterContext = turn.context_of(LLMAfterContext, request=prompt.request, response=response)
    decision = (await turn.consult(context)).decision
    if isinstance(decision, Veto):
        raise Vetoed(decision.reason)
    if not isinstance(decision, Rewrite) or decision.response is None:
        return response
    rewritten = _from_hook(turn, decision.response)
    # Other words do not change what the reply cost.
    return rewritten if rewritten.usage is not None else replace(rewritten, usage=response.usage)


def _usage(prompt: _Prompt, response: LLMResponse) -> Usage:
    """Return what a reply cost, estimated where its provider does not say."""
    if response.usage is not None:
        return response.usage
    return Usage(prompt.tokens, estimate_message(response.message), is_estimated=True)


async def _prompt(turn: Turn, concludes: SendStatus | None, fit: _Fit) -> _Prompt:
    assembled, spared = _assemble(turn, concludes, fit)
    if assembled.problems and assembled.problems != turn.known_problems:
        turn.known_problems = assembled.problems
        turn.announce(TranscriptRepaired(assembled.problems))
    if assembled.left_out or spared.media or spared.texts:
        turn.announce(WindowTrimmed(assembled.left_out, spared.media, spared.texts))
    if not turn.kit.hooks.has(HookPoint.LLM_BEFORE):
        return _Prompt(assembled.request, assembled.tokens)
    context: LLMBeforeContext = turn.context_of(LLMBeforeContext, request=assembled.request)
    consulted = await turn.consult(context)
    if isinstance(consulted.decision, Veto):
        raise Vetoed(consulted.decision.reason)
    given = _from_hook(turn, consulted.decision.response) if isinstance(consulted.decision, Skip) else None
    request = consulted.context.request
    tokens = assembled.tokens if request is assembled.request else estimate_request(request)
    return _Prompt(request, tokens, given)


def _from_hook(turn: Turn, response: Any) -> LLMResponse:
    return read_reply(response, giver="a hook", model=turn.kit.llm.info.model)


def _assemble(turn: Turn, concludes: SendStatus | None, fit: _Fit) -> tuple[Assembled, Spared]:
    options, info = turn.options, turn.kit.llm.info
    tools = turn.tools.specs() if info.has_tools else ()
    cap = options.max_output_tokens
    if turn.limits.max_tokens is not None:
        left = max(turn.limits.max_tokens - turn.usage.total_tokens, 1)
        cap = min(left, info.max_output_tokens if cap is None else cap)
    tool_choice = options.tool_choice if options.tool_choice is not None and turn.rounds == 0 else "auto"
    assembled = assemble(
        turn.window,
        info=info,
        tools=tools,
        system_prompt=options.system_prompt,
        output_schema=options.output_schema,
        max_output_tokens=cap,
        temperature=options.temperature,
        reasoning_effort=options.reasoning_effort,
        tool_choice="none" if concludes is not None and tools else tool_choice,
        tail=texts.CONCLUDE if concludes is not None else None,
        budget_share=fit.share,
    )
    spared = spare(assembled.request.messages, fit.level)
    if spared.media or spared.texts:
        request = replace(assembled.request, messages=spared.messages)
        assembled = replace(assembled, request=request, tokens=estimate_request(request))
    return assembled, spared


async def _generate(turn: Turn, prompt: _Prompt, concludes: SendStatus | None) -> tuple[_Prompt, int]:
    """Return the prompt with the first reply that an attempt brings, and the count of attempts."""
    kit, info = turn.kit, turn.kit.llm.info
    began_s = kit.clock.monotonic_s()
    attempt, fit = 0, _WHOLE
    while True:
        attempt += 1
        turn.announce(LLMCallStarted(info.model, attempt, len(prompt.request.messages)))
        ear = _Ear(turn)
        left_s = kit.retry.total_s - (kit.clock.monotonic_s() - began_s)
        given = await _attempt(turn, prompt.request, ear, left_s=max(left_s, 0.0))
        if isinstance(given, LLMResponse):
            return replace(prompt, given=given), attempt
        smaller = _smaller(turn, concludes, fit, prompt, given)
        elapsed_s = kit.clock.monotonic_s() - began_s
        delay_s: float | None = 0.0
        if smaller is None:
            delay_s = retry_delay_s(given, kit.retry, attempt=attempt, elapsed_s=elapsed_s, random=kit.random)
        turn.announce(LLMCallFailed(info.model, attempt, given.code, given.message, delay_s))
        if delay_s is None:
            raise given
        if ear.has_heard:
            turn.announce(StreamReset(attempt))
        if smaller is not None:
            fit = smaller
            prompt = await _prompt(turn, concludes, fit)
            if prompt.given is not None:
                return prompt, attempt
        elif delay_s:
            await turn.scope.interruptible(kit.clock.sleep(delay_s))


def _smaller(turn: Turn, concludes: SendStatus | None, fit: _Fit, refused: _Prompt, error: LLMError) -> _Fit | None:
    """Return how to make a prompt smaller that a provider refused for its size; None if it refused it for anything
    else, or if nothing makes it smaller.

    The oldest messages go first, then what can be spared of those that stay. Where it is bytes that are too many, media
    go before whole messages do: they are what weighs.
    """
    if not isinstance(error, (LLMContextOverflowError, LLMTooLargeError)):
        return None
    now, _ = _assemble(turn, concludes, fit)
    is_heavy = isinstance(error, LLMTooLargeError) and has_media(now.request.messages)
    ways = (_spared_more, _trimmed_more) if is_heavy else (_trimmed_more, _spared_more)
    for way in ways:
        smaller = way(turn, concludes, fit, now, refused)
        if smaller is not None:
            return smaller
    return None


def _trimmed_more(turn: Turn, concludes: SendStatus | None, fit: _Fit, now: Assembled, refused: _Prompt) -> _Fit | None:
    if fit.trims >= MAX_TRIMS:
        return None
    # The provider's window may be far smaller than what was configured, so the measure is what it refused.
    refused_share = min(refused.tokens / turn.kit.llm.info.context_window_tokens, fit.share)
    trimmed = replace(fit, share=OVERFLOW_SHRINK * refused_share, trims=fit.trims + 1)
    smaller, _ = _assemble(turn, concludes, trimmed)
    return trimmed if smaller.left_out > now.left_out else None


def _spared_more(turn: Turn, concludes: SendStatus | None, fit: _Fit, now: Assembled, refused: _Prompt) -> _Fit | None:
    for level in range(fit.level + 1, MAX_LEVEL + 1):
        spared = replace(fit, level=level)
        smaller, _ = _assemble(turn, concludes, spared)
        if smaller.request.messages != now.request.messages:
            return spared
    return None


async def _attempt(turn: Turn, request: LLMRequest, ear: _Ear, *, left_s: float) -> LLMResponse | LLMError:
    llm = turn.kit.llm
    try:
        given = await turn.scope.interruptible(llm.generate(request, ear.hear), within_s=left_s)
        return read_reply(given, giver="the model service", model=llm.info.model)
    except TurnStopped:
        raise
    except TookTooLong:
        limit = f"the {turn.kit.retry.total_s:g} s that LLMRetryPolicy(total_s=...) gives to all attempts at a reply"
        return LLMTimeoutError(f"the model did not answer within {limit}", model=llm.info.model, may_retry=False)
    except LLMError as error:
        return error
    except StrayCancellation as error:
        failure = LLMError(f"the model service raised {error}", model=llm.info.model)
        failure.__cause__ = error.__cause__
        return failure
    except Exception as error:  # a user's own model may raise anything
        failure = LLMError(f"the model service raised {type(error).__name__}: {error}", model=llm.info.model)
        failure.__cause__ = error
        return failure
    finally:
        ear.close()


class _Ear:
    """Hears the pieces of one attempt and hands them to subscribers."""

    __slots__ = ("_turn", "has_heard")

    def __init__(self, turn: Turn) -> None:
        self._turn: Turn | None = turn
        self.has_heard = False

    def hear(self, delta: LLMDelta) -> None:
        turn = self._turn
        if turn is None:  # a piece that comes after its attempt has ended belongs to nobody
            return
        self.has_heard = True
        bus = turn.kit.bus
        if not bus.is_listening:
            return
        kind = delta.kind
        payload: Any
        if kind is DeltaKind.TEXT:
            payload = TextDelta(delta.text)
        elif kind is DeltaKind.REASONING:
            payload = ReasoningDelta(delta.text)
        else:
            payload = ToolCallDelta(delta.index, delta.name, delta.text)
        bus.emit(payload, session_id=turn.session_id, send_index=turn.send_index, round=turn.round)

    def close(self) -> None:
        self._turn = None


# ---- what a reply means ----


def _understand(
    turn: Turn,
    prompt: _Prompt,
    response: LLMResponse,
    *,
    concludes: SendStatus | None,
    attempts: int,
    duration_ms: int,
) -> UnstoredReply:
    info = turn.kit.llm.info
    message = _with_own_ids(turn, response.message)
    if message.origin is None:
        message = Message(message.role, message.parts, info.origin)
    counted = _usage(prompt, response)
    turn.usage = turn.usage + counted
    turn.rounds += 1
    calls, answers = _plan(turn, message, response.stop, concludes=concludes)
    turn.tool_calls += len(message.tool_calls)
    reply = UnstoredReply(
        response=response,
        message=message,
        facts=ReplyFacts(
            response.stop, bool(message.tool_calls), bool(message.text.strip()), OutputCheck.NONE, concludes
        ),
        call=ModelCall(
            response.model or info.model,
            response.stop.value,
            counted,
            attempts,
            duration_ms,
            response.id,
            response.request_id,
        ),
        calls=calls,
        answers=answers,
    )
    if turn.options.output_schema is not None and not message.tool_calls and _may_be_output(response.stop):
        _check_output(turn, reply)
    return reply


def _may_be_output(stop: StopReason) -> bool:
    return stop in (StopReason.END, StopReason.STOP_SEQUENCE, StopReason.TOOL_CALLS)


def _check_output(turn: Turn, reply: UnstoredReply) -> None:
    schema = turn.options.output_schema
    assert schema is not None
    checked = check_output(reply.message.text, schema)
    reply.output = checked.value
    if not checked.problems:
        check = OutputCheck.VALID
    else:
        reply.output_problems = checked.problem_texts
        may_repair = turn.repairs < turn.kit.max_output_repairs and reply.facts.concludes is None
        check = OutputCheck.REPAIRABLE if may_repair else OutputCheck.INVALID
        if may_repair:
            reply.repair = user_message(texts.repair_request(checked.problems))
    reply.facts = replace(reply.facts, output=check)


def _with_own_ids(turn: Turn, message: Message) -> Message:
    """Return the message with call ids that no other call of the session has."""
    taken: set[str] = set()
    parts: list[Any] = []
    is_changed = False
    for part in message.parts:
        if isinstance(part, ToolCallPart) and (part.id in taken or turn.window.has_call(part.id) or not part.id):
            part = replace(part, id=turn.kit.clock.new_id("call"))
            is_changed = True
        if isinstance(part, ToolCallPart):
            taken.add(part.id)
        parts.append(part)
    return replace(message, parts=tuple(parts), memo={}) if is_changed else message


def _plan(
    turn: Turn, message: Message, stop: StopReason, *, concludes: SendStatus | None
) -> tuple[tuple[OpenCall, ...], dict[int, Message]]:
    """Return the calls that are to be run, and for the others, by index, the answer that says why not."""
    open_calls: list[OpenCall] = []
    answers: dict[int, Message] = {}
    reply_seq = turn.window.next_seq
    left = turn.tool_calls_left
    for index, part in enumerate(message.tool_calls):
        prepared = turn.tools.prepared(part.name)
        refusal = _refusal(turn, part, stop, concludes=concludes, is_over=index >= left)
        if refusal is not None:
            answers[index] = tool_message(part.id, texts.content(refusal), is_error=True)
        open_calls.append(
            OpenCall(
                reply_seq,
                index,
                part.id,
                part.name,
                part.arguments,
                Effect.ONCE if prepared is None else prepared.definition.effect,
                CallState.REQUESTED if refusal is None else CallState.FAILED,
                idempotency_key(turn.session_id, turn.send_index, reply_seq, index),
            )
        )
    return tuple(open_calls), answers


def _refusal(
    turn: Turn, call: ToolCallPart, stop: StopReason, *, concludes: SendStatus | None, is_over: bool
) -> str | None:
    """Return why a call does not run, in words for the model; None if it does."""
    if stop in (StopReason.LENGTH, StopReason.CONTEXT_FULL, StopReason.CONTENT_FILTER, StopReason.REFUSAL):
        return texts.TRUNCATED_CALL
    if concludes is not None:
        return texts.CONCLUDED_CALL
    if is_over:
        return texts.TOO_MANY_CALLS
    prepared = turn.tools.prepared(call.name)
    if prepared is None:
        return texts.unknown_tool(turn.tools.unknown_name_text(call.name))
    parsed = prepared.parse(call.arguments)
    if parsed.arguments is None:
        return texts.invalid_arguments(call.name, parsed.problems)
    return None
