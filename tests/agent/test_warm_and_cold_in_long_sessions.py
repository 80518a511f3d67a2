"""Folded, shown in short, recalled, pruned, forked, written to by others: warm and cold handles send the same."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from power_loop import (
    Compaction,
    ImagePart,
    LLMProviderConfig,
    LLMRequest,
    LoopConfig,
    Projection,
    StatefulAgentLoop,
    tool,
)
from power_loop.context import Folded, FoldTask, SegmentKind
from power_loop.core.context.rules import check
from power_loop.llm import ModelInfo
from power_loop.records import NewFold
from power_loop.runtime.llm.anthropic_wire import AnthropicWire
from power_loop.runtime.llm.openai_wire import OpenAIWire
from power_loop.storage import Claim
from power_loop.testing import calls
from power_loop.tools import notes_tools, todo_tools

from .parts import CountingStore
from .test_warm_and_cold import OPENAI, Encoding

#: Small enough for a history to be folded, and large enough to hold what is said between two folds.
INFO = ModelInfo("openai", "gpt-test", "openai", context_window_tokens=6_000, max_output_tokens=500)


class Digests:
    """Is a strategy whose summary says exactly what was folded."""

    async def fold(self, task: FoldTask) -> Folded:
        said = "\n".join(f"{message.role.value} {message.parts!r}" for message in task.messages)
        return Folded(f"{task.from_seq} to {task.to_seq}: {hashlib.sha256(said.encode()).hexdigest()[:12]}")


@tool(effect="read")
def look(n: int) -> str:
    """Look."""
    return f"seen {n} " * (1 + 40 * n)


@tool(effect="read", project=lambda arguments, result: f"{arguments['n']} pages")
def read(n: int) -> Any:
    """Read."""
    return [f"page {n}", ImagePart.from_bytes(b"\x89PNG%d" % n)]


TOOLS = [look, read, *notes_tools(), *todo_tools()]

texts = st.sampled_from(["Hello.", "ünïcödé ✓", "line\nbreak", "word " * 200, "</record> 😀", "a\u2028b"])
numbers = st.integers(0, 5)
worked = st.one_of(
    st.tuples(st.sampled_from(["look", "read"]), numbers.map(lambda n: {"n": n})),
    st.tuples(st.just("look"), st.sampled_from(["{", '{"n": "x"}'])),
    st.tuples(st.just("note_write"), numbers.map(lambda n: {"title": f"n{n % 2}", "text": f"note {n}"})),
    st.tuples(st.just("todo"), numbers.map(lambda n: {"items": [{"text": f"do {k}"} for k in range(n)]})),
    st.tuples(st.just("recall_compacted"), st.sampled_from([{}, {"query": "seen"}, {"from_seq": 2, "to_seq": 5}])),
    st.tuples(st.just("recall_send"), numbers.map(lambda n: {"send_index": n + 1})),
)
rounds = st.lists(st.lists(worked, min_size=1, max_size=3), min_size=1, max_size=3)
actions = st.one_of(
    st.tuples(st.just("say"), texts),
    st.tuples(st.just("work"), rounds),
    st.tuples(st.just("elsewhere"), st.booleans(), rounds),
    st.tuples(st.just("switch"), st.booleans()),
    st.tuples(st.just("fold"), st.floats(0, 1)),
    st.tuples(st.just("compact")),
    st.tuples(st.just("prompt"), texts),
    st.tuples(st.just("prune"), st.booleans()),
    st.tuples(st.just("fork"), st.floats(0, 1)),
)


def in_front(request: LLMRequest) -> list[list[Any]]:
    """Return what stands in front of the tail on each wire: tools, system prompt, then block after block."""
    openai, anthropic = (json.loads(wire.body(replace(request, tail=None))) for wire in PLAIN_WIRES)
    return [
        [openai.get("tools"), *openai["messages"]],
        [
            anthropic.get("tools"),
            anthropic.get("system"),
            *((turn["role"], block) for turn in anthropic["messages"] for block in turn["content"]),
        ],
    ]


PLAIN_WIRES = (
    OpenAIWire(OPENAI),
    AnthropicWire(LLMProviderConfig(provider="anthropic", model="claude-test", prompt_cache="off")),
)


class Story:
    """Plays actions on one session through a warm handle; behind each, a cold one has to send the same."""

    def __init__(self, folder: Path, *, is_short: bool) -> None:
        self.folder = folder
        self.path = folder / "app.db"
        self.warm = self._handle(self.path, is_short=is_short)
        self.is_short = is_short
        self.probes = 0
        self.looked_at = 0
        self.sid = ""

    def _handle(self, path: Path, *, is_short: bool) -> StatefulAgentLoop:
        config = LoopConfig(
            compaction=Compaction(strategy=Digests(), trigger=0.7), projection=Projection() if is_short else None
        )
        dsn = f"sqlite:///{path}?synchronous=off"
        return StatefulAgentLoop(llm=Encoding(INFO), dsn=dsn, tool_registry=TOOLS, config=config)

    async def begin(self) -> None:
        self.sid = await self.warm.new_session(system_prompt="Be kind.")
        await self._say("Hi.")

    async def play(self, action: tuple[Any, ...]) -> None:
        kind, *facts = action
        await getattr(self, f"_{kind}")(*facts)

    async def _say(self, text: str) -> None:
        self.llm.script("Yes.")
        await self.warm.send(text, session_id=self.sid)

    async def _work(self, rounds: list[list[Any]], loop: StatefulAgentLoop | None = None) -> None:
        loop = loop or self.warm
        loop.llm.script(*(calls(*wanted, text="I look.") for wanted in rounds), "Done.")
        await loop.send("Look.", session_id=self.sid)

    async def _elsewhere(self, is_short: bool, rounds: list[list[Any]]) -> None:
        other = self._handle(self.path, is_short=is_short)
        await self._work(rounds, other)
        await other.aclose()
        self.looked_at = len(self.llm.requests)

    async def _switch(self, is_short: bool) -> None:
        await self.warm.aclose()
        self.is_short = is_short
        self.warm = self._handle(self.path, is_short=is_short)
        await self.warm.prewarm(self.sid)
        self.looked_at = 0

    async def _fold(self, share: float) -> None:
        """Fold up to the end of a send that is over, as another process would."""
        store: Any = await self.warm.get_store()
        folded = (await store.get_folds(self.sid))[-1:]
        first = folded[0].to_seq if folded else 0
        log = await store.get_messages(self.sid, after_seq=first)
        ends = [one.seq for one, after in itertools.pairwise(log) if one.send_index != after.send_index]
        if not ends:
            return
        taken = await store.take_up(Claim(self.sid, "folder", 30.0))
        to_seq = ends[int(share * (len(ends) - 1))]
        new = NewFold(to_seq, f"All up to {to_seq}.", taken.send_index, 1, "by hand")
        await store.append_fold(taken.lease, new, at_seq=taken.next_seq)
        await store.release(taken.lease)

    async def _compact(self) -> None:
        await self.warm.compact(self.sid)

    async def _prompt(self, text: str) -> None:
        await self.warm.update_session(self.sid, system_prompt=text)

    async def _prune(self, compacted: bool) -> None:
        store: Any = await self.warm.get_store()
        if compacted:
            await store.prune_compacted_messages(self.sid)
        else:
            await store.prune_tool_results(self.sid, older_than_s=0)

    async def _fork(self, share: float) -> None:
        """Go on with a fork that leaves at the end of a send behind the newest fold."""
        store: Any = await self.warm.get_store()
        folded = (await store.get_folds(self.sid))[-1:]
        log = await store.get_messages(self.sid, after_seq=folded[0].to_seq if folded else 0)
        ends = [one.seq for one, after in itertools.pairwise(log) if one.send_index != after.send_index]
        ends.append(log[-1].seq)
        self.sid = await store.fork_session(self.sid, at=ends[int(share * (len(ends) - 1))])
        self.looked_at = len(self.llm.requests)

    async def probe(self) -> None:
        self.probes += 1
        folder = self.folder / f"{self.probes}"
        folder.mkdir()
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{self.path}{suffix}", folder / f"app.db{suffix}")
        cold = self._handle(folder / "app.db", is_short=self.is_short)
        for loop in (self.warm, cold):
            loop.llm.script(calls(("look", {"n": 1}), ids=(f"p{self.probes}",)), "Fine.")
            await loop.send("And now?", session_id=self.sid)
        assert self.warm.llm.requests[-2:] == cold.llm.requests
        assert self.warm.llm.bodies[-2:] == cold.llm.bodies
        assert [check(request.messages) for request in cold.llm.requests] == [[], []]
        explained = [await loop.explain(self.sid) for loop in (self.warm, cold)]
        assert explained[0] == explained[1]
        await cold.aclose()
        await self._hold_to_explanations()

    async def _hold_to_explanations(self) -> None:
        """Hold what is said of each call since the last look against the requests themselves."""
        requests = self.llm.requests[self.looked_at :]
        call: int | None = None
        for before, after in zip(requests[-2::-1], requests[:0:-1], strict=True):
            explained = await self.warm.explain(self.sid, call)
            is_longer = all(
                grown[: len(start)] == start for start, grown in zip(in_front(before), in_front(after), strict=True)
            )
            assert is_longer == (explained.broken_by is None), str(explained)
            call = explained.previous_call
        self.looked_at = len(self.llm.requests) - 1

    @property
    def llm(self) -> Encoding:
        llm = self.warm.llm
        assert isinstance(llm, Encoding)
        return llm


@pytest.mark.promise("handle-without-state")
@settings(max_examples=30)
@given(st.lists(actions, min_size=1, max_size=8), st.booleans())
def test_whatever_became_of_a_session_a_warm_handle_sends_the_bytes_that_a_cold_one_sends(
    history: list[Any], is_short: bool
) -> None:
    async def play(folder: Path) -> None:
        story = Story(folder, is_short=is_short)
        await story.begin()
        for action in history:
            await story.play(action)
            await story.probe()
        await story.warm.aclose()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(play(Path(folder)))


async def test_live_state_changes_nothing_in_front_of_it(tmp_path: Path) -> None:
    """Notes and a list that change with every round, over rounds and sends: all that came before stays as it was."""
    story = Story(tmp_path, is_short=False)
    await story.begin()
    rounds = [
        [("note_write", {"title": "t", "text": f"note {n}"}), ("todo", {"items": [{"text": f"do {n}"}]})]
        for n in range(4)
    ]
    for _ in range(3):
        await story.play(("work", rounds))
    requests = story.llm.requests
    assert len({request.tail for request in requests}) == 5
    for before, after in itertools.pairwise(requests):
        for start, grown in zip(in_front(before), in_front(after), strict=True):
            assert grown[: len(start)] == start
    await story.warm.aclose()


async def test_a_warm_send_reads_no_old_rows_whatever_it_shows_in_their_place(tmp_path: Path) -> None:
    story = Story(tmp_path, is_short=True)
    await story.begin()
    await story.play(("work", [[("look", {"n": 1})]]))
    await story.play(("fold", 1.0))
    await story.play(("work", [[("look", {"n": 1})]]))
    store = CountingStore(await story.warm.get_store())
    counted = StatefulAgentLoop(llm=story.llm, store=store, tool_registry=TOOLS, config=story.warm.config)
    reads = ("read_view", "get_messages", "get_folds", "get_model_calls", "get_calls", "get_send", "get_session")
    for expected in (["read_view"], []):
        store.asked.clear()
        story.llm.script(calls(("look", {"n": 1})), "Done.")
        await counted.send("Look.", session_id=story.sid)
        assert [name for name in store.asked if name in reads] == expected
    explained = await counted.explain(story.sid)
    kinds = [segment.kind for segment in explained.segments]
    assert {SegmentKind.FOLD, SegmentKind.PROJECTED, SegmentKind.MESSAGES} < set(kinds)
    await counted.aclose()
    await story.warm.aclose()
