"""Which system prompt a model gets: the send's own, the session's, or the loop's, with the tools that it is offered."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from power_loop import LLMResponse, LoopConfig, SystemPrompt, tool
from power_loop.errors import ConfigError, InputError, LLMError
from power_loop.testing import ScriptedLLM

from .conftest import MakeLoop

OK = LLMResponse.of_text("Yes.")


@tool(effect="read", guidance="Only for prices.")
def find_price(item: str) -> str:
    """Find a price."""
    return item


@tool(effect="read", guidance="Only for stock.")
def count_stock(item: str) -> int:
    """Count what is left."""
    return len(item)


PROMPT = SystemPrompt("You sell boats.").tools()
BOTH = "You sell boats.\n\n# Tools\n\n- `find_price`: Only for prices.\n- `count_stock`: Only for stock."
ONE = "You sell boats.\n\n# Tools\n\n- `count_stock`: Only for stock."


def systems(llm: Any) -> list[str | None]:
    return [request.system for request in llm.requests]


async def test_a_session_keeps_the_text_that_its_prompt_is_for_the_loop_s_tools(make_loop: MakeLoop, dsn: str) -> None:
    llm = ScriptedLLM([OK] * 2)
    loop = make_loop(llm=llm, tool_registry=[find_price, count_stock])
    sid = await loop.new_session(system_prompt=PROMPT)
    await loop.send("Hello.", session_id=sid)
    await make_loop(llm=llm).send("Hello again.", session_id=sid)
    assert systems(llm) == [BOTH, BOTH]
    with sqlite3.connect(dsn) as database:
        assert database.execute("SELECT system_prompt FROM pl_session_details").fetchall() == [(BOTH,)]
    database.close()


async def test_a_send_and_an_update_take_a_prompt_that_is_built(make_loop: MakeLoop) -> None:
    llm = ScriptedLLM([OK] * 3)
    loop = make_loop(llm=llm, tool_registry=[find_price, count_stock])
    sid = await loop.new_session(system_prompt="Plain.")
    await loop.send("One.", session_id=sid, system_prompt=PROMPT, tools=["count_stock"])
    await loop.send("Two.", session_id=sid)
    await loop.update_session(sid, system_prompt=SystemPrompt("Changed."))
    await loop.send("Three.", session_id=sid)
    assert systems(llm) == [ONE, "Plain.", "Changed."]


async def test_the_loop_s_prompt_stands_in_where_a_session_has_none_and_names_the_tools_of_each_send(
    make_loop: MakeLoop,
) -> None:
    llm = ScriptedLLM([OK] * 5)
    loop = make_loop(llm=llm, tool_registry=[find_price, count_stock], config=LoopConfig(system_prompt=PROMPT))
    bare, own, empty = [await loop.new_session(system_prompt=prompt) for prompt in (None, "Own.", "")]
    await loop.send("One.", session_id=bare)
    await loop.send("Two.", session_id=bare, tools=["count_stock"])
    await loop.send("Three.", session_id=bare, system_prompt="For once.")
    await loop.send("Four.", session_id=own)
    await loop.send("Five.", session_id=empty)
    assert systems(llm) == [BOTH, ONE, "For once.", "Own.", None]


async def test_a_plain_text_is_a_loop_s_prompt_too(make_loop: MakeLoop) -> None:
    llm = ScriptedLLM([OK])
    loop = make_loop(llm=llm, config=LoopConfig(system_prompt="Be brief."))
    await loop.send("Hello.", session_id=await loop.new_session())
    assert systems(llm) == ["Be brief."]


async def test_what_is_no_prompt_is_refused(make_loop: MakeLoop) -> None:
    wrong: Any = 7
    with pytest.raises(ConfigError, match="give text or a SystemPrompt"):
        LoopConfig(system_prompt=wrong)
    with pytest.raises(InputError, match="give text or a SystemPrompt"):
        await make_loop().new_session(system_prompt=wrong)


async def test_a_prompt_is_the_same_text_before_and_behind_the_database(make_loop: MakeLoop) -> None:
    broken = "Sell\0 boats.\ud800"

    @tool(effect="read", guidance="Only\ud800 for prices.")
    def price(item: str) -> str:
        """Find a price."""
        return item

    llm = ScriptedLLM([LLMError("down"), OK, OK, OK])
    loop = make_loop(llm=llm, tool_registry=[price], config=LoopConfig(system_prompt=broken))
    own = await loop.new_session()
    with pytest.raises(LLMError):
        await loop.send("Hello.", session_id=own, system_prompt=broken)
    await make_loop(llm=llm, tool_registry=[price]).resume(own)
    await loop.send("Hello.", session_id=await loop.new_session())
    assert systems(llm) == ["Sell\ufffd boats.\ufffd"] * 3
    built = make_loop(llm=llm, tool_registry=[price], config=LoopConfig(system_prompt=PROMPT))
    await built.send("Hello.", session_id=await built.new_session())
    assert systems(llm)[-1] == "You sell boats.\n\n# Tools\n\n- `price`: Only\ufffd for prices."
