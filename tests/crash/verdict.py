"""Judges what is left after a kill: an independent account of what has to stand in the log, and what may have happened.

The account knows the story and what the database held when the process died, and no line of the kernel but the texts
that it says to a model.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from power_loop import Give
from power_loop.core.context import texts
from tests.crash.facts import Facts, is_sound, log_of
from tests.crash.harness import Scene
from tests.crash.stories import (
    EFFECTS,
    FOLLOW_UP,
    FOLLOW_UP_ANSWER,
    SESSION,
    Call,
    Report,
    Say,
    Story,
    report,
    result_text,
    tokens_of_reply,
)
from tests.model_server import check_anthropic_request, check_openai_request

Log = list[tuple[Any, ...]]

_CHECKS = {"openai": check_openai_request, "anthropic": check_anthropic_request}
_OPEN = ("requested", "started", "waiting")
_AT_REST = ("completed", "cancelled", "aborted", "interrupted")
REPAIR = ("user", "(what is wrong with it)")


@dataclass(frozen=True)
class Expected:
    """Is how a session has to look: its log, and the status of the story's send (None where it was never stored)."""

    log: Log
    status: str | None


# ---- what has to be ----


def carried_out(story: Story, dead: Facts) -> Expected:
    """Return what has to be there once the story was carried out by other processes than the one that died."""
    log = plain(log_of(dead))
    send = send_of(story, dead)
    if send is not None and send["status"] in _AT_REST:
        return Expected(in_order(log), send["status"])
    if send is None:
        log.append(("user", story.text))
    begin = log.index(("user", story.text)) + 1
    calls = {row["call_id"]: row for row in dead["tool_calls"]}
    while True:
        reply = next((entry for entry in reversed(log[begin:]) if entry[0] == "assistant"), None)
        if reply is not None:
            given = {entry[1] for entry in log[begin:] if entry[0] == "tool"}
            missing = [call for call in reply[2] if call[0] not in given]
            log += [_result(story, call, calls) for call in missing]
            if any(name == "stick" and not _is_started(calls.get(id_)) for id_, name, _ in missing):
                return Expected(in_order(log), "cancelled")
        done = sum(entry[0] == "assistant" for entry in log[begin:])
        if done == len(story.replies):
            return Expected(in_order(log), "completed")
        if story.output_schema is not None and done and log[-1] != REPAIR:
            log.append(REPAIR)
        log.append(_reply(story, log, begin=begin, step=done))


def left_alone(story: Story, dead: Facts) -> Expected:
    """Return what has to be there once the open calls of the story were settled and nothing of it went on."""
    log = plain(log_of(dead))
    send = send_of(story, dead)
    if send is None:
        return Expected(in_order(log), None)
    rows = open_calls(dead)
    for row in rows:
        text = texts.unknown_outcome(row["name"]) if row["state"] == "started" else texts.CANCELLED_CALL
        if row["state"] == "waiting" and row["attempt"]:
            text = texts.had_no_effect(row["name"])  # `colour` ran, and is a read
        log.append(("tool", row["call_id"], text, True))
    status = send["status"]
    if status in ("running", "waiting_for_input"):
        status = "aborted" if rows else "interrupted"
    return Expected(in_order(log), status)


def with_follow_up(expected: Expected) -> Expected:
    """Return the same with one more exchange behind it."""
    return Expected([*expected.log, ("user", FOLLOW_UP), ("assistant", FOLLOW_UP_ANSWER, ())], expected.status)


def _reply(story: Story, log: Log, *, begin: int, step: int) -> tuple[Any, ...]:
    reply = story.replies[step]
    if isinstance(reply, Say):
        return ("assistant", reply.text, ())
    if isinstance(reply, Report):
        return ("assistant", report([entry[2] for entry in in_order(log[begin:]) if entry[0] == "tool"]), ())
    assert isinstance(reply, Call)
    return ("assistant", "", tuple((f"call_{len(log)}_{id_}", name, {"id": id_}) for name, id_ in reply.wanted))


def _result(story: Story, call: tuple[Any, ...], calls: dict[str, Any]) -> tuple[Any, ...]:
    call_id, name, arguments = call
    if EFFECTS[name] == "once" and _is_started(calls.get(call_id)):
        return ("tool", call_id, texts.unknown_outcome(name), True)
    if name == "stick":
        return ("tool", call_id, texts.cancelled_while_running(may_still_run=False), True)
    answer = story.answers.get(name)
    if isinstance(answer, Give):
        return ("tool", call_id, answer.result, False)
    return ("tool", call_id, result_text(name, arguments["id"]), False)


def _is_started(row: dict[str, Any] | None) -> bool:
    return row is not None and row["state"] == "started"


# ---- how a log is compared ----


def plain(log: Log) -> Log:
    """Return a log with the kernel's own words to the model, which no story knows, replaced by one mark."""
    return [
        REPAIR if entry[0] == "user" and entry[1].startswith("Your answer does not fit") else entry for entry in log
    ]


def in_order(log: Log) -> Log:
    """Return a log with results in the order of their calls: the log has them in the order in which they came."""
    ordered: Log = []
    place: dict[str, int] = {}
    for entry in log:
        if entry[0] == "assistant":
            place = {call[0]: at for at, call in enumerate(entry[2])}
        ordered.append(entry)
        at = len(ordered) - 1
        while entry[0] == "tool" and ordered[at - 1][0] == "tool" and place[ordered[at - 1][1]] > place[entry[1]]:
            ordered[at], ordered[at - 1] = ordered[at - 1], ordered[at]
            at -= 1
    return ordered


def send_of(story: Story, facts: Facts) -> dict[str, Any] | None:
    """Return the row of the story's send."""
    return next((row for row in facts["sends"] if row["request_id"] == story.name), None)


def open_calls(facts: Facts) -> list[dict[str, Any]]:
    """Return the rows of calls that are open."""
    return [row for row in facts["tool_calls"] if row["state"] in _OPEN]


# ---- the judgement ----


def judge(story: Story, dead: Facts, scene: Scene, expected: Expected, *, death: str = "") -> None:
    """Fail, with everything that is wrong in a scene whose process was killed and whose session others went on with."""
    found = list(_problems(story, dead, scene, expected))
    if found:
        raise AssertionError("\n".join([f"{story.name}: {death or 'without a kill'}", *found]))


def _problems(story: Story, dead: Facts, scene: Scene, expected: Expected) -> Iterator[str]:
    facts = scene.facts()
    if not is_sound(scene.folder / "look" / "app.db"):
        yield "the database file is damaged"
    log = plain(log_of(facts))
    if log[: len(log_of(dead))] != plain(log_of(dead)):
        yield f"what was in the log when the process died is not there any more: {log_of(dead)} became {log}"
    if in_order(log) != expected.log:
        yield f"the log is\n{_listed(in_order(log))}\nand has to be\n{_listed(expected.log)}"
    yield from _problems_of_rows(story, facts, expected)
    yield from _problems_of_usage(story, facts)
    yield from _problems_of_budget(story, facts)
    yield from _problems_of_context(story, facts, expected)
    yield from _problems_of_effects(scene, dead, facts)
    yield from problems_of_requests(scene)


def _problems_of_rows(story: Story, facts: Facts, expected: Expected) -> Iterator[str]:
    session = next(row for row in facts["sessions"] if row["id"] == SESSION)
    messages = [row for row in facts["messages"] if row["session_id"] == SESSION]
    if session["owner"]:
        yield "the lease is held by nobody who lives"
    if [row["seq"] for row in messages] != list(range(1, session["next_seq"])):
        yield f"the log has gaps: {[row['seq'] for row in messages]}, next {session['next_seq']}"
    sends = [row for row in facts["sends"] if row["session_id"] == SESSION]
    if [row["idx"] for row in sends] != list(range(1, session["send_count"] + 1)):
        yield f"the sends have gaps: {sends}"
    send = send_of(story, facts)
    if (send and send["status"]) != expected.status:
        yield f"the send stands at {send and send['status']!r} and has to stand at {expected.status!r}"
    if left := open_calls(facts):
        yield f"calls are left open: {left}"
    answered = {row["call_id"] for row in facts["tool_calls"] if row["result_seq"] is not None}
    if len(answered) != len(facts["tool_calls"]):
        yield f"settled calls have no answer in the log: {facts['tool_calls']}"


def _problems_of_context(story: Story, facts: Facts, expected: Expected) -> Iterator[str]:
    """What is folded is folded once, by whichever process; what is at rest has its projection, and nothing else has."""
    folds = [(row["from_seq"], row["to_seq"]) for row in facts["folds"]]
    is_due = story.is_folded and expected.status == "completed"
    if len(folds) > story.is_folded or (is_due and not folds):
        yield f"the folds are {folds}"
    projected = [row["seq"] for row in facts["project_messages"]]
    is_due = story.is_projected and expected.status == "completed"
    if len(set(projected)) < len(projected) or (projected and not story.is_projected) or (is_due and not projected):
        yield f"the projections are {projected}"


def _problems_of_usage(story: Story, facts: Facts) -> Iterator[str]:
    """Every reply in the log is paid for once, with what the model said that it cost."""
    if story.is_projected:
        # The model is shown other messages than stand in the log, and is paid for what it is shown.
        told = [row["reply_seq"] for row in facts["model_calls"]]
        due = [row["seq"] for row in facts["messages"] if row["session_id"] == SESSION and row["role"] == "assistant"]
        if told != due:
            yield f"the replies paid for are {told} and have to be {due}"
        return
    replies = [row["seq"] for row in facts["messages"] if row["session_id"] == SESSION and row["role"] == "assistant"]
    paid = [(row["reply_seq"], row["input_tokens"], row["output_tokens"]) for row in facts["model_calls"]]
    due = [(seq, *tokens_of_reply(seq - 1)) for seq in replies]
    if paid != due:
        yield f"the model calls are {paid} and have to be {due}"


def _problems_of_budget(story: Story, facts: Facts) -> Iterator[str]:
    """A budget has paid for every reply and call of its send and for what was lost, and nothing of it is held."""
    if facts["budget_holds"]:
        yield f"something is held of budgets: {facts['budget_holds']}"
    send, budgets = send_of(story, facts), facts["budgets"]
    if len(budgets) != (story.is_budgeted and send is not None):
        yield f"the budgets are {budgets}"
    for budget in budgets:
        index = budget["send_index"]
        replies = [row for row in facts["model_calls"] if row["send_index"] == index]
        tokens = sum(row["input_tokens"] + row["output_tokens"] for row in replies)
        calls = len([row for row in facts["tool_calls"] if row["send_index"] == index])
        paid = (budget["spent_tokens"] - budget["lost_tokens"], budget["spent_tool_calls"])
        if paid != (tokens, calls):
            yield f"the budget paid for {paid} tokens and calls, and its send has {(tokens, calls)}: {budget}"
        attempts = 0 if send is None else send["attempts"]
        if (budget["lost_tokens"] > 0) > (attempts > 1 or send is None or send["status"] in _GIVEN_UP):
            yield f"the budget lost something with no process: {budget}"


_GIVEN_UP = ("aborted", "interrupted", "cancelled")


def _problems_of_effects(scene: Scene, dead: Facts, facts: Facts) -> Iterator[str]:
    """Yield what is wrong in the world outside: doubled effects, other keys, results without an effect."""
    effects = Counter(line["label"] for line in scene.effects() if line["what"] == "effect")
    keys: dict[str, set[str]] = {}
    for line in scene.effects():
        keys.setdefault(line["label"], set()).add(line["key"])
    may_be_unknown = {row["call_id"] for row in dead["tool_calls"] if row["state"] in ("started", "unknown")}
    for row in facts["tool_calls"]:
        name, state = row["name"], row["state"]
        label = f"{name}:{json.loads(row['arguments'])['id']}"
        count = effects[label]
        if len(keys.get(label, ())) > 1 or keys.get(label, {row["idempotency_key"]}) != {row["idempotency_key"]}:
            yield f"{label} ran under the keys {keys[label]}, its row has {row['idempotency_key']!r}"
        if EFFECTS[name] == "once" and count > 1:
            yield f"{label} had its effect {count} times"
        if state == "succeeded" and name != "colour" and not count:
            yield f"{label} succeeded without its effect"
        if state == "aborted" and count and not row["attempt"] and EFFECTS[name] != "read":
            yield f"{label} was answered as not run and had its effect"
        if (state == "unknown") != (row["call_id"] in may_be_unknown and state != "succeeded"):
            yield f"{label} is {state!r}, and at the death these were started or unknown: {may_be_unknown}"


def problems_of_requests(scene: Scene) -> Iterator[str]:
    """Yield what providers would refuse in the requests that all processes of a scene made."""
    for number, (wire, body) in enumerate(scene.requests()):
        for problem in _CHECKS[wire](body):
            yield f"request {number} is refused by {wire}: {problem}"


def _listed(log: Log) -> str:
    return "\n".join(f"    {entry}" for entry in log)
