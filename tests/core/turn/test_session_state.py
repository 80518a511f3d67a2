"""A session's dict for tools holds what JSON holds, whatever is put into it, and says where something is not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from power_loop.core.turn.session_state import SessionState

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
keys = st.text() | st.integers() | st.booleans() | st.none()
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)


class Unprintable:
    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        raise RuntimeError("no words")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")


@given(keys, values)
def test_what_is_put_in_is_what_comes_back_from_the_store(key: Any, value: Any) -> None:
    state = SessionState({"there": [1]})
    state[key] = value
    assert repr(dict(state)) == repr(json.loads(json.dumps({"there": [1], key: value})))


def test_what_has_its_form_already_is_the_same_object_so_that_it_may_go_on_being_changed() -> None:
    state = SessionState({})
    items: list[int] = []
    state["items"] = items
    items.append(1)
    state.setdefault("more", []).append(2)
    assert state == {"items": [1], "more": [2]}


@pytest.mark.parametrize("value", [object(), float("nan"), {1, 2}, b"x", Unprintable(), [object()], {"a": {(): 1}}])
def test_what_is_no_json_is_refused_and_changes_nothing(value: Any) -> None:
    state = SessionState({"there": 1})
    with pytest.raises(TypeError, match=r"context\.state\['bad'\]"):
        state["bad"] = value
    with pytest.raises(TypeError):
        state.update(good=1, bad=value)
    with pytest.raises(TypeError):
        state |= {"good": 1, "bad": value}
    with pytest.raises(TypeError):
        state.setdefault("bad", value)
    with pytest.raises(TypeError):
        state[object()] = 1
    assert state == {"there": 1}


def test_a_strangers_object_inside_of_a_value_is_never_asked_anything() -> None:
    stored = {"there": [1]}
    state = SessionState(stored)
    assert state.changed(stored) is None
    state["there"][0] = Unprintable()
    assert state.changed(stored) is None, "what a running call has not finished is not stored"
    assert state.settle(stored) == ("there",)
    deep: list[Any] = []
    for _ in range(5_000):
        deep = [deep]
    state["there"].append(deep)
    assert state.settle(stored) == ("there",)
    assert state == stored


def test_a_change_inside_of_a_value_is_settled_or_dropped() -> None:
    stored = {"there": [1], "other": {"a": 1}}
    state = SessionState(stored)
    state["new"] = []
    state["new"].append(object())
    state["there"].append({1})
    state["other"]["b"] = (1,)
    assert state.changed(stored) == {"there": [1], "other": {"a": 1, "b": [1]}}
    assert state.settle(stored) == ("there", "new")
    assert state == {"there": [1], "other": {"a": 1, "b": [1]}}
    assert state["there"] is not stored["there"]
    assert stored == {"there": [1], "other": {"a": 1}}
