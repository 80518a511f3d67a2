"""Holds a final answer to the schema that was asked for."""

from __future__ import annotations

import re
from typing import Any

from power_loop.contracts.errors import ConfigError, OutputError
from power_loop.contracts.frozen import frozen
from power_loop.contracts.json_schema import (
    InvalidJson,
    Problem,
    SchemaError,
    Validator,
    compile_schema,
    drop_added_nulls,
    loads_strict,
)
from power_loop.contracts.llm import OutputSchema

_MEMO = "validator"
# What providers take as the name of a response format.
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_FENCED = re.compile(r"```[a-zA-Z]*\s*\n(.*?)\n?\s*```", re.DOTALL)


@frozen
class CheckedOutput:
    """Is an answer held to its schema: the `value` where there are no `problems`."""

    value: Any
    problems: tuple[Problem, ...] = ()

    @property
    def problem_texts(self) -> tuple[str, ...]:
        """The problems in words, each with its place."""
        return tuple(f"{problem.path}: {problem.message}" for problem in self.problems)


def prepare_schema(schema: OutputSchema) -> Validator:
    """Return the schema's validator, made once. Raises `config.invalid` with every problem of the schema."""
    known = schema.memo.get(_MEMO)
    if isinstance(known, Validator):
        return known
    if _NAME.fullmatch(schema.name) is None:
        raise ConfigError(
            f"output_schema is named {schema.name!r}: providers take 1 to 64 of the characters a-z, A-Z, 0-9, _ and -"
        )
    try:
        validator = compile_schema(schema.schema)
    except SchemaError as error:
        reasons = "; ".join(f"at {problem.path}: {problem.message}" for problem in error.problems)
        raise ConfigError(f"output_schema {schema.name!r} cannot be used: {reasons}") from error
    schema.memo[_MEMO] = validator
    return validator


def check_output(text: str, schema: OutputSchema) -> CheckedOutput:
    """Read an answer as JSON and check it; a fenced block in a talkative answer counts as the answer."""
    validator = prepare_schema(schema)
    value, problem = _read(text)
    if problem is not None:
        return CheckedOutput(None, (problem,))
    problems = validator.problems(value)
    if problems and "null" in text:
        # A strict mode makes optional properties nullable; the schema that was asked for does not.
        value = drop_added_nulls(value, schema.schema)
        problems = validator.problems(value)
    return CheckedOutput(value, problems)


def output_error(session_id: str, text: str, problems: tuple[str, ...]) -> OutputError:
    """Return the error for a final answer that does not fit."""
    return OutputError(
        f"the answer of session {session_id!r} does not fit output_schema, after the repairs that were allowed:"
        f" {'; '.join(problems)}. The answer is stored; send again with a simpler schema or another model",
        raw_text=text,
        problems=problems,
        session_id=session_id,
    )


def _read(text: str) -> tuple[Any, Problem | None]:
    try:
        return loads_strict(text.strip()), None
    except InvalidJson as error:
        fenced = _FENCED.findall(text)
        if fenced:
            try:
                return loads_strict(fenced[-1].strip()), None
            except InvalidJson:
                pass
        return None, Problem("$", f"the answer is not JSON: {error}", "json")
