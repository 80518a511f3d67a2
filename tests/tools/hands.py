"""Calls built-in tools as the loop does, in one session whose state lasts from call to call."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterable
from typing import Any

from power_loop.contracts.tools import ToolDefinition
from power_loop.tools.prepared import prepare
from tests.tools.calls import CallContext


class Hand:
    """Is a model's hand: `hand("read_file", path="a")` gives what the handler returns, or raises what it raises."""

    def __init__(self, tools: Iterable[ToolDefinition]) -> None:
        self.tools = {tool.name: tool for tool in tools}
        self.context = CallContext()

    def __call__(self, name: str, /, **arguments: Any) -> Any:
        prepared = prepare(self.tools[name])
        parsed = prepared.parse(json.dumps(arguments))
        assert parsed.arguments is not None, parsed.problems
        handler = self.tools[name].handler
        assert handler is not None
        given = handler(**prepared.call_arguments(parsed.arguments, self.context))
        return asyncio.run(given) if prepared.is_async else given

    def again(self, name: str, /, **arguments: Any) -> Any:
        """Call it as a second attempt of the same call, after a process that died."""
        self.context.attempt += 1
        try:
            return self(name, **arguments)
        finally:
            self.context.attempt = 1


def in_a_process_that_dies(work: Callable[[], object]) -> int:
    """Do work in a process of its own, which goes no further than it, and return its exit status (0: it came to its
    end)."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
