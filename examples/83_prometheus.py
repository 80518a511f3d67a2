"""Counts and times what loops do, for Prometheus. Needs `power-loop[prometheus]`.

You will see the metrics of one turn as a scrape gets them: sends, model calls and tokens by model, tool calls by tool.
No session id and no argument is ever a label.
"""

import asyncio

from prometheus_client import CollectorRegistry, generate_latest  # start_http_server(9000) serves them

from power_loop import StatefulAgentLoop, create_llm_service_from_env, tool
from power_loop.contrib.metrics_sink import PrometheusBackend, attach_metrics_sink


@tool(effect="read")
def look_up(word: str) -> str:
    """Look a word up."""
    return f"{word}: a blue-green"


async def main() -> None:
    """Measure a turn."""
    registry = CollectorRegistry()
    async with StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db", tool_registry=[look_up]) as loop:
        sink = attach_metrics_sink(loop.event_bus, PrometheusBackend(registry))
        sid = await loop.new_session()
        print((await loop.send("Look up what teal is.", session_id=sid)).final_text)
    for line in generate_latest(registry).decode().splitlines():
        if not line.startswith("#") and ("_total" in line or "_count" in line):
            print(line)
    print(f"lost: {sink.dropped}, failed: {sink.errors}")


if __name__ == "__main__":
    asyncio.run(main())
