"""Draws schemas and values of a vocabulary so small that they meet."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

NAMES = ("a", "b", "c", "kind")
TYPES = ("string", "integer", "number", "boolean", "object", "array", "null")
# They mean the same to `re` for texts without line ends.
PATTERNS = ("^a", "b$", "a+b?c", "[a-c]{2}", "^(a|b)*$", "1", "^.$", "k|c", "")
DEFINITIONS = ("A", "B")

names = st.sampled_from(NAMES)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 4),
    st.sampled_from((0.0, 0.5, 1.0, 1.5, -2.0, 2.25, 1e20)),
    st.text("abc1", max_size=4),
    names,
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(names, inner, max_size=4)),
    max_leaves=8,
)

_numbers = st.one_of(st.integers(-2, 4), st.sampled_from((0.5, 1.5, 2.25)))
_sizes = st.integers(0, 3)
_name_lists = st.lists(names, max_size=3, unique=True)


def _keyword(name: str, below: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    schema_lists = st.lists(below, min_size=1, max_size=3)
    if name in _CONSTANT_KEYWORDS:
        return _CONSTANT_KEYWORDS[name]
    if name in ("allOf", "anyOf", "oneOf", "prefixItems"):
        return schema_lists
    if name in ("properties", "dependentSchemas"):
        return st.dictionaries(names, below, max_size=3)
    if name == "patternProperties":
        return st.dictionaries(st.sampled_from(PATTERNS), below, max_size=2)
    return below


_CONSTANT_KEYWORDS: dict[str, st.SearchStrategy[Any]] = {
    "type": st.one_of(st.sampled_from(TYPES), st.lists(st.sampled_from(TYPES), min_size=1, max_size=3, unique=True)),
    "enum": st.lists(values, min_size=1, max_size=4),
    "const": values,
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), _sizes),
    **dict.fromkeys(("minContains", "maxContains"), _sizes),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _numbers),
    "multipleOf": st.sampled_from((1, 2, 3, 0.5, 0.25)),
    "pattern": st.sampled_from(PATTERNS),
    "uniqueItems": st.booleans(),
    "required": _name_lists,
    "dependentRequired": st.dictionaries(names, _name_lists, max_size=2),
    "$ref": st.sampled_from(("#", *(f"#/$defs/{name}" for name in DEFINITIONS))),
}
_SCHEMA_KEYWORDS = (
    *("items", "prefixItems", "contains", "properties", "patternProperties", "additionalProperties", "propertyNames"),
    *("dependentSchemas", "allOf", "anyOf", "oneOf", "not", "if", "then", "else"),
)
# One that a schema draws often belongs to values that are drawn often.
_KEYWORDS = (*_CONSTANT_KEYWORDS, "type", "type", *_SCHEMA_KEYWORDS, "properties", "required", "anyOf")
_COMPANIONS = {"contains": ("minContains", "maxContains"), "if": ("then", "else"), "prefixItems": ("items",)}


@st.composite
def _subschemas(draw: st.DrawFn, depth: int) -> Any:
    if depth == 0:
        return draw(st.one_of(st.booleans(), st.fixed_dictionaries({"type": _CONSTANT_KEYWORDS["type"]})))
    if draw(st.integers(0, 19)) == 0:
        return draw(st.booleans())
    below = _subschemas(depth - 1)
    chosen = draw(st.lists(st.sampled_from(_KEYWORDS), max_size=3, unique=True))
    for keyword in tuple(chosen):
        chosen += draw(st.lists(st.sampled_from(_COMPANIONS[keyword]), unique=True)) if keyword in _COMPANIONS else ()
    return {keyword: draw(_keyword(keyword, below)) for keyword in dict.fromkeys(chosen)}


@st.composite
def schemas(draw: st.DrawFn) -> dict[str, Any]:
    """A schema of every keyword that is checked, with two definitions that it may refer to."""
    root = draw(_subschemas(3))
    whole = dict(root) if isinstance(root, dict) else {"allOf": [root]}
    whole["$defs"] = {name: draw(_subschemas(2)) for name in DEFINITIONS}
    return whole
