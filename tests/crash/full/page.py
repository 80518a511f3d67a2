"""Prints docs/en/crash-matrix.md from the journal of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

from power_loop.testing.matrix.report import Row

_LATER, _VARIANTS = "## Scenarios of a later run", "## Broken variants"

#: What each kind of fault is, in the order of the page.
KINDS = {
    "sigkill": "the process is killed with SIGKILL at the point; another one goes on",
    "double": "and that one is killed too, at each of its own points; a third goes on",
    "sigstop": "the process is stopped at the point until its lease is over, another one takes over, then it goes on",
    "overlap": "and that one is stopped when it has the lease, while the first goes on beside it; then it goes on too",
    "clock+1h": "the process's clock jumps one hour forward at the point",
    "clock-1h": "the process's clock jumps one hour back at the point",
    "sigkill-1h": "a process whose clock is one hour ahead is killed; one with the right clock goes on",
    "kill-in-syscall": "the process is killed at a write, flush or truncation of the database file",
    "torn-write": "the process is killed when half of a write to the database file is done",
    "disk-full": "one write to the database file fails with ENOSPC",
    "disk-stays-full": "every write from then on fails with ENOSPC, until another process finds space",
    "io-error": "one write or flush of the database file fails with EIO",
    "cut-before-commit": "the connection breaks before the server has the COMMIT",
    "cut-after-commit": "the connection breaks when the server has committed and nobody heard of it",
    "server-kill": "every process of the server is killed with SIGKILL in mid-transaction, then it is started again",
    "server-restart": "the database server is shut down in mid-transaction and started again",
}


def page_of(rows: Iterable[Row], about: dict[str, Any], broken_variants: Iterable[tuple[str, ...]] = ()) -> str:
    """Return the page."""
    return "\n".join(_lines(list(rows), about, list(broken_variants))) + "\n"


def page_beside(
    page: str, rows: Iterable[Row], about: dict[str, Any], broken_variants: Iterable[tuple[str, ...]] = ()
) -> str:
    """Return a page with the rows of another run beside those that it tells of, and with the variants as they are."""
    kept = page.partition(_LATER)[0].partition(_VARIANTS)[0].rstrip()
    lines = [*_later(list(rows), about), *_variants(list(broken_variants))]
    return kept + "\n\n" + "\n".join(lines) + "\n"


def _lines(rows: list[Row], about: dict[str, Any], variants: list[tuple[str, ...]]) -> Iterator[str]:
    counted = [row for row in rows if row.outcome != "not reached"]
    deaths, broken = sum(row.deaths for row in rows), [row for row in rows if row.outcome == "broken"]
    yield "# The crash matrix"
    yield ""
    yield "<!-- Printed by `make crash` from its journal; edit tests/crash/full/page.py instead. -->"
    yield ""
    raced = sum(len(told["problems"]) for told in about.get("races", {}).values())
    yield (
        f"**{len(counted):,} histories, {deaths:,} processes killed with SIGKILL, {len(broken):,} violations** on "
        f"{_versions(about)}{f'; {raced} problems in the races below' if raced else ''}."
    )
    yield ""
    yield from _meaning()
    yield ""
    yield f"| | |\n|---|---|\n| seed | `{about.get('seed')}` |\n| begun | {about.get('begun')} |"
    took = _time(float(about.get("seconds", 0.0)))
    yield f"| time | {took}, {about.get('workers')} at once on {about.get('cores')} cores |"
    yield f"| Python | {about.get('python')} |\n| commits | {_commits(about, len(rows))} |"
    yield ""
    yield from _faults(rows)
    yield from _table(rows, about)
    yield from _violations(broken)
    yield from _not_run(rows, about)
    yield from _told(rows)
    if about.get("races"):
        yield from _races(about["races"])
    if variants:
        yield from _variants(variants)


def _meaning() -> Iterator[str]:
    yield (
        "A *history* is one run of a scenario with one fault in it: real processes begin it, one is killed (or stopped,"
        " or its disk, clock, connection or server fails) at one point, others go on, and an independent verdict looks"
        " at what is left. A *point* is a place in the code just before or after a commit, a tool's effect or a model"
        " call, or inside of a tool. Deaths are processes that ended by SIGKILL; a server that is killed counts as one."
    )
    yield ""
    yield (
        "Each verdict checks: no accepted input is lost or doubled; no stored reply is lost, and the model is asked"
        " once more a fault at most; every effect stays within its class, counted in a file outside of the database; a"
        " call is unknown only if it had started when its process died; each request is one that OpenAI and Anthropic"
        " take; usage is the sum of the replies; the log has no gaps and every call one answer; the session rests and"
        " nobody holds it; no process is left behind; and the session ends as it does without the fault."
    )
    yield ""
    yield (
        "Any row is made again with `make crash ONE=<row>`, such as"
        " `make crash ONE=sqlite/tool_round/commit.after:append_reply#1/sigkill/resume`. Your own agent goes through"
        " the same matrix: [Testing](user-guide/testing.md)."
    )


def _faults(rows: list[Row]) -> Iterator[str]:
    yield "## By fault"
    yield ""
    yield "| fault | what happens | histories | deaths | violations |"
    yield "|---|---|--:|--:|--:|"
    for kind, words in KINDS.items():
        found = [row for row in rows if row.cell.kind == kind]
        yield f"| `{kind}` | {words} | {_counts(found)} |"
    yield ""


def _table(rows: list[Row], about: dict[str, Any]) -> Iterator[str]:
    backends = [name for name in about.get("backends", {}) if any(row.cell.backend == name for row in rows)]
    yield "## By scenario and backend"
    yield ""
    yield "Each cell is histories / deaths / violations."
    yield ""
    yield "| scenario | " + " | ".join(backends) + " |"
    yield "|---|" + "--:|" * len(backends)
    for scenario in dict.fromkeys(row.cell.scenario for row in rows):
        cells = []
        for backend in backends:
            found = [row for row in rows if (row.cell.scenario, row.cell.backend) == (scenario, backend)]
            cells.append(_counts(found, " / "))
        yield f"| {scenario} | " + " | ".join(cells) + " |"
    yield ""
    for backend in backends:
        yield from _by_kind(backend, [row for row in rows if row.cell.backend == backend])


def _by_kind(backend: str, rows: list[Row]) -> Iterator[str]:
    kinds = [kind for kind in KINDS if any(row.cell.kind == kind for row in rows)]
    yield f"### {backend}"
    yield ""
    yield "Histories by scenario and fault; ✗ marks violations."
    yield ""
    yield "| scenario | " + " | ".join(f"`{kind}`" for kind in kinds) + " |"
    yield "|---|" + "--:|" * len(kinds)
    for scenario in dict.fromkeys(row.cell.scenario for row in rows):
        cells = []
        for kind in kinds:
            found = [row for row in rows if (row.cell.scenario, row.cell.kind) == (scenario, kind)]
            bad = sum(row.outcome == "broken" for row in found)
            cells.append(f"{_tried(found):,}{f' ({bad} ✗)' if bad else ''}")
        yield f"| {scenario} | " + " | ".join(cells) + " |"
    yield ""


def _violations(broken: list[Row]) -> Iterator[str]:
    if not broken:
        return
    yield "## Violations"
    yield ""
    for row in broken:
        yield f"- `{row.cell}`: {_short(row.problems[0])}"
    yield ""


def _not_run(rows: list[Row], about: dict[str, Any]) -> Iterator[str]:
    yield "## Not run"
    yield ""
    yield from (f"- {words}" for words in _lacking(rows, about))
    yield "- a power cut (writes that were acknowledged by the machine and not flushed): not simulated here"
    yield ""


def _lacking(rows: list[Row], about: dict[str, Any]) -> Iterator[str]:
    missed = Counter((row.cell.backend, row.cell.kind) for row in rows if row.outcome == "not reached")
    for (backend, kind), count in sorted(missed.items()):
        yield (
            f"{backend}, `{kind}`: {count:,} points were not passed again in five tries, because calls that run side"
            " by side share their commits in another way each time"
        )
    planned = about.get("planned", {})
    done = Counter(f"{row.cell.backend}/{row.cell.kind}" for row in rows)
    for name, count in planned.items():
        if done[name] < count:
            yield f"{name}: {count - done[name]:,} of {count:,} planned histories"
    yield from about.get("not_run", [])


def _told(rows: list[Row]) -> Iterator[str]:
    notes = Counter((row.cell.kind, note) for row in rows for note in row.notes)
    if not notes:
        return
    yield "## What callers were told"
    yield ""
    yield "Where the process lived on, its caller was told of the fault so (otherwise it went on by itself):"
    yield ""
    yield "| fault | told | histories |"
    yield "|---|---|--:|"
    for (kind, note), count in sorted(notes.items()):
        yield f"| `{kind}` | {_short(note)} | {count:,} |"
    yield ""


def _races(races: dict[str, dict[str, Any]]) -> Iterator[str]:
    yield "## Races"
    yield ""
    yield (
        "Several processes with random clients on the same sessions, random deaths and stops, and a check of every"
        " session's whole history: gapless, each accepted input once and in order, each call answered once, epochs"
        " monotone, nothing written by a stale owner."
    )
    yield ""
    yield "| backend | seed | seconds | processes | killed | stopped | operations | problems |"
    yield "|---|--:|--:|--:|--:|--:|--:|--:|"
    for backend, told in races.items():
        yield (
            f"| {backend} | {told['seed']} | {told['seconds']:.0f} | {told['processes']:,} | {told['killed']:,} |"
            f" {told['stopped']:,} | {told['operations']:,} | {len(told['problems'])} |"
        )
    yield ""
    for backend, told in races.items():
        yield from (f"- {backend}: {_short(problem)}\n" for problem in told["problems"])


def _later(rows: list[Row], about: dict[str, Any]) -> Iterator[str]:
    names = ", ".join(dict.fromkeys(row.cell.scenario for row in rows))
    broken = [row for row in rows if row.outcome == "broken"]
    yield _LATER
    yield ""
    yield (
        f"The run above did not have these scenarios: {names}. **{_tried(rows):,} histories, "
        f"{sum(row.deaths for row in rows):,} processes killed with SIGKILL, {len(broken):,} violations**, begun "
        f"{about.get('begun')} with the seed `{about.get('seed')}`, at {_commits(about, len(rows))}. Their verdict "
        "looks at the whole tree of a session: its agents, its timers, the runs of its workflows with their steps and "
        "leaves."
    )
    yield ""
    yield "Each cell is histories / deaths / violations."
    yield ""
    backends = list(about.get("backends", {}))
    yield f"| scenario | fault | {' | '.join(backends)} |"
    yield "|---|---|" + "--:|" * len(backends)
    for scenario in dict.fromkeys(row.cell.scenario for row in rows):
        for kind in KINDS:
            found = [row for row in rows if (row.cell.scenario, row.cell.kind) == (scenario, kind)]
            cells = [_counts([row for row in found if row.cell.backend == name], " / ") for name in backends]
            if found:
                yield f"| {scenario} | `{kind}` | {' | '.join(cells)} |"
    yield ""
    yield from (f"- `{row.cell}`: {_short(row.problems[0])}" for row in broken)
    if broken:
        yield ""
    yield from (f"- {words}" for words in _lacking(rows, about))
    yield ""


def _variants(variants: list[tuple[str, ...]]) -> Iterator[str]:
    yield _VARIANTS
    yield ""
    yield (
        "A matrix that finds nothing may be blind. Each of these faults is put into the durable code, and a test asks"
        " that it is caught (tests/crash/test_mutants.py):"
    )
    yield ""
    yield "| variant | fault | caught where | by |"
    yield "|---|---|---|---|"
    for name, *rest in variants:
        yield f"| `{name}` | {' | '.join(_short(one) for one in rest)} |"
    yield ""


def _counts(rows: list[Row], between: str = " | ") -> str:
    if not rows:
        return between.join(["not run", "", ""]) if between == " | " else "not run"
    broken = sum(row.outcome == "broken" for row in rows)
    return between.join(f"{count:,}" for count in (_tried(rows), sum(row.deaths for row in rows), broken))


def _tried(rows: list[Row]) -> int:
    return sum(row.outcome != "not reached" for row in rows)


def _versions(about: dict[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in about.get("backends", {}).items())


def _commits(about: dict[str, Any], histories: int) -> str:
    """Return which commits the histories were made at: a run that goes on does so on the code as it is by then."""
    starts = [*about.get("commits", [[about.get("commit"), 0]]), [None, histories]]
    spans = [(one, last - first) for (one, first), (_, last) in pairwise(starts)]
    return ", ".join(f"`{one}` ({count:,} histories)" for one, count in spans if count)


def _time(seconds: float) -> str:
    minutes = int(seconds // 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {int(seconds % 60):02d} s"


def _short(text: str) -> str:
    line = text.splitlines()[0].replace("|", "\\|")
    return line if len(line) <= 300 else f"{line[:300]} …"
