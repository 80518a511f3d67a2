"""A window holds what the store holds, knows when it no longer does, and the cache of windows is bounded."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from power_loop.contracts.messages import (
    ImagePart,
    Message,
    OpaquePart,
    ReasoningPart,
    RefusalPart,
    Role,
    TextPart,
    ToolCallPart,
    tool_message,
    user_message,
)
from power_loop.contracts.records import MessageRecord, SessionRecord, SessionView
from power_loop.contracts.states import SessionState
from power_loop.core.context.window import Window, WindowCache
from tests.core.context.logs import wild_logs


def view_of(messages: list[Message], *, first_seq: int = 1, epoch: int = 4) -> SessionView:
    """What a store reads of a session with this log."""
    session = SessionRecord(
        id="sess_1",
        state=SessionState.OPEN,
        system_prompt="Be brief.",
        metadata={"tenant": "t"},
        created_at_ms=0,
        updated_at_ms=0,
        next_seq=first_seq + len(messages),
        send_count=1,
        version=2,
        owner=None,
        epoch=epoch,
        lease_until_ms=0,
    )
    records = tuple(MessageRecord(seq, 1, 1, message, 0) for seq, message in enumerate(messages, first_seq))
    return SessionView(session, None, (), records, {"count": 1})


def assistant(*parts: object) -> Message:
    return Message(Role.ASSISTANT, parts)  # type: ignore[arg-type]


def window_of(session_id: str, *texts: str) -> Window:
    window = Window(session_id)
    window.append([user_message(text) for text in texts])
    return window


# ---- the window ----


def test_a_window_of_a_view_holds_what_was_read() -> None:
    messages = [user_message("hi"), assistant(TextPart("Hello."))]
    window = Window.of(view_of(messages))
    assert (window.session_id, window.system_prompt, window.version, window.epoch) == ("sess_1", "Be brief.", 2, 4)
    assert (window.metadata, window.tool_state, window.next_seq) == ({"tenant": "t"}, {"count": 1}, 3)
    assert [entry.message for entry in window.entries] == messages


@settings(max_examples=100)
@given(wild_logs, st.data())
def test_a_window_that_grew_equals_one_that_was_read(log: list[Message], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(log)))
    grown = Window.of(view_of(log[:cut]))
    for message in log[cut:]:
        if data.draw(st.booleans(), label="look"):
            grown.transcript.view()
        grown.append([message], grown.next_seq)
    read = Window.of(view_of(log))
    assert grown.next_seq == read.next_seq
    assert grown.size_bytes == read.size_bytes
    assert grown.transcript.tokens == read.transcript.tokens
    assert grown.transcript.problems == read.transcript.problems
    assert grown.last_text() == read.last_text()
    views = zip(grown.transcript.view(), read.transcript.view(), strict=True)
    assert all(one is other for one, other in views)


def test_messages_behind_a_gap_are_refused() -> None:
    window = window_of("sess_1", "a", "b")
    with pytest.raises(ValueError, match="ends before seq 3, and the messages begin at 4"):
        window.append([user_message("c")], 4)
    assert window.next_seq == 3
    window.append([user_message("c"), user_message("d")], 3)
    assert window.next_seq == 5


def test_a_window_is_current_only_where_the_head_stands_where_it_stood() -> None:
    window = Window.of(view_of([user_message("hi")]))
    assert window.is_current(2, 2)
    assert not window.is_current(3, 2)
    assert not window.is_current(2, 3)
    assert window.is_current(2, 2, epoch=5)
    assert not window.is_current(2, 2, epoch=6)


def test_last_text_is_that_of_the_last_reply_that_says_something() -> None:
    log = [
        user_message("hi"),
        assistant(TextPart("Hello.")),
        user_message("add"),
        assistant(ToolCallPart("c1", "add", "{}")),
        tool_message("c1", (TextPart("3"),)),
    ]
    window = Window.of(view_of(log))
    assert window.last_text() == (2, "Hello.")
    assert window.last_text(since_seq=2) == (2, "Hello.")
    assert window.last_text(since_seq=3) is None
    window.append([assistant(TextPart("Three."))])
    assert window.last_text(since_seq=3) == (6, "Three.")
    assert Window("sess_2").last_text() is None


def test_has_call_knows_every_call_of_the_session() -> None:
    window = Window.of(view_of([user_message("hi"), assistant(ToolCallPart("c1", "add", "{}"))]))
    assert window.has_call("c1")
    assert not window.has_call("c2")


@pytest.mark.parametrize(
    "message",
    [
        user_message("x" * 10_000),
        user_message([ImagePart(data="x" * 10_000)]),
        assistant(ToolCallPart("c1", "add", "x" * 10_000)),
        assistant(ReasoningPart("", "x" * 10_000)),
        assistant(OpaquePart("x" * 10_000)),
        assistant(RefusalPart("x" * 10_000)),
        tool_message("c1", (TextPart("x" * 10_000),)),
    ],
)
def test_the_size_of_a_window_counts_every_kind_of_part(message: Message) -> None:
    window = Window("sess_1")
    window.append([message])
    assert 10_000 < window.size_bytes < 50_000


# ---- the cache ----


def test_a_window_that_is_taken_is_gone_until_it_is_put_back() -> None:
    cache, window = WindowCache(), window_of("sess_1", "hi")
    assert cache.take("sess_1") is None
    cache.put(window)
    assert cache.take("sess_1") is window
    assert cache.take("sess_1") is None
    assert (len(cache), cache.size_bytes) == (0, 0)


def test_those_used_longest_ago_leave_first() -> None:
    cache = WindowCache(max_sessions=3)
    for name in "abc":
        cache.put(window_of(name, "hi"))
    again = cache.take("a")
    assert again is not None
    cache.put(again)
    cache.put(window_of("d", "hi"))
    assert [name for name in "abcd" if cache.take(name) is not None] == ["a", "c", "d"]


def test_the_bytes_of_all_windows_are_bounded_as_they_were_when_put() -> None:
    one = window_of("a", "x" * 1000)
    cache = WindowCache(max_bytes=3 * one.size_bytes)
    cache.put(one)
    cache.put(window_of("b", "x" * 1000))
    cache.put(window_of("c", "x" * 1000))
    assert cache.size_bytes == 3 * one.size_bytes
    grown = cache.take("c")
    assert grown is not None
    grown.append([user_message("x" * 1000)])
    cache.put(grown)
    assert cache.take("a") is None
    assert cache.size_bytes <= 3 * one.size_bytes
    cache.put(window_of("huge", *["x" * 1000] * 4))
    assert (len(cache), cache.size_bytes) == (0, 0)


def test_putting_a_session_again_replaces_its_window() -> None:
    cache, new = WindowCache(), window_of("a", "new")
    cache.put(window_of("a", "old", "old"))
    cache.put(new)
    assert (len(cache), cache.size_bytes) == (1, new.size_bytes)
    assert cache.take("a") is new


def test_threads_that_share_a_cache_each_get_a_window_at_most_once() -> None:
    cache, gate, taken = WindowCache(max_sessions=50), threading.Barrier(4), list[Window]()

    def work() -> None:
        gate.wait()
        for round in range(300):
            found = cache.take(f"s{round % 10}")
            if found is not None:
                taken.append(found)
                found.append([user_message("hi")])
                cache.put(found)

    for number in range(10):
        cache.put(window_of(f"s{number}", "hi"))
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    left = [cache.take(f"s{number}") for number in range(10)]
    assert all(left)
    assert sum(len(window.entries) for window in left if window) == 10 + len(taken)
    assert cache.size_bytes == 0
