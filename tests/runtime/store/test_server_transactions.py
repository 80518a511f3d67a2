"""Transactions on a database server: what a body can do, what it may not, and how it fares among others."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest

from power_loop.contracts.errors import (
    StoreCorruptError,
    StoreError,
    StoreUnavailableError,
    StoreValueError,
    TransactionError,
)
from power_loop.runtime.store.sql import server_clock
from power_loop.runtime.store.sql.database import DuplicateKeyError, RefusedCommitError
from power_loop.runtime.store.sql.server import ServerDatabase
from tests.runtime.store.server_parts import (
    KINDS,
    connections,
    connections_go_to,
    keys,
    open_transactions,
    opened,
    put,
    server_of,
    with_table,
)
from tests.servers import Server


class Ground:
    """Is a server, a fresh database on it, and a handle on that."""

    def __init__(self, server: Server, dsn: str, database: ServerDatabase) -> None:
        self.server, self.dsn, self.database = server, dsn, database

    def sql(self, text: str) -> str:
        return self.database.dialect.placeholders(text)

    def count(self, where: str = "1 = 1") -> int:
        return int(self.server.run(f"SELECT COUNT(*) FROM t WHERE {where}", dsn=self.dsn)[0][0])


@pytest.fixture(params=KINDS)
async def ground(request: pytest.FixtureRequest) -> AsyncIterator[Ground]:
    server = server_of(request.param)
    with with_table(server) as dsn:
        # On a busy machine it may take long until it is the last one's turn.
        async with opened(dsn, "lock_timeout_s=5&pool_size=6&retry_s=60&acquire_timeout_s=60") as database:
            yield Ground(server, dsn, database)


async def test_what_a_body_wrote_is_there_when_it_returned_and_not_when_it_raised(ground: Ground) -> None:
    assert await ground.database.write("put", put(ground.database, "a")) == "a"
    assert ground.count() == 1

    async def failing(tx: Any) -> None:
        await put(ground.database, "b")(tx)
        raise StoreCorruptError("no")

    with pytest.raises(StoreCorruptError, match=r"^no$"):
        await ground.database.write("put", failing)
    assert ground.count() == 1


async def test_statements_that_go_together_tell_what_each_changed(ground: Ground) -> None:
    update = ground.sql("UPDATE n SET value = value + ? WHERE id = ?")
    every = ground.sql("UPDATE n SET value = ?")
    insert = ground.sql("INSERT INTO t (id, body) VALUES (?, ?)")

    async def body(tx: Any) -> list[int]:
        statements = [
            (update, (1, 3)),
            (insert, ("a", "it's $1 and ? and %s")),
            (insert, ("b", None)),
            (update, (1, 99)),
        ]
        return await tx.execute_all([*statements, (update, (2, 4)), (every, (7,)), (update, (1, 3))])

    assert await ground.database.write("together", body) == [1, 1, 1, 0, 1, 20, 1]
    assert ground.server.run("SELECT value FROM n WHERE id IN (3, 4) ORDER BY id", dsn=ground.dsn) in (
        [(8,), (7,)], ((8,), (7,)),
    )  # fmt: skip
    assert ground.server.run("SELECT body FROM t WHERE id = 'a'", dsn=ground.dsn)[0][0] == "it's $1 and ? and %s"


async def test_an_update_that_changes_nothing_counts_the_rows_that_it_found(ground: Ground) -> None:
    async def body(tx: Any) -> int:
        return await tx.execute(ground.sql("UPDATE n SET value = ? WHERE id < ?"), (0, 5))

    assert await ground.database.write("same", body) == 5


async def test_many_statements_are_more_than_one_message_and_still_one_transaction(ground: Ground) -> None:
    insert = ground.sql("INSERT INTO t (id, body) VALUES (?, ?)")

    async def body(tx: Any) -> int:
        return sum(await tx.execute_all([(insert, (f"k{number}", "x" * 100)) for number in range(300)]))

    assert await ground.database.write("many", body) == 300
    assert ground.count() == 300


async def test_a_key_that_is_there_is_said_to_be_also_among_others(ground: Ground) -> None:
    await ground.database.write("put", put(ground.database, "a"))
    insert = ground.sql("INSERT INTO t (id, body) VALUES (?, ?)")
    update = ground.sql("UPDATE n SET value = 1 WHERE id = ?")

    async def body(tx: Any) -> None:
        await tx.execute_all([(update, (1,)), (insert, ("b", "")), (insert, ("a", "")), (insert, ("c", ""))])

    for move in (put(ground.database, "a"), body):
        with pytest.raises(DuplicateKeyError):
            await ground.database.write("again", move)
    assert ground.count() == 1
    assert ground.server.run("SELECT SUM(value) FROM n", dsn=ground.dsn)[0][0] == 0


async def test_a_body_that_goes_on_behind_an_error_commits_nothing(ground: Ground) -> None:
    await ground.database.write("put", put(ground.database, "a"))

    async def careless(tx: Any) -> None:
        await put(ground.database, "b")(tx)
        try:
            await put(ground.database, "a")(tx)
        except DuplicateKeyError:
            return

    with pytest.raises(DuplicateKeyError):
        await ground.database.write("careless", careless)
    assert await keys(ground.database) == ["a"]


async def test_a_body_may_await_nothing_but_its_transaction(ground: Ground) -> None:
    async def sleeping(tx: Any) -> None:
        await put(ground.database, "a")(tx)
        await asyncio.sleep(0)

    def plain(tx: Any) -> None:
        return None

    for run in (lambda body: ground.database.write("x", body), ground.database.read):
        for body in (sleeping, plain):
            with pytest.raises(TransactionError):
                await run(body)
    assert ground.count() == 0
    await ground.database.write("put", put(ground.database, "b"))
    assert await keys(ground.database) == ["b"]


async def test_keys_are_told_apart_by_every_byte_and_sort_by_them(ground: Ground) -> None:
    # A space behind, case, an accent that is composed in two ways, characters of four bytes, all 255 of them.
    names = ["a", "A", "a ", "a  ", "á", "a\u0301", "ß", "ss", "z", "Z", "_", "-", "\U0001f600", "\uffee", "I", "ı"]
    names += ["\U0001f600" * 255, "\U0001f600" * 254 + "x"]
    for name in names:
        await ground.database.write("put", put(ground.database, name, name))
    assert await keys(ground.database) == sorted(names)

    async def find(tx: Any) -> list[Any]:
        select = ground.sql("SELECT body FROM t WHERE id = ?")
        return [await tx.query(select, (name,)) for name in names]

    assert await ground.database.read(find) == [[(name,)] for name in names]


async def test_texts_come_back_as_they_went(ground: Ground) -> None:
    texts = ["", " ", "'", "''", "\\", "\\'", '"', "`", "%s %% %", "?", "$1", "a\nb\r\n\x1a\t\x7f", "\u2028",
             "\U0001f600 ✓", "\\u0000", "x" * 3_000_000, "ü" * 1_500_000, "--", "/* */", ";", "\\\n"]  # fmt: skip
    for number, text in enumerate(texts):
        await ground.database.write("put", put(ground.database, f"{number:02}", text))

    async def read(tx: Any) -> list[str]:
        return [text for (text,) in await tx.query("SELECT body FROM t ORDER BY id")]

    assert await ground.database.read(read) == texts


async def test_sums_and_counts_are_integers(ground: Ground) -> None:
    async def read(tx: Any) -> Any:
        [row] = await tx.query(
            "SELECT COUNT(*), SUM(value), COALESCE(SUM(value), 0), MAX(id), SUM(id) FROM n WHERE id < 3"
        )
        return row

    row = await ground.database.read(read)
    assert row == (3, 0, 0, 2, 3)
    assert [type(value) for value in row] == [int] * 5


@pytest.mark.parametrize("value", ["\ud800", 1 << 63, 1j, [1]])
async def test_what_no_column_holds_is_refused_and_breaks_nothing(ground: Ground, value: Any) -> None:
    async def body(tx: Any) -> None:
        await tx.execute(
            ground.sql("INSERT INTO n (id, value) VALUES (?, ?)"), (50, value if type(value) is int else 1)
        )
        await tx.execute(ground.sql("INSERT INTO t (id, body) VALUES (?, ?)"), ("a", value))

    with pytest.raises(StoreError):
        await ground.database.write("odd", body)
    assert ground.count() == 0
    await ground.database.write("put", put(ground.database, "a"))


async def test_a_value_that_is_larger_than_the_server_takes_is_refused_and_breaks_nothing(ground: Ground) -> None:
    if ground.server.name == "postgres":
        pytest.skip("its limit is 1 GB, more than a test should take of memory")
    limit = int(ground.server.run("SELECT @@max_allowed_packet")[0][0])
    made = ground.database.counts.connections
    with pytest.raises(StoreValueError) as caught:
        await ground.database.write("huge", put(ground.database, "a", "x" * (limit + 1)))
    assert "max_allowed_packet" in str(caught.value)
    assert ground.count() == 0
    await ground.database.write("put", put(ground.database, "a"))
    assert ground.database.counts.connections == made


async def test_decimals_are_not_cut(ground: Ground) -> None:
    async def read(tx: Any) -> Any:
        [row] = await tx.query("SELECT CAST(-12.34 AS DECIMAL(10, 2)), CAST(5 AS DECIMAL(10, 0)), AVG(id) FROM n")
        return row

    assert await ground.database.read(read) == (Decimal("-12.34"), 5, Decimal("9.5"))


async def test_a_commit_that_the_server_refuses_is_not_tried_again(ground: Ground) -> None:
    if ground.server.name != "postgres":
        pytest.skip("no constraint there waits for COMMIT")
    ground.server.run("CREATE TABLE kid (id BIGINT REFERENCES n(id) DEFERRABLE INITIALLY DEFERRED)", dsn=ground.dsn)
    tries = 0

    async def breaks(tx: Any) -> None:
        nonlocal tries
        tries += 1
        await tx.execute("INSERT INTO kid (id) VALUES (99)")

    async def landed(tx: Any) -> bool:
        raise AssertionError("there is nothing to look for")

    for look in (landed, None):
        with pytest.raises(RefusedCommitError, match="foreign key"):
            await ground.database.write("break", breaks, landed=look)
    assert tries == 2
    assert ground.server.run("SELECT COUNT(*) FROM kid", dsn=ground.dsn)[0][0] == 0
    await ground.database.write("put", put(ground.database, "a"))


async def test_a_read_of_several_queries_sees_one_moment(ground: Ground) -> None:
    await ground.database.write("put", put(ground.database, "a"))
    seen: list[list[int]] = []
    fresh = itertools.count()

    async def body(tx: Any) -> None:
        counts = []
        for _ in range(3):
            [(count,)] = await tx.query("SELECT COUNT(*) FROM t")
            counts.append(count)
            # Blocks the thread of the database, so that nothing else of ours comes between.
            ground.server.run(f"INSERT INTO t (id, body) VALUES ('{next(fresh)}', '')", dsn=ground.dsn)
        seen.append(counts)

    for _ in range(2):
        await ground.database.read(body)
        [counts] = seen[-1:]
        assert len(set(counts)) == 1


async def test_a_read_of_one_query_is_one_round_trip(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    # Every few seconds one of them reads the clock as well.
    monkeypatch.setattr(server_clock, "_STALE_S", math.inf)

    async def body(tx: Any) -> Any:
        return await tx.query("SELECT COUNT(*) FROM t")

    await ground.database.read(body)
    before = ground.database.counts.round_trips
    for _ in range(5):
        await ground.database.read(body)
    assert ground.database.counts.round_trips - before == 5


async def test_two_that_want_each_others_rows_both_come_through(ground: Ground) -> None:
    update = ground.sql("UPDATE n SET value = value + 1 WHERE id = ?")
    tries = 0

    async def body(tx: Any, *, first: int, second: int) -> None:
        nonlocal tries
        tries += 1
        await tx.execute(update, (first,))
        await tx.execute(update, (second,))

    # Until the server has had to undo one of two at least once; each pair goes in opposite directions.
    done = 0
    while tries <= done:
        pairs = [(1, 2), (2, 1)] * 4
        await asyncio.gather(
            *(
                ground.database.write("swap", lambda tx, one=one, two=two: body(tx, first=one, second=two))
                for one, two in pairs
            )
        )
        done += len(pairs)
        assert done < 4000, "no deadlock came about"
    rows = ground.server.run("SELECT value FROM n WHERE id IN (1, 2)", dsn=ground.dsn)
    assert [value for (value,) in rows] == [done, done]


async def test_who_waits_for_a_row_in_vain_is_told_and_commits_nothing_of_what_stood_before(ground: Ground) -> None:
    locked, release = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    async def holding(tx: Any) -> None:
        await tx.execute(ground.sql("UPDATE n SET value = 5 WHERE id = ?"), (1,))

    def hold(point: str, move: str) -> None:
        if (point, move) == ("commit.before", "hold"):
            loop.call_soon_threadsafe(locked.set)
            assert asyncio.run_coroutine_threadsafe(_until(release), loop).result(60)

    async def waiting(tx: Any) -> None:
        await tx.execute(ground.sql("UPDATE n SET value = 6 WHERE id = ?"), (2,))
        await tx.execute(ground.sql("UPDATE n SET value = 6 WHERE id = ?"), (1,))

    async with opened(ground.dsn) as other:
        other.on_point = hold
        holder = asyncio.create_task(other.write("hold", holding))
        await locked.wait()
        async with opened(ground.dsn, "lock_timeout_s=1&retry_s=0") as impatient:
            with pytest.raises(StoreUnavailableError) as caught:
                await impatient.write("wait", waiting)
            assert caught.value.retryable
        release.set()
        await holder
    assert sorted(ground.server.run("SELECT id, value FROM n WHERE value > 0", dsn=ground.dsn)) == [(1, 5)]


async def _until(event: asyncio.Event) -> bool:
    return await event.wait()


async def test_two_hundred_at_once_use_no_more_connections_than_they_may(ground: Ground) -> None:
    async def one(number: int) -> None:
        await ground.database.write("put", put(ground.database, f"k{number}"))
        assert await ground.database.read(has_it(ground, number))

    await asyncio.gather(*(one(number) for number in range(100)))
    assert connections(ground.server, ground.dsn) <= 6 + 1

    def serve(number: int) -> None:
        asyncio.run(one(number))

    await asyncio.gather(*(asyncio.to_thread(serve, number) for number in range(100, 200)))
    assert connections(ground.server, ground.dsn) <= 6 + 1
    assert ground.count() == 200
    assert ground.database.counts.connections <= 6


def has_it(ground: Ground, number: int) -> Any:
    async def body(tx: Any) -> bool:
        return bool(await tx.query(ground.sql("SELECT 1 FROM t WHERE id = ?"), (f"k{number}",)))

    return body


async def test_cancelled_callers_leave_whole_transactions_and_a_pool_that_works(ground: Ground) -> None:
    chance = random.Random(7)
    insert = ground.sql("INSERT INTO t (id, body) VALUES (?, ?)")

    async def two_rows(tx: Any, *, number: int) -> None:
        await tx.execute(insert, (f"{number}-a", ""))
        await tx.execute_all([(insert, (f"{number}-b", "")), (insert, (f"{number}-c", ""))])

    tasks = []
    for number in range(500):
        task = asyncio.create_task(
            ground.database.write("rows", lambda tx, number=number: two_rows(tx, number=number))
            if number % 3
            else ground.database.read(has_it(ground, number))
        )
        tasks.append(task)
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        chance.choice(tasks[-20:]).cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    # What was given before is done before this.
    await asyncio.gather(*(ground.database.write("last", put(ground.database, f"last {n}")) for n in range(6)))
    await ground.database.aclose()
    rows = [key for (key,) in ground.server.run("SELECT id FROM t", dsn=ground.dsn)]
    begun = {key.partition("-")[0] for key in rows if "-" in key}
    assert sorted(key for key in rows if "-" in key) == sorted(f"{one}-{part}" for one in begun for part in "abc")
    assert sum(key.startswith("last") for key in rows) == 6
    assert open_transactions(ground.server, ground.dsn) == 0


async def test_who_finds_no_connection_in_time_is_told_so(ground: Ground) -> None:
    held, release = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    async with opened(ground.dsn) as holder, opened(ground.dsn, "pool_size=1&acquire_timeout_s=0.2") as narrow:

        def hold(point: str, move: str) -> None:
            if (point, move) == ("commit.before", "hold"):
                loop.call_soon_threadsafe(held.set)
                assert asyncio.run_coroutine_threadsafe(_until(release), loop).result(60)

        # Connecting may take a busy machine longer than a connection is waited for here.
        await narrow.write("first", put(narrow, "0"))
        holder.on_point = hold
        holding = asyncio.create_task(holder.write("hold", put(holder, "a")))
        await held.wait()
        # It waits for the holder's key, on the only connection.
        waiting = asyncio.create_task(narrow.write("wait", put(narrow, "a")))
        await asyncio.sleep(0)
        with pytest.raises(StoreUnavailableError) as caught:
            await narrow.write("late", put(narrow, "b"))
        assert "pool_size" in str(caught.value)
        release.set()
        await holding
        with pytest.raises(DuplicateKeyError):
            await waiting
        await narrow.write("put", put(narrow, "c"))
    assert await keys(ground.database) == ["0", "a", "c"]


async def test_a_connection_that_nobody_uses_is_closed(ground: Ground) -> None:
    async with opened(ground.dsn, "max_idle_s=0.05") as database:
        await asyncio.gather(*(database.write("put", put(database, f"k{number}")) for number in range(5)))
        # The one that is left is of the other pool, whose connections rest for minutes.
        assert await connections_go_to(ground.server, ground.dsn, 1)
        await database.write("put", put(database, "again"))


async def test_a_connection_is_used_for_no_longer_than_its_lifetime(ground: Ground) -> None:
    async with opened(ground.dsn, "max_lifetime_s=0.000001") as database:
        for number in range(3):
            await database.write("put", put(database, f"k{number}"))
        assert database.counts.connections >= 3


async def test_the_clock_is_the_servers(ground: Ground) -> None:
    query = "SELECT (EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::bigint"
    if ground.server.name != "postgres":
        query = "SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000 AS SIGNED)"
    ours = ground.database.clock.now_ms()
    theirs = int(ground.server.run(query)[0][0])
    after = ground.database.clock.now_ms()
    # It may lag by the round trip of its reading, which a busy machine draws out, and is never ahead.
    assert ours <= theirs
    assert theirs - after < 60_000


async def test_a_closed_database_refuses_and_a_second_close_does_nothing(ground: Ground) -> None:
    await ground.database.aclose()
    await ground.database.aclose()
    with pytest.raises(StoreError, match="was closed"):
        await ground.database.write("put", put(ground.database, "a"))
    assert await connections_go_to(ground.server, ground.dsn, 0)


async def test_points_are_told_around_every_commit(ground: Ground) -> None:
    told: list[tuple[str, str]] = []
    ground.database.on_point = lambda point, move: told.append((point, move))
    await ground.database.write("put", put(ground.database, "a"))
    assert told == [("commit.before", "put"), ("commit.after", "put")]

    def refuse(point: str, move: str) -> None:
        if point == "commit.before":
            raise RuntimeError("not now")

    ground.database.on_point = refuse
    with pytest.raises(StoreError, match="not now"):
        await ground.database.write("put", put(ground.database, "b"))
    assert await keys(ground.database) == ["a"]
