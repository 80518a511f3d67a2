"""The demo's facts are judged by functions that can say no."""

from __future__ import annotations

from typing import Any

from demo.findings import answer_to, call_of, is_continued, is_valid_transcript, last_words


def message(role: str, text: str = "", *, asks: tuple[str, ...] = (), answers: str | None = None) -> dict[str, Any]:
    return {"role": role, "text": text, "calls": [{"id": one} for one in asks], "answers": answers}


def state(*messages: dict[str, Any]) -> dict[str, Any]:
    return {"messages": list(messages), "calls": []}


ASKED = (message("user", "Pay."), message("assistant", asks=("a", "b")))
ANSWERED = (*ASKED, message("tool", "1", answers="a"), message("tool", "2", answers="b"))


def test_a_transcript_whose_calls_are_answered_in_place_is_valid() -> None:
    assert is_valid_transcript(state(*ANSWERED))
    assert is_valid_transcript(state(*ANSWERED, message("assistant", "Paid.")))


def test_an_open_doubled_foreign_or_late_answer_is_not_valid() -> None:
    assert not is_valid_transcript(state(*ASKED))
    assert not is_valid_transcript(state(*ASKED, message("tool", answers="a")))
    assert not is_valid_transcript(state(*ANSWERED, message("tool", answers="a")))
    assert not is_valid_transcript(state(*ASKED, message("tool", answers="z")))
    assert not is_valid_transcript(state(*ASKED, message("user", "Well?"), *ANSWERED[2:]))


def test_a_log_is_continued_only_if_its_beginning_is_the_same() -> None:
    assert is_continued(state(*ASKED), state(*ANSWERED))
    assert not is_continued(state(*ANSWERED), state(*ASKED))
    assert not is_continued(state(*ASKED), state(message("user", "Pay!"), *ANSWERED[1:]))
    assert not is_continued(state(), state(*ASKED)), "nothing stored before proves nothing"


def test_the_last_call_answer_and_words_are_found() -> None:
    calls = [{"id": "a", "name": "pay", "state": "failed"}, {"id": "b", "name": "pay", "state": "started"}]
    told = {**state(*ANSWERED, message("assistant", "Paid."), message("user", "Thanks.")), "calls": calls}
    assert call_of(told, "pay")["id"] == "b"
    assert answer_to(told, {"id": "b"}) == "2"
    assert answer_to(told, {"id": "z"}) == ""
    assert last_words(told) == "Paid."
    assert last_words(state()) == ""
