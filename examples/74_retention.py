"""Keeps a database small and safe: what a nightly job does, beside whatever else works on it.

    python examples/74_retention.py [DAYS]

You will see what was closed and removed, the space that came back, a backup that is whole, and what a doctor finds.
Each step may be stopped at any time and run again.
"""

import asyncio
import sys
import time

from power_loop import SessionState, open_store


async def main(days: float) -> None:
    """Look after `app.db`."""
    old_s = days * 86_400
    store = await open_store("app.db")
    try:
        # What nobody has touched for long is closed; only closed sessions are pruned.
        before_ms = (time.time() - old_s) * 1000
        cursor: str | None = None
        while True:
            page = await store.list_sessions(state=SessionState.OPEN, cursor=cursor, limit=500)
            for session in page.items:
                if session.updated_at_ms <= before_ms and session.owner is None:
                    await store.close_session(session.id)
            cursor = page.next_cursor
            if cursor is None:
                break
        gone = await store.prune_sessions(older_than_s=old_s)
        results = await store.prune_tool_results(older_than_s=old_s)
        folded = await store.prune_compacted_messages()
        print(f"removed {gone.sessions} sessions, {gone.rows + results.rows + folded.rows} rows")
        await store.vacuum()
        print(f"the log is in the file: {(await store.checkpoint()).is_complete}")
        print(f"a backup of {(await store.backup('app-backup.db', overwrite=True)).size_bytes} bytes is on the disk")
        problems = [one async for one in store.diagnose() if one.is_problem]
        print(f"{len(problems)} problems", *problems, sep="\n")
    finally:
        await store.aclose()


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) if sys.argv[1:] else 90))
