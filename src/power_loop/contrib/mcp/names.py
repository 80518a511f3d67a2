"""Gives the tools of a server names that every model provider takes, in a way that can be undone."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

_MAX_CHARS = 64
_HASH_CHARS = 8
_NOT_PORTABLE = re.compile(r"[^a-zA-Z0-9_-]")


def portable_names(names: Iterable[str], *, prefix: str) -> dict[str, str]:
    """Return for each of a server's names another one that is unique and fits `[a-zA-Z0-9_-]{1,64}`.

    `fs.` and `read` become `fs_read`. Names that would become the same, or are too long, end with a few digits of a
    hash of what they were; the same name gets the same digits each time.
    """
    given = list(dict.fromkeys(names))
    plain = {name: _NOT_PORTABLE.sub("_", prefix + name) for name in given}
    counts: dict[str, int] = {}
    for one in plain.values():
        counts[one] = counts.get(one, 0) + 1
    made: dict[str, str] = {}
    for name in given:
        wanted = plain[name]
        is_exact = wanted == prefix + name
        if 0 < len(wanted) <= _MAX_CHARS and (counts[wanted] == 1 or is_exact):
            made[name] = wanted
        else:
            digits = hashlib.sha256((prefix + name).encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_CHARS]
            made[name] = f"{wanted[: _MAX_CHARS - _HASH_CHARS - 1]}_{digits}"
    return made
