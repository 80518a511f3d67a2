"""Services for the tests of the model transports: each wire over each carrier."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from power_loop.contracts.llm import LLMDelta, LLMRequest, LLMResponse
from power_loop.contracts.messages import user_message
from power_loop.runtime.llm.config import LLMProviderConfig
from power_loop.runtime.llm.service import ProviderLLMService, create_llm_service_from_config
from tests.model_server import ModelServer

WIRES = ["openai", "anthropic"]
CARRIERS = ["lean", "sdk"]
QUESTION = LLMRequest([user_message("Say something.")])


def ignore(delta: LLMDelta) -> None:
    """Hear nothing."""


@dataclass(frozen=True)
class Way:
    """A wire over a carrier."""

    wire: str
    carrier: str

    def config(self, url: str, **options: Any) -> LLMProviderConfig:
        """The config of a model at this address."""
        options = {"model": "test-model", "api_key": "sk-test-secret-1234", "idle_timeout_s": 20.0, **options}
        return LLMProviderConfig(provider=self.wire, carrier=self.carrier, base_url=url, **options)

    def service(self, server: ModelServer, **options: Any) -> ProviderLLMService:
        """A service of its own, which nobody closes."""
        return create_llm_service_from_config(self.config(server.base_url, **options))


@pytest.fixture(params=[f"{wire}-{carrier}" for wire in WIRES for carrier in CARRIERS])
def way(request: pytest.FixtureRequest) -> Way:
    """Each wire over each carrier that is installed."""
    wire, carrier = request.param.split("-")
    if carrier == "sdk":
        pytest.importorskip(wire)
    return Way(wire, carrier)


@pytest.fixture(params=CARRIERS)
def openai_way(request: pytest.FixtureRequest) -> Way:
    """The OpenAI wire over each carrier, for what only that wire knows."""
    if request.param == "sdk":
        pytest.importorskip("openai")
    return Way("openai", request.param)


@pytest.fixture(params=CARRIERS)
def anthropic_way(request: pytest.FixtureRequest) -> Way:
    """The Anthropic wire over each carrier, for what only that wire knows."""
    if request.param == "sdk":
        pytest.importorskip("anthropic")
    return Way("anthropic", request.param)


@pytest.fixture(params=WIRES)
def lean_way(request: pytest.FixtureRequest) -> Way:
    """Each wire over the lean carrier, for what the carrier has no part in."""
    return Way(request.param, "lean")


Ask = Callable[..., Any]


@pytest.fixture
async def ask() -> AsyncIterator[Ask]:
    """Asks once over a way; gives the reply and the pieces that were heard. Services are closed at the end."""
    services: list[ProviderLLMService] = []

    async def run(
        way: Way, server: ModelServer, request: LLMRequest = QUESTION, **options: Any
    ) -> tuple[LLMResponse, list[LLMDelta]]:
        service = way.service(server, **options)
        services.append(service)
        heard: list[LLMDelta] = []
        return await service.generate(request, heard.append), heard

    yield run
    for service in services:
        await service.aclose()
