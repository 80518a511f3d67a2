"""Lines that are typed: in order, to their end, and none that was typed before a question is an answer to it."""

from __future__ import annotations

import asyncio
import os
import pty
import sys
import threading
from collections.abc import Iterator

import pytest

from power_loop.cli import keyboard as room
from power_loop.cli.keyboard import Keyboard

LIMIT_S = 60.0


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """What is written here is typed at the terminal that is standard input."""
    keys, screen = pty.openpty()
    with open(screen, encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        yield keys


async def test_lines_come_in_order_and_then_the_end(keys: int) -> None:
    keyboard = Keyboard()
    os.write(keys, b"one\ntwo\n\x04")
    lines = [await asyncio.wait_for(keyboard.line(), LIMIT_S) for _ in range(4)]
    assert lines == ["one", "two", None, None]
    os.close(keys)


async def test_what_is_being_read_when_a_question_comes_is_no_answer_to_it(
    keys: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    was_read, goes_on = threading.Event(), threading.Event()
    read = os.read

    def held(descriptor: int, size: int) -> bytes:
        piece = read(descriptor, size)
        if piece == b"y\n":
            was_read.set()
            goes_on.wait(LIMIT_S)
        return piece

    monkeypatch.setattr(room.os, "read", held)
    keyboard = Keyboard()
    os.write(keys, b"hello\n")
    assert await asyncio.wait_for(keyboard.line(), LIMIT_S) == "hello"
    os.write(keys, b"y\n")
    assert await asyncio.to_thread(was_read.wait, LIMIT_S)
    forgetting = threading.Thread(target=keyboard.forget_typed)
    forgetting.start()
    # It ends at once only where it knows nothing of what was read.
    forgetting.join(0.2)
    goes_on.set()
    await asyncio.to_thread(forgetting.join, LIMIT_S)
    os.write(keys, b"later\n")
    assert await asyncio.wait_for(keyboard.line(), LIMIT_S) == "later"
    os.close(keys)
