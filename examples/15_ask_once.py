"""Makes a repeated request safe: a send with a `request_id` is made once, however often a client asks.

You will see an answer, the same answer again without a model call, and that the same id with other words is refused.
This is what an HTTP handler gives its `Idempotency-Key` to.
"""

import asyncio

from power_loop import StatefulAgentLoop, create_llm_service_from_env
from power_loop.errors import RequestConflictError


async def main() -> None:
    """Ask the same thing twice."""
    async with StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db") as loop:
        sid = await loop.new_session()
        first = await loop.send("Name a river.", session_id=sid, request_id="req-1")
        again = await loop.send("Name a river.", session_id=sid, request_id="req-1")
        print(first.final_text)
        print(f"{again.final_text} [from the record: {again.is_replayed}]")
        try:
            await loop.send("Name a mountain.", session_id=sid, request_id="req-1")
        except RequestConflictError as error:
            print(error.code)
        print(f"{(await loop.get_session_stats(sid)).messages} messages in the log")


if __name__ == "__main__":
    asyncio.run(main())
