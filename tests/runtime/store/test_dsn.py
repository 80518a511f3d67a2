"""DSNs: what they name, and what is refused without a word of a password."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from power_loop.contracts.errors import InvalidDsnError, InvalidTablePrefixError
from power_loop.runtime.store.dsn import SqliteDsn, parse_dsn
from power_loop.runtime.store.open import open_store


@pytest.mark.parametrize(
    ("dsn", "expected"),
    [
        ("app.db", SqliteDsn("app.db")),
        ("./x/app.db", SqliteDsn("./x/app.db")),
        ("/data/app.db", SqliteDsn("/data/app.db")),
        ("100%.db", SqliteDsn("100%.db")),
        ("a b#c&d.db", SqliteDsn("a b#c&d.db")),
        ("./data:1.db", SqliteDsn("./data:1.db")),
        ("C:\\data\\app.db", SqliteDsn("C:\\data\\app.db")),
        ("sqlite:///app.db", SqliteDsn("app.db")),
        ("sqlite:////data/app.db", SqliteDsn("/data/app.db")),
        ("SQLite:///app.db", SqliteDsn("app.db")),
        ("sqlite:///what%3Fa%20name.db", SqliteDsn("what?a name.db")),
        (":memory:", SqliteDsn(None)),
        ("sqlite:///:memory:", SqliteDsn(None)),
        ("app.db?synchronous=normal", SqliteDsn("app.db", "normal")),
        ("app.db?synchronous=EXTRA&busy_timeout_s=2.5", SqliteDsn("app.db", "extra", 2.5)),
        ("sqlite:///app.db?busy_timeout_s=0", SqliteDsn("app.db", "full", 0.0)),
        (":memory:?synchronous=off", SqliteDsn(None, "off")),
        (Path("a?b.db"), SqliteDsn("a?b.db")),
    ],
)
def test_a_dsn_names_a_database(dsn: str, expected: SqliteDsn) -> None:
    assert parse_dsn(dsn) == expected


def test_what_was_acknowledged_survives_a_power_cut_unless_one_asks_for_less() -> None:
    assert parse_dsn("app.db").synchronous == "full"


@pytest.mark.parametrize(
    ("dsn", "hint"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("?synchronous=full", "empty"),
        ("sqlite://", "three slashes"),
        ("sqlite://app.db", "three slashes"),
        ("sqlite:app.db", "sqlite:///"),
        ("sqlite:/app.db", "sqlite:///"),
        ("sqlite:///", "empty"),
        ("sqllite:///app.db", "did you mean sqlite"),
        ("sqlite3:///app.db", "did you mean sqlite"),
        ("postgres:/app", "did you mean postgres"),
        ("postgresq://u:p@h/app", "did you mean postgres"),
        ("postgresql://u:p@h/app", "no postgresql backend"),
        ("postgres://u:p@h/app", "no postgres backend"),
        ("mysql://u:p@h/app", "no mysql backend"),
        ("mariadb://u:p@h/app", "no mariadb backend"),
        ("redis://h", "unknown database 'redis'"),
        ("file:app.db", "file:"),
        ("file:///app.db?nolock=1", "file:"),
        ("data:1.db", "./data:"),
        ("app.db?synchronus=full", "did you mean 'synchronous'"),
        ("app.db?vfs=unix-none", "unknown parameter 'vfs'"),
        ("app.db?mode=ro", "unknown parameter"),
        ("app.db?immutable=1", "unknown parameter"),
        ("app.db?synchronous=always", "one of off, normal, full, extra"),
        ("app.db?synchronous", "without a value"),
        ("app.db?synchronous=full&synchronous=off", "twice"),
        ("app.db?busy_timeout_s=-1", "from 0 to 3600"),
        ("app.db?busy_timeout_s=nan", "from 0 to 3600"),
        ("app.db?busy_timeout_s=inf", "from 0 to 3600"),
        ("app.db?busy_timeout_s=soon", "from 0 to 3600"),
        ("app.db?", None),
        ("a\0b.db", "NUL"),
        ("sqlite:///a%00b.db", "NUL"),
        ("a\ud800.db", "characters"),
        ("data/", "names a directory: give the file in it, such as data/app.db"),
        ("/data/?synchronous=off", "names a directory"),
        ("sqlite:///data/", "names a directory"),
        (None, "NoneType"),
        (b"app.db", "bytes"),
        (7, "int"),
    ],
)
def test_a_dsn_that_names_nothing_is_refused_with_a_hint(dsn: str, hint: str | None) -> None:
    if hint is None:
        assert parse_dsn(dsn) == SqliteDsn("app.db")
        return
    with pytest.raises(InvalidDsnError) as caught:
        parse_dsn(dsn)
    assert caught.value.code == "store.invalid_dsn"
    assert hint in str(caught.value)


_SECRET = st.text(alphabet=st.sampled_from("@:/%?#&=aZ9~ é;"), min_size=0, max_size=12).map(
    lambda text: f"s3cr{text}et"
)


@given(
    secret=_SECRET,
    scheme=st.sampled_from(
        ["postgresql://", "postgres://", "mysql://", "mariadb://", "postgres:", "postgres:/", "sqlite://", "sqllite://",
         "a://", "://", "postgre s://", "-x://", "http://", "PostgreSQL://"]
    ),
)  # fmt: skip
def test_no_error_ever_shows_a_password(secret: str, scheme: str) -> None:
    with pytest.raises(InvalidDsnError) as caught:
        parse_dsn(f"{scheme}user:{secret}@host/app")
    text = f"{caught.value} {caught.value!r} {caught.value.__cause__!r}"
    assert "s3cr" not in text


@pytest.mark.parametrize(
    "prefix",
    ["", "1a", "Pl_", "pl-", "pl ", "pl_\n", "x; DROP TABLE y--", 'a"', "a`", "a%", "é", "рl_", "x" * 25, "a\0", None],
)
async def test_a_table_prefix_that_is_no_plain_name_is_refused(tmp_path: Path, prefix: str) -> None:
    with pytest.raises(InvalidTablePrefixError) as caught:
        await open_store(tmp_path / "app.db", table_prefix=prefix)
    assert caught.value.code == "store.invalid_table_prefix"
    assert not (tmp_path / "app.db").exists()


@pytest.mark.parametrize("prefix", ["pl_", "_", "a", "x" * 24, "select_"])
async def test_a_table_prefix_names_tables_of_its_own(tmp_path: Path, prefix: str) -> None:
    store = await open_store(tmp_path / "app.db", table_prefix=prefix)
    other = await open_store(tmp_path / "app.db", table_prefix="other_")
    await store.create_session("sess_1", system_prompt=prefix, metadata={})
    await other.create_session("sess_1", system_prompt="other", metadata={})
    assert (await store.get_session("sess_1")).system_prompt == prefix
    assert (await other.get_session("sess_1")).system_prompt == "other"
    assert store.memo is not other.memo
    await store.aclose()
    await other.aclose()
