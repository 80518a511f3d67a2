"""Every fault of an answer's delivery, end to end: nothing changes or it is asked for again; no half call runs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from power_loop import SendStatus
from power_loop.core.context import texts
from power_loop.events import LLMCallFinished, StreamReset, TextDelta, ToolCallDelta
from tests.agent.parts import pass_time, until, within_limit
from tests.model_server import Fault, faults, say
from tests.model_server.harmless import HARMLESS, HARMLESS_ON_OPENAI

from .stage import ANSWER_COST, USAGE, Stages, Way, cost, paying, playing

TEXT = ("Hél", "lo ", "thére")
WHOLE_TEXT = "Héllo thére"

#: By fault: what it is made of, the code of the error that it is, and whether a piece was heard before it (None: it may
#: be, because a reset may throw away what was sent before it).
HARMFUL: list[tuple[str, Fault, str, bool | None]] = [
    ("cut_after", faults.cut_after(0), "llm.connection", False),
    ("cut_after", faults.cut_after(1), "llm.connection", True),
    ("cut_after", faults.cut_after(2), "llm.connection", True),
    ("cut_after", faults.cut_after(3, reset=True), "llm.connection", None),
    ("cut_before_finish", faults.cut_before_finish(), "llm.connection", True),
    ("end_before_finish", faults.end_before_finish(), "llm.connection", True),
    ("cut_at_byte", faults.cut_at_byte(40), "llm.connection", False),
    ("cut_inside_utf8", faults.cut_inside_utf8(), "llm.connection", False),
    ("bad_json_line", faults.bad_json_line(), "llm.protocol", True),
    ("data_is_no_object", faults.data_is_no_object(), "llm.protocol", True),
    ("data_is_no_object", faults.data_is_no_object(value=[1]), "llm.protocol", True),
    ("invalid_utf8", faults.invalid_utf8(), "llm.protocol", True),
    ("error_event", faults.error_event(kind="overloaded_error"), "llm.overloaded", True),
    ("error_event", faults.error_event(kind="rate_limit_error", end=False), "llm.rate_limited", True),
]
HARMFUL_ON_OPENAI: list[tuple[str, Fault, str, bool | None]] = [
    ("never_any_choice", faults.never_any_choice(), "llm.protocol", False),
]
# These differ from both tables.
OTHERS = {"hang_after", "endless", "two_finish_reasons", "missing_data_prefix"}


def each(rows: list[Any], names: str, columns: int) -> Any:
    """Run a test for each row of a table."""
    ids = [f"{number}-{row[0]}" for number, row in enumerate(rows)]
    return pytest.mark.parametrize(names, [row[1] if columns == 1 else row[1 : 1 + columns] for row in rows], ids=ids)


async def check_harmless(stages: Stages, way: Way, fault: Fault) -> None:
    """A text and a call with an oddity are what they are without it."""
    script = (say(*TEXT, usage=USAGE, faults=(fault,)), paying(faults=(fault,)), say("Done.", usage=USAGE))
    async with playing(stages, way, *script) as stage:
        first = await stage.send("Hello?")
        assert (first.status, first.final_text, cost(first)) == (SendStatus.COMPLETED, WHOLE_TEXT, ANSWER_COST)
        assert "".join(one.text for one in stage.ears.of(TextDelta)) == WHOLE_TEXT
        second = await stage.send("Pay Éva.")
        assert (second.status, second.final_text) == (SendStatus.COMPLETED, "Done.")
        assert stage.paid == ["éva"]
        assert cost(second) == (2 * ANSWER_COST[0], 2 * ANSWER_COST[1])
        assert [one.usage.is_estimated for one in (first, second)] == [False, False]
        assert stage.failures == []


@each(HARMLESS, "fault", 1)
@pytest.mark.promise("no-fault-bricks", "two-carriers")
async def test_a_harmless_oddity_changes_nothing(stages: Stages, way: Way, fault: Fault) -> None:
    await check_harmless(stages, way, fault)


@each(HARMLESS_ON_OPENAI, "fault", 1)
async def test_a_harmless_oddity_of_compatible_servers_changes_nothing(
    stages: Stages, openai_way: Way, fault: Fault
) -> None:
    await check_harmless(stages, openai_way, fault)


async def check_harmful(stages: Stages, way: Way, fault: Fault, code: str, *, is_heard: bool | None) -> None:
    """A spoiled text and a spoiled call are tried again; what was heard of them is taken back."""
    script = (
        say(*TEXT, usage=USAGE, faults=(fault,)),
        say("Second try.", usage=USAGE),
        paying(faults=(fault,)),
        paying(),
        say("Done.", usage=USAGE),
    )
    async with playing(stages, way, *script) as stage:
        first = await stage.send("Hello?")
        assert (first.status, first.final_text) == (SendStatus.COMPLETED, "Second try.")
        assert stage.failures == [(code, True)]
        assert [one.attempt for one in stage.ears.of(LLMCallFinished)] == [2]
        kinds = [
            type(event.payload) for event in stage.ears.events if isinstance(event.payload, (TextDelta, StreamReset))
        ]
        if StreamReset in kinds:
            # What streamed before the reset is void; all that streams behind it is the answer.
            assert TextDelta in kinds[kinds.index(StreamReset) :]
            assert kinds.count(StreamReset) == 1
        else:
            assert kinds.count(TextDelta) == 1
        assert is_heard in (None, StreamReset in kinds)
        # Nobody reported what the spoiled attempt cost.
        assert cost(first) == ANSWER_COST
        second = await stage.send("Pay Éva.")
        assert (second.status, second.final_text) == (SendStatus.COMPLETED, "Done.")
        assert stage.paid == ["éva"], "a call ran from a reply that did not come whole"
        assert stage.failures == [(code, True)] * 2
        assert cost(second) == (2 * ANSWER_COST[0], 2 * ANSWER_COST[1])
        assert await stage.roles() == ["user", "assistant", "user", "assistant", "tool", "assistant"]


@each(HARMFUL, "fault, code, is_heard", 3)
@pytest.mark.promise("no-fault-bricks", "two-carriers", "retry")
async def test_a_spoiled_answer_is_tried_again(
    stages: Stages, way: Way, fault: Fault, code: str, is_heard: bool | None
) -> None:
    await check_harmful(stages, way, fault, code, is_heard=is_heard)


@each(HARMFUL_ON_OPENAI, "fault, code, is_heard", 3)
async def test_a_spoiled_answer_of_compatible_servers_is_tried_again(
    stages: Stages, openai_way: Way, fault: Fault, code: str, is_heard: bool | None
) -> None:
    await check_harmful(stages, openai_way, fault, code, is_heard=is_heard)


async def test_silence_within_an_answer_is_tried_again(stages: Stages, way: Way) -> None:
    fault = faults.hang_after(1)
    script = (paying(faults=(fault,)), paying(), say("Done.", usage=USAGE))
    async with playing(stages, way, *script, idle_timeout_s=30) as stage:
        sending = asyncio.create_task(stage.send("Pay Éva."))
        await within_limit(until(lambda: bool(stage.ears.of(ToolCallDelta))))
        await stage.server.wait_for_hang()
        pass_time(30)
        result = await sending
        assert (result.status, stage.paid) == (SendStatus.COMPLETED, ["éva"])
        assert stage.failures == [("llm.timeout", True)]
        await stage.server.wait_until(lambda: stage.server.requests[0].client_left)


async def test_an_answer_without_end_is_cut_off_and_tried_again(stages: Stages, way: Way) -> None:
    fault = faults.endless("more " * 1000)
    async with playing(stages, way, say("x", faults=(fault,)), say("Enough."), max_reply_bytes=1 << 18) as stage:
        result = await stage.send("Hello?")
        assert (result.status, result.final_text) == (SendStatus.COMPLETED, "Enough.")
        assert stage.failures == [("llm.protocol", True)]
        assert len(stage.ears.of(StreamReset)) == 1
        await stage.server.wait_until(lambda: stage.server.requests[0].client_left)


async def test_a_call_that_lost_a_piece_on_its_way_does_not_run(stages: Stages, way: Way) -> None:
    """An event without its `data:` is no part of the stream, which ends well, so that nobody sees what is missing."""
    script = (paying(faults=(faults.missing_data_prefix(),)), say("Sorry.", usage=USAGE))
    async with playing(stages, way, *script) as stage:
        result = await stage.send("Pay Éva.")
        assert (result.status, result.final_text, stage.paid) == (SendStatus.COMPLETED, "Sorry.", [])
        [(text, is_error)] = await stage.results()
        assert is_error
        assert text.startswith("'pay' was not run, because its arguments are not valid")


async def test_of_two_finish_reasons_the_careful_one_counts(stages: Stages, way: Way) -> None:
    script = (paying(faults=(faults.two_finish_reasons("length"),)), say("Sorry.", usage=USAGE))
    async with playing(stages, way, *script) as stage:
        result = await stage.send("Pay Éva.")
        assert (result.final_text, stage.paid) == ("Sorry.", [])
        assert await stage.results() == [(texts.TRUNCATED_CALL, True)]


@pytest.mark.parametrize("deltas", range(4))
@pytest.mark.promise("no-fault-bricks", "cancel")
async def test_a_stream_that_is_left_in_the_middle_leaves_a_session_that_goes_on(
    stages: Stages, way: Way, deltas: int
) -> None:
    async with playing(stages, way, say(*TEXT, faults=(faults.hang_after(deltas),))) as stage:
        async with stage.loop.stream("Hello?", session_id=stage.session_id) as events:
            heard = 0
            async for event in events:
                heard += isinstance(event.payload, TextDelta)
                if heard == deltas and event.type in ("llm.started", "delta.text"):
                    await stage.server.wait_for_hang()
                    break
        assert events.result.status is SendStatus.CANCELLED
        await stage.server.wait_until(lambda: stage.server.requests[0].client_left)
        assert await stage.roles() == ["user"]


def test_every_fault_of_the_model_server_has_its_test() -> None:
    tables = [*HARMLESS, *HARMLESS_ON_OPENAI, *HARMFUL, *HARMFUL_ON_OPENAI]
    assert {row[0] for row in tables} | OTHERS == faults.FAULTS.keys()
