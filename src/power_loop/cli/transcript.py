"""Writes the messages of a session so that a person can read them, or as JSON values."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

from power_loop import Message, PendingCall, TextPart, Usage
from power_loop.cli.markdown import markdown
from power_loop.cli.output import has_colours, paint
from power_loop.cli.printable import one_line, plain, printable
from power_loop.messages import OpaquePart, ReasoningPart, RefusalPart, Role, ToolCallPart, ToolResultPart
from power_loop.records import CallRecord, CallState, MessageRecord, ModelCallRecord, WaitKind

# So much of one text or result is shown where not all is asked for.
MAX_CHARS = 2_000
_NANOS = Decimal(10) ** 9
_STATES = {CallState.SUCCEEDED: "green", CallState.FAILED: "red", CallState.WAITING: "yellow"}


def lines_of(
    record: MessageRecord,
    *,
    call: ModelCallRecord | None = None,
    ledger: Mapping[str, CallRecord] | None = None,
    is_whole: bool = False,
) -> Iterator[str]:
    """Give the lines of one message; `call` is the model call that brought it, `ledger` its calls by id."""
    message = record.message
    yield paint(f"[{record.seq}] {_speaker(message)}", "bold") + (paint(f"  {call_line(call)}", "dim") if call else "")
    for part in message.parts:
        if isinstance(part, TextPart):
            yield from _indented(_shown(part.text, is_whole), is_markdown=message.role is Role.ASSISTANT)
        elif isinstance(part, ReasoningPart):
            if part.text:
                yield from (paint(line, "dim") for line in _indented("thinks: " + _shown(part.text, is_whole)))
        elif isinstance(part, RefusalPart):
            yield from _indented("refuses: " + _shown(part.text, is_whole))
        elif isinstance(part, ToolCallPart):
            found = (ledger or {}).get(part.id)
            yield "    " + called(part.name, part.arguments, is_whole=is_whole) + _state(found)
        elif isinstance(part, ToolResultPart):
            for one in part.content:
                text = _shown(one.text, is_whole) if isinstance(one, TextPart) else f"({_medium(one)})"
                yield from _indented(text)
        else:
            yield f"    ({_medium(part)})"


def called(name: str, arguments: str, *, is_whole: bool = False) -> str:
    """Return a tool call in a line."""
    shown = printable(arguments) if is_whole else one_line(arguments, 200)
    return f"{paint('→', 'blue')} {paint(printable(name), 'blue')} {shown}"


def pending_line(pending: PendingCall) -> str:
    """Return what an open call is, and what it asks, in a line."""
    arguments = one_line(json.dumps(dict(pending.arguments), ensure_ascii=False), 200)
    asks = "" if pending.wait_kind is None else f" waits for {_ASKED[pending.wait_kind]}"
    prompt = f": {one_line(pending.prompt, 300)}" if pending.prompt else ""
    return f"{paint('?', 'yellow')} {printable(pending.call_id)} {printable(pending.name)} {arguments}{asks}{prompt}"


_ASKED = {
    WaitKind.APPROVAL: "an approval",
    WaitKind.INPUT: "an answer",
    WaitKind.RESULT: "its result",
    WaitKind.AGENT: "a sub-agent",
    WaitKind.OUTCOME: "word of what became of it",
}


def call_line(record: ModelCallRecord) -> str:
    """Return what one model call took, in a few words."""
    call = record.call
    words = [printable(call.model), tokens(call.usage)]
    if call.cost_nanos is not None:
        words.append(money(Decimal(call.cost_nanos) / _NANOS))
    words.append(f"{call.duration_ms / 1000:.1f} s")
    if call.stop not in ("end", "tool_calls"):
        words.append(printable(call.stop))
    return ", ".join(words)


def tokens(usage: Usage | None) -> str:
    """Return a usage in a few words."""
    if usage is None:
        return "tokens unknown"
    about = "about " if usage.is_estimated else ""
    cached = f" ({usage.cached_input_tokens:,} cached)" if usage.cached_input_tokens else ""
    return f"{about}{usage.input_tokens:,}{cached} + {usage.output_tokens:,} tokens"


def money(cost: Decimal | None) -> str:
    """Return a cost as text."""
    return "cost unknown" if cost is None else f"cost {cost.normalize():f}"


def message_value(record: MessageRecord) -> dict[str, Any]:
    """Return a message as a JSON value, without the data of its media."""
    message = record.message
    return {
        "seq": record.seq,
        "send_index": record.send_index,
        "round": record.round,
        "created_at_ms": record.created_at_ms,
        "role": message.role.value,
        "parts": _part_values(message.parts),
    }


def _part_values(parts: Iterable[Any]) -> list[dict[str, Any]]:
    values = []
    for part in parts:
        kind = "".join(f"_{char.lower()}" if char.isupper() else char for char in type(part).__name__)[1:]
        value = {"type": kind.removesuffix("_part"), **plain(part)}
        if isinstance(part, ToolResultPart):
            value["content"] = _part_values(part.content)
        data = value.pop("data", None)
        values.append(value if data is None else {**value, "size_bytes": len(data) * 3 // 4})
    return values


def _speaker(message: Message) -> str:
    result = message.tool_result
    if result is None:
        return message.role.value
    return f"tool {printable(result.call_id)}" + (" (error)" if result.is_error else "")


def _state(call: CallRecord | None) -> str:
    if call is None:
        return ""
    tries = f", attempt {call.attempt}" if call.attempt > 1 else ""
    return " " + paint(f"[{call.state.value}{tries}]", _STATES.get(call.state, "dim"))


def _shown(text: str, is_whole: bool) -> str:
    if is_whole or len(text) <= MAX_CHARS:
        return printable(text)
    return printable(text[:MAX_CHARS]) + f"\n… {len(text) - MAX_CHARS:,} more characters (--full)"


def _indented(text: str, *, is_markdown: bool = False) -> Iterator[str]:
    rendered = markdown(text, indent=4) if is_markdown and has_colours(sys.stdout) else None
    for line in (text if rendered is None else rendered).splitlines() or [""]:
        yield f"    {line}".rstrip()


def _medium(part: Any) -> str:
    if isinstance(part, OpaquePart):
        return "a block of the provider's"
    kind = type(part).__name__.removesuffix("Part").lower()
    data = getattr(part, "data", None)
    place = f"{len(data) * 3 // 4:,} bytes" if data else one_line(getattr(part, "url", None) or "elsewhere")
    return f"{kind} {one_line(str(getattr(part, 'media_type', None) or getattr(part, 'format', '')))}, {place}"
