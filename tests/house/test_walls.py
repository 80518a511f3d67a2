"""The core stands on the standard library alone, and nothing in it prints, evaluates or unpickles."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import power_loop

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "power_loop"
LIMIT_S = 150

# Adapters of optional packages import them inside a function; every module is importable without them.
IMPORT_ALL = """
import importlib, pkgutil, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top != "power_loop":
            raise ModuleNotFoundError(f"{name} is not in the standard library", name=name)

sys.meta_path.insert(0, Blocked())
sys.path.insert(0, sys.argv[1])
import power_loop
count = 1
for module in pkgutil.walk_packages(power_loop.__path__, "power_loop."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
        count += 1
print(count)
"""

OPENED_BY_IMPORT = """
import os, sys, threading

def descriptors():
    return set(os.listdir("/dev/fd"))

before, threads = descriptors(), threading.active_count()
import power_loop
assert threading.active_count() == threads, threading.enumerate()
assert descriptors() == before
tops = {name.partition(".")[0] for name in sys.modules}
print(sorted(tops & {"openai", "anthropic", "aiohttp", "httpx", "httpx2", "pydantic", "sqlite3"}))
"""

FORBIDDEN_CALLS = {"eval", "exec", "print", "breakpoint", "input", "__import__"}
FORBIDDEN_IMPORTS = {"pickle", "marshal", "shelve", "dill", "imp"}


def run_python(program: str, *arguments: str, isolated: bool = False) -> subprocess.CompletedProcess[str]:
    # -S leaves site-packages out altogether; the blocker is for what a Python distribution may have put elsewhere.
    options = ["-I", "-S"] if isolated else []
    command = [sys.executable, *options, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)


def sources() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path, ast.parse(path.read_text("utf-8"), str(path))


@pytest.mark.promise("no-dependencies")
def test_every_module_imports_with_the_standard_library_alone() -> None:
    done = run_python(IMPORT_ALL, str(PACKAGE.parent), isolated=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == sum(path.name != "__main__.py" for path, _ in sources())


@pytest.mark.promise("light-import")
def test_importing_the_package_opens_nothing_and_loads_no_sdk() -> None:
    done = run_python(OPENED_BY_IMPORT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_no_module_evaluates_prints_or_reads_pickles() -> None:
    found = []
    for path, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_CALLS:
                found.append(f"{path.name}:{node.lineno} {node.func.id}")
            if isinstance(node, ast.Import):
                found += [
                    f"{path.name}:{node.lineno} {name.name}" for name in node.names if name.name in FORBIDDEN_IMPORTS
                ]
            if isinstance(node, ast.ImportFrom) and node.module in FORBIDDEN_IMPORTS:
                found.append(f"{path.name}:{node.lineno} {node.module}")
    assert found == []


@pytest.mark.promise("nothing-global")
def test_no_module_keeps_a_changing_global() -> None:
    """A `global` statement is how a module changes its state; the registry of open databases is the one that may."""
    found = [
        f"{path.name}:{node.lineno}"
        for path, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Global) and path.relative_to(PACKAGE).as_posix() != "runtime/store/open.py"
    ]
    assert found == []


@pytest.mark.parametrize("room", ["contrib", "testing"])
def test_what_users_could_have_written_imports_public_names_only(room: str) -> None:
    """`power_loop.contrib` and `power_loop.testing` are written as a user would write them, so that any user could."""
    shelves = {f"power_loop.{path.stem}" for path in PACKAGE.glob("[a-z]*.py")} | {
        "power_loop.tools",
        "power_loop.workflow",
    }
    found = []
    for path, tree in sources():
        if path.relative_to(PACKAGE).parts[0] != room:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found += [f"{path.name}: {one.name}" for one in node.names if one.name.startswith("power_loop.")]
            if not isinstance(node, ast.ImportFrom) or not str(node.module).startswith("power_loop"):
                continue
            if node.module == "power_loop":
                found += [f"{path.name}: {name.name}" for name in node.names if name.name not in power_loop.__all__]
            elif not str(node.module).startswith(f"power_loop.{room}") and node.module not in shelves:
                found.append(f"{path.name}:{node.lineno} {node.module}")
    assert found == []
