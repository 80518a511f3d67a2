"""Is the public shelf of storage: how a store is opened, and the port of those who write one; provisional."""

from __future__ import annotations

from power_loop.contracts.budgets import Charge, Granted, NewBudget, NewHold, Shortage
from power_loop.contracts.ports import Listener, SessionStore, Signalled
from power_loop.contracts.records import (
    ANY_SIGNALS,
    Accepted,
    AgentReport,
    CallStep,
    ChildSpending,
    Claim,
    Lease,
    ModelCall,
    NewCall,
    NewChild,
    NewReply,
    NewSend,
    SendEnd,
    SessionView,
)
from power_loop.contracts.states import CALL_STEPS, OPEN_CALLS, RESUMABLE_SENDS, SchemaPolicy
from power_loop.contracts.timers import NewTimer, TimerClaim, TimerDelivery
from power_loop.contracts.workflow_runs import (
    NewRun,
    RunEnd,
    RunWrite,
    WorkflowRunRecord,
    WorkflowSignalRecord,
    WorkflowStepRecord,
)
from power_loop.runtime.store.open import missing_ddl, open_store
from power_loop.runtime.store.schema import schema_ddl

__all__ = [
    "ANY_SIGNALS",
    "Accepted",
    "AgentReport",
    "CALL_STEPS",
    "CallStep",
    "Charge",
    "ChildSpending",
    "Claim",
    "Granted",
    "Lease",
    "Listener",
    "ModelCall",
    "NewBudget",
    "NewCall",
    "NewChild",
    "NewHold",
    "NewReply",
    "NewRun",
    "NewSend",
    "NewTimer",
    "OPEN_CALLS",
    "RESUMABLE_SENDS",
    "RunEnd",
    "RunWrite",
    "SchemaPolicy",
    "SendEnd",
    "SessionStore",
    "SessionView",
    "Shortage",
    "Signalled",
    "TimerClaim",
    "TimerDelivery",
    "WorkflowRunRecord",
    "WorkflowSignalRecord",
    "WorkflowStepRecord",
    "missing_ddl",
    "open_store",
    "schema_ddl",
]
