"""The blackboard: no write is lost, no version comes twice, and a refused write changes nothing."""

from __future__ import annotations

import asyncio
from typing import Any

from power_loop import SessionStore
from power_loop.errors import BlackboardConflictError, BlackboardFullError, InputError, SessionNotFoundError
from power_loop.records import BlackboardEntry, CallState, EffectFailure
from power_loop.storage import CallStep
from power_loop.testing.conformance.cases import Place, check, raises
from power_loop.testing.conformance.parts import HandClock, new_session, result_step, waiting_call

_WORDS = "a word – 言葉 \\ 'quoted' \U0001f388\nsecond line"
_MAX_ENTRIES = 500


async def _all(store: SessionStore, session_id: str = "sess_1", **asked: Any) -> dict[str, tuple[Any, int]]:
    """Return values and versions by key, in the order in which they come."""
    return {one.key: (one.value, one.version) for one in await store.read_entries(session_id, **asked)}


@check()
async def an_entry_is_what_was_posted_and_keeps_its_age(store: SessionStore, clock: HandClock) -> None:
    await new_session(store)
    assert await store.read_entries("sess_1") == ()
    value = {"text": _WORDS, "list": [1, 2.5, None, True], "deep": {"a": {}}}
    began_ms = clock.ms
    posted = await store.post_entry("sess_1", "plan/step-1", value)
    assert posted == BlackboardEntry("plan/step-1", value, 1, None, began_ms, began_ms)
    clock.ms += 5
    changed = await store.update_entry("sess_1", "plan/step-1", _WORDS, expected_version=1, author_session_id="sess_2")
    assert changed == BlackboardEntry("plan/step-1", _WORDS, 2, "sess_2", began_ms, began_ms + 5)
    assert await store.read_entries("sess_1") == (changed,)


@check()
async def a_write_that_expects_something_else_changes_nothing_and_tells_what_is_there(store: SessionStore) -> None:
    await new_session(store)
    await store.post_entry("sess_1", "a", 1)
    await store.update_entry("sess_1", "a", 2, expected_version=1)
    for attempt in (
        store.post_entry("sess_1", "a", 3),
        store.update_entry("sess_1", "a", 3, expected_version=1),
        store.update_entry("sess_1", "a", 3, expected_version=3),
        store.remove_entry("sess_1", "a", expected_version=1),
    ):
        with raises(BlackboardConflictError) as caught:
            await attempt
        assert (caught.value.key, caught.value.version, caught.value.value) == ("a", 2, 2)
    for attempt in (
        store.update_entry("sess_1", "b", 3, expected_version=1),
        store.remove_entry("sess_1", "b", expected_version=1),
    ):
        with raises(BlackboardConflictError) as caught:
            await attempt
        assert (caught.value.key, caught.value.version) == ("b", None)
    assert await _all(store) == {"a": (2, 2)}


@check()
async def a_version_that_was_removed_never_comes_back(store: SessionStore) -> None:
    await new_session(store)
    first = await store.post_entry("sess_1", "a", "first life")
    await store.remove_entry("sess_1", "a", expected_version=first.version)
    assert await store.read_entries("sess_1") == ()
    second = await store.post_entry("sess_1", "a", "second life")
    assert second.version > first.version
    with raises(BlackboardConflictError):
        await store.update_entry("sess_1", "a", "too late", expected_version=first.version)
    other = await store.post_entry("sess_1", "b", 1)
    assert other.version > second.version
    assert await _all(store) == {"a": ("second life", second.version), "b": (1, other.version)}


@check()
async def entries_are_read_in_order_by_keys_by_prefix_and_page_by_page(store: SessionStore) -> None:
    await new_session(store)
    keys = ("a", "a/b", "a/b/c", "a0", "B", "b", "z:9", "Z.-_")
    for key in keys:
        await store.post_entry("sess_1", key, key)
    order = sorted(keys)
    assert list(await _all(store)) == order
    assert list(await _all(store, prefix="a")) == ["a", "a/b", "a/b/c", "a0"]
    assert list(await _all(store, prefix="a/")) == ["a/b", "a/b/c"]
    assert list(await _all(store, keys=["b", "a/b", "b", "none"])) == ["a/b", "b"]
    assert await _all(store, keys=[]) == {}
    paged: list[str] = []
    while found := await _all(store, after=paged[-1] if paged else None, limit=3):
        assert len(found) <= 3
        paged += found
    assert paged == order
    assert list(await _all(store, prefix="a", after="a/b", limit=1)) == ["a/b/c"]


@check()
async def what_can_be_no_entry_is_refused(store: SessionStore) -> None:
    await new_session(store)
    entry = await store.post_entry("sess_1", "k" * 128, "x" * (16_384 - 2))
    for key in ("", "k" * 129, "two words", "ä", "a\n", 7):
        with raises(InputError):
            await store.post_entry("sess_1", key, 1)  # type: ignore[arg-type]
    for value in ("x" * (16_384 - 1), "ä" * 8_192, float("nan"), {1, 2}, b"bytes"):
        with raises(InputError):
            await store.post_entry("sess_1", "a", value)
        with raises(InputError):
            await store.update_entry("sess_1", entry.key, value, expected_version=entry.version)
    for version in (0, -1, True, "1", None):
        with raises(InputError):
            await store.update_entry("sess_1", entry.key, 1, expected_version=version)  # type: ignore[arg-type]
    for asked in ({"limit": 0}, {"limit": 501}, {"prefix": "ä"}, {"keys": "abc"}, {"keys": ["a"], "prefix": "a"}):
        with raises(InputError):
            await _all(store, **asked)
    assert await store.read_entries("sess_1") == (entry,)


@check()
async def a_board_holds_five_hundred_entries_and_room_comes_back(store: SessionStore) -> None:
    await new_session(store)
    entries = [await store.post_entry("sess_1", f"k{number}", number) for number in range(_MAX_ENTRIES)]
    with raises(BlackboardFullError) as caught:
        await store.post_entry("sess_1", "one-more", 1)
    assert caught.value.max_entries == _MAX_ENTRIES
    await store.update_entry("sess_1", "k0", "changed", expected_version=entries[0].version)
    await store.remove_entry("sess_1", "k1", expected_version=entries[1].version)
    await store.post_entry("sess_1", "one-more", 1)
    assert len(await store.read_entries("sess_1", limit=_MAX_ENTRIES)) == _MAX_ENTRIES


@check()
async def no_session_has_a_board_that_is_not_there_or_another_ones(store: SessionStore) -> None:
    await new_session(store)
    await new_session(store, "sess_2")
    await store.post_entry("sess_1", "a", 1)
    assert await store.read_entries("sess_2") == ()
    await store.post_entry("sess_2", "a", 2)
    assert await _all(store) == {"a": (1, 1)}
    with raises(SessionNotFoundError):
        await store.read_entries("sess_3")
    with raises(SessionNotFoundError):
        await store.post_entry("sess_3", "a", 1)


@check(writers=[2, 5])
async def of_many_writers_none_loses_a_write(place: Place, clock: HandClock, writers: int) -> None:
    stores = [await place.open(clock) for _ in range(writers)]
    await new_session(stores[0])
    seen: list[list[int]] = [[] for _ in stores]

    async def count(store: SessionStore, versions: list[int]) -> None:
        while len(versions) < 8:
            found = await store.read_entries("sess_1", keys=["count"])
            try:
                if found:
                    value, version = found[0].value + 1, found[0].version
                    versions.append(
                        (await store.update_entry("sess_1", "count", value, expected_version=version)).version
                    )
                else:
                    versions.append((await store.post_entry("sess_1", "count", 1)).version)
            except BlackboardConflictError:
                continue

    try:
        await asyncio.gather(*(count(store, versions) for store, versions in zip(stores, seen, strict=True)))
        total = 8 * writers
        # Each of the writes has a version of its own, and the board has no other.
        assert sorted(version for versions in seen for version in versions) == list(range(1, total + 1))
        assert await _all(stores[0]) == {"count": (total, total)}
    finally:
        for store in stores:
            await store.aclose()


@check()
async def of_those_who_remove_the_same_entry_one_does(place: Place, clock: HandClock) -> None:
    stores = [await place.open(clock) for _ in range(4)]
    await new_session(stores[0])

    async def remove(store: SessionStore, version: int) -> bool:
        try:
            await store.remove_entry("sess_1", "a", expected_version=version)
        except BlackboardConflictError:
            return False
        return True

    try:
        for _ in range(5):
            entry = await stores[0].post_entry("sess_1", "a", 1)
            assert sum(await asyncio.gather(*(remove(store, entry.version) for store in stores))) == 1
            assert await stores[0].read_entries("sess_1") == ()
    finally:
        for store in stores:
            await store.aclose()


def _ending(returned: Any) -> CallStep:
    return result_step(2, 0, "c1", str(returned), attempt=1)


@check()
async def a_call_and_what_it_writes_on_the_board_stay_or_go_together(store: SessionStore) -> None:
    await new_session(store)
    held = await waiting_call(store, "sess_1", "c1")
    place: dict[str, Any] = {"end": _ending, "at_seq": 3, "send_index": 1, "round": 1}

    async def fails(tx: Any) -> str:
        await tx.blackboard.post("a", 1)
        raise LookupError("no such thing")

    assert isinstance(await store.run_effect(held.lease, "look", fails, **place), EffectFailure)
    assert await store.read_entries("sess_1") == ()

    async def writes(tx: Any) -> str:
        first = await tx.blackboard.post("a", 1)
        with raises(BlackboardConflictError) as caught:
            await tx.blackboard.post("a", 2)
        assert (caught.value.version, caught.value.value) == (first.version, 1)
        await tx.blackboard.update("a", 3, expected_version=first.version)
        gone = await tx.blackboard.post("b", 4)
        await tx.blackboard.remove("b", expected_version=gone.version)
        return str(len(await tx.blackboard.read(prefix="a")))

    done = await store.run_effect(held.lease, "look", writes, **place)
    assert isinstance(done, CallStep)
    [entry] = await store.read_entries("sess_1")
    assert (entry.key, entry.value, entry.author_session_id) == ("a", 3, "sess_1")
    [call] = await store.get_calls("sess_1")
    assert (call.state, call.result_seq) == (CallState.SUCCEEDED, 3)
