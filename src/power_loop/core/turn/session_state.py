"""Is the dict that a session's tools keep their JSON values in: what is in it is what a later process will find."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_MAX_SHOWN_CHARS = 80
_NO_JSON = (TypeError, ValueError, RecursionError, RuntimeError)


class SessionState(dict[str, Any]):
    """Takes JSON values only, in the form in which JSON has them: a key that is a number becomes text at once, a tuple
    a list.

    What is no JSON is refused with a TypeError where it is put in, so the calls that run beside are not concerned.
    What is changed inside of a value shows only when the call ends: `settle`.
    """

    __slots__ = ()

    def __init__(self, stored: Mapping[str, Any]) -> None:
        super().__init__(json.loads(json.dumps(dict(stored))) if stored else {})

    def __setitem__(self, key: Any, value: Any) -> None:
        """Put a value in. Raises TypeError for one that is no JSON."""
        name, kept = _json_form(key, value)
        super().__setitem__(name, kept)

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """Return the value of a key, which is `default` from here on if it had none."""
        if key not in self:
            key, kept = _json_form(key, default)
            super().setdefault(key, kept)
        return self[key]

    def update(self, *args: Any, **values: Any) -> None:
        """Put several values in, or none of them. Raises TypeError for one that is no JSON."""
        super().update([_json_form(key, value) for key, value in dict(*args, **values).items()])

    def __ior__(self, other: Any) -> SessionState:  # type: ignore[override,misc]
        """Put several values in, or none of them."""
        self.update(other)
        return self

    def settle(self, stored: Mapping[str, Any]) -> tuple[str, ...]:
        """Bring everything that is not as it is `stored` into its JSON form; return the names of what has none, which
        is as it is stored again."""
        dropped = []
        for name, value in list(self.items()):
            if name in stored and _are_equal(stored[name], value):
                continue
            try:
                super().__setitem__(name, _json_form(name, value)[1])
            except TypeError:
                dropped.append(name)
                if name in stored:
                    super().__setitem__(name, json.loads(json.dumps(stored[name])))
                else:
                    self.pop(name, None)
        return tuple(dropped)

    def changed(self, stored: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return a copy to be stored; None if nothing differs from what is.

        What has no JSON form is of a call that still runs, and goes into the copy as it is stored.
        """
        if (not self and not stored) or _are_equal(dict(stored), dict(self)):
            return None
        copy = {}
        for name, value in list(self.items()):
            text = _json_text(value)
            if text is not None:
                copy[name] = json.loads(text)
            elif name in stored:
                copy[name] = stored[name]
        return copy if copy != stored else None


def _are_equal(stored: Any, value: Any) -> bool:
    try:
        return bool(stored == value)
    except Exception:  # a stranger's object inside of a value
        return False


def _json_form(key: Any, value: Any) -> tuple[str, Any]:
    """Return a key and a value as JSON has them; the very value if it is in that form already, so that who put it in
    may go on changing it."""
    try:
        [(name, copy)] = json.loads(json.dumps({key: value}, allow_nan=False)).items()
        return name, value if _is_same(value, copy) else copy
    except _NO_JSON as error:
        raise TypeError(
            f"context.state[{_shown(key)}] cannot be {_shown(value)}: it holds JSON values only ({error})"
        ) from error


def _json_text(value: Any) -> str | None:
    try:
        return json.dumps(value, allow_nan=False)
    except _NO_JSON:
        return None


def _is_same(value: Any, copy: Any) -> bool:
    """Tell whether a value is what JSON makes of it, types included."""
    if type(value) is not type(copy):
        return False
    if isinstance(copy, dict):
        return value.keys() == copy.keys() and all(_is_same(value[name], one) for name, one in copy.items())
    if isinstance(copy, list):
        return len(value) == len(copy) and all(map(_is_same, value, copy))
    return bool(value == copy)


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:  # a stranger's object
        text = f"a {type(value).__name__}"
    return text if len(text) <= _MAX_SHOWN_CHARS else f"{text[:_MAX_SHOWN_CHARS]}…"
