"""A fresh process that reads a history from a file, asks the official SDK and prints its first reply."""

import asyncio
import json
import sys
from pathlib import Path

from openai import AsyncOpenAI


async def main(base_url: str, messages: list[dict[str, str]]) -> None:
    client = AsyncOpenAI(base_url=base_url, api_key="k", max_retries=0)
    messages.append({"role": "user", "content": "And now?"})
    stream = await client.chat.completions.create(model="bench-model", messages=messages, stream=True)
    pieces = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
    print("reply", "".join(pieces), flush=True)
    await client.close()


asyncio.run(main(sys.argv[1], json.loads(Path(sys.argv[2]).read_text())))
