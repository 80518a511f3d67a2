"""Makes the tables of a database, or tells exactly what they lack."""

from __future__ import annotations

from power_loop.contracts.clock import Clock
from power_loop.contracts.errors import StoreNewerError, StoreSchemaError
from power_loop.contracts.states import SchemaPolicy
from power_loop.runtime.store.sql.database import Database, Transaction
from power_loop.runtime.store.sql.dialect import Dialect, Renderer
from power_loop.runtime.store.sql.tables import SCHEMA_MIGRATIONS, TABLES

#: The version of the tables as `tables.py` has them; a step from version N to N+1 has its statements here.
SCHEMA_VERSION = 1
_NAME = "create tables"


async def provision(database: Database, render: Renderer, policy: SchemaPolicy, clock: Clock) -> None:
    """Open a database and see to its tables as `policy` says.

    Raises `store.schema_newer` before anything is changed, and with `VERIFY` `store.schema`, whose `ddl` makes good
    what is missing. Many processes may do this at the same time.
    """
    if not await database.open(create=policy is SchemaPolicy.AUTO_CREATE):
        raise _lacking(["the database"], complete_ddl(render.dialect, render.prefix, applied_at_ms=clock.now_ms()))

    async def look(tx: Transaction) -> tuple[int, list[str], str]:
        version = await _version(tx, render)
        if version is not None and version > SCHEMA_VERSION:
            raise StoreNewerError(
                f"the tables {render.prefix!r}* have version {version}, this power-loop knows {SCHEMA_VERSION}:"
                " upgrade power-loop, nothing was changed",
                found=version,
                known=SCHEMA_VERSION,
            )
        missing, ddl = await _missing(tx, render, version, clock.now_ms())
        return version or 0, missing, ddl

    version, missing, ddl = await database.read(look)
    if missing and (policy is SchemaPolicy.VERIFY or version):
        raise _lacking(missing, ddl)
    if version == SCHEMA_VERSION:
        return

    async def create(tx: Transaction) -> None:
        # Another process may have been quicker while this one waited for the lock.
        if await _version(tx, render) is None:
            taken = [table.name for table in TABLES if render.prefix + table.name in await _columns(tx, render)]
            if taken:
                raise StoreSchemaError(
                    f"the database has tables {render.prefix}{{{', '.join(taken)}}} that are not power-loop's, or only"
                    " a part of its own: choose another table_prefix, or run the statements in this error's `ddl`",
                    ddl=ddl,
                )
            for statement in _statements(render.dialect, render.prefix, applied_at_ms=clock.now_ms()):
                await tx.execute(statement)

    await database.write("provision", create)


def complete_ddl(dialect: Dialect, prefix: str, *, applied_at_ms: int) -> str:
    """Return the script that makes all tables and notes their version."""
    return _script(_statements(dialect, prefix, applied_at_ms=applied_at_ms))


def _statements(dialect: Dialect, prefix: str, *, applied_at_ms: int) -> list[str]:
    statements = []
    for table in TABLES:
        statements.append(dialect.create_table(table, prefix + table.name))
        statements += [dialect.create_index(index, prefix + index.name, prefix + table.name) for index in table.indexes]
    statements.append(_note_version(prefix, applied_at_ms))
    return statements


def _note_version(prefix: str, applied_at_ms: int) -> str:
    return (
        f"INSERT INTO {prefix}{SCHEMA_MIGRATIONS.name} (version, name, applied_at_ms)"
        f" VALUES ({SCHEMA_VERSION}, '{_NAME}', {applied_at_ms})"
    )


def _script(statements: list[str]) -> str:
    return "".join(f"{statement};\n" for statement in statements)


def _lacking(missing: list[str], ddl: str) -> StoreSchemaError:
    names = ", ".join(missing)
    return StoreSchemaError(
        f"the database lacks {names}: run the statements in this error's `ddl`; SchemaPolicy.AUTO_CREATE makes all"
        " tables where there are none yet",
        ddl=ddl,
    )


async def _columns(tx: Transaction, render: Renderer) -> dict[str, set[str]]:
    columns: dict[str, set[str]] = {}
    for table, column in await tx.query(render.dialect.columns_query, (render.prefix,)):
        columns.setdefault(table, set()).add(column)
    return columns


async def _version(tx: Transaction, render: Renderer) -> int | None:
    name = render.prefix + SCHEMA_MIGRATIONS.name
    if name not in await _columns(tx, render):
        return None
    [(version,)] = await tx.query(f"SELECT MAX(version) FROM {name}")
    return None if version is None else int(version)


async def _missing(tx: Transaction, render: Renderer, version: int | None, applied_at_ms: int) -> tuple[list[str], str]:
    """Return what is missing, by name, and the script that makes it good."""
    dialect, prefix = render.dialect, render.prefix
    columns = await _columns(tx, render)
    indexes = {name for (name,) in await tx.query(dialect.indexes_query, (prefix,))}
    missing: list[str] = []
    statements: list[str] = []
    for table in TABLES:
        name = prefix + table.name
        if name not in columns:
            missing.append(f"table {name}")
            statements.append(dialect.create_table(table, name))
        else:
            lost = [column for column in table.columns if column.name not in columns[name]]
            missing += [f"column {name}.{column.name}" for column in lost]
            statements += [dialect.add_column(column, name) for column in lost]
        for index in table.indexes:
            if prefix + index.name not in indexes:
                missing.append(f"index {prefix + index.name}")
                statements.append(dialect.create_index(index, prefix + index.name, name))
    if version is None:
        missing.append(f"version {SCHEMA_VERSION} in {prefix}{SCHEMA_MIGRATIONS.name}")
        statements.append(_note_version(prefix, applied_at_ms))
    return missing, _script(statements)
