"""The public crash matrix finds a kernel that breaks its promises, at the very point and in the right words."""

from __future__ import annotations

import pytest

from power_loop.testing import Scenario, crash_matrix
from tests.crash.full import agents
from tests.crash.mutants import MUTANTS

#: By variant: the row that finds it, and what the verdict says of it.
FOUND = {
    "keeps_lease": ("commit.after:accept#1/sigkill/resume", "the lease is held by"),
    "starts_unseen": ("own:charge:a has happened#1/sigkill/resume", "charge had its effect 2 times"),
    "forgets_death": ("own:charge:a has happened#1/sigkill/resume", "charge had its effect 2 times"),
    "runs_once_calls_again": ("own:charge:a has happened#1/sigkill/again", "charge had its effect 2 times"),
    "own_keys": ("own:save:b has happened#1/sigkill/resume", "ran under the keys"),
    "keys_by_attempt": ("own:save:b has happened#1/sigkill/resume", "ran under the keys"),
    "usage_apart": ("commit.after:append_reply#1/sigkill/resume", "model calls are recorded for"),
    "no_transaction": ("commit.before:append_reply#1/sigkill/resume", "it died before a commit"),
    "no_fence": ("model.before:story#1/overlap/resume", "the process that was overtaken wrote afterwards"),
    "dead_seem_alive": ("commit.after:accept#1/sigkill/resume", "session.busy"),
}


@pytest.mark.parametrize("variant", FOUND)
@pytest.mark.promise("kill-at-any-moment", "effect-once")
def test_a_kernel_that_breaks_a_promise_is_found(variant: str) -> None:
    assert variant in MUTANTS
    row, words = FOUND[variant]
    scenario = Scenario("tool_round", agents.tool_round, check=agents.each_at_most_once)
    cell = f"sqlite/tool_round/{row}"
    whole = crash_matrix(agents.make_loop, scenarios=scenario, only=cell, workers=1)
    whole.raise_for_violations()
    broken = f"tests.crash.full.broken_agents:{variant}"
    # Some break it even where nothing dies.
    with pytest.raises(AssertionError, match=words):
        crash_matrix(broken, scenarios=scenario, only=cell, workers=1).raise_for_violations()


#: By variant: a scenario, a row in which a process is overtaken, and what the verdict says of it.
OVERTAKEN = [
    ("no_fence", "failure", "commit.after:accept#1/sigstop", "was overtaken changed afterwards"),
    ("no_fence", "human_wait", "commit.after:accept#1/sigstop", "was overtaken changed afterwards"),
    ("no_fence", "failure", "model.before:story#1/overlap", "was overtaken wrote afterwards: ..end_send"),
    ("no_fence", "workflow", "commit.after:accept#3/sigstop", "was overtaken changed afterwards"),
    ("releases_blindly", "failure", "commit.after:take_up#1/sigstop", "was overtaken changed afterwards"),
    ("releases_blindly", "human_wait", "commit.after:take_up#1/sigstop", "was overtaken changed afterwards"),
    ("releases_blindly", "failure", "model.before:story#1/overlap", "took the session from its living owner"),
]


@pytest.mark.parametrize(("variant", "name", "row", "words"), OVERTAKEN)
@pytest.mark.promise("one-writer")
def test_a_process_that_writes_without_its_lease_is_found(variant: str, name: str, row: str, words: str) -> None:
    scenario = Scenario(name, getattr(agents, name))
    cell = f"sqlite/{name}/{row}/resume"
    crash_matrix(agents.make_loop, scenarios=scenario, only=cell, workers=1).raise_for_violations()
    broken = f"tests.crash.full.broken_agents:{variant}"
    with pytest.raises(AssertionError, match=words):
        crash_matrix(broken, scenarios=scenario, only=cell, workers=1).raise_for_violations()


def test_a_process_that_waits_for_the_one_that_took_over_is_not_made_to_outwait_its_lease() -> None:
    scenario = Scenario("late_follow_up", agents.late_follow_up)
    cell = "sqlite/late_follow_up/model.before:story#2/overlap/resume"
    crash_matrix(agents.make_loop, scenarios=scenario, only=cell, workers=1).raise_for_violations()
