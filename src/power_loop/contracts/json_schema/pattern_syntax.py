"""Reads ECMA-262 patterns, as JSON Schema uses them, into their parts.

The dialect is ECMA-262 with the `u` flag, as JSON Schema recommends: `$` is the end of the text and never stands before
a last newline, `\\d` and `\\w` are ASCII, `.` excludes the four line ends. Character classes, groups, lazy and greedy
repeats, `\\b`, look-ahead, `\\u{...}` and `\\p{General_Category}` are read. Python's spellings `(?P<name>...)`, `\\A`
and `\\Z` are accepted because many schemas are written by Python libraries. Back-references, look-behind, nested
look-ahead, inline flags, possessive repeats and script properties are refused with a reason.
"""

from __future__ import annotations

from power_loop.contracts.json_schema.pattern_nodes import (
    WORD_CHARS,
    Category,
    CharSet,
    Choice,
    Look,
    Node,
    Place,
    Repeat,
    Sequence,
)

# Longer patterns are word lists that belong into `enum`; the length also bounds the work of one search step.
MAX_PATTERN_CHARS = 2_000
# The reader recurses once a group; nobody nests deeper by hand.
MAX_PATTERN_GROUPS = 40


class PatternError(ValueError):
    """Says in its message why a pattern cannot be read; `position` is the offset of the trouble in `source`."""

    def __init__(self, source: str, position: int, reason: str) -> None:
        self.source = source
        self.position = position
        super().__init__(f"{reason} (at character {position})")


def read_pattern(source: str) -> Sequence:
    """Reads a pattern; raises `PatternError` if it is malformed or outside the dialect."""
    return _Reader(source).read()


_DIGITS = frozenset("0123456789")
_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")
# ECMA-262 white space and line terminators.
_SPACES = frozenset(
    "\t\n\v\f\r \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000\ufeff"
)
_LINE_ENDS = frozenset("\n\r\u2028\u2029")
_NAMED_SETS = {
    "d": CharSet(_DIGITS),
    "D": CharSet(_DIGITS, negated=True),
    "w": CharSet(WORD_CHARS),
    "W": CharSet(WORD_CHARS, negated=True),
    "s": CharSet(_SPACES),
    "S": CharSet(_SPACES, negated=True),
}
_NAMED_CHARS = {"t": "\t", "n": "\n", "r": "\r", "v": "\v", "f": "\f", "0": "\0"}
_NAMED_PLACES = {"b": Place.BOUNDARY, "B": Place.NO_BOUNDARY, "A": Place.START, "Z": Place.END, "z": Place.END}
# The general categories of Unicode: the letter of a group, and the second letters of its members.
_CATEGORIES = {"L": "ultmo", "M": "nce", "N": "dlo", "P": "cdseifo", "S": "mcko", "Z": "slp", "C": "cfson"}
_CATEGORY_NAMES = {
    "Letter": "L",
    "Uppercase_Letter": "Lu",
    "Lowercase_Letter": "Ll",
    "Mark": "M",
    "Number": "N",
    "Decimal_Number": "Nd",
    "Punctuation": "P",
    "Symbol": "S",
    "Separator": "Z",
    "Other": "C",
}


class _Reader:
    """Reads one pattern by recursive descent."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._at = 0
        self._groups = 0
        self._in_look = False

    def read(self) -> Sequence:
        if len(self._source) > MAX_PATTERN_CHARS:
            raise self._error(f"the pattern is longer than {MAX_PATTERN_CHARS} characters")
        sequences = self._alternatives()
        if self._at < len(self._source):
            raise self._error("this ')' closes nothing")
        return sequences[0] if len(sequences) == 1 else (Choice(sequences),)

    def _error(self, reason: str, *, at: int | None = None) -> PatternError:
        return PatternError(self._source, self._at if at is None else at, reason)

    def _peek(self) -> str:
        return self._source[self._at] if self._at < len(self._source) else ""

    def _take(self, text: str) -> bool:
        taken = self._source.startswith(text, self._at)
        if taken:
            self._at += len(text)
        return taken

    def _alternatives(self) -> tuple[Sequence, ...]:
        alternatives = [self._sequence()]
        while self._take("|"):
            alternatives.append(self._sequence())
        return tuple(alternatives)

    def _sequence(self) -> Sequence:
        nodes: list[Node] = []
        while self._peek() not in ("", "|", ")"):
            start = self._at
            node = self._node()
            counts = self._counts()
            if counts is None:
                nodes.append(node)
                continue
            if isinstance(node, (Place, Look)):
                raise self._error("there is nothing to repeat here", at=start)
            least, most = counts
            if most != 0:
                nodes.append(Repeat((node,), least, most=most))
            if self._counts() is not None:
                raise self._error("a repeat cannot be repeated and possessive repeats are not supported")
        return tuple(nodes)

    def _counts(self) -> tuple[int, int | None] | None:
        """Reads a quantifier, if there is one; lazy or greedy makes no difference to whether a pattern matches."""
        counts = self._braces() if self._peek() == "{" else None
        if counts is None:
            for mark, meaning in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
                if self._take(mark):
                    counts = meaning
                    break
        if counts is not None:
            self._take("?")
        return counts

    def _braces(self) -> tuple[int, int | None] | None:
        start = self._at
        self._at += 1
        least = self._digits()
        most = least
        if least and self._take(","):
            most = self._digits()
        if not least or not self._take("}"):
            # A brace that counts nothing is a character like any other.
            self._at = start
            return None
        if most and int(most) < int(least):
            raise self._error(f"the repeat {{{least},{most}}} counts backwards", at=start)
        return int(least), int(most) if most else None

    def _digits(self) -> str:
        start = self._at
        while self._peek() in _DIGITS:
            self._at += 1
        return self._source[start : self._at]

    def _node(self) -> Node:
        char = self._source[self._at]
        if char in "*+?" or (char == "{" and self._counts() is not None):
            raise self._error("there is nothing to repeat here")
        self._at += 1
        if char == "^":
            return Place.START
        if char == "$":
            return Place.END
        if char == ".":
            return CharSet(_LINE_ENDS, negated=True)
        if char == "(":
            return self._group()
        if char == "[":
            return self._class()
        if char == "\\":
            return self._escape()
        return CharSet(frozenset((char,)))

    def _group(self) -> Node:
        start = self._at - 1
        look: bool | None = None
        if self._take("?"):
            if self._take("=") or self._take("!"):
                look = self._source[self._at - 1] == "!"
            elif self._take("<=") or self._take("<!"):
                raise self._error("look-behind is not supported", at=start)
            elif self._take("P=") or self._take("("):
                raise self._error("back-references are not supported", at=start)
            elif self._take("P<") or self._take("<"):
                closing = self._source.find(">", self._at)
                if closing < 0 or not self._source[self._at : closing].isidentifier():
                    raise self._error("this group's name is not a name", at=start)
                self._at = closing + 1
            elif not self._take(":"):
                raise self._error("inline flags and other '(?' extensions are not supported", at=start)
        if look is not None and self._in_look:
            raise self._error("a look-ahead inside a look-ahead is not supported", at=start)
        self._groups += 1
        if self._groups > MAX_PATTERN_GROUPS:
            raise self._error(f"the groups are nested deeper than {MAX_PATTERN_GROUPS}", at=start)
        self._in_look = self._in_look or look is not None
        alternatives = self._alternatives()
        if not self._take(")"):
            raise self._error("this '(' is never closed", at=start)
        self._groups -= 1
        if look is None:
            return Choice(alternatives)
        self._in_look = False
        return Look(frozenset(alternatives), negative=look)

    def _escape(self) -> Node:
        place = _NAMED_PLACES.get(self._peek())
        if place is not None:
            self._at += 1
            return place
        read = self._escaped()
        return CharSet(frozenset((read,))) if isinstance(read, str) else read

    def _escaped(self) -> str | CharSet | Category:
        """Reads what follows a backslash, inside or outside of a class."""
        start = self._at - 1
        char = self._peek()
        if not char:
            raise self._error("the pattern ends with a lone backslash", at=start)
        self._at += 1
        if char in _NAMED_SETS:
            return _NAMED_SETS[char]
        if char in _NAMED_CHARS and not (char == "0" and self._peek() in _DIGITS):
            return _NAMED_CHARS[char]
        if char in "pP":
            return self._category(start, negated=char == "P")
        if char == "u":
            return self._unicode_escape(start)
        if char == "x":
            return chr(self._hex(2, start))
        if char == "c" and self._peek().isascii() and self._peek().isalpha():
            self._at += 1
            return chr(ord(self._source[self._at - 1]) % 32)
        if char in _DIGITS or char == "k":
            raise self._error("back-references and octal escapes are not supported", at=start)
        if char.isalnum():
            raise self._error(f"the escape '\\{char}' has no meaning", at=start)
        return char

    def _hex(self, digits: int, start: int) -> int:
        text = self._source[self._at : self._at + digits]
        if len(text) < digits or not _HEX_DIGITS.issuperset(text):
            raise self._error(f"this escape needs {digits} hexadecimal digits", at=start)
        self._at += digits
        return int(text, 16)

    def _unicode_escape(self, start: int) -> str:
        if self._take("{"):
            closing = self._source.find("}", self._at)
            text = self._source[self._at : closing] if closing >= 0 else ""
            if not 1 <= len(text) <= 8 or not _HEX_DIGITS.issuperset(text) or int(text, 16) > 0x10FFFF:
                raise self._error("this escape names no code point", at=start)
            self._at = closing + 1
            return chr(int(text, 16))
        code = self._hex(4, start)
        if 0xD800 <= code < 0xDC00 and self._source.startswith("\\u", self._at):
            after_high = self._at
            self._at += 2
            low = self._hex(4, start)
            if 0xDC00 <= low < 0xE000:
                return chr(0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00))
            self._at = after_high
        return chr(code)

    def _category(self, start: int, *, negated: bool) -> Category:
        closing = self._source.find("}", self._at)
        name = self._source[self._at + 1 : closing] if closing >= 0 and self._peek() == "{" else ""
        for prefix in ("General_Category=", "gc="):
            name = name.removeprefix(prefix)
        name = _CATEGORY_NAMES.get(name, name)
        if len(name) not in (1, 2) or name[0] not in _CATEGORIES or name[1:] not in _CATEGORIES[name[0]]:
            raise self._error("only general categories such as \\p{L} or \\p{Lu} are supported", at=start)
        self._at = closing + 1
        return Category(name, negated=negated)

    def _class(self) -> CharSet:
        start = self._at - 1
        negated = self._take("^")
        singles: set[str] = set()
        ranges: list[tuple[str, str]] = []
        parts: list[CharSet | Category] = []
        while not self._take("]"):
            low = self._class_atom(start)
            if not isinstance(low, str):
                parts.append(low)
                continue
            dash = self._at
            if not self._take("-") or self._peek() == "]":
                self._at = dash
                singles.add(low)
                continue
            high = self._class_atom(start)
            if not isinstance(high, str):
                singles.update((low, "-"))
                parts.append(high)
            elif high < low:
                raise self._error(f"the range {low!r} to {high!r} runs backwards", at=dash)
            else:
                ranges.append((low, high))
        return CharSet(frozenset(singles), tuple(ranges), parts=tuple(parts), negated=negated)

    def _class_atom(self, start: int) -> str | CharSet | Category:
        char = self._peek()
        if not char:
            raise self._error("this '[' is never closed", at=start)
        self._at += 1
        if char != "\\":
            return char
        if self._take("b"):
            return "\b"
        return self._escaped()
