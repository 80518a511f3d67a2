"""Runs leaves on the workers of a Dask cluster, as sessions in the store of their run."""

from __future__ import annotations

import asyncio
import contextlib
import json
from concurrent.futures import CancelledError
from typing import Any

from power_loop.contracts.errors import ConfigError, LeafLostError, LeafRefusedError, MissingExtraError, StoreError
from power_loop.contracts.states import SendStatus
from power_loop.workflow.dask_leaf import order_of, run_order
from power_loop.workflow.executors import LeafError, LeafHost, LeafOutcome, LeafTask
from power_loop.workflow.leaf import TRANSIENT

#: How long a leaf that was told to end is waited for.
PATIENCE_S = 10.0
# The pauses between two tries to reach a cluster that is away.
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0


class DaskExecutor:
    """Runs leaves on a Dask cluster: `DaskExecutor("tcp://scheduler:8786", app="my_app.agents:make_loop")`.

    `app` names what makes the loop of a worker, on the store of the run: PostgreSQL or MySQL where there is more than
    one machine. Nothing travels but its name and JSON, neither a DSN nor a key: those are the worker's own.

    What came of a leaf is read from the store, where its lease fences whoever drives it: a worker that was given up
    and still runs can bring no result. A leaf whose worker dies is run again by Dask and goes on where it was, with its
    effects as the ledger has them. A scheduler that is away is waited for, `reconnect_s` long; then, and where a leaf
    ends several workers, it fails with `workflow.leaf_lost`, and the `retry` of its step decides.
    """

    def __init__(self, address: str, *, app: str, reconnect_s: float = 60.0) -> None:
        module, _, attribute = app.partition(":")
        if not module or not attribute:
            raise ConfigError(f"app is {app!r:.200}: give MODULE:CALLABLE, such as my_app.agents:make_loop")
        self._distributed = _distributed()
        self._address = address
        self._app = app
        self._reconnect_s = reconnect_s
        self._client: Any = None
        self._connecting = asyncio.Lock()

    async def run_leaf(self, task: LeafTask, host: LeafHost) -> LeafOutcome:
        """Run a leaf to its outcome."""
        epoch = (await host.store.get_session(task.run_id)).epoch
        order = order_of(task, self._app, epoch)
        loop = asyncio.get_running_loop()
        away_s, pause_s = 0.0, _FIRST_PAUSE_S
        while True:
            tried_at_s = loop.time()
            try:
                refusal = await self._submit(order, task, host)
            except _AwayError as away:
                # Whatever became of the cluster, its worker may have come to an end.
                known = await host.recorded(task)
                if known is not None:
                    return known
                if away.was_there and loop.time() - tried_at_s > self._reconnect_s:
                    # It was there for long: this is another absence.
                    away_s, pause_s = 0.0, _FIRST_PAUSE_S
                elif not away.was_there:
                    away_s += loop.time() - tried_at_s
                if host.stop.is_cancelled or away_s >= self._reconnect_s:
                    await host.give_up(task, "its cluster is lost")
                    return _failed(LeafLostError(f"leaf {task.path!r} was lost with its cluster: {away}"))
                await asyncio.sleep(pause_s)
                away_s += pause_s
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
            else:
                return refusal

    async def aclose(self) -> None:
        """Let the cluster go."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _submit(self, order: str, task: LeafTask, host: LeafHost) -> LeafOutcome:
        """Run a leaf once. Raises `_AwayError` where the cluster is not there (any more)."""
        client, loop = await self._connected(), asyncio.get_running_loop()
        stopping = asyncio.Event()

        def stop() -> None:
            loop.call_soon_threadsafe(stopping.set)

        unwatch = host.stop.watch(stop)
        if host.stop.is_cancelled:
            stopping.set()
        future = client.submit(run_order, order, pure=False, retries=0)
        waits = asyncio.ensure_future(future.result())
        stops = asyncio.ensure_future(stopping.wait())
        try:
            await asyncio.wait((waits, stops), return_when=asyncio.FIRST_COMPLETED)
            if not waits.done():
                await self._end(future, waits, task, host)
            return await self._outcome(waits, task, host)
        except asyncio.CancelledError:
            await asyncio.shield(self._end(future, waits, task, host))
            raise
        finally:
            unwatch()
            for one in (stops, waits):
                one.cancel()
            await asyncio.gather(stops, waits, return_exceptions=True)
            future.release()

    async def _end(self, future: Any, waits: asyncio.Future[Any], task: LeafTask, host: LeafHost) -> None:
        """Stop a leaf, whether it has begun or not, and wait for its end for a while."""
        with contextlib.suppress(StoreError):
            if await host.give_up(task, host.stop.reason or "its run does not need it any more"):
                await asyncio.wait((waits,), timeout=PATIENCE_S)
        # One that has not begun is not begun any more.
        with contextlib.suppress(Exception):
            await future.cancel()

    async def _outcome(self, waits: asyncio.Future[Any], task: LeafTask, host: LeafHost) -> LeafOutcome:
        """Return what came of a leaf: what the store says, else what kept it from being run."""
        said: Any = None
        failure: BaseException | None = None
        if not waits.done():
            failure = TimeoutError(f"it did not end within {PATIENCE_S:g} s")
        elif waits.cancelled():
            failure = asyncio.CancelledError("the cluster let it go")
        else:
            failure = waits.exception()
            said = None if failure is not None else waits.result()
        known = await host.recorded(task)
        if known is not None:
            return known
        if host.stop.is_cancelled:
            return LeafOutcome(SendStatus.CANCELLED, error=LeafError("send.cancelled", host.stop.reason or "stopped"))
        if isinstance(failure, self._distributed.KilledWorker):
            return _failed(LeafLostError(f"leaf {task.path!r} ended every worker that ran it: {failure}"))
        if failure is not None and self._is_away(failure):
            raise _AwayError(str(failure) or type(failure).__name__, was_there=True)
        if failure is not None:
            return _failed(LeafRefusedError(f"leaf {task.path!r} was not run: {type(failure).__name__}: {failure}"))
        refusal = json.loads(said)
        if refusal is None:
            return _failed(LeafRefusedError(f"leaf {task.path!r} came to no end that the store of its run knows of"))
        return LeafOutcome.failed(refusal["code"], refusal["message"], is_transient=refusal["code"] in TRANSIENT)

    def _is_away(self, failure: BaseException) -> bool:
        # A connection that closes says so with an OSError; futures of a scheduler that is lost are cancelled.
        return isinstance(failure, (CancelledError, asyncio.CancelledError, OSError, asyncio.TimeoutError))

    async def _connected(self) -> Any:
        """Return the client. Raises `_AwayError`."""
        async with self._connecting:
            client = self._client
            if client is not None and client.status == "running":
                return client
            self._client = None
            try:
                if client is not None:
                    await client.close()
                self._client = await self._distributed.Client(self._address, asynchronous=True, set_as_default=False)
            except (OSError, TimeoutError, asyncio.TimeoutError) as error:
                raise _AwayError(str(error) or type(error).__name__, was_there=False) from error
            return self._client


class _AwayError(Exception):
    """Says within this room that the cluster is not there (any more)."""

    def __init__(self, message: str, *, was_there: bool) -> None:
        super().__init__(message)
        self.was_there = was_there


def _failed(error: LeafLostError | LeafRefusedError) -> LeafOutcome:
    return LeafOutcome.failed(error.code, error.message, is_transient=isinstance(error, LeafLostError))


def _distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise MissingExtraError(
            "DaskExecutor needs the package 'distributed': pip install 'power-loop[dask]'", extra="dask"
        ) from error
    return distributed
