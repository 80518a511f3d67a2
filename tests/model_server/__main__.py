"""The server as a process of its own: `python -m tests.model_server --port 0 --script answers.json` or `--bench`.

Prints `listening http://127.0.0.1:PORT` and serves until its standard input ends or it gets SIGTERM. A script file
has the form that `script_json` describes. `--log` names a file that gets one JSON line an event.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import threading
from pathlib import Path

from .script import Step
from .script_json import steps_from_json
from .server import ModelServer


def stop_with_input(loop: asyncio.AbstractEventLoop, stopped: asyncio.Event) -> None:
    """Wait in a thread for the end of the standard input: not every kind of it can be watched by the loop."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(stopped.set)


async def serve(arguments: argparse.Namespace, steps: list[Step]) -> None:
    """Serve until told to stop."""
    server = ModelServer(
        steps,
        port=arguments.port,
        bench=arguments.bench,
        seed=arguments.seed,
        log_path=arguments.log,
        validate=not arguments.no_validate,
    )
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    await server.start()
    threading.Thread(target=stop_with_input, args=(loop, stopped), daemon=True).start()
    print(f"listening {server.url}", flush=True)
    await stopped.wait()
    await server.stop()


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.model_server", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--script", help="a JSON file of answers")
    parser.add_argument("--bench", action="store_true", help="the zero-latency endpoint")
    parser.add_argument("--seed", help="makes the ids repeatable")
    parser.add_argument("--log", help="a file for the event lines")
    parser.add_argument("--no-validate", action="store_true", help="check no request")
    arguments = parser.parse_args()
    steps = steps_from_json(json.loads(Path(arguments.script).read_text("utf-8"))) if arguments.script else []
    asyncio.run(serve(arguments, steps))


if __name__ == "__main__":
    main()
