"""Is the public face: what most programs need, handed on lazily. The shelves beside it have the rest."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from power_loop.contracts.lazy_names import lazy_names

if TYPE_CHECKING:
    from power_loop.agent.config import LoopConfig as LoopConfig
    from power_loop.agent.loop import StatefulAgentLoop as StatefulAgentLoop
    from power_loop.agent.loop import run_agent_spec as run_agent_spec
    from power_loop.agent.stream import TurnStream as TurnStream
    from power_loop.agent.subagent_tools import agent_tools as agent_tools
    from power_loop.agent.timers import TimerRunner as TimerRunner
    from power_loop.agent.worker import Worker as Worker
    from power_loop.contracts.agent_spec import AgentLifecycle as AgentLifecycle
    from power_loop.contracts.agent_spec import AgentSpec as AgentSpec
    from power_loop.contracts.answers import Answer as Answer
    from power_loop.contracts.answers import Approve as Approve
    from power_loop.contracts.answers import Deny as Deny
    from power_loop.contracts.answers import Give as Give
    from power_loop.contracts.budgets import Budget as Budget
    from power_loop.contracts.budgets import ModelPrice as ModelPrice
    from power_loop.contracts.budgets import PriceTable as PriceTable
    from power_loop.contracts.cancellation import CancellationToken as CancellationToken
    from power_loop.contracts.errors import PowerLoopError as PowerLoopError
    from power_loop.contracts.events import AgentEvent as AgentEvent
    from power_loop.contracts.hooks import HookPoint as HookPoint
    from power_loop.contracts.limits import SendLimits as SendLimits
    from power_loop.contracts.llm import LLMDelta as LLMDelta
    from power_loop.contracts.llm import LLMRequest as LLMRequest
    from power_loop.contracts.llm import LLMResponse as LLMResponse
    from power_loop.contracts.llm import LLMRetryPolicy as LLMRetryPolicy
    from power_loop.contracts.llm import LLMService as LLMService
    from power_loop.contracts.llm import StopReason as StopReason
    from power_loop.contracts.llm import ToolSpec as ToolSpec
    from power_loop.contracts.llm import Usage as Usage
    from power_loop.contracts.messages import AudioPart as AudioPart
    from power_loop.contracts.messages import ContentPart as ContentPart
    from power_loop.contracts.messages import FilePart as FilePart
    from power_loop.contracts.messages import ImagePart as ImagePart
    from power_loop.contracts.messages import Message as Message
    from power_loop.contracts.messages import TextPart as TextPart
    from power_loop.contracts.permissions import Permission as Permission
    from power_loop.contracts.permissions import PermissionMode as PermissionMode
    from power_loop.contracts.permissions import PermissionRule as PermissionRule
    from power_loop.contracts.ports import SessionStore as SessionStore
    from power_loop.contracts.results import FollowUp as FollowUp
    from power_loop.contracts.results import PendingCall as PendingCall
    from power_loop.contracts.results import StatefulResult as StatefulResult
    from power_loop.contracts.schedules import After as After
    from power_loop.contracts.schedules import At as At
    from power_loop.contracts.schedules import Cron as Cron
    from power_loop.contracts.schedules import Every as Every
    from power_loop.contracts.states import Effect as Effect
    from power_loop.contracts.states import NextInput as NextInput
    from power_loop.contracts.states import OnBusy as OnBusy
    from power_loop.contracts.states import OnUnknown as OnUnknown
    from power_loop.contracts.states import SchemaPolicy as SchemaPolicy
    from power_loop.contracts.states import SendStatus as SendStatus
    from power_loop.contracts.states import SessionState as SessionState
    from power_loop.contracts.tools import ToolContext as ToolContext
    from power_loop.contracts.tools import ToolDefinition as ToolDefinition
    from power_loop.contracts.tools import ToolResult as ToolResult
    from power_loop.contracts.version import __version__ as __version__
    from power_loop.core.bus import AgentEventBus as AgentEventBus
    from power_loop.core.context.prompt import SystemPrompt as SystemPrompt
    from power_loop.core.context.settings import Compaction as Compaction
    from power_loop.core.context.settings import MemoryUse as MemoryUse
    from power_loop.core.context.settings import Projection as Projection
    from power_loop.core.hooks import Hooks as Hooks
    from power_loop.runtime.host.environment import RuntimeEnv as RuntimeEnv
    from power_loop.runtime.llm.config import LLMProviderConfig as LLMProviderConfig
    from power_loop.runtime.llm.service import create_llm_service_from_config as create_llm_service_from_config
    from power_loop.runtime.llm.service import create_llm_service_from_env as create_llm_service_from_env
    from power_loop.runtime.store.open import open_store as open_store
    from power_loop.tools.decorator import tool as tool
    from power_loop.tools.permissions import PermissionPolicy as PermissionPolicy
    from power_loop.tools.presets import ToolPreset as ToolPreset
    from power_loop.tools.presets import tool_preset as tool_preset
    from power_loop.tools.registry import ToolRegistry as ToolRegistry
    from power_loop.tools.skill_folders import Skills as Skills

#: Where each public name lives. It is imported when it is asked for, so importing the package costs next to nothing.
_HOMES: dict[str, str] = {
    "After": "power_loop.contracts.schedules",
    "AgentEvent": "power_loop.contracts.events",
    "AgentEventBus": "power_loop.core.bus",
    "AgentLifecycle": "power_loop.contracts.agent_spec",
    "AgentSpec": "power_loop.contracts.agent_spec",
    "Answer": "power_loop.contracts.answers",
    "Approve": "power_loop.contracts.answers",
    "At": "power_loop.contracts.schedules",
    "AudioPart": "power_loop.contracts.messages",
    "Budget": "power_loop.contracts.budgets",
    "CancellationToken": "power_loop.contracts.cancellation",
    "Compaction": "power_loop.core.context.settings",
    "ContentPart": "power_loop.contracts.messages",
    "Cron": "power_loop.contracts.schedules",
    "Deny": "power_loop.contracts.answers",
    "Effect": "power_loop.contracts.states",
    "Every": "power_loop.contracts.schedules",
    "FilePart": "power_loop.contracts.messages",
    "FollowUp": "power_loop.contracts.results",
    "Give": "power_loop.contracts.answers",
    "HookPoint": "power_loop.contracts.hooks",
    "Hooks": "power_loop.core.hooks",
    "ImagePart": "power_loop.contracts.messages",
    "LLMDelta": "power_loop.contracts.llm",
    "LLMProviderConfig": "power_loop.runtime.llm.config",
    "LLMRequest": "power_loop.contracts.llm",
    "LLMResponse": "power_loop.contracts.llm",
    "LLMRetryPolicy": "power_loop.contracts.llm",
    "LLMService": "power_loop.contracts.llm",
    "LoopConfig": "power_loop.agent.config",
    "MemoryUse": "power_loop.core.context.settings",
    "Message": "power_loop.contracts.messages",
    "ModelPrice": "power_loop.contracts.budgets",
    "NextInput": "power_loop.contracts.states",
    "OnBusy": "power_loop.contracts.states",
    "OnUnknown": "power_loop.contracts.states",
    "PendingCall": "power_loop.contracts.results",
    "Permission": "power_loop.contracts.permissions",
    "PermissionMode": "power_loop.contracts.permissions",
    "PermissionPolicy": "power_loop.tools.permissions",
    "PermissionRule": "power_loop.contracts.permissions",
    "PowerLoopError": "power_loop.contracts.errors",
    "PriceTable": "power_loop.contracts.budgets",
    "Projection": "power_loop.core.context.settings",
    "RuntimeEnv": "power_loop.runtime.host.environment",
    "SchemaPolicy": "power_loop.contracts.states",
    "SendLimits": "power_loop.contracts.limits",
    "SendStatus": "power_loop.contracts.states",
    "SessionState": "power_loop.contracts.states",
    "SessionStore": "power_loop.contracts.ports",
    "Skills": "power_loop.tools.skill_folders",
    "StatefulAgentLoop": "power_loop.agent.loop",
    "StatefulResult": "power_loop.contracts.results",
    "StopReason": "power_loop.contracts.llm",
    "SystemPrompt": "power_loop.core.context.prompt",
    "TextPart": "power_loop.contracts.messages",
    "TimerRunner": "power_loop.agent.timers",
    "ToolContext": "power_loop.contracts.tools",
    "ToolDefinition": "power_loop.contracts.tools",
    "ToolPreset": "power_loop.tools.presets",
    "ToolRegistry": "power_loop.tools.registry",
    "ToolResult": "power_loop.contracts.tools",
    "ToolSpec": "power_loop.contracts.llm",
    "TurnStream": "power_loop.agent.stream",
    "Usage": "power_loop.contracts.llm",
    "Worker": "power_loop.agent.worker",
    "__version__": "power_loop.contracts.version",
    "agent_tools": "power_loop.agent.subagent_tools",
    "create_llm_service_from_config": "power_loop.runtime.llm.service",
    "create_llm_service_from_env": "power_loop.runtime.llm.service",
    "open_store": "power_loop.runtime.store.open",
    "run_agent_spec": "power_loop.agent.loop",
    "tool": "power_loop.tools.decorator",
    "tool_preset": "power_loop.tools.presets",
}

#: The public shelves, each with all names of its subject. What of a shelf most programs need is handed on above, too.
_SHELVES = (
    "budgets",
    "context",
    "errors",
    "events",
    "hooks",
    "llm",
    "memory",
    "messages",
    "records",
    "sandbox",
    "storage",
    "testing",
    "timers",
    "tools",
    "workflow",
)
#: These may still change in a minor version.
_PROVISIONAL = {"SchemaPolicy", "SessionStore", "open_store", "storage"}

__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]
__all__ += ["STABLE_API"]


def _stable_api() -> tuple[str, ...]:
    names = sorted({*_HOMES} - _PROVISIONAL)
    for shelf in _SHELVES:
        if shelf not in _PROVISIONAL:
            names += (f"{shelf}.{name}" for name in importlib.import_module(f"{__name__}.{shelf}").__all__)
    return tuple(names)


if TYPE_CHECKING:
    #: The names that only a major version may change or remove; that of a shelf is `errors.SessionBusyError`.
    STABLE_API: tuple[str, ...]
else:
    _name = lazy_names(globals(), _HOMES)

    def __getattr__(name: str) -> object:
        if name in _SHELVES:
            return importlib.import_module(f"{__name__}.{name}")
        if name != "STABLE_API":
            return _name(name)
        globals()[name] = names = _stable_api()
        return names


def __dir__() -> list[str]:
    return sorted({*__all__, *globals()})
