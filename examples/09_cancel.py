"""Stops a turn: from a stream, by a token, or from any other place that knows the session.

You will see a story that is cut off, a send that was cancelled by a token, and that the session takes the next send as
if nothing had happened.
"""

import asyncio

from power_loop import CancellationToken, StatefulAgentLoop, create_llm_service_from_env
from power_loop.events import TextDelta


async def main() -> None:
    """Cancel twice, then ask."""
    async with StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db") as loop:
        sid = await loop.new_session()

        # Leaving the block early cancels: the model's connection is closed, and nothing runs on.
        async with loop.stream("Tell me a very long story.", session_id=sid) as events:
            async for event in events:
                if isinstance(event.payload, TextDelta):
                    print(event.payload.text, end="")
                    break
        print(f"… [{events.result.status.value}]")

        # A token stops a send from wherever it is held: a button, a signal handler, another thread.
        token = CancellationToken()
        loop.event_bus.subscribe(lambda event: token.cancel("the user pressed stop"), types=[TextDelta])
        result = await loop.send("Tell me another long story.", session_id=sid, cancellation=token)
        print(f"[{result.status.value}: {result.reason}]")

        # `await loop.cancel(sid)` does the same from another process.
        print((await loop.send("Then just say hello.", session_id=sid)).final_text)


if __name__ == "__main__":
    asyncio.run(main())
