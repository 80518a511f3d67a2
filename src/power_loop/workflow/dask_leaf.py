"""Is what a Dask worker runs of a workflow: one leaf, with the application's own loop on the store of the run."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
from typing import Any

from power_loop.agent.loop import StatefulAgentLoop
from power_loop.contracts.errors import LeafRefusedError, PowerLoopError
from power_loop.contracts.version import __version__
from power_loop.workflow.executors import LeafTask

#: Counts up whenever what travels changes its meaning.
PROTOCOL = 1


def order_of(task: LeafTask, app: str, epoch: int) -> str:
    """Return what travels to a worker: the leaf, who makes its loop, and the epoch of the run that waits for it."""
    order = {"protocol": PROTOCOL, "version": __version__, "app": app, "epoch": epoch, "task": task.to_json()}
    return json.dumps(order)


def run_order(order: str) -> str:
    """Run a leaf and return, as JSON, why it could not be run; what came of it stands in the store.

    It is called by a worker, by its name, in a thread of its own.
    """
    try:
        asyncio.run(_run(json.loads(order)))
    except PowerLoopError as error:
        return json.dumps({"code": error.code, "message": error.message})
    return json.dumps(None)


async def _run(order: dict[str, Any]) -> None:
    """Run a leaf. Raises `workflow.leaf_refused`, and what kept it from coming to rest."""
    here = (PROTOCOL, __version__)
    if (order.get("protocol"), order.get("version")) != here:
        raise LeafRefusedError(
            f"the worker has power-loop {__version__} with protocol {PROTOCOL}, the run has"
            f" {order.get('version')!r:.80} with {order.get('protocol')!r:.80}: install the same version on both"
        )
    task = LeafTask.from_json(order["task"])
    async with await _loop_of(order["app"]) as loop:
        head = await loop.get_session(task.run_id)
        if head.epoch != order["epoch"] or head.owner is None:
            raise LeafRefusedError(
                f"nobody waits for leaf {task.path!r} of run {task.run_id!r} any more: its engine ended, or another one"
                " took the run over"
            )
        await loop.run_leaf(task.spec, task.input, run_id=task.run_id, request_id=task.key)


async def _loop_of(app: str) -> StatefulAgentLoop:
    module, _, attribute = app.partition(":")
    try:
        make: Any = importlib.import_module(module)
        for part in attribute.split("."):
            make = getattr(make, part)
    except (ImportError, AttributeError) as error:
        raise LeafRefusedError(f"app {app!r} cannot be imported on the worker: {error}") from error
    try:
        made = make()
    except TypeError as error:
        raise LeafRefusedError(f"app {app!r} cannot be called without arguments: {error}") from error
    if inspect.isawaitable(made):
        made = await made
    if not isinstance(made, StatefulAgentLoop):
        raise LeafRefusedError(f"app {app!r} returned {made!r:.200}: it has to return a StatefulAgentLoop")
    return made
