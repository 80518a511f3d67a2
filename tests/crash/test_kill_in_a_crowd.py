"""A process is killed while several sessions share its commits: what each caller was told is there, and all go on."""

from __future__ import annotations

import signal
from collections import Counter

import pytest

from power_loop.core.context import texts
from tests.crash.facts import Facts, log_of
from tests.crash.harness import Theatre
from tests.crash.stories import CROWD, STORIES, report, result_text
from tests.crash.verdict import open_calls, problems_of_requests

STORY = STORIES["tool_round"]
_CALLS = (("charge", "a"), ("save", "b"), ("look", "c"))
# A crowd passes at least 120: in each of six sessions five commits, two model calls and three effects of two each.
_POINTS = range(3, 99, 3)


def statuses(facts: Facts) -> dict[str, str]:
    """Return where the sends of the crowd stand."""
    return {row["session_id"]: row["status"] for row in facts["sends"] if row["session_id"] in CROWD}


@pytest.mark.parametrize("first", _POINTS[:4])
@pytest.mark.promise("kill-at-any-moment", "effect-once", "repeated-request")
def test_a_crowd_whose_process_was_killed_goes_on_and_nobody_was_told_a_lie(theatre: Theatre, first: int) -> None:
    for number in _POINTS[first // 3 - 1 :: 4]:
        scene = theatre.beginning()
        assert theatre.play(scene, STORY.name, "crowd", stop_at_number=number) == {"exit": -signal.SIGKILL}
        dead = scene.facts()
        # What was acknowledged is durable, however many shared the commit.
        assert {session_id: statuses(dead).get(session_id) for session_id in scene.told()} == dict.fromkeys(
            scene.told(), "completed"
        ), number
        started = {row["idempotency_key"]: row["name"] for row in dead["tool_calls"] if row["state"] == "started"}

        assert theatre.play(scene, STORY.name, "crowd") == {"exit": 0}, number
        facts = scene.facts()
        [answers] = scene.outcomes()
        assert statuses(facts) == dict.fromkeys(CROWD, "completed"), number
        assert open_calls(facts) == [], number
        assert [row["id"] for row in facts["sessions"] if row["owner"]] == [], number
        assert list(problems_of_requests(scene)) == [], number
        unknown = {row["idempotency_key"] for row in facts["tool_calls"] if row["state"] == "unknown"}
        assert unknown == {key for key, name in started.items() if name == "charge"}, number
        effects = Counter((line["label"], line["key"]) for line in scene.effects() if line["what"] == "effect")
        assert {label: count for label, count in effects.items() if label[0] == "charge:a" and count > 1} == {}, number
        for session_id, answer in zip(CROWD, answers, strict=True):
            log = log_of(facts, session_id)
            results = [entry[2] for entry in sorted(log[2:5], key=lambda entry: entry[1])]
            whole = [result_text(*call) for call in _CALLS]
            assert results[1:] == whole[1:], number
            assert results[0] in (whole[0], texts.unknown_outcome("charge")), number
            assert [entry[0] for entry in log] == ["user", "assistant", "tool", "tool", "tool", "assistant"], number
            assert answer == log[5][1] == report(results), number
