"""A call whose process died while it ran: the model is told, a person is asked, or it runs again, as its tool says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from power_loop import (
    Approve,
    Deny,
    Give,
    HookPoint,
    LoopConfig,
    OnUnknown,
    SendStatus,
    StatefulAgentLoop,
    ToolContext,
    ToolResult,
    open_store,
    tool,
)
from power_loop.errors import ConfigError, InputError, ToolDefinitionError
from power_loop.hooks import Veto
from power_loop.records import CallState, WaitKind
from power_loop.testing import ScriptedLLM, calls

from .conftest import MakeLoop
from .parts import answers, error_answers, within_limit
from .test_recovery import every_death

RAN: list[tuple[str, int]] = []


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    RAN.clear()


def paying(**options: Any) -> Any:
    """Return a `once` tool that notes each run with its key and attempt."""

    @tool(**options)
    def pay(n: int, ctx: ToolContext) -> str:
        """Pay."""
        RAN.append((ctx.idempotency_key, ctx.attempt))
        return f"paid {n}"

    return pay


async def died(make_loop: MakeLoop, tmp_path: Path, pay: Any) -> tuple[str, str, str]:
    """Return the path, the session and the key of a process that died while the handler ran."""

    async def act(loop: StatefulAgentLoop, sid: str) -> None:
        await loop.send("go", session_id=sid)

    llm = ScriptedLLM([calls(("pay", {"n": 1}), ids=("c",)), "Done."])
    deaths = await every_death(make_loop, tmp_path, act, llm=llm, tool_registry=[pay])
    [(_, path, sid)] = [death for death in deaths if death[0] == "commit.before advance_calls"][-1:]
    [(key, _)] = RAN
    RAN.clear()
    return path, sid, key


async def state_of(path: str, sid: str) -> CallState:
    store = await open_store(path)
    [record] = await store.get_calls(sid)
    await store.aclose()
    return record.state


@pytest.mark.promise("on-unknown")
async def test_the_model_is_told_unless_somebody_chose_otherwise(make_loop: MakeLoop, tmp_path: Path) -> None:
    path, sid, _ = await died(make_loop, tmp_path, paying())
    loop = make_loop("Done.", dsn=path, tool_registry=[paying()])
    assert (await loop.resume(sid)).is_completed
    assert RAN == []
    assert "outcome is unknown" in error_answers(loop.llm.requests[0])[0]
    assert await state_of(path, sid) is CallState.UNKNOWN


async def test_it_runs_again_with_the_same_key_where_that_is_acceptable(make_loop: MakeLoop, tmp_path: Path) -> None:
    path, sid, key = await died(make_loop, tmp_path, paying())
    loop = make_loop("Done.", dsn=path, tool_registry=[paying(on_unknown="rerun")])
    assert (await loop.resume(sid)).is_completed
    assert list(RAN) == [(key, 2)]
    assert answers(loop.llm.requests[0]) == ["paid 1"]


async def asked(make_loop: MakeLoop, tmp_path: Path, *steps: Any) -> tuple[StatefulAgentLoop, str, str, str]:
    """Return a loop whose session waits for a person to say what became of its call."""
    pay = paying(on_unknown="ask")
    path, sid, key = await died(make_loop, tmp_path, pay)
    loop = make_loop(*steps, dsn=path, tool_registry=[pay])
    result = await within_limit(loop.resume(sid))
    assert result.status is SendStatus.WAITING_FOR_INPUT
    [pending] = result.pending
    assert (pending.call_id, pending.wait_kind, pending.data) == (
        "c",
        WaitKind.OUTCOME,
        {"idempotency_key": key, "attempt": 1},
    )
    assert "nobody saw how it ended" in (pending.prompt or "")
    assert RAN == []
    return loop, path, sid, key


@pytest.mark.parametrize(
    ("answer", "told", "state"),
    [
        (Give("paid 1, says the bank"), "paid 1, says the bank", CallState.SUCCEEDED),
        (Give("declined", is_error=True), "declined", CallState.FAILED),
        (Deny("the bank has nothing"), "a person says that it did not happen: the bank has nothing", CallState.FAILED),
    ],
)
async def test_a_person_says_what_became_of_it(
    make_loop: MakeLoop, tmp_path: Path, answer: Any, told: str, state: CallState
) -> None:
    loop, path, sid, _ = await asked(make_loop, tmp_path, "Done.")
    assert [one.wait_kind for one in await loop.get_pending(sid)] == [WaitKind.OUTCOME], "any process sees it"
    assert (await loop.resume(sid, answers={"c": answer})).is_completed
    assert RAN == []
    assert told in answers(loop.llm.requests[0])[0]
    assert await state_of(path, sid) is state


@pytest.mark.promise("on-unknown")
async def test_a_person_lets_it_run_again(make_loop: MakeLoop, tmp_path: Path) -> None:
    loop, path, sid, key = await asked(make_loop, tmp_path, "Done.")
    with pytest.raises(InputError, match="takes no others"):
        await loop.resume(sid, answers={"c": Approve({"n": 2})})
    assert (await loop.resume(sid, answers={"c": Approve()})).is_completed
    assert list(RAN) == [(key, 2)]
    assert await state_of(path, sid) is CallState.SUCCEEDED


@pytest.mark.parametrize("way", ["heal_pending", "abort_pending"])
async def test_a_question_that_is_given_up_leaves_it_unknown(make_loop: MakeLoop, tmp_path: Path, way: str) -> None:
    loop, path, sid, _ = await asked(make_loop, tmp_path)
    await getattr(loop, way)(sid)
    assert await state_of(path, sid) is CallState.UNKNOWN
    assert RAN == []


@pytest.mark.parametrize("way", ["heal_pending", "abort_pending"])
@pytest.mark.parametrize("choice", list(OnUnknown))
async def test_healing_runs_nothing_and_asks_nobody(
    make_loop: MakeLoop, tmp_path: Path, way: str, choice: OnUnknown
) -> None:
    pay = paying(on_unknown=choice)
    path, sid, _ = await died(make_loop, tmp_path, pay)
    loop = make_loop(dsn=path, tool_registry=[pay])
    assert (await getattr(loop, way)(sid)).status is SendStatus.ABORTED
    assert RAN == []
    assert await state_of(path, sid) is CallState.UNKNOWN


@pytest.mark.parametrize("choice", list(OnUnknown))
async def test_a_probe_is_asked_before_anybody_else(make_loop: MakeLoop, tmp_path: Path, choice: OnUnknown) -> None:
    path, sid, key = await died(make_loop, tmp_path, paying())
    probed: list[str] = []

    def probe(given: str) -> Any:
        probed.append(given)
        return ToolResult("paid, it says")

    loop = make_loop("Done.", dsn=path, tool_registry=[paying(on_unknown=choice, probe=probe)])
    assert (await loop.resume(sid)).is_completed
    assert (probed, RAN) == ([key], [])
    assert answers(loop.llm.requests[0]) == ["paid, it says"]


async def test_what_a_probe_denies_runs_again_only_where_it_may(make_loop: MakeLoop, tmp_path: Path) -> None:
    path, sid, key = await died(make_loop, tmp_path, paying())
    loop = make_loop("Done.", dsn=path, tool_registry=[paying(on_unknown="rerun", probe=lambda given: None)])
    assert (await loop.resume(sid)).is_completed
    assert list(RAN) == [(key, 2)]


async def test_a_tool_that_is_gone_cannot_run_again(make_loop: MakeLoop, tmp_path: Path) -> None:
    path, sid, _ = await died(make_loop, tmp_path, paying())
    loop = make_loop("Done.", dsn=path, config=LoopConfig(on_unknown=OnUnknown.RERUN))
    assert (await loop.resume(sid)).is_completed
    assert "outcome is unknown" in error_answers(loop.llm.requests[0])[0]
    assert await state_of(path, sid) is CallState.UNKNOWN


async def test_the_loop_chooses_for_tools_that_do_not(make_loop: MakeLoop, tmp_path: Path) -> None:
    path, sid, _ = await died(make_loop, tmp_path, paying())
    loop = make_loop(dsn=path, tool_registry=[paying()], config=LoopConfig(on_unknown="ask"))
    assert (await loop.resume(sid)).pending[0].wait_kind is WaitKind.OUTCOME
    with pytest.raises(ConfigError, match="give one of 'tell_model', 'ask', 'rerun'"):
        LoopConfig(on_unknown="guess")
    with pytest.raises(ToolDefinitionError, match=r"OnUnknown\.ASK"):
        paying(on_unknown="guess")


@pytest.mark.parametrize(
    ("choice", "ran", "told"),
    [
        ("tell_model", 0, "outcome is unknown"),
        ("rerun", 1, "paid 1"),
    ],
)
async def test_a_call_about_something_unknown_shares_its_fate(
    make_loop: MakeLoop, tmp_path: Path, choice: str, ran: int, told: str
) -> None:
    def key(arguments: Any) -> str:
        return f"invoice-{arguments['n']}"

    path, sid, _ = await died(make_loop, tmp_path, paying(key=key))
    loop = make_loop(
        calls(("pay", {"n": 1}), ids=("d",)), "Done.", dsn=path, tool_registry=[paying(key=key, on_unknown=choice)]
    )
    await loop.heal_pending(sid)
    assert (await loop.send("pay it", session_id=sid)).is_completed
    assert len(RAN) == ran
    assert told in answers(loop.llm.requests[-1])[-1]


async def test_a_call_that_was_refused_hides_nothing_that_may_have_happened(
    make_loop: MakeLoop, tmp_path: Path
) -> None:
    pay = paying(key=lambda arguments: f"invoice-{arguments['n']}")
    path, sid, _ = await died(make_loop, tmp_path, pay)
    steps = [calls(("pay", {"n": 1}), ids=(call_id,)) for call_id in ("d", "e")]
    loop = make_loop(*steps, "Done.", dsn=path, tool_registry=[pay])
    await loop.heal_pending(sid)

    def not_yet(context: Any) -> Veto | None:
        return Veto("not yet") if context.call.call_id == "d" else None

    loop.hooks.add(HookPoint.TOOL_BEFORE, not_yet, name="not yet")
    assert (await loop.send("pay it", session_id=sid)).is_completed
    assert RAN == []
    assert "not yet" in error_answers(loop.llm.requests[-1])[-2]
    assert "outcome is unknown" in error_answers(loop.llm.requests[-1])[-1]


@pytest.mark.parametrize("point", [HookPoint.TOOL_BEFORE, HookPoint.TOOLS_BEFORE])
async def test_what_is_not_allowed_to_run_again_is_not_said_never_to_have_run(
    make_loop: MakeLoop, tmp_path: Path, point: HookPoint
) -> None:
    path, sid, _ = await died(make_loop, tmp_path, paying())
    loop = make_loop("Done.", dsn=path, tool_registry=[paying(on_unknown="rerun")])
    loop.hooks.add(point, lambda context: Veto("closed"), name="closed")
    assert (await loop.resume(sid)).is_completed
    assert RAN == []
    [told] = error_answers(loop.llm.requests[0])
    assert "outcome is unknown" in told
    assert told.endswith("was not run, because it was not allowed: closed")
    assert await state_of(path, sid) is CallState.UNKNOWN


async def test_a_person_is_asked_once_about_a_call_on_something_unknown(make_loop: MakeLoop, tmp_path: Path) -> None:
    pay = paying(key=lambda arguments: f"invoice-{arguments['n']}", on_unknown="ask")
    path, sid, _ = await died(make_loop, tmp_path, pay)
    loop = make_loop(calls(("pay", {"n": 1}), ids=("d",)), "Done.", dsn=path, tool_registry=[pay])
    await loop.heal_pending(sid)
    result = await loop.send("pay it", session_id=sid)
    assert [(one.call_id, one.wait_kind) for one in result.pending] == [("d", WaitKind.OUTCOME)]
    assert (await loop.resume(sid, answers={"d": Approve()})).is_completed
    assert RAN == [("invoice-1", 2)]


async def test_without_a_fault_nothing_is_ever_unknown(make_loop: MakeLoop) -> None:
    pay = paying(on_unknown="ask")
    loop = make_loop(calls(("pay", {"n": 1}), ("pay", {"n": 2})), "Done.", tool_registry=[pay])
    points: list[str] = []
    store = await loop.get_store()
    store.on_point = lambda point, what: points.append(f"{point} {what}")
    sid = await loop.new_session()
    assert (await loop.send("go", session_id=sid)).is_completed
    store.on_point = None
    assert {one.state for one in await store.get_calls(sid)} == {CallState.SUCCEEDED}
    assert points.count("effect.before pay") == points.count("effect.after pay") == 2
    assert points.count("model.before scripted") == points.count("model.after scripted") == 2
    started = points.index("commit.after append_reply")
    assert started < points.index("effect.before pay"), "the ledger says that it started before it does"
