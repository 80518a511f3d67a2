"""An operation whose process is killed at its COMMIT was done or was not, and the next one finds a store in order."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from power_loop.contracts.messages import ImagePart, Message, Role
from power_loop.contracts.records import NewSend, SendEnd
from power_loop.contracts.states import SendStatus
from power_loop.contracts.upkeep import Pruned
from power_loop.runtime.store.codec import MIN_BLOB_CHARS
from power_loop.runtime.store.open import open_store
from power_loop.runtime.store.store import SqlSessionStore
from power_loop.testing.conformance.folds import fold
from power_loop.testing.conformance.projections import row
from tests.agent.bank import Bank, town
from tests.conformance.parts import accepted, claim, new_session, one_send, reply
from tests.conformance.test_archive import a_long_session

__all__ = ["town"]

LIMIT_S = 120
ARCHIVE = "archive.jsonl"
#: The commits of a prune of what a fold covers: messages, rows of the projection, data.
COMMITS_OF_A_PRUNE = ("prune_compacted", "prune_compacted", "prune_blobs")

OPERATIONS: dict[str, Callable[[SqlSessionStore, Path], Awaitable[object]]] = {
    "import_session": lambda store, folder: store.import_session((folder / ARCHIVE).read_bytes(), session_id="came"),
    "fork_session": lambda store, _: store.fork_session("sess_1", at=6, fork_id="fork"),
    "delete_session": lambda store, _: store.delete_session("old"),
    "prune_sessions": lambda store, _: store.prune_sessions(older_than_s=0),
    "prune_tool_results": lambda store, _: store.prune_tool_results("sess_1"),
}


async def _child(name: str, point: str, nth: int, *, dsn: str, prefix: str, folder: Path) -> None:
    """Do an operation and be killed at this point of its `nth` commit."""
    store = await open_store(dsn, table_prefix=prefix)
    passes: list[str] = []

    def kill(passed: str, move: str) -> None:
        if passed == point:
            passes.append(move)
        if len(passes) == nth:
            assert move == (COMMITS_OF_A_PRUNE[nth - 1] if name == PRUNE else name)
            os.kill(os.getpid(), signal.SIGKILL)

    store.on_point = kill
    await (OPERATIONS | {PRUNE: _prune})[name](store, folder)


async def _killed(bank: Bank, name: str, point: str, nth: int, folder: Path) -> None:
    command = [sys.executable, "-m", "tests.runtime.store.test_killed_operations", name, point, str(nth)]
    place = (bank.dsn, bank.prefix, str(folder))
    process = await asyncio.create_subprocess_exec(*command, *place, cwd=Path(__file__).parents[3])
    assert await asyncio.wait_for(process.wait(), LIMIT_S) == -signal.SIGKILL


async def _ids(store: SqlSessionStore) -> list[str]:
    return sorted(one.id for one in (await store.list_sessions()).items)


async def facts(store: SqlSessionStore) -> tuple[object, ...]:
    """Return what stands in the store, which has to be in order."""
    assert [finding async for finding in store.diagnose()] == []
    sessions = await _ids(store)
    return sessions, [(await store.get_stats(one)).stored_bytes for one in sessions]


async def _empty(store: SqlSessionStore) -> None:
    for session_id in await _ids(store):  # a fork sorts before the session that it shares
        await store.delete_session(session_id)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system does not kill")
@pytest.mark.parametrize("point", ["commit.before", "commit.after"])
@pytest.mark.parametrize("name", OPERATIONS)
async def test_killed_at_its_commit_it_was_done_or_was_not(
    town: tuple[Any, SqlSessionStore], tmp_path: Path, name: str, point: str
) -> None:
    place, store = town
    await _empty(store)
    await a_long_session(store)
    await one_send(store, await new_session(store, "old"))
    await store.close_session("old")
    (tmp_path / ARCHIVE).write_bytes(await store.export_session("sess_1"))
    before = await facts(store)
    await _killed(Bank(place, store), name, point, 1, tmp_path)
    after = await facts(store)
    assert (after == before) is (point == "commit.before")
    if after == before:
        await OPERATIONS[name](store, tmp_path)
        assert await facts(store) != before


# ---- a prune, which is several commits ----

PRUNE = "prune_compacted_messages"


async def _prune(store: SqlSessionStore, _: Path) -> object:
    return await store.prune_compacted_messages("folded")


async def a_folded_session(store: SqlSessionStore) -> None:
    """Make three sends, each of an image and its answer, of which a fold covers the first two and their rows."""
    await new_session(store, "folded")
    for number in range(3):
        image = ImagePart(data=f"{number}" + "A" * MIN_BLOB_CHARS)
        held = await store.accept(claim("folded"), NewSend(Message(Role.USER, (image,)), "h", {}))
        end = SendEnd(SendStatus.COMPLETED, {"text_seq": held.next_seq}, (row(held.next_seq - 1, held.next_seq),))
        await store.append_reply(held.lease, reply(held, end=end))
    held = await accepted(store, "folded")
    await store.append_fold(held.lease, fold(4, send_index=4), at_seq=held.next_seq)
    await store.append_reply(held.lease, reply(held, end=SendEnd(SendStatus.COMPLETED, {"text_seq": held.next_seq})))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system does not kill")
@pytest.mark.parametrize("point", ["commit.before", "commit.after"])
@pytest.mark.parametrize("nth", [1, 2, 3])
async def test_a_prune_killed_at_any_commit_took_nothing_that_is_shown_and_the_next_one_ends_it(
    town: tuple[Any, SqlSessionStore], tmp_path: Path, nth: int, point: str
) -> None:
    place, store = town
    await _empty(store)
    await a_folded_session(store)
    view = await store.read_view("folded", projected=True)
    sizes = [(await store.get_stats("folded")).stored_bytes]
    await _killed(Bank(place, store), PRUNE, point, nth, tmp_path)
    # Data that the prune has not come to is there, and nothing else is out of order.
    orphans = [finding.check async for finding in store.diagnose("folded")]
    done = nth - (point == "commit.before")
    assert orphans == ["blob.orphaned"] * (2 if done in (1, 2) else 0)
    assert [one.seq for one in await store.get_messages("folded")] == ([2, 4, 5, 6, 7, 8] if done else [*range(1, 9)])
    after = await store.read_view("folded", projected=True)
    assert (after.messages, after.pinned, after.projected) == (view.messages, view.pinned, view.projected)
    sizes.append((await store.get_stats("folded")).stored_bytes)
    await _prune(store, tmp_path)
    assert [finding async for finding in store.diagnose("folded")] == []
    assert [one.seq for one in await store.get_messages("folded")] == [2, 4, 5, 6, 7, 8]
    assert await store.prune_compacted_messages("folded") == Pruned(), "it is at its end"
    sizes.append((await store.get_stats("folded")).stored_bytes)
    assert sizes[2] < sizes[0] - 2 * MIN_BLOB_CHARS
    assert (sizes[1] == sizes[0], sizes[1] == sizes[2]) == (done == 0, done == 3)
    after = await store.read_view("folded", projected=True)
    assert (after.messages, after.pinned, after.projected) == (view.messages, view.pinned, view.projected)
    await one_send(store, "folded")


if __name__ == "__main__":
    _name, _point, _nth, _dsn, _prefix, _folder = sys.argv[1:]
    asyncio.run(_child(_name, _point, int(_nth), dsn=_dsn, prefix=_prefix, folder=Path(_folder)))
