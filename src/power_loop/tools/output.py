"""Turns whatever a handler returned into the content that a model is shown."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from power_loop.contracts.messages import AudioPart, ContentPart, FilePart, ImagePart, TextPart, part_problem
from power_loop.contracts.tools import ToolResult, Waiting
from power_loop.tools.json_form import NoJsonForm, json_form
from power_loop.tools.preview import preview, shortened

#: What a model reads where a handler returned nothing: providers refuse an empty result.
NO_OUTPUT = "(no output)"
# Characters of text that one part of a result keeps: more than any context window holds, and what every database takes.
MAX_OUTPUT_CHARS = 10_000_000

# What a preview says of the middle of a result.
_KEPT = "are left out here; the whole result is kept"
_KEPT_IN_PART = "are left out here; the result was too long to be kept whole"

_PARTS = (TextPart, ImagePart, FilePart, AudioPart)


class Output(NamedTuple):
    """Is what a call gave: content, which is never empty, whether the model should take it as an error, and whether the
    content is all that the call gave."""

    content: tuple[ContentPart, ...]
    is_error: bool = False
    is_whole: bool = True

    def preview(self, max_chars: int) -> tuple[ContentPart, ...]:
        """Return what a model is shown of it: the very content if it is short enough."""
        return preview(self.content, max_chars, fate=_KEPT if self.is_whole else _KEPT_IN_PART)


def output_of(returned: Any) -> Output | Waiting:
    """Return what a handler returned as content; a `Waiting` stays what it is.

    Text stays text, content parts and lists that hold one stay parts, everything else becomes JSON text as `json_form`
    has it. What has no JSON form gives an error for the model that says so: nothing is raised.
    """
    if isinstance(returned, Waiting):
        return returned
    try:
        if isinstance(returned, ToolResult):
            return _output_of(_listed(returned.content), is_error=returned.is_error)
        return _output_of(_parts_in(returned))
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
    return _output_of((text,), is_error=True)


def _parts_in(value: Any) -> Iterable[Any]:
    """Return what becomes a part each: the items of a list that holds content parts, else the value as a whole."""
    if value is None:
        return ()
    is_list_of_parts = isinstance(value, (list, tuple)) and any(isinstance(one, _PARTS) for one in value)
    return value if is_list_of_parts else (value,)


def _listed(content: Any) -> Iterable[Any]:
    return content if isinstance(content, (list, tuple)) else (content,)


def _output_of(parts: Iterable[Any], *, is_error: bool = False) -> Output:
    content = []
    is_whole = True
    for value in parts:
        part = _part_of(value)
        if isinstance(part, TextPart) and len(part.text) > MAX_OUTPUT_CHARS:
            part = TextPart(shortened(part.text, MAX_OUTPUT_CHARS, fate="were too many to be kept"))
            is_whole = False
        if not isinstance(part, TextPart) or part.text.strip():
            content.append(part)
    return Output(tuple(content) or (TextPart(NO_OUTPUT),), is_error, is_whole)


def _part_of(value: Any) -> ContentPart:
    if isinstance(value, (ImagePart, FilePart, AudioPart)):
        problem = part_problem(value)
        if problem is not None:
            raise NoJsonForm(problem)
        return value
    return value if isinstance(value, TextPart) else TextPart(_text_of(value))


def _text_of(value: Any) -> str:
    form = json_form(value)
    return form if isinstance(form, str) else json.dumps(form, ensure_ascii=False)
