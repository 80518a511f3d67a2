"""The two tools of the demo, each with an effect in the world, and the place inside where they are killed."""

from __future__ import annotations

import sys

from demo.telling import tell
from demo.world import Bank, Bell
from power_loop import ToolContext, ToolRegistry, tool


@tool(effect="idempotent")
def pay(euros: int, name: str, context: ToolContext) -> str:
    """Pay an amount of money to a person."""
    receipt = Bank().pay(euros, name, key=context.idempotency_key)
    here_the_process_may_die(context, euros=euros, name=name)
    return f"Receipt {receipt}: {euros} euros paid to {name}"


@tool(effect="once")
def ring_bell(times: int, context: ToolContext) -> str:
    """Ring the door bell."""
    Bell().ring(times)
    here_the_process_may_die(context, times=times)
    return f"The bell rang {times} times."


def here_the_process_may_die(context: ToolContext, **arguments: object) -> None:
    """Tell that the handler is in the middle; on a first attempt, wait there for the kill.

    The wait ends with the standard input, so that a process whose parent is gone goes too.
    """
    tell("inside", tool=context.tool_name, arguments=arguments, attempt=context.attempt)
    if context.attempt == 1:
        sys.stdin.read()


def demo_tools() -> ToolRegistry:
    """Return both tools."""
    return ToolRegistry([pay, ring_bell])
