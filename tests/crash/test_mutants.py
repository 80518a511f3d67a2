"""The crash tests find a kernel that breaks its promises: each mutant is caught by the check that is meant for it."""

from __future__ import annotations

import signal

import pytest

from tests.crash.harness import Theatre
from tests.crash.mutants import MUTANTS
from tests.crash.stories import STORIES
from tests.crash.verdict import carried_out, judge, left_alone, with_follow_up

STORY = STORIES["tool_round"]
_HOUR_MS = 3_600_000

#: By mutant: where the process is killed, how another one goes on, and what the verdict says.
CAUGHT = {
    "usage_apart": (("commit.after append_reply", 1), "carry_out", "the model calls are"),
    "keeps_lease": (("commit.after accept", 1), "carry_out", "the lease is held by nobody who lives"),
    "starts_unseen": (("effect.after charge:a", 1), "carry_out", "charge:a had its effect 2 times"),
    "forgets_death": (("effect.after charge:a", 1), "carry_out", "charge:a had its effect 2 times"),
    "forgets_some_deaths": (("effect.after save:b", 1), "send_other", "save:b is 'aborted'"),
    "own_keys": (("effect.after save:b", 1), "carry_out", "save:b ran under the keys"),
}


@pytest.mark.parametrize("mutant", CAUGHT)
def test_the_verdict_on_a_kill_catches(theatre: Theatre, mutant: str) -> None:
    place, way, words = CAUGHT[mutant]
    scene = theatre.dead(STORY.name, place, mutant=mutant)
    dead = scene.facts()
    assert theatre.play(scene, STORY.name, way, mutant=mutant) == {"exit": 0}
    expected = carried_out(STORY, dead) if way == "carry_out" else with_follow_up(left_alone(STORY, dead))
    with pytest.raises(AssertionError, match=words):
        judge(STORY, dead, scene, expected)


def test_what_a_killed_process_leaves_tells_a_half_transaction(theatre: Theatre) -> None:
    place = ("commit.before append_reply", 1)
    reference = theatre.reference(STORY.name)
    assert theatre.dead(STORY.name, place).facts() == reference.state_at(place)
    assert theatre.dead(STORY.name, place, mutant="no_transaction").facts() != reference.state_at(place)


def test_what_a_stopped_process_is_told_tells_a_missing_fence(theatre: Theatre) -> None:
    scene, nursery = theatre.beginning(), theatre.nursery
    job = {"is_first": True, "mutant": "no_fence", "stop_at": [("model.asked", 1)], "signal": "SIGSTOP"}
    stopped = nursery.start(scene, STORY.name, "carry_out", **job)
    assert nursery.wait(stopped) == {"stopped": int(signal.SIGSTOP)}
    assert theatre.play(scene.beside(), STORY.name, "carry_out", ahead_ms=_HOUR_MS, mutant="no_fence") == {"exit": 0}
    nursery.go_on(stopped)
    assert nursery.wait(stopped) == {"exit": 0}
    [own] = scene.outcomes()
    # The log's numbers are a second fence: what is written twice is refused, but the reason is another.
    assert own["error"] == "store.corrupt"


def test_every_mutant_has_its_test() -> None:
    assert CAUGHT.keys() | {"no_transaction", "no_fence"} == MUTANTS.keys()
