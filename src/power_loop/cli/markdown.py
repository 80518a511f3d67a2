"""Shows Markdown on a terminal where `rich` is installed (the extra `cli`)."""

from __future__ import annotations

import io
import re
import shutil

from power_loop.cli.printable import printable

# What rich writes of its own: colours and styles, and nothing else.
_STYLE = re.compile(r"(\x1b\[[0-9;]*m)")
_MAX_WIDTH = 100


def markdown(text: str, *, indent: int = 0) -> str | None:
    """Return printable text as it looks rendered, for a terminal that shows colours; None without rich.

    A character that rich makes of an entity such as `&#x202e;` is made printable again.
    """
    try:
        from rich.console import Console
        from rich.markdown import Markdown
    except ImportError:
        return None
    width = max(min(shutil.get_terminal_size().columns, _MAX_WIDTH) - indent, 20)
    page = io.StringIO()
    console = Console(file=page, force_terminal=True, color_system="standard", width=width, legacy_windows=False)
    console.print(Markdown(printable(text), hyperlinks=False))
    pieces = _STYLE.split(page.getvalue())
    return "".join(piece if place % 2 else printable(piece) for place, piece in enumerate(pieces)).rstrip()
