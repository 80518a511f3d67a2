"""Is what other processes do in the tests of the store: `python -m tests.runtime.store.workers NAME ARGUMENTS…`."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import json
import logging
import os
import resource
import signal
import sys
import warnings
from collections.abc import Callable
from typing import Any

from power_loop.contracts.errors import PowerLoopError, SessionBusyError
from power_loop.contracts.records import Accepted
from power_loop.runtime.store import open as opening
from power_loop.runtime.store.dsn import parse_dsn
from power_loop.runtime.store.open import open_store
from power_loop.runtime.store.sql import sqlite
from power_loop.testing.conformance import budgets
from tests.conformance.parts import COMPLETED, HandClock, claim, new_send, one_send, reply
from tests.runtime.store.processes import patient
from tests.runtime.store.script import MOVES


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def wait_for_the_others() -> None:
    """Say that this process is ready, and go on when the test says so."""
    say(ready=True)
    sys.stdin.readline()


async def boot(number: str, dsn: str) -> None:
    """Open the store at the same moment as others and use it at once."""
    logging.getLogger("power_loop").setLevel(logging.ERROR)
    wait_for_the_others()
    store = await open_store(patient(dsn))
    await store.create_session(f"sess_{number}", system_prompt=None, metadata={})
    await one_send(store, f"sess_{number}")
    await store.aclose()
    say(done=True)


async def boot_rounds(number: str, dsn: str, rounds: str) -> None:
    """Open fresh stores in one database, each at the same moment as others, and use them at once."""
    for one in range(int(rounds)):
        say(ready=one)
        sys.stdin.readline()
        store = await open_store(patient(dsn), table_prefix=f"r{one}_")
        await store.create_session(f"sess_{number}", system_prompt=None, metadata={})
        await one_send(store, f"sess_{number}")
        await store.aclose()
    say(done=True)


async def write(number: str, dsn: str, count: str) -> None:
    """Hold `count` turns in a session of its own and as many in one that all processes want."""
    store = await open_store(patient(dsn))
    wait_for_the_others()

    async def own() -> None:
        await store.create_session(f"own_{number}", system_prompt=None, metadata={})
        for turn in range(int(count)):
            await one_send(store, f"own_{number}", text=f"{number}/{turn}")

    async def shared() -> None:
        turn = 0
        while turn < int(count):
            try:
                held = await store.accept(claim("shared", f"owner {number}", ttl_s=600), new_send(f"{number}/{turn}"))
            except SessionBusyError:
                await asyncio.sleep(0.001)
                continue
            assert isinstance(held, Accepted)
            await store.append_reply(held.lease, reply(held, f"to {number}/{turn}", end=COMPLETED))
            turn += 1

    await asyncio.gather(own(), shared())
    await store.aclose()
    say(done=True)


async def spend(number: str, dsn: str, ledger: str) -> None:
    """Spend a budget that other processes spend as well, in four sessions at once, and note what that came to."""
    store = await open_store(patient(dsn))
    limits = budgets.Budget(max_tokens=2_000)
    held = [
        await budgets.budgeted(store, f"sess_{number}_{one}", limits, parent=budgets.ROOT, owner=f"owner {number}")
        for one in range(4)
    ]
    wait_for_the_others()
    totals = await asyncio.gather(*(budgets.spend(store, one, at + 4 * int(number)) for at, one in enumerate(held)))
    _note(ledger, totals)
    await store.aclose()
    say(done=True)


def _note(ledger: str, totals: list[int]) -> None:
    with open(ledger, "a", encoding="utf-8") as file:
        file.write("".join(f"{total}\n" for total in totals))


async def fork(dsn: str) -> None:
    """Use a store, fork, and use the handle and a new one in the child and the parent."""
    warnings.simplefilter("ignore", DeprecationWarning)
    dsn = patient(dsn)
    store = await open_store(dsn)
    await store.create_session("parent", system_prompt=None, metadata={})
    await store.get_session("parent")
    store.memo["of"] = "parent"
    child = os.fork()
    if child == 0:
        failed = 1
        try:
            asyncio.events._set_running_loop(None)
            asyncio.run(_in_the_child(store, dsn))
            failed = 0
        finally:
            os._exit(failed)
    for number in range(50):
        await one_send(store, "parent", text=str(number))
    assert store.memo == {"of": "parent"}
    status = await asyncio.to_thread(end_of, child)
    await store.get_session("child")
    await store.aclose()
    say(child=status)


def end_of(child: int) -> int:
    """Wait for a forked child and return its exit status."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


async def _in_the_child(store: Any, dsn: str) -> None:
    assert store.memo == {}
    await store.create_session("child", system_prompt=None, metadata={})
    for number in range(50):
        await one_send(store, "child", text=str(number))
    fresh = await open_store(dsn)
    assert fresh.memo is store.memo
    assert (await fresh.get_session("parent")).id == "parent"
    await fresh.aclose()
    await store.aclose()


async def fork_with_memory(dsn: str) -> None:
    """Use a store in memory in a forked child, where it does not exist."""
    warnings.simplefilter("ignore", DeprecationWarning)
    store = await open_store(dsn)
    await store.create_session("parent", system_prompt=None, metadata={})
    read, written = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            asyncio.events._set_running_loop(None)
            code = asyncio.run(code_of(lambda: store.get_session("parent")))
            os.write(written, (code or "none").encode())
        finally:
            os._exit(0)
    await asyncio.to_thread(end_of, child)
    await store.aclose()
    say(code=os.read(read, 100).decode())


async def code_of(call: Callable[[], Any]) -> str | None:
    try:
        await call()
    except PowerLoopError as error:
        return error.code
    return None


async def read_only(folder: str) -> None:
    """As a user who may read but not write, open what is there and what is not."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    fresh = await code_of(lambda: open_store(f"{folder}/new.db"))
    empty = await code_of(lambda: open_store(f"{folder}/empty.db"))
    secret = await code_of(lambda: open_store(f"{folder}/secret.db"))
    store = await open_store(f"{folder}/there.db")
    session = await store.get_session("sess_1")
    written = await code_of(lambda: store.create_session("sess_2", system_prompt=None, metadata={}))
    still = await store.get_session("sess_1")
    await store.aclose()
    say(fresh=fresh, empty=empty, secret=secret, written=written, reads=session == still)


async def writable_again(folder: str) -> None:
    """As a user whom permissions bind, meet a file that may not be written for a while."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    path = f"{folder}/app.db"
    first = await open_store(path)
    await first.create_session("sess_1", system_prompt=None, metadata={})
    await first.aclose()
    os.chmod(path, 0o444)
    store = await open_store(path)

    async def write(*names: str) -> list[str | None]:
        return [
            await code_of(lambda name=name: store.create_session(name, system_prompt=None, metadata={}))
            for name in names
        ]

    refused = await write("sess_2", "sess_3")
    await store.get_session("sess_1")
    os.chmod(path, 0o644)
    written = await write("sess_4", "sess_5")
    sessions = sorted(session.id for session in (await store.list_sessions()).items)
    await store.aclose()
    say(refused=refused, written=written, sessions=sessions)


async def file_limit(dsn: str) -> None:
    """Meet the end of what the system lets a file grow to, then be given more."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    store = await open_store(dsn)
    await store.create_session("sess_1", system_prompt=None, metadata={})
    await one_send(store, "sess_1", text="before")
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
    codes = set()
    acknowledged = 0
    for _ in range(20):
        code = await code_of(lambda: one_send(store, "sess_1", text="x" * 50_000))
        codes.add(code)
        acknowledged += code is None
    small = await code_of(lambda: store.get_session("sess_1"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    after = await code_of(lambda: store.create_session("after", system_prompt=None, metadata={}))
    await one_send(store, "after", text="x" * 500_000)
    session = await store.get_session("sess_1")
    messages = await store.get_messages("sess_1")
    await store.aclose()
    say(
        codes=sorted(str(code) for code in codes),
        acknowledged=acknowledged,
        read=small,
        after=after,
        sends=session.send_count,
        messages=len(messages),
        is_gapless=[row.seq for row in messages] == list(range(1, len(messages) + 1)),
    )


def fill(path: str, *, leave: int) -> None:
    """Write until nothing more fits, then give `leave` bytes back."""
    with open(path, "wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 4096)
        file.truncate(file.tell() - leave)


async def full_disk(folder: str) -> None:
    """Fill a small file system, then make room."""
    ballast = f"{folder}/ballast"
    store = await open_store(f"{folder}/app.db")
    await store.create_session("sess_1", system_prompt=None, metadata={})
    await one_send(store, "sess_1", text="before")
    # Some of what follows fits, and not all of it.
    fill(ballast, leave=400_000)

    async def one(number: int) -> str | None:
        return await code_of(lambda: store.create_session(f"many_{number}", system_prompt="y" * 30_000, metadata={}))

    codes = set(await asyncio.gather(*(one(number) for number in range(60))))
    read = await code_of(lambda: store.get_session("sess_1"))
    listed = await store.list_sessions(limit=1000)
    os.unlink(ballast)
    after = await code_of(lambda: one_send(store, "sess_1", text="after" * 1000))
    messages = [row.message.text for row in await store.get_messages("sess_1")]
    await store.aclose()
    say(
        codes=sorted(str(code) for code in codes),
        stored=len(listed.items),
        read=read,
        after=after,
        kept=messages[:2] == ["before", "hi there"],
    )


async def die_at(dsn: str, at: str) -> None:
    """Run the script and be killed at its `at`-th point around a commit."""
    store = await open_store(dsn, clock=HandClock())
    seen = 0

    def point(name: str, move: str) -> None:
        nonlocal seen
        if seen == int(at):
            say(point=name, move=move)
            os.kill(os.getpid(), signal.SIGKILL)
        seen += 1

    store.on_point = point
    for _, move in MOVES:
        await move(store)
    await store.aclose()
    say(finished=seen)


async def die_provisioning(dsn: str, every: str, *points: str) -> None:
    """Open a store in one forked process after the other; each is killed at a point that none has come to yet: the next
    one, or that which comes `every` points behind the last.

    `ddl.before` and `ddl.after` stand around every statement that makes tables and views. The last process lives.
    """
    # Each migration says so.
    logging.getLogger("power_loop").setLevel(logging.ERROR)
    warnings.simplefilter("ignore", DeprecationWarning)
    # What each of them needs is imported once.
    importlib.import_module({"sqlite": "sqlite3", "postgresql": "asyncpg"}.get(dsn.partition(":")[0], "aiomysql"))
    gc.collect()
    gc.freeze()
    passed: set[str] = set()
    deaths: list[str] = []
    while True:
        read, written = os.pipe()
        child = os.fork()
        if child == 0:
            failed = 1
            try:
                os.close(read)
                asyncio.events._set_running_loop(None)
                asyncio.run(_provision_to(dsn, written, passed, points, int(every)))
                failed = 0
            finally:
                os._exit(failed)
        os.close(written)
        with os.fdopen(read) as pipe:
            new = pipe.read().split("\0")[:-1]
        status = end_of(child)
        passed.update(new)
        if len(new) < int(every):
            assert status == 0, status
            break
        assert status == -signal.SIGKILL, status
        deaths.append(new[-1])
    say(**{name: sum(death.startswith(name) for death in deaths) for name in points})


async def _provision_to(dsn: str, pipe: int, passed: set[str], points: tuple[str, ...], every: int) -> None:
    new = 0

    def point(name: str, what: str) -> None:
        nonlocal new
        if name not in points or f"{name} {what}" in passed:
            return
        new += 1
        os.write(pipe, f"{name} {what}\0".encode())
        if new == every:
            os.kill(os.getpid(), signal.SIGKILL)

    opening._share(parse_dsn(dsn)).database.on_point = point
    store = await open_store(dsn)
    await store.aclose()


async def exit_without_closing(dsn: str) -> None:
    """Leave a store open and a transaction on its way at the end of the process."""
    # A busy machine may need longer than the end of a process is put off for.
    sqlite._EXIT_WAIT_S = 60
    store = await open_store(dsn)
    await store.create_session("sess_1", system_prompt=None, metadata={})
    await store.get_session("sess_1")
    begun = asyncio.ensure_future(store.create_session("sess_2", system_prompt=None, metadata={}))
    await asyncio.sleep(0)
    begun.cancel()
    globals()["kept"] = store
    say(done=True)


if __name__ == "__main__":
    asyncio.run(globals()[sys.argv[1]](*sys.argv[2:]))
