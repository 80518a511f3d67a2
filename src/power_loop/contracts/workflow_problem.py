"""Is one thing that is wrong with a workflow's spec, for a model or a person to mend."""

from __future__ import annotations

from power_loop.contracts.frozen import frozen


@frozen
class WorkflowProblem:
    """Says what is wrong at one place of a spec.

    `path` is the place, from the spec's top: `root.steps[1].body.spec.system_prompt`. `message` says what is there and
    what is wrong with it, `expected` what may stand there, `suggestion` what was probably meant (empty where nothing is
    near).
    """

    path: str
    message: str
    expected: str = ""
    suggestion: str = ""

    def __str__(self) -> str:
        expected = f"; expected {self.expected}" if self.expected else ""
        suggestion = f": did you mean `{self.suggestion}`?" if self.suggestion else ""
        return f"{self.path}: {self.message}{expected}{suggestion}"

    def to_json(self) -> dict[str, str]:
        """Return the problem as JSON, without what is empty."""
        said = {"path": self.path, "message": self.message, "expected": self.expected, "suggestion": self.suggestion}
        return {name: text for name, text in said.items() if text}
