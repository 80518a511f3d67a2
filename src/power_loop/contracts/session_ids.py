"""Says what may be the id of a session."""

from __future__ import annotations

import re
from typing import Any

from power_loop.contracts.errors import InputError

#: Session ids go into URLs, file names and the keys of every database, as they are.
MAX_SESSION_ID_CHARS = 64

_SESSION_ID = re.compile(rf"[A-Za-z0-9_:-][A-Za-z0-9_.:-]{{0,{MAX_SESSION_ID_CHARS - 1}}}")

#: The ids of the sessions of workflows' runs begin so.
RUN_PREFIX = "run"


def is_session_id(value: Any) -> bool:
    """Tell whether a session may have this id."""
    return isinstance(value, str) and _SESSION_ID.fullmatch(value) is not None and ".." not in value


def check_session_id(value: Any) -> None:
    """Raise `input.invalid` for what cannot be the id of a new session."""
    if not is_session_id(value):
        raise InputError(
            f"session_id {value!r:.200} is not usable, because ids go into file names and URLs: give 1 to"
            f" {MAX_SESSION_ID_CHARS} characters of A-Z, a-z, 0-9 and _ . : - that begin with no dot and hold no '..'"
        )


def is_run_id(session_id: str) -> bool:
    """Tell whether a session may be a workflow's run."""
    return session_id.startswith(f"{RUN_PREFIX}_")
