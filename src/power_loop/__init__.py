"""Is the public face: every name that an application uses, handed on lazily; it defines nothing."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from power_loop.agent.config import LoopConfig as LoopConfig
    from power_loop.agent.loop import StatefulAgentLoop as StatefulAgentLoop
    from power_loop.agent.stream import TurnStream as TurnStream
    from power_loop.contracts.answers import Answer as Answer
    from power_loop.contracts.answers import Approve as Approve
    from power_loop.contracts.answers import Deny as Deny
    from power_loop.contracts.answers import Give as Give
    from power_loop.contracts.cancellation import CancellationToken as CancellationToken
    from power_loop.contracts.clock import Clock as Clock
    from power_loop.contracts.clock import SystemClock as SystemClock
    from power_loop.contracts.errors import CallNotFoundError as CallNotFoundError
    from power_loop.contracts.errors import CallNotWaitingError as CallNotWaitingError
    from power_loop.contracts.errors import ConfigError as ConfigError
    from power_loop.contracts.errors import HookError as HookError
    from power_loop.contracts.errors import InputError as InputError
    from power_loop.contracts.errors import InvalidDsnError as InvalidDsnError
    from power_loop.contracts.errors import InvalidTablePrefixError as InvalidTablePrefixError
    from power_loop.contracts.errors import LeaseLostError as LeaseLostError
    from power_loop.contracts.errors import LLMAuthError as LLMAuthError
    from power_loop.contracts.errors import LLMBillingError as LLMBillingError
    from power_loop.contracts.errors import LLMConflictError as LLMConflictError
    from power_loop.contracts.errors import LLMConnectionError as LLMConnectionError
    from power_loop.contracts.errors import LLMContextOverflowError as LLMContextOverflowError
    from power_loop.contracts.errors import LLMError as LLMError
    from power_loop.contracts.errors import LLMInvalidRequestError as LLMInvalidRequestError
    from power_loop.contracts.errors import LLMNotFoundError as LLMNotFoundError
    from power_loop.contracts.errors import LLMOverloadedError as LLMOverloadedError
    from power_loop.contracts.errors import LLMPermissionError as LLMPermissionError
    from power_loop.contracts.errors import LLMProtocolError as LLMProtocolError
    from power_loop.contracts.errors import LLMRateLimitedError as LLMRateLimitedError
    from power_loop.contracts.errors import LLMServerError as LLMServerError
    from power_loop.contracts.errors import LLMTimeoutError as LLMTimeoutError
    from power_loop.contracts.errors import LLMTooLargeError as LLMTooLargeError
    from power_loop.contracts.errors import LoopClosedError as LoopClosedError
    from power_loop.contracts.errors import MissingExtraError as MissingExtraError
    from power_loop.contracts.errors import NotADatabaseError as NotADatabaseError
    from power_loop.contracts.errors import OutputError as OutputError
    from power_loop.contracts.errors import PowerLoopError as PowerLoopError
    from power_loop.contracts.errors import RequestConflictError as RequestConflictError
    from power_loop.contracts.errors import SessionBusyError as SessionBusyError
    from power_loop.contracts.errors import SessionClosedError as SessionClosedError
    from power_loop.contracts.errors import SessionError as SessionError
    from power_loop.contracts.errors import SessionExistsError as SessionExistsError
    from power_loop.contracts.errors import SessionNotFoundError as SessionNotFoundError
    from power_loop.contracts.errors import SessionPendingError as SessionPendingError
    from power_loop.contracts.errors import StoreCorruptError as StoreCorruptError
    from power_loop.contracts.errors import StoreError as StoreError
    from power_loop.contracts.errors import StoreFullError as StoreFullError
    from power_loop.contracts.errors import StoreNewerError as StoreNewerError
    from power_loop.contracts.errors import StoreReadOnlyError as StoreReadOnlyError
    from power_loop.contracts.errors import StoreSchemaError as StoreSchemaError
    from power_loop.contracts.errors import StoreUnavailableError as StoreUnavailableError
    from power_loop.contracts.errors import StoreValueError as StoreValueError
    from power_loop.contracts.errors import ToolDefinitionError as ToolDefinitionError
    from power_loop.contracts.errors import ToolError as ToolError
    from power_loop.contracts.errors import TransactionError as TransactionError
    from power_loop.contracts.events import AgentEvent as AgentEvent
    from power_loop.contracts.events import HookFailed as HookFailed
    from power_loop.contracts.events import LeaseTaken as LeaseTaken
    from power_loop.contracts.events import LLMCallFailed as LLMCallFailed
    from power_loop.contracts.events import LLMCallFinished as LLMCallFinished
    from power_loop.contracts.events import LLMCallStarted as LLMCallStarted
    from power_loop.contracts.events import MessageAppended as MessageAppended
    from power_loop.contracts.events import ReasoningDelta as ReasoningDelta
    from power_loop.contracts.events import RoundFinished as RoundFinished
    from power_loop.contracts.events import RoundStarted as RoundStarted
    from power_loop.contracts.events import SendFailed as SendFailed
    from power_loop.contracts.events import SendFinished as SendFinished
    from power_loop.contracts.events import SendStarted as SendStarted
    from power_loop.contracts.events import SessionClosed as SessionClosed
    from power_loop.contracts.events import SessionCreated as SessionCreated
    from power_loop.contracts.events import StreamReset as StreamReset
    from power_loop.contracts.events import TextDelta as TextDelta
    from power_loop.contracts.events import ToolBatchFinished as ToolBatchFinished
    from power_loop.contracts.events import ToolBatchStarted as ToolBatchStarted
    from power_loop.contracts.events import ToolCallAnswered as ToolCallAnswered
    from power_loop.contracts.events import ToolCallDelta as ToolCallDelta
    from power_loop.contracts.events import ToolCallFinished as ToolCallFinished
    from power_loop.contracts.events import ToolCallProgressed as ToolCallProgressed
    from power_loop.contracts.events import ToolCallStarted as ToolCallStarted
    from power_loop.contracts.events import ToolCallWaiting as ToolCallWaiting
    from power_loop.contracts.events import TranscriptRepaired as TranscriptRepaired
    from power_loop.contracts.events import WindowTrimmed as WindowTrimmed
    from power_loop.contracts.hooks import HookContext as HookContext
    from power_loop.contracts.hooks import HookPoint as HookPoint
    from power_loop.contracts.hooks import LLMAfterContext as LLMAfterContext
    from power_loop.contracts.hooks import LLMBeforeContext as LLMBeforeContext
    from power_loop.contracts.hooks import MessageAppendContext as MessageAppendContext
    from power_loop.contracts.hooks import Park as Park
    from power_loop.contracts.hooks import PlannedCall as PlannedCall
    from power_loop.contracts.hooks import RequireApproval as RequireApproval
    from power_loop.contracts.hooks import Rewrite as Rewrite
    from power_loop.contracts.hooks import RoundDecideContext as RoundDecideContext
    from power_loop.contracts.hooks import RoundEndContext as RoundEndContext
    from power_loop.contracts.hooks import RoundStartContext as RoundStartContext
    from power_loop.contracts.hooks import SendEndContext as SendEndContext
    from power_loop.contracts.hooks import SendStartContext as SendStartContext
    from power_loop.contracts.hooks import SessionEndContext as SessionEndContext
    from power_loop.contracts.hooks import SessionStartContext as SessionStartContext
    from power_loop.contracts.hooks import Skip as Skip
    from power_loop.contracts.hooks import ToolAfterContext as ToolAfterContext
    from power_loop.contracts.hooks import ToolBeforeContext as ToolBeforeContext
    from power_loop.contracts.hooks import ToolErrorContext as ToolErrorContext
    from power_loop.contracts.hooks import ToolsAfterContext as ToolsAfterContext
    from power_loop.contracts.hooks import ToolsBeforeContext as ToolsBeforeContext
    from power_loop.contracts.hooks import Veto as Veto
    from power_loop.contracts.llm import DeltaKind as DeltaKind
    from power_loop.contracts.llm import Emit as Emit
    from power_loop.contracts.llm import LLMDelta as LLMDelta
    from power_loop.contracts.llm import LLMRequest as LLMRequest
    from power_loop.contracts.llm import LLMResponse as LLMResponse
    from power_loop.contracts.llm import LLMRetryPolicy as LLMRetryPolicy
    from power_loop.contracts.llm import LLMService as LLMService
    from power_loop.contracts.llm import ModelInfo as ModelInfo
    from power_loop.contracts.llm import OutputSchema as OutputSchema
    from power_loop.contracts.llm import StopReason as StopReason
    from power_loop.contracts.llm import ToolSpec as ToolSpec
    from power_loop.contracts.llm import Usage as Usage
    from power_loop.contracts.messages import AudioPart as AudioPart
    from power_loop.contracts.messages import ContentPart as ContentPart
    from power_loop.contracts.messages import FilePart as FilePart
    from power_loop.contracts.messages import ImagePart as ImagePart
    from power_loop.contracts.messages import Message as Message
    from power_loop.contracts.messages import Origin as Origin
    from power_loop.contracts.messages import ReasoningPart as ReasoningPart
    from power_loop.contracts.messages import RefusalPart as RefusalPart
    from power_loop.contracts.messages import Role as Role
    from power_loop.contracts.messages import TextPart as TextPart
    from power_loop.contracts.messages import ToolCallPart as ToolCallPart
    from power_loop.contracts.messages import ToolResultPart as ToolResultPart
    from power_loop.contracts.ports import SessionStore as SessionStore
    from power_loop.contracts.records import CallRecord as CallRecord
    from power_loop.contracts.records import MessageRecord as MessageRecord
    from power_loop.contracts.records import Page as Page
    from power_loop.contracts.records import SendRecord as SendRecord
    from power_loop.contracts.records import SessionRecord as SessionRecord
    from power_loop.contracts.records import SessionStats as SessionStats
    from power_loop.contracts.results import PendingCall as PendingCall
    from power_loop.contracts.results import StatefulResult as StatefulResult
    from power_loop.contracts.states import CallState as CallState
    from power_loop.contracts.states import Effect as Effect
    from power_loop.contracts.states import SchemaPolicy as SchemaPolicy
    from power_loop.contracts.states import SendStatus as SendStatus
    from power_loop.contracts.states import SessionState as SessionState
    from power_loop.contracts.states import WaitKind as WaitKind
    from power_loop.contracts.tools import ToolContext as ToolContext
    from power_loop.contracts.tools import ToolDefinition as ToolDefinition
    from power_loop.contracts.tools import ToolResult as ToolResult
    from power_loop.contracts.tools import Waiting as Waiting
    from power_loop.contracts.version import __version__ as __version__
    from power_loop.core.bus import AgentEventBus as AgentEventBus
    from power_loop.core.bus import Subscription as Subscription
    from power_loop.core.hooks import Hooks as Hooks
    from power_loop.core.turn.budget import SendLimits as SendLimits
    from power_loop.runtime.llm.config import LLMProviderConfig as LLMProviderConfig
    from power_loop.runtime.llm.service import create_llm_service_from_config as create_llm_service_from_config
    from power_loop.runtime.llm.service import create_llm_service_from_env as create_llm_service_from_env
    from power_loop.runtime.store.open import open_store as open_store
    from power_loop.tools.decorator import tool as tool
    from power_loop.tools.registry import ToolRegistry as ToolRegistry

#: Where each public name lives. It is imported when it is asked for, so importing the package costs next to nothing.
_HOMES: dict[str, str] = {
    "LoopConfig": "power_loop.agent.config",
    "StatefulAgentLoop": "power_loop.agent.loop",
    "TurnStream": "power_loop.agent.stream",
    "Answer": "power_loop.contracts.answers",
    "Approve": "power_loop.contracts.answers",
    "Deny": "power_loop.contracts.answers",
    "Give": "power_loop.contracts.answers",
    "CancellationToken": "power_loop.contracts.cancellation",
    "Clock": "power_loop.contracts.clock",
    "SystemClock": "power_loop.contracts.clock",
    "CallNotFoundError": "power_loop.contracts.errors",
    "CallNotWaitingError": "power_loop.contracts.errors",
    "ConfigError": "power_loop.contracts.errors",
    "HookError": "power_loop.contracts.errors",
    "InputError": "power_loop.contracts.errors",
    "InvalidDsnError": "power_loop.contracts.errors",
    "InvalidTablePrefixError": "power_loop.contracts.errors",
    "LLMAuthError": "power_loop.contracts.errors",
    "LLMBillingError": "power_loop.contracts.errors",
    "LLMConflictError": "power_loop.contracts.errors",
    "LLMConnectionError": "power_loop.contracts.errors",
    "LLMContextOverflowError": "power_loop.contracts.errors",
    "LLMError": "power_loop.contracts.errors",
    "LLMInvalidRequestError": "power_loop.contracts.errors",
    "LLMNotFoundError": "power_loop.contracts.errors",
    "LLMOverloadedError": "power_loop.contracts.errors",
    "LLMPermissionError": "power_loop.contracts.errors",
    "LLMProtocolError": "power_loop.contracts.errors",
    "LLMRateLimitedError": "power_loop.contracts.errors",
    "LLMServerError": "power_loop.contracts.errors",
    "LLMTimeoutError": "power_loop.contracts.errors",
    "LLMTooLargeError": "power_loop.contracts.errors",
    "LeaseLostError": "power_loop.contracts.errors",
    "LoopClosedError": "power_loop.contracts.errors",
    "MissingExtraError": "power_loop.contracts.errors",
    "NotADatabaseError": "power_loop.contracts.errors",
    "OutputError": "power_loop.contracts.errors",
    "PowerLoopError": "power_loop.contracts.errors",
    "RequestConflictError": "power_loop.contracts.errors",
    "SessionBusyError": "power_loop.contracts.errors",
    "SessionClosedError": "power_loop.contracts.errors",
    "SessionError": "power_loop.contracts.errors",
    "SessionExistsError": "power_loop.contracts.errors",
    "SessionNotFoundError": "power_loop.contracts.errors",
    "SessionPendingError": "power_loop.contracts.errors",
    "StoreCorruptError": "power_loop.contracts.errors",
    "StoreError": "power_loop.contracts.errors",
    "StoreFullError": "power_loop.contracts.errors",
    "StoreNewerError": "power_loop.contracts.errors",
    "StoreReadOnlyError": "power_loop.contracts.errors",
    "StoreSchemaError": "power_loop.contracts.errors",
    "StoreUnavailableError": "power_loop.contracts.errors",
    "StoreValueError": "power_loop.contracts.errors",
    "ToolDefinitionError": "power_loop.contracts.errors",
    "ToolError": "power_loop.contracts.errors",
    "TransactionError": "power_loop.contracts.errors",
    "AgentEvent": "power_loop.contracts.events",
    "HookFailed": "power_loop.contracts.events",
    "LLMCallFailed": "power_loop.contracts.events",
    "LLMCallFinished": "power_loop.contracts.events",
    "LLMCallStarted": "power_loop.contracts.events",
    "LeaseTaken": "power_loop.contracts.events",
    "MessageAppended": "power_loop.contracts.events",
    "ReasoningDelta": "power_loop.contracts.events",
    "RoundFinished": "power_loop.contracts.events",
    "RoundStarted": "power_loop.contracts.events",
    "SendFailed": "power_loop.contracts.events",
    "SendFinished": "power_loop.contracts.events",
    "SendStarted": "power_loop.contracts.events",
    "SessionClosed": "power_loop.contracts.events",
    "SessionCreated": "power_loop.contracts.events",
    "StreamReset": "power_loop.contracts.events",
    "TextDelta": "power_loop.contracts.events",
    "ToolBatchFinished": "power_loop.contracts.events",
    "ToolBatchStarted": "power_loop.contracts.events",
    "ToolCallAnswered": "power_loop.contracts.events",
    "ToolCallDelta": "power_loop.contracts.events",
    "ToolCallFinished": "power_loop.contracts.events",
    "ToolCallProgressed": "power_loop.contracts.events",
    "ToolCallStarted": "power_loop.contracts.events",
    "ToolCallWaiting": "power_loop.contracts.events",
    "TranscriptRepaired": "power_loop.contracts.events",
    "WindowTrimmed": "power_loop.contracts.events",
    "HookContext": "power_loop.contracts.hooks",
    "HookPoint": "power_loop.contracts.hooks",
    "LLMAfterContext": "power_loop.contracts.hooks",
    "LLMBeforeContext": "power_loop.contracts.hooks",
    "MessageAppendContext": "power_loop.contracts.hooks",
    "Park": "power_loop.contracts.hooks",
    "PlannedCall": "power_loop.contracts.hooks",
    "RequireApproval": "power_loop.contracts.hooks",
    "Rewrite": "power_loop.contracts.hooks",
    "RoundDecideContext": "power_loop.contracts.hooks",
    "RoundEndContext": "power_loop.contracts.hooks",
    "RoundStartContext": "power_loop.contracts.hooks",
    "SendEndContext": "power_loop.contracts.hooks",
    "SendStartContext": "power_loop.contracts.hooks",
    "SessionEndContext": "power_loop.contracts.hooks",
    "SessionStartContext": "power_loop.contracts.hooks",
    "Skip": "power_loop.contracts.hooks",
    "ToolAfterContext": "power_loop.contracts.hooks",
    "ToolBeforeContext": "power_loop.contracts.hooks",
    "ToolErrorContext": "power_loop.contracts.hooks",
    "ToolsAfterContext": "power_loop.contracts.hooks",
    "ToolsBeforeContext": "power_loop.contracts.hooks",
    "Veto": "power_loop.contracts.hooks",
    "DeltaKind": "power_loop.contracts.llm",
    "Emit": "power_loop.contracts.llm",
    "LLMDelta": "power_loop.contracts.llm",
    "LLMRequest": "power_loop.contracts.llm",
    "LLMResponse": "power_loop.contracts.llm",
    "LLMRetryPolicy": "power_loop.contracts.llm",
    "LLMService": "power_loop.contracts.llm",
    "ModelInfo": "power_loop.contracts.llm",
    "OutputSchema": "power_loop.contracts.llm",
    "StopReason": "power_loop.contracts.llm",
    "ToolSpec": "power_loop.contracts.llm",
    "Usage": "power_loop.contracts.llm",
    "AudioPart": "power_loop.contracts.messages",
    "ContentPart": "power_loop.contracts.messages",
    "FilePart": "power_loop.contracts.messages",
    "ImagePart": "power_loop.contracts.messages",
    "Message": "power_loop.contracts.messages",
    "Origin": "power_loop.contracts.messages",
    "ReasoningPart": "power_loop.contracts.messages",
    "RefusalPart": "power_loop.contracts.messages",
    "Role": "power_loop.contracts.messages",
    "TextPart": "power_loop.contracts.messages",
    "ToolCallPart": "power_loop.contracts.messages",
    "ToolResultPart": "power_loop.contracts.messages",
    "SessionStore": "power_loop.contracts.ports",
    "CallRecord": "power_loop.contracts.records",
    "MessageRecord": "power_loop.contracts.records",
    "Page": "power_loop.contracts.records",
    "SendRecord": "power_loop.contracts.records",
    "SessionRecord": "power_loop.contracts.records",
    "SessionStats": "power_loop.contracts.records",
    "PendingCall": "power_loop.contracts.results",
    "StatefulResult": "power_loop.contracts.results",
    "CallState": "power_loop.contracts.states",
    "Effect": "power_loop.contracts.states",
    "SchemaPolicy": "power_loop.contracts.states",
    "SendStatus": "power_loop.contracts.states",
    "SessionState": "power_loop.contracts.states",
    "WaitKind": "power_loop.contracts.states",
    "ToolContext": "power_loop.contracts.tools",
    "ToolDefinition": "power_loop.contracts.tools",
    "ToolResult": "power_loop.contracts.tools",
    "Waiting": "power_loop.contracts.tools",
    "__version__": "power_loop.contracts.version",
    "AgentEventBus": "power_loop.core.bus",
    "Subscription": "power_loop.core.bus",
    "Hooks": "power_loop.core.hooks",
    "SendLimits": "power_loop.core.turn.budget",
    "LLMProviderConfig": "power_loop.runtime.llm.config",
    "create_llm_service_from_config": "power_loop.runtime.llm.service",
    "create_llm_service_from_env": "power_loop.runtime.llm.service",
    "open_store": "power_loop.runtime.store.open",
    "tool": "power_loop.tools.decorator",
    "ToolRegistry": "power_loop.tools.registry",
}

#: The names that only a major version may change or remove.
STABLE_API: tuple[str, ...] = tuple(sorted(_HOMES.keys() - {"SchemaPolicy", "SessionStore", "open_store"}))

__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]
__all__ += ["STABLE_API"]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__doc__", "__file__", "__name__", "__path__"]
