"""Moves a session to another database: an archive holds all of it, and is checked to the last byte.

You will see a conversation exported, imported under another roof, and gone on with there. An archive that was changed
is refused as a whole, and nothing of an imported session acts by itself.
"""

import asyncio
from pathlib import Path

from power_loop import StatefulAgentLoop, create_llm_service_from_env, open_store
from power_loop.errors import InvalidArchiveError


async def main() -> None:
    """Export here, import there."""
    llm = create_llm_service_from_env()
    async with StatefulAgentLoop(llm=llm, dsn="app.db") as here:
        sid = await here.new_session()
        await here.send("Remember the number 4711.", session_id=sid)

    store = await open_store("app.db")
    archive = await store.export_session(sid)
    await store.aclose()
    await asyncio.to_thread(Path("session.jsonl").write_bytes, archive)
    print(f"the archive has {len(archive.splitlines())} lines")

    other = await open_store("other.db")
    try:
        await other.import_session(archive.replace(b"4711", b"4712"))
    except InvalidArchiveError as error:
        print(f"{error.code}: somebody changed it")
    await other.import_session(archive, on_conflict="replace")
    async with StatefulAgentLoop(llm=llm, store=other) as there:
        print((await there.send("Which number was it?", session_id=sid)).final_text)
        print(f"{len(await there.get_messages(sid))} messages there")
    await other.aclose()


if __name__ == "__main__":
    asyncio.run(main())
