"""A database server that is killed under a run ends neither the run nor anything that was stored of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from power_loop import LLMRequest, LLMResponse, StatefulAgentLoop, Usage
from power_loop.llm import ModelInfo
from power_loop.workflow import RunStatus, create_workflow
from tests.servers import PrivateServer, find_server

from .parts import asked
from .wide_child import spec_of

_LEAVES, _CONCURRENCY = 24, 4
_DIES_AT = 10
_LIMIT_S = 240


class Model:
    """Answers every leaf; at one of its calls the database is killed, and comes back while others go on."""

    info = ModelInfo("story", "story")

    def __init__(self, server: PrivateServer) -> None:
        self.asked: Counter[str] = Counter()
        self._server = server

    async def generate(self, request: LLMRequest, emit: Any) -> LLMResponse:
        """Answer."""
        item = asked(request)
        self.asked[item] += 1
        if self.asked.total() == _DIES_AT:
            await asyncio.to_thread(self._server.kill)
            await asyncio.to_thread(self._server.restart)
        return LLMResponse.of_text(f"on {item}", usage=Usage(10, 5))


@pytest.mark.promise("workflow-killed")
@pytest.mark.parametrize("name", ["postgres", "mysql", "mariadb"])
async def test_a_run_whose_database_is_killed_comes_to_its_end_and_repeats_nothing_stored(name: str) -> None:
    kind = find_server(name)
    if kind.missing is not None:
        pytest.skip(str(kind))
    with kind.start() as server:
        dsn = server.new_database()
        # On a machine under load a server that was killed takes its time to come back.
        dsn += f"{'&' if '?' in dsn else '?'}retry_s=120"
        model = Model(server)
        async with StatefulAgentLoop(llm=model, dsn=dsn) as loop:
            work = create_workflow(spec_of(_LEAVES), parent_loop=loop, max_concurrency=_CONCURRENCY)
            result = await asyncio.wait_for(work.run(), _LIMIT_S)
            store: Any = await loop.get_store()
            head = await store.get_session(work.run_id)
            assert len(await store.get_children(work.run_id)) == _LEAVES
        assert (result.status, head.owner) == (RunStatus.COMPLETED, None)
        assert result.output == [f"on {number}" for number in range(_LEAVES)]
        assert {(step.state, step.attempt) for step in result.steps} == {("completed", 1)}
        assert result.usage.total_tokens == 15 * _LEAVES
        # What the server had not stored when it died is asked for again.
        assert set(model.asked.values()) <= {1, 2}
        assert model.asked.total() <= _LEAVES + _CONCURRENCY
