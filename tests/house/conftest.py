"""Gives each test what a page takes for the process's own."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def metrics_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have metrics that a page keeps in the global registry of `prometheus_client` gone with the page."""
    try:
        import prometheus_client
    except ImportError:
        return
    monkeypatch.setattr(prometheus_client, "REGISTRY", prometheus_client.CollectorRegistry())
