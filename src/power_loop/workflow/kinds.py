"""Says what may stand at a place of a spec: each kind reads a value, and is a JSON Schema of the same meaning."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field
from typing import Any, Protocol

from power_loop.contracts.frozen import frozen
from power_loop.contracts.json_schema.problems import Path, quoted, shown
from power_loop.contracts.numbers import is_number
from power_loop.workflow.plain import REFUSED
from power_loop.workflow.suggestions import nearest


class Notes(Protocol):
    """Is where a kind says what it refuses."""

    def add(self, path: Path, message: str, *, expected: str = "", suggestion: str = "") -> None:
        """Note a problem."""
        ...


class Kind(Protocol):
    """Is what may stand somewhere."""

    @property
    def expected(self) -> str:
        """It in words, behind "expected"."""
        ...

    def read(self, value: Any, path: Path, notes: Notes) -> Any:
        """Return the value without what was refused, or REFUSED; never looks at what is REFUSED already."""
        ...

    def schema(self) -> Any:
        """Return a JSON Schema that takes what `read` takes without a note."""
        ...


#: What is no white space to Python: a name or prompt of nothing else says nothing. Spelled out, because engines of
#: patterns disagree on what white space is.
SAID = "[^\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]"


@frozen
class Text:
    """Takes a text. `has_references` tells that `{{…}}` may stand in it; `is_said` that it may not be blank."""

    most: int
    pattern: str | None = None
    in_words: str = ""
    has_references: bool = False
    is_said: bool = False

    @property
    def expected(self) -> str:
        """It in words."""
        return self.in_words or f"a text of {'1 to' if self.is_said else 'at most'} {self.most} characters"

    def read(self, value: Any, path: Path, notes: Notes) -> Any:
        """Read it."""
        if value is REFUSED:
            return REFUSED
        if not isinstance(value, str):
            return _refuse(value, path, notes, expected=self.expected)
        if len(value) > self.most:
            notes.add(path, f"it has {len(value)} characters", expected=self.expected)
            return REFUSED
        if self.is_said and not value.strip():
            return _refuse(value, path, notes, expected=self.expected)
        if self.pattern is not None and not _fits(self.pattern, value):
            bare = value.strip("{} ")
            near = bare if _fits(self.pattern, bare) else ""
            return _refuse(value, path, notes, expected=self.expected, suggestion=near)
        return value

    def schema(self) -> Any:
        """Return its schema."""
        made: dict[str, Any] = {"type": "string", "maxLength": self.most}
        if self.is_said:
            made["pattern"] = SAID
        if self.pattern is not None:
            made["pattern"] = self.pattern
        return made


@frozen
class Number:
    """Takes a finite number from `least` to `most`; where `is_whole`, one without a fraction."""

    least: float
    most: float
    is_whole: bool = False
    is_above: bool = False

    @property
    def expected(self) -> str:
        """It in words."""
        kind = "a whole number" if self.is_whole else "a number"
        return (
            f"{kind} above {self.least}, at most {self.most}"
            if self.is_above
            else f"{kind} from {self.least} to {self.most}"
        )

    def read(self, value: Any, path: Path, notes: Notes) -> Any:
        """Read it."""
        if value is REFUSED:
            return REFUSED
        fits = is_number(value, least=self.least, most=self.most, **({"above": self.least} if self.is_above else {}))
        if not fits or (self.is_whole and value != int(value)):
            return _refuse(value, path, notes, expected=self.expected)
        return int(value) if self.is_whole else value

    def schema(self) -> Any:
        """Return its schema."""
        least = "exclusiveMinimum" if self.is_above else "minimum"
        return {"type": "integer" if self.is_whole else "number", least: self.least, "maximum": self.most}


@frozen
class Flag:
    """Takes true and false."""

    expected: str = "true or false"

    def read(self, value: Any, path: Path, notes: Notes) -> Any:
        """Read it."""
        if value is REFUSED or isinstance(value, bool):
            return value
        return _refuse(value, path, notes, expected=self.expected)

    def schema(self) -> Any:
        """Return its schema."""
        return {"type": "boolean"}


@frozen
class Choice:
    """Takes one of some words. `synonyms` are what people write for them."""

    words: tuple[str, ...]
    synonyms: Mapping[str, str] = field(default_factory=dict)

    @property
    def expected(self) -> str:
        """It in words."""
        return f"one of {', '.join(map(repr, self.words))}" if len(self.words) > 1 else repr(self.words[0])

    def read(self, value: Any, path: Path, notes: Notes) -> Any:
        """Read it."""
        if value is REFUSED or (isinstance(value, str) and value in self.words):
            return value
        near = self.synonyms.get(value.strip().lower(), "") if isinstance(value, str) else ""
        if isinstance(value, str) and not near:
            near = nearest(value, self.words)
        return _refuse(value, path, notes, expected=self.expected, suggestion=near)

    def schema(self) -> Any:
        """Return its schema."""
        return {"enum": list(self.words)}


@frozen
class Anything:
    """Takes any JSON."""

    expected: str = "any JSON"

    def read(self, value: Any, path: Path, notes: Notes) -> Any:
        """Read it."""
        return value

    def schema(self) -> Any:
        """Return its schema."""
        return True


@frozen
class AnyObject:
    """Takes any object."""

    expected: str = "an object"

    def read(self, value: Any, path: Path, notes: Notes) -> Any:
        """Read it."""
        if value is REFUSED or isinstance(value, dict):
            return value
        return _refuse(value, path, notes, expected=self.expected)

    def schema(self) -> Any:
        """Return its schema."""
        return {"type": "object"}


@frozen
class ListOf:
    """Takes a list whose items are of one kind."""

    item: Kind
    most: int
    least: int = 0

    @property
    def expected(self) -> str:
        """It in words."""
        return f"a list of {self.least} to {self.most}, each {self.item.expected}"

    def read(self, value: Any, path: Path, notes: Notes) -> Any:
        """Read it, and its items."""
        if value is REFUSED:
            return REFUSED
        if not isinstance(value, list) or not self.least <= len(value) <= self.most:
            return _refuse(value, path, notes, expected=self.expected)
        return [self.item.read(item, (path, place), notes) for place, item in enumerate(value)]

    def schema(self) -> Any:
        """Return its schema."""
        bounds = {"minItems": self.least} if self.least else {}
        return {"type": "array", "items": self.item.schema(), **bounds, "maxItems": self.most}


@frozen
class Key:
    """Is a key that an object may have, and what it is for; it means nothing without the key `needs`."""

    name: str
    kind: Kind
    doc: str
    is_required: bool = False
    default: Any = None
    needs: str = ""


@frozen
class Record:
    """Takes an object with the keys of a table and no others; of each group in `one_of` it has exactly one key."""

    title: str
    keys: tuple[Key, ...]
    one_of: tuple[tuple[str, ...], ...] = ()
    doc: str = ""

    @property
    def expected(self) -> str:
        """It in words."""
        return f"an object with {', '.join(key.name for key in self.keys if key.is_required) or 'keys'}"

    def read(self, value: Any, path: Path, notes: Notes) -> Any:
        """Read it, and what its keys hold."""
        if value is REFUSED:
            return REFUSED
        if not isinstance(value, dict):
            return _refuse(value, path, notes, expected=self.expected)
        known = {key.name: key for key in self.keys}
        read: dict[str, Any] = {}
        for name, item in value.items():
            key = known.get(name)
            if key is None:
                missing = [one for one in known if one not in value]
                notes.add(
                    (path, name),
                    f"{self.title} has no key {quoted(name)}",
                    expected=f"one of {', '.join(missing)}" if missing else "nothing here",
                    suggestion=nearest(name, missing),
                )
                continue
            understood = key.kind.read(item, (path, name), notes)
            if understood is not REFUSED:
                read[name] = understood
        for key in self.keys:
            if key.is_required and key.name not in value:
                notes.add((path, key.name), f"{self.title} lacks {key.name!r}", expected=key.kind.expected)
            if key.needs and key.name in value and key.needs not in value:
                notes.add((path, key.name), f"it means nothing without {key.needs!r}", expected=f"{key.needs!r} too")
        for group in self.one_of:
            given = [name for name in group if name in value]
            if len(given) != 1:
                has = f"has {' and '.join(map(repr, given))}" if given else f"has none of {', '.join(map(repr, group))}"
                notes.add(path, f"{self.title} {has}", expected=f"exactly one of {', '.join(map(repr, group))}")
        return read

    def schema(self) -> Any:
        """Return its schema."""
        made: dict[str, Any] = {"type": "object", "title": self.title}
        if self.doc:
            made["description"] = self.doc
        made["properties"] = {key.name: _described(key) for key in self.keys}
        required = [key.name for key in self.keys if key.is_required]
        if required:
            made["required"] = required
        groups = [{"oneOf": [{"required": [name]} for name in group]} for group in self.one_of]
        if groups:
            made["allOf"] = groups
        needs = {key.name: [key.needs] for key in self.keys if key.needs}
        if needs:
            made["dependentRequired"] = needs
        made["additionalProperties"] = False
        return made


def _described(key: Key) -> Any:
    schema = key.kind.schema()
    if schema is True:
        schema = {}
    more: dict[str, Any] = {"description": key.doc}
    if key.default is not None:
        more["default"] = key.default
    # A reference stands alone: what is beside it is read, but some editors pass it over.
    return {"allOf": [schema], **more} if "$ref" in schema else {**schema, **more}


@frozen
class TextOr:
    """Takes a text of one kind, or anything else as another kind takes it."""

    text: Kind
    other: Kind

    @property
    def expected(self) -> str:
        """It in words."""
        return f"{self.text.expected}, or {self.other.expected}"

    def read(self, value: Any, path: Path, notes: Notes) -> Any:
        """Read it."""
        return (self.text if isinstance(value, str) else self.other).read(value, path, notes)

    def schema(self) -> Any:
        """Return its schema."""
        return {"anyOf": [self.text.schema(), self.other.schema()]}


@frozen
class NumberOr:
    """Takes a number of one kind, or anything else as another kind takes it."""

    number: Kind
    other: Kind

    @property
    def expected(self) -> str:
        """It in words."""
        return f"{self.number.expected}, or {self.other.expected}"

    def read(self, value: Any, path: Path, notes: Notes) -> Any:
        """Read it."""
        is_number_ = isinstance(value, (int, float)) and not isinstance(value, bool)
        return (self.number if is_number_ else self.other).read(value, path, notes)

    def schema(self) -> Any:
        """Return its schema."""
        return {"anyOf": [self.number.schema(), self.other.schema()]}


def _refuse(value: Any, path: Path, notes: Notes, *, expected: str, suggestion: str = "") -> Any:
    notes.add(path, f"it is {shown(value)}", expected=expected, suggestion=suggestion)
    return REFUSED


def _fits(pattern: str, value: str) -> bool:
    return re.search(pattern.replace("$", r"\Z"), value) is not None
