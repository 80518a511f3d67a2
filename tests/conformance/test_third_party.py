"""Somebody else's store: one that is right passes the published suite, and one with any single defect fails it."""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
import sys
import unittest
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from power_loop import SessionStore, open_store
from power_loop.errors import ConfigError, LeaseLostError
from power_loop.records import MessageRecord, Page, SessionRecord
from power_loop.storage import CallStep, Lease, NewReply, NewSend, SessionView
from power_loop.testing.conformance import Case, ConformanceSuite, Failure, cases, run_conformance, suite
from power_loop.timers import Clock


class Wrapped:
    """Is a store of somebody else: everything goes through it, and nothing of ours shows."""

    def __init__(self, store: SessionStore) -> None:
        self.store: Any = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


class TakesWhatIsHeld(Wrapped):
    async def accept(self, claim: Any, new: NewSend) -> Any:
        session = await self.store.get_session(claim.session_id)
        return await self.store.accept(dataclasses.replace(claim, dead_owner=session.owner), new)


class KeepsAnOldLease(Wrapped):
    async def append_reply(self, lease: Lease, reply: NewReply) -> Any:
        session = await self.store.get_session(lease.session_id)
        lease = dataclasses.replace(lease, owner=session.owner or lease.owner, epoch=session.epoch)
        return await self.store.append_reply(lease, reply)


class RenewsWithoutALook(Wrapped):
    async def renew(self, lease: Lease, *, ttl_s: float) -> None:
        with contextlib.suppress(LeaseLostError):
            await self.store.renew(lease, ttl_s=ttl_s)


class NeverGivesBack(Wrapped):
    async def release(self, lease: Lease) -> None:
        pass


class LosesTheUsage(Wrapped):
    async def append_reply(self, lease: Lease, reply: NewReply) -> Any:
        unpaid = dataclasses.replace(reply, call=dataclasses.replace(reply.call, usage=None))
        return await self.store.append_reply(lease, unpaid)


class StepsOneByOne(Wrapped):
    async def advance_calls(self, lease: Lease, steps: list[CallStep], *, at_seq: int, **more: Any) -> Any:
        for step in steps:
            await self.store.advance_calls(lease, [step], at_seq=at_seq, **more)
            at_seq += step.message is not None


class ForgetsRequests(Wrapped):
    async def accept(self, claim: Any, new: NewSend) -> Any:
        return await self.store.accept(claim, dataclasses.replace(new, request_id=None))


class KnowsOneCase(Wrapped):
    async def create_session(self, session_id: str, **more: Any) -> SessionRecord:
        return await self.store.create_session(session_id.lower() if session_id else session_id, **more)


class FiltersNothing(Wrapped):
    async def list_sessions(self, *, metadata: Any = None, **more: Any) -> Page[SessionRecord]:
        return await self.store.list_sessions(**more)


class ReadsInTwo(Wrapped):
    async def read_view(self, session_id: str) -> SessionView:
        messages = await self.store.get_messages(session_id)
        return dataclasses.replace(await self.store.read_view(session_id), messages=messages)


class TellsTheLogBackwards(Wrapped):
    async def get_messages(self, session_id: str, **more: Any) -> tuple[MessageRecord, ...]:
        return (await self.store.get_messages(session_id, **more))[::-1]


class WritesUnseen(Wrapped):
    async def update_entry(self, session_id: str, key: str, value: Any, *, expected_version: int, **more: Any) -> Any:
        found = await self.store.read_entries(session_id, keys=[key])
        version = max([expected_version, *(entry.version for entry in found)])
        return await self.store.update_entry(session_id, key, value, expected_version=version, **more)


class ForgetsWhatWasRemoved(Wrapped):
    """Takes the version of an entry for how often it was written since it was posted."""

    def __init__(self, store: SessionStore) -> None:
        super().__init__(store)
        self.born: dict[str, int] = {}

    async def post_entry(self, session_id: str, key: str, value: Any, **more: Any) -> Any:
        entry = await self.store.post_entry(session_id, key, value, **more)
        self.born[key] = entry.version - 1
        return dataclasses.replace(entry, version=1)

    async def remove_entry(self, session_id: str, key: str, *, expected_version: int) -> None:
        version = expected_version + self.born.get(key, 0)
        await self.store.remove_entry(session_id, key, expected_version=version)


class ClosesOverARunningTurn(Wrapped):
    async def close_session(self, session_id: str) -> bool:
        session = await self.store.get_session(session_id)
        if session.owner is not None:
            await self.store.release(Lease(session_id, session.owner, session.epoch))
        return await self.store.close_session(session_id)


def fresh_database(kind: Callable[[SessionStore], Any]) -> Callable[[], Any]:
    """Return what a third party gives to the suite."""

    class Database:
        def __init__(self) -> None:
            self.store: Any = None

        async def open(self, clock: Clock) -> Any:
            # A database in memory has one handle, which counts how many share it no less than others do.
            self.store = self.store or kind(await open_store(":memory:", clock=clock))
            return self.store

    @contextlib.asynccontextmanager
    async def fresh() -> AsyncIterator[Any]:
        database = Database()
        yield database
        if database.store is not None:
            await database.store.aclose()

    return fresh


WRONG = {
    WritesUnseen: "blackboard",
    ForgetsWhatWasRemoved: "blackboard",
    TakesWhatIsHeld: "leases",
    KeepsAnOldLease: "leases",
    RenewsWithoutALook: "ledger",
    NeverGivesBack: "leases",
    LosesTheUsage: "reads",
    StepsOneByOne: "ledger",
    ForgetsRequests: "sends",
    KnowsOneCase: "sessions",
    FiltersNothing: "sessions",
    ReadsInTwo: "reads",
    TellsTheLogBackwards: "reads",
    ClosesOverARunningTurn: "sessions",
}


async def test_a_right_store_passes() -> None:
    heard: list[tuple[Case, Failure | None]] = []
    report = await run_conformance(fresh_database(Wrapped), on_case=lambda case, failure: heard.append((case, failure)))
    report.raise_for_failures()
    assert heard == [(case, None) for case in cases()]
    assert report.ran == len(heard) > 100
    assert str(report).startswith(f"{report.ran} cases, 0 failed")


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.parametrize("kind", WRONG, ids=lambda kind: kind.__name__)
async def test_a_store_with_one_defect_fails(kind: type[Wrapped]) -> None:
    report = await run_conformance(fresh_database(kind), WRONG[kind])
    assert report.failures
    with pytest.raises(AssertionError) as caught:
        report.raise_for_failures()
    for failure in report.failures:
        assert failure.case.room == WRONG[kind]
        # Who reads it is told the sentence, the error and the line that saw it.
        assert str(failure.case) in str(caught.value)
        assert "conformance" in failure.why


@pytest.mark.parametrize(("kind", "is_right"), [(Wrapped, True), (NeverGivesBack, False)])
def test_the_base_class_is_a_unittest_as_well(kind: Any, is_right: bool) -> None:
    class Mine(ConformanceSuite, unittest.TestCase):
        def fresh(self) -> Any:
            return fresh_database(kind)()

    loaded = unittest.defaultTestLoader.loadTestsFromTestCase(Mine)
    assert loaded.countTestCases() == len(cases())
    chosen = unittest.TestSuite(test for test in loaded if "test_leases" in str(test))
    result = unittest.TestResult()
    chosen.run(result)
    assert result.testsRun > 10
    assert result.wasSuccessful() is is_right


THEIRS = """
import contextlib
import tempfile

from power_loop import open_store
from power_loop.testing.conformance import ConformanceSuite


class Place:
    def __init__(self, path):
        self.path = path

    async def open(self, clock):
        return await open_store(self.path, clock=clock)


class TestMyStore(ConformanceSuite):
    @contextlib.asynccontextmanager
    async def fresh(self):
        with tempfile.TemporaryDirectory() as folder:
            yield Place(folder + "/app.db")
"""


def test_the_base_class_is_collected_by_pytest_without_any_plugin(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(THEIRS, "utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:asyncio", "-p", "no:cacheprovider", "-k", "test_sends_"]
    done = subprocess.run([*command, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout


def test_without_assert_statements_the_suite_does_not_pretend_to_run() -> None:
    code = (
        "from power_loop.errors import ConfigError\n"
        "from power_loop.testing.conformance import cases\n"
        "try:\n    cases()\nexcept ConfigError as error:\n    print(error.code)\n"
    )
    done = subprocess.run([sys.executable, "-O", "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == ConfigError.code, done.stderr


def test_every_part_of_the_suite_is_run() -> None:
    files = {path.stem for path in Path(str(suite.__file__)).parent.glob("*.py")}
    assert files == {*suite.ROOMS, "__init__", "cases", "parts", "suite"}
