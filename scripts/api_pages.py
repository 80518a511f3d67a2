"""Writes the API reference: a page a shelf, of what the code says of itself in signatures and docstrings.

What is shown is read from the source and not from what a Python makes of it, so that every Python prints the same page.
A name is described once, on the page of its shelf; one that the front alone hands on, on the page of the front. A word
in backticks that is a public name leads to it, and an error's code to the error.
"""

from __future__ import annotations

import ast
import enum
import importlib
import inspect
import operator
import re
import sys
import textwrap
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

FRONT = "power_loop"
#: The shelf whose names are public and may still change, so that the baseline does not have them.
PROVISIONAL = "storage"
_LINE_CHARS = 100
_WORD = re.compile(r"(?<![`\w\[])`(?P<word>[A-Za-z_][\w.]*)`(?!`)")
_FENCE = re.compile(r"^ *```")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Name:
    """Is one public name: where it is described, and what it is."""

    shelf: str
    word: str
    value: Any

    @property
    def page(self) -> str:
        """The file of its page, beside the others."""
        return f"{self.shelf or FRONT}.md"

    @property
    def anchor(self) -> str:
        """The anchor of its heading."""
        return self.word.lower()


@cache
def names() -> Mapping[str, Name]:
    """Return every public name by its word, with the one place where it is described."""
    face = importlib.import_module(FRONT)
    found: dict[str, Name] = {}
    for public in face.STABLE_API:
        shelf, _, word = public.rpartition(".")
        if word not in found or shelf:
            found[word] = Name(shelf, word, operator.attrgetter(public)(face))
    shelf = importlib.import_module(f"{FRONT}.{PROVISIONAL}")
    for word in shelf.__all__:
        found.setdefault(word, Name(PROVISIONAL, word, getattr(shelf, word)))
    return found


@cache
def shelves() -> tuple[str, ...]:
    """Return the shelves in the order of their names; the front, which is the empty one, comes first."""
    return tuple(sorted({name.shelf for name in names().values()}))


@cache
def error_words() -> Mapping[str, str]:
    """Return the word of the error that each code belongs to."""
    errors = importlib.import_module("power_loop.contracts.errors")
    classes = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.PowerLoopError)]
    return {vars(one)["code"]: one.__name__ for one in classes if "code" in vars(one)}


def pages() -> dict[str, Callable[[], str]]:
    """Return what writes each page, by its file."""
    return {f"en/api/{shelf or FRONT}.md": partial(page_of, shelf) for shelf in shelves()}


def page_of(shelf: str) -> str:
    """Return the page of a shelf."""
    module = f"{FRONT}.{shelf}".rstrip(".")
    own = sorted((name for name in names().values() if name.shelf == shelf), key=lambda name: name.word.lower())
    said = " ".join((importlib.import_module(module).__doc__ or "").split("\n\n")[0].split())
    rest = (
        "Described here is what the front alone hands on; its other names are described on their [shelves](index.md)."
    )
    intro = f"{said}\n" if shelf else f"{said}\n\n{rest}\n"
    head = f"# `{module}`\n\n<!-- Printed by scripts/api_pages.py from the source; edit that instead. -->\n\n{intro}"
    return "\n".join([head, *(part for name in own for part in _entry(name))]).rstrip() + "\n"


def link_to(word: str, *, beside: str = "", shown: str | None = None) -> str:
    """Return a link to a public name, `beside` being the folder of the pages as seen from where it stands."""
    name = names()[word]
    return f"[`{shown or word}`]({beside}{name.page}#{name.anchor})"


# --- an entry -------------------------------------------------------------------------------------------------------


def _entry(name: Name) -> Iterator[str]:
    yield f"## `{name.word}`\n"
    value: Any = name.value
    # On Python 3.10 an alias such as `Callable[[int], None]` counts as a type.
    is_alias = issubclass(type(value), types.GenericAlias)
    if inspect.isfunction(value):
        yield _code(_signature(_definition(value), name.word))
        yield from _said(value.__doc__, name)
    elif isinstance(value, type) and not is_alias:
        yield from _class(value, name)
    else:
        yield from _value(name)


def _class(value: type, name: Name) -> Iterator[str]:
    yield _code(_class_head(value))
    yield from _said(value.__doc__, name)
    if issubclass(value, enum.Enum):
        yield _enum_table(value)
    for key, (definition, owner) in sorted(_members(value).items()):
        yield f"### `{name.word}.{key}`\n"
        yield _code(_signature(definition, key, owner=owner))
        yield from _said(ast.get_docstring(definition), name)


def _class_head(value: type) -> str:
    """Return a class as one would write it: its public bases, and what makes one or which fields it has."""
    bases = [base.__name__ for base in value.__bases__ if base.__name__ in names() or base.__name__ == "Protocol"]
    head = f"class {value.__name__}({', '.join(bases)})" if bases else f"class {value.__name__}"
    if issubclass(value, enum.Enum):
        return head
    fields = _error_fields(value) if issubclass(value, BaseException) else _fields(value)
    if fields:
        return head + ":\n" + "\n".join(f"    {line}" for line in fields)
    init = next((one for one in _class_tree(value).body if isinstance(one, Function) and one.name == "__init__"), None)
    if init is None or getattr(value, "_is_protocol", False):
        return head
    return _signature(init, value.__name__)


def _error_fields(value: type) -> list[str]:
    """Return an error's code and whether the kernel tries again by itself, then what an instance has."""
    fields = [f"{key} = {vars(value)[key]!r}" for key in ("code", "retryable") if key in vars(value)]
    trees = (_class_tree(one) for one in value.__mro__ if one.__module__.startswith(FRONT))
    inits = (item for tree in trees for item in tree.body if isinstance(item, Function) and item.name == "__init__")
    init = next(inits, None)
    if init is None:
        return fields
    arguments = init.args
    return fields + [_parameter(one, None) for one in [*arguments.args[1:], *arguments.kwonlyargs]]


def _fields(value: type) -> list[str]:
    """Return the fields of a record class with those that it inherits, as they are written."""
    if not hasattr(value, "__dataclass_fields__"):
        return []
    lines: dict[str, str] = {}
    for ancestor in reversed(value.__mro__):
        if not ancestor.__module__.startswith(FRONT):
            continue
        for item in _class_tree(ancestor).body:
            if not (isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)):
                continue
            hint, key = ast.unparse(item.annotation), item.target.id
            default = _default(item.value)
            if not key.startswith("_") and not hint.startswith("ClassVar") and default is not None:
                lines[key] = f"{key}: {hint}{default}"
    return list(lines.values())


def _default(value: ast.expr | None) -> str | None:
    """Return how a field's default is shown; None of a field that nobody gives."""
    if value is None:
        return ""
    if not (isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "field"):
        return f" = {ast.unparse(value)}"
    given = {one.arg: one.value for one in value.keywords}
    if "init" in given and ast.unparse(given["init"]) == "False":
        return None
    if "default" in given:
        return f" = {ast.unparse(given['default'])}"
    if "default_factory" not in given:
        return ""
    made = ast.unparse(given["default_factory"])
    empty = {"dict": "{}", "list": "[]", "tuple": "()"}.get(made, f"{made}()")
    return f" = {made.removeprefix('lambda: ')}" if made.startswith("lambda: ") else f" = {empty}"


def _members(value: type) -> dict[str, tuple[Function, type]]:
    """Return the methods and properties that a class adds to those of its public bases."""
    members: dict[str, tuple[Function, type]] = {}
    for ancestor in reversed(value.__mro__):
        is_described_elsewhere = ancestor is not value and ancestor.__name__ in names()
        if not ancestor.__module__.startswith(FRONT) or is_described_elsewhere:
            continue
        for item in _class_tree(ancestor).body:
            if isinstance(item, Function) and not item.name.startswith("_") and "overload" not in _decorators(item):
                members[item.name] = (item, ancestor)
    return members


def _enum_table(value: type[enum.Enum]) -> str:
    lines = inspect.getsource(sys.modules[value.__module__]).splitlines()
    rows = ["| Member | Value | Means |", "| --- | --- | --- |"]
    for item in _class_tree(value).body:
        if isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name):
            comment = lines[(item.end_lineno or item.lineno) - 1].encode()[item.end_col_offset or 0 :].decode()
            means = comment.partition("# ")[2].replace("|", "&#124;")
            rows.append(f"| `{item.targets[0].id}` | `{ast.unparse(item.value)}` | {means} |")
    return "\n".join(rows) + "\n"


def _value(name: Name) -> Iterator[str]:
    """Tell of a value or an alias what its assignment says, and the `#:` comment above it."""
    found = _assignment(name)
    if found is None:
        yield f"A value; here `{name.value!r}`.\n" if name.word != "__version__" else "The version, as text.\n"
        return
    item, comment = found
    shown = ast.unparse(item)
    if len(shown) > _LINE_CHARS and item.value is not None:
        shown = shown.removesuffix(ast.unparse(item.value)) + "..."
    yield _code(shown)
    yield from _said(comment, name)


def _assignment(name: Name) -> tuple[ast.Assign | ast.AnnAssign, str] | None:
    modules = sorted(key for key in sys.modules if key.startswith("power_loop."))
    for module in modules:
        file = getattr(sys.modules[module], "__file__", None)
        if file is None or vars(sys.modules[module]).get(name.word) is not name.value:
            continue
        for item in _tree(file).body:
            targets = item.targets if isinstance(item, ast.Assign) else [getattr(item, "target", None)]
            if isinstance(item, (ast.Assign, ast.AnnAssign)) and any(
                isinstance(target, ast.Name) and target.id == name.word for target in targets
            ):
                return item, _comment_above(file, item.lineno)
    return None


def _comment_above(file: str, lineno: int) -> str:
    lines = Path(file).read_text("utf-8").splitlines()
    said: list[str] = []
    for line in reversed(lines[: lineno - 1]):
        if not line.startswith("#:"):
            break
        said.insert(0, line.removeprefix("#:").strip())
    return "\n".join(said)


# --- reading the source ---------------------------------------------------------------------------------------------


@cache
def _tree(file: str) -> ast.Module:
    return ast.parse(Path(file).read_text("utf-8"), file)


def _class_tree(value: type) -> ast.ClassDef:
    found: Any = _tree(str(inspect.getsourcefile(value)))
    for part in value.__qualname__.split("."):
        found = next(one for one in found.body if isinstance(one, ast.ClassDef) and one.name == part)
    assert isinstance(found, ast.ClassDef)
    return found


def _definition(value: Any) -> Function:
    value = inspect.unwrap(value)
    first = value.__code__.co_firstlineno
    nodes = ast.walk(_tree(str(inspect.getsourcefile(value))))
    functions = (one for one in nodes if isinstance(one, Function))
    # A function begins with the first of its decorators.
    return next(one for one in functions if first in {one.lineno, *(item.lineno for item in one.decorator_list)})


def _decorators(item: Function) -> list[str]:
    return [ast.unparse(one).partition("(")[0].rpartition(".")[2] for one in item.decorator_list]


def _signature(item: Function, word: str, *, owner: type | None = None) -> str:
    """Return how a function is called: its parameters with hints and defaults, one a line where they are many."""
    decorators = _decorators(item)
    arguments = item.args
    returns = f" -> {ast.unparse(item.returns)}" if item.returns is not None and item.name != "__init__" else ""
    if "property" in decorators or "cached_property" in decorators:
        return f"{word}{returns.replace(' -> ', ': ')}"
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    words = [_parameter(one, default) for one, default in zip(positional, defaults, strict=True)]
    if (owner is not None or item.name == "__init__") and "staticmethod" not in decorators:
        words = words[1:]
    if arguments.posonlyargs and len(words) >= len(arguments.args):
        words.insert(len(words) - len(arguments.args), "/")
    if arguments.vararg is not None:
        words.append("*" + _parameter(arguments.vararg, None))
    elif arguments.kwonlyargs:
        words.append("*")
    words += [_parameter(*one) for one in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    if arguments.kwarg is not None:
        words.append("**" + _parameter(arguments.kwarg, None))
    kind = "async " if isinstance(item, ast.AsyncFunctionDef) else ""
    prefix = "".join(f"@{one}\n" for one in ("classmethod", "staticmethod") if one in decorators)
    line = f"{kind}{word}({', '.join(words)}){returns}"
    if len(line) > _LINE_CHARS:
        line = f"{kind}{word}(\n" + "".join(f"    {one},\n" for one in words) + f"){returns}"
    return prefix + line


def _parameter(item: ast.arg, default: ast.expr | None) -> str:
    hint = f": {ast.unparse(item.annotation)}" if item.annotation is not None else ""
    equals = " = " if hint else "="
    return f"{item.arg}{hint}" + (f"{equals}{ast.unparse(default)}" if default is not None else "")


# --- words ----------------------------------------------------------------------------------------------------------


def _code(text: str) -> str:
    return f"```py\n{text}\n```\n"


def _said(docstring: str | None, name: Name) -> Iterator[str]:
    if docstring and docstring.strip():
        yield linked(_blocks(inspect.cleandoc(docstring)), name) + "\n"


def _blocks(text: str) -> str:
    """Return a docstring with its indented parts, which are code, in fences."""
    parts: list[str] = []
    for part in text.split("\n\n"):
        is_code = all(line.startswith("    ") for line in part.split("\n"))
        parts.append(f"```py\n{textwrap.dedent(part)}\n```" if is_code else part)
    return "\n\n".join(parts)


def linked(text: str, name: Name) -> str:
    """Return a text in which public names and codes of errors lead to where they are described."""

    def link(found: re.Match[str]) -> str:
        word = found["word"]
        target = error_words().get(word) or (word if word in names() else word.partition(".")[0])
        if target == name.word or target not in names():
            return found[0]
        return link_to(target, shown=word)

    lines: list[str] = []
    is_fenced = False
    for line in text.split("\n"):
        is_fenced ^= bool(_FENCE.match(line))
        lines.append(line if is_fenced else _WORD.sub(link, line))
    return "\n".join(lines)
