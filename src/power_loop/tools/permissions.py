"""Says of a tool call whether it goes on, waits for a person, or is refused: by rules, and by a mode for the rest."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from power_loop.contracts.choices import choice_of
from power_loop.contracts.errors import ConfigError
from power_loop.contracts.frozen import frozen
from power_loop.contracts.hooks import PlannedCall, RequireApproval, ToolBeforeContext, Veto
from power_loop.contracts.permissions import Permission, PermissionMode, PermissionRule
from power_loop.contracts.states import Effect
from power_loop.contracts.tools import ToolDefinition
from power_loop.tools.command_line import Unclear, read_command

_MAX_RULES = 1_000
#: A tree of agents is not deeper than that.
MAX_ABOVE = 64
# What a person is shown of a call beside its arguments, which they see in full.
_MAX_SHOWN_CHARS = 300
# A path's other names are looked for behind it.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# The argument of which `PermissionRule.command` speaks.
_COMMAND = "command"


@frozen
class Verdict:
    """Is what a policy says to a call, and why."""

    permission: Permission
    why: str


@frozen
class PermissionPolicy:
    """Decides about tool calls before they run. It is a policy for an agent that means well, and no wall: what a tool
    can do once it runs is the sandbox's matter.

    The first of `rules` that fits a call decides; where none does, `mode` does (default `ask_writes`). Of a shell
    command that runs several programs each is judged by itself, and the strictest verdict counts. Where it is not clear
    what a command runs, no rule that speaks of commands allows it, and one that would ask or refuse has a person asked.
    """

    rules: tuple[PermissionRule, ...] = ()
    mode: PermissionMode = PermissionMode.ASK_WRITES
    above: tuple[PermissionPolicy, ...] = ()

    if TYPE_CHECKING:  # what is given may be wider than what is kept

        def __init__(
            self,
            rules: list[PermissionRule] | tuple[PermissionRule, ...] = (),
            mode: PermissionMode | str = PermissionMode.ASK_WRITES,
            above: tuple[PermissionPolicy, ...] = (),
        ) -> None: ...

    def __post_init__(self) -> None:
        rules: Any = self.rules
        if not isinstance(rules, (list, tuple)) or not all(isinstance(one, PermissionRule) for one in rules):
            raise ConfigError(f"rules is {rules!r:.200}: give a list of PermissionRules")
        if len(rules) > _MAX_RULES:
            raise ConfigError(f"there are {len(rules)} rules, and at most {_MAX_RULES} are taken: use patterns")
        object.__setattr__(self, "rules", tuple(rules))
        object.__setattr__(self, "mode", choice_of(PermissionMode, self.mode, "mode"))
        above: Any = self.above
        if not isinstance(above, tuple) or not all(isinstance(one, PermissionPolicy) for one in above):
            raise ConfigError(f"above is {above!r:.200}: use policy.under(parent)")
        if len(above) > MAX_ABOVE:
            raise ConfigError(f"a policy stands under {len(above)} others, and at most {MAX_ABOVE} are taken")

    def under(self, parent: PermissionPolicy) -> PermissionPolicy:
        """Return this policy for the child of an agent that has the policy `parent`: what either holds back is held
        back, so that a child never may what its parent may not."""
        if not isinstance(parent, PermissionPolicy):
            raise ConfigError(f"parent is {parent!r:.200}: give a PermissionPolicy")
        return PermissionPolicy(self.rules, self.mode, (*self.above, parent))

    def verdict(self, tool: ToolDefinition, arguments: Mapping[str, Any]) -> Verdict:
        """Return what holds for a call of a tool: the strictest of what this policy and those above it say."""
        verdicts = [self._own_verdict(tool, arguments), *(one.verdict(tool, arguments) for one in self.above)]
        return _strictest(verdicts)

    def decide(self, call: PlannedCall) -> Veto | RequireApproval | None:
        """Return the decision about a planned call: None lets it go on."""
        verdict = self.verdict(call.tool, call.arguments)
        if verdict.permission is Permission.DENY:
            return Veto(verdict.why)
        if verdict.permission is Permission.ASK:
            return RequireApproval(_question(call), data={"why": verdict.why})
        return None

    def __call__(self, context: ToolBeforeContext) -> Veto | RequireApproval | None:
        """Decide as a hook at `tool.before`, for hooks of one's own; `LoopConfig.permissions` needs none."""
        return self.decide(context.call)

    # ---- inside ----

    def _own_verdict(self, tool: ToolDefinition, arguments: Mapping[str, Any]) -> Verdict:
        rules = [one for one in self.rules if _fits(one, tool, arguments)]
        if _COMMAND not in arguments or all(one.command is None for one in rules):
            return self._first(tool, (one for one in rules if one.command is None))
        command = arguments[_COMMAND]
        commands = read_command(command) if isinstance(command, str) else Unclear("it is no text")
        if isinstance(commands, Unclear):
            return self._of_unclear(tool, rules, commands)
        return _strictest([self._first(tool, (one for one in rules if _speaks_of(one, words))) for words in commands])

    def _first(self, tool: ToolDefinition, rules: Iterator[PermissionRule]) -> Verdict:
        rule = next(rules, None)
        return self._of_mode(tool) if rule is None else _of_rule(rule)

    def _of_unclear(self, tool: ToolDefinition, rules: list[PermissionRule], unclear: Unclear) -> Verdict:
        """A rule about commands may fit or not: what it allows is not allowed, and what it holds back is asked."""
        doubt = Verdict(Permission.ALLOW, "")
        for rule in rules:
            if rule.command is None:
                return _strictest([_of_rule(rule), doubt])
            if rule.permission is not Permission.ALLOW:
                doubt = Verdict(Permission.ASK, f"it is not clear what the command runs: {unclear.why}")
        return _strictest([self._of_mode(tool), doubt])

    def _of_mode(self, tool: ToolDefinition) -> Verdict:
        if self.mode is PermissionMode.AUTO or tool.effect is Effect.READ:
            return Verdict(Permission.ALLOW, f"the mode is {self.mode.value}")
        if self.mode is PermissionMode.ASK_WRITES:
            return Verdict(Permission.ASK, f"{tool.name!r} can change something")
        return Verdict(
            Permission.DENY,
            f"this agent may only read, and {tool.name!r} can change something. Go on with what reads, and say what"
            " remains to be done",
        )


def _of_rule(rule: PermissionRule) -> Verdict:
    why = f"the rule is: {rule}"
    if rule.permission is Permission.DENY:
        why = rule.reason or f"{why}. Reach the goal in another way, or say what you could not do; do not try again"
    return Verdict(rule.permission, why)


def _strictest(verdicts: list[Verdict]) -> Verdict:
    # The first of equals, whose reason is the most direct.
    return max(verdicts, key=lambda one: one.permission.strictness)


def _fits(rule: PermissionRule, tool: ToolDefinition, arguments: Mapping[str, Any]) -> bool:
    if not fnmatchcase(tool.name, rule.tool):
        return False
    return all(
        name in arguments and _is_value(pattern, arguments[name], rule) for name, pattern in rule.arguments.items()
    )


def _is_value(pattern: str, value: Any, rule: PermissionRule) -> bool:
    """Tell whether a value fits. A path has several names: to be allowed all that is looked at have to fit, to be held
    back one is enough."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return _is_text(pattern, text, rule)


def _is_text(pattern: str, text: str, rule: PermissionRule) -> bool:
    scheme = _SCHEME.match(text)
    start = scheme.end() if scheme is not None else 0
    plain = text[:start] + (posixpath.normpath(text[start:]) if text[start:] else "")
    names = {text, plain, plain.replace("//", "/", 1)} if scheme is None else {text, plain}
    fits = [fnmatchcase(one, pattern) for one in names]
    return all(fits) if rule.permission is Permission.ALLOW else any(fits)


def _speaks_of(rule: PermissionRule, words: tuple[str, ...]) -> bool:
    if rule.command is None or _are_words(rule.command, words, rule):
        return True
    # What is held back by its name is held back by its path too.
    is_path = rule.permission is not Permission.ALLOW and "/" in words[0]
    return is_path and _are_words(rule.command, (words[0].rpartition("/")[2], *words[1:]), rule)


def _are_words(pattern: str, words: tuple[str, ...], rule: PermissionRule) -> bool:
    wanted = pattern.split()
    if wanted[-1] == "*":
        wanted.pop()
        words, has_all = words[: len(wanted)], len(words) >= len(wanted)
    else:
        has_all = len(words) == len(wanted)
    return has_all and all(_is_text(one, word, rule) for word, one in zip(words, wanted, strict=True))


def _question(call: PlannedCall) -> str:
    command = call.arguments.get(_COMMAND)
    about = command if isinstance(command, str) else json.dumps(dict(call.arguments), ensure_ascii=False)
    shown = about if len(about) <= _MAX_SHOWN_CHARS else f"{about[:_MAX_SHOWN_CHARS]}…"
    # What a terminal would obey is shown, not sent.
    visible = "".join(char if char.isprintable() else repr(char)[1:-1] for char in shown)
    return f"Run {call.tool.name} ({visible})?"
