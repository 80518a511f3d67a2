"""A file of events holds them in one order over processes, restarts and files, without secrets; it stops no run."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from power_loop import AgentEvent, AgentEventBus, StatefulAgentLoop
from power_loop.contrib import jsonl_file
from power_loop.contrib.event_values import UnknownPayload
from power_loop.contrib.jsonl_sink import attach_jsonl_sink, replay
from power_loop.errors import ConfigError
from power_loop.events import HookFailed, Redaction, SendFailed, SendFinished, TextDelta, ToolCallFinished
from power_loop.testing import call, leak_check
from tests.agent.parts import within_limit
from tests.contrib.parts import SUM, make_loop, run

LIMIT_S = 60


def tell(bus: AgentEventBus, *texts: str) -> None:
    for text in texts:
        bus.emit(SendFailed("internal", text), session_id="s")


def told(path: Path) -> list[str]:
    return [event.payload.message for event in replay(path) if isinstance(event.payload, SendFailed)]


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


async def written(bus: AgentEventBus) -> None:
    assert await bus.drain(timeout_s=LIMIT_S)


@pytest.mark.promise("event-sinks")
async def test_a_replay_gives_the_events_of_a_run_with_their_payloads(tmp_path: Path) -> None:
    heard: list[AgentEvent] = []
    async with make_loop(tmp_path, [SUM, "3"]) as loop:
        loop.event_bus.subscribe(heard.append)
        attach_jsonl_sink(loop.event_bus, tmp_path / "events.jsonl", deltas=True)
        await run(loop)
    again = list(replay(tmp_path / "events.jsonl"))
    assert [(one.seq, one.at_ms, one.payload, one.agent_path) for one in again] == [
        (one.seq, one.at_ms, one.payload, one.agent_path) for one in heard
    ]
    assert isinstance(again[-1].payload, SendFinished)
    assert again[-1].payload.result.final_text == "3"


async def test_the_pieces_of_a_stream_are_left_out_unless_they_are_wanted(tmp_path: Path) -> None:
    async with make_loop(tmp_path, ["a b c"]) as loop:
        sink = attach_jsonl_sink(loop.event_bus, tmp_path / "events.jsonl")
        await run(loop)
    assert not [event for event in replay(tmp_path / "events.jsonl") if isinstance(event.payload, TextDelta)]
    assert (sink.dropped, sink.errors) == (0, 0)


async def test_the_order_goes_on_over_restarts(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "events.jsonl"
    for text in ("first", "second"):
        bus = AgentEventBus()
        attach_jsonl_sink(bus, path)
        tell(bus, text, text)
        await bus.aclose()
    assert told(path) == ["first", "first", "second", "second"]
    lines = lines_of(path)
    assert [line["n"] for line in lines] == [1, 2, 3, 4]
    assert [line["seq"] for line in lines] == [1, 2, 1, 2]
    assert len({line["run"] for line in lines}) == 2
    assert path.stat().st_mode & 0o777 == 0o600


WRITER = """
import asyncio, sys
from power_loop import AgentEventBus
from power_loop.events import SendFailed
from power_loop.contrib.jsonl_sink import attach_jsonl_sink

async def main():
    bus = AgentEventBus()
    attach_jsonl_sink(bus, sys.argv[1], max_bytes=20_000, max_files=None)
    for nth in range(200):
        bus.emit(SendFailed("internal", f"{sys.argv[2]}-{nth}"), session_id="s")
    await bus.aclose(timeout_s=float(sys.argv[3]))

asyncio.run(main())
"""


def test_several_processes_write_one_file_in_one_order_without_a_gap(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), name, str(LIMIT_S)]) for name in "abc"]
    assert [writer.wait(2 * LIMIT_S) for writer in writers] == [0, 0, 0]
    texts = told(path)
    for name in "abc":
        assert [text for text in texts if text.startswith(name)] == [f"{name}-{nth}" for nth in range(200)]
    files = [*jsonl_file.full_files(path), path]
    assert len(files) > 3
    assert [line["n"] for file in files for line in lines_of(file)] == list(range(1, 601))


FORKER = """
import asyncio, os, sys
from power_loop import AgentEventBus
from power_loop.events import SendFailed
from power_loop.contrib.jsonl_sink import attach_jsonl_sink

bus = AgentEventBus()
sink = attach_jsonl_sink(bus, sys.argv[1], sync_s=3600)

def tell(text):
    bus.emit(SendFailed("internal", text), session_id="s")
    assert asyncio.run(bus.drain()), text

tell("parent")
# As if a thread of the parent's wrote at this moment.
sink._file._lock.acquire()
child = os.fork()
if child == 0:
    try:
        tell("child")
        assert sink._timer.is_alive()
        sink.close()
        os._exit(0)
    finally:
        os._exit(1)
sink._file._lock.release()
assert os.waitpid(child, 0)[1] == 0
tell("parent again")
sink.close()
"""


def test_a_forked_child_writes_a_run_of_its_own_whatever_its_parent_was_doing(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORKER, str(path)], timeout=LIMIT_S, check=True)
    assert told(path) == ["parent", "child", "parent again"]
    first, second, third = lines_of(path)
    assert first["run"] == third["run"] != second["run"]


async def test_numbers_that_are_none_cost_their_own_line_or_payload_only(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    async with make_loop(tmp_path, ["3"]) as loop:
        attach_jsonl_sink(loop.event_bus, path, types=[SendFinished])
        await run(loop)
    (line,) = lines_of(path)
    line["payload"]["result"]["cost"] = "what?"
    bad = json.dumps({**line, "n": 2}).replace('"seq": 1', '"seq": 1e999', 1)
    path.write_text(json.dumps(line) + "\n" + bad + "\n", "utf-8")
    events = replay(path)
    assert [type(event.payload) for event in events] == [UnknownPayload]
    assert events.skipped == 1


async def test_full_files_are_numbered_and_only_the_newest_are_kept(tmp_path: Path) -> None:
    path, bus = tmp_path / "events.jsonl", AgentEventBus()
    attach_jsonl_sink(bus, path, max_bytes=1_000, max_files=3)
    tell(bus, *(f"{nth:03}" for nth in range(100)))
    await bus.aclose()
    files = jsonl_file.full_files(path)
    assert len(files) == 2
    assert all(file.stat().st_size <= 1_000 for file in (*files, path))
    texts = told(path)
    assert texts == [f"{nth:03}" for nth in range(100)][-len(texts) :]
    assert len(texts) > 6


async def test_a_line_that_a_crash_tore_anywhere_costs_no_other_line(tmp_path: Path) -> None:
    path, bus = tmp_path / "events.jsonl", AgentEventBus()
    attach_jsonl_sink(bus, path).close()
    bus = AgentEventBus()
    sink = attach_jsonl_sink(bus, path)
    tell(bus, "kept", "torn")
    await written(bus)
    sink.close()
    whole = path.read_bytes()
    start = whole.index(b"\n") + 1
    for end in range(start, len(whole)):
        path.write_bytes(whole[:end])
        # Without its end of line it is whole all the same.
        is_whole = end == len(whole) - 1
        assert told(path) == ["kept"] + ["torn"] * is_whole
        bus = AgentEventBus()
        sink = attach_jsonl_sink(bus, path)
        tell(bus, "next")
        await written(bus)
        sink.close()
        events = replay(path)
        assert [one.payload.message for one in events] == ["kept"] + ["torn"] * is_whole + ["next"]  # type: ignore[attr-defined]
        assert events.skipped == (0 if is_whole or end == start else 1)


async def test_no_secret_is_ever_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    canaries = ["canary-of-the-environment", "sk-canary0123456789abcdef", "canary-in-arguments", "canary-known-value"]
    monkeypatch.setenv("SHOP_API_KEY", canaries[0])
    steps = [call("login", {"password": canaries[2], "note": f"key {canaries[1]}"}), f"Done: {canaries[3]}."]

    def login(password: str, note: str) -> str:
        """Log in."""
        return json.dumps({"token": canaries[2], "as": canaries[3], "said": note})

    async with make_loop(tmp_path, steps, tools=[login]) as loop:
        attach_jsonl_sink(loop.event_bus, tmp_path / "events.jsonl", redaction=Redaction(values=[canaries[3]]))
        await run(loop, f"use {canaries[0]}")
    data = (tmp_path / "events.jsonl").read_text("utf-8")
    assert [canary for canary in canaries if canary in data] == []
    assert data.count("<secret>") >= 6
    assert isinstance(list(replay(tmp_path / "events.jsonl"))[-1].payload, SendFinished)


async def test_a_long_text_is_cut_in_its_middle_and_the_event_is_still_read(tmp_path: Path) -> None:
    async with make_loop(tmp_path, ["x" * 50_000]) as loop:
        attach_jsonl_sink(loop.event_bus, tmp_path / "events.jsonl", max_chars=100)
        await run(loop)
    last = list(replay(tmp_path / "events.jsonl"))[-1].payload
    assert isinstance(last, SendFinished)
    assert last.result.final_text == "x" * 50 + "… 49900 characters left out" + "x" * 50


@pytest.mark.promise("event-sinks")
async def test_a_file_that_somebody_else_holds_slows_no_run_and_drops_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with leak_check(), path.open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        loop = make_loop(tmp_path, [SUM, "3"])
        sink = attach_jsonl_sink(loop.event_bus, path, max_queue=3)
        await within_limit(run(loop))
        assert sink.dropped > 0
        fcntl.flock(held, fcntl.LOCK_UN)
        await loop.aclose()
        sink.close()
    # What is told last is what is kept.
    assert isinstance(list(replay(path))[-1].payload, SendFinished)


@pytest.mark.promise("event-sinks")
async def test_a_file_that_cannot_be_written_stops_no_run_and_is_counted(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("")
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "elsewhere")
    async with make_loop(tmp_path, [SUM, "3"]) as loop:
        sink = attach_jsonl_sink(loop.event_bus, tmp_path / "link.jsonl")
        sid = await run(loop)
        await written(loop.event_bus)
        assert (await loop.get_messages(sid))[-1].message.text == "3"
        assert sink.errors > 10
    assert (tmp_path / "elsewhere").read_text() == ""


async def test_lines_are_synced_at_once_after_a_while_or_never(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    counts = []
    for sync_s in (0, 3600.0, None):
        bus = AgentEventBus()
        sink = attach_jsonl_sink(bus, tmp_path / f"{sync_s}.jsonl", sync_s=sync_s)
        tell(bus, "a", "b", "c")
        await written(bus)
        before = len(synced)
        sink.close()
        counts.append((before, len(synced)))
        synced.clear()
    assert counts == [(3, 3), (0, 1), (0, 1)]


def test_what_a_later_version_wrote_is_given_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    place = {"at_ms": 1, "monotonic_s": 0.5, "session_id": "s", "send_index": 1, "round": 1, "agent_path": ["s"]}
    known = {"point": "p", "hook": "h", "error": "e", "added_later": 1}
    lines = [
        {"n": 1, "seq": 1, **place, "type": "from.the_future", "payload": {"a": 1}},
        {"n": 2, "seq": 2, **place, "type": "hook.failed", "payload": known},
        {"n": 3, "seq": 3, **place, "type": "tool.finished", "payload": {"call_id": "c"}},
        {"other": True},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"n": 4, "se')
    events = replay(path)
    first, second, third = [event.payload for event in events]
    assert isinstance(first, UnknownPayload)
    assert (first.type, first.members) == ("from.the_future", {"a": 1})
    assert second == HookFailed("p", "h", "e")
    assert isinstance(third, UnknownPayload)
    assert ToolCallFinished.type == third.type
    assert events.skipped == 2


def test_what_cannot_be_is_refused_at_once(tmp_path: Path) -> None:
    bus = AgentEventBus()
    with pytest.raises(ConfigError, match="is a folder"):
        attach_jsonl_sink(bus, tmp_path)
    with pytest.raises(ConfigError, match="max_bytes is 0"):
        attach_jsonl_sink(bus, tmp_path / "a", max_bytes=0)
    with pytest.raises(ConfigError, match="sync_s is -1"):
        attach_jsonl_sink(bus, tmp_path / "a", sync_s=-1)
    with pytest.raises(ConfigError, match="there is no file"):
        replay(tmp_path / "none.jsonl")
    assert not bus.is_listening


async def test_only_one_session_with_its_agents_is_written_where_that_is_asked(tmp_path: Path) -> None:
    async with StatefulAgentLoop(llm=make_loop(tmp_path, ["a", "b"]).llm, dsn=str(tmp_path / "b.db")) as loop:
        mine, other = await loop.new_session(), await loop.new_session()
        attach_jsonl_sink(loop.event_bus, tmp_path / "events.jsonl", session_id=mine)
        await loop.send("1", session_id=mine)
        await loop.send("2", session_id=other)
    assert {event.session_id for event in replay(tmp_path / "events.jsonl")} == {mine}
