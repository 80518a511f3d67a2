"""Takes the head of a skill's `SKILL.md` off its body, and reads it as YAML of which every scalar is text.

The part of YAML in which heads are written is read without a package; what goes beyond it is read by PyYAML, which the
extra `skills` brings, without tags, anchors and aliases. What both read means the same to both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from power_loop.contracts.errors import ToolError
from power_loop.tools.plain_yaml import NotPlainYamlError, read_plain_yaml

#: How long a head may be: about four times what its fields take.
MAX_HEAD_CHARS = 16_000
_MAX_DEPTH = 8
_MAX_EVENTS = 5_000
# What YAML does not take, and what some of its parsers take for the end of a line.
_REFUSED = re.compile(
    "[^\\n\\t\\x20-\\x7e\\xa0-\\u2027\\u202a-\\ud7ff\\ue000-\\ufefe\\uff00-\\ufffd\\U00010000-\\U0010ffff]"
)


def split_front_matter(data: bytes) -> tuple[str, str]:
    """Return the head and the body of a file. Raises `tool.failed` for what has no head."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ToolError(f"it is no UTF-8 (byte {error.start:,})") from error
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if lines[0].rstrip(" ") != "---":
        raise ToolError("it does not begin with a line '---' and fields such as 'name: ...' below it")
    end = next((at for at, line in enumerate(lines) if at and line.rstrip(" ") == "---"), None)
    if end is None:
        raise ToolError("no line '---' ends its fields")
    # An empty line stands for the first one, so that lines have the numbers that they have in the file.
    return "\n".join(["", *lines[1:end], ""]), "\n".join(lines[end + 1 :]).strip("\n")


def read_head(head: str) -> dict[str, Any]:
    """Return the fields of a head: texts, lists and mappings of them. Raises `tool.failed` for what is none."""
    if len(head) > MAX_HEAD_CHARS:
        raise ToolError(f"its fields have {len(head):,} characters, and {MAX_HEAD_CHARS:,} are read at most")
    refused = _REFUSED.search(head)
    if refused is not None:
        raise ToolError(f"its fields hold the character {refused[0]!a}, which YAML does not take")
    try:
        return dict(read_plain_yaml(head))
    except NotPlainYamlError as error:
        package = _package()
        if package is None:
            raise ToolError(
                f"its fields are not read without a package ({error}): write them more plainly, or install"
                " power-loop[skills]"
            ) from error
    return read_with_package(package, head)


def read_with_package(package: Any, head: str) -> dict[str, Any]:
    """Return the fields of a head by PyYAML. Raises `tool.failed`."""
    # Events, because objects would be made of what aliases multiply; one by one, because the parser takes a time that
    # grows with the square of the depth.
    events = islice(package.parse(head, Loader=package.SafeLoader), _MAX_EVENTS)
    try:
        return _document(package, events)
    except package.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f"line {error.problem_mark.line + 1}: "
        raise ToolError(f"its fields are no YAML ({line}{error.problem})") from error
    except (package.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise ToolError(f"its fields are no YAML ({type(error).__name__})") from error


def _document(package: Any, events: Iterator[Any]) -> dict[str, Any]:
    # A stream and a document begin; both end behind the one mapping.
    begin = [type(event) for event in islice(events, 2)]
    value = _value(package, next(events, None), events, 0)
    end = [type(event) for event in events]
    if (
        not isinstance(value, dict)
        or begin != [package.StreamStartEvent, package.DocumentStartEvent]
        or end != [package.DocumentEndEvent, package.StreamEndEvent]
    ):
        raise ToolError("its fields are no YAML mapping, or more than one")
    return value


def _value(package: Any, event: Any, rest: Iterator[Any], depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise ToolError(f"its fields are nested more than {_MAX_DEPTH} deep")
    if getattr(event, "anchor", None) is not None or getattr(event, "tag", None) is not None:
        raise ToolError("its fields have an anchor, an alias or a tag of YAML, which are not read: write them out")
    if isinstance(event, package.ScalarEvent):
        return event.value
    if isinstance(event, package.SequenceStartEvent):
        return [_value(package, one, rest, depth + 1) for one in _until(rest, package.SequenceEndEvent)]
    if not isinstance(event, package.MappingStartEvent):
        raise ToolError("its fields are no YAML mapping")
    found: dict[str, Any] = {}
    for one in _until(rest, package.MappingEndEvent):
        key = _value(package, one, rest, depth + 1)
        if not isinstance(key, str) or key in found:
            raise ToolError(f"its field {key!r:.100} stands there twice, or is no name")
        found[key] = _value(package, next(rest, None), rest, depth + 1)
    return found


def _until(rest: Iterator[Any], end: Any) -> Iterator[Any]:
    for event in rest:
        if isinstance(event, end):
            return
        yield event
    # The events were too many.
    raise ToolError("its fields are too many")


def _package() -> Any:
    try:
        import yaml  # type: ignore[import-untyped]
    except ImportError:
        return None
    return yaml
