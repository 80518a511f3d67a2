"""Makes the JSON Schema of the workflow language, for editors and models, from the tables that the parser reads by."""

from __future__ import annotations

from typing import Any

from power_loop.workflow.grammar import BINARY_COMPARISON, COMBINATIONS, NODES, UNARY_COMPARISON, WORKFLOW

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def workflow_schema() -> dict[str, Any]:
    """Return the schema: it takes whatever the parser's tables take, and nothing else."""
    conditions = [*COMBINATIONS.values(), BINARY_COMPARISON, UNARY_COMPARISON]
    return {
        "$schema": DIALECT,
        **WORKFLOW.schema(),
        "title": "A workflow of power-loop",
        "$defs": {
            "node": _node(),
            **{kind: record.schema() for kind, record in NODES.items()},
            "condition": {"anyOf": [record.schema() for record in conditions]},
        },
    }


def _node() -> dict[str, Any]:
    """Return the schema of a node: its type decides, so that a validator looks at what stands below it once only."""
    decisions = [
        {"if": {"properties": {"type": {"const": kind}}, "required": ["type"]}, "then": {"$ref": f"#/$defs/{kind}"}}
        for kind in NODES
    ]
    return {
        "type": "object",
        "properties": {"type": {"enum": list(NODES), "description": "What kind of node it is."}},
        "required": ["type"],
        "allOf": decisions,
    }


#: The JSON Schema of the workflow language (draft 2020-12).
WORKFLOW_SCHEMA = workflow_schema()
