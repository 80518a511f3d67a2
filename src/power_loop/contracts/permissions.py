"""What the rules of a permission policy are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import Enum
from typing import TYPE_CHECKING, Any

from power_loop.contracts.errors import ConfigError
from power_loop.contracts.frozen import frozen

_MAX_PATTERN_CHARS = 500
_MAX_REASON_CHARS = 500


class Permission(str, Enum):
    """Is what a policy says to a call: go on, ask a person first, or no."""

    ALLOW = "allow"
    ASK = "ask"
    DENY = "deny"

    @property
    def strictness(self) -> int:
        """Orders them: what is higher holds back more."""
        return _ORDER[self]


_ORDER = {Permission.ALLOW: 0, Permission.ASK: 1, Permission.DENY: 2}


class PermissionMode(str, Enum):
    """Is what a policy says where no rule does: only reads are allowed; or reads are allowed and all else is asked; or
    everything is allowed. A read is a call of a tool whose effect is `read`."""

    READ_ONLY = "read_only"
    ASK_WRITES = "ask_writes"
    AUTO = "auto"


@frozen
class PermissionRule:
    """Says what holds for some calls.

    `tool` is the tool's name, or a pattern with `*`. `command` speaks of a shell command in the argument `command`: its
    words, as patterns, where a last word `*` stands for any further ones: `"git log *"`. `arguments` are patterns for
    other arguments, by name. All that is given has to fit. `reason` is what the model is told of a refusal (default: a
    sentence that names the rule).
    """

    permission: Permission
    tool: str
    command: str | None = None
    arguments: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""

    if TYPE_CHECKING:  # what is given may be wider than what is kept

        def __init__(
            self,
            permission: Permission | str,
            tool: str,
            command: str | None = None,
            arguments: Mapping[str, str] = ...,
            reason: str = "",
        ) -> None: ...

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "permission", Permission(self.permission))
        except ValueError as error:
            raise ConfigError(f"permission is {self.permission!r:.200}: give allow, ask or deny") from error
        arguments: Any = self.arguments
        if not isinstance(arguments, Mapping):
            raise ConfigError(f"arguments is {arguments!r:.200}: give a dict of patterns by the argument's name")
        if "command" in arguments:
            # As a pattern of text it would take `git status; rm -rf /` for a git command.
            raise ConfigError("arguments has a pattern for 'command': give it as command=, which reads it word by word")
        object.__setattr__(self, "arguments", dict(arguments))
        patterns: list[Any] = [self.tool, *arguments, *arguments.values()]
        patterns += [] if self.command is None else [self.command]
        for one in patterns:
            if not isinstance(one, str) or not one.strip() or len(one) > _MAX_PATTERN_CHARS:
                raise ConfigError(
                    f"a rule has the pattern {one!r:.200}: give text of at most {_MAX_PATTERN_CHARS} characters"
                )
        reason: Any = self.reason
        if not isinstance(reason, str) or len(reason) > _MAX_REASON_CHARS:
            raise ConfigError(f"a rule's reason is {reason!r:.200}: give at most {_MAX_REASON_CHARS} characters")

    @classmethod
    def allow(cls, tool: str, *, command: str | None = None, **arguments: str) -> PermissionRule:
        """Return a rule that lets calls go on: `PermissionRule.allow("bash", command="git status")`."""
        return cls(Permission.ALLOW, tool, command, arguments)

    @classmethod
    def ask(cls, tool: str, *, command: str | None = None, **arguments: str) -> PermissionRule:
        """Return a rule that has a person asked."""
        return cls(Permission.ASK, tool, command, arguments)

    @classmethod
    def deny(cls, tool: str, *, command: str | None = None, reason: str = "", **arguments: str) -> PermissionRule:
        """Return a rule that refuses calls; `reason` is what the model is told."""
        return cls(Permission.DENY, tool, command, arguments, reason)

    def to_json(self) -> dict[str, Any]:
        """Return the rule as JSON."""
        return {
            "permission": self.permission.value,
            "tool": self.tool,
            "command": self.command,
            "arguments": dict(self.arguments),
            "reason": self.reason,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> PermissionRule:
        """Return the rule of what `to_json` gave."""
        return cls(value["permission"], value["tool"], value["command"], value["arguments"], value["reason"])

    def __str__(self) -> str:
        given = {} if self.command is None else {"command": self.command}
        shown = ", ".join(f"{name}={pattern!r}" for name, pattern in {**given, **self.arguments}.items())
        return f"{self.permission.value} {self.tool}" + (f" with {shown}" if shown else "")
