"""What a workflow's leaf costs beside its model call, and how long a run of a thousand leaves takes to be taken up."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.backends import backends, open_loop
from benchmarks.report import Claim, Result
from benchmarks.setting import Setting
from power_loop.workflow import create_workflow, resume_run

LEAVES, CONCURRENCY = 200, 20
_TARGET_MS = 1.0


def _flow(count: int) -> dict[str, Any]:
    body = {"type": "agent", "id": "r", "spec": {"name": "r", "system_prompt": "Answer."}, "input": "{{t}}"}
    root = {"type": "foreach", "id": "all", "items_from": "input", "as": "t", "parallel": True, "body": body}
    return {"name": "wide", "input": list(range(count)), "root": root}


async def bench_workflows(setting: Setting) -> Result:
    """Run a wide foreach, and take up one that has ended all but its last step."""
    leaves, many = setting.samples(LEAVES, 40), setting.samples(1000, 100)
    result = Result(
        "Workflows",
        f"A foreach of {leaves} leaves, {CONCURRENCY} at a time, each a session of its own below the run, with a model"
        f" that answers at once; plain sends on sessions of their own, for comparison; and a run of {many} leaves that"
        " rests before its last step, from `resume_run()` to its result.",
        ["backend", "CPU a leaf", "wall a leaf", "CPU a plain send", f"resume of {many} leaves"],
    )
    async with backends(setting) as found:
        for backend in found:
            async with open_loop(backend) as loop:
                began_s, began_cpu_s = time.perf_counter(), time.process_time()
                run = create_workflow(_flow(leaves), parent_loop=loop, max_concurrency=CONCURRENCY)
                assert (await run.run()).is_completed
                wall_ms = 1000 * (time.perf_counter() - began_s) / leaves
                cpu_ms = 1000 * (time.process_time() - began_cpu_s) / leaves
                began_cpu_s = time.process_time()
                for number in range(leaves):
                    await loop.send(str(number), session_id=await loop.new_session(system_prompt="Answer."))
                send_ms = 1000 * (time.process_time() - began_cpu_s) / leaves
                wait = {"type": "wait", "id": "go", "signal": "go"}
                wide = _flow(many)
                wide["root"] = {"type": "sequence", "steps": [wide["root"], wait]}
                rested = await create_workflow(wide, parent_loop=loop, max_concurrency=CONCURRENCY).run()
                store: Any = await loop.get_store()
                await store.signal_run(rested.run_id, "go")
                began_s = time.perf_counter()
                assert (await resume_run(loop, None, rested.run_id)).is_completed
                resume_s = time.perf_counter() - began_s
                result.rows.append(
                    [
                        backend.name,
                        f"{cpu_ms:.2f} ms",
                        f"{wall_ms:.2f} ms",
                        f"{send_ms:.2f} ms",
                        f"{1000 * resume_s:.0f} ms",
                    ]
                )
                result.figures[backend.name] = {
                    "cpu_ms_a_leaf": round(cpu_ms, 3),
                    "wall_ms_a_leaf": round(wall_ms, 3),
                    "cpu_ms_a_send": round(send_ms, 3),
                    "resume_ms": round(1000 * resume_s),
                }
                if backend.name == "sqlite":
                    above_ms = cpu_ms - send_ms
                    result.claims.append(
                        Claim(
                            f"a leaf takes at most {_TARGET_MS} ms of CPU more than the send that it is",
                            f"{above_ms:.2f} ms",
                            above_ms <= _TARGET_MS,
                        )
                    )
    return result
