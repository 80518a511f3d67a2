"""Notes and the list of things to do are the session's: bounded, durable, forked, and shown behind all messages."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from power_loop import StatefulAgentLoop, ToolDefinition
from power_loop.context import LiveContext
from power_loop.errors import ConfigError, ToolError
from power_loop.testing import ScriptedLLM, call, calls
from power_loop.tools import NotesPolicy, TodoPolicy, notes_tools, todo_tools
from power_loop.tools.notes import Notes
from power_loop.tools.one_line import one_line
from power_loop.tools.todo import todo_items


def _shown(tools: tuple[ToolDefinition, ...], state: dict[str, Any]) -> str | None:
    live = tools[0].live
    assert live is not None
    return live.show(LiveContext("sess_1", 1, 1, {}, state))


def _results(llm: ScriptedLLM) -> list[str]:
    """The texts of the results that the last request shows."""
    return [
        part.content[0].text
        for message in llm.requests[-1].messages
        for part in message.parts
        if hasattr(part, "call_id")
    ]


@pytest.mark.promise("notes-and-todo")
async def test_notes_are_written_read_listed_and_removed_and_shown_at_each_call(tmp_path: Any) -> None:
    llm = ScriptedLLM(
        [
            calls(
                ("note_write", {"title": "door", "text": "Code 4711."}),
                ("note_write", {"title": "host", "text": "Ann"}),
            ),
            calls(("note_read", {"title": "door"}), ("note_list", {}), ("note_remove", {"title": "host"})),
            "Done.",
        ]
    )
    async with StatefulAgentLoop(llm=llm, dsn=str(tmp_path / "a.db"), tool_registry=notes_tools()) as loop:
        sid = await loop.new_session()
        await loop.send("Remember the door.", session_id=sid)
    tails = [request.tail or "" for request in llm.requests]
    assert tails[0] == ""
    assert tails[1].splitlines()[1:] == ["<notes>", '- "door": "Code 4711."', '- "host": "Ann"', "</notes>"]
    assert tails[2].splitlines()[1:] == ["<notes>", '- "door": "Code 4711."', "</notes>"]
    assert _results(llm) == [
        "Note kept.",
        "Note kept.",
        "Code 4711.",
        '- "door" (10 characters): "Code 4711."\n- "host" (3 characters): "Ann"',
        "Note removed.",
    ]
    # Another process finds them.
    later = ScriptedLLM(["4711."])
    async with StatefulAgentLoop(llm=later, dsn=str(tmp_path / "a.db"), tool_registry=notes_tools()) as loop:
        await loop.send("What is the code?", session_id=sid)
    assert later.requests[0].tail == tails[2]


@pytest.mark.promise("notes-and-todo")
async def test_a_fork_has_the_notes_and_the_list_of_its_origin_and_changes_its_own(tmp_path: Any) -> None:
    tools = [*notes_tools(), *todo_tools()]
    llm = ScriptedLLM(
        [
            calls(("note_write", {"title": "a", "text": "1"}), ("todo", {"items": [{"text": "x"}]})),
            "Done.",
            call("note_write", {"title": "a", "text": "2"}),
            "Changed.",
            "Same.",
        ]
    )
    async with StatefulAgentLoop(llm=llm, dsn=str(tmp_path / "a.db"), tool_registry=tools) as loop:
        sid = await loop.new_session()
        await loop.send("Go.", session_id=sid)
        store: Any = await loop.get_store()
        fork = await store.fork_session(sid)
        await loop.send("Change it.", session_id=fork)
        await loop.send("And here?", session_id=sid)
    assert '"a": "2"' in (llm.requests[3].tail or "")
    for request in (llm.requests[2], llm.requests[4]):
        assert '"a": "1"' in (request.tail or "")
        assert '- [ ] "x"' in (request.tail or "")


async def test_the_list_of_things_to_do_is_written_anew_and_cleared(tmp_path: Any) -> None:
    items = [{"text": "Read\nit", "status": "done"}, {"text": "Write it", "status": "in_progress"}, {"text": "Send it"}]
    llm = ScriptedLLM([call("todo", {"items": items}), call("todo", {"items": []}), "Done."])
    async with StatefulAgentLoop(llm=llm, dsn=str(tmp_path / "a.db"), tool_registry=todo_tools()) as loop:
        await loop.send("Go.", session_id=await loop.new_session())
    tails = [request.tail or "" for request in llm.requests]
    assert tails[1].splitlines()[2:-1] == ['- [x] "Read it"', '- [>] "Write it"', '- [ ] "Send it"']
    assert tails[2] == ""
    assert _results(llm) == ["The list is kept: 1 of 3 done.", "The list is empty."]


async def test_what_does_not_fit_is_answered_with_what_to_do_and_changes_nothing(tmp_path: Any) -> None:
    policy = NotesPolicy(max_notes=2, max_chars=10, max_total_chars=16)
    tools = [*notes_tools(policy), *todo_tools(TodoPolicy(max_items=1, max_item_chars=5))]
    llm = ScriptedLLM(
        [
            call("note_write", {"title": "a", "text": "12345678"}),
            call("note_write", {"title": "b", "text": "x" * 11}),
            call("note_write", {"title": "b", "text": "1234567"}),
            call("note_write", {"title": "b", "text": "123456"}),
            call("note_write", {"title": "c", "text": "1"}),
            call("note_write", {"title": " \n", "text": "1"}),
            call("note_write", {"title": "a", "text": " "}),
            call("note_read", {"title": "z"}),
            call("note_remove", {"title": "z"}),
            call("todo", {"items": [{"text": "1"}, {"text": "2"}]}),
            call("todo", {"items": [{"text": "123456"}]}),
            "Done.",
        ]
    )
    async with StatefulAgentLoop(llm=llm, dsn=str(tmp_path / "a.db"), tool_registry=tools) as loop:
        await loop.send("Go.", session_id=await loop.new_session())
    results = _results(llm)
    for at, words in {
        1: "11 characters and may have 10",
        2: "17 characters and may have 16",
        4: "titles are 'a', 'b'",
        5: "title has 0 characters",
        6: "is empty",
        7: "there is no note 'z': the titles are 'a', 'b'",
        8: "there is no note 'z'",
        9: "2 items and may have 1",
        10: "item 1 has 6 characters: give 1 to 5",
    }.items():
        assert words in results[at]
    assert (llm.requests[-1].tail or "").splitlines()[1:] == [
        "<notes>",
        '- "a": "12345678"',
        '- "b": "123456"',
        "</notes>",
    ]


def test_many_notes_are_shown_as_an_index_within_bounds() -> None:
    state: dict[str, Any] = {}
    notes = Notes(state)
    for number in range(10):
        notes.write(f"note {number}", f"line {number}\n" + "x" * 3_000)
    text = _shown(notes_tools(), state) or ""
    assert '- "note 3" (3,007 characters): "line 3…"' in text
    assert len(text) < 1_000
    assert notes.read("note 3").endswith("xxx")


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    )
)
def test_whatever_somebody_put_into_the_state_is_shown_without_an_error(value: Any) -> None:
    state = {"notes": value, "todo": value}
    for tools in (notes_tools(), todo_tools()):
        assert isinstance(_shown(tools, state), (str, type(None)))
    assert all(isinstance(text, str) for text in Notes(state).texts.values())
    assert todo_items(state) == ()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.text(), st.text()), max_size=5))
def test_no_text_ends_the_frame_in_which_it_is_shown(pairs: list[tuple[str, str]]) -> None:
    state: dict[str, Any] = {}
    notes = Notes(state)
    for title, text in pairs:
        with contextlib.suppress(ToolError):
            notes.write(title, text)
    shown = _shown(notes_tools(), state)
    if not notes.texts:
        assert shown is None
        return
    lines = (shown or "").splitlines()
    assert lines[1] == "<notes>"
    assert lines[-1] == "</notes>"
    assert len(lines) == 3 + len(notes.texts)
    for line, (title, text) in zip(lines[2:], notes.texts.items(), strict=False):
        assert json.loads("[" + line[2:].replace('": "', '", "', 1) + "]") == [title, text] or '": "' in title


@given(st.text())
def test_a_quoted_line_is_one_line_and_gives_its_text_back(text: str) -> None:
    line = one_line(text)
    assert json.loads(line) == text
    assert len(line.splitlines()) == 1
    assert "</" not in line


@pytest.mark.parametrize(
    "make",
    [
        lambda: NotesPolicy(max_notes=0),
        lambda: NotesPolicy(shown_chars=10**6),
        lambda: NotesPolicy(max_chars=True),
        lambda: TodoPolicy(max_items=0),
        lambda: TodoPolicy(max_item_chars=10**6),
    ],
)
def test_a_policy_without_sense_is_refused(make: Any) -> None:
    with pytest.raises(ConfigError, match="whole number from"):
        make()
