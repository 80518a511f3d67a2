"""DSNs: what they name, and what is refused without a word of a password."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from power_loop.contracts.errors import InvalidDsnError, InvalidTablePrefixError
from power_loop.runtime.store.dsn import SqliteDsn, parse_dsn
from power_loop.runtime.store.open import open_store
from power_loop.runtime.store.server_dsn import ServerDsn


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
    ("dsn", "expected"),
    [
        ("postgresql://u:p@h/app", ServerDsn("postgresql", "h", 5432, "app", "u", "p")),
        ("postgres://u:p@h:6543/app", ServerDsn("postgresql", "h", 6543, "app", "u", "p")),
        ("mysql://u:p@h/app", ServerDsn("mysql", "h", 3306, "app", "u", "p")),
        ("MariaDB://u:p@h:/app", ServerDsn("mysql", "h", 3306, "app", "u", "p")),
        ("mysql://h/app", ServerDsn("mysql", "h", 3306, "app")),
        ("mysql://u@h/app", ServerDsn("mysql", "h", 3306, "app", "u")),
        ("mysql://u:@h/app", ServerDsn("mysql", "h", 3306, "app", "u", "")),
        ("postgresql:///app", ServerDsn("postgresql", "localhost", 5432, "app")),
        ("postgresql://u:p@[::1]:5433/app", ServerDsn("postgresql", "::1", 5433, "app", "u", "p")),
        ("mysql://a%40b:p%2Fq%3Fr%23s%40@h/my%20app", ServerDsn("mysql", "h", 3306, "my app", "a@b", "p/q?r#s@")),
        ("mysql://u:%3A%25@h/app", ServerDsn("mysql", "h", 3306, "app", "u", ":%")),
        ("mysql://u:a:b@c@h/app", ServerDsn("mysql", "h", 3306, "app", "u", "a:b@c")),
        ("mysql://u:p#q@h/app", ServerDsn("mysql", "h", 3306, "app", "u", "p#q")),
        ("mysql://u:+@h/app", ServerDsn("mysql", "h", 3306, "app", "u", "+")),
        (
            "postgresql:///app?host=/run/postgresql&pool_size=3&sslmode=disable&statement_cache_size=0&schema=agents",
            ServerDsn("postgresql", "localhost", 5432, "app", socket="/run/postgresql", pool_size=3, sslmode="disable",
                      statement_cache_size=0, schema="agents"),
        ),
        (
            "mysql://u:p@h/app?unix_socket=/tmp/my.sock&retry_s=0&lock_timeout_s=2.5&application_name=a%20b",
            ServerDsn("mysql", "h", 3306, "app", "u", "p", socket="/tmp/my.sock", retry_s=0.0, lock_timeout_s=2.5,
                      application_name="a b"),
        ),
    ],
)  # fmt: skip
def test_a_dsn_names_a_database_on_a_server(dsn: str, expected: ServerDsn) -> None:
    parsed = parse_dsn(dsn)
    assert parsed == expected
    assert isinstance(parsed, ServerDsn)
    assert parsed.password == expected.password
    if parsed.password is not None and len(parsed.password) > 2:
        assert parsed.password not in repr(parsed) + parsed.name


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
        ("postgres:/app", "two slashes: postgres://"),
        ("mysql:app", "two slashes: mysql://"),
        ("postgresq://u:p@h/app", "did you mean postgres"),
        ("postgresql+asyncpg://u:p@h/app", "did you mean postgresql://"),
        ("postgresql://", "names no database"),
        ("postgresql://u:p@h", "names no database"),
        ("mysql://u:p@h/", "names no database"),
        ("postgresql://u:p@h/a/b", "a / too many"),
        ("postgresql://u:p/q@h/app", "a / too many"),
        ("mysql://u:p?q@h/app", "an @ behind its ?"),
        ("mysql://u:100%@h/app", "%25"),
        ("mysql://u:%FF@h/app", "no UTF-8"),
        ("mysql://u:%00@h/app", "NUL"),
        ("mysql://u:p\ud800@h/app", "half of a surrogate pair"),
        ("postgresql://u:p@h:x/app", "as its port"),
        ("postgresql://u:p@h:0/app", "as its port"),
        ("postgresql://u:p@h:65536/app", "as its port"),
        ("postgresql://u:p@::1/app", "in brackets"),
        ("postgresql://u:p@[::1/app", "in brackets"),
        ("postgresql://u:p@one,two/app", "several hosts"),
        ("postgresql://u:p@h/app?pool_sise=3", "did you mean 'pool_size'"),
        ("postgresql://u:p@h/app?password=x", "unknown parameter 'password'"),
        ("postgresql://u:p@h/app?unix_socket=/x", "only mysql has that"),
        ("mysql://u:p@h/app?statement_cache_size=0", "only postgresql has that"),
        ("mysql://u:p@h/app?synchronous=full", "unknown parameter"),
        ("mysql://u:p@h/app?pool_size=0", "from 1 to 1000"),
        ("mysql://u:p@h/app?pool_size=many", "from 1 to 1000"),
        ("mysql://u:p@h/app?pool_size=3&pool_size=4", "twice"),
        ("mysql://u:p@h/app?pool_size", "without a value"),
        ("mysql://u:p@h/app?pool_size=", "without a value"),
        ("mysql://u:p@h/app?connect_timeout_s=0", "seconds above 0"),
        ("mysql://u:p@h/app?lock_timeout_s=nan", "seconds above 0"),
        ("mysql://u:p@h/app?retry_s=-1", "seconds above 0"),
        ("mysql://u:p@h/app?sslmode=on", "one of disable, prefer, require, verify-ca, verify-full"),
        ("mysql://u:p@h/app?sslcert=/c.pem", "only with sslmode=require"),
        ("mysql://u:p@h/app?sslmode=require&sslkey=/k.pem", "give it as sslcert as well"),
        ("mysql://u:p@h/app?application_name=" + "x" * 64, "63 bytes at most"),
        ("mysql://u:p@h/app?application_name=" + "%C3%BC" * 32, "63 bytes at most"),
        ("mysql://u:p@h/app?host=elsewhere", "the path of a socket"),
        ("mysql://u:p@h/app?host=/a&unix_socket=/b", "give one of them"),
        ("postgresql://u:p@h/app?schema=a,b", "one schema"),
        ("postgresql://u:p@h/app?schema=a%22;x", "one schema"),
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


_SECRET = st.lists(st.sampled_from([*"@:/%?#&=aZ9~ é;\ud800", "%FF"]), max_size=12).map(
    lambda parts: f"s3cr{''.join(parts)}et"
)


@given(
    secret=_SECRET,
    scheme=st.sampled_from(
        ["postgresql://", "postgres://", "mysql://", "mariadb://", "postgres:", "postgres:/", "sqlite://", "sqllite://",
         "a://", "://", "postgre s://", "-x://", "http://", "PostgreSQL://"]
    ),
)  # fmt: skip
def test_no_error_ever_shows_a_password(secret: str, scheme: str) -> None:
    try:
        parsed = parse_dsn(f"{scheme}user:{secret}@host/app")
    except InvalidDsnError as error:
        text = f"{error} {error!r} {error.__cause__!r} {error.__context__!r}"
    else:
        assert isinstance(parsed, ServerDsn)
        text = f"{parsed!r} {parsed.name}"
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
