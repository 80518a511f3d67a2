"""Is the agent of our own crash matrix, and the scenarios that it is killed in.

Its model answers by what stands in the request and by nothing else, and looks at each request as both wires would send
it. Its tools have every class of effect; what they really did stands in a file outside of the database.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from power_loop import (
    AgentSpec,
    Answer,
    Approve,
    Budget,
    Give,
    LLMDelta,
    LLMRequest,
    LLMResponse,
    LoopConfig,
    ModelPrice,
    PriceTable,
    Projection,
    RuntimeEnv,
    SendStatus,
    SessionStore,
    StatefulAgentLoop,
    StatefulResult,
    TimerRunner,
    ToolContext,
    agent_tools,
    open_store,
    tool,
)
from power_loop.errors import InputError, LLMAuthError
from power_loop.llm import DeltaKind, Emit, ModelInfo
from power_loop.records import SessionRecord, WaitKind
from power_loop.runtime.llm.anthropic_wire import AnthropicWire
from power_loop.runtime.llm.config import LLMProviderConfig
from power_loop.runtime.llm.openai_wire import OpenAIWire
from power_loop.runtime.store.sql import mysql, postgres
from power_loop.sandbox import LocalShellBackend
from power_loop.testing import Scenario, crash_point, crash_problem
from power_loop.testing.matrix.scenarios import WAYS
from power_loop.timers import Clock, Every, Missed
from power_loop.tools import ToolTransaction, Waiting, background_tools, wakeup_tools
from power_loop.workflow import RunStatus, create_workflow, drive_runs, resume_run, signal_run
from tests.crash import stories
from tests.model_server import check_anthropic_request, check_openai_request

_WIRES = (
    (OpenAIWire(LLMProviderConfig(model="gpt-4o")), check_openai_request),
    (AnthropicWire(LLMProviderConfig(provider="anthropic", model="claude-sonnet-4-5")), check_anthropic_request),
)
_STREAMED = "Say it slowly."
_WRONG_KEY = "Try with the wrong key."


class Model:
    """Says what the stories say, as both providers would be asked for it."""

    info = ModelInfo(
        "story",
        "story",
        context_window_tokens=stories.WINDOW_TOKENS,
        max_output_tokens=stories.REPLY_TOKENS,
        has_json_schema=True,
    )

    async def generate(self, request: LLMRequest, emit: Emit) -> LLMResponse:
        """Answer by what stands in the request."""
        for wire, check in _WIRES:
            for problem in check(json.loads(wire.body(request))):
                crash_problem(f"a request would be refused: {problem}")
        await asyncio.sleep(0)
        if request.messages[-1].text == _WRONG_KEY and _is_first_time("key"):
            raise LLMAuthError("the key is wrong")
        response = stories.reply_to(request.messages)
        for word in response.message.text.split():
            emit(LLMDelta(DeltaKind.TEXT, f"{word} "))
            if any(message.text == _STREAMED for message in request.messages):
                await asyncio.sleep(0)
                crash_point("delta")
        return response


def _world() -> Path:
    return Path(os.environ["POWER_LOOP_CRASH_WORLD"])


def _is_first_time(name: str) -> bool:
    """Tell once in a history that something happens for the first time."""
    try:
        (_world() / f"{name}.once").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


# ---- tools ----


def _have_effect(name: str, id_: str, context: ToolContext) -> str:
    """Change the world outside: a line for every time, under the call's key."""
    crash_point(f"{name}:{id_} is to happen")
    file = os.open(_world() / "effects", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(file, f"{name}:{id_} {context.idempotency_key}\n".encode())
    os.close(file)
    crash_point(f"{name}:{id_} has happened")
    return stories.result_text(name, id_)


def effects_of(key: str) -> list[str]:
    """Return the effects that happened under a key."""
    path = _world() / "effects"
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return [line.split()[0] for line in lines if line.split()[1] == key]


@tool(effect="once")
def charge(id: str, context: ToolContext) -> str:
    """Have an effect that must not come twice, in a thread."""
    return _have_effect("charge", id, context)


@tool(effect="once")
async def pay(id: str, context: ToolContext) -> str:
    """Have an effect that must not come twice."""
    return _have_effect("pay", id, context)


@tool(effect="once", parallel=False)
async def seal(id: str, context: ToolContext) -> str:
    """Have an effect that must not come twice, beside no other call."""
    return _have_effect("seal", id, context)


@tool(effect="once")
async def count(id: str, context: ToolContext) -> str:
    """Have an effect that must not come twice, and count it in the session's own state."""
    text = _have_effect("count", id, context)
    context.state["counted"] = [*context.state.get("counted", ()), id]
    return text


@tool(effect="once", requires_approval=True)
async def transfer(id: str, context: ToolContext) -> str:
    """Have an effect that must not come twice, once a person approves."""
    return _have_effect("transfer", id, context)


@tool(effect="idempotent")
async def save(id: str, context: ToolContext) -> str:
    """Have an effect that is the same however often it comes with the same key."""
    return _have_effect("save", id, context)


@tool(effect="read")
async def look(id: str, context: ToolContext) -> str:
    """Have no effect."""
    return _have_effect("look", id, context)


@tool(effect="read")
def colour(id: str) -> Waiting:
    """Ask a person for a colour."""
    return Waiting(f"Which colour for {id}?", answer_schema={"type": "string"})


def was_refunded(key: str) -> str | None:
    """Tell what became of a refund whose process died."""
    happened = effects_of(key)
    return stories.result_text("refund", happened[0].partition(":")[2]) if happened else None


@tool(effect="once", probe=was_refunded)
async def refund(id: str, context: ToolContext) -> str:
    """Have an effect that must not come twice, and of which one can tell later whether it came."""
    return _have_effect("refund", id, context)


@tool
async def book(tx: ToolTransaction, id: str, context: ToolContext) -> str:
    """Write into a table of the application, in the transaction that stores the result."""
    await tx.execute("INSERT INTO bookings (call_key) VALUES (?)", (context.idempotency_key,))
    return stories.result_text("book", id)


@tool(effect="once", on_unknown="ask")
async def wire(id: str, context: ToolContext) -> str:
    """Have an effect that must not come twice, and of which a person says later whether it came."""
    return _have_effect("wire", id, context)


@tool(effect="once", on_unknown="rerun")
async def retry(id: str, context: ToolContext) -> str:
    """Have an effect that may come twice where nobody knows whether it came."""
    return _have_effect("retry", id, context)


@tool(effect="idempotent")
async def hint(id: str, context: ToolContext) -> str:
    """Say something more to the turn that runs, as another part of the application would."""
    await _here[0].follow_up(context.session_id, stories.FOLLOW_UP, request_id="hint")
    return _have_effect("hint", id, context)


@tool(effect="idempotent")
async def queue(id: str, context: ToolContext) -> str:
    """Send something while the turn runs, and leave it there."""
    options: dict[str, Any] = {"session_id": context.session_id, "request_id": "queue", "on_busy": "queue"}
    await _here[0].send(stories.FOLLOW_UP, **options)
    return _have_effect("queue", id, context)


@tool(effect="once")
async def stick(id: str, context: ToolContext) -> str:
    """Have an effect, cancel the turn it runs in, and never end by itself."""
    _have_effect("stick", id, context)
    await _here[0].cancel(context.session_id, reason="changed my mind")
    await asyncio.Event().wait()
    return "never"


# No process here lives until its lease is renewed by the clock; one that is an hour ahead finds it over.
_LEASE_S = 600.0
PRICES = PriceTable({Model.info.model: ModelPrice("3", "15", cached_input="0.3")})
# More than any history takes, so that what ends a send is never the budget.
PLENTY = Budget(max_tokens=1_000_000, max_cost=100, max_tool_calls=1_000, max_seconds=86_400)
CLERK = AgentSpec("clerk", "You do what you are told.", description="does one thing", tools=["charge", "save"])
TOOLS = [charge, pay, seal, count, transfer, save, look, colour, refund, book, wire, retry, hint, queue, stick]
# The loop of this process, for a tool that acts on it as another part of the application would.
_here: list[StatefulAgentLoop] = []


def make_loop(dsn: str, *, clock: Clock | None = None) -> StatefulAgentLoop:
    """Return the agent. It has its process to itself."""
    # A server ends the transaction of a process that stands still after 15 seconds; nobody here has that much time.
    postgres.IDLE_IN_TRANSACTION_MS, mysql.IDLE_IN_TRANSACTION_S = 2_000, 2
    shell = LocalShellBackend(RuntimeEnv(_world()), output_folder=_world())
    loop = StatefulAgentLoop(
        llm=Model(),
        dsn=dsn,
        tool_registry=[*TOOLS, *agent_tools([CLERK]), *background_tools(shell), *wakeup_tools()],
        config=LoopConfig(projection=Projection(), prices=PRICES, lease_ttl_s=_LEASE_S),
        clock=clock,
    )
    drive_runs(loop)
    _here[:] = [loop]
    return loop


# ---- scenarios ----


async def _send(loop: StatefulAgentLoop, session_id: str, text: str, **options: Any) -> StatefulResult:
    return await loop.send(text, session_id=session_id, request_id=f"send {text}", **options)


async def plain(loop: StatefulAgentLoop, session_id: str) -> StatefulResult:
    """Ask and be answered, twice."""
    await _send(loop, session_id, stories.GREETING)
    return await _send(loop, session_id, "How are you?")


async def tool_round(loop: StatefulAgentLoop, session_id: str) -> StatefulResult:
    """Let three tools of three classes run side by side."""
    return await _send(loop, session_id, "Pay once, save safely, look.")


async def batch(loop: StatefulAgentLoop, session_id: str) -> StatefulResult:
    """Let four tools run side by side."""
    return await _send(loop, session_id, "Do four things at once.")


async def alone(loop: StatefulAgentLoop, session_id: str) -> StatefulResult:
    """Let a tool run that runs beside no other."""
    return await _send(loop, session_id, "Seal it, then count.")


async def nested_rounds(loop: StatefulAgentLoop, session_id: str) -> StatefulResult:
    """Let the model ask for tools again when it has the first results."""
    return await _send(loop, session_id, "First this, then that.")


async def structured(loop: StatefulAgentLoop, session_id: str) -> StatefulResult:
    """Ask for an answer that fits a schema; the first one does not."""
    return await _send(loop, session_id, "Which number?", output_schema=stories.STORIES["structured"].output_schema)


async def fold(loop: StatefulAgentLoop, session_id: str) -> StatefulResult:
    """Fill the window of the model, so that what came first is folded before the last reply."""
    story = stories.STORIES["fold"]
    return await _send(loop, session_id, story.text, output_schema=story.output_schema)


async def budget(loop: StatefulAgentLoop, session_id: str) -> StatefulResult:
    """Let tools run and ask again, all of it paid from a budget for each send."""
    await _send(loop, session_id, "First this, then that.", budget=PLENTY)
    story = stories.STORIES["fold"]
    return await _send(loop, session_id, story.text, output_schema=story.output_schema, budget=PLENTY)


async def projection(loop: StatefulAgentLoop, session_id: str) -> StatefulResult:
    """Ask again when a send with calls is at rest and shown as its projection."""
    await _send(loop, session_id, stories.STORIES["projection"].text)
    return await _send(loop, session_id, stories.FOLLOW_UP)


async def stream(loop: StatefulAgentLoop, session_id: str) -> StatefulResult:
    """Watch an answer as it comes."""
    async with loop.stream(_STREAMED, session_id=session_id, request_id="stream") as events:
        async for _ in events:
            pass
    return events.result


async def human_wait(loop: StatefulAgentLoop, session_id: str) -> StatefulResult:
    """Wait for a person, whose first answer is no good."""
    result = await _send(loop, session_id, "Ask me, then transfer.")
    answers: Mapping[str, Answer] = {"transfer": Approve(), "colour": Give("blue")}
    while result.status is SendStatus.WAITING_FOR_INPUT:
        for call in result.pending:
            if call.name == "colour":
                try:
                    await loop.resume(session_id, answers={call.call_id: Give(7)})
                except InputError:
                    pass
                else:
                    crash_problem("a wrong answer was taken")
        result = await loop.resume(session_id, answers={call.call_id: answers[call.name] for call in result.pending})
    return result


async def resume_of_resume(loop: StatefulAgentLoop, session_id: str) -> StatefulResult:
    """Wait for a person twice, and answer one call at a time: each answer is a resume of its own."""
    result = await _send(loop, session_id, "Ask me, then transfer.")
    answers: Mapping[str, Answer] = {"transfer": Approve(), "colour": Give("blue")}
    while result.status is SendStatus.WAITING_FOR_INPUT:
        await loop.resume(session_id)
        call = result.pending[0]
        result = await loop.resume(session_id, answers={call.call_id: answers[call.name]})
    return result


async def cancel(loop: StatefulAgentLoop, session_id: str) -> StatefulResult:
    """Cancel a turn while a tool runs."""
    return await _send(loop, session_id, "Do it, but I will change my mind.")


async def failure(loop: StatefulAgentLoop, session_id: str) -> StatefulResult:
    """Fail with the wrong key, then go on with the right one."""
    try:
        return await _send(loop, session_id, _WRONG_KEY)
    except LLMAuthError:
        return await loop.resume(session_id)


async def probe(loop: StatefulAgentLoop, session_id: str) -> StatefulResult:
    """Refund, of which one can tell later whether it came."""
    return await _send(loop, session_id, stories.REFUND)


async def transaction(loop: StatefulAgentLoop, session_id: str) -> StatefulResult:
    """Let a tool commit its effect together with its result."""
    return await _send(loop, session_id, stories.BOOK)


async def asked(loop: StatefulAgentLoop, session_id: str) -> StatefulResult:
    """Let a person say what became of a call whose process died."""
    result = await _send(loop, session_id, stories.WIRE)
    store = await loop.get_store()
    while result.status is SendStatus.WAITING_FOR_INPUT:
        [call] = await store.get_calls(session_id)
        if call.wait_kind is not WaitKind.OUTCOME:
            crash_problem(f"a person was asked for {call.wait_kind}")
        answer = Give(stories.result_text("wire", "a")) if effects_of(call.idempotency_key) else Approve()
        result = await loop.resume(session_id, answers={call.call_id: answer})
    return result


async def rerun(loop: StatefulAgentLoop, session_id: str) -> StatefulResult:
    """Let a call run again of which nobody knows whether it had its effect."""
    return await _send(loop, session_id, stories.RETRY)


async def follow_up(loop: StatefulAgentLoop, session_id: str) -> StatefulResult:
    """Say something more while the turn runs."""
    return await _send(loop, session_id, stories.HINT)


async def queued_send(loop: StatefulAgentLoop, session_id: str) -> StatefulResult:
    """Send something else while the turn runs."""
    return await _send(loop, session_id, stories.QUEUE)


async def late_follow_up(loop: StatefulAgentLoop, session_id: str) -> StatefulResult:
    """Say something more when nothing runs, and send while that is answered."""
    await _send(loop, session_id, stories.GREETING)
    await loop.follow_up(session_id, stories.FOLLOW_UP, request_id="late")
    return await _send(loop, session_id, "How are you?", on_busy="wait")


async def background(loop: StatefulAgentLoop, session_id: str) -> StatefulResult:
    """Start a command beside the conversation, and look how far it is."""
    return await _send(loop, session_id, stories.SERVE)


async def sub_agent(loop: StatefulAgentLoop, session_id: str) -> StatefulResult:
    """Let two agents work side by side, each with an effect of its own, all of it paid from one budget."""
    return await _send(loop, session_id, stories.HAND_OUT, budget=PLENTY)


# Due since then, so that nobody has to wait for it.
_LONG_AGO_MS = 1_767_225_600_000
# How long others wait for what a dead process had claimed, in seconds.
_CLAIM_S = 1.0


async def timer(loop: StatefulAgentLoop, session_id: str) -> list[str]:
    """Let a session be woken by what its model noted, and twice by the application; each wake-up has its effect."""
    await _send(loop, session_id, stories.ALARM)
    twice = Every(60, start=_LONG_AGO_MS, missed=Missed.ALL, max_runs=2)
    await loop.schedule_timer(session_id, stories.TICK, twice, request_id="twice")
    runner = TimerRunner(loop, claim_ttl_s=_CLAIM_S, hook_timeout_s=_CLAIM_S / 2, recover_every_s=None)
    store: Any = await loop.get_store()
    while armed := (await loop.list_timers(session_id)).items:
        # What a process that died did not answer is answered before the next one comes.
        await loop.resume(session_id)
        await loop.drive_inbox(session_id)
        first = min(armed, key=lambda one: one.made_by.value)
        if not await runner.fire_due(timer_ids=[first.id]):
            await asyncio.sleep(min(await store.next_timer_in_s() or 0.0, _CLAIM_S))
        await runner.drained()
    await loop.resume(session_id)
    await loop.drive_inbox(session_id)
    return [timer.state.value for timer in (await loop.list_timers(session_id, include_ended=True)).items]


_PARTS = {
    "type": "object",
    "properties": {"parts": {"type": "array", "items": {"type": "string"}}},
    "required": ["parts"],
}
_PLANNER = {"name": "planner", "system_prompt": "You do what you are told."}
_WORKER = {**_PLANNER, "name": "worker", "tools": ["charge", "save"]}
#: An agent, two side by side, a tool whose effect may come once, and a wait for somebody.
FLOW: dict[str, Any] = {
    "name": "flow",
    "input": "it",
    "root": {
        "type": "sequence",
        "steps": [
            {
                "type": "agent",
                "id": "plan",
                "spec": _PLANNER,
                "input": stories.PLAN,
                "output_schema": {"name": "Plan", "schema": _PARTS},
            },
            {
                "type": "foreach",
                "id": "all",
                "items_from": "plan.parts",
                "as": "part",
                "parallel": True,
                "body": {"type": "agent", "id": "do", "spec": _WORKER, "input": "See to it: {{part}}"},
            },
            {"type": "tool", "id": "pay", "tool": "charge", "args": {"id": "p"}, "on_error": "continue"},
            {"type": "wait", "id": "go", "signal": "go"},
        ],
    },
}


async def workflow(loop: StatefulAgentLoop, session_id: str) -> list[Any]:
    """Let a workflow come to its end with what is said while it waits, all of it paid from one budget."""
    await _send(loop, session_id, stories.GREETING)
    run_id = f"run_{session_id}"
    made = create_workflow(FLOW, parent_loop=loop, parent_session_id=session_id, run_id=run_id, budget=PLENTY)
    result = await made.run()
    store = await loop.get_store()
    if result.status is RunStatus.WAITING:
        if not await store.get_run_signals(run_id):
            await signal_run(loop, run_id, "go", "now")
        result = await resume_run(loop, session_id, run_id)
    return [result.status.value, result.output]


async def make_tables(dsn: str) -> None:
    """Make the application's own table beside the store's."""
    store = await open_store(dsn)

    async def body(tx: Any) -> None:
        await tx.execute("CREATE TABLE IF NOT EXISTS bookings (call_key VARCHAR(255) NOT NULL)")

    try:
        await store._rooms.database.write("make_tables", body)
    finally:
        await store.aclose()


async def _bookings(loop: StatefulAgentLoop, key: str) -> int:
    store: Any = await loop.get_store()

    async def body(tx: Any) -> int:
        return len(await tx.query("SELECT call_key FROM bookings WHERE call_key = ?", (key,)))

    return int(await store._rooms.database.read(body))


async def each_at_most_once(loop: StatefulAgentLoop, session_id: str) -> list[str]:
    """Return the calls whose real effects came more often than their class allows, below the session as well."""
    store = await loop.get_store()
    problems = []
    for child in await store.get_children(session_id):
        problems += await each_at_most_once(loop, child.id)
    for call in await store.get_calls(session_id):
        if call.name.startswith(("background_", "spawn_", "schedule_")):
            continue
        if call.name == "book":
            if (count := await _bookings(loop, call.idempotency_key)) != (call.state.value == "succeeded"):
                problems.append(f"book is {call.state.value}, and its row is there {count} times")
            continue
        happened = effects_of(call.idempotency_key)
        if call.effect.value == "once" and call.name != "retry" and len(happened) > 1:
            problems.append(f"{happened[0]} really happened {len(happened)} times")
        if call.state.value == "succeeded" and call.name != "colour" and not happened:
            problems.append(f"{call.name} succeeded and never really happened")
    return problems


def began_at_most_once() -> list[str]:
    """Return the commands that really began more often than they were asked for."""
    file = _world() / "jobs"
    begun = Counter(file.read_text("utf-8").split() if file.exists() else ())
    return [f"the command {name} really began {count} times" for name, count in begun.items() if count > 1]


async def loses_little(loop: StatefulAgentLoop, session_id: str) -> list[str]:
    """Return the sends whose budget paid for more that was lost than their processes can have lost."""
    problems = []
    store, session = await loop.get_store(), await loop.get_session(session_id)
    below = sum([await _restarts(store, child) for child in await store.get_children(session_id)])
    for index in range(1, session.send_count + 1):
        found = await loop.get_budget(session_id, send_index=index)
        send = await store.get_send(session_id, index=index)
        if found is None or send is None or send.status is SendStatus.RUNNING:
            continue
        # A process makes one call at a time in a session, whose prompt fits the window.
        restarts = send.attempts - 1 + below
        if found.lost.tokens > restarts * stories.WINDOW_TOKENS:
            problems.append(f"send {index} lost {found.lost} and was taken up again {restarts} times")
    return problems


async def _restarts(store: SessionStore, session: SessionRecord) -> int:
    """Return how often the sends of a session, and of those below it, were taken up again."""
    sends = [await store.get_send(session.id, index=index) for index in range(1, session.send_count + 1)]
    own = sum(send.attempts - 1 for send in sends if send is not None)
    return own + sum([await _restarts(store, child) for child in await store.get_children(session.id)])


async def is_as_it_should_be(loop: StatefulAgentLoop, session_id: str) -> list[str]:
    """Return what is wrong with real effects, and with the projections of sends that came to their end."""
    problems = [
        *await each_at_most_once(loop, session_id),
        *began_at_most_once(),
        *await loses_little(loop, session_id),
    ]
    store, session = await loop.get_store(), await loop.get_session(session_id)
    sends = [await store.get_send(session_id, index=index) for index in range(1, session.send_count + 1)]
    if any(send is None or send.status is not SendStatus.COMPLETED for send in sends):
        return problems
    view = await store.read_view(session_id, projected=True)
    covered = 0 if view.fold is None else view.fold.to_seq
    shown = {seq for one in view.projected for seq in range(one.seq, one.to_seq + 1)}
    if missing := set(range(covered + 1, session.next_seq)) - shown:
        problems.append(f"sends are at rest, and nothing stands for their messages {sorted(missing)}")
    return problems


# A command is lost with the process that ran it, and the model is told so.
_OTHER_END = {"cancel", "background"}
# A plain send goes on without a turn that died, which is then interrupted: it is not carried out again at once.
_WAYS = {"late_follow_up": ("resume", "recover")}
SCENARIOS = [
    Scenario(
        run.__name__,
        run,
        check=is_as_it_should_be,
        is_same_end=run.__name__ not in _OTHER_END,
        ways=_WAYS.get(run.__name__, WAYS),
    )
    for run in (
        plain,
        tool_round,
        batch,
        alone,
        nested_rounds,
        structured,
        fold,
        budget,
        projection,
        stream,
        human_wait,
        resume_of_resume,
        cancel,
        failure,
        probe,
        transaction,
        asked,
        rerun,
        follow_up,
        queued_send,
        late_follow_up,
        background,
        sub_agent,
        timer,
        workflow,
    )
]
