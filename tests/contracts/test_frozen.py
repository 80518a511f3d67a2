"""The record classes behave as frozen dataclasses do."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from dataclasses import FrozenInstanceError, dataclass, field
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from power_loop.contracts.frozen import frozen


@frozen
class Point:
    """A place."""

    kind: ClassVar[str] = "point"

    x: int
    y: int = 0
    tags: list[str] = field(default_factory=list)
    memo: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def total(self) -> int:
        """Both."""
        return self.x + self.y


@frozen
class Named(Point):
    """A place with a name."""

    kind = "named"

    name: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name.strip())


@dataclass(frozen=True, slots=True)
class Twin:
    """The same by the standard library."""

    x: int
    y: int = 0
    tags: list[str] = field(default_factory=list)
    memo: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)


def test_fields_defaults_and_class_variables_are_what_they_are_in_a_dataclass() -> None:
    assert [one.name for one in dataclasses.fields(Named)] == ["x", "y", "tags", "memo", "name"]
    assert Named(1, name=" a ").name == "a"
    assert (Point.kind, Named.kind, Point(1, 2).total) == ("point", "named", 3)
    assert Point(1).tags is not Point(1).tags
    assert dataclasses.asdict(Point(1)) == {"x": 1, "y": 0, "tags": [], "memo": {}}
    assert dataclasses.is_dataclass(Point)
    assert str(inspect.signature(Named)).startswith("(x: 'int', y: 'int' = 0")
    assert inspect.signature(Point).parameters.keys() == inspect.signature(Twin).parameters.keys()


def test_an_instance_never_changes_and_has_no_other_attributes() -> None:
    point = Point(1)
    with pytest.raises(FrozenInstanceError):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        del point.x
    with pytest.raises(FrozenInstanceError):
        point.z = 2  # type: ignore[attr-defined]
    assert not hasattr(point, "__dict__")


@given(st.integers(), st.integers(), st.lists(st.text()))
def test_it_is_compared_shown_and_replaced_as_a_dataclass_is(x: int, y: int, tags: list[str]) -> None:
    ours, theirs = Point(x, y, tags, {"a": 1}), Twin(x, y, tags, {"a": 1})
    assert repr(ours) == repr(theirs).replace("Twin", "Point")
    assert ours == Point(x, y, list(tags))
    assert ours != theirs
    assert (ours == Point(y, x, tags)) == (theirs == Twin(y, x, tags))
    changed = dataclasses.replace(ours, x=x + 1)
    assert (changed.x, changed.y, changed.memo is ours.memo) == (x + 1, y, True)
    for twin in (copy.copy(ours), copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert twin == ours
        assert twin.memo == ours.memo


def test_equal_records_have_one_hash() -> None:
    @frozen
    class Pair:
        """Two."""

        a: int
        b: str

    assert hash(Pair(1, "a")) == hash(Pair(1, "a"))
    assert len({Pair(1, "a"), Pair(1, "a"), Pair(2, "a")}) == 2


@pytest.mark.parametrize(
    ("args", "given_by_name", "message"),
    [
        ((), {}, "needs 'x'"),
        ((1, 2, [], {}, 5), {}, "takes 4 arguments, and 5 were given"),
        ((1,), {"x": 1}, "got 'x' twice"),
        ((1,), {"z": 1}, "has no 'z': its fields are x, y, tags, memo"),
    ],
)
def test_wrong_arguments_are_refused_in_words(
    args: tuple[Any, ...], given_by_name: dict[str, Any], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        Point(*args, **given_by_name)


def test_an_application_may_extend_a_record_with_a_dataclass_of_its_own() -> None:
    @dataclass(frozen=True, slots=True)
    class Marked(Point):
        mark: str = "m"

    marked = Marked(1, mark="n")
    assert (marked.x, marked.mark, dataclasses.replace(marked, x=3).x) == (1, "n", 3)
    assert marked == Marked(1, mark="n")
