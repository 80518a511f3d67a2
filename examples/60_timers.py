"""Wakes a session later: a timer is a row, so it outlives every process, and each firing is delivered once.

You will see a timer scheduled, then fired while nobody talks, and what the model made of it. In a service a
`TimerRunner` runs beside the work, in as many processes as you like.
"""

import asyncio

from power_loop import After, StatefulAgentLoop, TimerRunner, create_llm_service_from_env
from power_loop.events import SendFinished, TimerFired


async def main() -> None:
    """Be woken in a moment."""
    async with StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db") as loop:
        sid = await loop.new_session(system_prompt="You remind people, in one sentence.")
        answered = asyncio.Event()
        loop.event_bus.subscribe(lambda _: print("[it fires]"), types=[TimerFired])
        loop.event_bus.subscribe(lambda _: answered.set(), types=[SendFinished], session_id=sid)

        timer = await loop.schedule_timer(sid, "It is time for tea: tell the user.", After(0.3), name="tea")
        print(f"[{timer.name} is scheduled]")
        async with TimerRunner(loop, poll_s=0.1):
            await asyncio.wait_for(answered.wait(), 120)
        print((await loop.get_messages(sid))[-1].message.text)


if __name__ == "__main__":
    asyncio.run(main())
