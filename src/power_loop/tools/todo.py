"""Lets a model keep a list of what is to be done, and shows it to the model at each call."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Annotated, Any

from power_loop.contracts.errors import ConfigError, ToolError
from power_loop.contracts.explanation import SegmentKind
from power_loop.contracts.frozen import frozen
from power_loop.contracts.live import LiveContext, LiveState
from power_loop.contracts.messages import clean_text
from power_loop.contracts.numbers import is_whole
from power_loop.contracts.tools import ToolContext, ToolDefinition
from power_loop.tools.decorator import tool
from power_loop.tools.one_line import one_line

#: Where the list stands in the session's state: a list of objects with `text` and `status`.
TODO_KEY = "todo"


class TodoStatus(str, Enum):
    """Is how far an item is."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    DONE = "done"


_MARKS = {TodoStatus.PENDING: "[ ]", TodoStatus.IN_PROGRESS: "[>]", TodoStatus.DONE: "[x]"}


@frozen
class TodoPolicy:
    """Is how long a list may be: `max_items` items (default 50) of `max_item_chars` characters each (default 300)."""

    max_items: int = 50
    max_item_chars: int = 300

    def __post_init__(self) -> None:
        for name, most in (("max_items", 200), ("max_item_chars", 2_000)):
            value: Any = getattr(self, name)
            if not is_whole(value, least=1, most=most):
                raise ConfigError(f"{name} is {value!r:.200}: give a whole number from 1 to {most:,}")


@frozen
class TodoItem:
    """Is one thing to do."""

    text: Annotated[str, "What is to be done, in one line."]
    status: TodoStatus = TodoStatus.PENDING


def todo_tools(policy: TodoPolicy | None = None) -> tuple[ToolDefinition, ...]:
    """Return the tool `todo`, with which a model writes its whole list anew.

    The list lasts as long as its session: it is stored with the call that writes it, goes along with a fork and with an
    archive, and stands behind all messages at each call.
    """
    bounds = policy or TodoPolicy()

    @tool(effect="idempotent", live=LiveState("todo", _shown, SegmentKind.TODO))
    async def todo(context: ToolContext, items: list[TodoItem]) -> str:
        """Write your list of things to do anew, in place of the one before. Use it for work of several steps: write the
        steps first, keep one in_progress, and mark each done as soon as it is. An empty list clears it.

        Args:
            items: All items of the list, in order, with those that are done.
        """
        kept = _checked(items, bounds)
        if not kept:
            context.state.pop(TODO_KEY, None)
            return "The list is empty."
        context.state[TODO_KEY] = [{"text": item.text, "status": item.status.value} for item in kept]
        done = sum(item.status is TodoStatus.DONE for item in kept)
        return f"The list is kept: {done} of {len(kept)} done."

    return (todo,)


def todo_items(state: Mapping[str, Any]) -> tuple[TodoItem, ...]:
    """Return the list in a session's `state`; what somebody else put there and is no item is passed over."""
    stored = state.get(TODO_KEY)
    return tuple([_item_of(one) for one in (stored if isinstance(stored, list) else ()) if _is_item(one)])


_STATUSES = [status.value for status in TodoStatus]


def _is_item(one: Any) -> bool:
    return isinstance(one, dict) and isinstance(one.get("text"), str) and one.get("status") in _STATUSES


def _item_of(one: Mapping[str, str]) -> TodoItem:
    return TodoItem(one["text"], TodoStatus(one["status"]))


def _checked(items: list[TodoItem], policy: TodoPolicy) -> list[TodoItem]:
    """Return the items as they are kept. Raises `tool.failed` where they do not fit, in words for the model."""
    if len(items) > policy.max_items:
        raise ToolError(
            f"the list has {len(items)} items and may have {policy.max_items}: leave out what is done, or say several"
            " small ones in one"
        )
    kept = []
    for number, item in enumerate(items, 1):
        text = " ".join(clean_text(item.text).split())
        if not 0 < len(text) <= policy.max_item_chars:
            raise ToolError(
                f"item {number} has {len(text)} characters: give 1 to {policy.max_item_chars}, and keep details in a"
                " note or a file"
            )
        kept.append(TodoItem(text, item.status))
    return kept


def _shown(context: LiveContext) -> str | None:
    items = todo_items(context.state)
    if not items:
        return None
    lines = "\n".join(f"- {_MARKS[item.status]} {one_line(item.text)}" for item in items)
    return f"Your list of things to do ([x] done, [>] in progress):\n<todo>\n{lines}\n</todo>"
