"""Draws the pictures of the terminal in the docs: real commands in a real terminal, with a model by script.

The demo talks to its real model, which `make demo` installs.

python scripts/terminal_pictures.py
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import select
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "en" / "pictures"
_COLUMNS, _ROWS = 96, 40
_LIMIT_S = 120.0

# The agent of the pictures; its clock stands still, so that each run draws the same.
_SHOP = '''
from power_loop import LoopConfig, ModelPrice, PermissionPolicy, PriceTable, StatefulAgentLoop, tool
from power_loop.testing import FrozenClock, ScriptedLLM, call


@tool(effect="read")
def find_book(title: str) -> str:
    """Find a book."""
    return f"{title}: 2 in stock, 12.50 each"


@tool
def order(title: str, copies: int) -> str:
    """Order a book."""
    return f"{copies} x {title}: order 4711"


def make(dsn):
    steps = [
        call("find_book", {"title": "Emma"}),
        "There are **two copies** of *Emma*, at 12.50 each. Shall I order one?",
        call("order", {"title": "Emma", "copies": 1}),
        "It is ordered: number 4711.",
    ]
    config = LoopConfig(
        system_prompt="You sell books.",
        permissions=PermissionPolicy(),
        prices=PriceTable({"scripted": ModelPrice(input=3, output=15)}),
    )
    return StatefulAgentLoop(
        llm=ScriptedLLM(steps), dsn=dsn, tool_registry=[find_book, order], config=config, clock=FrozenClock()
    )


def make_today(dsn):
    config = LoopConfig(system_prompt="You sell any book.")
    return StatefulAgentLoop(llm=ScriptedLLM(), dsn=dsn, tool_registry=[find_book, order], config=config)


def make_guide(dsn):
    steps = ['{"regions": ["Uji", "Shizuoka", "Yame"]}', "Deep and sweet.", "Clear and brisk.", "Mild and round."]
    config = LoopConfig(prices=PriceTable({"scripted": ModelPrice(input=3, output=15)}))
    return StatefulAgentLoop(llm=ScriptedLLM(steps), dsn=dsn, config=config)
'''

_GUIDE = """{
  "name": "guide",
  "input": "Japanese green tea",
  "root": {"type": "sequence", "steps": [
    {"type": "agent", "id": "plan",
     "spec": {"name": "planner", "system_prompt": "Name three regions."},
     "output_schema": {"schema": {
       "type": "object",
       "properties": {"regions": {"type": "array", "items": {"type": "string"}}},
       "required": ["regions"]}}},
    {"type": "foreach", "id": "tastings", "items_from": "plan.regions", "as": "region",
     "body": {"type": "agent", "id": "taste",
              "spec": {"name": "taster", "system_prompt": "Taste tea from {{region}}."}}},
    {"type": "wait", "id": "editor", "person": "Is this fit to print?", "choices": ["yes", "no"]}
  ]}
}
"""
_SLIPS = (("plan.regions", "plan.region"), ("{{region}}", "{{regoin}}"), ('"choices"', '"choises"'))

# Pictures by name: the command, and the keys that are pressed behind the text that is waited for.
_SCENES: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    (
        "chat",
        "power-loop chat --app shop:make",
        (
            ("> ", "Do you have Emma?\n"),
            ("one?\r\n", ""),
            ("> ", "Yes, please.\n"),
            ("ater: ", "y\n"),
            ("> ", "/quit\n"),
        ),
    ),
    ("show", "power-loop show SESSION", ()),
    ("replay", "power-loop replay SESSION --app shop:make_today", ()),
    ("workflow-problem", "power-loop workflow validate slip.json", ()),
    ("workflow", "power-loop workflow run guide.json --app shop:make_guide", ()),
    ("demo", "python -m demo", ()),
)


def main() -> None:
    """Draw all of them."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "shop.py").write_text(_SHOP, "utf-8")
        Path(folder, "guide.json").write_text(_GUIDE, "utf-8")
        slip = _GUIDE
        for right, wrong in _SLIPS:
            slip = slip.replace(right, wrong)
        Path(folder, "slip.json").write_text(slip, "utf-8")
        session_id = ""
        for name, command, keys in _SCENES:
            is_demo = command == "python -m demo"
            screen = _screen(command.replace("SESSION", session_id), keys, str(ROOT) if is_demo else folder)
            if not session_id:
                session_id = screen.partition("session ")[2].partition(",")[0]
            picture = _drawn(f"$ {command.replace('SESSION', session_id)}\n{screen}", title="power-loop")
            (PICTURES / f"{name}.svg").write_text(picture, "utf-8")
            print(f"drawn: {(PICTURES / f'{name}.svg').relative_to(ROOT)}")


def _screen(command: str, keys: tuple[tuple[str, str], ...], folder: str) -> str:
    """Return what a command writes to a terminal."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, _COLUMNS, 0, 0))
    variables = {"TERM": "xterm-256color", "POWER_LOOP_DSN": "app.db", "COLUMNS": str(_COLUMNS)}
    module = command.removeprefix("python -m ").replace("power-loop", "power_loop", 1)
    process = subprocess.Popen(
        [sys.executable, "-m", *module.split()],
        cwd=folder,
        env={**{name: value for name, value in os.environ.items() if name != "NO_COLOR"}, **variables},
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    screen, read_to, left = "", 0, list(keys)
    until_s = time.monotonic() + _LIMIT_S
    while True:
        while left and left[0][0] in screen[read_to:]:
            text, pressed = left.pop(0)
            read_to = screen.index(text, read_to) + len(text)
            os.write(master, pressed.encode())
        ready, _, _ = select.select([master], [], [], max(until_s - time.monotonic(), 0.0))
        if not ready:
            process.kill()
            raise SystemExit(f"{command!r} waits for what does not come; its screen is:\n{screen}")
        try:
            piece = os.read(master, 65_536)
        except OSError:
            break  # the other end is closed
        if not piece:
            break
        screen += piece.decode("utf-8", "replace")
    process.wait()
    os.close(master)
    return screen.replace("\r\n", "\n")


def _drawn(screen: str, *, title: str) -> str:
    """Return a screen as SVG that asks for nothing from elsewhere."""
    console = Console(record=True, width=_COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.from_ansi(screen.rstrip("\n")))
    return console.export_svg(title=title, code_format=_FORMAT, unique_id="pl")


_FORMAT = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, monospace; font-variant-east-asian: full-width; }}
.{unique_id}-matrix {{ font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


if __name__ == "__main__":
    main()
