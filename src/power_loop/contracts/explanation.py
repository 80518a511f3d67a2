"""Says what a model call was sent: the segments of its prompt, and which of them broke the prefix."""

from __future__ import annotations

from enum import Enum

from power_loop.contracts.frozen import frozen
from power_loop.contracts.llm import Usage


class SegmentKind(str, Enum):
    """Is what a segment of a prompt holds. They stand in this order, but for `left_out`, which tells of a gap."""

    TOOLS = "tools"
    SYSTEM = "system"
    FOLD = "fold"  # a summary that stands for the log up to `to_seq`
    PINNED = "pinned"  # what a fold covers and shows all the same
    PROJECTED = "projected"  # finished sends as plain text
    MESSAGES = "messages"  # a range of the log as it is
    LEFT_OUT = "left_out"  # a range of the log that did not fit
    NOTICE = "notice"  # what the kernel says of this call alone
    MEMORY = "memory"
    NOTES = "notes"
    TODO = "todo"
    LIVE = "live"  # other live state, called by its name
    CHANGED = "changed"  # by how much the request is not what the others say: a hook or a need of room changed it


#: Stand behind the messages and change from call to call: what a provider keeps of a prompt ends before them.
TAIL_KINDS = frozenset({SegmentKind.NOTICE, SegmentKind.MEMORY, SegmentKind.NOTES, SegmentKind.TODO, SegmentKind.LIVE})


@frozen
class Segment:
    """Is one segment of a prompt. `tokens` is an estimate; `from_seq` and `to_seq` say which part of the log it stands
    for; `digest` is the same for the same content, where it is no range of the log; `name` says what it is called,
    where its kind does not say it all."""

    kind: SegmentKind
    tokens: int
    from_seq: int | None = None
    to_seq: int | None = None
    digest: str | None = None
    name: str | None = None

    def __str__(self) -> str:
        range_text = "" if self.from_seq is None else f"{self.from_seq}-{self.to_seq}"
        return " ".join(one for one in (self.kind.value, self.name, range_text) if one)


@frozen
class CallExplanation:
    """Is what one model call was sent; `print` shows it as a table.

    `call` is the seq of its reply. `segments` stand in the order of the prompt, `estimated_tokens` is about their sum
    (None where no provider was asked), and `usage` what the provider counted. There are no segments of a call that a
    hook answered, or that an earlier version made.

    `previous_call` is the call before, None for the first. Compared with that, `shared_tokens` estimates how much of
    the prompt's start is the same, and so may come from a provider's cache; `broken_by` is the first segment that is
    not, and `reason` says in words why. Where the prompt only grew both are None. Where the prompts cannot be compared,
    or another model was asked, there is a reason only.
    """

    session_id: str
    call: int
    send_index: int
    round: int
    model: str
    segments: tuple[Segment, ...]
    estimated_tokens: int | None
    usage: Usage | None
    previous_call: int | None = None
    shared_tokens: int = 0
    broken_by: Segment | None = None
    reason: str | None = None

    def __str__(self) -> str:
        head = f"call {self.call} of session {self.session_id!r} (send {self.send_index}, round {self.round})"
        lines = [f"{head}, {self.model}", *self._counts()]
        lines += [f"  {one!s:<28} {one.tokens:>9,}" for one in self.segments] or ["  (its segments are not known)"]
        if self.previous_call is not None:
            lines.append(f"shares about {self.shared_tokens:,} tokens with call {self.previous_call}")
        if self.reason is not None:
            what = "not compared" if self.broken_by is None else f"broken by {self.broken_by}"
            lines.append(f"{what}: {self.reason}")
        return "\n".join(lines)

    def _counts(self) -> list[str]:
        counts = [] if self.estimated_tokens is None else [f"about {self.estimated_tokens:,} tokens"]
        if self.usage is not None and not self.usage.is_estimated:
            usage = self.usage
            counts.append(f"{usage.input_tokens:,} by the provider, {usage.cached_input_tokens:,} of them cached")
        return ["; ".join(counts)] if counts else []
