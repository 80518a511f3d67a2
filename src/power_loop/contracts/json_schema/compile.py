"""Turns a schema into checks, once, or refuses it with every reason."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any, NoReturn

from power_loop.contracts.json_schema import combinations
from power_loop.contracts.json_schema.check import MAX_PROBLEMS, Check, Enough, Run, check_never
from power_loop.contracts.json_schema.node import Location, Node
from power_loop.contracts.json_schema.pattern import OutOfSteps
from power_loop.contracts.json_schema.problems import Problem, path_text, place_text, shown
from power_loop.contracts.json_schema.values import MAX_DEPTH, TooDeep

# JSON values in one schema: the largest published tool schemas have a tenth of it.
MAX_SCHEMA_VALUES = 50_000
# Bits of an integer in a schema: more than any double has, few enough to print and to divide by.
MAX_SCHEMA_INTEGER_BITS = 2_048


class SchemaError(ValueError):
    """Says that a schema is malformed or not supported; `problems` holds every reason, with its place in the schema."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        self.problems = problems
        reasons = "; ".join(f"{problem.path}: {problem.message}" for problem in problems[:5])
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        super().__init__(f"the JSON Schema cannot be used: {reasons}{more}")


class Validator:
    """A compiled schema; safe to keep, to share between threads and to use for any number of values.

    `schema` is the copy of the schema that it was compiled from, in plain JSON.
    """

    __slots__ = ("_check", "schema")

    def __init__(self, compiler: Compiler) -> None:
        self.schema: Any = compiler.root
        self._check = compiler.check_at(())

    def problems(self, value: Any) -> tuple[Problem, ...]:
        """Lists what is wrong with a value, at most `MAX_PROBLEMS` in a fixed order; nothing if it is valid."""
        check = self._check
        if check is None:
            return ()
        run = Run(MAX_PROBLEMS)
        try:
            check(value, None, run)
        except Enough:
            pass
        except OutOfSteps:
            run.found.append(
                (None, "limit", "the value is too large to be checked against its schema: send less at a time")
            )
        except (TooDeep, RecursionError):
            run.found.append(
                (None, "limit", "the value is nested too deeply to be checked against its schema: flatten it")
            )
        if not run.found:
            return ()
        return tuple(Problem(place_text(path), message, keyword) for path, keyword, message in run.found)


def compile_schema(schema: Mapping[str, Any] | bool) -> Validator:
    """Checks a schema as a whole and returns its validator; raises `SchemaError` with every problem of the schema.

    The schema is copied: changing it afterwards changes nothing.
    """
    return Validator(Compiler(schema))


class Compiler:
    """Turns every place of one schema into a check, once, and gathers all problems of the schema on the way."""

    def __init__(self, schema: Mapping[str, Any] | bool) -> None:
        """Compiles the schema; raises `SchemaError`."""
        self._problems: list[Problem] = []
        self._slots: dict[Location, combinations.Slot] = {}
        self._pending: list[tuple[Location, Any]] = []
        # From each place to those that look at the same value: a cycle in here would never end.
        self._same_value: dict[Location, list[Location]] = {}
        self._values = 0
        try:
            self.root = self._copied(schema, ())
            self.check_for((), self.root, level=0)
            while self._pending:
                location, target = self._pending.pop()
                self.check_for(location, target, level=0)
        except RecursionError:
            self.refuse((), "limit", message="the schema is nested too deeply")
        self._refuse_cycles()
        if self._problems:
            raise SchemaError(tuple(self._problems))

    def check_at(self, location: Location) -> Check | None:
        """The check of a place in the schema; None accepts everything."""
        return self._slots[location].check

    def target_of(self, pointer: str) -> tuple[Location, Any]:
        """Finds what a local reference points to; raises `LookupError` when that is nothing."""
        schema = self.root
        location: Location = ()
        for token in _pointer_tokens(pointer):
            if isinstance(schema, dict):
                schema = schema[token]
                location += (token,)
            elif isinstance(schema, list) and token.isascii() and token.isdecimal() and len(token) < 9:
                schema = schema[int(token)]
                location += (int(token),)
            else:
                raise LookupError(pointer)
        return location, schema

    def check_for(self, location: Location, schema: Any, *, level: int) -> Check | None:
        """Compiles the schema at a place, `level` places below the one that a reference or the root entered."""
        slot = self._slots.setdefault(location, combinations.Slot())
        if not slot.is_done:
            slot.is_done = True
            slot.check = self._compiled(location, schema, level=level)
        return slot.check

    def check_later(self, location: Location, schema: Any) -> combinations.Slot:
        """The slot of a place that need not be compiled yet."""
        slot = self._slots.setdefault(location, combinations.Slot())
        if not slot.is_done:
            self._pending.append((location, schema))
        return slot

    def note_same_value(self, location: Location, other: Location) -> None:
        """Notes that one place applies another to the value it was given."""
        self._same_value.setdefault(location, []).append(other)

    def refuse(self, location: Location, keyword: str, *, message: str) -> None:
        """Notes a problem of the schema."""
        if len(self._problems) < MAX_PROBLEMS:
            self._problems.append(Problem(path_text(location), message, keyword))

    def _compiled(self, location: Location, schema: Any, *, level: int) -> Check | None:
        if schema is True:
            return None
        if schema is False:
            return check_never
        if not isinstance(schema, dict):
            self.refuse(location, "type", message=f"a schema must be an object or a boolean, got {shown(schema)}")
            return None
        return Node(self, location, schema=schema, level=level).compiled()

    def _copied(self, value: Any, location: Location) -> Any:
        """Copies plain JSON out of what the caller handed in; refuses what could not stand in a JSON file."""
        self._values += 1
        if self._values > MAX_SCHEMA_VALUES:
            self._give_up(location, f"the schema holds more than {MAX_SCHEMA_VALUES} values")
        if len(location) > MAX_DEPTH:
            self._give_up((), f"the schema is nested deeper than {MAX_DEPTH} levels, or contains itself")
        if isinstance(value, Mapping):
            for name in value:
                if not isinstance(name, str):
                    self._give_up(location, f"the name {name!r} must be a string")
            return {name: self._copied(item, (*location, name)) for name, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._copied(item, (*location, index)) for index, item in enumerate(value)]
        if isinstance(value, int) and value.bit_length() > MAX_SCHEMA_INTEGER_BITS:
            self._give_up(location, "the number is too large")
        if isinstance(value, float) and not isfinite(value):
            self._give_up(location, f"{value!r} is not a JSON number")
        if value is not None and not isinstance(value, (str, bool, int, float)):
            self._give_up(location, f"must be JSON, got {shown(value)}")
        return value

    def _give_up(self, location: Location, message: str) -> NoReturn:
        raise SchemaError((Problem(path_text(location), message, "limit"),))

    def _refuse_cycles(self) -> None:
        finished: set[Location] = set()
        for start in self._same_value:
            if start in finished:
                continue
            trail: list[tuple[Location, Iterator[Location]]] = [(start, iter(self._same_value[start]))]
            on_trail = {start}
            while trail:
                location, following = trail[-1]
                target = next(following, None)
                if target is None:
                    trail.pop()
                    on_trail.discard(location)
                    finished.add(location)
                elif target in on_trail:
                    message = f"leads back to {path_text(target)} without consuming any of the value"
                    self.refuse(location, "$ref", message=message)
                elif target not in finished:
                    trail.append((target, iter(self._same_value.get(target, ()))))
                    on_trail.add(target)


def _pointer_tokens(pointer: str) -> list[str]:
    """The steps of `#/a/b`; raises `LookupError` for any other kind of reference."""
    if pointer == "#":
        return []
    if not pointer.startswith("#/"):
        raise LookupError(pointer)
    try:
        text = re.sub(r"(?:%[0-9A-Fa-f]{2})+", lambda found: bytes.fromhex(found[0].replace("%", "")).decode(), pointer)
    except UnicodeDecodeError as error:
        raise LookupError(pointer) from error
    return [token.replace("~1", "/").replace("~0", "~") for token in text[2:].split("/")]
