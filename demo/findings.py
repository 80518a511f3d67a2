"""Says of what the acts told whether it is as it has to be: pure functions over stored messages and calls."""

from __future__ import annotations

from typing import Any

Stored = dict[str, Any]


def call_of(state: Stored, name: str) -> Stored:
    """Return the last call of this tool in the ledger of a session."""
    return next(call for call in reversed(state["calls"]) if call["name"] == name)


def is_continued(before: Stored, after: Stored) -> bool:
    """Return whether everything that was stored before stands unchanged at the beginning of what is stored after."""
    kept = after["messages"][: len(before["messages"])]
    return bool(before["messages"]) and kept == before["messages"]


def is_valid_transcript(state: Stored) -> bool:
    """Return whether every call is answered once, directly after the message that asks for it, and nothing else is."""
    open_calls: list[str] = []
    for message in state["messages"]:
        if message["role"] == "tool":
            if message["answers"] not in open_calls:
                return False
            open_calls.remove(message["answers"])
        elif open_calls:
            return False
        open_calls += [call["id"] for call in message["calls"]]
    return not open_calls


def answer_to(state: Stored, call: Stored) -> str:
    """Return what the model was told of a call; empty if nothing."""
    return next((message["text"] for message in state["messages"] if message["answers"] == call["id"]), "")


def last_words(state: Stored) -> str:
    """Return the model's last text."""
    return next((one["text"] for one in reversed(state["messages"]) if one["role"] == "assistant" and one["text"]), "")
