"""Events are lines of a log: at a fitting level, without secrets, and one line each whatever a model says."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from power_loop.contrib.logging_sink import attach_logging_sink
from power_loop.events import HookFailed, SendStarted
from tests.contrib.parts import SUM, make_loop, run


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def logger() -> logging.Logger:
    made = logging.Logger("events", logging.DEBUG)
    made.addHandler(Lines())
    return made


def lines_of(logger: logging.Logger) -> list[logging.LogRecord]:
    (handler,) = logger.handlers
    assert isinstance(handler, Lines)
    return handler.records


async def test_beginnings_and_ends_are_info_failures_more_and_the_rest_debug(
    tmp_path: Path, logger: logging.Logger
) -> None:
    async with make_loop(tmp_path, [SUM, "3"]) as loop:
        attach_logging_sink(loop.event_bus, logger)
        loop.event_bus.emit(HookFailed("p", "h", "e"), session_id="s")
        await run(loop)
    records = lines_of(logger)
    told = [(record.levelname, record.getMessage().split()[0]) for record in records]
    assert ("ERROR", "hook.failed") in told
    assert [name for level, name in told if level == "INFO"] == ["send.started", "send.finished"]
    assert ("DEBUG", "tool.started") in told
    assert records[-1].power_loop_event["payload"]["result"]["final_text"] == "3"  # type: ignore[attr-defined]


async def test_a_level_can_be_chosen_and_what_is_not_wanted_is_not_written(
    tmp_path: Path, logger: logging.Logger
) -> None:
    logger.setLevel(logging.WARNING)
    async with make_loop(tmp_path, ["3"]) as loop:
        attach_logging_sink(loop.event_bus, logger, levels={SendStarted: logging.CRITICAL})
        await run(loop)
    assert [record.levelname for record in lines_of(logger)] == ["CRITICAL"]


async def test_a_text_of_a_model_is_one_line_without_secrets(tmp_path: Path, logger: logging.Logger) -> None:
    async with make_loop(tmp_path, ["a\nERROR forged\x1b[31m sk-canary0123456789abcdef"]) as loop:
        attach_logging_sink(loop.event_bus, logger)
        await run(loop)
    messages = [record.getMessage() for record in lines_of(logger)]
    assert [message for message in messages if "\n" in message or "\x1b" in message or "canary" in message] == []
    assert any("a\\nERROR forged\\u001b[31m <secret>" in message for message in messages)
