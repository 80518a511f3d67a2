"""Numbers the versions of the tables, and tells by which statements a database that lags behind gets to each."""

from __future__ import annotations

from collections.abc import Iterator

from power_loop.contracts.errors import StoreNewerError
from power_loop.contracts.frozen import frozen
from power_loop.runtime.store.sql.database import Transaction
from power_loop.runtime.store.sql.dialect import Renderer
from power_loop.runtime.store.sql.tables import SCHEMA_MIGRATIONS, TABLES, Kind, Table

#: What each version brought. Which tables, columns and indexes it added stands in `tables.py`, at each as `since`: a
#: version that is out is never changed, the next change gets the next number.
VERSIONS = {
    1: "create tables",
    2: "tokens of writes, signals, the inbox, forks, keys of calls",
    3: "folds, projections, blobs, memories, segments of prompts",
    4: "trees of sessions, blackboards, budgets, costs of model calls",
    5: "timers, workflows",
}
SCHEMA_VERSION = max(VERSIONS)

#: Is true as long as nobody migrated the tables to a version that this code does not know. What takes a lease asks for
#: it: a process of an older version ends the turns that it has begun, and begins no more.
IS_KNOWN = f"NOT EXISTS (SELECT 1 FROM {{{SCHEMA_MIGRATIONS.name}}} WHERE version > {SCHEMA_VERSION})"

#: Stands in place of a version while tables are made where each statement is committed by itself.
BEGUN = 0


@frozen
class Gap:
    """Is a table, a column or an index that is not there: how messages call it, and the statement that makes it."""

    name: str
    statement: str


@frozen
class Found:
    """Is what stands in a database under a prefix.

    `version` is None where none is noted. `columns` has the type of each column, by table and name.
    """

    version: int | None
    columns: dict[str, dict[str, str]]
    indexes: frozenset[str]
    views: frozenset[str]


#: What stands in an empty database.
NOTHING = Found(None, {}, frozenset(), frozenset())


def refuse_newer(version: int | None, prefix: str) -> None:
    """Raise `store.schema_newer` for a version that this code does not know."""
    if version is not None and version > SCHEMA_VERSION:
        raise StoreNewerError(
            f"the tables {prefix!r}* have version {version}, this power-loop knows {SCHEMA_VERSION}: upgrade"
            " power-loop, nothing was changed",
            found=version,
            known=SCHEMA_VERSION,
        )


async def look(tx: Transaction, render: Renderer) -> Found:
    """Return what stands in a database."""
    dialect, prefix = render.dialect, render.prefix
    columns: dict[str, dict[str, str]] = {}
    for table, column, kind in await tx.query(dialect.columns_query, (prefix,)):
        columns.setdefault(table, {})[column] = str(kind).lower()
    version = None
    if prefix + SCHEMA_MIGRATIONS.name in columns:
        [(version,)] = await tx.query(f"SELECT MAX(version) FROM {prefix}{SCHEMA_MIGRATIONS.name}")
    return Found(
        None if version is None else int(version),
        columns,
        frozenset(name for (name,) in await tx.query(dialect.indexes_query, (prefix,))),
        frozenset(name for (name,) in await tx.query(dialect.views_query, (prefix,))),
    )


def gaps(found: Found, render: Renderer, version: int = SCHEMA_VERSION) -> list[Gap]:
    """Return what a database lacks of a version, in the order in which it can be made."""
    return [gap for table in TABLES if table.since <= version for gap in _gaps_of(table, found, render, version)]


def _gaps_of(table: Table, found: Found, render: Renderer, version: int) -> Iterator[Gap]:
    dialect, prefix = render.dialect, render.prefix
    name = prefix + table.name
    columns = found.columns.get(name)
    if columns is None:
        yield Gap(f"table {name}", dialect.create_table(table, name))
    else:
        for column in table.columns:
            if column.since <= version and column.name not in columns:
                yield Gap(f"column {name}.{column.name}", dialect.add_column(column, name))
    for index in table.indexes:
        if index.text_key is not None and not dialect.has_full_text:
            continue
        if index.since <= version and prefix + index.name not in found.indexes:
            yield Gap(f"index {prefix}{index.name}", dialect.create_index(index, prefix + index.name, name))


def wrong_types(found: Found, render: Renderer) -> list[str]:
    """Return what messages say about columns that cannot hold what they are for: no statement mends these."""
    wrong = []
    for table in TABLES:
        columns = found.columns.get(render.prefix + table.name, {})
        for column in table.columns:
            kind = columns.get(column.name)
            if kind is not None and (column.kind is Kind.INTEGER) != ("int" in kind):
                belongs = "a 64-bit integer" if column.kind is Kind.INTEGER else "text"
                wrong.append(f"column {render.prefix}{table.name}.{column.name} is {kind!r} where {belongs} belongs")
    return wrong


def note_version(render: Renderer, version: int, name: str) -> str:
    """Return the statement that notes a version."""
    return (
        f"INSERT INTO {render.prefix}{SCHEMA_MIGRATIONS.name} (version, name, applied_at_ms)"
        f" VALUES ({version}, '{name}', {render.dialect.now_ms})"
    )


def note_end(render: Renderer) -> str:
    """Return the statement that puts the version in the place of `BEGUN`."""
    return (
        f"UPDATE {render.prefix}{SCHEMA_MIGRATIONS.name} SET version = {SCHEMA_VERSION},"
        f" applied_at_ms = {render.dialect.now_ms} WHERE version = {BEGUN}"
    )
