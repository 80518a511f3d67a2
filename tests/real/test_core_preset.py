"""A real model edits a file with the core preset and is asked about it; what is on the disk is asserted, never prose.

The local model is told of one tool at a time and asked in several wordings: which it takes up is its own affair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from power_loop import RuntimeEnv, SendLimits, SendStatus, StatefulAgentLoop, StatefulResult, TextPart, tool_preset
from power_loop.records import CallState
from tests.real.conftest import Endpoint

ANSWERED = {SendStatus.COMPLETED, SendStatus.TRUNCATED, SendStatus.ROUNDS_EXCEEDED}
READ = ("Read the file with path notes.txt.", "Read the text file with path notes.txt, limit 1.", "Read notes.txt.")
EDIT = (
    "Edit the file notes.txt: replace the text red by the text teal.",
    "Edit the file notes.txt. The old text is red, the new text is teal.",
    "Edit the file with path notes.txt: replace red by teal.",
)
ASK = (
    "Which color has the door in the file with path notes.txt?",
    "Read the file with path notes.txt for the color of the door.",
    "Read the file with path notes.txt.",
)


class Talk:
    """Is a conversation in which a model is asked for one thing in several wordings."""

    def __init__(self, loop: StatefulAgentLoop, session_id: str) -> None:
        self._loop = loop
        self._session_id = session_id

    async def ask(self, wordings: Sequence[str], tool: str, claim: Callable[[list[str]], bool]) -> StatefulResult:
        """Ask until what the tool gave, where its call succeeded, fulfils a claim."""
        for wording in wordings:
            before = len(await self._loop.get_messages(self._session_id))
            result = await self._loop.send(
                wording,
                session_id=self._session_id,
                tools=[tool],
                max_output_tokens=80,
                limits=SendLimits(max_rounds=3),
            )
            assert result.status in ANSWERED
            log = [record.message for record in await self._loop.get_messages(self._session_id)][before:]
            given = [message.tool_result for message in log if message.tool_result is not None]
            parts = [part for one in given if not one.is_error for part in one.content]
            if claim([part.text for part in parts if isinstance(part, TextPart)]):
                return result
        raise AssertionError(f"in none of these wordings {tool} was called as it was asked for: {wordings}")


@pytest.mark.parametrize(("wire", "endpoint"), [("openai", "lean"), ("anthropic", "sdk")], indirect=True)
async def test_a_model_edits_a_file_and_is_asked_about_it(endpoint: Endpoint, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    notes = workspace / "notes.txt"
    notes.write_text("The door is red.\n")
    tools = tool_preset("core", RuntimeEnv(workspace))
    async with StatefulAgentLoop(llm=endpoint.service(), dsn=str(tmp_path / "app.db"), tool_registry=tools) as loop:
        sid = await loop.new_session()
        talk = Talk(loop, sid)
        await talk.ask(READ, "read_file", lambda given: any("The door is red." in one for one in given))
        await talk.ask(EDIT, "edit_file", lambda given: "teal" in notes.read_text())
        assert notes.read_text() == "The door is teal.\n"
        answer = await talk.ask(ASK, "read_file", lambda given: any("The door is teal." in one for one in given))
        assert answer.final_text or answer.status is SendStatus.ROUNDS_EXCEEDED
        calls = await (await loop.get_store()).get_calls(sid)
    assert {call.state for call in calls} <= {CallState.SUCCEEDED, CallState.FAILED}
    assert sorted(path.name for path in workspace.iterdir()) == ["notes.txt"]
