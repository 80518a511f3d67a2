"""Folds the older part of a conversation: ask the hooks, have a summary made, commit it, announce it."""

from __future__ import annotations

import json
from typing import Any

from power_loop.contracts.errors import HookError, PowerLoopError
from power_loop.contracts.events import FoldFailed, FoldFinished, FoldProgressed, FoldStarted
from power_loop.contracts.folding import Folded, FoldStrategy, FoldTask
from power_loop.contracts.frozen import frozen
from power_loop.contracts.hooks import FoldBeforeContext, HookPoint, Veto
from power_loop.contracts.messages import Message
from power_loop.contracts.records import FoldRecord, NewFold
from power_loop.core.context import fold_texts
from power_loop.core.context.assemble import tokens_beside
from power_loop.core.context.fold_strategies import LLMSummaryFold, shorten_to_tokens, strategy_name
from power_loop.core.context.folding import FoldPlan, plan_fold
from power_loop.core.context.room import prompt_room
from power_loop.core.context.settings import Compaction
from power_loop.core.context.tokens import estimate_message, estimate_text
from power_loop.core.context.window import shown_fold
from power_loop.core.stray import said
from power_loop.core.turn.given_reply import is_count, usage_problem
from power_loop.core.turn.lent_model import LentModel, Meter
from power_loop.core.turn.live import live_texts
from power_loop.core.turn.scope import StrayExit, TookTooLong, TurnStopped
from power_loop.core.turn.session_state import SessionState
from power_loop.core.turn.turn import Turn, json_object_of
from power_loop.tools.plain_text import message_text

#: After a fold that came to nothing, the next one is tried when the window has grown by this part of the room.
RETRY_GROWTH = 0.1
# Below this part of the trigger nobody is asked what stands behind the messages.
_NEAR = 0.5
_MAX_MESSAGE_CHARS = 2_000
# Stands for what a strategy gave that failed.
_NOTHING = object()


@frozen
class Room:
    """Is how a prompt stands, in estimated tokens: what it `may_have`, and what it takes in messages and `beside`
    them."""

    may_have: int
    messages: int
    beside: int

    @property
    def tokens(self) -> int:
        """The whole prompt."""
        return self.messages + self.beside

    @property
    def for_messages(self) -> int:
        """What there is room for beside everything else."""
        return max(self.may_have - self.beside, 0)


def is_due(turn: Turn) -> bool:
    """Tell whether the next prompt takes more of its room than it should, and a fold may help."""
    settings = turn.kit.compaction
    if settings is None:
        return False
    messages = _message_tokens(turn)
    may_have = room_of(turn)
    if messages + _beside(turn, with_live=False) <= settings.trigger * may_have * _NEAR:
        return False
    tokens = messages + _beside(turn)
    return tokens > settings.trigger * may_have and tokens >= turn.fold_floor_tokens


async def fold(turn: Turn, *, is_asked_for: bool = False, refused_tokens: int | None = None) -> FoldRecord | None:
    """Fold the older part of the window; None if that is not worth it, was not allowed, or failed: then the turn goes
    on with what fits, and does not try again before the window has grown.

    `refused_tokens` is what the prompt took that the model has just refused for its size.
    Raises `TurnStopped`, and what a commit raises.
    """
    settings = turn.kit.compaction or Compaction()
    refused = min(filter(None, (refused_tokens, turn.refused_tokens)), default=None)
    room = Room(room_of(turn, refused_tokens=refused), _message_tokens(turn), _beside(turn))
    plan = plan_fold(
        turn.window,
        room_tokens=room.for_messages,
        keep=settings.keep,
        max_summary_tokens=settings.max_summary_tokens,
        first_seq=turn.first_seq,
        open_call_ids=[call.call_id for call in turn.calls],
        is_asked_for=is_asked_for,
    )
    done = None if plan is None else await _Work(turn, settings, room, plan, refused).run()
    if done is None:
        turn.fold_floor_tokens = room.tokens + max(int(room.may_have * RETRY_GROWTH), 1)
    return done


class _Work:
    """Is one fold on its way."""

    def __init__(
        self, turn: Turn, settings: Compaction, room: Room, plan: FoldPlan, refused_tokens: int | None
    ) -> None:
        self._turn = turn
        self._settings = settings
        self._room = room
        self._plan = plan
        self._strategy: FoldStrategy = settings.strategy or LLMSummaryFold()
        self._name = strategy_name(self._strategy)
        self._meter = Meter()
        self._refused_tokens = refused_tokens

    async def run(self) -> FoldRecord | None:
        turn, plan = self._turn, self._plan
        if not await self._is_allowed():
            return None
        began_s = turn.kit.clock.monotonic_s()
        turn.announce(FoldStarted(plan.to_seq, self._name, self._room.tokens))
        folded = await self._folded()
        new = None if folded is _NOTHING else self._new_fold(folded)
        if new is None:
            return None
        try:
            record = await turn.commit(
                lambda lease: turn.kit.store.append_fold(lease, new, at_seq=turn.window.next_seq)
            )
        except PowerLoopError as error:
            self._failed(error.code, error.message)
            raise
        if turn.purse is not None:
            turn.purse.paid(new.charges)
        turn.window.take_fold(record)
        if new.usage is not None:
            turn.count(new.usage, new.cost_nanos)
        if new.tool_state is not None:
            turn.window.tool_state = new.tool_state
            turn.tool_state = SessionState(new.tool_state)
        turn.announce(
            FoldFinished(
                record.from_seq,
                record.to_seq,
                record.strategy,
                record.tokens_before,
                record.tokens_after,
                record.model_calls,
                record.usage,
                turn.kit.clock.monotonic_s() - began_s,
            )
        )
        return record

    async def _is_allowed(self) -> bool:
        turn, plan = self._turn, self._plan
        if not turn.kit.hooks.has(HookPoint.FOLD_BEFORE):
            return True
        context: FoldBeforeContext = turn.context_of(
            FoldBeforeContext, to_seq=plan.to_seq, messages=plan.messages, tokens=self._room.tokens
        )
        try:
            decision = (await turn.consult(context)).decision
        except HookError as error:
            self._failed(error.code, error.message)
            return False
        if isinstance(decision, Veto):
            self._failed("vetoed", decision.reason)
            return False
        return True

    async def _folded(self) -> Any:
        """Return what the strategy makes of the task; `_NOTHING`, announced and paid for, where it fails.

        Raises what kept the store from writing down what pays for it, as for a call of the turn's own.
        """
        turn, within_s = self._turn, self._settings.timeout_s
        try:
            return await turn.scope.interruptible(_called(self._strategy, self._task()), within_s=within_s)
        except TurnStopped:
            self._failed("cancelled", turn.scope.reason)
            raise
        except TookTooLong:
            self._failed("llm.timeout", f"it took longer than the {within_s:g} s of Compaction(timeout_s=...)")
        except StrayExit as error:
            self._failed("internal", str(error))
        except PowerLoopError as error:
            self._failed(error.code, error.message)
        except Exception as error:  # a user's own strategy may raise anything
            self._failed("internal", said(error))
        finally:
            self._meter.is_over = True
        if self._meter.failure is not None:
            raise self._meter.failure
        return _NOTHING

    def _tell(self, message: object) -> None:
        if not self._meter.is_over:
            self._turn.announce(FoldProgressed(str(message)[:_MAX_MESSAGE_CHARS]))

    def _task(self) -> FoldTask:
        turn, plan, meter = self._turn, self._plan, self._meter
        fold = turn.window.fold
        return FoldTask(
            session_id=turn.session_id,
            messages=plan.messages,
            from_seq=turn.window.first_seq,
            to_seq=plan.to_seq,
            max_summary_tokens=plan.max_summary_tokens,
            llm=LentModel(turn, turn.kit.llm, meter),
            previous_summary=None if fold is None else fold_texts.inputs_of(fold.summary)[0],
            pinned=tuple([entry.message for entry in plan.pinned]),
            metadata=turn.metadata,
            tool_state=json.loads(json.dumps(dict(turn.window.tool_state))),
            tell=self._tell,
            with_retries=lambda llm: LentModel(turn, llm, meter),
        )

    def _new_fold(self, folded: Any) -> NewFold | None:
        """Return the fold to be stored; None, announced, where what the strategy gave is none."""
        turn, plan = self._turn, self._plan
        problem = _problem_of(folded)
        if problem is not None:
            self._failed("internal", f"the strategy gave {problem}: give Folded(summary)")
            return None
        state = None
        if folded.tool_state is not None:
            try:
                state = json_object_of(folded.tool_state)[1]
            except (ValueError, AttributeError) as error:
                self._failed("internal", f"Folded.tool_state: {error}")
                return None
        summary = shorten_to_tokens(folded.summary.strip(), plan.max_summary_tokens, fate=fold_texts.CUT_SUMMARY)
        summary = fold_texts.with_inputs(summary, self._shown_inputs())
        tokens_after = estimate_message(shown_fold(summary, plan.to_seq)) + plan.kept_tokens + self._room.beside
        if tokens_after >= self._room.tokens:
            self._failed("no_gain", "the summary takes more than what it stands for")
            return None
        usage = self._meter.usage if self._meter.calls else folded.usage
        text_seq = turn.text_seq if turn.text_seq is not None and turn.text_seq <= plan.to_seq else None
        refused, refused_by = self._refusal()
        return NewFold(
            to_seq=plan.to_seq,
            summary=summary,
            send_index=turn.send_index,
            round=turn.round,
            strategy=self._name,
            pinned_seqs=tuple([entry.seq for entry in plan.pinned]),
            model=folded.model if isinstance(folded.model, str) else None,
            model_calls=self._meter.calls or folded.model_calls,
            usage=usage,
            tokens_before=self._room.tokens,
            tokens_after=tokens_after,
            refused_tokens=refused,
            refused_by=refused_by,
            text_seq=text_seq,
            tool_state=state,
            cost_nanos=self._meter.cost_nanos,
            charges=() if turn.purse is None else turn.purse.owed,
        )

    def _shown_inputs(self) -> str:
        """Return the inputs that are too big to be pinned, each as much of it as its share of the room allows, behind
        those that an earlier fold of this send shows."""
        turn, plan = self._turn, self._plan
        fold = turn.window.fold
        is_same_send = fold is not None and fold.send_index == turn.send_index
        before = fold_texts.inputs_of(fold.summary)[1] if fold is not None and is_same_send else ""
        each = plan.max_summary_tokens // 2
        inputs = plan.too_big[-1:] if before else plan.too_big
        shown = [before] if before else []
        shown += [shorten_to_tokens(message_text(one), each, fate=fold_texts.CUT_INPUT) for one in inputs]
        return shorten_to_tokens("\n\n".join(shown), 2 * each, fate=fold_texts.CUT_INPUT)

    def _refusal(self) -> tuple[int | None, str | None]:
        """Return the smallest prompt that the loop's model is known to have refused, and the model."""
        model, fold = self._turn.kit.llm.info.model, self._turn.window.fold
        known = [self._refused_tokens] if self._refused_tokens is not None else []
        if fold is not None and fold.refused_tokens is not None and fold.refused_by == model:
            known.append(fold.refused_tokens)
        return (min(known), model) if known else (None, None)

    def _failed(self, code: str, message: str) -> None:
        turn = self._turn
        if self._meter.calls:
            turn.count_dropped(self._meter.usage, self._meter.cost_nanos)
        turn.announce(FoldFailed(self._name, code, message[:_MAX_MESSAGE_CHARS]))


async def _called(strategy: FoldStrategy, task: FoldTask) -> Any:
    # A call that raises at once is no different from one that raises later.
    return await strategy.fold(task)


def _problem_of(given: Any) -> str | None:
    if not isinstance(given, Folded):
        return f"a {type(given).__name__}"
    summary: Any = given.summary
    if not isinstance(summary, str) or not summary.strip():
        return "no summary"
    if not is_count(given.model_calls):
        return f"model_calls {given.model_calls!r:.200}"
    return None if given.usage is None else usage_problem(given.usage)


# ---- how the prompt stands ----


def room_of(turn: Turn, *, refused_tokens: int | None = None) -> int:
    """Return about how many tokens the next prompt may have, as far as is known.

    `refused_tokens` is the smallest prompt that was refused in this turn (default: the one that the turn remembers).
    """
    info, cap = turn.kit.llm.info, turn.output_cap
    refused = turn.refused_tokens if refused_tokens is None else refused_tokens
    return prompt_room(turn.window, info, info.max_output_tokens if cap is None else cap, refused_tokens=refused)


def _message_tokens(turn: Turn) -> int:
    """About how many tokens the messages of the next prompt take, those of an unstored reply included."""
    tokens = turn.window.transcript.tokens
    if turn.reply is None:
        return tokens
    unstored: list[Message] = [turn.reply.message, *turn.reply.answers.values()]
    return tokens + sum(map(estimate_message, unstored))


def _beside(turn: Turn, *, with_live: bool = True) -> int:
    info, options = turn.kit.llm.info, turn.options
    tokens = tokens_beside(
        turn.window,
        info=info,
        tools=turn.tools.specs() if info.has_tools else (),
        system_prompt=turn.system_prompt,
        output_schema=options.output_schema,
    )
    if with_live:
        tokens += sum(estimate_text(live.text) for live in live_texts(turn))
    if turn.kit.memory is not None and not turn.has_recalled:
        tokens += turn.kit.memory_use.max_tokens
    return tokens
