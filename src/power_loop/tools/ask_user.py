"""Lets a model ask the person whom it works for, and wait for the answer."""

from __future__ import annotations

from typing import Annotated, Any

from power_loop.contracts.errors import ToolError
from power_loop.contracts.messages import clean_text
from power_loop.contracts.states import WaitKind
from power_loop.contracts.tools import ToolDefinition, Waiting
from power_loop.tools.decorator import tool

MAX_PROMPT_CHARS = 4_000
MAX_CHOICES = 20
MAX_CHOICE_CHARS = 200
#: The longest answer in a person's own words, about 5,000 tokens: it is a part of the conversation from then on.
MAX_ANSWER_CHARS = 20_000


def ask_user_tools() -> tuple[ToolDefinition, ...]:
    """Return the tool `request_user_input`, whose call waits until a person has answered, in whatever process.

    The send comes to rest with the status `waiting_for_input`; the call in its `pending` has the question as its
    `prompt`, the JSON Schema of the answer as its `answer_schema` (a text, one of the choices if there are any), and
    the choices in its `data`. `submit_tool_result` or `resume` bring the answer; one that does not fit is refused with
    `input.invalid`, and the call waits on.
    """

    # Asking changes nothing, so a call whose process died asks again.
    @tool(effect="read")
    async def request_user_input(
        prompt: Annotated[str, "The question, with what the user has to know to answer it."],
        choices: Annotated[list[str] | None, "The answers to choose from, if there are only a few."] = None,
        allows_other: Annotated[bool, "With choices: whether the user may answer in other words instead."] = False,
    ) -> Waiting:
        """Ask the user and wait for the answer. Use it for what only the user can know or decide; what you can find out
        by yourself, find out."""
        question = clean_text(prompt).strip()
        if not 0 < len(question) <= MAX_PROMPT_CHARS:
            raise ToolError(f"the prompt has {len(question):,} characters: give 1 to {MAX_PROMPT_CHARS:,}")
        offered = _checked(choices)
        schema: dict[str, Any] = {"type": "string", "pattern": r"\S", "maxLength": MAX_ANSWER_CHARS}
        if offered and not allows_other:
            schema = {"type": "string", "enum": offered}
        data = {"choices": offered, "allows_other": allows_other} if offered else None
        return Waiting(question, WaitKind.INPUT, answer_schema=schema, data=data)

    return (request_user_input,)


def _checked(choices: list[str] | None) -> list[str]:
    """Return the choices as they are offered. Raises `tool.failed`."""
    offered = [" ".join(clean_text(choice).split()) for choice in choices or ()]
    if len(offered) > MAX_CHOICES:
        raise ToolError(f"there are {len(offered)} choices: give at most {MAX_CHOICES}, or leave them out")
    for number, choice in enumerate(offered, 1):
        if not 0 < len(choice) <= MAX_CHOICE_CHARS:
            raise ToolError(f"choice {number} has {len(choice)} characters: give 1 to {MAX_CHOICE_CHARS}")
        if choice in offered[: number - 1]:
            raise ToolError(f"choice {number}, {choice!r}, stands there twice: give each once")
    return offered
