"""Where a class tells type checkers that more may be given than is kept, its parameters are its fields all the same."""

from __future__ import annotations

import ast
from importlib.resources import files
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "power_loop"
# What of a class is kept as something narrower than what may be given.
WIDER = {
    "AgentSpec": {"permission_mode", "lifecycle"},
    "Cron": {"missed"},
    "Every": {"missed"},
    "LoopConfig": {"on_unknown"},
    "PermissionPolicy": {"rules", "mode"},
    "PermissionRule": {"permission"},
    "RuntimeEnv": {"workspace", "read_only_roots", "home", "variables", "protected", "unsearched"},
    "ToolResult": {"content"},
    "ToolDefinition": {"effect", "on_unknown"},
    "WorkerBootstrap": {"tool_preset", "workspace", "read_only_roots", "variables", "import_paths"},
}
Parameter = tuple[str, str, "str | None"]


def told() -> dict[str, tuple[list[Parameter], list[Parameter]]]:
    """Return the fields and the told parameters of each class that tells some: name, type, default."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text("utf-8")
        for node in ast.walk(ast.parse(text)) if "if TYPE_CHECKING:" in text else ():
            if isinstance(node, ast.ClassDef) and (method := told_method(node)) is not None:
                found[node.name] = (fields_of(node), parameters_of(method))
    return found


def told_method(node: ast.ClassDef) -> ast.FunctionDef | None:
    for one in node.body:
        if isinstance(one, ast.If) and ast.unparse(one.test) == "TYPE_CHECKING":
            (method,) = one.body
            assert isinstance(method, ast.FunctionDef)
            assert method.name == "__init__"
            return method
    return None


def fields_of(node: ast.ClassDef) -> list[Parameter]:
    fields = [one for one in node.body if isinstance(one, ast.AnnAssign)]
    return [(ast.unparse(one.target), ast.unparse(one.annotation), default_of(one.value)) for one in fields]


def default_of(value: ast.expr | None) -> str | None:
    """Return a field's default as its parameter shows it: `...` for what is made anew each time."""
    if not isinstance(value, ast.Call) or ast.unparse(value.func) != "field":
        return None if value is None else ast.unparse(value)
    given = {one.arg: ast.unparse(one.value) for one in value.keywords}
    return given.get("default", "...")


def parameters_of(method: ast.FunctionDef) -> list[Parameter]:
    given = method.args
    assert [*given.kwonlyargs, *given.posonlyargs, given.vararg, given.kwarg] == [None, None]
    names = given.args[1:]
    defaults = [None] * (len(names) - len(given.defaults)) + [ast.unparse(one) for one in given.defaults]
    return [
        (one.arg, ast.unparse(one.annotation), default)
        for one, default in zip(names, defaults, strict=True)
        if one.annotation is not None
    ]


TOLD = told()


def test_the_classes_that_take_more_than_they_keep_say_so() -> None:
    assert sorted(TOLD) == sorted(WIDER)


@pytest.mark.parametrize("name", sorted(TOLD))
def test_the_parameters_are_the_fields(name: str) -> None:
    fields, parameters = TOLD[name]
    assert [(name, default) for name, _, default in parameters] == [(name, default) for name, _, default in fields]
    differ = {field[0] for field, parameter in zip(fields, parameters, strict=True) if field[1] != parameter[1]}
    assert differ == WIDER[name]


def test_type_checkers_of_users_read_the_package() -> None:
    assert files("power_loop").joinpath("py.typed").is_file()
