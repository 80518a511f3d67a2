"""Says what a case of the suite is: a coroutine function that is given a fresh store and fails where it is wrong."""

from __future__ import annotations

import contextlib
import inspect
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from power_loop import SessionStore
from power_loop.testing.conformance.parts import HandClock
from power_loop.timers import Clock

E = TypeVar("E", bound=BaseException)


class Place(Protocol):
    """Is one fresh, empty database, on which a case opens as many handles as it likes."""

    async def open(self, clock: Clock) -> SessionStore:
        """Return a handle that takes the time from `clock`."""
        ...


class Check:
    """Is a function with `@check`: what the suite asks, once for every combination of what it is `over`.

    The function names what it needs: `store` is a handle on a fresh database, `place` that database, `clock` the clock
    of both; any other parameter is one of `over`.
    """

    def __init__(self, function: Callable[..., Awaitable[None]], over: dict[str, Sequence[Any]]) -> None:
        self.function = function
        self.over = over
        self.__doc__ = function.__doc__

    def cases(self) -> Iterator[Case]:
        """Yield its cases in order."""
        name, room = self.function.__name__, self.function.__module__.rpartition(".")[2]
        for numbers in itertools.product(*(range(len(values)) for values in self.over.values())):
            chosen = zip(self.over.items(), numbers, strict=True)
            arguments = {key: values[number] for (key, values), number in chosen}
            suffix = f"[{'-'.join(map(str, numbers))}]" if numbers else ""
            yield Case(room, name + suffix, self.function, arguments)


@dataclass(frozen=True)
class Case:
    """Is one thing that a store has to do. `room` is the part of the suite, `name` a sentence."""

    room: str
    name: str
    function: Callable[..., Awaitable[None]]
    arguments: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.room}: {self.name}"

    async def run(self, place: Place) -> None:
        """Run it on a fresh database; it raises where the store is wrong."""
        wanted = inspect.signature(self.function).parameters
        clock = HandClock()
        given: dict[str, Any] = {"place": place, "clock": clock}
        async with contextlib.AsyncExitStack() as stack:
            if "store" in wanted:
                given["store"] = await stack.enter_async_context(_opened(place, clock))
            await self.function(**{key: value for key, value in given.items() if key in wanted}, **self.arguments)


def check(**over: Sequence[Any]) -> Callable[[Callable[..., Awaitable[None]]], Check]:
    """Make a function a part of the suite."""
    return lambda function: Check(function, over)


class Raised(Generic[E]):
    """Is the error that a block raised."""

    value: E


class raises(Generic[E]):  # noqa: N801 - reads as a word of the language where it is used
    """Fails unless its block raises an error of a kind, which `value` then is."""

    def __init__(self, kind: type[E]) -> None:
        self._kind = kind
        self._raised: Raised[E] = Raised()

    def __enter__(self) -> Raised[E]:
        return self._raised

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if error is None:
            raise AssertionError(f"{self._kind.__name__} was not raised")
        if not isinstance(error, self._kind):
            return False
        self._raised.value = error
        return True


@contextlib.asynccontextmanager
async def _opened(place: Place, clock: Clock) -> AsyncIterator[SessionStore]:
    store = await place.open(clock)
    try:
        yield store
    finally:
        await store.aclose()
