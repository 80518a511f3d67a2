"""Is the application that Dask workers import: its loop, on the store that the environment names, with a model that
does what it is asked to."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from power_loop import LLMRequest, StatefulAgentLoop
from power_loop.testing import ScriptedLLM

#: Where the environment says which store, and where the model notes what it was asked.
DSN, PREFIX, FOLDER = "DASK_APP_DSN", "DASK_APP_PREFIX", "DASK_APP_FOLDER"


def note(text: str) -> int:
    """Note that the model was asked this, by which process; return how often it was asked already."""
    file = Path(os.environ[FOLDER]) / "asked"
    before = file.read_text("utf-8").splitlines() if file.exists() else []
    with file.open("a", encoding="utf-8") as asked:
        asked.write(f"{os.getpid()} {text}\n")
    return sum(line.partition(" ")[2] == text for line in before)


async def answer(request: LLMRequest) -> str:
    """Answer; or first end the process, or wait for ever, as the text says."""
    text = request.messages[-1].text
    before = note(text)
    if text.startswith("dies") and (not before or "always" in text):
        os.kill(os.getpid(), signal.SIGKILL)
    if text.startswith("hangs") and not before:
        await asyncio.Event().wait()
    return f"to {text}"


def make_loop() -> StatefulAgentLoop:
    """Return the loop of a worker."""
    llm = ScriptedLLM([answer], repeat_last=True)
    return StatefulAgentLoop(llm=llm, dsn=os.environ[DSN], table_prefix=os.environ[PREFIX])
