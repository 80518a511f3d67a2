"""Says what is measured of a run: which metrics there are, and what each event adds to them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

from power_loop import AgentEvent, Usage
from power_loop.events import (
    BudgetExceeded,
    FoldFailed,
    FoldFinished,
    LLMCallFailed,
    LLMCallFinished,
    LLMCallStarted,
    SendFailed,
    SendFinished,
    SendStarted,
    ToolCallFinished,
    ToolCallWaiting,
)

#: How many values a label may have; all further ones are told as `other`.
DEFAULT_MAX_LABEL_VALUES = 100
OTHER = "other"
# Turns and calls that are under way at once, in one process; those beyond are not timed.
_MAX_OPEN = 10_000

# The boundaries that the OpenTelemetry conventions for generative AI ask for.
_TOKEN_BUCKETS = tuple(4.0**power for power in range(14))
_SECOND_BUCKETS = tuple(0.01 * 2**power for power in range(14))


class MetricKind(str, Enum):
    """Is how the values of a metric add up: as a sum, or as how many there were of each size."""

    COUNTER = "counter"
    HISTOGRAM = "histogram"


class Metric:
    """Is one metric: its name by the OpenTelemetry conventions, its unit (`s`, or what is counted in braces), what it
    says, its labels, and for a histogram its boundaries."""

    __slots__ = ("buckets", "description", "kind", "labels", "name", "unit")

    def __init__(
        self, name: str, kind: MetricKind, unit: str, description: str, labels: tuple[str, ...], *, buckets: Any = ()
    ) -> None:
        self.name = name
        self.kind = kind
        self.unit = unit
        self.description = description
        self.labels = labels
        self.buckets: tuple[float, ...] = buckets

    def __repr__(self) -> str:
        return f"Metric({self.name!r})"


_OPERATION = "gen_ai.operation.name"
_PROVIDER = "gen_ai.provider.name"
_MODEL = "gen_ai.request.model"
_TOKEN_TYPE = "gen_ai.token.type"
_TOOL = "gen_ai.tool.name"
_ERROR = "error.type"

TOKEN_USAGE = Metric(
    "gen_ai.client.token.usage",
    MetricKind.HISTOGRAM,
    "{token}",
    "Tokens of a model call, those of its prompt and those of its reply.",
    (_OPERATION, _PROVIDER, _MODEL, _TOKEN_TYPE),
    buckets=_TOKEN_BUCKETS,
)
OPERATION_DURATION = Metric(
    "gen_ai.client.operation.duration",
    MetricKind.HISTOGRAM,
    "s",
    "Seconds that a model call (chat), a tool call (execute_tool) or a turn (invoke_agent) took.",
    (_OPERATION, _PROVIDER, _MODEL, _TOOL, _ERROR),
    buckets=_SECOND_BUCKETS,
)
SENDS = Metric("power_loop.sends", MetricKind.COUNTER, "{send}", "Turns that came to rest.", ("status",))
TOOL_CALLS = Metric(
    "power_loop.tool.calls", MetricKind.COUNTER, "{call}", "Tool calls that were settled.", (_TOOL, "state")
)
TOOL_WAITS = Metric(
    "power_loop.tool.waits", MetricKind.COUNTER, "{call}", "Tool calls that waited for an answer.", (_TOOL,)
)
RETRIES = Metric(
    "power_loop.llm.retries", MetricKind.COUNTER, "{attempt}", "Model calls that were tried again.", (_MODEL, _ERROR)
)
FOLDS = Metric("power_loop.folds", MetricKind.COUNTER, "{fold}", "Folds of a conversation.", ("strategy", _ERROR))
BUDGETS = Metric(
    "power_loop.budget.exceeded", MetricKind.COUNTER, "{call}", "Model calls that no budget paid for.", ("limit",)
)
METRICS = (TOKEN_USAGE, OPERATION_DURATION, SENDS, TOOL_CALLS, TOOL_WAITS, RETRIES, FOLDS, BUDGETS)

#: The events that anything is measured of.
MEASURED = (
    SendStarted,
    SendFinished,
    SendFailed,
    LLMCallStarted,
    LLMCallFinished,
    LLMCallFailed,
    ToolCallFinished,
    ToolCallWaiting,
    FoldFinished,
    FoldFailed,
    BudgetExceeded,
)

Measured = tuple[Metric, float, dict[str, str]]


class Measures:
    """Turns events into measured values. It remembers what is under way, and which values its labels have had."""

    def __init__(self, *, max_label_values: int = DEFAULT_MAX_LABEL_VALUES) -> None:
        self._max_label_values = max_label_values
        self._known: dict[str, set[str]] = {}
        self._sends: OrderedDict[str, float] = OrderedDict()
        self._calls: OrderedDict[str, tuple[float, str]] = OrderedDict()

    def of(self, event: AgentEvent) -> Iterator[Measured]:
        """Give what an event adds, with every label of its metric; one that says nothing is empty."""
        for metric, value, labels in self._of(event):
            yield metric, value, {name: self._bounded(name, labels.get(name, "")) for name in metric.labels}

    def _of(self, event: AgentEvent) -> Iterator[tuple[Metric, float, Mapping[str, str]]]:
        sid = event.session_id
        match event.payload:
            case SendStarted():
                _remember(self._sends, sid, event.monotonic_s)
            case SendFinished(result=result):
                yield SENDS, 1, {"status": result.status.value}
                yield from self._turn(event, "")
            case SendFailed(code=code):
                yield SENDS, 1, {"status": "error"}
                yield from self._turn(event, code)
            case LLMCallStarted() as call:
                _remember(self._calls, sid, (event.monotonic_s, call.provider))
            case LLMCallFinished() as call:
                _, provider = self._calls.pop(sid, (0.0, ""))
                yield from _model_call(call.model, provider, call.duration_s, call.usage)
            case LLMCallFailed() as call:
                began_s, provider = self._calls.pop(sid, (event.monotonic_s, ""))
                labels = {_OPERATION: "chat", _PROVIDER: provider, _MODEL: call.model, _ERROR: call.code}
                yield OPERATION_DURATION, event.monotonic_s - began_s, labels
                if call.retry_in_s is not None:
                    yield RETRIES, 1, labels
            case ToolCallFinished() as call:
                labels = {_OPERATION: "execute_tool", _TOOL: call.name, "state": call.state}
                yield TOOL_CALLS, 1, labels
                yield OPERATION_DURATION, call.duration_s, {**labels, _ERROR: "tool.error" if call.is_error else ""}
            case ToolCallWaiting(name=name):
                yield TOOL_WAITS, 1, {_TOOL: name}
            case FoldFinished(strategy=strategy):
                yield FOLDS, 1, {"strategy": strategy}
            case FoldFailed(strategy=strategy, code=code):
                yield FOLDS, 1, {"strategy": strategy, _ERROR: code}
            case BudgetExceeded(name=name):
                yield BUDGETS, 1, {"limit": name}
            case _:
                pass

    def _turn(self, event: AgentEvent, error: str) -> Iterator[tuple[Metric, float, Mapping[str, str]]]:
        self._calls.pop(event.session_id, None)
        began_s = self._sends.pop(event.session_id, None)
        if began_s is not None:
            yield OPERATION_DURATION, event.monotonic_s - began_s, {_OPERATION: "invoke_agent", _ERROR: error}

    def _bounded(self, name: str, value: str) -> str:
        """Return a label's value, or `other` where the label has had too many."""
        known = self._known.setdefault(name, set())
        if value in known or not value:
            return value
        if len(known) >= self._max_label_values:
            return OTHER
        known.add(value)
        return value


def _model_call(
    model: str, provider: str, duration_s: float, usage: Usage | None
) -> Iterator[tuple[Metric, float, Mapping[str, str]]]:
    labels = {_OPERATION: "chat", _PROVIDER: provider, _MODEL: model}
    yield OPERATION_DURATION, duration_s, labels
    if usage is not None:
        yield TOKEN_USAGE, usage.input_tokens, {**labels, _TOKEN_TYPE: "input"}
        yield TOKEN_USAGE, usage.output_tokens, {**labels, _TOKEN_TYPE: "output"}


def _remember(known: OrderedDict[str, Any], key: str, value: Any) -> None:
    known[key] = value
    known.move_to_end(key)
    if len(known) > _MAX_OPEN:
        known.popitem(last=False)
