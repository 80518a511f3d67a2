"""Holds the head of a skill to the Agent Skills format (https://agentskills.io/specification)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from power_loop.contracts.errors import ToolError
from power_loop.contracts.frozen import frozen
from power_loop.contracts.messages import clean_text
from power_loop.tools.front_matter import read_head

MAX_NAME_CHARS = 64
MAX_DESCRIPTION_CHARS = 1_024
MAX_COMPATIBILITY_CHARS = 500

_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_MAX_LICENSE_CHARS = 500
_MAX_ALLOWED_TOOLS = 200
_MAX_METADATA = 100


@frozen
class Skill:
    """Is what is known of a skill before it is loaded: the fields of its head, and its `folder`, an absolute path.

    `allowed_tools` are the tools that its author wants it to use; they allow nothing here.
    """

    name: str
    description: str
    folder: str
    license: str | None = None
    compatibility: str | None = None
    allowed_tools: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)


def read_skill_head(head: str, folder: str) -> Skill:
    """Return the skill in a folder by its head. Raises `tool.failed` for what the format does not allow."""
    fields = read_head(head)
    name = _text(fields, "name", MAX_NAME_CHARS)
    if name is None or _NAME.fullmatch(name) is None:
        raise ToolError(
            f"its name is {name!r}: give at most {MAX_NAME_CHARS} lower-case letters and digits, with single hyphens"
            " between them"
        )
    if name != os.path.basename(folder):
        raise ToolError(f"its name is {name!r}, and its folder is {os.path.basename(folder)!a}: give both the same")
    description = _text(fields, "description", MAX_DESCRIPTION_CHARS)
    if not description:
        raise ToolError("it has no description: say what the skill does and when to use it")
    return Skill(
        name,
        description,
        folder,
        license=_text(fields, "license", _MAX_LICENSE_CHARS),
        compatibility=_text(fields, "compatibility", MAX_COMPATIBILITY_CHARS),
        allowed_tools=_allowed_tools(fields.get("allowed-tools", "")),
        metadata=_metadata(fields.get("metadata", {})),
    )


def _text(fields: Mapping[str, Any], key: str, max_chars: int) -> str | None:
    value = fields.get(key, "")
    if not isinstance(value, str):
        raise ToolError(f"its {key} is no text")
    text = clean_text(value).strip()
    if len(text) > max_chars:
        raise ToolError(f"its {key} has {len(text):,} characters, and {max_chars:,} are the most")
    return text or None


def _allowed_tools(value: Any) -> tuple[str, ...]:
    # The format has one text of names between spaces; lists are common.
    names = value.split() if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(one, str) for one in names) or len(names) > _MAX_ALLOWED_TOOLS:
        raise ToolError(f"its allowed-tools are no text of at most {_MAX_ALLOWED_TOOLS} names between spaces")
    return tuple(map(clean_text, names))


def _metadata(value: Any) -> dict[str, str]:
    if value == "":
        return {}
    if not isinstance(value, dict) or len(value) > _MAX_METADATA:
        raise ToolError(f"its metadata is no mapping of at most {_MAX_METADATA} names to texts")
    for key, one in value.items():
        if not isinstance(one, str):
            raise ToolError(f"its metadata {key!r:.100} is no text")
    return {clean_text(key): clean_text(one) for key, one in value.items()}
