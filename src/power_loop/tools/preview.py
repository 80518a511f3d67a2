"""Cuts the middle out of a long result, so that a model sees its beginning and its end."""

from __future__ import annotations

from power_loop.contracts.messages import ContentPart, TextPart

# A cut moves to the end of a line if one is this near: longer than most lines, and little beside what is shown.
_MAX_MOVE_CHARS = 200


def preview(content: tuple[ContentPart, ...], max_chars: int, *, fate: str) -> tuple[ContentPart, ...]:
    """Return content whose text has at most `max_chars` characters: its head, a line on what is left out, its tail.

    `fate` says what became of the middle. The texts count together and the line counts with them; where `max_chars` is
    too small even for the line, the line alone remains. Images and other parts stay. Content that is short enough is
    returned as it is.
    """
    texts = [part.text for part in content if isinstance(part, TextPart)]
    total = sum(map(len, texts))
    if total <= max_chars:
        return content
    start, end, note = _cut("".join(texts), max_chars, fate=fate)
    shown: list[ContentPart] = []
    at = 0
    for part in content:
        if not isinstance(part, TextPart):
            shown.append(part)
            continue
        # Where the hole begins and ends in this part, and whether it begins here at all.
        first = min(max(start - at, 0), len(part.text))
        last = min(max(end - at, 0), len(part.text))
        begins_here = at <= start < at + len(part.text)
        at += len(part.text)
        text = part.text[:first] + (note if begins_here else "") + part.text[last:]
        if text:
            shown.append(TextPart(text))
    return tuple(shown)


def shortened(text: str, max_chars: int, *, fate: str) -> str:
    """Return a text cut to `max_chars` characters like a preview; `fate` says what became of the middle."""
    start, end, note = _cut(text, max_chars, fate=fate)
    return text[:start] + note + text[end:]


def _cut(text: str, max_chars: int, *, fate: str) -> tuple[int, int, str]:
    """Return where the hole in a text begins and ends, and the line that stands in its place."""
    total = len(text)
    room = max(max_chars - len(_note(total, total, fate)), 0)
    start = (room + 1) // 2
    end = total - room // 2
    move = min(_MAX_MOVE_CHARS, room // 8)
    line_end = text.rfind("\n", start - move, start)
    if line_end >= 0:
        start = line_end + 1
    line_end = text.find("\n", end, end + move)
    if line_end >= 0:
        end = line_end + 1
    note = _note(end - start, total, fate)
    return start, end, note.lstrip("\n") if text[start - 1 : start] == "\n" else note


def _note(left_out: int, total: int, fate: str) -> str:
    return f"\n[… {left_out:,} of {total:,} characters {fate} …]\n"
