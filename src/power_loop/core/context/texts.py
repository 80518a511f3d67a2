"""Holds every sentence that the kernel says to a model."""

from __future__ import annotations

import json
from collections.abc import Sequence

from power_loop.contracts.json_schema import Problem
from power_loop.contracts.llm import OutputSchema
from power_loop.contracts.messages import AudioPart, ContentPart, FilePart, ImagePart, TextPart

# What of a stranger's text (an exception, a reason) and how many problems a model is shown.
MAX_QUOTED_CHARS = 2_000
MAX_PROBLEMS = 30
_MAX_NAME_CHARS = 100
_SCHEMA_MEMO = "texts.schema"

# ---- answers to calls that did not run ----

CANCELLED_CALL = "This call was cancelled before it ran. It had no effect."
TRUNCATED_CALL = (
    "This call was not run, because your reply ended before it was complete, so its arguments may be cut."
    " Make the call again if it is still needed, with shorter arguments or fewer calls in one reply."
)
CONCLUDED_CALL = "This call was not run, because no more tool calls are possible in this turn."
TOO_MANY_CALLS = "This call was not run, because the limit of tool calls for this turn is used up."
CHECK_FAILED = "the check that has to allow it failed"
MISSING_RESULT = (
    "No result of this call was recorded. It may or may not have happened: do not assume either, and check before you"
    " rely on it or repeat it."
)

# ---- what belongs behind the last message of a request ----

CONCLUDE = (
    "This is your last reply of this turn, and no more tools can be called. Answer now with what you have, and say what"
    " is unfinished."
)

# ---- where the log itself leaves a gap ----

OPENING = "(The conversation begins with your own message.)"


def content(text: str) -> tuple[ContentPart, ...]:
    """Return a sentence as the content of a message."""
    return (TextPart(text),)


def unknown_tool(reason: str) -> str:
    """Answer a call of a tool that does not exist; `reason` names close matches."""
    return f"This call was not run: {_shortened(reason)}\nUse the exact name of a tool that you were given."


def invalid_arguments(name: str, problems: Sequence[Problem]) -> str:
    """Answer a call whose arguments do not fit the tool's schema, with every problem and its place."""
    lines = _problem_lines(problems)
    return f"{name!r} was not run, because its arguments are not valid:\n{lines}\nCall it again with valid arguments."


def denied(name: str, reason: str) -> str:
    """Answer a call that a person or a rule did not allow."""
    because = f": {_shortened(reason)}" if reason.strip() else "."
    return f"{name!r} was not run, because it was not allowed{because}"


def cannot_be_asked(name: str, reason: str) -> str:
    """Answer a call that should wait for somebody, where what is asked cannot be shown to anybody."""
    return f"{name!r} cannot wait for an answer, because what it asks cannot be shown: {_shortened(reason)}"


# ---- answers to calls that did run, or may have ----


def unknown_outcome(name: str) -> str:
    """Answer a call that was interrupted where its effect may or may not have happened."""
    return (
        f"{name!r} was interrupted after it had started, and its outcome is unknown: what it does may or may not have"
        " happened. Do not assume either, and do not repeat it blindly: check first, or ask."
    )


def cancelled_wait(name: str) -> str:
    """Answer a call that was given up while somebody outside was to bring its result."""
    return (
        f"{name!r} was cancelled while its result was waited for, which is brought from outside: what it does may"
        " or may not have happened. Do not assume either: check first, or ask."
    )


def had_no_effect(name: str) -> str:
    """Answer a call that was interrupted and is known to have done nothing."""
    return f"{name!r} was interrupted before it had any effect. Call it again if it is still needed."


def cancelled_while_running(*, may_still_run: bool) -> str:
    """Answer a call that was cancelled in the middle."""
    if may_still_run:
        return "This call was cancelled while it ran, and may still be running. What it does may or may not happen."
    return "This call was cancelled while it ran. What it does may have happened in part: check before you repeat it."


def timed_out(name: str, timeout_s: float, *, may_still_run: bool) -> str:
    """Answer a call that took too long."""
    state = "It may still be running. What" if may_still_run else "It was stopped. What"
    return (
        f"{name!r} did not finish within {timeout_s:g} seconds. {state} it does may have happened in part: check before"
        " you repeat it."
    )


def never_began(name: str, timeout_s: float) -> str:
    """Answer a call whose time was over before a thread was free for it."""
    return (
        f"{name!r} was not run: no thread became free for it within {timeout_s:g} seconds. It had no effect. Call it"
        " again if it is still needed."
    )


def state_not_kept(name: str, keys: Sequence[str]) -> str:
    """Tell that a call left in the session's state what is no JSON."""
    where = ", ".join(repr(key) for key in keys)
    return (
        f"{name!r} ran, but what it left in its state under {_shortened(where)} is no JSON and cannot be kept: that"
        " change was dropped."
    )


def crashed(name: str, error: BaseException) -> str:
    """Answer a call whose handler raised: the kind and message of the exception, and no traceback."""
    try:
        message = _shortened(str(error))
    except Exception:  # a stranger's exception may not even be printable
        message = ""
    return f"{name!r} failed: {type(error).__name__}{': ' if message else ''}{message}"


# ---- structured output ----


def prompted_schema(schema: OutputSchema) -> str:
    """Ask for JSON in words, where a model does not take a schema natively."""
    known = schema.memo.get(_SCHEMA_MEMO)
    if isinstance(known, str):
        return known
    purpose = f" It is: {schema.description.strip()}" if schema.description.strip() else ""
    text = (
        "Your final answer has to be one JSON value that fits the JSON Schema below, and nothing else: no other words"
        f" and no code fence.{purpose}\n{json.dumps(schema.schema, ensure_ascii=False, separators=(',', ':'))}"
    )
    schema.memo[_SCHEMA_MEMO] = text
    return text


def repair_request(problems: Sequence[Problem]) -> str:
    """Ask again for an answer that did not fit its schema."""
    lines = _problem_lines(problems)
    return (
        f"Your answer does not fit the JSON Schema that was asked for:\n{lines}\n"
        "Answer again with the whole JSON value, mended, and nothing else."
    )


# ---- a conversation that does not fit ----


def left_out(messages: int) -> str:
    """Tell that older messages are not shown."""
    which = "The oldest message" if messages == 1 else f"The oldest {messages} messages"
    return (
        f"{which} of this conversation did not fit and cannot be seen here. Things that were said or done there may"
        " matter: do not assume that they did not happen."
    )


CUT_TO_FIT = "are left out here, because this conversation is larger than the model takes"


def medium_left_out(part: ImagePart | FilePart | AudioPart) -> str:
    """Stand in for an image, a file or a sound."""
    if isinstance(part, ImagePart):
        what = "an image"
    elif isinstance(part, AudioPart):
        what = "a sound"
    else:
        what = f"the file {part.filename[:_MAX_NAME_CHARS]!r}" if part.filename else "a file"
    size = f" of {_size(len(part.data) * 3 // 4)}" if part.data else ""
    return f"[{what}{size} was left out: with it, this conversation is larger than the model takes]"


def _size(count_bytes: int) -> str:
    if count_bytes >= 1_000_000:
        return f"{count_bytes / 1_000_000:.1f} MB"
    return f"{max(count_bytes // 1_000, 1)} kB"


def _problem_lines(problems: Sequence[Problem]) -> str:
    lines = [f"- at {problem.path}: {problem.message}" for problem in problems[:MAX_PROBLEMS]]
    if len(problems) > MAX_PROBLEMS:
        lines.append(f"- and {len(problems) - MAX_PROBLEMS} more")
    return "\n".join(lines)


def _shortened(text: str) -> str:
    text = text.strip()
    return text if len(text) <= MAX_QUOTED_CHARS else f"{text[:MAX_QUOTED_CHARS]}… ({len(text)} characters)"
