"""What runs in the sandbox cannot get out of it, and without a sandbox nothing runs."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from power_loop import RuntimeEnv, SendStatus, StatefulAgentLoop
from power_loop.errors import ConfigError, SandboxUnavailableError
from power_loop.runtime.host.seccomp import seccomp_filter
from power_loop.runtime.host.shells import KeptShells
from power_loop.sandbox import BubblewrapShellBackend, CommandEnd, ShellLimits, WrappedShellBackend
from power_loop.testing import ScriptedLLM, call
from power_loop.tools import bash_tools
from tests.agent.parts import error_answers, within_limit
from tests.runtime.host.shells import env_of, sandbox_is_missing, sandboxed
from tests.runtime.host.trees import Mark

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="sandboxes are of Linux")
PYTHON = "/usr/bin/python3"
SECRET = "secret-4711"
has_python = pytest.mark.skipif(not os.path.exists(PYTHON), reason=f"a sandbox has no {PYTHON} to try it with")


@pytest.fixture
def mark() -> Mark:
    return Mark()


@pytest.fixture
async def shell(tmp_path: Path) -> AsyncIterator[KeptShells]:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text(SECRET)
    async with sandboxed(tmp_path) as shell:
        yield shell


async def say(shell: KeptShells, command: str) -> str:
    """Return what a command wrote, with its exit status behind it."""
    # What takes a second of the processor may take half a minute where that has much to do.
    result = await shell.run("one", command, timeout_s=120)
    assert result.end in (CommandEnd.FINISHED, CommandEnd.SHELL_ENDED), result
    return f"{result.output.head}[{result.exit_status}]"


async def python(shell: KeptShells, program: str) -> str:
    """Return what a Python program wrote that reaches for the kernel's calls by itself."""
    start = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\nerror = ctypes.get_errno\n"
    (shell.env.workspace / "try.py").write_text(start + program)
    return await say(shell, f"{PYTHON} -I try.py")


# ---- files ----


async def test_work_is_done_in_the_workspace_and_stays_there(shell: KeptShells) -> None:
    assert await say(shell, "echo kept >file; cat file; pwd") == f"kept\n{shell.env.workspace}\n[0]"
    assert (shell.env.workspace / "file").read_text() == "kept\n"


@pytest.mark.promise("sandbox-or-nothing")
async def test_a_file_outside_cannot_be_read(shell: KeptShells, tmp_path: Path) -> None:
    secret = tmp_path / "outside" / "secret"
    (shell.env.workspace / "link").symlink_to(secret)
    (shell.env.workspace / "up").symlink_to("../outside")
    for path in (secret, "../outside/secret", "link", "up/secret", f"/proc/1/root{secret}", f"/proc/$$/root{secret}"):
        said = await say(shell, f"cat {path}")
        assert SECRET not in said
        assert said.endswith("[1]")


@pytest.mark.parametrize("path", ["/root", "/home", "/etc/shadow", "/etc/ssh", "/var/run/docker.sock", "/sys", "/run"])
async def test_nothing_of_the_machine_is_there_that_programs_do_not_need(shell: KeptShells, path: str) -> None:
    assert await say(shell, f"test -e {path}") == "[1]"


@pytest.mark.promise("sandbox-or-nothing")
async def test_nothing_outside_can_be_written(shell: KeptShells, tmp_path: Path) -> None:
    outside = tmp_path / "outside" / "made"
    for path in (
        outside,
        "../outside/made",
        "/made",
        "/usr/made",
        "/etc/made",
        "/bin/made",
        "/proc/sys/kernel/hostname",
    ):
        said = await say(shell, f"echo x >{path}")
        assert said.endswith("[1]"), path
    assert not outside.exists()


async def test_the_kernel_takes_no_word_through_proc_though_the_sandbox_be_of_root(shell: KeptShells) -> None:
    # Opened for writing, with nothing written; what is hidden is a /dev/null there.
    look = "find /proc -path '/proc/[0-9]*' -prune -o -type f -writable -print"
    look += " | while read -r file; do test -c $file || echo $file; done"
    assert await say(shell, look) == "[0]"
    for name in ("sys/kernel/core_pattern", "sys/vm/drop_caches", "sys/kernel/hostname"):
        assert (await say(shell, f": >>/proc/{name}")).endswith("[1]")
    assert await say(shell, "cat /proc/keys /proc/kmsg /proc/kcore /proc/vmallocinfo 2>/dev/null | wc -c") == "0\n[0]"


async def test_memory_is_no_disk_without_bounds(tmp_path: Path) -> None:
    async with sandboxed(tmp_path, tmp_bytes=1_000_000) as shell:
        assert (await say(shell, "echo x >/dev/made")).endswith("[1]")
        assert "No space left" in await say(shell, "head -c 3000000 /dev/zero >/dev/shm/much")


async def test_a_read_only_root_is_read_and_not_written(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "a").write_text("read me")
    if missing := sandbox_is_missing():
        pytest.skip(missing)
    workspace = env_of(tmp_path).workspace
    async with BubblewrapShellBackend(RuntimeEnv(workspace, (root,))) as shell:
        assert await say(shell, f"cat {root}/a") == "read me[0]"
        assert (await say(shell, f"echo x >{root}/a")).endswith("[1]")
        assert (await say(shell, f"mount -o remount,rw,bind {root}")).split("[")[-1] != "0]"
    assert (root / "a").read_text() == "read me"


async def test_a_tmp_of_its_own_is_bounded_and_gone_with_the_shell(tmp_path: Path) -> None:
    own = Path("/tmp") / f"own-{os.getpid()}"
    async with sandboxed(tmp_path, tmp_bytes=1_000_000) as shell:
        assert await say(shell, f"echo x >{own}; cat {own}") == "x\n[0]"
        assert not own.exists()
        assert "No space left" in await say(shell, "head -c 3000000 /dev/zero >/tmp/much")
        await shell.end_session("one")
        assert await say(shell, f"test -e {own}") == "[1]"


# ---- network ----


@pytest.fixture
def server() -> Iterator[int]:
    """A server of this machine, which tells its callers so."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b"reached")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(10)


async def test_the_network_is_out_of_reach_unless_it_is_shared(shell: KeptShells, server: int, tmp_path: Path) -> None:
    reach = f"exec 5<>/dev/tcp/127.0.0.1/{server} && timeout 10 head -c 7 <&5"
    said = await say(shell, reach)
    assert "reached" not in said
    assert not said.endswith("[0]")
    assert "without network access" in shell.description
    async with sandboxed(tmp_path, shares_network=True) as open_shell:
        assert await say(open_shell, reach) == "reached[0]"
        assert "with network access" in open_shell.description


@has_python
async def test_a_socket_of_this_machine_that_has_no_file_is_out_of_reach(shell: KeptShells) -> None:
    name = f"\0power-loop-{os.getpid()}"
    with closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind(name)
        listening.listen()
        reach = f"import socket\nprint(socket.socket(socket.AF_UNIX).connect_ex({name!r}))"
        said = await python(shell, reach)
    assert said == "111\n[0]"


# ---- processes ----


async def test_no_process_outside_is_seen_or_ended(shell: KeptShells, mark: Mark) -> None:
    with subprocess.Popen(mark.sleep.split()) as outside:  # noqa: ASYNC220 - it is the one that must not be reached
        try:
            said = await say(shell, f"ls /proc | grep -x {outside.pid}; kill -9 {outside.pid}; cat /proc/*/cmdline")
            assert mark.sleep.replace(" ", "\0") not in said
            await say(shell, "kill -9 -1")
            assert outside.poll() is None
        finally:
            outside.kill()


async def test_no_environment_of_this_process_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    async with sandboxed(tmp_path) as shell:
        assert SECRET not in await say(shell, "env; cat /proc/*/environ; cat /proc/*/cmdline | tr '\\0' '\\n'")


async def test_who_leaves_the_session_of_the_shell_ends_with_it(shell: KeptShells, mark: Mark) -> None:
    await say(shell, f"(setsid setsid {mark.sleep} >/dev/null 2>&1 &); (env -i setsid {mark.sleep} >&- 2>&- &)")
    await mark.someone(2)
    await shell.end_session("one")
    assert mark.alive() == []


async def test_a_command_that_runs_too_long_leaves_nobody_and_a_usable_shell(shell: KeptShells, mark: Mark) -> None:
    result = await within_limit(shell.run("one", f"setsid {mark.sleep} & {mark.sleep}", timeout_s=0.3))
    assert result.end is CommandEnd.TIMED_OUT
    assert mark.alive() == []
    assert await say(shell, "echo on") == "on\n[0]"


# ---- the kernel ----


@pytest.mark.parametrize(
    "command",
    [
        "mount -t tmpfs none /mnt",
        "mount --bind . /usr",
        "umount /proc",
        "unshare -U true",
        "unshare -r true",
        "chroot . true",
    ],
)
async def test_no_namespace_or_mount_is_made(shell: KeptShells, command: str) -> None:
    assert not (await say(shell, command)).endswith("[0]")


async def test_it_has_no_privilege_and_gains_none(shell: KeptShells) -> None:
    said = await say(shell, "grep -E '^(Cap(Eff|Prm|Bnd|Inh|Amb)|NoNewPrivs|Seccomp):' /proc/self/status")
    fields = dict(line.split(":\t") for line in said.splitlines() if ":\t" in line)
    assert {int(value, 16) for name, value in fields.items() if name.startswith("Cap")} == {0}
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == ("2" if seccomp_filter() else "0")


@has_python
@pytest.mark.skipif(seccomp_filter() is None, reason="there is no filter of system calls for this machine")
@pytest.mark.parametrize(
    ("attempt", "errno"),
    [
        ("libc.ptrace(0, 0, 0, 0)", 1),
        ("libc.ptrace(16, os.getppid(), 0, 0)", 1),
        ("libc.process_vm_readv(os.getppid(), 0, 0, 0, 0, 0)", 1),
        ("libc.unshare(0x10000000)", 1),
        ("libc.setns(0, 0)", 1),
        ("libc.mount(b'none', b'/tmp', b'tmpfs', 0, 0)", 1),
        ("libc.ioctl(0, 0x5412, b'x')", 1),
        ("libc.ioctl(0, ctypes.c_ulong(0x5412 | 1 << 32), b'x')", 1),
        ("libc.socket(40, 1, 0)", 1),
        ("libc.socket(38, 5, 0)", 1),
        ("libc.syscall(425, 1, 0)", 1),
        ("libc.syscall(435, 0, 0)", 38),
        ("libc.syscall(321 if os.uname().machine == 'x86_64' else 280, 0, 0, 0)", 1),
        ("libc.syscall(248 if os.uname().machine == 'x86_64' else 217, b'user', b'x', b'y', 1, -3)", 1),
    ],
)
async def test_a_system_call_that_only_an_escape_needs_is_refused(shell: KeptShells, attempt: str, errno: int) -> None:
    assert await python(shell, f"print({attempt}, error())") == f"-1 {errno}\n[0]"


# ---- limits ----

LIMITED = ShellLimits(
    cpu_s=1, memory_bytes=300_000_000, written_bytes=100_000, open_files=32, max_processes=8, grace_s=0.05
)


async def test_what_a_process_takes_is_bounded(tmp_path: Path) -> None:
    async with sandboxed(tmp_path, limits=LIMITED) as shell:
        assert not (await say(shell, "head -c 200000 /dev/zero >much")).endswith("[0]")
        assert os.path.getsize(shell.env.workspace / "much") == 100_000  # noqa: ASYNC240
        assert not (
            await say(shell, "(x=$(head -c 400000000 /dev/zero | tr '\\0' x)) 2>&1 | head -c 200; exit 1")
        ).endswith("[0]")
        assert (
            await say(shell, "ulimit -v; ulimit -n; ulimit -f; ulimit -c; ulimit -t")
        ) == "292968\n32\n97\n0\n1\n[0]"
        assert not (await say(shell, "(while :; do :; done)")).endswith("[0]")
        assert await say(shell, "ulimit -n 64 2>/dev/null") == "[1]", "a limit is not lifted"


async def test_more_processes_than_allowed_are_all_ended(tmp_path: Path, mark: Mark) -> None:
    async with sandboxed(tmp_path, limits=LIMITED) as shell:
        # A bounded number: sixteen, of which eight are allowed.
        many = f"for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do {mark.sleep} & done; wait"
        result = await within_limit(shell.run("one", many, timeout_s=20))
        assert result.end is CommandEnd.TOO_MANY_PROCESSES
        assert mark.alive() == []
        assert await say(shell, "echo on") == "on\n[0]"


# ---- without a sandbox ----


@pytest.fixture
def no_bwrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with a bash and nothing else."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "bash").symlink_to("/bin/bash")
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.mark.promise("sandbox-or-nothing")
async def test_without_bwrap_nothing_runs_and_the_error_says_what_to_install(tmp_path: Path, no_bwrap: Path) -> None:
    async with BubblewrapShellBackend(env_of(tmp_path)) as shell:
        for attempt in (shell.run("one", "touch made", timeout_s=5), shell.start("one", "touch made")):
            with pytest.raises(SandboxUnavailableError, match=r"no 'bwrap' on the PATH.*install bubblewrap") as raised:
                await attempt
            assert raised.value.code == "sandbox.unavailable"
        assert list(shell.env.workspace.iterdir()) == []


async def test_a_model_is_told_that_there_is_no_sandbox_and_nothing_runs(tmp_path: Path, no_bwrap: Path) -> None:
    shell = BubblewrapShellBackend(env_of(tmp_path))
    llm = ScriptedLLM([call("bash", {"command": "touch made"}), "Then not."])
    async with StatefulAgentLoop(llm=llm, dsn=":memory:", tool_registry=bash_tools(shell)) as loop:
        result = await loop.send("go", session_id=await loop.new_session())
    assert result.status is SendStatus.COMPLETED
    [said] = error_answers(llm.requests[-1])
    assert "no 'bwrap' on the PATH" in said
    assert list(shell.env.workspace.iterdir()) == []


IMPOSTORS = {
    "refuses": "echo 'bwrap: No permissions to create a new namespace' >&2; exit 1",
    "says nothing": "exit 0",
    "runs the program where it is": 'while [ "$1" != -- ]; do shift; done; shift; exec "$@"',
}


@pytest.mark.parametrize("script", IMPOSTORS.values(), ids=list(IMPOSTORS))
@pytest.mark.promise("sandbox-or-nothing")
async def test_a_bwrap_that_makes_no_sandbox_is_none_and_is_tried_once(
    tmp_path: Path, no_bwrap: Path, script: str
) -> None:
    tried = tmp_path / "tried"
    path = no_bwrap / "bwrap"
    path.write_text(f"#!/bin/bash\necho x >>{tried}\n{script}\n")
    path.chmod(0o755)
    async with BubblewrapShellBackend(env_of(tmp_path)) as shell:
        for _ in range(2):
            with pytest.raises(SandboxUnavailableError, match="cannot be had here"):
                await shell.run("one", "touch made", timeout_s=5)
        assert list(shell.env.workspace.iterdir()) == []
    assert tried.read_text() == "x\n"


@pytest.mark.parametrize("launcher", [("no-such-launcher",), ("false",), ("true",), ("echo",)])
async def test_a_launcher_that_runs_nothing_is_no_sandbox_either(tmp_path: Path, launcher: tuple[str, ...]) -> None:
    async with WrappedShellBackend(env_of(tmp_path), lambda argv, _: (*launcher, *argv)) as shell:
        with pytest.raises(SandboxUnavailableError, match=r"without it nothing is run|cannot be used"):
            await shell.run("one", "touch made", timeout_s=5)
        assert list(shell.env.workspace.iterdir()) == []


async def test_a_launcher_that_changes_the_words_is_refused(tmp_path: Path) -> None:
    async with WrappedShellBackend(env_of(tmp_path), lambda argv, _: ("env", "true")) as shell:
        with pytest.raises(ConfigError, match="give the launcher's words with those it got at their end"):
            await shell.run("one", "touch made", timeout_s=5)


@pytest.mark.parametrize("size", [0, -1, True, 1.5, "1"])
def test_a_size_that_is_none_is_refused(tmp_path: Path, size: object) -> None:
    with pytest.raises(ConfigError, match="tmp_bytes"):
        BubblewrapShellBackend(env_of(tmp_path), tmp_bytes=size)  # type: ignore[arg-type]


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_jump_of_the_filter_ends_within_it(machine: str) -> None:
    filter_ = seccomp_filter(machine)
    assert filter_ is not None
    steps = list(struct.iter_unpack("=HBBI", filter_))
    # What the kernel takes.
    assert len(steps) <= 4_096
    for at, (code, if_true, if_false, _) in enumerate(steps):
        if code & 7 == 5:
            assert at + 1 + max(if_true, if_false) < len(steps)
    assert steps[-1][0] == 6
    assert seccomp_filter("unheard-of") is None
    assert sys.byteorder == "little"
