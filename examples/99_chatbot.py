"""Is a whole chatbot for the terminal: it streams, uses tools, asks before it writes, and survives everything.

    python examples/99_chatbot.py            a new conversation, in the folder that you are in
    python examples/99_chatbot.py SESSION    goes on with one, also with a turn that was killed in the middle

You will see answers as they come, and each tool as it runs. Ctrl-C stops a turn; /cost and /quit do what they say.
"""

import asyncio
import signal
import sys
from pathlib import Path

from power_loop import (
    Answer,
    Approve,
    CancellationToken,
    Deny,
    LoopConfig,
    PendingCall,
    PermissionMode,
    PermissionPolicy,
    PowerLoopError,
    RuntimeEnv,
    StatefulAgentLoop,
    StatefulResult,
    SystemPrompt,
    create_llm_service_from_env,
    tool_preset,
)
from power_loop.events import AgentEvent, StreamReset, TextDelta, ToolCallFinished, ToolCallStarted

PROMPT = SystemPrompt("You help with the files of a folder. You are brief.").tools("When to use which tool")


def show(event: AgentEvent) -> None:
    """Show a turn while it runs."""
    match event.payload:
        case TextDelta(text=text):
            print(text, end="", flush=True)
        case StreamReset():
            print("\n[once more]")
        case ToolCallStarted(name=name, arguments=arguments):
            print(f"\n→ {name} {str(dict(arguments))[:100]}")
        case ToolCallFinished(is_error=True, name=name):
            print(f"  {name} failed")


async def decide(call: PendingCall) -> Answer:
    """Ask a person about one call."""
    said = await asyncio.to_thread(input, f"\nallow {call.name} {dict(call.arguments)}? [y, or why not] ")
    return Approve() if said.lower() in ("y", "yes") else Deny(said)


async def turn(loop: StatefulAgentLoop, sid: str, text: str | None) -> StatefulResult:
    """Drive a turn to its end: with what is said, or with what an earlier process left. Ctrl-C stops it."""
    token = CancellationToken()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, token.cancel, "Ctrl-C")
    try:
        if text is None:
            result = await loop.resume(sid, cancellation=token)
        else:
            result = await loop.send(text, session_id=sid, cancellation=token)
        while result.pending:
            answers = {call.call_id: await decide(call) for call in result.pending}
            result = await loop.resume(sid, answers=answers, cancellation=token)
        return result
    finally:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)


async def main() -> None:
    """Talk until the person leaves."""
    tools = tool_preset("core", RuntimeEnv(workspace=Path.cwd()))
    config = LoopConfig(system_prompt=PROMPT, permissions=PermissionPolicy(mode=PermissionMode.ASK_WRITES))
    llm = create_llm_service_from_env()
    async with StatefulAgentLoop(llm=llm, dsn="app.db", tool_registry=tools, config=config) as loop:
        loop.event_bus.subscribe(show)
        sid = sys.argv[1] if sys.argv[1:] else await loop.new_session()
        text: str | None = None if sys.argv[1:] else ""
        while text != "/quit":
            try:
                if text == "/cost":
                    print(f"{(await loop.get_session_stats(sid)).usage.total_tokens} tokens so far")
                elif text != "":
                    result = await turn(loop, sid, text)
                    print("" if result.is_completed else f"[{result.status.value}]")
            except PowerLoopError as error:
                print(f"[{error.code}] {error.message}")
            try:
                text = (await asyncio.to_thread(input, "> ")).strip()
            except EOFError:
                text = "/quit"
    print(f"Go on with: python {sys.argv[0]} {sid}")


if __name__ == "__main__":
    asyncio.run(main())
