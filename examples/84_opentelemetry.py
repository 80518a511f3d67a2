"""Traces turns with OpenTelemetry, by its conventions for generative AI. Needs `power-loop[otel]`.

You will see the span of a request of yours, and below it the turn, its model calls and its tool: one tree. What was
said is left out unless you ask for it.
"""

import asyncio

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from power_loop import StatefulAgentLoop, create_llm_service_from_env, tool
from power_loop.contrib.otel_sink import attach_otel_sink


@tool(effect="read")
def look_up(word: str) -> str:
    """Look a word up."""
    return f"{word}: a blue-green"


async def main() -> None:
    """Trace a turn."""
    exporter = InMemorySpanExporter()  # in life: OTLPSpanExporter() in a BatchSpanProcessor
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    async with StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db", tool_registry=[look_up]) as loop:
        attach_otel_sink(loop.event_bus, tracer_provider=provider)
        sid = await loop.new_session()
        with provider.get_tracer("shop").start_as_current_span("POST /ask"):
            print((await loop.send("Look up what teal is.", session_id=sid)).final_text)
    spans = exporter.get_finished_spans()
    names = {span.context.span_id: span.name for span in spans if span.context}
    for span in sorted(spans, key=lambda one: one.start_time or 0):
        print(f"{span.name}, below {names.get(span.parent.span_id) if span.parent else 'nothing'}")


if __name__ == "__main__":
    asyncio.run(main())
