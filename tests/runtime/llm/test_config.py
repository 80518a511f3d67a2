"""The config: checked when it is made, readable from the environment, and silent about its secret."""

from __future__ import annotations

from typing import Any

import pytest

from power_loop.contracts.errors import ConfigError
from power_loop.contracts.messages import Origin
from power_loop.runtime.llm.config import LLMProviderConfig, config_from_env
from power_loop.runtime.llm.service import create_llm_service_from_config, create_llm_service_from_env


def test_a_model_is_all_that_has_to_be_said() -> None:
    config = LLMProviderConfig(model="gpt-4o")
    assert config.url == "https://api.openai.com/v1/chat/completions"
    assert LLMProviderConfig(provider="anthropic", model="claude-x").url == "https://api.anthropic.com/v1/messages"


@pytest.mark.parametrize(
    ("provider", "base_url", "url"),
    [
        ("openai", "http://127.0.0.1:8080/v1", "http://127.0.0.1:8080/v1/chat/completions"),
        ("openai", "http://127.0.0.1:8080/v1/", "http://127.0.0.1:8080/v1/chat/completions"),
        ("openai", "https://example.com/api/paas/v4", "https://example.com/api/paas/v4/chat/completions"),
        ("anthropic", "https://example.com", "https://example.com/v1/messages"),
        ("anthropic", "https://example.com/v1/", "https://example.com/v1/messages"),
        ("openai", "http://[::1]:8080/v1", "http://[::1]:8080/v1/chat/completions"),
        ("openai", "http://x/v1/chat/completions", "http://x/v1/chat/completions"),
        ("openai", "http://x/v1/chat/completions/", "http://x/v1/chat/completions"),
        ("anthropic", "https://example.com/v1/messages", "https://example.com/v1/messages"),
        ("anthropic", "https://example.com/messages", "https://example.com/v1/messages"),
    ],
)
def test_an_address_is_taken_as_people_write_it(provider: Any, base_url: str, url: str) -> None:
    assert LLMProviderConfig(provider=provider, model="m", base_url=base_url).url == url


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"model": ""}, "model"),
        ({"model": "  "}, "model"),
        ({"provider": "azure"}, "provider"),
        ({"carrier": "httpx"}, "carrier"),
        ({"send_back": "always"}, "send_back"),
        ({"prompt_cache": "2h"}, "prompt_cache"),
        ({"tail_role": "assistant"}, "tail_role"),
        ({"base_url": "localhost:8080"}, "base_url"),
        ({"base_url": "ftp://x/"}, "base_url"),
        ({"base_url": "http://x/v1?key=1"}, "base_url"),
        ({"base_url": "http://x:99999/"}, "base_url"),
        ({"base_url": "http://x/ y"}, "base_url"),
        ({"base_url": "http://me:pw@x/"}, "password"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"idle_timeout_s": float("inf")}, "idle_timeout_s"),
        ({"connect_timeout_s": "10"}, "connect_timeout_s"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"context_window_tokens": 1.5}, "context_window_tokens"),
        ({"thinking_budget_tokens": 10}, "thinking_budget_tokens"),
        ({"api_key": "sk-1\nHost: evil"}, "api_key"),
        ({"headers": {"x-a": "1\r\nx-b: 2"}}, "x-a"),
        ({"headers": {"x a": "1"}}, "x a"),
        ({"headers": {"Content-Length": "1"}}, "Content-Length"),
        ({"body": {"messages": []}}, "messages"),
        ({"body": {"stream": False}}, "stream"),
        ({"model": 5}, "model is of type int"),
        ({"model": None}, "model is of type NoneType"),
        ({"base_url": 5}, "base_url is of type int"),
        ({"api_key": 5}, "api_key is of type int"),
        ({"api_key": b"sk-evil"}, "api_key is of type bytes"),
        ({"reasoning_effort": 3}, "reasoning_effort"),
        ({"timeout_s": True}, "timeout_s"),
        ({"max_output_tokens": True}, "max_output_tokens"),
        ({"max_reply_bytes": None}, "max_reply_bytes"),
        ({"thinking_budget_tokens": "5000"}, "thinking_budget_tokens"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"has_tools": "yes"}, "has_tools"),
        ({"has_json_schema": 1}, "has_json_schema"),
        ({"provider": ["openai"]}, "provider"),
        ({"headers": {"x-a": 5}}, "headers holds 'x-a' with a value of type int"),
        ({"headers": {5: "x"}}, "headers"),
        ({"headers": ["x-a"]}, "headers is of type list"),
        ({"body": [1]}, "body is of type list"),
        ({"body": {1: 1}}, "body"),
        ({"body": {"x": object()}}, "body is no JSON object"),
        ({"body": {"x": float("nan")}}, "body is no JSON object"),
        ({"anthropic_version": "2023-06-01\r\nHost: e-vil"}, "anthropic_version"),
        ({"anthropic_version": ""}, "anthropic_version"),
        ({"anthropic_version": None}, "anthropic_version"),
        ({"base_url": "https://x/v1/messages"}, "set provider to 'anthropic'"),
        ({"base_url": "https://x/v1/chat/completions", "provider": "anthropic"}, "set provider to 'openai'"),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_its_name(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        LLMProviderConfig(**{"model": "m", **options})
    assert named in str(caught.value)
    assert "pw" not in str(caught.value)
    assert "evil" not in str(caught.value)


def test_the_secret_is_in_no_repr() -> None:
    config = LLMProviderConfig(
        model="m", api_key="sk-secret-1234", headers={"x-token": "tok-secret"}, body={"user": "body-secret"}
    )
    service = create_llm_service_from_config(config)
    for text in (repr(config), str(config), repr(service), str(service)):
        assert "secret" not in text


def test_a_key_is_taken_without_the_line_end_of_its_file() -> None:
    assert LLMProviderConfig(model="m", api_key=" sk-1\n").api_key == "sk-1"


def test_what_a_config_was_made_of_can_change_without_it() -> None:
    headers = {"x-a": "1"}
    config = LLMProviderConfig(model="m", headers=headers)
    headers["x-a"] = "2"
    assert config.headers["x-a"] == "1"
    with pytest.raises(TypeError):
        config.headers["x-a"] = "3"  # type: ignore[index]


@pytest.mark.parametrize(
    ("model", "window", "cap", "has_json_schema"),
    [
        ("gpt-5", 400_000, 128_000, True),
        ("openai/gpt-4o-mini", 128_000, 16_384, True),
        ("gpt-4", 8_192, 4_096, False),
        ("o3-mini", 200_000, 100_000, True),
        ("claude-opus-4-7", 200_000, 64_000, True),
        ("us.anthropic.claude-3-5-sonnet-20241022-v2:0", 200_000, 8_192, False),
        ("Qwen/Qwen3-8B", 128_000, 8_192, False),
        ("my-gpt-4o-killer", 32_768, 4_096, False),
        ("foo3", 32_768, 4_096, False),
    ],
)
def test_what_is_known_of_a_model_comes_from_its_family(
    model: str, window: int, cap: int, has_json_schema: bool
) -> None:
    info = LLMProviderConfig(model=model).info
    assert (info.context_window_tokens, info.max_output_tokens) == (window, cap)
    assert info.has_json_schema is has_json_schema
    assert info.origin == Origin("openai", model)


def test_what_is_known_of_a_model_can_be_overridden() -> None:
    info = LLMProviderConfig(
        model="gpt-4o", context_window_tokens=10_000, max_output_tokens=500, has_json_schema=False, has_tools=False
    ).info
    assert (info.context_window_tokens, info.max_output_tokens) == (10_000, 500)
    assert not info.has_json_schema
    assert not info.has_tools


def test_a_small_window_leaves_room_for_the_prompt() -> None:
    info = LLMProviderConfig(model="gpt-5", context_window_tokens=8_000).info
    assert info.max_output_tokens == 4_000


def test_what_is_no_config_is_refused() -> None:
    with pytest.raises(ConfigError, match="dict"):
        create_llm_service_from_config({"model": "m"})  # type: ignore[arg-type]


# --- from the environment ---

LOCAL = {"POWER_LOOP_MODEL": "m", "POWER_LOOP_BASE_URL": "http://127.0.0.1:1/v1"}


def test_every_field_can_come_from_the_environment() -> None:
    config = config_from_env(
        {
            "POWER_LOOP_PROVIDER": "anthropic",
            "POWER_LOOP_MODEL": "claude-x",
            "POWER_LOOP_BASE_URL": "http://127.0.0.1:1",
            "POWER_LOOP_API_KEY": "k",
            "POWER_LOOP_CARRIER": "lean",
            "POWER_LOOP_TIMEOUT_S": "12.5",
            "POWER_LOOP_MAX_OUTPUT_TOKENS": "100",
            "POWER_LOOP_TEMPERATURE": "0.5",
            "POWER_LOOP_HAS_TOOLS": "no",
            "POWER_LOOP_HAS_JSON_SCHEMA": "true",
            "POWER_LOOP_PROMPT_CACHE": "1h",
            "POWER_LOOP_HEADERS": '{"x-a": "1"}',
            "POWER_LOOP_BODY": '{"top_k": 5}',
        }
    )
    assert (config.provider, config.model, config.api_key, config.carrier) == ("anthropic", "claude-x", "k", "lean")
    assert (config.timeout_s, config.max_output_tokens, config.temperature) == (12.5, 100, 0.5)
    assert (config.has_tools, config.has_json_schema, config.prompt_cache) == (False, True, "1h")
    assert (dict(config.headers), dict(config.body)) == ({"x-a": "1"}, {"top_k": 5})


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({}, "POWER_LOOP_MODEL"),
        ({"POWER_LOOP_MODEL": " "}, "POWER_LOOP_MODEL"),
        ({"POWER_LOOP_MODEL": "gpt-4o"}, "OPENAI_API_KEY"),
        ({"POWER_LOOP_MODEL": "claude-x"}, "ANTHROPIC_API_KEY"),
        ({"POWER_LOOP_MODEL": "m", "POWER_LOOP_PROVIDER": "azure"}, "POWER_LOOP_PROVIDER"),
        ({"POWER_LOOP_MODEL": "m", "POWER_LOOP_TIMEOUT_S": "long"}, "POWER_LOOP_TIMEOUT_S"),
        ({"POWER_LOOP_MODEL": "m", "POWER_LOOP_HAS_TOOLS": "maybe"}, "POWER_LOOP_HAS_TOOLS"),
        ({"POWER_LOOP_MODEL": "m", "POWER_LOOP_HEADERS": "[]"}, "POWER_LOOP_HEADERS"),
        ({"POWER_LOOP_MODEL": "m", "POWER_LOOP_BODY": "{"}, "POWER_LOOP_BODY"),
        ({"POWER_LOOP_MODEL": "m", "POWER_LOOP_BASE_URL": "localhost"}, "POWER_LOOP_BASE_URL"),
        ({"POWER_LOOP_MODEL": "m", "POWER_LOOP_BASE_URL": "http://[x"}, "POWER_LOOP_BASE_URL"),
        ({**LOCAL, "POWER_LOOP_TEMPERATURE": "nan"}, "POWER_LOOP_TEMPERATURE"),
        ({**LOCAL, "POWER_LOOP_TIMEOUT_S": "nan"}, "POWER_LOOP_TIMEOUT_S"),
        ({**LOCAL, "POWER_LOOP_HEADERS": '{"x-a": 5}'}, "POWER_LOOP_HEADERS"),
        ({**LOCAL, "POWER_LOOP_BODY": '{"messages": 5}'}, "POWER_LOOP_BODY"),
        ({**LOCAL, "POWER_LOOP_BODY": '{"x": NaN}'}, "POWER_LOOP_BODY"),
        ({**LOCAL, "POWER_LOOP_API_KEY": "k\nk"}, "POWER_LOOP_API_KEY"),
        ({**LOCAL, "POWER_LOOP_ANTHROPIC_VERSION": "a\nb"}, "POWER_LOOP_ANTHROPIC_VERSION"),
    ],
)
def test_what_is_missing_or_wrong_is_named(environ: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        create_llm_service_from_env(environ)
    assert caught.value.code == "config.invalid"
    assert named in str(caught.value)


def test_the_variables_of_the_official_clients_are_taken_where_ours_are_not_set() -> None:
    config = config_from_env(
        {"POWER_LOOP_MODEL": "gpt-4o", "OPENAI_API_KEY": "sk-o", "OPENAI_BASE_URL": "https://proxy.example/v1"}
    )
    assert (config.api_key, config.base_url) == ("sk-o", "https://proxy.example/v1")
    config = config_from_env({"POWER_LOOP_MODEL": "claude-x", "ANTHROPIC_API_KEY": "sk-a"})
    assert (config.provider, config.api_key) == ("anthropic", "sk-a")


def test_the_key_of_a_provider_goes_to_nobody_else() -> None:
    environ = {"POWER_LOOP_MODEL": "m", "OPENAI_API_KEY": "sk-o"}
    assert config_from_env({**environ, "POWER_LOOP_BASE_URL": "https://other.example/v1"}).api_key is None
    assert config_from_env({**environ, "POWER_LOOP_BASE_URL": "https://api.openai.com/v1"}).api_key == "sk-o"
    assert config_from_env({**environ, "POWER_LOOP_BASE_URL": "https://api.openai.com.evil.example"}).api_key is None


@pytest.mark.parametrize(
    ("url", "provider"),
    [
        ("https://api.anthropic.com", "anthropic"),
        ("https://api.anthropic.com/v1/", "anthropic"),
        ("https://gateway.example/v1/messages", "anthropic"),
        ("https://api.anthropic.com/v1/chat/completions", "openai"),
        ("https://gateway.example/v1", "openai"),
    ],
)
def test_an_address_says_which_wire_is_spoken_where_no_provider_is_named(url: str, provider: str) -> None:
    environ = {"POWER_LOOP_MODEL": "m", "POWER_LOOP_API_KEY": "k", "POWER_LOOP_BASE_URL": url}
    assert config_from_env(environ).provider == provider


def test_an_endpoint_without_a_key_needs_none() -> None:
    assert config_from_env({"POWER_LOOP_MODEL": "m", "POWER_LOOP_BASE_URL": "http://127.0.0.1:1/v1"}).api_key is None


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POWER_LOOP_MODEL", "m")
    monkeypatch.setenv("POWER_LOOP_BASE_URL", "http://127.0.0.1:1/v1")
    assert create_llm_service_from_env().info.model == "m"
