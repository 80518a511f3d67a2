"""Takes up what dead processes left: a service calls `recover()` when it starts, and every now and then.

You will see a process die while the model is asked, and another one that does not even know the session's id find the
turn and bring it to its end. Any number of machines may do this at once.
"""

import asyncio
import os
import signal
import sys

from power_loop import HookPoint, StatefulAgentLoop, create_llm_service_from_env
from power_loop.hooks import LLMBeforeContext


def make_loop() -> StatefulAgentLoop:
    """Return a handle."""
    return StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db")


async def die() -> None:
    """Be a process that is killed when it is about to ask the model."""
    loop = make_loop()

    @loop.hooks.on(HookPoint.LLM_BEFORE)
    def power_cut(context: LLMBeforeContext) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    await loop.send("Say good morning.", session_id=await loop.new_session())


async def main() -> None:
    """Be the service that starts again."""
    child = await asyncio.create_subprocess_exec(sys.executable, __file__, "die")
    await child.wait()
    async with make_loop() as loop:
        for report in await loop.recover():  # for ever: `async for report in loop.recover_forever(every_s=10)`
            print(f"found a {report.found.value}, now {report.status and report.status.value}")
            print((await loop.get_messages(report.session_id))[-1].message.text)


if __name__ == "__main__":
    asyncio.run(die() if sys.argv[1:] else main())
