"""Opens stores: databases are shared by everybody in the process who names the same one, and closed with the last."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from queue import Empty, SimpleQueue

from power_loop.contracts.choices import choice_of
from power_loop.contracts.clock import Clock
from power_loop.contracts.states import SchemaPolicy
from power_loop.runtime.store.dsn import SqliteDsn, parse_dsn
from power_loop.runtime.store.server_dsn import ServerDsn
from power_loop.runtime.store.sql.dialect import Renderer
from power_loop.runtime.store.sql.mysql import MysqlDriver
from power_loop.runtime.store.sql.postgres import PostgresDriver
from power_loop.runtime.store.sql.provision import mending_ddl, provision
from power_loop.runtime.store.sql.server import ServerDatabase
from power_loop.runtime.store.sql.server_link import Driver
from power_loop.runtime.store.sql.sqlite import SqliteDatabase
from power_loop.runtime.store.sql.sqlite_connection import SqliteFile
from power_loop.runtime.store.store import Rooms, SqlSessionStore

#: How long a database stays open after its last handle was garbage-collected, in seconds: a web handler that makes a
#: loop a request leaves such gaps, and opening takes longer than a request's own work.
LINGER_S = 5.0

_Key = tuple[str, str, float] | ServerDsn
_Opened = SqliteDatabase | ServerDatabase

_OPEN: dict[_Key, _SharedDatabase] = {}
_LOCK = threading.Lock()


async def open_store(
    dsn: str | os.PathLike[str],
    *,
    table_prefix: str = "pl_",
    schema: SchemaPolicy | str = SchemaPolicy.AUTO_CREATE,
    clock: Clock | None = None,
) -> SqlSessionStore:
    """Return a handle on the store behind a DSN, such as `app.db` or `postgresql://user:password@host/database`; cheap
    where the process has it open already.

    The database closes when the last handle's `aclose()` was called, or soon after the last one was forgotten. Every
    `:memory:` is a database of its own. Raises `config.invalid`, `config.missing_extra`, `store.invalid_dsn`,
    `store.invalid_table_prefix`, `store.not_a_database`, `store.read_only`, `store.refused`, `store.schema_newer`,
    `store.schema`, `store.unavailable`.
    """
    policy = schema_policy_of(schema)
    shared = _share(parse_dsn(dsn))
    clock = clock or shared.database.clock
    store: SqlSessionStore | None = None
    try:
        rooms = shared.rooms(table_prefix)
        store = shared.handle(rooms, clock)
        if not shared.is_provisioned(rooms, policy):
            await provision(rooms.database, rooms.render, policy)
            shared.note_provisioned(rooms, policy)
    except BaseException:
        await (shared.give_back() if store is None else store.aclose())
        raise
    return store


async def missing_ddl(dsn: str | os.PathLike[str], *, table_prefix: str = "pl_") -> str:
    """Return the script that makes good what a database lacks, its views as well; it changes nothing.

    Empty if it lacks nothing. Raises what `open_store` raises, but for `store.schema`.
    """
    shared = _share(parse_dsn(dsn))
    try:
        return await mending_ddl(shared.database, shared.rooms(table_prefix).render)
    finally:
        await shared.give_back()


def schema_policy_of(schema: SchemaPolicy | str) -> SchemaPolicy:
    """Return the policy that a word means. Raises `config.invalid`."""
    return choice_of(SchemaPolicy, schema, "schema")


class _SharedDatabase:
    """Is an open database and the count of those who use it."""

    def __init__(self, key: _Key | None, database: _Opened) -> None:
        self.database = database
        # None for a database that is not to be found by others.
        self._key = key
        self._users = 0
        # Handles that were garbage-collected and are not counted down yet: a finalizer can run anywhere, so that it may
        # take no lock.
        self._forgotten: SimpleQueue[None] = SimpleQueue()
        self._rooms: dict[str, Rooms] = {}
        self._provisioned: set[tuple[str, SchemaPolicy]] = set()

    def add_user(self) -> None:
        """Count one more; the caller holds the lock."""
        self._users += 1

    def rooms(self, prefix: str) -> Rooms:
        """Return the tables of a prefix."""
        with _LOCK:
            rooms = self._rooms.get(prefix)
            if rooms is None:
                rooms = self._rooms[prefix] = Rooms(self.database, Renderer(self.database.dialect, prefix))
            return rooms

    def handle(self, rooms: Rooms, clock: Clock) -> SqlSessionStore:
        """Return a handle for a user that was counted."""
        use = _Use(self)
        store = SqlSessionStore(rooms, clock, use.give_back)
        use.watch(store)
        return store

    def is_provisioned(self, rooms: Rooms, schema: SchemaPolicy) -> bool:
        """Tell whether these tables were seen to under this policy."""
        return (rooms.render.prefix, schema) in self._provisioned

    def note_provisioned(self, rooms: Rooms, schema: SchemaPolicy) -> None:
        """Note that they were."""
        self._provisioned.add((rooms.render.prefix, schema))

    async def give_back(self) -> None:
        """Count one user down; the last one closes the database."""
        with _LOCK:
            self._users -= 1
            is_last = self._count() == 0
            if is_last:
                self._hide()
        if is_last:
            await self.database.aclose()

    def forget(self) -> None:
        """Count a garbage-collected user down, later and on the database's own thread."""
        self._forgotten.put(None)
        self.database.post(self._look_for_users)

    def forget_process(self) -> None:
        """Begin anew in a forked child."""
        for rooms in self._rooms.values():
            rooms.memo.clear()

    def _look_for_users(self) -> None:
        with _LOCK:
            is_unused = self._count() == 0
        if is_unused:
            self.database.call_later(LINGER_S if self._key is not None else 0.0, self._close_if_unused)

    def _close_if_unused(self) -> None:
        with _LOCK:
            if self._count():
                return
            self._hide()
        self.database.close_soon()

    def _count(self) -> int:
        """Return how many use it; the caller holds the lock."""
        try:
            while True:
                self._forgotten.get_nowait()
                self._users -= 1
        except Empty:
            return self._users

    def _hide(self) -> None:
        """Let nobody else find it; the caller holds the lock."""
        if self._key is not None and _OPEN.get(self._key) is self:
            del _OPEN[self._key]


class _Use:
    """Is one handle's share in a database; it is given back once, by `aclose` or by the garbage collector."""

    __slots__ = ("_finalizer", "_shared")

    def __init__(self, shared: _SharedDatabase) -> None:
        self._shared = shared

    def watch(self, store: SqlSessionStore) -> None:
        """Give the share back when the handle is forgotten."""
        self._finalizer = weakref.finalize(store, self._shared.forget)
        # The end of the process closes databases, not handles.
        self._finalizer.atexit = False

    async def give_back(self) -> None:
        """Give the share back."""
        if self._finalizer.detach() is not None:
            await self._shared.give_back()


def _share(dsn: SqliteDsn | ServerDsn) -> _SharedDatabase:
    """Return the open database of a DSN, with one more user."""
    if isinstance(dsn, ServerDsn):
        return _share_as(dsn, lambda: ServerDatabase(dsn, _driver(dsn)))
    if dsn.path is None:
        private = _SharedDatabase(None, _database(None, dsn))
        private.add_user()
        return private
    path = os.path.realpath(dsn.path)
    return _share_as((path, dsn.synchronous, dsn.busy_timeout_s), lambda: _database(path, dsn))


def _share_as(key: _Key, make: Callable[[], _Opened]) -> _SharedDatabase:
    """Return the open database of a key, or the one that `make` makes, with one more user."""
    with _LOCK:
        shared = _OPEN.get(key)
        # A file that was deleted or replaced is not served from the open one: what is written there would be lost.
        if shared is None or shared.database.is_stale:
            shared = _OPEN[key] = _SharedDatabase(key, make())
        shared.add_user()
        return shared


def _driver(dsn: ServerDsn) -> Driver:
    return PostgresDriver(dsn) if dsn.kind == "postgresql" else MysqlDriver(dsn)


def _database(path: str | None, dsn: SqliteDsn) -> SqliteDatabase:
    return SqliteDatabase(SqliteFile(path, synchronous=dsn.synchronous, busy_timeout_s=dsn.busy_timeout_s))


def _begin_anew_in_child() -> None:
    # Another thread of the parent may have held it.
    global _LOCK
    _LOCK = threading.Lock()
    for shared in _OPEN.values():
        shared.forget_process()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew_in_child)
