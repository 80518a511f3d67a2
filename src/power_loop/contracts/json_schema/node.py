"""Reads the keywords of one schema object and turns them into one check."""

from __future__ import annotations

from typing import Any, Protocol, TypeGuard

from power_loop.contracts.json_schema import combinations, containers, scalars
from power_loop.contracts.json_schema.check import Check, in_sequence
from power_loop.contracts.json_schema.pattern import Pattern
from power_loop.contracts.json_schema.pattern_syntax import PatternError
from power_loop.contracts.json_schema.problems import literal, quoted, shown
from power_loop.contracts.json_schema.values import TYPES, has_type

# A place in a schema, from the root.
Location = tuple[str | int, ...]


class Places(Protocol):
    """Is the whole schema, as the reader of one of its places sees it."""

    def check_for(self, location: Location, schema: Any, *, level: int) -> Check | None:
        """Compiles the schema at a place, `level` places below the one that a reference or the root entered."""
        ...

    def check_later(self, location: Location, schema: Any) -> combinations.Slot:
        """Gives the slot of a place that need not be compiled yet."""
        ...

    def target_of(self, pointer: str) -> tuple[Location, Any]:
        """Finds what a local reference points to; raises `LookupError` when that is nothing."""
        ...

    def note_same_value(self, location: Location, other: Location) -> None:
        """Notes that one place applies another to the value it was given."""
        ...

    def refuse(self, location: Location, keyword: str, *, message: str) -> None:
        """Notes a problem of the schema."""
        ...


class Node:
    """Reads the keywords of one schema object and turns them into one check."""

    def __init__(self, compiler: Places, location: Location, *, schema: dict[str, Any], level: int) -> None:
        self._compiler = compiler
        self._location = location
        self._schema = schema
        self._level = level

    def compiled(self) -> Check | None:
        """Gives the check of the whole object; None accepts everything."""
        for keyword in ("$defs", "definitions"):
            for location, schema in self._schemas_by_name(keyword):
                self._compiler.check_later(location, schema)
        for keyword in ("$dynamicRef", "$recursiveRef"):
            if keyword in self._schema:
                message = f"{keyword} is not supported: use $ref with '#/$defs/...'"
                self._compiler.refuse((*self._location, keyword), keyword, message=message)
        names = self._types()
        constants = self._constants()
        checks = [scalars.equal_to(values, keyword) for keyword, values in constants]
        found = (self._string(), self._number_bounds(), self._array(), *self._object(), *self._combinations())
        checks.extend(check for check in found if check is not None)
        # Constants that all have the type say more than the type does.
        if names is None or any(all(has_type(value, names) for value in values) for _, values in constants):
            return in_sequence(checks)
        return scalars.typed(names, in_sequence(checks))

    # -- reading keywords --

    def _refuse(self, keyword: str, expected: str) -> None:
        message = f"must be {expected}, got {shown(self._schema[keyword])}"
        self._compiler.refuse((*self._location, keyword), keyword, message=message)

    def _count(self, keyword: str) -> int | None:
        value = self._schema.get(keyword)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
        if keyword in self._schema:
            self._refuse(keyword, "a whole number from 0")
        return None

    def _number(self, keyword: str) -> float | None:
        value = self._schema.get(keyword)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return value
        if keyword in self._schema:
            self._refuse(keyword, "a number")
        return None

    def _pattern(self, source: str, location: Location) -> Pattern | None:
        try:
            return Pattern(source)
        except PatternError as error:
            message = f"the pattern {quoted(source)} cannot be used: {error}"
            self._compiler.refuse(location, "pattern", message=message)
        return None

    def _below(self, *steps: str | int, schema: Any, same_value: bool) -> Check | None:
        location = (*self._location, *steps)
        if same_value:
            self._compiler.note_same_value(self._location, location)
        return self._compiler.check_for(location, schema, level=self._level + 1)

    def _check_of(self, keyword: str, *, same_value: bool = False) -> Check | None:
        """The check of a keyword that holds a schema; None also when the keyword is absent."""
        if keyword not in self._schema:
            return None
        return self._below(keyword, schema=self._schema[keyword], same_value=same_value)

    def _schemas_by_name(self, keyword: str) -> list[tuple[Location, Any]]:
        schemas = self._schema.get(keyword, {})
        if isinstance(schemas, dict):
            return [((*self._location, keyword, name), schema) for name, schema in schemas.items()]
        self._refuse(keyword, "an object of schemas")
        return []

    def _checks_by_name(self, keyword: str, *, same_value: bool = False) -> dict[str, Check | None]:
        return {
            str(location[-1]): self._below(keyword, location[-1], schema=schema, same_value=same_value)
            for location, schema in self._schemas_by_name(keyword)
        }

    def _checks_in_list(self, keyword: str, *, same_value: bool = False) -> list[Check | None]:
        schemas = self._schema.get(keyword)
        if isinstance(schemas, list) and schemas:
            return [self._below(keyword, at, schema=schema, same_value=same_value) for at, schema in enumerate(schemas)]
        if keyword in self._schema:
            self._refuse(keyword, "an array of at least one schema")
        return []

    # -- keywords for any value --

    def _types(self) -> tuple[str, ...] | None:
        if "type" not in self._schema:
            return None
        names = declared_types(self._schema)
        if names is None:
            message = f"must be one or several of {', '.join(TYPES)}, got {literal(self._schema['type'])}"
            self._compiler.refuse((*self._location, "type"), "type", message=message)
        return names

    def _constants(self) -> list[tuple[str, list[Any]]]:
        constants = []
        if "enum" in self._schema:
            if isinstance(self._schema["enum"], list):
                constants.append(("enum", self._schema["enum"]))
            else:
                self._refuse("enum", "an array of values")
        if "const" in self._schema:
            constants.append(("const", [self._schema["const"]]))
        return constants

    def _combinations(self) -> list[Check | None]:
        every = [check for check in self._checks_in_list("allOf", same_value=True) if check is not None]
        condition = self._check_of("if", same_value=True)
        then = self._check_of("then", same_value=True)
        otherwise = self._check_of("else", same_value=True)
        forbidden = self._check_of("not", same_value=True)
        some = self._branches("anyOf")
        one = self._branches("oneOf")
        return [
            self._reference(),
            combinations.all_of(every) if every else None,
            combinations.any_of(some) if all(branch.check is not None for branch in some) and some else None,
            combinations.exactly_one_of(one) if one else None,
            combinations.negated(forbidden, literal(self._schema["not"])) if "not" in self._schema else None,
            combinations.conditional(condition, then, otherwise=otherwise) if "if" in self._schema else None,
        ]

    def _branches(self, keyword: str) -> list[combinations.Branch]:
        checks = self._checks_in_list(keyword, same_value=True)
        return [
            combinations.Branch(check, declared_types(schema), number=number)
            for number, (check, schema) in enumerate(zip(checks, self._schema.get(keyword, ()), strict=False), start=1)
        ]

    def _reference(self) -> Check | None:
        if "$ref" not in self._schema:
            return None
        pointer = self._schema["$ref"]
        if not isinstance(pointer, str):
            self._refuse("$ref", "a string")
            return None
        try:
            location, target = self._compiler.target_of(pointer)
        except LookupError:
            reason = "points to nothing in this schema" if pointer.startswith("#/") else "is not '#' and not '#/...'"
            message = f"the reference {quoted(pointer)} {reason}: only places in the same schema can be used"
            self._compiler.refuse((*self._location, "$ref"), "$ref", message=message)
            return None
        self._compiler.note_same_value(self._location, location)
        return combinations.referred(self._compiler.check_later(location, target), weight=self._level + 1)

    # -- keywords for values of one type --

    def _string(self) -> Check | None:
        pattern = None
        source = self._schema.get("pattern")
        if isinstance(source, str):
            pattern = self._pattern(source, (*self._location, "pattern"))
        elif "pattern" in self._schema:
            self._refuse("pattern", "a string")
        return scalars.string(self._count("minLength") or 0, self._count("maxLength"), pattern=pattern)

    def _number_bounds(self) -> Check | None:
        divisor = self._number("multipleOf")
        if divisor is not None and divisor <= 0:
            self._refuse("multipleOf", "a number above 0")
            divisor = None
        return scalars.number(
            self._number("minimum"),
            self._number("maximum"),
            above=self._number("exclusiveMinimum"),
            below=self._number("exclusiveMaximum"),
            divisor=divisor,
        )

    def _array(self) -> Check | None:
        leading, rest = "prefixItems", "items"
        if isinstance(self._schema.get("items"), list) and "prefixItems" not in self._schema:
            leading, rest = "items", "additionalItems"
        contains = None
        wanted = self._check_of("contains")
        least, most = self._count("minContains"), self._count("maxContains")
        if "contains" in self._schema:
            text = literal(self._schema["contains"])
            contains = containers.containing(wanted, 1 if least is None else least, most=most, text=text)
        is_unique = self._schema.get("uniqueItems", False)
        if not isinstance(is_unique, bool):
            self._refuse("uniqueItems", "true or false")
        return containers.array(
            (self._checks_in_list(leading), self._check_of(rest)),
            self._count("minItems") or 0,
            most=self._count("maxItems"),
            contains=contains,
            is_unique=is_unique is True,
        )

    def _object(self) -> list[Check | None]:
        properties = self._checks_by_name("properties")
        additional = self._check_of("additionalProperties")
        required = self._schema.get("required", [])
        if not _is_names(required):
            self._refuse("required", "an array of strings")
            required = []
        required = list(dict.fromkeys(required))
        patterns = []
        for location, schema in self._schemas_by_name("patternProperties"):
            pattern = self._pattern(str(location[-1]), location)
            check = self._below("patternProperties", location[-1], schema=schema, same_value=False)
            if pattern is not None:
                patterns.append((pattern, check))
        dependents = self._schema.get("dependentRequired", {})
        if not isinstance(dependents, dict) or not all(_is_names(names) for names in dependents.values()):
            self._refuse("dependentRequired", "an object of arrays of strings")
            dependents = {}
        return [
            containers.members(properties, required, additional=None if patterns else additional),
            containers.patterned(properties, patterns, additional=additional) if patterns else None,
            containers.sized(self._count("minProperties") or 0, self._count("maxProperties")),
            containers.named(self._check_of("propertyNames")),
            containers.dependent(dependents, self._checks_by_name("dependentSchemas", same_value=True)),
        ]


def _is_names(names: Any) -> TypeGuard[list[str]]:
    return isinstance(names, list) and all(isinstance(name, str) for name in names)


def declared_types(schema: Any) -> tuple[str, ...] | None:
    """The types that a schema names itself; None when it names none (or wrong ones)."""
    declared = schema.get("type") if isinstance(schema, dict) else None
    names = declared if isinstance(declared, list) else [declared]
    if names and all(isinstance(name, str) and name in TYPES for name in names):
        return tuple(dict.fromkeys(names))
    return None
