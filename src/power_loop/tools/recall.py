"""Gives originals back to a model that is shown a summary or a short form in their place."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from power_loop.contracts.errors import ToolError
from power_loop.contracts.records import MessageRecord
from power_loop.contracts.states import Effect
from power_loop.contracts.tools import SessionLog, ToolContext, ToolDefinition
from power_loop.tools.plain_text import message_text, speaker

RECALL_COMPACTED = "recall_compacted"
RECALL_SEND = "recall_send"

#: About how much one call brings; a page ends at a message where that leaves it at least half full.
MAX_PAGE_CHARS = 8_000
#: What a search brings: so many messages, of each so much around what was found.
MAX_HITS = 20
MAX_HIT_CHARS = 600
#: How often one call goes on with a search that has found nothing; each time looks at a bounded part of the log.
MAX_SEARCHES = 5
MAX_QUERY_CHARS = 500
#: More turns than any conversation has, and a number that every database holds.
MAX_SEND_INDEX = 1_000_000_000

# Messages that are read at a time.
_READ = 20
_CURSOR = re.compile(r"(\d{1,18}):(\d{1,12})")

_Read = Callable[[int], Awaitable[tuple[MessageRecord, ...]]]


async def recall_compacted(
    context: ToolContext,
    query: str | None = None,
    from_seq: int | None = None,
    to_seq: int | None = None,
    cursor: str | None = None,
) -> str:
    """Return a page of the messages that a summary stands for: those of a range, or what a search finds in it."""
    log = context.log
    folded = log.folded_to_seq
    if not folded:
        raise ToolError("Nothing of this conversation was summarised: all of it is shown to you.")
    first, last = 1 if from_seq is None else from_seq, folded if to_seq is None else min(to_seq, folded)
    if first > folded:
        raise ToolError(f"The summary stands for messages 1 to {folded}; what comes behind them is shown to you.")
    if first > last:
        raise ToolError(f"There is no message from {first} to {last}: give from_seq <= to_seq, of 1 to {folded}.")
    place = _Place.of(cursor, first)
    if query is not None and query.strip():
        return await _search(log, query[:MAX_QUERY_CHARS].split(), place, last)

    async def read(after_seq: int) -> tuple[MessageRecord, ...]:
        found = await log.read(after_seq=after_seq, limit=_READ)
        return tuple([record for record in found if record.seq <= last])

    page = await _page(read, place)
    if not page.text:
        raise ToolError(
            f"Messages {place.seq} to {last} are not stored any more: what the summary says of them is all there is."
        )
    return page.told(f"Messages of this conversation as they were, from {place.seq} on (1 to {folded} are summarised)")


async def recall_send(context: ToolContext, send_index: int, cursor: str | None = None) -> str:
    """Return a page of the messages of one turn as they were."""
    log = context.log
    place = _Place.of(cursor, 0)

    async def read(after_seq: int) -> tuple[MessageRecord, ...]:
        return await log.read_send(send_index, after_seq=after_seq, limit=_READ)

    page = await _page(read, place)
    if not page.text:
        behind = " behind that" if place.seq else ""
        raise ToolError(
            f"There is no turn {send_index} of this conversation{behind}, or its messages are not stored any more."
        )
    return page.told(f"Turn {send_index} as it was")


class _Place:
    """Is where a page begins: a message, and how much of its text came before."""

    __slots__ = ("offset", "seq")

    def __init__(self, seq: int, offset: int) -> None:
        self.seq = seq
        self.offset = offset

    @classmethod
    def of(cls, cursor: str | None, first_seq: int) -> _Place:
        if cursor is None or not cursor.strip():
            return cls(first_seq, 0)
        found = _CURSOR.fullmatch(cursor.strip())
        if found is None:
            raise ToolError(f"The cursor {cursor[:40]!r} is none that this tool gave: leave it out to begin anew.")
        return cls(max(int(found[1]), first_seq), int(found[2]))


class _Page:
    """Is a page on its way to the model."""

    __slots__ = ("next", "text")

    def __init__(self) -> None:
        self.text = ""
        self.next: _Place | None = None

    def told(self, head: str) -> str:
        """Return the page under its head, with how to go on."""
        end = "(This is the end.)"
        if self.next is not None:
            end = f"(There is more: call again with the same arguments and cursor={_cursor_of(self.next)!r}.)"
        return f"{head}:\n\n{self.text}\n\n{end}"

    def add(self, record: MessageRecord, offset: int) -> bool:
        """Take a message from an offset on; False if the page is full, which then says where the next one begins."""
        whole = message_text(record.message)
        head = f"[{record.seq}] {speaker(record.message)}{' (continued)' if offset else ''}:\n"
        left = MAX_PAGE_CHARS - len(self.text)
        size = len(head) + len(whole) - offset
        if size > left and left < MAX_PAGE_CHARS // 2:
            self.next = _Place(record.seq, offset)
            return False
        end = min(len(whole), offset + max(left - len(head), 1))
        self.text += ("\n\n" if self.text else "") + head + whole[offset:end]
        if end < len(whole):
            self.next = _Place(record.seq, end)
            return False
        return True


def _cursor_of(place: _Place) -> str:
    return f"{place.seq}:{place.offset}"


async def _page(read: _Read, place: _Place) -> _Page:
    page, offset, after_seq = _Page(), place.offset, place.seq - 1
    while True:
        records = await read(after_seq)
        for record in records:
            if not page.add(record, offset if record.seq == place.seq else 0):
                return page
            after_seq = record.seq
        if not records:
            return page


# ---- what a search finds ----


async def _search(log: SessionLog, words: list[str], place: _Place, last: int) -> str:
    """Return the messages that hold all of the words: the longest one is searched for, the others are looked for in
    what that finds."""
    wanted = [word.casefold() for word in words]
    longest = max(wanted, key=len)
    page, hits, after_seq = _Page(), 0, place.seq - 1
    for _ in range(MAX_SEARCHES):
        records, go_on = await log.search(longest, after_seq=after_seq, to_seq=last, limit=MAX_HITS)
        for record in records:
            text = message_text(record.message)
            plain = text.casefold()
            if not all(word in plain for word in wanted):
                continue
            hit = f"[{record.seq}] {speaker(record.message)}:\n{_around(text, plain.find(longest))}"
            if hits == MAX_HITS or len(page.text) + len(hit) > MAX_PAGE_CHARS:
                page.next = _Place(record.seq, 0)
                break
            page.text += f"\n\n{hit}" if hits else hit
            hits += 1
        if page.next is not None or go_on is None:
            break
        after_seq = go_on
    else:
        page.next = _Place(after_seq + 1, 0)
    if not hits:
        page.text = f"No message up to {last if page.next is None else after_seq} holds {_listed(words)}."
        if page.next is None:
            page.text += " Search for fewer or other words, or read on with from_seq and to_seq."
    return page.told(f"Messages with these words; {RECALL_COMPACTED}(from_seq=..., to_seq=...) gives them whole")


def _listed(words: list[str]) -> str:
    return " and ".join(map(repr, words))


def _around(text: str, at: int) -> str:
    """Return a text as far as it fits, around a place in it."""
    if len(text) <= MAX_HIT_CHARS:
        return text
    begin = max(min(at - MAX_HIT_CHARS // 2, len(text) - MAX_HIT_CHARS), 0)
    end = begin + MAX_HIT_CHARS
    return f"{'…' if begin else ''}{text[begin:end]}{'…' if end < len(text) else ''}"


# ---- as a model is offered them ----


def _in_short(arguments: object, result: str) -> str:
    """Say what a recall was once it is over itself: what it brought is where it came from."""
    return f"{len(result)} characters"


_POSITION = {"type": "string", "description": "Where to go on, as an earlier call told."}
_COMPACTED = ToolDefinition(
    name=RECALL_COMPACTED,
    description=(
        "Read again what was said and done earlier in this conversation, in the messages that a summary stands for."
        " With a query: the messages that hold all its words. Without: the messages of a range, in pages."
    ),
    input_schema={
        "type": "object",
        "properties": {
            "query": {"type": "string", "description": "Words to search for, each a part of a word or a whole one."},
            "from_seq": {
                "type": "integer",
                "minimum": 1,
                "description": "The number of the first message.",
            },
            "to_seq": {"type": "integer", "minimum": 1, "description": "The number of the last message."},
            "cursor": _POSITION,
        },
        "additionalProperties": False,
    },
    handler=recall_compacted,
    effect=Effect.READ,
    takes_context="context",
    project=_in_short,
)
_SEND = ToolDefinition(
    name=RECALL_SEND,
    description="Read again all messages, tool calls and results of an earlier turn that is shown in short.",
    input_schema={
        "type": "object",
        "properties": {
            "send_index": {
                "type": "integer",
                "minimum": 1,
                "maximum": MAX_SEND_INDEX,
                "description": "The turn, as its record tells.",
            },
            "cursor": _POSITION,
        },
        "required": ["send_index"],
        "additionalProperties": False,
    },
    handler=recall_send,
    effect=Effect.READ,
    takes_context="context",
    project=_in_short,
)


def recall_tools(*, compacted: bool = True, sends: bool = True) -> tuple[ToolDefinition, ...]:
    """Return the tools that give originals back: `recall_compacted`, and `recall_send`.

    A loop adds them by itself where they are of use. To a send that names its tools nothing is added: register these,
    and name them there.
    """
    return (*((_COMPACTED,) if compacted else ()), *((_SEND,) if sends else ()))
