"""What loops do is counted and timed where a scraper or a StatsD server reads it, in few series and beside the run."""

from __future__ import annotations

import socket
import sys
import threading
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.parser import text_string_to_metric_families

from power_loop import AgentEventBus
from power_loop.contrib.measures import METRICS, OTHER, Metric
from power_loop.contrib.metrics_sink import PrometheusBackend, StatsDBackend, attach_metrics_sink
from power_loop.errors import ConfigError, LLMServerError, MissingExtraError
from power_loop.events import ToolCallFinished
from power_loop.testing import call, leak_check
from tests.agent.parts import within_limit
from tests.contrib.parts import SUM, make_loop, run

LIMIT_S = 60.0


class Recorded:
    """Is a backend that keeps what it is given."""

    def __init__(self) -> None:
        self.values: list[tuple[str, float, dict[str, str]]] = []

    def record(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        self.values.append((metric.name, value, {name: label for name, label in labels.items() if label}))


def scraped(registry: CollectorRegistry) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Ask the registry for its metrics as a Prometheus server does."""
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        address = f"http://127.0.0.1:{server.server_port}/metrics"
        with urllib.request.urlopen(address, timeout=LIMIT_S) as answer:
            text = answer.read().decode("utf-8")
    finally:
        server.shutdown()
        server.server_close()
        thread.join(LIMIT_S)
    return {
        (sample.name, frozenset((name, label) for name, label in sample.labels.items() if label)): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.promise("event-sinks")
async def test_a_scrape_shows_what_a_run_took(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    async with make_loop(tmp_path, [SUM, call("fail", {}), "3"]) as loop:
        sink = attach_metrics_sink(loop.event_bus, PrometheusBackend(registry))
        await run(loop)
    assert (sink.errors, sink.dropped) == (0, 0)
    found = scraped(registry)

    def value(name: str, **labels: str) -> float:
        return found[name, frozenset(labels.items())]

    chat = {
        "gen_ai_operation_name": "chat",
        "gen_ai_provider_name": "scripted",
        "gen_ai_request_model": "scripted",
    }
    assert value("gen_ai_client_token_usage_sum", **chat, gen_ai_token_type="input") == 30
    assert value("gen_ai_client_token_usage_count", **chat, gen_ai_token_type="output") == 3
    assert value("gen_ai_client_operation_duration_seconds_count", **chat) == 3
    assert value("gen_ai_client_operation_duration_seconds_count", gen_ai_operation_name="invoke_agent") == 1
    tool = {"gen_ai_operation_name": "execute_tool", "gen_ai_tool_name": "fail", "error_type": "tool.error"}
    assert value("gen_ai_client_operation_duration_seconds_count", **tool) == 1
    assert value("power_loop_tool_calls_total", gen_ai_tool_name="add", state="succeeded") == 1
    assert value("power_loop_sends_total", status="completed") == 1


async def test_a_statsd_server_gets_counters_and_timings(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(LIMIT_S)
        async with make_loop(tmp_path, [SUM, "3"]) as loop:
            backend = StatsDBackend("127.0.0.1", server.getsockname()[1], prefix="app")
            attach_metrics_sink(loop.event_bus, backend)
            await run(loop)
        backend.close()
        heard: set[str] = set()
        while "app.power_loop.sends.completed:1|c" not in heard:
            heard.add(server.recv(65_536).decode("ascii"))
    assert "app.gen_ai.client.token.usage.chat.scripted.scripted.input:10|c" in heard
    assert "app.power_loop.tool.calls.add.succeeded:1|c" in heard
    timings = [line for line in heard if line.endswith("|ms")]
    assert any(line.startswith("app.gen_ai.client.operation.duration.execute_tool.add:") for line in timings)


async def test_what_a_name_holds_cannot_write_another_metric() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(LIMIT_S)
        backend, bus = StatsDBackend("127.0.0.1", server.getsockname()[1]), AgentEventBus()
        attach_metrics_sink(bus, backend)
        bus.emit(ToolCallFinished("c", "a:1|c\nb.c@#", "failed", is_error=True, duration_s=1.0), session_id="s")
        await bus.aclose()
        backend.close()
        assert server.recv(65_536) == b"power_loop.tool.calls.a_1_c_b_c_.failed:1|c"


async def test_a_label_has_a_bounded_number_of_values() -> None:
    recorded, bus = Recorded(), AgentEventBus()
    attach_metrics_sink(bus, recorded, max_label_values=2)
    for name in ("a", "b", "c", "d", "a"):
        bus.emit(ToolCallFinished("c", name, "failed", is_error=False, duration_s=1.0), session_id="s")
    await bus.aclose()
    counted = [labels["gen_ai.tool.name"] for name, _, labels in recorded.values if name == "power_loop.tool.calls"]
    assert counted == ["a", "b", OTHER, OTHER, "a"]


def test_no_label_is_an_id_or_a_text() -> None:
    labels = {label for metric in METRICS for label in metric.labels}
    known = {"gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model", "gen_ai.token.type"}
    assert labels == known | {"gen_ai.tool.name", "error.type", "status", "state", "strategy", "limit"}


async def test_failed_attempts_are_timed_and_counted_by_their_code(tmp_path: Path) -> None:
    recorded = Recorded()
    error = LLMServerError("busy", retry_after_s=0.0)
    async with make_loop(tmp_path, [error, "a"]) as loop:
        attach_metrics_sink(loop.event_bus, recorded)
        await run(loop)
    told = {"gen_ai.request.model": "scripted", "error.type": "llm.server"}
    assert ("power_loop.llm.retries", 1, told) in recorded.values


@pytest.mark.promise("event-sinks")
async def test_a_backend_that_blocks_or_raises_stops_no_run(tmp_path: Path) -> None:
    released = threading.Event()

    class Broken:
        def record(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
            assert released.wait(LIMIT_S)
            raise OSError("unreachable")

    with leak_check():
        loop = make_loop(tmp_path, [SUM, "3"])
        sink = attach_metrics_sink(loop.event_bus, Broken(), max_queue=2)
        await within_limit(run(loop))
        assert sink.dropped > 0
        released.set()
        await loop.aclose()
        assert sink.errors > 0
        sink.close()


def test_one_backend_serves_several_buses_and_a_registry_takes_one_backend() -> None:
    registry = CollectorRegistry()
    backend = PrometheusBackend(registry)
    attach_metrics_sink(AgentEventBus(), backend).close()
    attach_metrics_sink(AgentEventBus(), backend).close()
    with pytest.raises(ConfigError, match="has these metrics already"):
        PrometheusBackend(registry)


def test_what_cannot_be_is_refused_at_once() -> None:
    bus: Any = AgentEventBus()
    with pytest.raises(ConfigError, match="backend is None"):
        attach_metrics_sink(bus, None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="max_label_values is 0"):
        attach_metrics_sink(bus, Recorded(), max_label_values=0)


@pytest.mark.parametrize(("package", "make"), [("prometheus_client", PrometheusBackend), ("statsd", StatsDBackend)])
def test_a_missing_package_is_named_with_its_extra(package: str, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'power-loop\[(prometheus|statsd)\]'"):
        make()
