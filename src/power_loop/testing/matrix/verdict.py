"""Judges a history: everything in it that breaks a promise, in words.

It knows the run without a fault, what processes wrote down outside of the database, and what the store holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from power_loop.testing.matrix.counted import ONLY_ONCE
from power_loop.testing.matrix.histories import History
from power_loop.testing.matrix.look import Hidden, Seen, by_place, canonical, speechless, steps_of, work_of

_OPEN = ("requested", "started")
_NO_REST = ("running",)
_UNSETTLED = ("started", "waiting")


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
    found = []
    if history.last.error is not None:
        found.append(f"nobody could go on with it: {history.last.left['outcome']}")
    silent = speechless(after)
    for place, seen in by_place(after).items():
        found += _under(place, _of_one(history, seen, speaks=seen["id"] not in silent))
    found += [
        *_keeps_what_was_told(history, after),
        *_runs_each_effect_as_allowed(history),
        *_pays_for_what_is_lost(history, after),
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


def _under(place: str, problems: Iterable[str]) -> Iterator[str]:
    """Say of which session below the one that was begun something is told."""
    for problem in problems:
        yield f"{place[1:]}: {problem}" if place else problem


def _of_one(history: History, seen: Seen, *, speaks: bool) -> Iterator[str]:
    """What holds for every session, the one that was begun and those below it; in most of them a model `speaks`."""
    yield from _rests(seen)
    yield from _is_whole(seen)
    yield from _settles_its_steps(seen)
    yield from _has_exact_usage(history, seen, speaks=speaks)
    yield from _pays_exactly(seen)
    yield from _has_one_session_a_call(seen)
    yield from _says_what_ran(history, seen)
    yield from _knows_what_it_can(history, seen)


def _rests(after: Seen) -> Iterator[str]:
    """No session is stuck: it rests, nobody holds it, no call is left open."""
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
    looks = [life.left["before"] for life in history.recoveries if "before" in life.left]
    trees = [_logs(look) for look in looks]
    if not trees:
        return
    yield from _keeps_its_steps(looks, after)
    for earlier_tree, later_tree in zip(trees, [*trees[1:], _logs(after)], strict=True):
        for session_id, earlier in earlier_tree.items():
            later = later_tree.get(session_id, [])
            if later[: len(earlier)] != earlier:
                yield f"what stood in the log is not there any more: {_texts(earlier)} became {_texts(later)}"
    logged = [entry for log in trees[0].values() for entry in log]
    # The last word of a workflow is nobody's reply.
    runs = {seen["id"] for seen in by_place(looks[0]).values() if seen.get("run")}
    of_runs = sum(entry["role"] == "assistant" for id_ in runs for entry in trees[0][id_])
    first = [life for life in history.lives if life.way == "begin"]
    counts = Counter(point for life in first if life.is_killed for point in life.points)
    replies = sum(entry["role"] == "assistant" for entry in logged) - of_runs
    if counts["commit.after append_reply"] > replies:
        yield f"{counts['commit.after append_reply']} replies were stored, and the log has {replies}"
    at = history.killed_at
    # Another session's commit may have come without its process hearing of it.
    if at is not None and at.name == "commit.before append_reply" and replies >= counts[at.name]:
        yield f"it died before a commit, and the log has what that was to store: {_texts(logged)}"
    inputs = sum(entry["role"] == "user" for entry in logged)
    if counts["commit.after accept"] > inputs:
        yield f"{counts['commit.after accept']} inputs were accepted, and the log has {inputs}"


def _settles_its_steps(after: Seen) -> Iterator[str]:
    """A run that has ended has no step that somebody would have to go on with, and each one that ended did so once."""
    run = after.get("run")
    if run is None:
        return
    left = [step["path"] for step in run["steps"] if step["state"] in _UNSETTLED]
    if left and run["state"] not in ("running", "waiting"):
        yield f"the run ended as {run['state']!r}, and steps are left: {left}"
    numbers = sorted(step["nth"] for step in run["steps"] if step["nth"] is not None)
    if len(set(numbers)) < len(numbers):
        yield f"steps ended at the same place of their run: {numbers}"


def _keeps_its_steps(looks: Sequence[Seen], after: Seen) -> Iterator[str]:
    """What a step came to once, it stays at: what was done is not done again."""
    for before, later in pairwise([*looks, after]):
        runs = {seen["id"]: seen["run"] for seen in by_place(later).values() if seen.get("run")}
        for seen in by_place(before).values():
            for step in (seen.get("run") or {}).get("steps", ()) if seen["id"] in runs else ():
                if step["state"] not in ("completed", "cancelled"):
                    continue
                now = [one for one in runs[seen["id"]]["steps"] if one["path"] == step["path"]]
                if now != [step]:
                    yield f"the step {step['path']} had settled as {step}, and became {now}"


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


def _has_exact_usage(history: History, after: Seen, *, speaks: bool) -> Iterator[str]:
    """What the session cost is the sum of what its replies and folds cost; every reply in the log was given."""
    folds = after.get("folds", ())
    given: dict[str, list[list[int]]] = {}
    for line in history.ledger:
        if line["what"] == "replied":
            given.setdefault(line["digest"], []).append(line["usage"])
    due: list[int] | None = [0] * 5
    for entry in after["log"] if speaks else ():
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
    if not after.get("run") and after.get("model_calls", calls) != calls:
        yield f"{after['model_calls']} model calls are recorded for {replies} replies and {len(folds)} folds"

    below = [sum(tokens) for tokens in zip([0] * 5, *_usages_below(after), strict=True)]
    if after.get("usage_below", below) != below:
        yield f"the usage of what stands below it is {after['usage_below']} and has to be {below}"


def _usages_below(after: Seen) -> list[list[int]]:
    return [seen["usage"] for place, seen in by_place(after).items() if place]


def _pays_exactly(after: Seen) -> Iterator[str]:
    """The budget of a send at rest paid for what the logs have and for what was lost, and nothing is held of it."""
    for at, send in enumerate(after["sends"], 1):
        budget = send and send["budget"]
        if not budget or send["status"] in _NO_REST:
            continue
        if budget["spent"] != [due + lost for due, lost in zip(budget["due"], budget["lost"], strict=True)]:
            yield f"send {at} is paid for with {budget['spent']}, has {budget['due']} and lost {budget['lost']}"
        if any(budget["reserved"]):
            yield f"send {at} rests, and {budget['reserved']} is held of its budget"


def _pays_for_what_is_lost(history: History, after: Seen) -> Iterator[str]:
    """A reply that was given and that nobody has is paid for, where a budget pays for all that is asked."""
    budgets = [send and send["budget"] for send in after["sends"]]
    if not history.faults or not budgets or not all(budgets):
        return
    silent = speechless(after)
    sessions = [seen for seen in by_place(after).values() if seen["id"] not in silent]
    kept = sum(entry["role"] == "assistant" for seen in sessions for entry in seen["log"])
    kept += sum(fold["model_calls"] for seen in sessions for fold in seen.get("folds", ()))
    given = sum(line["what"] == "replied" for line in history.ledger)
    if given > kept and not any(budget["lost"][0] for budget in budgets if budget):
        yield f"{given} replies were given and {kept} are kept, and no budget paid for one that was lost"


def _has_one_session_a_call(after: Seen) -> Iterator[str]:
    """A call has one session for its work, however often it runs."""
    made = Counter(work_of(seen) for seen in after["below"])
    for key, count in made.items():
        if key is not None and count > 1:
            yield f"{count} sessions below it were made for one call (key {key})"
    has_done_all = all(send is not None and send["status"] == "completed" for send in after["sends"]) and all(
        call["state"] == "succeeded" for call in after["calls"]
    )
    if made[None] and has_done_all:
        yield f"{made[None]} sessions below it were made and given no work, and all of its calls succeeded"


def _runs_each_effect_as_allowed(history: History) -> Iterator[str]:
    """Effects stay within their class, under the one key of their call."""
    tools = _tools(history)
    begun = Counter((line["tool"], line["key"]) for line in history.ledger if line["what"] == "begin")
    keys: dict[tuple[str, str, str], set[str]] = {}
    for line in history.ledger:
        if line["what"] == "begin":
            keys.setdefault((line["tool"], line["session"], line["call"]), set()).add(line["key"])
    for (name, _, call_id), used in keys.items():
        if len(used) > 1:
            yield f"{name} ({call_id}) ran under the keys {sorted(used)}"
    for (name, key), count in begun.items():
        told = tools.get(name, {})
        if told.get("effect") in ONLY_ONCE and not told["may_rerun"] and count > 1:
            yield f"{name} had its effect {count} times (key {key})"


def _says_what_ran(history: History, after: Seen) -> Iterator[str]:
    """What is told of a call agrees with what its tool did."""
    tools = _tools(history)
    begun = Counter((line["tool"], line["key"]) for line in history.ledger if line["what"] == "begin")
    ended = Counter((line["tool"], line["key"]) for line in history.ledger if line["what"] in ("end", "raised"))
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
    started = _started_at_deaths(history, after["id"])
    for call in after["calls"]:
        if call["state"] == "unknown" and call["id"] not in started:
            yield f"{call['name']} ({call['id']}) is unknown, and it had not started at any death: {sorted(started)}"


def _asks_no_more(reference: History, history: History) -> Iterator[str]:
    """A model is paid for the calls of the run without a fault, and for one more a fault at most of each session that
    may ask at the same time: a reply, or a fold, which is begun again as a whole."""
    asked = sum(line["what"] == "asked" for line in history.ledger)
    due = sum(line["what"] == "asked" for line in reference.ledger)
    sessions = by_place(reference.last.left["after"]).values()
    again = max((fold["model_calls"] for seen in sessions for fold in seen.get("folds", ())), default=1)
    # Whoever waits for a session below asks nothing.
    at_once = sum(not seen["below"] for seen in sessions)
    if asked > due + history.faults * max(again, 1) * at_once:
        yield f"the model was asked {asked} times; without a fault it was asked {due} times, and {history.faults} came"


def _is_valid(history: History) -> Iterator[str]:
    """Every request is one that every provider takes."""
    for number, line in enumerate(history.ledger):
        for problem in line.get("problems") or () if line["what"] == "asked" else ():
            yield f"request {number} would be refused: {problem}"
        if line["what"] == "problem":
            yield str(line["problem"])


def _ends_the_same(reference: History, history: History, after: Seen) -> Iterator[str]:
    ours, theirs = by_place(after), by_place(reference.last.left["after"])
    hidden = _hidden(history, ours)
    # A workflow may take another way behind a step of which nobody knows what it did.
    if ours.keys() != theirs.keys() and not any(one.steps for one in hidden.values()):
        yield f"the sessions are {[place[1:] for place in ours]} and have to be {[place[1:] for place in theirs]}"
        return
    for place, seen in ours.items():
        if place in theirs:
            yield from _under(place, _is_as(theirs[place], seen, hidden[place], is_below=bool(place)))
    told, due = history.last.left.get("outcome"), reference.last.left.get("outcome")
    if not any(map(_is_other, hidden.values())) and history.last.error is None and told != due:
        yield f"the scenario gave {told} and has to give {due}"


def _is_as(expected: Seen, seen: Seen, hidden: Hidden, *, is_below: bool) -> Iterator[str]:
    # Ids may differ between two runs; places do not.
    at = [place for place, call in enumerate(seen["calls"]) if call["id"] in hidden.calls]
    there = frozenset(call["id"] for place, call in enumerate(expected["calls"]) if place in at)
    ours = canonical(seen, hidden, is_below=is_below)
    theirs = canonical(expected, hidden._replace(calls=there), is_below=is_below)
    for part, value in theirs.items():
        if ours[part] != value:
            yield f"{part}: {ours[part]}\n      and has to be {value}"


def _hidden(history: History, sessions: dict[str, Seen]) -> dict[str, Hidden]:
    """Return by place what may be otherwise than without a death.

    What became of a call that a dead process had started is told honestly, and so is what a session below came to that
    heard of it, and what a workflow made of that.
    """
    tools, found = _tools(history), dict[str, Hidden]()
    places = {seen["id"]: place for place, seen in sessions.items()}
    # Those below come first.
    for place, seen in reversed(sessions.items()):
        started = _started_at_deaths(history, seen["id"])
        below = [one for one in seen["below"] if _is_other(found[places[one["id"]]])]
        told = {work_of(one) for one in below}
        calls = frozenset(
            call["id"]
            for call in seen["calls"]
            if call["state"] == "unknown"
            or (call["id"] in started and tools.get(call["name"], {}).get("may_rerun"))
            or call["key"] in told
        )
        found[place] = Hidden(calls, steps_of(seen, [one["id"] for one in below]))
    for place, seen in sessions.items():
        for one in seen["below"] if found[place].steps else ():
            found[places[one["id"]]] = found[places[one["id"]]]._replace(inputs=True)
    return found


def _is_other(hidden: Hidden) -> bool:
    return bool(hidden.calls or hidden.steps)


def _started_at_deaths(history: History, session_id: str) -> set[str]:
    """Return the calls of a session of which a process that went on could not know what became of them."""
    return {
        call["id"]
        for life in history.recoveries
        if "before" in life.left
        for seen in by_place(life.left["before"]).values()
        if seen["id"] == session_id
        for call in seen["calls"]
        if call["state"] in ("started", "unknown")
    }


def _logs(seen: Seen) -> dict[str, list[dict[str, Any]]]:
    return {one["id"]: one["log"] for one in by_place(seen).values()}


def _tools(history: History) -> dict[str, dict[str, Any]]:
    for life in reversed(history.lives):
        if "tools" in life.left:
            tools: dict[str, dict[str, Any]] = life.left["tools"]
            return tools
    return {}


def _texts(log: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(entry["role"], entry["text"]) for entry in log]
