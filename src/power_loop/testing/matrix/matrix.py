"""Ends an agent's process at every point of a scenario, lets another one go on, and tells whether a promise broke."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from power_loop.errors import ConfigError
from power_loop.testing.matrix.histories import KINDS, Setting, suits
from power_loop.testing.matrix.nursery import Nursery
from power_loop.testing.matrix.places import ServerPlace, place_of
from power_loop.testing.matrix.references import Reference, find, reference_to, takes
from power_loop.testing.matrix.report import Cell, CrashReport, Row
from power_loop.testing.matrix.scenarios import Scenario, scenarios_of
from power_loop.testing.matrix.workshop import Workshop

#: Is told of each row as it comes: the row, how many are done, and how many there are.
Progress = Callable[[Row, int, int], None]

# More processes at a time than a machine has cores make histories slower, not more.
_MAX_WORKERS = 4


def crash_matrix(
    agent: Reference,
    tools: Reference | None = None,
    backend: str | None = None,
    *,
    scenarios: Any = "Hello.",
    kinds: Iterable[str] = ("sigkill",),
    only: str | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> CrashReport:
    """End the agent's process at every point of every scenario, let another process go on, and judge what is left.

        report = crash_matrix(make_agent, scenarios=[order_a_book])
        report.raise_for_violations()

    `agent` is a function of a DSN that returns a `StatefulAgentLoop`, at the top of a module that other processes can
    import, or its name as `module:function`. Its model should answer by what stands in the request, as a real one does,
    so that it says the same to whoever takes over. `tools`, where given, is a list of tools or a function that makes
    one, named in the same way; the agent is called with `tools=` them. `backend` is the DSN of a database for tests
    (default: SQLite files in a temporary folder). `scenarios` are texts to send, async functions of (loop, session id),
    or `Scenario`s. `kinds` are the faults: `sigkill`; `sigstop` (stopped until another one has taken over, then let go
    on); `overlap` (it goes on while the other one is in the middle of its turn); `double` (killed, and the next one
    killed too); `clock+1h`, `clock-1h` and `sigkill-1h` (clocks that jump).
    `only` names one cell of an earlier report, which is made again exactly. Nothing of it needs pytest.

    Raises `config.invalid`, and `AssertionError` where a scenario fails without any fault.
    """
    told = scenarios_of(scenarios)
    wanted = [kinds] if isinstance(kinds, str) else list(kinds)
    unknown = [kind for kind in wanted if kind not in KINDS]
    if unknown:
        raise ConfigError(f"unknown kinds of faults {unknown}: there are {sorted(KINDS)}")
    settings = {one.name: (one, _setting(agent, tools, one)) for one in told}
    with tempfile.TemporaryDirectory(prefix="crash-matrix-") as folder:
        place = place_of(backend, Path(folder))
        if (
            isinstance(place, ServerPlace)
            and {"sigstop", "overlap"} & set(wanted)
            and not takes(find(reference_to(agent)), "clock")
        ):
            raise ConfigError(
                "a lease on a server runs out by the server's clock, which sigstop cannot wait for: give the agent a"
                " parameter `clock` that it hands on to the loop"
            )
        count = workers or min(os.cpu_count() or 1, _MAX_WORKERS)
        if isinstance(place, ServerPlace) and any("recover" in one.ways for one in told):
            # recover() looks at the whole database, and would go on with what another worker's process left.
            count = 1
        with Crew(settings, [place] * count, folder=Path(folder)) as crew:
            cells = [Cell.parse(only)] if only else plan(crew.workshops[0], told, wanted)
            return CrashReport(crew.run(cells, progress))


def plan(workshop: Workshop, scenarios: Iterable[Scenario], kinds: Iterable[str]) -> list[Cell]:
    """Return a cell for every point of every scenario, each kind of fault, and each way to go on."""
    cells = []
    for scenario in scenarios:
        for kind in kinds:
            for way in scenario.ways:
                cells += [
                    Cell(workshop.place.name, scenario.name, str(point), kind, way, "1" if kind == "double" else "")
                    for point in workshop.points(scenario.name)
                    if suits(kind, point)
                ]
    return cells


class Crew:
    """Is several workshops, each with processes of its own; a context manager."""

    def __init__(self, settings: dict[str, tuple[Scenario, Setting]], places: list[Any], *, folder: Path) -> None:
        agent = next(iter(settings.values()))[1]
        names = [agent.agent, *filter(None, [agent.tools])]
        names += [name for scenario, _ in settings.values() for name in scenario.references]
        self._nurseries = [Nursery(place.scheme, *dict.fromkeys(names)) for place in places]
        self.workshops: list[Workshop] = []
        try:
            for at, (place, nursery) in enumerate(zip(places, self._nurseries, strict=True)):
                self.workshops.append(Workshop(settings, nursery, place=place, folder=folder / f"worker{at}"))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End every process."""
        for nursery in self._nurseries:
            nursery.close()

    def run(self, cells: list[Cell], progress: Progress | None = None) -> list[Row]:
        """Make the history of each cell."""
        free: SimpleQueue[Workshop] = SimpleQueue()
        for workshop in self.workshops:
            free.put(workshop)

        def one(cell: Cell) -> Row:
            workshop = free.get()
            try:
                return workshop.run(cell)
            finally:
                free.put(workshop)

        rows = []
        with ThreadPoolExecutor(len(self.workshops)) as pool:
            for row in pool.map(one, cells):
                rows.append(row)
                if progress is not None:
                    progress(row, len(rows), len(cells))
        return rows


def _setting(agent: Reference, tools: Reference | None, scenario: Scenario) -> Setting:
    return Setting(reference_to(agent), None if tools is None else reference_to(tools), scenario.told)
