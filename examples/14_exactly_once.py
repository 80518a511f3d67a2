"""Does something exactly once: a tool that writes in the very transaction that stores its result.

The order and its outbox row commit together with the call, or not at all; a relay sends what the outbox holds. You will
see the tables after the turn, and the mail that the relay sends. The tables are the application's own.
"""

import asyncio
import sqlite3
from contextlib import closing

from power_loop import StatefulAgentLoop, create_llm_service_from_env, tool
from power_loop.tools import ToolTransaction

SCHEMA = """
CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, item TEXT, count INTEGER);
CREATE TABLE IF NOT EXISTS outbox (id INTEGER PRIMARY KEY, mail TEXT, is_sent INTEGER DEFAULT 0);
"""


@tool
async def order(tx: ToolTransaction, item: str, count: int) -> str:
    """Order something for the customer, who gets a mail about it."""
    # Nothing but `tx` is awaited here. It may run again after a deadlock; what is durable happened once.
    await tx.execute("INSERT INTO orders (item, count) VALUES (?, ?)", (item, count))
    await tx.execute("INSERT INTO outbox (mail) VALUES (?)", (f"You ordered {count} × {item}.",))
    return f"{count} × {item} are ordered"


def relay() -> None:
    """Send the mails that wait: in life a process of its own, which gives the row's id to the mail server as a key."""
    with closing(sqlite3.connect("app.db")) as database, database:
        for number, mail in database.execute("SELECT id, mail FROM outbox WHERE is_sent = 0").fetchall():
            print(f"mail {number}: {mail}")
            database.execute("UPDATE outbox SET is_sent = 1 WHERE id = ?", (number,))


async def main() -> None:
    """Order something in words."""
    with closing(sqlite3.connect("app.db")) as database:
        database.executescript(SCHEMA)
    async with StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db", tool_registry=[order]) as loop:
        sid = await loop.new_session()
        print((await loop.send("Order three teapots.", session_id=sid)).final_text)
        for call in await (await loop.get_store()).get_calls(sid):
            print(f"{call.name} is {call.effect.value}: {call.state.value}")
    await asyncio.to_thread(relay)


if __name__ == "__main__":
    asyncio.run(main())
