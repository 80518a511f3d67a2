"""Images, files and sounds: what goes in comes back unchanged from the store, and goes to a model as it takes it."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from power_loop import (
    AudioPart,
    FilePart,
    FollowUp,
    HookPoint,
    ImagePart,
    LLMProviderConfig,
    LLMResponse,
    SendStatus,
    StatefulAgentLoop,
    TextPart,
    ToolResult,
    create_llm_service_from_config,
    tool,
)
from power_loop.errors import MissingExtraError
from power_loop.hooks import LLMBeforeContext, Rewrite, SendStartContext
from power_loop.llm import ModelInfo
from power_loop.messages import ToolCallPart, user_message
from power_loop.testing import ScriptedLLM
from tests.model_server import ModelServer, call, say

from .conftest import MakeLoop
from .parts import within_limit
from .pdf_files import pdf_of

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
REPORT = pdf_of(["The harvest was 412 tons.", "It rained in May."])
#: A file of 60 kB whose reading takes many seconds.
SLOW = pdf_of([b"BT /F1 9 Tf (x) Tj ET " * 400_000] * 3, is_packed=True)
#: A part in each way in which it can come.
EVERY_PART = (
    TextPart("Look at all of this."),
    ImagePart.from_bytes(PNG),
    ImagePart(url="https://example.com/a.png", detail="high"),
    ImagePart(url="data:image/gif;base64,R0lGODlhAQABAAAAACw="),
    FilePart.from_bytes(REPORT, filename="report.pdf"),
    FilePart(url="https://example.com/b.pdf", filename="b.pdf"),
    FilePart(url="data:application/pdf;base64," + base64.b64encode(REPORT).decode()),
    FilePart(file_id="file-123"),
    FilePart(file_id="file_123"),
    FilePart.from_bytes("päge,1\n".encode(), "text/csv", filename="a.csv"),
    FilePart.from_bytes(b'{"a": 1}', "application/json"),
    FilePart.from_bytes(b"PK\x03\x04", "application/zip", filename="a.zip"),
    AudioPart(base64.b64encode(b"RIFF....WAVE").decode()),
)
#: What each wire makes of them where the model takes everything that the wire carries.
OPENAI_TYPES = ["text", "image_url", "image_url", "image_url", "file", "text", "file", "file", "text", "text", "text"]
OPENAI_TYPES += ["text", "input_audio"]
ANTHROPIC_TYPES = ["text", "image", "image", "image", "document", "document", "document", "text", "document"]
ANTHROPIC_TYPES += ["document", "document", "text", "text"]

Connect = Callable[..., Any]


@pytest.fixture(params=["openai", "anthropic"])
async def connect(request: pytest.FixtureRequest) -> AsyncIterator[Connect]:
    """Makes a service for a server, on each wire, of a model that takes PDF files unless it is told otherwise."""
    services: list[Any] = []

    def make(server: ModelServer, **options: Any) -> Any:
        settings: dict[str, Any] = {
            "provider": request.param,
            "base_url": server.base_url,
            "api_key": "k",
            "model": "m",
            "context_window_tokens": 400_000,
            "has_pdf": True,
            **options,
        }
        services.append(create_llm_service_from_config(LLMProviderConfig(**settings)))
        return services[-1]

    make.wire = request.param  # type: ignore[attr-defined]
    yield make
    for service in services:
        await service.aclose()


@tool(effect="read")
def scan() -> Any:
    """Scan what lies there."""
    return ToolResult(EVERY_PART)


def parts_sent(request: Any, *, message: int = -1) -> list[dict[str, Any]]:
    """The content parts of a message of a request; a tool's results are what stands in them."""
    content = request.messages[message]["content"]
    found = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return [inner for part in found for inner in (part["content"] if part["type"] == "tool_result" else [part])]


def text_sent(request: Any) -> str:
    return json.dumps(request.body, ensure_ascii=False)


async def test_every_part_comes_back_from_the_store_as_it_was_given(make_loop: MakeLoop) -> None:
    loop = make_loop(LLMResponse.of_text("I see."))
    sid = await loop.new_session()
    await loop.send(EVERY_PART, session_id=sid)
    cold = make_loop()
    assert (await cold.get_messages(sid))[0].message.parts == EVERY_PART


async def test_each_wire_gets_every_part_as_it_carries_it(make_loop: MakeLoop, connect: Connect) -> None:
    async with ModelServer([say("I see.")]) as server:
        loop = make_loop(llm=connect(server))
        sid = await loop.new_session()
        assert (await loop.send(EVERY_PART, session_id=sid)).status is SendStatus.COMPLETED
    (request,) = server.requests
    assert request.problems == []
    wanted = OPENAI_TYPES if connect.wire == "openai" else ANTHROPIC_TYPES  # type: ignore[attr-defined]
    assert [part["type"] for part in parts_sent(request)] == wanted
    assert "[file a.zip of type application/zip, which this model cannot read]" in text_sent(request)
    assert "that another provider keeps, which was not read]" in text_sent(request)
    assert "päge,1" in text_sent(request)


async def test_inputs_follow_ups_results_and_hooks_bring_media_that_a_cold_process_sends_byte_for_byte(
    make_loop: MakeLoop, connect: Connect
) -> None:
    script = [call("scan"), say("Seen."), say("Again."), say("Later."), say("Last."), say("Last.")]
    async with ModelServer(script) as server:
        options: dict[str, Any] = {"llm": connect(server), "tool_registry": [scan]}
        loop = make_loop(**options)

        @loop.hooks.on(HookPoint.SEND_START)
        def add_picture(context: SendStartContext) -> Any:
            if context.content == (TextPart("Look again."),):
                return Rewrite(content=(*context.content, ImagePart.from_bytes(PNG)))
            return None

        sid = await loop.new_session(system_prompt="Look closely.")
        await loop.send(EVERY_PART, session_id=sid)
        await loop.send("Look again.", session_id=sid)
        queued = await loop.follow_up(sid, EVERY_PART)
        assert isinstance(queued, FollowUp)
        await within_limit(server.wait_for_requests(4))
        await within_limit(_rest(loop, sid))
        store: Any = await loop.get_store()
        fork = await store.fork_session(sid)
        await loop.send("Go on.", session_id=sid)
        warm = server.requests[-1]
        cold = make_loop(**options)
        await cold.send("Go on.", session_id=fork)
    assert [request.problems for request in server.requests] == [[]] * 6
    assert _without_ids(server.requests[-1]) == _without_ids(warm)
    assert text_sent(warm).count(base64.b64encode(PNG).decode()) == 4


async def _rest(loop: StatefulAgentLoop, sid: str) -> None:
    while (await loop.get_session(sid)).owner is not None:  # noqa: ASYNC110 - bounded by the caller
        await asyncio.sleep(0)


def _without_ids(request: Any) -> bytes:
    """A request's body without what names its session."""
    body = {name: value for name, value in request.body.items() if name != "prompt_cache_key"}
    return json.dumps(body).encode()


async def test_twenty_megabytes_survive_storage_and_go_out_whole(make_loop: MakeLoop, connect: Connect) -> None:
    big = PNG + bytes(20_000_000)
    async with ModelServer([say("Big."), say("Still big.")]) as server:
        loop = make_loop(llm=connect(server))
        sid = await loop.new_session()
        await loop.send([ImagePart.from_bytes(big)], session_id=sid)
        cold = make_loop(llm=connect(server))
        await cold.send("Still there?", session_id=sid)
    first, second = server.requests
    assert (first.problems, second.problems) == ([], [])
    encoded = base64.b64encode(big).decode()
    assert [encoded in text_sent(request) for request in (first, second)] == [True, True]
    stored = (await cold.get_messages(sid, limit=1))[0].message.parts[0]
    assert isinstance(stored, ImagePart)
    assert stored.data == encoded


async def test_a_model_that_takes_text_only_is_told_what_there_was(make_loop: MakeLoop, connect: Connect) -> None:
    async with ModelServer([say("I see.")]) as server:
        llm = connect(server, has_images=False, has_audio=False, has_pdf=False)
        assert (llm.info.has_images, llm.info.has_audio, llm.info.has_pdf) == (False, False, False)
        loop = make_loop(llm=llm)
        sid = await loop.new_session()
        await loop.send([ImagePart.from_bytes(PNG), AudioPart("AAAA"), FilePart.from_bytes(REPORT)], session_id=sid)
    said = [part["text"] for part in parts_sent(server.requests[0])]
    assert said[:2] == ["[image, which this model cannot see]", "[wav sound, which this model cannot hear]"]
    assert "The harvest was 412 tons." in said[2]


async def test_a_session_that_moves_to_another_model_gets_its_media_as_that_one_takes_them(
    make_loop: MakeLoop, connect: Connect
) -> None:
    async with ModelServer([say("A picture."), say("No picture."), say("A picture.")]) as server:
        sees, reads = connect(server), connect(server, has_images=False)
        loop = make_loop(llm=sees)
        sid = await loop.new_session()
        await loop.send([ImagePart.from_bytes(PNG)], session_id=sid)
        await make_loop(llm=reads).send("And now?", session_id=sid)
        await loop.send("And again?", session_id=sid)
    shown = [base64.b64encode(PNG).decode() in text_sent(request) for request in server.requests]
    assert shown == [True, False, True]


# ---- PDF files ----


class _Reader(ScriptedLLM):
    """Is a scripted model that takes no PDF files."""

    info = ModelInfo("scripted", "scripted", context_window_tokens=128_000, has_pdf=False)


def _seen(llm: Any, *, call: int = -1) -> str:
    """All text of the messages of a model call."""
    found: list[str] = []
    for message in llm.requests[call].messages:
        result = message.tool_result
        parts = message.parts if result is None else result.content
        found += [part.text for part in parts if isinstance(part, TextPart)]
    return "\n".join(found)


async def test_a_model_without_pdf_input_gets_the_text_of_each_page_and_the_log_keeps_the_file(
    make_loop: MakeLoop,
) -> None:
    llm = _Reader([LLMResponse.of_text("412.")])
    loop = make_loop(llm=llm)
    sid = await loop.new_session()
    given = FilePart.from_bytes(REPORT, filename="report.pdf")
    await loop.send(["How much?", given], session_id=sid)
    assert "the text of the PDF file 'report.pdf', which has 2 pages" in _seen(llm)
    assert "[page 1]\nThe harvest was 412 tons.\n\n[page 2]\nIt rained in May." in _seen(llm)
    assert (await loop.get_messages(sid))[0].message.parts == (TextPart("How much?"), given)
    # What the model was shown is what the prompt is counted by.
    view = await (await loop.get_store()).read_view(sid)
    assert view.last_call is not None


async def test_the_same_file_is_the_same_text_in_a_cold_process_and_in_results_and_from_hooks(
    make_loop: MakeLoop,
) -> None:
    @tool(effect="read")
    def fetch() -> Any:
        """Fetch the report."""
        return ToolResult((FilePart.from_bytes(REPORT, filename="report.pdf"),))

    llm = _Reader([LLMResponse.of_calls(ToolCallPart("c1", "fetch", "{}")), *[LLMResponse.of_text("Yes.")] * 3])
    loop = make_loop(llm=llm, tool_registry=[fetch])
    sid = await loop.new_session()
    await loop.send("Fetch it.", session_id=sid)
    assert "The harvest was 412 tons." in _seen(llm)
    await loop.send("Go on.", session_id=sid)
    await make_loop(llm=llm, tool_registry=[fetch]).send("Go on.", session_id=sid)
    assert llm.requests[-1].messages[:-2] == llm.requests[-2].messages

    hooked = make_loop(llm=_Reader([LLMResponse.of_text("Yes.")]))

    @hooked.hooks.on(HookPoint.LLM_BEFORE)
    def add_file(context: LLMBeforeContext) -> Any:
        more = user_message([FilePart.from_bytes(REPORT)])
        return Rewrite(request=replace(context.request, messages=(*context.request.messages, more)))

    await hooked.send("Look.", session_id=await hooked.new_session())
    assert "It rained in May." in _seen(hooked.llm)


def _locked(owner_only: bool = False) -> bytes:
    import pypdf

    writer = pypdf.PdfWriter(clone_from=io.BytesIO(REPORT))
    writer.encrypt("" if owner_only else "secret", "owner", algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


@pytest.mark.parametrize(
    ("make_file", "wanted"),
    [
        pytest.param(lambda: b"%PDF-1.4\nnothing", "it is damaged", id="broken"),
        pytest.param(lambda: b"plain text", "it is damaged", id="no-pdf"),
        pytest.param(lambda: REPORT[: len(REPORT) // 2], "it is damaged", id="cut-off"),
        pytest.param(_locked, "it is locked with a password", id="encrypted"),
        pytest.param(lambda: _locked(owner_only=True), "412 tons", id="only-printing-is-locked"),
        pytest.param(lambda: pdf_of([b"0 0 m 9 9 l S"]), "there is no text in it", id="pictures"),
        pytest.param(lambda: pdf_of([b"", "Two."]), "[page 2]\nTwo.", id="an-empty-page"),
        pytest.param(lambda: REPORT + bytes(34_000_000), "only files of up to 32 MB are", id="huge"),
        pytest.param(lambda: pdf_of([b"q " * 40_000_000, "Two."], is_packed=True), "page cannot be", id="bomb"),
    ],
)
async def test_whatever_a_file_holds_the_model_gets_text_or_the_reason(
    make_loop: MakeLoop, make_file: Callable[[], bytes], wanted: str
) -> None:
    llm = _Reader([LLMResponse.of_text("So be it.")])
    loop = make_loop(llm=llm)
    sid = await loop.new_session()
    result = await loop.send([FilePart.from_bytes(make_file())], session_id=sid)
    assert result.status is SendStatus.COMPLETED
    assert wanted in _seen(llm)


@pytest.mark.parametrize("limit", [("MAX_CPU_S", 1), ("MAX_S", 0.3), ("MAX_MEMORY_BYTES", 80_000_000)])
async def test_a_file_that_takes_too_long_or_too_much_ends_only_its_own_reading(
    make_loop: MakeLoop, monkeypatch: pytest.MonkeyPatch, limit: tuple[str, float]
) -> None:
    monkeypatch.setattr(f"power_loop.runtime.host.pdf.{limit[0]}", limit[1])
    llm = _Reader([LLMResponse.of_text("So be it."), LLMResponse.of_text("Here I am.")])
    loop = make_loop(llm=llm)
    sid = await loop.new_session()
    await loop.send([FilePart.from_bytes(SLOW)], session_id=sid)
    assert "reading it takes too much time or memory" in _seen(llm)
    assert (await loop.send("Are you there?", session_id=sid)).final_text == "Here I am."


async def test_of_a_long_file_a_small_model_gets_what_a_third_of_its_window_holds(make_loop: MakeLoop) -> None:
    class Small(_Reader):
        info = ModelInfo("scripted", "scripted", context_window_tokens=9_000, max_output_tokens=500, has_pdf=False)

    llm = Small([LLMResponse.of_text("Long.")])
    loop = make_loop(llm=llm)
    book = pdf_of([f"Page {number} of the book. " * 20 for number in range(1, 200)])
    await loop.send([FilePart.from_bytes(book)], session_id=await loop.new_session())
    seen = _seen(llm)
    assert "which has 199 pages" in seen
    assert "[page 199]" not in seen
    assert "the text ends here: page" in seen
    assert 8_500 < len(seen) < 9_300


async def test_cancelling_ends_the_reading_of_a_file(make_loop: MakeLoop) -> None:
    llm = _Reader([LLMResponse.of_text("No.")])
    loop = make_loop(llm=llm)
    sid = await loop.new_session()
    turn = asyncio.create_task(loop.send([FilePart.from_bytes(SLOW)], session_id=sid))
    while not await loop.cancel(sid):  # noqa: ASYNC110 - the turn has to begin
        await asyncio.sleep(0)
    assert (await within_limit(turn)).status is SendStatus.CANCELLED
    assert llm.requests == []


# ---- without the extra ----


@pytest.fixture
def without_pypdf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pypdf", None)


@pytest.mark.usefixtures("without_pypdf")
async def test_without_the_extra_a_file_is_refused_at_the_door_and_nothing_is_stored(make_loop: MakeLoop) -> None:
    loop = make_loop(llm=_Reader([LLMResponse.of_text("Hello.")]))
    sid = await loop.new_session()
    file = FilePart.from_bytes(REPORT)
    with pytest.raises(MissingExtraError) as refused:
        await loop.send([file], session_id=sid)
    assert (refused.value.code, refused.value.extra) == ("config.missing_extra", "pdf")
    assert "power-loop[pdf]" in refused.value.message
    with pytest.raises(MissingExtraError):
        await loop.follow_up(sid, [file])
    assert await loop.get_messages(sid) == ()
    assert (await loop.send("Hello?", session_id=sid)).final_text == "Hello."


@pytest.mark.usefixtures("without_pypdf")
async def test_without_the_extra_a_model_that_takes_files_gets_them(make_loop: MakeLoop, connect: Connect) -> None:
    async with ModelServer([say("412.")]) as server:
        loop = make_loop(llm=connect(server))
        await loop.send([FilePart.from_bytes(REPORT)], session_id=await loop.new_session())
    assert base64.b64encode(REPORT).decode() in text_sent(server.requests[0])


async def test_a_file_that_is_in_the_log_already_does_not_end_the_conversation_without_the_extra(
    make_loop: MakeLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = make_loop(LLMResponse.of_text("412."))
    sid = await loop.new_session()
    await loop.send([FilePart.from_bytes(REPORT, filename="report.pdf")], session_id=sid)
    monkeypatch.setitem(sys.modules, "pypdf", None)
    llm = _Reader([LLMResponse.of_text("I cannot.")])
    await make_loop(llm=llm).send("And in May?", session_id=sid)
    assert "['report.pdf'" not in _seen(llm)
    assert "[the PDF file 'report.pdf', which could not be read: no program that reads PDF files is" in _seen(llm)
