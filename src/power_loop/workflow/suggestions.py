"""Finds what was probably meant by a name that is not there."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from itertools import islice

# Names that are compared: a workflow of more nodes than this has no near miss that is worth the time.
_MAX_CANDIDATES = 200
_MAX_CHARS = 64
# Below this two words have little in common.
_LEAST_LIKENESS = 0.6


def nearest(name: str, candidates: Iterable[str]) -> str:
    """Return the candidate that is most like a name, or nothing; it takes bounded time, whatever is given."""
    if len(name) > _MAX_CHARS:
        return ""
    known = [one for one in islice(candidates, _MAX_CANDIDATES) if len(one) <= _MAX_CHARS]
    by_small = {one.lower(): one for one in reversed(known)}
    found = difflib.get_close_matches(name.strip().lower(), by_small, n=1, cutoff=_LEAST_LIKENESS)
    return by_small[found[0]] if found else ""
