"""A fresh process that resumes a stored session with power-loop and prints its first reply."""

import asyncio
import sys

from power_loop import LLMProviderConfig, StatefulAgentLoop, create_llm_service_from_config


async def main(base_url: str, dsn: str, session_id: str, carrier: str) -> None:
    config = LLMProviderConfig(provider="openai", base_url=base_url, api_key="k", model="bench-model", carrier=carrier)
    async with StatefulAgentLoop(llm=create_llm_service_from_config(config), dsn=dsn) as loop:
        print("reply", (await loop.send("And now?", session_id=session_id)).final_text, flush=True)


asyncio.run(main(*sys.argv[1:]))
