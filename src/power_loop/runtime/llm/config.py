"""How a model is reached: one frozen config, from code or from the environment."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import field
from inspect import get_annotations
from types import MappingProxyType
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from power_loop.contracts.errors import ConfigError
from power_loop.contracts.frozen import frozen
from power_loop.contracts.llm import ModelInfo
from power_loop.contracts.numbers import is_number, is_whole
from power_loop.runtime.llm.known_models import UNKNOWN_MODEL, ModelFacts, facts_of

Provider = Literal["openai", "anthropic"]
CarrierChoice = Literal["auto", "lean", "sdk"]
SendBack = Literal["field", "tags", "never"]
PromptCache = Literal["off", "5m", "1h"]
TailRole = Literal["user", "system", "developer"]

_DEFAULT_URLS: dict[str, str] = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}
_FIRST_PARTY_HOST = {"openai": "api.openai.com", "anthropic": "api.anthropic.com"}
# What follows the base of an address.
_OPERATIONS = {"openai": ("/chat/completions",), "anthropic": ("/v1/messages", "/messages")}
_ENV_PREFIX = "POWER_LOOP_"
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NOT_IN_HEADERS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]|[^\x00-\xff]")
_VERSION = re.compile(r"[A-Za-z0-9._-]+")
# The caller cannot replace what the wire itself decides.
_OWN_HEADERS = frozenset({"connection", "content-length", "transfer-encoding", "accept-encoding"})
_OWN_BODY_FIELDS = frozenset({"messages", "stream"})


@frozen
class LLMProviderConfig:
    """Says which model answers and how it is reached.

    Raises `config.invalid`, naming the field, for a value that cannot work.
    """

    #: The wire format: `openai` for any endpoint compatible with Chat Completions, `anthropic` for Messages. Default
    #: `openai`.
    provider: Provider = "openai"
    #: The model's name as the endpoint knows it. There is no default.
    model: str = ""
    #: The address that `/chat/completions` (`/v1/messages`) is added to, unless it ends so. Default: the provider's
    #: own.
    base_url: str | None = None
    #: The secret; it never appears in a repr, an error or a log. Default None, for endpoints that want none.
    api_key: str | None = field(default=None, repr=False)
    #: What carries the bytes: `lean` needs no package, `sdk` is the official client. Default `auto`: `lean`.
    carrier: CarrierChoice = "auto"
    #: The longest one attempt may take from its first byte to its last, in seconds. Default 600.
    timeout_s: float = 600.0
    #: The longest that connecting may take, in seconds. Default 10.
    connect_timeout_s: float = 10.0
    #: The longest silence of the endpoint, before or within an answer, in seconds. Default 180.
    idle_timeout_s: float = 180.0
    #: The most tokens of one reply. Default None: none is sent to `openai`; `anthropic`, which wants one, gets what is
    #: known of the model.
    max_output_tokens: int | None = None
    #: The model's context window in tokens. Default None: what is known of the model, 32,768 for an unknown one.
    context_window_tokens: int | None = None
    #: The sampling temperature. Default None: the provider's own. It is left out where the model refuses it.
    temperature: float | None = None
    #: How hard the model thinks, in the provider's words (`none`, `minimal`, `low`, `medium`, `high`, ...). Default
    #: None: its own default.
    reasoning_effort: str | None = None
    #: Anthropic: a budget of thinking in tokens, at least 1,024; less where the cap on the reply leaves no room for an
    #: answer behind it. Default None: thinking follows `reasoning_effort`, if that is set.
    thinking_budget_tokens: int | None = None
    #: Whether the endpoint takes an output schema natively. Default None: what is known of the model, no for an unknown
    #: one.
    has_json_schema: bool | None = None
    #: Whether the model takes tools. Default True.
    has_tools: bool = True
    #: Whether the model sees images; one that does not is told in words that there was one. Default None: what is known
    #: of the model, yes for an unknown one.
    has_images: bool | None = None
    #: Whether the model hears sounds, which go over the `openai` wire only. Default None: what is known of the model,
    #: yes for an unknown one.
    has_audio: bool | None = None
    #: Whether the endpoint takes PDF files as they are; one that does not gets their text. Default None: yes at the
    #: provider's own endpoint and for Claude models behind any `anthropic` one, unless the model is known for taking
    #: none.
    has_pdf: bool | None = None
    #: How reasoning text of compatible servers goes back to them: in the `field` it came in (default), in `<think>`
    #: `tags`, or `never`.
    send_back: SendBack = "field"
    #: Anthropic: how long a cached prompt lives, or `off`. Default `5m`.
    prompt_cache: PromptCache = "5m"
    #: OpenAI: who says the text behind the last message. Default None: `system` at OpenAI itself, else `user`, which
    #: every chat template takes.
    tail_role: TailRole | None = None
    #: More request headers, name to value. Not shown in a repr, because they may hold secrets. Default: none.
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: More fields of the request body; they replace ours of the same name, but for `messages` and `stream`. Default:
    #: none.
    body: Mapping[str, Any] = field(default_factory=dict, repr=False)
    #: The version of the Messages API that is spoken. Default `2023-06-01`.
    anthropic_version: str = "2023-06-01"
    #: The most bytes of one reply, as decoded from the wire. Default 64 MiB.
    max_reply_bytes: int = 64 * 1024 * 1024

    def __post_init__(self) -> None:
        self._check_choices()
        self._check_texts()
        self._check_numbers()
        if not self.model.strip():
            raise ConfigError(f"model is {self.model!r}: name the model, as in LLMProviderConfig(model='gpt-4o')")
        if self.api_key is not None:
            object.__setattr__(self, "api_key", self.api_key.strip() or None)
        if self.api_key is not None and _NOT_IN_HEADERS.search(self.api_key):
            raise ConfigError("api_key holds characters that no HTTP header can carry: copy the key again")
        if not _VERSION.fullmatch(self.anthropic_version):
            raise ConfigError(f"anthropic_version is {self.anthropic_version!r}: give one such as '2023-06-01'")
        url = _checked_url(self.base_url or _DEFAULT_URLS[self.provider])
        object.__setattr__(self, "base_url", _without_operation(url, self.provider))
        # A config is shared between services: what it holds must not change behind their backs.
        object.__setattr__(self, "headers", MappingProxyType(_checked_headers(self.headers)))
        object.__setattr__(self, "body", MappingProxyType(_checked_body(self.body)))

    def _check_choices(self) -> None:
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices and not (value is None and name == "tail_role"):
                raise ConfigError(f"{name} is {value!r}: give one of {', '.join(map(repr, choices))}")
        for name in ("has_tools", "has_json_schema", "has_images", "has_audio", "has_pdf"):
            value = getattr(self, name)
            if not isinstance(value, bool) and not (value is None and name != "has_tools"):
                raise ConfigError(f"{name} is {value!r}: give True or False")

    def _check_texts(self) -> None:
        for name in ("model", "base_url", "api_key", "reasoning_effort", "anthropic_version"):
            value = getattr(self, name)
            is_missing = value is None and name not in ("model", "anthropic_version")
            if not isinstance(value, str) and not is_missing:
                # The value may be a secret.
                raise ConfigError(f"{name} is of type {type(value).__name__}: give a text")

    def _check_numbers(self) -> None:
        for name in ("timeout_s", "connect_timeout_s", "idle_timeout_s"):
            value = getattr(self, name)
            if not is_number(value, above=0):
                raise ConfigError(f"{name} is {value!r}: give a number of seconds above zero")
        for name in ("max_output_tokens", "context_window_tokens", "max_reply_bytes", "thinking_budget_tokens"):
            value = getattr(self, name)
            if (value is None and name != "max_reply_bytes") or is_whole(value, least=1):
                continue
            raise ConfigError(f"{name} is {value!r}: give a whole number above zero")
        if self.thinking_budget_tokens is not None and self.thinking_budget_tokens < 1024:
            raise ConfigError(f"thinking_budget_tokens is {self.thinking_budget_tokens!r}: give at least 1024")
        if self.temperature is not None and not is_number(self.temperature, least=0):
            raise ConfigError(f"temperature is {self.temperature!r}: give a number from zero up, or None")

    @property
    def url(self) -> str:
        """The address that questions are posted to."""
        base = self.base_url or ""
        if self.provider == "openai":
            return base + "/chat/completions"
        # Both ways of writing Anthropic's address are in use.
        return base.removesuffix("/v1") + "/v1/messages"

    @property
    def is_first_party(self) -> bool:
        """Whether the endpoint is the provider's own, and not one compatible with it."""
        return urlsplit(self.base_url or "").hostname == _FIRST_PARTY_HOST[self.provider]

    @property
    def facts(self) -> ModelFacts:
        """What is known of the model, before this config overrides it."""
        return facts_of(self.model)

    @property
    def info(self) -> ModelInfo:
        """What the kernel has to know of the model."""
        facts = self.facts
        window = self.context_window_tokens or facts.context_window_tokens
        cap = self.max_output_tokens or min(facts.max_output_tokens, max(1, window // 2))
        schema = facts.has_json_schema if self.has_json_schema is None else self.has_json_schema
        return ModelInfo(
            provider=self.provider,
            model=self.model,
            wire=self.provider,
            context_window_tokens=window,
            max_output_tokens=cap,
            has_json_schema=schema,
            has_tools=self.has_tools,
            schema_dialect=self.provider,
            has_images=facts.has_images if self.has_images is None else self.has_images,
            has_audio=self.provider == "openai" and (facts.has_audio if self.has_audio is None else self.has_audio),
            has_pdf=self._takes_pdf(facts) if self.has_pdf is None else self.has_pdf,
        )

    def _takes_pdf(self, facts: ModelFacts) -> bool:
        # At the provider's own endpoint a model that is not known is a newer one. Elsewhere, a compatible Chat
        # Completions refuses `file` parts more often than not, and text is read by every model.
        if self.is_first_party:
            return facts is UNKNOWN_MODEL or facts.has_pdf
        return self.provider == "anthropic" and facts.has_pdf


_CHOICES: dict[str, tuple[str, ...]] = {
    "provider": get_args(Provider),
    "carrier": get_args(CarrierChoice),
    "send_back": get_args(SendBack),
    "prompt_cache": get_args(PromptCache),
    "tail_role": get_args(TailRole),
}


def _checked_headers(headers: Any) -> dict[str, str]:
    if not isinstance(headers, Mapping):
        raise ConfigError(f"headers is of type {type(headers).__name__}: give a mapping of names to values")
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise ConfigError(f"headers holds {name!r} with a value of type {type(value).__name__}: give texts")
        if not _HEADER_NAME.fullmatch(name) or _NOT_IN_HEADERS.search(value):
            raise ConfigError(
                f"headers holds {name!r}, which cannot be sent: give a plain name and a value of one line"
            )
        if name.lower() in _OWN_HEADERS:
            raise ConfigError(f"headers cannot replace {name!r}: the carrier writes it itself")
    return dict(headers)


def _checked_body(body: Any) -> dict[str, Any]:
    if not isinstance(body, Mapping) or not all(isinstance(name, str) for name in body):
        raise ConfigError(f"body is of type {type(body).__name__}: give a mapping of field names to JSON values")
    taken = sorted(_OWN_BODY_FIELDS & body.keys())
    if taken:
        raise ConfigError(f"body cannot replace {taken[0]!r}: the kernel writes that field itself")
    try:
        json.dumps(dict(body), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as exc:
        raise ConfigError(f"body is no JSON object: {exc}") from exc
    return dict(body)


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_usable, parts = False, urlsplit("")
    if parts.username is not None or parts.password is not None:
        raise ConfigError("base_url holds a user or a password: put the secret into api_key or headers")
    if not is_usable or parts.query or parts.fragment or re.search(r"[\x00-\x20\x7f]", url):
        raise ConfigError(f"base_url is {url!r}: give an address such as 'http://127.0.0.1:8080/v1'")
    return url.rstrip("/")


def _without_operation(url: str, provider: str) -> str:
    """The address without the operation at its end, which people copy along and which is added again."""
    for owner, operations in _OPERATIONS.items():
        for operation in operations:
            if url.endswith(operation):
                if owner != provider:
                    raise ConfigError(
                        f"base_url is {url!r}, an address of the {owner} wire, and provider is {provider!r}: set"
                        f" provider to {owner!r}, or give the address of {provider}'s own"
                    )
                return url.removesuffix(operation).rstrip("/")
    return url


def config_from_env(environ: Mapping[str, str] | None = None) -> LLMProviderConfig:
    """Return the config that the environment describes.

    Every field has a variable: `POWER_LOOP_MODEL`, `POWER_LOOP_BASE_URL`, `POWER_LOOP_API_KEY`, `POWER_LOOP_TIMEOUT_S`
    and so on; `POWER_LOOP_HEADERS` and `POWER_LOOP_BODY` are JSON objects. The key and the address of the provider's
    own SDK (`OPENAI_API_KEY`, `OPENAI_BASE_URL`, `ANTHROPIC_API_KEY`, `ANTHROPIC_BASE_URL`) are taken where ours are
    not set; such a key never goes to an address that `POWER_LOOP_BASE_URL` names, unless that is the provider's own.
    Raises `config.invalid`, naming the variable.
    """
    source = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    for one, kind in get_annotations(LLMProviderConfig).items():
        name = _ENV_PREFIX + one.upper()
        text = source.get(name, "").strip()
        if text:
            values[one] = _parsed(name, text, kind)
    provider = values.setdefault("provider", _likely_provider(source, values))
    if provider not in _DEFAULT_URLS:
        raise ConfigError(f"POWER_LOOP_PROVIDER is {provider!r}: give 'openai' or 'anthropic'")
    if "model" not in values:
        raise ConfigError("POWER_LOOP_MODEL is not set: name the model, as in POWER_LOOP_MODEL=gpt-4o")
    vendor = provider.upper()
    host = _FIRST_PARTY_HOST[provider]
    named = values.get("base_url")
    if named is None and source.get(f"{vendor}_BASE_URL", "").strip():
        values["base_url"] = source[f"{vendor}_BASE_URL"].strip()
    if "api_key" not in values and (named is None or _host_of(named) == host):
        values["api_key"] = source.get(f"{vendor}_API_KEY", "").strip() or None
    if values.get("api_key") is None and _host_of(values.get("base_url") or _DEFAULT_URLS[provider]) == host:
        raise ConfigError(
            f"POWER_LOOP_API_KEY is not set, nor is {vendor}_API_KEY: set one of them to the key for {host}, or"
            " POWER_LOOP_BASE_URL to another endpoint"
        )
    try:
        return LLMProviderConfig(**values)
    except ConfigError as exc:
        field_name = exc.message.partition(" ")[0]
        variable = _ENV_PREFIX + (field_name.upper() if field_name in values else "*")
        raise ConfigError(f"the environment gives no usable model ({variable}): {exc.message}") from exc


def _host_of(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        # What is no address is refused when the config is made.
        return None


def _likely_provider(source: Mapping[str, str], values: Mapping[str, Any]) -> str:
    """The provider when none is named: Anthropic where its address, or its model or key alone, speaks for it."""
    if "base_url" in values:
        url = values["base_url"].rstrip("/")
        if any(map(url.endswith, _OPERATIONS["openai"])):
            return "openai"
        is_its_own = _host_of(url) == _FIRST_PARTY_HOST["anthropic"]
        return "anthropic" if is_its_own or any(map(url.endswith, _OPERATIONS["anthropic"])) else "openai"
    only_key = bool(source.get("ANTHROPIC_API_KEY", "").strip()) and not source.get("OPENAI_API_KEY", "").strip()
    return "anthropic" if only_key or str(values.get("model", "")).startswith("claude") else "openai"


def _parsed(name: str, text: str, kind: str) -> Any:
    try:
        if kind.startswith("Mapping"):
            value = json.loads(text)
            if not isinstance(value, dict):
                raise ValueError("it is no JSON object")
            return value
        if kind.startswith("float"):
            return float(text)
        if kind.startswith("int"):
            return int(text)
    except ValueError as exc:
        wanted = "a JSON object" if kind.startswith("Mapping") else "a number"
        raise ConfigError(f"{name} cannot be read: give {wanted}") from exc
    if kind.startswith("bool"):
        if text.lower() not in _TRUTH:
            raise ConfigError(f"{name} is {text!r}: give 'true' or 'false'")
        return _TRUTH[text.lower()]
    return text


_TRUTH = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
