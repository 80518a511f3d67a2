"""Is what a crash matrix found: a row for each history, and the words for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

# As many broken histories as a person reads before mending the first.
_SHOWN_BROKEN = 10


@dataclass(frozen=True)
class Cell:
    """Names one history so that it can be made again: `backend/scenario/point/kind/way`, and `more` for some kinds."""

    backend: str
    scenario: str
    point: str
    kind: str
    way: str
    more: str = ""

    def __str__(self) -> str:
        parts = (self.backend, self.scenario, self.point, self.kind, self.way, self.more)
        return "/".join(part for part in parts if part)

    @classmethod
    def parse(cls, text: str) -> Cell:
        """Return the cell that `str()` of it names."""
        return cls(*text.split("/"))


@dataclass(frozen=True)
class Row:
    """Is what came of one history. `outcome` is `held`, `broken`, or `not reached` where the run took another way.

    `deaths` counts processes that ended by SIGKILL, `lives` all of them. `recovery_points` is how many points the
    processes passed that went on.
    """

    cell: Cell
    outcome: str
    problems: tuple[str, ...] = ()
    deaths: int = 0
    lives: int = 0
    seconds: float = 0.0
    recovery_points: int = 0
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return it as a line of a journal."""
        return {**asdict(self), "cell": str(self.cell)}

    @classmethod
    def of_json(cls, line: Mapping[str, Any]) -> Row:
        """Return the row that a line of a journal is."""
        values = {**line, "cell": Cell.parse(line["cell"])}
        return cls(**{**values, "problems": tuple(values["problems"]), "notes": tuple(values["notes"])})


@dataclass
class CrashReport:
    """Is all rows of a crash matrix. `not_run` names what was left out, each with the reason."""

    rows: list[Row] = field(default_factory=list)
    not_run: list[str] = field(default_factory=list)

    @property
    def violations(self) -> list[Row]:
        """The histories in which a promise was broken."""
        return [row for row in self.rows if row.outcome == "broken"]

    @property
    def deaths(self) -> int:
        """How many processes ended by SIGKILL."""
        return sum(row.deaths for row in self.rows)

    def raise_for_violations(self) -> None:
        """Raise an AssertionError that says what was broken and where, if anything was, or if nothing was tried."""
        if self.violations:
            raise AssertionError(f"{self}\n{_broken(self.violations)}")
        if not any(row.outcome == "held" for row in self.rows):
            raise AssertionError(f"{self}: nothing was tried")

    def __str__(self) -> str:
        held = sum(row.outcome == "held" for row in self.rows)
        missed = sum(row.outcome == "not reached" for row in self.rows)
        text = f"{len(self.rows)} histories, {self.deaths} deaths, {len(self.violations)} violations"
        if missed:
            text += f", {missed} points not reached again"
        return f"{text} ({held} held)"

    def table(self) -> str:
        """Return the counts by backend, scenario and kind as a Markdown table."""
        return "\n".join(_table(self.rows))


def _broken(rows: Sequence[Row]) -> str:
    shown = [f"{row.cell}\n" + "\n".join(f"    {problem}" for problem in row.problems) for row in rows[:_SHOWN_BROKEN]]
    if len(rows) > _SHOWN_BROKEN:
        shown.append(f"and {len(rows) - _SHOWN_BROKEN} more")
    return "\n".join(shown)


def _table(rows: Iterable[Row]) -> Iterator[str]:
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.cell.backend, row.cell.scenario, row.cell.kind), []).append(row)
    yield "| backend | scenario | fault | histories | deaths | violations |"
    yield "|---|---|---|--:|--:|--:|"
    for (backend, scenario, kind), found in groups.items():
        tried = [row for row in found if row.outcome != "not reached"]
        broken = sum(row.outcome == "broken" for row in found)
        yield f"| {backend} | {scenario} | {kind} | {len(tried)} | {sum(row.deaths for row in found)} | {broken} |"
