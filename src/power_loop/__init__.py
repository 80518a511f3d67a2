"""Is the public face: every name that an application uses, handed on lazily; it defines nothing."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

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
    from power_loop.contracts.blackboard import BlackboardEntry as BlackboardEntry
    from power_loop.contracts.blackboard import BlackboardTransaction as BlackboardTransaction
    from power_loop.contracts.budgets import Amounts as Amounts
    from power_loop.contracts.budgets import Budget as Budget
    from power_loop.contracts.budgets import BudgetKey as BudgetKey
    from power_loop.contracts.budgets import BudgetRecord as BudgetRecord
    from power_loop.contracts.budgets import Charge as Charge
    from power_loop.contracts.budgets import Granted as Granted
    from power_loop.contracts.budgets import ModelPrice as ModelPrice
    from power_loop.contracts.budgets import NewBudget as NewBudget
    from power_loop.contracts.budgets import NewHold as NewHold
    from power_loop.contracts.budgets import PriceTable as PriceTable
    from power_loop.contracts.budgets import Shortage as Shortage
    from power_loop.contracts.cancellation import CancellationToken as CancellationToken
    from power_loop.contracts.choices import choice_of as choice_of
    from power_loop.contracts.clock import Clock as Clock
    from power_loop.contracts.clock import SystemClock as SystemClock
    from power_loop.contracts.diagnosis import Finding as Finding
    from power_loop.contracts.diagnosis import FindingKind as FindingKind
    from power_loop.contracts.errors import AgentError as AgentError
    from power_loop.contracts.errors import AgentGrantError as AgentGrantError
    from power_loop.contracts.errors import AgentLimitError as AgentLimitError
    from power_loop.contracts.errors import AgentSpecError as AgentSpecError
    from power_loop.contracts.errors import BlackboardConflictError as BlackboardConflictError
    from power_loop.contracts.errors import BlackboardFullError as BlackboardFullError
    from power_loop.contracts.errors import CallNotFoundError as CallNotFoundError
    from power_loop.contracts.errors import CallNotWaitingError as CallNotWaitingError
    from power_loop.contracts.errors import ConfigError as ConfigError
    from power_loop.contracts.errors import HookError as HookError
    from power_loop.contracts.errors import InboxFullError as InboxFullError
    from power_loop.contracts.errors import InputError as InputError
    from power_loop.contracts.errors import InvalidArchiveError as InvalidArchiveError
    from power_loop.contracts.errors import InvalidDsnError as InvalidDsnError
    from power_loop.contracts.errors import InvalidTablePrefixError as InvalidTablePrefixError
    from power_loop.contracts.errors import LeafLostError as LeafLostError
    from power_loop.contracts.errors import LeafRefusedError as LeafRefusedError
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
    from power_loop.contracts.errors import MCPConnectionError as MCPConnectionError
    from power_loop.contracts.errors import MCPError as MCPError
    from power_loop.contracts.errors import MCPToolChangedError as MCPToolChangedError
    from power_loop.contracts.errors import MissingExtraError as MissingExtraError
    from power_loop.contracts.errors import ModelCallNotFoundError as ModelCallNotFoundError
    from power_loop.contracts.errors import NamespaceError as NamespaceError
    from power_loop.contracts.errors import NotADatabaseError as NotADatabaseError
    from power_loop.contracts.errors import OutputError as OutputError
    from power_loop.contracts.errors import PathRefusedError as PathRefusedError
    from power_loop.contracts.errors import PowerLoopError as PowerLoopError
    from power_loop.contracts.errors import PriceMissingError as PriceMissingError
    from power_loop.contracts.errors import ProcessError as ProcessError
    from power_loop.contracts.errors import RequestConflictError as RequestConflictError
    from power_loop.contracts.errors import ResultPrunedError as ResultPrunedError
    from power_loop.contracts.errors import RunNotFoundError as RunNotFoundError
    from power_loop.contracts.errors import RunSessionError as RunSessionError
    from power_loop.contracts.errors import SandboxUnavailableError as SandboxUnavailableError
    from power_loop.contracts.errors import ScheduleError as ScheduleError
    from power_loop.contracts.errors import SendPoisonedError as SendPoisonedError
    from power_loop.contracts.errors import SessionBusyError as SessionBusyError
    from power_loop.contracts.errors import SessionClosedError as SessionClosedError
    from power_loop.contracts.errors import SessionError as SessionError
    from power_loop.contracts.errors import SessionExistsError as SessionExistsError
    from power_loop.contracts.errors import SessionForkedError as SessionForkedError
    from power_loop.contracts.errors import SessionNotFoundError as SessionNotFoundError
    from power_loop.contracts.errors import SessionPendingError as SessionPendingError
    from power_loop.contracts.errors import StoreCorruptError as StoreCorruptError
    from power_loop.contracts.errors import StoreError as StoreError
    from power_loop.contracts.errors import StoreFullError as StoreFullError
    from power_loop.contracts.errors import StoreNewerError as StoreNewerError
    from power_loop.contracts.errors import StoreReadOnlyError as StoreReadOnlyError
    from power_loop.contracts.errors import StoreRefusedError as StoreRefusedError
    from power_loop.contracts.errors import StoreSchemaError as StoreSchemaError
    from power_loop.contracts.errors import StoreUnavailableError as StoreUnavailableError
    from power_loop.contracts.errors import StoreUnsupportedError as StoreUnsupportedError
    from power_loop.contracts.errors import StoreValueError as StoreValueError
    from power_loop.contracts.errors import TimerLimitError as TimerLimitError
    from power_loop.contracts.errors import TimerNotFoundError as TimerNotFoundError
    from power_loop.contracts.errors import TimeZoneMissingError as TimeZoneMissingError
    from power_loop.contracts.errors import ToolDefinitionError as ToolDefinitionError
    from power_loop.contracts.errors import ToolError as ToolError
    from power_loop.contracts.errors import TransactionError as TransactionError
    from power_loop.contracts.errors import WorkerDiedError as WorkerDiedError
    from power_loop.contracts.errors import WorkerError as WorkerError
    from power_loop.contracts.errors import WorkerProtocolError as WorkerProtocolError
    from power_loop.contracts.errors import WorkerSilentError as WorkerSilentError
    from power_loop.contracts.errors import WorkerTimeoutError as WorkerTimeoutError
    from power_loop.contracts.errors import WorkflowError as WorkflowError
    from power_loop.contracts.errors import WorkflowSpecError as WorkflowSpecError
    from power_loop.contracts.events import AgentEvent as AgentEvent
    from power_loop.contracts.events import AgentFinished as AgentFinished
    from power_loop.contracts.events import AgentStarted as AgentStarted
    from power_loop.contracts.events import BudgetExceeded as BudgetExceeded
    from power_loop.contracts.events import EventPayload as EventPayload
    from power_loop.contracts.events import FoldFailed as FoldFailed
    from power_loop.contracts.events import FoldFinished as FoldFinished
    from power_loop.contracts.events import FoldProgressed as FoldProgressed
    from power_loop.contracts.events import FoldStarted as FoldStarted
    from power_loop.contracts.events import HookFailed as HookFailed
    from power_loop.contracts.events import InputQueued as InputQueued
    from power_loop.contracts.events import InputRefused as InputRefused
    from power_loop.contracts.events import InputTaken as InputTaken
    from power_loop.contracts.events import LeaseTaken as LeaseTaken
    from power_loop.contracts.events import LiveStateFailed as LiveStateFailed
    from power_loop.contracts.events import LLMCallFailed as LLMCallFailed
    from power_loop.contracts.events import LLMCallFinished as LLMCallFinished
    from power_loop.contracts.events import LLMCallStarted as LLMCallStarted
    from power_loop.contracts.events import MemoryFailed as MemoryFailed
    from power_loop.contracts.events import MemoryRecalled as MemoryRecalled
    from power_loop.contracts.events import MessageAppended as MessageAppended
    from power_loop.contracts.events import ProjectionFailed as ProjectionFailed
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
    from power_loop.contracts.events import TimerCancelled as TimerCancelled
    from power_loop.contracts.events import TimerEnded as TimerEnded
    from power_loop.contracts.events import TimerFailed as TimerFailed
    from power_loop.contracts.events import TimerFired as TimerFired
    from power_loop.contracts.events import TimerPostponed as TimerPostponed
    from power_loop.contracts.events import TimerScheduled as TimerScheduled
    from power_loop.contracts.events import TimerSkipped as TimerSkipped
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
    from power_loop.contracts.events import WorkflowRunFinished as WorkflowRunFinished
    from power_loop.contracts.events import WorkflowRunStarted as WorkflowRunStarted
    from power_loop.contracts.events import WorkflowStepFinished as WorkflowStepFinished
    from power_loop.contracts.events import WorkflowStepStarted as WorkflowStepStarted
    from power_loop.contracts.explanation import CallExplanation as CallExplanation
    from power_loop.contracts.explanation import Segment as Segment
    from power_loop.contracts.explanation import SegmentKind as SegmentKind
    from power_loop.contracts.folding import Folded as Folded
    from power_loop.contracts.folding import FoldStrategy as FoldStrategy
    from power_loop.contracts.folding import FoldTask as FoldTask
    from power_loop.contracts.hooks import FoldBeforeContext as FoldBeforeContext
    from power_loop.contracts.hooks import HookContext as HookContext
    from power_loop.contracts.hooks import HookPoint as HookPoint
    from power_loop.contracts.hooks import LLMAfterContext as LLMAfterContext
    from power_loop.contracts.hooks import LLMBeforeContext as LLMBeforeContext
    from power_loop.contracts.hooks import MessageAppendContext as MessageAppendContext
    from power_loop.contracts.hooks import Park as Park
    from power_loop.contracts.hooks import PlannedCall as PlannedCall
    from power_loop.contracts.hooks import Postpone as Postpone
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
    from power_loop.contracts.hooks import SubagentEndContext as SubagentEndContext
    from power_loop.contracts.hooks import SubagentStartContext as SubagentStartContext
    from power_loop.contracts.hooks import TimerFireContext as TimerFireContext
    from power_loop.contracts.hooks import ToolAfterContext as ToolAfterContext
    from power_loop.contracts.hooks import ToolBeforeContext as ToolBeforeContext
    from power_loop.contracts.hooks import ToolErrorContext as ToolErrorContext
    from power_loop.contracts.hooks import ToolsAfterContext as ToolsAfterContext
    from power_loop.contracts.hooks import ToolsBeforeContext as ToolsBeforeContext
    from power_loop.contracts.hooks import Veto as Veto
    from power_loop.contracts.limits import SendLimits as SendLimits
    from power_loop.contracts.live import LiveContext as LiveContext
    from power_loop.contracts.live import LiveState as LiveState
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
    from power_loop.contracts.memory import Exchange as Exchange
    from power_loop.contracts.memory import Memory as Memory
    from power_loop.contracts.memory import MemoryProvider as MemoryProvider
    from power_loop.contracts.memory import RecallQuery as RecallQuery
    from power_loop.contracts.messages import AudioPart as AudioPart
    from power_loop.contracts.messages import ContentPart as ContentPart
    from power_loop.contracts.messages import FilePart as FilePart
    from power_loop.contracts.messages import ImagePart as ImagePart
    from power_loop.contracts.messages import Message as Message
    from power_loop.contracts.messages import OpaquePart as OpaquePart
    from power_loop.contracts.messages import Origin as Origin
    from power_loop.contracts.messages import ReasoningPart as ReasoningPart
    from power_loop.contracts.messages import RefusalPart as RefusalPart
    from power_loop.contracts.messages import Role as Role
    from power_loop.contracts.messages import TextPart as TextPart
    from power_loop.contracts.messages import ToolCallPart as ToolCallPart
    from power_loop.contracts.messages import ToolResultPart as ToolResultPart
    from power_loop.contracts.messages import tool_message as tool_message
    from power_loop.contracts.messages import user_message as user_message
    from power_loop.contracts.permissions import Permission as Permission
    from power_loop.contracts.permissions import PermissionMode as PermissionMode
    from power_loop.contracts.permissions import PermissionRule as PermissionRule
    from power_loop.contracts.ports import Listener as Listener
    from power_loop.contracts.ports import SessionStore as SessionStore
    from power_loop.contracts.ports import Signalled as Signalled
    from power_loop.contracts.records import ANY_SIGNALS as ANY_SIGNALS
    from power_loop.contracts.records import Accepted as Accepted
    from power_loop.contracts.records import AgentReport as AgentReport
    from power_loop.contracts.records import CallRecord as CallRecord
    from power_loop.contracts.records import CallStep as CallStep
    from power_loop.contracts.records import ChildSpending as ChildSpending
    from power_loop.contracts.records import Claim as Claim
    from power_loop.contracts.records import EffectFailure as EffectFailure
    from power_loop.contracts.records import FoldRecord as FoldRecord
    from power_loop.contracts.records import InboxRecord as InboxRecord
    from power_loop.contracts.records import Lease as Lease
    from power_loop.contracts.records import MessageRecord as MessageRecord
    from power_loop.contracts.records import ModelCall as ModelCall
    from power_loop.contracts.records import ModelCallRecord as ModelCallRecord
    from power_loop.contracts.records import NewCall as NewCall
    from power_loop.contracts.records import NewChild as NewChild
    from power_loop.contracts.records import NewFold as NewFold
    from power_loop.contracts.records import NewReply as NewReply
    from power_loop.contracts.records import News as News
    from power_loop.contracts.records import NewSend as NewSend
    from power_loop.contracts.records import Page as Page
    from power_loop.contracts.records import ProjectedMessage as ProjectedMessage
    from power_loop.contracts.records import Queued as Queued
    from power_loop.contracts.records import SendEnd as SendEnd
    from power_loop.contracts.records import SendRecord as SendRecord
    from power_loop.contracts.records import SessionRecord as SessionRecord
    from power_loop.contracts.records import SessionStats as SessionStats
    from power_loop.contracts.records import SessionView as SessionView
    from power_loop.contracts.records import StalledSession as StalledSession
    from power_loop.contracts.records import TakenInput as TakenInput
    from power_loop.contracts.redaction import Redaction as Redaction
    from power_loop.contracts.replays import ReplayDifference as ReplayDifference
    from power_loop.contracts.replays import Replayed as Replayed
    from power_loop.contracts.results import FollowUp as FollowUp
    from power_loop.contracts.results import Found as Found
    from power_loop.contracts.results import PendingCall as PendingCall
    from power_loop.contracts.results import Recovered as Recovered
    from power_loop.contracts.results import StatefulResult as StatefulResult
    from power_loop.contracts.schedules import After as After
    from power_loop.contracts.schedules import At as At
    from power_loop.contracts.schedules import Cron as Cron
    from power_loop.contracts.schedules import Every as Every
    from power_loop.contracts.schedules import Missed as Missed
    from power_loop.contracts.schedules import Schedule as Schedule
    from power_loop.contracts.schedules import runs_of as runs_of
    from power_loop.contracts.shell import CommandEnd as CommandEnd
    from power_loop.contracts.shell import CommandOutput as CommandOutput
    from power_loop.contracts.shell import JobReport as JobReport
    from power_loop.contracts.shell import ShellBackend as ShellBackend
    from power_loop.contracts.shell import ShellJob as ShellJob
    from power_loop.contracts.shell import ShellLimits as ShellLimits
    from power_loop.contracts.shell import ShellResult as ShellResult
    from power_loop.contracts.states import CALL_STEPS as CALL_STEPS
    from power_loop.contracts.states import OPEN_CALLS as OPEN_CALLS
    from power_loop.contracts.states import RESUMABLE_SENDS as RESUMABLE_SENDS
    from power_loop.contracts.states import CallState as CallState
    from power_loop.contracts.states import Effect as Effect
    from power_loop.contracts.states import NextInput as NextInput
    from power_loop.contracts.states import OnBusy as OnBusy
    from power_loop.contracts.states import OnUnknown as OnUnknown
    from power_loop.contracts.states import SchemaPolicy as SchemaPolicy
    from power_loop.contracts.states import SendStatus as SendStatus
    from power_loop.contracts.states import SessionState as SessionState
    from power_loop.contracts.states import WaitKind as WaitKind
    from power_loop.contracts.timers import NewTimer as NewTimer
    from power_loop.contracts.timers import TimerClaim as TimerClaim
    from power_loop.contracts.timers import TimerDelivery as TimerDelivery
    from power_loop.contracts.timers import TimerMaker as TimerMaker
    from power_loop.contracts.timers import TimerRecord as TimerRecord
    from power_loop.contracts.timers import TimerState as TimerState
    from power_loop.contracts.timers import TimerTransaction as TimerTransaction
    from power_loop.contracts.tools import InTransaction as InTransaction
    from power_loop.contracts.tools import SessionLog as SessionLog
    from power_loop.contracts.tools import ToolContext as ToolContext
    from power_loop.contracts.tools import ToolDefinition as ToolDefinition
    from power_loop.contracts.tools import ToolResource as ToolResource
    from power_loop.contracts.tools import ToolResult as ToolResult
    from power_loop.contracts.tools import ToolTransaction as ToolTransaction
    from power_loop.contracts.tools import Waiting as Waiting
    from power_loop.contracts.upkeep import BackedUp as BackedUp
    from power_loop.contracts.upkeep import Checkpointed as Checkpointed
    from power_loop.contracts.upkeep import OnConflict as OnConflict
    from power_loop.contracts.upkeep import Pruned as Pruned
    from power_loop.contracts.upkeep import Vacuumed as Vacuumed
    from power_loop.contracts.version import __version__ as __version__
    from power_loop.contracts.workflow_problem import WorkflowProblem as WorkflowProblem
    from power_loop.contracts.workflow_runs import NewRun as NewRun
    from power_loop.contracts.workflow_runs import RunEnd as RunEnd
    from power_loop.contracts.workflow_runs import RunWrite as RunWrite
    from power_loop.contracts.workflow_runs import WorkflowRunRecord as WorkflowRunRecord
    from power_loop.contracts.workflow_runs import WorkflowSignalRecord as WorkflowSignalRecord
    from power_loop.contracts.workflow_runs import WorkflowStepRecord as WorkflowStepRecord
    from power_loop.core.bus import AgentEventBus as AgentEventBus
    from power_loop.core.bus import Subscription as Subscription
    from power_loop.core.context.facts import LLMFacts as LLMFacts
    from power_loop.core.context.fold_strategies import AgenticFold as AgenticFold
    from power_loop.core.context.fold_strategies import LLMSummaryFold as LLMSummaryFold
    from power_loop.core.context.prompt import SystemPrompt as SystemPrompt
    from power_loop.core.context.request_diff import request_differences as request_differences
    from power_loop.core.context.settings import Compaction as Compaction
    from power_loop.core.context.settings import MemoryUse as MemoryUse
    from power_loop.core.context.settings import Projection as Projection
    from power_loop.core.hooks import Hooks as Hooks
    from power_loop.runtime.host.bubblewrap import BubblewrapShellBackend as BubblewrapShellBackend
    from power_loop.runtime.host.environment import EnvLimits as EnvLimits
    from power_loop.runtime.host.environment import RuntimeEnv as RuntimeEnv
    from power_loop.runtime.host.local_shell import LocalShellBackend as LocalShellBackend
    from power_loop.runtime.host.piped_process import PipedProcess as PipedProcess
    from power_loop.runtime.host.wrapped_shell import WrappedShellBackend as WrappedShellBackend
    from power_loop.runtime.llm.config import LLMProviderConfig as LLMProviderConfig
    from power_loop.runtime.llm.service import create_llm_service_from_config as create_llm_service_from_config
    from power_loop.runtime.llm.service import create_llm_service_from_env as create_llm_service_from_env
    from power_loop.runtime.store.open import missing_ddl as missing_ddl
    from power_loop.runtime.store.open import open_store as open_store
    from power_loop.runtime.store.schema import schema_ddl as schema_ddl
    from power_loop.runtime.store.store_memory import StoreMemory as StoreMemory
    from power_loop.runtime.store.store_memory import by_metadata as by_metadata
    from power_loop.tools.ask_user import ask_user_tools as ask_user_tools
    from power_loop.tools.background import background_tools as background_tools
    from power_loop.tools.bash import bash_tools as bash_tools
    from power_loop.tools.blackboard import blackboard_tools as blackboard_tools
    from power_loop.tools.decorator import tool as tool
    from power_loop.tools.memory import memory_tools as memory_tools
    from power_loop.tools.notes import NotesPolicy as NotesPolicy
    from power_loop.tools.notes import notes_tools as notes_tools
    from power_loop.tools.permissions import PermissionPolicy as PermissionPolicy
    from power_loop.tools.presets import ToolPreset as ToolPreset
    from power_loop.tools.presets import explore_tools as explore_tools
    from power_loop.tools.presets import file_tools as file_tools
    from power_loop.tools.presets import tool_preset as tool_preset
    from power_loop.tools.recall import recall_tools as recall_tools
    from power_loop.tools.registry import ToolRegistry as ToolRegistry
    from power_loop.tools.skill_folders import LoadedSkill as LoadedSkill
    from power_loop.tools.skill_folders import SkillCatalogue as SkillCatalogue
    from power_loop.tools.skill_folders import SkillProblem as SkillProblem
    from power_loop.tools.skill_folders import Skills as Skills
    from power_loop.tools.skill_head import Skill as Skill
    from power_loop.tools.skills import skill_tools as skill_tools
    from power_loop.tools.todo import TodoPolicy as TodoPolicy
    from power_loop.tools.todo import todo_tools as todo_tools
    from power_loop.tools.wakeups import WakeupPolicy as WakeupPolicy
    from power_loop.tools.wakeups import wakeup_tools as wakeup_tools

#: Where each public name lives. It is imported when it is asked for, so importing the package costs next to nothing.
_HOMES: dict[str, str] = {
    "LoopConfig": "power_loop.agent.config",
    "StatefulAgentLoop": "power_loop.agent.loop",
    "run_agent_spec": "power_loop.agent.loop",
    "TurnStream": "power_loop.agent.stream",
    "Worker": "power_loop.agent.worker",
    "agent_tools": "power_loop.agent.subagent_tools",
    "AgentLifecycle": "power_loop.contracts.agent_spec",
    "AgentSpec": "power_loop.contracts.agent_spec",
    "Answer": "power_loop.contracts.answers",
    "Approve": "power_loop.contracts.answers",
    "Deny": "power_loop.contracts.answers",
    "Give": "power_loop.contracts.answers",
    "Amounts": "power_loop.contracts.budgets",
    "Budget": "power_loop.contracts.budgets",
    "BudgetKey": "power_loop.contracts.budgets",
    "BudgetRecord": "power_loop.contracts.budgets",
    "Charge": "power_loop.contracts.budgets",
    "Granted": "power_loop.contracts.budgets",
    "ModelPrice": "power_loop.contracts.budgets",
    "NewBudget": "power_loop.contracts.budgets",
    "NewHold": "power_loop.contracts.budgets",
    "PriceTable": "power_loop.contracts.budgets",
    "Shortage": "power_loop.contracts.budgets",
    "BlackboardEntry": "power_loop.contracts.blackboard",
    "BlackboardTransaction": "power_loop.contracts.blackboard",
    "CancellationToken": "power_loop.contracts.cancellation",
    "choice_of": "power_loop.contracts.choices",
    "Clock": "power_loop.contracts.clock",
    "SystemClock": "power_loop.contracts.clock",
    "Finding": "power_loop.contracts.diagnosis",
    "FindingKind": "power_loop.contracts.diagnosis",
    "BlackboardConflictError": "power_loop.contracts.errors",
    "BlackboardFullError": "power_loop.contracts.errors",
    "CallNotFoundError": "power_loop.contracts.errors",
    "CallNotWaitingError": "power_loop.contracts.errors",
    "ConfigError": "power_loop.contracts.errors",
    "HookError": "power_loop.contracts.errors",
    "InboxFullError": "power_loop.contracts.errors",
    "InputError": "power_loop.contracts.errors",
    "InvalidArchiveError": "power_loop.contracts.errors",
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
    "LeafLostError": "power_loop.contracts.errors",
    "LeafRefusedError": "power_loop.contracts.errors",
    "LeaseLostError": "power_loop.contracts.errors",
    "LoopClosedError": "power_loop.contracts.errors",
    "MCPConnectionError": "power_loop.contracts.errors",
    "MCPError": "power_loop.contracts.errors",
    "MCPToolChangedError": "power_loop.contracts.errors",
    "MissingExtraError": "power_loop.contracts.errors",
    "PriceMissingError": "power_loop.contracts.errors",
    "ModelCallNotFoundError": "power_loop.contracts.errors",
    "NotADatabaseError": "power_loop.contracts.errors",
    "OutputError": "power_loop.contracts.errors",
    "PowerLoopError": "power_loop.contracts.errors",
    "RequestConflictError": "power_loop.contracts.errors",
    "ResultPrunedError": "power_loop.contracts.errors",
    "SendPoisonedError": "power_loop.contracts.errors",
    "SessionBusyError": "power_loop.contracts.errors",
    "SessionClosedError": "power_loop.contracts.errors",
    "SessionError": "power_loop.contracts.errors",
    "SessionExistsError": "power_loop.contracts.errors",
    "RunNotFoundError": "power_loop.contracts.errors",
    "RunSessionError": "power_loop.contracts.errors",
    "SessionForkedError": "power_loop.contracts.errors",
    "SessionNotFoundError": "power_loop.contracts.errors",
    "SessionPendingError": "power_loop.contracts.errors",
    "StoreCorruptError": "power_loop.contracts.errors",
    "StoreError": "power_loop.contracts.errors",
    "StoreFullError": "power_loop.contracts.errors",
    "StoreNewerError": "power_loop.contracts.errors",
    "StoreReadOnlyError": "power_loop.contracts.errors",
    "StoreRefusedError": "power_loop.contracts.errors",
    "StoreSchemaError": "power_loop.contracts.errors",
    "StoreUnavailableError": "power_loop.contracts.errors",
    "StoreUnsupportedError": "power_loop.contracts.errors",
    "StoreValueError": "power_loop.contracts.errors",
    "ToolDefinitionError": "power_loop.contracts.errors",
    "ToolError": "power_loop.contracts.errors",
    "WorkerDiedError": "power_loop.contracts.errors",
    "WorkerError": "power_loop.contracts.errors",
    "WorkerProtocolError": "power_loop.contracts.errors",
    "WorkerSilentError": "power_loop.contracts.errors",
    "WorkerTimeoutError": "power_loop.contracts.errors",
    "WorkflowError": "power_loop.contracts.errors",
    "WorkflowSpecError": "power_loop.contracts.errors",
    "TransactionError": "power_loop.contracts.errors",
    "ProcessError": "power_loop.contracts.errors",
    "SandboxUnavailableError": "power_loop.contracts.errors",
    "NamespaceError": "power_loop.contracts.errors",
    "PathRefusedError": "power_loop.contracts.errors",
    "AgentError": "power_loop.contracts.errors",
    "AgentGrantError": "power_loop.contracts.errors",
    "AgentLimitError": "power_loop.contracts.errors",
    "AgentSpecError": "power_loop.contracts.errors",
    "AgentEvent": "power_loop.contracts.events",
    "EventPayload": "power_loop.contracts.events",
    "BudgetExceeded": "power_loop.contracts.events",
    "FoldFailed": "power_loop.contracts.events",
    "FoldFinished": "power_loop.contracts.events",
    "FoldProgressed": "power_loop.contracts.events",
    "FoldStarted": "power_loop.contracts.events",
    "HookFailed": "power_loop.contracts.events",
    "InputQueued": "power_loop.contracts.events",
    "InputRefused": "power_loop.contracts.events",
    "InputTaken": "power_loop.contracts.events",
    "LLMCallFailed": "power_loop.contracts.events",
    "LLMCallFinished": "power_loop.contracts.events",
    "LLMCallStarted": "power_loop.contracts.events",
    "LeaseTaken": "power_loop.contracts.events",
    "MessageAppended": "power_loop.contracts.events",
    "ProjectionFailed": "power_loop.contracts.events",
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
    "LiveStateFailed": "power_loop.contracts.events",
    "MemoryFailed": "power_loop.contracts.events",
    "MemoryRecalled": "power_loop.contracts.events",
    "AgentFinished": "power_loop.contracts.events",
    "WorkflowRunFinished": "power_loop.contracts.events",
    "WorkflowRunStarted": "power_loop.contracts.events",
    "WorkflowStepFinished": "power_loop.contracts.events",
    "WorkflowStepStarted": "power_loop.contracts.events",
    "AgentStarted": "power_loop.contracts.events",
    "CallExplanation": "power_loop.contracts.explanation",
    "Segment": "power_loop.contracts.explanation",
    "SegmentKind": "power_loop.contracts.explanation",
    "Folded": "power_loop.contracts.folding",
    "FoldStrategy": "power_loop.contracts.folding",
    "FoldTask": "power_loop.contracts.folding",
    "FoldBeforeContext": "power_loop.contracts.hooks",
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
    "SubagentEndContext": "power_loop.contracts.hooks",
    "SubagentStartContext": "power_loop.contracts.hooks",
    "SendLimits": "power_loop.contracts.limits",
    "LiveContext": "power_loop.contracts.live",
    "LiveState": "power_loop.contracts.live",
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
    "Exchange": "power_loop.contracts.memory",
    "Memory": "power_loop.contracts.memory",
    "MemoryProvider": "power_loop.contracts.memory",
    "RecallQuery": "power_loop.contracts.memory",
    "AudioPart": "power_loop.contracts.messages",
    "ContentPart": "power_loop.contracts.messages",
    "FilePart": "power_loop.contracts.messages",
    "ImagePart": "power_loop.contracts.messages",
    "Message": "power_loop.contracts.messages",
    "OpaquePart": "power_loop.contracts.messages",
    "Origin": "power_loop.contracts.messages",
    "ReasoningPart": "power_loop.contracts.messages",
    "RefusalPart": "power_loop.contracts.messages",
    "Role": "power_loop.contracts.messages",
    "TextPart": "power_loop.contracts.messages",
    "ToolCallPart": "power_loop.contracts.messages",
    "ToolResultPart": "power_loop.contracts.messages",
    "tool_message": "power_loop.contracts.messages",
    "user_message": "power_loop.contracts.messages",
    "Permission": "power_loop.contracts.permissions",
    "PermissionMode": "power_loop.contracts.permissions",
    "PermissionRule": "power_loop.contracts.permissions",
    "Listener": "power_loop.contracts.ports",
    "SessionStore": "power_loop.contracts.ports",
    "Signalled": "power_loop.contracts.ports",
    "AgentReport": "power_loop.contracts.records",
    "Accepted": "power_loop.contracts.records",
    "CallRecord": "power_loop.contracts.records",
    "CallStep": "power_loop.contracts.records",
    "Claim": "power_loop.contracts.records",
    "EffectFailure": "power_loop.contracts.records",
    "FoldRecord": "power_loop.contracts.records",
    "InboxRecord": "power_loop.contracts.records",
    "ANY_SIGNALS": "power_loop.contracts.records",
    "Lease": "power_loop.contracts.records",
    "MessageRecord": "power_loop.contracts.records",
    "ModelCall": "power_loop.contracts.records",
    "ModelCallRecord": "power_loop.contracts.records",
    "NewCall": "power_loop.contracts.records",
    "NewFold": "power_loop.contracts.records",
    "NewReply": "power_loop.contracts.records",
    "News": "power_loop.contracts.records",
    "NewSend": "power_loop.contracts.records",
    "Page": "power_loop.contracts.records",
    "ProjectedMessage": "power_loop.contracts.records",
    "Queued": "power_loop.contracts.records",
    "SendEnd": "power_loop.contracts.records",
    "SendRecord": "power_loop.contracts.records",
    "SessionRecord": "power_loop.contracts.records",
    "SessionStats": "power_loop.contracts.records",
    "SessionView": "power_loop.contracts.records",
    "StalledSession": "power_loop.contracts.records",
    "TakenInput": "power_loop.contracts.records",
    "ChildSpending": "power_loop.contracts.records",
    "NewChild": "power_loop.contracts.records",
    "Redaction": "power_loop.contracts.redaction",
    "Replayed": "power_loop.contracts.replays",
    "ReplayDifference": "power_loop.contracts.replays",
    "request_differences": "power_loop.core.context.request_diff",
    "FollowUp": "power_loop.contracts.results",
    "Found": "power_loop.contracts.results",
    "PendingCall": "power_loop.contracts.results",
    "Recovered": "power_loop.contracts.results",
    "StatefulResult": "power_loop.contracts.results",
    "CommandEnd": "power_loop.contracts.shell",
    "CommandOutput": "power_loop.contracts.shell",
    "JobReport": "power_loop.contracts.shell",
    "ShellBackend": "power_loop.contracts.shell",
    "ShellJob": "power_loop.contracts.shell",
    "ShellLimits": "power_loop.contracts.shell",
    "ShellResult": "power_loop.contracts.shell",
    "CALL_STEPS": "power_loop.contracts.states",
    "CallState": "power_loop.contracts.states",
    "Effect": "power_loop.contracts.states",
    "NextInput": "power_loop.contracts.states",
    "OnBusy": "power_loop.contracts.states",
    "OPEN_CALLS": "power_loop.contracts.states",
    "OnUnknown": "power_loop.contracts.states",
    "RESUMABLE_SENDS": "power_loop.contracts.states",
    "SchemaPolicy": "power_loop.contracts.states",
    "SendStatus": "power_loop.contracts.states",
    "SessionState": "power_loop.contracts.states",
    "WaitKind": "power_loop.contracts.states",
    "InTransaction": "power_loop.contracts.tools",
    "SessionLog": "power_loop.contracts.tools",
    "ToolContext": "power_loop.contracts.tools",
    "ToolDefinition": "power_loop.contracts.tools",
    "ToolResult": "power_loop.contracts.tools",
    "ToolTransaction": "power_loop.contracts.tools",
    "Waiting": "power_loop.contracts.tools",
    "ToolResource": "power_loop.contracts.tools",
    "BackedUp": "power_loop.contracts.upkeep",
    "Checkpointed": "power_loop.contracts.upkeep",
    "OnConflict": "power_loop.contracts.upkeep",
    "Pruned": "power_loop.contracts.upkeep",
    "Vacuumed": "power_loop.contracts.upkeep",
    "NewRun": "power_loop.contracts.workflow_runs",
    "RunEnd": "power_loop.contracts.workflow_runs",
    "RunWrite": "power_loop.contracts.workflow_runs",
    "WorkflowRunRecord": "power_loop.contracts.workflow_runs",
    "WorkflowSignalRecord": "power_loop.contracts.workflow_runs",
    "WorkflowStepRecord": "power_loop.contracts.workflow_runs",
    "__version__": "power_loop.contracts.version",
    "WorkflowProblem": "power_loop.contracts.workflow_problem",
    "AgentEventBus": "power_loop.core.bus",
    "Subscription": "power_loop.core.bus",
    "LLMFacts": "power_loop.core.context.facts",
    "AgenticFold": "power_loop.core.context.fold_strategies",
    "LLMSummaryFold": "power_loop.core.context.fold_strategies",
    "SystemPrompt": "power_loop.core.context.prompt",
    "Compaction": "power_loop.core.context.settings",
    "Projection": "power_loop.core.context.settings",
    "MemoryUse": "power_loop.core.context.settings",
    "Hooks": "power_loop.core.hooks",
    "BubblewrapShellBackend": "power_loop.runtime.host.bubblewrap",
    "EnvLimits": "power_loop.runtime.host.environment",
    "RuntimeEnv": "power_loop.runtime.host.environment",
    "LocalShellBackend": "power_loop.runtime.host.local_shell",
    "PipedProcess": "power_loop.runtime.host.piped_process",
    "WrappedShellBackend": "power_loop.runtime.host.wrapped_shell",
    "LLMProviderConfig": "power_loop.runtime.llm.config",
    "create_llm_service_from_config": "power_loop.runtime.llm.service",
    "create_llm_service_from_env": "power_loop.runtime.llm.service",
    "missing_ddl": "power_loop.runtime.store.open",
    "open_store": "power_loop.runtime.store.open",
    "schema_ddl": "power_loop.runtime.store.schema",
    "StoreMemory": "power_loop.runtime.store.store_memory",
    "by_metadata": "power_loop.runtime.store.store_memory",
    "ask_user_tools": "power_loop.tools.ask_user",
    "background_tools": "power_loop.tools.background",
    "bash_tools": "power_loop.tools.bash",
    "blackboard_tools": "power_loop.tools.blackboard",
    "tool": "power_loop.tools.decorator",
    "memory_tools": "power_loop.tools.memory",
    "NotesPolicy": "power_loop.tools.notes",
    "notes_tools": "power_loop.tools.notes",
    "PermissionPolicy": "power_loop.tools.permissions",
    "ToolPreset": "power_loop.tools.presets",
    "explore_tools": "power_loop.tools.presets",
    "file_tools": "power_loop.tools.presets",
    "tool_preset": "power_loop.tools.presets",
    "recall_tools": "power_loop.tools.recall",
    "ToolRegistry": "power_loop.tools.registry",
    "LoadedSkill": "power_loop.tools.skill_folders",
    "Skill": "power_loop.tools.skill_head",
    "SkillCatalogue": "power_loop.tools.skill_folders",
    "SkillProblem": "power_loop.tools.skill_folders",
    "Skills": "power_loop.tools.skill_folders",
    "skill_tools": "power_loop.tools.skills",
    "TimerRunner": "power_loop.agent.timers",
    "ScheduleError": "power_loop.contracts.errors",
    "TimeZoneMissingError": "power_loop.contracts.errors",
    "TimerLimitError": "power_loop.contracts.errors",
    "TimerNotFoundError": "power_loop.contracts.errors",
    "TimerCancelled": "power_loop.contracts.events",
    "TimerEnded": "power_loop.contracts.events",
    "TimerFailed": "power_loop.contracts.events",
    "TimerFired": "power_loop.contracts.events",
    "TimerPostponed": "power_loop.contracts.events",
    "TimerScheduled": "power_loop.contracts.events",
    "TimerSkipped": "power_loop.contracts.events",
    "Postpone": "power_loop.contracts.hooks",
    "TimerFireContext": "power_loop.contracts.hooks",
    "After": "power_loop.contracts.schedules",
    "At": "power_loop.contracts.schedules",
    "Cron": "power_loop.contracts.schedules",
    "Every": "power_loop.contracts.schedules",
    "Missed": "power_loop.contracts.schedules",
    "Schedule": "power_loop.contracts.schedules",
    "runs_of": "power_loop.contracts.schedules",
    "NewTimer": "power_loop.contracts.timers",
    "TimerClaim": "power_loop.contracts.timers",
    "TimerDelivery": "power_loop.contracts.timers",
    "TimerMaker": "power_loop.contracts.timers",
    "TimerRecord": "power_loop.contracts.timers",
    "TimerState": "power_loop.contracts.timers",
    "TimerTransaction": "power_loop.contracts.timers",
    "WakeupPolicy": "power_loop.tools.wakeups",
    "wakeup_tools": "power_loop.tools.wakeups",
    "TodoPolicy": "power_loop.tools.todo",
    "todo_tools": "power_loop.tools.todo",
}

# Those that who writes a store of their own needs may still change with the port that they belong to.
_PORT = (
    *(
        "SessionStore",
        "Claim",
        "Lease",
        "ANY_SIGNALS",
        "Accepted",
        "NewSend",
        "AgentReport",
        "NewChild",
        "ChildSpending",
        "NewReply",
        "NewCall",
        "ModelCall",
        "CallStep",
        "NewBudget",
        "NewHold",
        "Granted",
        "Shortage",
        "Charge",
        "NewRun",
        "RunEnd",
        "RunWrite",
        "WorkflowRunRecord",
        "WorkflowSignalRecord",
        "WorkflowStepRecord",
        "NewTimer",
        "TimerClaim",
        "TimerDelivery",
    ),
    *(
        "SendEnd",
        "SessionView",
        "CALL_STEPS",
        "OPEN_CALLS",
        "RESUMABLE_SENDS",
        "OpaquePart",
        "tool_message",
        "user_message",
    ),
)
#: The names that only a major version may change or remove.
STABLE_API: tuple[str, ...] = tuple(
    sorted(_HOMES.keys() - {"SchemaPolicy", "missing_ddl", "open_store", "schema_ddl", *_PORT})
)

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
