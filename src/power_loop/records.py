"""Is the public shelf of records: what a loop and its store answer when they are asked."""

from __future__ import annotations

from power_loop.contracts.blackboard import BlackboardEntry, BlackboardTransaction
from power_loop.contracts.diagnosis import Finding, FindingKind
from power_loop.contracts.records import (
    CallRecord,
    EffectFailure,
    FoldRecord,
    InboxRecord,
    MessageRecord,
    ModelCallRecord,
    NewFold,
    News,
    Page,
    ProjectedMessage,
    Queued,
    SendRecord,
    SessionRecord,
    SessionStats,
    StalledSession,
    TakenInput,
)
from power_loop.contracts.replays import ReplayDifference, Replayed
from power_loop.contracts.results import FollowUp, Found, PendingCall, Recovered, StatefulResult
from power_loop.contracts.states import (
    CallState,
    Effect,
    NextInput,
    OnBusy,
    OnUnknown,
    SendStatus,
    SessionState,
    WaitKind,
)
from power_loop.contracts.upkeep import BackedUp, Checkpointed, OnConflict, Pruned, Vacuumed

__all__ = [
    "BackedUp",
    "BlackboardEntry",
    "BlackboardTransaction",
    "CallRecord",
    "CallState",
    "Checkpointed",
    "Effect",
    "EffectFailure",
    "Finding",
    "FindingKind",
    "FoldRecord",
    "FollowUp",
    "Found",
    "InboxRecord",
    "MessageRecord",
    "ModelCallRecord",
    "NewFold",
    "News",
    "NextInput",
    "OnBusy",
    "OnConflict",
    "OnUnknown",
    "Page",
    "PendingCall",
    "ProjectedMessage",
    "Pruned",
    "Queued",
    "Recovered",
    "ReplayDifference",
    "Replayed",
    "SendRecord",
    "SendStatus",
    "SessionRecord",
    "SessionState",
    "SessionStats",
    "StalledSession",
    "StatefulResult",
    "TakenInput",
    "Vacuumed",
    "WaitKind",
]
