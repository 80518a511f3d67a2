"""The workflow of the description with a real model: structure is asserted, never prose."""

from __future__ import annotations

from pathlib import Path

import pytest

from power_loop import StatefulAgentLoop
from power_loop.workflow import RunStatus, create_workflow, resume_run
from tests.real.conftest import Endpoint
from tests.workflow.parts import RESEARCH

# A small model may talk until it is cut, or never find the structure: then the run says so.
_MODELS_OWN = {"send.truncated", "output.invalid", "send.empty"}


@pytest.mark.promise("workflows")
async def test_the_workflow_of_the_description_runs_with_a_real_model(endpoint: Endpoint, tmp_path: Path) -> None:
    async with StatefulAgentLoop(llm=endpoint.service(), dsn=str(tmp_path / "app.db")) as loop:
        result = await create_workflow(RESEARCH, parent_loop=loop).run()
        assert await resume_run(loop, None, result.run_id) == result
        if result.status is RunStatus.COMPLETED:
            topics = result.outputs["plan"]["subtopics"]
            assert len(result.outputs["research"]) == len(topics)
            assert isinstance(result.output, str)
        else:
            assert result.error is not None
            assert result.error["code"] in _MODELS_OWN
        assert result.steps[0].child_session_id is not None
        assert result.usage.total_tokens > 0
