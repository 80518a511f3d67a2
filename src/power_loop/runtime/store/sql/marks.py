"""Tells in a statement what is text from what is SQL: where its parameters stand, and whether it is only one."""

from __future__ import annotations

import re
from functools import lru_cache

# A statement's own words begin where none of these matches; what is not closed is SQL, which no server takes.
_QUOTED = r"'(?:[^']|'')*'"
_NAMED = r'"(?:[^"]|"")*"'
_TICKED = r"`(?:[^`]|``)*`"
_COMMENT = r"/\*.*?\*/"

#: Texts, names and comments of each kind of database, as a pattern.
SQLITE_TEXT = rf"{_QUOTED}|{_NAMED}|{_TICKED}|\[[^\]]*\]|--[^\n]*|{_COMMENT}"
POSTGRES_TEXT = (
    rf"(?<!\w)[eE]'(?:[^'\\]|\\.|'')*'|{_QUOTED}|{_NAMED}|--[^\n]*|{_COMMENT}"
    r"|(?<![\w$])(?P<tag>\$(?:[A-Za-z_]\w*)?\$).*?(?P=tag)"
)
# A backslash escapes, as our sql_mode has it. A comment that begins with /*! or /*M! is SQL.
MYSQL_TEXT = (
    r"""'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*\""""
    rf"|{_TICKED}|--(?=\s|$)[^\n]*|#[^\n]*|/\*(?!M?!).*?\*/"
)


@lru_cache(maxsize=1024)
def pieces(sql: str, text: str, *, has_doubled: bool = False) -> tuple[str, ...]:
    """Return what stands between the `?` of a statement; with `has_doubled`, `??` is an operator's question mark."""
    found, piece, start = [], "", 0
    for match in re.finditer(rf"(?:{text})|(?P<mark>\?\??)", sql, re.DOTALL):
        mark = match["mark"]
        if mark is None:
            continue
        piece += sql[start : match.start()]
        start = match.end()
        if mark == "??" and has_doubled:
            piece += "?"
            continue
        for _ in mark:
            found.append(piece)
            piece = ""
    return (*found, piece + sql[start:])


@lru_cache(maxsize=1024)
def is_single(sql: str, text: str) -> bool:
    """Tell whether nothing but space and comments stands behind the first `;`."""
    for match in re.finditer(rf"(?:{text})|(?P<end>;)", sql, re.DOTALL):
        if match["end"] is not None:
            rest = re.sub(text, lambda found: " " if found[0][0] in "-#/" else found[0], sql[match.end() :], flags=re.S)
            return not rest.strip("; \t\r\n\f\v")
    return True
