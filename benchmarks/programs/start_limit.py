"""A fresh process that resumes a stored session by the limit's own means and prints its first reply."""

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.limit import LimitSession, open_database


async def main(port: str, database: str, session_id: str) -> None:
    session = LimitSession(open_database(database), int(port), session_id)
    session.load()
    await session.connect()
    print("reply", await session.turn("And now?"), flush=True)
    session.close()


asyncio.run(main(*sys.argv[1:]))
