"""A blackboard is shared: no write on it is lost, whoever writes, and what a killed process posted is posted once."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable
from typing import Any, TypeVar

import pytest

from power_loop import AgentSpec, Effect, StatefulAgentLoop, ToolContext, agent_tools, open_store, tool
from power_loop.errors import BlackboardConflictError
from power_loop.records import CallState
from power_loop.testing import ScriptedLLM, call, calls
from power_loop.tools import ToolTransaction, blackboard_tools
from power_loop.tools.blackboard import MAX_SHOWN
from tests.conformance.backends import SERVERS, Tables
from tests.servers import shared_database, shared_server
from tests.servers.proxy import Proxy

from .bank import Bank, bank, town
from .board_child import POST, TASKS, TIMES
from .conftest import MakeLoop
from .parts import answers, error_answers, within_limit

__all__ = ["bank", "town"]

T = TypeVar("T")

# Far more than processes take that all want to write the same entry, also on a machine that does much else.
CHILDREN_LIMIT_S = 150.0

POINTS = [
    ("commit.after", "append_reply"),
    ("effect.before", "blackboard_post"),
    ("effect.after", "blackboard_post"),
    ("commit.before", "run_effect"),
    ("commit.after", "run_effect"),
]


async def _sent(make_loop: MakeLoop, bank: Bank, *steps: Any, tools: Any = None) -> StatefulAgentLoop:
    loop = make_loop(*steps, store=bank.store, tool_registry=blackboard_tools() if tools is None else tools)
    sid = await loop.new_session(session_id=bank.sid)
    await within_limit(loop.send("go", session_id=sid))
    return loop


async def _values(bank: Bank) -> dict[str, Any]:
    return {entry.key: entry.value for entry in await bank.store.read_entries(bank.sid)}


# ---- what a model does ----


@pytest.mark.promise("blackboard")
async def test_a_model_posts_reads_changes_and_removes(make_loop: MakeLoop, bank: Bank) -> None:
    loop = await _sent(
        make_loop,
        bank,
        # What reads and what writes the same run side by side in one reply, and either may be first.
        call("blackboard_read"),
        call("blackboard_post", POST),
        calls(("blackboard_post", {"key": "b", "value": [1]}), ("blackboard_read", {"prefix": "plan/"})),
        call("blackboard_update", {"key": "plan/step-1", "value": "done", "version": 1}),
        call("blackboard_remove", {"key": "b", "version": 2}),
        "Done.",
    )
    assert answers(loop.llm.requests[-1]) == [
        "The blackboard is empty.",
        "Posted: 'plan/step-1' has version 1.",
        "Posted: 'b' has version 2.",
        json.dumps({"entries": [{"key": "plan/step-1", "value": POST["value"], "version": 1, "written_by": "you"}]}),
        "Updated: 'plan/step-1' has version 3.",
        "Removed.",
    ]
    [entry] = await bank.store.read_entries(bank.sid)
    assert (entry.key, entry.value, entry.version, entry.author_session_id) == ("plan/step-1", "done", 3, bank.sid)
    effects = {record.name: record.effect for record in await bank.store.get_calls(bank.sid)}
    assert effects.pop("blackboard_read") is Effect.READ
    assert set(effects.values()) == {Effect.TRANSACTIONAL}


@pytest.mark.promise("blackboard")
async def test_a_conflict_tells_the_model_what_is_there(make_loop: MakeLoop, bank: Bank) -> None:
    await bank.store.create_session(bank.sid, system_prompt=None, metadata={})
    await bank.store.post_entry(bank.sid, "a", {"text": "言葉"})
    loop = make_loop(
        calls(
            ("blackboard_post", {"key": "a", "value": 1}),
            ("blackboard_update", {"key": "a", "value": 1, "version": 9}),
            ("blackboard_remove", {"key": "a", "version": 9}),
            ("blackboard_update", {"key": "b", "value": 1, "version": 1}),
            ("blackboard_post", {"key": "two words", "value": 1}),
            ("blackboard_read", {"keys": ["a"]}),
        ),
        "Done.",
        store=bank.store,
        tool_registry=blackboard_tools(),
    )
    await within_limit(loop.send("go", session_id=bank.sid))
    there = 'Nothing changed: \'a\' has version 1, and its value is {"text": "言葉"}'
    *errors, refused = error_answers(loop.llm.requests[-1])
    assert errors == [there, there, there, "Nothing changed: there is no entry 'b'. blackboard_post makes one."]
    assert refused.startswith("key 'two words' is not usable on a blackboard: give 1 to 128 characters")
    [read] = [one for one in answers(loop.llm.requests[-1]) if one.startswith("{")]
    assert json.loads(read)["entries"][0]["written_by"] == "the application"
    assert await _values(bank) == {"a": {"text": "言葉"}}
    assert [one.state for one in await bank.store.get_calls(bank.sid)] == [*[CallState.FAILED] * 5, CallState.SUCCEEDED]


async def test_a_long_board_is_read_page_by_page(make_loop: MakeLoop, bank: Bank) -> None:
    await bank.store.create_session(bank.sid, system_prompt=None, metadata={})
    for number in range(MAX_SHOWN + 1):
        await bank.store.post_entry(bank.sid, f"k{number:02}", number)
    for name in ("x", "y"):
        await bank.store.post_entry(bank.sid, name, name * 16_000)
    pages: list[Any] = []

    def model(request: Any) -> Any:
        if request.messages[-1].tool_result is not None:
            pages.append(json.loads(answers(request)[-1]))
        if pages and "more_after" not in pages[-1]:
            return "Done."
        return call("blackboard_read", {"after": pages[-1]["more_after"]} if pages else {})

    loop = make_loop(llm=ScriptedLLM([model], repeat_last=True), store=bank.store, tool_registry=blackboard_tools())
    await within_limit(loop.send("go", session_id=bank.sid))
    keys = [[entry["key"] for entry in page["entries"]] for page in pages]
    assert keys == [[f"k{number:02}" for number in range(MAX_SHOWN)], [f"k{MAX_SHOWN:02}", "x"], ["y"]]


async def test_a_tool_of_ones_own_writes_with_its_own_statements_or_not_at_all(make_loop: MakeLoop, bank: Bank) -> None:
    @tool
    async def pay(context: ToolContext, tx: ToolTransaction, cents: int) -> str:
        """Pay Bob, and tell the others."""
        await tx.execute(f"UPDATE {bank.table} SET cents = cents + ? WHERE name = 'bob'", (cents,))
        await tx.blackboard.post(f"paid/{context.call_id}", cents)
        try:
            await tx.blackboard.post("first", context.call_id)
        except BlackboardConflictError as taken:
            if cents > 50:
                raise
            return f"after {taken.value}"
        return "first"

    steps = [call("pay", {"cents": cents}, id=f"c{cents}") for cents in (1, 2, 99)]
    loop = await _sent(make_loop, bank, *steps, "Done.", tools=[pay])
    assert await bank.cents() == {"ann": 100, "bob": 103}
    assert await _values(bank) == {"first": "c1", "paid/c1": 1, "paid/c2": 2}
    assert answers(loop.llm.requests[-1])[:2] == ["first", "after c1"]
    [failed] = error_answers(loop.llm.requests[-1])
    assert "entry 'first' of the blackboard" in failed


# ---- who else writes ----


async def _children(bank: Bank, act: str) -> list[str]:
    """Return the lines that three processes say which do something at the same time."""
    command = [sys.executable, "-m", "tests.agent.board_child", bank.dsn, bank.prefix, bank.sid, act]
    children = [await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE) for _ in range(3)]
    said = await asyncio.wait_for(asyncio.gather(*(child.communicate() for child in children)), CHILDREN_LIMIT_S)
    assert [child.returncode for child in children] == [0, 0, 0]
    return "".join(out.decode() for out, _ in said).split()


@pytest.mark.promise("blackboard")
async def test_of_many_tasks_in_many_processes_none_loses_a_write(bank: Bank) -> None:
    await bank.store.create_session(bank.sid, system_prompt=None, metadata={})
    await _children(bank, "count")
    [entry] = await bank.store.read_entries(bank.sid)
    # Every write took effect, and there was none beside them.
    assert entry.value == entry.version == 3 * TASKS * TIMES


@pytest.mark.promise("blackboard")
async def test_what_many_processes_want_to_remove_goes_to_one_of_them(bank: Bank) -> None:
    await bank.store.create_session(bank.sid, system_prompt=None, metadata={})
    jobs = [f"job/{number}" for number in range(12)]
    for job in jobs:
        await bank.store.post_entry(bank.sid, job, None)
    assert sorted(await _children(bank, "take")) == sorted(jobs)
    assert await bank.store.read_entries(bank.sid) == ()


@pytest.mark.promise("blackboard")
@pytest.mark.promise("effect-transactional")
@pytest.mark.parametrize("point", POINTS, ids=[" ".join(point) for point in POINTS])
async def test_what_a_killed_process_posted_is_posted_once(
    make_loop: MakeLoop, bank: Bank, point: tuple[str, str]
) -> None:
    first = make_loop(store=bank.store, tool_registry=blackboard_tools())
    sid = await first.new_session(session_id=bank.sid)
    arguments = (bank.dsn, bank.prefix, sid, *point)
    child = await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.agent.board_child", *arguments)
    assert await within_limit(child.wait()) == -9
    assert len(await _values(bank)) == (point == ("commit.after", "run_effect"))

    def model(request: Any) -> Any:
        return "Done." if answers(request) else call("blackboard_post", POST)

    loop = make_loop(llm=ScriptedLLM([model], repeat_last=True), store=bank.store, tool_registry=blackboard_tools())
    assert (await within_limit(loop.resume(sid))).final_text == "Done."
    assert answers(loop.llm.requests[-1]) == ["Posted: 'plan/step-1' has version 1."]
    [entry] = await bank.store.read_entries(sid)
    assert (entry.value, entry.version) == (POST["value"], 1)


@pytest.mark.parametrize("how", ["cut_before", "cut_after"])
async def test_a_connection_that_is_lost_during_commit_leaves_each_write_once(bank: Bank, how: str) -> None:
    if not isinstance(bank.place, Tables):
        pytest.skip("a file has no connection")
    server = next(shared_server(one.name) for one in SERVERS if shared_database(one.name) == bank.dsn)
    await bank.store.create_session(bank.sid, system_prompt=None, metadata={})
    with Proxy(server) as proxy:
        dsn = proxy.dsn(bank.dsn)
        dsn += ("&" if "?" in dsn else "?") + "sslmode=disable"  # TLS would hide from the proxy what it waits for
        store = await open_store(dsn, table_prefix=bank.prefix)

        async def lost(write: Awaitable[T]) -> T:
            trap = getattr(proxy, how)(b"COMMIT")
            written = await within_limit(write)
            assert trap.happened.is_set()
            return written

        posted = await lost(store.post_entry(bank.sid, "a", 1))
        changed = await lost(store.update_entry(bank.sid, "a", 2, expected_version=posted.version))
        assert (posted.version, changed.version) == (1, 2)
        assert await bank.store.read_entries(bank.sid) == (changed,)
        await lost(store.remove_entry(bank.sid, "a", expected_version=2))
        assert await bank.store.read_entries(bank.sid) == ()
        await store.aclose()


async def test_agents_of_a_tree_share_its_board_and_another_tree_has_its_own(make_loop: MakeLoop) -> None:
    scout = AgentSpec("scout", "You look around.")
    found = call("blackboard_post", {"key": "found", "value": "a spring"})
    script = [call("spawn_agent", {"agent": "scout", "input": "Go."}), found, "I posted it."]
    script += [call("blackboard_read"), "There is a spring.", call("blackboard_read"), "Nothing."]
    loop = make_loop(*script, tool_registry=[*blackboard_tools(), *agent_tools([scout])])
    sid, other = await loop.new_session(), await loop.new_session()
    assert (await within_limit(loop.send("What is there?", session_id=sid))).is_completed
    [entry] = await (await loop.get_store()).read_entries(sid)
    assert (entry.key, entry.value) == ("found", "a spring")
    assert entry.author_session_id not in (None, sid)
    llm: Any = loop.llm
    assert json.loads(answers(llm.requests[-1])[-1])["entries"][0]["written_by"] == entry.author_session_id
    await within_limit(loop.send("And here?", session_id=other))
    assert answers(llm.requests[-1])[-1] == "The blackboard is empty."
    store: Any = await loop.get_store()
    await store.delete_session(entry.author_session_id)
    assert [one.key for one in await store.read_entries(sid)] == ["found"], "an entry outlives who wrote it"
