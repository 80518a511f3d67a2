"""The workflow of the description, and a model that answers by who asks."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from power_loop import LLMRequest, Usage
from power_loop.contracts.llm import Emit, LLMResponse
from power_loop.llm import ModelInfo
from power_loop.testing import ScriptedLLM

SUBTOPICS = ["utensils", "etiquette", "history"]

#: As the description prints it.
RESEARCH: dict[str, Any] = {
    "name": "research", "input": "the Japanese tea ceremony",
    "root": {"type": "sequence", "steps": [
        {"type": "agent", "id": "plan",
         "spec": {"name": "planner", "system_prompt": "Break the topic into 3 subtopics."},
         "output_schema": {"name": "Plan", "schema": {"type": "object", "required": ["subtopics"],
            "properties": {"subtopics": {"type": "array", "items": {"type": "string"}}}}}},
        {"type": "foreach", "id": "research", "items_from": "plan.subtopics", "as": "t",
         "parallel": True, "max_concurrency": 3,
         "body": {"type": "agent", "id": "r",
                  "spec": {"name": "researcher", "system_prompt": "Write 2 sentences on {{t}}."},
                  "input": "Subtopic: {{t}}"}},
        {"type": "agent", "id": "write",
         "spec": {"name": "writer", "system_prompt": "Synthesize the notes."},
         "inputs_from": ["research"]},
    ]},
}  # fmt: skip


def prompt_of(request: LLMRequest) -> str:
    """Return the system prompt of a request."""
    return (request.system or "").split("\n")[0].strip()


def asked(request: LLMRequest) -> str:
    """Return what the user said first."""
    return request.messages[0].text


class Answers:
    """Is a model that answers each system prompt with a text, or with what a function of the request gives; and counts
    who asked."""

    def __init__(self, **members: Any) -> None:
        self.answers: dict[str, Any] = members
        self.requests: list[LLMRequest] = []
        self.counts: Counter[str] = Counter()

    @property
    def info(self) -> ModelInfo:
        return ModelInfo(provider="scripted", model="scripted", has_json_schema=True)

    async def generate(self, request: LLMRequest, emit: Emit) -> LLMResponse:
        self.requests.append(request)
        prompt = prompt_of(request)
        self.counts[prompt] += 1
        step = self.answers.get(prompt.split(" ")[0].strip(".").lower(), f"Said: {prompt}")
        return await ScriptedLLM([step]).generate(request, emit)


def researcher() -> Answers:
    """Return a model for it."""
    return Answers(
        **{"break": json.dumps({"subtopics": SUBTOPICS})},
        write=lambda request: f"Notes on {asked(request).removeprefix('Subtopic: ')}.",
        synthesize="All about tea.",
    )


NOTHING = Usage()


def agent(id: str, prompt: str | None = None, **members: Any) -> dict[str, Any]:
    """Return an agent node."""
    spec = {"name": id, "system_prompt": prompt or f"{id.capitalize()}."}
    return {"type": "agent", "id": id, "spec": spec, **members}


def flow(root: dict[str, Any] | list[dict[str, Any]], **members: Any) -> dict[str, Any]:
    """Return a workflow; a list is a sequence."""
    node = {"type": "sequence", "steps": root} if isinstance(root, list) else root
    return {"name": "flow", "root": node, **members}
