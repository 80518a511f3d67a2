"""Says what a model call was sent, part by part, and how that differs from the call before."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from power_loop import LLMRequest, StatefulAgentLoop
from power_loop.context import RecordedPart, Segment, SegmentKind, recorded_prompt, request_differences
from power_loop.contrib.event_values import json_value
from power_loop.contrib.inspect.views import MAX_CHARS, bounded
from power_loop.hooks import LLMBeforeContext
from power_loop.records import ModelCallRecord

Value = dict[str, Any]

#: So many requests of this process are kept word by word.
MAX_REQUESTS = 50
# The whole log of a session that is longer is not read for one prompt.
_MAX_LOG = 5_000
# The last of a part's messages are shown: what is new stands at its end.
_MAX_SHOWN = 200


class Requests:
    """Keeps the last requests that a loop of this process sent, by session, send and round."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, int, int], LLMRequest] = OrderedDict()

    def see(self, context: LLMBeforeContext) -> None:
        """Keep one; a hook of `llm.before` that decides nothing."""
        key = (context.session_id, context.send_index, context.round)
        self._kept.pop(key, None)
        self._kept[key] = context.request
        if len(self._kept) > MAX_REQUESTS:
            self._kept.popitem(last=False)

    def of(self, session_id: str, record: ModelCallRecord) -> LLMRequest | None:
        """Return what a stored call was sent, if this process sent it lately."""
        return self._kept.get((session_id, record.send_index, record.round))


async def prompt_view(loop: StatefulAgentLoop, requests: Requests, session_id: str, call: int) -> Value:
    """Return the prompt of the call whose reply has the seq `call`. Raises `model_call.not_found`."""
    explained = await loop.explain(session_id, call)
    store: Any = await loop.get_store()
    found = await store.get_model_calls(session_id, before_seq=call + 1, limit=2)
    record, previous = found[0], found[1] if len(found) > 1 else None
    first = max(call - _MAX_LOG, 0)
    messages = await store.get_messages(session_id, after_seq=first, limit=call - first)
    folds = await store.get_folds(session_id)
    view = await store.read_view(session_id, projected=True)

    async def parts_of(one: ModelCallRecord) -> tuple[RecordedPart, ...]:
        sent = requests.of(session_id, one)
        send = await store.get_send(session_id, index=one.send_index)
        own = None if send is None else send.options.get("system_prompt")
        texts = [
            own,
            view.session.system_prompt,
            loop.config.system_prompt,
            *([sent.system, sent.tail] if sent else ()),
        ]
        return recorded_prompt(
            one,
            messages=messages,
            folds=folds,
            projected=view.projected,
            texts=[text for text in texts if isinstance(text, str)],
            tools=loop.tools.specs() if sent is None else sent.tools,
        )

    parts = await parts_of(record)
    before = () if previous is None else await parts_of(previous)
    shown_before = {key for part in before for key in _keys(part)}
    shown = {key for part in parts for key in _keys(part)}
    sent, sent_before = requests.of(session_id, record), previous and requests.of(session_id, previous)
    return bounded(
        {
            "session_id": session_id,
            "call": call,
            "reply": json_value(messages[-1]) if messages else None,
            "model_call": {**json_value(record), "call": {**json_value(record.call), "segments": None}},
            "parts": [_part_value(part, shown_before, is_first=previous is None) for part in parts],
            "gone": [
                _part_value(part, shown, is_first=False)
                for part in before
                if any(key not in shown for key in _keys(part))
            ],
            "previous_call": explained.previous_call,
            "shared_tokens": explained.shared_tokens,
            "estimated_tokens": explained.estimated_tokens,
            "broken_by": None if explained.broken_by is None else str(explained.broken_by),
            "reason": explained.reason,
            "is_exact": sent is not None,
            "tail": None if sent is None else sent.tail,
            "lines": list(request_differences(sent_before, sent)) if sent and sent_before else None,
        },
        max_chars=MAX_CHARS,
    )


def _part_value(part: RecordedPart, others: set[object], *, is_first: bool) -> Value:
    """Return a part as JSON; `is_new` says of it, or of each of its messages, that `others` have nothing like it."""
    segment = part.segment
    is_new = not is_first and any(key not in others for key in _keys(part))
    left_out = max(len(part.seqs) - _MAX_SHOWN, 0)
    messages = [
        {**json_value(message), "seq": seq, "is_new": not is_first and _key(segment, seq) not in others}
        for seq, message in zip(part.seqs[left_out:], part.messages[left_out:], strict=True)
    ]
    return {
        "segment": json_value(segment),
        "title": str(segment),
        "is_known": part.is_known,
        "is_new": is_new,
        "text": part.text,
        "tools": [json_value({"name": one.name, "description": one.description}) for one in part.tools],
        "messages": messages,
        "left_out": left_out,
    }


def _keys(part: RecordedPart) -> list[object]:
    segment = part.segment
    if part.seqs:
        return [_key(segment, seq) for seq in part.seqs]
    return [(segment.kind, segment.name, segment.from_seq, segment.to_seq, segment.digest)]


def _key(segment: Segment, seq: int) -> object:
    # A message is the same one whether it stands in the log's range or is pinned beside a summary.
    if segment.kind in (SegmentKind.MESSAGES, SegmentKind.PINNED):
        return seq
    return segment.kind, segment.from_seq, segment.to_seq, seq
