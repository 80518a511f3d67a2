"""What a run does next: in order, within its limits, and after failures what its spec says."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from power_loop.workflow.actions import Finish, RunStatus, StartAgent, StartTool, StartWait, Stop, Wait
from power_loop.workflow.decide import NO_INPUT, decide, outputs_of
from power_loop.workflow.journal import Journal, SignalRecord, StepError, StepRecord, StepState
from power_loop.workflow.parse import parse_workflow
from tests.workflow.specs import agent, research, workflow
from tests.workflow.world import Script, World

NO = StepError("x.y", "no")


def script(said: dict[str, Any], *, takes_ms: dict[str, int] | None = None) -> Script:
    """Return a script: what a leaf comes to by its path, or by its path and attempt; else its path."""
    times = takes_ms or {}
    return lambda path, attempt: (said.get(f"{path}#{attempt}", said.get(path, path)), times.get(path, 100))


def run(root: Any, said: dict[str, Any] | None = None, **more: Any) -> tuple[World, Any]:
    """Run a workflow to its end; return the world and the end."""
    takes_ms = more.pop("takes_ms", None)
    options = {name: more.pop(name) for name in ("max_concurrency", "cancel_at_ms") if name in more}
    world = World(parse_workflow(workflow(root, **more)), script(said or {}, takes_ms=takes_ms), **options)
    return world, world.run()


def free(name: str, prompt: str = "Work.") -> dict[str, Any]:
    """Return an agent of whose answer nothing is known beforehand."""
    return agent(name, prompt, output_schema={"schema": {}})


def sequence(*steps: Any, **more: Any) -> dict[str, Any]:
    return {"type": "sequence", "steps": list(steps), **more}


def parallel(*steps: Any, **more: Any) -> dict[str, Any]:
    return {"type": "parallel", "steps": list(steps), **more}


def foreach(items: Any, body: Any, **more: Any) -> dict[str, Any]:
    return {"type": "foreach", "id": "f", "items": items, "body": body, **more}


def paths(world: World) -> list[str]:
    return [path for path, _ in world.started]


def states(world: World) -> dict[str, str]:
    return {path: record.state.value for path, record in world.journal.records.items()}


def test_the_research_workflow_gives_each_leaf_what_it_needs_and_its_results_in_the_order_of_the_items() -> None:
    world = World(
        parse_workflow(research()),
        script({"plan": {"subtopics": ["bowls", "water", "guests"]}}, takes_ms={"research[0]/r": 900}),
    )
    end = world.run()
    assert isinstance(end, Finish)
    assert (end.status, end.output) == (RunStatus.COMPLETED, "write")
    assert world.inputs["plan"]["input"] == "the Japanese tea ceremony"
    assert world.inputs["research[2]/r"]["agent"]["system_prompt"] == "Write 2 sentences on guests."
    assert world.inputs["research[2]/r"]["input"] == "Subtopic: guests"
    notes = "[1] research[0]/r\n\n[2] research[1]/r\n\n[3] research[2]/r"
    assert world.inputs["write"]["input"] == f"the Japanese tea ceremony\n\nresearch:\n{notes}"
    assert outputs_of(world.spec, world.journal) == {
        "plan": {"subtopics": ["bowls", "water", "guests"]},
        "research": ["research[0]/r", "research[1]/r", "research[2]/r"],
        "write": "write",
    }


def test_what_a_leaf_said_is_not_read_as_references_again() -> None:
    world, _ = run(sequence(agent("a"), agent("b", "Use {{a}}.")), {"a": "{{input}} {{a}}"}, input="secret")
    assert world.inputs["b"]["agent"]["system_prompt"] == "Use {{input}} {{a}}."


def test_a_tool_is_given_values_of_any_type_and_an_agent_without_input_a_word() -> None:
    args = {"list": "{{a.k}}", "text": "k is {{a.k}}"}
    world, end = run(sequence(free("a"), {"type": "tool", "id": "t", "tool": "save", "args": args}), {"a": {"k": [1]}})
    assert world.inputs["t"] == {"tool": "save", "args": {"list": [1], "text": "k is [1]"}}
    assert world.inputs["a"]["input"] == NO_INPUT
    assert end.output == "t"


def test_a_failed_leaf_fails_the_run_while_those_beside_it_come_to_their_end_and_nothing_else_begins() -> None:
    root = foreach([0, 1, 2, 3, 4], agent("x"), parallel=True, max_concurrency=3)
    world, end = run(root, {"f[1]/x": NO}, takes_ms={"f[0]/x": 500, "f[2]/x": 500})
    assert (end.status, end.error, end.error_path) == (RunStatus.FAILED, NO, "f[1]/x")
    assert states(world) == {"f[0]/x": "completed", "f[1]/x": "failed", "f[2]/x": "completed"}


def test_the_first_failure_in_the_order_of_the_items_is_the_runs_whichever_came_first() -> None:
    root = foreach([0, 1], agent("x"), parallel=True)
    _, end = run(root, {"f[0]/x": StepError("x.first", ""), "f[1]/x": NO}, takes_ms={"f[0]/x": 500})
    assert end.error_path == "f[0]/x"


@pytest.mark.parametrize(("limit", "own", "busiest"), [(None, None, 6), (2, None, 2), (None, 3, 3), (4, 3, 3)])
def test_no_more_run_at_one_time_than_may(limit: int | None, own: int | None, busiest: int) -> None:
    root = foreach(list(range(6)), agent("x"), parallel=True, **({} if own is None else {"max_concurrency": own}))
    world, end = run(root, max_concurrency=limit)
    assert world.busiest == busiest
    assert end.output == [f"f[{n}]/x" for n in range(6)]
    world, _ = run(root, **({} if limit is None else {"max_concurrency": limit}))
    assert paths(world) == [f"f[{n}]/x" for n in range(6)]


def test_without_parallel_one_item_follows_the_other() -> None:
    world, _ = run(foreach([0, 1, 2], agent("x", "{{item}}")))
    assert world.busiest == 1


def test_a_skipped_node_gives_null_to_all_that_refer_to_it() -> None:
    never = {"ref": "input", "op": "eq", "value": "never"}
    root = sequence({**free("a"), "when": never}, agent("b", "[{{a}}{{a.k[0]}}]"), foreach([], agent("x"), when=never))
    world, end = run(root)
    assert world.inputs["b"]["agent"]["system_prompt"] == "[]"
    assert end.output is None
    assert paths(world) == ["b"]
    skipped = {"type": "foreach", "id": "g", "items_from": "a", "body": agent("y")}
    _, end = run(sequence({**free("a"), "when": never}, skipped))
    assert end.output == [], "null is a list of nothing"


def test_a_branch_takes_the_first_case_that_holds_or_the_rest_or_nothing() -> None:
    def cases(*rest: Any) -> dict[str, Any]:
        made = {
            "type": "branch",
            "id": "b",
            "cases": [
                {"when": {"ref": "input", "op": "gt", "value": limit}, "then": agent(f"over{limit}")}
                for limit in (5, 2)
            ],
        }
        return {**made, **({"else": rest[0]} if rest else {})}

    assert run(cases(), input=9)[1].output == "over5"
    assert run(cases(), input=3)[1].output == "over2"
    assert run(cases(), input=1)[1].output is None
    assert run(cases(agent("low")), input=1)[1].output == "low"


def loop(**more: Any) -> dict[str, Any]:
    body, until = free("x", "Again: {{before}}"), {"ref": "x.ok", "op": "is_true"}
    return {"type": "loop", "id": "l", "as": "before", "max_iterations": 3, "until": until, "body": body, **more}


def test_a_loop_runs_until_its_condition_holds_and_sees_what_came_before() -> None:
    world, end = run(loop(), {"l[0]/x": {"ok": False, "n": 1}, "l[1]/x": {"ok": True, "n": 2}})
    assert paths(world) == ["l[0]/x", "l[1]/x"]
    assert world.inputs["l[0]/x"]["agent"]["system_prompt"] == "Again: "
    assert world.inputs["l[1]/x"]["agent"]["system_prompt"] == 'Again: {"ok": false, "n": 1}'
    assert end.output == {"ok": True, "n": 2}


def test_a_loop_that_reaches_its_bound_gives_its_last_output_or_fails() -> None:
    assert run(loop())[1].output == "l[2]/x"
    _, end = run(loop(on_exhausted="fail"))
    assert (end.status, end.error.code, end.error_path) == (RunStatus.FAILED, "workflow.loop_exhausted", "l")


def test_a_retry_waits_as_its_backoff_says_and_counts_its_attempts() -> None:
    retry = {"attempts": 3, "backoff": {"first_s": 2, "factor": 3, "max_s": 100}}
    world, end = run(agent("a", retry=retry), {"a#1": NO, "a#2": NO, "a#3": "ok"})
    assert end.output == "ok"
    assert world.started == [("a", 1), ("a", 2), ("a", 3)]
    assert world.now_ms == 1_000 + 100 + 2_000 + 100 + 6_000 + 100


@pytest.mark.parametrize(
    ("on", "error", "tries"),
    [
        (["any"], NO, 2),
        (["transient"], NO, 1),
        (["transient"], StepError("x.y", "", is_transient=True), 2),
        (["x.y"], NO, 2),
        (["x.*"], NO, 2),
        (["z.*", "x.z"], NO, 1),
        (["timeout"], StepError("workflow.timeout", ""), 2),
        (["any"], StepError("workflow.reference", ""), 1),
    ],
)
def test_only_failures_that_are_named_are_tried_again(on: list[str], error: StepError, tries: int) -> None:
    world, end = run(agent("a", retry={"attempts": 2, "on": on}), {"a": error})
    assert len(world.started) == tries
    assert end.status is RunStatus.FAILED


def test_a_container_that_is_tried_again_begins_anew_under_paths_of_its_own() -> None:
    root = sequence(agent("a"), agent("b", "{{a}}"), id="s", retry={"attempts": 2, "backoff": 1})
    world, end = run(root, {"b": NO})
    assert paths(world) == ["a", "b", "s~2/a", "s~2/b"]
    assert world.inputs["s~2/b"]["agent"]["system_prompt"] == "s~2/a"
    assert end.output == "s~2/b"


def test_what_may_fail_gives_null_or_what_its_fallback_gives() -> None:
    _, end = run(foreach([0, 1, 2], agent("x", on_error="continue"), parallel=True), {"f[1]/x": NO})
    assert (end.status, end.output) == (RunStatus.COMPLETED, ["f[0]/x", None, "f[2]/x"])
    root = sequence(
        agent("a", on_error={"fallback": agent("b", "{{error.code}} in {{error.path}}")}), agent("c", "{{a}}")
    )
    world, end = run(root, {"a": NO})
    assert world.inputs["b"]["agent"]["system_prompt"] == "x.y in a"
    assert world.inputs["c"]["agent"]["system_prompt"] == "b"
    _, end = run(root, {"a": NO, "b": StepError("x.z", "neither")})
    assert end.error_path == "b"


def undoing(name: str, **more: Any) -> dict[str, Any]:
    return agent(name, compensate=agent(f"undo_{name}", f"Undo {{{{{name}}}}} for {{{{error.code}}}}."), **more)


def test_what_was_done_is_undone_in_the_reverse_order_of_its_end() -> None:
    root = sequence(
        parallel(undoing("a"), undoing("b"), undoing("c", when={"ref": "input", "op": "exists"})), agent("x")
    )
    world, end = run(root, {"x": NO}, takes_ms={"a": 500})
    assert paths(world) == ["a", "b", "x", "undo_a", "undo_b"]
    assert world.inputs["undo_a"]["agent"]["system_prompt"] == "Undo a for x.y."
    assert (end.status, end.error, end.not_undone) == (RunStatus.FAILED, NO, ())
    _, end = run(root, {"x": NO, "undo_a": NO})
    assert end.not_undone == ("undo_a",)


def test_a_failure_that_goes_no_further_undoes_what_it_spoilt_and_no_more() -> None:
    root = sequence(undoing("a"), sequence(undoing("b"), agent("x"), on_error="continue"), agent("c"))
    world, end = run(root, {"x": NO})
    assert paths(world) == ["a", "b", "x", "undo_b", "c"]
    assert end.status is RunStatus.COMPLETED


def test_a_container_has_a_time_limit_that_stops_what_runs_in_it() -> None:
    world, end = run(sequence(agent("a"), agent("b"), id="s", timeout_s=3), takes_ms={"a": 2_000, "b": 2_000})
    assert (end.status, end.error.code, end.error_path) == (RunStatus.FAILED, "workflow.timeout", "s")
    assert states(world) == {"a": "completed", "b": "cancelled"}
    assert world.now_ms == 4_000


def test_a_cancelled_run_stops_what_runs_and_undoes_only_if_it_is_to() -> None:
    root = sequence(undoing("a"), agent("b"))
    world, end = run(root, cancel_at_ms=1_150, takes_ms={"b": 500})
    assert (end.status, end.error) == (RunStatus.CANCELLED, None)
    assert states(world) == {"a": "completed", "b": "cancelled"}
    world, end = run(root, cancel_at_ms=1_150, undo_on_cancel=True, takes_ms={"b": 500})
    assert end.status is RunStatus.CANCELLED
    assert paths(world) == ["a", "b", "undo_a"]


def test_a_step_that_runs_is_asked_to_stop_until_its_record_says_that_it_did() -> None:
    spec, journal = parse_workflow(workflow(agent("a"))), Journal()
    (start, wait) = decide(spec, journal, 0)
    assert isinstance(start, StartAgent)
    assert wait == Wait(None, is_resting=False)
    journal.drive("a")
    started = StepRecord("a", "a", "agent", StepState.STARTED, input=start.record_input)
    journal.note(started)
    assert decide(spec, journal, 0) == (Wait(None, is_resting=False),)
    journal.cancel()
    assert decide(spec, journal, 0) == (Stop("a"), Wait(None, is_resting=False))
    journal.note(StepRecord("a", "a", "agent", StepState.CANCELLED))
    assert decide(spec, journal, 0) == (Finish(RunStatus.CANCELLED),)
    assert decide(spec, Journal(None, [started]), 0)[0] == start, "nobody drives it: it is taken up again"


def test_a_time_is_waited_for_from_when_the_wait_began() -> None:
    spec, journal = parse_workflow(workflow({"type": "wait", "id": "w", "delay_s": 5})), Journal()
    start = decide(spec, journal, 1_000)[0]
    assert isinstance(start, StartWait)
    assert start.due_at_ms == 6_000
    journal.note(StepRecord("w", "w", "wait", StepState.WAITING, due_at_ms=6_000, started_at_ms=1_000))
    assert decide(spec, journal, 5_999) == (Wait(6_000, is_resting=True),)
    assert decide(spec, Journal(None, journal.records.values()), 5_999) == (Wait(6_000, is_resting=True),)
    assert run({"type": "wait", "id": "w", "delay_s": 5})[0].now_ms == 6_000


@pytest.mark.parametrize("at", ["1970-01-01T00:00:07Z", "1970-01-01T01:00:07+01:00", "{{input}}"])
def test_a_moment_is_waited_for(at: str) -> None:
    world, end = run({"type": "wait", "id": "w", "at": at}, input="1970-01-01T00:00:07+00:00")
    assert (world.now_ms, end.status) == (7_000, RunStatus.COMPLETED)
    _, end = run({"type": "wait", "id": "w", "at": "{{input}}"}, input="soon")
    assert end.error.code == "workflow.reference"


def test_each_signal_ends_one_wait_in_order_and_one_that_came_early_is_kept() -> None:
    root = parallel(*({"type": "wait", "id": name, "signal": "go"} for name in ("a", "b")))
    spec, journal = parse_workflow(workflow(root)), Journal()
    journal.signal(SignalRecord(0, "go", "first"))
    world = World(spec, script({}))
    world.journal = journal
    world.script = lambda path, attempt: (NO, 0)  # nobody else sends one
    end = world.run()
    assert end == Wait(None, is_resting=True)
    assert states(world) == {"a": "completed", "b": "waiting"}
    assert journal.signals[0].taken_by == "a"
    journal.signal(SignalRecord(1, "other"))
    journal.signal(SignalRecord(2, "go", "second"))
    end = world.run()
    assert isinstance(end, Finish)
    assert end.output == {"a": "first", "b": "second"}


def test_a_person_is_asked_and_too_late_an_answer_is_a_failure() -> None:
    root = {"type": "wait", "id": "w", "person": "Publish {{input}}?", "choices": ["yes", "no"], "timeout_s": 60}
    spec, journal = parse_workflow(workflow(root, input="it")), Journal("it")
    start = decide(spec, journal, 0)[0]
    assert isinstance(start, StartWait)
    assert (start.question, start.choices, start.signal, start.due_at_ms) == ("Publish it?", ("yes", "no"), "w", 60_000)
    _, end = run(root, {"w": NO}, input="it")
    assert end.error.code == "workflow.timeout"
    assert run(root, input="it")[1].output == "to w"


def test_what_cannot_be_filled_in_is_a_failed_step_and_not_an_exception() -> None:
    root = sequence(free("a"), {"type": "tool", "id": "t", "tool": "x", "args": {"n": "{{a.k}}"}})
    world, end = run(root, {"a": "text"})
    assert (end.error.code, end.error_path) == ("workflow.reference", "t")
    assert states(world)["t"] == "failed"
    _, end = run(sequence(agent("a"), agent("b", "{{a}}")), {"a": None})
    assert end.error.code == "workflow.invalid_agent"
    tool = {"type": "tool", "id": "t", "tool": "x"}
    _, end = run(sequence(tool, {"type": "foreach", "id": "g", "items_from": "t", "body": agent("x")}), {"t": "text"})
    assert (end.error.code, end.error_path) == ("workflow.not_a_list", "g")


def test_an_agent_that_asks_a_person_is_left_alone_until_it_is_taken_up() -> None:
    spec = parse_workflow(workflow(agent("a")))
    waiting = StepRecord("a", "a", "agent", StepState.WAITING)
    journal = Journal(None, [waiting])
    assert decide(spec, journal, 0) == (Wait(None, is_resting=True),)
    journal.note(StepRecord("a", "a", "agent", StepState.STARTED))
    assert isinstance(decide(spec, journal, 0)[0], StartAgent)


def test_a_decision_costs_what_changed_and_not_what_there_is() -> None:
    """Counted in calls of functions: a run of many items asks about each of them a few times only."""

    def calls(count: int) -> int:
        spec = parse_workflow(
            workflow(foreach(list(range(count)), {"type": "tool", "id": "t", "tool": "x"}, parallel=True))
        )
        world = World(spec, script({}), max_concurrency=10)
        made = 0

        def count_call(frame: Any, event: str, arg: Any) -> None:
            nonlocal made
            made += event == "call" and "power_loop/workflow" in frame.f_code.co_filename

        sys.setprofile(count_call)
        try:
            world.run()
        finally:
            sys.setprofile(None)
        return made

    assert calls(400) < calls(50) * 8 * 1.2


def test_a_tool_step_is_a_tool_call() -> None:
    spec = parse_workflow(workflow({"type": "tool", "id": "t", "tool": "x", "timeout_s": 9}))
    assert decide(spec, Journal(), 0)[0] == StartTool("t", "t", 1, "x", {}, 9)
