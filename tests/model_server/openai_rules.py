"""What the Chat Completions endpoint refuses, in its own words."""

from __future__ import annotations

import base64
import itertools
import re
from collections.abc import Iterator
from typing import Any

NAME = re.compile(r"[a-zA-Z0-9_-]+")
REASONING_MODEL = re.compile(r"^(o[1-9]|gpt-5)|reason")
ROLES = ("system", "assistant", "user", "function", "tool", "developer")
MAX_NAME_CHARS = 64
# The length of the endpoint's own ids; longer ones from other servers are refused when they are sent back.
MAX_CALL_ID_CHARS = 40
FIELDS = frozenset(
    {
        "messages",
        "model",
        "audio",
        "frequency_penalty",
        "function_call",
        "functions",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "metadata",
        "modalities",
        "moderation",
        "n",
        "parallel_tool_calls",
        "prediction",
        "presence_penalty",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning_effort",
        "response_format",
        "safety_identifier",
        "seed",
        "service_tier",
        "stop",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "user",
        "verbosity",
        "web_search_options",
    }
)
MESSAGE_FIELDS = {
    "system": frozenset({"role", "content", "name"}),
    "developer": frozenset({"role", "content", "name"}),
    "user": frozenset({"role", "content", "name"}),
    "assistant": frozenset({"role", "content", "name", "refusal", "audio", "tool_calls", "function_call"}),
    "tool": frozenset({"role", "content", "tool_call_id"}),
    "function": frozenset({"role", "content", "name"}),
}
# Compatible servers know these fields of an assistant message; the first party refuses them as unknown.
REASONING_FIELDS = frozenset({"reasoning_content", "reasoning", "reasoning_details"})
NOT_IN_STRICT = frozenset(
    {
        *("default", "allOf", "oneOf", "not", "if", "then", "else", "dependentRequired", "dependentSchemas"),
        *("minLength", "maxLength", "uniqueItems", "contains", "minContains", "maxContains", "prefixItems"),
        *("patternProperties", "propertyNames", "minProperties", "maxProperties"),
    }
)
PARTS = {
    "user": ("text", "image_url", "input_audio", "file"),
    "assistant": ("text", "refusal"),
    "tool": ("text",),
    "system": ("text",),
    "developer": ("text",),
}


class Problem(str):
    """One broken rule: the provider's sentence, with the `param` and `code` of its error body."""

    param: str | None
    code: str | None

    def __new__(cls, text: str, param: str | None = None, code: str | None = None) -> Problem:
        """Keep the place beside the sentence."""
        problem = super().__new__(cls, text)
        problem.param, problem.code = param, code
        return problem


def check_openai_request(
    body: Any, *, strict: bool = True, reasoning_fields: str = "any", alternates: bool = False
) -> list[str]:
    """Every rule that a request body breaks, in the provider's words; empty when it would be accepted.

    `strict` also refuses fields that the API does not know. `reasoning_fields` says how the server takes the reasoning
    field of compatible servers on assistant messages: `any`, `refused` (as the first party) or `required` with calls.
    `alternates` refuses neighbours of one role, as many chat templates of open models do.
    """
    if not isinstance(body, dict):
        return [Problem("We could not parse the JSON body of your request.")]
    problems: list[str] = list(_check_fields(body, strict))
    problems += _check_tools(body)
    problems += _check_response_format(body)
    messages = body.get("messages")
    if not isinstance(messages, list):
        problems.append(Problem("Missing required parameter: 'messages'.", "messages", "missing_required_parameter"))
        return problems
    if not messages:
        problems.append(_empty_array("messages"))
    for place, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            role = message.get("role") if isinstance(message, dict) else message
            choices = ", ".join(repr(one) for one in ROLES[:-1])
            problems.append(
                Problem(
                    f"Invalid value: {role!r}. Supported values are: {choices}, and 'developer'.",
                    f"messages[{place}].role",
                    "invalid_value",
                )
            )
            return problems
        problems += _check_message(message, place, strict=strict, reasoning_fields=reasoning_fields)
    problems += _check_pairing(messages)
    if alternates:
        roles = [message["role"] for message in messages]
        if any(left == right != "tool" for left, right in itertools.pairwise(roles)):
            problems.append(Problem("Conversation roles must alternate user/assistant/user/assistant/..."))
    return problems


def _empty_array(param: str) -> Problem:
    text = f"Invalid '{param}': empty array. Expected an array with minimum length 1, but got an empty array instead."
    return Problem(text, param, "empty_array")


def _check_fields(body: dict[str, Any], strict: bool) -> Iterator[Problem]:
    if not isinstance(body.get("model"), str) or not body["model"]:
        yield Problem("you must provide a model parameter")
    if strict:
        for name in body.keys() - FIELDS:
            yield Problem(f"Unknown parameter: '{name}'.", name, "unknown_parameter")
    for name in ("max_tokens", "max_completion_tokens"):
        value = body.get(name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            text = f"Invalid '{name}': integer below minimum value. Expected a value >= 1, but got {value!r} instead."
            yield Problem(text, name, "integer_below_min_value")
    if body.get("max_tokens") is not None and body.get("max_completion_tokens") is not None:
        text = "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported."
        yield Problem(text, "max_tokens", "invalid_parameter_combination")
    if REASONING_MODEL.search(str(body.get("model"))):
        yield from _check_reasoning_model(body)
    if body.get("stream_options") is not None and not body.get("stream"):
        text = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        yield Problem(text, "stream_options")


def _check_reasoning_model(body: dict[str, Any]) -> Iterator[Problem]:
    if body.get("max_tokens") is not None:
        text = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        )
        yield Problem(text, "max_tokens", "unsupported_parameter")
    if body.get("reasoning_effort") == "none":
        return
    for name in ("temperature", "top_p"):
        if body.get(name) not in (None, 1):
            text = (
                f"Unsupported value: '{name}' does not support {body[name]} with this model."
                " Only the default (1) value is supported."
            )
            yield Problem(text, name, "unsupported_value")


def _check_name(name: Any, param: str) -> Iterator[Problem]:
    if not isinstance(name, str):
        yield Problem(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")
    elif len(name) > MAX_NAME_CHARS:
        text = (
            f"Invalid '{param}': string too long. Expected a string with maximum length {MAX_NAME_CHARS},"
            f" but got a string with length {len(name)} instead."
        )
        yield Problem(text, param, "string_above_max_length")
    elif not NAME.fullmatch(name):
        text = (
            f"Invalid '{param}': string does not match pattern."
            " Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'."
        )
        yield Problem(text, param, "invalid_value")


def _check_tools(body: dict[str, Any]) -> Iterator[Problem]:
    tools = body.get("tools")
    if tools is None:
        for name in ("tool_choice", "parallel_tool_calls"):
            if body.get(name) is not None and body.get(name) != "none":
                text = f"Invalid value for '{name}': '{name}' is only allowed when 'tools' are specified."
                yield Problem(text, name)
        return
    if not tools:
        yield _empty_array("tools")
    names = set()
    for place, tool in enumerate(tools):
        kind = tool.get("type")
        if kind not in ("function", "custom"):
            text = f"Invalid value: {kind!r}. Supported values are: 'function' and 'custom'."
            yield Problem(text, f"tools[{place}].type", "invalid_value")
            continue
        definition = tool.get(kind) or {}
        names.add(definition.get("name"))
        yield from _check_name(definition.get("name"), f"tools[{place}].{kind}.name")
        schema = definition.get("parameters")
        if schema is not None and (not isinstance(schema, dict) or schema.get("type") != "object"):
            given = schema.get("type") if isinstance(schema, dict) else None
            text = (
                f"Invalid schema for function '{definition.get('name')}':"
                f" schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{given}\"'."
            )
            yield Problem(text, f"tools[{place}].function.parameters", "invalid_function_parameters")
        elif schema is not None and definition.get("strict"):
            prefix = f"Invalid schema for function '{definition.get('name')}'"
            param = f"tools[{place}].function.parameters"
            yield from _check_strict_schema(schema, prefix, param=param, code="invalid_function_parameters")
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") == "function" and choice["function"].get("name") not in names:
        text = f"Tool choice '{choice['function'].get('name')}' not found in 'tools' parameter."
        yield Problem(text, "tool_choice")


def _check_response_format(body: dict[str, Any]) -> Iterator[Problem]:
    response_format = body.get("response_format")
    if response_format is None:
        return
    kind = response_format.get("type")
    if kind not in ("text", "json_object", "json_schema"):
        text = f"Invalid value: {kind!r}. Supported values are: 'json_object', 'json_schema', and 'text'."
        yield Problem(text, "response_format.type", "invalid_value")
    if kind == "json_object" and "json" not in str(body.get("messages")).lower():
        text = "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'."
        yield Problem(text, "messages")
    if kind == "json_schema":
        definition = response_format.get("json_schema") or {}
        yield from _check_name(definition.get("name"), "response_format.json_schema.name")
        schema = definition.get("schema")
        prefix = f"Invalid schema for response_format '{definition.get('name')}'"
        if not isinstance(schema, dict) or schema.get("type") != "object":
            given = schema.get("type") if isinstance(schema, dict) else None
            text = f"{prefix}: schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{given}\"'."
            yield Problem(text, "response_format", None)
        elif definition.get("strict"):
            yield from _check_strict_schema(schema, prefix, param="response_format", code=None)


def _check_strict_schema(
    schema: Any, prefix: str, *, param: str, code: str | None, context: tuple[str, ...] = ()
) -> Iterator[Problem]:
    """The strict subset: every object closed, every property required, no default."""
    if not isinstance(schema, dict):
        return
    where = f"{prefix}: In context={context!r}"
    for name in sorted(schema.keys() & NOT_IN_STRICT):
        yield Problem(f"{where}, '{name}' is not permitted.", param, code)
    properties = schema.get("properties")
    if schema.get("type") == "object" or properties is not None:
        if schema.get("additionalProperties") is not False:
            text = f"{where}, 'additionalProperties' is required to be supplied and to be false."
            yield Problem(text, param, code)
        missing = [name for name in properties or () if name not in schema.get("required", ())]
        if missing:
            text = (
                f"{where}, 'required' is required to be supplied and to be an array including every key in"
                f" properties. Missing '{missing[0]}'."
            )
            yield Problem(text, param, code)
    for key in ("properties", "$defs", "definitions"):
        for name, child in (schema.get(key) or {}).items():
            yield from _check_strict_schema(child, prefix, param=param, code=code, context=(*context, key, name))
    if isinstance(schema.get("items"), dict):
        yield from _check_strict_schema(schema["items"], prefix, param=param, code=code, context=(*context, "items"))
    for place, child in enumerate(schema.get("anyOf") or ()):
        path = (*context, "anyOf", str(place))
        yield from _check_strict_schema(child, prefix, param=param, code=code, context=path)


def _check_message(message: dict[str, Any], place: int, *, strict: bool, reasoning_fields: str) -> Iterator[Problem]:
    role, where = message["role"], f"messages[{place}]"
    if strict:
        known = MESSAGE_FIELDS[role]
        if role == "assistant" and reasoning_fields != "refused":
            known = known | REASONING_FIELDS
        for name in message.keys() - known:
            yield Problem(f"Unknown parameter: '{where}.{name}'.", f"{where}.{name}", "unknown_parameter")
    calls = message.get("tool_calls")
    if role == "assistant" and calls is not None:
        yield from _check_calls(calls, where)
        if reasoning_fields == "required" and calls and not (REASONING_FIELDS & message.keys()):
            text = "The `reasoning_content` in the thinking mode must be passed back to the API."
            yield Problem(text, where, "invalid_request_error")
    content = message.get("content")
    if content is None:
        if role != "assistant" or not (calls or message.get("refusal") or message.get("function_call")):
            text = "Invalid value for 'content': expected a string, got null."
            yield Problem(text, f"messages.[{place}].content")
    elif isinstance(content, list):
        if not content:
            yield _empty_array(f"{where}.content")
        yield from _check_parts(content, role, where)
    elif not isinstance(content, str):
        text = f"Invalid type for '{where}.content': expected one of a string or array of objects, but got {content!r}."
        yield Problem(text, f"{where}.content", "invalid_type")


def _check_calls(calls: Any, where: str) -> Iterator[Problem]:
    if not calls:
        yield _empty_array(f"{where}.tool_calls")
    seen = set()
    for ordinal, call in enumerate(calls):
        param = f"{where}.tool_calls[{ordinal}]"
        call_id = call.get("id")
        if not isinstance(call_id, str):
            yield Problem(f"Missing required parameter: '{param}.id'.", f"{param}.id", "missing_required_parameter")
        elif len(call_id) > MAX_CALL_ID_CHARS:
            text = (
                f"Invalid '{param}.id': string too long. Expected a string with maximum length {MAX_CALL_ID_CHARS},"
                f" but got a string with length {len(call_id)} instead."
            )
            yield Problem(text, f"{param}.id", "string_above_max_length")
        elif not call_id:
            text = f"Invalid '{param}.id': empty string. Expected a string with minimum length 1."
            yield Problem(text, f"{param}.id", "empty_string")
        if call_id in seen:
            text = f"Invalid parameter: Duplicate value for 'id' of '{call_id}' in {where}.tool_calls."
            yield Problem(text, f"{param}.id")
        seen.add(call_id)
        kind = call.get("type", "function")
        if kind not in ("function", "custom"):
            text = f"Invalid value: {kind!r}. Supported values are: 'function' and 'custom'."
            yield Problem(text, f"{param}.type", "invalid_value")
            continue
        body = call.get(kind) or {}
        yield from _check_name(body.get("name"), f"{param}.{kind}.name")
        field = "arguments" if kind == "function" else "input"
        if not isinstance(body.get(field), str):
            text = f"Invalid type for '{param}.{kind}.{field}': expected a string, but got {body.get(field)!r} instead."
            yield Problem(text, f"{param}.{kind}.{field}", "invalid_type")


def _check_parts(parts: list[Any], role: str, where: str) -> Iterator[Problem]:
    for ordinal, part in enumerate(parts):
        kind = part.get("type")
        if kind == "image_url" and role != "user":
            text = (
                "Invalid 'messages'. Image URLs are only allowed for messages with role 'user', but this message with"
                f" role '{role}' contains an image URL."
            )
            yield Problem(text, f"{where}.content[{ordinal}]", "invalid_value")
        elif kind not in PARTS.get(role, ("text",)):
            choices = " and ".join(repr(one) for one in PARTS.get(role, ("text",)))
            text = f"Invalid value: {kind!r}. Supported values are: {choices}."
            yield Problem(text, f"{where}.content[{ordinal}].type", "invalid_value")
        elif kind == "image_url" and not _is_image_address(str(part["image_url"].get("url"))):
            text = (
                f"Invalid '{where}.content[{ordinal}].image_url.url'. Expected a base64-encoded data URL with an image"
                " MIME type (e.g. 'data:image/png;base64,aW1nIGJ5dGVzIGhlcmU='), or an http(s) URL."
            )
            yield Problem(text, f"{where}.content[{ordinal}].image_url.url", "invalid_value")
        elif kind == "input_audio" and not (
            part["input_audio"].get("format") in ("wav", "mp3") and _is_base64(part["input_audio"].get("data"))
        ):
            text = "The data provided for 'input_audio' is not of valid format."
            yield Problem(text, f"{where}.content[{ordinal}].input_audio", "invalid_value")
        elif kind in ("text", "refusal") and not isinstance(part.get(kind), str):
            param = f"{where}.content[{ordinal}].{kind}"
            yield Problem(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")


def _is_image_address(url: str) -> bool:
    head, _, data = url.partition(";base64,")
    if head in ("data:image/png", "data:image/jpeg", "data:image/gif", "data:image/webp"):
        return _is_base64(data)
    return re.match(r"https?://[^/]", url) is not None


def _is_base64(data: Any) -> bool:
    try:
        return bool(base64.b64decode(data or "", validate=True))
    except ValueError:
        return False


def _check_pairing(messages: list[dict[str, Any]]) -> Iterator[Problem]:
    """Every call answered directly after, in any order, once, and no answer without its call."""
    open_ids: dict[str, int] = {}
    answered: dict[str, int] = {}
    caller = -1
    for place, message in enumerate(messages):
        if message["role"] == "tool":
            call_id = message.get("tool_call_id")
            if call_id is None:
                text = "Missing parameter 'tool_call_id': messages with role 'tool' must have a 'tool_call_id'."
                yield Problem(text, f"messages.[{place}].tool_call_id")
            elif caller < 0:
                text = (
                    "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with"
                    " 'tool_calls'."
                )
                yield Problem(text, f"messages.[{place}].role")
            elif call_id in answered:
                text = (
                    f"Invalid parameter: Duplicate value for 'tool_call_id' of '{call_id}', in"
                    f" messages[{answered[call_id]}] and messages[{place}]."
                )
                yield Problem(text, f"messages.[{place}].tool_call_id")
            elif call_id not in open_ids:
                text = (
                    f"Invalid parameter: 'tool_call_id' of '{call_id}' not found in 'tool_calls' of previous message."
                )
                yield Problem(text, f"messages.[{place}].tool_call_id")
            else:
                del open_ids[call_id]
                answered[call_id] = place
            continue
        yield from _unanswered(open_ids, place)
        open_ids, answered, caller = {}, {}, -1
        if message.get("tool_calls"):
            caller = place
            open_ids = {str(call.get("id")): place for call in message["tool_calls"]}
    yield from _unanswered(open_ids, len(messages))


def _unanswered(open_ids: dict[str, int], place: int) -> Iterator[Problem]:
    if open_ids:
        text = (
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each"
            " 'tool_call_id'. The following tool_call_ids did not have response messages: " + ", ".join(open_ids)
        )
        yield Problem(text, f"messages.[{place}].role")
