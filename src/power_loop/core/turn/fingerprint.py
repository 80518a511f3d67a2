"""Tells whether two inputs are the same, for a send that is repeated with its request id."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields

from power_loop.contracts.messages import ContentPart


def fingerprint(content: tuple[ContentPart, ...]) -> str:
    """Return a hash of an input's parts: of what is set in them, so that a field added later changes no old hash."""
    described = [
        [
            type(part).__name__,
            {field.name: value for field in fields(part) if (value := getattr(part, field.name)) is not None},
        ]
        for part in content
    ]
    text = json.dumps(described, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()
