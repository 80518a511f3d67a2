"""Fits a schema to the strict mode of model providers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from power_loop.contracts.json_schema.check import Run
from power_loop.contracts.json_schema.compile import MAX_SCHEMA_VALUES, Compiler
from power_loop.contracts.json_schema.node import Location, declared_types
from power_loop.contracts.json_schema.pattern import StepBudget
from power_loop.contracts.json_schema.values import TYPES, equality_key

# OpenAI's documented bounds of a strict schema; beyond them it answers 400.
_MAX_PROPERTIES = 5_000
_MAX_NESTING = 10
_MAX_ENUM_VALUES = 1_000
_MAX_NAMES_CHARS = 120_000
_MAX_LONG_ENUM_CHARS = 15_000
_LONG_ENUM_VALUES = 250

_NUMBERS = ("integer", "number")
# Which types each checked keyword speaks about: of the others it says nothing.
_SPEAKS_OF: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("minLength", "maxLength", "pattern"), ("string",)),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"), _NUMBERS),
    **dict.fromkeys(("items", "prefixItems", "contains", "minItems", "maxItems", "uniqueItems"), ("array",)),
    **dict.fromkeys(("properties", "required", "additionalProperties", "patternProperties"), ("object",)),
    **dict.fromkeys(("propertyNames", "minProperties", "maxProperties"), ("object",)),
    **dict.fromkeys(("dependentRequired", "dependentSchemas"), ("object",)),
}
_ANY_TYPE = ("type", "enum", "const", "$ref", "allOf", "anyOf", "oneOf", "not", "if")
# Rules that ask for nothing, as generators of schemas write them.
_IDLE_RULES: tuple[tuple[str, Any], ...] = (
    *((rule, 0) for rule in ("minLength", "minItems", "minProperties")),
    *((rule, {}) for rule in ("patternProperties", "dependentRequired", "dependentSchemas")),
    ("uniqueItems", False),
)
# Rules that the strict subset takes as they are.
_KEPT_RULES = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minItems", "maxItems")
#: Rules that a provider which cannot hold a model to them may leave to the caller's own check of the reply.
LOOSENED_RULES = ("minLength", "maxLength", "pattern", *_KEPT_RULES, "uniqueItems")
_OBJECT_RULES = ("properties", "required", "additionalProperties")
_FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid")
#: Provider-side pattern engines know no assertions and no property classes.
NOT_IN_PATTERNS = ("(?=", "(?!", "(?P", "(?<", "\\b", "\\B", "\\p", "\\P")
_NULL = {"type": "null"}


class NotExpressible(Exception):  # noqa: N818 - a signal
    """Ends the rewriting of a schema that a provider's subset cannot express."""


def to_strict_subset(schema: Mapping[str, Any] | bool) -> dict[str, Any] | None:
    """Rewrites a schema into OpenAI's strict structured-output subset; None where that would change its meaning.

    Every property becomes required and every object closed; an optional property becomes a union with null, and
    `drop_added_nulls` takes those nulls out of a reply again. An object that says nothing about additional properties
    is closed; one that asks for them, or names no property, has no strict form. Titles and descriptions stay, defaults
    and other annotations go. Raises `SchemaError` for a malformed schema. Source of the subset and its bounds: the
    provider's guide to structured outputs.
    """
    try:
        return StrictForm(Compiler(schema)).write()
    except NotExpressible:
        return None


class StrictForm:
    """Writes the strict form of one compiled schema."""

    #: The formats of a text that the subset knows.
    formats: tuple[str, ...] = _FORMATS
    #: Whether a form may allow more than its schema does.
    may_loosen = False
    #: Whether the subset has optional properties; else they are required and may be null.
    has_optional = False

    def __init__(self, compiler: Compiler) -> None:
        self._compiler = compiler
        self._names: dict[Location, str] = {}
        self._pending: list[tuple[Location, Any]] = []

    def write(self) -> dict[str, Any]:
        """Return the form of the whole schema. Raises `NotExpressible` if it has none."""
        location, schema = self._followed((), self._compiler.root)
        form = self._rewritten(location, schema)
        if form.get("type") != "object":
            raise NotExpressible
        form.update(_words(self._compiler.root))
        definitions = {}
        while self._pending:
            location, schema = self._pending.pop()
            definitions[self._names[location]] = self._rewritten(location, schema)
        if definitions:
            form["$defs"] = definitions
        self.check_whole(form)
        return form

    def check_whole(self, form: dict[str, Any]) -> None:
        """Refuse a form that is more than the provider takes."""
        _StrictSize().measure(form, nesting=1)

    def _followed(self, location: Location, schema: Any) -> tuple[Location, Any]:
        """Goes to what a bare reference means; compiling has made sure that this ends."""
        while isinstance(schema, dict) and _rules(schema) == ["$ref"]:
            location, schema = self._compiler.target_of(schema["$ref"])
        return location, schema

    def _rewritten(self, location: Location, schema: Any) -> dict[str, Any]:
        if not isinstance(schema, dict):
            raise NotExpressible
        words = _words(schema)
        rules = _rules(schema)
        if rules == ["$ref"]:
            reference = {"$ref": self._reference(schema["$ref"])}
            # A strict reference may have no keyword beside it.
            return {**words, "anyOf": [reference]} if words else reference
        if rules == ["allOf"] and len(schema["allOf"]) == 1:
            only = self._rewritten((*location, "allOf", 0), schema["allOf"][0])
            return {"anyOf": [only], **words} if words and "$ref" in only else {**only, **words}
        if rules in (["anyOf"], ["oneOf"]):
            return {**words, "anyOf": self._union(location, schema, rules[0])}
        if "enum" in rules or "const" in rules:
            return {**self._constants(location, schema), **words}
        return self.by_type(location, schema, rules)

    def _reference(self, pointer: str) -> str:
        location, schema = self._compiler.target_of(pointer)
        if location == ():
            return "#"
        if location not in self._names:
            wanted = re.sub(r"[^A-Za-z0-9_.-]", "_", str(location[-1])) or "_"
            name, taken, count = wanted, set(self._names.values()), 1
            while name in taken:
                count += 1
                name = f"{wanted}_{count}"
            self._names[location] = name
            self._pending.append((location, schema))
        return f"#/$defs/{self._names[location]}"

    def _union(self, location: Location, schema: dict[str, Any], keyword: str) -> list[dict[str, Any]]:
        branches = schema[keyword]
        if keyword == "oneOf" and not self.may_loosen:
            # `anyOf` means the same only if no value can match two alternatives.
            for index, branch in enumerate(branches):
                if not all(self._are_disjoint(branch, other) for other in branches[index + 1 :]):
                    raise NotExpressible
        return [self._rewritten((*location, keyword, index), branch) for index, branch in enumerate(branches)]

    def _are_disjoint(self, left: Any, right: Any) -> bool:
        _, left = self._followed((), left)
        _, right = self._followed((), right)
        if not isinstance(left, dict) or not isinstance(right, dict):
            return False
        left_constants, right_constants = _constant_keys(left), _constant_keys(right)
        if left_constants is not None and right_constants is not None:
            return left_constants.isdisjoint(right_constants)
        left_types, right_types = _all_types(left), _all_types(right)
        if left_types is None or right_types is None:
            return False
        if left_types.isdisjoint(right_types):
            return True
        if left_types & right_types != {"object"}:
            return False
        for name in set(left.get("required", ())) & set(right.get("required", ())):
            left_tags, right_tags = (
                _constant_keys(self._followed((), side.get("properties", {}).get(name))[1]) for side in (left, right)
            )
            if left_tags is not None and right_tags is not None and left_tags.isdisjoint(right_tags):
                return True
        return False

    def _constants(self, location: Location, schema: dict[str, Any]) -> dict[str, Any]:
        """The values that the whole schema allows; the other keywords beside them are used up by asking it."""
        check = self._compiler.check_at(location)
        candidates = [schema["const"]] if "const" in schema else schema["enum"]
        values = []
        for value in candidates:
            if isinstance(value, (list, dict)):
                raise NotExpressible
            if Run(1).holds(check, value, path=None):
                values.append(int(value) if isinstance(value, float) and value.is_integer() else value)
        types = list(dict.fromkeys(_type_of(value) for value in values))
        if not types:
            raise NotExpressible
        if "number" in types and "integer" in types:
            types.remove("integer")
        return {"type": types[0] if len(types) == 1 else types, "enum": values}

    def by_type(self, location: Location, schema: dict[str, Any], rules: list[str]) -> dict[str, Any]:
        """Return the form of a schema that says which types it takes."""
        names = declared_types(schema)
        if names is None:
            raise NotExpressible
        relevant = [rule for rule in rules if rule != "type" and not set(names).isdisjoint(_SPEAKS_OF.get(rule, names))]
        about_objects = [rule for rule in relevant if _SPEAKS_OF.get(rule) == ("object",)]
        about_others = [rule for rule in relevant if rule not in about_objects]
        others = [name for name in names if name != "object"]
        forms = []
        if "object" in names:
            forms.append(self._object(location, schema, rules=about_objects))
        if others:
            forms.append(self._other(location, schema, names=others, rules=about_others))
        elif about_others:
            raise NotExpressible
        words = _words(schema)
        return {**forms[0], **words} if len(forms) == 1 else {**words, "anyOf": forms}

    def _other(
        self, location: Location, schema: dict[str, Any], *, names: list[str], rules: list[str]
    ) -> dict[str, Any]:
        """Everything but objects."""
        form: dict[str, Any] = {"type": names[0] if len(names) == 1 else names}
        for rule in rules:
            if rule == "items":
                form[rule] = self._rewritten((*location, "items"), schema["items"])
            elif self.keeps(rule, schema[rule]):
                form[rule] = schema[rule]
            elif not self.may_loosen or rule not in LOOSENED_RULES:
                raise NotExpressible
        if "array" in names and "items" not in form:
            raise NotExpressible
        if "string" in names and schema.get("format") in self.formats:
            form["format"] = schema["format"]
        return form

    def keeps(self, rule: str, asked: Any) -> bool:
        """Whether the subset takes a rule about a text, a number or an array as it is."""
        return rule in _KEPT_RULES or (rule == "pattern" and not any(map(asked.count, NOT_IN_PATTERNS)))

    def _object(self, location: Location, schema: dict[str, Any], *, rules: list[str]) -> dict[str, Any]:
        properties = schema.get("properties")
        required = schema.get("required", [])
        # An object that names no property and is not closed means any object at all.
        is_open = schema.get("additionalProperties", properties is None) is not False
        if is_open or not set(rules).issubset(_OBJECT_RULES) or not set(required).issubset(properties or ()):
            raise NotExpressible
        forms = {}
        for name, inner in (properties or {}).items():
            place = (*location, "properties", name)
            form = self._rewritten(place, inner)
            if not self.has_optional and name not in required and not self._accepts_null(place):
                form = _or_null(form)
            forms[name] = form
        wanted = [name for name in forms if name in required or not self.has_optional]
        return {"type": "object", "properties": forms, "required": wanted, "additionalProperties": False}

    def _accepts_null(self, location: Location) -> bool:
        return Run(1).holds(self._compiler.check_at(location), None, path=None)


def _rules(schema: dict[str, Any]) -> list[str]:
    """The keywords of a schema that constrain a value."""
    return [
        rule
        for rule, asked in schema.items()
        if (rule in _SPEAKS_OF or rule in _ANY_TYPE)
        and not any(rule == idle and asked == no for idle, no in _IDLE_RULES)
    ]


def _words(schema: Any) -> dict[str, Any]:
    if not isinstance(schema, dict):
        return {}
    return {name: schema[name] for name in ("title", "description") if isinstance(schema.get(name), str)}


def _or_null(form: dict[str, Any]) -> dict[str, Any]:
    if "anyOf" in form:
        return {**form, "anyOf": [*form["anyOf"], _NULL]}
    names = form.get("type")
    if names is None or names == "object":
        words = _words(form)
        return {**words, "anyOf": [{name: rule for name, rule in form.items() if name not in words}, _NULL]}
    form = {**form, "type": [*(names if isinstance(names, list) else [names]), "null"]}
    if "enum" in form:
        form["enum"] = [*form["enum"], None]
    return form


def _type_of(value: Any) -> str:
    return next(name for name, (classes, _) in TYPES.items() if type(value) in classes)


def _constant_keys(schema: Any) -> frozenset[Any] | None:
    if not isinstance(schema, dict):
        return None
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    return None if values is None else frozenset(equality_key(value, StepBudget(MAX_SCHEMA_VALUES)) for value in values)


def _all_types(schema: dict[str, Any]) -> set[str] | None:
    names = declared_types(schema)
    if names is None:
        constants = [schema["const"]] if "const" in schema else schema.get("enum")
        if constants is None:
            return None
        names = tuple(_type_of(value) for value in constants)
    # An integer is a number, and 1.0 is an integer.
    return {"number" if name == "integer" else name for name in names}


class _StrictSize:
    """Adds up what a strict schema holds, and refuses it when it is more than the provider takes."""

    def __init__(self) -> None:
        self._properties = 0
        self._enum_values = 0
        self._name_chars = 0

    def measure(self, form: dict[str, Any], *, nesting: int) -> None:
        properties = form.get("properties", {})
        constants = [value for value in form.get("enum", ()) if isinstance(value, str)]
        constant_chars = sum(map(len, constants))
        self._properties += len(properties)
        self._enum_values += len(form.get("enum", ()))
        self._name_chars += sum(map(len, properties)) + sum(map(len, form.get("$defs", ()))) + constant_chars
        if (
            nesting > _MAX_NESTING
            or self._properties > _MAX_PROPERTIES
            or self._enum_values > _MAX_ENUM_VALUES
            or self._name_chars > _MAX_NAMES_CHARS
            or (len(constants) > _LONG_ENUM_VALUES and constant_chars > _MAX_LONG_ENUM_CHARS)
        ):
            raise NotExpressible
        for inner in properties.values():
            self.measure(inner, nesting=nesting + 1)
        for inner in (*form.get("anyOf", ()), *form.get("$defs", {}).values()):
            self.measure(inner, nesting=nesting)
        if "items" in form:
            self.measure(form["items"], nesting=nesting)
