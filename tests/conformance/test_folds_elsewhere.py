"""Folds, projections and data go with forks, archives and prunes, and nothing points at what is gone."""

from __future__ import annotations

from typing import Any

import pytest

from power_loop.contracts.diagnosis import FindingKind
from power_loop.contracts.errors import InputError, ResultPrunedError, SessionBusyError
from power_loop.contracts.llm import Usage
from power_loop.contracts.messages import AudioPart, FilePart, ImagePart, Message, Role, TextPart
from power_loop.contracts.records import NewReply, NewSend, SendEnd
from power_loop.contracts.states import SendStatus
from power_loop.contracts.upkeep import Pruned
from power_loop.runtime.store.codec import MIN_BLOB_CHARS
from power_loop.runtime.store.store import SqlSessionStore
from power_loop.testing.conformance.folds import fold
from power_loop.testing.conformance.projections import end_with, row
from tests.conformance.parts import (
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

BIG = "QUJD" * (MIN_BLOB_CHARS // 4)
SMALL = BIG[4:]


async def sends(store: SqlSessionStore, count: int, session_id: str = "sess_1") -> None:
    """Make sends of two messages each, whose recorded answers are known."""
    for _ in range(count):
        held = await accepted(store, session_id)
        end = SendEnd(SendStatus.COMPLETED, {"text_seq": held.next_seq})
        await store.append_reply(held.lease, reply(held, end=end))


async def fold_up_to(store: SqlSessionStore, to_seq: int, session_id: str = "sess_1", **members: Any) -> None:
    """Fold in a send of two messages."""
    held = await accepted(store, session_id)
    wanted = fold(to_seq, send_index=held.send_index, **members)
    await store.append_fold(held.lease, wanted, at_seq=held.next_seq)
    end = SendEnd(SendStatus.COMPLETED, {"text_seq": held.next_seq})
    await store.append_reply(held.lease, reply(held, end=end))


async def problems(store: SqlSessionStore, session_id: str | None = None, *, repair: bool = False) -> list[str]:
    return [one.check async for one in store.diagnose(session_id, repair=repair) if one.is_problem]


async def shown(store: SqlSessionStore, session_id: str) -> tuple[int | None, list[int], list[int]]:
    """Return up to where the fold of a session stands, what is pinned, and what is shown behind it."""
    view = await store.read_view(session_id)
    to_seq = None if view.fold is None else view.fold.to_seq
    return to_seq, [one.seq for one in view.pinned], [one.seq for one in view.messages]


# ---- forks ----


async def test_a_fork_sees_the_folds_that_were_made_before_it_left(store: SqlSessionStore) -> None:
    await new_session(store)
    await sends(store, 3)
    before = await store.fork_session("sess_1", at=6, fork_id="before")
    inside = await store.fork_session("sess_1", at=2, fork_id="inside")
    await fold_up_to(store, 4, pinned_seqs=(3,))
    after = await store.fork_session("sess_1", fork_id="after")
    between = await store.fork_session("sess_1", at=7, fork_id="between")
    assert await shown(store, "sess_1") == (4, [3], [5, 6, 7, 8])
    assert await shown(store, after) == (4, [3], [5, 6, 7, 8])
    # The fold came later than those, and no other session changes what they see.
    assert await shown(store, before) == (None, [], [1, 2, 3, 4, 5, 6])
    assert await shown(store, inside) == (None, [], [1, 2])
    assert await shown(store, between) == (None, [], [1, 2, 3, 4, 5, 6, 7])
    # A fork folds what it shares under its own id; what others see stays.
    await fold_up_to(store, 5, before)
    assert await shown(store, before) == (5, [], [6, 7, 8])
    assert (await store.get_folds(before))[0].from_seq == 1
    await fold_up_to(store, 6, after)
    assert [(one.from_seq, one.to_seq) for one in await store.get_folds(after)] == [(1, 4), (5, 6)]
    assert await shown(store, "sess_1") == (4, [3], [5, 6, 7, 8])
    await fold_up_to(store, 8)
    assert await shown(store, after) == (6, [], [7, 8, 9, 10])
    assert await problems(store) == []


async def test_a_fork_shows_the_rows_that_ended_before_it_left(store: SqlSessionStore) -> None:
    await new_session(store)
    for number in range(2):
        held = await accepted(store, "sess_1")
        at_seq = 2 * number + 1
        await store.append_reply(held.lease, reply(held, end=end_with(row(at_seq, at_seq + 1, f"send {number}"))))
    fork = await store.fork_session("sess_1", at=3)
    view = await store.read_view(fork, projected=True)
    assert [one.message.text for one in view.projected] == ["send 0"]
    assert [one.seq for one in view.messages] == [3]
    held = await accepted(store, fork)
    await store.append_reply(held.lease, reply(held, end=end_with(row(4, 5, "of the fork"))))
    view = await store.read_view(fork, projected=True)
    assert [one.message.text for one in view.projected] == ["send 0", "of the fork"]
    archive = await store.export_session(fork)
    await store.import_session(archive, session_id="copy")
    assert (await store.read_view("copy", projected=True)).projected == view.projected
    assert await problems(store) == []


async def test_what_folds_cost_before_a_fork_left_counts_for_it(store: SqlSessionStore) -> None:
    await new_session(store)
    await sends(store, 2)
    await fold_up_to(store, 2, model_calls=2, usage=Usage(100, 10))
    fork = await store.fork_session("sess_1")
    early = await store.fork_session("sess_1", at=4)
    assert (await store.get_stats(fork)).usage == Usage(130, 19)
    assert (await store.get_stats(early)).usage == Usage(20, 6)
    assert (await store.get_send(fork, index=3)) is not None
    assert (await store.get_send(fork, index=3)).usage == Usage(110, 13)  # type: ignore[union-attr]


# ---- archives ----


async def a_session_with_everything(store: SqlSessionStore) -> None:
    await new_session(store)
    held = await store.accept(claim("sess_1"), media_send(BIG))
    await store.append_reply(held.lease, reply_with_calls(held, "c1"))
    step = result_step(2, 0, "c1", "a part", whole=(TextPart("whole"), FilePart(data=BIG, filename="a.pdf")))
    await store.advance_calls(held.lease, [step], at_seq=3, send_index=1, round=1)
    rows = (row(2, 3), row(4, 4))
    end = SendEnd(SendStatus.COMPLETED, {"text_seq": 4}, rows)
    await store.append_reply(held.lease, reply(held, at_seq=4, round=2, end=end))
    await sends(store, 2)
    await fold_up_to(store, 2, pinned_seqs=(1,), model="m", usage=Usage(1, 2, 3, 4, 5), tokens_before=7, text_seq=2)
    await fold_up_to(store, 4, pinned_seqs=(1,))


async def test_folds_rows_and_data_go_with_an_archive(store: SqlSessionStore) -> None:
    await a_session_with_everything(store)
    view = await store.read_view("sess_1", projected=True)
    archive = await store.export_session("sess_1")
    assert archive.count(BIG.encode()) == 1, "however often it is shown"
    await store.import_session(archive, session_id="copy")
    copied = await store.read_view("copy", projected=True)
    assert (copied.messages, copied.pinned, copied.projected) == (view.messages, view.pinned, view.projected)
    assert [one.summary for one in await store.get_folds("copy")] == [
        one.summary for one in await store.get_folds("sess_1")
    ]
    assert await store.get_tool_result("copy", "c1") == await store.get_tool_result("sess_1", "c1")
    assert (await store.export_session("copy")).partition(b"\n")[2] == archive.partition(b"\n")[2]
    assert await problems(store) == []


async def test_a_fork_s_archive_holds_its_ancestors_data_and_folds(store: SqlSessionStore) -> None:
    await a_session_with_everything(store)
    fork = await store.fork_session("sess_1")
    await store.append_reply((held := await accepted(store, fork)).lease, reply(held, end=COMPLETED))
    archive = await store.export_session(fork)
    await store.import_session(archive, session_id="copy")
    assert await store.get_messages("copy") == await store.get_messages(fork)
    assert len(await store.get_folds("copy")) == 2
    await store.delete_session(fork)
    await store.delete_session("sess_1")
    assert (await store.get_messages("copy"))[0].message.parts[0] == ImagePart(data=BIG)
    assert await problems(store) == []


# ---- data ----


def media_send(*data: str) -> NewSend:
    return NewSend(Message(Role.USER, tuple(ImagePart(data=one) for one in data)), "h", {})


async def test_media_of_every_kind_come_back_exactly_and_stand_once(store: SqlSessionStore) -> None:
    await new_session(store)
    parts = (
        TextPart('no "blob":"' + "a" * 64 + '" at all'),
        ImagePart("image/jpeg", BIG, detail="low"),
        ImagePart("image/png", SMALL),
        ImagePart("image/png", url="https://example.org/a.png"),
        FilePart("application/pdf", BIG, filename="blob.pdf"),
        FilePart("application/pdf", file_id="file-1"),
        AudioPart(BIG + "RA==", "mp3"),
        # Not what base64 is, and still exactly what was given.
        ImagePart("image/png", "ä" * MIN_BLOB_CHARS),
        ImagePart("image/png", "a\0" * MIN_BLOB_CHARS),
    )
    for number in range(20):
        held = await store.accept(claim("sess_1"), NewSend(Message(Role.USER, parts), f"h{number}", {}))
        await store.append_reply(held.lease, reply(held, end=COMPLETED))
    messages = await store.get_messages("sess_1")
    assert [one.message.parts for one in messages if one.message.role is Role.USER] == [parts] * 20
    stats = await store.get_stats("sess_1")
    inline = 20 * (MIN_BLOB_CHARS * (1 + 2 + 7) + 2000)
    assert stats.stored_bytes < inline, "data of 4,096 characters and more is stored once"
    fork = await store.fork_session("sess_1", at=2)
    assert (await store.read_view(fork)).messages[0].message.parts == parts
    held = await store.accept(claim(fork), media_send(BIG))
    await store.append_reply(held.lease, reply(held, end=COMPLETED))
    assert [one.message for one in await store.get_messages(fork)][2].parts == (ImagePart(data=BIG),)
    found, _ = await store.search_messages("sess_1", "blob.pdf", limit=2)
    assert [one.message.parts for one in found] == [parts, parts]


async def test_an_input_that_waits_takes_its_data_into_the_log(store: SqlSessionStore) -> None:
    await new_session(store)
    queued = await store.put_input("sess_1", media_send(BIG))
    [waiting] = await store.get_inbox("sess_1")
    assert waiting.message == media_send(BIG).message
    wanted = NewSend(waiting.message, "h", {}, inbox_position=queued.record.position)
    held = await store.accept(claim("sess_1"), wanted)
    await store.append_reply(held.lease, reply(held, end=COMPLETED))
    assert (await store.get_messages("sess_1"))[0].message == waiting.message
    assert await problems(store) == []


async def test_results_replies_and_rows_share_the_data_of_a_session(store: SqlSessionStore) -> None:
    await new_session(store)
    held = await accepted(store, "sess_1")
    await store.append_reply(held.lease, reply_with_calls(held, "c1"))
    big = (ImagePart(data=BIG),)
    step = result_step(2, 0, "c1", whole=(*big, TextPart("whole")))
    await store.advance_calls(held.lease, [step], at_seq=3, send_index=1, round=1)
    answer = Message(Role.ASSISTANT, big)
    rows = end_with(row(2, 3))
    shown_row = rows.projection[0].__class__(4, 4, Message(Role.ASSISTANT, big))
    end = SendEnd(SendStatus.COMPLETED, {"text_seq": 4}, (*rows.projection, shown_row))
    await store.append_reply(held.lease, NewReply(4, 1, 2, (answer,), model_call(), end=end))
    assert await store.get_tool_result("sess_1", "c1") == (*big, TextPart("whole"))
    view = await store.read_view("sess_1", projected=True)
    assert view.projected[-1].message.parts == big
    assert (await store.get_stats("sess_1")).stored_bytes < 2 * len(BIG)
    held = await accepted(store, "sess_1")
    end = end_with(shown_row.__class__(5, 5, Message(Role.ASSISTANT, (ImagePart(data=BIG + "RA=="),))))
    await store.end_send(held.lease, held.send_index, end)
    view = await store.read_view("sess_1", projected=True)
    assert view.projected[-1].message.parts == (ImagePart(data=BIG + "RA=="),)
    assert await problems(store) == []


async def test_data_goes_with_the_last_that_shows_it(store: SqlSessionStore) -> None:
    await new_session(store)
    held = await store.accept(claim("sess_1"), media_send(BIG, BIG + "RA=="))
    await store.append_reply(held.lease, reply_with_calls(held, "c1"))
    step = result_step(2, 0, "c1", whole=(ImagePart(data=BIG + "RUY="), TextPart("x" * 100)))
    await store.advance_calls(held.lease, [step], at_seq=3, send_index=1, round=1)
    end = SendEnd(SendStatus.COMPLETED, {"text_seq": 4})
    await store.append_reply(held.lease, reply(held, at_seq=4, round=2, end=end))
    held = await store.accept(claim("sess_1"), media_send(BIG))
    await store.append_reply(held.lease, reply(held, end=SendEnd(SendStatus.COMPLETED, {"text_seq": 6})))
    before = (await store.get_stats("sess_1")).stored_bytes
    told: list[Pruned] = []
    gone = await store.prune_tool_results("sess_1", on_progress=told.append)
    after = (await store.get_stats("sess_1")).stored_bytes
    assert before - after > len(BIG), "the whole result was the only one that showed it"
    assert gone == Pruned(rows=2, freed_bytes=before - after), "the result and the data"
    assert told[-1] == gone
    await fold_up_to(store, 4)
    gone = await store.prune_compacted_messages("sess_1")
    assert gone.freed_bytes > len(BIG)
    assert (await store.get_stats("sess_1")).stored_bytes < after - len(BIG)
    assert (await store.get_messages("sess_1", after_seq=4))[0].message.parts == (ImagePart(data=BIG),)
    assert await problems(store) == []
    assert (await store.delete_session("sess_1")).sessions == 1
    assert await problems(store) == []


# ---- prunes ----


async def test_what_a_fold_covers_goes_and_what_points_at_it_stays(store: SqlSessionStore) -> None:
    await new_session(store)
    held = await accepted(store, "sess_1")
    await store.append_reply(held.lease, reply_with_calls(held, "c1"))
    step = result_step(2, 0, "c1", "a part", whole=(TextPart("whole" * 200),))
    await store.advance_calls(held.lease, [step], at_seq=3, send_index=1, round=1)
    end = SendEnd(SendStatus.COMPLETED, {"text_seq": 4}, (row(1, 4),))
    await store.append_reply(held.lease, reply(held, at_seq=4, round=2, end=end))
    await sends(store, 2)
    await fold_up_to(store, 7, pinned_seqs=(5,))
    view = await store.read_view("sess_1", projected=True)
    told: list[Pruned] = []
    gone = await store.prune_compacted_messages("sess_1", on_progress=told.append)
    # Of 1 to 7 stay 4 and 6, which are answers of sends, and 5, which is pinned; a whole result and a row go along.
    assert [one.seq for one in await store.get_messages("sess_1")] == [4, 5, 6, 8, 9, 10]
    assert (gone.rows, gone.skipped, told) == (4 + 1 + 1, 0, [gone])
    assert gone.freed_bytes > 1000
    folded = (await store.get_folds("sess_1"))[-1]
    assert folded.pruned_at_ms is not None
    after = await store.read_view("sess_1", projected=True)
    assert (after.messages, after.pinned, after.projected) == (view.messages, view.pinned, view.projected)
    assert await store.prune_compacted_messages() == Pruned(), "a second run finds nothing"
    with pytest.raises(ResultPrunedError) as raised:
        await store.get_tool_result("sess_1", "c1")
    assert raised.value.pruned_at_ms == folded.pruned_at_ms
    assert await problems(store) == []
    assert [one.seq for one in (await store.search_messages("sess_1", "h"))[0]] == [4, 5, 6, 8, 9, 10]
    assert [one.seq for one in await store.get_messages("sess_1", after_seq=1, limit=3)] == [4, 5, 6]
    archive = await store.export_session("sess_1")
    await store.import_session(archive, session_id="copy")
    assert await store.get_messages("copy") == await store.get_messages("sess_1")
    assert await problems(store) == []
    # The session goes on.
    await one_send(store, "sess_1")
    await one_send(store, "copy")


async def test_the_end_of_a_log_and_a_session_in_use_stay(store: SqlSessionStore) -> None:
    await new_session(store)
    await sends(store, 2)
    assert await store.prune_compacted_messages() == Pruned()
    held = await accepted(store, "sess_1")
    await store.append_fold(held.lease, fold(5, send_index=3), at_seq=6)
    await store.end_send(held.lease, 3, SendEnd(SendStatus.FAILED, {}))
    assert await store.prune_compacted_messages("sess_1") == Pruned(), "the fold was made at the end of the log"
    held = await accepted(store, "sess_1")
    assert await store.prune_compacted_messages("sess_1") == Pruned(skipped=1)
    with pytest.raises(SessionBusyError):
        await store.delete_session("sess_1")
    await store.append_reply(held.lease, reply(held, end=COMPLETED))
    gone = await store.prune_compacted_messages("sess_1")
    assert (gone.rows, gone.skipped) == (3, 0)
    assert [one.seq for one in await store.get_messages("sess_1")] == [2, 4, 6, 7]


async def test_what_a_fork_shows_stays_and_no_fork_is_made_of_what_is_gone(store: SqlSessionStore) -> None:
    await new_session(store)
    await sends(store, 4)
    early = await store.fork_session("sess_1", at=4, fork_id="early")
    await fold_up_to(store, 3, early)
    grandchild = await store.fork_session(early, fork_id="grandchild")
    await fold_up_to(store, 7)
    before = {name: await store.read_view(name) for name in ("sess_1", early, grandchild)}
    await store.prune_compacted_messages()
    # 4 is shown by the forks, 2, 4 and 6 are answers; 1, 3, 5 and 7 are gone.
    assert [one.seq for one in await store.get_messages("sess_1")] == [2, 4, 6, 8, 9, 10]
    for name, view in before.items():
        after = await store.read_view(name)
        assert (after.messages, after.pinned, after.calls) == (view.messages, view.pinned, view.calls), name
    for at in (1, 2, 5, 8, 9):
        with pytest.raises(InputError, match="pruned"):
            await store.fork_session("sess_1", at=at)
    late = await store.fork_session("sess_1")
    assert await shown(store, late) == (7, [], [8, 9, 10])
    archive = await store.export_session(early)
    await store.import_session(archive, session_id="copy")
    assert await shown(store, "copy") == (3, [], [4, 5, 6])
    assert await problems(store) == []


async def test_a_fork_without_a_fold_keeps_all_that_it_shares(store: SqlSessionStore) -> None:
    await new_session(store)
    await sends(store, 3)
    await store.fork_session("sess_1", at=4, fork_id="fork")
    await fold_up_to(store, 6)
    await store.prune_compacted_messages()
    assert [one.seq for one in await store.get_messages("sess_1")] == [1, 2, 3, 4, 6, 7, 8]
    assert [one.seq for one in await store.get_messages("fork")] == [1, 2, 3, 4]
    await store.delete_session("fork")
    await store.prune_compacted_messages()
    assert [one.seq for one in await store.get_messages("sess_1")] == [2, 4, 6, 7, 8]
    assert await problems(store) == []


async def test_more_messages_than_a_page_are_pruned_to_the_last(store: SqlSessionStore) -> None:
    await new_session(store)
    held = await accepted(store, "sess_1")
    for number in range(125):
        at_seq = 2 + 2 * number
        ids = (f"c{number}",)
        await store.append_reply(held.lease, reply_with_calls(held, *ids, at_seq=at_seq, round=number + 1))
        await store.advance_calls(
            held.lease, [result_step(at_seq, 0, ids[0])], at_seq=at_seq + 1, send_index=1, round=number + 1
        )
    await store.append_fold(held.lease, fold(249), at_seq=252)
    end = SendEnd(SendStatus.COMPLETED, {"text_seq": 252})
    await store.append_reply(held.lease, reply(held, at_seq=252, round=126, end=end))
    gone = await store.prune_compacted_messages("sess_1")
    assert gone.rows == 249
    assert [one.seq for one in await store.get_messages("sess_1")] == [250, 251, 252]
    assert await problems(store) == []
    assert [one.kind async for one in store.diagnose() if one.kind is FindingKind.INCONSISTENT] == []
