"""A process is killed with SIGKILL at every point of every story, and others go on from what it left."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import power_loop
from tests.crash.facts import log_of
from tests.crash.harness import Scene, Theatre
from tests.crash.stories import FOLLOW_UP_ANSWER, STORIES, Story
from tests.crash.verdict import (
    Expected,
    carried_out,
    in_order,
    judge,
    left_alone,
    open_calls,
    plain,
    send_of,
    with_follow_up,
)

_COMMITS = Path(power_loop.__file__).parent / "runtime" / "store" / "commits.py"
#: Moves that no story makes: inputs that others leave and effects in a transaction are in the matrix (test_matrix.py).
_OF_THE_MATRIX = {"take_inputs", "run_effect"}

every_story = pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)


def named_moves(*paths: Path) -> set[str]:
    """Return the names of all moves in a part of the source: the first argument of every `write` to a database."""
    found = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not node.args:
                continue
            name = node.args[0]
            if node.func.attr in ("write", "_write", "_settle"):
                names = (name.body, name.orelse) if isinstance(name, ast.IfExp) else (name,)
                found |= {one.value for one in names if isinstance(one, ast.Constant) and isinstance(one.value, str)}
    return found


def every_death(theatre: Theatre, story: Story) -> Iterator[tuple[str, Scene]]:
    """Kill a process at each point of a story in turn; give the name of the point and what is left."""
    for place in theatre.reference(story.name).places:
        yield f"killed at {place[0]} ({place[1]})", theatre.dead(story.name, place)


def test_every_move_of_a_turn_has_its_kill_points(theatre: Theatre) -> None:
    moves = named_moves(_COMMITS)
    assert moves > _OF_THE_MATRIX
    passed = {point for story in STORIES for point in theatre.reference(story).points}
    told = {(point.split()[0], point.split()[1]) for point in passed if point.startswith("commit.")}
    assert told == {(side, move) for move in moves - _OF_THE_MATRIX for side in ("commit.before", "commit.after")}


@every_story
def test_the_story_without_a_kill_is_what_its_account_says(theatre: Theatre, story: Story) -> None:
    reference = theatre.reference(story.name)
    before, after = reference.states[0], reference.states[-1]
    [outcome] = reference.scene.outcomes()
    expected = carried_out(story, before)
    judge(story, before, reference.scene, expected)
    assert reference.scene.facts() == after
    assert outcome["status"] == expected.status == ("cancelled" if story.is_cancelled else "completed")
    assert outcome["output"] == ({"n": 7} if story.output_schema else None)


@every_story
@pytest.mark.promise("kill-at-any-moment")
def test_a_killed_process_leaves_whole_transactions_and_nothing_else(theatre: Theatre, story: Story) -> None:
    reference = theatre.reference(story.name)
    for place in reference.places:
        scene = theatre.dead(story.name, place)
        assert scene.facts() == reference.state_at(place), place


@every_story
@pytest.mark.promise("kill-at-any-moment", "valid-transcript")
def test_a_fresh_process_carries_the_turn_of_a_killed_one_to_its_end(theatre: Theatre, story: Story) -> None:
    for death, scene in every_death(theatre, story):
        dead, expected = scene.facts(), carried_out(story, scene.facts())
        assert theatre.play(scene, story.name, "carry_out", "look_around") == {"exit": 0}, death
        result, seen = scene.outcomes()
        judge(story, dead, scene, expected, death=death)
        check_result(theatre, story, expected, result, death)
        assert (seen["pending"], seen["owner"]) == ([], None), death
        # The session is as good as any other: yet another process holds the next exchange.
        assert theatre.play(scene, story.name, "follow_up") == {"exit": 0}, death
        [then] = scene.outcomes()
        assert (then["status"], then["final_text"]) == ("completed", FOLLOW_UP_ANSWER), death
        judge(story, dead, scene, with_follow_up(expected), death=death)


@every_story
@pytest.mark.promise("repeated-request")
def test_repeating_the_request_of_a_killed_process_goes_on_with_it(theatre: Theatre, story: Story) -> None:
    for death, scene in every_death(theatre, story):
        dead, expected = scene.facts(), carried_out(story, scene.facts())
        assert theatre.play(scene, story.name, "send_again", "send_again") == {"exit": 0}, death
        first, second = scene.outcomes()
        judge(story, dead, scene, expected, death=death)
        check_result(theatre, story, expected, first, death)
        assert second == {**first, "is_replayed": True}, death


@every_story
@pytest.mark.promise("two-ways-out", "immutable-log")
def test_a_plain_send_after_a_kill_loses_nothing_and_repeats_nothing(theatre: Theatre, story: Story) -> None:
    for death, scene in every_death(theatre, story):
        dead, expected = scene.facts(), with_follow_up(left_alone(story, scene.facts()))
        assert theatre.play(scene, story.name, "send_other") == {"exit": 0}, death
        [result] = scene.outcomes()
        assert (result.get("status"), result.get("final_text")) == ("completed", FOLLOW_UP_ANSWER), (death, result)
        judge(story, dead, scene, expected, death=death)


@every_story
def test_giving_a_killed_turn_up_ends_it_and_runs_nothing(theatre: Theatre, story: Story) -> None:
    for death, scene in every_death(theatre, story):
        dead, expected = scene.facts(), left_alone(story, scene.facts())
        send = send_of(story, dead)
        if send is not None and send["status"] in ("running", "waiting_for_input", "failed"):
            expected = Expected(expected.log, "aborted")
        assert theatre.play(scene, story.name, "give_up", "follow_up") == {"exit": 0}, death
        _, then = scene.outcomes()
        judge(story, dead, scene, with_follow_up(expected), death=death)
        assert then["status"] == "completed", death


def check_result(theatre: Theatre, story: Story, expected: Expected, result: dict[str, object], death: str) -> None:
    """The result is that of the run without a kill, but for what honestly differs."""
    [reference] = theatre.reference(story.name).scene.outcomes()
    log = expected.log
    begin = log.index(("user", story.text)) + 1
    said = [entry[1] for entry in log[begin:] if entry[0] == "assistant" and entry[1]]
    assert result["status"] == expected.status, death
    assert result["final_text"] == (said[-1] if said else ""), death
    assert result["rounds"] == sum(entry[0] == "assistant" for entry in log[begin:]), death
    same = ("output", "send_index", "request_id", "tool_calls")
    if expected.status == reference["status"]:
        same = (*same, "usage")
    assert {name: result[name] for name in same} == {name: reference[name] for name in same}, death


def test_the_deaths_are_of_every_kind(theatre: Theatre) -> None:
    """The matrix is worth something only if processes died with calls in every open state, and in every status."""
    states: set[str] = set()
    statuses: set[str | None] = set()
    for story in STORIES.values():
        for _, scene in every_death(theatre, story):
            facts = scene.facts()
            send = send_of(story, facts)
            states |= {row["state"] for row in open_calls(facts)}
            statuses.add(send and send["status"])
            assert in_order(plain(log_of(facts)))
    assert states == {"requested", "started", "waiting"}
    assert statuses == {None, "running", "waiting_for_input", "failed", "completed", "cancelled"}
