"""Says what a worker makes a leaf's agent of: its model, its tools, and the folders that these may touch."""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from power_loop.contracts.errors import ConfigError
from power_loop.contracts.frozen import frozen
from power_loop.runtime.host.environment import DEFAULT_VARIABLES, RuntimeEnv, checked_environment, checked_variables
from power_loop.runtime.llm.config import LLMProviderConfig, config_from_env
from power_loop.tools.presets import ToolPreset, tool_preset

#: The model of a worker whose calls are made by its parent.
PROXY = "proxy"
_VENDOR_VARIABLES = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL")


@frozen
class WorkerBootstrap:
    """Says what a worker makes a leaf's agent of.

    The model: with `llm="proxy"` (the default) the parent makes the calls, with its own model and under its budget and
    hooks, and the worker has neither key nor network; with `llm_from_env` the worker has what this process's
    environment says of the model; any other `llm` is a function as `"module:name"` that returns an `LLMService`.

    The tools: those of `tool_preset` (default None: none) and those that the function `tools`, a `"module:name"`,
    returns for a `RuntimeEnv`; a leaf has those of them that its `AgentSpec` names (all, where it names none). They
    work in `workspace` (default None: a folder of the leaf's own, which is empty at first) and read
    `read_only_roots`. Processes that they start have the variables of this process that `variables` names, and
    `environment`.

    `import_paths` are more folders in which modules are found. `shares_network` leaves the network to a worker with a
    proxy that no launcher takes it from. Raises `config.invalid`.
    """

    llm_from_env: bool = False
    llm: str | None = None
    tool_preset: str | None = None
    tools: str | None = None
    workspace: str | None = None
    read_only_roots: tuple[str, ...] = ()
    variables: tuple[str, ...] = DEFAULT_VARIABLES
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    import_paths: tuple[str, ...] = ()
    shares_network: bool = False

    if TYPE_CHECKING:  # what is given may be wider than what is kept

        def __init__(
            self,
            llm_from_env: bool = False,
            llm: str | None = None,
            tool_preset: ToolPreset | str | None = None,
            tools: str | None = None,
            workspace: str | os.PathLike[str] | None = None,
            read_only_roots: list[str] | list[Path] | tuple[str | os.PathLike[str], ...] = (),
            variables: list[str] | tuple[str, ...] = DEFAULT_VARIABLES,
            environment: Mapping[str, str] = ...,
            import_paths: list[str] | list[Path] | tuple[str | os.PathLike[str], ...] = (),
            shares_network: bool = False,
        ) -> None: ...

    def __post_init__(self) -> None:
        put: Any = object.__setattr__
        preset: Any = self.tool_preset
        if preset is not None:
            if preset not in [one.value for one in ToolPreset]:
                names = ", ".join(repr(one.value) for one in ToolPreset)
                raise ConfigError(f"there is no tool preset {preset!r:.200}: give one of {names}")
            put(self, "tool_preset", ToolPreset(preset).value)
        if self.llm_from_env and self.llm is not None:
            raise ConfigError(f"llm_from_env and llm={self.llm!r:.200} are both given: give one of them")
        for name in ("llm", "tools"):
            value: Any = getattr(self, name)
            if value is not None and not (name == "llm" and value == PROXY) and not _is_reference(value):
                raise ConfigError(f"{name} is {value!r:.200}: give a function as 'module:name'")
        if self.workspace is not None:
            workspace: Any = self.workspace
            if not isinstance(workspace, (str, os.PathLike)) or not os.path.isdir(workspace):
                raise ConfigError(f"workspace {workspace!r:.200} is no folder: give the path of one, or None")
            put(self, "workspace", os.path.realpath(os.fspath(workspace)))
        for name in ("read_only_roots", "import_paths"):
            many: Any = getattr(self, name)
            if not isinstance(many, (list, tuple)) or not all(isinstance(one, (str, os.PathLike)) for one in many):
                raise ConfigError(f"{name} is {many!r:.200}: give a list of folders")
            put(self, name, tuple(os.path.realpath(os.fspath(one)) for one in many))
        put(self, "variables", checked_variables(self.variables))
        put(self, "environment", checked_environment(self.environment))

    @property
    def is_proxied(self) -> bool:
        """True if the parent makes the model calls."""
        return not self.llm_from_env and self.llm in (None, PROXY)

    def model_variables(self) -> dict[str, str]:
        """Return the variables of this process that say what its model is; nothing where a worker needs none. Raises
        `config.invalid` where they name no model."""
        if not self.llm_from_env:
            return {}
        config_from_env()
        fields = LLMProviderConfig.__shape__.names  # type: ignore[attr-defined]
        names = [*(f"POWER_LOOP_{name.upper()}" for name in fields), *_VENDOR_VARIABLES]
        return {name: os.environ[name] for name in names if name in os.environ}

    def environment_in(self, workspace: str) -> RuntimeEnv:
        """Return what the tools of a leaf may touch."""
        return RuntimeEnv(
            workspace,
            read_only_roots=self.read_only_roots,
            variables=self.variables,
            environment=self.environment,
        )

    def tools_in(self, env: RuntimeEnv) -> list[Any]:
        """Return the tools that there are for leaves."""
        tools: list[Any] = [] if self.tool_preset is None else list(tool_preset(self.tool_preset, env))
        return tools if self.tools is None else [*tools, *found(self.tools)(env)]


def tool_names(bootstrap: WorkerBootstrap) -> tuple[str, ...] | None:
    """Return the names of the tools that there are for leaves; None where a function makes them, which runs in
    workers."""
    if bootstrap.tools is not None:
        return None
    env = bootstrap.environment_in(tempfile.gettempdir())
    return tuple(sorted(one.name for one in bootstrap.tools_in(env)))


def found(reference: str) -> Any:
    """Return the function that a reference names. Raises `config.invalid`."""
    module, _, name = reference.partition(":")
    try:
        value: Any = importlib.import_module(module)
        for part in name.split("."):
            value = getattr(value, part)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"{reference!r} is not found in a worker: {error}; add the folder of the module to"
            " WorkerBootstrap(import_paths=...)"
        ) from error
    return value


def _is_reference(value: Any) -> bool:
    return isinstance(value, str) and all(all(part.isidentifier() for part in one.split(".")) for one in _halves(value))


def _halves(value: str) -> list[str]:
    halves = value.split(":")
    return halves if len(halves) == 2 else [""]
