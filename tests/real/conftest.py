"""The live model: the small one of this machine over both of its wires, or the endpoint that the environment names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from demo.install_model import is_installed
from demo.model_server import ModelServer
from power_loop import LLMService, create_llm_service_from_env

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.real)


@dataclass(frozen=True)
class Endpoint:
    """Is one way to the live model, as the environment variables that power-loop reads."""

    variables: Mapping[str, str]

    def service(self) -> LLMService:
        """Return a fresh service, as a process that just started would make it."""
        return create_llm_service_from_env(self.variables)


@pytest.fixture(scope="session")
def local_model() -> Iterator[ModelServer]:
    if not is_installed():
        pytest.skip("the local model is not installed, and POWER_LOOP_BASE_URL names no other: `make real` installs it")
    with ModelServer() as server:
        yield server


@pytest.fixture(params=["openai", "anthropic"])
def wire(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["lean", "sdk"])
def endpoint(request: pytest.FixtureRequest, wire: str, variables_of_the_person: dict[str, str]) -> Endpoint:
    carrier = {"POWER_LOOP_CARRIER": request.param}
    if request.param == "sdk":
        pytest.importorskip(wire)
    if "POWER_LOOP_BASE_URL" in variables_of_the_person:
        spoken = variables_of_the_person.get("POWER_LOOP_PROVIDER", "openai")
        if spoken != wire:
            pytest.skip(f"POWER_LOOP_BASE_URL speaks {spoken}")
        return Endpoint({**variables_of_the_person, **carrier})
    server: ModelServer = request.getfixturevalue("local_model")
    return Endpoint({**server.environment(provider=wire), **carrier})
