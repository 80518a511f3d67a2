"""Moves what waits in a session's inbox into the log of the turn that runs."""

from __future__ import annotations

from collections.abc import Awaitable

from power_loop.contracts.events import InputRefused, InputTaken
from power_loop.contracts.hooks import HookPoint, Rewrite, SendStartContext, Veto
from power_loop.contracts.messages import Message, Role, content_of
from power_loop.contracts.ports import Signalled
from power_loop.contracts.records import InboxRecord, Lease, TakenInput
from power_loop.contracts.states import NextInput
from power_loop.core.turn.turn import Turn

#: So many inputs are taken in one transaction; more of them come right behind.
MAX_TAKEN = 100


async def take_inputs(turn: Turn) -> None:
    """Take the inputs that come before the first with options of its own.

    The hooks are asked about each as about any input; one that they refuse leaves the inbox all the same. A
    cancellation that comes between is heard and decided anew.
    """
    heard = turn.lease.signals
    waiting = await turn.kit.store.get_inbox(turn.session_id, limit=MAX_TAKEN + 1)
    records: list[InboxRecord] = []
    for record in waiting[:MAX_TAKEN]:
        if record.options:
            break
        records.append(record)
    refused: dict[int, str] = {}
    taken = [await _asked(turn, record, refused) for record in records]
    if taken:
        await _commit(turn, taken)
    behind = waiting[len(records) :]
    if turn.lease.signals == heard:
        # Else the watch has heard, since the look, of something that may stand behind it.
        turn.next_input = NextInput.NONE
    if not behind:
        turn.hearings += 1
    else:
        turn.next_input = NextInput.SEND if behind[0].options else NextInput.FOLLOW_UP
    seq = turn.window.next_seq
    for record in records:
        if record.position in refused:
            turn.announce(InputRefused(record.position, record.request_id, refused[record.position]))
        else:
            turn.announce(InputTaken(record.position, record.request_id, seq))
            seq += 1
    await turn.note_appended([one.message for one in taken if one.message is not None])


async def _commit(turn: Turn, taken: list[TakenInput]) -> None:
    def move(lease: Lease) -> Awaitable[None]:
        return turn.kit.store.take_inputs(
            lease, taken, at_seq=turn.window.next_seq, send_index=turn.send_index, round=turn.round
        )

    try:
        await turn.commit_unless_signalled(move)
    except Signalled as signalled:
        if signalled.news.cancel_reason is not None:
            raise
        # What came since then is heard with the next move; that one of these was taken back is told of again.
        await turn.commit_at_once(move)


async def _asked(turn: Turn, record: InboxRecord, refused: dict[int, str]) -> TakenInput:
    message = record.message
    assert message is not None
    if turn.kit.hooks.has(HookPoint.SEND_START):
        context: SendStartContext = turn.context_of(
            SendStartContext, content=message.parts, is_resume=False, is_follow_up=True
        )
        decision = (await turn.consult(context)).decision
        if isinstance(decision, Veto):
            refused[record.position] = decision.reason
            return TakenInput(record.position, None)
        if isinstance(decision, Rewrite) and decision.content is not None:
            message = Message(Role.USER, content_of(decision.content))
    return TakenInput(record.position, message)
