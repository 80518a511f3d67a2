"""Leaves run on a real Dask cluster, whose workers, scheduler and clients are killed; what came of them stands once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from power_loop import SendStatus, StatefulAgentLoop
from power_loop.contracts.version import __version__
from power_loop.errors import ConfigError
from power_loop.testing import ScriptedLLM
from power_loop.workflow import RunStatus, WorkflowResult, create_workflow, resume_run
from power_loop.workflow.dask_leaf import PROTOCOL, run_order
from power_loop.workflow.executors import LeafHost, LeafOutcome, LeafTask
from tests.conformance.backends import SERVERS

from .dask_app import DSN, FOLDER, PREFIX

pytest.importorskip("distributed", reason="the extra `dask` is not installed")

from power_loop.workflow import DaskExecutor, dask_executor
from power_loop.workflow.dask_executor import _AwayError

ROOT = Path(__file__).parents[2]
LIMIT_S = 120.0
APP = "tests.workflow.dask_app:make_loop"

# Another process that drives a run and is killed.
ENGINE = """
import asyncio, json, sys
from power_loop.workflow import DaskExecutor, create_workflow
from tests.servers.processes import die_with_parent
from tests.workflow.dask_app import make_loop

address, spec, parent = sys.argv[1:]
die_with_parent(int(parent))

async def main():
    loop = make_loop()
    executor = DaskExecutor(address, app="tests.workflow.dask_app:make_loop")
    run = create_workflow(json.loads(spec), parent_loop=loop, executor=executor)
    print(await run.start(detached=True), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def free_port() -> int:
    """Return a port that no system gives to whoever asks for any, so that it stays free while the scheduler is away."""
    # Another process looks from another port on.
    for port in range(20_000 + os.getpid() % 10_000, 32_000):
        with contextlib.suppress(OSError), socket.socket() as free:
            free.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


class Cluster:
    """Is a scheduler and workers, each a process; those that are killed are gone as by a power cut."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self.environment = environment
        self.folder = folder
        self.address = f"tcp://127.0.0.1:{free_port()}"
        self.scheduler: subprocess.Popen[bytes] | None = None
        self.workers: list[subprocess.Popen[bytes]] = []

    def start_scheduler(self) -> None:
        port = self.address.rpartition(":")[2]
        options = ("--host", "127.0.0.1", "--port", port, "--no-dashboard", "--no-show")
        self.scheduler = self._start("dask_scheduler", *options)

    def start_worker(self) -> None:
        options = (self.address, "--no-nanny", "--nthreads", "4", "--no-dashboard", "--local-directory", "dask")
        self.workers.append(self._start("dask_worker", *options, "--host", "127.0.0.1"))

    def _start(self, program: str, *options: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.{program}", *options],
            cwd=self.folder,
            env={**os.environ, **self.environment, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def close(self) -> None:
        for process in (*self.workers, self.scheduler):
            if process is not None:
                process.kill()
                process.wait(LIMIT_S)

    @property
    def asked(self) -> list[str]:
        """What the models were asked, in order."""
        file = self.folder / "asked"
        return [line.partition(" ")[2] for line in file.read_text("utf-8").splitlines()] if file.exists() else []

    async def until_there(self) -> None:
        """Wait until the scheduler can be reached."""

        async def reach() -> None:
            host, _, port = self.address.removeprefix("tcp://").partition(":")
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection(host, port)
                    writer.close()
                    return
                await asyncio.sleep(0.02)

        await asyncio.wait_for(reach(), LIMIT_S)

    async def until_asked(self, text: str) -> None:
        """Wait until a model was asked this."""

        async def look() -> None:
            while text not in self.asked:  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.02)

        await asyncio.wait_for(look(), LIMIT_S)


@contextlib.asynccontextmanager
async def cluster_on(backend: Any, folder: Path) -> AsyncIterator[Cluster]:
    async with backend.fresh() as place:
        environment = {DSN: place.dsn, PREFIX: place.prefix, FOLDER: str(folder)}
        cluster = Cluster(environment, folder)
        try:
            cluster.start_scheduler()
            for _ in range(2):
                cluster.start_worker()
            await cluster.until_there()
            yield cluster
        finally:
            cluster.close()


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    postgres = next(one for one in SERVERS if one.name == "postgres")
    async with cluster_on(postgres, tmp_path) as found:
        yield found


def loop_of(cluster: Cluster) -> StatefulAgentLoop:
    """Return a loop that drives runs and whose own model is never asked."""
    environment = cluster.environment
    return StatefulAgentLoop(llm=ScriptedLLM(), dsn=environment[DSN], table_prefix=environment[PREFIX])


def flow(*texts: str, **more: Any) -> dict[str, Any]:
    """Return a workflow of leaves side by side."""
    steps = [
        {"type": "agent", "id": f"leaf{n}", "spec": {"name": "leaf", "system_prompt": "Do it."}, "input": text, **more}
        for n, text in enumerate(texts)
    ]
    return {"name": "leaves", "root": {"type": "parallel", "id": "all", "steps": steps}}


@contextlib.asynccontextmanager
async def executor_of(cluster: Cluster, **options: Any) -> AsyncIterator[DaskExecutor]:
    executor = DaskExecutor(cluster.address, app=APP, **options)
    try:
        yield executor
    finally:
        await executor.aclose()


async def run(loop: StatefulAgentLoop, cluster: Cluster, spec: dict[str, Any], **options: Any) -> WorkflowResult:
    async with executor_of(cluster, **options) as executor:
        return await asyncio.wait_for(create_workflow(spec, parent_loop=loop, executor=executor).run(), LIMIT_S)


def outputs(result: WorkflowResult) -> dict[str, Any]:
    return {step.path: step.output for step in result.steps if step.kind == "agent"}


@pytest.mark.promise("dask")
@pytest.mark.parametrize("backend", SERVERS, ids=lambda one: one.name)
async def test_leaves_run_on_the_workers_and_stand_in_the_store_of_their_run(backend: Any, tmp_path: Path) -> None:
    async with cluster_on(backend, tmp_path) as cluster, loop_of(cluster) as loop:
        texts = [f"text {n}" for n in range(6)]
        result = await run(loop, cluster, flow(*texts))
        assert result.status is RunStatus.COMPLETED
        assert outputs(result) == {f"leaf{n}": f"to text {n}" for n in range(6)}
        assert sorted(cluster.asked) == texts
        store: Any = await loop.get_store()
        leaves = await store.get_children(result.run_id)
        assert len(leaves) == 6
        assert {(leaf.state.value, leaf.owner) for leaf in leaves} == {("closed", None)}
        # What they took is counted with the run: 15 tokens each.
        assert result.usage.total_tokens == 6 * 15


@pytest.mark.promise("dask")
async def test_a_leaf_whose_worker_dies_goes_on_on_another_one(cluster: Cluster) -> None:
    async with loop_of(cluster) as loop:
        result = await run(loop, cluster, flow("dies once", "other"))
        assert (result.status, outputs(result)) == (
            RunStatus.COMPLETED,
            {"leaf0": "to dies once", "leaf1": "to other"},
        )
        store: Any = await loop.get_store()
        # The other leaf may have been on the worker that died.
        again = [
            send
            for leaf in await store.get_children(result.run_id)
            if (send := await store.get_send(leaf.id)).attempts > 1
        ]
        assert {(send.status, send.attempts) for send in again} == {(SendStatus.COMPLETED, 2)}
        assert cluster.asked.count("dies once") == 2


@pytest.mark.promise("dask")
async def test_a_scheduler_that_dies_and_comes_back_loses_nothing(cluster: Cluster) -> None:
    async with loop_of(cluster) as loop:
        # It comes back in its time, however busy the machine is.
        running = asyncio.create_task(run(loop, cluster, flow("hangs once"), reconnect_s=LIMIT_S))
        await cluster.until_asked("hangs once")
        # All of it goes, and comes again at the same address.
        cluster.close()
        cluster.workers.clear()
        cluster.start_scheduler()
        cluster.start_worker()
        result = await running
        assert (result.status, outputs(result)) == (RunStatus.COMPLETED, {"leaf0": "to hangs once"})
        store: Any = await loop.get_store()
        assert len(await store.get_children(result.run_id)) == 1


@pytest.mark.promise("dask")
async def test_a_cluster_that_stays_away_fails_the_leaf(cluster: Cluster) -> None:
    async with loop_of(cluster) as loop:
        running = asyncio.create_task(run(loop, cluster, flow("hangs for good"), reconnect_s=0.0))
        await cluster.until_asked("hangs for good")
        cluster.close()
        result = await running
        assert result.status is RunStatus.FAILED
        assert result.error is not None
        assert result.error["code"] == "workflow.leaf_lost"


class Lost(DaskExecutor):
    """Loses its cluster: first in the middle of a leaf, as often as is told, then each try to reach it again."""

    def __init__(self, *, losses: int, works_s: float, is_gone: bool = False) -> None:
        super().__init__("tcp://nowhere:1", app=APP, reconnect_s=0.15)
        self.losses = losses
        self.works_s = works_s
        self.is_gone = is_gone

    async def _submit(self, order: str, task: LeafTask, host: LeafHost) -> LeafOutcome:
        if self.losses:
            self.losses -= 1
            await asyncio.sleep(self.works_s)
            raise _AwayError("lost", was_there=True)
        if self.is_gone:
            raise _AwayError("gone", was_there=False)
        return LeafOutcome(SendStatus.COMPLETED, "done")


@pytest.mark.parametrize(
    ("executor", "comes_to"),
    [
        (lambda: Lost(losses=3, works_s=0.3), SendStatus.COMPLETED),
        (lambda: Lost(losses=1, works_s=0.3, is_gone=True), SendStatus.FAILED),
        (lambda: Lost(losses=1_000_000, works_s=0.0), SendStatus.FAILED),
    ],
    ids=["comes back", "stays away", "comes and goes"],
)
async def test_how_long_a_cluster_is_away_is_counted_from_when_it_was_lost(
    tmp_path: Path, executor: Callable[[], Lost], comes_to: SendStatus
) -> None:
    async with StatefulAgentLoop(llm=ScriptedLLM(), dsn=str(tmp_path / "app.db")) as loop:
        work = create_workflow(flow("text"), parent_loop=loop, executor=executor())
        result = await asyncio.wait_for(work.run(), LIMIT_S)
    assert result.status.value == comes_to.value
    if result.error is not None:
        assert result.error["code"] == "workflow.leaf_lost"


async def until_ended(store: Any, run_id: str) -> None:
    """Wait until the end of a leaf stands in the store."""

    async def look() -> None:
        while True:
            sends = [await store.get_send(leaf.id) for leaf in await store.get_children(run_id)]
            if any(send is not None and send.status is SendStatus.COMPLETED for send in sends):
                return
            await asyncio.sleep(0.02)

    await asyncio.wait_for(look(), LIMIT_S)


@pytest.mark.promise("dask")
async def test_a_run_whose_engine_dies_is_taken_up_and_its_leaf_is_not_made_twice(cluster: Cluster) -> None:
    spec = flow("hangs once", "done")
    command = (sys.executable, "-c", ENGINE, cluster.address, json.dumps(spec), str(os.getpid()))
    environment = {**os.environ, **cluster.environment}
    engine = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=environment, stdout=subprocess.PIPE)
    assert engine.stdout is not None
    run_id = (await asyncio.wait_for(engine.stdout.readline(), LIMIT_S)).decode().strip()
    async with loop_of(cluster) as loop, executor_of(cluster) as executor:
        store: Any = await loop.get_store()
        await cluster.until_asked("hangs once")
        await until_ended(store, run_id)
        engine.kill()
        await engine.wait()
        # The worker hangs in the model still: it is killed, as one that nobody reaches would come to its end.
        resuming = asyncio.create_task(resume_run(loop, None, run_id, executor=executor))
        for worker in cluster.workers:
            worker.kill()
        cluster.start_worker()
        result = await asyncio.wait_for(resuming, LIMIT_S)
        assert (result.status, outputs(result)) == (
            RunStatus.COMPLETED,
            {"leaf0": "to hangs once", "leaf1": "to done"},
        )
        assert len(await store.get_children(run_id)) == 2
        assert cluster.asked.count("done") == 1


@pytest.mark.promise("dask")
async def test_a_leaf_that_is_not_needed_any_more_ends_on_its_worker(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It is waited for however busy the worker is.
    monkeypatch.setattr(dask_executor, "PATIENCE_S", LIMIT_S)
    async with loop_of(cluster) as loop, executor_of(cluster) as executor:
        workflow = create_workflow(flow("hangs for good"), parent_loop=loop, executor=executor)
        running = asyncio.create_task(workflow.run())
        await cluster.until_asked("hangs for good")
        assert await workflow.cancel()
        result = await asyncio.wait_for(running, LIMIT_S)
        assert result.status is RunStatus.CANCELLED
        store: Any = await loop.get_store()
        [leaf] = await store.get_children(result.run_id)
        assert (await store.get_send(leaf.id)).status is SendStatus.CANCELLED


def order(**members: Any) -> str:
    task = {"run_id": "run_1", "path": "a", "attempt": 1, "key": "leaf_1", "input": "Go.", "timeout_s": None}
    spec = {"name": "leaf", "system_prompt": "Do it.", "description": "", "lifecycle": "ephemeral"}
    nothing = ("tools", "model", "limits", "output_schema", "permission_mode", "budget")
    task["spec"] = {**spec, **dict.fromkeys(nothing), "permission_rules": []}
    whole = {"protocol": PROTOCOL, "version": __version__, "app": APP, "epoch": 1, "task": task}
    return json.dumps({**whole, **members})


@pytest.mark.promise("dask")
@pytest.mark.parametrize(
    ("members", "code", "said"),
    [
        ({"protocol": PROTOCOL + 1}, "workflow.leaf_refused", "install the same version"),
        ({"version": "0.0.1"}, "workflow.leaf_refused", "install the same version"),
        ({"app": "no_such_module:make"}, "workflow.leaf_refused", "cannot be imported"),
        ({"app": "json:dumps"}, "workflow.leaf_refused", "cannot be called"),
        ({"app": "builtins:dict"}, "workflow.leaf_refused", "StatefulAgentLoop"),
        ({}, "session.not_found", "run_1"),
    ],
)
def test_a_worker_refuses_what_is_not_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, members: dict[str, Any], code: str, said: str
) -> None:
    for name, value in ((DSN, str(tmp_path / "app.db")), (PREFIX, "pl_"), (FOLDER, str(tmp_path))):
        monkeypatch.setenv(name, value)
    refusal = json.loads(run_order(order(**members)))
    assert refusal["code"] == code
    assert said in refusal["message"]


async def test_a_leaf_that_nobody_waits_for_is_not_begun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in ((DSN, str(tmp_path / "app.db")), (PREFIX, "pl_"), (FOLDER, str(tmp_path))):
        monkeypatch.setenv(name, value)
    async with StatefulAgentLoop(llm=ScriptedLLM(), dsn=str(tmp_path / "app.db")) as loop:
        await loop.new_session(session_id="run_1")
        epoch = (await loop.get_session("run_1")).epoch
        refusal = json.loads(await asyncio.to_thread(run_order, order(epoch=epoch)))
        assert refusal["code"] == "workflow.leaf_refused"
        assert "any more" in refusal["message"]
        store: Any = await loop.get_store()
        assert await store.get_children("run_1") == ()


@pytest.mark.parametrize("app", ["", "my_app", "my_app:", ":make"])
def test_an_app_that_is_none_is_refused(app: str) -> None:
    with pytest.raises(ConfigError, match="MODULE:CALLABLE"):
        DaskExecutor("tcp://127.0.0.1:1", app=app)
