"""Draws a workflow's run on a terminal: a tree of its nodes with their states, their times and what they took."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping

from power_loop import Usage
from power_loop.cli.output import paint
from power_loop.cli.printable import one_line, printable
from power_loop.cli.transcript import money, tokens
from power_loop.records import SessionStats
from power_loop.storage import WorkflowStepRecord
from power_loop.workflow import RunNode

#: So many items of a foreach or a loop are drawn, unless all are asked for.
SHOWN_ITEMS = 20
_COLOURS = {
    "completed": "green",
    "failed": "red",
    "cancelled": "yellow",
    "started": "blue",
    "waiting": "yellow",
    "pending": "dim",
}
_LINES = ("├─ ", "└─ ", "│  ", "   ")
_PLAIN_LINES = ("|- ", "`- ", "|  ", "   ")
_WIDTH = 36


def picture(root: RunNode, took: Mapping[str, SessionStats], *, draws_all: bool = False) -> Iterator[str]:
    """Give the lines of a tree; `took` says what the leaves took, by their sessions."""
    lines = _LINES if (sys.stdout.encoding or "").lower().startswith("utf") else _PLAIN_LINES
    yield from _lines(root, "", "", took, lines, draws_all)


def _lines(
    node: RunNode,
    before: str,
    below: str,
    took: Mapping[str, SessionStats],
    lines: tuple[str, ...],
    draws_all: bool,
) -> Iterator[str]:
    name, node = _shown(node)
    yield _line(before + name, node, took)
    parts, left = node.parts, 0
    items = [part for part in parts if part.kind == "item"]
    if len(items) > SHOWN_ITEMS and not draws_all:
        # Those that have not ended, or not well, come first: they are what one looks for.
        wanted = sorted(items, key=lambda one: one.state == "completed")[:SHOWN_ITEMS]
        left = len(items) - len(wanted)
        parts = tuple(part for part in parts if part.kind != "item" or part in wanted)
    for nth, part in enumerate(parts, 1):
        is_last = nth == len(parts) and not left
        yield from _lines(part, below + lines[is_last], below + lines[2 + is_last], took, lines, draws_all)
    if left:
        counts: dict[str, int] = {}
        for one in items:
            if one not in parts:
                counts[one.state] = counts.get(one.state, 0) + 1
        said = ", ".join(f"{count} {state}" for state, count in counts.items())
        yield below + lines[1] + paint(f"and {left} more: {said} (--all draws them)", "dim")


def _shown(node: RunNode) -> tuple[str, RunNode]:
    """Return how a node is called, and the node; an item of one leaf is that leaf."""
    name = "" if "#" in node.id else printable(node.id)
    if node.kind == "item" and len(node.parts) == 1:
        body = node.parts[0]
        if not body.parts:
            return f"{name} {'' if '#' in body.id else printable(body.id)}".rstrip(), body
    if node.role:
        name = f"{node.role}: {name}"
    return name or node.kind, node


def _line(name: str, node: RunNode, took: Mapping[str, SessionStats]) -> str:
    kind = "" if node.kind == "item" else node.kind
    said = f"{name:<{_WIDTH}} {kind:<9} {paint(f'{node.state:<9}', _COLOURS.get(node.state, 'dim'))}"
    step = node.step
    if step is None:
        return said.rstrip()
    more = []
    if step.attempt > 1:
        more.append(f"attempt {step.attempt}")
    if step.started_at_ms is not None and step.ended_at_ms is not None:
        more.append(f"{(step.ended_at_ms - step.started_at_ms) / 1000:.1f} s")
    stats = took.get(step.child_session_id or "")
    # What a leaf took that ran in a process of its own stands in its step.
    usage, cost = (usage_of(step), step.cost) if stats is None else (stats.usage, stats.cost)
    if usage.total_tokens:
        more.append(tokens(usage))
        more += [] if cost is None else [money(cost)]
    if node.state == "waiting" or (node.state == "started" and node.kind != "wait"):
        more += _waits(node)
    if step.error is not None:
        more.append(paint(one_line(f"{step.error.get('code')}: {step.error.get('message')}", 100), "red"))
    return f"{said} {', '.join(more)}".rstrip()


def usage_of(step: WorkflowStepRecord) -> Usage:
    """Return what a step says that its leaf took: nothing, where the leaf's session tells it."""
    return Usage() if step.usage is None else Usage(**step.usage)


def _waits(node: RunNode) -> list[str]:
    """Return for what a step waits, as far as its record says."""
    step = node.step
    assert step is not None
    asked = step.input if isinstance(step.input, Mapping) else {}
    if node.kind != "wait":
        return [f"session {printable(step.child_session_id)}"] if step.child_session_id else []
    if asked.get("wait_for") == "person":
        return [f"a person: {one_line(str(asked.get('question')), 60)}"]
    if asked.get("wait_for") == "signal":
        return [f"the signal {one_line(str(asked.get('signal')), 60)}"]
    return ["a time"]
