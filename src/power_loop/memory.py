"""Is the public shelf of memory: what outlasts a session, and who keeps it."""

from __future__ import annotations

from power_loop.contracts.memory import Exchange, Memory, MemoryProvider, RecallQuery
from power_loop.runtime.store.store_memory import StoreMemory, by_metadata

__all__ = [
    "Exchange",
    "Memory",
    "MemoryProvider",
    "RecallQuery",
    "StoreMemory",
    "by_metadata",
]
