"""After a process is gone: resume, heal, abort, or plain send, from whatever the log says."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from power_loop import (
    Approve,
    Effect,
    LLMRequest,
    LoopConfig,
    SendLimits,
    SendStatus,
    StatefulAgentLoop,
    ToolContext,
    ToolDefinition,
    ToolResult,
    open_store,
    tool,
)
from power_loop.errors import CallNotFoundError, SessionPendingError, StoreCorruptError
from power_loop.events import LeaseTaken, SendStarted
from power_loop.records import CallState
from power_loop.runtime.host.identity import new_owner_id
from power_loop.testing import ScriptedLLM, call, calls

from .conftest import MakeLoop
from .parts import Ears, Gate, answers, error_answers, said, within_limit
from .test_cancel_storm import check_transcript

RAN: list[Any] = []


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    RAN.clear()


def acting(effect: str, **options: Any) -> ToolDefinition:
    """Return a tool of this effect that notes each run with its key and attempt."""

    def handler(n: int, ctx: ToolContext) -> str:
        RAN.append((effect, n, ctx.idempotency_key, ctx.attempt))
        return f"{effect} {n}"

    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    return ToolDefinition(effect, "Act.", schema, handler, effect=Effect(effect), takes_context="ctx", **options)


TOOLS = [acting("read"), acting("idempotent"), acting("once")]
EVERY = calls(("read", {"n": 1}), ("idempotent", {"n": 2}), ("once", {"n": 3}), ids=("r", "i", "o"))


class Deaths:
    """Copies the database at each commit, as it stands on the disk there: what a process that died there leaves."""

    def __init__(self, store: Any, path: Path, folder: Path) -> None:
        self._store, self._path, self._folder = store, path, folder
        self.copies: list[tuple[str, Path]] = []

    def __enter__(self) -> Deaths:
        self._store.on_point = self._note
        return self

    def __exit__(self, *_: object) -> None:
        self._store.on_point = None

    def _note(self, point: str, move: str) -> None:
        folder = self._folder / f"{len(self.copies)}"
        folder.mkdir(parents=True)
        for suffix in ("", "-wal"):
            source = self._path.with_name(self._path.name + suffix)
            if source.exists():
                shutil.copyfile(source, folder / source.name)
        self.copies.append((f"{point} {move}", folder / self._path.name))


def orphan(path: Path) -> None:
    """Let the lease in a copy belong to a process that is dead."""
    connection = sqlite3.connect(path)
    connection.execute("UPDATE pl_sessions SET owner = ? WHERE owner IS NOT NULL", (dead_owner(),))
    connection.commit()
    connection.close()


def dead_owner() -> str:
    place, _, _, random_part = new_owner_id().split("|")
    # A process id that Linux and macOS give to nobody.
    return f"{place}|99999999|1|{random_part}"


async def every_death(
    make_loop: MakeLoop, tmp_path: Path, act: Callable[[StatefulAgentLoop, str], Any], **options: Any
) -> list[tuple[str, str, str]]:
    """Run `act` and return (point, path, session id) for each moment at which its process could have died."""
    path = tmp_path / "app.db"
    store = await open_store(path)
    loop = make_loop(store=store, **options)
    sid = await loop.new_session()
    with Deaths(store, path, tmp_path / "deaths") as deaths:
        await act(loop, sid)
    await store.aclose()
    for _, copy in deaths.copies:
        orphan(copy)
    assert len(deaths.copies) >= 4
    return [(point, str(copy), sid) for point, copy in deaths.copies]


# ---- dying at each commit ----


def clever(request: LLMRequest) -> Any:
    """Say what a model would say next, from nothing but the request."""
    check_transcript(request)
    if any(message.tool_calls for message in request.messages):
        return "Done."
    return EVERY


@pytest.mark.promise("kill-at-any-moment")
@pytest.mark.promise("effect-read")
@pytest.mark.promise("effect-idempotent")
@pytest.mark.promise("effect-once")
async def test_resume_finishes_a_turn_that_died_at_any_commit(make_loop: MakeLoop, tmp_path: Path) -> None:
    async def act(loop: StatefulAgentLoop, sid: str) -> None:
        assert (await loop.send("go", session_id=sid)).is_completed

    deaths = await every_death(
        make_loop, tmp_path, act, llm=ScriptedLLM([clever], repeat_last=True), tool_registry=TOOLS
    )
    keys = {effect: key for effect, _, key, _ in RAN}
    outcomes = set()
    for point, path, sid in deaths:
        RAN.clear()
        loop = make_loop(llm=ScriptedLLM([clever], repeat_last=True), dsn=path, tool_registry=TOOLS)
        if not await loop.get_messages(sid):
            assert (await loop.resume(sid)).status is SendStatus.NO_SEND
            assert point == "commit.before accept"
            continue
        pending = await loop.get_pending(sid)
        started = {one.name for one in pending if one.state == "started"}
        result = await within_limit(loop.resume(sid))
        assert (result.status, result.final_text) == (SendStatus.COMPLETED, "Done."), point
        ran = {effect for effect, *_ in RAN}
        assert {one.name for one in pending} - started - ran == set(), "what had not begun has run"
        if "once" in started:
            assert "once" not in ran, "what may have had its effect does not run again"
            assert "outcome is unknown" in error_answers(loop.llm.requests[-1])[0]
        if "idempotent" in started:
            assert "idempotent" in ran
        assert all(key == keys[effect] for effect, _, key, _ in RAN), "a second run has the same key"
        log = await loop.get_messages(sid)
        assert [role for role, _ in said(log)] == ["user", "assistant", "tool", "tool", "tool", "assistant"]
        assert (await loop.get_session_stats(sid)).usage.total_tokens == 30
        assert (await loop.send("again", session_id=sid)).is_completed, "and the session goes on"
        outcomes.add((bool(pending), "once" in started))
    assert outcomes >= {(False, False), (True, True)}, "deaths in the middle of the tools were among them"


@pytest.mark.promise("kill-at-any-moment")
@pytest.mark.promise("valid-transcript")
@pytest.mark.parametrize("way", ["heal_pending", "abort_pending", "send heals"])
async def test_healing_leaves_a_session_ready_after_a_death_at_any_commit(
    make_loop: MakeLoop, tmp_path: Path, way: str
) -> None:
    async def act(loop: StatefulAgentLoop, sid: str) -> None:
        await loop.send("go", session_id=sid)

    deaths = await every_death(
        make_loop, tmp_path, act, llm=ScriptedLLM([clever], repeat_last=True), tool_registry=TOOLS
    )
    for point, path, sid in deaths:
        RAN.clear()
        loop = make_loop(llm=ScriptedLLM([check_and_say], repeat_last=True), dsn=path, tool_registry=TOOLS)
        had_input = bool(await loop.get_messages(sid))
        pending = await loop.get_pending(sid)
        if way == "send heals":
            result = await loop.send("next", session_id=sid, heal_pending=True)
        else:
            if had_input:
                healed = await getattr(loop, way)(sid)
                assert healed.status in (SendStatus.ABORTED, SendStatus.COMPLETED), point
            result = await loop.send("next", session_id=sid)
        assert (result.status, result.final_text) == (SendStatus.COMPLETED, "Fine."), point
        assert RAN == [], "healing runs nothing"
        assert await loop.get_pending(sid) == ()
        store = await open_store(path)
        states = {one.name: one.state for one in await store.get_calls(sid)}
        await store.aclose()
        for one in pending:
            expected = CallState.UNKNOWN if one.state == "started" else CallState.ABORTED
            assert states[one.name] is expected, (point, one)


def check_and_say(request: LLMRequest) -> str:
    check_transcript(request)
    return "Fine."


@pytest.mark.promise("two-ways-out")
async def test_a_plain_send_after_a_death_is_refused_only_where_calls_are_open(
    make_loop: MakeLoop, tmp_path: Path
) -> None:
    async def act(loop: StatefulAgentLoop, sid: str) -> None:
        await loop.send("go", session_id=sid)

    deaths = await every_death(
        make_loop, tmp_path, act, llm=ScriptedLLM([clever], repeat_last=True), tool_registry=TOOLS
    )
    refused = 0
    for point, path, sid in deaths:
        loop = make_loop(llm=ScriptedLLM([check_and_say], repeat_last=True), dsn=path, tool_registry=TOOLS)
        pending = await loop.get_pending(sid)
        if pending:
            refused += 1
            with pytest.raises(SessionPendingError, match=r"resume.*heal_pending") as caught:
                await loop.send("next", session_id=sid)
            assert caught.value.call_ids == tuple(one.call_id for one in pending)
        else:
            assert (await loop.send("next", session_id=sid)).is_completed, point
    assert refused >= 2


async def test_a_wait_survives_a_death_at_any_commit(make_loop: MakeLoop, tmp_path: Path) -> None:
    approve = [acting("once", requires_approval=True)]
    wanted = calls(("once", {"n": 1}), ids=("o",))

    async def act(loop: StatefulAgentLoop, sid: str) -> None:
        assert (await loop.send("go", session_id=sid)).status is SendStatus.WAITING_FOR_INPUT
        assert (await loop.resume(sid, answers={"o": Approve()})).is_completed

    def model(request: LLMRequest) -> Any:
        check_transcript(request)
        return "Done." if request.messages[-1].tool_result else wanted

    deaths = await every_death(
        make_loop, tmp_path, act, llm=ScriptedLLM([model], repeat_last=True), tool_registry=approve
    )
    for point, path, sid in deaths:
        RAN.clear()
        loop = make_loop(llm=ScriptedLLM([model], repeat_last=True), dsn=path, tool_registry=approve)
        if not await loop.get_messages(sid):
            continue
        [started] = [one.state for one in await loop.get_pending(sid)] or [None]
        result = await within_limit(loop.resume(sid))
        if result.status is SendStatus.WAITING_FOR_INPUT:
            assert RAN == []
            result = await within_limit(loop.resume(sid, answers={"o": Approve()}))
        assert (result.status, result.final_text) == (SendStatus.COMPLETED, "Done."), point
        assert len(RAN) <= 1
        if started == "started":
            assert RAN == []


# ---- what died in the middle of a handler ----


async def died_in_a_handler(make_loop: MakeLoop, tmp_path: Path, definition: ToolDefinition) -> tuple[str, str]:
    """Return the path and session of a process that died while the tool's handler ran."""

    async def act(loop: StatefulAgentLoop, sid: str) -> None:
        await loop.send("go", session_id=sid)

    llm = ScriptedLLM([calls((definition.name, {"n": 1}), ids=("c",)), "Done."])
    deaths = await every_death(make_loop, tmp_path, act, llm=llm, tool_registry=[definition])
    [(_, path, sid)] = [death for death in deaths if death[0] == "commit.before advance_calls"][-1:]
    RAN.clear()
    return path, sid


@pytest.mark.parametrize(
    ("found", "told", "state"),
    [
        ("paid already", "paid already", CallState.SUCCEEDED),
        (ToolResult("was refused", is_error=True), "was refused", CallState.FAILED),
        (None, "before it had any effect", CallState.FAILED),
    ],
)
@pytest.mark.parametrize("is_async", [True, False])
async def test_a_probe_tells_what_became_of_a_call(
    make_loop: MakeLoop, tmp_path: Path, found: Any, told: str, state: CallState, is_async: bool
) -> None:
    asked: list[str] = []

    async def probe_async(key: str) -> Any:
        asked.append(key)
        return found

    def probe_sync(key: str) -> Any:
        asked.append(key)
        return found

    pay = acting("once", probe=probe_async if is_async else probe_sync)
    path, sid = await died_in_a_handler(make_loop, tmp_path, pay)
    loop = make_loop("Done.", dsn=path, tool_registry=[pay])
    assert (await loop.resume(sid)).is_completed
    assert RAN == []
    assert len(asked) == 1
    assert asked[0].startswith("pl1_")
    assert told in answers(loop.llm.requests[0])[0]
    store = await open_store(path)
    assert [one.state for one in await store.get_calls(sid)] == [state]
    await store.aclose()


async def test_a_probe_that_cannot_tell_leaves_the_outcome_unknown(make_loop: MakeLoop, tmp_path: Path) -> None:
    def probe(key: str) -> Any:
        raise ConnectionError("the bank is closed")

    pay = acting("once", probe=probe)
    path, sid = await died_in_a_handler(make_loop, tmp_path, pay)
    loop = make_loop("Done.", dsn=path, tool_registry=[pay])
    assert (await loop.resume(sid)).is_completed
    assert "outcome is unknown" in error_answers(loop.llm.requests[0])[0]


async def test_a_second_run_is_a_second_attempt_with_the_same_key(make_loop: MakeLoop, tmp_path: Path) -> None:
    act = acting("idempotent")
    path, sid = await died_in_a_handler(make_loop, tmp_path, act)
    loop = make_loop("Done.", dsn=path, tool_registry=[act])
    assert (await loop.resume(sid)).is_completed
    assert [(n, attempt) for _, n, _, attempt in RAN] == [(1, 2)]


async def test_a_tool_that_is_gone_when_its_call_is_resumed_is_told(make_loop: MakeLoop, tmp_path: Path) -> None:
    path, sid = await died_in_a_handler(make_loop, tmp_path, acting("idempotent"))
    loop = make_loop("Done.", dsn=path)
    assert (await loop.resume(sid)).is_completed
    assert "'idempotent'" in error_answers(loop.llm.requests[0])[0]


async def test_a_takeover_is_announced(make_loop: MakeLoop, tmp_path: Path) -> None:
    path, sid = await died_in_a_handler(make_loop, tmp_path, acting("idempotent"))
    loop = make_loop("Done.", dsn=path, tool_registry=[acting("idempotent")])
    ears = Ears(loop)
    await loop.resume(sid)
    assert len(ears.of(LeaseTaken)) == 1
    assert ears.of(SendStarted) == [SendStarted(None, is_resume=True)]


# ---- resume, heal and abort where nothing died ----


async def test_resuming_a_send_that_rests_gives_its_recorded_result(make_loop: MakeLoop) -> None:
    loop = make_loop("One.", "Two.")
    sid = await loop.new_session()
    await loop.send("a", session_id=sid)
    second = await loop.send("b", session_id=sid)
    for handle in (loop, make_loop()):
        again = await handle.resume(sid)
        assert (again.final_text, again.send_index, again.is_replayed) == ("Two.", 2, True)
        assert again.usage == second.usage
    assert len(loop.llm.requests) == 2


async def test_a_recovery_goes_over_sessions_without_a_send(make_loop: MakeLoop) -> None:
    loop = make_loop("Fine.")
    sid = await loop.new_session()
    for door in (loop.resume, loop.heal_pending, loop.abort_pending):
        result = await door(sid)
        assert (result.status, result.send_index) == (SendStatus.NO_SEND, 0)
    with pytest.raises(CallNotFoundError):
        await loop.resume(sid, answers={"c1": Approve()})
    assert await loop.get_messages(sid) == ()
    assert (await loop.send("a", session_id=sid)).send_index == 1


async def test_healing_where_nothing_is_open_changes_nothing(make_loop: MakeLoop) -> None:
    loop = make_loop("One.", "Two.")
    sid = await loop.new_session()
    await loop.send("a", session_id=sid)
    before = await loop.get_messages(sid)
    for door in (loop.heal_pending, loop.abort_pending):
        assert (await door(sid)).status is SendStatus.COMPLETED
    assert await loop.get_messages(sid) == before
    assert (await loop.send("b", session_id=sid, heal_pending=True)).final_text == "Two."


async def test_healing_leaves_a_failed_send_as_it_is(make_loop: MakeLoop) -> None:
    loop = make_loop(RuntimeError("down"), "Fine.")
    sid = await loop.new_session()
    with pytest.raises(Exception, match="down"):
        await loop.send("a", session_id=sid)
    assert (await loop.heal_pending(sid)).status is SendStatus.FAILED
    assert (await loop.resume(sid)).final_text == "Fine."


async def test_a_failed_send_may_be_given_up(make_loop: MakeLoop) -> None:
    loop = make_loop(RuntimeError("down"), "Fine.")
    sid = await loop.new_session()
    with pytest.raises(Exception, match="down"):
        await loop.send("a", session_id=sid)
    result = await loop.abort_pending(sid, reason="no longer wanted")
    assert (result.status, result.reason) == (SendStatus.ABORTED, "no longer wanted")
    assert (await loop.resume(sid)).status is SendStatus.ABORTED
    assert (await loop.send("b", session_id=sid)).final_text == "Fine."


@pytest.mark.parametrize(
    "options",
    [
        {"tools": 5},
        {"tools": [5]},
        {"limits": 5},
        {"limits": {"max_rounds": "x"}},
        {"output_schema": "x"},
        {"output_schema": {"nope": 1}},
        {"output_schema": {"schema": 5}},
        {"max_output_tokens": "x"},
        {"temperature": "hot"},
        {"system_prompt": 5},
        {"tool_choice": []},
        {"budget": {"max_tokens": "x"}},
        {"payer": ["sess_1"]},
        {"payer": [5, "x"]},
    ],
)
@pytest.mark.parametrize("is_waiting", [True, False])
async def test_stored_options_that_cannot_be_are_told_and_the_send_can_be_given_up(
    make_loop: MakeLoop, dsn: str, options: dict[str, Any], is_waiting: bool
) -> None:
    @tool(requires_approval=True)
    def ask(n: int) -> str:
        """Ask first."""
        return "approved"

    loop = make_loop(llm=ScriptedLLM([call("ask", {"n": 1}), "Done."]), tool_registry=[ask])
    sid = await loop.new_session()
    await loop.send("go", session_id=sid)
    with sqlite3.connect(dsn) as database:
        status = "waiting_for_input" if is_waiting else "running"
        database.execute("UPDATE pl_sends SET options = ?, status = ?", (json.dumps(options), status))
    database.close()
    for _ in range(2):
        with pytest.raises(StoreCorruptError, match="heal_pending=True"):
            await loop.resume(sid)
    assert (await loop.send("on", session_id=sid, heal_pending=True)).final_text == "Done."


async def test_options_of_a_later_version_are_passed_over(make_loop: MakeLoop, dsn: str) -> None:
    loop = make_loop(llm=ScriptedLLM(["One.", "Two."]))
    sid = await loop.new_session()
    await loop.send("go", session_id=sid, limits=SendLimits(max_rounds=7))
    later = {"limits": {"max_rounds": 7, "max_joules": 1}, "seed": 4}
    with sqlite3.connect(dsn) as database:
        database.execute("UPDATE pl_sends SET options = ?, status = 'running', result = NULL", (json.dumps(later),))
    database.close()
    assert (await loop.resume(sid)).is_completed


async def test_a_resume_uses_the_tools_and_options_of_its_send(make_loop: MakeLoop) -> None:
    loop = make_loop(RuntimeError("down"), tool_registry=TOOLS)
    sid = await loop.new_session(system_prompt="Session's.")
    with pytest.raises(Exception, match="down"):
        await loop.send(
            "a", session_id=sid, tools=["read"], system_prompt="Send's.", temperature=0.3, max_output_tokens=77
        )
    other = make_loop("Done.", tool_registry=TOOLS, config=LoopConfig(temperature=1.0))
    await other.resume(sid)
    [request] = other.llm.requests
    assert [one.name for one in request.tools] == ["read"]
    assert (request.system, request.temperature, request.max_output_tokens) == ("Send's.", 0.3, 77)


async def test_a_resume_may_bring_the_tools_that_its_send_brought(make_loop: MakeLoop) -> None:
    def greet() -> str:
        """Greet."""
        return "Hello."

    loop = make_loop(RuntimeError("down"))
    sid = await loop.new_session()
    with pytest.raises(Exception, match="down"):
        await loop.send("a", session_id=sid, tools=[greet])
    other = make_loop(call("greet"), "Done.")
    await other.resume(sid, tools=[greet])
    assert answers(other.llm.requests[1]) == ["Hello."]


async def test_a_resume_waits_for_the_turn_that_runs_and_sees_its_result(make_loop: MakeLoop) -> None:
    gate = Gate()
    loop = make_loop(gate.then("Done."))
    sid = await loop.new_session()
    turn = asyncio.create_task(loop.send("a", session_id=sid))
    await gate.someone()
    resumed = asyncio.create_task(loop.resume(sid))
    await asyncio.sleep(0)
    gate.open()
    assert (await within_limit(turn)).final_text == "Done."
    again = await within_limit(resumed)
    assert (again.final_text, again.is_replayed) == ("Done.", True)
    assert len(loop.llm.requests) == 1


@pytest.mark.promise("immutable-log")
async def test_what_was_said_is_never_changed_by_what_comes_after(make_loop: MakeLoop) -> None:
    loop = make_loop(call("once", {"n": 1}), "Done.", RuntimeError("down"), tool_registry=TOOLS)
    sid = await loop.new_session()
    await loop.send("a", session_id=sid)
    before = await loop.get_messages(sid)
    with pytest.raises(Exception, match="down"):
        await loop.send("b", session_id=sid)
    await loop.abort_pending(sid)
    await loop.update_session(sid, system_prompt="Other.")
    loop.llm.add("Fine.")
    await loop.send("c", session_id=sid)
    assert (await make_loop().get_messages(sid))[: len(before)] == before


async def test_only_calls_that_had_begun_are_unknown_after_a_death(make_loop: MakeLoop, tmp_path: Path) -> None:
    """Of many calls, those that still waited for their turn have certainly had no effect."""
    act_once = acting("once")

    async def act(loop: StatefulAgentLoop, sid: str) -> None:
        await loop.send("go", session_id=sid)

    wanted = calls(*(("once", {"n": n}) for n in range(5)))
    config = LoopConfig(max_parallel_tools=2)
    llm = ScriptedLLM([wanted, "Done."])
    deaths = await every_death(make_loop, tmp_path, act, llm=llm, tool_registry=[act_once], config=config)
    most_started = 0
    for point, path, sid in deaths:
        RAN.clear()
        loop = make_loop(llm=ScriptedLLM([clever_once(wanted)], repeat_last=True), dsn=path, tool_registry=[act_once])
        pending = await loop.get_pending(sid)
        started = [one.arguments["n"] for one in pending if one.state == "started"]
        most_started = max(most_started, len(started))
        if pending:
            await within_limit(loop.resume(sid))
            unstarted = [one.arguments["n"] for one in pending if one.state == "requested"]
            assert sorted(n for _, n, *_ in RAN) == unstarted, point
    assert most_started == 2


def clever_once(wanted: Any) -> Callable[[LLMRequest], Any]:
    return lambda request: "Done." if request.messages[-1].tool_result else wanted
