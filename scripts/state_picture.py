"""Draws the lifecycle of a tool call from the steps that the store allows."""

from __future__ import annotations

from xml.sax.saxutils import escape

from power_loop.contracts.states import CALL_STEPS, OPEN_CALLS, CallState

#: Where the middle of each open state stands.
_PLACES = {CallState.REQUESTED: (96, 118), CallState.STARTED: (430, 118), CallState.WAITING: (263, 246)}
#: The path of each step between open states, where its words stand, and what takes it.
_STEPS = {
    (CallState.REQUESTED, CallState.STARTED): ("M156 118H366", (261, 108), "durable before its handler runs"),
    (CallState.REQUESTED, CallState.WAITING): ("M110 136 206 228", (92, 190), "has to be answered"),
    (CallState.WAITING, CallState.REQUESTED): ("M230 228 134 138", (216, 182), "approved"),
    (CallState.STARTED, CallState.WAITING): ("M412 136 310 228", (412, 190), "its handler asks"),
    (CallState.STARTED, CallState.STARTED): ("M408 100C396 52 464 52 452 99", (430, 54), "again, where it may"),
}
#: The path of each open state's way to its end.
_ENDS = {
    CallState.REQUESTED: "M96 100V24H600V62",
    CallState.STARTED: "M490 118H562",
    CallState.WAITING: "M323 246H562",
}
_MEANS = {
    CallState.SUCCEEDED: "it gave a result",
    CallState.FAILED: "it told why not",
    CallState.UNKNOWN: "nobody saw its end",
    CallState.ABORTED: "it was given up",
}
_STYLE = """
    .sans { font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
    .mono { font: 12.5px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
    .ink { fill: #1f2933; } .soft { fill: #5b6b7a; }
    .open { fill: #e3f3f2; stroke: #17938c; stroke-width: 1.2; }
    .end { fill: #f4f7f9; stroke: #9fb0bf; stroke-width: 1.2; }
    .step { fill: none; stroke: #17938c; stroke-width: 1.5; } .over { fill: none; stroke: #8497a7; stroke-width: 1.4; }
    @media (prefers-color-scheme: dark) {
      .ink { fill: #e6edf3; } .soft { fill: #9aa9b7; } .open { fill: #10302f; stroke: #2bb3aa; }
      .end { fill: #1b222b; stroke: #4b5a68; } .step { stroke: #2bb3aa; } .over { stroke: #74869a; }
    }
"""


def call_states() -> str:
    """Return the picture, as a file."""
    ends = [state for state in CallState if state not in OPEN_CALLS]
    inner = {(state, there) for state in OPEN_CALLS for there in CALL_STEPS[state] & OPEN_CALLS}
    assert inner == set(_STEPS), f"the picture has other steps than the store: {inner ^ set(_STEPS)}"
    assert all(set(ends) <= CALL_STEPS[state] for state in OPEN_CALLS), "a state has no way to one of the ends"
    assert not any(CALL_STEPS.get(state) for state in ends), "an end has a step"
    parts = [_arrow("over", _ENDS[state], "grey") for state in CallState if state in OPEN_CALLS]
    for path, (x, y), words in _STEPS.values():
        parts += [_arrow("step", path, "teal"), _text("sans soft", x, y, words)]
    for state, (x, y) in _PLACES.items():
        parts += [_box("open", x - 60, y - 18, 120, 36, 18), _text("mono ink", x, y + 4, state.value)]
    parts.append(_box("end", 564, 64, 250, 54 + 36 * len(ends), 10))
    for place, state in enumerate(ends):
        y = 100 + 36 * place
        parts += [_text("mono ink", 584, y, state.value, "start"), _text("sans soft", 678, y, _MEANS[state], "start")]
    parts.append(_text("sans soft", 584, 100 + 36 * len(ends), "None of these ever changes again.", "start"))
    drawn = "\n  ".join(parts)
    size = 'viewBox="0 0 830 290" width="830" height="290"'
    return f"""<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="t d">
  <title id="t">The lifecycle of a tool call</title>
  <desc id="d">{escape(_said(ends))}</desc>
  <style>{_STYLE}  </style>
  <defs>{_marker("teal", "#17938c")}{_marker("grey", "#8497a7")}</defs>
  {drawn}
</svg>
"""


def _said(ends: list[CallState]) -> str:
    steps = "; ".join(f"{here.value} to {there.value}: {words}" for (here, there), (_, _, words) in _STEPS.items())
    return f"{steps}. Each of them may end as {', '.join(state.value for state in ends)}."


def _marker(name: str, colour: str) -> str:
    size = 'viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"'
    return f'<marker id="{name}" {size} orient="auto"><path d="M0 0 8 4 0 8z" fill="{colour}"/></marker>'


def _arrow(style: str, path: str, marker: str) -> str:
    return f'<path class="{style}" d="{path}" marker-end="url(#{marker})"/>'


def _box(style: str, x: int, y: int, width: int, height: int, radius: int) -> str:
    return f'<rect class="{style}" x="{x}" y="{y}" width="{width}" height="{height}" rx="{radius}"/>'


def _text(style: str, x: int, y: int, words: str, anchor: str = "middle") -> str:
    return f'<text class="{style}" x="{x}" y="{y}" text-anchor="{anchor}">{escape(words)}</text>'
