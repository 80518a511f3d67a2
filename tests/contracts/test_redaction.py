"""Nothing that is a secret stays in what passed through a redaction, wherever in it the secret stood."""

from __future__ import annotations

import base64
import json
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from power_loop.errors import ConfigError
from power_loop.events import Redaction

CANARY = "canary/7f3a+ 91c!x"
TEXTS = st.text(st.characters(codec="utf-8"), max_size=30)


@pytest.mark.parametrize(
    "text",
    [
        "key sk-abcdefghijklmnop1234",
        "AKIAABCDEFGHIJKLMNOP",
        "postgresql://me:hunter2@host/app",
        "Authorization: Bearer abcdefghijklmnop.qrst",
        '{"api_key": "abc"}',
        json.dumps({"arguments": json.dumps({"db-password": "abc"})}),
        '{"token":"never closed',
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str) -> None:
    told = Redaction(uses_environment=False).text(text)
    assert "<secret>" in told
    assert "abc" not in told
    assert "hunter2" not in told


def test_members_are_masked_by_their_names() -> None:
    value = {"headers": {"x": "1"}, "x_secret": 5, "max_tokens": 7, "password": "", "note": ["a", {"TOKEN": "t"}]}
    assert Redaction(uses_environment=False).value(value) == {
        "headers": "<secret>",
        "x_secret": "<secret>",
        "max_tokens": 7,
        "password": "",
        "note": ["a", {"TOKEN": "<secret>"}],
    }


@given(before=TEXTS, after=TEXTS)
def test_a_known_value_never_passes_in_any_form(before: str, after: str) -> None:
    redaction = Redaction(values=[CANARY], uses_environment=False)
    forms = (CANARY, urllib.parse.quote(CANARY, safe=""), base64.b64encode(CANARY.encode()).decode())
    told = redaction.value({"a": [f"{before}{form}{after}" for form in forms]})
    assert not [form for form in forms if form.rstrip("=")[:-1] in str(told)]


def test_own_names_and_patterns_join_the_usual_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "of-the-environment")
    redaction = Redaction(keys=["iban"], patterns=[r"\bemployee-\d+"])
    assert redaction.value({"IBAN": "DE1", "said": "employee-17 of-the-environment"}) == {
        "IBAN": "<secret>",
        "said": "<secret> <secret>",
    }


def test_a_broken_pattern_is_refused() -> None:
    with pytest.raises(ConfigError, match="no regular expression"):
        Redaction(patterns=["("])


def test_a_hostile_text_costs_no_more_than_its_length() -> None:
    told = Redaction(uses_environment=False).text('"password":"' * 20_000 + "\\" * 20_000 + '"a-' * 20_000)
    assert told.startswith('"password":"<secret>')
