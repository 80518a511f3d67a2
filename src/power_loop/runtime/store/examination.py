"""Holds the rows of one session against each other: finds what is wrong with them, and what mends it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import pairwise, product
from typing import Any

from power_loop.contracts.diagnosis import Finding, FindingKind
from power_loop.contracts.errors import StoreCorruptError
from power_loop.contracts.frozen import frozen
from power_loop.contracts.messages import Message, Role
from power_loop.contracts.states import OPEN_CALLS, CallState, Effect, SendStatus, SessionState, WaitKind
from power_loop.contracts.timers import TimerMaker, TimerState
from power_loop.runtime.store.blobs import referred
from power_loop.runtime.store.codec import AnyBlob, decode_choice, decode_json, decode_message, decode_value
from power_loop.runtime.store.folds import pinned_seqs
from power_loop.runtime.store.lineage import spans_of
from power_loop.runtime.store.sends import UNFINISHED_SENDS
from power_loop.runtime.store.sql.database import Row, Statement
from power_loop.runtime.store.sql.tables import (
    BLACKBOARD_ENTRIES,
    BLACKBOARDS,
    BUDGET_HOLDS,
    BUDGETS,
    FOLDS,
    INBOX,
    MODEL_CALLS,
    PROJECT_MESSAGES,
    SENDS,
    SESSION_DETAILS,
    SESSIONS,
    TIMERS,
    TOOL_CALLS,
    WORKFLOW_RUNS,
    WORKFLOW_SIGNALS,
    WORKFLOW_STEPS,
    Kind,
)
from power_loop.runtime.store.timers import read_schedule
from power_loop.runtime.store.usage import decode_segments

# Of the same kind, one session's findings are told one by one up to here: a log may be broken all over.
MAX_ALIKE = 20
# A runner that works looks far more often.
_OVERDUE_MS = 5 * 60_000
_NO_TIMES = "planned_at_ms = NULL, due_at_ms = NULL, wake_at_ms = NULL"
_ANY_BLOB = AnyBlob()
_COUNTS_OF_MODEL_CALLS = (
    *("input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens", "reasoning_tokens"),
    *("estimated_tokens", "attempts", "duration_ms", "round"),
)

#: Rows by the names of their columns.
Columns = dict[str, Any]


@frozen
class Ailment:
    """Is a finding with the statements, still to be rendered, that mend it."""

    finding: Finding
    cure: tuple[Statement, ...] = ()


@dataclass(slots=True)
class LogFacts:
    """Is what of a log matters beside its text, gathered message by message: ids and places, no content."""

    first_seq: int | None = None
    last_seq: int = 0
    gaps: list[tuple[int, int]] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    #: For each call: the seq of its first answer, and whether that is an error.
    answers: dict[str, tuple[int, bool]] = field(default_factory=dict)
    twice: list[tuple[str, int]] = field(default_factory=list)
    #: For each reply with calls: their ids in order.
    asked: dict[int, tuple[str, ...]] = field(default_factory=dict)
    replies: set[int] = field(default_factory=set)
    inputs: set[int] = field(default_factory=set)
    #: For each digest of data the seq that shows it first.
    shown: dict[str, int] = field(default_factory=dict)
    #: The seqs with which the messages of another send begin, and which send that is.
    sends: list[tuple[int, int]] = field(default_factory=list)

    def add(self, session_id: str, row: Row) -> None:
        """Take in the next row: its seq, its send, its role and its body."""
        seq, send_index, role, body = row
        if not all(map(isinstance, row, (int, int, str, str))):
            self.damaged.append(f"message {seq!r:.40} of session {session_id!r} holds a value that its columns do not")
            return
        if self.first_seq is None:
            self.first_seq = seq
        elif seq != self.last_seq + 1:
            self.gaps.append((self.last_seq + 1, seq - 1))
        self.last_seq = seq
        if not self.sends or self.sends[-1][1] != send_index:
            self.sends.append((seq, send_index))
        try:
            for digest in referred((body,)):
                self.shown.setdefault(digest, seq)
            message = decode_message(role, body, f"message {seq} of session {session_id!r}", _ANY_BLOB)
        except StoreCorruptError as error:
            self.damaged.append(error.message)
            # What it was cannot be told, so that nothing is missed that it may have been.
            self.replies.add(seq)
            self.inputs.add(seq)
            return
        self._note(seq, message)

    def has(self, seq: int) -> bool:
        """Tell whether there is a message of this seq."""
        is_within = self.first_seq is not None and self.first_seq <= seq <= self.last_seq
        return is_within and not any(first <= seq <= last for first, last in self.gaps)

    def _note(self, seq: int, message: Message) -> None:
        if message.role is Role.ASSISTANT:
            self.replies.add(seq)
            if message.tool_calls:
                self.asked[seq] = tuple([call.id for call in message.tool_calls])
        elif message.role is Role.USER:
            self.inputs.add(seq)
        result = message.tool_result
        if result is not None:
            if result.call_id in self.answers:
                self.twice.append((result.call_id, seq))
            else:
                self.answers[result.call_id] = (seq, result.is_error)


@dataclass(slots=True)
class SessionFacts:
    """Is everything of one session that is held against each other."""

    head: Columns
    details: Columns | None
    sends: list[Columns]
    calls: list[Columns]
    results: list[tuple[int, int]]
    model_calls: list[Columns]
    inbox: list[Columns]
    folds: list[Columns] = field(default_factory=list)
    projected: list[Columns] = field(default_factory=list)
    #: Its row as the root of a tree, if that has a blackboard, and the entries of that.
    boards: list[Columns] = field(default_factory=list)
    entries: list[Columns] = field(default_factory=list)
    timers: list[Columns] = field(default_factory=list)
    #: Its row as a workflow's run, if it is one, with the steps and the signals of that.
    runs: list[Columns] = field(default_factory=list)
    steps: list[Columns] = field(default_factory=list)
    signals: list[Columns] = field(default_factory=list)
    budgets: list[Columns] = field(default_factory=list)
    holds: list[Columns] = field(default_factory=list)
    #: By its index, the tokens of each send's replies.
    reply_tokens: dict[int, int] = field(default_factory=dict)
    #: The digests of the data that is there, and of that to which whole results and the projection refer.
    blobs: list[object] = field(default_factory=list)
    shown_beside: set[str] = field(default_factory=set)
    #: What is wrong with whole results, with data, and with the ancestors of a fork.
    damaged_results: list[str] = field(default_factory=list)
    damaged_blobs: list[object] = field(default_factory=list)
    lost_origins: list[str] = field(default_factory=list)
    #: The newest fold of its ancestors that it sees: what its own stand behind.
    shared_fold_seq: int = 0
    #: The sessions that made it, and that wait for its sends, as far as they are not there.
    missing: frozenset[str] = frozenset()
    last_message_seq: int = 0
    log: LogFacts = field(default_factory=LogFacts)

    @property
    def session_id(self) -> str:
        """The session."""
        return str(self.head["id"])

    @property
    def pruned_to(self) -> int:
        """Up to where messages may have been removed, because a fold stands for them."""
        return max([fold["to_seq"] for fold in self.folds if fold["pruned_at_ms"] is not None], default=0)

    @property
    def end_seq(self) -> int:
        """The last seq of the log."""
        return max(self.log.last_seq, self.base_seq)

    def send_at(self, seq: int) -> int | None:
        """Return the send in which a seq stands, by where sends begin; None if none of its own does before it."""
        begun = [send["idx"] for send in self.sends if send["first_seq"] <= seq]
        return max(begun, default=None)

    @property
    def base_seq(self) -> int:
        """The last seq that the session shares with the one that it was forked from."""
        return int(self.head["forked_at_seq"] or 0)


def mistyped(facts: SessionFacts) -> list[Ailment]:
    """Return what is to be said of values that no column of their kind holds: SQLite keeps whatever it is given.

    Beside them nothing can be held against anything.
    """
    parts = (
        (SESSIONS, [facts.head], "session.damaged"),
        (SESSION_DETAILS, [] if facts.details is None else [facts.details], "session.damaged"),
        (SENDS, facts.sends, "send.damaged"),
        (TOOL_CALLS, facts.calls, "call.damaged"),
        (MODEL_CALLS, facts.model_calls, "usage.damaged"),
        (INBOX, facts.inbox, "inbox.damaged"),
        (FOLDS, facts.folds, "fold.damaged"),
        (BUDGETS, facts.budgets, "budget.damaged"),
        (BUDGET_HOLDS, facts.holds, "budget.damaged"),
        (PROJECT_MESSAGES, facts.projected, "projection.damaged"),
        (BLACKBOARDS, facts.boards, "blackboard.damaged"),
        (BLACKBOARD_ENTRIES, facts.entries, "blackboard.damaged"),
        (TIMERS, facts.timers, "timer.damaged"),
        (WORKFLOW_RUNS, facts.runs, "run.damaged"),
        (WORKFLOW_STEPS, facts.steps, "step.damaged"),
        (WORKFLOW_SIGNALS, facts.signals, "signal.damaged"),
    )
    found = []
    for table, rows, check in parts:
        for row, column in product(rows, table.columns):
            value = row.get(column.name)
            if value is not None and not isinstance(value, int if column.kind is Kind.INTEGER else str):
                what = f"{column.name} of a row of {table.name} is {value!r:.40}, which is no {column.kind.value}"
                found.append(_wrong(facts, check, what))
    return found[:MAX_ALIKE]


def examine(facts: SessionFacts, at_ms: int) -> list[Ailment]:
    """Return everything that is to be said of a session, in a fixed order."""
    found: list[Ailment] = []
    rest: dict[str, list[Ailment]] = {}
    counts: dict[str, int] = {}
    for look in _LOOKS:
        for ailment in look(facts, at_ms):
            check = ailment.finding.check
            counts[check] = counts.get(check, 0) + 1
            (found if counts[check] <= MAX_ALIKE else rest.setdefault(check, [])).append(ailment)
    return found + [_summed_up(ailments) for ailments in rest.values()]


def _summed_up(ailments: list[Ailment]) -> Ailment:
    """Return many of a kind as one, mended together."""
    finding = replace(ailments[0].finding, message=f"and {len(ailments)} more of these")
    return Ailment(finding, tuple([statement for one in ailments for statement in one.cure]))


def _wrong(facts: SessionFacts, check: str, message: str, repair: str | None = None, *cure: Statement) -> Ailment:
    return Ailment(Finding(FindingKind.INCONSISTENT, check, facts.session_id, message, repair), cure)


def _orphan(facts: SessionFacts, check: str, message: str, repair: str | None = None, *cure: Statement) -> Ailment:
    return Ailment(Finding(FindingKind.ORPHANED, check, facts.session_id, message, repair), cure)


def unread(read: Callable[..., object], *arguments: object) -> str | None:
    """Return why a stored value cannot be read; None if it can."""
    try:
        read(*arguments)
    except StoreCorruptError as error:
        return error.message
    return None


def _damage(facts: SessionFacts, check: str, row: Columns, where: str, *names: str) -> Iterator[Ailment]:
    """Find JSON that cannot be read; NULL is fine."""
    for name in names:
        problem = None if row[name] is None else unread(decode_json, row[name], f"{name} of {where}")
        if problem is not None:
            yield _wrong(facts, check, problem)


def _words(facts: SessionFacts, check: str, row: Columns, where: str, **kinds: type[Enum]) -> Iterator[Ailment]:
    """Find words that are none of their kind; NULL is one of every kind that may be NULL."""
    for name, kind in kinds.items():
        problem = None if row[name] is None else unread(decode_choice, kind, row[name], f"{name} of {where}")
        if problem is not None:
            yield _wrong(facts, check, problem)


def _negative(facts: SessionFacts, check: str, row: Columns, where: str, *names: str) -> Iterator[Ailment]:
    for name in names:
        if row[name] is not None and row[name] < 0:
            yield _wrong(facts, check, f"{name} of {where} is {row[name]}, which no count and no time is")


# ---- the head ----


def _head(facts: SessionFacts, at_ms: int) -> Iterator[Ailment]:
    head, sid = facts.head, facts.session_id
    yield from _words(facts, "session.damaged", head, f"session {sid!r}", state=SessionState)
    counters = ("epoch", "version", "signals", "lease_until_ms", "lease_ttl_ms", "cancel_epoch")
    yield from _negative(facts, "session.damaged", head, f"session {sid!r}", *counters)
    end = facts.end_seq
    # What stands beyond the log tells that messages are lost: their seqs are not given to others.
    beyond = max(
        [
            *(call["reply_seq"] for call in (*facts.calls, *facts.model_calls)),
            *(send["first_seq"] for send in facts.sends),
            *(fold["last_seq"] for fold in facts.folds),
            0,
        ]
    )
    if head["parent_id"] in facts.missing:
        message = f"its parent {head['parent_id']!r} is not there"
        becomes = "it becomes a session of its own; what its agent may do stays"
        root: Statement = (
            "UPDATE {sessions} SET parent_id = NULL, parent_send = NULL, root_id = NULL, depth = 0 WHERE id = ?",
            (sid,),
        )
        yield _orphan(facts, "session.orphaned", message, becomes, root)
    if head["next_seq"] != end + 1:
        repair: str | None = None
        cure: tuple[Statement, ...] = ()
        if beyond <= end:
            repair = f"next_seq is set to {end + 1}"
            cure = (("UPDATE {sessions} SET next_seq = ? WHERE id = ?", (end + 1, sid)),)
        message = f"next_seq is {head['next_seq']}, and the log ends with {end}"
        yield _wrong(facts, "session.next_seq", message, repair, *cure)
    last = max((send["idx"] for send in facts.sends), default=None)
    if last is None and head["forked_from"] is None:
        last = 0
    said = max((index for _, index in facts.log.sends), default=0)
    if last is not None and said > last:
        yield _wrong(facts, "send.gap", f"messages are said to be of send {said}, and the last send is {last}")
    elif last is not None and head["send_count"] != last:
        cure_count: Statement = ("UPDATE {sessions} SET send_count = ? WHERE id = ?", (last, sid))
        message = f"send_count is {head['send_count']}, and the last send is {last}"
        yield _wrong(facts, "session.send_count", message, f"send_count is set to {last}", cure_count)


def _details(facts: SessionFacts, at_ms: int) -> Iterator[Ailment]:
    sid, details = facts.session_id, facts.details
    if details is None:
        if facts.head["forked_from"] is not None:
            yield _wrong(facts, "session.details", "it has no details, which say whose log it shares")
            return
        insert = (
            "INSERT INTO {session_details} (session_id, system_prompt, metadata, tool_state, lineage)"
            " VALUES (?, NULL, ?, ?, NULL)"
        )
        repair = "it gets empty ones: its prompt, metadata and tool state are lost"
        yield _wrong(facts, "session.details", "it has no details", repair, (insert, (sid, "{}", "{}")))
        return
    yield from _damage(facts, "session.damaged", details, f"session {sid!r}", "metadata", "tool_state", "agent")
    problem = unread(spans_of, sid, details["lineage"])
    if problem is not None:
        yield _wrong(facts, "session.damaged", problem)
    elif (details["lineage"] is None) != (facts.head["forked_from"] is None):
        yield _wrong(facts, "session.damaged", "forked_from and lineage do not agree on whether it is a fork")


def _origins(facts: SessionFacts, at_ms: int) -> Iterator[Ailment]:
    """Hold a fork against the sessions whose log it shares."""
    details, head, sid = facts.details, facts.head, facts.session_id
    lineage = None if details is None else details["lineage"]
    if lineage is None or unread(spans_of, sid, lineage) is not None:
        return
    *shared, _ = spans_of(sid, lineage)
    ids = [span.session_id for span in shared]
    last = (shared[-1].session_id, shared[-1].to_seq) if shared else None
    if last != (head["forked_from"], head["forked_at_seq"]):
        message = f"its lineage ends with {last}, and it was forked from {head['forked_from'], head['forked_at_seq']}"
        yield _wrong(facts, "fork.lineage", message)
    elif len({sid, *ids}) <= len(ids) or any(span.to_seq <= span.after_seq for span in shared):
        yield _wrong(facts, "fork.lineage", "its lineage names a session twice, or seqs that do not rise")
    for problem in facts.lost_origins:
        yield _wrong(facts, "fork.origin", problem)


# ---- the log ----


def _log(facts: SessionFacts, at_ms: int) -> Iterator[Ailment]:
    log = facts.log
    pruned_to = facts.pruned_to
    if log.first_seq is not None and log.first_seq != facts.base_seq + 1 and log.first_seq - 1 > pruned_to:
        yield _wrong(facts, "log.gap", f"the log begins with {log.first_seq}, not with {facts.base_seq + 1}")
    for first, last in [gap for gap in log.gaps if gap[1] > pruned_to]:
        what = f"message {first} is" if first == last else f"messages {first} to {last} are"
        yield _wrong(facts, "log.gap", f"{what} missing in the log")
    for problem in log.damaged:
        yield _wrong(facts, "log.damaged", problem)
    yield from _sends_of_messages(facts)
    for call_id, seq in log.twice:
        yield _wrong(facts, "log.answered_twice", f"call {call_id!r} is answered a second time by message {seq}")


def _sends_of_messages(facts: SessionFacts) -> Iterator[Ailment]:
    """Find messages that are said to be of another send than the one in which they stand."""
    noted = facts.log.sends
    begins = [seq for seq, _ in noted]
    for seq in sorted({*begins, *(send["first_seq"] for send in facts.sends)}):
        expected = facts.send_at(seq)
        if facts.log.has(seq) and expected is not None:
            index = noted[bisect_right(begins, seq) - 1][1]
            if index != expected:
                yield _wrong(facts, "log.send", f"message {seq} is said to be of send {index}, and is of {expected}")


def _wrong_send(facts: SessionFacts, check: str, row: Columns, where: str) -> Iterator[Ailment]:
    """Find a row that is said to be of another send than its reply."""
    expected = facts.send_at(row["reply_seq"])
    if expected not in (None, row["send_index"]):
        yield _wrong(facts, check, f"{where} is said to be of send {row['send_index']}, and its reply is of {expected}")


# ---- the sends ----


def _sends(facts: SessionFacts, at_ms: int) -> Iterator[Ailment]:
    head, sid = facts.head, facts.session_id
    indexes = [send["idx"] for send in facts.sends]
    for before, after in pairwise(indexes):
        if after != before + 1:
            yield _wrong(facts, "send.gap", f"send {before} is followed by send {after}")
    for send in facts.sends:
        where = f"send {send['idx']}"
        yield from _words(facts, "send.damaged", send, where, status=SendStatus)
        yield from _negative(facts, "send.damaged", send, where, "attempts", "first_seq", "started_at_ms")
        yield from _damage(facts, "send.damaged", send, where, "options", "result")
        if send["first_seq"] > max(facts.base_seq, facts.pruned_to) and send["first_seq"] not in facts.log.inputs:
            yield _orphan(facts, "send.orphaned", f"{where} begins with message {send['first_seq']}, which is no input")
        if send["paid_by"] in facts.missing:
            free: Statement = (
                "UPDATE {sends} SET paid_by = NULL, paid_by_send = NULL WHERE session_id = ? AND idx = ?",
                (sid, send["idx"]),
            )
            message = f"{where} is waited for by session {send['paid_by']!r}, which is not there"
            yield _orphan(facts, "send.unpaid", message, "nobody waits for it: recover() drives it if it runs", free)
        if send["status"] in _UNFINISHED:
            yield from _unfinished(facts, send, at_ms, is_last=send is facts.sends[-1])
    # A lease that its owner left behind keeps nobody out, and nothing is to be driven on behind it.
    has_run_out = head["owner"] is not None and head["lease_until_ms"] <= at_ms
    if has_run_out and not (facts.sends and facts.sends[-1]["status"] == SendStatus.RUNNING.value):
        give_back = "UPDATE {sessions} SET owner = NULL, lease_until_ms = 0, epoch = epoch + 1 WHERE id = ?"
        message = f"{head['owner']!r} left a lease that ran out {_ago(at_ms, head['lease_until_ms'])}, at rest"
        yield _wrong(facts, "lease.left", message, "the lease is given back", (give_back, (sid,)))


_UNFINISHED = {status.value for status in UNFINISHED_SENDS}


def _unfinished(facts: SessionFacts, send: Columns, at_ms: int, *, is_last: bool) -> Iterator[Ailment]:
    head, sid, index = facts.head, facts.session_id, send["idx"]
    waits = send["status"] == SendStatus.WAITING_FOR_INPUT.value
    # A workflow's run waits without a call.
    is_waiting = bool(facts.runs) or any(call["state"] == CallState.WAITING.value for call in facts.calls)
    if not is_last or (waits and not is_waiting):
        why = "waits, and no call does" if is_last else f"is {send['status']!r}, and another one came behind it"
        cure = (
            "UPDATE {sends} SET status = 'interrupted', ended_at_ms = ? WHERE session_id = ? AND idx = ?",
            (at_ms, sid, index),
        )
        yield _wrong(facts, "send.left_behind", f"send {index} {why}", "it becomes 'interrupted'", cure)
    elif not waits and head["owner"] is None:
        # As a lease stands that was given back in the middle: whoever looks for what is left to do finds it.
        mark = "UPDATE {sessions} SET owner = COALESCE(previous_owner, 'nobody'), lease_until_ms = 1 WHERE id = ?"
        message = f"send {index} runs, and nobody holds the lease"
        yield Ailment(
            Finding(FindingKind.STALLED, "send.unattended", sid, message, "it is marked, so that recover() finds it"),
            ((mark, (sid,)),),
        )
    elif not waits and head["lease_until_ms"] <= at_ms:
        message = f"send {index} runs, and the lease of {head['owner']!r} ran out {_ago(at_ms, head['lease_until_ms'])}"
        yield Ailment(Finding(FindingKind.STALLED, "send.stalled", sid, f"{message}: recover() or resume() goes on"))


def _ago(at_ms: int, then_ms: int) -> str:
    seconds = max(at_ms - then_ms, 0) // 1000
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago" if then_ms > 1 else "long ago"
    return f"{seconds} s ago"


# ---- the ledger ----


def _calls(facts: SessionFacts, at_ms: int) -> Iterator[Ailment]:
    sid = facts.session_id
    for call in facts.calls:
        where = f"call {call['call_id']!r}"
        kinds: dict[str, type[Enum]] = {"state": CallState, "effect": Effect, "wait_kind": WaitKind}
        yield from _words(facts, "call.damaged", call, where, **kinds)
        yield from _negative(facts, "call.damaged", call, where, "attempt", "reply_seq", "idx")
        yield from _damage(facts, "call.damaged", call, where, "wait_data")
        is_gone = call["reply_seq"] <= facts.pruned_to
        if call["reply_seq"] not in facts.log.replies and not is_gone:
            message = (
                f"{where} of {call['name']!r} ({call['state']}) belongs to reply {call['reply_seq']}, which is none"
            )
            if not facts.log.has(call["reply_seq"]):
                # Of what happened there the row is all that is left.
                yield _orphan(facts, "call.orphaned", f"{message}: no such message is there")
                continue
            delete = "DELETE FROM {tool_calls} WHERE session_id = ? AND reply_seq = ? AND idx = ?"
            place = (sid, call["reply_seq"], call["idx"])
            yield _orphan(facts, "call.orphaned", message, "its row is removed", (delete, place))
            continue
        yield from _wrong_send(facts, "call.damaged", call, where)
        if call["state"] == CallState.UNKNOWN.value:
            message = f"nobody knows whether {where} of {call['name']!r} happened (key {call['idempotency_key']!r})"
            yield Ailment(Finding(FindingKind.UNKNOWN, "call.unknown", sid, message))
        yield from _its_answer(facts, call, where, at_ms)


def _its_answer(facts: SessionFacts, call: Columns, where: str, at_ms: int) -> Iterator[Ailment]:
    """Hold a row of the ledger against the answer that stands in the log."""
    sid, answer = facts.session_id, facts.log.answers.get(call["call_id"])
    place = (sid, call["reply_seq"], call["idx"])
    where_row = "WHERE session_id = ? AND reply_seq = ? AND idx = ?"
    is_open = call["state"] in {state.value for state in OPEN_CALLS}
    if is_open and answer is None:
        since = "" if call["started_at_ms"] is None else f" since {_ago(at_ms, call['started_at_ms'])}"
        message = f"{where} of {call['name']!r} is {call['state']}{since}"
        if call["wait_kind"] is not None and call["state"] == CallState.WAITING.value:
            message += f" for its {call['wait_kind']}: {call['prompt'] or ''!s:.200}"
        yield Ailment(Finding(FindingKind.PENDING, "call.open", sid, message))
    elif is_open and answer is not None:
        state = CallState.FAILED if answer[1] else CallState.SUCCEEDED
        settle: Statement = (
            f"UPDATE {{tool_calls}} SET state = ?, result_seq = ?, ended_at_ms = ? {where_row}",
            (state.value, answer[0], at_ms, *place),
        )
        message = f"{where} is {call['state']}, and message {answer[0]} answers it"
        yield _wrong(facts, "call.answered", message, f"it becomes {state.value!r}", settle)
    elif answer is None:
        if 0 < (call["result_seq"] or 0) <= facts.pruned_to:
            return
        yield _wrong(facts, "call.unanswered", f"{where} is {call['state']}, and no message answers it")
    elif call["result_seq"] != answer[0]:
        point: Statement = (f"UPDATE {{tool_calls}} SET result_seq = ? {where_row}", (answer[0], *place))
        message = f"result_seq of {where} is {call['result_seq']}, and message {answer[0]} answers it"
        yield _wrong(facts, "call.result_seq", message, f"it is set to {answer[0]}", point)


def _answers(facts: SessionFacts, at_ms: int) -> Iterator[Ailment]:
    known = {call["call_id"] for call in facts.calls}
    asked = {call_id for ids in facts.log.asked.values() for call_id in ids}
    for seq, ids in facts.log.asked.items():
        for call_id in ids:
            if call_id not in known:
                yield _wrong(
                    facts, "log.call_without_row", f"reply {seq} asks for call {call_id!r}, of which no row tells"
                )
    for call_id, (seq, _) in facts.log.answers.items():
        if call_id not in known and call_id not in asked:
            yield _orphan(facts, "log.answer_without_call", f"message {seq} answers call {call_id!r}, which is none")


# ---- what hangs on them ----


def _belongings(facts: SessionFacts, at_ms: int) -> Iterator[Ailment]:
    sid = facts.session_id
    places = {(call["reply_seq"], call["idx"]) for call in facts.calls}
    for place in facts.results:
        if place not in places:
            delete = ("DELETE FROM {tool_results} WHERE session_id = ? AND reply_seq = ? AND idx = ?", (sid, *place))
            message = f"a whole result is kept for call {place[1]} of reply {place[0]}, which is none"
            yield _orphan(facts, "result.orphaned", message, "it is removed", delete)
    for problem in facts.damaged_results:
        yield _wrong(facts, "result.damaged", problem)
    for call in facts.model_calls:
        seq = call["reply_seq"]
        where = f"the model call of reply {seq}"
        yield from _negative(facts, "usage.damaged", call, where, *_COUNTS_OF_MODEL_CALLS)
        unreadable = unread(decode_segments, call["segments"], where)
        if unreadable is not None:
            yield _wrong(facts, "usage.damaged", unreadable)
        if seq not in facts.log.replies and seq > facts.pruned_to:
            # What was paid for stays counted.
            yield _orphan(facts, "usage.orphaned", f"a model call is counted for reply {seq}, which is none")
        else:
            yield from _wrong_send(facts, "usage.damaged", call, where)


def _inbox(facts: SessionFacts, at_ms: int) -> Iterator[Ailment]:
    head, sid = facts.head, facts.session_id
    waiting = [row["position"] for row in facts.inbox if row["taken_at_ms"] is None]
    for row in facts.inbox:
        where = f"input {row['position']} of the inbox"
        yield from _damage(facts, "inbox.damaged", row, where, "options")
        problem = None if row["body"] is None else unread(decode_message, "user", row["body"], where)
        if problem is not None:
            yield _wrong(facts, "inbox.damaged", problem)
        if row["taken_at_ms"] is None and row["body"] is None:
            yield _wrong(facts, "inbox.damaged", f"{where} waits, and its text is gone")
    count = max([head["inbox_count"], *(row["position"] for row in facts.inbox)])
    taken = min(waiting) - 1 if waiting else count
    if (head["inbox_count"], head["inbox_taken"]) != (count, taken):
        cure = ("UPDATE {sessions} SET inbox_count = ?, inbox_taken = ? WHERE id = ?", (count, taken, sid))
        message = (
            f"the inbox counts {head['inbox_count']} and {head['inbox_taken']} taken, its rows say {count} and {taken}"
        )
        yield _wrong(facts, "inbox.counts", message, "the counts are set by the rows", cure)
    if waiting and head["owner"] is None:
        message = f"{len(waiting)} inputs wait in the inbox, and no turn runs: recover() drives them"
        yield Ailment(Finding(FindingKind.PENDING, "inbox.waiting", sid, message))


# ---- what pays ----


def _budgets(facts: SessionFacts, at_ms: int) -> Iterator[Ailment]:
    """Hold budgets against the replies that they paid for, and holds against whether a call can run."""
    sid = facts.session_id
    known = {send["idx"]: send["status"] for send in facts.sends}
    for budget in facts.budgets:
        index, spent = budget["send_index"], budget["spent_tokens"]
        where = f"the budget of send {index}"
        names = [column.name for column in BUDGETS.columns if column.kind is Kind.INTEGER]
        yield from _negative(facts, "budget.damaged", budget, where, *names)
        if index not in known:
            cure = ("DELETE FROM {budgets} WHERE session_id = ? AND send_index = ?", (sid, index))
            yield _orphan(facts, "budget.orphaned", f"{where} is there, and the send is not", "it is removed", cure)
        elif spent < facts.reply_tokens.get(index, 0):
            told = f"{where} paid for {spent} tokens, and its replies took {facts.reply_tokens[index]}"
            yield _wrong(facts, "budget.unpaid", told)
    runs = known.get(facts.head["send_count"]) == SendStatus.RUNNING.value
    if facts.holds and not runs and facts.head["lease_until_ms"] <= at_ms:
        holders = {(hold["budget_session_id"], hold["budget_send_index"]) for hold in facts.holds}
        named = ", ".join(f"send {index} of {owner!r}" for owner, index in sorted(holders)[:MAX_ALIKE])
        free = "DELETE FROM {budget_holds} WHERE session_id = ?"
        message = f"no call runs, and {len(facts.holds)} of them hold something of the budgets of {named}"
        yield _wrong(facts, "budget.held", message, "it is given back", (free, (sid,)))


# ---- what stands for the log ----


def _folds(facts: SessionFacts, at_ms: int) -> Iterator[Ailment]:
    """Hold the folds against each other and the log. A summary is nothing that rows could give back: it stays."""
    end = facts.end_seq
    from_seq, last_seq = facts.shared_fold_seq + 1, 0
    for fold in facts.folds:
        where = f"fold {fold['to_seq']}"
        yield from _negative(facts, "fold.damaged", fold, where, "model_calls", "tokens_before", "tokens_after")
        if fold["from_seq"] != from_seq:
            cure: Statement = (
                "UPDATE {folds} SET from_seq = ? WHERE session_id = ? AND to_seq = ?",
                (from_seq, facts.session_id, fold["to_seq"]),
            )
            message = f"{where} begins with {fold['from_seq']}, and what is not folded before it with {from_seq}"
            is_mended = from_seq <= fold["to_seq"]
            repair = f"from_seq is set to {from_seq}" if is_mended else None
            yield _wrong(facts, "fold.range", message, repair, *((cure,) if is_mended else ()))
        if not 0 < fold["to_seq"] <= fold["last_seq"] <= end or fold["last_seq"] < last_seq:
            message = f"{where} was made of a log that ended with {fold['last_seq']}, and the log ends with {end}"
            yield _wrong(facts, "fold.range", message)
        from_seq, last_seq = max(fold["to_seq"] + 1, from_seq), fold["last_seq"]
        yield from _pins(facts, fold, where)


def _pins(facts: SessionFacts, fold: Columns, where: str) -> Iterator[Ailment]:
    problem = unread(pinned_seqs, fold["pinned"], where)
    if problem is not None:
        yield _wrong(facts, "fold.damaged", problem)
        return
    seqs = set(pinned_seqs(fold["pinned"], where)) | {fold["text_seq"] or 1}
    beyond = sorted(seq for seq in seqs if not 0 < seq <= fold["to_seq"])
    if beyond:
        yield _wrong(facts, "fold.pinned", f"{where} pins message {beyond[0]}, which it does not cover")


def _projection(facts: SessionFacts, at_ms: int) -> Iterator[Ailment]:
    """Find rows that stand for nothing or for the same; they are derived, so that the messages are shown without."""
    # Up to where there are messages, or were: of some that are lost a row is all that is left.
    end = max(facts.end_seq, facts.head["next_seq"] - 1)
    gaps = [*facts.log.gaps, (facts.end_seq + 1, end)]
    seen_seq = 0
    for row in facts.projected:
        first, last = row["seq"], row["to_seq"]
        where = f"the projection of messages {first} to {last}"
        delete = ("DELETE FROM {project_messages} WHERE session_id = ? AND seq = ?", (facts.session_id, first))
        problem = unread(decode_message, row["role"], row["body"], where, _ANY_BLOB)
        lost = [gap for gap in gaps if gap[1] > facts.pruned_to and max(first, gap[0]) <= min(last, gap[1])]
        if problem is not None:
            yield _wrong(facts, "projection.damaged", problem, "it is removed: the messages stand in the log", delete)
        elif not 0 < first <= last <= end:
            message = f"{where} stands for messages that are not there"
            yield _orphan(facts, "projection.orphaned", message, "it is removed", delete)
        elif lost:
            yield _orphan(facts, "projection.orphaned", f"{where} is all that is left of messages that are gone")
        elif first <= seen_seq:
            message = f"{where} stands for message {first}, as the one before it does"
            yield _wrong(facts, "projection.overlap", message, "it is removed: the messages stand in the log", delete)
        else:
            seen_seq = last


def _blobs(facts: SessionFacts, at_ms: int) -> Iterator[Ailment]:
    there = {digest for digest in facts.blobs if isinstance(digest, str)}
    orphaned = there - facts.log.shown.keys() - facts.shown_beside
    for named in facts.damaged_blobs:
        if named not in orphaned:
            yield _wrong(facts, "blob.damaged", f"the data {named!r:.80} is not that of its digest")
    for digest, seq in facts.log.shown.items():
        if digest not in there:
            yield _wrong(facts, "blob.missing", f"message {seq} shows data {digest!r}, which is not there")
    for digest in sorted(facts.shown_beside - facts.log.shown.keys() - there):
        yield _wrong(facts, "blob.missing", f"a result or projection shows data {digest!r}, which is not there")
    # A message or result that cannot be read, or is lost, may be the one that shows it.
    is_known = not facts.damaged_results and facts.head["next_seq"] == facts.end_seq + 1 and not any(_log(facts, at_ms))
    for digest in sorted(orphaned):
        delete = ("DELETE FROM {blobs} WHERE session_id = ? AND digest = ?", (facts.session_id, digest))
        repair, cure = ("it is removed", (delete,)) if is_known else (None, ())
        yield _orphan(facts, "blob.orphaned", f"nothing shows data {digest!r}", repair, *cure)


# ---- the blackboard ----


def _board(facts: SessionFacts, at_ms: int) -> Iterator[Ailment]:
    sid = facts.session_id
    version = facts.boards[0]["version"] if facts.boards else 0
    last = max([entry["version"] for entry in facts.entries], default=0)
    if last > version:
        cure: Statement = ("UPDATE {blackboards} SET version = ? WHERE session_id = ?", (last, sid))
        if not facts.boards:
            cure = ("INSERT INTO {blackboards} (session_id, version, last_op) VALUES (?, ?, '')", (sid, last))
        message = f"the blackboard has version {version}, and an entry of it has {last}"
        yield _wrong(facts, "blackboard.version", message, f"it is set to {last}", cure)
    for entry in facts.entries:
        where = f"entry {entry['entry_key']!r} of the blackboard"
        problem = unread(decode_value, entry["value"], where)
        if problem is not None:
            yield _wrong(facts, "blackboard.damaged", problem)


# ---- timers ----


def _timers(facts: SessionFacts, at_ms: int) -> Iterator[Ailment]:
    """Find timers that cannot be read, that nobody delivers, and those whose states contradict each other."""
    sid, is_closed = facts.session_id, facts.head["state"] == SessionState.CLOSED.value
    late = []
    for timer in facts.timers:
        where = f"timer {timer['id']!r}"
        yield from _words(facts, "timer.damaged", timer, where, state=TimerState, made_by=TimerMaker)
        counts = ("number", "delivered", "missed", "vetoed", "failures", "epoch")
        yield from _negative(facts, "timer.damaged", timer, where, *counts)
        for problem in (
            unread(read_schedule, timer["schedule"], where),
            unread(decode_message, "user", timer["body"], f"input of {where}"),
        ):
            if problem is not None:
                yield _wrong(facts, "timer.damaged", problem)
        is_armed = timer["state"] == TimerState.ARMED.value
        times = [timer[name] is not None for name in ("planned_at_ms", "due_at_ms", "wake_at_ms")]
        if is_armed != all(times) or is_armed != any(times):
            state = timer["state"]
            yield _wrong(facts, "timer.state", f"{where} is {state!r:.40}, and its times say otherwise")
        elif is_armed and is_closed:
            message = f"{where} is armed, and its session is closed"
            end: Statement = (
                f"UPDATE {{timers}} SET state = ?, {_NO_TIMES}, owner = NULL, ended_at_ms = ? WHERE id = ?",
                (TimerState.SESSION_CLOSED.value, at_ms, timer["id"]),
            )
            yield _wrong(facts, "timer.left", message, "it ends", end)
        elif is_armed and timer["wake_at_ms"] + _OVERDUE_MS < at_ms:
            late.append(timer["id"])
    if late:
        named = ", ".join(map(repr, late[:MAX_ALIKE]))
        message = f"{len(late)} timers are overdue ({named}): no TimerRunner delivers them"
        yield Ailment(Finding(FindingKind.PENDING, "timer.overdue", sid, message))


_LOOKS = (
    *(_head, _details, _origins, _log, _sends, _calls, _answers, _belongings, _inbox, _budgets, _folds),
    *(_projection, _blobs, _board, _timers),
)
