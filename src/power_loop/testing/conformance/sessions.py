"""Sessions: making, reading, editing, closing and listing them."""

from __future__ import annotations

from power_loop import SessionState, SessionStore
from power_loop.errors import InputError, SessionBusyError, SessionClosedError, SessionExistsError, SessionNotFoundError
from power_loop.testing.conformance.cases import Place, check, raises
from power_loop.testing.conformance.parts import HandClock, accepted, claim, new_send, new_session, one_send


@check()
async def a_new_session_is_open_and_empty(store: SessionStore, clock: HandClock) -> None:
    made = await store.create_session("sess_1", system_prompt="Be brief.", metadata={"user": "ann", "n": [1, None]})
    assert made == await store.get_session("sess_1")
    assert (made.id, made.state, made.system_prompt) == ("sess_1", SessionState.OPEN, "Be brief.")
    assert made.metadata == {"user": "ann", "n": [1, None]}
    assert (made.next_seq, made.send_count, made.version) == (1, 0, 0)
    assert (made.owner, made.lease_until_ms) == (None, 0)
    assert made.created_at_ms == made.updated_at_ms == clock.ms
    view = await store.read_view("sess_1")
    assert (view.session, view.send, view.calls, view.messages, view.tool_state) == (made, None, (), (), {})


@check()
async def an_id_is_given_once(store: SessionStore) -> None:
    await new_session(store, "sess_1", system_prompt="first")
    with raises(SessionExistsError) as caught:
        await store.create_session("sess_1", system_prompt="second", metadata={})
    assert caught.value.code == "session.exists"
    assert caught.value.session_id == "sess_1"
    assert (await store.get_session("sess_1")).system_prompt == "first"


@check()
async def ids_that_differ_in_case_are_different_sessions(store: SessionStore) -> None:
    await new_session(store, "Sess", system_prompt="upper")
    await new_session(store, "sess", system_prompt="lower")
    assert (await store.get_session("Sess")).system_prompt == "upper"
    assert (await store.get_session("sess")).system_prompt == "lower"


# fmt: off
BAD_IDS = [
    "", " ", "a b", "a\n", "é", "a\0", "\ud800", "x" * 65, None, 7, b"a",
    # What would be another place in a file name or a URL.
    "..", "a..b", ".", ".a", "a/b", "a\\b", "%2e", "a?b", "a#b", "' OR 1=1 --",
]
# fmt: on


@check(bad=BAD_IDS)
async def an_id_that_is_none_everywhere_is_refused(store: SessionStore, bad: str) -> None:
    with raises(InputError):
        await store.create_session(bad, system_prompt=None, metadata={})
    with raises(SessionNotFoundError):
        await store.get_session(bad)
    with raises(SessionNotFoundError):
        await store.accept(claim(bad), new_send())


@check(odd=["--", "_", ":", "NULL", "_e_s_1", "a.b", "x" * 64])
async def an_id_is_data_and_never_sql(store: SessionStore, odd: str) -> None:
    await new_session(store, "sess_1")
    with raises(SessionNotFoundError):
        await store.get_session(odd)
    await new_session(store, odd)
    await one_send(store, odd)
    assert (await store.get_session("sess_1")).next_seq == 1
    assert (await store.get_session(odd)).next_seq == 3


@check()
async def what_cannot_be_stored_as_json_is_refused_before_anything_is_written(store: SessionStore) -> None:
    loop: dict[str, object] = {}
    loop["self"] = loop
    for bad in ({"x": object()}, {"x": float("nan")}, {"x": float("inf")}, loop, {"x": b"bytes"}):
        with raises(InputError):
            await store.create_session("sess_1", system_prompt=None, metadata=bad)
    with raises(SessionNotFoundError):
        await store.get_session("sess_1")


@check()
async def texts_that_databases_refuse_are_kept_in_a_form_that_they_take(store: SessionStore) -> None:
    await store.create_session("sess_1", system_prompt="a\0b\ud800c 😀", metadata={"k\0": "\ud800 😀", "é": "\0"})
    session = await store.get_session("sess_1")
    assert session.system_prompt == "a\ufffdb\ufffdc 😀"
    # JSON can say these, so that metadata comes back as it was given.
    assert session.metadata == {"k\0": "\ud800 😀", "é": "\0"}


@check()
async def an_edit_changes_what_is_given_and_counts_the_version(store: SessionStore, clock: HandClock) -> None:
    before = await store.create_session("sess_1", system_prompt="old", metadata={"a": 1})
    clock.ms += 5
    edited = await store.update_session("sess_1", system_prompt="new")
    assert (edited.system_prompt, edited.metadata, edited.version) == ("new", {"a": 1}, 1)
    assert edited.updated_at_ms == before.updated_at_ms + 5
    edited = await store.update_session("sess_1", metadata={"b": 2})
    assert (edited.system_prompt, edited.metadata, edited.version) == ("new", {"b": 2}, 2)
    edited = await store.update_session("sess_1", clear_system_prompt=True, metadata={})
    assert (edited.system_prompt, edited.metadata, edited.version) == (None, {}, 3)
    assert await store.update_session("sess_1") == edited == await store.get_session("sess_1")


@check()
async def an_edit_that_contradicts_itself_is_refused(store: SessionStore) -> None:
    await new_session(store, system_prompt="kept")
    with raises(InputError):
        await store.update_session("sess_1", system_prompt="x", clear_system_prompt=True)
    assert (await store.get_session("sess_1")).system_prompt == "kept"


@check()
async def an_edit_during_a_turn_leaves_the_turn_its_lease(store: SessionStore) -> None:
    await new_session(store)
    held = await accepted(store, "sess_1")
    await store.update_session("sess_1", system_prompt="new")
    await store.renew(held.lease, ttl_s=30)
    again = await store.get_session("sess_1")
    assert (again.owner, again.version, held.version) == ("alice", 1, 0)


@check()
async def a_closed_session_takes_no_input_and_stays_readable(store: SessionStore) -> None:
    await new_session(store)
    await one_send(store, "sess_1")
    assert await store.close_session("sess_1") is True
    assert await store.close_session("sess_1") is False
    with raises(SessionClosedError) as caught:
        await store.accept(claim("sess_1"), new_send())
    assert caught.value.code == "session.closed"
    view = await store.read_view("sess_1")
    assert view.session.state is SessionState.CLOSED
    assert len(view.messages) == 2


@check()
async def a_session_is_not_closed_under_a_running_turn(store: SessionStore, clock: HandClock) -> None:
    await new_session(store)
    held = await accepted(store, "sess_1")
    with raises(SessionBusyError) as caught:
        await store.close_session("sess_1")
    assert caught.value.owner == "alice"
    await store.release(held.lease)
    assert await store.close_session("sess_1") is True


@check()
async def every_method_says_that_a_session_is_unknown(store: SessionStore) -> None:
    await new_session(store)
    held = await accepted(store, "sess_1")
    lease = type(held.lease)("sess_0", held.lease.owner, held.lease.epoch)
    calls = [
        store.get_session("sess_0"),
        store.update_session("sess_0", system_prompt="x"),
        store.close_session("sess_0"),
        store.read_view("sess_0"),
        store.get_messages("sess_0"),
        store.get_calls("sess_0"),
        store.get_send("sess_0"),
        store.get_tool_result("sess_0", "c1"),
        store.get_stats("sess_0"),
        store.accept(claim("sess_0"), new_send()),
        store.accept(claim("sess_0"), new_send(request_id="r1")),
        store.take_up(claim("sess_0")),
        store.renew(lease, ttl_s=30),
    ]
    for call in calls:
        with raises(SessionNotFoundError) as caught:
            await call
        assert caught.value.code == "session.not_found"
        assert "'sess_0'" in str(caught.value)


@check()
async def a_list_is_paged_newest_first_and_new_sessions_do_not_move_it(store: SessionStore, clock: HandClock) -> None:
    for number in range(25):
        # Several fall into one millisecond.
        clock.ms += number % 3 == 0
        await new_session(store, f"sess_{number:02d}")
    whole = (await store.list_sessions(limit=1000)).items
    assert [s.id for s in whole] == [s.id for s in sorted(whole, key=lambda s: (s.created_at_ms, s.id), reverse=True)]
    assert len(whole) == 25
    paged: list[str] = []
    cursor = None
    while True:
        page = await store.list_sessions(cursor=cursor, limit=4)
        assert len(page.items) <= 4
        paged += [s.id for s in page.items]
        clock.ms += 1
        await new_session(store, f"late_{len(paged)}")
        cursor = page.next_cursor
        if cursor is None:
            break
    assert paged == [s.id for s in whole]


@check()
async def a_page_that_ends_with_the_list_has_no_cursor(store: SessionStore) -> None:
    assert (await store.list_sessions()).items == ()
    for number in range(4):
        await new_session(store, f"sess_{number}")
    page = await store.list_sessions(limit=4)
    assert (len(page.items), page.next_cursor) == (4, None)
    page = await store.list_sessions(limit=3)
    assert page.next_cursor is not None
    assert (await store.list_sessions(limit=3, cursor=page.next_cursor)).next_cursor is None


@check()
async def a_list_is_filtered_by_state_and_by_members_of_metadata(store: SessionStore) -> None:
    rows = {
        "s1": {"user": "ann", "n": 1},
        "s2": {"user": "ann", "n": True},
        "s3": {"user": "an", "deep": {"user": "ann"}},
        "s4": {"user": 'a"nn', "n": 1.0},
        "s5": {"user": "änn", "tags": ["a", "b"]},
        "s6": {"user": None},
    }
    for session_id, metadata in rows.items():
        await new_session(store, session_id, metadata=metadata)
    await store.close_session("s2")

    async def ids(**filters: object) -> set[str]:
        return {s.id for s in (await store.list_sessions(**filters)).items}  # type: ignore[arg-type]

    assert await ids(metadata={"user": "ann"}) == {"s1", "s2"}
    assert await ids(metadata={"user": "ann"}, state=SessionState.OPEN) == {"s1"}
    assert await ids(state=SessionState.CLOSED) == {"s2"}
    assert await ids(metadata={"user": 'a"nn'}) == {"s4"}
    assert await ids(metadata={"user": "änn"}) == {"s5"}
    assert await ids(metadata={"user": None}) == {"s6"}
    assert await ids(metadata={"n": 1}) == {"s1"}
    assert await ids(metadata={"n": True}) == {"s2"}
    assert await ids(metadata={"deep": {"user": "ann"}}) == {"s3"}
    assert await ids(metadata={"tags": ["a", "b"], "user": "änn"}) == {"s5"}
    assert await ids(metadata={"user": "%"}) == set()
    assert await ids(metadata={"missing": None}) == set()
    assert await ids(metadata={}) == set(rows)


@check()
async def a_filtered_list_is_paged_over_many_rows_that_do_not_match(store: SessionStore, clock: HandClock) -> None:
    for number in range(60):
        clock.ms += 1
        await new_session(store, f"sess_{number:02d}", metadata={"even": number % 2 == 0})
    found: list[str] = []
    cursor = None
    while True:
        page = await store.list_sessions(metadata={"even": True}, cursor=cursor, limit=7)
        found += [s.id for s in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert found == [f"sess_{number:02d}" for number in range(58, -1, -2)]


@check(cursor=["", "x", "!!!!", "MTIz", "OnNlc3M", "LTE6YQ", "é", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTphCg"])
async def a_cursor_that_no_page_gave_is_refused(store: SessionStore, cursor: str) -> None:
    with raises(InputError):
        await store.list_sessions(cursor=cursor)


@check(limit=[0, -1, 1001])
async def a_limit_out_of_bounds_is_refused(store: SessionStore, limit: int) -> None:
    with raises(InputError):
        await store.list_sessions(limit=limit)


@check()
async def memo_is_shared_by_handles_on_one_database(place: Place, clock: HandClock) -> None:
    first, second = await place.open(clock), await place.open(clock)
    first.memo["desk"] = 1
    assert second.memo["desk"] == 1
    await first.aclose()
    await second.aclose()
