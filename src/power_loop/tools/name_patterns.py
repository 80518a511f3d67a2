"""Matches paths against patterns with `*`, `?`, `[...]`, `{a,b}` and `**`, in time that no pattern can blow up."""

from __future__ import annotations

import re
from fnmatch import translate

from power_loop.contracts.errors import ToolError

_MAX_PATTERN_CHARS = 1_000
_MAX_ALTERNATIVES = 100
_MAX_STARS = 8
_DEEP = "**"


class NamePattern:
    """Is one pattern: without a `/` about names at any depth, else about the path from where a search begins."""

    __slots__ = ("_alternatives",)

    def __init__(self, source: str) -> None:
        """Read a pattern. Raises `tool.failed` for one that is none."""
        if not source or len(source) > _MAX_PATTERN_CHARS:
            raise ToolError(f"the pattern has {len(source):,} characters: give 1 to {_MAX_PATTERN_CHARS:,}")
        self._alternatives = [_parts(one) for one in _spread(source)]

    def matches(self, parts: tuple[str, ...]) -> bool:
        """Tell whether the names of a path match."""
        return any(_match(pattern, parts) for pattern in self._alternatives)


def _spread(source: str) -> list[str]:
    """Return the patterns that one with braces stands for."""
    done: list[str] = []
    waiting = [source]
    while waiting:
        one = waiting.pop()
        end = one.find("}")
        start = one.rfind("{", 0, end) if end >= 0 else -1
        if start < 0:
            done.append(one)
            continue
        waiting += [one[:start] + choice + one[end + 1 :] for choice in one[start + 1 : end].split(",")]
        if len(waiting) + len(done) > _MAX_ALTERNATIVES:
            raise ToolError(f"the pattern stands for more than {_MAX_ALTERNATIVES} others: give several, one at a time")
    return done


def _parts(source: str) -> list[re.Pattern[str] | None]:
    """Return a pattern name by name; None stands for `**`."""
    names = [name for name in source.split("/") if name not in ("", ".")]
    if "/" not in source.rstrip("/"):
        names.insert(0, _DEEP)
    parts: list[re.Pattern[str] | None] = []
    for name in names:
        if name == _DEEP:
            if not parts or parts[-1] is not None:
                parts.append(None)
            continue
        if name == "..":
            raise ToolError(f"the pattern {source!r} leads out: give a path to begin at instead")
        name = re.sub(r"\*\*+", "*", name)
        # `fnmatch` tries each star at each place.
        if name.count("*") > _MAX_STARS:
            raise ToolError(f"the pattern {source!r} has more than {_MAX_STARS} stars in one name: give a simpler one")
        parts.append(re.compile(translate(name)))
    return parts


def _match(pattern: list[re.Pattern[str] | None], parts: tuple[str, ...]) -> bool:
    # The places in the pattern to which the names so far may lead.
    places = _past_deep(pattern, {0})
    for name in parts:
        following = {at for at in places if at < len(pattern) and pattern[at] is None}
        for at in places:
            part = pattern[at] if at < len(pattern) else None
            if part is not None and part.match(name):
                following.add(at + 1)
        places = _past_deep(pattern, following)
        if not places:
            return False
    return len(pattern) in places


def _past_deep(pattern: list[re.Pattern[str] | None], places: set[int]) -> set[int]:
    """Return the places, and those behind a `**` that stands for no name."""
    return places | {at + 1 for at in places if at < len(pattern) and pattern[at] is None}
