"""Folds the older part of a conversation into a summary, and finds the originals again.

It happens by itself when the model's window fills up; here it is asked for, so that there is something to see. You will
see the summary, that the log has every message still, and the model calling one of them back.
"""

import asyncio

from power_loop import StatefulAgentLoop, create_llm_service_from_env

DIARY = {
    "Monday": "The plumber came and mended the tap in the kitchen. He asked for 84 euros and was gone after an hour.",
    "Tuesday": "It rained all day, so I read a book about lighthouses and baked a bread with walnuts in it.",
    "Wednesday": "The neighbours brought back the ladder. Their cat has four kittens, and one of them is all white.",
}


async def main() -> None:
    """Dictate a diary, fold it, and ask for a detail."""
    async with StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db") as loop:
        sid = await loop.new_session(system_prompt="You keep a diary. Confirm each entry in one sentence.")
        for day, text in DIARY.items():
            await loop.send(f"{day}. {text} {'What a day it was! ' * 12}", session_id=sid)

        fold = await loop.compact(sid)
        if fold is None:
            print("there was too little to fold")
            return
        print(f"messages {fold.from_seq} to {fold.to_seq} became: {fold.summary}")
        print(f"about {fold.tokens_before} tokens before, {fold.tokens_after} after")

        # The model has the tool `recall_compacted` from here on.
        print((await loop.send("What exactly did the plumber cost? Recall it.", session_id=sid)).final_text)
        print(f"the log has {len(await loop.get_messages(sid))} messages")


if __name__ == "__main__":
    asyncio.run(main())
