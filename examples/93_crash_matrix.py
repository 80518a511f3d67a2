"""Kills your own agent at every point, lets another process go on, and judges what is left.

You will see how many histories there were and how many deaths, and that no promise broke. A tool whose effect happens
twice, an input that is lost or a history that no model takes would be named, with the row to make again.
"""

from power_loop import LLMRequest, LLMResponse, StatefulAgentLoop, StatefulResult, ToolContext, tool
from power_loop.messages import Role, ToolCallPart
from power_loop.testing import ScriptedLLM, crash_matrix, crash_point
from power_loop.timers import Clock


@tool(effect="once")
def order(title: str, context: ToolContext) -> str:
    """Order a book."""
    crash_point(f"ordered with {context.tool_name}")  # behind the bookseller: one more place to die at
    return f"{title} is ordered"


def answer(request: LLMRequest) -> str | LLMResponse:
    """Answer by what stands in the request, as a real model does: a process that takes over asks again."""
    if any(message.role is Role.TOOL for message in request.messages):
        return "It is on its way."
    return LLMResponse.of_calls(ToolCallPart("", "order", '{"title": "Emma"}'))


def make_shop(dsn: str, clock: Clock | None = None) -> StatefulAgentLoop:
    """Make the agent; each process of the matrix imports this."""
    model = ScriptedLLM([answer], repeat_last=True)
    return StatefulAgentLoop(llm=model, dsn=dsn, tool_registry=[order], clock=clock)


async def buy(loop: StatefulAgentLoop, session_id: str) -> StatefulResult:
    """Be the scenario. It is carried out again behind each fault, so it has a request id."""
    return await loop.send("I want Emma.", session_id=session_id, request_id="buy")


def main() -> None:
    """Kill it everywhere."""
    report = crash_matrix("93_crash_matrix:make_shop", scenarios=["93_crash_matrix:buy"], kinds=["sigkill"])
    report.raise_for_violations()
    print(report)


if __name__ == "__main__":
    main()
