"""A warm handle and a cold one send a model the same bytes, whatever happened in the session before."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from power_loop import (
    Deny,
    Give,
    ImagePart,
    LLMProviderConfig,
    LLMRequest,
    LLMResponse,
    LoopConfig,
    Message,
    StatefulAgentLoop,
    StopReason,
    TextPart,
    ToolContext,
    ToolDefinition,
    ToolResult,
    Usage,
    tool,
)
from power_loop.errors import LLMError, OutputError
from power_loop.llm import Emit, ModelInfo
from power_loop.messages import ReasoningPart, Role
from power_loop.runtime.llm.anthropic_wire import AnthropicWire
from power_loop.runtime.llm.openai_wire import OpenAIWire
from power_loop.testing import ScriptedLLM, calls

from .parts import is_fold
from .test_recovery import orphan

OPENAI = LLMProviderConfig(provider="openai", model="gpt-test")
ANTHROPIC = LLMProviderConfig(provider="anthropic", model="claude-test")
ANSWER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
SMALL = ModelInfo("openai", "gpt-test", "openai", context_window_tokens=1_500, max_output_tokens=200)
ANSWERS = ["give", "deny", "heal"]
LARGE = ModelInfo("openai", "gpt-test", "openai", has_json_schema=True)


class Encoding(ScriptedLLM):
    """Is a scripted model that puts each request on both wires, as a real one does on its own."""

    def __init__(self, info: ModelInfo) -> None:
        super().__init__(info=info)
        self._wires = (OpenAIWire(OPENAI), AnthropicWire(ANTHROPIC))
        self.bodies: list[tuple[bytes, ...]] = []

    def script(self, *steps: Any) -> None:
        """Forget what is left of the script, and follow this one."""
        self._steps, self._taken = list(steps), 0

    async def generate(self, request: LLMRequest, emit: Emit) -> LLMResponse:
        if is_fold(request):
            return LLMResponse.of_text("They talked.")
        self.bodies.append(tuple(wire.body(request) for wire in self._wires))
        return await super().generate(request, emit)


@tool(effect="read")
def ok(n: int, ctx: ToolContext) -> Any:
    """Work."""
    ctx.state["n"] = ctx.state.get("n", 0) + n
    return {"n": n, "sum": ctx.state["n"]}


@tool
async def bad(n: int) -> str:
    """Fail."""
    await asyncio.sleep(0)
    raise ValueError(f"no {n}")


@tool
def big(n: int) -> str:
    """Give a lot."""
    return f"{n} " * 20_000


@tool(effect="idempotent")
def picture(n: int) -> Any:
    """Give a picture."""
    return ToolResult((TextPart(f"picture {n}"), ImagePart.from_bytes(b"\x89PNG%d" % n)))


ASK = ToolDefinition("ask", "Ask.", {"type": "object", "properties": {"n": {"type": "integer"}}})
TOOLS = [ok, bad, big, picture, ASK]

texts = st.sampled_from(["Hello.", "ünïcödé ✓", "line\nbreak", 'quote " and \\', "word " * 60, "a\u2028b", "😀"])
wanted_call = st.tuples(
    st.sampled_from(["ok", "bad", "big", "picture", "ask", "nothing"]),
    st.one_of(st.integers(0, 9).map(lambda n: {"n": n}), st.sampled_from(['{"n": 1', '{"n": "x"}', "", "[]"])),
)
actions = st.one_of(
    st.tuples(st.just("say"), texts, texts),
    st.tuples(st.just("think"), texts, texts),
    st.tuples(st.just("elsewhere"), texts, texts),
    st.tuples(st.just("show"), texts),
    st.tuples(
        st.just("tools"), st.lists(wanted_call, min_size=1, max_size=4), st.sampled_from(["give", "deny", "heal"])
    ),
    st.tuples(st.just("cut"), st.lists(wanted_call, min_size=1, max_size=2)),
    st.tuples(st.just("fail"), st.booleans()),
    st.tuples(st.just("prompt"), texts),
    st.tuples(st.just("structured"), st.lists(st.sampled_from(["{}", '{"n": 1}', "x"]), min_size=1, max_size=3)),
)


class Story:
    """Plays actions on one session through a warm handle; `probe` compares what it and a cold one send next."""

    def __init__(self, folder: Path, info: ModelInfo) -> None:
        self.folder = folder
        self.info = info
        self.path = folder / "app.db"
        self.warm = self._handle(self.path)
        self.probes = 0
        self.sid = ""

    def _handle(self, path: Path) -> StatefulAgentLoop:
        return StatefulAgentLoop(
            llm=Encoding(self.info),
            dsn=f"sqlite:///{path}?synchronous=off",
            tool_registry=TOOLS,
            config=LoopConfig(max_output_repairs=1),
        )

    async def begin(self) -> None:
        self.sid = await self.warm.new_session(system_prompt="Be kind.")

    async def play(self, action: tuple[Any, ...]) -> None:
        kind, *facts = action
        await getattr(self, f"_{kind}")(*facts)

    async def _say(self, text: str, answer: str) -> None:
        self.warm.llm.script(answer)
        await self.warm.send(text, session_id=self.sid)

    async def _think(self, text: str, thought: str) -> None:
        parts = (ReasoningPart(thought, field="reasoning_content"), TextPart("So."))
        self.warm.llm.script(LLMResponse(Message(Role.ASSISTANT, parts, self.info.origin), usage=Usage(1, 1)))
        await self.warm.send(text, session_id=self.sid)

    async def _elsewhere(self, text: str, answer: str) -> None:
        other = self._handle(self.path)
        other.llm.script(answer)
        await other.send(text, session_id=self.sid)
        await other.aclose()

    async def _show(self, text: str) -> None:
        self.warm.llm.script("Seen.")
        await self.warm.send([text, ImagePart(url="https://example.org/a.png")], session_id=self.sid)

    async def _tools(self, wanted: list[Any], answer: str) -> None:
        self.warm.llm.script(calls(*wanted, text="Let me see."), "Seen.")
        result = await self.warm.send("Look.", session_id=self.sid)
        if not result.pending:
            return
        if answer == "heal":
            await self.warm.heal_pending(self.sid)
        else:
            given = Give("given") if answer == "give" else Deny("no")
            await self.warm.resume(self.sid, answers={one.call_id: given for one in result.pending})

    async def _cut(self, wanted: list[Any]) -> None:
        reply = calls(*wanted)
        self.warm.llm.script(LLMResponse(reply.message, StopReason.LENGTH, reply.usage), "I see.")
        await self.warm.send("Look.", session_id=self.sid)

    async def _fail(self, resumes: bool) -> None:
        self.warm.llm.script(LLMError("down"))
        with pytest.raises(LLMError):
            await self.warm.send("Are you there?", session_id=self.sid)
        if resumes:
            self.warm.llm.script("Yes.")
            await self.warm.resume(self.sid)

    async def _prompt(self, text: str) -> None:
        other = self._handle(self.path)
        await other.update_session(self.sid, system_prompt=text)
        await other.aclose()

    async def _structured(self, given: list[str]) -> None:
        self.warm.llm.script(*given)
        # It cannot be mended, or the script is over.
        with contextlib.suppress(OutputError, LLMError):
            await self.warm.send("Which?", session_id=self.sid, output_schema=ANSWER)

    async def probe(self) -> None:
        self.probes += 1
        folder = self.folder / f"{self.probes}"
        folder.mkdir()
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{self.path}{suffix}", folder / f"app.db{suffix}")
        cold = self._handle(folder / "app.db")
        for loop in (self.warm, cold):
            loop.llm.script("Fine.")
            await loop.send("And now?", session_id=self.sid)
        assert self.warm.llm.bodies[-1] == cold.llm.bodies[-1]
        assert self.warm.llm.requests[-1] == cold.llm.requests[-1]
        await cold.aclose()


@pytest.mark.promise("handle-without-state")
@pytest.mark.parametrize("is_small", [False, True])
@settings(max_examples=60)
@given(history=st.lists(actions, min_size=1, max_size=7))
def test_a_warm_handle_sends_the_bytes_that_a_cold_one_sends(is_small: bool, history: list[Any]) -> None:
    async def play(folder: Path) -> None:
        story = Story(folder, SMALL if is_small else LARGE)
        await story.begin()
        for action in history:
            await story.play(action)
        await story.probe()
        # The probe is part of the history of the next one.
        await story.play(history[0])
        await story.probe()
        await story.warm.aclose()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(play(Path(folder)))


@pytest.mark.promise("handle-without-state")
def test_within_a_turn_a_resumed_handle_sends_the_bytes_of_the_one_that_went_on(tmp_path: Path) -> None:
    """The request of each later round is the same, whether the turn was one or was taken up by another process."""

    async def play() -> None:
        story = Story(tmp_path, LARGE)
        await story.begin()
        await story.play(("think", "Hello.", "Hm."))
        wanted = calls(("ok", {"n": 1}), ("big", {"n": 2}), ("bad", {"n": 3}), ("picture", {"n": 4}), ids=tuple("abcd"))
        seen: list[Path] = []

        def copy_and_go_on(request: LLMRequest) -> str:
            folder = tmp_path / f"copy{len(seen)}"
            folder.mkdir()
            for suffix in ("", "-wal"):
                shutil.copyfile(f"{story.path}{suffix}", folder / f"app.db{suffix}")
            seen.append(folder / "app.db")
            return "Done."

        story.warm.llm.script(wanted, copy_and_go_on)
        await story.warm.send("Look.", session_id=story.sid)
        cold = story._handle(seen[0])
        cold.llm.script("Done.")
        # What holds the lease in the copy is taken for dead.
        orphan(seen[0])
        await cold.resume(story.sid)
        assert cold.llm.bodies == story.warm.llm.bodies[-1:]
        await cold.aclose()
        await story.warm.aclose()

    asyncio.run(play())
