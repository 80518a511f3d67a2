"""What the Anthropic Messages endpoint refuses, in its own words."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import Any

from .identity import IssuedThinking, Ledger

CALL_ID = re.compile(r"[a-zA-Z0-9_-]+")
TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
MAX_CACHE_MARKS = 4
MIN_THINKING_TOKENS = 1024
MEDIA_TYPES = {
    "image": ("image/jpeg", "image/png", "image/gif", "image/webp"),
    "document": ("application/pdf",),
}
MAX_OPTIONAL_PROPERTIES = 24
MAX_UNION_PROPERTIES = 16
UNSUPPORTED_SCHEMA_RULES = frozenset(
    {
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength"),
        *("maxItems", "uniqueItems", "prefixItems", "contains", "minContains", "maxContains", "minProperties"),
        *("maxProperties", "patternProperties", "propertyNames", "dependentRequired", "dependentSchemas"),
        *("oneOf", "not", "if", "then", "else"),
    }
)
FIELDS = frozenset(
    {
        "max_tokens",
        "messages",
        "model",
        "cache_control",
        "container",
        "context_management",
        "diagnostics",
        "inference_geo",
        "mcp_servers",
        "metadata",
        "output_config",
        "output_format",
        "prefill",
        "service_tier",
        "speed",
        "stop_sequences",
        "stream",
        "system",
        "temperature",
        "thinking",
        "tool_choice",
        "tools",
        "top_k",
        "top_p",
        "user_profile_id",
        "workspace_id",
    }
)
BLOCKS = {
    "user": frozenset({"text", "image", "document", "search_result", "tool_result", "container_upload"}),
    "assistant": frozenset(
        {
            "text",
            "thinking",
            "redacted_thinking",
            "tool_use",
            "server_tool_use",
            "web_search_tool_result",
            "web_fetch_tool_result",
            "code_execution_tool_result",
            "compaction",
        }
    ),
}
BLOCK_FIELDS = {
    "text": frozenset({"type", "text", "cache_control", "citations"}),
    "thinking": frozenset({"type", "thinking", "signature"}),
    "redacted_thinking": frozenset({"type", "data"}),
    "tool_use": frozenset({"type", "id", "name", "input", "cache_control", "caller"}),
    "tool_result": frozenset({"type", "tool_use_id", "content", "is_error", "cache_control"}),
}
THINKING = ("thinking", "redacted_thinking")
THINKING_ON = ("enabled", "adaptive", "between_tools")
MODIFIED = (
    "`thinking` or `redacted_thinking` blocks in the latest assistant message cannot be modified."
    " These blocks must remain as they were in the original response."
)
UNANSWERED = (
    "`tool_use` ids were found without `tool_result` blocks immediately after: {ids}. Each `tool_use` block must have"
    " a corresponding `tool_result` block in the next message."
)
Message = tuple[int, str, list[dict[str, Any]]]


def check_anthropic_request(body: Any, *, strict: bool = True, ledger: Ledger | None = None) -> list[str]:
    """Every rule that a request body breaks, in the provider's words; empty when it would be accepted.

    `strict` also refuses fields that the API does not know. With a `ledger` of what a server issued, thinking blocks
    must be the ones it issued to that model, byte for byte and none missing from the latest tool turn; without one,
    their shape alone is checked.
    """
    if not isinstance(body, dict):
        return ["The request body is not valid JSON."]
    problems = list(_check_fields(body, strict))
    problems += _check_tools(body)
    problems += _check_output_format(body)
    raw = body.get("messages")
    if not isinstance(raw, list):
        return [*problems, "messages: Field required" if raw is None else "messages: Input should be a valid list"]
    if not raw:
        problems.append("messages: at least one message is required")
    for place, one in enumerate(raw):
        problems += _check_shape(one, place, last=place == len(raw) - 1)
    if problems:
        return problems
    messages = _merged(raw)
    problems += _check_blocks(messages, strict)
    problems += _check_pairing(messages)
    problems += _check_thinking(messages, body, ledger)
    problems += _check_cache(body, messages)
    problems += _check_ends(messages, body, ledger)
    return problems


def _check_fields(body: dict[str, Any], strict: bool) -> Iterator[str]:
    for name in ("max_tokens", "model"):
        if body.get(name) is None:
            yield f"{name}: Field required"
    max_tokens = body.get("max_tokens")
    if max_tokens is not None and (not isinstance(max_tokens, int) or isinstance(max_tokens, bool)):
        yield "max_tokens: Input should be a valid integer"
        max_tokens = None
    elif max_tokens is not None and max_tokens < 0:
        yield "max_tokens: must be greater than or equal to 0"
    if strict:
        for name in sorted(body.keys() - FIELDS):
            yield f"{name}: Extra inputs are not permitted"
    system = body.get("system")
    if system is not None and not isinstance(system, (str, list)):
        yield "system: Input should be a valid string"
    for place, block in enumerate(system if isinstance(system, list) else ()):
        if not block.get("text"):
            yield f"system.{place}: text content blocks must be non-empty"
    thinking = body.get("thinking") or {}
    if thinking.get("type") == "enabled":
        budget = thinking.get("budget_tokens")
        if not isinstance(budget, int):
            yield "thinking.enabled.budget_tokens: Field required"
        elif budget < MIN_THINKING_TOKENS:
            yield f"thinking.enabled.budget_tokens: Input should be greater than or equal to {MIN_THINKING_TOKENS}"
        elif max_tokens is not None and max_tokens <= budget:
            yield "`max_tokens` must be greater than `thinking.budget_tokens`."
        if (body.get("tool_choice") or {}).get("type") in ("any", "tool"):
            yield "Thinking may not be enabled when tool_choice forces tool use."
    if thinking.get("type") in THINKING_ON and body.get("temperature") not in (None, 1):
        yield "`temperature` may only be set to 1 when thinking is enabled or in adaptive mode."


def _check_tools(body: dict[str, Any]) -> Iterator[str]:
    tools = body.get("tools")
    choice = body.get("tool_choice") or {}
    if not tools:
        if choice and choice.get("type") != "none":
            yield "tool_choice: tool_choice may only be specified while providing tools"
        return
    names = [tool.get("name") for tool in tools]
    if len(set(names)) != len(names):
        yield "tools: Tool names must be unique."
    for place, tool in enumerate(tools):
        if tool.get("type", "custom") != "custom":
            continue
        name = tool.get("name")
        if not isinstance(name, str):
            yield f"tools.{place}.custom.name: Field required"
        elif not TOOL_NAME.fullmatch(name):
            yield f"tools.{place}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'"
        schema = tool.get("input_schema")
        if not isinstance(schema, dict):
            yield f"tools.{place}.custom.input_schema: Field required"
        elif schema.get("type") != "object":
            yield f"tools.{place}.custom.input_schema.type: Input should be 'object'"
        elif schema.keys() & {"oneOf", "allOf", "anyOf"}:
            yield (
                f"tools.{place}.custom.input_schema: input_schema does not support oneOf, allOf, or anyOf"
                " at the top level"
            )
    if choice.get("type") == "tool" and choice.get("name") not in names:
        yield f"Tool '{choice.get('name')}' not found in provided tools"


def _check_shape(message: Any, place: int, *, last: bool) -> Iterator[str]:
    if not isinstance(message, dict):
        yield f"messages.{place}: Input should be a valid dictionary"
        return
    role = message.get("role")
    if role not in BLOCKS:
        hint = ' The Messages API accepts a top-level `system` parameter, not "system" as an input message role.'
        yield f'messages: Unexpected role "{role}".' + (hint if role == "system" else "")
        return
    content = message.get("content")
    if not isinstance(content, (str, list)):
        yield f"messages.{place}.content: Input should be a valid list"
    elif not content and not (role == "assistant" and last):
        yield (
            f"messages.{place}: all messages must have non-empty content except for the optional final assistant"
            " message"
        )
    elif isinstance(content, list):
        for index, block in enumerate(content):
            kind = block.get("type") if isinstance(block, dict) else None
            if kind not in BLOCKS[role]:
                known = ", ".join(f"'{one}'" for one in sorted(BLOCKS[role]))
                yield (
                    f"messages.{place}.content.{index}: Input tag '{kind}' found using 'type' does not match any of the"
                    f" expected tags: {known}"
                )


def _merged(raw: list[dict[str, Any]]) -> list[Message]:
    """Messages as the endpoint reads them: texts as blocks, consecutive messages of one role as one."""
    merged: list[Message] = []
    for place, message in enumerate(raw):
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
        if merged and merged[-1][1] == message["role"]:
            merged[-1][2].extend(blocks)
        else:
            merged.append((place, message["role"], blocks))
    return merged


def _check_blocks(messages: list[Message], strict: bool) -> Iterator[str]:
    call_ids = set()
    for place, role, blocks in messages:
        for index, block in enumerate(blocks):
            where, kind = f"messages.{place}.content.{index}", block["type"]
            if strict and kind in BLOCK_FIELDS:
                for name in sorted(block.keys() - BLOCK_FIELDS[kind]):
                    yield f"{where}.{kind}.{name}: Extra inputs are not permitted"
            if kind == "text":
                yield from _check_text(block, where)
            elif kind == "tool_use":
                yield from _check_call(block, where)
                if block.get("id") in call_ids:
                    yield f"{where}: `tool_use` ids must be unique"
                call_ids.add(block.get("id"))
            elif kind == "tool_result":
                yield from _check_result(block, where)
            elif kind in ("image", "document"):
                yield from _check_media(block, where)
        if role == "assistant" and blocks and blocks[-1]["type"] in THINKING:
            yield f"messages.{place}: The final block in an assistant message cannot be `thinking`."


def _check_text(block: dict[str, Any], where: str) -> Iterator[str]:
    text = block.get("text")
    if not isinstance(text, str):
        yield f"{where}.text.text: Field required"
    elif not text:
        if block.get("cache_control"):
            yield f"{where}.text: cache_control cannot be set for empty text blocks"
        yield "messages: text content blocks must be non-empty"
    elif not text.strip():
        yield "messages: text content blocks must contain non-whitespace text"


def _check_call(block: dict[str, Any], where: str) -> Iterator[str]:
    call_id, name = block.get("id"), block.get("name")
    if not isinstance(call_id, str):
        yield f"{where}.tool_use.id: Field required"
    elif not CALL_ID.fullmatch(call_id):
        yield f"{where}.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'"
    if not isinstance(name, str):
        yield f"{where}.tool_use.name: Field required"
    elif not name:
        yield f"{where}.tool_use.name: String should have at least 1 character"
    elif len(name) > 200:
        yield f"{where}.tool_use.name: String should have at most 200 characters"
    if not isinstance(block.get("input"), dict):
        yield f"{where}.tool_use.input: Input should be a valid dictionary"


def _check_result(block: dict[str, Any], where: str) -> Iterator[str]:
    content = block.get("content")
    if content is not None and not isinstance(content, (str, list)):
        yield f"{where}.tool_result.content: Input should be a valid string"
    for index, part in enumerate(content if isinstance(content, list) else ()):
        if part.get("type") not in ("text", "image", "document", "search_result", "tool_reference"):
            yield (
                f"{where}.tool_result.content.{index}: Input tag '{part.get('type')}' found using 'type' does not match"
                " any of the expected tags: 'text', 'image', 'document', 'search_result', 'tool_reference'"
            )
        elif part["type"] == "text" and not part.get("text"):
            yield "messages: text content blocks must be non-empty"
        elif part["type"] in ("image", "document"):
            yield from _check_media(part, f"{where}.tool_result.content.{index}")


def _check_media(block: dict[str, Any], where: str) -> Iterator[str]:
    source, kind = block.get("source") or {}, block["type"]
    here = f"{where}.{kind}.source"
    if source.get("type") == "base64":
        if source.get("media_type") not in MEDIA_TYPES[kind]:
            choices = ", ".join(repr(one) for one in MEDIA_TYPES[kind])
            yield f"{here}.base64.media_type: Input should be {choices}"
        try:
            is_empty = not base64.b64decode(source.get("data") or "", validate=True)
        except ValueError:
            yield f"{here}.base64: invalid base64 data"
        else:
            if is_empty:
                yield f"{here}.base64.data: {kind} cannot be empty"
    elif source.get("type") == "url":
        if not re.match(r"https?://[^/]", str(source.get("url"))):
            yield f"{here}.url.url: Only HTTPS URLs are supported."
    elif source.get("type") not in ("file", "text", "content"):
        yield f"{here}: Input tag '{source.get('type')}' found using 'type' does not match any of the expected tags"


def _check_pairing(messages: list[Message]) -> Iterator[str]:
    """Every tool_use answered once at the start of the next user message, and nothing else answered."""
    asked: list[str] = []
    asked_at = -1
    for place, role, blocks in messages:
        if role == "assistant":
            asked = [str(block.get("id")) for block in blocks if block["type"] == "tool_use"]
            asked_at = place
            continue
        results = [(index, block) for index, block in enumerate(blocks) if block["type"] == "tool_result"]
        leading: set[Any] = set()
        for index, block in results:
            if index != len(leading) and asked:
                break
            leading.add(block.get("tool_use_id"))
        seen = set()
        for index, block in results:
            call_id = block.get("tool_use_id")
            where = f"messages.{place}.content.{index}"
            if call_id not in asked:
                yield (
                    f"{where}: unexpected `tool_use_id` found in `tool_result` blocks: {call_id}. Each `tool_result`"
                    " block must have a corresponding `tool_use` block in the previous message."
                )
            elif call_id in seen:
                yield (
                    f"{where}: each tool_use must have a single result. Found multiple `tool_result` blocks with id:"
                    f" {call_id}"
                )
            seen.add(call_id)
        missing = [call_id for call_id in asked if call_id not in leading]
        if missing:
            yield f"messages.{asked_at}: " + UNANSWERED.format(ids=", ".join(missing))
        asked = []
    if asked:
        yield f"messages.{asked_at}: " + UNANSWERED.format(ids=", ".join(asked))


def _check_thinking(messages: list[Message], body: dict[str, Any], ledger: Ledger | None) -> Iterator[str]:
    turns = [(place, blocks) for place, role, blocks in messages if role == "assistant"]
    for place, blocks in turns:
        latest = place == turns[-1][0]
        for index, block in enumerate(blocks):
            if block["type"] in THINKING:
                problem = _check_thought(block, str(body["model"]), ledger, latest=latest)
                if problem:
                    yield f"messages.{place}.content.{index}: {problem}"
    mode = (body.get("thinking") or {}).get("type")
    if not turns or mode not in THINKING_ON:
        return
    place, blocks = turns[-1]
    calls = [block for block in blocks if block["type"] == "tool_use"]
    if mode == "enabled" and calls and blocks[0]["type"] not in THINKING:
        yield (
            f"messages.{place}.content.0.type: Expected `thinking` or `redacted_thinking`, but found"
            f" `{blocks[0]['type']}`. When `thinking` is enabled, a final `assistant` message must start with a"
            " thinking block (preceeding the lastmost set of `tool_use` and `tool_result` blocks). We recommend you"
            " include thinking blocks from previous turns. To avoid this requirement, disable `thinking`."
        )
    if ledger is None or not calls:
        return
    issued = ledger.before_call.get(str(calls[-1].get("id")), ())
    before = blocks[: blocks.index(calls[-1])]
    present = [str(block.get("signature", block.get("data"))) for block in before if block["type"] in THINKING]
    wanted = [thought.seal for thought in issued if thought.model == body["model"]]
    if [seal for seal in present if seal in wanted] != wanted:
        yield f"messages.{place}.content.0: {MODIFIED}"


def _check_thought(block: dict[str, Any], model: str, ledger: Ledger | None, *, latest: bool) -> str | None:
    kind = block["type"]
    seal, content = ("signature", "thinking") if kind == "thinking" else ("data", "data")
    for name in (seal, content):
        if not isinstance(block.get(name), str):
            return f"{kind}.{name}: Field required"
    invalid = f"Invalid `{seal}` in `{kind}` block"
    if not block[seal]:
        return invalid
    if ledger is None:
        return None
    issued: IssuedThinking | None = ledger.by_seal.get(block[seal])
    if issued is None or issued.kind != kind or issued.model != model:
        return invalid
    if issued.content != block[content]:
        return MODIFIED if latest else invalid
    return None


def _check_cache(body: dict[str, Any], messages: list[Message]) -> Iterator[str]:
    """At most four marks, and a longer time to live before a shorter one, in the order tools, system, messages."""
    marks: list[tuple[str, dict[str, Any]]] = []

    def collect(blocks: Any, where: str) -> None:
        for index, block in enumerate(blocks if isinstance(blocks, list) else ()):
            if isinstance(block, dict) and block.get("cache_control"):
                marks.append((f"{where}.{index}", block["cache_control"]))
            if isinstance(block, dict) and block.get("type") == "tool_result":
                collect(block.get("content"), f"{where}.{index}.content")

    collect(body.get("tools"), "tools")
    collect(body.get("system"), "system")
    for place, _, blocks in messages:
        collect(blocks, f"messages.{place}.content")
    count = len(marks) + bool(body.get("cache_control"))
    if count > MAX_CACHE_MARKS:
        yield f"A maximum of {MAX_CACHE_MARKS} blocks with cache_control may be provided. Found {count}."
    short_seen = False
    for where, mark in marks:
        if mark.get("type") != "ephemeral":
            yield f"{where}.cache_control.type: Input should be 'ephemeral'"
        if mark.get("ttl", "5m") not in ("5m", "1h"):
            yield f"{where}.cache_control.ttl: Input should be '5m' or '1h'"
        if mark.get("ttl") == "1h" and short_seen:
            yield (
                f"{where}.cache_control.ttl: a ttl='1h' cache_control block must not come after a ttl='5m'"
                " cache_control block. Note that blocks are processed in the following order: `tools`, `system`,"
                " `messages`."
            )
        short_seen = short_seen or mark.get("ttl", "5m") == "5m"


def _check_ends(messages: list[Message], body: dict[str, Any], ledger: Ledger | None) -> Iterator[str]:
    if not messages:
        return
    if messages[0][1] != "user":
        yield 'messages: first message must use the "user" role'
    _, role, blocks = messages[-1]
    if role != "assistant":
        return
    if blocks and blocks[-1]["type"] == "text" and blocks[-1]["text"] != blocks[-1]["text"].rstrip():
        yield "messages: final assistant content cannot end with trailing whitespace"
    paused = ledger is not None and blocks and blocks[-1] in ledger.paused
    if (body.get("thinking") or {}).get("type") in THINKING_ON and not paused:
        yield ("This model does not support assistant message prefill. The conversation must end with a user message.")


def _check_output_format(body: dict[str, Any]) -> Iterator[str]:
    chosen = (body.get("output_config") or {}).get("format")
    if chosen is None:
        return
    where = "output_config.format.schema"
    if chosen.get("type") != "json_schema":
        yield "output_config.format.type: Input should be 'json_schema'"
    schema = chosen.get("schema")
    if not isinstance(schema, dict):
        yield f"{where}: Field required"
        return
    if schema.get("type") != "object":
        yield f"{where}: the root of the schema must be of type 'object'"
    parts = list(_schemas_in(schema))
    for part in parts:
        kind = part.get("type")
        for name in sorted(part.keys() & UNSUPPORTED_SCHEMA_RULES):
            yield f"{where}: For '{kind}' type, property '{name}' is not supported"
        if part.get("minItems", 0) not in (0, 1):
            yield f"{where}: For 'array' type, 'minItems' values other than 0 or 1 are not supported"
        if (kind == "object" or "properties" in part) and part.get("additionalProperties") is not False:
            yield f"{where}: For 'object' type, 'additionalProperties' must be explicitly set to false"
        if any(isinstance(value, (dict, list)) for value in part.get("enum", ())):
            yield f"{where}: Enum values must be strings, numbers, booleans or null"
        if re.search(r"\(\?[=!<]|\\[bB1-9]", part.get("pattern", "")):
            yield f"{where}: Pattern {part['pattern']!r} is not supported"
    optional = sum(len(part.get("properties", {}).keys() - set(part.get("required", ()))) for part in parts)
    unions = sum("anyOf" in part or isinstance(part.get("type"), list) for part in parts)
    if optional > MAX_OPTIONAL_PROPERTIES or unions > MAX_UNION_PROPERTIES:
        yield f"{where}: Schema is too complex for compilation."
    definitions = {f"#/$defs/{name}": inner for name, inner in schema.get("$defs", {}).items()}
    if _comes_back(schema, definitions, {"#"}) or any(
        _comes_back(inner, definitions, {pointer, "#"}) for pointer, inner in definitions.items()
    ):
        yield f"{where}: Circular reference detected in schema definitions"


def _schemas_in(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield schema
    inner = [*schema.get("properties", {}).values(), *schema.get("$defs", {}).values(), *schema.get("anyOf", ())]
    for one in (*inner, *schema.get("allOf", ()), *filter(None, (schema.get("items"),))):
        yield from _schemas_in(one)


def _comes_back(schema: dict[str, Any], definitions: dict[str, Any], seen: set[str]) -> bool:
    """Whether following the references of a schema leads to one that was gone through on the way."""
    for part in _schemas_in({name: rule for name, rule in schema.items() if name != "$defs"}):
        pointer = part.get("$ref")
        if pointer in seen or (pointer and _comes_back(definitions[pointer], definitions, seen | {pointer})):
            return True
    return False
