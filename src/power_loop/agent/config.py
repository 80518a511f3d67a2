"""Is how a loop behaves where a send does not say otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Any

from power_loop.contracts.budgets import Budget, PriceTable
from power_loop.contracts.choices import choice_of
from power_loop.contracts.errors import ConfigError, InputError
from power_loop.contracts.frozen import frozen
from power_loop.contracts.limits import SendLimits
from power_loop.contracts.live import LiveState
from power_loop.contracts.llm import LLMRetryPolicy, LLMService, ModelInfo
from power_loop.contracts.memory import MemoryProvider
from power_loop.contracts.numbers import is_number, is_whole
from power_loop.contracts.states import OnUnknown
from power_loop.contracts.timers import MAX_TIMERS
from power_loop.core.context.prompt import SystemPrompt, prompt_text
from power_loop.core.context.settings import Compaction, MemoryUse, Projection
from power_loop.core.turn.options import SendOptions, check_options
from power_loop.tools.permissions import MAX_ABOVE, PermissionPolicy

# A lease is renewed three times in its time, and a renewal has to come through a busy machine.
_MIN_LEASE_TTL_S = 0.3
_MEMORY = ("recall", "remember")


@frozen
class LoopConfig:
    """Is a loop's configuration; every field may be left out.

    `limits` is what one send may take, `retry` when a failed model call is tried again. `max_output_tokens`,
    `temperature` and `reasoning_effort` go with every model call (None: the model's own). `max_parallel_tools` calls of
    one reply run at the same time (default 16). `max_output_repairs` is how often the model may mend an answer that
    does not fit `output_schema` (default 2). A turn's lease lasts `lease_ttl_s` seconds (default 30) and is renewed
    three times in that time. A send with which more than `max_recoveries` processes died is given up as failed (default
    20). The windows of at most `max_cached_sessions` sessions are kept in memory (default 256).
    `compaction` says when a conversation is folded (None: never), `projection` how finished sends are shown (default
    None: as they are), `memory` what remembers across sessions (default None), and `memory_use` how much of it goes
    along.
    `system_prompt` is that of sessions which have none of their own (default None: there is none).
    `live` is state of the application's own that the model sees as it is at each call, behind all messages (default:
    none).
    `on_unknown` says what becomes of a `once` call whose process died while it ran, where the tool makes no choice of
    its own (default: the model is told). `permissions` decides which calls go on, wait for a person or are refused
    (default None: all go on).
    `budget` is what each send may take with all that it sets going, where it has none of its own (default None), and
    `prices` what models cost (default None: no cost is known).
    `models` are those that sub-agents may be given, by name (default: none but the loop's own). A tree of agents is at
    most `max_agent_depth` deep below the session at its top (default 3; 0: there are no sub-agents), and one send makes
    at most `max_children` of them (default 16).
    So many timers of a session may be armed at the same time as `max_timers` says (default 100).
    """

    limits: SendLimits = field(default_factory=SendLimits)
    retry: LLMRetryPolicy = field(default_factory=LLMRetryPolicy)
    max_output_tokens: int | None = None
    temperature: float | None = None
    reasoning_effort: str | None = None
    max_parallel_tools: int = 16
    max_output_repairs: int = 2
    lease_ttl_s: float = 30.0
    max_cached_sessions: int = 256
    max_recoveries: int = 20
    on_unknown: OnUnknown = OnUnknown.TELL_MODEL
    compaction: Compaction | None = field(default_factory=Compaction)
    projection: Projection | None = None
    memory: MemoryProvider | None = None
    memory_use: MemoryUse = field(default_factory=MemoryUse)
    permissions: PermissionPolicy | None = None
    live: Sequence[LiveState] = ()
    system_prompt: str | SystemPrompt | None = None
    budget: Budget | None = None
    prices: PriceTable | None = None
    models: Mapping[str, LLMService] = field(default_factory=dict)
    max_agent_depth: int = 3
    max_children: int = 16
    max_timers: int = MAX_TIMERS

    if TYPE_CHECKING:  # what is given may be wider than what is kept

        def __init__(
            self,
            limits: SendLimits = ...,
            retry: LLMRetryPolicy = ...,
            max_output_tokens: int | None = None,
            temperature: float | None = None,
            reasoning_effort: str | None = None,
            max_parallel_tools: int = 16,
            max_output_repairs: int = 2,
            lease_ttl_s: float = 30.0,
            max_cached_sessions: int = 256,
            max_recoveries: int = 20,
            on_unknown: OnUnknown | str = OnUnknown.TELL_MODEL,
            compaction: Compaction | None = ...,
            projection: Projection | None = None,
            memory: MemoryProvider | None = None,
            memory_use: MemoryUse = ...,
            permissions: PermissionPolicy | None = None,
            live: Sequence[LiveState] = (),
            system_prompt: str | SystemPrompt | None = None,
            budget: Budget | None = None,
            prices: PriceTable | None = None,
            models: Mapping[str, LLMService] = ...,
            max_agent_depth: int = 3,
            max_children: int = 16,
            max_timers: int = MAX_TIMERS,
        ) -> None: ...

    def __post_init__(self) -> None:
        for name, least in (
            ("max_parallel_tools", 1),
            ("max_output_repairs", 0),
            ("max_cached_sessions", 0),
            ("max_recoveries", 0),
            ("max_agent_depth", 0),
            ("max_children", 0),
            ("max_timers", 0),
        ):
            value = getattr(self, name)
            if not is_whole(value, least=least):
                raise ConfigError(f"{name} is {value!r}: give a whole number of at least {least}")
        ttl_s: Any = self.lease_ttl_s
        if not is_number(ttl_s, least=_MIN_LEASE_TTL_S):
            raise ConfigError(f"lease_ttl_s is {ttl_s!r}: give at least {_MIN_LEASE_TTL_S} seconds")
        for name, kind in (("limits", SendLimits), ("retry", LLMRetryPolicy), ("memory_use", MemoryUse)):
            if not isinstance(getattr(self, name), kind):
                raise ConfigError(f"{name} is {getattr(self, name)!r}: give a {kind.__name__}")
        for name, optional in (
            ("compaction", Compaction),
            ("projection", Projection),
            ("permissions", PermissionPolicy),
            ("budget", Budget),
            ("prices", PriceTable),
        ):
            if not isinstance(getattr(self, name), (optional, type(None))):
                raise ConfigError(f"{name} is {getattr(self, name)!r}: give a {optional.__name__}, or None")
        memory: Any = self.memory
        is_memory = not isinstance(memory, type) and all(callable(getattr(memory, name, None)) for name in _MEMORY)
        if memory is not None and not is_memory:
            raise ConfigError(f"memory is {self.memory!r:.200}: give an object with async recall() and remember()")
        models: Any = self.models
        if not isinstance(models, Mapping) or not all(_is_model(name, llm) for name, llm in models.items()):
            raise ConfigError(f"models is {models!r:.200}: give a dict of LLMServices by name")
        object.__setattr__(self, "models", dict(models))
        if self.max_agent_depth > MAX_ABOVE:
            raise ConfigError(f"max_agent_depth is {self.max_agent_depth!r}: give at most {MAX_ABOVE}")
        try:
            prompt_text(self.system_prompt, ())
        except InputError as error:
            raise ConfigError(error.message) from error
        live: Any = self.live
        if not isinstance(live, Sequence) or not all(isinstance(one, LiveState) for one in live):
            raise ConfigError(f"live is {live!r:.200}: give a list of LiveState(name, show)")
        object.__setattr__(self, "live", tuple(live))
        object.__setattr__(self, "on_unknown", choice_of(OnUnknown, self.on_unknown, "on_unknown"))
        check_options(self.send_defaults)

    @property
    def send_defaults(self) -> SendOptions:
        """What goes with every model call of a send that makes no choice of its own."""
        return SendOptions(
            max_output_tokens=self.max_output_tokens,
            temperature=self.temperature,
            reasoning_effort=self.reasoning_effort,
        )


def is_llm_service(llm: Any) -> bool:
    """Return whether something can be asked as a model: an object, and not the class of one."""
    return (
        not isinstance(llm, type)
        and isinstance(getattr(llm, "info", None), ModelInfo)
        and callable(getattr(llm, "generate", None))
    )


def _is_model(name: Any, llm: Any) -> bool:
    return isinstance(name, str) and bool(name) and is_llm_service(llm)
