"""Writes a text that nobody vouches for on one quoted line, so that it cannot end the frame in which it is shown."""

from __future__ import annotations

import json

# What JSON leaves as it is although a reader may take it for the end of a line.
_BREAKS = {ord(char): f"\\u{ord(char):04x}" for char in "\x7f\x85\u2028\u2029"}


def one_line(text: str) -> str:
    """Return a text as a JSON string without line breaks and without `</`; `json.loads` gives the text back."""
    return json.dumps(text, ensure_ascii=False).translate(_BREAKS).replace("</", "<\\/")
