"""A word that means a choice is read, and what means none is told with the words that there are."""

from __future__ import annotations

from typing import Any

import pytest

from power_loop import (
    AgentSpec,
    LoopConfig,
    OnBusy,
    PermissionPolicy,
    PowerLoopError,
    RuntimeEnv,
    StatefulAgentLoop,
    open_store,
    tool_preset,
)
from power_loop.errors import AgentSpecError, InputError
from power_loop.testing import Cassette, Fault, ScriptedLLM, leak_check
from power_loop.tools import choice_of

WRONG: Any = "sometimes"


def test_a_word_and_the_choice_itself_mean_the_choice() -> None:
    assert choice_of(OnBusy, "wait", "on_busy") is choice_of(OnBusy, OnBusy.WAIT, "on_busy") is OnBusy.WAIT


@pytest.mark.parametrize("word", [None, 7, [], {}, "WAIT", "x" * 1_000])
def test_what_means_none_is_told_with_its_name_and_the_words_there_are(word: Any) -> None:
    with pytest.raises(InputError, match=r"^on_busy is .{1,210}: give one of 'raise', 'wait', 'queue'$") as caught:
        choice_of(OnBusy, word, "on_busy", error=InputError)
    assert caught.value.code == "input.invalid"


async def test_every_room_says_it_in_the_same_words(tmp_path: Any) -> None:
    store = await open_store(":memory:")
    loop = StatefulAgentLoop(llm=ScriptedLLM(["Never."]), store=store)
    rooms: dict[str, Any] = {
        "on_unknown": lambda: LoopConfig(on_unknown=WRONG),
        "preset": lambda: tool_preset(WRONG, RuntimeEnv(tmp_path)),
        "mode": lambda: PermissionPolicy(mode=WRONG),
        "record": lambda: Cassette(tmp_path / "c", record=WRONG),
        "kind of a fault": lambda: Fault(1, WRONG),
        "kind of leaks": lambda: leak_check(kinds=[WRONG]),
        "lifecycle": lambda: AgentSpec("tea", "You know tea.", lifecycle=WRONG),
        "permission_mode": lambda: AgentSpec("tea", "You know tea.", permission_mode=WRONG),
        "state": lambda: loop.list_sessions(state=WRONG),
        "on_busy": lambda: loop.resume("s", on_busy=WRONG),
        "on_conflict": lambda: store.import_session({}, on_conflict=WRONG),
        "schema": lambda: open_store(":memory:", schema=WRONG),
    }
    for name, act in rooms.items():
        with pytest.raises(PowerLoopError, match=rf"{name}.* is 'sometimes': give one of '"):
            await act()
    await loop.aclose()
    await store.aclose()


def test_an_agent_is_told_every_word_that_is_wrong_at_once() -> None:
    with pytest.raises(AgentSpecError) as caught:
        AgentSpec("tea", "You know tea.", lifecycle=WRONG, permission_mode=WRONG)
    assert len(caught.value.problems) == 2
