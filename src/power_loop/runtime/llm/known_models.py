"""What is known of well-known model families: windows, output caps, and what their endpoints take."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Is what we know of a model before it is asked; every field can be overridden in the config.

    `context_window_tokens` and `max_output_tokens` are in tokens. `has_json_schema` tells whether an output schema is
    taken natively, `is_reasoning` that sampling parameters are refused and `max_completion_tokens` is the name of the
    cap, `has_adaptive_thinking` that an Anthropic model takes an effort instead of a budget of thinking tokens.
    """

    context_window_tokens: int
    max_output_tokens: int
    has_json_schema: bool = False
    is_reasoning: bool = False
    has_adaptive_thinking: bool = False


# A model that no row knows is taken for a small one: folding too early costs a little, folding too late costs the turn.
UNKNOWN_MODEL = ModelFacts(context_window_tokens=32_768, max_output_tokens=4_096)

# The first row that matches wins. A vendor's prefix such as `openai/` or `anthropic.` may stand before the name.
_FAMILIES: tuple[tuple[re.Pattern[str], ModelFacts], ...] = tuple(
    (re.compile(pattern), facts)
    for pattern, facts in (
        # OpenAI
        (r"gpt-5[\w.]*-chat", ModelFacts(128_000, 16_384, has_json_schema=True)),
        (r"gpt-5", ModelFacts(400_000, 128_000, has_json_schema=True, is_reasoning=True)),
        (r"gpt-4\.1", ModelFacts(1_047_576, 32_768, has_json_schema=True)),
        (r"gpt-4o", ModelFacts(128_000, 16_384, has_json_schema=True)),
        (r"gpt-4-turbo", ModelFacts(128_000, 4_096)),
        (r"gpt-4", ModelFacts(8_192, 4_096)),
        (r"gpt-3\.5", ModelFacts(16_385, 4_096)),
        (r"gpt-oss", ModelFacts(131_072, 32_768)),
        (r"o1-(mini|preview)", ModelFacts(128_000, 32_768, is_reasoning=True)),
        (r"o[134]\b", ModelFacts(200_000, 100_000, has_json_schema=True, is_reasoning=True)),
        # Anthropic
        (
            r"claude-(opus|sonnet)-4-[6-9]|claude-[a-z]+-[5-9]",
            ModelFacts(200_000, 64_000, has_json_schema=True, has_adaptive_thinking=True),
        ),
        (r"claude-(sonnet|haiku)-4-5", ModelFacts(200_000, 64_000, has_json_schema=True)),
        (r"claude-opus-4-5", ModelFacts(200_000, 64_000, has_json_schema=True)),
        (r"claude-opus-4-1", ModelFacts(200_000, 32_000, has_json_schema=True)),
        (r"claude-opus-4", ModelFacts(200_000, 32_000)),
        (r"claude-sonnet-4|claude-3-7", ModelFacts(200_000, 64_000)),
        (r"claude-3-5", ModelFacts(200_000, 8_192)),
        (r"claude-3", ModelFacts(200_000, 4_096)),
        (r"claude", ModelFacts(200_000, 8_192)),
        # Open and compatible ones
        (r"deepseek", ModelFacts(128_000, 8_192)),
        (r"kimi-k2|moonshot", ModelFacts(128_000, 16_384)),
        (r"qwen3", ModelFacts(128_000, 8_192)),
        (r"qwen2\.5", ModelFacts(32_768, 8_192)),
        (r"glm-4", ModelFacts(128_000, 16_384)),
        (r"gemini", ModelFacts(1_000_000, 8_192, has_json_schema=True)),
        (r"grok", ModelFacts(128_000, 16_384, has_json_schema=True)),
        (r"mistral-(large|medium)|magistral|devstral", ModelFacts(128_000, 8_192)),
        (r"llama-?3\.[1-9]|llama-?4", ModelFacts(128_000, 8_192)),
        (r"smollm2", ModelFacts(8_192, 1_024)),
    )
)
# What may stand before a family's name: nothing, a path of the vendor, or the vendor's dotted prefix.
_NAME_START = re.compile(r"(?:^|[/.:@])(?=[a-z])")


def facts_of(model: str) -> ModelFacts:
    """Return what is known of the model of this name, or the cautious facts of an unknown one."""
    name = model.lower()
    starts = [match.end() for match in _NAME_START.finditer(name)]
    for pattern, facts in _FAMILIES:
        if any(pattern.match(name, start) for start in starts):
            return facts
    return UNKNOWN_MODEL
