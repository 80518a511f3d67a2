"""A spec is read as printed; all that is wrong with one is told at once: where, what was expected, what was meant."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from enum import IntEnum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from power_loop.errors import WorkflowSpecError
from power_loop.workflow import bounds
from power_loop.workflow.parse import parse_workflow, validate_workflow
from power_loop.workflow.plain import plain_copy
from power_loop.workflow.reach import Reach, name_chars
from power_loop.workflow.spec import AgentNode, ForeachNode, SequenceNode
from tests.workflow.specs import CHANGES, GOOD_WORKFLOWS, agent, changed, research, workflow
from tests.workflow.world import World, by_seed


def problems(spec: Any) -> dict[str, str]:
    """Return every problem by its place."""
    return {problem.path: str(problem) for problem in validate_workflow(spec)}


def test_the_research_workflow_is_read_as_it_is_printed() -> None:
    spec = parse_workflow(research())
    assert isinstance(spec.root, SequenceNode)
    plan, fan_out, write = spec.root.steps
    assert isinstance(fan_out, ForeachNode)
    assert (fan_out.variable, fan_out.is_parallel, fan_out.max_concurrency) == ("t", True, 3)
    assert isinstance(plan, AgentNode)
    assert plan.agent["output_schema"]["name"] == "Plan"
    assert isinstance(write, AgentNode)
    assert [str(reference) for reference in write.inputs_from] == ["research"]
    assert spec.source == research()
    assert parse_workflow(spec) is spec


def test_everything_that_is_wrong_is_told_at_once_with_its_place_and_what_was_meant() -> None:
    spec = research()
    plan, fan_out, write = spec["root"]["steps"]
    fan_out["items_from"] = "plan.subtopic"
    fan_out["body"]["spec"]["system_prompt"] = "Write on {{tt}}."
    fan_out["max_concurency"] = fan_out.pop("max_concurrency")
    write["inputs_from"] = ["r", "{{plan}}"]
    plan["retry"] = {"attempts": 0}
    plan["when"] = {"ref": "input", "op": "==", "value": 1}
    spec["root"]["steps"].append({"type": "agnet", "id": "x"})
    spec["root"]["steps"].append(agent("plan"))
    assert problems(spec) == {
        "root.steps[0].retry.attempts": (
            "root.steps[0].retry.attempts: it is the number 0; expected a whole number from 1 to 100"
        ),
        "root.steps[0].when.op": problems(spec)["root.steps[0].when.op"],
        "root.steps[1].items_from": (
            "root.steps[1].items_from: `plan.subtopic` gives nothing: `plan` is an object with the keys subtopics: "
            "did you mean `plan.subtopics`?"
        ),
        "root.steps[1].max_concurency": problems(spec)["root.steps[1].max_concurency"],
        "root.steps[1].body.spec.system_prompt": (
            "root.steps[1].body.spec.system_prompt: nothing is called `tt`: did you mean `t`?"
        ),
        "root.steps[2].inputs_from[0]": (
            "root.steps[2].inputs_from[0]: `r` (root.steps[1].body) runs many times within `research`: refer to that: "
            "did you mean `research`?"
        ),
        "root.steps[2].inputs_from[1]": problems(spec)["root.steps[2].inputs_from[1]"],
        "root.steps[3].type": problems(spec)["root.steps[3].type"],
        "root.steps[4].id": "root.steps[4].id: 'plan' is the id of root.steps[0] too; expected an id of its own",
    }
    assert problems(spec)["root.steps[0].when.op"].endswith("did you mean `eq`?")
    assert problems(spec)["root.steps[1].max_concurency"].endswith("did you mean `max_concurrency`?")
    assert problems(spec)["root.steps[2].inputs_from[1]"].endswith("did you mean `plan`?")
    assert problems(spec)["root.steps[3].type"].endswith("did you mean `agent`?")


def test_the_error_tells_all_problems_in_its_message_and_has_them_as_records() -> None:
    with pytest.raises(WorkflowSpecError) as caught:
        parse_workflow({"name": "w", "rot": agent("a", "{{b}}")})
    assert caught.value.code == "workflow.invalid_spec"
    assert [problem.path for problem in caught.value.problems] == ["rot", "root"]
    assert caught.value.problems[0].to_json()["suggestion"] == "root"
    for problem in caught.value.problems:
        assert str(problem) in caught.value.message


@pytest.mark.parametrize(
    ("root", "path", "said"),
    [
        (agent("a", "{{a}}"), "root.spec.system_prompt", "not sure to have run before"),
        (agent("input"), "root.id", "means something else"),
        (agent("a", "{{ not a name }}"), "root.spec.system_prompt", "is no reference"),
        (agent("a", "{{input"), "root.spec.system_prompt", "is no reference"),
        (agent("a", output_schema={"schema": {"type": "objekt"}}), "root.output_schema.schema", "objekt"),
        ({"type": "wait", "at": "tomorrow"}, "root.at", "date and time with its zone"),
        ({"type": "wait", "delay_s": 1, "signal": "s"}, "root", "exactly one of"),
        ({"type": "wait", "delay_s": 1, "choices": ["a"]}, "root.choices", "means nothing without 'person'"),
        ({"steps": [agent("a")]}, "root.type", "did you mean `sequence`?"),
        ({"type": "foreach", "items": [1], "as": "x", "body": agent("x")}, "root.as", "is the id of a node"),
        (
            {"type": "parallel", "steps": [agent("a"), agent("b", "{{a}}")]},
            "root.steps[1].spec.system_prompt",
            "not sure to have run before",
        ),
        (
            {"type": "sequence", "steps": [agent("a", "{{b}}"), agent("b")]},
            "root.steps[0].spec.system_prompt",
            "not sure to have run before",
        ),
        (
            {"type": "sequence", "steps": [agent("a"), {"type": "foreach", "items_from": "a", "body": agent("b")}]},
            "root.steps[1].items_from",
            "is no list",
        ),
        (agent("a", "{{error.message}}"), "root.spec.system_prompt", "nothing is called `error`"),
    ],
)
def test_what_cannot_be_run_is_refused_where_it_stands(root: Any, path: str, said: str) -> None:
    found = problems(workflow(root))
    assert list(found) == [path]
    assert said in found[path]


@pytest.mark.parametrize(
    "root",
    [
        agent("a", "{{input.any.key[3]}} \\{{ as it is"),
        agent("a", on_error={"fallback": agent("b", "{{error.message}}")}),
        agent("a", compensate=agent("b", "Undo {{a}} for {{error.code}}.")),
        {
            "type": "loop",
            "id": "l",
            "as": "before",
            "max_iterations": 3,
            "body": {"type": "sequence", "steps": [agent("x", "{{before}}"), agent("y", "{{x}}")]},
            "until": {
                "all": [{"ref": "y", "op": "contains", "value": "{{input}}"}, {"not": {"ref": "x", "op": "missing"}}]
            },
        },
        {
            "type": "sequence",
            "steps": [
                {"type": "branch", "cases": [{"when": {"ref": "input", "op": "exists"}, "then": agent("a")}]},
                {"type": "parallel", "id": "p", "steps": [agent("b", "{{a}}"), agent("c")]},
                agent("d", "{{b}} {{p.c}}"),
            ],
        },
    ],
)
def test_what_can_be_followed_may_be_referred_to(root: Any) -> None:
    assert problems(workflow(root)) == {}


class _Number(IntEnum):
    ONE = 1


def _holds_itself() -> Any:
    spec = workflow(agent("a"))
    spec["root"]["spec"]["tools"] = [spec]
    return spec


def _deep(levels: int) -> Any:
    value: Any = agent("a")
    for _ in range(levels):
        value = {"type": "sequence", "steps": [value]}
    return workflow(value)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (None, "expected an object"),
        ("{}", "expected an object"),
        (_holds_itself(), "holds itself"),
        (_deep(21), "nested too deeply"),
        (_deep(5_000), "nested too deeply"),
        (workflow(agent("a"), input=float("nan")), "nan is no JSON"),
        (workflow(agent("a"), input=10**1_000), "too large"),
        (workflow(agent("a"), input={1: 2}), "the name 1 is no text"),
        (workflow(agent("a"), input="\ud800"), "surrogate"),
        (workflow(agent("a"), input=b"x"), "bytes"),
        (workflow(agent("a"), input=["x"] * (bounds.MAX_SPEC_VALUES + 1)), "too large"),
        (workflow(agent("a"), input="x" * (bounds.MAX_SPEC_CHARS + 1)), "too large"),
        (workflow({"type": "sequence", "steps": [agent(f"a{n}") for n in range(501)]}), "a list of 1 to 500"),
        (workflow({"type": ["agent"]}), "expected one of"),
        ({f"k{n}": n for n in range(5_000)}, "has no key"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_hostile_input_gives_the_coded_error_and_nothing_else(spec: Any, said: str) -> None:
    with pytest.raises(WorkflowSpecError) as caught:
        parse_workflow(spec)
    assert said in caught.value.message
    assert 1 <= len(caught.value.problems) <= bounds.MAX_PROBLEMS
    caught.value.message.encode()


def test_a_copy_is_plain_json_and_shares_nothing_with_what_it_was_made_of() -> None:
    given = {"a": (1, _Number.ONE), "b": {"c": [True, None, 1.5]}}
    copy = plain_copy(given, lambda *_: pytest.fail("nothing is wrong"))
    assert copy == {"a": [1, 1], "b": {"c": [True, None, 1.5]}}
    assert type(copy["a"][1]) is int
    assert copy["b"] is not given["b"]


_HOSTILE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.binary(max_size=2),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "root", "type", "steps", "spec", "id", "when", "cases", "body", "on_error"])
            | st.integers(),
            inner | st.sampled_from(["agent", "sequence", "foreach", "branch", "loop", "wait", "tool", "parallel"]),
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=40, deadline=None)
@given(_HOSTILE)
def test_whatever_it_is_given_the_parser_says_what_is_wrong(value: Any) -> None:
    for spec in (value, {"name": "w", "root": value}):
        assert refused(spec) or isinstance(spec, dict)


def refused(spec: Any) -> bool:
    """Tell whether a spec is refused, in the one way in which that may happen."""
    try:
        parse_workflow(spec)
    except WorkflowSpecError as refusal:
        return len(refusal.problems) > 0
    return False


@settings(max_examples=80, deadline=None)
@given(GOOD_WORKFLOWS, st.lists(st.tuples(st.integers(0, 10_000), CHANGES), min_size=1, max_size=3))
def test_a_good_spec_with_changes_is_read_or_refused(spec: Any, changes: Any) -> None:
    for where, change in changes:
        spec = changed(spec, where, change)
    assert refused(spec) == (validate_workflow(spec) != ())


def work_of(spec: Any) -> int:
    """Return what it takes to read a spec, in calls of functions, which no machine makes slower."""
    made = 0

    def count_call(frame: Any, event: str, arg: Any) -> None:
        nonlocal made
        made += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count_call)
    try:
        validate_workflow(spec)
    finally:
        sys.setprofile(before)
    return made


def size_of(value: Any) -> int:
    """Return how many values some JSON has, and how many characters in them."""
    if isinstance(value, dict):
        return 1 + sum(size_of(key) + size_of(one) for key, one in value.items())
    if isinstance(value, (list, tuple)):
        return 1 + sum(map(size_of, value))
    return 1 + (len(value) if isinstance(value, str) else 0)


#: Steps of a sequence, by their number: one that is right, and some that are wrong so that one has to look around.
_STEPS: dict[str, Callable[[int], Any]] = {
    "right": lambda n: agent(f"a{n}", "{{input}} " * 5 + (f"{{{{a{n - 1}}}}}" if n else "")),
    "refers to nothing": lambda n: agent(f"a{n}", f"{{{{b{n}}}}} and {{{{c{n}.d}}}}"),
    "refers to what comes later": lambda n: agent(f"a{n}", f"{{{{a{n + 1}}}}}"),
    "has the id of another": lambda n: agent("a"),
    "has keys that nothing has": lambda n: agent(f"a{n}", **{f"retri{n}": 1, f"k{n}": n}),
    "is of no kind": lambda n: {"type": f"agnt{n}", "id": f"a{n}"},
    "has conditions on nothing": lambda n: agent(
        f"a{n}", when={"all": [{"ref": f"q{n}{m}", "op": "is_tru"} for m in range(4)]}
    ),
    "branches within branches": lambda n: {
        "type": "branch",
        "cases": [{"when": {"ref": f"q{n}", "op": "exists"}, "then": agent(f"a{n}", f"{{{{a{n - 1}}}}}")}],
    },
}


@pytest.mark.parametrize("kind", _STEPS)
def test_reading_takes_work_in_proportion_to_what_is_read(kind: str) -> None:
    """From where no more problems are told than there may be."""
    small, large = (
        workflow({"type": "sequence", "steps": [_STEPS[kind](n) for n in range(count)]}) for count in (120, 480)
    )
    assert work_of(large) < work_of(small) * 4 * 1.1


# A problem looks for what may have been meant among all names, each compared in a bounded number of steps.
_WORK_A_VALUE, _WORK_A_PROBLEM = 12, 2_000


@settings(max_examples=60, deadline=None)
@given(GOOD_WORKFLOWS, st.lists(st.tuples(st.integers(0, 10_000), CHANGES), max_size=4), _HOSTILE)
def test_no_spec_takes_more_work_than_its_size_allows(spec: Any, changes: Any, hostile: Any) -> None:
    for where, change in changes:
        spec = changed(spec, where, change)
    for one in (
        spec,
        hostile,
        {"name": "w", "root": hostile},
        workflow({"type": "sequence", "steps": [spec, hostile]}),
    ):
        problems = len(validate_workflow(one))
        assert work_of(one) <= _WORK_A_VALUE * size_of(one) + _WORK_A_PROBLEM * (1 + problems)


def test_a_text_full_of_braces_is_read_in_one_pass() -> None:
    started = time.process_time()
    found = validate_workflow(workflow(agent("a", "{{" * 90_000)))
    assert len(found) == 1
    assert re.search("is no reference", found[0].message)
    assert time.process_time() - started < 20, "a quadratic scan takes minutes"


def test_a_path_that_no_store_could_keep_is_refused() -> None:
    def nested(levels: int, *, retry: Any = None, name: str = "n" * 60) -> Any:
        node = agent("a" * 64, "x")
        for level in range(levels):
            node = {"type": "foreach", "id": f"{name}{level}", "items_from": "input", "as": f"v{level}", "body": node}
        if retry is not None:
            node["retry"] = retry
        return workflow(node)

    assert problems(nested(2)) == {}
    [(place, problem)] = problems(nested(3)).items()
    assert place == "root.body.body.body"
    assert "268 characters" in problem
    assert "at most 255" in problem
    assert problems(nested(2, retry={"attempts": 100}))["root.body.body"].count("at most 255") == 1
    beside = nested(2)
    beside["root"]["on_error"] = {"fallback": agent("b" * 64, "x")}
    beside["root"]["retry"] = {"attempts": 2, "on": ["any"]}
    assert "root.on_error.fallback" not in problems(beside)


@settings(max_examples=100, deadline=None)
@given(GOOD_WORKFLOWS, st.integers(0, 1_000))
def test_no_path_of_a_run_is_longer_than_its_spec_said(spec: Any, seed: int) -> None:
    lengths: list[int] = []

    class Noting(Reach):
        """Writes down what each step may come to."""

        def _length(self, node: Any, path: Any, before: int) -> None:
            lengths.append(before + name_chars(node))

    Noting(_Silent()).check(spec["root"])
    world = World(parse_workflow(spec), by_seed(seed))
    world.run()
    assert max(map(len, world.journal.records), default=0) <= max(lengths)


def test_a_schema_that_leads_back_into_itself_costs_no_more_with_every_step() -> None:
    again = {"anyOf": [{"type": "object", "properties": {"a": {"$ref": "#"}}} for _ in range(20)]}
    steps = [agent("p", output_schema={"schema": again}), agent("q", "Read {{p" + ".a" * 140 + "}}")]
    started = time.process_time()
    assert validate_workflow(workflow({"type": "sequence", "steps": steps})) == ()
    # Twenty ways a step would be more than there is time for in a hundred years.
    assert time.process_time() - started < 10


class _Silent:
    """Is told of problems and keeps none."""

    def add(self, path: Any, message: str, *, expected: str = "", suggestion: str = "") -> None:
        """Keep nothing."""
