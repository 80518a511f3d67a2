"""The server records what arrives, counts connections, lets a test wait, and runs where a test needs it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from . import ModelServer, ModelServerProcess, ScriptError, ThreadedModelServer, call, faults, say, steps_from_json
from .process import STOP_S
from .raw_client import RawClient

PATH = "/v1/chat/completions"
QUESTION = [{"role": "user", "content": "Say something."}]


def request_bytes(content: str = "Say something.", **fields: Any) -> bytes:
    """A small request."""
    return json.dumps({"model": "gpt-test", "messages": [{"role": "user", "content": content}], **fields}).encode()


async def test_requests_are_kept_whole_with_their_headers() -> None:
    body = request_bytes("Grüße", stream=True)
    async with ModelServer([say("Hi")]) as server, RawClient(server.port) as client:
        await client.post(PATH, body, authorization="Bearer k")
        request = await server.wait_for_requests(1)
    assert request.raw == body
    assert request.headers["authorization"] == "Bearer k"
    assert request.body["messages"][0]["content"] == "Grüße"
    assert (request.last_text, request.streaming, request.problems) == ("Grüße", True, [])
    assert (request.status, request.finished, request.client_left) == (200, True, False)


async def test_connections_are_kept_alive_and_counted() -> None:
    async with ModelServer([say("Hi")] * 4) as server:
        async with RawClient(server.port) as one, RawClient(server.port) as two:
            for client in (one, two, one):
                assert (await client.post(PATH, request_bytes())).complete
            assert (server.connections_open, server.connections_total) == (2, 2)
        await server.wait_for_open_connections(0)
        async with RawClient(server.port) as three:
            await three.post(PATH, request_bytes(), connection="close")
            assert await three.reader.read() == b""
        assert (server.connections_total, server.connections_peak) == (3, 2)
    assert [request.connection for request in server.requests] == [1, 2, 1, 3]


async def test_requests_sent_ahead_are_answered_in_order() -> None:
    async with ModelServer([say("one"), say("two")]) as server, RawClient(server.port) as client:
        client.send(PATH, request_bytes())
        client.send(PATH, request_bytes())
        texts = [json.loads((await client.read()).body)["choices"][0]["message"]["content"] for _ in range(2)]
    assert texts == ["one", "two"]


async def test_a_chunked_request_and_one_that_waits_for_100_are_read() -> None:
    body = request_bytes("x" * 300_000)
    async with ModelServer([say("Hi")] * 2) as server, RawClient(server.port) as client:
        client.writer.write(b"POST %b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" % PATH.encode())
        for start in range(0, len(body), 100_000):
            piece = body[start : start + 100_000]
            client.writer.write(b"%X;name=value\r\n%b\r\n" % (len(piece), piece))
            await client.writer.drain()
        client.writer.write(b"0\r\n\r\n")
        assert (await client.read()).status == 200
        head = b"POST %b HTTP/1.1\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n"
        client.writer.write(head % (PATH.encode(), len(body)))
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.writer.write(body)
        assert (await client.read()).status == 200
    assert [request.raw for request in server.requests] == [body, body]


async def test_health_models_and_unknown_addresses() -> None:
    async with ModelServer(models=("gpt-a", "claude-b")) as server, RawClient(server.port) as client:
        replies = []
        for path, headers in [("/health", ""), ("/v1/models", ""), ("/v1/models", "anthropic-version: 2023-06-01\r\n")]:
            client.writer.write(f"GET {path} HTTP/1.1\r\n{headers}\r\n".encode())
            replies.append(json.loads((await client.read()).body))
        unknown = await client.post("/v1/nothing", b"{}")
    assert replies[0] == {"status": "ok"}
    assert [model["id"] for model in replies[1]["data"]] == ["gpt-a", "claude-b"]
    assert (replies[1]["object"], replies[2]["has_more"]) == ("list", False)
    assert (unknown.status, json.loads(unknown.body)["error"]["message"]) == (404, "Invalid URL (POST /v1/nothing)")


async def test_a_client_that_leaves_in_the_middle_is_noted() -> None:
    async with ModelServer([say("a", "b", faults=(faults.hang_after(1),))]) as server:
        async with RawClient(server.port) as client:
            client.send(PATH, request_bytes(stream=True))
            await server.wait_for_hang()
        await server.wait_for_open_connections(0)
    assert server.requests[0].client_left
    assert not server.requests[0].finished
    assert server.hanging == []


async def test_waiting_for_what_never_comes_says_what_there_is() -> None:
    async with ModelServer() as server:
        with pytest.raises(TimeoutError, match="0 requests, 0 connections open"):
            await server.wait_for_requests(1, timeout_s=0.01)


async def test_a_script_at_its_end_is_a_400_and_fails_the_test() -> None:
    server = ModelServer([say("only")])
    await server.start()
    async with RawClient(server.port) as client:
        await client.post(PATH, request_bytes())
        reply = await client.post(PATH, request_bytes())
    assert reply.status == 400
    assert b"no answer left" in reply.body
    with pytest.raises(ScriptError, match="no answer left for request 2"):
        await server.__aexit__(None, None, None)


async def test_answers_can_be_added_and_awaited() -> None:
    async def slow(request: Any) -> Any:
        await asyncio.sleep(0)
        return say(f"number {request.number}")

    async with ModelServer([slow]) as server, RawClient(server.port) as client:
        server.extend(say("more"))
        texts = [(await client.post(PATH, request_bytes())).body for _ in range(2)]
    assert b"number 1" in texts[0]
    assert b"more" in texts[1]


async def test_stopping_ends_what_hangs() -> None:
    server = ModelServer([faults.hang(gate="never")])
    await server.start()
    async with RawClient(server.port) as client:
        client.send(PATH, request_bytes())
        await server.wait_for_hang()
        await server.stop()
        with contextlib.suppress(ConnectionResetError):
            assert await client.reader.read() == b""
    assert server.connections_open == 0


def test_the_threaded_server_serves_a_test_without_a_loop() -> None:
    openai = pytest.importorskip("openai")
    with ThreadedModelServer([say("Hello"), faults.hang()]) as server:
        with openai.OpenAI(base_url=server.base_url, api_key="k", max_retries=0) as client:
            answer = client.chat.completions.create(model="gpt-test", messages=QUESTION)
        assert answer.choices[0].message.content == "Hello"
        assert server.wait_for_requests(1).last_text == "Say something."
        server.wait_for_open_connections(0)
        assert server.answers_left == 1


SCRIPT = [
    "plain",
    {"text": ["a", "b"], "usage": None, "finish": "length"},
    {
        "reasoning": "hm",
        "calls": [{"name": "add", "arguments": {"a": 1}, "id": "call_1"}, {"name": "f", "arguments": ["{", "}"]}],
    },
    {"refusal": "No.", "usage": {"input_tokens": 3, "output_tokens": 1}},
    {"text": ["a", "b"], "faults": [{"name": "cut_after", "deltas": 1}, "bom"]},
    {"failure": "rate_limited", "retry_after": 2},
]


def test_the_json_form_is_the_script_it_says() -> None:
    plain, cut_short, with_calls, refusal, cut, limited = cast("list[Any]", steps_from_json(SCRIPT))
    assert plain == say("plain")
    assert cut_short == say("a", "b", usage=None, finish="length")
    assert [one.argument_text for one in with_calls.calls] == ['{"a": 1}', "{}"]
    assert with_calls.calls[0].id == "call_1"
    assert refusal.usage.input_tokens == 3
    assert len(cut.faults) == 2
    assert dict(limited.headers) == {"retry-after": "2"}


@pytest.mark.parametrize("script", [{}, [3], [{"failure": "nope"}], [{"text": "x", "colour": 1}], [{"faults": ["no"]}]])
def test_a_wrong_json_script_is_refused(script: Any) -> None:
    with pytest.raises(ScriptError):
        steps_from_json(script)


async def test_the_process_serves_logs_and_ends_with_its_input(tmp_path: Path) -> None:
    with ModelServerProcess(SCRIPT, folder=tmp_path, seed="s") as process:
        port = int(process.url.rsplit(":", 1)[1])
        async with RawClient(port) as client:
            assert b"plain" in (await client.post(PATH, request_bytes("log me"))).body
            cut = await client.post(PATH, request_bytes(stream=True))
            assert cut.complete
    names = [event["event"] for event in process.events()]
    assert names == ["listening", "open", "request", "answered", "request", "answered", "close"]
    logged = process.events("request")[0]
    assert logged["body"]["messages"][0]["content"] == "log me"
    assert (logged["number"], logged["problems"]) == (1, [])


def test_the_process_ends_on_sigterm() -> None:
    command = [sys.executable, "-m", "tests.model_server", "--bench"]
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"listening http://127.0.0.1:")
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(STOP_S) == 0


# --- the benchmark endpoint ---


async def bench_turn(client: RawClient, messages: list[dict[str, Any]]) -> dict[str, Any]:
    """One whole reply; the message is added to the messages."""
    body = json.dumps({"model": "m", "messages": messages}, separators=(",", ":")).encode()
    message = json.loads((await client.post(PATH, body)).body)["choices"][0]["message"]
    messages.append(message)
    return dict(message)


def results(message: dict[str, Any]) -> list[dict[str, Any]]:
    """A result for each call."""
    return [{"role": "tool", "tool_call_id": one["id"], "content": "ok"} for one in message["tool_calls"]]


async def test_the_bench_endpoint_asks_for_as_many_rounds_as_marked() -> None:
    async with ModelServer(bench=True) as server, RawClient(server.port) as client:
        messages: list[dict[str, Any]] = [{"role": "user", "content": "go [[rounds=3]] [[tool=tick]]"}]
        arguments, ids = [], set()
        while (message := await bench_turn(client, messages)).get("tool_calls"):
            messages += results(message)
            arguments.append(message["tool_calls"][0]["function"]["arguments"])
            ids.add(message["tool_calls"][0]["id"])
            assert message["tool_calls"][0]["function"]["name"] == "tick"
        assert message["content"] == "The answer is ready."
        messages.append({"role": "user", "content": "and now plain"})
        assert (await bench_turn(client, messages))["content"] == "The answer is ready."
    assert arguments == ['{"value":0}', '{"value":1}', '{"value":2}']
    assert len(ids) == 3
    assert server.served_at_once == 5


async def test_the_bench_endpoint_asks_for_parallel_calls_once() -> None:
    async with ModelServer(bench=True) as server, RawClient(server.port) as client:
        messages: list[dict[str, Any]] = [{"role": "user", "content": "go [[calls=10]]"}]
        message = await bench_turn(client, messages)
        messages += results(message)
        assert len({one["id"] for one in message["tool_calls"]}) == 10
        assert "tool_calls" not in await bench_turn(client, messages)


async def test_the_bench_endpoint_streams_deltas_only_for_the_turn_that_is_marked() -> None:
    async with ModelServer(bench=True) as server, RawClient(server.port) as client:
        marked = {"role": "user", "content": "go [[deltas=50]]"}
        first = await client.post(PATH, json.dumps({"stream": True, "messages": [marked]}).encode())
        later = [marked, {"role": "assistant", "content": "x"}, {"role": "user", "content": "next"}]
        second = await client.post(PATH, json.dumps({"stream": True, "messages": later}).encode())
    assert (first.body.count(b'"content":"word'), second.body.count(b'"content":"word')) == (50, 0)
    assert first.body.endswith(b"data: [DONE]\n\n")
    assert (first.complete, second.complete) == (True, True)


@pytest.mark.parametrize("marker", ["", "[[calls=3]]", "[[rounds=1]]", "[[deltas=20]]"])
async def test_the_sdks_read_the_bench_endpoint(openai_client: Any, anthropic_client: Any, marker: str) -> None:
    messages = [{"role": "user", "content": f"go {marker}"}]
    async with ModelServer(bench=True) as server:
        client, claude = openai_client(server), anthropic_client(server)
        stream = await client.chat.completions.create(
            model="m", messages=messages, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        whole = await client.chat.completions.create(model="m", messages=messages)
        async with claude.messages.stream(model="m", max_tokens=9, messages=messages) as events:
            final = await events.get_final_message()
        whole_there = await claude.messages.create(model="m", max_tokens=9, messages=messages)
    assert chunks[-1].usage.prompt_tokens == 100
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert [block.type for block in final.content] == [block.type for block in whole_there.content]
    assert final.stop_reason == whole_there.stop_reason
    calls_there = [block for block in final.content if block.type == "tool_use"]
    assert len(calls_there) == len(whole.choices[0].message.tool_calls or ())
    assert all(block.input == {"value": place} for place, block in enumerate(calls_there))


async def test_the_bench_endpoint_finds_the_tool_results_of_the_anthropic_wire() -> None:
    call_block = {"type": "tool_use", "id": "t", "name": "echo", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": "ok"}
    messages = [
        {"role": "user", "content": "go [[rounds=1]]"},
        {"role": "assistant", "content": [call_block]},
        {"role": "user", "content": [result]},
    ]
    async with ModelServer(bench=True) as server, RawClient(server.port) as client:
        first = await client.post("/v1/messages", json.dumps({"messages": messages[:1]}).encode())
        second = await client.post("/v1/messages", json.dumps({"messages": messages}).encode())
    assert json.loads(first.body)["stop_reason"] == "tool_use"
    assert json.loads(second.body)["stop_reason"] == "end_turn"


async def test_a_call_answer_is_one_call() -> None:
    async with ModelServer([call("add", {"a": 1})]) as server, RawClient(server.port) as client:
        reply = json.loads((await client.post(PATH, request_bytes())).body)
    assert reply["choices"][0]["message"]["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a": 1}'}
