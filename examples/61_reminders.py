"""Lets the model schedule its own reminders: once, every so often, or by the calendar of a time zone.

You will see what it scheduled, and when a weekly one comes next, through a change of the clocks. `60_timers.py` shows
them delivered; `power-loop timers --dsn app.db` lists them.
"""

import asyncio
from datetime import datetime, timezone
from zoneinfo import ZoneInfo

from power_loop import Cron, StatefulAgentLoop, create_llm_service_from_env
from power_loop.timers import runs_of
from power_loop.tools import wakeup_tools

BERLIN = ZoneInfo("Europe/Berlin")


async def main() -> None:
    """Ask to be reminded."""
    weekly = Cron("0 9 * * MON", "Europe/Berlin")
    march = round(datetime(2030, 3, 20, tzinfo=timezone.utc).timestamp() * 1000)
    for moment in runs_of(weekly, from_ms=march, count=3):
        at = datetime.fromtimestamp(moment / 1000, BERLIN)
        print(f"{at:%a %d %b %H:%M %Z}, which is {at.astimezone(timezone.utc):%H:%M} UTC")

    async with StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db", tool_registry=wakeup_tools()) as loop:
        sid = await loop.new_session()
        request = "Remind me in 30 minutes of the oven, and every Monday at 9 in Berlin of the weekly report."
        print((await loop.send(request, session_id=sid)).final_text)
        for timer in (await loop.list_timers(sid)).items:
            print(f"{timer.schedule}: {timer.state.value}")


if __name__ == "__main__":
    asyncio.run(main())
