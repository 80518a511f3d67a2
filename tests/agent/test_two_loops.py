"""Handles in several event loops and threads of one process: one turn at a time, and no harm done to each other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from power_loop import Approve, LLMRequest, LLMResponse, SendStatus, StatefulAgentLoop, Usage, tool
from power_loop.errors import CallNotWaitingError, SessionBusyError
from power_loop.llm import Emit, ModelInfo
from power_loop.testing import ScriptedLLM, call, calls

from .parts import LIMIT_S, said, until, within_limit


def in_threads(*works: Callable[[], Coroutine[Any, Any, Any]]) -> list[Any]:
    """Run each work in an event loop and a thread of its own; return what each gave, in order."""
    with ThreadPoolExecutor(len(works)) as pool:
        futures = [pool.submit(lambda work=work: asyncio.run(within_limit(work()))) for work in works]
        return [future.result(LIMIT_S + 5) for future in futures]


def session_of(dsn: str) -> str:
    async def make() -> str:
        async with StatefulAgentLoop(llm=ScriptedLLM(), dsn=dsn) as loop:
            return await loop.new_session()

    return asyncio.run(make())


def log_of(dsn: str, sid: str) -> list[tuple[str, str]]:
    async def read() -> list[tuple[str, str]]:
        async with StatefulAgentLoop(llm=ScriptedLLM(), dsn=dsn) as loop:
            return said(await loop.get_messages(sid))

    return asyncio.run(read())


class Echo:
    """Is a model that says the last words again, after giving way a few times."""

    info = ModelInfo("own", "echo")

    async def generate(self, request: LLMRequest, emit: Emit) -> LLMResponse:
        for _ in range(3):
            await asyncio.sleep(0)
        return LLMResponse.of_text(request.messages[-1].text.upper(), usage=Usage(1, 1))


@pytest.mark.promise("one-writer")
def test_sends_from_two_event_loops_run_whole_or_are_told_that_the_session_is_busy(dsn: str) -> None:
    sid = session_of(dsn)
    together = threading.Barrier(2)

    def sender(name: str) -> Callable[[], Coroutine[Any, Any, list[str]]]:
        async def send() -> list[str]:
            accepted: list[str] = []
            async with StatefulAgentLoop(llm=Echo(), dsn=dsn) as loop:
                await loop.get_store()
                together.wait(LIMIT_S)
                n = 0
                while len(accepted) < 40:
                    n += 1
                    try:
                        result = await loop.send(f"{name}{n}", session_id=sid)
                    except SessionBusyError:
                        await asyncio.sleep(0)
                        continue
                    assert result.status is SendStatus.COMPLETED
                    assert result.final_text == f"{name.upper()}{n}"
                    accepted.append(f"{name}{n}")
            return accepted

        return send

    first, second = in_threads(sender("a"), sender("b"))
    log = log_of(dsn, sid)
    assert [role for role, _ in log] == ["user", "assistant"] * 80
    texts = [text for _, text in log]
    assert [text.upper() for text in texts[::2]] == texts[1::2], "no turn is torn by another"
    assert [text for text in texts[::2] if text.startswith("a")] == first
    assert [text for text in texts[::2] if text.startswith("b")] == second


def test_a_turn_is_cancelled_from_another_event_loop(dsn: str) -> None:
    sid = session_of(dsn)
    entered = threading.Event()

    async def hang(request: LLMRequest) -> str:
        entered.set()
        await asyncio.Event().wait()
        return "never"

    async def send() -> Any:
        async with StatefulAgentLoop(llm=ScriptedLLM([hang, "Fine."]), dsn=dsn) as loop:
            result = await loop.send("go", session_id=sid)
            later = await loop.send("again", session_id=sid)
            return result.status, result.reason, later.final_text

    async def cancel() -> bool:
        async with StatefulAgentLoop(llm=ScriptedLLM(), dsn=dsn) as loop:
            await asyncio.to_thread(entered.wait, LIMIT_S)
            with pytest.raises(SessionBusyError):
                await loop.send("me too", session_id=sid)
            return await loop.cancel(sid, reason="from afar")

    assert in_threads(send, cancel) == [(SendStatus.CANCELLED, "from afar", "Fine."), True]


def test_of_answers_from_several_event_loops_one_counts(dsn: str) -> None:
    ran: list[int] = []

    @tool(requires_approval=True)
    def pay() -> str:
        """Pay."""
        ran.append(1)
        return "paid"

    sid = session_of(dsn)

    async def ask() -> None:
        async with StatefulAgentLoop(
            llm=ScriptedLLM([calls(("pay", {}), ids=("c",))]), dsn=dsn, tool_registry=[pay]
        ) as loop:
            await loop.send("go", session_id=sid)

    asyncio.run(ask())
    together = threading.Barrier(4)

    async def answer() -> str:
        llm = ScriptedLLM(["Done."])
        async with StatefulAgentLoop(llm=llm, dsn=dsn, tool_registry=[pay]) as loop:
            await loop.get_store()
            together.wait(LIMIT_S)
            try:
                await loop.resume(sid, answers={"c": Approve()})
            except (SessionBusyError, CallNotWaitingError) as error:
                return error.code
            return "answered"

    given = in_threads(answer, answer, answer, answer)
    assert given.count("answered") == 1, given
    assert ran == [1]
    assert log_of(dsn, sid)[-1] == ("assistant", "Done.")


def test_of_resumes_from_several_event_loops_one_drives_and_the_others_see_its_result(dsn: str) -> None:
    sid = session_of(dsn)

    async def break_off() -> None:
        async with StatefulAgentLoop(llm=ScriptedLLM([RuntimeError("down")]), dsn=dsn) as loop:
            with pytest.raises(Exception, match="down"):
                await loop.send("go", session_id=sid)

    asyncio.run(break_off())
    together = threading.Barrier(4)

    async def go_on() -> str:
        llm = ScriptedLLM(["Done."])
        async with StatefulAgentLoop(llm=llm, dsn=dsn) as loop:
            await loop.get_store()
            together.wait(LIMIT_S)
            while True:
                try:
                    result = await loop.resume(sid)
                except SessionBusyError:
                    await asyncio.sleep(0)
                    continue
                assert (result.status, result.final_text) == (SendStatus.COMPLETED, "Done.")
                return f"{len(llm.requests)}"

    assert sorted(in_threads(go_on, go_on, go_on, go_on)) == ["0", "0", "0", "1"]
    assert log_of(dsn, sid) == [("user", "go"), ("assistant", "Done.")]


def test_one_handle_serves_several_event_loops(dsn: str) -> None:
    loop = StatefulAgentLoop(llm=Echo(), dsn=dsn)

    def talker(name: str) -> Callable[[], Coroutine[Any, Any, list[str]]]:
        async def talk() -> list[str]:
            sid = await loop.new_session()
            return [(await loop.send(f"{name}{n}", session_id=sid)).final_text for n in range(10)]

        return talk

    given = in_threads(*(talker(name) for name in "abcd"))
    assert given == [[f"{name}{n}" for n in range(10)] for name in "ABCD"]
    asyncio.run(loop.aclose())


def test_a_handle_outlives_the_event_loops_that_use_it(dsn: str) -> None:
    loop = StatefulAgentLoop(llm=Echo(), dsn=dsn)
    sid = asyncio.run(loop.new_session())
    for n in range(5):
        assert asyncio.run(loop.send(f"n{n}", session_id=sid)).final_text == f"N{n}"
    asyncio.run(loop.aclose())
    assert len(log_of(dsn, sid)) == 10


def test_an_event_loop_that_ends_in_the_middle_of_a_turn_leaves_the_session_ready(dsn: str) -> None:
    entered: list[int] = []

    @tool
    async def wait() -> str:
        """Wait."""
        entered.append(1)
        await asyncio.Event().wait()
        return "never"

    loop = StatefulAgentLoop(llm=ScriptedLLM([call("wait"), "Fine."]), dsn=dsn, tool_registry=[wait])

    async def leave() -> str:
        sid = await loop.new_session()
        turn = asyncio.create_task(loop.send("go", session_id=sid))
        await within_limit(until(lambda: bool(entered)))
        assert not turn.done()
        return sid  # asyncio.run cancels what is left

    sid = asyncio.run(leave())
    assert asyncio.run(loop.get_pending(sid)) == ()
    assert asyncio.run(loop.send("again", session_id=sid)).final_text == "Fine."
    asyncio.run(loop.aclose())
    assert [role for role, _ in log_of(dsn, sid)] == ["user", "assistant", "tool", "user", "assistant"]


def test_closing_waits_for_turns_of_other_threads(dsn: str) -> None:
    entered, go_on = threading.Event(), threading.Event()

    async def hold(request: LLMRequest) -> str:
        entered.set()
        await asyncio.to_thread(go_on.wait, LIMIT_S)
        return "Done."

    loop = StatefulAgentLoop(llm=ScriptedLLM([hold]), dsn=dsn)
    sid = session_of(dsn)

    async def close() -> bool:
        await asyncio.to_thread(entered.wait, LIMIT_S)
        closing = asyncio.create_task(loop.aclose())
        for _ in range(10):
            await asyncio.sleep(0)
        was_waiting = not closing.done()
        go_on.set()
        await closing
        return was_waiting

    async def send() -> str:
        return (await loop.send("go", session_id=sid)).final_text

    assert in_threads(send, close) == ["Done.", True]
