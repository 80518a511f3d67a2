"""Tells OpenTelemetry of runs: spans and metrics by its conventions for generative AI."""

from __future__ import annotations

import inspect
import json
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, TypeVar

from power_loop import AgentEvent, AgentEventBus, Message, __version__
from power_loop.contrib.event_values import shortened
from power_loop.contrib.gen_ai_messages import gen_ai_message
from power_loop.contrib.measures import DEFAULT_MAX_LABEL_VALUES, MEASURED, METRICS, Measures, Metric, MetricKind
from power_loop.contrib.sinks import DEFAULT_MAX_QUEUE, Sink
from power_loop.errors import MissingExtraError
from power_loop.events import (
    AgentStarted,
    LLMCallFailed,
    LLMCallFinished,
    LLMCallStarted,
    MessageAppended,
    Redaction,
    SendFailed,
    SendFinished,
    SendStarted,
    ToolCallFinished,
    ToolCallStarted,
    ToolCallWaiting,
    WorkflowRunStarted,
)
from power_loop.messages import Role

#: What a text of content may have; collectors refuse long attributes.
DEFAULT_MAX_CHARS = 8_000
# Sessions and calls of which a span is open, or under which one may still begin.
_MAX_KNOWN = 10_000
_NS_PER_MS = 1_000_000
_NS_PER_S = 1_000_000_000

_TRACED = (AgentStarted, MessageAppended, ToolCallStarted, WorkflowRunStarted)

T = TypeVar("T")


class _Open:
    """Is a span that is not over: what it is parent of takes its `context`, and its clock, which no step of the wall
    clock disturbs."""

    __slots__ = ("context", "ended_ns", "new", "offset_ns", "span")

    def __init__(self, span: Any, context: Any, offset_ns: int) -> None:
        self.span = span
        self.context = context
        self.offset_ns = offset_ns
        self.ended_ns: int | None = None
        # Messages that were appended since the last model call of the turn.
        self.new: list[Message] = []


class OTelSink(Sink):
    """Is the sink that `attach_otel_sink` returns."""

    def __init__(
        self,
        bus: AgentEventBus,
        api: Any,
        *,
        tracer: Any,
        metrics: OTelBackend | None,
        content: bool,
        redaction: Redaction,
        max_chars: int,
        **more: Any,
    ) -> None:
        """Take the events of `bus`; `attach_otel_sink` says what the rest is."""
        self._api = api
        self._tracer = tracer
        self._metrics = metrics
        self._measures = Measures(max_label_values=DEFAULT_MAX_LABEL_VALUES)
        self._has_content = content
        self._redaction = redaction
        self._max_chars = max_chars
        self._turns: OrderedDict[str, _Open] = OrderedDict()
        self._chats: OrderedDict[str, _Open] = OrderedDict()
        self._calls: OrderedDict[tuple[str, str], _Open] = OrderedDict()
        # Under which call a sub-agent works, also when that is over: a detached one goes on.
        self._above: OrderedDict[str, _Open] = OrderedDict()
        self._names: OrderedDict[str, str] = OrderedDict()
        self._around: OrderedDict[int, Any] = OrderedDict()
        # The span of the application, under which a turn belongs, is known where the event is emitted and nowhere else.
        self._inline = bus.subscribe(
            self._note_around,
            types=[SendStarted, WorkflowRunStarted],
            session_id=more.get("session_id"),
            name="otel:context",
        )
        super().__init__(bus, name="otel", types={*_TRACED, *MEASURED}, **more)

    def close(self) -> None:
        """End it, and with it the spans that are open."""
        super().close()
        self._inline.unsubscribe()
        for known in (self._chats, self._calls, self._turns):
            while known:
                known.popitem()[1].span.end()

    def take(self, event: AgentEvent) -> None:
        """Open, describe or end a span, and record what the event adds to the metrics."""
        self._trace(event)
        if self._metrics is not None:
            for metric, value, labels in self._measures.of(event):
                self._metrics.record(metric, value, labels)

    # ---- spans ----

    def _trace(self, event: AgentEvent) -> None:
        sid = event.session_id
        if not isinstance(event.payload, MessageAppended):
            self._end_answered(sid)
        match event.payload:
            case SendStarted(is_resume=is_resume):
                self._begin_turn(event, "invoke_agent", self._names.get(sid), is_resume=is_resume)
            case WorkflowRunStarted(name=name, is_resume=is_resume):
                self._begin_turn(event, "invoke_workflow", name, is_resume=is_resume)
            case SendFinished(result=result):
                said = {"power_loop.send.status": result.status.value, **_usage(result.usage)}
                self._end_turn(event, said, output=result.final_text)
            case SendFailed(code=code, message=message):
                self._end_turn(event, {}, error=(code, message))
            case LLMCallStarted() as call:
                self._begin_chat(event, call)
            case LLMCallFinished() as call:
                self._finish_chat(event, call)
            case LLMCallFailed() as call:
                chat = self._chats.pop(sid, None)
                if chat is not None:
                    self._end(chat, event, error=(call.code, call.message))
            case ToolCallStarted() as call:
                self._begin_call(event, call)
            case ToolCallFinished() as call:
                error = ("tool.error", call.state) if call.is_error else None
                self._end_call(event, call.call_id, call.state, error=error)
            case ToolCallWaiting() as call:
                self._end_call(event, call.call_id, "waiting")
            case AgentStarted() as agent:
                _keep(self._names, agent.agent_session_id, agent.name)
                above = self._calls.get((sid, agent.call_id)) or self._turns.get(sid)
                if above is not None:
                    _keep(self._above, agent.agent_session_id, above)
            case MessageAppended(message=message):
                self._note_message(sid, message)
            case _:
                pass

    def _begin_turn(self, event: AgentEvent, operation: str, name: str | None, *, is_resume: bool) -> None:
        sid = event.session_id
        around = self._around.pop(event.seq, None)
        above = self._above_of(event)
        is_agent = operation == "invoke_agent"
        attributes = {
            "gen_ai.operation.name": operation,
            "gen_ai.conversation.id": sid,
            "gen_ai.agent.id": sid if is_agent else None,
            "gen_ai.agent.name" if is_agent else "gen_ai.workflow.name": name,
            "power_loop.send.index": event.send_index,
            "power_loop.send.is_resume": is_resume,
            "power_loop.root_session.id": event.agent_path[0],
        }
        context = above.context if above is not None else around
        title = operation if name is None else f"{operation} {name}"
        made = self._begin(event, title, attributes, context=context, above=above)
        before = self._turns.pop(sid, None)
        if before is not None:
            self._end(before, event)
        _keep(self._turns, sid, made)

    def _above_of(self, event: AgentEvent) -> _Open | None:
        """Return the span under which a session works: the call that gave it its work, or a session above it."""
        found = self._above.get(event.session_id)
        for ancestor in reversed(event.agent_path[:-1]):
            found = found or self._turns.get(ancestor) or self._above.get(ancestor)
        return found

    def _end_turn(
        self, event: AgentEvent, said: Mapping[str, Any], *, output: str = "", error: tuple[str, str] | None = None
    ) -> None:
        sid = event.session_id
        chat = self._chats.pop(sid, None)
        if chat is not None:
            self._end(chat, event)
        for key in [key for key in self._calls if key[0] == sid]:
            self._end(self._calls.pop(key), event)
        turn = self._turns.pop(sid, None)
        if turn is None:
            return
        if self._has_content and output:
            part = {"type": "text", "content": output}
            said = {**said, "gen_ai.output.messages": self._content([{"role": "assistant", "parts": [part]}])}
        self._end(turn, event, said, error=error)

    def _begin_chat(self, event: AgentEvent, call: LLMCallStarted) -> None:
        attributes = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": call.provider,
            "gen_ai.request.model": call.model,
            "gen_ai.conversation.id": event.session_id,
            "power_loop.round": event.round,
            "power_loop.attempt": call.attempt,
        }
        turn = self._turns.get(event.session_id)
        if self._has_content and turn is not None and turn.new:
            attributes["gen_ai.input.messages"] = self._content([gen_ai_message(one) for one in turn.new])
            turn.new = []
        kind = self._api.trace.SpanKind.CLIENT
        _keep(
            self._chats, event.session_id, self._begin(event, f"chat {call.model}", attributes, above=turn, kind=kind)
        )

    def _finish_chat(self, event: AgentEvent, call: LLMCallFinished) -> None:
        chat = self._chats.get(event.session_id)
        if chat is None:
            return
        said = {
            "gen_ai.response.model": call.model,
            "gen_ai.response.finish_reasons": (call.stop,),
            "power_loop.request_id": call.request_id,
            **_usage(call.usage),
        }
        self._describe(chat, said)
        chat.ended_ns = self._ns(chat, event)
        # What it said comes as the next event.
        if not self._has_content:
            self._end_answered(event.session_id)

    def _begin_call(self, event: AgentEvent, call: ToolCallStarted) -> None:
        attributes = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": call.name,
            "gen_ai.tool.call.id": call.call_id,
            "gen_ai.tool.type": "function",
            "gen_ai.conversation.id": event.session_id,
            "power_loop.attempt": call.attempt,
        }
        if self._has_content:
            attributes["gen_ai.tool.call.arguments"] = self._content(dict(call.arguments))
        above = self._turns.get(event.session_id)
        made = self._begin(event, f"execute_tool {call.name}", attributes, above=above)
        _keep(self._calls, (event.session_id, call.call_id), made)

    def _end_call(self, event: AgentEvent, call_id: str, state: str, *, error: tuple[str, str] | None = None) -> None:
        # A call that a person answered, or that another process ran, has no span here.
        call = self._calls.pop((event.session_id, call_id), None)
        if call is not None:
            self._end(call, event, {"power_loop.tool.state": state}, error=error)

    def _note_message(self, sid: str, message: Message) -> None:
        chat = self._chats.get(sid)
        if self._has_content:
            if message.role is Role.ASSISTANT and chat is not None and chat.ended_ns is not None:
                self._describe(chat, {"gen_ai.output.messages": self._content([gen_ai_message(message)])})
            turn = self._turns.get(sid)
            if turn is not None and message.role is not Role.ASSISTANT:
                turn.new.append(message)
            result = message.tool_result
            call = None if result is None else self._calls.get((sid, result.call_id))
            if call is not None:
                told = gen_ai_message(message)["parts"][0]["response"]
                self._describe(call, {"gen_ai.tool.call.result": self._content(told)})
        self._end_answered(sid)

    def _end_answered(self, sid: str) -> None:
        chat = self._chats.get(sid)
        if chat is not None and chat.ended_ns is not None:
            del self._chats[sid]
            chat.span.end(end_time=chat.ended_ns)

    # ---- one span ----

    def _begin(
        self,
        event: AgentEvent,
        name: str,
        attributes: Mapping[str, Any],
        *,
        above: _Open | None,
        context: Any = None,
        kind: Any = None,
    ) -> _Open:
        offset_ns = event.at_ms * _NS_PER_MS - int(event.monotonic_s * _NS_PER_S)
        if above is not None:
            offset_ns, context = above.offset_ns, above.context
        trace = self._api.trace
        span = self._tracer.start_span(
            name,
            # Without one it begins a trace: the thread that serves the sink stands in no span.
            context=self._api.context.Context() if context is None else context,
            kind=kind or trace.SpanKind.INTERNAL,
            attributes=self._said(attributes),
            start_time=offset_ns + int(event.monotonic_s * _NS_PER_S),
        )
        return _Open(span, trace.set_span_in_context(span, context), offset_ns)

    def _end(
        self,
        one: _Open,
        event: AgentEvent,
        said: Mapping[str, Any] | None = None,
        *,
        error: tuple[str, str] | None = None,
    ) -> None:
        if error is not None:
            code, message = error
            told = self._redaction.text(message) if self._has_content else code
            one.span.set_status(self._api.trace.Status(self._api.trace.StatusCode.ERROR, told))
            said = {**(said or {}), "error.type": code}
        self._describe(one, said or {})
        one.span.end(end_time=one.ended_ns or self._ns(one, event))

    def _describe(self, one: _Open, said: Mapping[str, Any]) -> None:
        for name, value in self._said(said).items():
            one.span.set_attribute(name, value)

    def _said(self, attributes: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in attributes.items() if value not in (None, "")}

    def _ns(self, one: _Open, event: AgentEvent) -> int:
        return one.offset_ns + int(event.monotonic_s * _NS_PER_S)

    def _content(self, value: Any) -> str:
        redacted = shortened(self._redaction.value(value), self._max_chars)
        return redacted if isinstance(redacted, str) else json.dumps(redacted, ensure_ascii=False, default=str)

    def _note_around(self, event: AgentEvent) -> None:
        _keep(self._around, event.seq, self._api.context.get_current())


class OTelBackend:
    """Records metrics with the meters of OpenTelemetry. Raises `config.missing_extra`."""

    def __init__(self, meter_provider: Any = None) -> None:
        provider = _api().metrics.get_meter_provider() if meter_provider is None else meter_provider
        meter = provider.get_meter("power_loop", __version__)
        has_advice = "explicit_bucket_boundaries_advisory" in inspect.signature(meter.create_histogram).parameters
        self._instruments: dict[str, Any] = {}
        for metric in METRICS:
            given: dict[str, Any] = {"unit": metric.unit, "description": metric.description}
            if metric.kind is MetricKind.COUNTER:
                self._instruments[metric.name] = meter.create_counter(metric.name, **given)
                continue
            if has_advice:
                given["explicit_bucket_boundaries_advisory"] = list(metric.buckets)
            self._instruments[metric.name] = meter.create_histogram(metric.name, **given)

    def record(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """Take one value."""
        said = {name: label for name, label in labels.items() if label}
        instrument = self._instruments[metric.name]
        if metric.kind is MetricKind.COUNTER:
            instrument.add(value, said)
        else:
            instrument.record(value, said)


def attach_otel_sink(
    bus: AgentEventBus,
    *,
    tracer_provider: Any = None,
    meter_provider: Any = None,
    metrics: bool = True,
    content: bool = False,
    session_id: str | None = None,
    max_chars: int = DEFAULT_MAX_CHARS,
    redaction: Redaction | None = None,
    max_queue: int = DEFAULT_MAX_QUEUE,
) -> OTelSink:
    """Tell OpenTelemetry of what the loops of `bus` do, from a thread beside the run.

    A turn is a span `invoke_agent`, with a span `chat` for each attempt of a model call and a span `execute_tool` for
    each run of a tool below it. A sub-agent's turn is below the call that gave it its work, those of a workflow's
    leaves are below its run, a span `invoke_workflow`, and what is at the top is below the span of the application in
    which it was asked for. Work that a store remembers and nobody does again has no span.
    The providers are those that were set for the process unless they are given; `metrics` are `gen_ai.client.*` and
    those of `attach_metrics_sink`. What was said is told only with `content`, without secrets (`redaction`) and with
    the middle of texts above `max_chars` left out. Raises `config.missing_extra`, `config.invalid`.
    """
    api = _api()
    provider = api.trace.get_tracer_provider() if tracer_provider is None else tracer_provider
    return OTelSink(
        bus,
        api,
        tracer=provider.get_tracer("power_loop", __version__),
        metrics=OTelBackend(meter_provider) if metrics else None,
        content=content,
        redaction=redaction or Redaction(),
        max_chars=max_chars,
        session_id=session_id,
        max_queue=max_queue,
    )


class _Api:
    """Is the three modules of the OpenTelemetry API."""

    def __init__(self) -> None:
        try:
            from opentelemetry import context, metrics, trace
        except ImportError as error:
            raise MissingExtraError(
                "the package 'opentelemetry-sdk' is not installed: pip install 'power-loop[otel]'", extra="otel"
            ) from error
        self.context = context
        self.metrics = metrics
        self.trace = trace


def _api() -> _Api:
    return _Api()


def _usage(usage: Any) -> dict[str, int]:
    if usage is None:
        return {}
    told = {
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_input_tokens,
        "gen_ai.usage.cache_creation.input_tokens": usage.cache_write_tokens,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
    }
    always = ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens")
    return {name: count for name, count in told.items() if count or name in always}


def _keep(known: OrderedDict[Any, T], key: Any, value: T) -> None:
    known[key] = value
    known.move_to_end(key)
    if len(known) > _MAX_KNOWN:
        _, oldest = known.popitem(last=False)
        if isinstance(oldest, _Open):
            oldest.span.end()
