"""Splits asking from doing: a web process leaves inputs in the database, and workers make turns of them.

You will see six inputs left for three sessions at once, two worker processes share them out, and each session answered
in order. A worker that dies loses nothing; another one goes on. `power-loop work --dsn app.db --app my_app:make_loop`
is a worker as well.
"""

import asyncio
import os
import sys

from power_loop import StatefulAgentLoop, Worker, create_llm_service_from_env


def make_loop() -> StatefulAgentLoop:
    """Return a handle; the web process and the workers make the same one."""
    return StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db")


async def work() -> None:
    """Be a worker until there is nothing left to do; in life: `await Worker(loop).run()`, until SIGTERM."""
    async with make_loop() as loop:
        await Worker(loop, concurrency=4, on_turn=lambda turn: print(f"[{os.getpid()}: {turn.session_id}]")).run(
            until_idle=True
        )


async def main() -> None:
    """Be the web process, and start the workers."""
    async with make_loop() as loop:
        sessions = [await loop.new_session(metadata={"user": user}) for user in ("ada", "ben", "eve")]
        for sid in sessions:
            for number, text in enumerate(("Name a river.", "Another one.")):
                # A client that asks again with the same id is told what is known, and nothing happens twice.
                left = await loop.enqueue(sid, text, request_id=f"{sid}-{number}")
                print(f"{sid}: {left.status.value}")
        workers = [await asyncio.create_subprocess_exec(sys.executable, __file__, "work") for _ in range(2)]
        for worker in workers:
            await worker.wait()
        for sid in sessions:
            said = [record.message.text for record in await loop.get_messages(sid)]
            print(f"{(await loop.get_session(sid)).metadata['user']}: {' '.join(said)}")


if __name__ == "__main__":
    asyncio.run(work() if sys.argv[1:] else main())
