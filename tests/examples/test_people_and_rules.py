"""The examples 20 to 26: what waits for a person waits in the database, and what may not happen does not."""

from __future__ import annotations

import re
from urllib.parse import urlencode

import pytest

from .conftest import Served, Stage, call

DELETE_BOTH = {"calls": [{"name": "delete_account", "arguments": {"name": name}} for name in ("Ben", "Eve")]}


def test_approve_in_terminal(stage: Stage) -> None:
    said = stage.play("20_approve_in_terminal", answers=[DELETE_BOTH, "Ben is gone."], typed="y\nshe is a friend\n")
    question = "delete_account {'name': 'Ben'} [y, or a reason why not] "
    assert said == f"{question}{question.replace('Ben', 'Eve')}Ben is gone.\n"
    results = {text for role, text in stage.log() if role == "tool"}
    assert results == {
        "The account of Ben was deleted.",
        "'delete_account' was not run, because it was not allowed: she is a friend",
    }
    assert stage.calls() == [("delete_account", "succeeded"), ("delete_account", "failed")]


def test_approve_in_browser(stage: Stage) -> None:
    pytest.importorskip("fastapi")
    stage.answers(call("refund", order=17, euros=40), "It is on its way.")
    app = stage.load("21_approve_in_browser")["app"]
    with Served(app) as browser:
        browser.get("/say", urlencode({"text": "Refund <b>17</b>!"}).encode())
        page = browser.until("/", "approve</button>")
        assert "Refund &lt;b&gt;17&lt;/b&gt;!" in page
        assert "refund {&#x27;order&#x27;: 17, &#x27;euros&#x27;: 40}" in page
        assert stage.calls() == [("refund", "waiting")]
        [call_id] = re.findall(r'action="/answer/([^"]+)"', page)
        page = browser.get(f"/answer/{call_id}", b"yes=1&reason=")
        assert "It is on its way." in page
        assert "approve</button>" not in page
    assert stage.calls() == [("refund", "succeeded")]
    assert stage.log()[2] == ("tool", "40 euros are on their way back for order 17.")


def test_ask_user(stage: Stage) -> None:
    question = call("request_user_input", prompt="Window or aisle?", choices=["window", "aisle"])
    said = stage.play("22_ask_user", answers=[question])
    first, second = said.splitlines()
    assert first == "Window or aisle? ['window', 'aisle']"
    found = re.fullmatch(r"\[(sess_\w+): waiting_for_input\]", second)
    assert found is not None
    assert stage.play("22_ask_user", found[1], "the roof").startswith("input.invalid: ")
    assert stage.calls() == [("request_user_input", "waiting")]
    assert stage.play("22_ask_user", found[1], "window", answers=["A window seat."]) == "A window seat.\n"
    assert stage.calls() == [("request_user_input", "succeeded")]


def test_permissions(stage: Stage) -> None:
    commands = ("git status", "git commit -m done", "git push origin main")
    reply = {"calls": [{"name": "bash", "arguments": {"command": command}} for command in commands]}
    said = stage.play("23_permissions", answers=[reply])
    assert [line.rpartition(" ")[2] for line in said.splitlines()[:3]] == ["succeeded", "waiting", "failed"]
    assert "People push: say what should be pushed." in said
    assert "→ [git status ran]" in said
    assert [state for _, state in stage.calls()] == ["succeeded", "aborted", "failed"]


def test_hooks(stage: Stage) -> None:
    pay = [{"name": "pay", "arguments": {"euros": euros, "name": name}} for euros, name in ((900, "Anna"), (60, "Bob"))]
    said = stage.play("24_hooks", answers=[{"calls": pay}, "Bob got 50 euros."])
    assert re.match(r"\[completed in \d+\.\d s\]\n", said)
    assert "payments above 500 euros are made by a person" in said
    assert said.endswith("→ Paid 50 euros to Bob.\nBob got 50 euros.\n")
    assert stage.calls() == [("pay", "failed"), ("pay", "succeeded")]


def test_redaction(stage: Stage) -> None:
    said = stage.play("25_redaction", answers=[call("read_settings"), "Euros."])
    assert "api: <secret>" in said
    for place in (said, str(stage.log()), str(stage.asked), (stage.folder / "app.db").read_bytes().decode("latin-1")):
        assert "4111" not in place
        assert "sk-abc" not in place


def test_steer(stage: Stage) -> None:
    said = stage.play("26_steer", answers=[call("search_hotels", city="Rome"), "Hotel Roma has a lift."])
    assert said == (
        "[said while the turn runs: True]\n[the turn has heard it]\nHotel Roma has a lift.\n"
        "user → assistant → tool → user → assistant\n"
    )
    assert stage.asked[1]["messages"][-1] == {"role": "user", "content": "One with a lift, please."}
