"""Checks what the tables cannot say: names, and that every reference can be followed where it stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from power_loop.contracts.agent_spec import AgentSpec
from power_loop.contracts.errors import PowerLoopError
from power_loop.contracts.frozen import frozen
from power_loop.contracts.json_schema import SchemaError, compile_schema
from power_loop.contracts.json_schema.problems import Path, place_text, quoted
from power_loop.workflow.bounds import MAX_CONDITION_DEPTH, MAX_ITEMS, MAX_NODE_DEPTH, MAX_NODES, MAX_PATH_CHARS
from power_loop.workflow.build import TEXTS, agent_json, moment_ms
from power_loop.workflow.grammar import RESERVED_NAMES
from power_loop.workflow.kinds import Notes
from power_loop.workflow.refs import Hole, Reference, holes_and_texts, parse_reference
from power_loop.workflow.shapes import (
    FAILURE,
    NULL,
    NUMBER,
    TEXT,
    UNKNOWN,
    Fields,
    Fitting,
    Items,
    Lacking,
    Shape,
    either,
    fields_of,
    kinds_of,
    step_into,
)
from power_loop.workflow.suggestions import nearest


@frozen
class _Place:
    """Is where a name is given, and the foreach or loop around it."""

    path: Path
    around: str


#: The names that nodes give to what runs behind them, with what is known of their outputs.
_Names = list[tuple[str, Shape]]

# The keys under which one node holds others, in the order in which they are written about.
_SINGLE = ("body", "else", "compensate")
_BESIDE = ("fallback", "compensate")
# The nodes that have a row in the journal.
_STEPS = ("agent", "tool", "wait")


def children(node: dict[str, Any], path: Path) -> Iterator[tuple[dict[str, Any], Path]]:
    """Return the nodes within a node, of all that was understood."""
    steps = node.get("steps", ())
    for place, step in enumerate(steps):
        if isinstance(step, dict):
            yield step, ((path, "steps"), place)
    for place, case in enumerate(node.get("cases", ())):
        if isinstance(case, dict) and isinstance(case.get("then"), dict):
            yield case["then"], (((path, "cases"), place), "then")
    for name in _SINGLE:
        if isinstance(node.get(name), dict):
            yield node[name], (path, name)
    fallback = node.get("on_error")
    if isinstance(fallback, dict) and isinstance(fallback.get("fallback"), dict):
        yield fallback["fallback"], ((path, "on_error"), "fallback")


def name_chars(node: dict[str, Any]) -> int:
    """Return how long the id of a node is, given or not."""
    name = node.get("id")
    return len(name) if isinstance(name, str) else len(f"{node['type']}#{MAX_NODES}")


def _chars_within(node: dict[str, Any]) -> int:
    """Return how much longer the paths within a node may be than its own prefix."""
    retry, chars, name = node.get("retry"), 0, name_chars(node)
    attempts = retry.get("attempts", 1) if isinstance(retry, dict) else 1
    if attempts > 1:
        chars += name + len(f"~{attempts}/")
    if node["type"] in ("foreach", "loop"):
        times = node.get("max_iterations", 1) if node["type"] == "loop" else MAX_ITEMS
        chars += name + len(f"[{times - 1}]/")
    return chars


class Reach:
    """Walks through a workflow that the tables have read, once for its names and once for its references."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._given: dict[str, _Place] = {}
        self._visible: dict[str, Shape] = {"input": UNKNOWN}

    def check(self, root: dict[str, Any]) -> None:
        """Note every problem of the tree below a root."""
        if self._collect(root):
            self._visit(root, (None, "root"))

    # --- names ---

    def _collect(self, root: dict[str, Any]) -> bool:
        """Learn every id; tell whether the tree is small enough to go on with."""
        pending: list[tuple[dict[str, Any], Path, int, str, int]] = [(root, (None, "root"), 1, "", 0)]
        count = 0
        while pending:
            node, path, depth, around, before = pending.pop()
            count += 1
            if count > MAX_NODES:
                self._notes.add((None, "root"), "there are too many nodes", expected=f"at most {MAX_NODES}")
                return False
            if depth > MAX_NODE_DEPTH:
                self._notes.add(path, "nodes are nested too deeply", expected=f"at most {MAX_NODE_DEPTH} levels")
                return False
            name = node.get("id")
            if isinstance(name, str):
                self._give(name, path, around)
            self._length(node, path, before)
            inside = name if node["type"] in ("foreach", "loop") else around
            within, around_within = (path, "body"), inside or "a loop"
            below = list(children(node, path))
            pending += [
                (
                    child,
                    where,
                    depth + 1,
                    around_within if where == within else around,
                    # A fallback and a compensation stand beside their node.
                    before if where[1] in _BESIDE else before + _chars_within(node),
                )
                for child, where in reversed(below)
            ]
        return True

    def _length(self, node: dict[str, Any], path: Path, before: int) -> None:
        """Refuse a step whose path may be longer than a store keeps."""
        longest = before + name_chars(node)
        if node["type"] in _STEPS and longest > MAX_PATH_CHARS:
            self._notes.add(
                path,
                f"its path in the journal may have {longest} characters, with the ids of what repeats around it",
                expected=f"at most {MAX_PATH_CHARS}: shorter ids",
            )

    def _give(self, name: str, path: Path, around: str) -> None:
        if name in RESERVED_NAMES:
            self._notes.add((path, "id"), f"{name!r} means something else", expected="another name")
        elif name in self._given:
            first = place_text(self._given[name].path)[2:]
            self._notes.add((path, "id"), f"{name!r} is the id of {first} too", expected="an id of its own")
        else:
            self._given[name] = _Place(path, around)

    def _variable(self, name: str, path: Path) -> None:
        if name in RESERVED_NAMES or name in self._given:
            what = "means something else" if name in RESERVED_NAMES else "is the id of a node"
            self._notes.add(path, f"{name!r} {what}", expected="a name that nothing else has")

    # --- references ---

    def _visit(self, node: dict[str, Any], path: Path) -> tuple[Shape, _Names]:
        """Check a node; return what is known of its output, and the names that it gives to what runs behind it."""
        self._condition(node.get("when"), (path, "when"))
        shape, names = getattr(self, f"_{node['type']}")(node, path)
        on_error = node.get("on_error")
        if isinstance(on_error, dict) and isinstance(on_error.get("fallback"), dict):
            other = self._within({"error": FAILURE}, on_error["fallback"], ((path, "on_error"), "fallback"))
            shape = either((shape, other))
        own: _Names = [*names]
        if isinstance(node.get("id"), str):
            own.append((node["id"], shape))
        if isinstance(node.get("compensate"), dict):
            self._within({**dict(own), "error": FAILURE}, node["compensate"], (path, "compensate"))
        return shape, own

    def _within(self, more: dict[str, Shape], node: dict[str, Any], path: Path) -> Shape:
        """Check a node that sees more names than those before it; what it gives its name to is seen by nobody else."""
        shape: Shape = self._seeing(more, lambda: self._visit(node, path))[0]
        return shape

    def _seeing(self, more: dict[str, Shape], look: Callable[[], Any]) -> Any:
        before = {name: self._visible.get(name) for name in more}
        self._visible.update(more)
        try:
            return look()
        finally:
            for name, shape in before.items():
                if shape is None:
                    self._visible.pop(name, None)
                else:
                    self._visible[name] = shape

    def _agent(self, node: dict[str, Any], path: Path) -> tuple[Shape, _Names]:
        spec = node.get("spec", {})
        for key in TEXTS:
            self._text(spec.get(key), ((path, "spec"), key))
        self._text(node.get("input"), (path, "input"))
        for place, text in enumerate(node.get("inputs_from", ())):
            if isinstance(text, str):
                self._reference(text, ((path, "inputs_from"), place))
        if "system_prompt" in spec:
            try:
                AgentSpec.from_json(agent_json({**node, "id": node.get("id", "agent")}))
            except PowerLoopError as refusal:
                self._notes.add((path, "spec"), refusal.message)
        schema = node.get("output_schema", {}).get("schema")
        if schema is None:
            return TEXT, []
        try:
            compile_schema(schema)
        except SchemaError as refusal:
            for problem in refusal.problems[:5]:
                where = problem.path.removeprefix("$")
                self._notes.add(((path, "output_schema"), "schema"), f"at `{where or '.'}`: {problem.message}")
            return UNKNOWN, []
        return Fitting(schema, schema), []

    def _tool(self, node: dict[str, Any], path: Path) -> tuple[Shape, _Names]:
        self._texts(node.get("args"), (path, "args"))
        return UNKNOWN, []

    def _wait(self, node: dict[str, Any], path: Path) -> tuple[Shape, _Names]:
        self._text(node.get("person"), (path, "person"))
        at = node.get("at")
        if isinstance(at, str):
            if "{{" in at:
                self._text(at, (path, "at"))
            elif moment_ms(at) is None:
                expected = 'a date and time with its zone, like "2030-01-31T09:00:00Z"'
                self._notes.add((path, "at"), f"it is {quoted(at)}", expected=expected)
        return (UNKNOWN if "signal" in node or "person" in node else NULL), []

    def _sequence(self, node: dict[str, Any], path: Path) -> tuple[Shape, _Names]:
        names: _Names = []
        shape: Shape = UNKNOWN
        hidden: dict[str, Shape | None] = {}
        for place, step in enumerate(node.get("steps", ())):
            if isinstance(step, dict):
                shape, given = self._visit(step, ((path, "steps"), place))
                names += given
                for name, known in given:
                    hidden.setdefault(name, self._visible.get(name))
                    self._visible[name] = known
        for name, before in hidden.items():
            if before is None:
                del self._visible[name]
            else:
                self._visible[name] = before
        return shape, names

    def _parallel(self, node: dict[str, Any], path: Path) -> tuple[Shape, _Names]:
        names: _Names = []
        fields: dict[str, Shape] = {}
        for place, step in enumerate(node.get("steps", ())):
            if isinstance(step, dict):
                shape, given = self._visit(step, ((path, "steps"), place))
                names += given
                if isinstance(step.get("id"), str):
                    fields[step["id"]] = shape
        return Fields(fields), names

    def _branch(self, node: dict[str, Any], path: Path) -> tuple[Shape, _Names]:
        names: _Names = []
        shapes: list[Shape] = []
        for place, case in enumerate(node.get("cases", ())):
            where = ((path, "cases"), place)
            if isinstance(case, dict):
                self._condition(case.get("when"), (where, "when"))
                if isinstance(case.get("then"), dict):
                    shape, given = self._visit(case["then"], (where, "then"))
                    names += given
                    shapes.append(shape)
        if isinstance(node.get("else"), dict):
            shape, given = self._visit(node["else"], (path, "else"))
            names += given
            shapes.append(shape)
        return either(tuple(shapes)), names

    def _foreach(self, node: dict[str, Any], path: Path) -> tuple[Shape, _Names]:
        item: Shape = UNKNOWN
        if isinstance(node.get("items_from"), str):
            item = self._items_of(node["items_from"], (path, "items_from"))
        self._texts(node.get("items"), (path, "items"))
        variables = {node.get("as", "item"): item}
        self._variable(node.get("as", "item"), (path, "as"))
        if isinstance(node.get("index_as"), str):
            self._variable(node["index_as"], (path, "index_as"))
            variables[node["index_as"]] = NUMBER
        body = node.get("body")
        return Items(self._within(variables, body, (path, "body")) if isinstance(body, dict) else UNKNOWN), []

    def _items_of(self, text: str, path: Path) -> Shape:
        """Check where a list comes from; return what is known of its items."""
        shape = self._reference(text, path)
        kinds = kinds_of(shape)
        if kinds and "array" not in kinds:
            lists = [name for name, field in fields_of(shape) if "array" in kinds_of(field)]
            near = f"{text}.{lists[0]}" if lists else ""
            self._notes.add(path, f"`{text}` is no list", expected="a reference to a list", suggestion=near)
            return UNKNOWN
        item = step_into(shape, 0)
        return UNKNOWN if isinstance(item, Lacking) else item

    def _loop(self, node: dict[str, Any], path: Path) -> tuple[Shape, _Names]:
        variables: dict[str, Shape] = {}
        for key, known in (("as", UNKNOWN), ("index_as", NUMBER)):
            if isinstance(node.get(key), str):
                self._variable(node[key], (path, key))
                variables[node[key]] = known
        body = node.get("body")

        def look() -> Shape:
            shape, given = self._visit(body, (path, "body")) if isinstance(body, dict) else (UNKNOWN, [])
            self._seeing(dict(given), lambda: self._condition(node.get("until"), (path, "until")))
            return shape

        shape: Shape = self._seeing(variables, look)
        return shape, []

    # --- texts and conditions ---

    def _condition(self, condition: Any, path: Path, depth: int = 1) -> None:
        if not isinstance(condition, dict):
            return
        if depth > MAX_CONDITION_DEPTH:
            self._notes.add(path, "conditions are nested too deeply", expected=f"at most {MAX_CONDITION_DEPTH} levels")
            return
        for name in ("all", "any"):
            for place, part in enumerate(condition.get(name, ())):
                self._condition(part, ((path, name), place), depth + 1)
        self._condition(condition.get("not"), (path, "not"), depth + 1)
        if isinstance(condition.get("ref"), str):
            self._reference(condition["ref"], (path, "ref"))
        self._texts(condition.get("value"), (path, "value"))

    def _texts(self, value: Any, path: Path) -> None:
        """Check every text within some JSON."""
        pending = [(value, path)]
        while pending:
            one, where = pending.pop()
            if isinstance(one, str):
                self._text(one, where)
            elif isinstance(one, dict):
                pending += [(item, (where, name)) for name, item in one.items()]
            elif isinstance(one, list):
                pending += [(item, (where, place)) for place, item in enumerate(one)]

    def _text(self, text: Any, path: Path) -> None:
        if not isinstance(text, str) or "{{" not in text:
            return
        for part in holes_and_texts(text):
            if not isinstance(part, Hole):
                continue
            if part.reference is None:
                inner = part.text.strip()[:40]
                expected = r"a reference like {{plan.subtopics[0]}}, or \{{ for the braces themselves"
                near = nearest(inner, self._visible)
                said = f"{{{{{inner}…" if len(part.text) > 40 else f"{{{{{inner}}}}}"
                self._notes.add(path, f"{quoted(said)} is no reference", expected=expected, suggestion=near)
            else:
                self._follow(part.reference, path)

    def _reference(self, text: str, path: Path) -> Shape:
        reference = parse_reference(text)
        return UNKNOWN if reference is None else self._follow(reference, path)

    def _follow(self, reference: Reference, path: Path) -> Shape:
        """Check one reference; return what is known of what it gives."""
        shape = self._visible.get(reference.name)
        if shape is None:
            self._notes.add(path, *self._unreachable(reference.name), suggestion=self._meant(reference))
            return UNKNOWN
        for count, step in enumerate(reference.steps):
            found = step_into(shape, step)
            if isinstance(found, Lacking):
                before = Reference(reference.name, reference.steps[:count])
                key = nearest(str(step), found.keys)
                near = Reference(reference.name, (*reference.steps[:count], key)) if key else ""
                keys = f" with the keys {', '.join(found.keys[:12])}" if found.keys else ""
                message = f"`{reference}` gives nothing: `{before}` is {found.kind}{keys}"
                self._notes.add(path, message, suggestion=str(near))
                return UNKNOWN
            shape = found
        return shape

    def _unreachable(self, name: str) -> tuple[str]:
        place = self._given.get(name)
        if place is None:
            return (f"nothing is called `{name}`",)
        where = place_text(place.path)[2:]
        if place.around:
            return (f"`{name}` ({where}) runs many times within `{place.around}`: refer to that",)
        return (f"`{name}` ({where}) is not sure to have run before",)

    def _meant(self, reference: Reference) -> str:
        """Return the reference that was probably meant."""
        place = self._given.get(reference.name)
        if place is not None:
            return place.around if place.around in self._visible else ""
        name = nearest(reference.name, self._visible)
        if name:
            return str(Reference(name, reference.steps))
        for known, shape in list(self._visible.items())[:50]:
            if any(field == reference.name for field, _ in fields_of(shape)):
                return str(Reference(known, (reference.name, *reference.steps)))
        return ""
