"""Floor 6, many agents in plain code: workflows that are written as data, run step by step and survive."""

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
from power_loop.workflow.parse import validate_workflow as validate_workflow
from power_loop.workflow.pool import PoolLimits as PoolLimits
from power_loop.workflow.run import Workflow as Workflow
from power_loop.workflow.run import WorkflowResult as WorkflowResult
from power_loop.workflow.run import cancel_run as cancel_run
from power_loop.workflow.run import create_workflow as create_workflow
from power_loop.workflow.run import drive_runs as drive_runs
from power_loop.workflow.run import get_run as get_run
from power_loop.workflow.run import list_runs as list_runs
from power_loop.workflow.run import resume_run as resume_run
from power_loop.workflow.run import signal_run as signal_run
from power_loop.workflow.subprocess_executor import SubprocessExecutor as SubprocessExecutor
from power_loop.workflow.tools import workflow_tools as workflow_tools
from power_loop.workflow.worker_bootstrap import WorkerBootstrap as WorkerBootstrap
