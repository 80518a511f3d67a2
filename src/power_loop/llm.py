"""Is the public shelf of models: what the loop and a model say to each other, and the services that say it."""

from __future__ import annotations

from power_loop.contracts.llm import (
    DeltaKind,
    Emit,
    LLMDelta,
    LLMRequest,
    LLMResponse,
    LLMRetryPolicy,
    LLMService,
    ModelInfo,
    OutputSchema,
    StopReason,
    ToolSpec,
    Usage,
)
from power_loop.core.context.facts import LLMFacts
from power_loop.runtime.llm.config import LLMProviderConfig
from power_loop.runtime.llm.service import create_llm_service_from_config, create_llm_service_from_env

__all__ = [
    "DeltaKind",
    "Emit",
    "LLMDelta",
    "LLMFacts",
    "LLMProviderConfig",
    "LLMRequest",
    "LLMResponse",
    "LLMRetryPolicy",
    "LLMService",
    "ModelInfo",
    "OutputSchema",
    "StopReason",
    "ToolSpec",
    "Usage",
    "create_llm_service_from_config",
    "create_llm_service_from_env",
]
