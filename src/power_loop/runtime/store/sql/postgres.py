"""Connects to PostgreSQL by asyncpg, and says in our words what goes wrong there."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any

from power_loop.contracts.errors import MissingExtraError
from power_loop.runtime.store.server_dsn import ServerDsn
from power_loop.runtime.store.sql.database import Counts, Params, Row, Statement
from power_loop.runtime.store.sql.dialect import Dialect
from power_loop.runtime.store.sql.dialect_postgres import PostgresDialect
from power_loop.runtime.store.sql.server_clock import Reading
from power_loop.runtime.store.sql.server_link import DriverError, Exchange, Link, Trouble, said
from power_loop.runtime.store.sql.server_tls import tls_context

_log = logging.getLogger("power_loop")

#: How long a transaction whose client does not go on keeps its locks, in milliseconds: half of a lease, so that a
#: process that was stopped in one does not hold up who takes its sessions over.
IDLE_IN_TRANSACTION_MS = 15_000
# To the server a client that has prepared a statement and does not run it is not idle, so that its limit never comes. A
# COPY waits for its client in the same state, and is none of ours.
_END_STANDING = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
    " AND usename = current_user AND application_name = current_setting('application_name')"
    " AND pid <> pg_backend_pid() AND state = 'active' AND wait_event = 'ClientRead' AND query NOT ILIKE 'copy%'"
    " AND state_change < clock_timestamp() - interval '{} milliseconds'"
)
# One statement of many parts takes long to plan, and parameters are counted with 16 bits.
_MAX_TOGETHER = 64
_MAX_TOGETHER_PARAMS = 20_000
# A value has less than 1 GB, and a message less than 2; text is counted in characters, of which each has up to 4 bytes.
_MAX_CHARS = 250_000_000
_MAX_BYTES = 1_000_000_000

_CLOCK = "(EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::bigint"
_LOOK = (
    f"SELECT {_CLOCK}, current_setting('fsync'), current_setting('synchronous_commit'),"
    " current_setting('full_page_writes'), current_setting('server_version_num')::int"
)
_MIN_VERSION = 120000
# What asking for a name answers if there is none; another answer may come later.
_NO_SUCH_NAME = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})
_VERB_AND_TABLE = re.compile(r"(INSERT INTO|UPDATE|DELETE FROM) (\w+)")
_EQUAL = re.compile(r"\b(\w+) = \$(\d+)")
_LITERAL_OR_NUMBER = re.compile(r"'(?:[^']|'')*'|\$(\d+)")

# https://www.postgresql.org/docs/current/errcodes-appendix.html: classes first, then what is to be told apart in them.
_CLASSES = {
    "08": Trouble.LOST,
    "22": Trouble.VALUE,
    "28": Trouble.REFUSED,
    "53": Trouble.CROWDED,
    "54": Trouble.VALUE,
    "57": Trouble.LOST,
    "58": Trouble.LOST,
}
_STATES = {
    "08P01": Trouble.OTHER,
    "23505": Trouble.DUPLICATE,
    "25006": Trouble.READ_ONLY,
    "25P03": Trouble.LOST,
    "25P04": Trouble.LOST,
    "3D000": Trouble.REFUSED,
    "3F000": Trouble.REFUSED,
    "40001": Trouble.CONFLICT,
    "40P01": Trouble.CONFLICT,
    "42501": Trouble.REFUSED,
    "53100": Trouble.FULL,
    "55P03": Trouble.HELD,
    "57014": Trouble.SLOW,
}


class PostgresDriver:
    """Opens connections to PostgreSQL."""

    def __init__(self, dsn: ServerDsn) -> None:
        self.dialect: Dialect = PostgresDialect()
        self._dsn = dsn
        self._asyncpg = _asyncpg()
        # Behind a pooler that shares connections by transaction nothing outlives one: settings go with each.
        self._is_pooled = dsn.statement_cache_size == 0
        self.can_listen = not self._is_pooled
        self._has_warned = False
        context = tls_context(dsn)
        self._ssl: Any = "prefer" if context is not None and dsn.sslmode == "prefer" else context or False

    async def connect(self, counts: Counts, note: Callable[[Reading], None]) -> Link:
        """Return a connection that is set up. Raises `DriverError`."""
        dsn = self._dsn
        settings = {"application_name": dsn.application_name}
        if not self._is_pooled:
            settings |= {**self._settings(), "default_transaction_isolation": "read committed"}
        try:
            connection = await self._asyncpg.connect(
                host=dsn.socket or dsn.host,
                port=dsn.port,
                user=dsn.user,
                password=dsn.password,
                database=dsn.database,
                ssl=self._ssl,
                timeout=dsn.connect_timeout_s,
                statement_cache_size=dsn.statement_cache_size,
                max_cached_statement_lifetime=0,
                max_cacheable_statement_size=0,
                server_settings=settings,
            )
        except Exception as error:
            raise DriverError(self._trouble_of_connecting(error), said(error)) from error
        try:
            exchange = Exchange(counts, dsn.answer_within_s, abort=connection.terminate, sort=self.trouble_of)
            link = PostgresLink(connection, self._begins(), exchange=exchange, note=note, is_pooled=self._is_pooled)
            await self._set_up(link, connection)
        except BaseException:
            connection.terminate()
            raise
        return link

    async def _set_up(self, link: PostgresLink, connection: Any) -> None:
        if self._is_pooled:
            await link.begin(is_read=True)
        [(fsync, commit, full_pages, version)] = await link.look()
        if version < _MIN_VERSION:
            raise DriverError(Trouble.OTHER, f"the server has version {version // 10000}, power-loop needs 12 or later")
        # A sum of integers is a numeric.
        await connection.set_type_codec("numeric", schema="pg_catalog", encoder=str, decoder=_number, format="text")
        if self._is_pooled:
            await link.rollback()
        if not self._has_warned:
            self._has_warned = True
            _warn_of_settings(self._dsn.name, fsync=fsync, synchronous_commit=commit, full_page_writes=full_pages)

    def _settings(self) -> dict[str, str]:
        dsn = self._dsn
        settings = {
            "statement_timeout": str(_ms(dsn.statement_timeout_s)),
            "lock_timeout": str(_ms(dsn.lock_timeout_s)),
            "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_MS),
        }
        if dsn.schema is not None:
            settings["search_path"] = f'"{dsn.schema}"'
        return settings

    def _begins(self) -> tuple[str, str]:
        """Return what begins a transaction that writes and one that reads."""
        write, read = "BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
        if not self._is_pooled:
            return write, read
        tail = "".join(f"; SET LOCAL {name} = {value}" for name, value in self._settings().items())
        return f"{write} ISOLATION LEVEL READ COMMITTED{tail}", f"{read}{tail}"

    def _trouble_of_connecting(self, error: Exception) -> Trouble:
        if isinstance(error, ssl.SSLError) or "rejected SSL upgrade" in str(error):
            return Trouble.REFUSED
        if isinstance(error, socket.gaierror) and error.errno in _NO_SUCH_NAME:
            return Trouble.REFUSED
        return self.trouble_of(error)

    def trouble_of(self, error: Exception) -> Trouble:
        """Sort what asyncpg raises; when a server dies that is one of several unrelated classes."""
        asyncpg = self._asyncpg
        if isinstance(error, (asyncpg.InvalidCachedStatementError, asyncpg.OutdatedSchemaCacheError)):
            # The tables were changed under its prepared statements; another connection prepares them anew.
            return Trouble.LOST
        if isinstance(error, (asyncpg.exceptions.DataError, UnicodeEncodeError, OverflowError)):
            return Trouble.VALUE
        state = getattr(error, "sqlstate", None)
        if isinstance(error, asyncpg.PostgresError) and state:
            return _STATES.get(state) or _CLASSES.get(state[:2], Trouble.OTHER)
        if isinstance(error, (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, EOFError)):
            return Trouble.LOST
        if isinstance(error, (asyncio.TimeoutError, TimeoutError)):
            return Trouble.LOST
        return Trouble.OTHER


class PostgresLink:
    """Is one connection to PostgreSQL."""

    def __init__(
        self,
        connection: Any,
        begins: tuple[str, str],
        *,
        exchange: Exchange,
        note: Callable[[Reading], None],
        is_pooled: bool,
    ) -> None:
        self.used_s = asyncio.get_running_loop().time()
        # Behind a pooler, what prepares a statement and what runs it may reach different sessions.
        self.needs_transaction = is_pooled
        self._connection = connection
        self._begins = begins
        self._exchange = exchange
        self._note = note

    @property
    def is_open(self) -> bool:
        """False where either end has closed it."""
        return not self._connection.is_closed()

    async def begin(self, *, is_read: bool) -> None:
        """Begin a transaction."""
        await self._exchange(self._connection.execute(self._begins[is_read]))

    async def commit(self) -> None:
        """Commit."""
        try:
            outcome = await self._exchange(self._connection.execute("COMMIT"))
        except DriverError as failure:
            # A constraint or a trigger that was deferred to the end; the connection goes on, so nothing was lost.
            says = getattr(failure.__cause__, "severity_en", None)
            failure.is_rolled_back = says == "ERROR" and failure.trouble is not Trouble.LOST
            raise
        if outcome != "COMMIT":
            raise DriverError(Trouble.CONFLICT, "the server rolled the transaction back")

    async def rollback(self) -> None:
        """Roll back."""
        await self._exchange(self._connection.execute("ROLLBACK"))

    async def execute(self, sql: str, params: Params) -> int:
        """Run a statement and return how many rows it changed."""
        _check_sizes(params)
        status: str = await self._exchange(self._connection.execute(sql, *params))
        count = status.rpartition(" ")[2]
        return int(count) if count.isdigit() else 0

    async def execute_all(self, statements: Sequence[Statement]) -> list[int]:
        """Run statements as the parts of one, which is prepared once for all that look alike."""
        changed: list[int] = []
        for some in _portions(statements):
            if len(some) == 1:
                changed.append(await self.execute(*some[0]))
                continue
            params = [value for _, values in some for value in values]
            _check_sizes(params)
            sql = _together(tuple([sql for sql, _ in some]))
            row = await self._exchange(self._connection.fetchrow(sql, *params), statements=len(some))
            changed += row
        return changed

    async def query(self, sql: str, params: Params) -> list[Row]:
        """Return the rows of a query."""
        rows = await self._exchange(self._connection.fetch(sql, *params))
        return [tuple(row) for row in rows]

    async def listen(self, channel: str, heard: Callable[[], None]) -> None:
        """Call `heard` whenever something is told on a channel, and when the connection ends."""
        self._connection.add_termination_listener(lambda _: heard())
        await self._exchange(self._connection.add_listener(channel, lambda *_: heard()))

    def lift_limit(self) -> None:
        """Wait for what comes next as long as it takes."""
        self._exchange.lift_limit()

    async def end_standing(self) -> None:
        """End the transactions of processes that stand still in the middle of a statement for as long as one may that
        is idle."""
        await self._exchange(self._connection.execute(_END_STANDING.format(IDLE_IN_TRANSACTION_MS)))

    async def read_clock(self) -> None:
        """Read the server's clock."""
        await self._read_clock(f"SELECT {_CLOCK}")

    async def look(self) -> list[Row]:
        """Read the server's clock together with the settings that tell what a COMMIT is worth."""
        return [(await self._read_clock(_LOOK))[1:]]

    async def _read_clock(self, sql: str) -> Row:
        asked_s = time.monotonic()
        [row] = await self.query(sql, ())
        self._note(Reading(row[0], asked_s, time.monotonic()))
        return row

    def abort(self) -> None:
        """Drop the connection at once."""
        self._connection.terminate()

    async def close(self) -> None:
        """Take leave of the server."""
        await self._connection.close()


@lru_cache(maxsize=1024)
def _together(statements: tuple[str, ...]) -> str:
    """Return one statement that does what several do and gives how many rows each changed, first things first."""
    parts, taken = [], 0
    for number, sql in enumerate(statements):
        shifted, count = _renumbered(sql, taken)
        parts.append(f"part_{number} AS ({shifted} RETURNING 1)")
        taken += count
    counts = ", ".join(f"(SELECT COUNT(*) FROM part_{number})" for number in range(len(statements)))
    return f"WITH {', '.join(parts)} SELECT {counts}"


def _renumbered(sql: str, taken: int) -> tuple[str, int]:
    """Return a statement whose parameters come behind so many others, and how many they are."""
    count = 0

    def shift(found: re.Match[str]) -> str:
        nonlocal count
        if found[1] is None:
            return found[0]
        count = max(count, int(found[1]))
        return f"${int(found[1]) + taken}"

    shifted = _LITERAL_OR_NUMBER.sub(shift, sql)
    return shifted, count


def _portions(statements: Sequence[Statement]) -> list[list[Statement]]:
    """Return statements in portions that can be one statement, in order.

    The parts of one statement do not see each other's changes, so that what may meet the same row is kept apart.
    """
    portions: list[list[Statement]] = [[]]
    params = 0
    for statement in statements:
        portion = portions[-1]
        params += len(statement[1])
        is_full = len(portion) == _MAX_TOGETHER or params > _MAX_TOGETHER_PARAMS
        if portion and (is_full or any(_may_meet(one, statement) for one in portion)):
            portion = []
            portions.append(portion)
            params = len(statement[1])
        portion.append(statement)
    return portions


def _may_meet(one: Statement, other: Statement) -> bool:
    """Tell whether two statements may change the same row, the second one behind the first."""
    table, keys = _target(one[0])
    other_table, other_keys = _target(other[0])
    if table != other_table or other_keys is None:
        return False
    if keys is None:
        return True
    return not any(
        column in other_keys and one[1][place] != other[1][other_keys[column]] for column, place in keys.items()
    )


@lru_cache(maxsize=1024)
def _target(sql: str) -> tuple[str, dict[str, int] | None]:
    """Return the table of a statement, and which parameter each column has to be equal to; None for an INSERT."""
    verb, table = _VERB_AND_TABLE.match(sql).groups()  # type: ignore[union-attr]
    if verb == "INSERT INTO":
        return table, None
    where = sql.rpartition(" WHERE ")[2]
    if " OR " in where:
        return table, {}
    return table, {column: int(number) - 1 for column, number in _EQUAL.findall(where)}


def _check_sizes(params: Params) -> None:
    """Refuse what no message can hold, before the connection breaks over it."""
    chars = 0
    for value in params:
        if isinstance(value, str):
            chars += len(value)
    if chars > _MAX_CHARS:
        size = sum(len(value.encode()) for value in params if isinstance(value, str))
        if size > _MAX_BYTES:
            raise DriverError(Trouble.VALUE, f"the values of one write have {size} bytes, more than {_MAX_BYTES}")


def _number(text: str) -> int | Decimal:
    return int(text) if text.lstrip("-").isdigit() else Decimal(text)


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _warn_of_settings(name: str, **settings: str) -> None:
    """Say once what weakens the promise that an acknowledged write survives."""
    weak = [setting for setting, value in settings.items() if value in ("off", "local", "remote_write")]
    if settings["synchronous_commit"] in ("local", "remote_write"):
        # Durable on this server, which is what one server promises.
        weak.remove("synchronous_commit")
    if weak:
        _log.warning(
            "database %s runs with %s: what was acknowledged may be lost when the server or its machine dies",
            name,
            ", ".join(f"{setting}={settings[setting]}" for setting in weak),
        )


def _asyncpg() -> Any:
    try:
        import asyncpg  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingExtraError(
            "a postgresql:// dsn needs asyncpg: pip install 'power-loop[postgres]'", extra="postgres"
        ) from error
    return asyncpg
