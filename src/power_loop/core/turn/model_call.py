"""Asks the model for one reply: hooks, attempts, and what the reply means for the turn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from power_loop.contracts.errors import (
    LLMContextOverflowError,
    LLMError,
    LLMTimeoutError,
    LLMTooLargeError,
    ToolError,
)
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
from power_loop.contracts.explanation import Segment, SegmentKind
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
from power_loop.core.context.reading import with_files_read
from power_loop.core.context.spare import MAX_LEVEL, Spared, has_media, spare
from power_loop.core.context.tokens import estimate_message, estimate_request
from power_loop.core.stray import said
from power_loop.core.turn.decide import OutputCheck, ReplyFacts
from power_loop.core.turn.folding import fold, room_of
from power_loop.core.turn.given_reply import read_reply
from power_loop.core.turn.live import live_texts
from power_loop.core.turn.paying import OutOfBudget, hold_call, hold_tool_calls, price_of, settle_call
from power_loop.core.turn.points import pass_point
from power_loop.core.turn.purse import Hold
from power_loop.core.turn.retry import retry_delay_s
from power_loop.core.turn.scope import StrayExit, TookTooLong, TurnStopped
from power_loop.core.turn.structured import check_output
from power_loop.core.turn.turn import OpenCall, Turn, UnstoredReply, idempotency_key
from power_loop.tools.recall import RECALL_SEND

# After a provider's overflow the oldest messages go until this part of the prompt is left, so many times.
OVERFLOW_SHRINK = 0.5
MAX_TRIMS = 4
_FOLD_TOOK_THE_LAST = "a fold took the last of the tokens that SendLimits(max_tokens=...) gives to the send"


class Vetoed(Exception):  # noqa: N818  (a signal of the loop to itself, not an error)
    """Says that a hook ended the send, and why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@frozen
class _Fit:
    """Is how a prompt is made smaller than it would be: the `share` of the window's budget that it may take, the
    `level` of sparing what stays, how often the share was made smaller, and whether the window was folded for it."""

    share: float = 1.0
    level: int = 0
    trims: int = 0
    is_folded: bool = False


_WHOLE, _FOLDED = _Fit(), _Fit(is_folded=True)


@frozen
class _Prompt:
    """Is a request as the hooks leave it, about how many tokens it has, and the reply if a hook gave it."""

    request: LLMRequest
    tokens: int
    segments: tuple[Segment, ...] = ()
    given: LLMResponse | None = None


async def ask_model(turn: Turn, concludes: SendStatus | None) -> UnstoredReply:
    """Return the next reply, not stored yet.

    Raises `Vetoed`, `TurnStopped`, `OutOfBudget`, or the `LLMError` that no retry could mend.
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
                turn.count_dropped(_usage(prompt, response), _cost(turn, prompt, response))
            raise
    duration_ms = round((turn.kit.clock.monotonic_s() - began_s) * 1000)
    reply = _understand(
        turn,
        prompt,
        response,
        concludes=concludes,
        attempts=attempts,
        duration_ms=duration_ms,
        taken=await _taken_ids(turn, response.message),
    )
    await _pay_for_calls(turn, reply)
    return reply


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


def _cost(turn: Turn, prompt: _Prompt, response: LLMResponse) -> int | None:
    """Return what a reply of the turn's model cost, if its price is known."""
    price = price_of(turn, turn.kit.llm.info)
    return None if price is None else price.cost_nanos(_usage(prompt, response))


async def _pay_for_calls(turn: Turn, reply: UnstoredReply) -> None:
    """Let as many of a reply's calls run as the turn's budgets pay for; the others are answered with that."""
    wanted = [call for call in reply.calls if call.state is CallState.REQUESTED]
    granted = await hold_tool_calls(turn, len(wanted))
    for call in wanted[granted:]:
        call.state = CallState.FAILED
        reply.answers[call.index] = tool_message(call.call_id, texts.content(texts.TOO_MANY_CALLS), is_error=True)
        turn.lacks_tool_calls = True


async def _prompt(turn: Turn, concludes: SendStatus | None, fit: _Fit) -> _Prompt:
    assembled, spared = _assemble(turn, concludes, fit)
    if assembled.problems and assembled.problems != turn.known_problems:
        turn.known_problems = assembled.problems
        turn.announce(TranscriptRepaired(assembled.problems))
    if assembled.left_out or spared.media or spared.texts:
        turn.announce(WindowTrimmed(assembled.left_out, spared.media, spared.texts))
    if not turn.kit.hooks.has(HookPoint.LLM_BEFORE):
        return await _with_files_read(turn, _Prompt(assembled.request, assembled.tokens, assembled.segments))
    context: LLMBeforeContext = turn.context_of(LLMBeforeContext, request=assembled.request)
    consulted = await turn.consult(context)
    if isinstance(consulted.decision, Veto):
        raise Vetoed(consulted.decision.reason)
    given = _from_hook(turn, consulted.decision.response) if isinstance(consulted.decision, Skip) else None
    request = consulted.context.request
    tokens, segments = assembled.tokens, assembled.segments
    if request is not assembled.request:
        tokens = estimate_request(request)
        segments = _changed(assembled, tokens, "a hook rewrote it")
    prompt = _Prompt(request, tokens, segments, given)
    return prompt if given is not None else await _with_files_read(turn, prompt)


async def _with_files_read(turn: Turn, prompt: _Prompt) -> _Prompt:
    """Return a prompt as its model takes it."""
    info = turn.kit.llm.info
    if info.has_pdf:
        return prompt
    read = await turn.scope.interruptible(with_files_read(prompt.request, info))
    return replace(prompt, request=read.request, tokens=prompt.tokens + read.more_tokens)


def _from_hook(turn: Turn, response: Any) -> LLMResponse:
    return read_reply(response, giver="a hook", model=turn.kit.llm.info.model)


def _assemble(turn: Turn, concludes: SendStatus | None, fit: _Fit) -> tuple[Assembled, Spared]:
    options, info = turn.options, turn.kit.llm.info
    tools = turn.tools.specs() if info.has_tools else ()
    tool_choice = options.tool_choice if options.tool_choice is not None and turn.rounds == 0 else "auto"
    assembled = assemble(
        turn.window,
        info=info,
        tools=tools,
        system_prompt=turn.system_prompt,
        output_schema=options.output_schema,
        max_output_tokens=turn.output_cap,
        temperature=options.temperature,
        reasoning_effort=options.reasoning_effort,
        tool_choice="none" if concludes is not None and tools else tool_choice,
        tail=_notice(turn, concludes),
        live=live_texts(turn),
        budget_share=fit.share,
        refused_tokens=turn.refused_tokens,
    )
    spared = spare(assembled.request.messages, fit.level)
    if spared.media or spared.texts:
        request = replace(assembled.request, messages=spared.messages)
        tokens = estimate_request(request)
        segments = _changed(assembled, tokens, "media or long texts did not fit")
        assembled = replace(assembled, request=request, tokens=tokens, segments=segments)
    return assembled, spared


def _changed(assembled: Assembled, tokens: int, why: str) -> tuple[Segment, ...]:
    """Return the segments of a request that was changed after it was made and has so many tokens since."""
    return (*assembled.segments, Segment(SegmentKind.CHANGED, tokens - assembled.tokens, name=why))


def _notice(turn: Turn, concludes: SendStatus | None) -> str | None:
    """Return what the kernel says of this very call."""
    notices = []
    if turn.window.shows_records:
        notices.append(texts.projected(can_recall=RECALL_SEND in turn.tools))
    if concludes is not None:
        notices.append(texts.CONCLUDE)
    return "\n\n".join(notices) or None


async def _generate(turn: Turn, prompt: _Prompt, concludes: SendStatus | None) -> tuple[_Prompt, int]:
    """Return the prompt with the first reply that an attempt brings, and the count of attempts."""
    kit, info = turn.kit, turn.kit.llm.info
    began_s = kit.clock.monotonic_s()
    attempt, fit = 0, _WHOLE
    refused: list[int] = []
    while True:
        asked_s = kit.clock.monotonic_s()
        hold, request = await hold_call(turn, prompt.request, tokens=prompt.tokens, info=info)
        # What it waited for others has a bound of its own.
        began_s += kit.clock.monotonic_s() - asked_s
        attempt += 1
        turn.announce(LLMCallStarted(info.model, attempt, len(request.messages), info.provider))
        ear = _Ear(turn)
        left_s = kit.retry.total_s - (kit.clock.monotonic_s() - began_s)
        if turn.scope.cause is not None:
            # It was stopped meanwhile, and nobody is asked.
            _give_back(turn, hold)
            raise TurnStopped
        try:
            given = await _attempt(turn, request, ear, left_s=max(left_s, 0.0))
        except BaseException:
            _lose(turn, hold)
            raise
        if isinstance(given, LLMResponse):
            settle_call(turn, hold, _usage(prompt, given), price_of(turn, info))
            turn.refused_tokens = min((*refused, *filter(None, (turn.refused_tokens,))), default=None)
            return replace(prompt, given=given), attempt
        if ear.has_heard:
            _lose(turn, hold)
        else:
            _give_back(turn, hold)
        smaller = None
        if isinstance(given, (LLMContextOverflowError, LLMTooLargeError)):
            refused.append(prompt.tokens)
            failed_s = kit.clock.monotonic_s()
            is_folded = fit == _WHOLE and await _fold_refused(turn, prompt, given)
            # A summary has a time of its own.
            began_s += kit.clock.monotonic_s() - failed_s
            if turn.facts().tokens_left <= 0:
                turn.announce(LLMCallFailed(info.model, attempt, given.code, given.message, None))
                raise OutOfBudget(SendStatus.TOKENS_EXCEEDED, _FOLD_TOOK_THE_LAST)
            smaller = _FOLDED if is_folded else _smaller(turn, concludes, fit, prompt, given)
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


def _give_back(turn: Turn, hold: Hold | None) -> None:
    """Pay nothing for a call that was not made, or that the provider refused."""
    if hold is not None and turn.purse is not None:
        turn.purse.give_back(hold.wish.number)


def _lose(turn: Turn, hold: Hold | None) -> None:
    """Pay for a call that a provider began to answer, or may have: it has counted the prompt."""
    if hold is not None and turn.purse is not None:
        turn.purse.lose(hold)


async def _fold_refused(turn: Turn, refused: _Prompt, error: LLMError) -> bool:
    """Fold the window of a prompt that the model refused for its size; tell whether that was done.

    Where it is bytes that are too many, and media among them, a summary of texts is no help.
    """
    is_heavy = isinstance(error, LLMTooLargeError) and has_media(refused.request.messages)
    if turn.kit.compaction is None or is_heavy:
        return False
    return await fold(turn, refused_tokens=refused.tokens) is not None


def _smaller(turn: Turn, concludes: SendStatus | None, fit: _Fit, refused: _Prompt, error: LLMError) -> _Fit | None:
    """Return how to make a prompt smaller that a provider refused for its size; None if nothing makes it smaller.

    The oldest messages go first, then what can be spared of those that stay. Where it is bytes that are too many, media
    go before whole messages do: they are what weighs.
    """
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
    refused_share = min(refused.tokens / max(room_of(turn), 1), fit.share)
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
        pass_point(turn.kit.store, "model.before", llm.info.model)
        given = await turn.scope.interruptible(llm.generate(request, ear.hear), within_s=left_s)
        pass_point(turn.kit.store, "model.after", llm.info.model)
        return read_reply(given, giver="the model service", model=llm.info.model)
    except TurnStopped:
        raise
    except TookTooLong:
        limit = f"the {turn.kit.retry.total_s:g} s that LLMRetryPolicy(total_s=...) gives to all attempts at a reply"
        return LLMTimeoutError(f"the model did not answer within {limit}", model=llm.info.model, may_retry=False)
    except LLMError as error:
        return error
    except StrayExit as error:
        failure = LLMError(f"the model service raised {error}", model=llm.info.model)
        failure.__cause__ = error.__cause__
        return failure
    except Exception as error:  # a user's own model may raise anything
        failure = LLMError(f"the model service raised {said(error)}", model=llm.info.model)
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
        bus.emit(
            payload, session_id=turn.session_id, send_index=turn.send_index, round=turn.round, agent_path=turn.path
        )

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
    taken: frozenset[str],
) -> UnstoredReply:
    info = turn.kit.llm.info
    message = _with_own_ids(turn, response.message, taken)
    if message.origin is None:
        message = Message(message.role, message.parts, info.origin)
    counted = _usage(prompt, response)
    cost_nanos = _cost(turn, prompt, response) if attempts else None
    turn.count(counted, cost_nanos)
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
            prompt.tokens if attempts else None,
            prompt.segments if attempts else (),
            cost_nanos,
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


async def _taken_ids(turn: Turn, message: Message) -> frozenset[str]:
    """Return those of a reply's call ids that calls have which the window does not show."""
    window = turn.window
    if not message.tool_calls or (window.fold is None and not window.shows_records):
        return frozenset()
    return await turn.kit.store.find_call_ids(turn.session_id, [call.id for call in message.tool_calls if call.id])


def _with_own_ids(turn: Turn, message: Message, found: frozenset[str]) -> Message:
    """Return the message with call ids that no other call of the session has; `found` are taken."""
    taken = set(found)
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
        own_key: str | None = None
        if refusal is None and prepared is not None and prepared.definition.key is not None:
            try:
                own_key = prepared.call_key(prepared.parse(part.arguments).arguments or {}, turn.session_id)
            except ToolError as error:
                refusal = texts.no_key(part.name, error.message)
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
                own_key or idempotency_key(turn.session_id, turn.send_index, reply_seq, index),
                is_keyed=own_key is not None,
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
