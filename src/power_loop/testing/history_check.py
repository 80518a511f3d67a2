"""Holds the history of a run against what its store has: one pass over each session's log, and no search."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import ge
from typing import Any

from power_loop import Effect, SendStatus, SessionStore
from power_loop.messages import Role
from power_loop.records import CallRecord, CallState, FoldRecord, MessageRecord, SendRecord, SessionRecord, SessionStats
from power_loop.storage import OPEN_CALLS, RESUMABLE_SENDS
from power_loop.testing.history import Chain, History, Note, Operation

#: What is checked, by the word that a problem has.
CHECKS = {
    "gapless": "The log's numbers run from 1, gaps are those of a pruned fold, and the head counts messages and sends.",
    "acknowledged": "What a client was told was taken is in the log exactly once, with the answer it was given.",
    "refused": "What was refused is not in the log; what was left open is there at most once; nothing else is.",
    "order": "Of two inputs of which one was taken before the other was given, the first one comes first.",
    "prefix": "What anybody read of a log during the run is how the log begins at its end.",
    "fence": "Epochs go up along the log, each has one owner, and nobody writes behind the one that took over.",
    "fair": "Nobody takes a lease from an owner that lives and keeps it.",
    "calls": "Each call is answered once, directly behind its reply, and the ledger says where.",
    "effects": "A call has its effect as often as its class allows, under one key, and no outcome is made up.",
    "terminal": "What has ended stays as it ended.",
    "caused": "A send that ended as cancelled was cancelled by somebody while it was under way.",
    "usage": "A session's usage is that of its folds and of the answers in its log, each of which a model gave, once.",
    "rest": "In the end no session is held, none runs, no call is open, and no input waits.",
}

# A database's clock counts in milliseconds, and may be read some time before a move is noted.
_TOLERANCE = 0.9
_WHOLE = {CallState.SUCCEEDED}
_UNFINISHED = {SendStatus.RUNNING, SendStatus.WAITING_FOR_INPUT}


@dataclass(frozen=True)
class Problem:
    """Is what a store promised and did not keep. `check` is a word of `CHECKS`."""

    check: str
    session_id: str
    text: str

    def __str__(self) -> str:
        return f"{self.check}: session {self.session_id!r}: {self.text}"


@dataclass(frozen=True)
class HistoryReport:
    """Is the outcome: what is wrong, and how much was looked at."""

    problems: tuple[Problem, ...]
    counts: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        looked = ", ".join(f"{count} {what}" for what, count in self.counts.items())
        return "\n".join([f"{len(self.problems)} problems in {looked}", *map(str, self.problems)])

    def raise_for_problems(self) -> None:
        """Raise an AssertionError that tells them all, if there is any."""
        if self.problems:
            raise AssertionError(str(self))


@dataclass
class SessionHistory:
    """Is what a store has of one session in the end, and what the history says about it."""

    session: SessionRecord
    messages: Sequence[MessageRecord]
    sends: Sequence[SendRecord]
    calls: Sequence[CallRecord]
    stats: SessionStats
    waiting_inputs: int = 0
    operations: list[Operation] = field(default_factory=list)
    effects: list[Note] = field(default_factory=list)
    answers: dict[str, Sequence[int]] = field(default_factory=dict)
    folds: Sequence[FoldRecord] = ()

    @property
    def pruned(self) -> frozenset[int]:
        """The seqs whose messages are not there, and need not be: a fold that was pruned stands for them."""
        to_seq = max([fold.to_seq for fold in self.folds if fold.pruned_at_ms is not None], default=0)
        there = {record.seq for record in self.messages} if to_seq else frozenset[int]()
        return frozenset(seq for seq in range(1, to_seq + 1) if seq not in there)


async def check_history(store: SessionStore, history: History) -> HistoryReport:
    """Check every session of a history, once its run is over and its sessions were recovered."""
    ended = {note.what.get("process", note.process) for note in history.notes if note.kind in ("died", "stopped")}
    sessions = list(dict.fromkeys(operation.session_id for operation in history.operations))
    about = _About(history)
    problems: list[Problem] = []
    counts: Counter[str] = Counter(sessions=len(sessions), operations=len(history.operations))
    for session_id in sessions:
        found = await _read(store, about, session_id)
        counts.update(messages=len(found.messages), sends=len(found.sends), calls=len(found.calls))
        problems += problems_of(found, ended)
    counts.update(Counter(operation.outcome for operation in history.operations))
    return HistoryReport(tuple(problems), dict(counts))


async def read_session(store: SessionStore, history: History, session_id: str) -> SessionHistory:
    """Return what a store has of one session, and what the history says about it."""
    return await _read(store, _About(history), session_id)


class _About:
    """Is a history by session."""

    def __init__(self, history: History) -> None:
        self.operations: dict[str, list[Operation]] = defaultdict(list)
        self.effects: dict[str, list[Note]] = defaultdict(list)
        self.answers: dict[str, Sequence[int]] = {}
        for operation in history.operations:
            self.operations[operation.session_id].append(operation)
        for note in history.notes:
            if note.kind == "answer":
                self.answers[note.what["text"]] = note.what["tokens"]
            elif note.kind == "effect" and note.session_id is not None:
                self.effects[note.session_id].append(note)


def problems_of(found: SessionHistory, ended: set[str]) -> Iterator[Problem]:
    """Yield what is wrong with one session; `ended` are the processes that died or were stopped."""
    for name, check in _CHECKS.items():
        for text in check(found, ended) if name in _OF_PROCESSES else check(found):
            yield Problem(name, found.session.id, text)


async def _read(store: SessionStore, about: _About, session_id: str) -> SessionHistory:
    session = await store.get_session(session_id)
    sends = [await store.get_send(session_id, index=index) for index in range(1, session.send_count + 1)]
    return SessionHistory(
        session=session,
        messages=await store.get_messages(session_id),
        sends=[send for send in sends if send is not None],
        calls=await store.get_calls(session_id),
        stats=await store.get_stats(session_id),
        waiting_inputs=len(await store.get_inbox(session_id)),
        operations=about.operations[session_id],
        effects=about.effects[session_id],
        answers=about.answers,
        folds=await store.get_folds(session_id),
    )


# ---- the log ----


def _gapless(found: SessionHistory) -> Iterator[str]:
    session = found.session
    seqs, pruned = [record.seq for record in found.messages], found.pruned
    if seqs != [seq for seq in range(1, session.next_seq) if seq not in pruned]:
        yield f"the log has the numbers {seqs}, and its head says that {session.next_seq} is next"
    if [send.index for send in found.sends] != list(range(1, session.send_count + 1)):
        yield f"the sends are {[send.index for send in found.sends]}, and the head counts {session.send_count}"
    first = {send.index: send.first_seq for send in found.sends}
    place = (0, 0)
    for record in found.messages:
        if (record.send_index, record.round) < place:
            yield f"message {record.seq} belongs to round {record.round} of send {record.send_index}, behind {place}"
        place = (record.send_index, record.round)
        if record.seq < first.get(record.send_index, record.seq):
            yield f"message {record.seq} stands before the first one of its send {record.send_index}"


@dataclass
class _Input:
    """Is one input: a text, and everybody who gave it (several, where a request is repeated)."""

    text: str
    seqs: list[int] = field(default_factory=list)
    given: list[Operation] = field(default_factory=list)

    @property
    def taken(self) -> list[Operation]:
        return [operation for operation in self.given if operation.outcome == "ok"]

    @property
    def is_queued(self) -> bool:
        return any(_is_queued(operation) for operation in self.taken) or all(
            operation.kind == "follow_up" for operation in self.given
        )


def _is_queued(operation: Operation) -> bool:
    return operation.kind == "follow_up" or operation.told.get("status") == "queued"


def _inputs(found: SessionHistory) -> dict[str, _Input]:
    inputs: dict[str, _Input] = {}
    for operation in found.operations:
        text = operation.what.get("input")
        if text is not None:
            inputs.setdefault(text, _Input(text)).given.append(operation)
    for record in found.messages:
        if record.message.role is Role.USER and record.message.text in inputs:
            inputs[record.message.text].seqs.append(record.seq)
    return inputs


def _acknowledged(found: SessionHistory) -> Iterator[str]:
    # The answers that sends ended with stay; those of a send that rested in between may be pruned.
    begun = {send.index: send.first_seq for send in found.sends}
    answers: dict[int, list[str]] = defaultdict(list)
    for record in found.messages:
        if record.message.role is Role.ASSISTANT:
            answers[record.send_index].append(record.message.text)
    for operation in found.operations:
        said, index = operation.told.get("text"), operation.told.get("send_index", 0)
        is_gone = operation.told.get("status") in _RESUMABLE and begun.get(index, 0) in found.pruned
        if said and said not in answers[index] and not is_gone:
            yield f"{operation.id} was told {said!r} by send {index}, whose answers are {answers[index]}"
    for input in _inputs(found).values():
        for operation in input.taken:
            if len(input.seqs) != 1 and not (not input.seqs and _may_be_pruned(found, operation)):
                yield f"{input.text!r} was taken ({operation.id}), and stands in the log {len(input.seqs)} times"
        results = {(it.told.get("send_index"), it.told.get("text")) for it in input.taken if not _is_queued(it)}
        if len(results) > 1 and not any(it.told.get("status") in _RESUMABLE for it in input.taken):
            yield f"those who gave {input.text!r} were told different things: {sorted(map(str, results))}"


_RESUMABLE = {status.value for status in RESUMABLE_SENDS}


def _may_be_pruned(found: SessionHistory, operation: Operation) -> bool:
    """Tell whether a prune may have taken the input of an operation: that of a send is where the send begins."""
    if _is_queued(operation):
        return bool(found.pruned)
    index = operation.told.get("send_index")
    return any(send.index == index and send.first_seq in found.pruned for send in found.sends)


def _refused(found: SessionHistory) -> Iterator[str]:
    inputs = _inputs(found)
    for input in inputs.values():
        if len(input.seqs) > 1:
            yield f"{input.text!r} stands in the log at {input.seqs}"
        if input.seqs and all(operation.outcome == "fail" for operation in input.given):
            codes = {operation.told.get("code") for operation in input.given}
            yield f"{input.text!r} was refused ({codes}), and stands in the log at {input.seqs}"
    for send in found.sends:
        record = next((record for record in found.messages if record.seq == send.first_seq), None)
        if (record is None or record.message.role is not Role.USER) and send.first_seq not in found.pruned:
            yield f"send {send.index} begins at {send.first_seq}, where no input is"
    if inputs:
        for record in found.messages:
            if record.message.role is Role.USER and record.message.text not in inputs:
                yield f"nobody gave the input {record.message.text!r:.80} at {record.seq}"


def _order(found: SessionHistory) -> Iterator[str]:
    """Sweep over the moments at which inputs were given and taken: who comes later has to stand later."""
    moments: list[tuple[int, int, _Input]] = []
    for input in _inputs(found).values():
        if len(input.seqs) == 1:
            moments.append((min(it.invoked_ns for it in input.given), 1, input))
            ends = [it.ended_ns for it in input.taken if it.ended_ns is not None]
            if ends:
                moments.append((min(ends), 0, input))
    last_sent, last_queued = 0, 0
    for _, is_given, input in sorted(moments, key=lambda moment: moment[:2]):
        [seq] = input.seqs
        if not is_given:
            if input.is_queued:
                last_queued = max(last_queued, seq)
            else:
                last_sent = max(last_sent, seq)
            continue
        # What waits in the inbox may be overtaken by what is sent directly, but not by what comes to wait later.
        before = max(last_sent, last_queued if input.is_queued else 0)
        if seq < before:
            yield f"{input.text!r} stands at {seq}, and was given when {before} had been taken already"


def _prefix(found: SessionHistory) -> Iterator[str]:
    chain, digests = Chain(), {0: ""}
    first_pruned = min(found.pruned, default=found.session.next_seq)
    for record in found.messages:
        chain.add(record)
        digests[chain.count] = chain.digest
    for operation in found.operations:
        if operation.kind == "look" and operation.outcome == "ok":
            count = operation.told["count"]
            # What was read of messages that are gone by now cannot be held against anything.
            if count < first_pruned and digests.get(count) != operation.told["digest"]:
                yield f"{operation.id} read {count} messages that are not the log's first ones"


def _terminal(found: SessionHistory) -> Iterator[str]:
    sends = {str(send.index): send.status.value for send in found.sends}
    calls = {f"{call.reply_seq}.{call.index}": call.state.value for call in found.calls}
    for operation in found.operations:
        if operation.kind == "look" and operation.outcome == "ok":
            for now, then, what in ((sends, operation.told["sends"], "send"), (calls, operation.told["calls"], "call")):
                for name, status in then.items():
                    if now.get(name) != status:
                        yield f"{what} {name} had ended as {status!r} for {operation.id}, and is {now.get(name)!r}"


def _caused(found: SessionHistory) -> Iterator[str]:
    inputs = _inputs(found)
    cancels = [it for it in found.operations if it.kind in ("cancel", "abort")]
    by_seq = {record.seq: record.message.text for record in found.messages}
    for send in found.sends:
        input = inputs.get(by_seq.get(send.first_seq, ""))
        if send.status is not SendStatus.CANCELLED or input is None or input.is_queued:
            continue
        if any(operation.outcome != "ok" for operation in input.given):
            # Who waited for it gave it up, or may have.
            continue
        begun = min(operation.invoked_ns for operation in input.given)
        over = max(operation.ended_ns or 0 for operation in input.given)
        if not any(it.invoked_ns < over and (it.ended_ns is None or it.ended_ns > begun) for it in cancels):
            yield f"send {send.index} of {input.text!r} was cancelled, and nobody asked for that while it ran"


# ---- who wrote ----


def _fence(found: SessionHistory) -> Iterator[str]:
    moves = [it for it in found.operations if it.kind == "move" and it.outcome == "ok"]
    # A release of a lease that was lost does nothing and says nothing.
    moves = [it for it in moves if it.what["move"] != "release"]
    owners: dict[int, str] = {}
    takes: Counter[int] = Counter()
    events: list[tuple[int, int, int, Operation]] = []
    places: list[tuple[int, int, Operation]] = []
    for move in moves:
        taken = move.told.get("epoch")
        epoch = move.what.get("epoch") if taken is None else taken
        if epoch is None:
            continue
        if owners.setdefault(epoch, move.what["owner"]) != move.what["owner"]:
            yield f"epoch {epoch} has the owners {owners[epoch]!r} and {move.what['owner']!r} ({move.id})"
        if taken is not None:
            takes[taken] += 1
        events.append((move.invoked_ns, 1, epoch, move))
        events.append((move.ended_ns or move.invoked_ns, 0, epoch, move))
        if move.what.get("at_seq") is not None:
            places.append((move.what["at_seq"], epoch, move))
    for epoch, count in takes.items():
        if count > 1:
            yield f"epoch {epoch} was given {count} times"
    newest = 0
    for _, is_begun, epoch, move in sorted(events, key=lambda event: event[:2]):
        if is_begun and epoch < newest:
            yield f"{move.what['move']} of epoch {epoch} ({move.id}) was taken when epoch {newest} had written"
        if not is_begun:
            newest = max(newest, epoch)
    last = 0
    for seq, epoch, move in sorted(places, key=lambda place: place[:2]):
        if epoch < last:
            yield f"{move.what['move']} at {seq} is of epoch {epoch} ({move.id}), behind one of {last}"
        last = max(last, epoch)


def _fair(found: SessionHistory, ended: set[str]) -> Iterator[str]:
    """Hold each take-over against when the owner before had written last: by then its lease has to have run out."""
    moves = [it for it in found.operations if it.kind == "move" and it.outcome == "ok" and it.ended_ns is not None]
    kept: dict[str, tuple[int, float, str]] = {}
    for move in sorted(moves, key=lambda move: move.ended_ns or 0):
        owner, before = move.what["owner"], move.told.get("previous_owner")
        if before in kept and before != owner:
            since_ns, ttl_s, process = kept[before]
            held_s = ((move.ended_ns or 0) - since_ns) / 1e9
            if process not in ended and held_s < ttl_s * _TOLERANCE:
                yield f"{move.id} took it from {process}, which lived and had written {held_s:.3f} s before of {ttl_s}"
        ttl_s = move.what.get("ttl_s", kept.get(owner, (0, 0.0, ""))[1])
        # A lease that was given up on the way to somewhere else is nobody's.
        kept[owner] = (move.invoked_ns, ttl_s, move.process)


# ---- calls ----


def _calls(found: SessionHistory) -> Iterator[str]:
    records = {(call.reply_seq, call.index): call for call in found.calls}
    asked: dict[str, tuple[int, int]] = {}
    pruned = found.pruned
    # Of calls whose reply is gone, or whose answer is, the ledger still tells.
    seen: set[tuple[int, int]] = {place for place in records if place[0] in pruned}
    alone = {(call.result_seq, call.call_id) for place, call in records.items() if place in seen}
    for record in found.messages:
        message = record.message
        if message.role is Role.TOOL:
            result = message.tool_result
            place = asked.pop(result.call_id, None) if result is not None else None
            if place is None and result is not None and (record.seq, result.call_id) in alone:
                continue
            if place is None:
                yield f"message {record.seq} answers {result and result.call_id!r}, which was not asked or is answered"
            elif records[place].result_seq != record.seq:
                yield f"{records[place]} is answered at {record.seq}"
            continue
        if asked:
            yield f"message {record.seq} comes before these calls are answered: {sorted(asked)}"
            asked = {}
        for index, part in enumerate(message.tool_calls):
            place = (record.seq, index)
            seen.add(place)
            if place not in records:
                yield f"call {index} of reply {record.seq} is not in the ledger"
            elif records[place].result_seq not in pruned:
                asked[part.id] = place
    if seen != records.keys():
        yield f"the ledger has calls that no reply asked for: {sorted(records.keys() - seen)}"
    for call in found.calls:
        if (call.result_seq is None) != (call.state in OPEN_CALLS):
            yield f"call {call.call_id!r} is {call.state.value!r}, and its result is at {call.result_seq}"


def _effects(found: SessionHistory, ended: set[str]) -> Iterator[str]:
    began: dict[str, list[Note]] = defaultdict(list)
    had: Counter[str] = Counter()
    keys = Counter(call.idempotency_key for call in found.calls)
    for note in found.effects:
        key = note.what["key"]
        if note.what["stage"] == "had":
            had[key] += 1
        else:
            began[key].append(note)
        if key not in keys:
            yield f"{note.process} had an effect under the key {key!r}, which no call of the ledger has"
    given_up = any(it.kind in ("cancel", "abort", "heal") for it in found.operations)
    for call in found.calls:
        key, state, where = call.idempotency_key, call.state, f"call {call.call_id!r} of {call.name!r}"
        if keys[key] > 1:
            yield f"{where} shares its key {key!r} with another call"
        if call.effect is Effect.ONCE and had[key] > 1:
            yield f"{where} may have its effect once, and had it {had[key]} times"
        if state in _WHOLE and began[key] and not had[key]:
            yield f"{where} succeeded, and its effect did not come"
        if call.effect is not Effect.READ and state is CallState.ABORTED and not call.attempt and began[key]:
            yield f"{where} was told not to have run, and had begun"
        if state is CallState.UNKNOWN and not _has_cause(began[key], ended, found, is_given_up=given_up):
            yield f"{where} is unknown, and nothing befell the process that ran it"


def _has_cause(began: Sequence[Note], ended: set[str], found: SessionHistory, *, is_given_up: bool) -> bool:
    """Tell whether a process that ran a call died, was stopped or lost its lease, or somebody gave the call up."""
    if is_given_up or not began:
        return True
    lost = {it.process for it in found.operations if it.kind == "move" and it.outcome == "info"}
    return any(note.process in ended or note.process in lost for note in began)


# ---- the end ----


def _usage(found: SessionHistory) -> Iterator[str]:
    if not found.answers:
        return
    texts = Counter(it.message.text for it in found.messages if it.message.role is Role.ASSISTANT)
    total = [0, 0]
    for text, count in texts.items():
        if count > 1:
            yield f"the answer {text!r:.80} stands in the log {count} times"
        if text not in found.answers:
            yield f"no model gave the answer {text!r:.80}"
        total = [sum(pair) for pair in zip(total, found.answers.get(text, (0, 0)), strict=True)]
    model_calls = texts.total()
    for fold in found.folds:
        model_calls += fold.model_calls
        if fold.usage is not None:
            total = [total[0] + fold.usage.input_tokens, total[1] + fold.usage.output_tokens]
    usage = [found.stats.usage.input_tokens, found.stats.usage.output_tokens]
    # Where answers are pruned there is more than can be counted, and never less.
    if usage != total and not (found.pruned and all(map(ge, usage, total))):
        yield f"the usage is {usage[0]} + {usage[1]} tokens, and its answers and folds cost {total}"
    if found.stats.model_calls != model_calls and not (found.pruned and found.stats.model_calls > model_calls):
        yield f"{found.stats.model_calls} model calls are counted, and {model_calls} are those of its answers and folds"


def _rest(found: SessionHistory) -> Iterator[str]:
    session, last = found.session, found.sends[-1].status if found.sends else None
    if session.owner is not None:
        yield f"{session.owner!r} holds it"
    for send in found.sends:
        if send.status is SendStatus.RUNNING or (send.status in _UNFINISHED and send is not found.sends[-1]):
            yield f"send {send.index} is {send.status.value!r}"
    left = [call for call in found.calls if call.state in OPEN_CALLS]
    if left and last is not SendStatus.WAITING_FOR_INPUT:
        yield f"calls are open: {[(call.call_id, call.state.value) for call in left]}"
    if found.waiting_inputs and last is not SendStatus.WAITING_FOR_INPUT:
        yield f"{found.waiting_inputs} inputs wait in the inbox"


_CHECKS: dict[str, Any] = {
    "gapless": _gapless,
    "acknowledged": _acknowledged,
    "refused": _refused,
    "order": _order,
    "prefix": _prefix,
    "fence": _fence,
    "fair": _fair,
    "calls": _calls,
    "effects": _effects,
    "terminal": _terminal,
    "caused": _caused,
    "usage": _usage,
    "rest": _rest,
}
# Those that ask whether a process died or was stopped.
_OF_PROCESSES = {"fair", "effects"}
assert _CHECKS.keys() == CHECKS.keys()


def summary(problems: Iterable[Problem]) -> dict[str, int]:
    """Return how many problems each check found."""
    return dict(Counter(problem.check for problem in problems))
