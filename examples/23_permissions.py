"""Says which calls go on, which wait for a person, and which are refused: a policy of rules.

You will see three commands of a model judged by the same policy: one that reads goes on, one that changes something
waits, one that pushes is refused with a reason that the model reads. No approval goes round a `deny`.
"""

import asyncio

from power_loop import (
    LoopConfig,
    PermissionMode,
    PermissionPolicy,
    PermissionRule,
    StatefulAgentLoop,
    create_llm_service_from_env,
    tool,
)

allow, deny = PermissionRule.allow, PermissionRule.deny
POLICY = PermissionPolicy(
    rules=(
        allow("bash", command="git status"),
        allow("bash", command="git log *"),
        deny("bash", command="git push *", reason="People push: say what should be pushed."),
        deny("*", path=".github/*"),
    ),
    mode=PermissionMode.ASK_WRITES,  # what no rule names: tools that read go on, all others wait
)


@tool
def bash(command: str) -> str:
    """Run a command in the repository."""
    return f"[{command} ran]"  # 41_sandbox.py has a real shell


async def main() -> None:
    """Have three commands judged."""
    async with StatefulAgentLoop(
        llm=create_llm_service_from_env(),
        dsn="app.db",
        tool_registry=[bash],
        config=LoopConfig(permissions=POLICY),
    ) as loop:
        sid = await loop.new_session()
        question = "In one go, call bash with: git status; git commit -m done; git push origin main."
        result = await loop.send(question, session_id=sid)
        for call in await (await loop.get_store()).get_calls(sid):
            print(f"{call.arguments} {call.state.value}")
        if result.pending:
            await loop.abort_pending(sid, reason="nobody is here to ask")
        for record in await loop.get_messages(sid):
            if record.message.tool_result:
                print(f"→ {record.message.tool_result.text}")


if __name__ == "__main__":
    asyncio.run(main())
