"""Terms are the same for the same words, and letters that mean nothing to any database."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from power_loop.runtime.store.terms import MAX_QUERY_TERMS, MAX_TERMS, document_terms, query_terms

TERM = re.compile("[a-p]{12}")


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=80), st.text(max_size=80))
def test_a_query_is_a_bounded_list_of_terms_and_a_text_is_found_by_each_of_its_own(text: str, other: str) -> None:
    terms = query_terms("a", text)
    assert len(terms) == len(set(terms)) <= MAX_QUERY_TERMS
    assert all(TERM.fullmatch(term) for term in terms)
    assert set(terms) <= set(document_terms("a", text))
    assert set(terms) <= set(document_terms("a", f"{other} {text} {other}"))


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_case_and_form_of_the_same_characters_make_no_difference(text: str) -> None:
    assert document_terms("a", unicodedata.normalize("NFD", text)) == document_terms(
        "a", unicodedata.normalize("NFC", text)
    )
    if text.isascii():
        assert document_terms("a", text.upper()) == document_terms("a", text.lower())


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20), st.text(max_size=40))
def test_no_term_of_a_namespace_is_one_of_another(one: str, other: str, text: str) -> None:
    if one != other:
        assert not set(document_terms(one, text)) & set(document_terms(other, text))


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("Cats and boxes", "cat"),
        ("invoices", "INVOICE"),
        ("tools/deploy_all.sh", "deploy"),
        ("ＡＢＣ", "abc"),
        ("Straße", "STRASSE"),
        ("naïve", "nai\u0308ve"),
        ("東京都に住む", "東京"),
        ("東京都に住む", "住"),
        ("한국어를 배운다", "한국어"),
        ("ภาษาไทย", "ไทย"),
        ("हिन्दी सीखें", "हिन्दी"),
        ("версия 2", "ВЕРСИЯ"),
        ("version2 of API", "api"),
    ],
)
def test_words_are_found_in_many_scripts(text: str, query: str) -> None:
    wanted = query_terms("a", query)
    assert wanted
    assert set(wanted) <= set(document_terms("a", text))


def test_common_words_are_looked_for_only_where_there_are_no_others() -> None:
    assert query_terms("a", "what is the time") == query_terms("a", "time")
    assert len(query_terms("a", "what is the")) == 3
    assert query_terms("a", "—?!") == ()


def test_a_text_of_any_length_has_a_bounded_number_of_terms() -> None:
    assert len(document_terms("a", " ".join(map(str, range(50_000))))) == MAX_TERMS
    assert len(query_terms("a", " ".join(map(str, range(50_000))))) == MAX_QUERY_TERMS
