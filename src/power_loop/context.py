"""Is the public shelf of contexts: what of a session a model is shown, and why."""

from __future__ import annotations

from power_loop.contracts.explanation import CallExplanation, Segment, SegmentKind
from power_loop.contracts.folding import Folded, FoldStrategy, FoldTask
from power_loop.contracts.live import LiveContext, LiveState
from power_loop.core.context.fold_strategies import AgenticFold, LLMSummaryFold
from power_loop.core.context.prompt import SystemPrompt
from power_loop.core.context.recorded_prompt import RecordedPart, recorded_prompt
from power_loop.core.context.request_diff import request_differences
from power_loop.core.context.settings import Compaction, MemoryUse, Projection

__all__ = [
    "AgenticFold",
    "CallExplanation",
    "Compaction",
    "FoldStrategy",
    "FoldTask",
    "Folded",
    "LLMSummaryFold",
    "LiveContext",
    "LiveState",
    "MemoryUse",
    "Projection",
    "RecordedPart",
    "Segment",
    "SegmentKind",
    "SystemPrompt",
    "recorded_prompt",
    "request_differences",
]
