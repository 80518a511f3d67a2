"""Gives the view of a log that every provider accepts, whatever the log holds, and never touches the log."""

from __future__ import annotations

import bisect
import dataclasses
import re
from array import array
from collections.abc import Iterable, Sequence

from power_loop.contracts.frozen import frozen
from power_loop.contracts.messages import (
    AudioPart,
    ContentPart,
    FilePart,
    ImagePart,
    Message,
    OpaquePart,
    Part,
    ReasoningPart,
    RefusalPart,
    Role,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    tool_message,
    user_message,
)
from power_loop.core.context import texts
from power_loop.core.context.tokens import estimate_message
from power_loop.tools.output import NO_OUTPUT

#: What all providers take as the id of a call and as the name of its tool.
CALL_ID = re.compile(r"[a-zA-Z0-9_-]{1,40}")
TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
#: Problems of one log that are kept in words; further ones are only counted.
MAX_PROBLEMS = 100

_CONTENT = (TextPart, ImagePart, FilePart, AudioPart)
_SPOKEN = (TextPart, ReasoningPart, ToolCallPart, RefusalPart, OpaquePart)
_UNPORTABLE = re.compile(r"[^a-zA-Z0-9_-]")
# Room for the number behind a renamed call's id.
_ID_STEM_CHARS = 30
_MEMO = "transcript"
_OPENING = user_message(texts.OPENING)
# Stands in the view for a result that has not come, until somebody looks.
_HOLE = Message(Role.TOOL, ())


@frozen
class Repaired:
    """Is a valid transcript, and in words what had to be mended for it."""

    messages: tuple[Message, ...]
    problems: tuple[str, ...]


def repair(messages: Iterable[Message]) -> Repaired:
    """Return the transcript that a log amounts to: what `Transcript` gives after all of it."""
    transcript = Transcript()
    transcript.extend(messages)
    return Repaired(tuple(transcript.view()), transcript.problems)


class Transcript:
    """Turns the messages of a log, as they come, into a transcript that keeps the rules of every provider.

    - The first message is a user's.
    - Every call has an id and a tool name that providers take; the id is unique in the transcript.
    - Each call is answered exactly once, directly behind its reply, in the order of the calls. Answers move there from
      wherever the log has them; for one that is missing a stand-in says so; one too many, or to nothing, is left out.
    - No message and no text is empty, and no reply ends with a block of reasoning.

    Messages that are right are the same objects in the view. The others are made once, and kept with the message that
    they stand for, so that they too stay the same objects: wires keep what they encoded with them. An append costs
    O(1), whatever the length of the log.
    """

    __slots__ = (
        "_answerable",
        "_count",
        "_holes",
        "_id_counts",
        "_ids",
        "_last_user",
        "_more_problems",
        "_open",
        "_problems",
        "_sums",
        "_tokens",
        "_view",
    )

    def __init__(self) -> None:
        self._view: list[Message] = []
        self._count = 0
        self._tokens = 0
        # The tokens of view[:i] at i, as far as somebody wanted to know.
        self._sums = array("q", (0,))
        self._last_user = -1
        # The ids of all calls, both as the log has them and as the view has them.
        self._ids: set[str] = set()
        self._id_counts: dict[str, int] = {}
        # The unanswered calls: by their place in the view, and by the log's id, those of the newest reply last.
        self._open: dict[int, _Slot] = {}
        self._answerable: dict[str, list[list[_Slot]]] = {}
        self._holes: list[_Slot] = []
        self._problems: list[str] = []
        self._more_problems = 0

    def append(self, message: Message) -> None:
        """Take the next message of the log."""
        self._count += 1
        role = message.role
        if role is Role.USER:
            self._append_user(message)
        elif role is Role.ASSISTANT:
            self._append_reply(message)
        else:
            self._append_result(message)

    def extend(self, messages: Iterable[Message]) -> None:
        """Take the next messages of the log."""
        for message in messages:
            self.append(message)

    def view(self) -> list[Message]:
        """Return the transcript so far: always the same list, which grows; copy it to keep it."""
        for slot in self._holes:
            if slot.index in self._open:
                stand_in = slot.stand_in()
                self._view[slot.index] = stand_in
                self._tokens += estimate_message(stand_in)
        self._holes.clear()
        return self._view

    @property
    def problems(self) -> tuple[str, ...]:
        """What had to be mended, in words."""
        found = list(self._problems)
        found += (f"call {slot.call_id!r} has no result" for _, slot in sorted(self._open.items())[:MAX_PROBLEMS])
        more = self._more_problems + max(len(self._open) - MAX_PROBLEMS, 0)
        return (*found, f"and {more} more") if more else tuple(found)

    @property
    def tokens(self) -> int:
        """About how many tokens the view takes."""
        self.view()
        return self._tokens

    @property
    def last_user(self) -> int:
        """The place in the view of the last user message; -1 before the first."""
        return self._last_user

    def has_call(self, call_id: str) -> bool:
        """Tell whether a call of the log, or of the view, has this id."""
        return call_id in self._ids

    def first_behind(self, tokens: int) -> int:
        """Return the first place in the view that has at least `tokens` tokens of messages before it."""
        return bisect.bisect_left(self._all_sums(), tokens)

    def tokens_before(self, index: int) -> int:
        """Return about how many tokens the first `index` messages of the view take."""
        return self._all_sums()[index]

    def _all_sums(self) -> array[int]:
        view, sums = self.view(), self._sums
        total = sums[-1]
        for index in range(len(sums) - 1, len(view)):
            total += estimate_message(view[index])
            sums.append(total)
        return sums

    # ---- the three kinds of messages ----

    def _append_user(self, message: Message) -> None:
        parts = message.parts
        for part in parts:
            if not isinstance(part, _CONTENT) or (isinstance(part, TextPart) and _is_blank(part.text)):
                break
        else:
            if parts:
                self._last_user = len(self._view)
                self._add(message)
                return
        kept = tuple(part for part in parts if isinstance(part, _CONTENT) and not _is_blank_part(part))
        if not kept:
            self._note("is empty and is left out")
            return
        self._note("holds parts that are empty, or not a user's, which are left out")
        self._last_user = len(self._view)
        self._add(_twin(message, kept, key=("user",)))

    def _append_reply(self, message: Message) -> None:
        kept = self._spoken_parts(message)
        if not kept:
            return
        calls = [part for part in kept if isinstance(part, ToolCallPart)]
        if not self._view:
            self._note("is a reply, and nothing was said before it: an opening stands before it")
            self._last_user = 0
            self._add(_OPENING)
        if not calls:
            self._add(message if kept is message.parts else _twin(message, kept, key=("reply",)))
            return
        new_calls = [self._portable(call) for call in calls]
        if any(new is not old for new, old in zip(new_calls, calls, strict=True)):
            following = iter(new_calls)
            kept = tuple(next(following) if isinstance(part, ToolCallPart) else part for part in kept)
        key = ("reply", *(call.id for call in new_calls))
        reply = message if kept is message.parts else _twin(message, kept, key=key)
        self._add(reply)
        self._open_slots(reply, calls, new_calls)

    def _append_result(self, message: Message) -> None:
        result = message.tool_result
        if result is None or len(message.parts) != 1:
            self._note("is a tool message and not one result: it is left out")
            return
        slot = self._answered_slot(result.call_id)
        if slot is None:
            how = "again" if result.call_id in self._ids else "that nobody made"
            self._note(f"answers call {_quoted(result.call_id)} {how}: it is left out")
            return
        if slot.group_end < len(self._view):
            self._note(f"answers call {_quoted(result.call_id)} late: it moves to its call")
        content = result.content
        if not content or any(map(_is_blank_part, content)):
            content = tuple(part for part in content if not _is_blank_part(part)) or (TextPart(NO_OUTPUT),)
        if content is not result.content or slot.call_id != result.call_id:
            part = ToolResultPart(slot.call_id, content, result.is_error)
            message = _twin(message, (part,), key=("result", slot.call_id))
        before = self._view[slot.index]
        if before is not _HOLE:
            self._tokens -= estimate_message(before)
            del self._sums[slot.index + 1 :]
        self._view[slot.index] = message
        self._tokens += estimate_message(message)

    # ---- their parts ----

    def _add(self, message: Message) -> None:
        self._view.append(message)
        self._tokens += estimate_message(message)

    def _spoken_parts(self, message: Message) -> tuple[Part, ...]:
        """Return what of a reply may be sent; the same tuple if all of it may."""
        parts = message.parts
        is_right, last_word = True, -1
        for index, part in enumerate(parts):
            if not isinstance(part, _SPOKEN) or _is_blank_part(part):
                is_right = False
            elif not isinstance(part, ReasoningPart):
                last_word = index
        if last_word < 0:
            self._note("is a reply that says nothing and is left out")
            return ()
        behind = parts[last_word + 1 :]
        if is_right and not any(map(_is_block_of_reasoning, behind)):
            return parts
        self._note("is a reply with parts that are empty, or that no reply may have there, which are left out")
        return tuple(
            part
            for index, part in enumerate(parts)
            if isinstance(part, _SPOKEN)
            and not _is_blank_part(part)
            and not (index > last_word and _is_block_of_reasoning(part))
        )

    def _portable(self, call: ToolCallPart) -> ToolCallPart:
        """Return a call with an id and a name that may be sent; the same call if it has them."""
        call_id, name = call.id, call.name
        if call_id in self._ids or CALL_ID.fullmatch(call_id) is None:
            call_id = self._fresh_id(call_id)
            self._note(
                f"has a call with the id {_quoted(call.id)}, which was used or cannot be sent: it is {call_id!r}"
            )
            self._ids.add(call_id)
        self._ids.add(call.id)
        if TOOL_NAME.fullmatch(name) is None:
            name = _UNPORTABLE.sub("_", name)[:64] or "unnamed"
            self._note(f"has a call of the tool {_quoted(call.name)}, which cannot be sent: it is {name!r}")
        return call if call_id == call.id and name == call.name else ToolCallPart(call_id, name, call.arguments)

    def _fresh_id(self, call_id: str) -> str:
        stem = _UNPORTABLE.sub("_", call_id)[:_ID_STEM_CHARS] or "call"
        while True:
            count = self._id_counts.get(stem, 1) + 1
            self._id_counts[stem] = count
            fresh = f"{stem}_{count}"
            if fresh not in self._ids:
                return fresh

    def _open_slots(self, reply: Message, calls: Sequence[ToolCallPart], new_calls: Sequence[ToolCallPart]) -> None:
        view = self._view
        end = len(view) + len(calls)
        of_this_reply: dict[str, list[_Slot]] = {}
        for call, new_call in zip(calls, new_calls, strict=True):
            slot = _Slot(len(view), end, new_call.id, reply)
            view.append(_HOLE)
            self._open[slot.index] = slot
            self._holes.append(slot)
            of_this_reply.setdefault(call.id, []).append(slot)
        for call_id, slots in of_this_reply.items():
            self._answerable.setdefault(call_id, []).append(slots)

    def _answered_slot(self, call_id: str) -> _Slot | None:
        """Take and return the place of the answer to a call of this id: of the newest reply, there of the first."""
        replies = self._answerable.get(call_id)
        if replies is None:
            return None
        slots = replies[-1]
        slot = slots.pop(0)
        if not slots:
            replies.pop()
        if not replies:
            del self._answerable[call_id]
        del self._open[slot.index]
        return slot

    def _note(self, problem: str) -> None:
        if len(self._problems) < MAX_PROBLEMS:
            self._problems.append(f"message {self._count} {problem}")
        else:
            self._more_problems += 1


class _Slot:
    """Is the place of a call's answer in the view; its reply's answers end before `group_end`."""

    __slots__ = ("call_id", "group_end", "index", "reply")

    def __init__(self, index: int, group_end: int, call_id: str, reply: Message) -> None:
        self.index = index
        self.group_end = group_end
        self.call_id = call_id
        self.reply = reply

    def stand_in(self) -> Message:
        """Return what answers the call as long as nothing else does."""
        twins = _twins(self.reply)
        key = ("missing", self.call_id)
        if key not in twins:
            twins[key] = tool_message(self.call_id, texts.content(texts.MISSING_RESULT), is_error=True)
        return twins[key]


def stand_ins(message: Message) -> Iterable[Message]:
    """Return what may stand in a view for a message of the log that had to be mended."""
    twins: dict[tuple[str, ...], Message] = message.memo.get(_MEMO, {})
    return twins.values()


def _twin(message: Message, parts: tuple[Part, ...], *, key: tuple[str, ...]) -> Message:
    """Return the message with other parts; the same object each time it is asked for with this key."""
    twins = _twins(message)
    if key not in twins:
        twins[key] = dataclasses.replace(message, parts=parts, memo={})
    return twins[key]


def _twins(message: Message) -> dict[tuple[str, ...], Message]:
    twins: dict[tuple[str, ...], Message] = message.memo.setdefault(_MEMO, {})
    return twins


def _is_blank(text: str) -> bool:
    return not text or text.isspace()


def _is_blank_part(part: Part | ContentPart) -> bool:
    return isinstance(part, (TextPart, RefusalPart)) and _is_blank(part.text)


def _is_block_of_reasoning(part: Part) -> bool:
    # Reasoning that came in a field of its own has no place among the blocks.
    return isinstance(part, ReasoningPart) and part.raw is not None


def _quoted(text: str) -> str:
    return repr(text) if len(text) <= 80 else f"{text[:80]!r}…"
