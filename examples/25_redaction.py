"""Keeps secrets out of the conversation: what is typed and what tools return is masked before it is stored.

You will see that neither the database nor the model ever has the card's number or the API key, and that the
conversation goes on all the same.
"""

import asyncio

from power_loop import (
    ContentPart,
    HookPoint,
    StatefulAgentLoop,
    TextPart,
    ToolResult,
    create_llm_service_from_env,
    tool,
)
from power_loop.events import Redaction
from power_loop.hooks import Rewrite, SendStartContext, ToolAfterContext

# Well-known kinds of keys, what the environment holds under names such as OPENAI_API_KEY, and numbers of cards.
MASK = Redaction(patterns=[r"\b(?:\d[ -]?){13,16}\b"])


@tool(effect="read")
def read_settings() -> str:
    """Read the settings of the shop."""
    return "currency: EUR\napi: sk-abcdefghijklmnopqrstuvwx"


def masked(content: str | tuple[ContentPart, ...]) -> tuple[ContentPart, ...]:
    """Return content with its texts masked; images and files stay as they are."""
    parts = (TextPart(content),) if isinstance(content, str) else content
    return tuple(TextPart(MASK.text(part.text)) if isinstance(part, TextPart) else part for part in parts)


def mask_input(context: SendStartContext) -> Rewrite:
    """Mask what a user says."""
    return Rewrite(content=masked(context.content))


def mask_result(context: ToolAfterContext) -> Rewrite:
    """Mask what a tool returns; the log and the model get the same."""
    return Rewrite(result=ToolResult(masked(context.result.content), is_error=context.result.is_error))


async def main() -> None:
    """Tell secrets, and look what is kept."""
    async with StatefulAgentLoop(
        llm=create_llm_service_from_env(), dsn="app.db", tool_registry=[read_settings]
    ) as loop:
        loop.hooks.add(HookPoint.SEND_START, mask_input)
        loop.hooks.add(HookPoint.TOOL_AFTER, mask_result)
        sid = await loop.new_session()
        await loop.send("My card is 4111 1111 1111 1111. Which settings does the shop have?", session_id=sid)
        for record in await loop.get_messages(sid):
            said = record.message.tool_result or record.message
            print(f"{record.message.role.value}: {said.text}")


if __name__ == "__main__":
    asyncio.run(main())
