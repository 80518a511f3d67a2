"""Makes what a handle gives to each of its turns."""

from __future__ import annotations

from power_loop.agent.config import LoopConfig
from power_loop.contracts.clock import Clock
from power_loop.contracts.llm import LLMService
from power_loop.contracts.ports import SessionStore
from power_loop.core.bus import AgentEventBus
from power_loop.core.hooks import Hooks
from power_loop.core.turn.desk import Desk
from power_loop.core.turn.turn import TurnKit
from power_loop.runtime.host.identity import is_owner_dead, new_owner_id


def make_kit(
    config: LoopConfig, *, store: SessionStore, llm: LLMService, hooks: Hooks, bus: AgentEventBus, clock: Clock
) -> TurnKit:
    """Return the kit of a handle on an open store."""
    return TurnKit(
        store=store,
        llm=llm,
        hooks=hooks,
        bus=bus,
        clock=clock,
        desk=Desk.of(store, new_owner_id),
        retry=config.retry,
        defaults=config.send_defaults,
        limits=config.limits,
        lease_ttl_s=config.lease_ttl_s,
        max_parallel_tools=config.max_parallel_tools,
        max_output_repairs=config.max_output_repairs,
        is_owner_dead=is_owner_dead,
        max_recoveries=config.max_recoveries,
        on_unknown=config.on_unknown,
        compaction=config.compaction,
        projection=config.projection,
        memory=config.memory,
        memory_use=config.memory_use,
        permissions=config.permissions,
        live=tuple(config.live),
        system_prompt=config.system_prompt,
        budget=config.budget,
        prices=config.prices,
    )
