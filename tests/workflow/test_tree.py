"""A run as a tree: every node of its spec with what it has come to, whatever of it was begun."""

from __future__ import annotations

from typing import Any

from power_loop.workflow import RunNode, create_workflow, run_tree
from tests.agent.conftest import MakeLoop
from tests.agent.parts import within_limit

from .parts import RESEARCH, Answers, agent, flow, researcher


def drawn(node: RunNode, depth: int = 0) -> list[str]:
    """Return a tree as lines."""
    role = f"{node.role} " if node.role else ""
    line = f"{'  ' * depth}{role}{node.id} {node.kind} {node.state}"
    return [line, *[line for part in node.parts for line in drawn(part, depth + 1)]]


async def test_a_run_is_drawn_before_it_begins_and_when_it_has_ended(make_loop: MakeLoop) -> None:
    assert drawn(run_tree(RESEARCH, ())) == [
        "sequence#1 sequence pending",
        "  plan agent pending",
        "  research foreach pending",
        "  write agent pending",
    ]
    result = await within_limit(create_workflow(RESEARCH, parent_loop=make_loop(llm=researcher())).run())
    root = run_tree(RESEARCH, result.steps)
    assert drawn(root) == [
        "sequence#1 sequence completed",
        "  plan agent completed",
        "  research foreach completed",
        *[line for nth in range(3) for line in (f"    [{nth}] item completed", "      r agent completed")],
        "  write agent completed",
    ]
    leaf = root.parts[1].parts[2].parts[0]
    assert (leaf.path, leaf.step) == ("research[2]/r", next(one for one in result.steps if one.path == "research[2]/r"))


async def test_attempts_fallbacks_branches_and_what_undoes_are_drawn_as_they_went(make_loop: MakeLoop) -> None:
    def fails(request: Any) -> Any:
        raise ValueError("no")

    spec = flow(
        [
            agent("one", compensate=agent("undo")),
            {
                "type": "branch",
                "id": "b",
                "cases": [{"when": {"ref": "one", "op": "eq", "value": "never"}, "then": agent("never")}],
                "else": agent("two"),
            },
            {
                "type": "sequence",
                "id": "s",
                "steps": [agent("bad")],
                "retry": {"attempts": 2, "backoff": {"first_s": 0.001}},
                "on_error": "continue",
            },
            agent("bad2", "Bad.", on_error={"fallback": agent("instead")}),
            {"type": "wait", "id": "w", "signal": "go"},
            agent("last"),
        ]
    )
    loop = make_loop(llm=Answers(bad=fails))
    result = await within_limit(create_workflow(spec, parent_loop=loop).run())
    root = run_tree(spec, result.steps)
    assert drawn(root) == [
        "sequence#1 sequence waiting",
        "  one agent completed",
        "  b branch completed",
        "    two agent completed",
        "  s sequence failed",
        "    bad agent failed",
        "  bad2 agent failed",
        "    fallback instead agent completed",
        "  w wait waiting",
        "  last agent pending",
    ]
    bad = root.parts[2].parts[0]
    assert bad.path == "s~2/bad", "the last attempt is what is drawn"
