"""What a model is sent of any log, by either wire, breaks no rule of its provider."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from power_loop.contracts.llm import ToolSpec
from power_loop.contracts.messages import Message, user_message
from power_loop.core.context.assemble import assemble
from power_loop.core.context.window import Window
from power_loop.runtime.llm.anthropic_wire import AnthropicWire
from power_loop.runtime.llm.config import LLMProviderConfig
from power_loop.runtime.llm.openai_wire import OpenAIWire
from tests.core.context.logs import wild_logs
from tests.core.context.test_window import view_of
from tests.model_server import check_anthropic_request, check_openai_request

TOOLS = (ToolSpec("add", "Adds.", {"type": "object"}),)


@pytest.mark.promise("valid-transcript")
@pytest.mark.parametrize("provider", ["openai", "anthropic"])
@settings(max_examples=150)
@given(
    log=wild_logs, context_window_tokens=st.sampled_from([400, 1_000, 100_000]), tail=st.sampled_from([None, "Now."])
)
def test_any_log_is_sent_as_a_request_that_the_provider_takes(
    provider: Any, log: list[Message], context_window_tokens: int, tail: str | None
) -> None:
    config = LLMProviderConfig(
        provider=provider,
        api_key="k",
        model="claude-test" if provider == "anthropic" else "gpt-test",
        base_url="http://127.0.0.1:1",
        context_window_tokens=context_window_tokens,
        max_output_tokens=100,
    )
    window = Window.of(view_of([*log, user_message("Go on.")]))
    request = assemble(window, info=config.info, tools=TOOLS, tail=tail).request
    if provider == "anthropic":
        assert check_anthropic_request(json.loads(AnthropicWire(config).body(request))) == []
    else:
        assert check_openai_request(json.loads(OpenAIWire(config).body(request))) == []
