"""A registry holds tools by name, in order, and is safe to share while it changes."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import pytest

from power_loop.contracts.errors import ConfigError, ToolDefinitionError
from power_loop.contracts.tools import ToolDefinition
from power_loop.tools.decorator import tool
from power_loop.tools.registry import ToolRegistry


def _definition(name: str) -> ToolDefinition:
    return ToolDefinition(name, f"Is {name}.", {"type": "object"})


@tool
def add(left: int, right: int) -> int:
    """Add two numbers."""
    return left + right


def plain(text: str) -> str:
    """Give it back."""
    return text


def test_definitions_and_functions_are_kept_in_order() -> None:
    registry = ToolRegistry([_definition("b"), add, plain])
    assert registry.names == ("b", "add", "plain")
    assert [definition.name for definition in registry] == ["b", "add", "plain"]
    assert len(registry) == 3
    assert registry.get("add") is add
    assert registry.get("Add") is None
    assert "plain" in registry
    assert "missing" not in registry
    assert [spec.name for spec in registry.specs()] == ["b", "add", "plain"]
    prepared = registry.prepared("add")
    assert prepared is not None
    assert prepared.definition is add
    assert registry.prepared("missing") is None


def test_both_decorator_forms_register() -> None:
    registry = ToolRegistry()

    @registry.tool
    def bare(value: int) -> int:
        """Be bare."""
        return value

    @registry.tool(name="other", effect="read")
    def with_options(value: int) -> int:
        """Have options."""
        return value + 1

    assert registry.names == ("bare", "other")
    assert registry.get("other") is with_options
    assert (bare(1), with_options(1)) == (1, 2)
    with pytest.raises(ToolDefinitionError, match="taken"):
        registry.tool(name="other")(bare.handler)
    registry.tool(name="other", replace=True)(bare.handler)
    assert registry.names == ("bare", "other")


def test_a_taken_name_is_refused_unless_it_is_replaced_in_its_place() -> None:
    registry = ToolRegistry([_definition("a"), _definition("b")])
    with pytest.raises(ToolDefinitionError, match="replace=True"):
        registry.register(_definition("a"))
    newer = registry.register(_definition("a"), replace=True)
    assert registry.get("a") is newer
    assert registry.names == ("a", "b")


def test_registering_the_same_definition_twice_changes_nothing() -> None:
    registry = ToolRegistry([add])
    specs = registry.specs()
    assert registry.register(add) is add
    assert registry.specs() is specs


def test_a_tool_that_cannot_be_offered_changes_nothing() -> None:
    registry = ToolRegistry([add])
    for bad in (_definition("fs.read"), lambda x: x, 3):
        with pytest.raises(ToolDefinitionError):
            registry.register(bad)  # type: ignore[arg-type]
    assert registry.names == ("add",)


def test_unregister_gives_the_definition_back() -> None:
    registry = ToolRegistry([add, plain])
    assert registry.unregister("add") is add
    assert registry.names == ("plain",)
    with pytest.raises(ConfigError, match="no tool 'add'"):
        registry.unregister("add")


def test_specs_are_the_same_objects_until_the_registry_changes() -> None:
    registry = ToolRegistry([add, plain])
    before = registry.specs()
    assert registry.specs() is before
    registry.register(_definition("c"))
    after = registry.specs()
    assert after is not before
    assert after[0] is before[0]
    # Two registries that hold one definition share what a wire remembers of its spec.
    assert ToolRegistry([add]).specs()[0] is before[0]


def test_a_subset_keeps_the_order_the_specs_and_its_own_life() -> None:
    registry = ToolRegistry([add, plain, _definition("c")])
    part = registry.subset(["c", "add"])
    assert part.names == ("add", "c")
    assert part.specs() is registry.subset(("add", "c")).specs()
    assert part.specs()[0] is registry.specs()[0]
    assert registry.subset(registry.names).specs() is registry.specs()
    part.register(_definition("d"))
    assert "d" not in registry
    assert "d" not in registry.subset(["c", "add"])
    registry.unregister("add")
    assert "add" in part
    assert registry.subset([]).specs() == ()


def test_many_subsets_are_not_all_remembered() -> None:
    registry = ToolRegistry([_definition(f"t{at}") for at in range(200)])
    for at in range(200):
        assert registry.subset([f"t{at}"]).names == (f"t{at}",)
    assert len(registry._tools._subsets) <= 64


def test_a_subset_of_unknown_names_names_them_all() -> None:
    registry = ToolRegistry([add, plain])
    with pytest.raises(ConfigError, match=r"'ad': did you mean 'add'\?; .*'zzz': the tools are add, plain"):
        registry.subset(["ad", "add", "zzz"])
    with pytest.raises(ConfigError, match="is one text"):
        registry.subset("add")


def test_an_unknown_name_is_answered_with_those_that_come_close() -> None:
    registry = ToolRegistry([_definition(name) for name in ("read_file", "search_web")])
    assert registry.unknown_name_text("read_fil") == "there is no tool 'read_fil': did you mean 'read_file'?"
    assert "'read_file'" in registry.unknown_name_text("functions.read_file")
    assert registry.unknown_name_text("sh\u200b") == "there is no tool 'sh\\u200b': the tools are read_file, search_web"
    assert ToolRegistry().unknown_name_text("x") == "there is no tool 'x': no tools are registered"
    assert len(registry.unknown_name_text("x" * 100_000)) < 300
    many = ToolRegistry([_definition(f"tool_{at:03}") for at in range(100)])
    assert many.unknown_name_text("q").endswith("tool_029, …")


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (None, ()),
        (add, ("add",)),
        (plain, ("plain",)),
        ([add, plain], ("add", "plain")),
        (iter([add]), ("add",)),
    ],
)
def test_what_means_tools_becomes_a_registry(value: Any, names: tuple[str, ...]) -> None:
    assert ToolRegistry.of(value).names == names


def test_a_registry_stays_itself() -> None:
    registry = ToolRegistry([add])
    assert ToolRegistry.of(registry) is registry


@pytest.mark.parametrize("value", [3, "add", b"add", {"add": add}])
def test_what_means_no_tools_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match="give a ToolRegistry, or a list"):
        ToolRegistry.of(value)


def test_two_tools_of_one_name_in_a_list_are_refused() -> None:
    with pytest.raises(ToolDefinitionError, match="taken"):
        ToolRegistry.of([_definition("a"), dataclasses.replace(_definition("a"), description="Another.")])


def test_readers_see_whole_sets_while_threads_change_the_registry() -> None:
    registry = ToolRegistry([_definition("first")])
    start = threading.Barrier(5)
    seen: list[bool] = []

    def change(worker: int) -> None:
        start.wait()
        for at in range(50):
            registry.register(_definition(f"w{worker}_{at}"))
            if at % 2:
                registry.unregister(f"w{worker}_{at}")

    def read() -> None:
        start.wait()
        for _ in range(500):
            specs, definitions = registry.specs(), list(registry)
            seen.append(specs[0].name == definitions[0].name == "first")

    threads = [threading.Thread(target=change, args=(worker,)) for worker in range(4)] + [threading.Thread(target=read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert seen == [True] * 500
    assert len(registry) == 1 + 4 * 25
