"""The projection: finished sends as plain text, in rows that come with the end of a send; and the search of the log."""

from __future__ import annotations

from typing import Any

from power_loop import Message, SendStatus, SessionStore, TextPart
from power_loop.errors import InputError, LeaseLostError, SessionNotFoundError, StoreCorruptError
from power_loop.messages import Role, ToolCallPart
from power_loop.records import ProjectedMessage
from power_loop.storage import NewReply, SendEnd
from power_loop.testing.conformance.cases import check, raises
from power_loop.testing.conformance.folds import fold, long_send
from power_loop.testing.conformance.parts import (
    COMPLETED,
    accepted,
    claim,
    model_call,
    new_session,
    one_send,
    reply,
    reply_with_calls,
    result_step,
)


def row(seq: int, to_seq: int, text: str = "done") -> ProjectedMessage:
    """Return a row of the projection."""
    return ProjectedMessage(seq, to_seq, Message(Role.ASSISTANT, (TextPart(text),)))


def end_with(*rows: ProjectedMessage, status: SendStatus = SendStatus.COMPLETED) -> SendEnd:
    """Return an end of a send with its rows."""
    return SendEnd(status, {"text_seq": 2}, rows)


async def projected_send(store: SessionStore, at_seq: int, *rows: ProjectedMessage) -> None:
    """Make a send of an input, a round of one call and an answer: four messages from `at_seq` on."""
    held = await accepted(store, "sess_1", text=f"input {at_seq}")
    await store.append_reply(held.lease, reply_with_calls(held, f"c{at_seq}"))
    step = result_step(at_seq + 1, 0, f"c{at_seq}", f"result {at_seq}")
    await store.advance_calls(held.lease, [step], at_seq=at_seq + 2, send_index=held.send_index, round=1)
    end = end_with(*rows)
    await store.append_reply(held.lease, reply(held, f"answer {at_seq}", at_seq=at_seq + 3, round=2, end=end))


async def shown(store: SessionStore) -> list[Any]:
    """Return what a view with the projection shows, in order: seqs of messages, and ranges of rows."""
    view = await store.read_view("sess_1", projected=True)
    rows = [(one.seq, (one.seq, one.to_seq)) for one in view.projected]
    return [what for _, what in sorted(rows + [(one.seq, one.seq) for one in view.messages], key=lambda one: one[0])]


@check()
async def rows_stand_in_the_view_for_what_they_were_made_of(store: SessionStore) -> None:
    await new_session(store)
    await projected_send(store, 1, row(2, 3, "–言葉–"))
    await projected_send(store, 5, row(5, 8))
    await projected_send(store, 9)
    await projected_send(store, 13, row(13, 13), row(14, 15), row(16, 16))
    assert await shown(store) == [1, (2, 3), 4, (5, 8), 9, 10, 11, 12, (13, 13), (14, 15), (16, 16)]
    view = await store.read_view("sess_1")
    assert (view.projected, len(view.messages)) == ((), 16), "who does not ask sees the log"
    with_rows = await store.read_view("sess_1", projected=True)
    assert with_rows.projected[0] == row(2, 3, "–言葉–")
    assert with_rows.messages == tuple(one for one in view.messages if one.seq in (1, 4, 9, 10, 11, 12))


@check()
async def many_gaps_between_rows_are_read_in_order(store: SessionStore) -> None:
    await new_session(store)
    for number in range(70):
        held = await accepted(store, "sess_1", text=str(number))
        at_seq = held.next_seq
        await store.append_reply(held.lease, reply(held, at_seq=at_seq, end=end_with(row(at_seq, at_seq))))
    view = await store.read_view("sess_1", projected=True)
    assert [one.seq for one in view.messages] == list(range(1, 141, 2))
    assert [one.seq for one in view.projected] == list(range(2, 141, 2))
    assert [one.message.text for one in view.messages] == [str(number) for number in range(70)]


@check()
async def rows_that_a_fold_cuts_into_are_shown_no_more(store: SessionStore) -> None:
    await new_session(store)
    await projected_send(store, 1, row(1, 2), row(3, 4))
    await projected_send(store, 5, row(5, 8))
    held = await accepted(store, "sess_1")
    await store.append_fold(held.lease, fold(2, send_index=3), at_seq=10)
    assert await shown(store) == [(3, 4), (5, 8), 9]
    await store.append_fold(held.lease, fold(6, send_index=3), at_seq=10)
    assert await shown(store) == [7, 8, 9], "a row that begins before the fold's end stands for folded messages"
    await store.append_fold(held.lease, fold(8, send_index=3), at_seq=10)
    assert await shown(store) == [9]


@check()
async def rows_come_with_the_end_of_the_send_or_not_at_all(store: SessionStore) -> None:
    await new_session(store)
    held = await accepted(store, "sess_1")
    for wrong in ((row(2, 2), row(1, 1)), (row(1, 2), row(2, 2)), (row(2, 1),), (row(0, 1),)):
        with raises(StoreCorruptError):
            await store.append_reply(held.lease, reply(held, end=end_with(*wrong)))
    with raises(LeaseLostError):
        await store.append_reply(held.lease, reply(held, at_seq=3, end=end_with(row(1, 2))))
    assert await shown(store) == [1]
    await store.append_reply(held.lease, reply(held, end=end_with(row(1, 2))))
    assert await shown(store) == [(1, 2)]
    held = await accepted(store, "sess_1")
    await store.end_send(held.lease, held.send_index, end_with(row(3, 3)))
    assert await shown(store) == [(1, 2), (3, 3)]


@check()
async def a_send_that_is_taken_up_and_ends_again_has_its_rows_once(store: SessionStore) -> None:
    await new_session(store)
    await one_send(store, "sess_1")
    held = await accepted(store, "sess_1")
    await store.end_send(held.lease, held.send_index, end_with(row(3, 3, "failed"), status=SendStatus.FAILED))
    taken = await store.take_up(claim("sess_1"))
    await store.append_reply(taken.lease, reply(held, at_seq=4, end=end_with(row(3, 4, "done"))))
    view = await store.read_view("sess_1", projected=True)
    assert view.projected == (row(3, 4, "done"),)
    assert [one.seq for one in view.messages] == [1, 2]


# ---- search ----


@check()
async def a_search_finds_what_was_said_called_and_answered_whatever_its_case(store: SessionStore) -> None:
    await new_session(store)
    held = await accepted(store, "sess_1", text="Where is the STRASSE to 東京都?")
    call = ToolCallPart("c1", "look_up", '{"word":"Kyōto%_\\\\"}')
    wanted = NewReply(2, 1, 1, (Message(Role.ASSISTANT, (call,)),), model_call(), end=COMPLETED)
    await store.append_reply(held.lease, wanted)
    await one_send(store, "sess_1", text="nothing", back="The straße is in 京都")

    async def seqs(text: str, **bounds: Any) -> list[int]:
        found, further = await store.search_messages("sess_1", text, **bounds)
        assert further is None
        return [one.seq for one in found]

    assert await seqs("strasse") == [1, 4], "folded for case as people read it"
    assert await seqs("京都") == [1, 4]
    assert await seqs("東京") == [1]
    assert await seqs("LOOK_UP") == [2]
    assert await seqs("kyōto%_") == [2], "no character is special"
    assert await seqs("%") == [2]
    assert await seqs("assistant") == []
    assert await seqs("京都", after_seq=1) == [4]
    assert await seqs("京都", to_seq=3) == [1]
    found, _ = await store.search_messages("sess_1", "東京")
    assert found == (await store.get_messages("sess_1"))[:1]


@check()
async def a_search_goes_page_by_page_and_never_looks_at_a_whole_session_at_once(store: SessionStore) -> None:
    await new_session(store)
    for number in range(10):
        await one_send(store, "sess_1", text=f"needle {number}", back="hay")
    seen: list[int] = []
    after_seq: int | None = 0
    while after_seq is not None:
        page, after_seq = await store.search_messages("sess_1", "needle", after_seq=after_seq, limit=3)
        assert len(page) <= 3
        seen += [one.seq for one in page]
    assert seen == list(range(1, 20, 2))
    page, after_seq = await store.search_messages("sess_1", "hay", limit=10)
    assert (len(page), after_seq) == (10, None), "the last message was found last: there is no more"


@check()
async def a_search_for_nothing_is_refused(store: SessionStore) -> None:
    await new_session(store)
    for text, limit in (("", 1), ("a", 0), ("a", 1001), ("a", -1)):
        with raises(InputError):
            await store.search_messages("sess_1", text, limit=limit)
    with raises(SessionNotFoundError):
        await store.search_messages("sess_none", "a")
    assert await store.search_messages("sess_1", "a") == ((), None)


@check()
async def what_a_fold_covers_is_found_all_the_same(store: SessionStore) -> None:
    await new_session(store)
    held = await long_send(store)
    await store.append_fold(held.lease, fold(7), at_seq=8)
    found, _ = await store.search_messages("sess_1", "found")
    assert [one.seq for one in found] == [3, 5, 7]
