"""Each check of a history finds what it is for: a whole history passes, and one with a single change does not."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from power_loop import (
    Compaction,
    LoopConfig,
    PowerLoopError,
    SendStatus,
    StatefulAgentLoop,
    ToolContext,
    Usage,
    open_store,
    tool,
)
from power_loop.context import Folded, FoldTask
from power_loop.records import CallState, FoldRecord
from power_loop.testing import ScriptedLLM, calls
from power_loop.testing.history import HistoryLog, Operation, read_history
from power_loop.testing.history_check import CHECKS, SessionHistory, check_history, problems_of, read_session

ENDED = frozenset({"gone"})


@pytest.fixture
async def whole(tmp_path: Path) -> SessionHistory:
    """Two sends of one client, one with a call, then a look and a repeated request; and one that is refused."""
    log = HistoryLog(tmp_path / "history", process="client")
    store = await open_store(":memory:")

    @tool(effect="once")
    def pay(context: ToolContext) -> str:
        """Pay."""
        log.effect(context, "once", stage="began")
        log.effect(context, "once")
        return "paid"

    steps = [calls(("pay", {}), text="I pay.", usage=Usage(3, 2)), "Paid.", "Again."]
    for text, tokens in (("I pay.", (3, 2)), ("Paid.", (10, 5)), ("Again.", (10, 5))):
        log.answered("s", text, input_tokens=tokens[0], output_tokens=tokens[1])
    loop = StatefulAgentLoop(llm=ScriptedLLM(steps), store=log.watched(store), tool_registry=[pay])
    await loop.new_session(session_id="s")
    for text in ("first", "second", "second"):
        send = loop.send(text, session_id="s", request_id=text)
        await log.did("send", "s", send, input=text, request_id=text)
        await log.look(store, "s")
    with pytest.raises(PowerLoopError):
        await log.did("send", "s", loop.send("", session_id="s"), input="refused")
    await loop.aclose()
    history = read_history(tmp_path / "history")
    report = await check_history(store, history)
    report.raise_for_problems()
    assert report.counts["messages"] == 6
    found = await read_session(store, history, "s")
    await store.aclose()
    log.close()
    return found


def _operation(found: SessionHistory, kind: str, nth: int = 0, **what: Any) -> Operation:
    return [it for it in found.operations if it.kind == kind and what.items() <= it.what.items()][nth]


def _without_a_message(found: SessionHistory) -> None:
    found.messages = [*found.messages[:2], *found.messages[3:]]


def _with_another_send_count(found: SessionHistory) -> None:
    found.session = dataclasses.replace(found.session, send_count=3)


def _told_another_answer(found: SessionHistory) -> None:
    _operation(found, "send", input="first").told["text"] = "I never said that."


def _told_differently(found: SessionHistory) -> None:
    _operation(found, "send", 1, input="second").told["send_index"] = 1


def _given_by_nobody(found: SessionHistory) -> None:
    found.operations.remove(_operation(found, "send", input="first"))


def _refused_and_there(found: SessionHistory) -> None:
    _operation(found, "send", input="first").outcome = "fail"


def _second_before_first(found: SessionHistory) -> None:
    for operation in found.operations:
        if operation.what.get("input") == "second":
            operation.invoked_ns -= 10**12
            operation.ended_ns = operation.invoked_ns + 1


def _looked_at_another_log(found: SessionHistory) -> None:
    _operation(found, "look").told["digest"] = "0" * 16


def _two_owners(found: SessionHistory) -> None:
    _operation(found, "move", move="append_reply").what["owner"] = "somebody else"


def _a_late_owner(found: SessionHistory) -> None:
    late = copy.deepcopy(_operation(found, "move", move="append_reply"))
    late.invoked_ns += 10**12
    late.ended_ns = late.invoked_ns + 1
    found.operations.append(late)


def _taken_from_the_living(found: SessionHistory) -> None:
    second = _operation(found, "move", 1, move="accept")
    second.what["owner"], second.told["previous_owner"] = "thief", second.what["owner"]


def _answered_before_it_was_asked(found: SessionHistory) -> None:
    first, second, third, *others = found.messages
    found.messages = [first, third, second, *others]


def _result_elsewhere(found: SessionHistory) -> None:
    found.calls = [dataclasses.replace(found.calls[0], result_seq=5)]


def _paid_twice(found: SessionHistory) -> None:
    found.effects.append(found.effects[-1])


def _succeeded_without_effect(found: SessionHistory) -> None:
    del found.effects[-1]


def _unknown_without_cause(found: SessionHistory) -> None:
    found.calls = [dataclasses.replace(found.calls[0], state=CallState.UNKNOWN)]


def _ended_otherwise(found: SessionHistory) -> None:
    found.sends = [dataclasses.replace(found.sends[0], status=SendStatus.TRUNCATED), *found.sends[1:]]


def _cancelled_by_nobody(found: SessionHistory) -> None:
    found.sends = [found.sends[0], dataclasses.replace(found.sends[1], status=SendStatus.CANCELLED)]


def _paid_for_elsewhere(found: SessionHistory) -> None:
    found.stats = dataclasses.replace(found.stats, usage=Usage(1, 1))


def _an_answer_of_nobody(found: SessionHistory) -> None:
    found.answers = {text: tokens for text, tokens in found.answers.items() if text != "Paid."}


def _held(found: SessionHistory) -> None:
    found.session = dataclasses.replace(found.session, owner="somebody")


def _running(found: SessionHistory) -> None:
    found.sends = [*found.sends[:-1], dataclasses.replace(found.sends[-1], status=SendStatus.RUNNING)]


def _waiting_input(found: SessionHistory) -> None:
    found.waiting_inputs = 1


CHANGES: dict[Callable[[SessionHistory], None], str] = {
    _without_a_message: "gapless",
    _with_another_send_count: "gapless",
    _told_another_answer: "acknowledged",
    _told_differently: "acknowledged",
    _given_by_nobody: "refused",
    _refused_and_there: "refused",
    _second_before_first: "order",
    _looked_at_another_log: "prefix",
    _two_owners: "fence",
    _a_late_owner: "fence",
    _taken_from_the_living: "fair",
    _answered_before_it_was_asked: "calls",
    _result_elsewhere: "calls",
    _paid_twice: "effects",
    _succeeded_without_effect: "effects",
    _unknown_without_cause: "effects",
    _ended_otherwise: "terminal",
    _cancelled_by_nobody: "caused",
    _paid_for_elsewhere: "usage",
    _an_answer_of_nobody: "usage",
    _held: "rest",
    _running: "rest",
    _waiting_input: "rest",
}


class _Summary:
    """Is a strategy that makes the same summary of everything, as a model does that is paid for it."""

    async def fold(self, task: FoldTask) -> Folded:
        return Folded("It was paid.", Usage(7, 1), 1)


@pytest.fixture
async def pruned(tmp_path: Path) -> SessionHistory:
    """Three sends, each with a call, of which a fold covers the first two and a prune takes what nothing points at."""
    log = HistoryLog(tmp_path / "history", process="client")
    store = await open_store(":memory:")

    @tool(effect="once")
    def pay(context: ToolContext) -> str:
        """Pay."""
        log.effect(context, "once", stage="began")
        log.effect(context, "once")
        return "paid " * 2000

    steps = []
    for number in range(4):
        asked, said = f"I pay {number}.", f"Paid {number}."
        steps += [calls(("pay", {}), text=asked, usage=Usage(3, 2)), said]
        log.answered("s", asked, input_tokens=3, output_tokens=2)
        log.answered("s", said, input_tokens=10, output_tokens=5)
    config = LoopConfig(compaction=Compaction(_Summary(), keep=0.02))
    loop = StatefulAgentLoop(llm=ScriptedLLM(steps), store=log.watched(store), tool_registry=[pay], config=config)
    await loop.new_session(session_id="s")
    for number in range(3):
        text = f"input {number}"
        await log.did("send", "s", loop.send(text, session_id="s", request_id=text), input=text, request_id=text)
        await log.look(store, "s")
    assert await loop.compact("s") is not None
    await log.did("send", "s", loop.send("input 3", session_id="s"), input="input 3")
    assert (await store.prune_compacted_messages("s")).rows
    await log.look(store, "s")
    other = HistoryLog(tmp_path / "history", process="another")
    await other.look(store, "s")
    await loop.aclose()
    history = read_history(tmp_path / "history")
    report = await check_history(store, history)
    report.raise_for_problems()
    found = await read_session(store, history, "s")
    await store.aclose()
    for one in (log, other):
        one.close()
    return found


def _without_a_kept_answer(found: SessionHistory) -> None:
    [seq] = [record.seq for record in found.messages if record.message.text == "Paid 0."]
    found.messages = [record for record in found.messages if record.seq != seq]


def _without_what_no_fold_covers(found: SessionHistory) -> None:
    found.messages = [*found.messages[:-2], found.messages[-1]]


def _as_if_nothing_was_pruned(found: SessionHistory) -> None:
    found.folds = [dataclasses.replace(fold, pruned_at_ms=None) for fold in found.folds]


def _a_call_that_nobody_asked_for(found: SessionHistory) -> None:
    found.calls = [*found.calls[:-1], dataclasses.replace(found.calls[-1], index=4)]


def _less_than_what_is_there(found: SessionHistory) -> None:
    found.stats = dataclasses.replace(found.stats, usage=Usage(20, 5))


AFTER_A_PRUNE: dict[Callable[[SessionHistory], None], str] = {
    _without_a_kept_answer: "acknowledged",
    _without_what_no_fold_covers: "gapless",
    _as_if_nothing_was_pruned: "gapless",
    _a_call_that_nobody_asked_for: "calls",
    _less_than_what_is_there: "usage",
}


@pytest.mark.parametrize("change", AFTER_A_PRUNE, ids=lambda change: change.__name__.strip("_"))
async def test_what_a_prune_took_is_no_loss_and_anything_else_is(
    pruned: SessionHistory, change: Callable[[SessionHistory], None]
) -> None:
    assert pruned.pruned
    assert list(problems_of(pruned, set(ENDED))) == []
    change(pruned)
    problems = list(problems_of(pruned, set(ENDED)))
    assert AFTER_A_PRUNE[change] in {problem.check for problem in problems}, problems


@pytest.mark.parametrize("gone", [{1}, {2}, {3}, {1, 2}, {2, 3}, {1, 2, 3}], ids=str)
async def test_whatever_of_a_folded_stretch_is_gone_the_rest_of_it_still_fits(
    whole: SessionHistory, gone: set[int]
) -> None:
    whole.messages = [record for record in whole.messages if record.seq not in gone]
    assert [problem.check for problem in problems_of(whole, set(ENDED))]
    folded = FoldRecord("s", 1, 3, "It was paid.", 2, 0, "s", 1)
    whole.folds = [folded]
    assert "gapless" in {problem.check for problem in problems_of(whole, set(ENDED))}, "nobody has pruned it"
    whole.folds = [dataclasses.replace(folded, pruned_at_ms=1)]
    assert list(problems_of(whole, set(ENDED))) == []
    whole.folds = [dataclasses.replace(folded, to_seq=max(gone) - 1, pruned_at_ms=1)]
    assert "gapless" in {problem.check for problem in problems_of(whole, set(ENDED))}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__.strip("_"))
async def test_a_history_with_one_change_breaks_its_check(
    whole: SessionHistory, change: Callable[[SessionHistory], None]
) -> None:
    assert list(problems_of(whole, set(ENDED))) == []
    change(whole)
    problems = list(problems_of(whole, set(ENDED)))
    assert CHANGES[change] in {problem.check for problem in problems}, problems


def test_every_check_is_shown_to_find_something() -> None:
    assert set(CHANGES.values()) == set(CHECKS)


def test_what_is_no_history_is_refused(tmp_path: Path) -> None:
    (tmp_path / "history").write_text('{"phase"\n')
    with pytest.raises(ValueError, match="line 1, is no line of a history"):
        read_history(tmp_path / "history")


def test_a_process_that_dies_leaves_its_operation_open(tmp_path: Path) -> None:
    log = HistoryLog(tmp_path / "history", process="client")
    log._begin("send", "s", {"input": "Hi."})
    log.note("died", process="client")
    log.close()
    history = read_history(tmp_path / "history")
    [operation] = history.operations
    assert (operation.outcome, operation.ended_ns, operation.what) == ("info", None, {"input": "Hi."})
    assert [note.kind for note in history.notes] == ["died"]
