"""Reads a shell command as the words of the programs it runs, as far as nobody could take it for anything else."""

from __future__ import annotations

import re

from power_loop.contracts.frozen import frozen

#: The words of each program that a command runs, in order.
Commands = tuple[tuple[str, ...], ...]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_RESERVED = _names("if then elif else fi for while until do done case esac select function time coproc in ! [[ ]]")
# They run what stands in their arguments, or in a file, or somewhere else.
_RUNNERS = _names(
    ". source eval exec command builtin env sudo doas su runuser xargs parallel nohup nice ionice chrt taskset timeout"
    " setsid stdbuf watch strace ltrace flock script expect bash sh dash zsh ksh csh tcsh fish busybox toybox ssh"
    " chroot unshare nsenter bwrap firejail docker podman systemd-run at batch crontab compgen compopt jobs fc"
)
# They change what the words of later commands mean.
_CHANGERS = _names(
    "alias unalias enable hash trap set shopt export declare typeset readonly local unset read mapfile readarray let"
    " bind complete getopts wait"
)
# They are asked about a variable, and run what stands in its index.
_ASKERS = frozenset(("-v", "-R"))
_FIND_RUNS = frozenset(("-exec", "-execdir", "-ok", "-okdir"))
# Where a word begins with one of these, the shell makes something else of it; or anywhere.
_SPECIAL_AT_START = frozenset("~#!")
_SPECIAL = frozenset("$`\\(){}*?[")
_OPERATOR = re.compile(r"&&|\|\|(?!\|)|;(?![;&])|\|(?![|&])|\n")
# Redirections that write nothing anywhere; the number of the descriptor stands before.
_HARMLESS = re.compile(r"(?:>&[12]|>{1,2}[ \t]*/dev/null|<[ \t]*/dev/null)(?=[ \t\n;|&]|\Z)")
_BLANKS = " \t"


@frozen
class Unclear:
    """Says why it cannot be told for certain what a command runs."""

    why: str


def read_command(text: str) -> Commands | Unclear:
    """Return the programs that a command runs, with their words as they get them, or why that is not clear.

    It is clear if it consists of plain and quoted words, `;`, `&&`, `||`, `|`, new lines, and redirections from and to
    /dev/null or between outputs. Everything else (expansions, assignments, groups, keywords, files, programs that run
    other programs) is unclear, though most of it is harmless.
    """
    odd = next((char for char in text if not char.isprintable() and char not in "\n\t"), None)
    if odd is not None:
        return Unclear(f"it holds the character {odd!r}")
    try:
        commands = _Reader(text).read()
    except _UnclearError as error:
        return Unclear(str(error))
    for words in commands:
        why = _why_unclear(words)
        if why is not None:
            return Unclear(why)
    return commands if commands else Unclear("it runs nothing")


def _why_unclear(words: tuple[str, ...]) -> str | None:
    name = words[0].rpartition("/")[2]
    if words[0] in _RESERVED:
        return f"{words[0]!r} begins something that is more than one command"
    if "=" in words[0]:
        return f"{words[0]!r} sets a variable"
    if not name:
        return f"{words[0]!r} is no program's name"
    if name in _RUNNERS or (name == "find" and not _FIND_RUNS.isdisjoint(words)):
        return f"{name!r} runs other programs"
    if name in _CHANGERS or (name == "printf" and words[1:2] and words[1].startswith("-v")):
        return f"{name!r} changes what later commands mean"
    if name == "test" and not _ASKERS.isdisjoint(words):
        return "'test' runs what stands in the index of a variable"
    return None


class _UnclearError(Exception):
    """Ends the reading."""


class _Reader:
    """Goes once over a command."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._commands: list[tuple[str, ...]] = []
        self._words: list[str] = []
        # None where no word has begun; a quoted one is no reserved word and no number of a descriptor.
        self._word: str | None = None
        self._is_quoted = False
        self._needs_more = False

    def read(self) -> Commands:
        """Return the commands; raise where one is unclear."""
        text = self._text
        while self._at < len(text):
            char = text[self._at]
            operator = _OPERATOR.match(text, self._at)
            if operator is not None:
                self._end_command(operator.group())
                self._at = operator.end()
            elif char in _BLANKS:
                self._end_word()
                self._at += 1
            elif char in "<>":
                self._redirect()
            elif char == "'":
                self._quote(self._closing("'"))
            elif char == '"':
                self._quote(self._closing('"'))
            else:
                self._take(char)
        self._end_command("")
        if self._needs_more:
            raise _UnclearError("it ends in the middle")
        return tuple(self._commands)

    def _take(self, char: str) -> None:
        if char in _SPECIAL or char in "&;|" or (self._word is None and char in _SPECIAL_AT_START):
            raise _UnclearError(f"the shell makes something of {char!r}")
        # An expansion in what looks like an assignment, and in a list of paths.
        if char == "~" and self._word is not None and self._word[-1:] in ("=", ":"):
            raise _UnclearError("the shell makes something of '~'")
        self._word = (self._word or "") + char
        self._at += 1

    def _closing(self, mark: str) -> int:
        end = self._text.find(mark, self._at + 1)
        if end < 0:
            raise _UnclearError(f"a {mark} is not closed")
        return end

    def _quote(self, end: int) -> None:
        quoted = self._text[self._at + 1 : end]
        special = next((char for char in quoted if char in "$`\\"), None)
        if self._text[end] == '"' and special is not None:
            raise _UnclearError(f"the shell makes something of {special!r}")
        self._word = (self._word or "") + quoted
        self._is_quoted = True
        self._at = end + 1

    def _redirect(self) -> None:
        found = _HARMLESS.match(self._text, self._at)
        if found is None or self._is_quoted or self._word not in (None, "1", "2"):
            raise _UnclearError("it reads or writes a file")
        self._word = None
        self._at = found.end()

    def _end_word(self) -> None:
        if self._word is not None:
            if not self._words and self._is_quoted and self._word in _RESERVED:
                raise _UnclearError(f"{self._word!r} is no program's name")
            self._words.append(self._word)
        self._word = None
        self._is_quoted = False

    def _end_command(self, operator: str) -> None:
        self._end_word()
        if self._words:
            self._commands.append(tuple(self._words))
            self._words = []
            self._needs_more = operator in ("&&", "||", "|")
        elif operator not in ("\n", ""):
            raise _UnclearError(f"nothing stands before {operator!r}")
