"""Lets a model keep notes for the rest of its session, and shows them to it at each call."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

from power_loop.contracts.errors import ConfigError, ToolError
from power_loop.contracts.explanation import SegmentKind
from power_loop.contracts.frozen import frozen
from power_loop.contracts.live import LiveContext, LiveState
from power_loop.contracts.messages import clean_text
from power_loop.contracts.numbers import is_whole
from power_loop.contracts.tools import ToolContext, ToolDefinition
from power_loop.tools.decorator import tool
from power_loop.tools.one_line import one_line

#: Where notes stand in the session's state: an object of texts by title.
NOTES_KEY = "notes"
MAX_TITLE_CHARS = 80
# What of a note the index shows, and what of the titles an error does, in characters.
_PREVIEW_CHARS = 80
_MAX_TITLES_CHARS = 1_000


@frozen
class NotesPolicy:
    """Is how much a model may note: `max_notes` notes (default 50) of `max_chars` characters each (default 4,000) and
    `max_total_chars` in all, titles included (default 40,000).

    At each call the model sees them whole while they have at most `shown_chars` characters (default 4,000), and their
    titles and beginnings otherwise.
    """

    max_notes: int = 50
    max_chars: int = 4_000
    max_total_chars: int = 40_000
    shown_chars: int = 4_000

    def __post_init__(self) -> None:
        for name, least, most in (
            ("max_notes", 1, 200),
            ("max_chars", 1, 100_000),
            ("max_total_chars", 1, 1_000_000),
            ("shown_chars", 0, 20_000),
        ):
            value: Any = getattr(self, name)
            if not is_whole(value, least=least, most=most):
                raise ConfigError(f"{name} is {value!r:.200}: give a whole number from {least} to {most:,}")


class Notes:
    """Is the notes in a session's `state`, within a policy; what somebody else put there and is none is passed over."""

    def __init__(self, state: MutableMapping[str, Any], policy: NotesPolicy | None = None) -> None:
        self._state = state
        self._policy = policy or NotesPolicy()

    @property
    def texts(self) -> dict[str, str]:
        """The texts by title, in the order in which they were first written."""
        return _texts_of(self._state)

    def write(self, title: str, text: str) -> bool:
        """Put a note in place of the one with its title, if there is one; return whether there was.

        Raises `tool.failed` where it does not fit, in words for the model.
        """
        policy, texts = self._policy, self.texts
        title, text = _title(title), clean_text(text).strip()
        if not text:
            raise ToolError(f"the note {title!r} is empty: give it a text, or take it away with note_remove")
        if len(text) > policy.max_chars:
            raise ToolError(
                f"the note {title!r} has {len(text):,} characters and may have {policy.max_chars:,}: shorten it, or"
                " split it into several notes"
            )
        is_known = title in texts
        if not is_known and len(texts) >= policy.max_notes:
            raise ToolError(
                f"there are {len(texts)} notes, and no more may be: write into one of them, or take one away with"
                f" note_remove; their titles are {_titles(texts)}"
            )
        changed = {**texts, title: text}
        total = _size(changed)
        if total > policy.max_total_chars and total > _size(texts):
            raise ToolError(
                f"with this note all notes would have {total:,} characters and may have {policy.max_total_chars:,}:"
                f" shorten some, or take some away with note_remove; their titles are {_titles(texts)}"
            )
        self._state[NOTES_KEY] = changed
        return is_known

    def read(self, title: str) -> str:
        """Return the text of a note. Raises `tool.failed` if there is none of this title."""
        texts, title = self.texts, _title(title)
        if title not in texts:
            raise _no_note(title, texts)
        return texts[title]

    def remove(self, title: str) -> None:
        """Take a note away. Raises `tool.failed` if there is none of this title."""
        texts, title = self.texts, _title(title)
        if title not in texts:
            raise _no_note(title, texts)
        del texts[title]
        if texts:
            self._state[NOTES_KEY] = texts
        else:
            self._state.pop(NOTES_KEY, None)


def notes_tools(policy: NotesPolicy | None = None) -> tuple[ToolDefinition, ...]:
    """Return the tools `note_write`, `note_read`, `note_list` and `note_remove`.

    Notes last as long as their session: they are stored with the call that writes them, go along with a fork and with
    an archive, and stand behind all messages at each call.
    """
    bounds = policy or NotesPolicy()
    live = LiveState("notes", lambda context: _shown(context, bounds), SegmentKind.NOTES)

    # Handlers are coroutines that wait for nothing, so that no two of them change the notes at the same time.
    @tool(effect="idempotent", live=live)
    async def note_write(context: ToolContext, title: str, text: str) -> str:
        """Keep a note for the rest of this conversation, in place of the one with the same title. Notes stay when older
        messages are no longer shown: note what you will need later.

        Args:
            title: What the note is called; short.
            text: The whole note.
        """
        is_known = Notes(context.state, bounds).write(title, text)
        return "Note replaced." if is_known else "Note kept."

    @tool(effect="read")
    async def note_read(context: ToolContext, title: str) -> str:
        """Read a note in full.

        Args:
            title: What the note is called.
        """
        return Notes(context.state, bounds).read(title)

    @tool(effect="read")
    async def note_list(context: ToolContext) -> str:
        """List your notes by title."""
        texts = Notes(context.state, bounds).texts
        return "\n".join(_index(texts)) if texts else "There are no notes."

    @tool(effect="idempotent")
    async def note_remove(context: ToolContext, title: str) -> str:
        """Take a note away.

        Args:
            title: What the note is called.
        """
        Notes(context.state, bounds).remove(title)
        return "Note removed."

    return note_write, note_read, note_list, note_remove


# ---- how they are shown ----


def _shown(context: LiveContext, policy: NotesPolicy) -> str | None:
    texts = _texts_of(context.state)
    if not texts:
        return None
    whole = "\n".join(f"- {one_line(title)}: {one_line(text)}" for title, text in texts.items())
    if len(whole) <= policy.shown_chars:
        return f"Your notes, each a quoted title and text:\n<notes>\n{whole}\n</notes>"
    index = "\n".join(_index(texts))
    return f"The index of your notes; note_read gives one in full:\n<notes>\n{index}\n</notes>"


def _index(texts: Mapping[str, str]) -> list[str]:
    return [f"- {one_line(title)} ({len(text):,} characters): {_preview(text)}" for title, text in texts.items()]


def _preview(text: str) -> str:
    first = text.partition("\n")[0]
    return one_line(text if text == first[:_PREVIEW_CHARS] else f"{first[:_PREVIEW_CHARS]}…")


def _texts_of(state: Mapping[str, Any]) -> dict[str, str]:
    stored = state.get(NOTES_KEY)
    if not isinstance(stored, Mapping):
        return {}
    return {title: text for title, text in stored.items() if isinstance(title, str) and isinstance(text, str)}


def _title(title: str) -> str:
    title = " ".join(clean_text(title).split())
    if not 0 < len(title) <= MAX_TITLE_CHARS:
        raise ToolError(f"the title has {len(title)} characters: give 1 to {MAX_TITLE_CHARS}")
    return title


def _no_note(title: str, texts: Mapping[str, str]) -> ToolError:
    there = f"the titles are {_titles(texts)}" if texts else "there are no notes"
    return ToolError(f"there is no note {title!r}: {there}")


def _titles(texts: Mapping[str, str]) -> str:
    shown = ", ".join(map(repr, texts))
    return shown if len(shown) <= _MAX_TITLES_CHARS else f"{shown[:_MAX_TITLES_CHARS]}…"


def _size(texts: Mapping[str, str]) -> int:
    return sum(len(title) + len(text) for title, text in texts.items())
