"""Makes specs of workflows for tests, and random ones of every kind of node."""

from __future__ import annotations

import copy
import random
from typing import Any

from hypothesis import strategies as st

RESEARCH: dict[str, Any] = {
    "name": "research", "input": "the Japanese tea ceremony",
    "root": {"type": "sequence", "steps": [
        {"type": "agent", "id": "plan",
         "spec": {"name": "planner", "system_prompt": "Break the topic into 3 subtopics."},
         "output_schema": {"name": "Plan", "schema": {"type": "object", "required": ["subtopics"],
            "properties": {"subtopics": {"type": "array", "items": {"type": "string"}}}}}},
        {"type": "foreach", "id": "research", "items_from": "plan.subtopics", "as": "t",
         "parallel": True, "max_concurrency": 3,
         "body": {"type": "agent", "id": "r",
                  "spec": {"name": "researcher", "system_prompt": "Write 2 sentences on {{t}}."},
                  "input": "Subtopic: {{t}}"}},
        {"type": "agent", "id": "write",
         "spec": {"name": "writer", "system_prompt": "Synthesize the notes."},
         "inputs_from": ["research"]},
    ]},
}  # fmt: skip


def research() -> dict[str, Any]:
    """Return the research workflow of the README, to be changed."""
    return copy.deepcopy(RESEARCH)


def agent(name: str, prompt: str = "Work.", **more: Any) -> dict[str, Any]:
    """Return an agent node."""
    return {"type": "agent", "id": name, "spec": {"system_prompt": prompt}, **more}


def workflow(root: Any, **more: Any) -> dict[str, Any]:
    """Return a workflow."""
    return {"name": "w", "root": root, **more}


# --- JSON that is nearly a workflow ---

_SOME_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", " ", "a", "x.y", "{{input}}", "halt", "continue", "any", "eq", "is_true", "agent", "0.50"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["a", "type", "id", "ref", "op", "value", "all", "schema"]), inner, max_size=2
        )
    ),
    max_leaves=4,
)
#: One thing somewhere in a spec that is changed: what to put there, or to take away.
CHANGES = st.one_of(
    st.tuples(st.just("put"), _SOME_JSON),
    st.tuples(st.just("drop"), st.none()),
    st.tuples(
        st.just("add"),
        st.tuples(
            st.sampled_from(["id", "when", "extra", "max_concurrency", "choices", "at", "items", "value", "needs"]),
            _SOME_JSON,
        ),
    ),
)


def places_of(value: Any) -> list[tuple[Any, Any]]:
    """Return every place in some JSON: its container and its key."""
    found: list[tuple[Any, Any]] = []
    pending = [value]
    while pending:
        one = pending.pop()
        keys = list(one) if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else ()
        for key in keys:
            found.append((one, key))
            pending.append(one[key])
    return found


def changed(value: Any, where: int, change: tuple[str, Any]) -> Any:
    """Return JSON with one thing changed in it."""
    made = copy.deepcopy(value)
    places = places_of(made)
    container, key = places[where % len(places)]
    kind, what = change
    if kind == "put":
        container[key] = what
    elif kind == "drop":
        del container[key]
    elif isinstance(container[key], dict):
        container[key][what[0]] = what[1]
    return made


# --- specs of every kind of node, that are good ---


def good_workflow(seed: int, *, depth: int = 3, waits: bool = True, options: bool = True) -> dict[str, Any]:
    """Return a workflow that can be run, with every kind of node and every option; always the same for a seed."""
    return _Drawing(random.Random(seed), waits, options).workflow(depth)


#: Workflows that can be run. They are drawn from a seed, because a test draws thousands of nodes from each.
GOOD_WORKFLOWS = st.builds(good_workflow, st.integers(0, 2**32), depth=st.integers(0, 3))


class _Drawing:
    def __init__(self, draw: random.Random, waits: bool, options: bool) -> None:
        self.draw = draw
        self.waits = waits
        self.options = options
        self.count = 0

    def workflow(self, depth: int) -> dict[str, Any]:
        more: dict[str, Any] = {"undo_on_cancel": True} if self.maybe() else {}
        return workflow(self.node([], depth)[0], input=self.draw.choice([None, 0, 1, "x", [1, 2]]), **more)

    def maybe(self) -> bool:
        return self.draw.random() < 0.5

    def node(self, names: list[str], depth: int) -> tuple[dict[str, Any], list[str]]:
        """Return a node, and the names that it gives to what runs behind it."""
        kinds = ["agent", "agent", "tool"] + (["wait"] if self.waits else [])
        if depth:
            kinds = [*kinds, *("sequence", "sequence", "parallel", "foreach", "branch", "loop") * 2]
        kind = self.draw.choice(kinds)
        self.count += 1
        name = f"n{self.count}"
        made: dict[str, Any] = {"type": kind, "id": name}
        given = getattr(self, f"_{kind}")(made, names, depth)
        if self.options:
            self._options(made, names, [*given, name], depth)
        return made, [*given, name]

    def condition(self, names: list[str], depth: int = 2) -> dict[str, Any]:
        """Return a condition on some names."""
        if depth and self.draw.random() < 0.25:
            form = self.draw.choice(["all", "any", "not"])
            if form == "not":
                return {"not": self.condition(names, depth - 1)}
            return {form: [self.condition(names, depth - 1) for _ in range(self.draw.randint(0, 2))]}
        ref = self.draw.choice(["input", *names])
        if self.maybe():
            return {"ref": ref, "op": self.draw.choice(["is_true", "exists", "missing", "is_empty", "not_empty"])}
        op = self.draw.choice(["eq", "ne", "lt", "ge", "contains", "in", "starts_with"])
        return {"ref": ref, "op": op, "value": self.draw.choice([0, 1, 2, "x", True, None, [1], "{{input}}"])}

    def _options(self, made: dict[str, Any], names: list[str], given: list[str], depth: int) -> None:
        which = self.draw.sample(["when", "retry", "timeout_s", "on_error", "compensate", "", "", ""], 2)
        if "when" in which:
            made["when"] = self.condition(names)
        if "retry" in which:
            made["retry"] = {"attempts": self.draw.randint(1, 3), "backoff": self.draw.choice([0, 1, 5])}
            if self.maybe():
                made["retry"]["on"] = [self.draw.choice(["transient", "timeout", "x.y", "x.*"])]
        if "timeout_s" in which:
            made["timeout_s"] = self.draw.choice([3, 10, 1000])
        if "on_error" in which:
            made["on_error"] = self.draw.choice(["halt", "continue", "fallback"])
            if made["on_error"] == "fallback":
                made["on_error"] = {"fallback": self.node(names, max(depth - 1, 0))[0]}
        if "compensate" in which:
            made["compensate"] = self.node([*names, *given], 0)[0]

    def _text(self, names: list[str]) -> str:
        return self.draw.choice(["Work.", "{{input}}", *(f"on {{{{{name}}}}}" for name in names)])

    def _agent(self, made: dict[str, Any], names: list[str], depth: int) -> list[str]:
        made["spec"] = {"system_prompt": self._text(names)}
        made["input"] = self._text(names)
        if names and self.maybe():
            made["inputs_from"] = [self.draw.choice(names)]
        return []

    def _tool(self, made: dict[str, Any], names: list[str], depth: int) -> list[str]:
        made["tool"] = "t"
        made["args"] = {"a": self._text(names)}
        return []

    def _wait(self, made: dict[str, Any], names: list[str], depth: int) -> list[str]:
        made.update(self.draw.choice([{"signal": "s"}, {"person": "Well?"}, {"delay_s": 5}, {"delay_s": 0}]))
        return []

    def _steps(self, made: dict[str, Any], names: list[str], depth: int, *, in_order: bool) -> list[str]:
        made["steps"] = []
        given: list[str] = []
        for _ in range(self.draw.randint(1, 3)):
            step, more = self.node([*names, *given] if in_order else names, depth - 1)
            made["steps"].append(step)
            given += more
        return given

    def _sequence(self, made: dict[str, Any], names: list[str], depth: int) -> list[str]:
        return self._steps(made, names, depth, in_order=True)

    def _parallel(self, made: dict[str, Any], names: list[str], depth: int) -> list[str]:
        if self.maybe():
            made["max_concurrency"] = self.draw.randint(1, 2)
        return self._steps(made, names, depth, in_order=False)

    def _foreach(self, made: dict[str, Any], names: list[str], depth: int) -> list[str]:
        made["items"] = [self.draw.randint(0, 2) for _ in range(self.draw.randint(0, 3))]
        variable = f"v{self.count}"
        made["as"] = variable
        if self.maybe():
            made["parallel"] = True
            if self.maybe():
                made["max_concurrency"] = self.draw.randint(1, 2)
        made["body"] = self.node([*names, variable], depth - 1)[0]
        return []

    def _branch(self, made: dict[str, Any], names: list[str], depth: int) -> list[str]:
        then, given = self.node(names, depth - 1)
        made["cases"] = [{"when": self.condition(names), "then": then}]
        if self.maybe():
            made["else"], more = self.node(names, depth - 1)
            given = [*given, *more]
        return given

    def _loop(self, made: dict[str, Any], names: list[str], depth: int) -> list[str]:
        variable = f"v{self.count}"
        made["as"] = variable
        made["body"], given = self.node([*names, variable], depth - 1)
        made["until"] = self.condition([*names, *given])
        made["max_iterations"] = self.draw.randint(1, 3)
        made["on_exhausted"] = self.draw.choice(["accept", "fail"])
        return []
