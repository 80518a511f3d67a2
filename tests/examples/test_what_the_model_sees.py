"""The examples 30 to 36: the log keeps everything, and the model is shown what the examples say it is shown."""

from __future__ import annotations

from typing import Any

from .conftest import Stage, call


def test_compaction(stage: Stage) -> None:
    summary = "A diary of three days; the plumber came on Monday."
    answers = ["Noted."] * 3 + [summary, call("recall_compacted", query="plumber"), "84 euros."]
    said = stage.play("30_compaction", answers=answers)
    assert said.startswith(f"messages 1 to 5 became: {summary}\nabout ")
    assert said.endswith("84 euros.\nthe log has 10 messages\n")
    assert summary in str(stage.asked[4]["messages"][1])
    assert "84 euros" not in str(stage.asked[4]["messages"])
    assert "He asked for 84 euros" in stage.log()[-2][1]


def test_projection(stage: Stage) -> None:
    said = stage.play("31_projection", answers=[call("list_orders", customer="Ada"), "80.", "Lamps."])
    assert "list_orders -> ok: 80 orders of Ada, the first is 4711" in said
    assert said.endswith("Lamps.\nthe log has 6 messages\n")
    assert "4712" not in str(stage.asked[2])
    assert "4712" in stage.log()[2][1]


def test_memory(stage: Stage) -> None:
    answers = [call("remember", text="Ann is allergic to nuts."), "Noted.", "Lemon cake.", "Walnut cake."]
    said = stage.play("32_memory", answers=answers)
    assert said == (
        "[recalled: 0]\nann: Noted.\n[recalled: 1]\nann: Lemon cake.\n[recalled: 0]\nbob: Walnut cake.\n"
        "kept of ann: Ann is allergic to nuts.\n"
    )
    assert ["allergic to nuts." in str(asked["messages"][-1]) for asked in stage.asked[2:]] == [True, False]
    assert [len(log) for log in stage.logs()] == [4, 2, 2], "what was recalled is in no log"


def test_notes_and_todo(stage: Stage) -> None:
    note = {"name": "note_write", "arguments": {"title": "door", "text": "The code is 4711."}}
    items = [{"text": "Invite the guests", "status": "in_progress"}, {"text": "Bake a cake", "status": "pending"}]
    reply = {"calls": [note, {"name": "todo", "arguments": {"items": items}}]}
    said = stage.play("33_notes_and_todo", answers=[reply, "It is planned."])
    for line in ('- "door": "The code is 4711."', '- [>] "Invite the guests"', '- [ ] "Bake a cake"'):
        assert line in said
    assert said.startswith("--- round 2\n")
    assert "The code is 4711." in str(stage.asked[1]["messages"][-1])
    assert stage.calls() == [("note_write", "succeeded"), ("todo", "succeeded")]


def test_live_state(stage: Stage) -> None:
    said = stage.play("34_live_state", answers=[call("add", thing="teapot"), "A teapot."])
    first, second = said.removeprefix("--- round 1\n").split("--- round 2\n")
    assert first.startswith("It is ")
    assert "Ghent" in first
    assert "In the cart: teapot." in second
    one, two = (asked["messages"] for asked in stage.asked)
    assert two[: len(one) - 1] == one[:-1], "the start of the prompt stays"
    assert "In the cart" not in str(stage.log())


def test_skills(stage: Stage) -> None:
    answers = [
        call("load_skill", name="release-notes"),
        call("load_skill", name="release-notes", file="tone.md"),
        "Faster.",
    ]
    said = stage.play("35_skills", answers=answers)
    assert said.startswith("release-notes: Writes release notes.")
    assert said.endswith('→ load_skill {"name": "release-notes", "file": "tone.md"}\nFaster.\n')
    results = [text for role, text in stage.log() if role == "tool"]
    assert "Begin each line with a verb" in results[0]
    assert "Plain and short" in results[1]


def test_explain(stage: Stage) -> None:
    said = stage.play("36_explain", answers=["The Rhine.", "The Po.", "Etna."])
    first, second, third = said.split("\n\n")
    assert "messages 1-1" in first
    assert "with call 2" in second
    assert "broken by" not in second
    assert "broken by system: the system prompt changed" in third

    async def prompt(store: Any) -> str:
        [session] = (await store.list_sessions()).items
        return session.system_prompt

    assert stage.look(prompt) == "You are very brief."
