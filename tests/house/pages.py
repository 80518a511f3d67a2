"""Runs the Python blocks of a page as they are printed, one after the other, the way a reader would type them.

The blocks of a page share one namespace and one event loop. `await` stands at the top, as in `python -m asyncio`. What
the model answers stands before a block, hidden: `<!-- model: ["Noted.", {"calls": [...]}] -->`, in the form of
`tests.model_server`. A comment `# → text` claims that the block prints that text; it is checked.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import json
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.model_server import ThreadedModelServer, steps_from_json

ROOT = Path(__file__).resolve().parents[2]
# Far more than any block takes; a block that waits for ever fails here, with its place.
BLOCK_LIMIT_S = 100.0

_BLOCK = re.compile(
    r"(?:^<!-- model: (?P<model>(?:(?!-->).)*?) -->\s*\n)?^(?P<indent> *)```(?P<language>\w+)\n(?P<source>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)
_CLAIM = re.compile(r"#\s*→\s*(?P<text>.+?)(?:\s{2,}\(.*\))?$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """Is one fenced block: where it stands, its language, its source, and the answers that the model gives to it."""

    page: str
    line: int
    language: str
    source: str
    answers: list[Any]

    @property
    def place(self) -> str:
        """Where it stands, as an editor opens it."""
        return f"{self.page}:{self.line}"

    @property
    def claims(self) -> list[str]:
        """The texts that it says it prints."""
        return [found["text"].strip().strip('"') for found in _CLAIM.finditer(self.source)]


def blocks_of(text: str, page: str) -> list[Block]:
    """Return the fenced blocks of a page in order."""
    blocks = []
    for found in _BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("source")) + 1
        answers = json.loads(found["model"]) if found["model"] else []
        source = textwrap.dedent(found["source"])
        blocks.append(Block(page, line, found["language"], source, answers))
    return blocks


def pages() -> list[Path]:
    """Return every page of the documentation that a user reads."""
    return [ROOT / "README.md", *sorted((ROOT / "docs" / "en").rglob("*.md"))]


def run_blocks(blocks: Sequence[Block], server: ThreadedModelServer, namespace: dict[str, Any]) -> list[str]:
    """Run blocks in one event loop, those without an await outside of it; return what each printed.

    Every answer that a block says the model gives has to be asked for.
    """
    printed = []
    loop = asyncio.new_event_loop()
    try:
        for block in blocks:
            server.extend(*steps_from_json(block.answers))
            printed.append(_run_block(block, namespace, loop))
            assert server.answers_left == 0, f"{block.place}: {server.answers_left} answers were not asked for"
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
    return printed


def _run_block(block: Block, namespace: dict[str, Any], loop: asyncio.AbstractEventLoop) -> str:
    # Numbered from the page's own line, a traceback points into the page.
    source = "\n" * (block.line - 1) + block.source
    code = compile(source, str(ROOT / block.page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        outcome = eval(code, namespace)
        if inspect.iscoroutine(outcome):
            loop.run_until_complete(asyncio.wait_for(outcome, BLOCK_LIMIT_S))
    rest = said.getvalue()
    for claim in block.claims:
        assert claim in rest, f"{block.place} claims to print {claim!r}, and printed {said.getvalue()!r}"
        rest = rest.partition(claim)[2]
    return said.getvalue()
