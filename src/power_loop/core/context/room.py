"""Says how many tokens a prompt may have, in the kernel's own estimates."""

from __future__ import annotations

import math

from power_loop.contracts.llm import ModelInfo
from power_loop.core.context.window import Window

#: The part of a model's context window that its output cap takes at most.
MAX_OUTPUT_SHARE = 0.5
#: The part of a prompt that was refused for its size which the next one may have.
REFUSED_SHARE = 0.9
# Below so many tokens the frame that a provider puts round a prompt says more than the prompt.
_MIN_MEASURED_TOKENS = 256
# What a provider counts for a token of the estimate. Anything outside was counted by somebody who counts otherwise: a
# proxy that reports nothing but what it did not cache, a test that reports a constant.
_MIN_RATIO, _MAX_RATIO = 0.4, 4.0
# Steps in which the ratio moves up, so that the room is the same for many calls and so is what is cut for it.
_RATIO_STEPS = 16


def room_for(info: ModelInfo, max_output_tokens: int) -> int:
    """Return how many tokens a prompt may have: the model's context window less the cap of its reply."""
    return info.context_window_tokens - min(max_output_tokens, int(info.context_window_tokens * MAX_OUTPUT_SHARE))


def prompt_room(window: Window, info: ModelInfo, max_output_tokens: int, *, refused_tokens: int | None = None) -> int:
    """Return about how many tokens, as the kernel estimates them, a prompt in `window` may have.

    The provider's own count of the last prompt tells how far the estimate is off. `refused_tokens` is the estimate of a
    prompt that this model refused for its size; what its window's fold knows of one counts too, as long as the model is
    the same.
    """
    room = int(room_for(info, max_output_tokens) / calibration(window, info))
    fold = window.fold
    if fold is not None and fold.refused_tokens is not None and fold.refused_by == info.model:
        room = min(room, int(fold.refused_tokens * REFUSED_SHARE))
    if refused_tokens is not None:
        room = min(room, int(refused_tokens * REFUSED_SHARE))
    return room


def calibration(window: Window, info: ModelInfo) -> float:
    """Return how many tokens the provider counts for one of the estimate, by the last call of this model; 1.0 where
    nothing is known."""
    last = window.last_call
    if last is None or last.call.usage is None or last.call.usage.is_estimated:
        return 1.0
    estimated = last.call.estimated_tokens
    if estimated is None or estimated < _MIN_MEASURED_TOKENS or not _is_of(window, last.call.model, info):
        return 1.0
    ratio = last.call.usage.input_tokens / estimated
    if not _MIN_RATIO <= ratio <= _MAX_RATIO:
        return 1.0
    return math.ceil(ratio * _RATIO_STEPS) / _RATIO_STEPS


def _is_of(window: Window, answered_by: str, info: ModelInfo) -> bool:
    """Tell whether the last reply is this model's; a provider may answer with the name of a version of it."""
    if answered_by == info.model:
        return True
    reply = window.last_reply()
    if reply is not None and reply.origin is not None:
        return reply.origin == info.origin
    return answered_by.startswith(info.model)
