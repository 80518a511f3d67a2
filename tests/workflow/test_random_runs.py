"""Random workflows that fail at random, in real processes that are killed at random commits, come to what the run comes
to that nobody killed: on the real engine, with a real database, each effect within its class."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.workflow.specs import good_workflow

ROOT = Path(__file__).resolve().parents[2]


class Children:
    """Is the process that lets others live and die."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.workflow.random_child", str(folder)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, **told: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what became of a run without a death, and with all of them."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(told) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"it ended with {self._process.wait()}"
        came_to = json.loads(line)
        return came_to["whole"], came_to["killed"]

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@pytest.fixture(scope="module")
def children(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Children]:
    made = Children(tmp_path_factory.mktemp("random"))
    yield made
    made.close()


def at_once(node: Any) -> Any:
    """Return a spec without what takes time: each pause is none, and no step has to be in time."""
    if isinstance(node, list):
        return [at_once(one) for one in node]
    if not isinstance(node, dict):
        return node
    made = {key: at_once(value) for key, value in node.items() if key != "timeout_s"}
    if made.get("type") == "wait":
        made = {key: value for key, value in made.items() if key not in ("signal", "person")} | {"delay_s": 0}
    if "backoff" in made:
        made["backoff"] = 0
    return {"llm.auth" if key == "x.y" else key: value for key, value in made.items()}


#: What fails while something else runs decides by chance what is still begun: one at a time, or nothing fails.
_MANNERS = st.sampled_from([{"failing": 30, "max_concurrency": 1}, {"failing": 0, "max_concurrency": 3}])


@pytest.mark.promise("workflow-killed", "effect-once")
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32),
    depth=st.integers(1, 3),
    manner=_MANNERS,
    effect=st.sampled_from(["once", "idempotent", "read"]),
    kills=st.lists(st.integers(0, 999), min_size=1, max_size=3),
)
def test_a_random_run_that_is_killed_at_any_commits_comes_to_what_it_comes_to_alone(
    children: Children, seed: int, depth: int, manner: dict[str, int], effect: str, kills: list[int]
) -> None:
    spec = at_once(good_workflow(seed, depth=depth))
    told = {"seed": seed, "effect": effect, "kills": kills, **manner}
    assert problems_of(*children.tell(spec=spec, mutant=None, **told), told) == []


def test_an_engine_that_does_finished_steps_again_is_found(children: Children) -> None:
    for seed in range(40):
        spec = at_once(good_workflow(seed, depth=2))
        told = {"seed": seed, "effect": "once", "kills": [700], "failing": 0, "max_concurrency": 1}
        if problems_of(*children.tell(spec=spec, mutant="runs_finished_steps_again", **told), told):
            return
    pytest.fail("nothing told it")


def problems_of(whole: dict[str, Any], killed: dict[str, Any], told: dict[str, Any]) -> list[str]:
    """Return what is wrong with a run that was killed, beside the same one that was not."""
    found = []
    for name, one in (("whole", whole), ("killed", killed)):
        found += [f"{name}: {part} {one[part]}" for part in ("held", "open", "findings") if one[part]]
        # Each effect has a call of its own, and comes as often as its class lets it.
        most = 1 if told["effect"] == "once" else 1 + one["deaths"]
        found += [f"{name}: effect {key} came {n} times" for key, n in Counter(one["effects"]).items() if n > most]
    again = len(killed["asked"]) - len(set(killed["asked"]))
    if again > killed["deaths"] * told["max_concurrency"]:
        found.append(f"{killed['deaths']} processes died, and models were asked {again} times again")
    if not killed["unknown"]:
        parts = ("status", "output", "outputs", "error", "steps", "tokens", "children")
        found += [f"{one}: {killed[one]} and has to be {whole[one]}" for one in parts if killed[one] != whole[one]]
        sets = ("effects", "asked")
        found += [
            f"{one}: {killed[one]} and has to be {whole[one]}" for one in sets if set(killed[one]) != set(whole[one])
        ]
    elif told["effect"] != "once" or killed["unknown"] > killed["deaths"] * told["max_concurrency"]:
        # What became of a call that may come once is told honestly, and the run may take another way behind it.
        found.append(f"{killed['unknown']} calls are unknown behind {killed['deaths']} deaths")
    return found
