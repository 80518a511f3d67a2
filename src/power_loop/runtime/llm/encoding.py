"""Writes JSON for the wires: compact bytes, and what a model wrote in a form that no endpoint refuses."""

from __future__ import annotations

import json
import re
from typing import Any

from power_loop.contracts.json_schema import InvalidJson, loads_strict
from power_loop.contracts.messages import clean_text

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]")
_MAX_NAME_CHARS = 64


def encode(value: Any) -> bytes:
    """Return compact JSON in UTF-8. Lone surrogates, which UTF-8 cannot hold, become U+FFFD."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        return clean_text(text).encode("utf-8")


def portable_name(name: str) -> str:
    """Return a tool's name as both wires take it back: a model may have made up one that they refuse."""
    return _NOT_IN_NAMES.sub("_", name)[:_MAX_NAME_CHARS] or "_"


def object_text(arguments: str) -> str:
    """Return the arguments of a call as the text of a JSON object.

    Endpoints parse what they are sent back and refuse the conversation for ever if that fails, so a text that is no
    JSON object is wrapped into one in which the model can read what it wrote.
    """
    try:
        value = loads_strict(arguments)
    except InvalidJson:
        return json.dumps({"invalid_arguments": arguments}, ensure_ascii=False)
    if not isinstance(value, dict):
        return json.dumps({"invalid_arguments": arguments}, ensure_ascii=False)
    return arguments if is_sendable(arguments) else clean_text(json.dumps(value, ensure_ascii=False))


def is_sendable(text: str) -> bool:
    """Whether JSON text holds whole characters only: an escaped half of one is JSON to us and none to Anthropic."""
    if "\\ud" not in text.lower():
        return True
    try:
        json.dumps(json.loads(text), ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return False
    return True
