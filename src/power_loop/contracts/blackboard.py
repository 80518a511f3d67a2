"""Says what the blackboard is that all sessions of a tree share: its entries, and what may be written on it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol

from power_loop.contracts.errors import InputError
from power_loop.contracts.frozen import frozen

#: Keys go into prompts, SQL and the arguments of tools, as they are.
MAX_KEY_CHARS = 128
#: The bytes of an entry's value as JSON: a result of a tool shows it whole.
MAX_VALUE_BYTES = 16_384
#: The entries of one board.
MAX_ENTRIES = 500

_KEY = re.compile(rf"[A-Za-z0-9_./:-]{{1,{MAX_KEY_CHARS}}}")


@frozen
class BlackboardEntry:
    """Is an entry as it stands: the JSON `value` of a `key`.

    Each write gives its entry a higher `version` than any entry of the board ever had, so that none comes twice, even
    where a key is removed and posted again. `author_session_id` wrote this version; None is the application.
    """

    key: str
    value: Any
    version: int
    author_session_id: str | None
    created_at_ms: int
    updated_at_ms: int


class BlackboardTransaction(Protocol):
    """Is the blackboard of a call's tree within the transaction that commits the call: what is written on it stays if
    the call's result does.

    A refusal changes nothing, and the transaction goes on behind it.
    """

    async def read(
        self,
        *,
        keys: Sequence[str] | None = None,
        prefix: str = "",
        after: str | None = None,
        limit: int = 100,
    ) -> tuple[BlackboardEntry, ...]:
        """Return entries as `SessionStore.read_entries` does."""
        ...

    async def post(self, key: str, value: Any) -> BlackboardEntry:
        """Put a new entry on the board.

        Raises `blackboard.conflict` where the key is taken, `blackboard.full`, and `input.invalid` for what can be no
        key or no value.
        """
        ...

    async def update(self, key: str, value: Any, *, expected_version: int) -> BlackboardEntry:
        """Change an entry that has this version. Raises `blackboard.conflict` where it has not, or is not there."""
        ...

    async def remove(self, key: str, *, expected_version: int) -> None:
        """Take away an entry that has this version. Raises `blackboard.conflict` as `update` does."""
        ...


def is_entry_key(value: Any) -> bool:
    """Tell whether an entry may have this key."""
    return isinstance(value, str) and _KEY.fullmatch(value) is not None


def check_entry_key(value: Any) -> None:
    """Raise `input.invalid` for what can be the key of no entry."""
    if not is_entry_key(value):
        raise InputError(
            f"key {value!r:.200} is not usable on a blackboard: give 1 to {MAX_KEY_CHARS} characters of A-Z, a-z, 0-9"
            " and _ . / : -"
        )
