"""A model on this machine that speaks both wire formats, says what a script tells it, and fails as real ones do.

    async with ModelServer([call("add", {"a": 1, "b": 2}), say("Three.")]) as server:
        ...  # server.base_url for an OpenAI client, server.anthropic_base_url for an Anthropic one
        assert server.requests[1].messages[-1]["role"] == "tool"

Answers come from `say`, `call`, `calls`, `refuse`, `think_and_say` and `Answer`; failures that stand instead of an
answer and faults of its delivery from `faults`: `faults.rate_limited(retry_after=2)`,
`say("a", "b", faults=(faults.cut_after(1),))`. A request that breaks a rule of its provider gets the provider's own
400, so a spoiled transcript shows as it would in life.
"""

from . import faults
from .anthropic_rules import check_anthropic_request
from .bench import BenchResponder
from .identity import Ledger
from .openai_rules import check_openai_request
from .process import ModelServerProcess
from .reply import Fault, Reply, ScriptError
from .request import Request, Wire
from .script import (
    Answer,
    Failure,
    RawBlock,
    Reasoning,
    RedactedReasoning,
    Refusal,
    Text,
    ToolCall,
    Usage,
    call,
    calls,
    refuse,
    say,
    think_and_say,
)
from .script_json import steps_from_json
from .server import ModelServer, ThreadedModelServer

__all__ = [
    "Answer",
    "BenchResponder",
    "Failure",
    "Fault",
    "Ledger",
    "ModelServer",
    "ModelServerProcess",
    "RawBlock",
    "Reasoning",
    "RedactedReasoning",
    "Refusal",
    "Reply",
    "Request",
    "ScriptError",
    "Text",
    "ThreadedModelServer",
    "ToolCall",
    "Usage",
    "Wire",
    "call",
    "calls",
    "check_anthropic_request",
    "check_openai_request",
    "faults",
    "refuse",
    "say",
    "steps_from_json",
    "think_and_say",
]
