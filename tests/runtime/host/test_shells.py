"""A shell lasts from command to command, survives whatever a command does, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from power_loop.errors import ConfigError, InputError, ProcessError
from power_loop.runtime.host.shells import KeptShells
from power_loop.sandbox import CommandEnd, LocalShellBackend, ShellLimits, ShellResult
from power_loop.testing import leak_check
from tests.agent.parts import until, within_limit
from tests.runtime.host.shells import BACKENDS, SMALL, TIME_LIMITS_S, Make, local
from tests.runtime.host.trees import Mark

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="processes are counted in /proc")


@pytest.fixture
def mark() -> Mark:
    return Mark()


@pytest.fixture(autouse=True)
def _nothing_is_left(mark: Mark) -> Iterator[None]:
    with leak_check():
        yield
        assert mark.alive() == []


@pytest.fixture(params=BACKENDS.values(), ids=list(BACKENDS))
def make(request: pytest.FixtureRequest) -> Make:
    return request.param


@pytest.fixture
async def shell(make: Make, tmp_path: Path) -> AsyncIterator[KeptShells]:
    async with make(tmp_path) as shell:
        yield shell


def read(path: str) -> str:
    return Path(path).read_text()


async def say(shell: KeptShells, command: str, session_id: str = "one", *, timeout_s: float = 30.0) -> ShellResult:
    return await within_limit(shell.run(session_id, command, timeout_s=timeout_s))


async def output(shell: KeptShells, command: str, session_id: str = "one") -> str:
    return (await say(shell, command, session_id)).output.head


async def test_the_folder_variables_and_functions_last(shell: KeptShells) -> None:
    await say(shell, "mkdir -p sub; cd sub; X=1; declare -A map; map[a]=2; greet() { echo hello $1; }; export Y=3")
    result = await say(shell, "echo ${PWD##*/} $X ${map[a]}; greet you; bash -c 'echo $Y'")
    assert result.output.head == "sub 1 2\nhello you\n3\n"
    assert result.folder.endswith("/workspace/sub")


async def test_it_begins_in_the_workspace(shell: KeptShells, tmp_path: Path) -> None:
    assert await output(shell, "pwd; echo here > file") == f"{shell.env.workspace}\n"
    assert (tmp_path / "workspace" / "file").read_text() == "here\n"


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("true", 0), ("false", 1), ("(exit 42)", 42), ("echo 'open", 2), ("no_such_program", 127),
        ("bash -c 'kill -9 $$'", 137), ("if true; then (exit 7); fi", 7), ("exit_me() { return 9; }; exit_me", 9),
    ],
)  # fmt: skip
async def test_an_exit_status_is_honest(shell: KeptShells, command: str, status: int) -> None:
    result = await say(shell, command)
    assert (result.end, result.exit_status) == (CommandEnd.FINISHED, status)


@pytest.mark.parametrize("command", ["break", "continue", "return 3", "for x in 1 2; do break; done", "done", "}"])
async def test_no_word_about_loops_ends_the_shell(shell: KeptShells, command: str) -> None:
    await say(shell, f"X=1\n{command}")
    assert await output(shell, "echo $X") == "1\n"


async def test_both_outputs_come_in_order(shell: KeptShells) -> None:
    assert await output(shell, "echo a; echo b >&2; echo c") == "a\nb\nc\n"


async def test_a_command_reads_nothing_and_sees_only_its_three_descriptors(shell: KeptShells) -> None:
    assert await output(shell, "cat; read line; echo $?; ls /proc/self/fd") == "1\n0\n1\n2\n3\n", "3 is what ls reads"


async def test_what_is_no_text_is_shown_as_far_as_it_is(shell: KeptShells) -> None:
    assert await output(shell, "printf 'a\\377b\\0c\\033[31mé'") == "a\ufffdb\0c\x1b[31mé"


async def test_a_command_that_ends_the_shell_says_so_and_the_next_one_has_another_in_the_same_folder(
    shell: KeptShells,
) -> None:
    await say(shell, "mkdir -p sub; cd sub; X=1")
    result = await say(shell, "echo bye; exit 3")
    assert (result.end, result.exit_status, result.output.head) == (CommandEnd.SHELL_ENDED, 3, "bye\n")
    assert await output(shell, "echo ${PWD##*/} ${X-unset}") == "sub unset\n"


async def test_a_time_limit_ends_the_tree_and_leaves_a_usable_shell(shell: KeptShells, mark: Mark) -> None:
    await say(shell, "mkdir -p sub; cd sub")
    command = (
        f"echo begun; (setsid bash -c 'trap \"\" TERM; {mark.sleep}; {mark.sleep}' &); {mark.sleep}; echo not this"
    )
    for timeout_s in TIME_LIMITS_S:
        result = await say(shell, command, timeout_s=timeout_s)
        assert (result.end, result.exit_status) == (CommandEnd.TIMED_OUT, None)
        assert mark.alive() == []
        if result.output.head:
            break
    assert result.output.head == "begun\n"
    assert await output(shell, "echo ${PWD##*/}") == "sub\n"


async def test_a_busy_shell_that_starts_no_process_meets_its_time_limit_too(shell: KeptShells) -> None:
    assert (await say(shell, "while :; do :; done", timeout_s=0.2)).end is CommandEnd.TIMED_OUT


async def test_a_cancelled_command_leaves_nobody_and_the_next_one_runs(shell: KeptShells, mark: Mark) -> None:
    task = asyncio.create_task(say(shell, f"setsid {mark.sleep} & {mark.sleep}"))
    await mark.someone()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await within_limit(task)
    assert mark.alive() == []
    assert await output(shell, "echo on") == "on\n"


async def test_a_long_output_is_kept_at_both_ends_and_in_a_file_that_commands_can_read(
    make: Make, tmp_path: Path
) -> None:
    async with make(tmp_path, limits=SMALL) as shell:
        shown = (await say(shell, "seq 1 10000")).output
        whole = "".join(f"{n}\n" for n in range(1, 10_001))
        assert (shown.head, shown.tail) == (whole[:100], whole[-100:])
        assert (shown.left_out_bytes, shown.file_bytes) == (len(whole) - 200, 5_000)
        assert shown.path is not None
        assert read(shown.path) == whole[:5_000]
        assert await output(shell, f"sed -n 500,502p {shown.path}") == "500\n501\n502\n"
        folder = Path(shown.path).parent
    assert not folder.exists()


async def test_files_of_long_outputs_are_bounded(tmp_path: Path) -> None:
    limits = dataclasses.replace(SMALL, max_files=3)
    folder = tmp_path / "outputs"
    folder.mkdir()
    async with local(tmp_path, limits=limits, output_folder=folder) as shell:
        for _ in range(8):
            await say(shell, "seq 1 1000")
        assert len(list(folder.iterdir())) <= 3
    assert folder.exists()


async def test_who_writes_on_in_the_background_stops_nothing(shell: KeptShells, mark: Mark) -> None:
    await say(shell, "yes > /dev/stdout & FLOOD=$!")
    assert (await say(shell, "echo -; kill $FLOOD; wait")).end is CommandEnd.FINISHED
    await say(shell, f"{mark.sleep} &")
    assert await output(shell, "echo clear") == "clear\n"


async def test_commands_have_the_variables_that_are_named_and_no_secret(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "DATABASE_URL", "AWS_SECRET_ACCESS_KEY", "BASH_ENV", "LD_PRELOAD_X", "PYTHONPATH"):
        monkeypatch.setenv(name, "/tmp/canary-1f2e")
    async with make(tmp_path) as shell:
        text = await output(shell, "env; cat /proc/$PPID/environ | tr '\\0' '\\n'")
    assert "canary-1f2e" not in text
    assert {line.partition("=")[0] for line in text.splitlines()} <= {
        *("PATH", "LANG", "LC_ALL", "LC_CTYPE", "LANGUAGE", "TZ", "TERM", "TMPDIR", "USER", "LOGNAME"),
        *("HOME", "PWD", "OLDPWD", "SHLVL", "_", "POWER_LOOP_TREE"),
    }  # fmt: skip


async def test_a_command_may_have_a_folder_and_variables_of_its_own(shell: KeptShells) -> None:
    await say(shell, "mkdir -p 'a b'")
    given = {"NAME": 'it\'s "$HOME" `x`\n'}
    result = await shell.run("one", 'printf \'%s\' "$NAME"; echo "${PWD##*/}"', timeout_s=30, folder="a b", env=given)
    assert result.output.head == given["NAME"] + "a b\n"
    assert await output(shell, "echo ${NAME-unset}") == "unset\n"
    assert (await shell.run("one", "echo no", timeout_s=30, folder="/nowhere")).exit_status == 1
    with pytest.raises(InputError):
        await shell.run("one", "echo", timeout_s=30, env={"A=B; rm": "x"})


async def test_sessions_do_not_share_a_shell(shell: KeptShells) -> None:
    await say(shell, "X=1; cd /", "one")
    assert await output(shell, "echo ${X-unset} ${PWD##*/}", "two") == "unset workspace\n"


async def test_a_shell_runs_one_command_at_a_time(shell: KeptShells, mark: Mark) -> None:
    task = asyncio.create_task(say(shell, mark.sleep))
    await mark.someone()
    with pytest.raises(InputError) as caught:
        await say(shell, "echo")
    assert caught.value.code == "input.invalid"
    await shell.end_session("one")
    assert (await within_limit(task)).end is CommandEnd.STOPPED
    assert mark.alive() == []


async def test_the_shell_that_was_idle_longest_makes_room(make: Make, tmp_path: Path, mark: Mark) -> None:
    async with make(tmp_path, limits=SMALL) as shell:
        await say(shell, f"cd /tmp; {mark.sleep} &", "one")
        await say(shell, "X=2", "two")
        assert await output(shell, "echo $X", "two") == "2\n"
        await say(shell, "X=3", "three")
        await mark.nobody()
        assert await output(shell, "echo $X", "two") == "2\n"
        assert await output(shell, "echo ${PWD}", "one") == "/tmp\n"


async def test_no_more_shells_work_than_allowed(make: Make, tmp_path: Path, mark: Mark) -> None:
    async with make(tmp_path, limits=SMALL) as shell:
        tasks = [asyncio.create_task(say(shell, mark.sleep, name)) for name in ("one", "two")]
        await mark.someone(2)
        with pytest.raises(InputError):
            await say(shell, "echo", "three")
        await shell.aclose()
        assert {(await within_limit(task)).end for task in tasks} == {CommandEnd.STOPPED}


async def test_an_idle_shell_ends_by_itself(make: Make, tmp_path: Path, mark: Mark) -> None:
    async with make(tmp_path, limits=ShellLimits(idle_s=0.05, grace_s=0.05)) as shell:
        await say(shell, f"cd /tmp; X=1; {mark.sleep} &")
        process = shell._shells["one"].process
        await within_limit(until(lambda: process.is_over()))
        assert mark.alive() == []
        assert await output(shell, "echo $PWD ${X-unset}") == "/tmp unset\n"


async def test_a_closed_backend_has_ended_everything_and_takes_no_more(make: Make, tmp_path: Path, mark: Mark) -> None:
    shell = make(tmp_path)
    await say(shell, f"(setsid {mark.sleep} &)")
    await shell.start("two", mark.sleep)
    await shell.aclose()
    assert mark.alive() == []
    with pytest.raises(ProcessError):
        await say(shell, "echo")
    await shell.aclose()


async def test_a_backend_that_is_forgotten_ends_everything(make: Make, tmp_path: Path, mark: Mark) -> None:
    shell = make(tmp_path)
    await say(shell, f"(setsid {mark.sleep} &)")
    await shell.start("two", mark.sleep)
    shell._files.close()
    del shell
    gc.collect()
    assert mark.alive() == []


def test_a_shell_lasts_from_one_event_loop_to_the_next(tmp_path: Path) -> None:
    shell = local(tmp_path)
    asyncio.run(say(shell, "X=1"))
    assert asyncio.run(output(shell, "echo $X")) == "1\n"
    asyncio.run(shell.aclose())


async def test_a_keeper_that_is_killed_is_noticed(tmp_path: Path, mark: Mark) -> None:
    async with local(tmp_path) as shell:
        result = await say(shell, f"(setsid {mark.sleep} &); kill -9 $PPID; {mark.sleep}")
        assert result.end is CommandEnd.STOPPED
        await mark.nobody()
        assert await output(shell, "echo on") == "on\n"


async def test_a_job_runs_beside_the_shell_in_its_folder(shell: KeptShells) -> None:
    await say(shell, "mkdir -p sub; cd sub; mkfifo gate")
    job = await shell.start("one", "echo ${PWD##*/}; read line < gate; echo $line; exit 4")
    assert (await job.check()).end is None
    assert (await job.wait(0.05)).end is None
    await say(shell, "echo go > gate")
    report = await within_limit(job.wait(30))
    assert (report.end, report.exit_status, report.output.head) == (CommandEnd.FINISHED, 4, "sub\ngo\n")
    assert await job.check() == report == await job.stop()
    assert job.output_path is not None
    assert read(job.output_path) == "sub\ngo\n"


async def test_a_stopped_job_leaves_nobody(shell: KeptShells, mark: Mark) -> None:
    job = await shell.start("one", f"(setsid {mark.sleep} &); {mark.sleep}")
    await mark.someone(2)
    assert (await job.stop()).end is CommandEnd.STOPPED
    assert mark.alive() == []


async def test_a_job_whose_caller_was_cancelled_runs_on(shell: KeptShells, mark: Mark) -> None:
    job = await shell.start("one", mark.sleep)
    task = asyncio.create_task(job.wait(30))
    await mark.someone()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert (await job.check()).end is None
    await shell.end_session("one")
    assert mark.alive() == []
    assert (await job.check()).end is CommandEnd.STOPPED


async def test_jobs_are_bounded_in_number_and_in_time(make: Make, tmp_path: Path, mark: Mark) -> None:
    async with make(tmp_path, limits=SMALL) as shell:
        for name in ("one", "two"):
            await shell.start(name, mark.sleep)
        with pytest.raises(InputError):
            await shell.start("three", "echo")
    limits = dataclasses.replace(SMALL, max_job_s=0.2)
    async with make(tmp_path, limits=limits) as shell:
        jobs = [await shell.start(name, mark.sleep) for name in ("one", "two")]
        assert [(await within_limit(job.wait(30))).end for job in jobs] == [CommandEnd.TIMED_OUT] * 2
        assert mark.alive() == []
        # There is room for another one, which may take longer than it may as well.
        assert (await within_limit((await shell.start("three", "echo")).wait(30))).end is not None


@pytest.mark.parametrize("command", ["", "  \n", "echo \0", "x" * 1_001, "é" * 501, None, 7, ["ls"]])
async def test_what_is_no_command_is_refused(tmp_path: Path, command: object) -> None:
    async with local(tmp_path, limits=SMALL) as shell:
        for run in (shell.run("one", command, timeout_s=1), shell.start("one", command)):  # type: ignore[arg-type]
            with pytest.raises(InputError):
                await run


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), float("inf"), None, True, "9"])
async def test_what_is_no_time_limit_is_refused(tmp_path: Path, timeout_s: object) -> None:
    async with local(tmp_path) as shell:
        with pytest.raises(InputError):
            await shell.run("one", "echo", timeout_s=timeout_s)  # type: ignore[arg-type]


async def test_half_a_character_in_a_command_is_replaced(tmp_path: Path) -> None:
    async with local(tmp_path) as shell:
        assert await output(shell, "echo 'a\ud800b'") == "a?b\n"


def test_a_backend_checks_what_it_is_made_of(tmp_path: Path) -> None:
    for wrong in (lambda: LocalShellBackend("here"), lambda: local(tmp_path, limits=7)):  # type: ignore[arg-type]
        with pytest.raises(ConfigError):
            wrong()
    for name in ("max_shells", "idle_s", "shown_bytes", "cpu_s"):
        for value in (0, -1, True, "7", float("nan")):
            with pytest.raises(ConfigError):
                ShellLimits(**{name: value})  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        local(tmp_path, output_folder=tmp_path / "nowhere")


SNIPPETS = (
    *("'", '"', "$(", ")", "`", "&", "|", ";", "<<E", "E", "\n", "{", "}", "(", "done", "do", "if", "for x in 1", "\\"),
    *("echo a", "set -e", "false", "exec", "trap 'echo t' EXIT", "set -u", "$x", "#", "!", "wait", "set -n", "break 3"),
)
COMMANDS = st.lists(st.sampled_from(SNIPPETS), max_size=8).map(" ".join)


def test_whatever_a_command_is_made_of_the_next_one_runs(tmp_path: Path) -> None:
    async def try_all(commands: list[str]) -> None:
        async with local(tmp_path, limits=ShellLimits(grace_s=0.01)) as shell:
            for command in filter(str.strip, commands):
                await say(shell, command, timeout_s=0.5)
            # An old shell may be one that was told to run nothing more.
            await shell.end_session("one")
            assert await output(shell, "echo on") == "on\n"

    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.lists(COMMANDS, min_size=1, max_size=5))
    def check(commands: list[str]) -> None:
        asyncio.run(try_all(commands))

    check()


async def test_a_thousand_commands_leave_nothing(tmp_path: Path) -> None:
    async with local(tmp_path) as shell:
        await say(shell, "echo first")
        async with leak_check():
            for number in range(1_000):
                assert await output(shell, f"echo {number}") == f"{number}\n"


async def test_a_finished_shell_is_no_zombie_for_long(tmp_path: Path) -> None:
    async with local(tmp_path, limits=ShellLimits(idle_s=0.02)) as shell:
        await say(shell, "echo", "one")
        process = shell._shells["one"].process
        await within_limit(until(lambda: process.is_over()))
        assert process.pid == -1
