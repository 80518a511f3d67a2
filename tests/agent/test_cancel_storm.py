"""A thousand cancellations at random moments: afterwards every session takes a plain send, and nothing is left over."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from power_loop import LLMRequest, LLMResponse, SendStatus, StatefulAgentLoop, Usage, open_store, tool
from power_loop.llm import Emit, ModelInfo
from power_loop.testing import calls

from .conftest import MakeLoop
from .parts import within_limit

CANCELLATIONS = 1_000
SESSIONS = 20
TURNS = 10
SEED = 20_261_125


class Wanderer:
    """Is a model that takes a random while, and asks for tools half of the time."""

    info = ModelInfo("own", "wanderer", has_json_schema=True)

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.is_calm = False
        self.inside = 0

    async def generate(self, request: LLMRequest, emit: Emit) -> LLMResponse:
        check_transcript(request)
        if self.is_calm:
            return LLMResponse.of_text("Fine.", usage=Usage(1, 1))
        self.inside += 1
        try:
            await pause(self.dice)
        finally:
            self.inside -= 1
        if self.dice.random() < 0.6:
            wanted = [(self.dice.choice(["quick", "slow", "block"]), {}) for _ in range(self.dice.randint(1, 3))]
            return calls(*wanted)
        return LLMResponse.of_text("Done.", usage=Usage(1, 1))


def check_transcript(request: LLMRequest) -> None:
    """Fail where a call is not answered once and directly behind its reply."""
    open_ids: list[str] = []
    for message in request.messages:
        result = message.tool_result
        if result is not None:
            assert open_ids, "an answer that nobody asked for"
            assert result.call_id == open_ids.pop(0)
        else:
            assert not open_ids, f"calls without an answer: {open_ids}"
            open_ids = [part.id for part in message.tool_calls]
    assert not open_ids


async def pause(dice: random.Random, most: int = 12) -> None:
    for _ in range(dice.randint(0, most)):
        await asyncio.sleep(0)


def tools_of(dice: random.Random) -> list[Any]:
    @tool
    async def slow() -> str:
        """Take a while."""
        await pause(dice)
        return "slow"

    @tool(effect="read")
    async def quick() -> str:
        """Take no time."""
        return "quick"

    @tool(effect="idempotent")
    def block() -> str:
        """Run in a thread."""
        return "block"

    return [slow, quick, block]


async def storm(loop: StatefulAgentLoop, dice: random.Random, sids: list[str], *, hits_everything: bool) -> int:
    """Begin turns, and cancel at random; return how many were hit before their end.

    `hits_everything` cancels at one moment every task that there is, as the end of an event loop does.
    """
    hits = cancellations = 0
    while cancellations < CANCELLATIONS:
        turns = [asyncio.create_task(_turn(loop, sid, resumes=dice.random() < 0.1)) for sid in dice.sample(sids, TURNS)]
        for _ in range(1 if hits_everything else TURNS):
            await pause(dice, 60 if hits_everything else 12)
            cancellations += await _cancel_one(loop, dice, sids, turns) if not hits_everything else _cancel_all()
        done, _ = await within_limit(asyncio.wait(turns))
        hits += sum(1 for one in done if one.cancelled() or one.result() is SendStatus.CANCELLED)
    return hits


async def _cancel_one(
    loop: StatefulAgentLoop, dice: random.Random, sids: list[str], turns: list[asyncio.Task[Any]]
) -> int:
    way = dice.randrange(3)
    if way == 0:
        await loop.cancel(dice.choice(sids))
    else:
        turn = dice.choice(turns)
        for _ in range(way):
            turn.cancel()
    return 1


def _cancel_all() -> int:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    return len(tasks)


async def _turn(loop: StatefulAgentLoop, sid: str, *, resumes: bool) -> SendStatus | str:
    try:
        begun = loop.resume(sid) if resumes else loop.send("go", session_id=sid)
        return (await begun).status
    except Exception as error:
        # A session without a send cannot be resumed; anything else is a finding.
        if getattr(error, "code", "") == "input.invalid" and "no send yet" in str(error):
            return "nothing to resume"
        raise


@pytest.mark.promise("cancel")
@pytest.mark.parametrize("hits_everything", [False, True], ids=["callers", "all tasks"])
async def test_a_thousand_cancellations_leave_every_session_ready(
    make_loop: MakeLoop, dsn: str, hits_everything: bool
) -> None:
    dice = random.Random(SEED)
    store = await open_store(f"sqlite:///{dsn}?synchronous=off" if not dsn.startswith("sqlite") else dsn)
    model = Wanderer(dice)
    loop = make_loop(llm=model, store=store, tool_registry=tools_of(dice))
    sids = [await loop.new_session() for _ in range(SESSIONS)]
    before = asyncio.all_tasks()
    hits = await storm(loop, dice, sids, hits_everything=hits_everything)
    assert hits > 100, "the storm has to hit something"
    assert model.inside == 0
    model.is_calm = True
    for sid in sids:
        assert await loop.get_pending(sid) == ()
        result = await within_limit(loop.send("plain", session_id=sid))
        assert (result.status, result.final_text) == (SendStatus.COMPLETED, "Fine.")
        assert (await loop.get_session(sid)).owner is None, "no lease is left behind"
    # A handle that knows nothing sees the same, and an open transaction would hold it up.
    cold = make_loop(llm=model, store=store)
    for sid in sids[:5]:
        assert (await within_limit(cold.send("plain", session_id=sid))).final_text == "Fine."
    await loop.aclose()
    assert asyncio.all_tasks() <= before
    await store.aclose()
