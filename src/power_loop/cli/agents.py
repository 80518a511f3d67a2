"""Gives a command the agent that it drives: the application's own loop, or one made of a model and a set of tools."""

from __future__ import annotations

import argparse
import importlib
import inspect
import sys
import traceback
from pathlib import Path
from typing import Any

from power_loop import (
    LLMRequest,
    LLMResponse,
    LoopConfig,
    PermissionMode,
    PermissionPolicy,
    PowerLoopError,
    RuntimeEnv,
    SchemaPolicy,
    StatefulAgentLoop,
    ToolPreset,
    create_llm_service_from_env,
    tool_preset,
)
from power_loop.cli.store_options import dsn_of
from power_loop.errors import ConfigError
from power_loop.llm import Emit, ModelInfo
from power_loop.workflow import drive_runs

#: What is offered to the model without `--tools`.
NO_TOOLS = "none"


def add_agent_options(parser: argparse.ArgumentParser) -> None:
    """Give a subcommand `--app`, and the options of an agent that is made without one."""
    add_app_option(parser, "use")
    own = parser.add_argument_group("without --app", "the model is that of POWER_LOOP_MODEL, POWER_LOOP_BASE_URL, …")
    own.add_argument(
        "--tools",
        choices=(NO_TOOLS, *(one.value for one in ToolPreset)),
        default=NO_TOOLS,
        help="what the model may do: explore looks at files, core also writes them and runs commands, full has all"
        " (none)",
    )
    own.add_argument("--folder", type=Path, metavar="DIR", default=Path(), help="the folder that the tools work in (.)")
    own.add_argument(
        "--permissions",
        choices=tuple(one.value for one in PermissionMode),
        default=PermissionMode.ASK_WRITES.value,
        help="which calls you are asked about (ask_writes: all that do more than read)",
    )


def add_app_option(parser: argparse.ArgumentParser, does: str, *, is_required: bool = False) -> None:
    """Give a subcommand `--app`; `does` says what becomes of the loop."""
    parser.add_argument(
        "--app",
        metavar="MODULE:LOOP",
        required=is_required,
        help=f"{does} this StatefulAgentLoop, or the one that this callable returns, which is given the DSN if it takes"
        " one",
    )


async def agent_of(given: argparse.Namespace, *, may_create: bool = False) -> StatefulAgentLoop:
    """Return the loop of a command that drives an agent. Raises `config.invalid`."""
    if given.app is not None:
        return await application_loop(given)
    tools = () if given.tools == NO_TOOLS else tool_preset(given.tools, RuntimeEnv(given.folder))
    return StatefulAgentLoop(
        llm=create_llm_service_from_env(),
        dsn=dsn_of(given),
        table_prefix=given.table_prefix,
        schema=SchemaPolicy.AUTO_CREATE if may_create else SchemaPolicy.VERIFY,
        config=LoopConfig(permissions=PermissionPolicy(mode=given.permissions)),
        tool_registry=tools,
    )


def looking_loop(given: argparse.Namespace) -> StatefulAgentLoop:
    """Return a loop that only looks: it has no model, and makes no tables."""
    return StatefulAgentLoop(
        llm=_NoModel(), dsn=dsn_of(given), table_prefix=given.table_prefix, schema=SchemaPolicy.VERIFY
    )


async def application_loop(given: argparse.Namespace) -> StatefulAgentLoop:
    """Return the loop that `--app` names, which then drives the runs of workflows too. Raises `config.invalid`."""
    name = given.app
    made = _named(name)
    try:
        if not isinstance(made, StatefulAgentLoop):
            takes_dsn = bool(inspect.signature(made).parameters)
            made = made(dsn_of(given)) if takes_dsn else made()
        if inspect.isawaitable(made):
            made = await made
    except PowerLoopError:
        raise
    except Exception as error:  # the application's code
        raise ConfigError(f"--app {name!r} raised {_told(error)}") from error
    if not isinstance(made, StatefulAgentLoop):
        raise ConfigError(f"{name} returned {made!r:.200}: it has to return a StatefulAgentLoop")
    drive_runs(made)
    return made


def _named(name: str) -> Any:
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise ConfigError(f"--app is {name!r}: give MODULE:LOOP, such as my_app.agents:make_loop")
    # As `python -m` does: what stands in the folder one is in can be named.
    sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"--app {name!r} cannot be imported: {error}") from error
    except PowerLoopError:
        raise
    except Exception as error:  # the application's code
        raise ConfigError(f"--app {name!r} cannot be imported: {_told(error)}") from error
    if not callable(found) and not isinstance(found, StatefulAgentLoop):
        raise ConfigError(f"--app {name!r} is {found!r:.200}: give a StatefulAgentLoop, or what returns one")
    return found


def _told(error: Exception) -> str:
    """Return what an application raised, and where."""
    frames = traceback.extract_tb(error.__traceback__)
    where = "" if isinstance(error, SyntaxError) else f", in {frames[-1].filename}, line {frames[-1].lineno}"
    return f"{type(error).__name__}: {error}{where}"


class _NoModel:
    """Stands where a model belongs and none is asked."""

    info = ModelInfo("none", "none")

    async def generate(self, request: LLMRequest, emit: Emit) -> LLMResponse:
        """Refuse."""
        raise ConfigError("this loop only looks: it has no model")
