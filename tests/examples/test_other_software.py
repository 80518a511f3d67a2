"""The examples 80 to 87: other programs' tools, collectors and histories meet a loop's."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import pytest

from .conftest import EXAMPLES, Stage, call


def test_mcp_client(stage: Stage) -> None:
    said = stage.play("80_mcp_client", answers=[call("notes_read", name="shopping"), "Tea and lemons."])
    assert said == "{'notes_read': 'read'}\nTea and lemons.\n"
    assert ("tool", "tea, lemons") in stage.log()


def test_mcp_server(stage: Stage) -> None:
    said = stage.play("81_mcp_server", answers=[call("find_book", title="Emma"), "On shelf 4."])
    assert said == "new_session, send, list_sessions, get_messages, get_pending, answer\nOn shelf 4.\n"
    assert ("tool", "Emma stands on shelf 4") in stage.log()


LOOKED_UP = [call("look_up", word="teal"), "A blue-green."]


def test_jsonl_log(stage: Stage) -> None:
    said = stage.play("82_jsonl_log", answers=LOOKED_UP)
    assert "'llm.finished': 2" in said
    assert said.endswith("look_up {'word': 'teal'}\nA blue-green.\n")
    lines = [json.loads(line) for line in (stage.folder / "events.jsonl").read_text("utf-8").splitlines()]
    assert [line["n"] for line in lines] == list(range(1, len(lines) + 1))


def test_prometheus(stage: Stage) -> None:
    pytest.importorskip("prometheus_client")
    said = stage.play("83_prometheus", answers=LOOKED_UP)
    assert 'power_loop_sends_total{status="completed"} 1.0' in said
    assert 'power_loop_tool_calls_total{gen_ai_tool_name="look_up",state="succeeded"} 1.0' in said
    assert said.endswith("lost: 0, failed: 0\n")
    assert "sess_" not in said
    assert stage.calls() == [("look_up", "succeeded")]


def test_opentelemetry(stage: Stage) -> None:
    pytest.importorskip("opentelemetry.sdk")
    said = stage.play("84_opentelemetry", answers=LOOKED_UP)
    first, *spans = said.splitlines()
    assert first == "A blue-green."
    assert spans[:2] == ["POST /ask, below nothing", "invoke_agent, below POST /ask"]
    assert sorted(spans[2:]) == [
        "chat gpt-test, below invoke_agent",
        "chat gpt-test, below invoke_agent",
        "execute_tool look_up, below invoke_agent",
    ]
    assert stage.log()[-1] == ("assistant", "A blue-green.")


# --- histories of other libraries -----------------------------------------------------------------------------------


def test_from_openai_chat(stage: Stage) -> None:
    said = stage.play("85_from_openai_chat", answers=["At the teapot."])
    assert said.startswith("user: Which teapots do you have?\nassistant: ['list_stock', 'find_price']\n")
    assert said.endswith("assistant: Very much so.\nAt the teapot.\n")
    # What goes to the model is what went to the one before, in its own format.
    history = json.loads((EXAMPLES / "histories" / "openai_chat.json").read_text("utf-8"))
    asked = stage.asked[0]["messages"]
    assert [one["role"] for one in asked] == [one["role"] for one in history] + ["user"]
    assert asked[2]["tool_calls"] == history[2]["tool_calls"]
    assert asked[3:5] == history[3:5]
    assert asked[6]["content"][1]["image_url"]["url"] == "https://example.org/teapot.png"
    assert stage.calls() == [("list_stock", "succeeded"), ("find_price", "succeeded")]


def test_a_history_that_ends_in_the_middle_is_taken_over_as_far_as_it_goes(stage: Stage) -> None:
    history = json.loads((EXAMPLES / "histories" / "openai_chat.json").read_text("utf-8"))[:5]
    (stage.folder / "cut.json").write_text(json.dumps(history), "utf-8")
    said = stage.play("85_from_openai_chat", "cut.json", answers=["At the teapots."])
    assert said.startswith("the recording ends in the middle of this turn: resume() asks a model\n")

    assert [role for role, _ in stage.log()] == ["user", "assistant", "tool", "tool", "user", "assistant"]


def test_from_langgraph(stage: Stage) -> None:
    said = stage.play("86_from_langgraph", answers=["At the train."])
    assert said.endswith("assistant: The timetable cannot be reached.\nAt the train.\n")
    assert stage.calls() == [("find_train", "failed")]
    assert stage.log()[:3] == [
        ("user", "Is there a train to Rome?"),
        ("assistant", "I shall look."),
        ("tool", "the timetable is down"),
    ]
    assert stage.asked[0]["messages"][0] == {"role": "system", "content": "You plan trips."}


def test_from_langgraph_in_its_flat_form(stage: Stage) -> None:
    history = json.loads((EXAMPLES / "histories" / "langgraph.json").read_text("utf-8"))
    (stage.folder / "thread.json").write_text(json.dumps([{**one["data"], "type": one["type"]} for one in history]))
    stage.play("86_from_langgraph", "thread.json", answers=["At the train."])
    assert stage.calls() == [("find_train", "failed")]


def test_from_openai_agents(stage: Stage) -> None:
    source = stage.folder / "conversations.db"
    with closing(sqlite3.connect(source)) as database:
        database.executescript((EXAMPLES / "histories" / "openai_agents.sql").read_text("utf-8"))
    told = "agents:ada has 4 messages\nagents:ben has 2 messages\n"
    assert stage.play("87_from_openai_agents", str(source), answers=["At 21."]) == f"{told}At 21.\n"
    assert stage.logs()[0][:4] == [
        ("user", "What is 17 and 4?"),
        ("assistant", ""),
        ("tool", "21"),
        ("assistant", "It is 21."),
    ]
    again = stage.play("87_from_openai_agents", answers=["Still at 21."])
    assert again == f"{told.replace('4', '6', 1)}Still at 21.\n", "nothing is taken over twice"
    assert stage.calls() == [("add", "succeeded")]
    assert [len(log) for log in stage.logs()] == [8, 2]
