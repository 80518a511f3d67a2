"""Reads the part of YAML in which heads of skills are written, without a package: texts, lists of them, one mapping.

What it reads means the same to a YAML parser that takes every scalar for text. Everything else is refused, by line:
nothing is guessed.
"""

from __future__ import annotations

import re
from typing import NoReturn

Value = str | list[str] | dict[str, str]

_ENTRY = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.-]*):(?: +(.*))?")
_BLOCK = re.compile(r"([|>])([+-]?)")
_ESCAPE = re.compile(r'\\(?:u([0-9A-Fa-f]{4})|(["\\/nt]))')
_ESCAPED = {'"': '"', "\\": "\\", "/": "/", "n": "\n", "t": "\t"}
_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"')
_SINGLE = re.compile(r"'((?:[^']|'')*)'")
# What begins something else than plain text.
_INDICATORS = "-?:,[]{}#&*!|>'\"%@`"
_NOT_IN_FLOW = re.compile(r"[\[\]{}?#]|: ")
_SURROGATES = range(0xD800, 0xE000)


class NotPlainYamlError(Exception):
    """Says which line is none of what is read here, and why."""


def read_plain_yaml(text: str) -> dict[str, Value]:
    """Return the mapping that a text of lines is. Raises `NotPlainYamlError`."""
    return _Reader(text).run()


class _Reader:
    """Is one text on its way; `_at` is the line that comes next."""

    __slots__ = ("_at", "_lines")

    def __init__(self, text: str) -> None:
        self._lines = text.removesuffix("\n").split("\n")
        self._at = 0

    def run(self) -> dict[str, Value]:
        found: dict[str, Value] = {}
        while (line := self._peek()) is not None:
            key, rest = self._entry(line, 0)
            if key in found:
                self._refuse(f"{key!r} stands there twice")
            found[key] = self._value(rest)
        return found

    # ---- lines ----

    def _peek(self) -> str | None:
        """Return the next line that says something, which stays the next one."""
        while self._at < len(self._lines):
            line = self._lines[self._at]
            if "\t" in line:
                self._at += 1
                self._refuse("it has a tab: write spaces")
            if line.strip(" ") and not line.lstrip(" ").startswith("#"):
                return line
            self._at += 1
        return None

    def _entry(self, line: str, indent: int) -> tuple[str, str]:
        """Take a line that is `key: rest`, so far indented."""
        self._at += 1
        found = _ENTRY.fullmatch(line[indent:]) if _indent_of(line) == indent else None
        if found is None:
            self._refuse("it is no 'key: value', or indented otherwise than the lines around it")
        return found[1], (found[2] or "").strip(" ")

    def _refuse(self, why: str) -> NoReturn:
        raise NotPlainYamlError(f"line {self._at}: {why}")

    # ---- what stands behind a key ----

    def _value(self, rest: str) -> Value:
        if not rest or rest.startswith("#"):
            return self._below()
        if rest[0] in "|>":
            return self._block(rest)
        return self._flow_list(rest) if rest[0] == "[" else self._scalar(rest)

    def _below(self) -> Value:
        line = self._peek()
        indent = 0 if line is None else _indent_of(line)
        if line is not None and _is_item(line[indent:]):
            return self._items(indent)
        return self._mapping(indent) if indent else ""

    def _items(self, indent: int) -> list[str]:
        items: list[str] = []
        while (line := self._peek()) is not None and _indent_of(line) == indent and _is_item(line[indent:]):
            self._at += 1
            items.append(self._scalar(line[indent + 1 :].strip(" ")))
        return items

    def _mapping(self, indent: int) -> dict[str, str]:
        found: dict[str, str] = {}
        while (line := self._peek()) is not None and _indent_of(line):
            key, rest = self._entry(line, indent)
            if key in found:
                self._refuse(f"{key!r} stands there twice")
            found[key] = "" if not rest or rest.startswith("#") else self._scalar(rest)
        return found

    def _scalar(self, text: str) -> str:
        if text[:1] in ("'", '"'):
            value, end = self._quoted(text, 0)
            if text[end:] and not re.match(r" +(#|$)", text[end:]):
                self._refuse("something stands behind the closing quote")
            return value
        return self._plain(text.partition(" #")[0].rstrip(" "))

    def _plain(self, text: str) -> str:
        if not text or text[0] in _INDICATORS:
            self._refuse(f"{text[:20]!r} begins with a sign that means something in YAML: put it in quotes")
        if ": " in text or text.endswith(":"):
            self._refuse("it has a second colon: put the value in quotes")
        return text

    def _quoted(self, text: str, start: int) -> tuple[str, int]:
        """Return the text in the quotes that begin at `start`, and where they end."""
        is_double = text[start] == '"'
        found = (_DOUBLE if is_double else _SINGLE).match(text, start)
        if found is None:
            self._refuse("its quote is not closed on the same line")
        return (self._unescaped(found[1]) if is_double else found[1].replace("''", "'")), found.end()

    def _unescaped(self, text: str) -> str:
        def char(found: re.Match[str]) -> str:
            if found[1] is None:
                return _ESCAPED[found[2]]
            if int(found[1], 16) in _SURROGATES:
                self._refuse(f"{found[0]} is half a character")
            return chr(int(found[1], 16))

        if "\\" in _ESCAPE.sub("", text):
            self._refuse('it has an escape that is none of \\" \\\\ \\/ \\n \\t \\uXXXX')
        return _ESCAPE.sub(char, text)

    def _flow_list(self, text: str) -> list[str]:
        items: list[str] = []
        at = 1
        while True:
            at += len(text[at:]) - len(text[at:].lstrip(" "))
            if text[at : at + 1] == "]":
                break
            if at == len(text):
                self._refuse("its list is not closed on the same line")
            if text[at : at + 1] in ("'", '"'):
                item, at = self._quoted(text, at)
            else:
                end = min([place for mark in ",]" if (place := text.find(mark, at)) >= 0], default=len(text))
                item, at = self._plain(text[at:end].rstrip(" ")), end
                if _NOT_IN_FLOW.search(item):
                    self._refuse(f"{item[:20]!r} means something in a list: put it in quotes")
            items.append(item)
            at += len(text[at:]) - len(text[at:].lstrip(" "))
            if text[at : at + 1] == ",":
                at += 1
            elif text[at : at + 1] != "]":
                self._refuse("its list is not closed on the same line")
        if text[at + 1 :] and not re.match(r" +(#|$)", text[at + 1 :]):
            self._refuse("something stands behind the list")
        return items

    def _block(self, header: str) -> str:
        """Return a block scalar: `|` keeps its lines, `>` folds them."""
        kind = _BLOCK.fullmatch(header)
        if kind is None:
            self._refuse(f"{header[:20]!r} is none of | |- |+ > >- >+")
        lines = self._block_lines()
        kept = len(lines)
        while not lines[kept - 1]:
            kept -= 1
        text = _folded(lines[:kept]) if kind[1] == ">" else "\n".join(lines[:kept])
        if kind[2] == "-":
            return text
        return text + "\n" * (1 + (len(lines) - kept if kind[2] == "+" else 0))

    def _block_lines(self) -> list[str]:
        """Take the lines of a block scalar and return them without their indentation; the first and the last that say
        something are among them."""
        indent = 0
        lines: list[str] = []
        while self._at < len(self._lines):
            line = self._lines[self._at]
            is_blank = not line.strip(" ")
            if not indent and not is_blank:
                indent = _indent_of(line)
                if any(len(one) > indent for one in lines):
                    self._refuse("a blank line before it is indented further")
            if not is_blank and (not indent or _indent_of(line) < indent):
                break
            self._at += 1
            if "\t" in line:
                self._refuse("it has a tab: write spaces")
            if indent and (len(line) > indent if is_blank else line[indent] == " "):
                self._refuse("it is indented further than the lines above it")
            lines.append(line if not indent else line[indent:])
        if not indent:
            self._refuse("a block of text is empty, or not indented")
        return ["" if not line.strip(" ") else line for line in lines]


def _folded(lines: list[str]) -> str:
    """Join lines as YAML folds them: a break becomes a space, a blank line a break."""
    text = ""
    for at, line in enumerate(lines):
        if line:
            text += (" " if at and lines[at - 1] else "") + line
        else:
            text += "\n"
    return text


def _indent_of(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _is_item(text: str) -> bool:
    return text.startswith("- ")
