"""Recognises the events of a stream that differ in one text only, so that they need not be parsed whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from json.decoder import scanstring  # type: ignore[attr-defined] # the reader of one string is not in the stubs
from typing import Any

_PROBE = "\u2063probe\u2063"
# A stream whose events never look alike (some carry random padding) is not worth learning.
_MAX_LESSONS = 4


class TextTemplate:
    """Learns from one parsed event where its text stands; then reads that text out of events that are equal but for it.

    What it accepts is proven: the event is the learned prefix, one whole JSON string, and the learned suffix, and with
    any string between them the event parses to what was learned with that string in place.
    """

    __slots__ = ("_key", "_lessons", "_minimum", "_prefix", "_suffix", "_suffix_chars", "_text_at")

    def __init__(self, key: str) -> None:
        self._key = f'"{key}":'
        self._prefix = ""
        self._suffix = ""
        self._text_at = 0
        self._suffix_chars = 0
        self._minimum = 0
        self._lessons = 0

    def read(self, data: str) -> str | None:
        """Return the text of an event of the learned form, or None: parse it then."""
        if not self._text_at or not data.startswith(self._prefix) or not data.endswith(self._suffix):
            return None
        if len(data) < self._minimum:
            return None
        try:
            text, end = scanstring(data, self._text_at, True)
        except ValueError:
            return None
        return text if end == len(data) - self._suffix_chars else None

    def learn(self, data: str, event: Any, replace: Callable[[Any, str], None]) -> None:
        """Learn from `data`, which was parsed to `event`; `replace` puts another text into such a parsed event."""
        if self._lessons >= _MAX_LESSONS:
            return
        self._lessons += 1
        at = data.find(self._key)
        if at < 0:
            return
        at += len(self._key)
        at += data[at : at + 1] == " "
        if data[at : at + 1] != '"':
            return
        try:
            _, end = scanstring(data, at + 1, True)
            probed = json.loads(f"{data[: at + 1]}{_PROBE}{data[end - 1 :]}")
        except ValueError:
            return
        replace(event, _PROBE)
        if probed != event:
            return
        self._prefix, self._suffix = data[: at + 1], data[end:]
        self._text_at, self._suffix_chars = at + 1, len(self._suffix)
        self._minimum = len(self._prefix) + 1 + self._suffix_chars
