"""OpenTelemetry is told of runs as one tree of spans, by its own conventions, with no word of what was said unasked."""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from power_loop import Approve, ToolDefinition
from power_loop.contrib.otel_sink import attach_otel_sink
from power_loop.errors import LLMServerError, MissingExtraError
from power_loop.testing import call, leak_check
from power_loop.workflow import PoolLimits, RunStatus, SubprocessExecutor, WorkerBootstrap, create_workflow
from tests.agent.parts import within_limit
from tests.contrib.parts import SUM, add, make_loop, run, with_researcher

LIMIT_S = 60.0
CANARY = "sk-canary0123456789abcdef"


class Told:
    """Is an in-memory exporter with the sink's providers."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])

    @property
    def spans(self) -> list[ReadableSpan]:
        return sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def tree(self) -> list[str]:
        """The spans in the order in which they began, below each other."""
        spans = {span.context.span_id: span for span in self.spans if span.context is not None}

        def depth(span: ReadableSpan) -> int:
            return 0 if span.parent is None else 1 + depth(spans[span.parent.span_id])

        return ["  " * depth(span) + span.name for span in spans.values()]


@pytest.fixture
def told() -> Iterator[Told]:
    made = Told()
    yield made
    made.tracers.shutdown()
    made.meters.shutdown()


def attach(bus: Any, told: Told, **more: Any) -> Any:
    return attach_otel_sink(bus, tracer_provider=told.tracers, meter_provider=told.meters, **more)


@pytest.mark.promise("event-sinks")
async def test_a_run_is_a_tree_of_spans_by_the_conventions(tmp_path: Path, told: Told) -> None:
    async with make_loop(tmp_path, [SUM, "3"]) as loop:
        sink = attach(loop.event_bus, told)
        sid = await run(loop)
    assert (sink.errors, sink.dropped) == (0, 0)
    assert told.tree() == ["invoke_agent", "  chat scripted", "  execute_tool add", "  chat scripted"]
    agent, chat, tool, _ = told.spans
    assert len({span.context.trace_id for span in told.spans if span.context}) == 1
    assert chat.kind is SpanKind.CLIENT
    assert chat.attributes is not None
    assert {name: chat.attributes[name] for name in chat.attributes if name.startswith("gen_ai.")} == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "scripted",
        "gen_ai.request.model": "scripted",
        "gen_ai.response.model": "scripted",
        "gen_ai.response.finish_reasons": ("tool_calls",),
        "gen_ai.conversation.id": sid,
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 5,
    }
    assert tool.attributes is not None
    assert tool.attributes["gen_ai.tool.name"] == "add"
    assert tool.attributes["power_loop.tool.state"] == "succeeded"
    assert agent.attributes is not None
    assert agent.attributes["gen_ai.usage.input_tokens"] == 20
    assert agent.attributes["power_loop.send.status"] == "completed"
    for span in told.spans:
        assert agent.start_time <= span.start_time <= span.end_time <= agent.end_time  # type: ignore[operator]


async def test_a_sub_agent_works_below_the_call_that_asked_for_it(tmp_path: Path, told: Told) -> None:
    ask = call("spawn_agent", {"agent": "researcher", "input": "Find 1 + 2."})
    async with make_loop(tmp_path, [ask, SUM, "It is 3.", "3"], tools=with_researcher()) as loop:
        attach(loop.event_bus, told)
        await run(loop)
    assert told.tree() == [
        "invoke_agent",
        "  chat scripted",
        "  execute_tool spawn_agent",
        "    invoke_agent researcher",
        "      chat scripted",
        "      execute_tool add",
        "      chat scripted",
        "  chat scripted",
    ]
    assert len({span.context.trace_id for span in told.spans if span.context}) == 1


async def test_the_leaves_of_a_workflow_work_below_its_run_and_that_where_it_was_asked_for(
    tmp_path: Path, told: Told
) -> None:
    leaves = [
        {"id": name, "type": "agent", "spec": {"name": name, "system_prompt": "Work."}, "input": "tea"}
        for name in ("one", "two")
    ]
    spec = {"name": "pair", "root": {"type": "sequence", "steps": leaves}}
    async with make_loop(tmp_path, ["First.", "Second."]) as loop:
        attach(loop.event_bus, told)
        with told.tracers.get_tracer("app").start_as_current_span("GET /report"):
            result = await within_limit(create_workflow(spec, parent_loop=loop).run())
    assert result.status is RunStatus.COMPLETED
    leaf = ["    invoke_agent", "      chat scripted"]
    tree = told.tree()
    assert tree[:2] == ["GET /report", "  invoke_workflow pair"]
    assert [name.replace(" one", "").replace(" two", "") for name in tree[2:]] == leaf * 2
    run_span = told.spans[1].attributes
    assert run_span is not None
    assert run_span["gen_ai.workflow.name"] == "pair"
    assert run_span["power_loop.send.status"] == "completed"


async def test_a_leaf_in_a_worker_process_is_in_the_same_tree(tmp_path: Path, told: Told) -> None:
    """The spans of a worker are made here, of the events that it streams: nothing of it is exported by itself."""
    leaf = {
        "id": "one",
        "type": "agent",
        "spec": {"name": "one", "system_prompt": "Work.", "tools": ["bash"]},
        "input": "tea",
    }
    steps = [call("bash", {"command": "echo tea"}), "Done."]
    bootstrap = WorkerBootstrap(tool_preset="core", llm="proxy")
    async with (
        make_loop(tmp_path, steps) as loop,
        SubprocessExecutor(bootstrap, state_folder=tmp_path / "leaves", pool=PoolLimits(size=1, spare=0)) as executor,
    ):
        attach(loop.event_bus, told)
        result = await within_limit(
            create_workflow({"name": "tea", "root": leaf}, parent_loop=loop, executor=executor).run()
        )
    assert result.status is RunStatus.COMPLETED
    assert [name.strip() for name in told.tree()] == [
        "invoke_workflow tea",
        "invoke_agent",
        "chat scripted",
        "execute_tool bash",
        "chat scripted",
    ]
    assert len({span.context.trace_id for span in told.spans if span.context}) == 1
    assert [name.count("  ") for name in told.tree()] == [0, 1, 2, 2, 2]


async def test_a_turn_is_below_the_span_of_the_application_that_sent(tmp_path: Path, told: Told) -> None:
    async with make_loop(tmp_path, ["a", "b"]) as loop:
        attach(loop.event_bus, told)
        with told.tracers.get_tracer("app").start_as_current_span("GET /chat"):
            await asyncio.gather(run(loop), run(loop))
    tree = told.tree()
    assert tree[0] == "GET /chat"
    assert sorted(tree[1:]) == ["    chat scripted"] * 2 + ["  invoke_agent"] * 2


async def test_what_was_done_before_has_no_second_span(tmp_path: Path, told: Told) -> None:
    def pay() -> str:
        """Pay."""
        return "paid"

    asks = ToolDefinition("pay", "Pay.", {"type": "object"}, pay, requires_approval=True)
    async with make_loop(tmp_path, [SUM, call("pay", {})], tools=[add, asks]) as loop:
        attach(loop.event_bus, told)
        sid = await loop.new_session()
        waiting = await loop.send("Add and pay.", session_id=sid, request_id="r1")
    async with make_loop(tmp_path, ["Done."], tools=[add, asks]) as loop:
        attach(loop.event_bus, told)
        await loop.resume(sid, answers={waiting.pending[0].call_id: Approve()})
        replayed = await loop.send("Add and pay.", session_id=sid, request_id="r1")
    assert replayed.is_replayed
    names = [span.name for span in told.spans]
    assert names.count("execute_tool add") == 1
    assert names.count("execute_tool pay") == 1
    assert names.count("chat scripted") == 3
    turns = [span.attributes["power_loop.send.is_resume"] for span in told.spans if span.name == "invoke_agent"]  # type: ignore[index]
    assert turns == [False, True]


async def test_each_attempt_is_a_span_and_a_failed_one_says_its_code(tmp_path: Path, told: Told) -> None:
    async with make_loop(tmp_path, [LLMServerError(f"busy {CANARY}", retry_after_s=0.0), "a"]) as loop:
        attach(loop.event_bus, told)
        await run(loop)
    _, failed, answered = told.spans
    assert (failed.status.status_code, failed.status.description) == (StatusCode.ERROR, "llm.server")
    assert failed.attributes is not None
    assert failed.attributes["error.type"] == "llm.server"
    assert answered.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("content", [False, True])
async def test_what_was_said_is_told_only_where_that_is_asked_and_never_a_secret(
    tmp_path: Path, told: Told, *, content: bool
) -> None:
    async with make_loop(tmp_path, [SUM, f"It is 3, says {CANARY}."]) as loop:
        attach(loop.event_bus, told, content=content)
        await run(loop, f"1 + 2, by {CANARY}?")
    attributes = [dict(span.attributes or {}) for span in told.spans]
    everything = json.dumps(attributes, default=str)
    assert CANARY not in everything
    assert ("It is 3" in everything) is content
    if content:
        _, first, tool, second = attributes
        asked = {"role": "user", "parts": [{"type": "text", "content": "1 + 2, by <secret>?"}]}
        assert json.loads(first["gen_ai.input.messages"]) == [asked]
        assert json.loads(first["gen_ai.output.messages"])[0]["parts"][0]["name"] == "add"
        assert json.loads(tool["gen_ai.tool.call.arguments"]) == {"a": 1, "b": 2}
        assert tool["gen_ai.tool.call.result"] == "3"
        assert json.loads(second["gen_ai.input.messages"])[0]["parts"][0]["response"] == "3"
        assert json.loads(second["gen_ai.output.messages"])[0]["parts"][0]["content"] == "It is 3, says <secret>."


async def test_its_metrics_are_those_of_the_conventions(tmp_path: Path, told: Told) -> None:
    async with make_loop(tmp_path, [SUM, "3"]) as loop:
        attach(loop.event_bus, told)
        await run(loop)
    data = told.reader.get_metrics_data()
    assert data is not None
    found = {metric.name: metric for metric in data.resource_metrics[0].scope_metrics[0].metrics}
    usage = found["gen_ai.client.token.usage"]
    assert usage.unit == "{token}"
    sums = {point.attributes["gen_ai.token.type"]: point.sum for point in usage.data.data_points}  # type: ignore[index, union-attr]
    assert sums == {"input": 20, "output": 10}
    duration = found["gen_ai.client.operation.duration"]
    assert duration.unit == "s"
    operations = {point.attributes["gen_ai.operation.name"] for point in duration.data.data_points}  # type: ignore[index]
    assert operations == {"chat", "execute_tool", "invoke_agent"}


class Collector(BaseHTTPRequestHandler):
    """Is an OTLP collector that keeps what it is sent."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.received.append((self.path, ExportTraceServiceRequest.FromString(body)))  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


async def test_a_collector_reads_them_from_otlp(tmp_path: Path) -> None:
    server = HTTPServer(("127.0.0.1", 0), Collector)
    received: list[tuple[str, ExportTraceServiceRequest]] = []
    server.received = received  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    tracers = TracerProvider()
    try:
        exporter = OTLPSpanExporter(endpoint=f"http://127.0.0.1:{server.server_port}/v1/traces")
        tracers.add_span_processor(SimpleSpanProcessor(exporter))
        async with make_loop(tmp_path, ["a"]) as loop:
            attach_otel_sink(loop.event_bus, tracer_provider=tracers, metrics=False)
            await run(loop)
    finally:
        tracers.shutdown()
        server.shutdown()
        server.server_close()
        thread.join(LIMIT_S)
    spans = [
        span
        for _, request in received
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    assert [span.name for span in spans] == ["chat scripted", "invoke_agent"]
    assert spans[0].parent_span_id == spans[1].span_id
    told = {one.key: one.value for one in spans[0].attributes}
    assert told["gen_ai.usage.input_tokens"].int_value == 10


@pytest.mark.promise("event-sinks")
async def test_an_exporter_that_blocks_or_raises_stops_no_run(tmp_path: Path) -> None:
    released = threading.Event()

    class Broken(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            assert released.wait(LIMIT_S)
            raise OSError("unreachable")

    tracers = TracerProvider()
    tracers.add_span_processor(Broken())
    with leak_check():
        loop = make_loop(tmp_path, [SUM, "3"])
        sink = attach_otel_sink(loop.event_bus, tracer_provider=tracers, metrics=False, max_queue=2)
        await within_limit(run(loop))
        assert sink.dropped > 0
        released.set()
        await loop.aclose()
        assert sink.errors > 0
    tracers.shutdown()


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'power-loop\[otel\]'"):
        attach_otel_sink(None)  # type: ignore[arg-type]
