"""The views for people: every query of their page runs on every database, and their columns are those that it names."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from power_loop.contracts.messages import Message, OpaquePart, Origin, ReasoningPart, Role, TextPart
from power_loop.contracts.records import NewReply
from power_loop.runtime.store.open import open_store
from power_loop.runtime.store.sql.views import VIEWS
from power_loop.testing.conformance.folds import fold
from power_loop.testing.conformance.parts import COMPLETED, accepted, claim, model_call, new_send, one_send
from tests.house.pages import ROOT, blocks_of
from tests.runtime.store.sites import KINDS, Site, fresh_site, old_version

PAGE = ROOT / "docs" / "en" / "user-guide" / "looking-with-sql.md"
TEXT = PAGE.read_text("utf-8")
QUERIES = [block.source for block in blocks_of(TEXT, PAGE.name) if block.language == "sql"]


@pytest.fixture(params=KINDS)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    with fresh_site(request.param, tmp_path) as fresh:
        yield fresh


async def lived_in(site: Site) -> None:
    """Fill a database with sessions in every state, one of whose messages has what no text can hold."""
    site.run(old_version(site, 1))
    store = await open_store(site.dsn)
    await store.create_session("sess_1", system_prompt=None, metadata={})
    await one_send(store, "sess_1", text='says "a" 🎈', back="line\nline")
    held = await accepted(store, "sess_1", text="again")
    priced = fold(2, 2, model="gpt", model_calls=2, cost_nanos=5)
    await store.append_fold(held.lease, priced, at_seq=held.next_seq)
    parts = (ReasoningPart("hm"), OpaquePart('{"x": "\ud800 \\ud800"}'), TextPart("two"), TextPart("texts"))
    message = Message(Role.ASSISTANT, parts, Origin("openai", "gpt"))
    reply = NewReply(held.next_seq, held.send_index, 1, (message,), model_call(cost_nanos=3_000_000_012), end=COMPLETED)
    await store.append_reply(held.lease, reply)
    await store.create_session("sess_running", system_prompt=None, metadata={})
    await store.accept(claim("sess_running", "somebody", ttl_s=300), new_send())
    await store.memories.add("user=ann", "likes 茶", session_id="sess_1", metadata={"kind": "taste"})
    await store.post_entry("sess_1", "plan/1", {"do": "茶"}, author_session_id="sess_done")
    await store.aclose()


async def test_every_query_of_the_page_runs_on_every_database(site: Site) -> None:
    await lived_in(site)
    assert len(QUERIES) > 8
    empty = [query for query in QUERIES if not site.rows(query.rstrip().rstrip(";"))]
    # Nobody forked a session here, left an input for one or made it a timer.
    assert [re.search(r"FROM (\w+)", query)[1] for query in empty] == ["pl_v_sessions", "pl_v_inbox", "pl_v_timers"]
    assert all("forked" in query or "inbox" in query or "timers" in query for query in empty)


async def test_views_show_what_is_there(site: Site) -> None:
    await lived_in(site)

    def rows(query: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in site.rows(query)]

    assert rows(
        "SELECT id, state, last_status, is_leased, is_orphaned, sends, last_seq, open_calls, input_tokens"
        " FROM pl_v_sessions ORDER BY id"
    ) == [
        ("sess_1", "open", "completed", 0, 0, 2, 4, 0, 20),
        ("sess_closed", "closed", None, 0, 0, 0, 0, 0, 0),
        ("sess_done", "open", "completed", 0, 0, 2, 6, 0, 30),
        ("sess_effect", "open", "running", 0, 1, 1, 2, 1, 10),
        ("sess_midturn", "open", "running", 0, 1, 1, 2, 2, 10),
        ("sess_running", "open", "running", 1, 0, 1, 1, 0, 0),
        ("sess_waiting", "open", "waiting_for_input", 0, 0, 1, 3, 1, 10),
    ]
    [(left,)] = rows("SELECT lease_seconds_left FROM pl_v_sessions WHERE id = 'sess_running'")
    assert isinstance(left, int)
    assert 0 < left <= 300
    assert rows("SELECT part, type, text FROM pl_v_parts WHERE session_id = 'sess_1' AND seq = 4 ORDER BY part") == [
        (0, "reasoning", "hm"),
        (1, "opaque", None),
        (2, "text", "two"),
        (3, "text", "texts"),
    ]
    assert rows("SELECT text FROM pl_v_parts WHERE session_id = 'sess_1' AND seq < 3 ORDER BY seq") == [
        ('says "a" 🎈',),
        ("line\nline",),
    ]
    [(found,)] = rows("SELECT text FROM pl_v_parts WHERE session_id = 'sess_done' AND type = 'tool_result'")
    assert found == "kernel: a word – 言葉 \\ 'quoted' 🎈\nsecond line"
    assert rows("SELECT session_id, name, state FROM pl_v_pending ORDER BY session_id, name") == [
        ("sess_effect", "send_money", "started"),
        ("sess_midturn", "look_up", "requested"),
        ("sess_midturn", "read_far", "requested"),
        ("sess_waiting", "choose_seat", "waiting"),
    ]
    assert rows("SELECT day, model_calls, input_tokens FROM pl_v_usage WHERE session_id = 'sess_done'") == [
        ("2023-11-14", 3, 30)
    ]
    assert rows("SELECT cost_nanos, unpriced_calls FROM pl_v_usage WHERE session_id = 'sess_done'") == [(None, 3)]
    assert rows("SELECT model_calls, cost_nanos, unpriced_calls FROM pl_v_usage WHERE session_id = 'sess_1'") == [
        (4, 3_000_000_017, 1)
    ]
    assert rows("SELECT namespace, session_id, text, metadata FROM pl_v_memories") == [
        ("user=ann", "sess_1", "likes 茶", '{"kind":"taste"}')
    ]
    assert rows(
        "SELECT session_id, entry_key, version, author_session_id, value_bytes, value FROM pl_v_blackboard"
    ) == [("sess_1", "plan/1", 1, "sess_done", 12, '{"do":"茶"}')]
    [(at,)] = rows("SELECT created_at FROM pl_v_sessions WHERE id = 'sess_done'")
    assert str(at).startswith("2023-11-14 22:13:20")
    [(at,)] = rows("SELECT created_at FROM pl_v_sessions WHERE id = 'sess_waiting'")
    assert str(at)[:23] == "2023-11-14 22:13:20.019"
    today = time.strftime("%Y", time.gmtime())
    [(day,)] = rows("SELECT MAX(day) FROM pl_v_usage")
    assert day.startswith(today)


async def test_the_page_names_every_column(site: Site) -> None:
    await (await open_store(site.dsn)).aclose()
    named = {
        view: re.findall(r"`(\w+)`", columns)
        for view, columns in re.findall(r"^\| `(pl_v_\w+)` \| (.*) \|$", TEXT, re.M)
    }
    # What stands in the explanations in brackets is no column.
    assert set(named) == {f"pl_{view}" for view in VIEWS}
    for view, columns in named.items():
        site.rows(f"SELECT {', '.join(columns)} FROM {view}")
        if site.kind == "sqlite":
            assert columns == [row[1] for row in site.rows(f"PRAGMA table_info({view})")], view
