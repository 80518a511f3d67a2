"""Sub-agents: sessions below a session, with a part of what it has, side by side, counted and ended with it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from power_loop import (
    AgentLifecycle,
    AgentSpec,
    Approve,
    Budget,
    Deny,
    Give,
    HookPoint,
    LLMRequest,
    LoopConfig,
    PermissionMode,
    PermissionPolicy,
    PermissionRule,
    SendLimits,
    SendStatus,
    SessionState,
    StatefulAgentLoop,
    ToolContext,
    Usage,
    agent_tools,
    run_agent_spec,
    tool,
)
from power_loop.errors import (
    AgentGrantError,
    AgentLimitError,
    AgentSpecError,
    InputError,
    LeaseLostError,
    LLMAuthError,
    SessionNotFoundError,
)
from power_loop.events import AgentFinished, AgentStarted, MessageAppended, SendFinished, TextDelta
from power_loop.hooks import SubagentEndContext, SubagentStartContext, Veto
from power_loop.messages import Role
from power_loop.records import WaitKind
from power_loop.storage import Claim, Lease, NewChild
from power_loop.testing import ScriptedLLM, call, calls
from tests.conformance.backends import BACKENDS, Place
from tests.conformance.parts import HandClock

from .conftest import MakeLoop
from .elsewhere import elsewhere
from .parts import Ears, Gate, answers, error_answers, pass_time, until, watch, within_limit

TEA = AgentSpec("tea", "You know tea.", tools=["look_up"])
ANY = AgentSpec("tea", "You know tea.")
A_CALL = Usage(10, 5)


@tool(effect="read")
def look_up(word: str) -> str:
    """Look a word up."""
    return f"{word} is in the book"


@tool(effect="once")
def pay(cents: int) -> str:
    """Pay."""
    return f"paid {cents}"


def spawn(agent: str = "tea", input: str = "Find tea.", **more: Any) -> Any:
    return call("spawn_agent", {"agent": agent, "input": input, **more})


def spawns(*inputs: str, agent: str = "tea") -> Any:
    return calls(*[("spawn_agent", {"agent": agent, "input": one}) for one in inputs])


def spawn_each(*agents: str) -> Any:
    return calls(*[("spawn_agent", {"agent": one, "input": "go"}) for one in agents])


class Cast:
    """Is a model that plays several parts: each system prompt has a script of its own."""

    def __init__(self, **scripts: list[Any]) -> None:
        self._parts = {name: ScriptedLLM(steps) for name, steps in scripts.items()}
        self.info = next(iter(self._parts.values())).info

    async def generate(self, request: LLMRequest, emit: Any) -> Any:
        """Let the part speak whose prompt it is; `top` has none."""
        words = (request.system or "top").split()
        return await self._parts[words[-1].strip(".") if request.system else "top"].generate(request, emit)

    def __getitem__(self, name: str) -> ScriptedLLM:
        return self._parts[name]


async def child_of(loop: StatefulAgentLoop, sid: str) -> str:
    [child] = (await loop.list_sessions(parent_id=sid)).items
    return child.id


# ---- what it is ----


async def test_a_model_gives_work_to_an_agent_and_gets_its_answer(make_loop: MakeLoop) -> None:
    llm = ScriptedLLM([spawn(), call("look_up", {"word": "tea"}), "Tea is a leaf.", "So it is a leaf."])
    loop = make_loop(llm=llm, tool_registry=[look_up, pay, *agent_tools([TEA])])
    sid = await loop.new_session()
    result = await within_limit(loop.send("What is tea?", session_id=sid))
    assert (result.status, result.final_text) == (SendStatus.COMPLETED, "So it is a leaf.")
    assert answers(llm.requests[-1]) == ["Tea is a leaf."]
    # The agent saw its own prompt, its own input, and the one tool that it was given.
    begun = llm.requests[1]
    assert begun.system == "You know tea."
    assert [(one.role, one.text) for one in begun.messages] == [(Role.USER, "Find tea.")]
    assert [one.name for one in begun.tools] == ["look_up"]


async def test_an_agents_session_stands_below_the_one_that_made_it(make_loop: MakeLoop) -> None:
    loop = make_loop(spawn(), "A leaf.", "Yes.", tool_registry=[look_up, *agent_tools([TEA])])
    sid = await loop.new_session()
    await within_limit(loop.send("What is tea?", session_id=sid))
    [child] = (await loop.list_sessions(parent_id=sid)).items
    assert (child.parent_id, child.parent_send, child.root_id, child.depth) == (sid, 1, sid, 1)
    assert (child.state, child.system_prompt) == (SessionState.CLOSED, "You know tea.")
    top = await loop.get_session(sid)
    assert (top.parent_id, top.root_id, top.depth, top.agent) == (None, None, 0, None)


async def test_agents_of_one_reply_work_at_the_same_time(make_loop: MakeLoop) -> None:
    gate = Gate()
    llm = Cast(top=[spawns("a", "b", "c"), "All."], tea=[gate.then("x"), gate.then("y"), gate.then("z")])
    loop = make_loop(llm=llm, tool_registry=[look_up, *agent_tools([TEA])])
    sid = await loop.new_session()
    sending = asyncio.ensure_future(loop.send("go", session_id=sid))
    await within_limit(until(lambda: gate.came == 3))
    gate.open()
    assert (await within_limit(sending)).final_text == "All."
    assert len((await loop.list_sessions(parent_id=sid)).items) == 3


async def test_an_answer_that_has_to_fit_a_schema_is_mended_by_the_agent(make_loop: MakeLoop) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    spec = AgentSpec("tea", "You count.", output_schema=schema, tools=())
    llm = ScriptedLLM([spawn(), '{"n": "two"}', '{"n": 2}', "Two."])
    loop = make_loop(llm=llm, tool_registry=agent_tools([spec]))
    sid = await loop.new_session()
    await within_limit(loop.send("count", session_id=sid))
    assert answers(llm.requests[-1]) == ['{"n": 2}']


async def test_an_agent_has_the_model_that_its_spec_names(make_loop: MakeLoop) -> None:
    small = ScriptedLLM(["A leaf."])
    spec = AgentSpec("tea", "You know tea.", model="small")
    loop = make_loop(spawn(), "Yes.", config=LoopConfig(models={"small": small}), tool_registry=agent_tools([spec]))
    sid = await loop.new_session()
    assert (await within_limit(loop.send("go", session_id=sid))).final_text == "Yes."
    assert [one.system for one in small.requests] == ["You know tea."]


async def test_a_model_may_describe_an_agent_of_its_own_where_it_is_allowed(make_loop: MakeLoop) -> None:
    inline = call("spawn_agent", {"prompt": "You count.", "tools": ["look_up"], "input": "go"})
    llm = ScriptedLLM([inline, "Three.", "Done."])
    loop = make_loop(llm=llm, tool_registry=[look_up, pay, *agent_tools(allow_inline=True)])
    sid = await loop.new_session()
    await within_limit(loop.send("go", session_id=sid))
    assert llm.requests[1].system == "You count."
    assert [one.name for one in llm.requests[1].tools] == ["look_up"]


async def test_an_application_runs_an_agent_and_a_repeat_meets_the_same_one(make_loop: MakeLoop) -> None:
    llm = ScriptedLLM(["A leaf."])
    loop = make_loop(llm=llm, tool_registry=[look_up, pay])
    sid = await loop.new_session()
    first = await within_limit(run_agent_spec(loop, TEA, "Find tea.", parent_session_id=sid, request_id="r1"))
    again = await within_limit(run_agent_spec(loop, TEA, "Find tea.", parent_session_id=sid, request_id="r1"))
    assert (first.final_text, again.final_text, again.is_replayed) == ("A leaf.", "A leaf.", True)
    assert await child_of(loop, sid) == first.session_id == again.session_id
    assert [one.name for one in llm.requests[0].tools] == ["look_up"]


async def test_a_linked_agent_is_spoken_to_again_by_its_parent_and_by_no_other(make_loop: MakeLoop) -> None:
    spec = AgentSpec("tea", "You know tea.", tools=(), lifecycle=AgentLifecycle.LINKED)
    llm = ScriptedLLM([spawn(), "A leaf.", "Yes."])
    loop = make_loop(llm=llm, tool_registry=agent_tools([spec]))
    sid, other = await loop.new_session(), await loop.new_session()
    await within_limit(loop.send("go", session_id=sid))
    child = await child_of(loop, sid)
    assert child in answers(llm.requests[-1])[0]
    llm.add(spawn(input="And?", session_id=child), "Green.", "Good.")
    await within_limit(loop.send("more", session_id=sid))
    assert [one.text for one in llm.requests[-2].messages] == ["Find tea.", "A leaf.", "And?"]
    assert (await loop.get_session(child)).state is SessionState.OPEN
    llm.add(spawn(input="And?", session_id=child), "Then not.")
    await within_limit(loop.send("go", session_id=other))
    assert "no linked sub-agent" in error_answers(llm.requests[-1])[0]


# ---- nothing that its parent does not have ----


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (AgentSpec("tea", "You.", tools=["pay", "look_up"]), "cannot have 'pay': its parent has 'look_up'"),
        (AgentSpec("tea", "You.", model="big"), "cannot have the model 'big'"),
    ],
)
async def test_an_agent_gets_no_tool_and_no_model_that_is_not_there(
    make_loop: MakeLoop, spec: AgentSpec, told: str
) -> None:
    llm = ScriptedLLM([spawn(), "Then not."])
    loop = make_loop(llm=llm, tool_registry=[look_up, *agent_tools([spec])])
    sid = await loop.new_session()
    await within_limit(loop.send("go", session_id=sid))
    assert told in error_answers(llm.requests[-1])[0]
    assert not (await loop.list_sessions(parent_id=sid)).items


async def test_an_agent_of_an_agent_gets_no_tool_that_the_one_between_does_not_have(make_loop: MakeLoop) -> None:
    middle = AgentSpec("middle", "You are middle.", tools=["spawn_agent"])
    low = AgentSpec("low", "You are low.", tools=["pay"])
    llm = Cast(top=[spawn("middle"), "Done."], middle=[spawn("low"), "It does not go."], low=[])
    loop = make_loop(llm=llm, tool_registry=[pay, *agent_tools([middle, low])])
    sid = await loop.new_session()
    await within_limit(loop.send("go", session_id=sid))
    assert "cannot have 'pay': its parent has 'spawn_agent'" in error_answers(llm["middle"].requests[-1])[0]


async def test_a_send_that_offers_few_tools_hands_no_others_down(make_loop: MakeLoop) -> None:
    llm = ScriptedLLM([spawn(), "A leaf.", "Yes."])
    loop = make_loop(llm=llm, tool_registry=[look_up, pay, *agent_tools([AgentSpec("tea", "You know tea.")])])
    sid = await loop.new_session()
    await within_limit(loop.send("go", session_id=sid, tools=["spawn_agent", "look_up"]))
    assert [one.name for one in llm.requests[1].tools] == ["look_up", "spawn_agent"]


@pytest.mark.parametrize("asks", ["the loop", "the spec", "the one between"])
async def test_what_is_denied_above_or_by_its_own_spec_is_denied_to_an_agent(make_loop: MakeLoop, asks: str) -> None:
    no = [PermissionRule.deny("pay", reason="not here")]
    between = AgentSpec("middle", "You are middle.", permission_rules=no if asks == "the one between" else ())
    own = AgentSpec(
        "low",
        "You are low.",
        permission_rules=no if asks == "the spec" else [PermissionRule.allow("pay")],
        permission_mode=PermissionMode.AUTO,
    )
    rules = tuple(no) if asks == "the loop" else ()
    policy = PermissionPolicy(rules, PermissionMode.AUTO)
    llm = Cast(top=[spawn("middle"), "Done."], middle=[spawn("low"), "Ok."], low=[call("pay", {"cents": 7}), "No."])
    loop = make_loop(llm=llm, config=LoopConfig(permissions=policy), tool_registry=[pay, *agent_tools([between, own])])
    sid = await loop.new_session()
    await within_limit(loop.send("go", session_id=sid))
    assert "not here" in error_answers(llm["low"].requests[-1])[0]


async def test_a_send_to_an_agents_session_by_hand_has_what_its_spec_has_and_no_more(make_loop: MakeLoop) -> None:
    spec = AgentSpec(
        "tea",
        "You know tea.",
        tools=["pay"],
        lifecycle=AgentLifecycle.LINKED,
        permission_rules=[PermissionRule.deny("pay", reason="not for tea")],
    )
    llm = ScriptedLLM([spawn(), "A leaf.", "Yes."])
    loop = make_loop(llm=llm, tool_registry=[look_up, pay, *agent_tools([spec])])
    sid = await loop.new_session()
    await within_limit(loop.send("go", session_id=sid))
    child = await child_of(loop, sid)
    # In another process that knows the session by its id alone.
    by_hand = ScriptedLLM([call("pay", {"cents": 1}), "No."])
    other = make_loop(llm=by_hand, tool_registry=[look_up, pay])
    await within_limit(other.send("Pay.", session_id=child))
    assert [one.name for one in by_hand.requests[0].tools] == ["pay"]
    assert "not for tea" in error_answers(by_hand.requests[-1])[0]


async def test_a_tree_is_as_deep_as_it_may_be_and_its_leaves_are_offered_no_agents(make_loop: MakeLoop) -> None:
    tools = agent_tools([AgentSpec("a", "You are a."), AgentSpec("b", "You are b.")])
    llm = Cast(top=[spawn("a"), "Done."], a=[spawn("b"), "Ok."], b=[spawn("a"), "No."])
    loop = make_loop(llm=llm, config=LoopConfig(max_agent_depth=2), tool_registry=[*tools, look_up])
    sid = await loop.new_session()
    await within_limit(loop.send("go", session_id=sid))
    assert [one.name for one in llm["a"].requests[0].tools] == ["spawn_agent", "look_up"]
    assert [one.name for one in llm["b"].requests[0].tools] == ["look_up"]
    # One that calls what it was not offered does not get it.
    assert "no tool 'spawn_agent'" in error_answers(llm["b"].requests[-1])[0]


async def test_no_agent_begins_below_the_last_floor(make_loop: MakeLoop) -> None:
    loop = make_loop("x", config=LoopConfig(max_agent_depth=0))
    sid = await loop.new_session()
    with pytest.raises(AgentLimitError) as caught:
        await run_agent_spec(loop, AgentSpec("a", "You."), "go", parent_session_id=sid)
    assert (caught.value.code, caught.value.limit) == ("agent.limit", "max_agent_depth")


async def test_a_send_makes_as_many_agents_as_it_may(make_loop: MakeLoop) -> None:
    llm = Cast(top=[spawns("a", "b", "c"), "Done."], tea=["1", "2"])
    loop = make_loop(llm=llm, config=LoopConfig(max_children=2), tool_registry=[look_up, *agent_tools([TEA])])
    sid = await loop.new_session()
    await within_limit(loop.send("go", session_id=sid))
    assert len((await loop.list_sessions(parent_id=sid)).items) == 2
    assert "at most 2" in error_answers(llm["top"].requests[-1])[0]


def test_a_spec_says_everything_that_is_wrong_with_it_at_once() -> None:
    with pytest.raises(AgentSpecError) as caught:
        AgentSpec("", "You.", tools="pay", lifecycle="forever")  # type: ignore[arg-type]
    assert caught.value.code == "agent.invalid_spec"
    assert len(caught.value.problems) == 3


async def test_a_call_of_a_tool_that_is_not_idempotent_cannot_wait_for_an_agent(make_loop: MakeLoop) -> None:
    @tool(effect="once")
    async def ask_tea(context: ToolContext) -> Any:
        """Ask."""
        return await context.run_agent(TEA, "go")

    llm = ScriptedLLM([call("ask_tea"), "Then not."])
    loop = make_loop(llm=llm, tool_registry=[look_up, ask_tea])
    sid = await loop.new_session()
    await within_limit(loop.send("go", session_id=sid))
    assert "effect='idempotent'" in error_answers(llm.requests[-1])[0]


# ---- what it costs ----


async def test_what_agents_take_counts_with_the_send_and_with_every_session_above(make_loop: MakeLoop) -> None:
    tools = agent_tools([AgentSpec("a", "You are a."), AgentSpec("b", "You are b.", tools=())])
    llm = Cast(top=[spawn("a"), "Done."], a=[spawn("b"), "Ok."], b=["Yes."])
    loop = make_loop(llm=llm, tool_registry=tools)
    sid = await loop.new_session()
    result = await within_limit(loop.send("go", session_id=sid, request_id="r"))
    below = A_CALL + A_CALL + A_CALL
    assert (result.usage, result.children_usage) == (A_CALL + A_CALL + below, below)
    again = await loop.send("go", session_id=sid, request_id="r")
    assert (again.is_replayed, again.usage, again.children_usage) == (True, result.usage, below)
    stats = await loop.get_session_stats(sid)
    assert (stats.usage, stats.children, stats.children_usage) == (result.usage, 2, below)


async def test_the_tokens_of_a_send_are_its_agents_too(make_loop: MakeLoop) -> None:
    turns = [call("look_up", {"word": "tea"}), call("look_up", {"word": "leaf"}), "never said"]
    llm = Cast(top=[spawn(), "never said"], tea=turns)
    loop = make_loop(llm=llm, tool_registry=[look_up, *agent_tools([TEA])])
    sid = await loop.new_session()
    result = await within_limit(loop.send("go", session_id=sid, limits=SendLimits(max_tokens=45)))
    assert result.status is SendStatus.TOKENS_EXCEEDED
    assert (result.usage.total_tokens, result.children_usage.total_tokens) == (45, 30)
    child = await loop.resume(await child_of(loop, sid))
    assert child.status is SendStatus.TOKENS_EXCEEDED


async def test_the_budget_of_a_send_pays_for_its_agents(make_loop: MakeLoop) -> None:
    llm = Cast(top=[spawn(), "Yes."], tea=["A leaf."])
    loop = make_loop(llm=llm, config=LoopConfig(budget=Budget(max_tool_calls=9)), tool_registry=agent_tools([ANY]))
    sid = await loop.new_session()
    await within_limit(loop.send("go", session_id=sid))
    budget = await loop.get_budget(sid)
    assert budget is not None
    assert (budget.spent.tokens, budget.spent.tool_calls) == (45, 1)
    # The agent has none of its own: it pays from its parent's.
    assert await loop.get_budget(await child_of(loop, sid)) == budget


async def test_the_tool_calls_of_a_send_are_its_agents_too(make_loop: MakeLoop) -> None:
    looks = calls(("look_up", {"word": "a"}), ("look_up", {"word": "b"}))
    llm = Cast(top=[spawn(), "Enough."], tea=[looks, "That is all."])
    loop = make_loop(llm=llm, tool_registry=[look_up, *agent_tools([TEA])])
    sid = await loop.new_session()
    await within_limit(loop.send("go", session_id=sid, limits=SendLimits(max_tool_calls=2)))
    # One call is the parent's own, so that of the agent's two the second does not run.
    assert "limit of tool calls" in error_answers(llm["tea"].requests[-1])[0]


async def test_an_agents_own_limits_are_never_wider_than_its_parents(make_loop: MakeLoop) -> None:
    spec = AgentSpec("tea", "You know tea.", limits=SendLimits(max_rounds=99, max_tokens=7))
    loop = make_loop(spawn(), "A leaf.", "Yes.", tool_registry=agent_tools([spec]))
    sid = await loop.new_session()
    await within_limit(loop.send("go", session_id=sid, limits=SendLimits(max_rounds=5, max_tokens=100)))
    stored = (await loop.get_session(await child_of(loop, sid))).agent
    assert stored is not None
    assert (stored["limits"]["max_rounds"], stored["limits"]["max_tokens"]) == (5, 7)


# ---- how it ends ----


@pytest.mark.parametrize("how", ["cancel", "task", "elsewhere", "time"])
async def test_who_ends_a_send_ends_its_agents_before_it_rests(make_loop: MakeLoop, how: str) -> None:
    gate = Gate()
    llm = Cast(top=[spawns("a", "b")], tea=[gate.then("x"), gate.then("y")])
    loop = make_loop(llm=llm, tool_registry=[look_up, *agent_tools([TEA])])
    sid = await loop.new_session()
    limits = SendLimits(max_seconds=600) if how == "time" else None
    sending = asyncio.ensure_future(loop.send("go", session_id=sid, limits=limits))
    await within_limit(until(lambda: gate.came == 2))
    states: list[SendStatus] = []

    def note(event: Any) -> None:
        states.append(event.payload.result.status)

    loop.event_bus.subscribe(note, types=[SendFinished])
    if how == "task":
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await within_limit(sending)
    elif how == "time":
        pass_time(600)
        await within_limit(sending)
    elif how == "cancel":
        assert await loop.cancel(sid, reason="enough")
        assert (await within_limit(sending)).status is SendStatus.CANCELLED
    else:
        store = await loop.get_store()
        await store.ask_to_cancel(sid, reason="enough")
        assert (await within_limit(sending)).status is SendStatus.CANCELLED
    wanted = SendStatus.TIME_EXCEEDED if how == "time" else SendStatus.CANCELLED
    assert gate.cancelled == 2
    # Each of the agents' ends was told of before that of their parent.
    assert states == [wanted] * 3
    for child in (await loop.list_sessions(parent_id=sid)).items:
        result = await loop.resume(child.id)
        assert (result.status, child.owner) == (wanted, None)


async def test_a_parent_that_lost_its_lease_leaves_its_agents_to_whoever_goes_on(make_loop: MakeLoop) -> None:
    gate = Gate()
    llm = Cast(top=[spawn(), "Yes."], tea=[gate.then("never said"), "A leaf."])
    loop = make_loop(llm=llm, tool_registry=[look_up, *agent_tools([TEA])])
    sid = await loop.new_session()
    sending = asyncio.ensure_future(loop.send("go", session_id=sid))
    await within_limit(gate.someone())
    store, child = await loop.get_store(), await child_of(loop, sid)
    # Another process takes the session over, because it takes this one for dead.
    owner = (await loop.get_session(sid)).owner
    taken = await store.take_up(Claim(sid, "another", 30.0, dead_owner=owner))
    with pytest.raises(LeaseLostError):
        await within_limit(sending)
    left = await store.get_send(child)
    assert left is not None
    assert (left.status, gate.cancelled) == (SendStatus.RUNNING, 1)
    await store.release(taken.lease)
    done = await within_limit(loop.resume(sid))
    assert (done.status, done.final_text) == (SendStatus.COMPLETED, "Yes.")
    assert await child_of(loop, sid) == child
    assert [one.message.text for one in await loop.get_messages(child)] == ["Find tea.", "A leaf."]


async def test_a_model_that_cannot_be_reached_fails_the_call_and_not_the_send(make_loop: MakeLoop) -> None:
    llm = Cast(top=[spawn(), "It does not work."], tea=[LLMAuthError("the key is wrong")])
    loop = make_loop(llm=llm, tool_registry=[look_up, *agent_tools([TEA])])
    sid = await loop.new_session()
    result = await within_limit(loop.send("go", session_id=sid))
    assert result.final_text == "It does not work."
    assert "llm.auth" in error_answers(llm["top"].requests[-1])[0]


# ---- who hears of it ----


async def test_a_subscriber_of_the_top_hears_the_agents_by_their_path_if_it_wants_to(make_loop: MakeLoop) -> None:
    tools = agent_tools([AgentSpec("a", "You are a."), AgentSpec("b", "You are b.", tools=())])
    llm = Cast(top=[spawn("a"), "top"], a=[spawn("b"), "mid"], b=["low"])
    loop = make_loop(llm=llm, tool_registry=tools)
    sid, other = await loop.new_session(), await loop.new_session()
    whole, alone = Ears(loop, session_id=sid, with_children=True), Ears(loop, session_id=sid)
    elsewhere = Ears(loop, session_id=other, with_children=True)
    await within_limit(loop.send("go", session_id=sid))
    first, second = [one.agent_session_id for one in whole.of(AgentStarted)]
    said = [(one.agent_path, one.payload.text) for one in whole.events if isinstance(one.payload, TextDelta)]
    assert said == [((sid, first, second), "low"), ((sid, first), "mid"), ((sid,), "top")]
    assert {one.agent_path for one in alone.events} == {(sid,)}
    assert [(one.name, one.result.final_text) for one in alone.of(AgentFinished)] == [("a", "mid")]
    assert not elsewhere.events


@pytest.mark.parametrize("with_children", [False, True])
async def test_a_stream_yields_the_agents_events_too_if_it_is_to(make_loop: MakeLoop, with_children: bool) -> None:
    llm = Cast(top=[spawns("a", "b"), "Done.", "Else."], tea=["x", "y"])
    loop = make_loop(llm=llm, tool_registry=[look_up, *agent_tools([TEA])])
    sid, other = await loop.new_session(), await loop.new_session()
    heard = Ears(loop, session_id=sid, with_children=with_children)
    seen: list[Any] = []
    result = await within_limit(watch(loop.stream("go", session_id=sid, with_children=with_children), seen))
    # What this turn did not do is none of its events.
    await within_limit(loop.send("Find something else.", session_id=other, tools=()))
    assert result.final_text == "Done."
    assert seen == heard.events
    children = {one.id for one in (await loop.list_sessions(parent_id=sid)).items}
    paths = {one.agent_path for one in seen}
    assert paths == {(sid,), *((sid, child) for child in children if with_children)}


async def test_a_hook_may_say_no_to_an_agent_and_is_told_of_its_end(make_loop: MakeLoop) -> None:
    seen: list[Any] = []

    def decide(context: SubagentStartContext) -> Veto | None:
        seen.append(context)
        return Veto("not today") if context.input == "b" else None

    llm = Cast(top=[spawns("a", "b"), "Done."], tea=["x"])
    loop = make_loop(llm=llm, tool_registry=[look_up, *agent_tools([TEA])])
    loop.hooks.add(HookPoint.SUBAGENT_START, decide)
    loop.hooks.add(HookPoint.SUBAGENT_END, seen.append)
    sid = await loop.new_session()
    await within_limit(loop.send("go", session_id=sid))
    assert "not today" in error_answers(llm["top"].requests[-1])[0]
    ends = [one for one in seen if isinstance(one, SubagentEndContext)]
    assert [(one.spec.name, one.result.final_text) for one in ends] == [("tea", "x")]
    assert len((await loop.list_sessions(parent_id=sid)).items) == 1


# ---- when it waits for a person ----


def asking(name: str) -> Callable[..., Any]:
    @tool(effect="once", requires_approval=True, name=name)
    def sign(paper: str) -> str:
        """Sign."""
        return f"signed {paper}"

    return sign


async def test_an_agent_that_waits_parks_its_parent_which_goes_on_behind_the_answer(make_loop: MakeLoop) -> None:
    middle, low = AgentSpec("middle", "You are middle."), AgentSpec("low", "You are low.")
    parts = {
        "top": [spawn("middle"), "All signed."],
        "middle": [spawn("low"), "Low has signed."],
        "low": [call("sign", {"paper": "A"}), "I signed."],
    }
    llm = Cast(**parts)
    loop = make_loop(llm=llm, tool_registry=[asking("sign"), *agent_tools([middle, low])])
    sid = await loop.new_session()
    result = await within_limit(loop.send("go", session_id=sid))
    assert result.status is SendStatus.WAITING_FOR_INPUT
    [waits] = result.pending
    assert waits.wait_kind is WaitKind.AGENT
    assert waits.data is not None
    between = waits.data["session_id"]
    [pending] = await loop.get_pending(between)
    assert pending.data is not None
    lowest = pending.data["session_id"]
    [asked] = pending.data["pending"]
    # As long as nobody has answered, there is nothing to go on with.
    assert (await within_limit(loop.resume(sid))).status is SendStatus.WAITING_FOR_INPUT
    await within_limit(loop.resume(lowest, answers={asked["call_id"]: Approve()}))
    # In another process.
    other = make_loop(llm=llm, tool_registry=[asking("sign"), *agent_tools([middle, low])])
    done = await within_limit(other.resume(sid))
    assert (done.status, done.final_text) == (SendStatus.COMPLETED, "All signed.")
    assert (done.usage.total_tokens, done.children_usage.total_tokens) == (90, 60)
    assert [len(llm[name].requests) for name in parts] == [2, 2, 2]


async def test_giving_up_a_send_gives_up_the_agent_that_it_waits_for(make_loop: MakeLoop) -> None:
    spec = AgentSpec("tea", "You know tea.")
    llm = Cast(top=[spawn()], tea=[call("sign", {"paper": "A"})])
    loop = make_loop(llm=llm, tool_registry=[asking("sign"), *agent_tools([spec])])
    sid = await loop.new_session()
    await within_limit(loop.send("go", session_id=sid))
    child = await child_of(loop, sid)
    assert (await within_limit(loop.abort_pending(sid))).status is SendStatus.ABORTED
    assert not await loop.get_pending(child)
    assert (await loop.resume(child)).status is SendStatus.ABORTED


@pytest.mark.parametrize("answer", [Deny("it is too dear"), Give("Nothing was signed.")])
async def test_an_answer_in_place_of_an_agent_ends_that_agent_and_all_below(make_loop: MakeLoop, answer: Any) -> None:
    specs = [AgentSpec("middle", "You are middle."), AgentSpec("low", "You are low.")]
    llm = Cast(
        top=[spawn_each("middle", "other"), "So be it."],
        middle=[spawn("low"), "Never."],
        low=[call("sign", {"paper": "A"}), "Never."],
        other=[call("sign", {"paper": "B"}), "B is signed."],
    )
    tools = [asking("sign"), *agent_tools([*specs, AgentSpec("other", "You are other.")])]
    loop = make_loop(llm=llm, tool_registry=tools)
    sid = await loop.new_session()
    waits = await within_limit(loop.send("go", session_id=sid))
    by_agent = {one.data["agent"]: one for one in waits.pending if one.data is not None}
    middle, other = [by_agent[name].data["session_id"] for name in ("middle", "other")]  # type: ignore[index]
    low = await child_of(loop, middle)
    # In another process.
    loop = make_loop(llm=llm, tool_registry=tools)
    still = await within_limit(loop.resume(sid, answers={by_agent["middle"].call_id: answer}))
    assert (still.status, [one.call_id for one in still.pending]) == (
        SendStatus.WAITING_FOR_INPUT,
        [by_agent["other"].call_id],
    )
    for ended in (middle, low):
        assert await loop.get_pending(ended) == ()
        assert (await loop.resume(ended)).status is SendStatus.ABORTED
    [asked] = await loop.get_pending(other)
    await within_limit(loop.resume(other, answers={asked.call_id: Approve()}))
    assert (await within_limit(loop.resume(sid))).final_text == "So be it."
    assert {name: len(llm[name].requests) for name in ("top", "middle", "low", "other")} == {
        "top": 2, "middle": 1, "low": 1, "other": 2,
    }  # fmt: skip


async def test_an_answer_that_cannot_be_taken_leaves_the_agent_as_it_is(make_loop: MakeLoop) -> None:
    llm = Cast(top=[spawn(), "Done."], tea=[call("sign", {"paper": "A"}), "Signed."])
    loop = make_loop(llm=llm, tool_registry=[asking("sign"), *agent_tools([AgentSpec("tea", "You know tea.")])])
    sid = await loop.new_session()
    [waits] = (await within_limit(loop.send("go", session_id=sid))).pending
    with pytest.raises(InputError):
        await loop.resume(sid, answers={waits.call_id: Approve()})
    child = await child_of(loop, sid)
    [asked] = await loop.get_pending(child)
    await within_limit(loop.resume(child, answers={asked.call_id: Approve()}))
    assert (await within_limit(loop.resume(sid))).final_text == "Done."


# What a process does that knows nothing of the turn but its session's id.
_THIRD = """
import asyncio, sys
from power_loop import StatefulAgentLoop, open_store
from power_loop.testing import ScriptedLLM

async def main():
    store = await open_store(sys.argv[1])
    if sys.argv[3] == "ask":
        print((await store.ask_to_cancel(sys.argv[2], reason="from afar")).owner is not None)
    else:
        async with StatefulAgentLoop(llm=ScriptedLLM([]), store=store) as loop:
            print(await loop.cancel(sys.argv[2], reason="from afar"))
    await store.aclose()

asyncio.run(main())
"""


async def third(dsn: str, sid: str, act: str) -> str:
    """Let another process cancel a session; return what it was told."""
    command = (sys.executable, "-c", _THIRD, dsn, sid, act)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    return out.decode().strip()


@pytest.mark.parametrize("act", ["ask", "cancel"])
async def test_a_third_process_cancels_a_whole_tree_that_runs(make_loop: MakeLoop, dsn: str, act: str) -> None:
    gate = Gate()
    middle, low = AgentSpec("middle", "You are middle."), AgentSpec("low", "You are low.")
    llm = Cast(top=[spawn_each("middle", "low")], middle=[spawn("low")], low=[gate.then("x"), gate.then("y")])
    loop = make_loop(llm=llm, tool_registry=agent_tools([middle, low]))
    sid = await loop.new_session()
    sending = asyncio.ensure_future(loop.send("go", session_id=sid))
    await within_limit(until(lambda: gate.came == 2))
    assert await third(dsn, sid, act) == "True"
    result = await within_limit(sending)
    assert (result.status, result.reason, gate.cancelled) == (SendStatus.CANCELLED, "from afar", 2)
    tree = [sid]
    for parent in tree:
        tree += [one.id for one in (await loop.list_sessions(parent_id=parent)).items]
    assert len(tree) == 4
    for one in tree:
        assert ((await loop.resume(one)).status, (await loop.get_session(one)).owner) == (SendStatus.CANCELLED, None)


async def test_a_third_process_cancels_an_agent_that_another_one_drives(make_loop: MakeLoop, dsn: str) -> None:
    gate = Gate()
    llm = Cast(top=[spawn(), "It was cancelled."], tea=[call("sign", {"paper": "A"}), gate.then("Never.")])
    tools = [asking("sign"), *agent_tools([AgentSpec("tea", "You know tea.")])]
    loop = make_loop(llm=llm, tool_registry=tools)
    sid = await loop.new_session()
    await within_limit(loop.send("go", session_id=sid))
    child = await child_of(loop, sid)
    [asked] = await loop.get_pending(child)
    # Its parent waits and is driven by nobody.
    driving = asyncio.ensure_future(
        elsewhere(make_loop, dsn, llm=llm, tool_registry=tools).resume(child, answers={asked.call_id: Approve()})
    )
    await gate.someone()
    assert await third(dsn, sid, "cancel") == "False", "it waits, and nobody drives it"
    assert await third(dsn, child, "cancel") == "True"
    assert ((await within_limit(driving)).status, gate.cancelled) == (SendStatus.CANCELLED, 1)
    assert (await within_limit(loop.resume(sid))).final_text == "It was cancelled."
    assert "from afar" in error_answers(llm["top"].requests[-1])[0]


async def test_a_prune_leaves_the_agents_of_a_send_that_has_not_ended(make_loop: MakeLoop) -> None:
    done, asks = AgentSpec("done", "You are done."), AgentSpec("asks", "You are asks.")
    both = calls(*[("spawn_agent", {"agent": name, "input": "go"}) for name in ("done", "asks")])
    llm = Cast(top=[both, "All."], done=["Yes."], asks=[call("sign", {"paper": "A"}), "Signed."])
    loop = make_loop(llm=llm, tool_registry=[asking("sign"), *agent_tools([done, asks])])
    sid = await loop.new_session()
    waits = await within_limit(loop.send("go", session_id=sid))
    store: Any = await loop.get_store()
    assert (await store.prune_sessions(older_than_s=0)).sessions == 0
    assert waits.pending[0].data is not None
    [asked] = waits.pending[0].data["pending"]
    await loop.resume(waits.pending[0].data["session_id"], answers={asked["call_id"]: Approve()})
    assert (await within_limit(loop.resume(sid))).final_text == "All."
    assert (await store.prune_sessions(older_than_s=0)).sessions == 2
    assert [one.id for one in (await loop.list_sessions()).items] == [sid]


# ---- when it works on by itself ----


async def test_a_detached_agent_outlives_the_send_and_its_end_comes_once(make_loop: MakeLoop) -> None:
    spec = AgentSpec("tea", "You know tea.", lifecycle=AgentLifecycle.DETACHED, tools=())
    gate = Gate()
    llm = Cast(top=[spawn(), "It is at work.", "Thank you, tea."], tea=[gate.then("A leaf.")])
    loop = make_loop(llm=llm, tool_registry=agent_tools([spec]))
    ears = Ears(loop)
    sid = await loop.new_session()
    result = await within_limit(loop.send("go", session_id=sid))
    assert (result.final_text, result.children_usage) == ("It is at work.", Usage())
    await within_limit(gate.someone())
    gate.open()
    await within_limit(until(lambda: "Thank you, tea." in [one.message.text for one in ears.of(MessageAppended)]))
    inputs = [one.message.text for one in await loop.get_messages(sid) if one.message.role is Role.USER]
    assert len(inputs) == 2
    assert "A leaf." in inputs[1]
    stats = await loop.get_session_stats(sid)
    assert (stats.usage.total_tokens, stats.children_usage.total_tokens) == (60, 15)
    assert stats.sends == 2


# ---- on each database ----


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture(params=BACKENDS, ids=[backend.name for backend in BACKENDS])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    async with request.param.fresh() as fresh:
        yield fresh


async def test_the_tree_on_each_database(place: Place, make_loop: MakeLoop, clock: HandClock) -> None:
    store = await place.open(clock)
    try:
        tools = agent_tools([AgentSpec("a", "You are a."), AgentSpec("b", "You are b.", tools=())])
        llm = Cast(top=[spawn("a"), "Done."], a=[spawns("x", "y", agent="b"), "Ok."], b=["1", "2"])
        loop = make_loop(llm=llm, store=store, tool_registry=tools)
        sid = await loop.new_session()
        result = await within_limit(loop.send("go", session_id=sid))
        assert (result.final_text, result.children_usage.total_tokens) == ("Done.", 60)
        stats = await loop.get_session_stats(sid)
        assert (stats.children, stats.children_usage.total_tokens) == (3, 60)
        first = await child_of(loop, sid)
        assert len((await loop.list_sessions(parent_id=first)).items) == 2
        [spent] = await store.get_children_spending(sid, 1)
        assert (spent.session_id, spent.model_calls, spent.tool_calls) == (first, 4, 2)
        assert [one async for one in store.diagnose()] == []
        # A fork is a session of its own, and so is what an archive brings; a tree goes as a whole.
        fork = await store.fork_session(first)
        assert (await loop.get_session(fork)).parent_id is None
        await store.delete_session(fork)
        copy = await store.import_session(await store.export_session(first), session_id="copy")
        head = await loop.get_session(copy)
        assert (head.parent_id, head.depth, head.agent) == (None, 0, None)
        await store.delete_session(sid)
        with pytest.raises(SessionNotFoundError):
            await loop.get_session(first)
        assert [one.id for one in (await loop.list_sessions()).items] == ["copy"]
    finally:
        await store.aclose()


async def test_only_who_holds_the_parents_lease_makes_a_child(place: Place, clock: HandClock) -> None:
    store = await place.open(clock)
    try:
        await store.create_session("top", system_prompt=None, metadata={})
        new = NewChild("agt_x", None, {}, parent_id="top", parent_send=1, root_id="top", depth=1)
        with pytest.raises(LeaseLostError):
            await store.create_child(new, lease=Lease("top", "me", 1))
        made = await store.create_child(new)
        assert await store.create_child(new) == made
    finally:
        await store.aclose()


async def test_agent_grants_are_coded(make_loop: MakeLoop) -> None:
    loop = make_loop(tool_registry=[look_up])
    with pytest.raises(AgentGrantError) as caught:
        await run_agent_spec(loop, AgentSpec("a", "You.", tools=["pay"]), "go")
    assert caught.value.code == "agent.not_granted"
