"""The model service: makes one attempt at one reply, over either wire and either carrier."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Protocol

from power_loop.contracts.errors import ConfigError, LLMError, LLMInvalidRequestError, MissingExtraError
from power_loop.contracts.llm import Emit, LLMRequest, LLMResponse, ModelInfo
from power_loop.contracts.messages import Origin
from power_loop.runtime.llm.anthropic import AnthropicReader
from power_loop.runtime.llm.anthropic_wire import AnthropicWire
from power_loop.runtime.llm.carrier import Carrier, Endpoint, Exchange
from power_loop.runtime.llm.config import LLMProviderConfig, config_from_env
from power_loop.runtime.llm.deadline import Deadline
from power_loop.runtime.llm.decoding import inflater_of
from power_loop.runtime.llm.failures import Culprit, ProviderFault
from power_loop.runtime.llm.lean import LeanCarrier
from power_loop.runtime.llm.openai import OpenAIReader
from power_loop.runtime.llm.openai_wire import OpenAIWire
from power_loop.runtime.llm.pools import Lease
from power_loop.runtime.llm.sdk import SdkCarrier
from power_loop.runtime.llm.sse import EventParser
from power_loop.runtime.llm.stream import Assembly

# An error body is read this far; what tells us anything stands at its beginning.
_MAX_ERROR_BYTES = 64 * 1024
# How long the end of a body is waited for after the reply has said that it is whole: normally it is there already.
_END_GRACE_S = 0.2
_USAGE_OPTION = re.compile(r"stream_options|include_usage", re.IGNORECASE)
_REASONING = re.compile(r"thinking|signature|reasoning", re.IGNORECASE)
_BLANK = b" \t\r\n\xef\xbb\xbf"


class _Reader(Protocol):
    is_done: bool

    @property
    def is_finished(self) -> bool: ...
    def read(self, name: str, data: str) -> None: ...
    def read_whole(self, body: dict[str, Any]) -> None: ...
    def response(self, *, origin: Origin, request_id: str | None) -> LLMResponse: ...


class _Wire(Protocol):
    def body(self, request: LLMRequest, *, has_usage_option: bool, has_reasoning: bool) -> bytes: ...


class ProviderLLMService:
    """Is a model behind Chat Completions or Messages. Cheap to make: nothing is imported or opened before a call.

    It may be used from several event loops. Connections are shared with every other service of the same endpoint in
    the same loop, and close with the last of them; `aclose()` gives up this service's share, and a later call takes
    one again. Raises `config.missing_extra` when it is made for a carrier whose package is not installed.
    """

    def __init__(self, config: LLMProviderConfig) -> None:
        self._config = config
        self._info = config.info
        self._origin = self._info.origin
        self._culprit = Culprit(config.provider, config.model, config.api_key)
        self._wire: _Wire = OpenAIWire(config) if config.provider == "openai" else AnthropicWire(config)
        self._reader = OpenAIReader if config.provider == "openai" else AnthropicReader
        self._carrier = carrier_of(config)
        self._lease: Lease | None = None
        # What this endpoint was found to refuse is not sent to it again.
        self._has_usage_option = True
        self._has_reasoning = True

    def __repr__(self) -> str:
        return f"<{self._config.provider} model {self._config.model!r} at {self._config.base_url}>"

    @property
    def config(self) -> LLMProviderConfig:
        """How the model is reached."""
        return self._config

    @property
    def info(self) -> ModelInfo:
        """What this model is and can do."""
        return self._info

    async def generate(self, request: LLMRequest, emit: Emit) -> LLMResponse:
        """Make one attempt at one reply. Raises `llm.*` errors, `input.invalid`.

        Two refusals of an endpoint are answered at once with one more request within the same attempt, because the same
        one would fail for ever: an endpoint that does not know the option that asks for usage is asked without it, and
        one that refuses reasoning is sent none back and asked for none.
        """
        has_reasoning = self._has_reasoning
        try:
            return await self._attempt(request, emit, has_reasoning)
        except LLMInvalidRequestError as exc:
            if self._has_usage_option and _USAGE_OPTION.search(exc.message):
                self._has_usage_option = False
            elif has_reasoning and _REASONING.search(exc.message) and self._has_other_body_without_reasoning(request):
                has_reasoning = False
                # A field that is not known stays unknown; a block of thinking is refused for what stands in it.
                self._has_reasoning = self._config.provider == "anthropic"
            else:
                raise
        return await self._attempt(request, emit, has_reasoning)

    async def aclose(self) -> None:
        """Give up the connections; those that no other service uses are closed."""
        if self._lease is not None:
            await self._lease.release()

    # --- one attempt ---

    async def _attempt(self, request: LLMRequest, emit: Emit, has_reasoning: bool) -> LLMResponse:
        body = self._body(request, has_reasoning)
        if self._lease is None:
            self._lease = Lease(self, self._carrier, endpoint_of(self._config))
        connections = await self._lease.connections()
        reader: _Reader = self._reader(Assembly(emit, body))
        request_id: str | None = None
        status: int | None = None
        try:
            with Deadline(self._config.timeout_s):
                exchange = await connections.post(body)
                try:
                    status = exchange.status
                    request_id = exchange.headers.get("x-request-id") or exchange.headers.get("request-id")
                    if not 200 <= status < 300:
                        raise await self._refusal(exchange, request_id)
                    await self._read(exchange, reader)
                finally:
                    await exchange.close()
            return reader.response(origin=self._origin, request_id=request_id)
        except ProviderFault as fault:
            raise self._culprit.error_of_fault(fault, status=status, request_id=request_id) from fault
        except TimeoutError as exc:
            late = ProviderFault.timed_out(f"not done after {self._config.timeout_s:g} s")
            raise self._culprit.error_of_fault(late, status=status, request_id=request_id) from exc

    async def _refusal(self, exchange: Exchange, request_id: str | None) -> LLMError:
        content = b""
        try:
            inflater = inflater_of(exchange.headers.get("content-encoding", ""))
            while len(content) < _MAX_ERROR_BYTES:
                chunk = await exchange.read()
                if not chunk:
                    break
                content += chunk if inflater is None else inflater.unpack(chunk, _MAX_ERROR_BYTES)
        except ProviderFault:
            # The status says enough.
            pass
        return self._culprit.error_of_response(
            exchange.status, exchange.headers, content[:_MAX_ERROR_BYTES], now_s=time.time(), request_id=request_id
        )

    async def _read(self, exchange: Exchange, reader: _Reader) -> None:
        """Read an answer to its end: a stream of events, or a whole reply where the endpoint sends that."""
        inflater = inflater_of(exchange.headers.get("content-encoding", ""))
        limit = left = self._config.max_reply_bytes
        parser = EventParser()
        whole: list[bytes] | None = None
        has_begun = False
        try:
            while chunk := await exchange.read():
                if inflater is not None:
                    chunk = inflater.unpack(chunk, left)
                left -= len(chunk)
                if left < 0:
                    raise ProviderFault.broken(f"the reply is longer than {limit} bytes (max_reply_bytes)")
                if not has_begun and (first := chunk.lstrip(_BLANK)[:1]):
                    has_begun = True
                    if first in b"{[<":
                        whole = []
                if whole is not None:
                    whole.append(chunk)
                    continue
                for name, data in parser.feed(chunk):
                    reader.read(name, data)
                    if reader.is_done:
                        await _reach_end(exchange)
                        return
        except ProviderFault:
            # A connection that breaks behind the end of the reply takes nothing away from it.
            if not reader.is_finished:
                raise
            return
        if whole is not None:
            reader.read_whole(_object_of(b"".join(whole)))
        elif not has_begun and "event-stream" not in exchange.headers.get("content-type", ""):
            raise ProviderFault.broken("the answer is empty")
        else:
            for name, data in parser.close():
                reader.read(name, data)

    def _body(self, request: LLMRequest, has_reasoning: bool) -> bytes:
        return self._wire.body(request, has_usage_option=self._has_usage_option, has_reasoning=has_reasoning)

    def _has_other_body_without_reasoning(self, request: LLMRequest) -> bool:
        return self._body(request, True) != self._body(request, False)


def create_llm_service_from_config(config: LLMProviderConfig) -> ProviderLLMService:
    """Return the model that a config describes. Raises `config.invalid` for anything else, `config.missing_extra` for a
    carrier whose package is not installed."""
    given: Any = config
    if not isinstance(given, LLMProviderConfig):
        raise ConfigError(f"config is of type {type(given).__name__}: give an LLMProviderConfig")
    return ProviderLLMService(config)


def create_llm_service_from_env(environ: Mapping[str, str] | None = None) -> ProviderLLMService:
    """Return the model that the environment describes: `POWER_LOOP_MODEL` and more, see `config_from_env`.

    `environ` stands for `os.environ`. Raises `config.invalid`, naming the variable, and `config.missing_extra` for a
    carrier whose package is not installed.
    """
    return ProviderLLMService(config_from_env(environ))


def carrier_of(config: LLMProviderConfig) -> Carrier:
    """Return the carrier of a config. Raises `config.missing_extra` where its package is not installed."""
    if config.carrier != "sdk":
        return LeanCarrier()
    if find_spec(config.provider) is None:
        raise MissingExtraError(
            f"carrier 'sdk' needs the package {config.provider!r}: pip install 'power-loop[{config.provider}]', or"
            " leave carrier at 'auto', which needs none",
            extra=config.provider,
        )
    return SdkCarrier()


def endpoint_of(config: LLMProviderConfig) -> Endpoint:
    """Return where a config sends, with the headers that every request carries."""
    headers: dict[str, str] = {"User-Agent": "power-loop"}
    if config.provider == "anthropic":
        headers["anthropic-version"] = config.anthropic_version
        if config.api_key is not None:
            headers["x-api-key"] = config.api_key
    elif config.api_key is not None:
        headers["Authorization"] = f"Bearer {config.api_key}"
    taken = {name.lower() for name in config.headers}
    headers = {name: value for name, value in headers.items() if name.lower() not in taken}
    headers.update(config.headers)
    return Endpoint(
        config.provider,
        config.url,
        tuple(headers.items()),
        connect_timeout_s=config.connect_timeout_s,
        idle_timeout_s=config.idle_timeout_s,
    )


async def _reach_end(exchange: Exchange) -> None:
    """Read what is left of a body whose reply is whole, so that its connection can be used again."""
    if exchange.is_over:
        return
    try:
        with Deadline(_END_GRACE_S):
            while await exchange.read():
                pass
    except (TimeoutError, ProviderFault):
        # The connection is closed instead.
        pass


def _object_of(content: bytes) -> dict[str, Any]:
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        text = content[:200].decode("utf-8", "replace")
        raise ProviderFault.broken(f"the answer is neither a stream of events nor a reply in JSON: {text!r}")
    return body
