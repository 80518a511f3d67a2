"""Is what a person or the application says to a tool call that waits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from power_loop.contracts.frozen import frozen


@frozen
class Approve:
    """Lets a call run, with other `arguments` if they are given; they have to fit the tool's schema."""

    arguments: Mapping[str, Any] | None = None


@frozen
class Deny:
    """Refuses a call; the model is told `reason`."""

    reason: str = ""


@frozen
class Give:
    """Brings a call's result: whatever a handler may return. `is_error` marks it as an error for the model."""

    result: Any
    is_error: bool = False


Answer = Approve | Deny | Give
