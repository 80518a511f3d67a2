"""Reads what a docstring says: its first paragraph and its sentence for each parameter."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

_SECTIONS = (
    "Args|Arguments|Params|Parameters|Keyword Args|Keyword Arguments|Other Parameters|Attributes|Returns|Return|Yields"
    "|Yield|Raises|Warns|Warnings|Example|Examples|Note|Notes|See Also|References|Todo"
)
_PARAMETER_SECTIONS = frozenset(
    {"args", "arguments", "params", "parameters", "keyword args", "keyword arguments", "other parameters", "attributes"}
)
_GOOGLE_HEADER = re.compile(rf"({_SECTIONS}):\s*$", re.IGNORECASE)
_NUMPY_HEADER = re.compile(rf"({_SECTIONS})\s*$", re.IGNORECASE)
_UNDERLINE = re.compile(r"\s*-{3,}\s*$")
# `name:`, `*name:`, `name (type, optional):`; a type may hold one pair of parentheses itself.
_GOOGLE_ENTRY = re.compile(r"\*{0,2}(?P<name>\w+)\s*(?:\((?:[^()]|\([^()]*\))*\))?\s*:(?:\s+(?P<text>.*)|\s*$)")
# `name`, `name : type`, `first, second : type`
_NUMPY_ENTRY = re.compile(r"(?P<names>\*{0,2}\w+(?:\s*,\s*\*{0,2}\w+)*)\s*(?::.*)?$")
_FIELD = re.compile(r"\s*:(?P<kind>\w+)(?P<words>[^:]*):(?:\s+(?P<text>.*)|\s*$)")
_PARAMETER_FIELDS = frozenset({"param", "parameter", "arg", "argument", "key", "keyword", "ivar", "var", "cvar"})


@dataclass(frozen=True, slots=True)
class Docstring:
    """Is what a docstring says.

    `summary` is its first paragraph on one line, `prose` all of its text before the first section, `parameters` the
    description of each parameter by name.
    """

    summary: str = ""
    prose: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)


def read_docstring(text: str | None) -> Docstring:
    """Return what a docstring in Google, NumPy or reST style says, or one in none of them."""
    if not text or not text.strip():
        return Docstring()
    lines = inspect.cleandoc(text).splitlines()
    parameters: dict[str, str] = {}
    for name, description in (*_google(lines), *_numpy(lines), *_rest(lines)):
        if description:
            parameters.setdefault(name, description)
    prose = _prose(lines)
    return Docstring(" ".join(prose.partition("\n\n")[0].split()), prose, parameters)


def _prose(lines: list[str]) -> str:
    end = next(
        (
            index
            for index, line in enumerate(lines)
            if _GOOGLE_HEADER.match(line) or _FIELD.match(line) or _is_numpy_header(lines, index)
        ),
        len(lines),
    )
    return "\n".join(line.rstrip() for line in lines[:end]).strip()


def _is_numpy_header(lines: list[str], index: int) -> bool:
    return (
        index + 1 < len(lines)
        and _NUMPY_HEADER.match(lines[index]) is not None
        and _UNDERLINE.match(lines[index + 1]) is not None
    )


def _google(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the entries of the sections such as `Args:`, each an indented `name (type): description`."""
    in_section = False
    entry_indent: int | None = None
    name, words = "", list[str]()
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if not line.strip():
            continue
        if indent == 0:
            if name:
                yield name, " ".join(words)
            header = _GOOGLE_HEADER.match(line)
            in_section = header is not None and header[1].lower() in _PARAMETER_SECTIONS
            entry_indent, name, words = None, "", []
            continue
        if not in_section:
            continue
        if entry_indent is None:
            entry_indent = indent
        entry = _GOOGLE_ENTRY.match(line.strip()) if indent <= entry_indent else None
        if entry is None:
            words.append(line.strip())
            continue
        if name:
            yield name, " ".join(words)
        name, words = entry["name"], [entry["text"]] if entry["text"] else []
    if name:
        yield name, " ".join(words)


def _numpy(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the entries of underlined sections: `name : type`, with an indented description below."""
    in_section = False
    names, words = list[str](), list[str]()
    for index, line in enumerate(lines):
        is_header = _is_numpy_header(lines, index)
        if is_header or (line.strip() and not line[0].isspace() and not _UNDERLINE.match(line)):
            for name in names:
                yield name, " ".join(words)
            names, words = [], []
            if is_header:
                in_section = line.strip().lower() in _PARAMETER_SECTIONS
            elif in_section and (entry := _NUMPY_ENTRY.match(line)):
                names = [name.strip().lstrip("*") for name in entry["names"].split(",")]
        elif names and line.strip():
            words.append(line.strip())
    for name in names:
        yield name, " ".join(words)


def _rest(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the fields `:param name: description` and `:param type name: description`."""
    name, words = "", list[str]()
    for line in lines:
        found = _FIELD.match(line)
        if found is None and line.strip():
            words.append(line.strip())
            continue
        if name:
            yield name, " ".join(words)
        name, words = "", []
        if found is not None and found["kind"] in _PARAMETER_FIELDS and found["words"].split():
            name = found["words"].split()[-1].lstrip("*")
            words = [found["text"]] if found["text"] else []
    if name:
        yield name, " ".join(words)
