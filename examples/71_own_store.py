"""Wraps the store: every move and read of a loop passes here. This one times them.

You will see what one turn with a tool asks of its database: a few transactions, however long the conversation is. A
store on another database is a class with the same methods; `power_loop.testing.conformance` holds it to what ours keep.
"""

import asyncio
import inspect
import time
from collections import Counter
from typing import Any, cast

from power_loop import SessionStore, StatefulAgentLoop, create_llm_service_from_env, open_store, tool


class TimedStore:
    """Hands everything on to another store, and counts and times what is awaited."""

    def __init__(self, inner: SessionStore) -> None:
        """Take the store that does the work."""
        self._inner = inner
        self.times: Counter[str] = Counter()
        self.seconds: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        """Return a member of the inner store; a coroutine function comes timed."""
        found = getattr(self._inner, name)
        if not inspect.iscoroutinefunction(found):
            return found

        async def timed(*arguments: Any, **options: Any) -> Any:
            begun = time.monotonic()
            try:
                return await found(*arguments, **options)
            finally:
                self.times[name] += 1
                self.seconds[name] += time.monotonic() - begun  # type: ignore[assignment]

        return timed


@tool(effect="idempotent")
def water(plant: str) -> str:
    """Water a plant."""
    return f"the {plant} is watered"


async def main() -> None:
    """Take a turn, and look at what it asked of the store."""
    store = TimedStore(await open_store("app.db"))
    async with StatefulAgentLoop(
        llm=create_llm_service_from_env(), store=cast(SessionStore, store), tool_registry=[water]
    ) as loop:
        sid = await loop.new_session()
        store.times.clear()
        print((await loop.send("Water the fern.", session_id=sid)).final_text)
    for name, count in store.times.items():
        print(f"{name}: {count} in {store.seconds[name] * 1000:.1f} ms")
    await store.aclose()  # a store that was given to a loop is closed by whoever opened it


if __name__ == "__main__":
    asyncio.run(main())
