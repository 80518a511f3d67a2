"""Judges a history: everything in it that breaks a promise, in words.

It knows the run without a fault, what processes wrote down outside of the database, and what the store holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from power_loop.testing.matrix.counted import ONLY_ONCE
from power_loop.testing.matrix.histories import History
from power_loop.testing.matrix.look import Seen, canonical

_OPEN = ("requested", "started")
_NO_REST = ("running",)


def judge(reference: History, history: History, *, is_same_end: bool = True) -> list[str]:
    """Return what is wrong. `is_same_end` says that the session has to end as it did without a fault."""
    troubles = [
        f"process {at} ({life.way}): {life.trouble}" for at, life in enumerate(history.lives, 1) if life.trouble
    ]
    if troubles:
        return troubles
    after = history.last.left.get("after")
    if after is None:
        return ["nobody could look at the session in the end"]
    found = [
        *_rests(history, after),
        *_keeps_what_was_told(history, after),
        *_is_whole(after),
        *_has_exact_usage(history, after),
        *_repeats_no_effect(history, after),
        *_knows_what_it_can(history, after),
        *_asks_no_more(reference, history),
        *_is_valid(history),
        *history.problems,
        *(history.last.left.get("problems") or ()),
    ]
    if history.leftovers:
        found.append(f"processes were left behind: {history.leftovers}")
    if is_same_end:
        found += _ends_the_same(reference, history, after)
    return found


def _rests(history: History, after: Seen) -> Iterator[str]:
    """No session is stuck: it rests, nobody holds it, no call is left open."""
    if history.last.error is not None:
        yield f"nobody could go on with it: {history.last.left['outcome']}"
    if after.get("owner") is not None:
        yield f"the lease is held by {after['owner']!r}, who is gone"
    for at, send in enumerate(after["sends"], 1):
        if send is None or send["status"] in _NO_REST:
            yield f"send {at} does not rest: {send}"
    if after.get("inbox"):
        yield f"inputs wait in the inbox and nobody takes them: {after['inbox']}"
    left = [call for call in after["calls"] if call["state"] in _OPEN]
    if left:
        yield f"calls are left open: {left}"


def _keeps_what_was_told(history: History, after: Seen) -> Iterator[str]:
    """What was acknowledged is there, and what was there once stays as it was."""
    logs = [life.left["before"]["log"] for life in history.recoveries if "before" in life.left]
    if not logs:
        return
    for earlier, later in zip(logs, [*logs[1:], after["log"]], strict=True):
        if later[: len(earlier)] != earlier:
            yield f"what stood in the log is not there any more: {_texts(earlier)} became {_texts(later)}"
    first = [life for life in history.lives if life.way == "begin"]
    counts = Counter(point for life in first if life.is_killed for point in life.points)
    replies = sum(entry["role"] == "assistant" for entry in logs[0])
    if counts["commit.after append_reply"] > replies:
        yield f"{counts['commit.after append_reply']} replies were stored, and the log has {replies}"
    at = history.killed_at
    if at is not None and at.name == "commit.before append_reply" and replies > counts["commit.after append_reply"]:
        yield f"it died before a commit, and the log has what that was to store: {_texts(logs[0])}"
    inputs = sum(entry["role"] == "user" for entry in logs[0])
    if counts["commit.after accept"] > inputs:
        yield f"{counts['commit.after accept']} inputs were accepted, and the log has {inputs}"


def _is_whole(after: Seen) -> Iterator[str]:
    """The log has no gaps, and every call is answered once."""
    seqs = [entry["seq"] for entry in after["log"]]
    if seqs != list(range(1, len(seqs) + 1)) or (after["exists"] and after["next_seq"] != len(seqs) + 1):
        yield f"the log has gaps: {seqs}, and the next one is {after.get('next_seq')}"
    answers = Counter(entry["answers"] for entry in after["log"] if "answers" in entry)
    asked = {call[0] for entry in after["log"] for call in entry["calls"]}
    waiting = {call["id"] for call in after["calls"] if call["state"] == "waiting"}
    if any(count > 1 for count in answers.values()) or answers.keys() != asked - waiting:
        yield f"the calls {sorted(asked)} are answered as {dict(answers)}"
    unanswered = [call["id"] for call in after["calls"] if not call["is_answered"] and call["id"] not in waiting]
    if unanswered:
        yield f"settled calls have no answer in the log: {unanswered}"
    covered = 0
    for fold in after.get("folds", ()):
        if fold["from_seq"] != covered + 1 or not covered < fold["to_seq"] <= len(seqs):
            yield f"a fold covers {fold['from_seq']} to {fold['to_seq']} behind {covered} of {len(seqs)} messages"
        covered = fold["to_seq"]


def _has_exact_usage(history: History, after: Seen) -> Iterator[str]:
    """What the session cost is the sum of what its replies and folds cost; every reply in the log was given."""
    folds = after.get("folds", ())
    given: dict[str, list[list[int]]] = {}
    for line in history.ledger:
        if line["what"] == "replied":
            given.setdefault(line["digest"], []).append(line["usage"])
    due: list[int] | None = [0] * 5
    for entry in after["log"]:
        if entry["role"] != "assistant":
            continue
        costs = given.get(entry["digest"])
        if costs is None:
            yield f"the log has a reply that no model gave: {entry['text']!r}"
        if not costs or not costs[0] or any(cost != costs[0] for cost in costs) or due is None:
            due = None
        else:
            due = [sum(pair) for pair in zip(due, costs[0], strict=True)]
    if due is not None:
        due = [sum(tokens) for tokens in zip(due, *[fold["usage"] for fold in folds], strict=True)]
    if due is not None and after.get("usage", due) != due:
        yield f"the usage is {after['usage']} and has to be {due}"
    replies = sum(entry["role"] == "assistant" for entry in after["log"])
    calls = replies + sum(fold["model_calls"] for fold in folds)
    if after.get("model_calls", calls) != calls:
        yield f"{after['model_calls']} model calls are recorded for {replies} replies and {len(folds)} folds"


def _repeats_no_effect(history: History, after: Seen) -> Iterator[str]:
    """Effects stay within their class, under the one key of their call."""
    tools = _tools(history)
    begun = Counter((line["tool"], line["key"]) for line in history.ledger if line["what"] == "begin")
    ended = Counter((line["tool"], line["key"]) for line in history.ledger if line["what"] in ("end", "raised"))
    keys: dict[tuple[str, str], set[str]] = {}
    for line in history.ledger:
        if line["what"] == "begin":
            keys.setdefault((line["tool"], line["call"]), set()).add(line["key"])
    for (name, call_id), used in keys.items():
        if len(used) > 1:
            yield f"{name} ({call_id}) ran under the keys {sorted(used)}"
    for (name, key), count in begun.items():
        told = tools.get(name, {})
        if told.get("effect") in ONLY_ONCE and not told["may_rerun"] and count > 1:
            yield f"{name} had its effect {count} times (key {key})"
    for call in after["calls"]:
        name, key = call["name"], call["key"]
        if not tools.get(name, {}).get("is_counted"):
            continue
        if call["state"] == "succeeded" and not ended[name, key] and not tools[name]["may_rerun"]:
            yield f"{name} ({call['id']}) succeeded, and it never ran to its end"
        is_lasting = call["effect"] != "read"
        if call["state"] == "aborted" and is_lasting and not call["attempt"] and begun[name, key]:
            yield f"{name} ({call['id']}) was answered as not run, and it ran"


def _knows_what_it_can(history: History, after: Seen) -> Iterator[str]:
    """A call is unknown only if it had started when its process died, and then it is told."""
    started = _started_at_deaths(history)
    for call in after["calls"]:
        if call["state"] == "unknown" and call["id"] not in started:
            yield f"{call['name']} ({call['id']}) is unknown, and it had not started at any death: {sorted(started)}"


def _asks_no_more(reference: History, history: History) -> Iterator[str]:
    """A model is paid for the calls of the run without a fault, and for one more a fault at most: a reply, or a fold,
    which is begun again as a whole."""
    asked = sum(line["what"] == "asked" for line in history.ledger)
    due = sum(line["what"] == "asked" for line in reference.ledger)
    folds = reference.last.left["after"].get("folds", ())
    again = max((fold["model_calls"] for fold in folds), default=1)
    if asked > due + history.faults * max(again, 1):
        yield f"the model was asked {asked} times; without a fault it was asked {due} times, and {history.faults} came"


def _is_valid(history: History) -> Iterator[str]:
    """Every request is one that every provider takes."""
    for number, line in enumerate(history.ledger):
        for problem in line.get("problems") or () if line["what"] == "asked" else ():
            yield f"request {number} would be refused: {problem}"
        if line["what"] == "problem":
            yield str(line["problem"])


def _ends_the_same(reference: History, history: History, after: Seen) -> Iterator[str]:
    tools, started = _tools(history), _started_at_deaths(history)
    # What became of a call that a dead process had started is told honestly, and so otherwise than without a death.
    hidden = frozenset(
        call["id"]
        for call in after["calls"]
        if call["state"] == "unknown" or (call["id"] in started and tools.get(call["name"], {}).get("may_rerun"))
    )
    expected: Seen = reference.last.left["after"]
    # Ids may differ between two runs; places do not.
    at = [place for place, call in enumerate(after["calls"]) if call["id"] in hidden]
    there = frozenset(call["id"] for place, call in enumerate(expected["calls"]) if place in at)
    ours, theirs = canonical(after, hide=hidden), canonical(expected, hide=there)
    for part, value in theirs.items():
        if ours[part] != value:
            yield f"{part}: {ours[part]}\n      and has to be {value}"
    told, due = history.last.left.get("outcome"), reference.last.left.get("outcome")
    if not hidden and history.last.error is None and told != due:
        yield f"the scenario gave {told} and has to give {due}"


def _started_at_deaths(history: History) -> set[str]:
    """Return the calls of which a process that went on could not know what became of them."""
    return {
        call["id"]
        for life in history.recoveries
        for call in life.left.get("before", {"calls": []})["calls"]
        if call["state"] in ("started", "unknown")
    }


def _tools(history: History) -> dict[str, dict[str, Any]]:
    for life in reversed(history.lives):
        if "tools" in life.left:
            tools: dict[str, dict[str, Any]] = life.left["tools"]
            return tools
    return {}


def _texts(log: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(entry["role"], entry["text"]) for entry in log]
