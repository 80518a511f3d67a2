"""The examples 10 to 18: tools run, processes are killed, and the ledger says what became of each call."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from typing import Any

from .conftest import Stage, call


def test_tools(stage: Stage) -> None:
    answers = [
        call("find_flights", city="Roma"),
        call("find_flights", city="Rome", cabin="first"),
        call("find_flights", city="Rome"),
        call("book", city="Rome", seats=2),
        "You fly at 9:40.",
    ]
    said = stage.play("10_tools", answers=answers)
    assert said.endswith('→ book {"city": "Rome", "seats": 2}\nYou fly at 9:40.\n')
    results = [text for role, text in stage.log() if role == "tool"]
    assert results[0] == "nobody flies to Roma; there are flights to Oslo, Rome"
    assert "economy" in results[1]
    assert results[2] == '[{"city": "Rome", "at": "9:40", "euros": 80}]'
    assert results[3] == "2 seats to Rome are booked"
    assert [state for _, state in stage.calls()] == ["failed", "failed", "succeeded", "succeeded"]


def test_progress(stage: Stage) -> None:
    both = {"calls": [{"name": "download", "arguments": {"name": name}} for name in ("Emma", "Persuasion")]}
    said = stage.play("11_progress", answers=[both, "Persuasion."])
    lines = said.splitlines()
    assert sorted(lines[:6]) == [
        f"downloading {name}: {part}%" for name in ("Emma", "Persuasion") for part in (100, 25, 50)
    ]
    assert lines[6:] == ["Persuasion."]
    assert stage.calls() == [("download", "succeeded")] * 2


def test_kill_and_resume(stage: Stage) -> None:
    said = stage.play("12_kill_and_resume", answers=[call("pack", thing="camera"), "It is packed."])
    assert said == ("the child ended with -9\nopen: pack {'thing': 'camera'} started\ncompleted: It is packed.\n")
    assert stage.log() == [
        ("user", "Pack the camera."),
        ("assistant", ""),
        ("tool", "The camera is in the suitcase."),
        ("assistant", "It is packed."),
    ]

    async def attempts(store: Any) -> int:
        [session] = (await store.list_sessions()).items
        [one] = await store.get_calls(session.id)
        return one.attempt

    assert stage.look(attempts) == 2


def test_effects(stage: Stage) -> None:
    names = ("find_order", "charge", "write_letter")
    said = stage.play("13_effects", answers=[*(call(name, number=17) for name in names), "Please check the letter."])
    assert said.count("[a process died]\n") == 3
    world = [line for line in said.splitlines() if " with the key " in line]
    assert [line.partition(" with ")[0] for line in world] == [
        "read order 17",
        "read order 17",
        "charged order 17",
        "charged order 17",
        "wrote a letter about order 17",
    ]
    assert world[2] == world[3], "the key stays the same"
    assert said.endswith(
        "find_order: read, succeeded\ncharge: idempotent, succeeded\nwrite_letter: once, unknown\n"
        "Please check the letter.\n"
    )
    assert stage.calls() == [("find_order", "succeeded"), ("charge", "succeeded"), ("write_letter", "unknown")]


def test_exactly_once(stage: Stage) -> None:
    said = stage.play("14_exactly_once", answers=[call("order", item="teapot", count=3), "Ordered."])
    assert said == "Ordered.\norder is transactional: succeeded\nmail 1: You ordered 3 × teapot.\n"
    with closing(sqlite3.connect("app.db")) as database:
        assert database.execute("SELECT item, count FROM orders").fetchall() == [("teapot", 3)]
        assert database.execute("SELECT is_sent FROM outbox").fetchall() == [(1,)]


def test_ask_once(stage: Stage) -> None:
    said = stage.play("15_ask_once", answers=["The Rhine."])
    assert said == "The Rhine.\nThe Rhine. [from the record: True]\nrequest.conflict\n2 messages in the log\n"
    assert stage.log() == [("user", "Name a river."), ("assistant", "The Rhine.")]


def test_recover(stage: Stage) -> None:
    said = stage.play("16_recover", answers=["Good morning."])
    assert said == "found a dead_turn, now completed\nGood morning.\n"
    assert stage.log() == [("user", "Say good morning."), ("assistant", "Good morning.")]


def test_retries_and_fallback(stage: Stage) -> None:
    said = stage.play("17_retries_and_fallback", answers=["Here.", "Still here."])
    first, *rest = said.splitlines()
    assert re.fullmatch(r"\[llm\.rate_limited: again in 0\.\d\d s\]", first)
    assert rest == ["Here.", "[llm.overloaded: asking the other model]", "Still here."]
    assert [text for role, text in stage.log() if role == "assistant"] == ["Here.", "Still here."]


def test_limits_and_budgets(stage: Stage) -> None:
    looking = [call("look", place=place) for place in ("drawer", "car")]
    said = stage.play("18_limits_and_budgets", answers=[*looking, "I did not find it."])
    first, second, third = said.splitlines()
    assert first == "rounds_exceeded: I did not find it."
    assert second.startswith("cost_exceeded: ")
    assert float(third.removeprefix("paid so far: ")) > 0
    assert len(stage.asked) == 3, "what is not paid for is not asked"
    assert stage.calls() == [("look", "succeeded")] * 2
