"""Hooks run in their order, decide only what their point allows, and fail closed where something is decided."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from power_loop.contracts.errors import ConfigError, HookError, InputError
from power_loop.contracts.events import HookFailed
from power_loop.contracts.hooks import (
    HookContext,
    HookPoint,
    LLMAfterContext,
    LLMBeforeContext,
    Park,
    PlannedCall,
    RequireApproval,
    Rewrite,
    RoundStartContext,
    SendEndContext,
    SendStartContext,
    Skip,
    ToolAfterContext,
    ToolBeforeContext,
    ToolErrorContext,
    Veto,
)
from power_loop.contracts.llm import LLMRequest, LLMResponse
from power_loop.contracts.messages import TextPart, user_message
from power_loop.contracts.results import StatefulResult
from power_loop.contracts.states import SendStatus
from power_loop.contracts.tools import ToolDefinition, ToolResult
from power_loop.core.hooks import HookHandle, Hooks

PLACE = ("sess_1", 2, 3, {"tenant": "t"})
REQUEST = LLMRequest((user_message("hi"),))
RESPONSE = LLMResponse.of_text("Hello.")


def call(arguments: Mapping[str, Any], *, is_approved: bool = False) -> PlannedCall:
    tool = ToolDefinition("pay", "Pays.", {"type": "object"})
    return PlannedCall("c1", tool, arguments, "key", 1, is_approved)


ROUND_START = RoundStartContext(*PLACE)
SEND_START = SendStartContext(*PLACE, (TextPart("hi"),), False)
SEND_END = SendEndContext(*PLACE, StatefulResult("sess_1", 2, SendStatus.COMPLETED))
LLM_BEFORE = LLMBeforeContext(*PLACE, REQUEST)
LLM_AFTER = LLMAfterContext(*PLACE, REQUEST, RESPONSE)
TOOL_BEFORE = ToolBeforeContext(*PLACE, call({"amount": 1}))
TOOL_AFTER = ToolAfterContext(*PLACE, call({"amount": 1}), ToolResult("paid"))
TOOL_ERROR = ToolErrorContext(*PLACE, call({"amount": 1}), ValueError("no money"), ToolResult("failed", is_error=True))


def returning(value: Any) -> Any:
    return lambda context: value


# ---- keeping them ----


async def test_hooks_run_by_order_and_then_as_they_were_added() -> None:
    hooks, ran = Hooks(), list[str]()

    def hook(name: str) -> Any:
        return lambda context: ran.append(name)

    hooks.add("round.start", hook("c"), name="c", order=5)
    hooks.add(HookPoint.ROUND_START, hook("a"), name="a", order=-1)
    hooks.add("round.start", hook("b1"), name="b1")
    hooks.add("round.start", hook("b2"), name="b2")
    assert hooks.names("round.start") == ("a", "b1", "b2", "c")
    assert await hooks.ask(ROUND_START) is None
    assert ran == ["a", "b1", "b2", "c"]


async def test_the_decorator_adds_the_function_and_leaves_it_as_it_is() -> None:
    hooks = Hooks()

    @hooks.on("round.start")
    async def guard(context: RoundStartContext) -> Veto:
        return Veto(f"not in round {context.round}")

    assert await guard(ROUND_START) == Veto("not in round 3")
    assert await hooks.ask(ROUND_START) == Veto("not in round 3")
    (name,) = hooks.names("round.start")
    assert name.endswith("guard")


def test_a_name_stands_once_at_a_point_and_may_stand_at_others() -> None:
    hooks = Hooks()
    hooks.add("round.start", print, name="audit")
    hooks.add("round.end", print, name="audit")
    with pytest.raises(ConfigError, match=r"'audit' stands at 'round\.start' already"):
        hooks.add("round.start", print, name="audit")
    assert hooks.names("round.start") == ("audit",)


def test_hooks_without_a_name_are_told_apart() -> None:
    hooks = Hooks()
    for _ in range(3):
        hooks.add("round.start", print)
    assert hooks.names("round.start") == ("print", "print (2)", "print (3)")


def test_a_hook_is_removed_by_its_handle_or_its_name() -> None:
    hooks = Hooks()
    handle = hooks.add("round.start", print, name="a")
    hooks.add("round.start", print, name="b")
    hooks.add("round.end", print, name="b")
    assert isinstance(handle, HookHandle)
    assert (handle.point, handle.name) == (HookPoint.ROUND_START, "a")
    assert handle.remove()
    assert not handle.remove()
    assert hooks.remove("b", point="round.end")
    assert hooks.names("round.start") == ("b",)
    assert hooks.remove("b")
    assert not hooks.remove("b")
    assert not hooks.has(HookPoint.ROUND_START)
    assert not hooks.has(HookPoint.ROUND_END)


def test_an_old_handle_does_not_remove_a_new_hook_of_the_same_name() -> None:
    hooks = Hooks()
    old = hooks.add("round.start", returning(None), name="a")
    old.remove()
    hooks.add("round.start", returning(None), name="a")
    assert not old.remove()
    assert hooks.has(HookPoint.ROUND_START)


def test_has_is_true_only_where_somebody_looks_in() -> None:
    hooks = Hooks()
    assert not any(hooks.has(point) for point in HookPoint)
    hooks.add("tool.before", print)
    assert [point for point in HookPoint if hooks.has(point)] == [HookPoint.TOOL_BEFORE]


@pytest.mark.promise("nothing-global")
def test_a_copy_starts_the_same_and_goes_its_own_way() -> None:
    hooks = Hooks()
    shared = hooks.add("round.start", print, name="a", order=3)
    copy = hooks.copy()
    copy.add("round.start", print, name="b", order=1)
    assert copy.names("round.start") == ("b", "a")
    assert copy.remove(shared)
    assert copy.names("round.start") == ("b",)
    assert hooks.names("round.start") == ("a",)
    assert not Hooks().has(HookPoint.ROUND_START)


def test_what_cannot_be_a_hook_is_refused() -> None:
    hooks = Hooks()
    with pytest.raises(ConfigError, match=r"no hook point 'tool\.befor': the points are session\.start, "):
        hooks.add("tool.befor", print)
    with pytest.raises(ConfigError, match="cannot be called"):
        hooks.add("tool.before", "no function")  # type: ignore[arg-type]


async def test_a_step_goes_on_with_the_hooks_it_began_with() -> None:
    hooks, ran = Hooks(), list[str]()

    def change(context: HookContext) -> None:
        ran.append("first")
        hooks.remove("second")
        hooks.add("round.start", returning(Veto("too late")), name="third")

    hooks.add("round.start", change, name="first")
    hooks.add("round.start", lambda context: ran.append("second"), name="second")
    assert await hooks.ask(ROUND_START) is None
    assert ran == ["first", "second"]
    assert hooks.names("round.start") == ("first", "third")


# ---- deciding ----


@pytest.mark.promise("hooks")
@pytest.mark.parametrize(
    ("context", "decision"),
    [
        (ROUND_START, Veto("no")),
        (LLM_BEFORE, Skip(response=RESPONSE)),
        (TOOL_BEFORE, Skip(result="done")),
        (TOOL_BEFORE, RequireApproval("Pay?")),
        (TOOL_BEFORE, Park("How much?")),
    ],
)
async def test_a_decision_ends_the_questions(context: HookContext, decision: Any) -> None:
    hooks = Hooks()
    hooks.add(context.point, returning(None), name="nothing to say")
    hooks.add(context.point, returning(decision), name="decides")
    hooks.add(context.point, returning(pytest.fail), name="is not asked")
    assert await hooks.ask(context) is decision


async def test_without_hooks_things_go_on() -> None:
    assert await Hooks().ask(TOOL_BEFORE) is None
    await Hooks().tell(SEND_END, pytest.fail)


@pytest.mark.promise("hooks")
@pytest.mark.parametrize(
    ("context", "first", "second", "seen", "rewritten"),
    [
        (
            SEND_START,
            Rewrite(content="one"),
            Rewrite(content=(TextPart("two"),)),
            lambda context: context.content == (TextPart("one"),),
            Rewrite(content=(TextPart("two"),)),
        ),
        (
            LLM_BEFORE,
            Rewrite(request=LLMRequest((), system="one")),
            Rewrite(request=LLMRequest((), system="two")),
            lambda context: context.request.system == "one",
            Rewrite(request=LLMRequest((), system="two")),
        ),
        (
            LLM_AFTER,
            Rewrite(response=LLMResponse.of_text("one")),
            Rewrite(response=LLMResponse.of_text("two")),
            lambda context: context.response.message.text == "one" and context.request is REQUEST,
            Rewrite(response=LLMResponse.of_text("two")),
        ),
        (
            TOOL_BEFORE,
            Rewrite(arguments={"amount": 2}),
            Rewrite(arguments={"amount": 3}),
            lambda context: context.call.arguments == {"amount": 2} and context.call.call_id == "c1",
            Rewrite(arguments={"amount": 3}),
        ),
        (
            TOOL_AFTER,
            Rewrite(result="one"),
            Rewrite(result=ToolResult("two", is_error=True)),
            lambda context: context.result == ToolResult("one"),
            Rewrite(result=ToolResult("two", is_error=True)),
        ),
        (
            TOOL_ERROR,
            Rewrite(result="one"),
            Rewrite(result="two"),
            lambda context: context.result == ToolResult("one") and str(context.error) == "no money",
            Rewrite(result=ToolResult("two")),
        ),
    ],
)
async def test_rewrites_are_seen_by_the_following_hooks_and_the_last_word_counts(
    context: HookContext, first: Rewrite, second: Rewrite, seen: Any, rewritten: Rewrite
) -> None:
    hooks = Hooks()

    async def second_hook(context: Any) -> Rewrite:
        assert (context.session_id, context.send_index, context.round, context.metadata) == PLACE
        assert seen(context)
        return second

    hooks.add(context.point, returning(first))
    hooks.add(context.point, second_hook)
    hooks.add(context.point, returning(None))
    assert await hooks.ask(context) == rewritten


async def test_a_decision_behind_a_rewrite_comes_with_the_context_it_was_made_in() -> None:
    hooks = Hooks()
    hooks.add("tool.before", returning(Rewrite(arguments={"amount": 2})))
    hooks.add("tool.before", lambda context: RequireApproval(f"Pay {context.call.arguments['amount']}?"))
    consulted = await hooks.consult(TOOL_BEFORE)
    assert consulted.decision == RequireApproval("Pay 2?")
    assert consulted.context.call.arguments == {"amount": 2}
    assert TOOL_BEFORE.call.arguments == {"amount": 1}


@pytest.mark.parametrize(("arguments", "is_approved"), [({"amount": 1}, True), ({"amount": 1_000_000}, False)])
async def test_an_approval_does_not_survive_other_arguments(arguments: dict[str, Any], is_approved: bool) -> None:
    hooks, approved = Hooks(), list[bool]()
    hooks.add("tool.before", returning(Rewrite(arguments=arguments)))
    hooks.add("tool.before", lambda context: approved.append(context.call.is_approved))
    await hooks.ask(ToolBeforeContext(*PLACE, call({"amount": 1}, is_approved=True)))
    assert approved == [is_approved]


@pytest.mark.promise("hooks")
@pytest.mark.parametrize(
    ("context", "decision", "says"),
    [
        (ROUND_START, Skip(result="x"), "returned Skip, and a hook of this point may return None or one of Veto"),
        (TOOL_AFTER, Veto("no"), "may return None or one of Rewrite"),
        (ROUND_START, True, "returned True, and"),
        (LLM_BEFORE, Skip(result="x"), r"returned Skip\(result=...\), and this point takes Skip\(response=...\)"),
        (TOOL_BEFORE, Skip(), r"returned Skip\(\), and this point takes Skip\(result=...\)"),
        (TOOL_BEFORE, Rewrite(arguments={}, result="x"), r"this point takes Rewrite\(arguments=...\)"),
        (SEND_START, Rewrite(content=""), "raised InputError"),
        (SEND_START, Rewrite(content=7), "content has to be a str or list or tuple"),  # type: ignore[arg-type]
        (TOOL_BEFORE, Rewrite(arguments=[1]), "arguments has to be a Mapping"),  # type: ignore[arg-type]
        (LLM_BEFORE, Rewrite(request="hi"), "request has to be a LLMRequest"),  # type: ignore[arg-type]
        (TOOL_BEFORE, Skip(result=7), "result has to be a str or ToolResult"),  # type: ignore[arg-type]
    ],
)
async def test_a_decision_that_the_point_does_not_take_fails_closed(
    context: HookContext, decision: Any, says: str
) -> None:
    hooks = Hooks()
    hooks.add(context.point, returning(decision), name="guard")
    with pytest.raises(HookError, match=says) as caught:
        await hooks.ask(context)
    assert (caught.value.point, caught.value.hook) == (context.point.value, "guard")


# ---- raising ----


@pytest.mark.promise("hooks")
async def test_a_raising_hook_ends_the_step_and_says_which_it_was() -> None:
    hooks = Hooks()

    async def check(context: HookContext) -> None:
        raise InputError("no rule for this")

    hooks.add("tool.before", check, name="rules")
    hooks.add("tool.before", returning(pytest.fail), name="is not asked")
    with pytest.raises(HookError) as caught:
        await hooks.ask(TOOL_BEFORE)
    assert (caught.value.code, caught.value.point, caught.value.hook) == ("hook.failed", "tool.before", "rules")
    assert "raised InputError (input.invalid): no rule for this" in caught.value.message
    assert "the step it guards did not happen" in caught.value.message
    assert isinstance(caught.value.__cause__, InputError)


@pytest.mark.promise("hooks")
async def test_a_hook_that_is_only_told_stops_nothing_and_becomes_an_event() -> None:
    hooks, failures, ran = Hooks(), list[HookFailed](), list[str]()

    def broken(context: HookContext) -> None:
        raise ValueError("disk full")

    async def last(context: SendEndContext) -> None:
        ran.append(context.result.status.value)

    hooks.add("send.end", broken, name="report")
    hooks.add("send.end", returning(Veto("no")), name="vetoes")
    hooks.add("send.end", last)
    await hooks.tell(SEND_END, failures.append)
    assert ran == ["completed"]
    assert [(one.point, one.hook) for one in failures] == [("send.end", "report"), ("send.end", "vetoes")]
    assert failures[0].error == "raised ValueError: disk full"
    assert "None only" in failures[1].error


@pytest.mark.parametrize("context", [TOOL_BEFORE, SEND_END])
async def test_a_cancelled_turn_is_cancelled_inside_a_hook_too(context: HookContext) -> None:
    hooks, started = Hooks(), asyncio.Event()

    async def wait(context: HookContext) -> None:
        started.set()
        await asyncio.Event().wait()

    hooks.add(context.point, wait)
    step = hooks.ask(context) if context.allows else hooks.tell(context, pytest.fail)
    task = asyncio.ensure_future(step)
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
