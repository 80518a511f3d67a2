"""Prints what of the docs comes from the code: the floor plan, names, errors, events, hooks, workflows, examples.

A printed part stands between `<!-- printed: NAME -->` and `<!-- end: NAME -->`. With `--check` nothing is written and
the exit code tells whether every part is what the code says. Whole files come from the code as well.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import re
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from scripts import api_pages, state_picture

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "power_loop"
DOCS = ROOT / "docs"
EXAMPLES = ROOT / "examples"

# The floors from the ground up, as DESIGN numbers them; a folder that does not exist is not built.
FLOORS = (
    (1, ("contracts",)),
    (2, ("runtime",)),
    (3, ("tools",)),
    (4, ("core",)),
    (5, ("agent",)),
    (6, ("workflow",)),
    (7, ("contrib", "cli", "testing")),
)
# Options that say the same wherever they are.
_COMMON_OPTIONS = ("--help", "--dsn", "--table-prefix", "--json")
# The chapters of the examples: the first digit of a program's number is that of its chapter.
CHAPTERS = (
    "First steps",
    "Tools, and what a crash leaves of them",
    "People and rules",
    "What the model sees",
    "Files and commands",
    "Many agents",
    "Timers and services",
    "Databases, archives, years",
    "Other software",
    "Tests, and a whole program",
)
_PART = re.compile(r"(<!-- printed: (?P<name>[\w-]+) -->\n).*?(<!-- end: (?P=name) -->)", re.DOTALL)
_SENTENCE = re.compile(r"(.+?[.!?])(?=\s|$)")


def first_sentence(docstring: str | None) -> str:
    """Return the first sentence of a docstring on one line; of a first paragraph without a full stop, the whole."""
    paragraph = " ".join((docstring or "").strip().split("\n\n")[0].split())
    found = _SENTENCE.match(paragraph)
    return found[1] if found else paragraph


def module_sentence(path: Path) -> str:
    """Return the sentence that a file opens with, without importing it."""
    return first_sentence(ast.get_docstring(ast.parse(path.read_text("utf-8"), str(path))))


# --- the floor plan -------------------------------------------------------------------------------------------------


def floor_plan() -> str:
    """Return every floor with its rooms, each in the words of its own first sentence."""
    blocks = [f"`power_loop/` · {module_sentence(PACKAGE / '__init__.py')}"]
    for number, folders in FLOORS:
        for folder in folders:
            place = PACKAGE / folder
            if place.is_dir():
                blocks.append("\n".join([f"### {number} · `{folder}/`", "", *_rooms(place)]))
            elif place.with_suffix(".py").is_file():
                sentence = module_sentence(place.with_suffix(".py"))
                blocks.append(f"### {number} · `{folder}.py`\n\n{sentence}")
    return "\n\n".join(blocks)


def _rooms(folder: Path, depth: int = 0) -> Iterator[str]:
    """Yield a folder's own sentence, then a line a file, then its folders the same way."""
    sentence = module_sentence(folder / "__init__.py")
    if depth == 0:
        yield from (sentence, "")
    else:
        yield f"{'  ' * (depth - 1)}- **`{folder.name}/`** · {sentence}"
    indent = "  " * depth
    for path in sorted(folder.glob("*.py")):
        if path.name != "__init__.py":
            yield f"{indent}- `{path.stem}` · {module_sentence(path)}"
    for inner in sorted(folder.iterdir()):
        if (inner / "__init__.py").is_file():
            yield from _rooms(inner, depth + 1)


# --- names of the API -----------------------------------------------------------------------------------------------


def stable_api() -> str:
    """Return a table of the shelves, and one of the names that the front hands on, with what each is."""
    face = importlib.import_module("power_loop")
    public = api_pages.names()
    shelves = []
    for shelf in api_pages.shelves():
        module = f"power_loop.{shelf}".rstrip(".")
        said = first_sentence(importlib.import_module(module).__doc__)
        count = sum(1 for name in face.STABLE_API if name.rpartition(".")[0] == shelf)
        count = count or len(importlib.import_module(module).__all__)
        shelves.append((f"[`{module}`]({shelf or api_pages.FRONT}.md)", str(count), said))
    front = [public[name] for name in face.STABLE_API if "." not in name]
    rows = [
        (f"[`{name.word}`]({name.page}#{name.anchor})", _kind(name.value), _sentence_of(name.value))
        for name in sorted(front, key=lambda name: name.word.lower())
    ]
    return "\n\n".join(
        (
            _table(("Module", "Names", "What it says of itself"), shelves),
            "### The front",
            _table(("Name", "Is", "What it says of itself"), rows),
        )
    )


def _is_class(value: object) -> bool:
    # On Python 3.10 an alias such as `Callable[[int], None]` counts as a type.
    return isinstance(value, type) and not isinstance(value, types.GenericAlias)


def _kind(value: object) -> str:
    if isinstance(value, type) and _is_class(value):
        return "error" if issubclass(value, BaseException) else "class"
    return "function" if callable(value) and hasattr(value, "__code__") else "value"


def _sentence_of(value: object) -> str:
    """Return the first sentence of a class's or function's own docstring; a plain value has none."""
    if not hasattr(value, "__module__") or not (_is_class(value) or hasattr(value, "__code__")):
        return ""
    return first_sentence(value.__doc__)


def error_codes() -> str:
    """Return a table of every error code with its class, and whether the kernel tries again by itself."""
    errors = importlib.import_module("power_loop.contracts.errors")
    rows = []
    for error in _classes(errors, errors.PowerLoopError):
        if "code" not in vars(error):
            continue  # a branch of the tree that is never raised itself
        retried = "yes" if getattr(error, "retryable", False) else ""
        rows.append((f"`{error.code}`", _described(error), retried, first_sentence(error.__doc__)))
    return _table(("Code", "Class", "Retryable", "Meaning"), rows)


def event_types() -> str:
    """Return a table of every event with its payload's fields."""
    events = importlib.import_module("power_loop.contracts.events")
    rows = []
    for payload in _classes(events, events.EventPayload):
        if payload.type:
            fields = ", ".join(f"`{name}`" for name in payload.__dataclass_fields__)
            durable = "yes" if payload.is_durable else "no"
            rows.append((f"`{payload.type}`", _described(payload), fields, durable, first_sentence(payload.__doc__)))
    return _table(("Type", "Payload", "Fields", "Durable", "Meaning"), rows)


def hook_points() -> str:
    """Return a table of every hook point with its context and the decisions that it allows."""
    hooks = importlib.import_module("power_loop.contracts.hooks")
    rows = []
    for context in _classes(hooks, hooks.HookContext):
        if hasattr(context, "point"):
            allowed = ", ".join(f"`{decision.__name__}`" for decision in context.allows)
            meaning = first_sentence(context.__doc__)
            rows.append((f"`{context.point.value}`", f"`{context.__name__}`", allowed or "only tells", meaning))
    return _table(("Point", "Context", "May decide", "When"), rows)


def workflow_nodes() -> str:
    """Return a table for each kind of node of a workflow, and one for what all of them may have."""
    grammar = importlib.import_module("power_loop.workflow.grammar")
    blocks = [_keys_of("Any node", "What every node may have.", grammar.COMMON)]
    for kind, record in grammar.NODES.items():
        own = [key for key in record.keys if key not in grammar.COMMON and key.name != "type"]
        blocks.append(_keys_of(f"`{kind}`", record.doc, own))
    return "\n\n".join(blocks)


def command_options() -> str:
    """Return a table of the commands with the options that not all of them have."""
    parser = importlib.import_module("power_loop.cli.main").make_parser()
    rows = []
    for command in importlib.import_module("power_loop.cli.completion").commands_of(parser, ()):
        if command.path and not command.commands:
            names = [max(option.names, key=len) for option in command.options]
            words = [*command.values, *(name for name in names if name not in _COMMON_OPTIONS)]
            rows.append((f"`{' '.join(command.path)}`", command.help, ", ".join(f"`{word}`" for word in words)))
    return _table(("Command", "What it does", "What it takes beside them"), rows)


def _keys_of(title: str, doc: str, keys: Sequence[Any]) -> str:
    rows = []
    for key in keys:
        default = f" Default `{json.dumps(key.default)}`." if key.default is not None else ""
        needed = " Needed." if key.is_required else ""
        rows.append((f"`{key.name}`", key.kind.expected, f"{key.doc}{needed}{default}"))
    return f"### {title}\n\n{doc}\n\n{_table(('Key', 'Takes', 'Is'), rows)}"


def crash_figures() -> str:
    """Return what the crash matrix came to, in a sentence."""
    page = (DOCS / "en" / "crash-matrix.md").read_text("utf-8")
    found = re.search(r"\*\*(?P<figures>[\d,]+ histories, [\d,]+ [^*]+)\*\* on (?P<databases>.+)", page)
    assert found is not None
    # A distribution's own number says no more than the version.
    databases = re.sub(r"[-+]\S*?(?=,|\.$)", "", found["databases"])
    return f"**{found['figures']}**, on {databases.rstrip('.')}."


def ddl(dsn: str) -> str:
    """Return the statements that make the tables on a kind of database, as a file."""
    said = "-- What `power-loop ddl` prints; tables are called pl_… unless a table_prefix says otherwise.\n\n"
    return said + str(importlib.import_module("power_loop.storage").schema_ddl(dsn)).strip() + "\n"


def workflow_schema() -> str:
    """Return the JSON Schema of workflows, as a file."""
    schema = importlib.import_module("power_loop.workflow.schema").WORKFLOW_SCHEMA
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def _described(value: type) -> str:
    """Return a class's name, leading to where it is described."""
    word = value.__name__
    return api_pages.link_to(word) if word in api_pages.names() else f"`{word}`"


def examples() -> str:
    """Return the examples by chapter, each in the words of its own first sentence."""
    blocks = []
    for number, title in enumerate(CHAPTERS):
        programs = sorted(EXAMPLES.glob(f"{number}[0-9]_*.py"))
        lines = [f"- [`{path.name}`]({path.name}) {module_sentence(path)}" for path in programs]
        blocks.append("\n".join([f"### {title}", "", *lines]))
    return "\n\n".join(blocks)


def _classes(module: ModuleType, root: type) -> list[Any]:
    """Return the classes of `module` below and with `root`, in the order of the file."""
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, root) and value.__module__ == module.__name__
    ]


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)


# --- printing -------------------------------------------------------------------------------------------------------

PARTS: dict[str, Callable[[], str]] = {
    "floor-plan": floor_plan,
    "stable-api": stable_api,
    "error-codes": error_codes,
    "event-types": event_types,
    "hook-points": hook_points,
    "workflow-nodes": workflow_nodes,
    "command-options": command_options,
    "crash-figures": crash_figures,
    "examples": examples,
}

#: Whole files that come from the code.
FILES: dict[str, Callable[[], str]] = {
    "en/workflow.schema.json": workflow_schema,
    "en/pictures/call-states.svg": state_picture.call_states,
    "en/ddl/sqlite.sql": partial(ddl, "app.db"),
    "en/ddl/postgresql.sql": partial(ddl, "postgresql://"),
    "en/ddl/mysql.sql": partial(ddl, "mysql://"),
    **api_pages.pages(),
}


def printed(text: str) -> str:
    """Return a page with every part between its markers printed again. Raises KeyError for an unknown part."""

    def print_part(found: re.Match[str]) -> str:
        return f"{found[1]}\n{PARTS[found['name']]()}\n\n{found[3]}"

    return _PART.sub(print_part, text)


def main() -> int:
    """Print every part into its page, or check them all."""
    parser = argparse.ArgumentParser(prog="python -m scripts.print_architecture", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page is out of date")
    check = parser.parse_args().check
    pages = [
        path
        for path in [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md")), EXAMPLES / "README.md"]
        if "<!-- printed: " in path.read_text("utf-8")
    ]
    stale = []
    for page in pages:
        before = page.read_text("utf-8")
        after = printed(before)
        if after != before:
            stale.append(page.relative_to(ROOT))
            if not check:
                page.write_text(after, "utf-8")
    for name, content in FILES.items():
        file = DOCS / name
        if not file.is_file() or file.read_text("utf-8") != content():
            stale.append(file.relative_to(ROOT))
            if not check:
                file.write_text(content(), "utf-8")
    names = ", ".join(map(str, stale))
    if check and stale:
        print(f"not what the code says: {names}: run `make docs-print`")
        return 1
    print(f"printed: {names}" if stale else f"{len(pages) + len(FILES)} pages say what the code says")
    return 0


if __name__ == "__main__":
    sys.exit(main())
