"""Is `make crash`: the whole matrix, which goes on where it was ended, or one row of it again with every detail."""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from power_loop.testing.matrix.report import Cell, Row
from tests.crash.broken import rows
from tests.crash.full import lanes
from tests.crash.full.agents import SCENARIOS
from tests.crash.full.disk import DISK_KINDS, NoInjectorError
from tests.crash.full.journal import Journal
from tests.crash.full.network import CUTS, SLOW
from tests.crash.full.page import page_beside, page_of

ROOT = Path(__file__).resolve().parents[3]
JOURNAL = ROOT / ".crash" / "crash-results.jsonl"
PAGE = ROOT / "docs" / "en" / "crash-matrix.md"
_BAR_CHARS = 24
# All pairs are about 15,000 on each backend; so many keep the whole run within an hour on two cores.
_DOUBLES = 3_000
_SAY_EVERY_S = 0.5
_SAY_EVERY_WITHOUT_TERMINAL_S = 30.0


class Progress:
    """Says on one line how far the run is."""

    def __init__(self, journal: Journal, *, is_quiet: bool = False) -> None:
        self.planned = 0
        self._done = 0
        self._broken = sum(row.outcome == "broken" for row in journal.rows.values())
        self._begun = self._said = time.monotonic()
        self._is_terminal = sys.stderr.isatty()
        self._is_quiet = is_quiet
        self._lock = threading.Lock()

    def plan(self, count: int) -> None:
        """Add to what is to be done."""
        with self._lock:
            self.planned += count

    def done(self, row: Row) -> None:
        """Count a row."""
        with self._lock:
            self._done += 1
            if row.outcome == "broken":
                self._broken += 1
                self._print(f"BROKEN {row.cell}\n" + "\n".join(f"    {one}" for one in row.problems), "\n")
            now = time.monotonic()
            if now - self._said >= (_SAY_EVERY_S if self._is_terminal else _SAY_EVERY_WITHOUT_TERMINAL_S):
                self._said = now
                self._print(self._line(now, row), "" if self._is_terminal else "\n")

    def _line(self, now: float, row: Row) -> str:
        rate = self._done / max(now - self._begun, 0.001)
        left = int((self.planned - self._done) / max(rate, 0.001))
        full = _BAR_CHARS * self._done // max(self.planned, 1)
        bar = "#" * full + "." * (_BAR_CHARS - full)
        clock = f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}"
        return (
            f"[{bar}] {self._done:,}/{self.planned:,}  {rate:.1f}/s  left {clock}"
            f"  violations {self._broken}  {row.cell.backend} {row.cell.scenario} {row.cell.kind}"
        )

    def _print(self, text: str, end: str) -> None:
        if not self._is_quiet:
            sys.stderr.write(("\r\x1b[K" if self._is_terminal else "") + text + end)
            sys.stderr.flush()


class Run:
    """Is one run of the matrix: its journal, and the lanes that it drives."""

    def __init__(self, options: argparse.Namespace, journal: Journal, folder: Path) -> None:
        self.options = options
        self.journal = journal
        self.folder = folder
        self.progress = Progress(journal)
        names = options.scenarios.split(",") if options.scenarios else None
        self.scenarios = [one for one in SCENARIOS if names is None or one.name in names]
        self.kinds = options.kinds.split(",") if options.kinds else None
        self._planned: Counter[str] = Counter()
        mine = {one.name for one in self.scenarios}
        self._not_run = [
            f"{', '.join((name, *backend))}, `{kind}`: {reason}"
            for (name, kind, *backend), reason in lanes.BEYOND.items()
            if name in mine
        ]
        self._end = time.monotonic() + options.minutes * 60 if options.minutes else None

    def all(self) -> None:
        """Make every history that is not in the journal."""
        wanted = self.options.backends.split(",")
        with lanes.opened(self.folder, lanes.settings_of(self.scenarios)) as made:
            here = []
            for name in wanted:
                reason = lanes.missing(name)
                if reason is None:
                    here.append(name)
                else:
                    self._not_run.append(f"{name}: {reason}")
                    sys.stderr.write(f"crash: {name} is not here: {reason}\n")
            # A server that comes back is waited for: those lanes run beside the others.
            slow = [threading.Thread(target=self._server, args=(made, name)) for name in here if name != "sqlite"]
            if self._wants(*CUTS, *SLOW):
                for thread in slow:
                    thread.start()
            for name in here:
                self._process(made, name)
            if "sqlite" in here and self._wants(*DISK_KINDS):
                self._disk(made)
            if self._wants(*CUTS, *SLOW):
                for thread in slow:
                    thread.join()
            if self.options.race_seconds:
                self._race(made, here)
        self.journal.note(planned=dict(self._planned), not_run=self._not_run)

    def _process(self, made: lanes.Opened, name: str) -> None:
        if not self._wants(*lanes.KINDS):
            return
        try:
            lane = lanes.process_lane(made, name, self.options.workers)
        except Exception as error:
            self._leave_out(name, error)
            return
        self._run(lane, lanes.first_cells(lane, self.scenarios, self.journal.about["seed"]))
        mine = {one.name for one in self.scenarios}
        rows = [row for row in self.journal.rows.values() if row.cell.backend == name and row.cell.scenario in mine]
        if self._wants("double"):
            cells, left_out = lanes.double_cells(rows, seed=self.journal.about["seed"], most=self.options.doubles)
            if left_out:
                self._not_run.append(
                    f"{name}, `double`: {left_out:,} of {left_out + len(cells):,} pairs were not drawn"
                )
            self._run(lane, cells)

    def _disk(self, made: lanes.Opened) -> None:
        try:
            lane = lanes.disk_lane(made, self.options.workers)
        except NoInjectorError as error:
            self._leave_out("sqlite, the faults of the disk", error)
            return
        self._run(lane, lanes.first_cells(lane, self.scenarios, self.journal.about["seed"]))

    def _server(self, made: lanes.Opened, name: str) -> None:
        try:
            lane = lanes.server_lane(made, name)
        except Exception as error:
            self._leave_out(f"{name}, the faults of its server", error)
            return
        self._run(lane, lanes.first_cells(lane, self.scenarios, self.journal.about["seed"]))

    def _race(self, made: lanes.Opened, names: list[str]) -> None:
        """Let processes race on each backend on which they have not."""
        races = dict(self.journal.about.get("races", {}))
        for name in names:
            if name not in races:
                sys.stderr.write(f"\ncrash: racing on {name} for {self.options.race_seconds} s\n")
                races[name] = lanes.race(made, name, seed=self.journal.about["seed"], seconds=self.options.race_seconds)
                self.journal.note(races=races)

    def _leave_out(self, what: str, error: Exception) -> None:
        self._not_run.append(f"{what}: {error}")
        sys.stderr.write(f"crash: {what}: {error}\n")

    def _wants(self, *kinds: str) -> bool:
        return self.kinds is None or bool(set(self.kinds) & set(kinds))

    def _run(self, lane: lanes.Lane, cells: Iterable[Cell]) -> None:
        wanted = [cell for cell in cells if self._wants(cell.kind)]
        for cell in wanted:
            self._planned[f"{cell.backend}/{cell.kind}"] += 1
        left = [cell for cell in wanted if str(cell) not in self.journal.rows]
        self.progress.plan(len(left))

        def one(cell: Cell) -> None:
            if self._end is None or time.monotonic() < self._end:
                row = lane.run(cell)
                self.journal.add(row)
                self.progress.done(row)

        with ThreadPoolExecutor(len(lane.workshops)) as pool:
            for _ in pool.map(one, left):
                pass


def run_one(cell: Cell, folder: Path) -> Row:
    """Make one history again and print all that is known of it."""
    scenarios = [one for one in SCENARIOS if one.name == cell.scenario]
    if not scenarios:
        raise SystemExit(f"there is no scenario {cell.scenario!r}: there are {', '.join(s.name for s in SCENARIOS)}")
    with lanes.opened(folder, lanes.settings_of(scenarios)) as made:
        if cell.kind in DISK_KINDS:
            lane = lanes.disk_lane(made, 1)
        elif cell.kind in (*CUTS, *SLOW):
            lane = lanes.server_lane(made, cell.backend)
        else:
            lane = lanes.process_lane(made, cell.backend, 1)
        row = lane.run(cell)
        history = lane.first.told
    for at, life in enumerate(history.lives if history else (), 1):
        sys.stdout.write(f"process {at}: {life.way}, ended {life.end}, passed\n")
        sys.stdout.writelines(f"    {point}\n" for point in life.points)
        sys.stdout.write(json.dumps(life.left, indent=1) + "\n")
    for line in history.ledger if history else ():
        sys.stdout.write(f"outside: {json.dumps(line)}\n")
    sys.stdout.write(f"{row.cell}: {row.outcome}, {row.deaths} deaths, {row.seconds} s\n")
    sys.stdout.writelines(f"    {problem}\n" for problem in (*row.problems, *row.notes))
    return row


def note_commit(journal: Journal, commit: str) -> None:
    """Write down from which history on the code is that of another commit."""
    known = journal.about.get("commits", [[journal.about["commit"], 0]])
    if known[-1][0] != commit:
        journal.note(commits=[*known, [commit, len(journal.rows)]])


def about_now(options: argparse.Namespace) -> dict[str, object]:
    """Return what a run is: its seed, and what it runs on."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "seed": options.seed if options.seed is not None else random.SystemRandom().getrandbits(32),
        "begun": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "commit": commit.stdout.strip(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "workers": options.workers,
        "backends": lanes.versions(),
        "seconds": 0.0,
    }


def read_options(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser("python -m tests.crash.full", description=__doc__)
    parser.add_argument("--one", help="make this one row again and tell all of it")
    parser.add_argument("--seed", type=int, help="what the slow kinds are drawn by (default: drawn at the first start)")
    parser.add_argument("--workers", type=int, default=(os.cpu_count() or 1) + 1)
    parser.add_argument("--backends", default=",".join(lanes.BACKENDS))
    parser.add_argument("--scenarios", help="only these, with commas between")
    parser.add_argument("--kinds", help="only these faults, with commas between")
    parser.add_argument("--minutes", type=float, help="begin no history after so many minutes; the next start goes on")
    parser.add_argument(
        "--doubles", type=int, default=_DOUBLES, help="how many pairs of deaths on each backend at most"
    )
    parser.add_argument("--race-seconds", type=float, default=60.0, help="how long processes race on each backend")
    parser.add_argument("--journal", type=Path, default=JOURNAL)
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--fresh", action="store_true", help="forget what was done and draw a new seed")
    parser.add_argument(
        "--beside", action="store_true", help="leave what the page tells, and put this run's scenarios beside it"
    )
    parser.add_argument("--print", action="store_true", help="only print the page from the journal")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """Run, print the page, and return 1 if a promise was broken."""
    options = read_options(words)
    # A disk in memory: a process's death loses nothing that it wrote there, and a flush costs nothing.
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="crash-", dir=memory if memory.is_dir() else None))
    try:
        if options.one:
            return int(run_one(Cell.parse(options.one), folder).outcome != "held")
        if options.fresh:
            options.journal.unlink(missing_ok=True)
        about = about_now(options)
        journal = Journal(options.journal, about)
        begun = time.monotonic()
        try:
            if not options.print:
                note_commit(journal, str(about["commit"]))
                Run(options, journal, folder).all()
        finally:
            if not options.print:
                journal.note(seconds=float(journal.about["seconds"]) + time.monotonic() - begun)
            if options.beside:
                text = page_beside(options.page.read_text("utf-8"), journal.rows.values(), journal.about, rows())
            else:
                text = page_of(journal.rows.values(), journal.about, rows())
            options.page.write_text(text, "utf-8")
            journal.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    broken = [row for row in journal.rows.values() if row.outcome == "broken"]
    broken += [told for told in journal.about.get("races", {}).values() if told["problems"]]
    sys.stderr.write(f"\n{len(journal.rows):,} histories, {len(broken)} violations; {options.page} tells of them\n")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
