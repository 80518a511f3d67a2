"""Is what a person or the application says to a tool call that waits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Approve:
    """Lets a call run, with other `arguments` if they are given; they have to fit the tool's schema."""

    arguments: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Deny:
    """Refuses a call; the model is told `reason`."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Give:
    """Brings a call's result: whatever a handler may return. `is_error` marks it as an error for the model."""

    result: Any
    is_error: bool = False


Answer = Approve | Deny | Give
