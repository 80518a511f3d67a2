"""Runs the agents of a workflow on a Dask cluster. Needs `power-loop[dask]`, and PostgreSQL or MySQL in POWER_LOOP_DSN.

    POWER_LOOP_DSN=postgresql://user:password@host/db python examples/55_dask_cluster.py [tcp://scheduler:8786]

You will see three notes; without an address, a cluster of two workers on this machine makes them. What travels is the
step as JSON; what came of it is read from the database, never from the cluster, so that a worker or a scheduler may die
at any time.
"""

import asyncio
import os
import sys

from power_loop import StatefulAgentLoop, create_llm_service_from_env
from power_loop.workflow import DaskExecutor, create_workflow

SPEC = {
    "name": "notes",
    "root": {
        "type": "foreach",
        "items": ["rivers", "mountains", "islands"],
        "as": "topic",
        "parallel": True,
        "body": {
            "type": "agent",
            "id": "note",
            "spec": {"name": "writer", "system_prompt": "Write one sentence."},
            "input": "About {{topic}}.",
        },
    },
}


def make_loop() -> StatefulAgentLoop:
    """Return a handle; the workers call this too, each in its own process."""
    return StatefulAgentLoop(llm=create_llm_service_from_env(), dsn=os.environ["POWER_LOOP_DSN"])


async def main(address: str) -> None:
    """Run the workflow on the cluster at this address."""
    executor = DaskExecutor(address, app="55_dask_cluster:make_loop")  # in life: "my_app.agents:make_loop"
    async with make_loop() as loop:
        try:
            result = await create_workflow(SPEC, parent_loop=loop, executor=executor).run()
        finally:
            await executor.aclose()
    print(result.status.value)
    print(*(result.output or [result.error]), sep="\n")


if __name__ == "__main__":
    if sys.argv[1:]:
        asyncio.run(main(sys.argv[1]))
    else:
        from distributed import LocalCluster

        with LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None) as cluster:
            asyncio.run(main(cluster.scheduler_address))
