"""The disk is full at every commit of every story in turn, once or for a while; then there is space again."""

from __future__ import annotations

import pytest

from tests.crash.harness import Theatre
from tests.crash.stories import FOLLOW_UP_ANSWER, STORIES, Story
from tests.crash.verdict import carried_out, judge, with_follow_up

#: One commit fails; or what the turn does to end well fails too, so that it leaves even its lease behind.
_SPELLS = {"once": 1, "for a while": 1_000}

every_story = pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)


@every_story
@pytest.mark.parametrize("spell", _SPELLS)
@pytest.mark.promise("bad-input", "no-fault-bricks")
def test_a_turn_whose_disk_is_full_fails_with_a_code_and_goes_on_when_there_is_space(
    theatre: Theatre, story: Story, spell: str
) -> None:
    told = set()
    commits = sum(point.startswith("commit.before") for point in theatre.reference(story.name).points)
    for number in range(1, commits + 1):
        scene = theatre.beginning()
        acts = ("carry_out", "make_space", "look_into_the_file", "carry_out", "look_around", "follow_up")
        job = {"is_first": True, "full_at": number, "full_for": _SPELLS[spell]}
        assert theatre.play(scene, story.name, *acts, **job) == {"exit": 0}, number
        first, _, dead, second, seen, then = scene.outcomes()
        death = f"{spell}, at commit {number}: {first.get('error') or first['status']}"
        told.add(first.get("error") or first["status"])
        expected = carried_out(story, dead)
        judge(story, dead, scene, with_follow_up(expected), death=death)
        assert second.get("status") == expected.status, (death, second)
        assert (seen["pending"], seen["owner"]) == ([], None), death
        assert then["final_text"] == FOLLOW_UP_ANSWER, death
    # A lease that could not be lengthened or given back is no reason to fail a turn.
    assert "store.full" in told
    assert told <= {"store.full", "completed", "cancelled"}
