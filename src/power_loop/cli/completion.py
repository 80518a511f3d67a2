"""Prints what a shell needs to complete commands and options, made of the table that the command line is read by."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from power_loop.cli.output import EXIT_OK, say

_EPILOG = """\
bash: power-loop completion bash > ~/.local/share/bash-completion/completions/power-loop
zsh:  power-loop completion zsh > "${fpath[1]}/_power-loop"
fish: power-loop completion fish > ~/.config/fish/completions/power-loop.fish"""


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add `completion`."""
    parser = subparsers.add_parser(
        "completion",
        help="print the completion of a shell",
        description="Prints a script by which a shell completes commands, options and their values.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=tuple(_SHELLS), help="whose script it is")
    parser.set_defaults(run=_run)


def _run(given: argparse.Namespace) -> int:
    say(_SHELLS[given.shell](list(commands_of(given.parser, ()))))
    return EXIT_OK


@dataclass(frozen=True)
class Option:
    """Is an option with its names and, if it takes one, what values it may have."""

    names: tuple[str, ...]
    help: str
    takes_value: bool
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Command:
    """Is a command by the words that lead to it; those below it are known by `commands`."""

    path: tuple[str, ...]
    help: str
    options: tuple[Option, ...]
    values: tuple[str, ...]
    commands: tuple[tuple[str, str], ...] = field(default=())

    @property
    def words(self) -> list[str]:
        """What may come next."""
        names = [name for option in self.options for name in option.names]
        return [*(name for name, _ in self.commands), *self.values, *names]


def commands_of(parser: argparse.ArgumentParser, path: tuple[str, ...], said: str = "") -> Iterator[Command]:
    """Give the command of a parser, and then those below it."""
    options: list[Option] = []
    values: list[str] = []
    below: list[tuple[str, str, argparse.ArgumentParser]] = []
    for action in parser._actions:  # noqa: SLF001 - argparse has no other way to list what it was told
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            helps = {one.dest: one.help or "" for one in action._choices_actions}  # noqa: SLF001
            below = [(name, helps.get(name, ""), one) for name, one in action.choices.items()]
        elif action.option_strings:
            said_of_it = (action.help or "").replace("%%", "%")
            options.append(Option(tuple(action.option_strings), said_of_it, action.nargs != 0, _choices(action)))
        else:
            values += _choices(action)
    yield Command(path, said, tuple(options), tuple(values), tuple((name, what) for name, what, _ in below))
    for name, what, one in below:
        yield from commands_of(one, (*path, name), what)


def _choices(action: argparse.Action) -> tuple[str, ...]:
    return tuple(map(str, action.choices or ()))


def _pattern(path: Sequence[str]) -> str:
    return shlex.quote(" ".join(path))


# ---- bash ----


def _bash(commands: list[Command]) -> str:
    steps = [
        f"      {_pattern((*command.path, name))}) path={_pattern((*command.path, name))} ;;"
        for command in commands
        for name, _ in command.commands
    ]
    values, words = [], []
    for command in commands:
        for option in command.options:
            patterns = "|".join(_pattern((*command.path, name)) for name in option.names)
            if option.values:
                values.append(
                    f'    {patterns}) COMPREPLY=($(compgen -W {_listed(option.values)} -- "$cur")); return ;;'
                )
            elif option.takes_value:
                values.append(f'    {patterns}) COMPREPLY=($(compgen -f -- "$cur")); return ;;')
        words.append(f"    {_pattern(command.path)}) words={_listed(command.words)} ;;")
    return "\n".join(
        [
            "# bash completion of power-loop",
            "_power_loop() {",
            '  local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}" path="" word words=""',
            '  for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do',
            '    case "${path:+$path }$word" in',
            *steps,
            "    esac",
            "  done",
            '  case "${path:+$path }$prev" in',
            *values,
            "  esac",
            '  case "$path" in',
            *words,
            "  esac",
            '  COMPREPLY=($(compgen -W "$words" -- "$cur"))',
            "}",
            "complete -o bashdefault -o default -F _power_loop power-loop",
        ]
    )


def _listed(words: Sequence[str]) -> str:
    return shlex.quote(" ".join(words))


# ---- zsh ----


def _zsh(commands: list[Command]) -> str:
    steps = [
        f"      ({_pattern((*command.path, name))}) at={_pattern((*command.path, name))} ;;"
        for command in commands
        for name, _ in command.commands
    ]
    values, words = [], []
    for command in commands:
        for option in command.options:
            patterns = "|".join(_pattern((*command.path, name)) for name in option.names)
            if option.values:
                values.append(f"    ({patterns}) compadd -- {shlex.join(option.values)}; return ;;")
            elif option.takes_value:
                values.append(f"    ({patterns}) _files; return ;;")
        entries = [*command.commands, *((value, "") for value in command.values)]
        entries += [(name, option.help) for option in command.options for name in option.names]
        listed = " ".join(shlex.quote(f"{name}:{what}" if what else name) for name, what in entries)
        words.append(f"    ({_pattern(command.path)}) next=({listed}) ;;")
    return "\n".join(
        [
            "#compdef power-loop",
            "_power_loop() {",
            "  local at='' word",
            "  local -a next",
            '  for word in "${(@)words[2,CURRENT-1]}"; do',
            '    case "${at:+$at }$word" in',
            *steps,
            "    esac",
            "  done",
            '  case "${at:+$at }${words[CURRENT-1]}" in',
            *values,
            "  esac",
            '  case "$at" in',
            *words,
            "  esac",
            "  _describe -o 'power-loop' next",
            "  _files",
            "}",
            'if [ "$funcstack[1]" = "_power-loop" ]; then _power_loop "$@"; else compdef _power_loop power-loop; fi',
        ]
    )


# ---- fish ----


def _fish(commands: list[Command]) -> str:
    lines = ["# fish completion of power-loop", "complete -c power-loop -e"]
    for command in commands:
        seen = [f"__fish_seen_subcommand_from {one}" for one in command.path]
        names = [name for name, _ in command.commands]
        unseen = [f"not __fish_seen_subcommand_from {' '.join(names)}"] if names else []
        here = _fish_text("; and ".join([*seen, *unseen]) or "true")
        for name, what in command.commands:
            lines.append(f"complete -c power-loop -n {here} -f -a {name} -d {_fish_text(what)}")
        if command.values:
            lines.append(f"complete -c power-loop -n {here} -a {_fish_text(' '.join(command.values))}")
        for option in command.options:
            flags = [f"-l {one[2:]}" if one.startswith("--") else f"-s {one[1:]}" for one in option.names]
            value = f" -x -a {_fish_text(' '.join(option.values))}" if option.values else " -r" * option.takes_value
            lines.append(f"complete -c power-loop -n {here} {' '.join(flags)}{value} -d {_fish_text(option.help)}")
    return "\n".join(lines)


def _fish_text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


_SHELLS = {"bash": _bash, "zsh": _zsh, "fish": _fish}
