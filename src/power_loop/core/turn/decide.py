"""Decides what a turn does next: the same facts always give the same action. No await, no clock, no I/O."""

from __future__ import annotations

from enum import Enum

from power_loop.contracts.frozen import frozen
from power_loop.contracts.llm import StopReason
from power_loop.contracts.states import SendStatus


class OutputCheck(Enum):
    """Is how a reply stands to the send's `output_schema`."""

    NONE = "none"  # no schema was asked for
    VALID = "valid"
    REPAIRABLE = "repairable"  # it does not fit, and the model may be asked again
    INVALID = "invalid"  # it does not fit, and the repairs are used up


@frozen
class ReplyFacts:
    """Is what matters of a reply that is about to be stored; `concludes` is the status that a concluding reply ends
    with."""

    stop: StopReason
    has_calls: bool
    has_text: bool
    output: OutputCheck = OutputCheck.NONE
    concludes: SendStatus | None = None


@frozen
class TurnFacts:
    """Is everything that the decision depends on.

    `runnable_calls` and `waiting_calls` count the open calls; `rounds_left`, `tool_calls_left` and `tokens_left` what
    the send's limits still allow (`tool_calls_left` is negative once a call was refused for them). `stopped` is set
    once the turn was told to stop: cancelled, or out of time. `has_follow_up` tells that an input waits in the inbox
    which a turn takes in. `exhausted` is set once a budget did not pay for a model call. `reply` is a reply that is not
    stored yet. `window_is_full` tells that the next prompt would take more than its share of the model's context, and
    that a fold may help.
    """

    runnable_calls: int = 0
    waiting_calls: int = 0
    rounds_left: int = 1
    tool_calls_left: int = 1
    tokens_left: int = 1
    stopped: SendStatus | None = None
    has_follow_up: bool = False
    exhausted: SendStatus | None = None
    reply: ReplyFacts | None = None
    window_is_full: bool = False


@frozen
class CallModel:
    """Ask the model for the next reply."""


@frozen
class Conclude:
    """Ask the model for one last reply without tools; the send ends with it as `status`."""

    status: SendStatus


@frozen
class Fold:
    """Store the reply if there is one, and fold the older part of the conversation before the model is asked."""


@frozen
class RunTools:
    """Run the open calls that wait for nobody."""


@frozen
class TakeInput:
    """Store the reply if there is one, and move what waits in the inbox into the log."""


@frozen
class AskAgain:
    """Store the reply, tell the model what is wrong with it, and go on."""


@frozen
class Abort:
    """Settle the open calls without running them and end the send."""

    status: SendStatus


@frozen
class Finish:
    """Bring the send to rest."""

    status: SendStatus


Action = CallModel | Conclude | Fold | RunTools | TakeInput | AskAgain | Abort | Finish


def decide(facts: TurnFacts) -> Action:
    """Return the one next action."""
    if facts.stopped is not None:
        return Abort(facts.stopped)
    if facts.runnable_calls:
        return RunTools()
    if facts.waiting_calls:
        return Finish(SendStatus.WAITING_FOR_INPUT)
    if facts.has_follow_up and _can_answer(facts):
        return TakeInput()
    if facts.reply is not None:
        ending = ending_of(facts.reply)
        if ending is not None:
            return Finish(ending)
        if facts.reply.output is OutputCheck.REPAIRABLE and not facts.reply.has_calls:
            return AskAgain()
    if facts.exhausted is not None:
        return Finish(facts.exhausted)
    if facts.tokens_left <= 0:
        return Finish(SendStatus.TOKENS_EXCEEDED)
    if facts.window_is_full:
        return Fold()
    if facts.tool_calls_left < 0:
        return Conclude(SendStatus.TOOL_CALLS_EXCEEDED)
    if facts.rounds_left <= 0:
        return Conclude(SendStatus.ROUNDS_EXCEEDED)
    return CallModel()


def _can_answer(facts: TurnFacts) -> bool:
    """Tell whether the send may still ask the model: an input that it could not answer is left to the next turn."""
    if facts.exhausted is not None or (facts.reply is not None and facts.reply.concludes is not None):
        return False
    return facts.tokens_left > 0 and facts.tool_calls_left >= 0 and facts.rounds_left > 0


#: How a reply without calls ends its send, by why the model stopped.
_ENDINGS = {
    StopReason.REFUSAL: SendStatus.REFUSED,
    StopReason.CONTENT_FILTER: SendStatus.CONTENT_FILTERED,
    StopReason.LENGTH: SendStatus.TRUNCATED,
    StopReason.CONTEXT_FULL: SendStatus.TRUNCATED,
}


def ending_of(reply: ReplyFacts) -> SendStatus | None:
    """Return the status with which a reply ends its send, or None if the turn goes on."""
    if reply.concludes is not None:
        return reply.concludes
    if reply.has_calls or reply.stop is StopReason.PAUSE:
        return None
    if reply.stop in _ENDINGS:
        return _ENDINGS[reply.stop]
    if reply.output is OutputCheck.REPAIRABLE:
        return None
    if reply.output is OutputCheck.INVALID:
        return SendStatus.OUTPUT_INVALID
    if not reply.has_text:
        return SendStatus.EMPTY
    return SendStatus.COMPLETED
