"""Two live processes on one session: one wins, and one that was stopped until its lease ran out writes nothing."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from tests.crash.facts import log_of
from tests.crash.harness import Scene, Theatre
from tests.crash.stories import FOLLOW_UP, FOLLOW_UP_ANSWER, STORIES, Story
from tests.crash.verdict import carried_out, judge, with_follow_up

# Longer than any lease here.
_HOUR_MS = 3_600_000
_STOPPED = {"stopped": int(signal.SIGSTOP)}
_ENDED = {"exit": 0}
# What a caller is told whose turn, or whose answer, another process took over.
_OVERTAKEN = {"session.lease_lost", "call.not_waiting"}

every_story = pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)


def race(theatre: Theatre, scene: Scene, story: str, first: str, second: str) -> tuple[Any, Any]:
    """Let two processes that are ready do something at the same moment.

    Give the outcome of the one that was refused, and of the other, which is held in its model call until then.
    """
    nursery = theatre.nursery
    stops = {"stop_at": [("ready", 1), ("model.asked", 1)], "signal": "SIGSTOP"}
    scenes = {
        nursery.start(view, story, "get_ready", act, **stops): view
        for view, act in ((scene, first), (scene.beside(), second))
    }
    assert [nursery.wait(pid) for pid in scenes] == [_STOPPED, _STOPPED]
    for pid in scenes:
        nursery.go_on(pid)
    ended = {pid: nursery.wait(pid) for pid in scenes}
    assert sorted(ended.values(), key=str) == [_ENDED, _STOPPED]
    [loser] = [pid for pid in scenes if ended[pid] == _ENDED]
    [winner] = [pid for pid in scenes if ended[pid] == _STOPPED]
    refused = scenes[loser].outcomes()[-1]
    nursery.go_on(winner)
    assert nursery.wait(winner) == _ENDED
    return refused, scenes[winner].outcomes()[-1]


@pytest.mark.parametrize("attempt", range(4))
@pytest.mark.promise("one-writer")
def test_of_two_sends_at_the_same_moment_one_is_busy(theatre: Theatre, attempt: int) -> None:
    scene = theatre.beginning()
    before = log_of(scene.facts())
    refused, result = race(theatre, scene, "plain", "carry_out", "follow_up")
    assert refused["error"] == "session.busy"
    assert result["status"] == "completed"
    log = log_of(scene.facts())
    exchanges = {
        (("user", STORIES["plain"].text), ("assistant", "Well, thank you.", ())),
        (("user", FOLLOW_UP), ("assistant", FOLLOW_UP_ANSWER, ())),
    }
    assert log[: len(before)] == before
    assert tuple(log[len(before) :]) in exchanges
    # The one that was refused lost nothing but time.
    assert theatre.play(scene, "plain", "follow_up") == _ENDED
    assert scene.outcomes()[-1]["status"] == "completed"


@pytest.mark.parametrize("second", ["carry_out", "send_again"])
@pytest.mark.parametrize("place", [("effect.before charge:a", 1), ("effect.after charge:a", 1)], ids=lambda it: it[0])
@pytest.mark.promise("one-writer", "effect-once")
def test_of_two_processes_that_take_a_killed_turn_up_one_is_busy(
    theatre: Theatre, place: tuple[str, int], second: str
) -> None:
    story = STORIES["tool_round"]
    scene = theatre.dead(story.name, place)
    dead = scene.facts()
    refused, result = race(theatre, scene, story.name, "carry_out", second)
    assert refused["error"] == "session.busy"
    assert result["status"] == "completed"
    judge(story, dead, scene, carried_out(story, dead))


@every_story
@pytest.mark.promise("one-writer")
def test_a_process_that_was_stopped_until_its_lease_ran_out_writes_nothing(theatre: Theatre, story: Story) -> None:
    """It is stopped at every point in turn, another one takes over, and then it is let go on."""
    nursery = theatre.nursery
    for place in theatre.reference(story.name).places:
        scene = theatre.beginning()
        stopped = nursery.start(scene, story.name, "carry_out", is_first=True, stop_at=[place], signal="SIGSTOP")
        assert nursery.wait(stopped) == _STOPPED, place
        dead = scene.facts()
        second = scene.beside()
        assert theatre.play(second, story.name, "carry_out", ahead_ms=_HOUR_MS, busy_timeout_s=0.01) == _ENDED
        after = scene.facts()
        nursery.go_on(stopped)
        assert nursery.wait(stopped) == _ENDED, place
        [taken_over], [own] = second.outcomes(), scene.outcomes()
        if place[0].startswith("commit.before"):
            # It was stopped inside of a transaction, which nobody can take from it: the other is told, it goes on.
            assert taken_over["error"] == "store.unavailable", place
            before = theatre.reference(story.name).states[0]
            judge(story, before, scene, carried_out(story, before), death=f"{place}, and its caller was told {own}")
            continue
        assert taken_over["status"] == carried_out(story, dead).status, (place, taken_over)
        assert scene.facts() == after, place
        judge(story, dead, scene, carried_out(story, dead), death=str(place))
        if "error" in own:
            assert own["error"] in _OVERTAKEN, (place, own)
        else:
            # Its send was at rest by then.
            said = ("status", "final_text", "output", "send_index")
            assert {name: own[name] for name in said} == {name: taken_over[name] for name in said}, place


@pytest.mark.promise("one-writer", "effect-once")
def test_a_lease_that_is_not_renewed_runs_out_by_the_clock(theatre: Theatre) -> None:
    story, nursery = STORIES["tool_round"], theatre.nursery
    scene = theatre.beginning()
    stops = {"stop_at": [("effect.after charge:a", 1)], "signal": "SIGSTOP"}
    stopped = nursery.start(scene, story.name, "carry_out", is_first=True, **stops)
    assert nursery.wait(stopped) == _STOPPED
    dead = scene.facts()
    second = scene.beside()
    acts = ("carry_out", "carry_out_too_early", "carry_out_in_time", "follow_up")
    assert theatre.play(second, story.name, *acts) == _ENDED
    at_once, too_early, result, then = second.outcomes()
    assert at_once["error"] == too_early["error"] == "session.busy"
    assert (result["status"], then["status"]) == ("completed", "completed")
    nursery.go_on(stopped)
    assert nursery.wait(stopped) == _ENDED
    assert [outcome.get("error") for outcome in scene.outcomes()] == ["session.lease_lost"]
    judge(story, dead, scene, with_follow_up(carried_out(story, dead)))


@pytest.mark.promise("durable-conversation", "kill-at-any-moment")
def test_what_is_acknowledged_beside_a_process_that_comes_and_goes_survives_a_kill(theatre: Theatre) -> None:
    """SQLite's last connection takes the write-ahead log away with it: it has to see that others are still there."""
    story, nursery = STORIES["two_rounds"], theatre.nursery
    scene = theatre.beginning()
    stops = {"stop_at": [("effect.after charge:a", 1), ("commit.after append_reply", 3)], "signal": "SIGSTOP"}
    lives_on = nursery.start(scene, story.name, "carry_out", is_first=True, **stops)
    assert nursery.wait(lives_on) == _STOPPED
    for _ in range(2):
        assert theatre.play(scene.beside(), story.name, "look_around") == _ENDED
    assert (scene.folder / "app.db-wal").exists()
    nursery.go_on(lives_on)
    assert nursery.wait(lives_on) == _STOPPED
    nursery.kill(lives_on)
    assert nursery.wait(lives_on) == {"exit": -signal.SIGKILL}
    before = theatre.reference(story.name).states[0]
    judge(story, before, scene, carried_out(story, before))
