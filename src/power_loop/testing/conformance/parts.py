"""Makes the small things that the suite's tests are about, with the dull members filled in."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from power_loop import Effect, Message, SendStatus, SessionStore, TextPart, Usage
from power_loop.messages import Origin, Role, ToolCallPart, tool_message, user_message
from power_loop.records import CallState
from power_loop.storage import Accepted, CallStep, Claim, ModelCall, NewCall, NewReply, NewSend, SendEnd

TTL_S = 30.0
TEN_AND_THREE = Usage(10, 3)
COMPLETED = SendEnd(SendStatus.COMPLETED, {"text_seq": 2})


class HandClock:
    """Is a clock that a test moves by hand."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self.ms = now_ms
        self.ids = 0

    def now_ms(self) -> int:
        return self.ms

    def monotonic_s(self) -> float:
        return self.ms / 1000

    async def sleep(self, seconds: float) -> None:
        self.ms += round(seconds * 1000)
        await asyncio.sleep(0)

    def new_id(self, kind: str) -> str:
        self.ids += 1
        return f"{kind}_{self.ids:016d}"


async def new_session(store: SessionStore, session_id: str = "sess_1", **members: Any) -> str:
    await store.create_session(
        session_id, system_prompt=members.pop("system_prompt", None), metadata=members.pop("metadata", {})
    )
    return session_id


def claim(session_id: str, owner: str = "alice", *, ttl_s: float = TTL_S, dead_owner: str | None = None) -> Claim:
    return Claim(session_id, owner, ttl_s, dead_owner)


def new_send(
    text: str = "hello",
    *,
    request_id: str | None = None,
    input_hash: str = "h1",
    options: Mapping[str, Any] | None = None,
) -> NewSend:
    return NewSend(user_message(text), input_hash, options or {}, request_id)


async def accepted(store: SessionStore, session_id: str, owner: str = "alice", text: str = "hello") -> Accepted:
    outcome = await store.accept(claim(session_id, owner), new_send(text))
    assert isinstance(outcome, Accepted)
    return outcome


def answer(text: str = "hi there") -> Message:
    return Message(Role.ASSISTANT, (TextPart(text),), Origin("openai", "gpt"))


def model_call(usage: Usage | None = TEN_AND_THREE, **members: Any) -> ModelCall:
    return ModelCall("gpt", members.pop("stop", "end"), usage, members.pop("attempts", 1), 12, **members)


def reply(
    held: Accepted,
    text: str = "hi there",
    *,
    at_seq: int | None = None,
    round: int = 1,
    end: SendEnd | None = None,
    usage: Usage | None = TEN_AND_THREE,
) -> NewReply:
    seq = held.next_seq if at_seq is None else at_seq
    return NewReply(seq, held.send_index, round, (answer(text),), model_call(usage), end=end)


def reply_with_calls(
    held: Accepted,
    *call_ids: str,
    at_seq: int | None = None,
    round: int = 1,
    state: CallState = CallState.REQUESTED,
    effect: Effect = Effect.ONCE,
) -> NewReply:
    parts = tuple(ToolCallPart(call_id, "look", "{}") for call_id in call_ids)
    calls = tuple(
        NewCall(call_id, index, "look", "{}", effect, state, f"key-{call_id}") for index, call_id in enumerate(call_ids)
    )
    message = Message(Role.ASSISTANT, parts, Origin("openai", "gpt"))
    seq = held.next_seq if at_seq is None else at_seq
    return NewReply(seq, held.send_index, round, (message,), model_call(stop="tool_calls"), calls=calls)


def step(reply_seq: int, index: int, state: CallState, **members: Any) -> CallStep:
    return CallStep(reply_seq, index, state, **members)


def result_step(reply_seq: int, index: int, call_id: str, text: str = "found", **members: Any) -> CallStep:
    state = members.pop("state", CallState.SUCCEEDED)
    return CallStep(reply_seq, index, state, message=tool_message(call_id, (TextPart(text),)), **members)


async def one_send(store: SessionStore, session_id: str, text: str = "hello", back: str = "hi there") -> Accepted:
    held = await accepted(store, session_id, text=text)
    await store.append_reply(held.lease, reply(held, back, end=COMPLETED))
    return held


async def waiting_call(store: SessionStore, session_id: str, *call_ids: str) -> Accepted:
    """Bring a session to a reply with open calls, the lease still held."""
    held = await accepted(store, session_id)
    await store.append_reply(held.lease, reply_with_calls(held, *call_ids))
    return held
