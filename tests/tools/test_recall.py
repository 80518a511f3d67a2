"""Originals come back to the model page by page, whole and in order, and every refusal says what to do."""

from __future__ import annotations

import re
from typing import Any

import pytest

from power_loop import (
    Compaction,
    ImagePart,
    LLMRequest,
    LoopConfig,
    Projection,
    StatefulAgentLoop,
    TextPart,
    ToolContext,
    tool,
)
from power_loop.records import FoldRecord, NewFold
from power_loop.storage import Claim
from power_loop.testing import ScriptedLLM, call
from power_loop.tools import SessionLog, recall_tools
from power_loop.tools.recall import MAX_HIT_CHARS, MAX_HITS, MAX_PAGE_CHARS
from tests.agent.conftest import MakeLoop, dsn, make_loop  # noqa: F401 - fixtures
from tests.agent.parts import CountingStore, answers, error_answers

PNG = ImagePart("image/png", data="iVBORw0KGgoAAAA=")


async def fold(loop: StatefulAgentLoop, session_id: str, to_seq: int, summary: str = "They talked.") -> FoldRecord:
    """Store a fold of a session that rests, as a turn of its own would."""
    store = await loop.get_store()
    sent = await store.get_send(session_id)
    assert sent is not None
    taken = await store.take_up(Claim(session_id, "folder", 30.0))
    new = NewFold(to_seq, summary, sent.index, sent.rounds, "by hand")
    stored = await store.append_fold(taken.lease, new, at_seq=taken.next_seq)
    await store.release(taken.lease)
    return stored


def llm_of(loop: StatefulAgentLoop) -> ScriptedLLM:
    assert isinstance(loop.llm, ScriptedLLM)
    return loop.llm


async def recalled(loop: StatefulAgentLoop, session_id: str, name: str, **arguments: Any) -> str:
    """What a model is answered that calls a recall tool in a send of its own."""
    llm_of(loop).add(call(name, arguments), "Thanks.")
    await loop.send("Recall.", session_id=session_id)
    return answers(llm_of(loop).requests[-1])[-1]


async def refused(loop: StatefulAgentLoop, session_id: str, name: str, **arguments: Any) -> str:
    await recalled(loop, session_id, name, **arguments)
    return error_answers(llm_of(loop).requests[-1])[-1]


async def talked(loop: StatefulAgentLoop, *texts: str) -> str:
    """A session in which the user said these and the model agreed."""
    session_id = await loop.new_session()
    for text in texts:
        llm_of(loop).add("Yes.")
        await loop.send(text, session_id=session_id)
    return session_id


def names(request: LLMRequest) -> list[str]:
    return [spec.name for spec in request.tools]


def cursor_in(page: str) -> str:
    found = re.search(r"cursor='([^']+)'", page)
    assert found is not None, page[-200:]
    return found[1]


# ---- when they are offered ----


async def test_recall_compacted_is_offered_from_the_first_fold_on(make_loop: MakeLoop) -> None:  # noqa: F811
    loop = make_loop()
    session_id = await talked(loop, "One.")
    await fold(loop, session_id, 2)
    llm_of(loop).add("Yes.")
    await loop.send("Two.", session_id=session_id)
    assert [names(request) for request in llm_of(loop).requests] == [[], ["recall_compacted"]]


async def test_recall_send_is_offered_where_calls_are_shown_in_short(make_loop: MakeLoop) -> None:  # noqa: F811
    loop = make_loop(call("work"), config=LoopConfig(projection=Projection()), tool_registry=[work])
    await talked(loop, "One.", "Two.")
    requests = llm_of(loop).requests
    assert [names(request) for request in requests] == [["work"], ["work"], ["work", "recall_send"]]
    assert requests[-1].tail is not None
    assert "recall_send gives the whole" in requests[-1].tail


async def test_neither_is_offered_where_the_configuration_says_so(make_loop: MakeLoop) -> None:  # noqa: F811
    config = LoopConfig(compaction=Compaction(offers_recall=False), projection=Projection(offers_recall=False))
    loop = make_loop(call("work"), config=config, tool_registry=[work])
    session_id = await talked(loop, "One.")
    await fold(loop, session_id, 1)
    llm_of(loop).add("Yes.")
    await loop.send("Two.", session_id=session_id)
    assert names(llm_of(loop).requests[-1]) == ["work"]
    assert "recall_send" not in (llm_of(loop).requests[-1].tail or "")


async def test_a_send_that_names_its_tools_gets_these_and_no_others(make_loop: MakeLoop) -> None:  # noqa: F811
    loop = make_loop(tool_registry=[work, *recall_tools(sends=False)])
    session_id = await talked(loop, "One.")
    await fold(loop, session_id, 2)
    for tools in (["work"], ["work", "recall_compacted"]):
        llm_of(loop).add("Yes.")
        await loop.send("Two.", session_id=session_id, tools=tools)
        assert names(llm_of(loop).requests[-1]) == tools


async def test_a_tool_of_the_user_of_the_same_name_stays_the_users(make_loop: MakeLoop) -> None:  # noqa: F811
    @tool(name="recall_compacted", effect="read")
    def own() -> str:
        """Recall in another way."""
        return "mine"

    loop = make_loop(tool_registry=[own])
    session_id = await talked(loop, "One.")
    await fold(loop, session_id, 2)
    assert await recalled(loop, session_id, "recall_compacted") == "mine"
    assert names(llm_of(loop).requests[-1]) == ["recall_compacted"]
    assert loop.tools.names == ("recall_compacted",)


async def test_the_loops_registry_stays_as_it_was(make_loop: MakeLoop) -> None:  # noqa: F811
    loop = make_loop(tool_registry=[work])
    session_id = await talked(loop, "One.")
    await fold(loop, session_id, 2)
    await recalled(loop, session_id, "recall_compacted")
    assert loop.tools.names == ("work",)


# ---- what they give ----


@tool(effect="read")
def work() -> Any:
    """Work."""
    return [TextPart("A chart:"), PNG]


async def test_a_range_is_given_as_it_was_with_calls_results_and_media(make_loop: MakeLoop) -> None:  # noqa: F811
    loop = make_loop(call("work", id="c1", text="I draw."), tool_registry=[work])
    session_id = await talked(loop, "Draw.", "Again.")
    await fold(loop, session_id, 6)
    page = await recalled(loop, session_id, "recall_compacted", from_seq=1, to_seq=4)
    assert page == (
        "Messages of this conversation as they were, from 1 on (1 to 6 are summarised):\n\n"
        "[1] user:\nDraw.\n\n"
        "[2] assistant:\nI draw.\n(call c1) work {}\n\n"
        "[3] result of call c1:\nA chart:\n[an image of 1 kB]\n\n"
        "[4] assistant:\nYes.\n\n(This is the end.)"
    )


@pytest.mark.parametrize("sizes", [[20_000], [3_000] * 7, [5_000, 100, 12_000, 0, 7_999], [1] * 200])
async def test_pages_put_together_are_the_whole_range(make_loop: MakeLoop, sizes: list[int]) -> None:  # noqa: F811
    loop = make_loop()
    texts = [f"<{number}>" + "x" * size for number, size in enumerate(sizes)]
    session_id = await talked(loop, *texts)
    await fold(loop, session_id, 2 * len(sizes))
    arguments: dict[str, Any] = {}
    read = ""
    while True:
        page = await recalled(loop, session_id, "recall_compacted", **arguments)
        assert len(page) < MAX_PAGE_CHARS + 300
        body = page.partition(":\n\n")[2].rpartition("\n\n(")[0]
        read += "\n\n" + body
        if page.endswith("(This is the end.)"):
            break
        arguments["cursor"] = cursor_in(page)
    read = re.sub(r"\n\n\[\d+\] \w+ \(continued\):\n", "", read)
    assert read == "".join(
        f"\n\n[{2 * number + 1}] user:\n{text}\n\n[{2 * number + 2}] assistant:\nYes."
        for number, text in enumerate(texts)
    )


async def test_what_is_not_folded_is_not_given_again(make_loop: MakeLoop) -> None:  # noqa: F811
    loop = make_loop()
    session_id = await talked(loop, "One.", "Two.")
    await fold(loop, session_id, 2)
    page = await recalled(loop, session_id, "recall_compacted", to_seq=100)
    assert "One." in page
    assert "Two." not in page


async def test_a_search_finds_messages_that_hold_all_the_words_in_any_order(make_loop: MakeLoop) -> None:  # noqa: F811
    loop = make_loop()
    session_id = await talked(loop, "The KEY of the vault is 17.", "A vault.", "The vault opens with a key.")
    await fold(loop, session_id, 6)
    page = await recalled(loop, session_id, "recall_compacted", query="vault key")
    assert re.findall(r"\[(\d+)\]", page) == ["1", "5"]
    assert page.endswith("(This is the end.)")


async def test_a_search_shows_the_place_in_a_long_message(make_loop: MakeLoop) -> None:  # noqa: F811
    loop = make_loop()
    session_id = await talked(loop, "x" * 5_000 + " needle " + "y" * 5_000)
    await fold(loop, session_id, 2)
    page = await recalled(loop, session_id, "recall_compacted", query="needle")
    assert "x… needle" not in page
    assert "x needle y" in page
    assert len(page) < MAX_HIT_CHARS + 400


async def test_a_search_with_many_hits_goes_on_where_it_ended(make_loop: MakeLoop) -> None:  # noqa: F811
    loop = make_loop()
    session_id = await talked(loop, *(f"needle {number}" for number in range(MAX_HITS + 5)))
    await fold(loop, session_id, 2 * (MAX_HITS + 5))
    first = await recalled(loop, session_id, "recall_compacted", query="needle")
    second = await recalled(loop, session_id, "recall_compacted", query="needle", cursor=cursor_in(first))
    found = re.findall(r"needle (\d+)", first + second)
    assert found == [str(number) for number in range(MAX_HITS + 5)]


async def test_a_search_that_finds_nothing_says_so(make_loop: MakeLoop) -> None:  # noqa: F811
    loop = make_loop()
    session_id = await talked(loop, "One.")
    await fold(loop, session_id, 2)
    page = await recalled(loop, session_id, "recall_compacted", query="two three")
    assert "No message up to 2 holds 'two' and 'three'. Search for fewer or other words" in page


async def test_a_turn_that_is_shown_in_short_is_given_whole(make_loop: MakeLoop) -> None:  # noqa: F811
    loop = make_loop(call("work", id="c1"), config=LoopConfig(projection=Projection()), tool_registry=[work])
    session_id = await talked(loop, "Draw.", "Again.")
    page = await recalled(loop, session_id, "recall_send", send_index=1)
    assert page == (
        "Turn 1 as it was:\n\n[1] user:\nDraw.\n\n[2] assistant:\n(call c1) work {}\n\n"
        "[3] result of call c1:\nA chart:\n[an image of 1 kB]\n\n[4] assistant:\nYes.\n\n(This is the end.)"
    )


async def test_a_turn_that_a_fork_shares_with_its_origin_is_given_too(make_loop: MakeLoop) -> None:  # noqa: F811
    config = LoopConfig(projection=Projection())
    loop = make_loop(call("work", id="c1"), config=config, tool_registry=[work])
    session_id = await talked(loop, "Draw.", "Two.", "Three.", "Four.")
    store: Any = await loop.get_store()
    fork = await store.fork_session(session_id)
    page = await recalled(loop, fork, "recall_send", send_index=2)
    assert page.startswith("Turn 2 as it was:\n\n[5] user:\nTwo.\n\n[6] assistant:\nYes.\n\n(This is")


async def test_what_a_recall_brought_is_not_kept_in_the_projection(make_loop: MakeLoop) -> None:  # noqa: F811
    loop = make_loop(call("work", id="c1"), config=LoopConfig(projection=Projection()), tool_registry=[work])
    session_id = await talked(loop, "Draw.")
    page = await recalled(loop, session_id, "recall_send", send_index=1)
    llm_of(loop).add("Yes.")
    await loop.send("Next.", session_id=session_id)
    shown = llm_of(loop).requests[-1].messages[3].text
    assert f"recall_send -> ok: {len(page)} characters" in shown


async def test_a_recall_reads_a_page_and_never_the_session(make_loop: MakeLoop) -> None:  # noqa: F811
    store = CountingStore(await make_loop().get_store())
    loop = make_loop(store=store)
    session_id = await talked(loop, *("word " * 1_000 for _ in range(40)))
    await fold(loop, session_id, 80)
    store.asked.clear()
    await recalled(loop, session_id, "recall_compacted", from_seq=30)
    assert store.asked.count("get_messages") == 1


# ---- what they refuse ----


async def test_refusals_say_what_to_do(make_loop: MakeLoop) -> None:  # noqa: F811
    config = LoopConfig(projection=Projection())
    loop = make_loop(call("work", id="c1"), config=config, tool_registry=[work])
    session_id = await talked(loop, "One.", "Two.")
    await fold(loop, session_id, 4)
    compacted = "recall_compacted"
    assert "messages 1 to 4; what comes behind" in await refused(loop, session_id, compacted, from_seq=5)
    assert "give from_seq <= to_seq" in await refused(loop, session_id, compacted, from_seq=3, to_seq=2)
    assert "leave it out to begin anew" in await refused(loop, session_id, compacted, cursor="page 2")
    assert "arguments are not valid" in await refused(loop, session_id, compacted, from_seq=0)


async def test_a_turn_that_is_not_there_is_told(make_loop: MakeLoop) -> None:  # noqa: F811
    loop = make_loop(call("work", id="c1"), config=LoopConfig(projection=Projection()), tool_registry=[work])
    session_id = await talked(loop, "One.")
    assert "There is no turn 99" in await refused(loop, session_id, "recall_send", send_index=99)
    # Of one that was pruned nobody says that it never was.
    assert "not stored any more" in await refused(loop, session_id, "recall_send", send_index=99)


# ---- the log that a tool may read ----


async def test_a_tool_reads_the_log_of_its_session_in_bounded_pages(make_loop: MakeLoop) -> None:  # noqa: F811
    seen: list[Any] = []

    @tool(effect="read")
    async def look(context: ToolContext) -> str:
        """Look."""
        log: SessionLog = context.log
        seen.append(log.folded_to_seq)
        seen.append([one.seq for one in await log.read(after_seq=1, limit=2)])
        seen.append(len(await log.read(limit=1_000)))
        seen.append([one.seq for one in await log.read_send(2)])
        found, _ = await log.search("TWO")
        seen.append([one.seq for one in found])
        return "seen"

    loop = make_loop(tool_registry=[look])
    session_id = await talked(loop, "One.", "Two.", *["More."] * 60)
    await recalled(loop, session_id, "look")
    assert seen == [0, [2, 3], 100, [3, 4], [3]]
