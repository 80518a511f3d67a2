"""Holds JSON from a model to its schema.

`compile_schema` checks a schema and gives a `Validator`; `loads_strict` reads JSON text; `native_form` gives a schema
as a provider takes it, and `drop_added_nulls` brings a reply in such a form back.

The dialect is JSON Schema 2020-12, the part that tool and output schemas use: `type`, `enum`, `const`, `minLength`,
`maxLength`, `pattern`, `minimum`, `maximum`, `exclusiveMinimum`, `exclusiveMaximum`, `multipleOf`, `items`,
`prefixItems`, `contains`, `minContains`, `maxContains`, `minItems`, `maxItems`, `uniqueItems`, `required`,
`properties`, `patternProperties`, `additionalProperties`, `propertyNames`, `minProperties`, `maxProperties`,
`dependentRequired`, `dependentSchemas`, `allOf`, `anyOf`, `oneOf`, `not`, `if`/`then`/`else`, boolean schemas, and
`$ref` to `#` or `#/...` (so `$defs` and `definitions`). The draft-7 array form of `items` with `additionalItems` is
read as `prefixItems` with `items`. Every other keyword is an annotation and is not checked: that includes `format`,
`$id`, `unevaluatedProperties` and `unevaluatedItems`. `$dynamicRef`, anchors and remote references are refused.

Schemas and values may be hostile. A schema is copied, bounded and checked as a whole before it is used; a reference
cycle that consumes no input is refused. A check has a budget of steps and of depth; when one runs out, the value is
reported as too large or too deep to check, never as valid. Patterns never backtrack.
"""

from power_loop.contracts.json_schema.added_nulls import drop_added_nulls
from power_loop.contracts.json_schema.compile import SchemaError, Validator, compile_schema
from power_loop.contracts.json_schema.native import NativeForm, SchemaDialect, native_form
from power_loop.contracts.json_schema.problems import Problem
from power_loop.contracts.json_schema.strict import to_strict_subset
from power_loop.contracts.json_schema.text import InvalidJson, loads_strict

__all__ = [
    "InvalidJson",
    "NativeForm",
    "Problem",
    "SchemaDialect",
    "SchemaError",
    "Validator",
    "compile_schema",
    "drop_added_nulls",
    "loads_strict",
    "native_form",
    "to_strict_subset",
]
