"""Runs the demo: `make demo` or `python -m demo`; its exit code is 0 only if every fact of the story held."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from demo.act_process import ActFailedError
from demo.install_model import ModelMissingError, install
from demo.model_server import ModelServer
from demo.screen import Screen
from demo.story import Story

ROOT = Path(__file__).resolve().parents[1]
# build/ is never committed. Each run begins with an empty folder and leaves its databases behind, to be looked at.
FOLDER = ROOT / "build" / "demo"
SUSPENSE_S = 1.0
HONESTY = (
    "SmolLM2 has 135 million parameters, and its words are its own. Whether it calls a tool at all is decided by a "
    "word-overlap rule in its chat template; it picks the tool and fills in the arguments."
)


def empty_folder(wanted: Path) -> Path:
    """Return `wanted` as an empty folder; where it cannot be made, a temporary one that stays."""
    try:
        shutil.rmtree(wanted, ignore_errors=True)
        wanted.mkdir(parents=True)
    except OSError:
        return Path(tempfile.mkdtemp(prefix="power-loop-demo-"))
    return wanted


@contextmanager
def model(screen: Screen, folder: Path) -> Iterator[Mapping[str, str]]:
    """Give the environment of the acts: with the endpoint that the person named, or the local model while it runs."""
    if screen.environment.get("POWER_LOOP_BASE_URL"):
        name = screen.environment.get("POWER_LOOP_MODEL", "its default model")
        screen.done(f"your endpoint, {screen.environment['POWER_LOOP_BASE_URL']}, with {name}")
        yield screen.environment
        return
    install(screen)
    with ModelServer(log_path=folder / "model.log") as server:
        screen.done(f"SmolLM2-135M runs on this machine, at {server.base_url} ({server.started_in_s:.1f} s)")
        screen.note(HONESTY)
        yield {**screen.environment, **server.environment()}


def main() -> int:
    """Set the stage, tell the story, say how it ended."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--fast", action="store_true", help="no pause for a person to read by")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where its databases go; it is emptied first")
    arguments = parser.parse_args()
    screen = Screen()
    begun = time.monotonic()
    folder = empty_folder(arguments.folder)
    screen.title("power-loop", "a conversation that a real model holds and a kill -9 cannot end")
    try:
        with model(screen, folder) as environment:
            pause_s = 0.0 if arguments.fast or not screen.is_terminal else SUSPENSE_S
            has_held = Story(screen, folder, environment, pause_s).tell()
    except (ModelMissingError, ActFailedError) as exc:
        screen.error(str(exc))
        return 1
    except KeyboardInterrupt:
        screen.error("interrupted")
        return 130
    screen.line()
    took_s = time.monotonic() - begun
    screen.note(f"{took_s:.0f} s. Its databases are in {shown_path(folder)}. README.md goes on from here.")
    screen.line()
    return 0 if has_held else 1


def shown_path(path: Path) -> str:
    """Return a path the short way: from here, if it is below."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


if __name__ == "__main__":
    sys.exit(main())
