"""Gives what differs from run to run the same name in each, and takes secrets out of what is written down."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from power_loop.events import Redaction

Scrub = Callable[[str], str]

# The kernel's own ids: a kind and 16 characters.
_OWN_ID = r"\b(?:sess|call|run|tmr)_[0-9a-hjkmnp-tv-z]{16}\b"
# A shorter id may be a word of the text.
_MIN_ID_CHARS = 8
# Where these stand in a message they are no text of anybody's.
_PLAIN = frozenset({"type", "role", "media_type", "data", "wire", "model", "field", "format", "name"})
# Holds a provider's own block, as the text of its JSON.
_RAW = "raw"


class NormalForm:
    """Turns one request, and then its reply, into the form that is written down and compared.

    Ids are numbered in the order in which they are met, secrets are masked, and `scrub` may change any text. `own`
    turns what was written down back: where it names an id by its number, the id of this run stands there again.
    """

    def __init__(self, scrub: Scrub | None = None, *, redaction: Redaction) -> None:
        self._scrub = scrub
        #: What masks secrets.
        self.redaction = redaction
        self._names: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self._ids = re.compile(_OWN_ID)

    def of(self, value: Any) -> Any:
        """Return a JSON value in normal form."""
        self._meet_call_ids(value)
        long_ids = [re.escape(one) for one in self._names if len(one) >= _MIN_ID_CHARS]
        self._ids = re.compile("|".join([*sorted(long_ids, key=len, reverse=True), _OWN_ID]))
        return self._walked(value, "")

    def text(self, text: str) -> str:
        """Return a text in normal form."""
        if self._scrub is not None:
            text = self._scrub(text)
        text = self.redaction.plain(text)
        return self._ids.sub(lambda found: self._name(found[0], found[0].partition("_")[0]), text)

    def own(self, value: Any) -> Any:
        """Return what was written down with the ids of this run."""
        real = {name: one for one, name in self._names.items() if name != one}
        if not real:
            return value
        pattern = re.compile(r"\b(?:" + "|".join(sorted(map(re.escape, real), key=len, reverse=True)) + r")\b")
        return _mapped(value, lambda text: pattern.sub(lambda found: real[found[0]], text))

    def _meet_call_ids(self, value: Any) -> None:
        """Number the ids of calls before any text is looked at that may name them."""
        if isinstance(value, dict):
            call_id = value.get("id") if value.get("type") == "tool_call" else value.get("call_id")
            if isinstance(call_id, str) and call_id:
                self._name(call_id, "call")
            for key, one in value.items():
                if key == _RAW and isinstance(one, str):
                    self._meet_block_ids(_block_of(one))
                self._meet_call_ids(one)
        elif isinstance(value, list):
            for one in value:
                self._meet_call_ids(one)

    def _meet_block_ids(self, value: Any) -> None:
        """Number the ids in a provider's own block, under the kind with which they begin."""
        if isinstance(value, dict):
            for key, one in value.items():
                if (key == "id" or key.endswith("_id")) and isinstance(one, str) and len(one) >= _MIN_ID_CHARS:
                    kind, _, rest = one.partition("_")
                    self._name(one, kind if rest and kind.isalpha() else "block")
                else:
                    self._meet_block_ids(one)
        elif isinstance(value, list):
            for one in value:
                self._meet_block_ids(one)

    def _name(self, real: str, kind: str) -> str:
        if real not in self._names:
            self._counts[kind] = self._counts.get(kind, 0) + 1
            self._names[real] = f"{kind}_{self._counts[kind]}"
        return self._names[real]

    def _walked(self, value: Any, key: str) -> Any:
        if isinstance(value, dict):
            return {name: self._walked(one, name) for name, one in value.items()}
        if isinstance(value, list):
            return [self._walked(one, key) for one in value]
        if key == _RAW and isinstance(value, str):
            return self._block(value)
        if not isinstance(value, str) or key in _PLAIN or (key == "url" and value.startswith("data:")):
            return value
        if key in ("id", "call_id") and value in self._names:
            return self._names[value]
        return self.text(value)

    def _block(self, raw: str) -> str:
        """Return a provider's own block, to the byte where there is nothing to change in it."""
        block = _block_of(raw)
        if block is None:
            return self.text(raw)
        normal = _mapped(self.redaction.value(block), self.text)
        return raw if normal == block else json.dumps(normal, separators=(",", ":"))


def _block_of(raw: str) -> Any:
    """Return the JSON of a provider's own block; None where it is none."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {name: _mapped(one, change) for name, one in value.items()}
    if isinstance(value, list):
        return [_mapped(one, change) for one in value]
    return change(value) if isinstance(value, str) else value
