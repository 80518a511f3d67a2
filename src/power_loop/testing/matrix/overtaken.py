"""Judges a process that was stopped until another one had taken over: what it wrote behind that, and what it was told.

A process counts as overtaken in a session once the other one has an epoch of its own there, and its moves are judged by
their epoch: what it does afterwards under a new lease is its good right, and so is what it does in a session below that
nobody has taken over yet.
"""

from __future__ import annotations

from collections.abc import Iterator

from power_loop.testing.matrix.look import Seen, by_place
from power_loop.testing.matrix.moves import made_behind
from power_loop.testing.matrix.story import LifeStory

# What a caller is told whose turn, or whose answer, another process took over.
_TOLD = ("session.lease_lost", "call.not_waiting")
# What nobody but the holder of the lease changes. How its sends stand is not there: the one that takes over lets the
# last one run again, and had its look before that.
_OF_THE_HOLDER = ("epoch", "next_seq", "log", "calls", "run")
_OF_A_REST = (*_OF_THE_HOLDER, "owner", "updated_at_ms", "sends", "usage", "model_calls")


def told_wrongly(stale: LifeStory, *more: str) -> Iterator[str]:
    """Tell if a process that was overtaken was told something else than that."""
    if stale.error not in (None, *_TOLD, *more):
        yield f"the process that was overtaken was told {stale.left['outcome']}"


def written_behind(stale: LifeStory, taken: LifeStory, *, mark: int, is_alone: bool | None = None) -> Iterator[str]:
    """Tell what a process wrote under its old lease, of whose moves `mark` lines were there when it was overtaken.

    `is_alone` tells that the other one held the lease and stood still as long as it lived; None says that the other one
    had come to its end before.
    """
    epochs: dict[str, int] = {}
    for move in taken.moves:
        if move["what"] == "claimed":
            epochs.setdefault(move["session"], move["epoch"])
        if epochs and is_alone is not None:
            # It stood still behind its first claim: what stands below that session was not its own yet.
            break
    made = made_behind(stale.moves, mark)
    for session_id, epoch in epochs.items():
        written = [move["move"] for move in made if move["session"] == session_id and move["epoch"] < epoch]
        if written:
            yield f"the process that was overtaken wrote afterwards: {written}"
        mine = [move for move in stale.moves if move["what"] == "claimed" and move["session"] == session_id]
        claimed = [move for move in mine if move["epoch"] >= epoch]
        if is_alone and claimed:
            yield f"the process that was overtaken took the session from its living owner: {claimed}"
        elif not claimed:
            yield from _changed_behind(stale, taken, session_id, epoch, is_alone=is_alone)


def _changed_behind(
    stale: LifeStory, taken: LifeStory, session_id: str, epoch: int, *, is_alone: bool | None
) -> Iterator[str]:
    """Tell what is another than when the process was let go on; it alone has run since."""
    after = _seen(stale, "after", session_id)
    if is_alone is False or after is None:
        return
    if is_alone:
        before = _seen(taken, "before", session_id)
        if before is None:
            return
        before = before | {"epoch": epoch}
        if after["owner"] in (None, "", before["owner"]):
            yield f"the process that was overtaken took the lease away: its owner is {after['owner']!r}"
    else:
        before = _seen(taken, "after", session_id)
    if before is None:
        return
    changed = [part for part in (_OF_THE_HOLDER if is_alone else _OF_A_REST) if after.get(part) != before.get(part)]
    if changed:
        facts = {part: (before.get(part), after.get(part)) for part in changed}
        yield f"the process that was overtaken changed afterwards: {facts}"


def _seen(life: LifeStory, when: str, session_id: str) -> Seen | None:
    """Return what a process saw of a session, if it did."""
    root = life.left.get(when)
    sessions = {} if root is None else {one["id"]: one for one in by_place(root).values()}
    return sessions.get(session_id)
