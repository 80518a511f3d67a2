"""Remembers which content of a file a session has seen, so that nothing is changed that it has not.

Each file has a key of its own in the session's state: calls that run at the same time do not meet.
"""

from __future__ import annotations

import contextlib

from power_loop.contracts.errors import ToolError
from power_loop.contracts.tools import ToolContext

_PREFIX = "file:"
#: How many files are remembered, those that were seen last: each costs about 80 bytes of every stored state.
MAX_KNOWN_FILES = 100


def remember(context: ToolContext, shown: str, digest: str) -> None:
    """Note what the session has seen of a file, or has made of it."""
    key = _PREFIX + shown
    state = context.state
    # The last one stands last.
    state.pop(key, None)
    state[key] = digest
    known = [name for name in list(state) if name.startswith(_PREFIX)]
    for name in known[:-MAX_KNOWN_FILES]:
        state.pop(name, None)


def forget(context: ToolContext, shown: str) -> None:
    """Note that a file is gone."""
    with contextlib.suppress(KeyError):
        del context.state[_PREFIX + shown]


def check_known(context: ToolContext, shown: str, digest: str) -> None:
    """Raise `tool.failed` where the session does not know a file as it is, which has this digest."""
    known = known_digest(context, shown)
    if known is None:
        raise ToolError(f"{shown!r} has not been read (lately): read it with read_file first")
    if known != digest:
        raise ToolError(f"{shown!r} has been changed since you read it: read it again, then change it")


def known_digest(context: ToolContext, shown: str) -> str | None:
    """Return what the session has seen last of a file; None if it has not seen it, or long ago."""
    digest = context.state.get(_PREFIX + shown)
    return digest if isinstance(digest, str) else None
