"""Runs races: processes with random clients on the same sessions, random deaths, and a check of every history.

`python -m tests.crash.races --dsn … --seed … --seconds …` runs one, and prints what it found.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from power_loop import open_store
from power_loop.testing.history import History, read_history
from power_loop.testing.history_check import HistoryReport, check_history
from tests.crash.racer import Race

ROOT = Path(__file__).resolve().parents[2]
# Behind its own end a race may take so long for its last turns and its recovery, in seconds.
_GRACE_S = 450.0
_NO_END_S = 3600.0


@dataclass(frozen=True)
class RaceReport:
    """Is what became of a race. `counts` are its processes, `codes` the errors that clients were told."""

    seed: int
    history: HistoryReport
    counts: dict[str, int]
    codes: dict[str, int]
    troubles: tuple[str, ...] = ()
    duration_s: float = 0.0
    kinds: dict[str, int] = field(default_factory=dict)

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong, in lines."""
        return (*map(str, self.history.problems), *self.troubles)

    def __str__(self) -> str:
        head = (
            f"race of seed {self.seed}: {self.counts['processes']} processes, {self.counts['killed']} killed,"
            f" {self.counts['stopped']} stopped, {self.duration_s:.1f} s; {self.history.counts}; operations"
            f" {self.kinds}; clients were told {self.codes}; {len(self.problems)} problems"
        )
        return "\n".join([head, *self.problems])

    def raise_for_problems(self) -> None:
        """Raise an AssertionError that tells them all, if there is any."""
        if self.problems:
            raise AssertionError(str(self))


def run_races(
    dsn: str,
    *,
    seed: int,
    operations: int | None = None,
    seconds: float | None = None,
    workers: int = 3,
    sessions: int = 4,
    table_prefix: str = "pl_",
    mutant: str | None = None,
    keep: str | None = None,
    **swarm: float,
) -> RaceReport:
    """Run a race until so many operations were begun, or for so many seconds, and check it.

    `seed` decides what clients do and when processes die; how they meet is the machine's. `swarm` sets what it draws
    from the seed otherwise: `deaths` and `stops`, as parts of one. `keep` is where the history is left.
    """
    chosen = random.Random(f"swarm {seed}")
    drawn = {"deaths": chosen.choice((0.0, 0.5, 0.9, 1.0)), "stops": chosen.choice((0.0, 0.1, 0.3))}
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="race-") as folder:
        race = Race(
            dsn=dsn,
            prefix=table_prefix,
            folder=folder,
            seed=seed,
            workers=workers,
            sessions=[f"race_{seed}_{number}" for number in range(sessions)],
            operations=operations or sys.maxsize,
            ends_ns=time.monotonic_ns() + round((seconds or _NO_END_S) * 1e9),
            parent=os.getpid(),
            mutant=mutant,
            **(drawn | swarm),
        )
        asyncio.run(_make_sessions(race))
        told = _conduct(race, timeout_s=(seconds or operations or 0) + _GRACE_S)
        history = read_history(race.history)
        if keep is not None:
            shutil.copy(race.history, keep)
        checked = asyncio.run(_check(race, history))
        return RaceReport(
            seed=seed,
            history=checked,
            counts=told["counts"],
            codes=dict(Counter(str(it.told["code"]) for it in history.operations if "code" in it.told)),
            troubles=(*_unexpected(history), *_troubles(Path(folder))),
            duration_s=time.monotonic() - begun,
            kinds=dict(Counter(it.kind for it in history.operations)),
        )


async def _make_sessions(race: Race) -> None:
    store = await open_store(race.dsn, table_prefix=race.prefix)
    for session_id in race.sessions:
        await store.create_session(session_id, system_prompt=None, metadata={})
    await store.aclose()


async def _check(race: Race, history: History) -> HistoryReport:
    store = await open_store(race.dsn, table_prefix=race.prefix)
    try:
        return await check_history(store, history)
    finally:
        await store.aclose()


def _conduct(race: Race, *, timeout_s: float) -> dict[str, dict[str, int]]:
    command = [sys.executable, "-m", "tests.crash.racer", json.dumps(dataclasses.asdict(race))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=timeout_s)
    if done.returncode:
        raise AssertionError(f"the race of seed {race.seed} could not be run:\n{done.stderr}")
    told: dict[str, dict[str, int]] = json.loads(done.stdout.splitlines()[-1])
    return told


def _unexpected(history: History) -> list[str]:
    return [
        f"a client of {note.process} was told {note.what['code']} during {note.what['during']}: {note.what['message']}"
        for note in history.notes
        if note.kind == "unexpected"
    ]


def _troubles(folder: Path) -> list[str]:
    texts = ((path.stem, path.read_text()) for path in sorted(folder.glob("*.trouble")))
    return [f"process {name} failed:\n{text}" for name, text in texts if text]


def main() -> None:
    """Run one race from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dsn", help="the store (default: a SQLite file of its own)")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--seconds", type=float, default=None)
    parser.add_argument("--operations", type=int, default=None)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--sessions", type=int, default=4)
    parser.add_argument("--keep", default=None, help="leave the history in this file")
    parser.add_argument("--mutant", default=None, help="break the kernel in this way")
    given = vars(parser.parse_args())
    given["seed"] = random.randrange(10**6) if given["seed"] is None else given["seed"]
    if given["seconds"] is None and given["operations"] is None:
        given["operations"] = 300
    with tempfile.TemporaryDirectory() as folder:
        given["dsn"] = given["dsn"] or str(Path(folder) / "app.db")
        report = run_races(**given)
    print(report)
    sys.exit(bool(report.problems))


if __name__ == "__main__":
    main()
