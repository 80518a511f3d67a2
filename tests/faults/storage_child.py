"""Is a process with bad luck: `python -I -S storage_child.py SRC read_only|full_disk FOLDER` prints what it met."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])

from power_loop import LLMRequest, LLMResponse, PowerLoopError, StatefulAgentLoop, tool
from power_loop.messages import ToolCallPart
from power_loop.testing import ScriptedLLM

_NOBODY = 65534
_ROOM_BYTES = 100 * 1024
_RESULT_CHARS = 400 * 1024


async def read_only(folder: Path) -> dict[str, Any]:
    """Use databases, one that is there and one that is not, where nothing can be written."""
    async with StatefulAgentLoop(llm=ScriptedLLM(["Hello."]), dsn=":memory:") as loop:
        # What is imported at first use may lie where only the super-user can read.
        await loop.send("Hello?", session_id=await loop.new_session())
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(_NOBODY)
        os.setuid(_NOBODY)
    met: dict[str, Any] = {}
    async with StatefulAgentLoop(llm=ScriptedLLM(["Never."]), dsn=str(folder / "fresh.db")) as loop:
        met["fresh"] = await _error_of(loop.new_session())
    async with StatefulAgentLoop(llm=ScriptedLLM(["Never."]), dsn=str(folder / "there.db")) as loop:
        met["read"] = [record.message.text for record in await loop.get_messages("s")]
        met["write"] = await _error_of(loop.send("Hello?", session_id="s"))
        met["after"] = [record.message.text for record in await loop.get_messages("s")]
    met["files"] = sorted(os.listdir(folder))
    return met


async def full_disk(folder: Path) -> dict[str, Any]:
    """Fill the disk in the middle of a turn, meet the error, make room, and go on."""
    filler = folder / "filler"
    ran = 0

    @tool(effect="idempotent")
    async def fill() -> str:
        """Leave so little room on the disk that the result does not fit."""
        nonlocal ran
        ran += 1
        if ran == 1:
            _fill(filler, leave_bytes=_ROOM_BYTES)
        return "x" * _RESULT_CHARS

    def say(request: LLMRequest) -> LLMResponse:
        if any(message.tool_result for message in request.messages[-1:]):
            return LLMResponse.of_text("Done.")
        if request.messages[-1].text == "Fill it.":
            return LLMResponse.of_calls(ToolCallPart("call_1", "fill", "{}"))
        return LLMResponse.of_text("Then seven.")

    met: dict[str, Any] = {}
    llm = ScriptedLLM([say], repeat_last=True)
    async with StatefulAgentLoop(llm=llm, dsn=str(folder / "app.db"), tool_registry=[fill]) as loop:
        await loop.new_session(session_id="s")
        met["turn"] = await _error_of(loop.send("Fill it.", session_id="s"))
        met["again"] = await _error_of(loop.resume("s"))
        met["kept"] = [record.message.role.value for record in await loop.get_messages("s")]
        filler.unlink()
        result = await loop.resume("s")
        met["result"] = [result.status.value, result.final_text]
        whole = await loop.get_tool_result("s", "call_1")
        met["whole"] = sum(len(getattr(part, "text", "")) for part in whole or ())
        met["then"] = (await loop.send("And then?", session_id="s")).final_text
        met["log"] = [record.message.role.value for record in await loop.get_messages("s")]
    met["ran"] = ran
    return met


def _fill(path: Path, *, leave_bytes: int) -> None:
    with open(path, "wb") as file:
        while True:
            disk = os.statvfs(path)
            left = disk.f_bavail * disk.f_frsize - leave_bytes
            if left <= 0:
                return
            file.write(b"\0" * min(left, 65536))
            file.flush()


async def _error_of(work: Any) -> dict[str, str] | None:
    try:
        await work
    except PowerLoopError as error:
        return {"code": error.code, "message": error.message}
    return None


if __name__ == "__main__":
    print(json.dumps(asyncio.run({"read_only": read_only, "full_disk": full_disk}[sys.argv[2]](Path(sys.argv[3])))))
