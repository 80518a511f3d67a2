"""Each failure and each fault, as the official SDKs see it, and on the wire where they see nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from . import Failure, ModelServer, ScriptError, ToolCall, calls, faults, say
from .raw_client import RawClient, RawResponse

openai = pytest.importorskip("openai")
anthropic = pytest.importorskip("anthropic")

Client = Callable[[ModelServer], Any]
QUESTION = [{"role": "user", "content": "Say something."}]
BODY = {"model": "gpt-test", "messages": QUESTION, "stream": True}
WIRES = ["openai", "anthropic"]
TEXT = ("Hél", "lo ", "thére")


@pytest.fixture
def ask(openai_client: Client, anthropic_client: Client) -> Callable[..., Any]:
    """Asks through the SDK of a wire; gives (text, finish words), or what was raised with the text so far on it."""

    async def ask_openai(server: ModelServer, heard: list[str]) -> list[str]:
        finishes = []
        stream = await openai_client(server).chat.completions.create(
            model="gpt-test", messages=QUESTION, stream=True, stream_options={"include_usage": True}
        )
        async for chunk in stream:
            for choice in chunk.choices:
                heard.append(choice.delta.content or "")
                finishes += [choice.finish_reason] if choice.finish_reason else []
        return finishes

    async def ask_anthropic(server: ModelServer, heard: list[str]) -> list[str]:
        finishes = []
        stream = await anthropic_client(server).messages.create(
            model="claude-test", max_tokens=9, messages=QUESTION, stream=True
        )
        async for event in stream:
            if event.type == "content_block_delta":
                heard.append(getattr(event.delta, "text", "") or "")
            elif event.type == "message_delta":
                finishes.append(event.delta.stop_reason)
        return finishes

    async def run(wire: str, server: ModelServer) -> tuple[str, list[str] | Exception]:
        heard: list[str] = []
        try:
            outcome: Any = await (ask_openai if wire == "openai" else ask_anthropic)(server, heard)
        except Exception as exc:
            outcome = exc
        return "".join(heard), outcome

    return run


STATUSES: list[tuple[Failure, int, str, str]] = [
    (faults.rate_limited(), 429, "RateLimitError", "rate_limit_error"),
    (faults.insufficient_quota(), 429, "RateLimitError", "rate_limit_error"),
    (faults.invalid_request(), 400, "BadRequestError", "invalid_request_error"),
    (faults.context_overflow(), 400, "BadRequestError", "invalid_request_error"),
    (faults.low_balance(), 400, "BadRequestError", "invalid_request_error"),
    (faults.unauthorized(), 401, "AuthenticationError", "authentication_error"),
    (faults.payment_required(), 402, "APIStatusError", "billing_error"),
    (faults.forbidden(), 403, "PermissionDeniedError", "permission_error"),
    (faults.not_found(), 404, "NotFoundError", "not_found_error"),
    (faults.request_timeout(), 408, "APIStatusError", "timeout_error"),
    (faults.conflict(), 409, "ConflictError", "api_error"),
    (faults.too_large(), 413, "APIStatusError", "request_too_large"),
    (faults.unprocessable(), 422, "UnprocessableEntityError", "invalid_request_error"),
    (faults.server_error(), 500, "InternalServerError", "api_error"),
    (faults.bad_gateway(), 502, "InternalServerError", ""),
    (faults.unavailable(), 503, "InternalServerError", "api_error"),
    (faults.gateway_timeout(), 504, "InternalServerError", "timeout_error"),
    (faults.overloaded(), 529, "InternalServerError", "overloaded_error"),
    (faults.huge_error_body(1 << 20), 500, "InternalServerError", ""),
    (faults.compressed_bomb(1 << 22), 500, "InternalServerError", ""),
]


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(("failure", "status", "error", "kind"), STATUSES)
async def test_a_status_is_the_sdks_error_with_the_providers_type(
    ask: Any, wire: str, failure: Failure, status: int, error: str, kind: str
) -> None:
    async with ModelServer([failure]) as server:
        _, outcome = await ask(wire, server)
    sdk = openai if wire == "openai" else anthropic
    assert isinstance(outcome, getattr(sdk, error))
    assert outcome.status_code == status
    assert outcome.response.headers["x-request-id" if wire == "openai" else "request-id"].startswith("req_")
    if kind and wire == "anthropic":
        assert outcome.body["error"]["type"] == kind


async def test_openai_error_codes_tell_quota_from_rate_and_overflow_from_other_400s(ask: Any) -> None:
    failures = [faults.insufficient_quota(), faults.rate_limited(), faults.context_overflow(), faults.not_found()]
    async with ModelServer(failures) as server:
        codes = [(await ask("openai", server))[1].code for _ in failures]
    assert codes == ["insufficient_quota", "rate_limit_exceeded", "context_length_exceeded", "model_not_found"]


@pytest.mark.parametrize("value", ["2", 0.25, -3, 10**9, "soon", "", faults.http_date(1_795_000_000)])
async def test_retry_after_is_sent_as_written(value: float | str) -> None:
    async with ModelServer([faults.rate_limited(value)]) as server:
        assert (await post(server)).headers["retry-after"] == str(value)


async def test_the_other_retry_headers_are_sent_as_written() -> None:
    async with ModelServer(
        [faults.rate_limited(retry_after_ms=120, should_retry=False), faults.server_error(should_retry=True)]
    ) as server:
        limited, failed = await post(server), await post(server)
    assert (limited.headers["retry-after-ms"], limited.headers["x-should-retry"]) == ("120", "false")
    assert "retry-after" not in limited.headers
    assert failed.headers["x-should-retry"] == "true"


async def test_the_sdk_takes_the_retry_headers_for_real() -> None:
    script = [faults.rate_limited(retry_after_ms=1), faults.server_error(should_retry=False)]
    async with ModelServer(script) as server:
        client = openai.AsyncOpenAI(base_url=server.base_url, api_key="k", max_retries=5)
        with pytest.raises(openai.InternalServerError):
            await client.chat.completions.create(model="gpt-test", messages=QUESTION)
        await client.close()
    assert len(server.requests) == 2


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("failure", ["closed_before_headers", "reset_before_headers", "closed_after_headers"])
async def test_a_connection_that_ends_early_is_an_error(ask: Any, wire: str, failure: str) -> None:
    async with ModelServer([faults.FAILURES[failure]()]) as server:
        text, outcome = await ask(wire, server)
        await server.wait_for_open_connections(0)
    assert text == ""
    assert isinstance(outcome, Exception)


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("failure", ["ok_with_error_body", "ok_with_html", "ok_with_nothing"])
async def test_the_sdks_take_a_200_that_is_no_stream_for_an_empty_answer(ask: Any, wire: str, failure: str) -> None:
    async with ModelServer([faults.FAILURES[failure]()]) as server:
        assert await ask(wire, server) == ("", [])


async def test_an_error_body_with_status_200_has_the_providers_shape() -> None:
    async with ModelServer([faults.ok_with_error_body("Busy.")]) as server:
        reply = await post(server)
    assert reply.status == 200
    assert json.loads(reply.body)["error"]["message"] == "Busy."


@pytest.mark.parametrize("wire", WIRES)
async def test_a_redirect_leads_the_sdks_to_the_other_address(ask: Any, wire: str) -> None:
    path = "/v1/chat/completions" if wire == "openai" else "/v1/messages"
    async with (
        ModelServer([say("from elsewhere")]) as other,
        ModelServer([faults.redirect(other.url + path)]) as server,
    ):
        text, _ = await ask(wire, server)
        assert (text, len(other.requests)) == ("from elsewhere", 1)


async def test_a_huge_error_body_is_made_while_it_is_read() -> None:
    async with ModelServer([faults.huge_error_body()]) as server:
        async with RawClient(server.port) as client:
            client.send("/v1/chat/completions", json.dumps(BODY).encode())
            read = await client.reader.readexactly(1 << 20)
        await server.wait_for_open_connections(0)
    assert read.count(b"x") > 1_000_000
    assert server.requests[0].client_left


@pytest.mark.parametrize("wire", WIRES)
async def test_a_hang_lasts_until_the_test_lets_go(ask: Any, wire: str) -> None:
    async with ModelServer([faults.hang()]) as server:
        asking = asyncio.create_task(ask(wire, server))
        await server.wait_for_hang()
        assert not asking.done()
        server.release()
        _, outcome = await asking
    assert isinstance(outcome, Exception)


@pytest.mark.parametrize("wire", WIRES)
async def test_a_stream_that_hangs_goes_on_when_its_gate_opens(ask: Any, wire: str) -> None:
    async with ModelServer([say(*TEXT, faults=(faults.hang_after(1, gate="a"),))]) as server:
        asking = asyncio.create_task(ask(wire, server))
        await server.wait_for_hang()
        server.release("b")
        assert server.hanging == ["a"]
        server.release("a")
        text, finishes = await asking
    assert (text, len(finishes)) == ("".join(TEXT), 1)


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(
    ("fault", "heard"),
    [
        (faults.cut_after(0), ""),
        (faults.cut_after(2), "Héllo "),
        (faults.cut_after(3), "Héllo thére"),
        (faults.cut_before_finish(), "Héllo thére"),
        (faults.cut_before_done(), "Héllo thére"),
        (faults.cut_inside_utf8(), ""),
    ],
)
async def test_a_cut_stream_raises_after_what_had_arrived(ask: Any, wire: str, fault: Any, heard: str) -> None:
    async with ModelServer([say(*TEXT, faults=(fault,))]) as server:
        text, outcome = await ask(wire, server)
    assert text == heard
    assert isinstance(outcome, Exception)


HARMLESS = [
    faults.rechunk(1),
    faults.rechunk(7),
    faults.coalesced(),
    faults.bom(),
    faults.line_ends("crlf"),
    faults.line_ends("cr"),
    faults.line_ends("mixed"),
    faults.comments(),
    faults.ids_and_retry(),
    faults.no_space(),
    faults.multiline_data(),
    faults.unknown_event(),
    faults.unknown_delta(),
    faults.ping(),
    faults.missing_done(),
    faults.drip(0.0),
    faults.delayed(0.0),
    faults.header("x-extra", "1"),
]


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("fault", HARMLESS, ids=lambda fault: fault.__qualname__.split(".")[0])
async def test_an_odd_but_whole_stream_is_read_whole(ask: Any, wire: str, fault: Any) -> None:
    async with ModelServer([say(*TEXT, faults=(fault,))]) as server:
        text, finishes = await ask(wire, server)
    assert (text, finishes) == ("".join(TEXT), ["stop" if wire == "openai" else "end_turn"])


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("fault", ["bad_json_line", "data_is_no_object", "invalid_utf8"])
async def test_garbage_in_a_stream_raises_in_the_sdk(ask: Any, wire: str, fault: str) -> None:
    async with ModelServer([say(*TEXT, faults=(faults.FAULTS[fault](),))]) as server:
        text, outcome = await ask(wire, server)
    assert text == TEXT[0]
    assert isinstance(outcome, Exception)


@pytest.mark.parametrize("wire", WIRES)
async def test_an_event_without_its_prefix_is_lost(ask: Any, wire: str) -> None:
    async with ModelServer([say(*TEXT, faults=(faults.missing_data_prefix(1),))]) as server:
        text, _ = await ask(wire, server)
    assert text == "Hélthére"


@pytest.mark.parametrize("wire", WIRES)
async def test_a_stream_may_end_properly_without_any_finish(ask: Any, wire: str) -> None:
    async with ModelServer([say(*TEXT, faults=(faults.end_before_finish(),))]) as server:
        assert await ask(wire, server) == ("".join(TEXT), [])


async def test_the_error_event_of_each_wire_is_raised_by_its_sdk(ask: Any) -> None:
    answer = say(*TEXT, faults=(faults.error_event(2),))
    async with ModelServer([answer, answer]) as server:
        text, error = await ask("openai", server)
        text_there, error_there = await ask("anthropic", server)
    assert (text, text_there) == ("Héllo ", "Héllo ")
    assert isinstance(error, openai.APIError)
    assert error.body["type"] == "server_error"
    assert isinstance(error_there, anthropic.APIStatusError)
    assert error_there.status_code == 200
    assert error_there.body["error"]["type"] == "overloaded_error"


@pytest.mark.parametrize(("wire", "words"), [("openai", ["stop", "length"]), ("anthropic", ["end_turn", "max_tokens"])])
async def test_two_finishes_arrive_both(ask: Any, wire: str, words: list[str]) -> None:
    async with ModelServer([say(*TEXT, faults=(faults.two_finish_reasons(),))]) as server:
        assert (await ask(wire, server))[1] == words


async def test_choices_can_be_empty_once_or_always(ask: Any) -> None:
    script = [say(*TEXT, faults=(faults.empty_choices(),)), say(*TEXT, faults=(faults.never_any_choice(),))]
    async with ModelServer([*script, script[1]]) as server:
        assert (await ask("openai", server))[0] == "".join(TEXT)
        assert await ask("openai", server) == ("", [])
        whole = await post(server, {**BODY, "stream": False})
    assert json.loads(whole.body)["choices"] == []


async def test_chunks_can_be_full_of_nulls_and_running_usage(ask: Any) -> None:
    chatty = say(*TEXT, faults=(faults.null_fields(), faults.usage_in_every_chunk()))
    async with ModelServer([chatty, chatty]) as server:
        assert (await ask("openai", server))[0] == "".join(TEXT)
        events = events_of(await post(server))
    assert all(event["usage"] for event in events)
    assert events[1]["choices"][0]["delta"]["tool_calls"] is None


@pytest.mark.parametrize("wire", WIRES)
async def test_an_endless_stream_ends_when_the_client_has_enough(
    openai_client: Client, anthropic_client: Client, wire: str
) -> None:
    async with ModelServer([say("first ", faults=(faults.endless("x"),))]) as server:
        if wire == "openai":
            stream = await openai_client(server).chat.completions.create(
                model="gpt-test", messages=QUESTION, stream=True
            )
        else:
            stream = await anthropic_client(server).messages.create(
                model="claude-test", max_tokens=9, messages=QUESTION, stream=True
            )
        seen = 0
        async for _ in stream:
            seen += 1
            if seen == 500:
                break
        await stream.close()
        await server.wait_for_open_connections(0)
    assert server.requests[0].client_left


async def test_tool_call_ids_and_indexes_are_as_odd_as_the_script_says() -> None:
    answer = calls(
        ToolCall("a", ("{", "}"), id=None),
        ToolCall("b", ("{", "}"), id="", index=5, repeat_name=True),
        ToolCall("c", ("{", "}"), id="x" * 10240, omit_index=True, repeat_id=True),
        ToolCall("d", '{"k": 1, "k": NaN'),
    )
    async with ModelServer([answer]) as server:
        events = events_of(await post(server))
    deltas = [event["choices"][0]["delta"]["tool_calls"][0] for event in events[1:-1]]
    first, second, third = deltas[:3], deltas[3:6], deltas[6:9]
    assert all("id" not in one for one in first)
    assert [one["index"] for one in second] == [5, 5, 5]
    assert [one["function"].get("name") for one in second] == ["b", "b", "b"]
    assert second[0]["id"] == ""
    assert all("index" not in one and len(one["id"]) == 10240 for one in third)
    assert "".join(one["function"]["arguments"] for one in deltas[9:]) == '{"k": 1, "k": NaN'


async def test_a_stream_can_be_cut_at_any_byte() -> None:
    async with ModelServer([say(*TEXT)]) as server:
        whole = (await post(server)).body
    for offset in (0, 1, len(whole) // 2, -1):
        async with ModelServer([say(*TEXT, faults=(faults.cut_at_byte(offset),))]) as server:
            reply = await post(server)
        assert not reply.complete
        assert len(reply.body) == (offset if offset >= 0 else len(whole) + offset)


async def test_a_whole_body_can_be_cut_too() -> None:
    async with ModelServer([say("Hello", faults=(faults.cut_at_byte(20),))]) as server:
        reply = await post(server, {**BODY, "stream": False})
    assert (reply.complete, len(reply.body)) == (False, 20)


async def test_the_final_chunk_can_be_missing_after_everything_else() -> None:
    async with ModelServer([say(*TEXT, faults=(faults.no_final_chunk(),))]) as server:
        reply = await post(server)
    assert reply.body.endswith(b"data: [DONE]\n\n")
    assert not reply.complete


async def test_chunk_sizes_are_exact() -> None:
    async with ModelServer(
        [say(*TEXT, faults=(faults.rechunk(7),)), say(*TEXT, faults=(faults.coalesced(),))]
    ) as server:
        small, one = await post(server), await post(server)
    assert {len(chunk) for chunk in small.chunks[:-1]} == {7}
    assert len(one.chunks) == 1


async def test_line_ends_are_exact() -> None:
    kinds = {"lf": b"\n\n", "crlf": b"\r\n\r\n", "cr": b"\r\r"}
    async with ModelServer([say("x", faults=(faults.line_ends(kind),)) for kind in kinds]) as server:
        for end in kinds.values():
            assert (await post(server)).body.endswith(b"data: [DONE]" + end)


@pytest.mark.parametrize(
    "fault", [faults.cut_after(9), faults.cut_inside_utf8(), faults.never_any_choice()], ids=["deltas", "utf8", "wire"]
)
async def test_a_fault_that_does_not_fit_its_answer_fails_the_test(fault: Any) -> None:
    body = json.dumps({"model": "claude-test", "max_tokens": 9, "messages": QUESTION, "stream": True}).encode()
    server = ModelServer([say("plain", faults=(fault,))])
    await server.start()
    async with RawClient(server.port) as client:
        client.send("/v1/messages", body, anthropic_version="2023-06-01")
        await client.reader.read()
    with pytest.raises(ScriptError):
        await server.__aexit__(None, None, None)


async def post(server: ModelServer, body: dict[str, Any] = BODY) -> RawResponse:
    """One request to the OpenAI wire over a raw connection."""
    async with RawClient(server.port) as client:
        return await client.post("/v1/chat/completions", json.dumps(body).encode())


def events_of(reply: RawResponse) -> list[dict[str, Any]]:
    """The JSON of a stream's events."""
    lines = reply.body.split(b"\n\n")
    return [json.loads(line[6:]) for line in lines if line.startswith(b"data: {")]
