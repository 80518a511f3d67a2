"""Says what an agent does while it is killed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from power_loop.errors import ConfigError
from power_loop.testing.matrix.references import Reference, reference_to

#: How another process goes on with what a dead one left: each then carries the scenario out again, whose request ids
#: tell what was done already.
WAYS = ("resume", "again", "recover")


class Scenario:
    """Is what an application does with an agent in one session, from its input to its answer.

    `run` is an async function of (loop, session id) at the top of a module, or a text to send. It is carried out again
    behind every fault, so its sends have a `request_id`. `check` is an async function of (loop, session id) that looks
    at the end and returns what is wrong with it, in words. `is_same_end` False says that the session may end otherwise
    than without the fault, such as when it is cancelled. `ways` are those of going on that are tried.
    """

    def __init__(
        self,
        name: str,
        run: Reference,
        *,
        check: Callable[..., Any] | str | None = None,
        is_same_end: bool = True,
        ways: Iterable[str] = ("resume",),
    ) -> None:
        self.name = name
        self.is_same_end = is_same_end
        self.ways = tuple(ways)
        unknown = [way for way in self.ways if way not in WAYS]
        if unknown or not self.ways or "/" in name:
            raise ConfigError(f"scenario {name!r} with the ways {self.ways}: give a name without / and some of {WAYS}")
        if isinstance(run, str) and ":" not in run.partition(" ")[0]:
            self.told: dict[str, Any] = {"text": run}
        else:
            self.told = {"run": reference_to(run)}
        if check is not None:
            self.told["check"] = reference_to(check)

    @property
    def references(self) -> list[str]:
        """The functions that a process has to find."""
        return [self.told[key] for key in ("run", "check") if key in self.told]


def scenarios_of(value: Any) -> list[Scenario]:
    """Return scenarios of whatever names them: one or several, each a Scenario, a function, or a text to send."""
    if isinstance(value, (str, Scenario)) or callable(value):
        value = [value]
    made = []
    for at, one in enumerate(value, 1):
        if isinstance(one, Scenario):
            made.append(one)
        else:
            made.append(Scenario(getattr(one, "__name__", f"send{at}"), one))
    names = [one.name for one in made]
    if not made or len(set(names)) < len(names):
        raise ConfigError(f"the scenarios are named {names}: give at least one, each with a name of its own")
    return made
