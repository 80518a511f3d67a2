"""Makes the result of a send: fresh from its turn, or from what the store recorded."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from power_loop.contracts.budgets import money_of, sum_of_costs
from power_loop.contracts.json_schema import InvalidJson, loads_strict
from power_loop.contracts.llm import Usage
from power_loop.contracts.ports import SessionStore
from power_loop.contracts.records import CallRecord, SendRecord
from power_loop.contracts.results import PendingCall, StatefulResult
from power_loop.contracts.states import CallState, SendStatus
from power_loop.core.turn.options import SendOptions
from power_loop.core.turn.structured import check_output, output_error
from power_loop.core.turn.turn import OpenCall, Turn


def result_of(turn: Turn, status: SendStatus, reason: str | None = None) -> StatefulResult:
    """Return the result of a turn that rests with `status`."""
    waiting = [call for call in turn.calls if call.state is CallState.WAITING]
    return StatefulResult(
        session_id=turn.session_id,
        send_index=turn.send_index,
        status=status,
        final_text=turn.final_text,
        output=turn.output if turn.has_output else None,
        pending=tuple(pending_call(call) for call in waiting),
        usage=turn.usage + turn.children_usage,
        cost=_money(turn.spending().cost_nanos),
        children_usage=turn.children_usage,
        rounds=turn.rounds,
        tool_calls=turn.tool_calls,
        request_id=turn.request_id,
        reason=reason,
    )


async def recorded_result(store: SessionStore, send: SendRecord) -> StatefulResult:
    """Return the recorded result of a send that rests."""
    recorded: Mapping[str, Any] = send.result or {}
    text = ""
    seq = recorded.get("text_seq")
    if isinstance(seq, int):
        found = await store.get_messages(send.session_id, after_seq=seq - 1, limit=1)
        text = (found[0].message.text or found[0].message.refusal) if found and found[0].seq == seq else ""
    schema = SendOptions.from_json(send.options).output_schema
    output = None
    if schema is not None and recorded.get("has_output"):
        output = check_output(text, schema).value
    pending: tuple[PendingCall, ...] = ()
    if send.status is SendStatus.WAITING_FOR_INPUT:
        pending = tuple(map(pending_call, await store.get_calls(send.session_id, states=(CallState.WAITING,))))
    children_usage = Usage()
    cost_nanos = sum_of_costs(send.cost_nanos, send.dropped_cost_nanos)
    for one in await store.get_children_spending(send.session_id, send.index):
        children_usage = children_usage + one.usage
        cost_nanos = sum_of_costs(cost_nanos, one.cost_nanos)
    return StatefulResult(
        session_id=send.session_id,
        send_index=send.index,
        status=send.status,
        final_text=text,
        output=output,
        pending=pending,
        usage=send.usage + send.dropped_usage + children_usage,
        cost=_money(cost_nanos),
        children_usage=children_usage,
        rounds=send.rounds,
        tool_calls=send.tool_calls,
        request_id=send.request_id,
        reason=recorded.get("reason"),
        is_replayed=True,
    )


def _money(nanos: int | None) -> Decimal | None:
    return None if nanos is None else money_of(nanos)


async def repeated_result(store: SessionStore, send: SendRecord) -> StatefulResult:
    """Return the recorded result of a send that rests, or raise `output.invalid` again where the send did."""
    result = await recorded_result(store, send)
    schema = SendOptions.from_json(send.options).output_schema
    if result.status is SendStatus.OUTPUT_INVALID and schema is not None:
        problems = check_output(result.final_text, schema).problem_texts
        raise output_error(send.session_id, result.final_text, problems)
    return result


def pending_call(call: CallRecord | OpenCall) -> PendingCall:
    """Return an open call as an application sees it."""
    asked: Mapping[str, Any] = call.wait_data or {}
    is_waiting = call.state is CallState.WAITING
    return PendingCall(
        call_id=call.call_id,
        name=call.name,
        arguments=shown_arguments(call.arguments),
        state=call.state.value,
        wait_kind=call.wait_kind if is_waiting else None,
        prompt=call.prompt if is_waiting else None,
        answer_schema=asked.get("answer_schema") if is_waiting else None,
        data=asked.get("data") if is_waiting else None,
    )


def shown_arguments(text: str) -> Mapping[str, Any]:
    """Return the arguments of a call as an object; text that is no JSON object stands under `"_raw"`."""
    try:
        value = loads_strict(text) if text.strip() else {}
    except InvalidJson:
        return {"_raw": text}
    return value if isinstance(value, dict) else {"_raw": text}
