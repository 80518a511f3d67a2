"""Says what looking after a store gives back: what was pruned, reclaimed, copied."""

from __future__ import annotations

from enum import Enum

from power_loop.contracts.frozen import frozen


class OnConflict(str, Enum):
    """Is what an import does where a session of that id exists already."""

    RAISE = "raise"  # refuse it
    RENAME = "rename"  # give the imported session a fresh id
    REPLACE = "replace"  # remove what is there, in the same transaction


@frozen
class Pruned:
    """Is what a prune removed: `rows` of all tables, `sessions` that went whole.

    `skipped` counts the sessions that were old enough and stay, because their lease is held or a fork shares their log.
    `freed_bytes` is what the bodies of messages, results and data held that `prune_compacted_messages` or
    `prune_tool_results` removed.
    """

    rows: int = 0
    sessions: int = 0
    skipped: int = 0
    freed_bytes: int = 0

    def __add__(self, other: Pruned) -> Pruned:
        """Return both together."""
        return Pruned(
            self.rows + other.rows,
            self.sessions + other.sessions,
            self.skipped + other.skipped,
            self.freed_bytes + other.freed_bytes,
        )


@frozen
class Vacuumed:
    """Is what a vacuum gave back to the disk: the database's size before and after it, in bytes.

    None where the database does not tell its size by file.
    """

    bytes_before: int | None = None
    bytes_after: int | None = None


@frozen
class Checkpointed:
    """Is what a checkpoint did: `pages` of the write-ahead log stand in the database file.

    `is_complete` is False where somebody still reads from the log, so that a part of it has to stay. Where a database
    sees to that by itself, it is True and `pages` is 0.
    """

    is_complete: bool = True
    pages: int = 0


@frozen
class BackedUp:
    """Is a backup that was written and looked through: its file, and its size in bytes."""

    path: str
    size_bytes: int
