"""The conversation that every contestant holds: the same texts, as long as asked for."""

from __future__ import annotations

SYSTEM_PROMPT = "You are a helpful assistant. Answer briefly."
# What the zero-latency endpoint answers to a text without markers.
PLAIN_ANSWER = "The answer is ready."
# About thirty tokens of question and fifty of answer, with a letter that takes more than one byte.
QUESTION = "Question {n}: what should I know about the number {n} before the café opens, and why does it matter?"
ANSWER = (
    "Answer {n}: it is a number like its neighbours, one more than the one before it. If it matters at all, it is"
    " because somebody counted that far; the café opens at eight, and nothing about {n} changes that."
)


def question(n: int) -> str:
    """The nth thing the user says."""
    return QUESTION.format(n=n)


def answer(n: int) -> str:
    """The nth thing the assistant says."""
    return ANSWER.format(n=n)


def history(messages: int) -> list[dict[str, str]]:
    """So many messages, user and assistant in turn."""
    talk = []
    for n in range(messages // 2):
        talk += [{"role": "user", "content": question(n)}, {"role": "assistant", "content": answer(n)}]
    return talk
