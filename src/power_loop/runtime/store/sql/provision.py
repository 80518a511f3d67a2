"""Makes the tables of a database, brings older ones up to date, or tells exactly what they lack."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import AsyncIterator

from power_loop.contracts.errors import StoreError, StoreSchemaError, StoreUnavailableError
from power_loop.contracts.states import SchemaPolicy
from power_loop.runtime.store.sql.database import Body, Database, Transaction
from power_loop.runtime.store.sql.dialect import Dialect, Renderer
from power_loop.runtime.store.sql.migrations import (
    BEGUN,
    NOTHING,
    SCHEMA_VERSION,
    VERSIONS,
    Found,
    gaps,
    look,
    note_end,
    note_version,
    refuse_newer,
    wrong_types,
)
from power_loop.runtime.store.sql.tables import SCHEMA_MIGRATIONS, TABLES
from power_loop.runtime.store.sql.views import VIEWS, view_statements

_log = logging.getLogger("power_loop")

# How long a process waits for another one that makes or migrates tables, in seconds.
_LOCK_WAIT_S = 1800.0


async def provision(database: Database, render: Renderer, policy: SchemaPolicy) -> None:
    """Open a database and see to its tables as `policy` says.

    Raises `store.schema_newer` before anything is changed, and with `VERIFY` `store.schema`, whose `ddl` makes good
    what is missing. Many processes may do this at the same time: one of them works, the others wait.
    """
    if not await database.open(create=policy is SchemaPolicy.AUTO_CREATE):
        raise StoreSchemaError(
            "there is no such database file, and none is made with SchemaPolicy.VERIFY: see whether the name is right;"
            " SchemaPolicy.AUTO_CREATE makes it, or run the statements in this error's `ddl` in a new one",
            ddl=complete_ddl(render.dialect, render.prefix),
        )
    found = await _find(database, render)
    is_stale = False
    if policy is SchemaPolicy.AUTO_CREATE:
        if _is_behind(found) and found.views & _views(render):
            await _drop_views(database, render)
        while found.version != SCHEMA_VERSION:
            is_stale = True
            found = await _advance(database, render)
    missing = _missing(found, render)
    if missing:
        raise _lacking(missing, _mending_ddl(found, render))
    if policy is SchemaPolicy.AUTO_CREATE and (is_stale or not found.views.issuperset(_views(render))):
        await _make_views(database, render, is_stale=is_stale)


async def mending_ddl(database: Database, render: Renderer) -> str:
    """Return the script that makes good what a database lacks, the views as well; nothing is changed."""
    is_there = await database.open(create=False)
    return _mending_ddl(await _find(database, render) if is_there else NOTHING, render)


def complete_ddl(dialect: Dialect, prefix: str) -> str:
    """Return the script that makes all tables and views and notes their version."""
    return _mending_ddl(NOTHING, Renderer(dialect, prefix))


async def _find(database: Database, render: Renderer) -> Found:
    async def body(tx: Transaction) -> Found:
        return await look(tx, render)

    found = await database.read(body)
    refuse_newer(found.version, render.prefix)
    return found


async def _advance(database: Database, render: Renderer) -> Found:
    """Make the tables, or go from one version to the next, in one transaction; return what stands there then."""

    async def body(tx: Transaction) -> Found:
        async with _alone(tx, render):
            # Another process may have been quicker while this one waited.
            found = await look(tx, render)
            refuse_newer(found.version, render.prefix)
            if found.version is None or found.version == BEGUN:
                await _create(_Ddl(database, tx), render, found)
            elif found.version < SCHEMA_VERSION:
                await _migrate(_Ddl(database, tx), render, found)
            return await look(tx, render)

    return await database.write("provision", body)


async def _create(ddl: _Ddl, render: Renderer, found: Found) -> None:
    """Make all tables, or those that are missing where a process died that had begun to."""
    if found.version is None:
        _refuse_foreign(found, render)
        first, *_ = gaps(found, render)
        if first.name == f"table {render.prefix}{SCHEMA_MIGRATIONS.name}":
            await ddl.run(first.statement)
        await ddl.run(note_version(render, BEGUN, "create tables"))
        found = await look(ddl.tx, render)
    for gap in gaps(found, render):
        await ddl.run(gap.statement)
    await ddl.run(note_end(render))


async def _migrate(ddl: _Ddl, render: Renderer, found: Found) -> None:
    """Go to the next version. Whatever of it is there already, because a process died over it, stays as it is."""
    assert found.version is not None
    target = found.version + 1
    lost = gaps(found, render, found.version)
    if lost:
        raise _lacking([gap.name for gap in lost], _mending_ddl(found, render))
    _log.warning(
        "migrating the tables %s* from version %d to %d (%s): with large tables that takes a while, and other"
        " processes that open this database wait for it",
        render.prefix,
        found.version,
        target,
        VERSIONS[target],
    )
    for gap in gaps(found, render, target):
        await ddl.run(gap.statement)
    await ddl.run(note_version(render, target, VERSIONS[target]))


async def _drop_views(database: Database, render: Renderer) -> None:
    """Take the views of an older version away before anything else: where the process dies later on, the next one sees
    that they are missing, and could not see that they are old."""

    async def body(tx: Transaction) -> None:
        async with _alone(tx, render):
            found = await look(tx, render)
            # Another process may have made those of this version meanwhile.
            for view in sorted(found.views & _views(render)) if _is_behind(found) else ():
                await _Ddl(database, tx).run(f"DROP VIEW IF EXISTS {view}")

    await _try(database, body, render, is_stale=True)


async def _make_views(database: Database, render: Renderer, *, is_stale: bool) -> None:
    """Make the views."""

    async def body(tx: Transaction) -> None:
        async with _alone(tx, render):
            there = (await look(tx, render)).views
            for statement in view_statements(render.dialect, render.prefix, there=there, is_stale=is_stale):
                await _Ddl(database, tx).run(statement)

    await _try(database, body, render, is_stale=is_stale)


async def _try(database: Database, body: Body[None], render: Renderer, *, is_stale: bool) -> None:
    """Do something to the views; where this user may not, go on without it and say so."""
    try:
        await database.write("provision", body)
    except StoreError as error:
        _log.log(
            logging.WARNING if is_stale else logging.INFO,
            "the views %sv_* for people who look with SQL were not made, everything else works: %s;"
            " `power-loop ddl --missing` prints them for a user who may make them",
            render.prefix,
            error,
        )


class _Ddl:
    """Runs the statements that make tables, between two points where a test may end the process."""

    def __init__(self, database: Database, tx: Transaction) -> None:
        self.tx = tx
        self._database = database

    async def run(self, statement: str) -> None:
        """Run a statement."""
        self._tell("ddl.before", statement)
        await self.tx.execute(statement)
        self._tell("ddl.after", statement)

    def _tell(self, point: str, statement: str) -> None:
        if self._database.on_point is not None:
            self._database.on_point(point, statement)


@contextlib.asynccontextmanager
async def _alone(tx: Transaction, render: Renderer) -> AsyncIterator[None]:
    """Let nobody else make the tables of this prefix, as long as the block runs or the transaction does."""
    *settings, ask = render.dialect.schema_lock(render.prefix) or (None,)
    for statement in settings:
        await tx.execute(str(statement))
    end_s = time.monotonic() + _LOCK_WAIT_S
    while ask is not None and (await tx.query(ask))[0][0] != 1:
        if time.monotonic() > end_s:
            raise StoreUnavailableError(
                f"another process has been making or migrating the tables {render.prefix}* for {_LOCK_WAIT_S:.0f} s:"
                " see whether it still works, then open the store again"
            )
    try:
        yield
    finally:
        unlock = render.dialect.schema_unlock(render.prefix)
        if unlock is not None:
            await tx.query(unlock)


def _refuse_foreign(found: Found, render: Renderer) -> None:
    """Refuse what has our names and is somebody else's, or a part of ours; a view of ours is replaced later."""
    tables = {render.prefix + table.name for table in TABLES}
    taken = sorted((tables | _views(render)) & found.columns.keys() | tables & found.views)
    first = render.prefix + SCHEMA_MIGRATIONS.name
    ours = {column.name for column in SCHEMA_MIGRATIONS.columns}
    # A process that died right after its first statement leaves exactly this.
    if taken and not (taken == [first] and found.columns[first].keys() == ours):
        raise StoreSchemaError(
            f"the database has {', '.join(taken)}, which are not power-loop's or not of this prefix, or only a"
            " part of its own: choose another table_prefix, or run the statements in this error's `ddl`",
            ddl=_mending_ddl(found, render),
        )


def _is_behind(found: Found) -> bool:
    return found.version is not None and BEGUN < found.version < SCHEMA_VERSION


def _views(render: Renderer) -> set[str]:
    return {render.prefix + view for view in VIEWS}


def _missing(found: Found, render: Renderer) -> list[str]:
    """Return by name what keeps power-loop from working with a database."""
    missing = [gap.name for gap in gaps(found, render)] + wrong_types(found, render)
    if found.version != SCHEMA_VERSION:
        missing.append(f"version {SCHEMA_VERSION} in {render.prefix}{SCHEMA_MIGRATIONS.name}")
    return missing


def _mending_ddl(found: Found, render: Renderer) -> str:
    """Return the script that makes good what is missing, the views last: who may not make them has done all else."""
    comments = "".join(f"-- {wrong}: no statement mends that\n" for wrong in wrong_types(found, render))
    statements = [gap.statement for gap in gaps(found, render)]
    if found.version is None:
        statements.append(note_version(render, SCHEMA_VERSION, "create tables"))
    elif found.version == BEGUN:
        statements.append(note_end(render))
    else:
        later = range(found.version + 1, SCHEMA_VERSION + 1)
        statements += [note_version(render, version, VERSIONS[version]) for version in later]
    statements += view_statements(render.dialect, render.prefix, there=found.views, is_stale=_is_behind(found))
    return comments + "".join(f"{statement};\n" for statement in statements)


def _lacking(missing: list[str], ddl: str) -> StoreSchemaError:
    names = ", ".join(missing)
    return StoreSchemaError(
        f"the database lacks {names}: run the statements in this error's `ddl`; SchemaPolicy.AUTO_CREATE makes all"
        " tables where there are none yet, and brings older ones up to date",
        ddl=ddl,
    )
