"""A process that goes on with a dead one's turn is killed too, and so is one that founds the database."""

from __future__ import annotations

import random
import signal

import pytest

from tests.crash.facts import log_of
from tests.crash.harness import Theatre, run_alone
from tests.crash.stories import FOLLOW_UP_ANSWER, GREETING, GREETING_ANSWER, STORIES, Story
from tests.crash.verdict import carried_out, judge, left_alone, with_follow_up

_KILLED = {"exit": -signal.SIGKILL}
_ENDED = {"exit": 0}
# As many tests share the points of a founding out: one alone would take minutes on a machine under load.
_FOUNDINGS = 4

every_story = pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)


@every_story
@pytest.mark.promise("kill-at-any-moment")
def test_a_second_kill_while_the_turn_goes_on_changes_nothing(theatre: Theatre, story: Story) -> None:
    """For each point of the first death one of the second, drawn with a seed, and now and then a third."""
    chance = random.Random(story.name)
    deaths = 0
    for place in theatre.reference(story.name).places:
        scene = theatre.dead(story.name, place)
        told = [f"{place}"]
        for way in chance.choices(["carry_out", "send_again"], k=2):
            number = chance.randint(1, 8)
            ended = theatre.play(scene, story.name, way, stop_at_number=number)
            assert ended in (_KILLED, _ENDED), told
            told.append(f"{way} until point {number}")
            deaths += ended == _KILLED
        dead = scene.facts()
        assert theatre.play(scene, story.name, "carry_out") == _ENDED, told
        judge(story, dead, scene, carried_out(story, dead), death=", then ".join(told))
    assert deaths > len(theatre.reference(story.name).places) // 2


@pytest.mark.parametrize("way", ["send_other", "give_up"])
@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("tool_round", ("effect.after charge:a", 1)),
        ("alone", ("commit.after advance_calls", 2)),
        ("human", ("commit.after end_send", 1)),
    ],
    ids=lambda it: it if isinstance(it, str) else it[0].replace(" ", "-"),
)
@pytest.mark.promise("kill-at-any-moment", "two-ways-out")
def test_a_second_kill_while_open_calls_are_settled_changes_nothing(
    theatre: Theatre, name: str, place: tuple[str, int], way: str
) -> None:
    """The second process is killed at each of its points in turn, until it lives through all of them."""
    story = STORIES[name]
    number = 1
    while theatre.play(scene := theatre.dead(name, place), name, way, stop_at_number=number) == _KILLED:
        dead = scene.facts()
        death = f"{place}, then {way} until {scene.points()[-1]}"
        if dead["sends"][-1]["request_id"] == name:
            assert theatre.play(scene, name, "send_other") == _ENDED, death
            judge(story, dead, scene, with_follow_up(left_alone(story, dead)), death=death)
        else:
            # It died in the send that came after, which the next one interrupts unless it was at rest.
            assert theatre.play(scene, name, "follow_up") == _ENDED, death
            [then] = scene.outcomes()
            assert (then["status"], then["final_text"]) == ("completed", FOLLOW_UP_ANSWER), death
            is_left = dead["sends"][-1]["status"] == "running"
            statuses = [row["status"] for row in scene.facts()["sends"]]
            assert statuses[-2:] == ["interrupted" if is_left else "completed", "completed"], death
        number += 1
    # Both ways take the lease and commit once.
    assert number > 4


@pytest.mark.parametrize("first", range(_FOUNDINGS))
@pytest.mark.promise("kill-at-any-moment")
def test_a_database_and_session_whose_founder_was_killed_are_founded_by_the_next(theatre: Theatre, first: int) -> None:
    reference = theatre.empty()
    assert theatre.play(reference, "plain", "found") == _ENDED
    points = reference.points()
    passed = {point.split()[1] for point in points if point.startswith("commit.after")}
    assert passed == {"provision", "create_session", "update_session", "accept", "append_reply", "close_session"}
    whole = reference.facts()
    for number, point in list(enumerate(points, 1))[first::_FOUNDINGS]:
        scene = theatre.empty()
        assert theatre.play(scene, "plain", "found", stop_at_number=number) == _KILLED, point
        assert scene.points()[-1] == point
        assert theatre.play(scene, "plain", "found") == _ENDED, point
        facts = scene.facts()
        # Editing a session again counts as another edit, and taking its turn up as another epoch.
        for row in (*facts["sessions"], *whole["sessions"], *facts["sends"], *whole["sends"]):
            for name in ("version", "epoch", "attempts"):
                row.pop(name, None)
        assert facts == whole, point
        assert log_of(facts) == [("user", GREETING), ("assistant", GREETING_ANSWER, ())]


@pytest.mark.parametrize(
    "place", [("commit.after append_reply", 1), ("effect.after charge:a", 1)], ids=lambda it: it[0]
)
@pytest.mark.promise("durable-conversation")
def test_interpreters_of_their_own_tell_the_same_as_forks(theatre: Theatre, place: tuple[str, int]) -> None:
    story = STORIES["tool_round"]
    scene = theatre.beginning()
    died = run_alone(scene, story.name, "carry_out", is_first=True, stop_at=[place])
    assert died == -signal.SIGKILL
    dead = scene.facts()
    assert dead == theatre.reference(story.name).state_at(place)
    assert run_alone(scene, story.name, "carry_out", "follow_up") == 0
    judge(story, dead, scene, with_follow_up(carried_out(story, dead)))
