"""Plans a fold: which part of a window goes into a summary, and what stays as it is."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from power_loop.contracts.frozen import frozen
from power_loop.contracts.messages import Message, Role
from power_loop.core.context import texts
from power_loop.core.context.tokens import estimate_message
from power_loop.core.context.transcript import repair
from power_loop.core.context.window import Entry, Window, fold_message

#: The part of the room for messages that a fold has to free at least.
MIN_GAIN = 0.1
#: A window that takes this part of the room for messages is worth a fold, however much may stay.
FULL_SHARE = 0.75
#: The part of the room for messages that a summary takes at most.
MAX_SUMMARY_SHARE = 0.25
#: The part of what may stay that the pinned inputs of the running send take at most.
PINNED_SHARE = 0.5
#: So many inputs of one send are pinned at most.
MAX_PINNED_INPUTS = 100
#: A summary that may have fewer tokens than these says too little to stand for a conversation.
MIN_SUMMARY_TOKENS = 50
#: What a fold that is asked for although none is due has to cover at least, in tokens.
MIN_COVERED_TOKENS = 200
# What the words round a summary take.
_FRAME_TOKENS = 80


@frozen
class FoldPlan:
    """Is what a fold would do: everything up to `to_seq` goes, but for what is `pinned`.

    `messages` is a valid transcript of what goes, the summary of the fold before first; `covered_tokens` is about what
    it takes in the window, `kept_tokens` what stays takes beside the summary, which may have `max_summary_tokens`.
    `too_big` are inputs of the running send that take too much to be pinned.
    """

    to_seq: int
    messages: tuple[Message, ...]
    pinned: tuple[Entry, ...]
    too_big: tuple[Message, ...]
    covered_tokens: int
    kept_tokens: int
    max_summary_tokens: int


def plan_fold(
    window: Window,
    *,
    room_tokens: int,
    keep: float,
    max_summary_tokens: int,
    first_seq: int,
    open_call_ids: Collection[str] = (),
    is_asked_for: bool = False,
) -> FoldPlan | None:
    """Return the fold that keeps the most of what fits into `keep` of `room_tokens`, the room for messages; None if no
    fold is worth its price.

    A cut never separates a reply from its results, nor replies that follow each other (a paused one goes back
    unchanged, with what it went on with), and never covers a call of `open_call_ids`, whose result is still to come.
    The newest reply stays whatever it takes, with all that is behind it. The user's inputs from `first_seq` on, where
    the running send begins, stay as they are if they are covered, in at most half of what may stay: if they take more,
    the first and the last of them; one of these that takes more than a quarter is `too_big`.

    A fold that is asked for keeps that share of what there is, where this is less, and has to free less.
    """
    entries = window.entries
    summary_tokens = min(max_summary_tokens, int(room_tokens * MAX_SUMMARY_SHARE))
    if is_asked_for:
        room_tokens = min(room_tokens, window.transcript.tokens)
    keep_tokens = int(room_tokens * keep)
    if not is_asked_for:
        price = summary_tokens + _FRAME_TOKENS + int(room_tokens * MIN_GAIN)
        keep_tokens = max(min(keep_tokens, int(room_tokens * FULL_SHARE) - price), 0)
    ends = _cuts(entries, open_call_ids)
    if not ends or summary_tokens < MIN_SUMMARY_TOKENS:
        return None
    inputs = _Inputs(window, first_seq, keep_tokens)
    sizes = [estimate_message(entry.message) for entry in entries]
    behind, place, best = sum(sizes), 0, 0
    for end in ends:
        for index in range(place, end):
            behind -= sizes[index]
            if _is_input(entries[index], first_seq):
                inputs.add(entries[index])
        place = best = end
        if behind + inputs.tokens <= keep_tokens:
            break
    to_seq = entries[best - 1].to_seq
    pinned = inputs.pinned
    pinned_seqs = {entry.seq for entry in pinned}
    summary = () if window.fold is None else (fold_message(window.fold),)
    going = [
        entry.message
        for entry in (*window.pinned, *entries[:best])
        if entry.is_projected or entry.seq not in pinned_seqs
    ]
    covered_tokens = sum(map(estimate_message, (*summary, *going)))
    if is_asked_for:
        summary_tokens = min(summary_tokens, max(covered_tokens // 2, MIN_SUMMARY_TOKENS))
        is_worth_it = covered_tokens >= MIN_COVERED_TOKENS
    else:
        is_worth_it = covered_tokens - summary_tokens - _FRAME_TOKENS >= room_tokens * MIN_GAIN
    if not is_worth_it:
        return None
    return FoldPlan(
        to_seq,
        repair((*summary, *going)).messages,
        pinned,
        inputs.too_big,
        covered_tokens,
        behind + sum(estimate_message(entry.message) for entry in pinned),
        summary_tokens,
    )


class _Inputs:
    """Chooses among the inputs of the running send that a fold covers."""

    def __init__(self, window: Window, first_seq: int, keep_tokens: int) -> None:
        self._max_tokens = int(keep_tokens * PINNED_SHARE)
        self._all = [entry for entry in window.pinned if entry.seq >= first_seq]
        self._all_tokens = sum(estimate_message(entry.message) for entry in self._all)

    def add(self, entry: Entry) -> None:
        self._all.append(entry)
        self._all_tokens += estimate_message(entry.message)

    @property
    def tokens(self) -> int:
        return min(self._all_tokens, self._max_tokens)

    @property
    def pinned(self) -> tuple[Entry, ...]:
        if self._fit:
            return tuple(self._all)
        return tuple(entry for entry in self._ends if not self._is_too_big(entry))

    @property
    def too_big(self) -> tuple[Message, ...]:
        if self._fit:
            return ()
        return tuple(entry.message for entry in self._ends if self._is_too_big(entry))

    @property
    def _fit(self) -> bool:
        return self._all_tokens <= self._max_tokens and len(self._all) <= MAX_PINNED_INPUTS

    @property
    def _ends(self) -> Sequence[Entry]:
        return self._all if len(self._all) < 2 else (self._all[0], self._all[-1])

    def _is_too_big(self, entry: Entry) -> bool:
        return estimate_message(entry.message) > self._max_tokens // 2


def _is_input(entry: Entry, first_seq: int) -> bool:
    is_said = entry.seq >= first_seq and entry.message.role is Role.USER and not entry.is_projected
    return is_said and not texts.is_repair_request(entry.message.text)


def _cuts(entries: Sequence[Entry], open_call_ids: Collection[str]) -> list[int]:
    """Return how many entries may go, in order: each of these counts separates nothing that belongs together."""
    whole = _whole_until(entries, open_call_ids)
    newest = _newest_reply(entries)
    cuts: list[int] = []
    bound = 0
    for index in range(1, newest + 1):
        bound = max(bound, whole[index - 1])
        role = entries[index].message.role
        is_new = role is Role.USER or (role is Role.ASSISTANT and not _is_reply(entries[index - 1]))
        if is_new and bound < index:
            cuts.append(index)
    return cuts


def _newest_reply(entries: Sequence[Entry]) -> int:
    """Return the place of the newest reply, or of the first of those that follow each other there; the end if there is
    none."""
    place = next((index for index in reversed(range(len(entries))) if _is_reply(entries[index])), len(entries) - 1)
    while place > 0 and _is_reply(entries[place]) and _is_reply(entries[place - 1]):
        place -= 1
    return place


def _is_reply(entry: Entry) -> bool:
    return entry.message.role is Role.ASSISTANT and not entry.is_projected


def _whole_until(entries: Sequence[Entry], open_call_ids: Collection[str]) -> list[int]:
    """Return for each entry the place of the last answer to its calls: past the end for one that is still to come."""
    until = [0] * len(entries)
    # By id: the places of the replies whose call waits for its answer, the newest last, as `Transcript` has it.
    waiting: dict[str, list[int]] = {}
    for place, entry in enumerate(entries):
        for call_id in _called(entry):
            waiting.setdefault(call_id, []).append(place)
        result = entry.message.tool_result
        if result is not None and waiting.get(result.call_id):
            until[waiting[result.call_id].pop()] = place
    for call_id, places in waiting.items():
        if call_id in open_call_ids:
            for place in places:
                until[place] = len(entries)
    return until


def _called(entry: Entry) -> Iterator[str]:
    return (call.id for call in entry.message.tool_calls)
