"""Decides in which form a provider is given a schema that a reply has to fit, or that it is given none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from power_loop.contracts.frozen import frozen
from power_loop.contracts.json_schema.anthropic_subset import to_anthropic_subset
from power_loop.contracts.json_schema.strict import to_strict_subset

#: Which schemas a model takes natively: all of them, OpenAI's or Anthropic's.
SchemaDialect = Literal["any", "openai", "anthropic"]


@frozen
class NativeForm:
    """Is a schema as a provider takes it; `is_strict` tells whether the provider holds the model to it exactly."""

    schema: Mapping[str, Any]
    is_strict: bool = False


def native_form(schema: Mapping[str, Any], dialect: SchemaDialect) -> NativeForm | None:
    """Return what is sent of a schema; None if the dialect cannot express it, so that it has to be asked for in words.

    Raises `SchemaError` for a malformed schema.
    """
    if dialect == "any":
        return NativeForm(dict(schema))
    if dialect == "anthropic":
        form = to_anthropic_subset(schema)
        return None if form is None else NativeForm(form, is_strict=True)
    strict = to_strict_subset(schema)
    if strict is not None:
        return NativeForm(strict, is_strict=True)
    # Without its strict mode, this wire takes any schema of an object.
    return NativeForm(dict(schema)) if schema.get("type") == "object" else None
