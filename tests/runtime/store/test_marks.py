"""Where parameters stand in a statement of somebody's own, and whether it is only one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from power_loop.runtime.store.sql.dialect_postgres import PostgresDialect
from power_loop.runtime.store.sql.marks import MYSQL_TEXT, POSTGRES_TEXT, SQLITE_TEXT, is_single, pieces

EVERY = (MYSQL_TEXT, POSTGRES_TEXT, SQLITE_TEXT)


@pytest.mark.parametrize("text", EVERY)
@pytest.mark.parametrize(
    "shown",
    [
        "'a ? b'",
        "'it''s ?'",
        '"a ?"',
        '"a "" ?"',
        "/* why? */",
        "-- why?\n",
        "/* it's ? */",
        "-- it's ?\n",
        '"it\'s ?"',
    ],
)
def test_a_question_mark_in_a_text_a_name_or_a_comment_is_none(text: str, shown: str) -> None:
    assert pieces(f"SELECT ?, {shown}, ?", text) == ("SELECT ", f", {shown}, ", "")


@pytest.mark.parametrize("shown", ["'it\\'s ?'", '"\\"?"', "`a?`", "# why?\n", "'\\\\'"])
def test_mysql_has_texts_of_its_own(shown: str) -> None:
    assert pieces(f"SELECT ?, {shown}, ?", MYSQL_TEXT) == ("SELECT ", f", {shown}, ", "")


@pytest.mark.parametrize("shown", ["E'it\\'s ?'", "$$a ' ?$$", "$b$ $$ ? $b$", "'\\'"])
def test_postgresql_has_texts_of_its_own(shown: str) -> None:
    assert pieces(f"SELECT ?, {shown}, ?", POSTGRES_TEXT) == ("SELECT ", f", {shown}, ", "")


def test_what_looks_like_a_comment_and_is_sql_has_parameters() -> None:
    assert len(pieces("SELECT /*!80000 ? */ 5--?\n", MYSQL_TEXT)) == 3


def test_operators_with_a_question_mark_are_written_with_two() -> None:
    assert PostgresDialect().placeholders("SELECT a ?? ? AND b ??| ? ") == "SELECT a ? $1 AND b ?| $2 "


@pytest.mark.parametrize("text", EVERY)
@pytest.mark.parametrize("sql", ["SELECT 1", "SELECT 1;", "SELECT 1 ; \n", "SELECT ';'; -- ;\n", "SELECT 1; /* ; */"])
def test_one_statement_is_one(text: str, sql: str) -> None:
    assert is_single(sql, text)


@pytest.mark.parametrize("text", EVERY)
@pytest.mark.parametrize(
    "sql", ["SELECT 1; COMMIT", "SELECT 'a';COMMIT", "SELECT 1; /* */ COMMIT --", "SELECT 1;;'x'", "/* ' */ ; COMMIT '"]
)
def test_two_statements_are_two(text: str, sql: str) -> None:
    assert not is_single(sql, text)


def test_a_comment_that_mysql_runs_is_a_statement() -> None:
    assert not is_single("SELECT 1; /*!COMMIT*/", MYSQL_TEXT)
    assert not is_single("SELECT 1; /*M!100000 COMMIT*/", MYSQL_TEXT)
    assert not is_single("SELECT 'it\\'; COMMIT; --'", POSTGRES_TEXT)


@given(sql=st.text(alphabet="?'\"`\\$ab-/*#;\n ", max_size=40), text=st.sampled_from(EVERY))
def test_nothing_of_a_statement_is_lost(sql: str, text: str) -> None:
    assert "?".join(pieces(sql, text)) == sql
