"""The commands that look at sessions show what is stored, as text or as JSON, and nothing of it moves the terminal."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from power_loop import LoopConfig, ModelPrice, PriceTable, StatefulAgentLoop, tool
from power_loop.cli import printable
from power_loop.runtime.store.sql.migrations import SCHEMA_VERSION
from power_loop.storage import schema_ddl
from power_loop.testing import ScriptedLLM, call
from tests.cli.inside import run
from tests.runtime.store.sites import KINDS, Site, fresh_site, old_version

HOSTILE = "safe \x1b]0;owned\x07\x1b[2J\x9b31m \u202egnp.exe\u202c end"


@tool(effect="read")
def look(place: str) -> str:
    """Look."""
    return f"{place}: {HOSTILE}"


@tool(requires_approval=True)
def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


async def make(dsn: str) -> None:
    prices = PriceTable({"scripted": ModelPrice(input=1, output=2)})
    steps = [call("look", {"place": "here"}), f"**Done**: {HOSTILE}", call("pay", {"amount": 3})]
    config = LoopConfig(prices=prices)
    async with StatefulAgentLoop(llm=ScriptedLLM(steps), dsn=dsn, tool_registry=[look, pay], config=config) as loop:
        await loop.new_session(session_id="s1", metadata={"user": "ada", "note": HOSTILE}, system_prompt=HOSTILE)
        await loop.send(f"Look. {HOSTILE}", session_id="s1")
        await loop.send("Pay.", session_id="s1")
        await loop.new_session(session_id="s2")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    asyncio.run(make(str(tmp_path / "app.db")))
    return tmp_path


def done(folder: Path, *arguments: str, **variables: str) -> str:
    found = run(*arguments, "--dsn", "app.db", folder=folder, **variables)
    assert (found.returncode, found.stderr) == (0, ""), found.stderr
    return found.stdout


def value(folder: Path, *arguments: str) -> Any:
    return json.loads(done(folder, *arguments, "--json"))


def is_harmless(text: str) -> bool:
    return not any(char in text for char in "\x1b\x07\x9b\u202e\u202c")


def test_sessions_are_listed_newest_first_with_what_their_last_send_came_to(folder: Path) -> None:
    listed = done(folder, "sessions")
    assert is_harmless(listed)
    assert [line.split()[-1] if "s2" in line else "s1" for line in listed.splitlines()[1:]] == ["s2", "s1"]
    assert "waiting_for_input" in listed
    lines = [json.loads(line) for line in done(folder, "sessions", "--json").splitlines()]
    assert [(one["id"], one["status"]) for one in lines] == [("s2", None), ("s1", "waiting_for_input")]
    assert done(folder, "sessions", "--metadata", "user=bob") == "no sessions\n"
    assert "s2" not in done(folder, "sessions", "--metadata", "user=ada")
    assert len(done(folder, "sessions", "--limit", "1", "--json").splitlines()) == 1
    assert "[config.invalid]" in run("sessions", "--metadata", "x", "--dsn", "app.db", folder=folder).stderr


def test_a_session_is_shown_with_its_calls_its_costs_and_what_waits(folder: Path) -> None:
    shown = done(folder, "show", "s1")
    assert is_harmless(shown)
    for words in (
        "── send 1  completed",
        "→ look",
        "[succeeded]",
        "paid",
        "cost ",
        "\\x1b]0;owned",
        "waits for an app",
    ):
        assert (words in shown) == (words != "paid"), (words, shown)
    found = value(folder, "show", "s1")
    assert [one["role"] for one in found["messages"]] == ["user", "assistant", "tool", "assistant", "user", "assistant"]
    assert found["messages"][2]["parts"][0]["content"][0]["text"] == f"here: {HOSTILE}", "JSON keeps what was said"
    assert [one["wait_kind"] for one in found["pending"]] == ["approval"]
    assert found["stats"]["model_calls"] == 3
    assert len(found["model_calls"]) == 3
    assert float(found["stats"]["cost"]) > 0
    tail = value(folder, "show", "s1", "--last", "2")
    assert [one["seq"] for one in tail["messages"]] == [5, 6]
    assert [one["reply_seq"] for one in tail["model_calls"]] == [6]


def test_one_call_is_shown_with_what_it_was_sent(folder: Path) -> None:
    shown = done(folder, "show", "s1", "--call", "4")
    assert "shares about" in shown
    assert "Done" in shown
    assert is_harmless(shown)
    found = value(folder, "show", "s1", "--call", "4")
    assert (found["call"], found["previous_call"]) == (4, 2)
    assert found["reply"][0]["seq"] == 4
    missing = run("show", "s1", "--call", "3", "--dsn", "app.db", folder=folder)
    assert missing.returncode == 1
    assert "[model_call.not_found]" in missing.stderr
    assert "[session.not_found]" in run("show", "no", "--dsn", "app.db", folder=folder).stderr


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\tb\nc\r\nd", "a\tb\nc\nd"),
        ("\x1b[31m\x7f\x85", "\\x1b[31m\\x7f\\x85"),
        ("\ud800\u2028\u200b", "\\ud800\\u2028\\u200b"),
        ("\U000e0041", "\\U000e0041"),
        ("e\u0301 👩\u200d🔬 שלום", "e\u0301 👩\u200d🔬 שלום"),
    ],
)
def test_what_a_terminal_would_obey_stands_as_its_escape(text: str, shown: str) -> None:
    assert printable.printable(text) == shown


def test_markdown_is_shown_rendered_and_nothing_in_it_moves_the_terminal() -> None:
    pytest.importorskip("rich")
    from power_loop.cli.markdown import markdown

    text = (
        f"# Head\n\n**bold** {HOSTILE} &#x202e; &#x1b;[2J &#155;31m [a](https://x.invalid/\x1b)\n\n```\n{HOSTILE}\n```"
    )
    shown = markdown(text)
    assert shown is not None
    assert "**" not in shown
    bare = "".join(shown.split("\x1b[")[:1] + [one.partition("m")[2] for one in shown.split("\x1b[")[1:]])
    assert is_harmless(bare)


@pytest.fixture(params=KINDS)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    with fresh_site(request.param, tmp_path) as fresh:
        yield fresh


def test_an_older_database_is_migrated_after_it_was_told_what_that_takes(site: Site, tmp_path: Path) -> None:
    version = SCHEMA_VERSION - 1
    site.run(old_version(site, version))
    before = site.shape()
    told = json.loads(run("migrate", "--dry-run", "--json", "--dsn", site.dsn, folder=tmp_path).stdout)
    assert (told["is_done"], site.shape() == before) == (False, True)
    assert told["lacking"]
    assert "CREATE" in told["sql"]
    assert "[store.schema]" in run("sessions", "--dsn", site.dsn, folder=tmp_path).stderr
    found = run("migrate", "--dsn", site.dsn, folder=tmp_path)
    assert (found.returncode, found.stderr) == (0, "")
    assert [f"lacking: {one}" for one in told["lacking"]] == found.stdout.splitlines()[:-1]
    assert found.stdout.endswith(f"made: {len(told['lacking'])}\n")
    assert run("ddl", "--missing", "--dsn", site.dsn, folder=tmp_path).stdout == ""
    listed = run("sessions", "--json", "--dsn", site.dsn, folder=tmp_path).stdout.splitlines()
    assert {"sess_done", "sess_waiting"} <= {json.loads(line)["id"] for line in listed}
    assert "[3] " in run("show", "sess_waiting", "--dsn", site.dsn, folder=tmp_path).stdout


def test_every_json_is_one_value_of_ascii_on_every_database(site: Site, tmp_path: Path) -> None:
    asyncio.run(make(site.dsn))
    commands = [
        ("sessions", "--limit", "1"),
        *(("show", "s1"), ("show", "s1", "--call", "2"), ("fork", "s1", "--at", "4", "--fork-id", "f")),
        *(("export", "f", "--output", "f.jsonl"), ("import", "f.jsonl", "--session-id", "g"), ("delete", "g")),
        *(("prune", "inbox", "--older-than", "0s"), ("ddl",), ("migrate",), ("vacuum",), ("checkpoint",)),
    ]
    for command in commands:
        found = run(*command, "--json", "--dsn", site.dsn, folder=tmp_path)
        assert (found.returncode, found.stderr) == (0, ""), (command, found.stderr)
        assert found.stdout.isascii()
        assert found.stdout.isprintable() or found.stdout.count("\n") == 1
        assert isinstance(json.loads(found.stdout), dict), command


def today(dsn: str) -> StatefulAgentLoop:
    return StatefulAgentLoop(llm=ScriptedLLM([]), dsn=dsn, tool_registry=[look, pay])


def fewer_tools(dsn: str) -> StatefulAgentLoop:
    return StatefulAgentLoop(llm=ScriptedLLM([]), dsn=dsn, tool_registry=[look])


def test_a_session_is_replayed_with_today_s_code_on_every_database(site: Site, tmp_path: Path) -> None:
    asyncio.run(make(site.dsn))
    same, other = ("--app", f"{__name__}:today"), ("--app", f"{__name__}:fewer_tools")
    found = run("replay", "s1", *same, "--dsn", site.dsn, folder=tmp_path)
    assert (found.returncode, found.stdout, found.stderr) == (0, "session 's1': 3 model calls asked the same\n", "")
    found = run("replay", "s1", *other, "--json", "--dsn", site.dsn, folder=tmp_path)
    value = json.loads(found.stdout)
    assert (found.returncode, value["is_same"], value["calls"], value["difference"]["call"]) == (1, False, 0, 2)
    assert run("export", "s1", "-o", "s1.jsonl", "--dsn", site.dsn, folder=tmp_path).returncode == 0
    found = run("replay", "--archive", "s1.jsonl", "--upto", "4", *same, folder=tmp_path)
    assert (found.returncode, found.stdout) == (0, "session 's1': 2 model calls asked the same\n")
    found = run("replay", "--archive", "s1.jsonl", *other, folder=tmp_path)
    assert (found.returncode, is_harmless(found.stdout)) == (1, True)
    assert "the tools differ" in found.stdout
    assert "give a SESSION" in run("replay", *same, "--dsn", site.dsn, folder=tmp_path).stderr
    assert "[config.invalid]" in run("replay", "s1", *same, folder=tmp_path).stderr


def test_a_database_without_tables_is_left_alone_unless_they_are_asked_for(tmp_path: Path) -> None:
    found = run("migrate", "--dsn", "typo.db", folder=tmp_path)
    assert (found.returncode, found.stdout, list(tmp_path.iterdir())) == (1, "", [])
    assert "--create" in found.stderr
    made = json.loads(run("migrate", "--create", "--json", "--dsn", "new.db", folder=tmp_path).stdout)
    assert made["is_done"]
    assert "table pl_sessions" in made["made"]
    assert run("ddl", "--missing", "--dsn", "new.db", folder=tmp_path).stdout == ""
    assert run("migrate", "--dsn", "new.db", folder=tmp_path).stdout == "nothing is lacking\n"


def test_a_statement_of_every_kind_is_named() -> None:
    from power_loop.cli.migrate import _MAKES, _made

    for dsn in ("sqlite.db", "postgresql://", "mysql://"):
        named = [_made(found) for found in _MAKES.finditer(schema_ddl(dsn))]
        assert len(named) == len(re.findall(r"^CREATE ", schema_ddl(dsn), re.MULTILINE)), dsn
