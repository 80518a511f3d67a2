"""Counts and times what loops do, for Prometheus, for StatsD, or for a backend of one's own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol

from power_loop import AgentEvent, AgentEventBus
from power_loop.contrib.measures import DEFAULT_MAX_LABEL_VALUES, MEASURED, METRICS, Measures, Metric, MetricKind
from power_loop.contrib.sinks import DEFAULT_MAX_QUEUE, Sink
from power_loop.errors import ConfigError, MissingExtraError

DEFAULT_STATSD_PORT = 8125
_NOT_IN_STATSD = re.compile(r"[^A-Za-z0-9_-]+")
_MS_PER_S = 1000.0


class MetricsBackend(Protocol):
    """Is where measured values go. It is called in one thread at a time, beside the run."""

    def record(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """Take one value; `labels` has every label of the metric, and an empty text for one that says nothing."""
        ...


class MetricsSink(Sink):
    """Is the sink that `attach_metrics_sink` returns."""

    def __init__(self, bus: AgentEventBus, backend: MetricsBackend, *, max_label_values: int, **more: Any) -> None:
        """Take the events of `bus`; `attach_metrics_sink` checks what is given."""
        self._backend = backend
        self._measures = Measures(max_label_values=max_label_values)
        super().__init__(bus, name=f"metrics:{type(backend).__name__}", types=MEASURED, **more)

    def take(self, event: AgentEvent) -> None:
        """Record what an event adds."""
        for metric, value, labels in self._measures.of(event):
            self._backend.record(metric, value, labels)


def attach_metrics_sink(
    bus: AgentEventBus,
    backend: MetricsBackend,
    *,
    session_id: str | None = None,
    max_label_values: int = DEFAULT_MAX_LABEL_VALUES,
    max_queue: int = DEFAULT_MAX_QUEUE,
) -> MetricsSink:
    """Record what the loops of `bus` do in `backend`, from a thread beside the run.

    Names and units are those of the OpenTelemetry conventions for generative AI where these have one; the others begin
    with `power_loop`. No label is an id or a text of anybody's; one that had `max_label_values` values tells all
    further ones as `other`. Raises `config.invalid`.
    """
    if not callable(getattr(backend, "record", None)):
        raise ConfigError(f"backend is {backend!r:.200}: give PrometheusBackend(), StatsDBackend() or another one")
    if isinstance(max_label_values, bool) or max_label_values < 1:
        raise ConfigError(f"max_label_values is {max_label_values!r}: give a whole number of at least 1")
    return MetricsSink(bus, backend, max_label_values=max_label_values, session_id=session_id, max_queue=max_queue)


class PrometheusBackend:
    """Keeps metrics in a registry of `prometheus_client` (default: its own global one), which a scrape reads.

    A dot of a name is an underscore there: `gen_ai_client_operation_duration_seconds`. One backend serves any number of
    buses; a registry takes only one. Raises `config.missing_extra`, `config.invalid`.
    """

    def __init__(self, registry: Any = None) -> None:
        try:
            import prometheus_client
        except ImportError as error:
            raise _missing("prometheus_client", "prometheus") from error
        registry = prometheus_client.REGISTRY if registry is None else registry
        self._collectors: dict[str, Any] = {}
        try:
            for metric in METRICS:
                name = metric.name.replace(".", "_") + ("_seconds" if metric.unit == "s" else "")
                labels = [label.replace(".", "_") for label in metric.labels]
                if metric.kind is MetricKind.COUNTER:
                    made: Any = prometheus_client.Counter(name, metric.description, labels, registry=registry)
                else:
                    made = prometheus_client.Histogram(
                        name, metric.description, labels, registry=registry, buckets=metric.buckets
                    )
                self._collectors[metric.name] = made
        except ValueError as error:
            raise ConfigError(
                f"the registry has these metrics already ({error}): give the PrometheusBackend that made them to each"
                " bus, or a registry of its own to this one"
            ) from error

    def record(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """Take one value."""
        collector = self._collectors[metric.name].labels(*(labels[name] for name in metric.labels))
        if metric.kind is MetricKind.COUNTER:
            collector.inc(value)
        else:
            collector.observe(value)


class StatsDBackend:
    """Sends metrics to a StatsD server by UDP: counters as they are, seconds as timings, tokens as counters.

    StatsD has no labels, so those that say something are the last parts of the name:
    `power_loop.tool.calls.search.succeeded`. `client` is a client of the package `statsd`, or another one with its
    `incr` and `timing`, in place of host, port and prefix. Raises `config.missing_extra`, `config.invalid`.
    """

    def __init__(
        self, host: str = "localhost", port: int = DEFAULT_STATSD_PORT, *, prefix: str | None = None, client: Any = None
    ) -> None:
        if client is None:
            try:
                import statsd  # type: ignore[import-untyped]
            except ImportError as error:
                raise _missing("statsd", "statsd") from error
            try:
                client = statsd.StatsClient(host, port, prefix=prefix)
            except OSError as error:
                raise ConfigError(f"the StatsD server {host!r}:{port!r} has no address: {error}") from error
        self._client = client

    def record(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """Send one value."""
        said = [_NOT_IN_STATSD.sub("_", labels[name]) for name in metric.labels if labels[name]]
        name = ".".join([metric.name, *said])
        if metric.unit == "s":
            self._client.timing(name, value * _MS_PER_S)
        else:
            self._client.incr(name, int(value))

    def close(self) -> None:
        """Close the client's socket."""
        self._client.close()


def _missing(package: str, extra: str) -> MissingExtraError:
    return MissingExtraError(
        f"the package {package!r} is not installed: pip install 'power-loop[{extra}]'", extra=extra
    )
