"""Takes references apart (`plan.subtopics[0]`), finds them in texts (`{{plan.subtopics}}`), and fills them in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from power_loop.contracts.frozen import frozen

#: A name that a node or a variable may have; a reference begins with one.
NAME_PATTERN = "[A-Za-z0-9_][A-Za-z0-9_-]*"
#: A reference: a name, then keys and places in lists.
REFERENCE_PATTERN = rf"^{NAME_PATTERN}(\.[A-Za-z0-9_-]+|\[(0|[1-9][0-9]{{0,5}})\])*$"
MAX_REFERENCE_CHARS = 300
#: Characters that one filled text may have: a model's window holds far less.
MAX_FILLED_CHARS = 2_000_000

_REFERENCE = re.compile(REFERENCE_PATTERN.replace("$", r"\Z"))
_STEP = re.compile(r"\.([A-Za-z0-9_-]+)|\[([0-9]+)\]")
_NAME = re.compile(NAME_PATTERN)


class ReferenceFault(Exception):  # noqa: N818 - it becomes the error of a step
    """Says that a reference gives nothing that can be used; `code` is that of the step's error."""

    def __init__(self, message: str, *, code: str = "workflow.reference") -> None:
        super().__init__(message)
        self.code = code


class Scope(Protocol):
    """Is where references are looked up."""

    def lookup(self, name: str) -> Any:
        """Return what a name stands for; None for a node that was skipped or failed."""
        ...


@frozen
class Reference:
    """Is a reference: the name that it begins with, and the keys and places behind that."""

    name: str
    steps: tuple[str | int, ...] = ()

    def __str__(self) -> str:
        return self.name + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.steps)

    def value(self, scope: Scope) -> Any:
        """Return what it gives; anything below null is null. Raises `ReferenceFault` where a value lacks the key."""
        value = scope.lookup(self.name)
        for count, step in enumerate(self.steps):
            if value is None:
                return None
            try:
                value = value[_fitting(value, step)]
            except LookupError:
                at = Reference(self.name, self.steps[:count])
                raise ReferenceFault(
                    f"`{self}` gives nothing: `{at}` is {_kind(value)}{_keys(value)}, which has no {step!r}"
                ) from None
        return value

    def value_or_null(self, scope: Scope) -> Any:
        """Return what it gives, or None where a value lacks the key."""
        try:
            return self.value(scope)
        except ReferenceFault:
            return None


def parse_reference(text: str) -> Reference | None:
    """Return the reference that a text is, or None if it is none."""
    if len(text) > MAX_REFERENCE_CHARS or _REFERENCE.match(text) is None:
        return None
    found = _NAME.match(text)
    assert found is not None
    steps = tuple(key or int(place) for key, place in _STEP.findall(text, found.end()))
    return Reference(found[0], steps)


def _fitting(value: Any, step: str | int) -> Any:
    """Return the step if the value can have it: keys that look like numbers are keys of objects only."""
    if isinstance(value, dict) and isinstance(step, str):
        return step
    if isinstance(value, list) and isinstance(step, int):
        return step
    raise LookupError


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "no JSON value")


def _keys(value: Any) -> str:
    if isinstance(value, dict) and value:
        shown = ", ".join(repr(key)[:60] for key in list(value)[:8])
        return f" with {shown}{', …' if len(value) > 8 else ''}"
    return f" of {len(value)}" if isinstance(value, list) else ""


@frozen
class Hole:
    """Is one place of a text where `{{…}}` stands: what stands between the braces, and the reference that it is."""

    text: str
    reference: Reference | None


#: What stands in a text for `{{` that opens no reference.
ESCAPED = r"\{{"


def holes_and_texts(text: str) -> list[str | Hole]:
    """Take a text apart. A hole without its end is a hole with all that follows, and no reference."""
    parts: list[str | Hole] = []
    done = look = 0
    literal = ""
    while (start := text.find("{{", look)) >= 0:
        if start > done and text[start - 1] == "\\":
            literal += text[done : start - 1] + "{{"
            done = look = start + 2
            continue
        end = text.find("}}", start + 2)
        if literal or start > done:
            parts.append(literal + text[done:start])
            literal = ""
        if end < 0:
            parts.append(Hole(text[start + 2 :], None))
            return parts
        inner = text[start + 2 : end]
        parts.append(Hole(inner, parse_reference(inner.strip()) if len(inner) <= MAX_REFERENCE_CHARS else None))
        done = look = end + 2
    if literal or done < len(text):
        parts.append(literal + text[done:])
    return parts


class Template:
    """Is JSON in whose texts references stand. It was checked before: each hole is a reference."""

    __slots__ = ("_made", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        self._made: Any = _NOT_MADE

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Template) and self.value == other.value

    def __hash__(self) -> int:
        return hash(json.dumps(self.value, sort_keys=True, default=str))

    def __repr__(self) -> str:
        return f"Template({self.value!r})"

    def fill(self, scope: Scope, *, keeps_types: bool = False) -> Any:
        """Return the JSON with every reference filled in, once: what a reference gave is not read again.

        With `keeps_types` a text that is one reference and nothing else becomes what that gives, of whatever type.
        Raises `ReferenceFault`.
        """
        if self._made is _NOT_MADE:
            self._made = _made(self.value)
        return _filled(self._made, _Filling(scope, keeps_types))


_NOT_MADE: Any = object()


@frozen
class _Parts:
    parts: tuple[str | Hole, ...]


def _made(value: Any) -> Any:
    if isinstance(value, str):
        return _Parts(tuple(holes_and_texts(value))) if "{{" in value else value
    if isinstance(value, Mapping):
        return {name: _made(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_made(item) for item in value]
    return value


class _Filling:
    __slots__ = ("keeps_types", "left", "scope")

    def __init__(self, scope: Scope, keeps_types: bool) -> None:
        self.scope = scope
        self.keeps_types = keeps_types
        self.left = MAX_FILLED_CHARS


def _filled(made: Any, filling: _Filling) -> Any:
    if isinstance(made, _Parts):
        first = made.parts[0]
        if filling.keeps_types and len(made.parts) == 1 and isinstance(first, Hole) and first.reference is not None:
            return first.reference.value(filling.scope)
        return "".join(_texts(made.parts, filling))
    if isinstance(made, dict):
        return {name: _filled(item, filling) for name, item in made.items()}
    if isinstance(made, list):
        return [_filled(item, filling) for item in made]
    return made


def _texts(parts: tuple[str | Hole, ...], filling: _Filling) -> Iterator[str]:
    for part in parts:
        text = part if isinstance(part, str) else ""
        if isinstance(part, Hole) and part.reference is not None:
            text = text_of(part.reference.value(filling.scope))
        filling.left -= len(text)
        if filling.left < 0:
            raise ReferenceFault(
                f"what the references give is longer than {MAX_FILLED_CHARS} characters in all: refer to a part of it",
                code="workflow.too_large",
            )
        yield text


def text_of(value: Any) -> str:
    """Return how a value stands in a text: texts as they are, null as nothing, everything else as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def section(reference: Reference, value: Any) -> str:
    """Return how an output stands in an agent's input under its name; a list of texts by the numbers of its items."""
    if isinstance(value, list) and any(isinstance(item, str) for item in value):
        body = "\n\n".join(f"[{place}] {text_of(item)}" for place, item in enumerate(value, 1))
    else:
        body = text_of(value)
    return f"{reference}:\n{body}"
