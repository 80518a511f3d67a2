"""What a benchmark found, and how it is told: in the terminal, as a page, as a plot."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sqlite3
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Claim:
    """A target and what was measured; `holds` is None where nothing was to be judged."""

    target: str
    measured: str
    holds: bool | None


@dataclass(frozen=True)
class Bars:
    """One group of a plot: a figure a contestant, smaller is better unless `more_is_better`."""

    title: str
    unit: str
    values: dict[str, float]
    log: bool = False
    more_is_better: bool = False


@dataclass(frozen=True)
class Curves:
    """One graph: lines of points, by name."""

    title: str
    unit: str
    along: str
    lines: dict[str, list[tuple[float, float]]]


@dataclass
class Result:
    """One table with its targets. `note` tells in a sentence or two what was done."""

    title: str
    note: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    bars: list[Bars] = field(default_factory=list)
    curves: list[Curves] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)


VERDICTS = {True: "held", False: "missed", None: "—"}
COLOURS = {True: "\033[32m", False: "\033[31m", None: ""}


def machine(folder: Path) -> str:
    """One line about where the figures come from."""
    cpu = next(
        (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor() or platform.machine(),
    )
    return (
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {os.cpu_count()} × {cpu},"
        f" {platform.system()}, databases on {_filesystem(folder)}"
    )


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _filesystem(folder: Path) -> str:
    mounts = [line.split() for line in _lines("/proc/mounts")]
    holding = [one for one in mounts if folder.resolve().is_relative_to(one[1])]
    return max(holding, key=lambda one: len(one[1]))[2] if holding else "an unknown filesystem"


def show(result: Result) -> None:
    """Print a result."""
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    bold, dim, plain = ("\033[1m", "\033[2m", "\033[0m") if colour else ("", "", "")
    print(f"\n{bold}{result.title}{plain}\n{dim}{result.note}{plain}")
    table = [list(result.columns), *map(list, result.rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(result.columns))]
    for place, row in enumerate(table):
        cells = [
            cell.ljust(width) if n == 0 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  " + (dim if place == 0 else "") + "  ".join(cells) + (plain if place == 0 else ""))
    for claim in result.claims:
        verdict = VERDICTS[claim.holds]
        tint, end = (COLOURS[claim.holds], plain) if colour else ("", "")
        print(f"  {tint}{verdict:>6}{end}  {claim.target}: {claim.measured}")


def write(results: Sequence[Result], folder: Path, *, where: str, when: str, quick: bool) -> None:
    """Write `results.md`, `results.json` and, if matplotlib is there, `results.svg`."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        "# Measured",
        "",
        f"{when}, {where}." + (" A quick run: few samples." if quick else ""),
        "Medians, with the quartiles in parentheses. `make bench` prints this page anew; absolute figures are of this",
        "machine, ratios travel.",
        "",
        "| target | measured | |",
        "|---|---|---|",
    ]
    lines += [f"| {c.target} | {c.measured} | {VERDICTS[c.holds]} |" for result in results for c in result.claims]
    if plot(results, folder / "results.svg"):
        lines += ["", "![the figures as bars](results.svg)"]
    if draw(results, folder / "curves.svg"):
        lines += ["", "![what grows and what does not, as curves](curves.svg)"]
    for result in results:
        lines += ["", f"## {result.title}", "", result.note, "", "| " + " | ".join(result.columns) + " |"]
        lines.append("|---|" + "---:|" * (len(result.columns) - 1))
        lines += ["| " + " | ".join(row) + " |" for row in result.rows]
    (folder / "results.md").write_text("\n".join(lines) + "\n", "utf-8")
    figures = {result.title: result.figures for result in results}
    (folder / "results.json").write_text(json.dumps(figures, indent=1) + "\n", "utf-8")


def plot(results: Sequence[Result], path: Path) -> bool:
    """Draw every group of bars; False if matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError:
        print("\nmatplotlib is not installed: no plot")
        return False
    matplotlib.use("svg")
    from matplotlib import pyplot

    groups = [bars for result in results for bars in result.bars]
    if not groups:
        return False
    columns = 2
    rows = -(-len(groups) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(12, 1.1 + 2.1 * rows), squeeze=False)
    for axis in axes.flat[len(groups) :]:
        axis.set_visible(False)
    for axis, bars in zip(axes.flat, groups, strict=False):
        names = list(bars.values)[::-1]
        values = [bars.values[name] for name in names]
        colours = ["#0f766e" if name.startswith("power-loop") else "#9ca3af" for name in names]
        axis.barh(names, values, color=colours, height=0.62)
        if bars.log:
            axis.set_xscale("log")
        axis.margins(x=0.22)
        for place, value in enumerate(values):
            axis.annotate(f" {value:,.3g}", (value, place), va="center", fontsize=8)
        better = "more is better" if bars.more_is_better else "less is better"
        axis.set_title(f"{bars.title} ({bars.unit}, {better})", fontsize=9, loc="left")
        axis.tick_params(labelsize=8)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    figure.tight_layout()
    # The same figures give the same file.
    matplotlib.rcParams["svg.hashsalt"] = "power-loop"
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return True


def draw(results: Sequence[Result], path: Path) -> bool:
    """Draw every graph of curves beside the others; False where there is none, or if matplotlib is not installed."""
    graphs = [curves for result in results for curves in result.curves]
    try:
        import matplotlib
    except ImportError:
        return False
    if not graphs:
        return False
    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(graphs), figsize=(6 * len(graphs), 4), squeeze=False)
    for axis, curves in zip(axes.flat, graphs, strict=True):
        for name, points in curves.lines.items():
            axis.plot(*zip(*points, strict=True), label=name, linewidth=1.4)
        axis.set_yscale("log")
        axis.set_xlabel(curves.along, fontsize=8)
        axis.set_title(f"{curves.title} ({curves.unit}, less is better)", fontsize=9, loc="left")
        axis.tick_params(labelsize=8)
        axis.legend(fontsize=8, frameon=False)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    figure.tight_layout()
    matplotlib.rcParams["svg.hashsalt"] = "power-loop"
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return True


def has(program: str) -> bool:
    """Whether a program is installed."""
    return shutil.which(program) is not None
