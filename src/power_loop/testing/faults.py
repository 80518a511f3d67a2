"""Is a model that fails as it is told to: whichever model stands behind it, at the calls that a plan names."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from types import TracebackType
from typing import Any

from power_loop import LLMDelta, LLMRequest, LLMResponse, LLMService, Message, StopReason
from power_loop.errors import ConfigError, LLMConnectionError
from power_loop.llm import DeltaKind, Emit, ModelInfo
from power_loop.messages import Role, ToolCallPart
from power_loop.testing.cassette import content_of_request
from power_loop.testing.traffic import error_class
from power_loop.timers import Clock, SystemClock
from power_loop.tools import choice_of


class FaultKind(str, Enum):
    """Is what goes wrong with a call of a model."""

    ERROR = "error"  # it fails with `code`, and no model is asked
    CUT = "cut"  # the stream is cut after so many `pieces`
    DELAY = "delay"  # it begins `seconds` later
    HANG = "hang"  # no answer ever comes
    EMPTY = "empty"  # the reply says nothing
    GARBLED_ARGUMENTS = "garbled_arguments"  # the arguments of its tool calls end in the middle
    DOUBLED_IDS = "doubled_ids"  # its tool calls have one id, that of an earlier call if there is one
    NO_USAGE = "no_usage"  # the provider does not say what it cost


_OF_REPLIES = frozenset({FaultKind.EMPTY, FaultKind.GARBLED_ARGUMENTS, FaultKind.DOUBLED_IDS, FaultKind.NO_USAGE})
# A hang ends only by being cancelled.
_PASSING = tuple(kind for kind in FaultKind if kind is not FaultKind.HANG)
_CODES = ("llm.rate_limited", "llm.overloaded", "llm.timeout", "llm.server", "llm.connection", "llm.protocol")


@dataclass(frozen=True)
class Fault:
    """Is one thing that goes wrong at call `at` of a model, counted from 1.

    `code` is that of an error, `retry_after_s` how long its provider asks to wait, `pieces` how many pieces come before
    a cut, `seconds` how long a delay is. Raises `config.invalid`.
    """

    at: int
    kind: FaultKind | str
    code: str = "llm.server"
    retry_after_s: float | None = None
    pieces: int = 1
    seconds: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", choice_of(FaultKind, self.kind, "the kind of a fault"))
        at: Any = self.at
        if not isinstance(at, int) or at < 1:
            raise ConfigError(f"a fault is at call {self.at!r:.200}: calls of a model are counted from 1")
        try:
            error_class(self.code)
        except KeyError as error:
            raise ConfigError(f"no failure of a model has the code {self.code!r:.200}: give one of llm.*") from error

    def __str__(self) -> str:
        more = {
            FaultKind.ERROR: f" {self.code}",
            FaultKind.CUT: f" after {self.pieces} pieces",
            FaultKind.DELAY: f" of {self.seconds:g} s",
        }
        kind = FaultKind(self.kind)
        return f"call {self.at}: {kind.value}{more.get(kind, '')}"


def random_faults(
    seed: int, *, calls: int = 20, share: float = 0.3, kinds: Iterable[FaultKind | str] = _PASSING
) -> tuple[Fault, ...]:
    """Return the faults that a seed draws for so many calls of a model: about this `share` of them goes wrong.

    Calls are counted as they are made, those that try again included. A hang ends only by being cancelled, so that it
    is drawn only if `kinds` has it.
    """
    dice = random.Random(seed)
    among = [FaultKind(one) for one in kinds]
    return tuple(_drawn(dice, at, among) for at in range(1, calls + 1) if dice.random() < share)


def _drawn(dice: random.Random, at: int, among: Sequence[FaultKind]) -> Fault:
    return Fault(
        at,
        dice.choice(among),
        code=dice.choice(_CODES),
        retry_after_s=dice.choice([None, 0.5]),
        pieces=dice.randrange(4),
        seconds=dice.choice([0.1, 1.0, 10.0]),
    )


class FaultyLLM:
    """Asks the model behind it, and spoils what comes of it where a fault says so.

        llm = FaultyLLM(ScriptedLLM(["Hello."]), [Fault(1, "error", code="llm.overloaded"), Fault(2, "cut")])

    A number in place of the faults is a seed: `random_faults` draws them. Used with `with`, it says on stderr what was
    injected if the block fails, the seed included. A reply of which the stream was cut is not lost: whoever asks the
    same again gets it, so that a script goes on where it was. Delays are those of `clock`. `fired` holds the faults
    that had their effect; one that finds nothing to spoil, such as arguments in a reply without calls, is not among
    them.
    """

    def __init__(self, llm: LLMService, faults: Iterable[Fault] | int, *, clock: Clock | None = None) -> None:
        self._llm = llm
        self._clock = clock or SystemClock()
        self._kept: dict[str, tuple[list[LLMDelta], LLMResponse]] = {}
        #: What the faults were drawn with, if they were.
        self.seed = faults if isinstance(faults, int) else None
        #: The faults, and those of them that had their effect so far.
        self.faults: tuple[Fault, ...] = random_faults(faults) if isinstance(faults, int) else tuple(faults)
        self.fired: list[Fault] = []
        #: How often it was asked.
        self.asked = 0

    @property
    def info(self) -> ModelInfo:
        """What the model behind it is."""
        return self._llm.info

    async def generate(self, request: LLMRequest, emit: Emit) -> LLMResponse:
        """Ask the model, or fail."""
        self.asked += 1
        faults = [one for one in self.faults if one.at == self.asked]
        for fault in faults:
            await self._fail_before(fault)
        cut = next((one for one in faults if one.kind is FaultKind.CUT), None)
        spoils = [one for one in faults if one.kind in _OF_REPLIES]
        heard: list[LLMDelta] = []
        limit = 0 if spoils else cut.pieces if cut is not None else sys.maxsize

        def hear(delta: LLMDelta) -> None:
            if len(heard) < limit:
                emit(delta)
            heard.append(delta)

        response = await self._ask(request, hear)
        if spoils:
            heard, response = self._spoiled(spoils, request, heard, response)
            for delta in heard[: cut.pieces if cut is not None else None]:
                emit(delta)
        if cut is not None:
            self._kept[content_of_request(request)] = (heard, response)
            self.fired.append(cut)
            raise LLMConnectionError(f"the stream was cut ({self._why(cut)})", model=self.info.model)
        return response

    def __enter__(self) -> FaultyLLM:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            seed = "" if self.seed is None else f"seed {self.seed}: "
            fired = "; ".join(map(str, self.fired)) or "none"
            sys.stderr.write(f"faults of the model, {seed}{fired}\n")

    async def _fail_before(self, fault: Fault) -> None:
        if fault.kind is FaultKind.DELAY:
            self.fired.append(fault)
            await self._clock.sleep(fault.seconds)
        elif fault.kind is FaultKind.HANG:
            self.fired.append(fault)
            await asyncio.get_running_loop().create_future()
        elif fault.kind is FaultKind.ERROR:
            self.fired.append(fault)
            raise error_class(fault.code)(
                f"the model fails ({self._why(fault)})", model=self.info.model, retry_after_s=fault.retry_after_s
            )

    async def _ask(self, request: LLMRequest, hear: Emit) -> LLMResponse:
        kept = self._kept.pop(content_of_request(request), None) if self._kept else None
        if kept is None:
            return await self._llm.generate(request, hear)
        heard, response = kept
        for delta in heard:
            hear(delta)
        return response

    def _spoiled(
        self, spoils: Sequence[Fault], request: LLMRequest, heard: list[LLMDelta], response: LLMResponse
    ) -> tuple[list[LLMDelta], LLMResponse]:
        for fault in spoils:
            spoiled = _SPOILERS[FaultKind(fault.kind)](response, request)
            if spoiled != response:
                self.fired.append(fault)
                response = spoiled
        # What streams is what the reply says.
        if not response.message.parts:
            return [], response
        said = [delta for delta in heard if delta.kind is not DeltaKind.TOOL_CALL]
        calls = response.message.tool_calls
        said += [LLMDelta(DeltaKind.TOOL_CALL, one.arguments, at, one.name) for at, one in enumerate(calls)]
        return said, response

    def _why(self, fault: Fault) -> str:
        return f"a fault at {fault}" + ("" if self.seed is None else f", seed {self.seed}")


def _emptied(response: LLMResponse, request: LLMRequest) -> LLMResponse:
    return replace(response, message=Message(Role.ASSISTANT, ()), stop=StopReason.END)


def _garbled(response: LLMResponse, request: LLMRequest) -> LLMResponse:
    # Of one character nothing is left; what is no JSON even so is a brace.
    return _with_calls(
        response, lambda call: replace(call, arguments=call.arguments[: len(call.arguments) // 2] or "{")
    )


def _doubled(response: LLMResponse, request: LLMRequest) -> LLMResponse:
    earlier = [call.id for message in request.messages for call in message.tool_calls]
    ids = [*earlier[-1:], *(call.id for call in response.message.tool_calls)]
    one = next(filter(None, ids), "call_1")
    return _with_calls(response, lambda call: replace(call, id=one))


def _with_calls(response: LLMResponse, change: Callable[[ToolCallPart], ToolCallPart]) -> LLMResponse:
    parts = tuple(change(part) if isinstance(part, ToolCallPart) else part for part in response.message.parts)
    return replace(response, message=replace(response.message, parts=parts, memo={}))


def _uncounted(response: LLMResponse, request: LLMRequest) -> LLMResponse:
    return replace(response, usage=None)


_SPOILERS = {
    FaultKind.EMPTY: _emptied,
    FaultKind.GARBLED_ARGUMENTS: _garbled,
    FaultKind.DOUBLED_IDS: _doubled,
    FaultKind.NO_USAGE: _uncounted,
}
