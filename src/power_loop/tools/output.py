"""Turns whatever a handler returned into the content that a model is shown."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from power_loop.contracts.messages import AudioPart, ContentPart, FilePart, ImagePart, TextPart, part_problem
from power_loop.contracts.tools import ToolResult, Waiting
from power_loop.tools.json_form import NoJsonForm, json_form
from power_loop.tools.preview import shortened

#: What a model reads where a handler returned nothing: providers refuse an empty result.
NO_OUTPUT = "(no output)"
# Characters of text that one part of a result keeps: more than any context window holds, and what every database takes.
MAX_OUTPUT_CHARS = 10_000_000

_PARTS = (TextPart, ImagePart, FilePart, AudioPart)


class Output(NamedTuple):
    """Is what a call gave: content, which is never empty, and whether the model should take it as an error."""

    content: tuple[ContentPart, ...]
    is_error: bool = False


def output_of(returned: Any) -> Output | Waiting:
    """Return what a handler returned as content; a `Waiting` stays what it is.

    Text stays text, content parts and lists that hold one stay parts, everything else becomes JSON text as `json_form`
    has it. What has no JSON form gives an error for the model that says so: nothing is raised.
    """
    if isinstance(returned, Waiting):
        return returned
    try:
        if isinstance(returned, ToolResult):
            return Output(_content_of(_listed(returned.content)), returned.is_error)
        return Output(_content_of(_parts_in(returned)))
    except NoJsonForm as error:
        reason = str(error)
    # What a handler returned may be a stranger's object that does anything when it is read.
    except Exception as error:
        reason = f"reading it raised {type(error).__name__}: {error}"
    return error_output(
        f"the tool ran, but what it returned cannot be shown: {reason}"
        " (tools return text, JSON values, dataclasses or content parts)"
    )


def error_output(text: str) -> Output:
    """Return an error text as the output of a call."""
    return Output(_content_of((text,)), is_error=True)


def _parts_in(value: Any) -> Iterable[Any]:
    """Return what becomes a part each: the items of a list that holds content parts, else the value as a whole."""
    if value is None:
        return ()
    is_list_of_parts = isinstance(value, (list, tuple)) and any(isinstance(one, _PARTS) for one in value)
    return value if is_list_of_parts else (value,)


def _listed(content: Any) -> Iterable[Any]:
    return content if isinstance(content, (list, tuple)) else (content,)


def _content_of(parts: Iterable[Any]) -> tuple[ContentPart, ...]:
    content = [part for part in map(_part_of, parts) if not isinstance(part, TextPart) or part.text.strip()]
    return tuple(content) or (TextPart(NO_OUTPUT),)


def _part_of(value: Any) -> ContentPart:
    if isinstance(value, (ImagePart, FilePart, AudioPart)):
        problem = part_problem(value)
        if problem is not None:
            raise NoJsonForm(problem)
        return value
    text = value.text if isinstance(value, TextPart) else _text_of(value)
    if len(text) > MAX_OUTPUT_CHARS:
        text = shortened(text, MAX_OUTPUT_CHARS, fate="were too many to be kept")
    elif isinstance(value, TextPart):
        return value
    return TextPart(text)


def _text_of(value: Any) -> str:
    form = json_form(value)
    return form if isinstance(form, str) else json.dumps(form, ensure_ascii=False)
