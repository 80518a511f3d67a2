"""Connects to MySQL and MariaDB by aiomysql, and says in our words what goes wrong there."""

from __future__ import annotations

import asyncio
import logging
import math
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
from power_loop.runtime.store.sql.dialect_mysql import MysqlDialect
from power_loop.runtime.store.sql.marks import MYSQL_TEXT, pieces
from power_loop.runtime.store.sql.server_clock import Reading
from power_loop.runtime.store.sql.server_link import DriverError, Exchange, Link, Trouble, said
from power_loop.runtime.store.sql.server_tls import tls_context

_log = logging.getLogger("power_loop")

#: How long a transaction whose client does not go on keeps its locks, in seconds: half of a lease, so that a
#: process that was stopped in one does not hold up who takes its sessions over.
IDLE_IN_TRANSACTION_S = 15
# What the server waits for the next transaction beyond what the pool does, in seconds.
_IDLE_MARGIN_S = 60

_CLOCK = "SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000 AS SIGNED)"
_LOOK = (
    "SELECT @@max_allowed_packet, @@innodb_flush_log_at_trx_commit, @@log_bin, @@sync_binlog,"
    " CAST(UNIX_TIMESTAMP(NOW(6)) * 1000 AS SIGNED)"
)
_BEGIN = "START TRANSACTION"
_BEGIN_READ = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;START TRANSACTION READ ONLY"
_MIN_VERSIONS = {"MySQL": (8, 0, 17), "MariaDB": (10, 6, 0)}
_VERSION = re.compile(r"(?:5\.5\.5-)?(\d+)\.(\d+)\.(\d+)")
_NO_SUCH_NAME = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})
# The command's own byte, and what a server may count on top.
_PACKET_MARGIN = 1024

# https://dev.mysql.com/doc/mysql-errors/8.0/en/server-error-reference.html, https://mariadb.com/kb/en/mariadb-error-codes/
_TROUBLES: dict[Trouble, tuple[int, ...]] = {
    Trouble.CONFLICT: (1205, 1213, 1020, 3572),
    Trouble.DUPLICATE: (1062, 1586),
    Trouble.LOST: (
        1053, 1077, 1079, 1080, 1152, 1158, 1159, 1160, 1161, 1184, 1317, 1927,
        2002, 2003, 2006, 2013, 2014, 2055, 3169, 4031,
    ),
    Trouble.CROWDED: (1040, 1041, 1135, 1203, 1226),
    Trouble.READ_ONLY: (1290, 1792, 1836),
    Trouble.FULL: (3, 20, 1021, 1026, 1114),
    Trouble.VALUE: (1153, 1264, 1301, 1366, 1406, 2020),
    Trouble.REFUSED: (
        1044, 1045, 1046, 1049, 1129, 1130, 1142, 1143, 1227, 1251, 1370, 1396, 1698, 1820, 1862, 2026, 2059, 2061,
        3118, 3159, 3948,
    ),
    Trouble.SLOW: (1969, 3024),
}  # fmt: skip
_BY_NUMBER = {number: trouble for trouble, numbers in _TROUBLES.items() for number in numbers}


class MysqlDriver:
    """Opens connections to MySQL and MariaDB."""

    def __init__(self, dsn: ServerDsn) -> None:
        self.dialect: Dialect = MysqlDialect()
        self.can_listen = False
        self._dsn = dsn
        self._aiomysql = _aiomysql()
        self._has_warned = False
        self._ssl: ssl.SSLContext | None = tls_context(dsn)

    async def connect(self, counts: Counts, note: Callable[[Reading], None]) -> Link:
        """Return a connection that is set up. Raises `DriverError`."""
        dsn = self._dsn
        connection: Any = None
        try:
            connection = _encrypting(
                self._aiomysql, must_encrypt=dsn.sslmode in ("require", "verify-ca", "verify-full")
            )(
                host=dsn.host,
                port=dsn.port,
                unix_socket=dsn.socket,
                user=dsn.user,
                # The driver sends the password as Latin-1; servers know it as UTF-8.
                password=(dsn.password or "").encode().decode("latin-1"),
                db=dsn.database,
                charset="utf8mb4",
                autocommit=True,
                # An UPDATE counts the rows that it found, as elsewhere, not those that it made different.
                client_flag=_FOUND_ROWS,
                connect_timeout=dsn.connect_timeout_s,
                program_name=dsn.application_name,
                ssl=self._ssl,
                conv=_CONVERSIONS,
            )
            await connection._connect()  # noqa: SLF001 - what aiomysql.connect() does, with our own class
            # Not close(), which waits for an answer where there is TLS.
            abort = connection._writer.transport.abort  # noqa: SLF001
            exchange = Exchange(counts, dsn.answer_within_s, abort=abort, sort=self.trouble_of)
            link = MysqlLink(connection, exchange=exchange, note=note)
            await self._set_up(link, connection)
        except BaseException as error:
            if connection is not None:
                connection.close()
            if isinstance(error, DriverError) or not isinstance(error, Exception):
                raise
            # "Can't connect" is what the driver says itself, whatever was in the way.
            why = f": {said(error.__cause__)}" if isinstance(error.__cause__, OSError) else ""
            raise DriverError(self._trouble_of_connecting(error), said(error) + why) from error
        return link

    async def _set_up(self, link: MysqlLink, connection: Any) -> None:
        version = connection.get_server_info()
        kind = "MariaDB" if "MariaDB" in version else "MySQL"
        found = _VERSION.match(version)
        if found is None or tuple(map(int, found.groups())) < _MIN_VERSIONS[kind]:
            needed = ".".join(map(str, _MIN_VERSIONS[kind]))
            raise DriverError(Trouble.OTHER, f"the server is {kind} {version}, power-loop needs {needed} or later")
        dsn = self._dsn
        idle_s = max(1, round(dsn.max_idle_s) + _IDLE_MARGIN_S)
        settings = [
            "SET NAMES utf8mb4",
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
            "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', time_zone = '+00:00',"
            f" innodb_lock_wait_timeout = {max(1, round(dsn.lock_timeout_s))}, wait_timeout = {idle_s},"
            + (
                f" idle_transaction_timeout = {IDLE_IN_TRANSACTION_S}, max_statement_time = {dsn.statement_timeout_s:g}"
                if kind == "MariaDB"
                else f" max_execution_time = {max(1, round(dsn.statement_timeout_s * 1000))}"
            ),
        ]
        asked_s = time.monotonic()
        [(packet, flush, has_log, sync_log, now_ms)] = await link.ask(";".join([*settings, _LOOK]), skip=len(settings))
        link.note(Reading(now_ms, asked_s, time.monotonic()))
        link.max_packet = packet - _PACKET_MARGIN
        if kind == "MySQL":
            # It has one timeout for all waiting: a short one in a transaction, a long one between two.
            link.short_wait = f"SET SESSION wait_timeout = {IDLE_IN_TRANSACTION_S}"
            link.long_wait = f"SET SESSION wait_timeout = {idle_s}"
        if not self._has_warned:
            self._has_warned = True
            _warn_of_settings(dsn.name, flush=flush, sync_log=sync_log if has_log else 1)

    def _trouble_of_connecting(self, error: Exception) -> Trouble:
        cause = error.__cause__ or error
        if isinstance(cause, ssl.SSLError):
            return Trouble.REFUSED
        if isinstance(cause, socket.gaierror) and cause.errno in _NO_SUCH_NAME:
            return Trouble.REFUSED
        if isinstance(error, RuntimeError) and "cryptography" in str(error):
            return Trouble.REFUSED
        return self.trouble_of(error)

    def trouble_of(self, error: Exception) -> Trouble:
        """Sort what aiomysql raises."""
        aiomysql = self._aiomysql
        number = error.args[0] if error.args else None
        if isinstance(error, aiomysql.MySQLError) and isinstance(number, int) and number:
            return _BY_NUMBER.get(number, Trouble.OTHER)
        if isinstance(error, UnicodeEncodeError):
            return Trouble.VALUE
        # What is left of the driver's own: a closed connection, packets out of order, an answer that is cut off.
        if isinstance(
            error, (aiomysql.MySQLError, OSError, EOFError, asyncio.TimeoutError, AttributeError, IndexError)
        ):
            return Trouble.LOST
        return Trouble.OTHER


class MysqlLink:
    """Is one connection to MySQL or MariaDB. What begins a transaction is sent together with its first statement."""

    def __init__(self, connection: Any, *, exchange: Exchange, note: Callable[[Reading], None]) -> None:
        self.used_s = asyncio.get_running_loop().time()
        self.note = note
        self.needs_transaction = False
        #: Bytes of one message at most.
        self.max_packet = 1 << 20
        #: What shortens the server's patience in a transaction, and what lengthens it again.
        self.short_wait = self.long_wait = ""
        self._connection = connection
        self._writer = connection._writer  # noqa: SLF001 - close() forgets it and does not wait for its end
        self._exchange = exchange
        # What waits to be sent with the next statement.
        self._before: list[str] = []
        self._reads_clock = False

    @property
    def is_open(self) -> bool:
        """False where either end has closed it."""
        connection = self._connection
        if connection.closed:
            return False
        reader = connection._reader  # noqa: SLF001
        # aiomysql's own pool looks at at_eof(): but a server that hangs up may leave a last word in the buffer, or a
        # reset in place of an end.
        return reader.exception() is None and not reader._eof  # noqa: SLF001

    async def begin(self, *, is_read: bool) -> None:
        """Begin a transaction, with the next statement."""
        if self.short_wait:
            self._before.append(self.short_wait)
        self._before += (_BEGIN_READ if is_read else _BEGIN).split(";")

    async def commit(self) -> None:
        """Commit."""
        await self._end("COMMIT")

    async def rollback(self) -> None:
        """Roll back."""
        await self._end("ROLLBACK")

    async def execute(self, sql: str, params: Params) -> int:
        """Run a statement and return how many rows it found to change."""
        [(count, _)] = await self._send([_written(sql, params)])
        return count

    async def execute_all(self, statements: Sequence[Statement]) -> list[int]:
        """Run statements, as many in one message as it holds."""
        changed: list[int] = []
        waiting: list[bytes] = []
        size = 0
        for sql, params in statements:
            text = _written(sql, params)
            if waiting and size + len(text) > self.max_packet:
                changed += [count for count, _ in await self._send(waiting)]
                waiting, size = [], 0
            waiting.append(text)
            size += len(text) + 1
        return changed + [count for count, _ in await self._send(waiting)]

    async def query(self, sql: str, params: Params) -> list[Row]:
        """Return the rows of a query."""
        [(_, rows)] = await self._send([_written(sql, params)])
        return list(rows)

    async def ask(self, statements: str, *, skip: int) -> list[Row]:
        """Return the rows of the last of several statements."""
        results = await self._exchange(self._results(statements.encode(), skip + 1))
        return list(results[skip][1])

    async def listen(self, channel: str, heard: Callable[[], None]) -> None:
        """Refuse: the server tells nobody anything."""
        raise DriverError(Trouble.OTHER, "MySQL and MariaDB tell nobody what is left to do")

    def lift_limit(self) -> None:
        """Wait for what comes next as long as it takes."""
        self._exchange.lift_limit()

    async def read_clock(self) -> None:
        """Read the server's clock together with what is sent next."""
        self._reads_clock = True

    async def end_standing(self) -> None:
        """Do nothing: `wait_timeout` counts wherever a client stands."""

    def abort(self) -> None:
        """Drop the connection at once."""
        self._writer.transport.abort()
        self._connection.close()

    async def close(self) -> None:
        """Take leave of the server."""
        await self._connection.ensure_closed()
        await self._writer.wait_closed()

    async def _end(self, sql: str) -> None:
        if self._before:
            # Nothing was sent since it began.
            self._before = []
            return
        words = [sql, self.long_wait] if self.long_wait else [sql]
        await self._exchange(self._results(";".join(words).encode(), len(words)))

    async def _send(self, statements: list[bytes]) -> list[tuple[int, Sequence[Row]]]:
        """Send statements behind what waits, in one message, and return their results."""
        before = [word.encode() for word in self._before]
        self._before = []
        reads_clock, self._reads_clock = self._reads_clock, False
        if reads_clock:
            before.append(_CLOCK.encode())
        message = b";".join([*before, *statements])
        if len(message) > self.max_packet:
            raise DriverError(
                Trouble.VALUE,
                f"a write of {len(message)} bytes is more than the server's max_allowed_packet of"
                f" {self.max_packet + _PACKET_MARGIN} takes",
            )
        asked_s = time.monotonic()
        results = await self._exchange(
            self._results(message, len(before) + len(statements)), statements=len(statements)
        )
        if reads_clock:
            [(now_ms,)] = results[len(before) - 1][1]
            self.note(Reading(now_ms, asked_s, time.monotonic()))
        taken: list[tuple[int, Sequence[Row]]] = results[len(before) :]
        return taken

    async def _results(self, message: bytes, count: int) -> list[tuple[int, Sequence[Row]]]:
        """Send a message and read the result of each statement in it: rows changed, rows found."""
        connection = self._connection
        results = []
        await connection.query(message)
        while True:
            result = connection._result  # noqa: SLF001 - a cursor reads it so too, and costs as much as the query
            results.append((result.affected_rows, result.rows or ()))
            if not result.has_next:
                break
            await connection.next_result()
        if len(results) != count:
            raise DriverError(Trouble.LOST, f"{len(results)} results came back for {count} statements")
        return results


# ---- values ----


# https://dev.mysql.com/doc/refman/8.0/en/string-literals.html; our sql_mode has backslashes escape.
_ESCAPES = str.maketrans({"\\": "\\\\", "'": "\\'", "\0": "\\0", "\n": "\\n", "\r": "\\r", "\x1a": "\\Z"})


def _written(sql: str, params: Params) -> bytes:
    """Return a statement with its values written into it."""
    if not params:
        return sql.encode()
    first, *others = pieces(sql, MYSQL_TEXT)
    if len(others) != len(params):
        raise DriverError(Trouble.OTHER, f"a statement of {len(others)} parameters was given {len(params)}")
    text = [first]
    for value, piece in zip(params, others, strict=True):
        text += (_literal(value), piece)
    try:
        return "".join(text).encode()
    except UnicodeEncodeError as error:
        raise DriverError(Trouble.VALUE, said(error)) from error


def _literal(value: Any) -> str:
    if isinstance(value, str):
        return f"'{value.translate(_ESCAPES)}'"
    if value is None:
        return "NULL"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, bytes):
        return f"X'{value.hex()}'"
    if isinstance(value, float) and math.isfinite(value):
        # With an exponent it is a double, not a decimal.
        text = repr(float(value))
        return text if "e" in text else f"{text}e0"
    raise DriverError(Trouble.OTHER, f"a parameter is a {type(value).__name__}, which no column holds")


def _number(text: str) -> int | Decimal:
    return Decimal(text) if "." in text else int(text)


# https://dev.mysql.com/doc/dev/mysql-server/latest/field__types_8h.html: whole numbers, and decimals, which sums are.
_CONVERSIONS: dict[int, Callable[[str], Any]] = {
    1: int, 2: int, 3: int, 8: int, 9: int, 13: int, 0: _number, 246: _number, 4: float, 5: float,
}  # fmt: skip
_FOUND_ROWS = 2
_TLS = 1 << 11


@lru_cache(maxsize=2)
def _encrypting(aiomysql: Any, *, must_encrypt: bool) -> Any:
    """Return the driver's class of connections, or one that goes no further where the server does not encrypt."""
    plain: Any = aiomysql.Connection
    if not must_encrypt:
        return plain

    class EncryptedConnection(plain):  # type: ignore[misc]
        """Sends no password in the open: the driver itself would go on without TLS."""

        async def _request_authentication(self) -> None:
            if not self.server_capabilities & _TLS:
                raise aiomysql.OperationalError(
                    2026, "the server does not encrypt, and sslmode in the dsn insists on it"
                )
            await super()._request_authentication()

    return EncryptedConnection


def _warn_of_settings(name: str, *, flush: int, sync_log: int) -> None:
    """Say once what weakens the promise that an acknowledged write survives."""
    weak = []
    if flush != 1:
        weak.append(f"innodb_flush_log_at_trx_commit={flush}")
    if sync_log != 1:
        weak.append(f"sync_binlog={sync_log}")
    if weak:
        _log.warning(
            "database %s runs with %s: what was acknowledged may be lost when the server or its machine dies",
            name,
            ", ".join(weak),
        )


def _aiomysql() -> Any:
    try:
        import aiomysql  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingExtraError(
            "a mysql:// dsn needs aiomysql: pip install 'power-loop[mysql]'", extra="mysql"
        ) from error
    return aiomysql
