"""A run of a thousand leaves whose process dies in the middle: what was stored is not asked for again, and nothing is
lost."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from power_loop import StatefulAgentLoop
from power_loop.workflow import RunStatus, resume_run
from tests.conformance.backends import SERVERS, SqliteFile

from .wide_child import A_CALL, CONCURRENCY, RUN_ID, Model

BACKENDS = (SqliteFile, *SERVERS)
_LEAVES, _KILLED_AT = 1_000, 500
_LIMIT_S = 200


def _asked(file: Path) -> Counter[str]:
    return Counter(file.read_text("utf-8").split())


@pytest.mark.promise("workflow-killed")
@pytest.mark.parametrize("backend", BACKENDS, ids=[backend.name for backend in BACKENDS])
async def test_a_thousand_leaves_survive_their_process_and_none_runs_again(backend: Any, tmp_path: Path) -> None:
    async with backend.fresh() as place:
        prefix = getattr(place, "prefix", "pl_")
        arguments = (place.dsn, prefix, str(tmp_path), str(_LEAVES), str(_KILLED_AT))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.workflow.wide_child", *arguments, stderr=asyncio.subprocess.PIPE
        )
        _, error = await asyncio.wait_for(process.communicate(), _LIMIT_S)
        assert process.returncode == -signal.SIGKILL, error.decode()[-4000:]
        model = Model(tmp_path / "second")
        async with StatefulAgentLoop(llm=model, dsn=place.dsn, table_prefix=prefix) as loop:
            store: Any = await loop.get_store()
            spent = await store.get_children_spending(RUN_ID, 1)
            done = {one.session_id for one in spent if one.usage == A_CALL}
            assert _KILLED_AT <= len(done) <= _KILLED_AT + CONCURRENCY
            result = await asyncio.wait_for(resume_run(loop, None, RUN_ID), _LIMIT_S)
            children = await store.get_children(RUN_ID)
        assert result.status is RunStatus.COMPLETED
        assert result.output == [f"on {number}" for number in range(_LEAVES)]
        assert (len(result.steps), len(children)) == (_LEAVES, _LEAVES)
        assert {(step.state, step.attempt) for step in result.steps} == {("completed", 1)}
        # Every reply that was stored is paid for once, and those that were lost on their way are nobody's.
        assert result.usage.total_tokens == _LEAVES * A_CALL.total_tokens
        first, second = _asked(tmp_path / "first"), _asked(tmp_path / "second")
        assert set(second.values()) == {1}
        # A server may bring a commit to its end whose process is dead, and that was not there yet when `done` was read.
        assert len(done) <= _LEAVES - len(second) <= _KILLED_AT + CONCURRENCY
        assert len(set(first) & set(second)) <= CONCURRENCY
        assert set(first) | set(second) == {str(number) for number in range(_LEAVES)}
