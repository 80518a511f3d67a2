"""Keeps sessions on PostgreSQL, MySQL or MariaDB: the DSN says which, and nothing else changes.

    pip install 'power-loop[postgres]'      # or [mysql]
    POWER_LOOP_DSN=postgresql://user:password@host/db python examples/70_servers.py

You will see what the tables take, and two handles, as on two machines, going on with one session. Where an application
may make no tables, `schema=SchemaPolicy.VERIFY` only looks, and `power-loop ddl` prints what a person has to run.
"""

import asyncio
import os

from power_loop import StatefulAgentLoop, create_llm_service_from_env
from power_loop.storage import missing_ddl

DSN = os.environ.get("POWER_LOOP_DSN", "app.db")  # mysql://user:password@host/db speaks to MariaDB as well


async def main() -> None:
    """Talk from two handles."""
    print(f"{len(await missing_ddl(DSN))} characters of SQL are missing")
    llm = create_llm_service_from_env()
    async with StatefulAgentLoop(llm=llm, dsn=DSN) as here, StatefulAgentLoop(llm=llm, dsn=DSN) as there:
        sid = await here.new_session()
        print((await here.send("My favorite color is teal.", session_id=sid)).final_text)
        # One of them at a time drives a session; the other one waits, queues its input, or is told who does.
        print((await there.send("What is it?", session_id=sid, on_busy="wait")).final_text)
        print(f"{len(await missing_ddl(DSN))} characters of SQL are missing")


if __name__ == "__main__":
    asyncio.run(main())
