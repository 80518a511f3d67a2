"""Is what a tool may read of its session's log."""

from __future__ import annotations

from power_loop.contracts.records import MessageRecord
from power_loop.core.turn.turn import Turn

#: Messages that one read brings at most.
MAX_READ = 100


class TurnLog:
    """Satisfies `SessionLog` for the calls of one turn."""

    __slots__ = ("_turn",)

    def __init__(self, turn: Turn) -> None:
        self._turn = turn

    @property
    def folded_to_seq(self) -> int:
        """The seq up to which a summary stands for the log; 0 before the first fold."""
        fold = self._turn.window.fold
        return 0 if fold is None else fold.to_seq

    async def read(self, *, after_seq: int = 0, limit: int = 50) -> tuple[MessageRecord, ...]:
        """Return messages in order, those after `after_seq`."""
        store = self._turn.kit.store
        return await store.get_messages(self._turn.session_id, after_seq=max(after_seq, 0), limit=_bounded(limit))

    async def read_send(self, send_index: int, *, after_seq: int = 0, limit: int = 50) -> tuple[MessageRecord, ...]:
        """Return messages of one send in order, those after `after_seq`."""
        begin = after_seq if after_seq > 0 else await self._first_seq(send_index) - 1
        found = await self.read(after_seq=begin, limit=limit)
        return tuple([record for record in found if record.send_index == send_index])

    async def search(
        self, text: str, *, after_seq: int = 0, to_seq: int | None = None, limit: int = 20
    ) -> tuple[tuple[MessageRecord, ...], int | None]:
        """Return messages that contain `text`, and the seq to go on behind."""
        store = self._turn.kit.store
        return await store.search_messages(
            self._turn.session_id, text, after_seq=max(after_seq, 0), to_seq=to_seq, limit=_bounded(limit)
        )

    async def _first_seq(self, send_index: int) -> int:
        """Return the seq at which a send begins, or would if there were one of this index."""
        session_id, store = self._turn.session_id, self._turn.kit.store
        sent = await store.get_send(session_id, index=send_index)
        if sent is not None:
            return sent.first_seq
        # Of a send that a fork shares with its ancestors there is no row of its own. Along the log the index of the
        # send never falls, so that halving finds the place.
        low, high = 1, self._turn.window.next_seq
        while low < high:
            middle = (low + high) // 2
            at = await store.get_messages(session_id, after_seq=middle - 1, limit=1)
            if at and at[0].send_index < send_index:
                low = at[0].seq + 1
            else:
                high = middle
        return low


def _bounded(limit: int) -> int:
    return min(max(limit, 1), MAX_READ)
