"""Keeps the application's hooks and asks or tells them at each point of a turn."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, TypeVar

from power_loop.contracts.errors import ConfigError, HookError, PowerLoopError
from power_loop.contracts.events import HookFailed
from power_loop.contracts.frozen import frozen
from power_loop.contracts.hooks import (
    Decision,
    HookContext,
    HookPoint,
    Park,
    Postpone,
    RequireApproval,
    Rewrite,
    Skip,
    ToolAfterContext,
    Veto,
)
from power_loop.contracts.llm import LLMRequest, LLMResponse
from power_loop.contracts.messages import content_of
from power_loop.contracts.numbers import is_number
from power_loop.contracts.tools import ToolResult
from power_loop.core.stray import EXITS, cancellations, is_stray, said

#: What a hook may be: a function of the point's context, sync or async.
HookCallback = Callable[[Any], Decision | None] | Callable[[Any], Awaitable[Decision | None]]
C = TypeVar("C", bound=HookContext)
F = TypeVar("F", bound=Callable[..., Any])
#: Awaits what an async hook returns, in the caller's way.
Wait = Callable[[Awaitable[Any]], Awaitable[Any]]

# What a Rewrite carries at a point that allows one, and what a Skip carries.
_REWRITTEN = {
    HookPoint.SEND_START: "content",
    HookPoint.LLM_BEFORE: "request",
    HookPoint.LLM_AFTER: "response",
    HookPoint.TOOL_BEFORE: "arguments",
    HookPoint.TOOL_AFTER: "result",
    HookPoint.TOOL_ERROR: "result",
    HookPoint.TIMER_FIRE: "content",
}
_SKIPPED_WITH = {HookPoint.LLM_BEFORE: "response", HookPoint.TOOL_BEFORE: "result"}
# A firing that is put off for longer than this was not meant to come at all.
_MAX_POSTPONED_S = 366 * 86_400
_TYPES: dict[str, tuple[type, ...]] = {
    "content": (str, list, tuple),
    "request": (LLMRequest,),
    "response": (LLMResponse,),
    "arguments": (Mapping,),
    "result": (str, ToolResult),
}


class HookHandle:
    """Is one registered hook; `remove()` takes it out."""

    __slots__ = ("_remove", "callback", "name", "order", "point")

    def __init__(
        self,
        point: HookPoint,
        callback: Callable[[Any], Any],
        *,
        name: str,
        order: int,
        remove: Callable[[HookHandle], bool],
    ) -> None:
        self.point = point
        self.callback = callback
        self.name = name
        self.order = order
        self._remove = remove

    def remove(self) -> bool:
        """Take the hook out; False if it was out already. A call that runs is not stopped."""
        return self._remove(self)

    def __repr__(self) -> str:
        return f"HookHandle({self.point.value!r}, {self.name!r}, order={self.order})"


@frozen
class Consulted(Generic[C]):
    """Is what the hooks of a point said: the context with everything they rewrote, and the decision."""

    context: C
    decision: Decision | None


class Hooks:
    """Holds hooks by point, each with a name of its own there; runs them by `order`, then as they were added.

    A sync hook runs inside the turn and must be quick; an async one is awaited. Hooks may be added and removed at any
    time; a step that runs goes on with those it began with.
    """

    def __init__(self) -> None:
        self._hooks: dict[HookPoint, tuple[HookHandle, ...]] = {}

    def add(
        self, point: HookPoint | str, callback: HookCallback, *, name: str | None = None, order: int = 0
    ) -> HookHandle:
        """Add a hook; lower `order` runs first. The name is the function's unless given. Raises `config.invalid`."""
        at = _point(point)
        if not callable(callback):
            raise ConfigError(f"hook {callback!r} cannot be called: give a function of one context")
        there = self._hooks.get(at, ())
        taken = {handle.name for handle in there}
        if name is not None and name in taken:
            raise ConfigError(f"hook {name!r} stands at {at.value!r} already: remove it first, or choose another name")
        handle = HookHandle(at, callback, name=name or _free_name(callback, taken), order=order, remove=self._take_out)
        self._hooks[at] = tuple(sorted((*there, handle), key=lambda one: one.order))
        return handle

    def on(self, point: HookPoint | str, *, name: str | None = None, order: int = 0) -> Callable[[F], F]:
        """Return a decorator that adds the function as a hook and leaves it as it is."""

        def add(callback: F) -> F:
            self.add(point, callback, name=name, order=order)
            return callback

        return add

    def remove(self, hook: str | HookHandle, *, point: HookPoint | str | None = None) -> bool:
        """Take out a hook, by its handle or by its name at every point (or at `point`); False if there was none."""
        if isinstance(hook, HookHandle):
            return self._take_out(hook)
        points = list(HookPoint) if point is None else [_point(point)]
        found = [one for at in points for one in self._hooks.get(at, ()) if one.name == hook]
        for one in found:
            self._take_out(one)
        return bool(found)

    def names(self, point: HookPoint | str) -> tuple[str, ...]:
        """Return the names of a point's hooks in the order in which they run."""
        return tuple(handle.name for handle in self._hooks.get(_point(point), ()))

    def has(self, point: HookPoint) -> bool:
        """Tell whether anybody looks in at this point."""
        return point in self._hooks

    def copy(self) -> Hooks:
        """Return hooks of their own that start with these."""
        copy = Hooks()
        for handles in self._hooks.values():
            for handle in handles:
                copy.add(handle.point, handle.callback, name=handle.name, order=handle.order)
        return copy

    async def ask(self, context: HookContext, *, wait: Wait | None = None) -> Decision | None:
        """Return what the hooks of the context's point decide; None lets things go on. See `consult`."""
        return (await self.consult(context, wait=wait)).decision

    async def consult(self, context: C, *, wait: Wait | None = None) -> Consulted[C]:
        """Ask the hooks of the context's point one after the other.

        A Rewrite changes the context that the following hooks see, and all rewrites together are the decision; any
        other decision ends the questions. Raises `hook.failed` if a hook raises or decides what its point does not
        allow: the step that it guards must not happen then. `wait` awaits what an async hook returns.
        """
        point, before = context.point, cancellations()
        rewritten: Rewrite | None = None
        for handle in self._hooks.get(point, ()):
            try:
                decision = handle.callback(context)
                if decision is not None and inspect.isawaitable(decision):
                    decision = await (decision if wait is None else wait(decision))
                if decision is None:
                    continue
                _check(decision, context)
                if not isinstance(decision, Rewrite):
                    return Consulted(context, decision)
                context, rewritten = _rewrite(context, decision)
            except EXITS:
                raise
            except BaseException as error:
                if isinstance(error, asyncio.CancelledError) and not is_stray(before):
                    raise
                raise _hook_error(point, handle.name, error) from error
        return Consulted(context, rewritten)

    async def tell(
        self, context: HookContext, on_error: Callable[[HookFailed], None], *, wait: Wait | None = None
    ) -> None:
        """Tell the hooks of a point where nothing is decided; what they raise goes to `on_error` and stops nothing.

        `wait` awaits what an async hook returns.
        """
        for handle in self._hooks.get(context.point, ()):
            error = await _tell(handle, context, wait)
            if error is not None:
                on_error(HookFailed(context.point.value, handle.name, _words(error)))

    def _take_out(self, handle: HookHandle) -> bool:
        there = self._hooks.get(handle.point, ())
        # Not by identity: a handle also names the hook's twin in a copy. Not by name alone: another may bear it by now.
        left = tuple(one for one in there if one.name != handle.name or one.callback is not handle.callback)
        if left:
            self._hooks[handle.point] = left
        else:
            self._hooks.pop(handle.point, None)
        return len(left) < len(there)


async def _tell(handle: HookHandle, context: HookContext, wait: Wait | None) -> BaseException | None:
    before = cancellations()
    try:
        returned = handle.callback(context)
        if returned is not None and inspect.isawaitable(returned):
            returned = await (returned if wait is None else wait(returned))
        if returned is not None:
            _check(returned, context)
    except EXITS:
        raise
    except BaseException as error:
        if isinstance(error, asyncio.CancelledError) and not is_stray(before):
            raise
        return error
    return None


def _point(point: HookPoint | str) -> HookPoint:
    try:
        return HookPoint(point)
    except ValueError as error:
        known = ", ".join(one.value for one in HookPoint)
        raise ConfigError(f"there is no hook point {point!r}: the points are {known}") from error


def _free_name(callback: object, taken: set[str]) -> str:
    """Return the callback's own name; two lambdas at one point are told apart by a number."""
    own = getattr(callback, "__qualname__", None) or type(callback).__qualname__
    name, count = own, 1
    while name in taken:
        count += 1
        name = f"{own} ({count})"
    return name


def _check(decision: object, context: HookContext) -> None:
    """Raise if the point does not allow the decision, or if it does not carry what it needs there."""
    allowed = context.allows
    if not isinstance(decision, allowed):
        names = ", ".join(one.__name__ for one in allowed)
        may = f"None or one of {names}" if names else "None only, because nothing is decided there"
        raise _WrongDecisionError(f"returned {_shown(decision)}, and a hook of this point may return {may}")
    if isinstance(context, ToolAfterContext) and context.is_stored:
        raise _WrongDecisionError(
            f"returned {_shown(decision)}, and the result of {context.call.tool.name!r} was committed together with its"
            " effect, so that nothing rewrites it: ask context.is_stored first"
        )
    if isinstance(decision, Rewrite):
        _check_fields(decision, _REWRITTEN[context.point])
    elif isinstance(decision, Skip):
        _check_fields(decision, _SKIPPED_WITH[context.point])
    elif isinstance(decision, Postpone) and not is_number(decision.seconds, above=0, most=_MAX_POSTPONED_S):
        raise _WrongDecisionError(
            f"returned Postpone({decision.seconds!r:.80}), and a timer is postponed by seconds above 0, up to a year"
        )


def _check_fields(decision: Rewrite | Skip, wanted: str) -> None:
    given = [one.name for one in dataclasses.fields(decision) if getattr(decision, one.name) is not None]
    kind = type(decision).__name__
    if given != [wanted]:
        got = ", ".join(f"{name}=..." for name in given)
        raise _WrongDecisionError(f"returned {kind}({got}), and this point takes {kind}({wanted}=...)")
    value = getattr(decision, wanted)
    types = _TYPES[wanted]
    if not isinstance(value, types):
        names = " or ".join(one.__name__ for one in types)
        raise _WrongDecisionError(f"returned {kind}({wanted}={value!r:.80}), and {wanted} has to be a {names}")


def _rewrite(context: C, rewrite: Rewrite) -> tuple[C, Rewrite]:
    """Return the context as the next hook sees it, and the rewrite with its value in the context's form."""
    field = _REWRITTEN[context.point]
    value: Any = getattr(rewrite, field)
    if field == "content":
        value = content_of(value)
    elif field == "result" and isinstance(value, str):
        value = ToolResult(value)
    changes: dict[str, Any] = {field: value}
    if field == "arguments":
        call: Any = getattr(context, "call")  # noqa: B009  (only tool.before has it, which the type cannot say)
        # What a person approved is these arguments; others are not approved.
        is_approved = call.is_approved and value == call.arguments
        changes = {"call": dataclasses.replace(call, arguments=value, is_approved=is_approved)}
    return dataclasses.replace(context, **changes), Rewrite(**{field: value})


class _WrongDecisionError(Exception):
    """Says what is wrong with what a hook returned."""


def _hook_error(point: HookPoint, name: str, error: BaseException) -> HookError:
    return HookError(
        f"hook {name!r} at {point.value!r} {_words(error)}; the step it guards did not happen: mend or remove the hook",
        point=point.value,
        hook=name,
    )


def _words(error: BaseException) -> str:
    if isinstance(error, _WrongDecisionError):
        return str(error)
    if isinstance(error, PowerLoopError):
        return f"raised {type(error).__name__} ({error.code}): {error}"
    return f"raised {said(error)}"


def _shown(value: object) -> str:
    kind = type(value)
    return kind.__name__ if kind in (Veto, Skip, Rewrite, RequireApproval, Park, Postpone) else f"{value!r:.80}"
