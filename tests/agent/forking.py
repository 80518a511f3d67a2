"""Is a script that uses a handle, forks, and goes on with it on both sides: `python -m tests.agent.forking DSN`."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from power_loop import AgentEvent, StatefulAgentLoop
from power_loop.testing import ScriptedLLM

from .parts import LIMIT_S

#: After so long a child that hangs is ended by its own alarm.
_ALARM_S = 60


def of_child(work: Callable[[], Any]) -> Any:
    """Return what `work` returns in a forked child, or how the child ended."""
    ear, mouth = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(_ALARM_S)
        try:
            said = work()
        except BaseException as error:
            said = repr(error)
        os.write(mouth, json.dumps(said).encode())
        os._exit(0)
    os.close(mouth)
    with os.fdopen(ear) as words:
        text = words.read()
    _, status = os.waitpid(child, 0)
    return json.loads(text) if text else f"ended with {status}"


def main(dsn: str) -> None:
    """Print what the parent and its children saw."""
    gate, held = threading.Event(), threading.Event()

    def hold(_: object) -> str:
        held.set()
        assert gate.wait(LIMIT_S)
        return "Held."

    loop = StatefulAgentLoop(llm=ScriptedLLM(["Hello."], repeat_last=True), dsn=dsn)
    served = list[tuple[int, str]]()

    def note(event: AgentEvent) -> None:
        served.append((os.getpid(), event.session_id))

    loop.event_bus.subscribe(note, background=True)
    sid = loop.new_session_sync()
    loop.send_sync("parent", session_id=sid)

    def go_on() -> dict[str, Any]:
        served.clear()
        text = loop.send_sync("child", session_id=sid).final_text
        loop.close_sync()
        return {"text": text, "served": len(served), "mine": {pid for pid, _ in served} == {os.getpid()}}

    said = {"child": of_child(go_on)}

    # Another thread's turn runs, and another thread delivers, at the very moment of the fork.
    busy = StatefulAgentLoop(llm=ScriptedLLM([hold, "Hello."], repeat_last=True), dsn=dsn)
    at_work = busy.new_session_sync()
    thread = threading.Thread(target=lambda: busy.send_sync("go", session_id=at_work))
    thread.start()
    assert held.wait(LIMIT_S)

    def go_on_beside() -> dict[str, Any]:
        text = busy.send_sync("child", session_id=busy.new_session_sync()).final_text
        busy.close_sync()
        return {"text": text}

    delivering, release = threading.Event(), threading.Event()

    def block(event: AgentEvent) -> None:
        delivering.set()
        assert release.wait(LIMIT_S)

    with loop.event_bus.subscribe(block):
        other = threading.Thread(target=loop.new_session_sync)
        other.start()
        assert delivering.wait(LIMIT_S)

        def go_on_while_delivering() -> dict[str, Any]:
            release.set()
            return {"text": loop.send_sync("child", session_id=loop.new_session_sync()).final_text}

        said["delivering"] = of_child(go_on_while_delivering)
        release.set()
        other.join(LIMIT_S)
    said["beside"] = of_child(go_on_beside)
    gate.set()
    thread.join(LIMIT_S)
    said["parent"] = {
        "text": loop.send_sync("parent", session_id=sid).final_text,
        "inputs": [one.message.text for one in loop.get_messages_sync(sid)][::2],
    }
    loop.close_sync()
    busy.close_sync()
    print(json.dumps(said))


if __name__ == "__main__":
    main(sys.argv[1])
