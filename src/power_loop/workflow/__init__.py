"""Floor 6, many agents in plain code: workflows that are written as data, run step by step and survive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from power_loop.contracts.lazy_names import lazy_names

if TYPE_CHECKING:
    from power_loop.workflow.actions import RunStatus as RunStatus
    from power_loop.workflow.dask_executor import DaskExecutor as DaskExecutor
    from power_loop.workflow.executors import InProcessExecutor as InProcessExecutor
    from power_loop.workflow.executors import LeafError as LeafError
    from power_loop.workflow.executors import LeafExecutor as LeafExecutor
    from power_loop.workflow.executors import LeafHost as LeafHost
    from power_loop.workflow.executors import LeafOutcome as LeafOutcome
    from power_loop.workflow.executors import LeafTask as LeafTask
    from power_loop.workflow.launcher import BubblewrapWorkerLauncher as BubblewrapWorkerLauncher
    from power_loop.workflow.launcher import WorkerLauncher as WorkerLauncher
    from power_loop.workflow.launcher import WorkerPlan as WorkerPlan
    from power_loop.workflow.migrate import Fate as Fate
    from power_loop.workflow.migrate import StepPlan as StepPlan
    from power_loop.workflow.migrate import plan_migration as plan_migration
    from power_loop.workflow.parse import validate_workflow as validate_workflow
    from power_loop.workflow.pool import PoolLimits as PoolLimits
    from power_loop.workflow.run import Workflow as Workflow
    from power_loop.workflow.run import WorkflowResult as WorkflowResult
    from power_loop.workflow.run import cancel_run as cancel_run
    from power_loop.workflow.run import create_workflow as create_workflow
    from power_loop.workflow.run import drive_runs as drive_runs
    from power_loop.workflow.run import get_run as get_run
    from power_loop.workflow.run import list_runs as list_runs
    from power_loop.workflow.run import migrate_run as migrate_run
    from power_loop.workflow.run import resume_run as resume_run
    from power_loop.workflow.run import signal_run as signal_run
    from power_loop.workflow.schema import WORKFLOW_SCHEMA as WORKFLOW_SCHEMA
    from power_loop.workflow.subprocess_executor import SubprocessExecutor as SubprocessExecutor
    from power_loop.workflow.tools import workflow_tools as workflow_tools
    from power_loop.workflow.tree import RunNode as RunNode
    from power_loop.workflow.tree import run_tree as run_tree
    from power_loop.workflow.worker_bootstrap import WorkerBootstrap as WorkerBootstrap

#: Where each public name lives. It is imported when it is asked for, so importing the package costs next to nothing.
_HOMES: dict[str, str] = {
    "BubblewrapWorkerLauncher": "power_loop.workflow.launcher",
    "DaskExecutor": "power_loop.workflow.dask_executor",
    "Fate": "power_loop.workflow.migrate",
    "InProcessExecutor": "power_loop.workflow.executors",
    "LeafError": "power_loop.workflow.executors",
    "LeafExecutor": "power_loop.workflow.executors",
    "LeafHost": "power_loop.workflow.executors",
    "LeafOutcome": "power_loop.workflow.executors",
    "LeafTask": "power_loop.workflow.executors",
    "PoolLimits": "power_loop.workflow.pool",
    "RunNode": "power_loop.workflow.tree",
    "RunStatus": "power_loop.workflow.actions",
    "StepPlan": "power_loop.workflow.migrate",
    "SubprocessExecutor": "power_loop.workflow.subprocess_executor",
    "WORKFLOW_SCHEMA": "power_loop.workflow.schema",
    "WorkerBootstrap": "power_loop.workflow.worker_bootstrap",
    "WorkerLauncher": "power_loop.workflow.launcher",
    "WorkerPlan": "power_loop.workflow.launcher",
    "Workflow": "power_loop.workflow.run",
    "WorkflowResult": "power_loop.workflow.run",
    "cancel_run": "power_loop.workflow.run",
    "create_workflow": "power_loop.workflow.run",
    "drive_runs": "power_loop.workflow.run",
    "get_run": "power_loop.workflow.run",
    "list_runs": "power_loop.workflow.run",
    "migrate_run": "power_loop.workflow.run",
    "plan_migration": "power_loop.workflow.migrate",
    "resume_run": "power_loop.workflow.run",
    "run_tree": "power_loop.workflow.tree",
    "signal_run": "power_loop.workflow.run",
    "validate_workflow": "power_loop.workflow.parse",
    "workflow_tools": "power_loop.workflow.tools",
}

__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]

if not TYPE_CHECKING:
    __getattr__ = lazy_names(globals(), _HOMES)


def __dir__() -> list[str]:
    return sorted({*__all__, *globals()})
