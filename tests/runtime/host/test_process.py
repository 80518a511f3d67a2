"""Whatever a program does, and however its owner ends, nothing of it stays alive."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from power_loop.errors import ProcessError
from power_loop.runtime.host import keeper
from power_loop.runtime.host.process import (
    EndCause,
    Ended,
    KeptProcess,
    OutputLimits,
    ProcessLimits,
    Program,
    run,
    run_blocking,
)
from power_loop.testing import leak_check
from tests.agent.parts import LIMIT_S, until, within_limit
from tests.runtime.host.trees import ENV, Mark

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="processes are counted in /proc")

ESCAPES = {
    "stays": "{sleep}",
    "in the background": "{sleep} & {sleep} & wait",
    "ignores SIGTERM": "trap '' TERM; {sleep}; {sleep}",
    "leaves its session": "setsid {sleep} & wait",
    "leaves it twice and its parent once": "(setsid setsid bash -c 'trap \"\" TERM HUP; {sleep}; {sleep}' &) ; {sleep}",
    "without an environment": "(env -i setsid {sleep} &) ; {sleep}",
    "with its output closed": "(exec >&- 2>&- <&-; setsid {sleep} &) ; {sleep}",
    "stopped": "setsid {sleep} & kill -STOP $! ; wait",
}


@pytest.fixture
def mark() -> Mark:
    return Mark()


@pytest.fixture(autouse=True)
def _nothing_is_left(mark: Mark) -> Iterator[None]:
    with leak_check():
        yield
        assert mark.alive() == []


def program(script: str, **more: Any) -> Program:
    return Program(("bash", "-c", script), {**ENV, **more.pop("env", {})}, **more)


async def test_its_outputs_and_its_status_are_told() -> None:
    ended = await run(program("echo said; echo wrong >&2; exit 3", keeps_errors=True))
    assert (ended.cause, ended.exit_status) == (EndCause.EXIT, 3)
    assert ended.output.head == b"said\n"
    assert ended.errors is not None
    assert ended.errors.head == b"wrong\n"


async def test_both_outputs_come_in_order_where_they_are_not_kept_apart() -> None:
    assert (await run(program("echo a; echo b >&2; echo c"))).output.head == b"a\nb\nc\n"


async def test_a_signal_that_ends_it_is_its_status() -> None:
    assert (await run(program("kill -TERM $$"))).exit_status == -15
    assert (await run(program("kill -INT $$"))).exit_status == -2


async def test_it_gets_exactly_the_environment_that_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    ended = await run(Program(("env",), {**ENV, "GIVEN": "1"}))
    names = {line.partition("=")[0] for line in ended.output.head.decode().splitlines()}
    assert names == {"PATH", "LANG", "GIVEN", "POWER_LOOP_TREE"}


async def test_its_keeper_has_no_secrets_of_ours_to_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    ended = await run(program("tr '\\0' '\\n' < /proc/$PPID/environ"))
    assert "sk-secret" not in ended.output.head.decode()
    assert (ended.exit_status, ended.cause) == (0, EndCause.EXIT)


async def test_it_inherits_no_descriptor(tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        ended = await run(Program(("ls", "/proc/self/fd"), ENV))
    # The last is the folder that `ls` reads.
    assert ended.output.head.split() == [b"0", b"1", b"2", b"3"]


async def test_what_it_reads_is_whole_and_ends() -> None:
    text = os.urandom(300_000)
    ended = await run(Program(("sha256sum",), ENV, input=text))
    assert ended.output.head.split()[0].decode() == hashlib.sha256(text).hexdigest()
    assert (await run(Program(("cat",), ENV))).output.total_bytes == 0


async def test_it_reads_as_much_as_it_is_given() -> None:
    data = os.urandom(1_000_000) * 20
    ended = await run(Program(("sha256sum",), ENV, input=data))
    assert (ended.cause, ended.exit_status) == (EndCause.EXIT, 0)
    assert ended.output.head.split()[0].decode() == hashlib.sha256(data).hexdigest()


async def test_input_and_files_stand_at_their_numbers_whatever_numbers_are_taken_here(tmp_path: Path) -> None:
    # The lowest free descriptors of this process are numbers at which the program wants its files.
    taken = [os.open(tmp_path, os.O_RDONLY) for _ in range(20)]
    try:
        first = max(taken) + 1
        files = {number: b"file %d\n" % number for number in range(first + 3, first - 1, -1)}
        script = f"cat; for n in {' '.join(map(str, files))}; do cat <&$n; done"
        ended = await run(program(script, input=b"input\n", files=files))
    finally:
        for descriptor in taken:
            os.close(descriptor)
    assert ended.output.head == b"input\n" + b"".join(files.values())


async def test_more_words_than_a_system_takes_are_refused_by_name() -> None:
    with pytest.raises(ProcessError, match="Argument list too long"):
        await run(Program(("true", *["\u00e9" * 60_000] * 20), ENV))


async def test_of_a_flood_the_beginning_the_end_and_a_file_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "flood"
    limits = OutputLimits(head_bytes=1_000, tail_bytes=2_000, path=str(path), file_bytes=50_000)
    ended = await run(program("seq 1 3000000", output=limits))
    whole = b"".join(b"%d\n" % number for number in range(1, 3_000_001))
    output = ended.output
    assert (output.head, output.tail) == (whole[:1_000], whole[-2_000:])
    assert output.total_bytes == len(whole)
    assert output.left_out_bytes == len(whole) - 3_000
    assert (output.path, output.file_bytes) == (str(path), 50_000)
    assert path.read_bytes() == whole[:50_000]
    assert path.stat().st_mode & 0o777 == 0o600


async def test_an_output_that_fits_makes_no_file(tmp_path: Path) -> None:
    path = tmp_path / "short"
    ended = await run(program("head -c 3000 /dev/zero", output=OutputLimits(1_000, 2_000, str(path))))
    assert ended.output.left_out_bytes == 0
    assert ended.output.head + ended.output.tail == bytes(3_000)
    assert ended.output.path is None
    assert not path.exists()


async def test_a_file_in_the_way_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    ended = await run(program("seq 1 9999", output=OutputLimits(10, 10, str(tmp_path / "link"))))
    assert ended.output.path is None
    assert (tmp_path / "target").read_text() == "mine"


async def test_a_full_disk_costs_the_file_and_not_the_program() -> None:
    ended = await run(program("seq 1 9999", output=OutputLimits(10, 10, "/proc/self/nowhere/file")))
    assert (ended.exit_status, ended.output.tail[-5:]) == (0, b"9999\n")


async def test_a_program_that_is_not_there_is_a_coded_error() -> None:
    with pytest.raises(ProcessError) as caught:
        await run(Program(("no-such-program",), ENV))
    assert caught.value.code == "process.failed"
    assert "no-such-program" in caught.value.message


@pytest.mark.parametrize("escape", ESCAPES.values(), ids=list(ESCAPES))
async def test_nobody_survives_its_time_limit(mark: Mark, escape: str) -> None:
    ended = await run(program(escape.format(sleep=mark.sleep), timeout_s=0.2, grace_s=0.05))
    assert ended.cause is EndCause.TIMEOUT
    assert ended.survivors == 0
    assert mark.alive() == []


@pytest.mark.parametrize("escape", ESCAPES.values(), ids=list(ESCAPES))
async def test_nobody_survives_a_cancellation(mark: Mark, escape: str) -> None:
    task = asyncio.create_task(run(program(escape.format(sleep=mark.sleep))))
    await mark.someone()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await within_limit(task)
    assert task.cancelled()
    assert mark.alive() == []


async def test_who_is_cancelled_while_the_keeper_goes_leaves_nothing_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with leak_check():
        one = KeptProcess(Program(("true",), ENV))
        # A keeper that has said its last word and takes its time.
        monkeypatch.setattr(one._keeper, "poll", lambda: None)
        waiting = asyncio.create_task(one.wait())
        await within_limit(until(lambda: one.ended is not None))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_nobody_survives_cancellations_at_any_moment(mark: Mark) -> None:
    script = ESCAPES["leaves it twice and its parent once"].format(sleep=mark.sleep)
    for moment in range(16):
        task = asyncio.create_task(run(program(script)))
        for _ in range(moment * moment):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await within_limit(task)
    assert mark.alive() == []


async def test_many_run_at_once_and_each_gets_its_own(mark: Mark) -> None:
    all_ended = await asyncio.gather(*(run(program(f"echo {n}; (setsid {mark.sleep} &)")) for n in range(12)))
    assert [ended.output.head.decode().strip() for ended in all_ended] == [str(n) for n in range(12)]


async def test_what_it_leaves_behind_neither_delays_its_end_nor_outlives_it(mark: Mark) -> None:
    ended = await within_limit(run(program(f"echo out; {mark.sleep} & setsid {mark.sleep} &")))
    assert (ended.cause, ended.output.head) == (EndCause.EXIT, b"out\n")
    assert mark.alive() == []


async def test_one_that_is_asked_to_end_may_say_a_last_word() -> None:
    process = KeptProcess(program("trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.01; done"))
    while b"up" not in (await process.look()).head:
        pass
    ended = await process.stop(grace_s=20.0)
    assert ended.cause is EndCause.STOPPED
    assert ended.output.head.endswith(b"bye\n")


async def test_one_that_was_let_go_is_killed(mark: Mark) -> None:
    process = KeptProcess(program(ESCAPES["leaves its session"].format(sleep=mark.sleep)))
    await mark.someone()
    del process
    gc.collect()
    assert mark.alive() == []


async def test_a_keeper_that_is_killed_takes_the_program_with_it(mark: Mark) -> None:
    ended = await run(program(f"(setsid {mark.sleep} &) ; kill -9 $PPID; {mark.sleep}"))
    assert ended.cause is EndCause.KEEPER_LOST
    await mark.nobody()


async def test_the_thread_that_started_it_may_end_before_it(mark: Mark) -> None:
    made: list[KeptProcess] = []
    thread = threading.Thread(target=lambda: made.append(KeptProcess(program(mark.sleep))))
    thread.start()
    thread.join()
    await mark.someone()
    assert (await made[0].look()).total_bytes == 0
    assert (await made[0].stop()).cause is EndCause.STOPPED


def test_it_may_be_started_in_one_event_loop_and_waited_for_in_another() -> None:
    async def start() -> KeptProcess:
        process = KeptProcess(program("read -r line < /dev/stdin; echo $line", input=b"hello\n"))
        await process.look()
        return process

    async def wait(process: KeptProcess) -> Ended:
        return await process.wait()

    process = asyncio.run(start())
    assert asyncio.run(wait(process)).output.head == b"hello\n"


def test_a_thread_may_run_one_without_an_event_loop(mark: Mark) -> None:
    ended = run_blocking(program(f"cat; (setsid {mark.sleep} &)", input=b"in"))
    assert (ended.exit_status, ended.output.head) == (0, b"in")


OWNER = """
import asyncio, os, signal, sys
from power_loop.runtime.host.process import KeptProcess, Program
how, script = sys.argv[1:]
program = Program(("bash", "-c", script), dict(os.environ))
async def main():
    process = KeptProcess(program)
    while not (await process.look()).total_bytes:
        pass
    if how == "forks first" and os.fork() == 0:
        # A child that lives on has a copy of every descriptor.
        signal.pause()
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["dies", "forks first"])
@pytest.mark.parametrize("escape", ["stays", "leaves it twice and its parent once", "without an environment"])
async def test_nobody_survives_the_owner(mark: Mark, how: str, escape: str) -> None:
    script = f"(sleep 0; echo up) & {ESCAPES[escape].format(sleep=mark.sleep)}"
    owner = subprocess.Popen([sys.executable, "-c", OWNER, how, script], start_new_session=True)  # noqa: ASYNC220
    try:
        assert await asyncio.to_thread(owner.wait, 60) == -9
        await mark.nobody()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(owner.pid, 9)


async def test_a_keeper_ends_whose_owner_died_before_it_could_answer(mark: Mark) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        # An owner whose process id is nobody's, and who is gone before the keeper reads what it asked.
        wanted = program(f"echo up; {mark.sleep}").as_json("tree", input=None, files={})
        asked = [{**wanted, "owner": 2**22 + 1}, {"look": True}]
        ours.sendall("".join(f"{json.dumps(line)}\n" for line in asked).encode())
        ours.close()
        command = [sys.executable, "-I", "-S", keeper.__file__, str(theirs.fileno())]
        process = await asyncio.create_subprocess_exec(*command, pass_fds=[theirs.fileno()], start_new_session=True)
    try:
        assert await within_limit(process.wait()) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    await mark.nobody()


async def test_a_program_of_too_many_processes_is_ended(mark: Mark) -> None:
    script = f"for n in {{1..40}}; do {mark.sleep} & done; wait"
    ended = await within_limit(run(program(script, limits=ProcessLimits(max_processes=20))))
    assert ended.cause is EndCause.PROCESSES
    assert ended.survivors == 0


@pytest.mark.parametrize("leave", ["", "setsid"], ids=["in one group", "each in a session of its own"])
async def test_what_multiplies_is_ended(mark: Mark, leave: str) -> None:
    # It has a depth, so that 255 are all that a broken keeper would leave behind.
    script = f"""[ $1 = 0 ] || for n in 1 2; do {leave} bash "$0" $(($1 - 1)) & done; {mark.sleep}"""
    file = f"/tmp/{mark.sleep.replace(' ', '-')}"
    limits = ProcessLimits(max_processes=60)
    try:
        ended = await within_limit(run(program(f"echo '{script}' > {file}; bash {file} 7", limits=limits)))
    finally:
        os.unlink(file)
    assert ended.cause is EndCause.PROCESSES
    assert ended.survivors == 0


@pytest.mark.parametrize(
    ("limits", "script"),
    [
        (
            ProcessLimits(file_bytes=10_000),
            "head -c 50000 /dev/zero > big; stat -c %s big; test $(stat -c %s big) = 10000",
        ),
        (ProcessLimits(open_files=20), "test $(ulimit -n) = 20"),
        (ProcessLimits(memory_bytes=300_000_000), "! head -c 600M /dev/zero | tail -c 599M > /dev/null"),
        (ProcessLimits(cpu_s=1), "! (while :; do :; done)"),
        (ProcessLimits(), "test $(ulimit -c) = 0"),
    ],
    ids=["the size of a file", "open files", "memory", "processor time", "no core files"],
)
async def test_a_process_takes_no_more_than_its_limits(tmp_path: Path, limits: ProcessLimits, script: str) -> None:
    ended = await within_limit(run(program(f"set -o pipefail; {script}", folder=str(tmp_path), limits=limits)))
    assert (ended.cause, ended.exit_status) == (EndCause.EXIT, 0), ended


async def test_a_word_that_comes_as_its_hearer_is_cancelled_is_heard_by_the_next() -> None:
    process = KeptProcess(Program(("bash", "-c", "exit 7"), ENV, "/"))
    looking = asyncio.create_task(process.look())
    for _ in range(5):
        await asyncio.sleep(0)
    # The event loop stands still until the last word is there, so that it meets both in one round: first the word.
    asyncio.get_running_loop().call_later(0, looking.cancel)
    assert process._keeper is not None
    process._keeper.wait(LIMIT_S)
    with pytest.raises(asyncio.CancelledError):
        await looking
    ended = await within_limit(process.wait())
    assert (ended.cause, ended.exit_status) == (EndCause.EXIT, 7)
