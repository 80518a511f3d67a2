"""Gives the model instructions for kinds of tasks, which it loads when it needs them: folders with a `SKILL.md`.

You will see which skills there are, what the model loaded, and its text. The folder is `examples/skills`; a file that
is changed there is read anew.
"""

import asyncio
from pathlib import Path

from power_loop import Skills, StatefulAgentLoop, create_llm_service_from_env
from power_loop.tools import skill_tools

SKILLS = Skills([Path(__file__).with_name("skills")])


async def main() -> None:
    """Have release notes written."""
    found = SKILLS.look()
    for skill in found.skills:
        print(f"{skill.name}: {skill.description}")
    for problem in found.problems:
        print(f"{problem.folder} cannot be used: {problem.reason}")
    async with StatefulAgentLoop(
        llm=create_llm_service_from_env(), dsn="app.db", tool_registry=skill_tools(SKILLS)
    ) as loop:
        sid = await loop.new_session(system_prompt="Load the skill that fits before you begin a task.")
        result = await loop.send("Write the notes of version 2: resume takes half the time.", session_id=sid)
        for record in await loop.get_messages(sid):
            for call in record.message.tool_calls:
                print(f"→ {call.name} {call.arguments}")
        print(result.final_text)


if __name__ == "__main__":
    asyncio.run(main())
