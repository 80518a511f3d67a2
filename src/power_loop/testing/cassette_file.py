"""Is the file of a cassette: JSON Lines in which each message, tool, system prompt and medium stands once.

The first line names the version and the model. A line with `message`, `tool`, `system` or `data` gives what it holds a
name, by which lines below it are short; a line with `call` is one call: what was asked, the pieces that came, and the
`reply`, the `error`, or that it was `cancelled`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from power_loop.errors import ConfigError
from power_loop.testing.traffic import Value, canonical, error_class, request_of, response_of

VERSION = 1
# Data of an image, a sound or a file that are longer stand on a line of their own.
_MIN_DATA_CHARS = 256
_DIGEST_CHARS = 12
_OUTCOMES = ("reply", "error", "cancelled")
_DAMAGE = (ValueError, KeyError, TypeError, AttributeError)


@dataclass
class Entry:
    """Is one call as JSON values: the request, the runs of pieces, and the outcome, empty until it is known."""

    request: Value
    deltas: list[list[Any]] = field(default_factory=list)
    outcome: Value = field(default_factory=dict)


def read_cassette(path: Path) -> tuple[Value, list[Entry]]:
    """Return the model and the calls of a file. Raises `config.invalid` naming the line."""
    shared: dict[str, Any] = {}
    info: Value | None = None
    entries: list[Entry] = []
    for number, line in enumerate(path.read_text("utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            if info is None:
                info = _model(value)
            elif "call" in value:
                entries.append(_entry(value, shared))
            else:
                shared.update(_named(value, shared))
        except _DAMAGE as error:
            raise ConfigError(
                f"line {number} of the cassette {str(path)!r} cannot be read ({type(error).__name__}: {error}):"
                " mend it, or record it anew with record='all'"
            ) from error
    if info is None:
        raise ConfigError(f"the cassette {str(path)!r} is empty: remove it, and record it with record='once'")
    return info, entries


def write_cassette(path: Path, info: Value, entries: list[Entry]) -> None:
    """Write a file whole: it is the old one until it is the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    being_written = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # A half of a character that no encoding has stands as JSON escapes it.
        with being_written.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            for line in _lines(info, entries):
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        os.replace(being_written, path)
    finally:
        being_written.unlink(missing_ok=True)


# ---- reading ----


def _model(value: Value) -> Value:
    version = value["power_loop_cassette"]
    if version > VERSION:
        raise ValueError(f"it has version {version}, and this power-loop reads versions up to {VERSION}")
    info: Value = value["info"]
    return info


def _named(value: Value, shared: dict[str, Any]) -> dict[str, Any]:
    """Return the name and the value that a line gives it."""
    for kind, member in (("data", "base64"), ("system", "text"), ("tool", "is")):
        if kind in value:
            return {value[kind]: value[member]}
    message = {name: member for name, member in value.items() if name != "message"}
    return {value["message"]: _with_data(message, shared)}


def _entry(value: Value, shared: dict[str, Any]) -> Entry:
    request = {**value["request"], "messages": [shared[one] for one in value["request"]["messages"]]}
    if "system" in request:
        request["system"] = shared[request["system"]]
    if "tools" in request:
        request["tools"] = [shared[one] for one in request["tools"]]
    outcome = {name: _with_data(value[name], shared) for name in _OUTCOMES if name in value}
    entry = Entry(request, value.get("deltas", []), outcome)
    _check(entry)
    return entry


def _check(entry: Entry) -> None:
    """Raise what is wrong with a call, before anybody plays it."""
    request_of(entry.request)
    if len(entry.outcome) != 1:
        raise ValueError(f"a call has one of {', '.join(_OUTCOMES)}")
    if "reply" in entry.outcome:
        response_of(entry.outcome["reply"])
    if "error" in entry.outcome:
        error_class(entry.outcome["error"]["code"])


def _with_data(value: Any, shared: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        if len(value) == 1 and isinstance(value.get("kept"), str):
            return shared[value["kept"]]
        return {name: _with_data(one, shared) for name, one in value.items()}
    return [_with_data(one, shared) for one in value] if isinstance(value, list) else value


# ---- writing ----


def _lines(info: Value, entries: list[Entry]) -> Iterator[Value]:
    yield {"power_loop_cassette": VERSION, "info": info}
    written: set[str] = set()
    for number, entry in enumerate(entries, start=1):
        before: list[Value] = []
        request = dict(entry.request)
        if "system" in request:
            request["system"] = _name("system", "text", request["system"], before)
        if "tools" in request:
            request["tools"] = [_name("tool", "is", one, before) for one in request["tools"]]
        request["messages"] = [_name_message(one, before) for one in request["messages"]]
        outcome = _without_data(entry.outcome, before)
        for line in before:
            name = next(iter(line.values()))
            if name not in written:
                written.add(name)
                yield line
        line = {"call": number, "request": request}
        yield {**line, **({"deltas": entry.deltas} if entry.deltas else {}), **outcome}


def _name(kind: str, member: str, value: Any, lines: list[Value]) -> str:
    name = f"{kind}-{_digest(value)}"
    lines.append({kind: name, member: value})
    return name


def _name_message(message: Value, lines: list[Value]) -> str:
    name = f"{message['role']}-{_digest(message)}"
    shown = _without_data(message, lines)
    lines.append({"message": name, **shown})
    return name


def _without_data(value: Any, lines: list[Value]) -> Any:
    """Return a value whose long data are named, with the lines that name them."""
    if isinstance(value, list):
        return [_without_data(one, lines) for one in value]
    if not isinstance(value, dict):
        return value
    shown = {}
    for name, member in value.items():
        is_data = name == "data" or (name == "url" and str(member).startswith("data:"))
        if is_data and isinstance(member, str) and len(member) >= _MIN_DATA_CHARS:
            shown[name] = {"kept": _name("data", "base64", member, lines)}
        else:
            shown[name] = _without_data(member, lines)
    return shown


def _digest(value: Any) -> str:
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:_DIGEST_CHARS]
