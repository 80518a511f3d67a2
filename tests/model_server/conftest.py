"""Clients of the official SDKs for the tests of the model server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from .server import ModelServer

# No answer here takes that long; a machine with much else to do may take a while.
CLIENT_TIMEOUT_S = 60.0


@pytest.fixture
async def openai_client() -> AsyncIterator[Callable[[ModelServer], Any]]:
    """Makes OpenAI clients without retries, closed at the end of the test."""
    openai = pytest.importorskip("openai")
    made = []

    def make(server: ModelServer) -> Any:
        client = openai.AsyncOpenAI(base_url=server.base_url, api_key="k", max_retries=0, timeout=CLIENT_TIMEOUT_S)
        made.append(client)
        return client

    yield make
    for client in made:
        await client.close()


@pytest.fixture
async def anthropic_client() -> AsyncIterator[Callable[[ModelServer], Any]]:
    """Makes Anthropic clients without retries, closed at the end of the test."""
    anthropic = pytest.importorskip("anthropic")
    made = []

    def make(server: ModelServer) -> Any:
        url = server.anthropic_base_url
        client = anthropic.AsyncAnthropic(base_url=url, api_key="k", max_retries=0, timeout=CLIENT_TIMEOUT_S)
        made.append(client)
        return client

    yield make
    for client in made:
        await client.close()
