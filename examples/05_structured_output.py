"""Gets JSON instead of prose: the answer is parsed, held to a schema, and mended by the model where it does not fit.

You will see the order as a Python object, and how many model calls it took.
"""

import asyncio

from power_loop import StatefulAgentLoop, create_llm_service_from_env
from power_loop.errors import OutputError

ORDER = {
    "type": "object",
    "properties": {
        "customer": {"type": "string"},
        "items": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "count": {"type": "integer", "minimum": 1}},
                "required": ["name", "count"],
                "additionalProperties": False,
            },
        },
    },
    "required": ["customer", "items"],
    "additionalProperties": False,
}


async def main() -> None:
    """Read an order out of a sentence."""
    async with StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db") as loop:
        sid = await loop.new_session(system_prompt="You read orders out of e-mails.")
        try:
            result = await loop.send("Two teapots and a cup, please. Ada", session_id=sid, output_schema=ORDER)
        except OutputError as error:  # wrong to the end: the raw text is kept
            print(error.code, error.raw_text)
            return
        if result.output is None:  # cut off, refused, or stopped: the status says which
            print("no order:", result.status.value)
            return
        for item in result.output["items"]:
            print(f"{result.output['customer']} wants {item['count']} × {item['name']}")
        print(f"[{result.rounds} model calls]")


if __name__ == "__main__":
    asyncio.run(main())
