"""How much a prompt may have: by the model's own count, and by what it has refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from power_loop.contracts.llm import ModelInfo, Usage
from power_loop.contracts.messages import Message, Origin, Role, TextPart, user_message
from power_loop.contracts.records import FoldRecord, ModelCall, ModelCallRecord
from power_loop.core.context.room import REFUSED_SHARE, calibration, prompt_room, room_for
from power_loop.core.context.window import Window

INFO = ModelInfo("scripted", "small", "wire", context_window_tokens=10_000, max_output_tokens=2_000)


def window_of(
    *,
    reported: int | None = None,
    estimated: int | None = 1_000,
    model: str = "small",
    origin: Origin | None = None,
    is_estimated: bool = False,
    refused: tuple[int, str] | None = None,
) -> Window:
    """Return a window whose last call took what the provider `reported`, and whose fold knows of what was `refused`."""
    window = Window("s")
    window.append([user_message("Hello."), Message(Role.ASSISTANT, (TextPart("Hello to you."),), origin)])
    usage = None if reported is None else Usage(reported, 5, is_estimated=is_estimated)
    call = ModelCall(model, "end", usage, 1, 10, estimated_tokens=estimated)
    window.last_call = ModelCallRecord(2, 1, 1, call, 0)
    if refused is not None:
        window.fold = FoldRecord(
            "s", 1, 1, "They talked.", 1, 1, "own", 0, refused_tokens=refused[0], refused_by=refused[1]
        )
    return window


def test_the_room_is_what_the_cap_of_the_reply_leaves_and_at_least_half_of_the_window() -> None:
    assert room_for(INFO, 2_000) == 8_000
    assert room_for(INFO, 9_000) == 5_000
    assert prompt_room(Window("s"), INFO, 2_000) == 8_000


def test_a_provider_that_counts_more_than_the_estimate_leaves_less_room() -> None:
    assert calibration(window_of(reported=2_000), INFO) == 2.0
    assert prompt_room(window_of(reported=2_000), INFO, 2_000) == 4_000
    assert prompt_room(window_of(reported=500), INFO, 2_000) == 16_000


@given(st.integers(400, 4_000), st.integers(0, 20))
def test_the_room_never_promises_more_than_the_provider_counted_and_stands_still_between_steps(
    reported: int, more: int
) -> None:
    ratio = calibration(window_of(reported=reported), INFO)
    assert 0 <= ratio - reported / 1_000 < 1 / 16
    # A count that differs a little is the same step or the next one.
    assert calibration(window_of(reported=min(reported + more, 4_000)), INFO) - ratio <= 2 / 16


@pytest.mark.parametrize(
    "window",
    [
        Window("s"),
        window_of(reported=None),
        window_of(reported=2_000, is_estimated=True),
        window_of(reported=2_000, estimated=None),
        # So few tokens say more of the frame than of the prompt.
        window_of(reported=200, estimated=100),
        # Somebody who counts otherwise: what was not cached only, or a constant.
        window_of(reported=3),
        window_of(reported=90_000),
        window_of(reported=2_000, model="large"),
        window_of(reported=2_000, model="small-2026", origin=Origin("other", "small")),
    ],
)
def test_what_is_not_known_of_this_model_is_taken_as_it_was_estimated(window: Window) -> None:
    assert calibration(window, INFO) == 1.0
    assert prompt_room(window, INFO, 2_000) == 8_000


@pytest.mark.parametrize("origin", [None, INFO.origin])
def test_a_version_of_the_model_counts_as_the_model(origin: Origin | None) -> None:
    assert calibration(window_of(reported=2_000, model="small-2026-01-01", origin=origin), INFO) == 2.0


def test_what_was_refused_is_remembered_for_the_model_that_refused_it() -> None:
    window = window_of(refused=(5_000, "small"))
    assert prompt_room(window, INFO, 2_000) == int(5_000 * REFUSED_SHARE)
    assert prompt_room(window, INFO, 2_000, refused_tokens=3_000) == int(3_000 * REFUSED_SHARE)
    assert prompt_room(window, INFO, 2_000, refused_tokens=6_000) == int(5_000 * REFUSED_SHARE)
    assert prompt_room(window, replace(INFO, model="large"), 2_000) == 8_000
    # A refusal of more than there is room for anyway says nothing.
    assert prompt_room(window_of(refused=(50_000, "small")), INFO, 2_000) == 8_000
