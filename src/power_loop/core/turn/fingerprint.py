"""Tells whether two requests are the same, for a send that is repeated with its request id."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from power_loop.contracts.messages import ContentPart


def fingerprint(content: tuple[ContentPart, ...], output_schema: Mapping[str, Any] | None = None) -> str:
    """Return a hash of what a caller asked: an input's parts, and the form that the answer has to have.

    Of the parts, what is set in them is hashed, so that a field added later changes no old hash.
    """
    described: list[Any] = [
        [
            type(part).__name__,
            {field.name: value for field in fields(part) if (value := getattr(part, field.name)) is not None},
        ]
        for part in content
    ]
    if output_schema is not None:
        described.append(["output_schema", output_schema])
    text = json.dumps(described, sort_keys=True, ensure_ascii=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode("ascii")).hexdigest()
