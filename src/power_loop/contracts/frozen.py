"""Makes record classes whose instances never change, at a tenth of the import time of `dataclass(frozen=True)`.

The package has about a hundred of them, and `dataclasses` compiles six methods of each: that alone was two thirds of
the time between the start of a process and its first reply. These share their methods; see the decision page
`docs/en/decisions/records.md` for the figures.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_: Any) -> Callable[[Any], Any]:
        """Stand in for what only type checkers read."""
        return lambda decorator: decorator


C = TypeVar("C", bound=type)
_MISSING: Any = object()


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def frozen(cls: C) -> C:
    """Make a class of its annotated fields: slotted, immutable, compared and hashed by value.

    It reads like a dataclass: defaults, `dataclasses.field(default=..., default_factory=..., compare=..., repr=...)`,
    `ClassVar`s, inheritance from another frozen class, `__post_init__`; and `dataclasses.replace`, `fields` and
    `asdict` work on it.
    """
    shape = _Shape(cls)
    body = {name: value for name, value in cls.__dict__.items() if name not in shape.replaced}
    body |= {
        "__slots__": tuple(shape.own),
        "__match_args__": tuple(shape.names),
        "__signature__": _LazySignature(),
        **{name: _Lazy(name) for name in _DESCRIPTION},
        "__setattr__": _refuse_set,
        "__delattr__": _refuse_delete,
        "__reduce__": _reduce,
    }
    body.setdefault("__repr__", _repr)
    if "__eq__" not in body:
        body["__eq__"] = _eq
        body.setdefault("__hash__", _hash)
    made: Any = type(cls)(cls.__name__, cls.__bases__, body)
    made.__qualname__ = cls.__qualname__
    shape.finish(made)
    made.__init__ = _init_of(shape, has_post_init=hasattr(made, "__post_init__"))
    return made  # type: ignore[no-any-return]


class _Shape:
    """Is the fields of one class, in order, with their defaults."""

    __slots__ = ("compared", "defaults", "factories", "names", "own", "replaced", "setters", "shown", "values")

    def __init__(self, cls: type) -> None:
        base: _Shape | None = getattr(cls, "__shape__", None)
        hints = inspect.get_annotations(cls)
        own = [name for name in hints if not str(hints[name]).startswith(("ClassVar", "typing.ClassVar"))]
        self.own: list[str] = own if base is None else [name for name in own if name not in base.names]
        self.names: list[str] = self.own if base is None else [*base.names, *self.own]
        self.defaults: dict[str, Any] = {} if base is None else dict(base.defaults)
        self.factories: dict[str, Callable[[], Any]] = {} if base is None else dict(base.factories)
        hidden = set() if base is None else set(base.names).difference(base.shown)
        unequal = set() if base is None else set(base.names).difference(base.compared)
        for name in own:
            default = cls.__dict__.get(name, _MISSING)
            if isinstance(default, dataclasses.Field):
                if default.default_factory is not dataclasses.MISSING:
                    self.factories[name] = default.default_factory
                if not default.repr:
                    hidden.add(name)
                if default.compare is False:
                    unequal.add(name)
                default = _MISSING if default.default is dataclasses.MISSING else default.default
            if default is not _MISSING:
                self.defaults[name] = default
        self.shown: list[str] = [name for name in self.names if name not in hidden]
        self.compared: list[str] = [name for name in self.names if name not in unequal]
        self.replaced = {*own, "__dict__", "__weakref__"}

    def finish(self, made: Any) -> None:
        """Learn what only the finished class has: the slots, through which alone its fields are written."""
        made.__shape__ = self
        self.setters = {name: getattr(made, name).__set__ for name in self.names}
        self.values = _getter(self.compared)


def _getter(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    if not names:
        return lambda _: ()
    get = attrgetter(*names)
    return get if len(names) > 1 else lambda one: (get(one),)


def _init_of(shape: _Shape, *, has_post_init: bool) -> Callable[..., None]:
    names, factories = shape.names, shape.factories
    count = len(names)
    puts = list(shape.setters.values())
    # What is left to be filled behind so many positional arguments.
    tails = [
        tuple((name, shape.setters[name], shape.defaults.get(name, _MISSING)) for name in names[taken:])
        for taken in range(count + 1)
    ]

    def __init__(self: Any, *args: Any, **given: Any) -> None:  # noqa: N807
        taken = len(args)
        if taken > count:
            raise TypeError(f"{type(self).__name__}() takes {count} arguments, and {taken} were given")
        for put, value in zip(puts, args):  # noqa: B905 - the rest comes by name or by default
            put(self, value)
        if taken < count or given:
            used = 0
            for name, put, default in tails[taken]:
                if name in given:
                    put(self, given[name])
                    used += 1
                elif default is not _MISSING:
                    put(self, default)
                elif name in factories:
                    put(self, factories[name]())
                else:
                    raise TypeError(f"{type(self).__name__}() needs {name!r}")
            if used != len(given):
                unused = [name for name in given if name not in names[taken:]]
                raise TypeError(_unexpected(type(self).__name__, unused, names))
        if has_post_init:
            self.__post_init__()

    return __init__


def _unexpected(kind: str, given: Iterable[str], names: list[str]) -> str:
    twice = [name for name in given if name in names]
    if twice:
        return f"{kind}() got {', '.join(map(repr, twice))} twice"
    return f"{kind}() has no {', '.join(map(repr, given))}: its fields are {', '.join(names)}"


class _Lazy:
    """Lets `dataclasses` describe a class when somebody asks for it: its fields and its parameters."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type) -> Any:
        # Asked of a subclass that adds nothing, the description is its frozen base's.
        home: Any = next(one for one in owner.__mro__ if one.__dict__.get(self._name) is self)
        twin = _twin(home)
        for name in _DESCRIPTION:
            setattr(home, name, getattr(twin, name))
        return home.__dict__[self._name]


class _LazySignature:
    """Shows the parameters of a class to `inspect.signature` and `help`."""

    __slots__ = ()

    def __get__(self, instance: object, owner: type) -> inspect.Signature:
        if instance is not None:  # an instance that can be called has a signature of its own
            raise AttributeError("__signature__")
        return inspect.signature(_twin(owner))


def _twin(cls: Any) -> Any:
    """Return a dataclass of the same fields."""
    shape: _Shape = cls.__shape__
    hints: dict[str, Any] = {}
    for one in reversed(cls.__mro__):
        hints |= inspect.get_annotations(one)
    body: dict[str, Any] = {
        "__module__": cls.__module__,
        "__doc__": cls.__doc__ or "",
        "__annotations__": {name: hints[name] for name in shape.names},
    }
    for name in shape.names:
        more: dict[str, Any] = {"repr": name in shape.shown, "compare": name in shape.compared}
        if name in shape.factories:
            more["default_factory"] = shape.factories[name]
        elif name in shape.defaults:
            more["default"] = shape.defaults[name]
        body[name] = dataclasses.field(**more)
    return dataclasses.dataclass(frozen=True)(type(cls.__name__, (), body))


_DESCRIPTION = ("__dataclass_fields__", "__dataclass_params__")


def _eq(self: Any, other: Any) -> Any:
    if other.__class__ is not self.__class__:
        return NotImplemented
    values = self.__shape__.values
    return bool(values(self) == values(other))


def _hash(self: Any) -> int:
    return hash((self.__class__, self.__shape__.values(self)))


def _repr(self: Any) -> str:
    shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__shape__.shown)
    return f"{type(self).__qualname__}({shown})"


def _refuse_set(self: object, name: str, value: object) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_delete(self: object, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


def _reduce(self: Any) -> Any:
    return _revive, (self.__class__, tuple(getattr(self, name) for name in self.__shape__.names))


def _revive(kind: Any, values: tuple[Any, ...]) -> Any:
    """Make an instance as it was copied or pickled, without running its `__post_init__` again."""
    made = kind.__new__(kind)
    for put, value in zip(kind.__shape__.setters.values(), values, strict=True):
        put(made, value)
    return made
