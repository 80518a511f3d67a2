"""A model is offered skills by a tool's description, loads them in a turn, and is told of changes behind its prompt."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from power_loop import Effect, HookPoint, Skills
from power_loop.records import CallState
from power_loop.testing import call
from power_loop.tools import skill_tools
from tests.tools.test_skills import write_skill

from .conftest import MakeLoop
from .parts import answers, error_answers


async def test_a_skill_is_loaded_in_a_turn_and_its_call_only_reads(make_loop: MakeLoop, tmp_path: Path) -> None:
    write_skill(tmp_path / "skills", "pdf", "Use the stapler.")
    loop = make_loop(
        call("load_skill", {"name": "pdf"}), "Stapled.", tool_registry=skill_tools(Skills([tmp_path / "skills"]))
    )
    sid = await loop.new_session()
    assert (await loop.send("Go.", session_id=sid)).is_completed
    [offered] = loop.llm.requests[0].tools
    assert '- pdf: "Does pdf."' in offered.description
    assert answers(loop.llm.requests[1])[0].endswith("\n\nUse the stapler.")
    [done] = await (await loop.get_store()).get_calls(sid)
    assert (done.effect, done.state) == (Effect.READ, CallState.SUCCEEDED)


@pytest.mark.promise("live-tail")
async def test_what_changes_is_told_behind_a_prompt_whose_start_stays(make_loop: MakeLoop, tmp_path: Path) -> None:
    root = tmp_path / "skills"
    write_skill(root, "pdf")
    write_skill(root, "csv")
    skills = Skills([root])
    steps = ("Hi.", call("load_skill", {"name": "xml"}), "Done.", call("load_skill", {"name": "csv"}), "Done.")
    loop = make_loop(*steps, tool_registry=skill_tools(skills))
    sid = await loop.new_session()
    await loop.send("Go.", session_id=sid)
    write_skill(root, "xml", "Parse it.")
    write_skill(root, "pdf", description="Does more.")
    shutil.rmtree(root / "csv")
    await loop.send("Go on.", session_id=sid)
    # A new skill is loaded although nobody told the model of it, and a call that looks is when the changes are seen.
    assert answers(loop.llm.requests[2])[0].endswith("Parse it.")
    changes = (
        'Skills that are new, or that have another description by now:\n- pdf: "Does more."\n- xml: "Does xml."\n'
        "Skills that are gone: csv"
    )
    assert [request.tail for request in loop.llm.requests] == [None, None, changes]
    await loop.send("And csv?", session_id=sid)
    assert "there is no skill 'csv'" in error_answers(loop.llm.requests[4])[0]
    assert all(request.tools == loop.llm.requests[0].tools for request in loop.llm.requests)


async def test_a_look_at_the_start_of_each_send_shows_what_is_there(make_loop: MakeLoop, tmp_path: Path) -> None:
    root = tmp_path / "skills"
    root.mkdir()
    skills = Skills([root])
    loop = make_loop("Hi.", "Hi.", tool_registry=skill_tools(skills))

    async def look(context: object) -> None:
        await asyncio.to_thread(skills.look)

    loop.hooks.add(HookPoint.SEND_START, look)
    sid = await loop.new_session()
    await loop.send("Go.", session_id=sid)
    assert loop.llm.requests[0].tools[0].description.endswith("There are no skills so far.")
    write_skill(root, "pdf")
    await loop.send("Go on.", session_id=sid)
    assert (loop.llm.requests[1].tail or "").endswith('- pdf: "Does pdf."')
