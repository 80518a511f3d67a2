"""The examples 00 to 09 say what they claim, and leave it in the database."""

from __future__ import annotations

import re
from typing import Any

import pytest

from .conftest import LIMIT_S, Stage, call


@pytest.mark.promise("examples")
def test_hello_world_as_a_process(stage: Stage) -> None:
    stage.answers("Hello, world.")
    with stage.start("00_hello_world") as process:
        said, _ = process.communicate(timeout=LIMIT_S)
    assert re.fullmatch(r"Hello, world\.\nkept as sess_\w+\n", said)
    assert process.returncode == 0
    assert stage.log() == [("user", "Say hello to the world."), ("assistant", "Hello, world.")]
    assert stage.asked[0]["messages"][0] == {"role": "system", "content": "You are brief."}


def test_streaming(stage: Stage) -> None:
    said = stage.play("01_streaming", answers=[{"text": ["Water ", "goes ", "home."]}])
    assert re.fullmatch(r"Water goes home\.\n\[completed, \d+ tokens\]\n", said)
    assert stage.asked[0]["stream"] is True
    assert stage.log()[-1] == ("assistant", "Water goes home.")


def test_another_process(stage: Stage) -> None:
    first = stage.play("02_another_process", "My favorite color is teal.", answers=["Noted."])
    second = stage.play("02_another_process", "Which", "is it?", answers=["Teal."])
    assert (first, second) == ("Noted.\n[2 messages so far]\n", "Teal.\n[4 messages so far]\n")
    assert [message["content"] for message in stage.asked[1]["messages"]] == [
        "My favorite color is teal.",
        "Noted.",
        "Which is it?",
    ]
    assert len(stage.log()) == 4


def test_without_asyncio(stage: Stage) -> None:
    assert stage.play("03_without_asyncio", answers=["Hello, Ada.", "Ada."]) == "Hello, Ada.\nAda.\n"
    assert [role for role, _ in stage.log()] == ["user", "assistant"] * 2


def test_system_prompt(stage: Stage) -> None:
    said = stage.play("04_system_prompt", answers=[call("find_price", item="coffee"), "38 kroner."])
    assert said.endswith("\n\n38 kroner.\n")
    assert "Members get ten per cent off." in said
    assert stage.asked[0]["messages"][0]["content"] == said.removesuffix("\n\n38 kroner.\n")
    assert ("tool", "coffee: 42 kroner") in stage.log()


def test_structured_output(stage: Stage) -> None:
    wrong = '{"customer": "Ada", "items": [{"name": "teapot", "count": 0}]}'
    right = '{"customer": "Ada", "items": [{"name": "teapot", "count": 2}, {"name": "cup", "count": 1}]}'
    said = stage.play("05_structured_output", answers=[wrong, right])
    assert said == "Ada wants 2 × teapot\nAda wants 1 × cup\n[2 model calls]\n"
    assert stage.log()[-1] == ("assistant", right)


def test_structured_output_that_is_wrong_to_the_end(stage: Stage) -> None:
    assert stage.play("05_structured_output", answers=["Tea."] * 3) == "output.invalid Tea.\n"


def test_images(stage: Stage) -> None:
    stage.patch.setenv("POWER_LOOP_HAS_IMAGES", "true")
    said = stage.play("06_images", answers=["Teal."])
    assert said == "Teal.\nthe log has the picture: True\n"
    [_, image] = stage.asked[0]["messages"][0]["content"]
    assert image["image_url"]["url"].startswith("data:image/png;base64,iVBOR")


def test_own_model(stage: Stage) -> None:
    said = stage.play("07_own_model")
    assert said.splitlines()[1::2] == ["Why are you tired?", "Tell me more about your computer.", "Please go on."]
    assert len(stage.log()) == 6
    assert stage.asked == []


def test_events(stage: Stage) -> None:
    said = stage.play("08_events", answers=[call("look_up", word="teal"), "A blue-green."])
    assert said.splitlines()[0] == "send.started"
    assert "delta" not in said
    assert "tool.started: look_up {'word': 'teal'}" in said
    assert "tool.finished: look_up succeeded" in said
    assert said.endswith("send.finished: A blue-green.\n")
    assert stage.calls() == [("look_up", "succeeded")]


def test_cancel(stage: Stage) -> None:
    def slow(pieces: list[str]) -> Any:
        return {"text": pieces, "faults": [{"name": "hang_after", "deltas": 1}]}

    said = stage.play("09_cancel", answers=[slow(["Once", " upon"]), slow(["A", " time"]), "Hello."])
    assert said == "Once… [cancelled]\n[cancelled: the user pressed stop]\nHello.\n"

    async def statuses(store: Any) -> list[str]:
        [session] = (await store.list_sessions()).items
        return [(await store.get_send(session.id, index=index)).status.value for index in (1, 2, 3)]

    assert stage.look(statuses) == ["cancelled", "cancelled", "completed"]
