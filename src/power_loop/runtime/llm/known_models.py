"""What is known of well-known model families: windows, output caps, and what their endpoints take."""

from __future__ import annotations

import re

from power_loop.contracts.frozen import frozen


@frozen
class ModelFacts:
    """Is what we know of a model before it is asked; every field can be overridden in the config.

    `context_window_tokens` and `max_output_tokens` are in tokens. `has_json_schema` tells whether an output schema is
    taken natively, `is_reasoning` that sampling parameters are refused and `max_completion_tokens` is the name of the
    cap, `has_adaptive_thinking` that an Anthropic model takes an effort instead of a budget of thinking tokens.
    `has_images`, `has_audio` and `has_pdf` tell which media the model takes at an endpoint that carries them.
    """

    context_window_tokens: int
    max_output_tokens: int
    has_json_schema: bool = False
    is_reasoning: bool = False
    has_adaptive_thinking: bool = False
    has_images: bool = True
    has_audio: bool = True
    has_pdf: bool = False


# A model that no row knows is taken for a small one: folding too early costs a little, folding too late costs the turn.
UNKNOWN_MODEL = ModelFacts(context_window_tokens=32_768, max_output_tokens=4_096)


def _sees(context_window_tokens: int, max_output_tokens: int, **facts: bool) -> ModelFacts:
    """Return the facts of a model that takes images and PDF files."""
    return ModelFacts(context_window_tokens, max_output_tokens, has_audio=False, has_pdf=True, **facts)


def _reads(context_window_tokens: int, max_output_tokens: int, **facts: bool) -> ModelFacts:
    """Return the facts of a model that takes nothing but text."""
    return ModelFacts(context_window_tokens, max_output_tokens, has_images=False, has_audio=False, **facts)


# A word of the family's name, what its names look like (None: the word begins them), and what is known. The first row
# that fits wins. The word is looked for first, so that a pattern is compiled only for a model that may need it.
_FAMILIES: tuple[tuple[str, str | None, ModelFacts], ...] = (
    # OpenAI
    ("gpt-5", r"gpt-5[\w.]*-chat", _sees(128_000, 16_384, has_json_schema=True)),
    ("gpt-5", None, _sees(400_000, 128_000, has_json_schema=True, is_reasoning=True)),
    ("gpt-4.1", None, _sees(1_047_576, 32_768, has_json_schema=True)),
    ("audio", r"gpt-(4o(-mini)?-)?audio", ModelFacts(128_000, 16_384, has_images=False)),
    ("gpt-4o", None, _sees(128_000, 16_384, has_json_schema=True)),
    ("gpt-4-turbo", None, ModelFacts(128_000, 4_096, has_audio=False)),
    ("gpt-4", None, _reads(8_192, 4_096)),
    ("gpt-3.5", None, _reads(16_385, 4_096)),
    ("gpt-oss", None, _reads(131_072, 32_768)),
    ("o1-", r"o1-(mini|preview)", _reads(128_000, 32_768, is_reasoning=True)),
    ("o3-mini", None, _reads(200_000, 100_000, has_json_schema=True, is_reasoning=True)),
    ("o", r"o[134]\b", _sees(200_000, 100_000, has_json_schema=True, is_reasoning=True)),
    # Anthropic
    (
        "claude",
        r"claude-(opus|sonnet)-4-[6-9]|claude-[a-z]+-[5-9]",
        _sees(200_000, 64_000, has_json_schema=True, has_adaptive_thinking=True),
    ),
    ("claude", r"claude-(opus|sonnet|haiku)-4-5", _sees(200_000, 64_000, has_json_schema=True)),
    ("claude-opus-4-1", None, _sees(200_000, 32_000, has_json_schema=True)),
    ("claude-opus-4", None, _sees(200_000, 32_000)),
    ("claude-sonnet-4", None, _sees(200_000, 64_000)),
    ("claude-3-7", None, _sees(200_000, 64_000)),
    ("claude-3-5", None, _sees(200_000, 8_192)),
    ("claude-3", None, _sees(200_000, 4_096)),
    ("claude", None, _sees(200_000, 8_192)),
    # Open and compatible ones
    ("deepseek", r"deepseek-(chat|reasoner|coder|v\d|r\d)", _reads(128_000, 8_192)),
    ("deepseek", None, ModelFacts(128_000, 8_192)),
    ("kimi-k2", None, ModelFacts(128_000, 16_384)),
    ("moonshot", None, ModelFacts(128_000, 16_384)),
    ("qwen3", None, ModelFacts(128_000, 8_192)),
    ("qwen2.5", None, ModelFacts(32_768, 8_192)),
    ("glm-4", None, ModelFacts(128_000, 16_384)),
    ("gemini", None, ModelFacts(1_000_000, 8_192, has_json_schema=True)),
    ("grok", None, ModelFacts(128_000, 16_384, has_json_schema=True)),
    ("mistral", r"mistral-(large|medium)", ModelFacts(128_000, 8_192)),
    ("magistral", None, ModelFacts(128_000, 8_192)),
    ("devstral", None, ModelFacts(128_000, 8_192)),
    ("llama", r"llama-?(3\.[1-9]|4)", ModelFacts(128_000, 8_192)),
    ("smollm2", None, _reads(8_192, 1_024)),
)
# What may stand before a family's name: nothing, a path of the vendor, or the vendor's dotted prefix.
_BEFORE_NAME = frozenset("/.:@")


def facts_of(model: str) -> ModelFacts:
    """Return what is known of the model of this name, or the cautious facts of an unknown one."""
    name = model.lower()
    starts = [at for at in range(len(name)) if at == 0 or name[at - 1] in _BEFORE_NAME]
    for word, pattern, facts in _FAMILIES:
        if word not in name:
            continue
        if pattern is None:
            if any(name.startswith(word, start) for start in starts):
                return facts
        elif any(re.compile(pattern).match(name, start) for start in starts):
            return facts
    return UNKNOWN_MODEL
