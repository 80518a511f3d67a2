"""The faults that a client has to see through: the answer is the same as without them."""

from __future__ import annotations

from . import faults
from .reply import Fault

HARMLESS: list[tuple[str, Fault]] = [
    ("rechunk", faults.rechunk(1)),
    ("rechunk", faults.rechunk(7)),
    ("coalesced", faults.coalesced()),
    ("drip", faults.drip(0.0)),
    ("delayed", faults.delayed(0.0)),
    ("bom", faults.bom()),
    ("line_ends", faults.line_ends("lf")),
    ("line_ends", faults.line_ends("crlf")),
    ("line_ends", faults.line_ends("cr")),
    ("line_ends", faults.line_ends("mixed")),
    ("comments", faults.comments()),
    ("ids_and_retry", faults.ids_and_retry()),
    ("no_space", faults.no_space()),
    ("multiline_data", faults.multiline_data()),
    ("missing_done", faults.missing_done()),
    ("cut_before_done", faults.cut_before_done()),
    ("no_final_chunk", faults.no_final_chunk()),
    ("unknown_event", faults.unknown_event()),
    ("unknown_delta", faults.unknown_delta()),
    ("ping", faults.ping()),
    ("header", faults.header("x-surprise", "yes")),
]
HARMLESS_ON_OPENAI: list[tuple[str, Fault]] = [
    ("empty_choices", faults.empty_choices()),
    ("null_fields", faults.null_fields()),
    ("usage_in_every_chunk", faults.usage_in_every_chunk()),
]
