"""What a model itself gets wrong, end to end: ids, arguments, names, endings, usage; nothing runs by mistake."""

from __future__ import annotations

from typing import Any

import pytest

from power_loop import SendStatus, StatefulResult, TextPart, tool
from power_loop.core.context import texts
from tests.model_server import Answer, ModelServer, Request, ToolCall, calls, faults, refuse, say, think_and_say
from tests.model_server.script import Usage

from .stage import ANSWER_COST, USAGE, Stage, Stages, Way, cost, paying, playing

# A model's own id that one of the two providers would refuse to take back.
_UNPORTABLE = "call ü/1" + "x" * 60


def both(first: str | None, second: str | None, **options: Any) -> Answer:
    """An answer that pays twice, under these ids."""
    return calls(
        ToolCall("pay", {"to": "a"}, id=first, **options),
        ToolCall("pay", {"to": "b"}, id=second, **options),
        usage=USAGE,
    )


IDS: list[tuple[str, Answer]] = [
    ("missing", both(None, None)),
    ("empty", both("", "")),
    ("doubled", both("call_1", "call_1")),
    ("unportable", both(_UNPORTABLE, "call 2")),
    ("a NUL", both("call\0a", "call\0b")),
    ("one missing", both(None, "call_2")),
]


@pytest.mark.parametrize("answer", [row[1] for row in IDS], ids=[row[0] for row in IDS])
@pytest.mark.promise("no-fault-bricks", "valid-transcript")
async def test_calls_with_bad_ids_run_once_each_and_are_answered(stages: Stages, way: Way, answer: Answer) -> None:
    # The same ids come again in a later round, as small servers count from 1 in every reply.
    async with playing(stages, way, answer, answer, say("Done.", usage=USAGE)) as stage:
        result = await stage.send("Pay A and B, twice.")
        assert (result.status, result.final_text) == (SendStatus.COMPLETED, "Done.")
        assert sorted(stage.paid) == ["a", "a", "b", "b"]
        ids = [part.id for message in await stage.log() for part in message.tool_calls]
        answered = [message.tool_result.call_id for message in await stage.log() if message.tool_result is not None]
        assert len(set(ids)) == 4
        assert sorted(answered) == sorted(ids)


WRONG_ARGUMENTS: list[tuple[str, str]] = [
    ("nothing", ""),
    ("half an object", '{"to": "é'),
    ("no object", '["éva"]'),
    ("text", '"éva"'),
    ("another type", '{"to": 5}'),
    ("another name", '{"too": "éva"}'),
    ("one too many", '{"to": "éva", "amount": 5}'),
    ("null", "null"),
    ("a number without end", '{"to": NaN}'),
    ("two objects", '{"to": "a"}{"to": "b"}'),
    ("a name twice", '{"to": "a", "to": "b"}'),
    ("words", "pay éva please"),
    ("a NUL", "\0"),
    ("too deep", '{"to": ' + "[" * 500),
]


@pytest.mark.parametrize("arguments", [row[1] for row in WRONG_ARGUMENTS], ids=[row[0] for row in WRONG_ARGUMENTS])
@pytest.mark.promise("no-fault-bricks", "arguments-checked")
async def test_a_call_with_wrong_arguments_does_not_run_and_the_model_mends_it(
    stages: Stages, way: Way, arguments: str
) -> None:
    async with playing(stages, way, paying(arguments), paying(), say("Done.", usage=USAGE)) as stage:
        result = await stage.send("Pay Éva.")
        assert (result.status, result.final_text, stage.paid) == (SendStatus.COMPLETED, "Done.", ["éva"])
        [(wrong, is_error), right] = await stage.results()
        assert (is_error, right) == (True, ("paid éva", False))
        assert wrong.startswith("'pay' was not run, because its arguments are not valid")


@pytest.mark.parametrize("name", ["refund", "delete everything; now", "päy", "x" * 200, "Pay", "pay\0", "a.b/c"])
@pytest.mark.promise("no-fault-bricks")
async def test_a_call_of_a_tool_that_does_not_exist_is_answered(stages: Stages, way: Way, name: str) -> None:
    wrong = calls(ToolCall(name, {"to": "éva"}), usage=USAGE)
    async with playing(stages, way, wrong, say("Sorry.", usage=USAGE)) as stage:
        result = await stage.send("Pay Éva.")
        assert (result.status, result.final_text, stage.paid) == (SendStatus.COMPLETED, "Sorry.", [])
        [(text, is_error)] = await stage.results()
        assert is_error
        assert text.startswith("This call was not run")


LAYOUTS: list[tuple[str, dict[str, Any]]] = [
    ("no place in the stream", {"omit_index": True}),
    ("the same place for both", {"index": 0}),
    ("name and id in every piece", {"repeat_name": True, "repeat_id": True}),
]


@pytest.mark.parametrize("layout", [row[1] for row in LAYOUTS], ids=[row[0] for row in LAYOUTS])
async def test_calls_that_compatible_servers_stream_oddly_are_told_apart(
    stages: Stages, openai_way: Way, layout: dict[str, Any]
) -> None:
    answer = both("call_1", "call_2", **layout)
    async with playing(stages, openai_way, answer, say("Done.", usage=USAGE)) as stage:
        await stage.send("Pay A and B.")
        assert sorted(stage.paid) == ["a", "b"]


@pytest.mark.parametrize("finish", ["length", "content_filter", "refusal"])
@pytest.mark.promise("no-fault-bricks")
async def test_a_call_in_a_reply_that_was_cut_short_does_not_run(stages: Stages, way: Way, finish: str) -> None:
    """Not even one whose arguments happen to be whole: what the model meant to do beside it is not known."""
    for arguments in ('{"to": "éva"}', '{"to": "é'):
        cut = paying(arguments, finish=finish)
        async with playing(stages, way, cut, say("Sorry.", usage=USAGE)) as stage:
            result = await stage.send("Pay Éva.")
            assert (result.final_text, stage.paid) == ("Sorry.", [])
            assert await stage.results() == [(texts.TRUNCATED_CALL, True)]


async def test_calls_run_whatever_word_the_reply_ends_with(stages: Stages, way: Way) -> None:
    async with playing(stages, way, paying(finish="stop"), say("Done.", usage=USAGE)) as stage:
        await stage.send("Pay Éva.")
        assert stage.paid == ["éva"]


ENDINGS: list[tuple[str, Answer, SendStatus, str]] = [
    ("cut", say("As I was", finish="length", usage=USAGE), SendStatus.TRUNCATED, "As I was"),
    ("nothing", say(usage=USAGE), SendStatus.EMPTY, ""),
    ("blank", say(" \n ", usage=USAGE), SendStatus.EMPTY, " \n "),
    ("thoughts only", Answer(think_and_say("Hmm.").parts[:1], usage=USAGE), SendStatus.EMPTY, ""),
]


@pytest.mark.parametrize(("answer", "status", "text"), [row[1:] for row in ENDINGS], ids=[row[0] for row in ENDINGS])
@pytest.mark.promise("no-fault-bricks")
async def test_an_answer_that_is_none_has_a_status_of_its_own(
    stages: Stages, way: Way, answer: Answer, status: SendStatus, text: str
) -> None:
    async with playing(stages, way, answer) as stage:
        result = await stage.send("Hello?")
        assert (result.status, result.final_text, cost(result)) == (status, text, ANSWER_COST)


@pytest.mark.promise("no-fault-bricks")
async def test_a_refusal_has_a_status_of_its_own(stages: Stages, way: Way) -> None:
    async with playing(stages, way, refuse("I will ", "not.")) as stage:
        assert (await stage.send("Hello?")).status is SendStatus.REFUSED


@pytest.mark.promise("no-fault-bricks")
async def test_a_withheld_answer_has_a_status_of_its_own(stages: Stages, openai_way: Way) -> None:
    async with playing(stages, openai_way, say("", finish="content_filter")) as stage:
        assert (await stage.send("Hello?")).status is SendStatus.CONTENT_FILTERED


COUNTS: list[tuple[str, Usage | None]] = [
    ("none", None),
    ("nonsense", Usage(1, 1, raw={"prompt_tokens": "many", "input_tokens": [], "output_tokens": -1})),
    (
        "negative",
        Usage(1, 1, raw={"prompt_tokens": -5, "completion_tokens": -1, "input_tokens": -5, "output_tokens": -1}),
    ),
]


@pytest.mark.parametrize("usage", [row[1] for row in COUNTS], ids=[row[0] for row in COUNTS])
async def test_usage_that_was_not_told_is_estimated_and_says_so(stages: Stages, way: Way, usage: Usage | None) -> None:
    async with playing(stages, way, say("Hello.", usage=USAGE), say("Hello again.", usage=usage)) as stage:
        first, second = await stage.send("Hello?"), await stage.send("Hello?")
        assert (first.usage.is_estimated, cost(first)) == (False, ANSWER_COST)
        assert second.usage.is_estimated
        # Never the count of another call.
        assert cost(second) != ANSWER_COST
        assert min(cost(second)) > 0


NULLS = "a\0b\ud800c"


@pytest.mark.promise("no-fault-bricks", "bad-input")
async def test_characters_that_no_database_takes_are_replaced_everywhere_alike(stages: Stages, way: Way) -> None:
    """In a model's text, in arguments, and so in what the tool gives back: NUL and half a character."""
    spoiled = paying('{"to": "x\\u0000y\\ud800z"}')
    async with playing(stages, way, spoiled, say(NULLS, usage=USAGE)) as stage:
        result = await stage.send(f"Pay {NULLS}.")
        assert result.final_text == "a\ufffdb\ufffdc"
        log = await stage.log()
        assert log[0].text == "Pay a\ufffdb\ufffdc."
        assert log[-1].text == result.final_text
        [(text, is_error)] = await stage.results()
        assert (text, is_error) == ("paid x\ufffdy\ufffdz", False)


_TEN_MEGABYTES = "é" * (5 * 1024 * 1024)


@pytest.mark.promise("bad-input", "big-results")
async def test_a_result_of_ten_megabytes_is_kept_whole_and_shown_in_part(stages: Stages, way: Way) -> None:
    @tool(effect="read")
    def dump() -> str:
        """Give everything."""
        return _TEN_MEGABYTES

    script = (calls(ToolCall("dump", {}), usage=USAGE), say("Done.", usage=USAGE))
    async with playing(stages, way, *script) as stage:
        result = await stage.send("Dump.", tools=[dump])
        assert (result.status, result.final_text) == (SendStatus.COMPLETED, "Done.")
        [call] = (await stage.log())[1].tool_calls
        whole = await stage.loop.get_tool_result(stage.session_id, call.id)
        assert whole == (TextPart(_TEN_MEGABYTES),)
        [(shown, is_error)] = await stage.results()
        assert not is_error
        assert len(shown) < 40_000
        assert len(stage.server.requests[1].raw) < 200_000


@pytest.mark.promise("bad-input")
async def test_arguments_of_ten_megabytes_do_not_run_and_the_model_is_told_what_to_do(stages: Stages, way: Way) -> None:
    arguments = '{"to": "' + _TEN_MEGABYTES + '"}'
    script = (paying(arguments), paying(), say("Done.", usage=USAGE))
    async with playing(stages, way, *script, context_window_tokens=100_000_000) as stage:
        result = await stage.send("Pay everybody.")
        assert (result.status, result.final_text, stage.paid) == (SendStatus.COMPLETED, "Done.", ["éva"])
        [call] = (await stage.log())[1].tool_calls
        assert call.arguments == arguments
        [(told, is_error), _] = await stage.results()
        assert is_error
        assert "send less at a time" in told


class Narrow:
    """Is a provider whose context window is far smaller than anybody said."""

    def __init__(self, limit_bytes: int, *answers: Answer) -> None:
        self.limit_bytes = limit_bytes
        self.answers = list(answers)

    def __call__(self, request: Request) -> Any:
        """Refuse what is too long."""
        return faults.context_overflow() if len(request.raw) > self.limit_bytes else self.answers.pop(0)


@pytest.mark.promise("no-fault-bricks")
async def test_a_result_that_no_prompt_can_hold_ends_its_send_and_not_the_session(stages: Stages, way: Way) -> None:
    script = Narrow(4_000, paying('{"to": "' + "a " * 1_500 + '"}'), say("Then seven."))
    async with ModelServer([script] * 20) as server:
        stage: Stage = stages.stage(way, server)
        stage.session_id = await stage.loop.new_session(system_prompt="Be brief.")
        with pytest.raises(Exception, match="context") as caught:
            await stage.send("Pay everybody.")
        assert getattr(caught.value, "code", None) == "llm.context_overflow"
        result: StatefulResult = await stage.send("And then?")
        assert (result.status, result.final_text) == (SendStatus.COMPLETED, "Then seven.")
        assert [one for request in server.requests for one in request.problems] == []
