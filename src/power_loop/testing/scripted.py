"""Is a model that says what a script tells it, in this process and at once."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from power_loop import LLMDelta, LLMRequest, LLMResponse, TextPart, Usage
from power_loop.llm import DeltaKind, Emit, ModelInfo
from power_loop.messages import ToolCallPart

#: What a step may be: text to say, a reply, an error to raise, or a function of the request that gives one of these.
Step = str | LLMResponse | BaseException | Callable[[LLMRequest], Any]

_USAGE = Usage(input_tokens=10, output_tokens=5)


class ScriptedLLM:
    """Answers each call with the next step of its script, and keeps the requests.

        llm = ScriptedLLM([call("add", {"a": 1, "b": 2}), "Three."])

    A step that is a function gets the request, may be async, and gives the step to take. Text streams word by word.
    When the script is used up the call fails with an AssertionError, which says so; with `repeat_last` the last step is
    taken again.
    """

    def __init__(self, steps: Iterable[Step] = (), *, info: ModelInfo | None = None, repeat_last: bool = False) -> None:
        self._steps = list(steps)
        self._info = info or ModelInfo(provider="scripted", model="scripted", has_json_schema=True)
        self._repeat_last = repeat_last
        self._taken = 0
        #: The requests in order.
        self.requests: list[LLMRequest] = []

    @property
    def info(self) -> ModelInfo:
        """What it pretends to be."""
        return self._info

    @property
    def steps_left(self) -> int:
        """How many steps have not been taken."""
        return max(len(self._steps) - self._taken, 0)

    def add(self, *steps: Step) -> None:
        """Add steps behind the others."""
        self._steps += steps

    async def generate(self, request: LLMRequest, emit: Emit) -> LLMResponse:
        """Take the next step."""
        self.requests.append(request)
        # Lets other tasks run, as a model over a wire does.
        await asyncio.sleep(0)
        step = self._next()
        while callable(step):
            given = step(request)
            step = await given if inspect.isawaitable(given) else given
        if isinstance(step, BaseException):
            raise step
        response = LLMResponse.of_text(step, usage=_USAGE) if isinstance(step, str) else step
        _stream(response, emit)
        return response

    def _next(self) -> Any:
        at = self._taken
        self._taken += 1
        if at < len(self._steps):
            return self._steps[at]
        if self._repeat_last and self._steps:
            return self._steps[-1]
        raise AssertionError(f"the script of {len(self._steps)} steps is used up, and the model is called once more")


def call(name: str, arguments: Mapping[str, Any] | str | None = None, *, id: str = "", text: str = "") -> LLMResponse:
    """Return a reply that calls one tool; `arguments` may be raw text, valid or not."""
    return calls((name, arguments or {}), ids=(id,), text=text)


def calls(
    *wanted: tuple[str, Mapping[str, Any] | str], ids: Iterable[str] = (), text: str = "", usage: Usage | None = _USAGE
) -> LLMResponse:
    """Return a reply that calls several tools, after some `text` if there is any."""
    given = list(ids)
    parts = []
    for index, (name, arguments) in enumerate(wanted):
        raw = arguments if isinstance(arguments, str) else json.dumps(arguments)
        parts.append(ToolCallPart(given[index] if index < len(given) else "", name, raw))
    return LLMResponse.of_calls(*parts, text=text, usage=usage)


def _stream(response: LLMResponse, emit: Emit) -> None:
    """Emit the text of a reply word by word."""
    for part in response.message.parts:
        if isinstance(part, TextPart):
            for index, word in enumerate(part.text.split(" ")):
                emit(LLMDelta(DeltaKind.TEXT, f" {word}" if index else word))
