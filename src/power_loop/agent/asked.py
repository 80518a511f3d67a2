"""Reads what a caller asks of a handle, before anything is stored."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from power_loop.agent.config import LoopConfig
from power_loop.contracts.budgets import Budget, PriceTable
from power_loop.contracts.cancellation import CancellationToken
from power_loop.contracts.choices import choice_of
from power_loop.contracts.errors import ConfigError, InputError, MissingExtraError
from power_loop.contracts.frozen import frozen
from power_loop.contracts.limits import SendLimits
from power_loop.contracts.llm import ModelInfo, OutputSchema
from power_loop.contracts.messages import ContentPart, Message, Role, UserInput, content_of
from power_loop.contracts.schedules import Schedule, check_schedule, schedule_to_json
from power_loop.contracts.states import OnBusy, SessionState
from power_loop.contracts.timers import NewTimer, check_timer_name, timer_id_of
from power_loop.core.context.prompt import SystemPrompt, prompt_text
from power_loop.core.context.reading import has_pdf
from power_loop.core.turn.fingerprint import fingerprint
from power_loop.core.turn.options import SendOptions, check_options, output_schema_of
from power_loop.core.turn.paying import no_price
from power_loop.core.turn.scope import TurnScope
from power_loop.core.turn.structured import prepare_schema
from power_loop.runtime.host.pdf import can_read_pdf
from power_loop.tools.registry import ToolRegistry, ToolsLike

Cancellation = CancellationToken | asyncio.Event | Any


@frozen
class AskedSend:
    """Is a send that may be made: its content, what differs from the configuration, and the tools that it offers.

    `heals` aborts the open calls of an earlier turn first.
    """

    parts: tuple[ContentPart, ...]
    options: SendOptions
    tools: ToolRegistry
    request_id: str | None
    heals: bool


def read_send(
    content: UserInput,
    *,
    registry: ToolRegistry,
    info: ModelInfo,
    tools: ToolsLike | Sequence[str],
    system_prompt: str | SystemPrompt | None,
    output_schema: OutputSchema | Mapping[str, Any] | None,
    heals: bool,
    request_id: str | None,
    limits: SendLimits | None,
    tool_choice: str | None,
    max_output_tokens: int | None,
    temperature: float | None,
    reasoning_effort: str | None,
    budget: Budget | None,
    defaults: LoopConfig,
) -> AskedSend:
    """Return what a send was asked; `registry`, the model of `info` and the `defaults` are the loop's. Raises
    `input.invalid`, `config.invalid`, `config.no_price`, `config.missing_extra`, `tool.invalid_definition`."""
    parts = content_of(content)
    check_files(parts, info)
    schema = output_schema_of(output_schema)
    if schema is not None:
        prepare_schema(schema)
    offered, names = _offered(registry, tools)
    is_prompt = isinstance(system_prompt, (SystemPrompt, str))
    prompt: Any = prompt_text(system_prompt, offered) if is_prompt else system_prompt
    options = check_options(
        SendOptions(
            names, prompt, schema, limits, max_output_tokens, temperature, reasoning_effort, tool_choice, budget
        )
    )
    _check_price(budget or defaults.budget, defaults.prices, info)
    if tool_choice not in (None, "auto", "none", "required") and tool_choice not in offered:
        raise ConfigError(
            f"tool_choice is {tool_choice!r}: give 'auto', 'none', 'required' or the name of an offered tool"
        )
    return AskedSend(parts, options, offered, request_id, heals)


def _check_price(budget: Budget | None, prices: PriceTable | None, info: ModelInfo) -> None:
    """Raise `config.no_price` where a budget of money cannot pay for the loop's model."""
    if budget is not None and budget.max_cost is not None and (prices is None or prices.price_of(info) is None):
        raise no_price(info)


def _offered(registry: ToolRegistry, tools: ToolsLike | Sequence[str]) -> tuple[ToolRegistry, tuple[str, ...] | None]:
    """Return the registry of a send and, where it is not the loop's whole one, the names that a resume offers."""
    if tools is None:
        return registry, None
    if isinstance(tools, (list, tuple)) and all(isinstance(one, str) for one in tools):
        part = registry.subset(tools)
        return part, part.names
    others = ToolRegistry.of(tools)  # type: ignore[arg-type]
    return others, others.names


def read_timer(
    session_id: str,
    content: UserInput,
    schedule: Schedule,
    *,
    info: ModelInfo,
    name: str | None,
    request_id: str | None,
    new_id: Callable[[str], str],
    max_timers: int,
) -> NewTimer:
    """Return a timer that may be made. Raises `input.invalid`, `schedule.invalid`, `schedule.no_time_zone`."""
    parts = content_of(content)
    check_files(parts, info)
    check_schedule(schedule)
    check_timer_name(name)
    if request_id is not None and not (is_a(request_id, str) and request_id):
        raise InputError(f"request_id is {request_id!r:.80}: give text of at least one character")
    told = json.dumps([fingerprint(parts), schedule_to_json(schedule)], sort_keys=True)
    return NewTimer(
        new_id("tmr") if request_id is None else timer_id_of(session_id, request_id),
        session_id,
        Message(Role.USER, parts),
        hashlib.sha256(told.encode()).hexdigest(),
        schedule,
        name=name,
        max_timers=max_timers,
    )


def check_files(parts: Sequence[ContentPart], info: ModelInfo) -> None:
    """Raise `config.missing_extra` for a PDF file that the model does not take and that nothing here can read."""
    if not info.has_pdf and has_pdf(parts) and not can_read_pdf():
        raise MissingExtraError(
            f"the model {info.model!r} takes no PDF files, and reading their text needs the package 'pypdf':"
            " pip install 'power-loop[pdf]', or set LLMProviderConfig(has_pdf=True) where its endpoint takes them",
            extra="pdf",
        )


def is_a(value: object, kind: type) -> bool:
    """Tell whether a caller without a type checker gave what the hints ask for."""
    return isinstance(value, kind)


def check_call_id(call_id: Any) -> None:
    """Raise `input.invalid` for what cannot be the id of a call."""
    if not isinstance(call_id, str):
        raise InputError(f"call_id is {call_id!r:.200}: get_pending() tells the ids of the calls that wait")


def check_store(store: Any) -> None:
    """Raise `config.invalid` for what is no open store."""
    if isinstance(store, type) or not hasattr(store, "create_session"):
        raise ConfigError(f"store is {store!r:.200}: give what `await open_store(dsn)` returns, or a dsn instead")


def check_clock(clock: Any) -> None:
    """Raise `config.invalid` for what is no clock."""
    if isinstance(clock, type) or not hasattr(clock, "new_id"):
        raise ConfigError(f"clock is {clock!r:.200}: give an object with the methods of Clock, such as SystemClock()")


def session_state_of(state: SessionState | str | None) -> SessionState | None:
    """Return the state that a word means. Raises `input.invalid`."""
    return None if state is None else choice_of(SessionState, state, "state", error=InputError)


def on_busy_of(on_busy: OnBusy | str) -> OnBusy:
    """Return what a word asks for. Raises `input.invalid`."""
    return choice_of(OnBusy, on_busy, "on_busy", error=InputError)


def scope_of(cancellation: Cancellation | None) -> TurnScope:
    """Return a scope that ends with `cancellation`. Raises `input.invalid`."""
    scope = TurnScope()
    follow(scope, cancellation)
    return scope


def follow(scope: TurnScope, cancellation: Cancellation | None) -> None:
    """Let a scope end with `cancellation`. Raises `input.invalid`."""
    if cancellation is None:
        return
    if isinstance(cancellation, CancellationToken):
        scope.follow(cancellation)
    elif hasattr(cancellation, "is_set"):
        scope.follow(CancellationToken.from_event(cancellation))
    else:
        raise InputError(
            f"cancellation is a {type(cancellation).__name__}:"
            " give a CancellationToken, an asyncio.Event or a threading.Event"
        )
