"""Grows sessions of any shape on a store: the same draws make the same moves, whatever backend they go to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from power_loop.contracts.llm import Usage
from power_loop.contracts.messages import (
    AudioPart,
    FilePart,
    Message,
    OpaquePart,
    Origin,
    Part,
    ReasoningPart,
    RefusalPart,
    Role,
    TextPart,
    ToolCallPart,
    user_message,
)
from power_loop.contracts.records import Accepted, ModelCall, NewCall, NewReply, NewSend, SendEnd
from power_loop.contracts.states import CallState, Effect, SendStatus, WaitKind
from power_loop.runtime.store.store import SqlSessionStore
from tests.conformance.parts import HandClock, claim, result_step, step

Draw = Callable[[st.SearchStrategy[Any]], Any]

#: Text with what databases stumble over: NULs, halves of characters, four bytes, separators of lines, quotes.
TEXTS = st.one_of(
    st.sampled_from(["", "plain", "😀 𝄞", "a\0b", "\ud83d", "l\n\u2028\r\n", "\"'\\{}%s?", "  ", "\x7f\x01"]),
    st.text(max_size=30),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)
OBJECTS = st.dictionaries(TEXTS, JSON, max_size=3)
_COUNTS = st.integers(0, 10**13)
_ENDS = st.sampled_from([SendStatus.COMPLETED, SendStatus.FAILED, SendStatus.CANCELLED, SendStatus.REFUSED])


def usages() -> st.SearchStrategy[Usage | None]:
    return st.one_of(st.none(), st.builds(Usage, _COUNTS, _COUNTS, _COUNTS, _COUNTS, _COUNTS, st.booleans()))


def said() -> st.SearchStrategy[tuple[Part, ...]]:
    """What a model may say beside its calls, with a provider's own blocks."""
    return st.lists(
        st.one_of(
            st.builds(TextPart, TEXTS),
            st.builds(ReasoningPart, TEXTS, st.one_of(st.none(), TEXTS), st.one_of(st.none(), TEXTS)),
            st.builds(RefusalPart, TEXTS),
            st.builds(OpaquePart, TEXTS),
        ),
        max_size=3,
    ).map(tuple)


def asked() -> st.SearchStrategy[Message]:
    file = FilePart("application/pdf", data="JVBERi0x", filename="ü.pdf")
    more = st.lists(st.sampled_from([file, AudioPart("UklGRg==", "wav")]), max_size=2)
    return st.builds(lambda text, parts: user_message((TextPart(f"> {text}"), *parts)), TEXTS, more)


async def grow(store: SqlSessionStore, clock: HandClock, draw: Draw, session_id: str) -> None:
    """Make a session and take it through some sends; it rests, or stands in the middle of a turn."""
    prompt = draw(st.one_of(st.none(), TEXTS))
    await store.create_session(session_id, system_prompt=prompt, metadata=draw(OBJECTS))
    for number in range(draw(st.integers(0, 3))):
        request_id = draw(st.sampled_from([None, f"r{number}", f"ü😀{number}"]))
        new = NewSend(draw(asked()), f"h{number}", draw(OBJECTS), request_id)
        held = await store.accept(claim(session_id), new)
        assert isinstance(held, Accepted)
        clock.ms += draw(st.integers(0, 5000))
        if not await _turn(store, draw, held, number):
            return
    if draw(st.booleans()):
        await store.update_session(session_id, metadata=draw(OBJECTS))
    if draw(st.booleans()):
        await store.close_session(session_id)


async def _turn(store: SqlSessionStore, draw: Draw, held: Accepted, number: int) -> bool:
    """Run a turn; False if it is left where it stands."""
    seq = held.next_seq
    for round in range(1, draw(st.integers(1, 3)) + 1):
        if draw(st.integers(0, 9)) == 0:
            return False
        count = draw(st.integers(0, 3))
        ids = [f"c{number}_{round}_{index}" for index in range(count)]
        parts = draw(said()) + tuple(ToolCallPart(call_id, "look", '{"a": 1}') for call_id in ids)
        message = Message(Role.ASSISTANT, parts or (TextPart("x"),), Origin("openai", "gpt"))
        call = ModelCall("gpt", "end", draw(usages()), 1, 12, draw(st.one_of(st.none(), TEXTS)))
        effects = [draw(st.sampled_from(list(Effect))) for _ in ids]
        calls = tuple(
            NewCall(call_id, index, "look", '{"a": 1}', effects[index], CallState.REQUESTED, f"key-{call_id}")
            for index, call_id in enumerate(ids)
        )
        is_last = not count and draw(st.booleans())
        end = SendEnd(draw(_ENDS), draw(OBJECTS)) if is_last else None
        new = NewReply(seq, held.send_index, round, (message,), call, calls=calls, end=end)
        await store.append_reply(held.lease, new)
        reply_seq, seq = seq, seq + 1
        if is_last:
            return True
        for index, call_id in enumerate(ids):
            fate = draw(st.sampled_from(["done", "done", "done", "whole", "started", "waiting", "aborted"]))
            steps = (
                [step(reply_seq, index, CallState.STARTED, attempt=1)] if fate in ("done", "whole", "started") else []
            )
            if fate == "waiting":
                kind, data = draw(st.sampled_from(list(WaitKind))), draw(st.one_of(st.none(), OBJECTS))
                steps.append(
                    step(reply_seq, index, CallState.WAITING, wait_kind=kind, prompt=draw(TEXTS), wait_data=data)
                )
            elif fate != "started":
                state = CallState.ABORTED if fate == "aborted" else CallState.SUCCEEDED
                whole = (TextPart(draw(TEXTS)),) if fate == "whole" else None
                steps.append(result_step(reply_seq, index, call_id, draw(TEXTS), state=state, whole=whole))
            has_message = any(one.message is not None for one in steps)
            for one in steps:
                state = draw(st.one_of(st.none(), OBJECTS)) if one is steps[-1] else None
                await store.advance_calls(
                    held.lease, [one], at_seq=seq, send_index=held.send_index, round=round, tool_state=state
                )
            seq += has_message
            if fate in ("started", "waiting"):
                return False
    await store.end_send(held.lease, held.send_index, SendEnd(draw(_ENDS), draw(OBJECTS)))
    return True
