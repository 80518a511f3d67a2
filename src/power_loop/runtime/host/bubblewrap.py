"""Runs the commands of an agent in a sandbox of Linux namespaces, which `bwrap` makes; without it, it runs nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from typing import Any

from power_loop.contracts.errors import ConfigError, ProcessError, SandboxUnavailableError
from power_loop.contracts.numbers import is_whole
from power_loop.contracts.shell import ShellLimits
from power_loop.runtime.host.environment import RuntimeEnv
from power_loop.runtime.host.process import EndCause, Program, run
from power_loop.runtime.host.seccomp import seccomp_filter
from power_loop.runtime.host.shells import KeptShells, Launch

_PROBE_S = 60.0
_SECCOMP_FD = 20
# What programs need of the system, none of which is anybody's secret.
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_ETC = (
    "alternatives",
    "group",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "nsswitch.conf",
    "passwd",
    "ssl/certs",
    "timezone",
)
# With the network, names are looked up.
_ETC_OF_THE_NETWORK = ("hosts", "resolv.conf")
# What of /proc is the kernel's and not a process's: where this process is root's, the kernel takes a sandbox's user for
# root there, whose word is obeyed (core_pattern names a program that runs outside), and who may look.
_PROC_READ_ONLY = ("bus", "fs", "irq", "sys", "sysrq-trigger")
_PROC_HIDDEN = (
    "acpi", "asound", "interrupts", "kcore", "keys", "kmsg", "kpagecgroup", "kpagecount", "kpageflags", "latency_stats",
    "mtrr", "pressure", "sched_debug", "scsi", "timer_list", "timer_stats", "vmallocinfo",
)  # fmt: skip
# Takes its own namespaces' names to where they can be held against ours.
_PROBE = (
    'test ! -w /proc/sys/kernel/core_pattern || { echo "its /proc can be written" >&2; exit 1; }; printf "%s" "$1";'
    ' for kind in user pid net mnt ipc uts; do readlink "/proc/self/ns/$kind"; done'
)
#: What a sandbox's processes take where nothing else is asked for: half an hour of processor time, 4 GiB of address
#: space, files of 1 GiB, 1,024 descriptors; 256 of them at once.
SANDBOX_LIMITS = ShellLimits(
    cpu_s=1_800, memory_bytes=4 * 2**30, written_bytes=2**30, open_files=1_024, max_processes=256
)


class BubblewrapShellBackend(KeptShells):
    """Runs commands in a bash of each session, in a sandbox: no network, the system read only, nothing of this
    machine's files but the workspace (written) and the read-only roots, a `/tmp` of its own in memory, its own
    processes only, no privileges, and a filter of system calls on x86_64 and aarch64.

    With `shares_network` commands reach the network as this process does. `tmp_bytes` is the size of `/tmp`, and of
    `/dev/shm` (default 256 MiB). Where the sandbox cannot be had, everything raises `sandbox.unavailable`, and nothing
    runs. What a command writes in the workspace is as large as that file system lets it be.
    """

    def __init__(
        self,
        env: RuntimeEnv,
        *,
        limits: ShellLimits | None = None,
        output_folder: str | os.PathLike[str] | None = None,
        shares_network: bool = False,
        tmp_bytes: int = 256 * 2**20,
        program: str = "bwrap",
    ) -> None:
        super().__init__(env, limits=limits or SANDBOX_LIMITS, output_folder=output_folder)
        size: Any = tmp_bytes
        if not is_whole(size, least=1):
            raise ConfigError(f"tmp_bytes is {size!r:.200}: give a whole number above 0")
        self.shares_network = shares_network
        self.tmp_bytes = tmp_bytes
        network = "with network access" if shares_network else "without network access"
        self.description = f"Commands run in a sandbox {network}; only the workspace and /tmp can be written."
        self._bubblewrap = Bubblewrap(program, shares_network=shares_network)

    async def _check(self) -> None:
        """Raise `sandbox.unavailable` unless a sandbox was seen to hold; it is tried once."""
        await self._bubblewrap.check(lambda argv, found: self._launch(argv, "/", found=found))

    def _launch(self, argv: tuple[str, ...], folder: str, *, found: str | None = None) -> Launch:
        # The sandbox's own folder may not be there (a /tmp that has gone): the shell goes to it by itself.
        return Launch(
            (found or self._bubblewrap.path, *self._options(), "--", *argv),
            {**self.env.child_environment(), "HOME": str(self._home()), "TMPDIR": "/tmp"},
            "/",
            seccomp_files(),
        )

    def _options(self) -> list[str]:
        # Behind /tmp, in which they may lie.
        read_only = [*map(str, self.env.read_only_roots), self._files.folder]
        return sandbox_options(
            read_only=read_only,
            written=[str(self.env.workspace)],
            folder=str(self.env.workspace),
            shares_network=self.shares_network,
            tmp_bytes=self.tmp_bytes,
        )

    def _home(self) -> Any:
        """Return the home if it is in the sandbox; the workspace stands in for one that is not."""
        env, home = self.env, self.env.home
        places = (env.workspace, *env.read_only_roots)
        return home if home is not None and any(home == one or one in home.parents for one in places) else env.workspace


class Bubblewrap:
    """Is the program `bwrap`, tried once: whether it makes a sandbox here that holds."""

    def __init__(self, name: str, *, shares_network: bool) -> None:
        self._name = name
        self._shares_network = shares_network
        self._found: str | None = None
        self._refusal: str | None = None

    @property
    def path(self) -> str:
        """Where it was found; its name until then."""
        return self._found or self._name

    async def check(self, launch: Callable[[tuple[str, ...], str], Launch]) -> None:
        """Raise `sandbox.unavailable` unless a sandbox was seen to hold, made by `launch` of words and bwrap's path."""
        if self._refusal is None and self._found is None:
            await self._probe(launch)
        if self._refusal is not None:
            raise SandboxUnavailableError(self._refusal)

    async def _probe(self, launch_in: Callable[[tuple[str, ...], str], Launch]) -> None:
        found = shutil.which(self._name)
        if found is None:
            self._refusal = (
                f"there is no {self._name!r} on the PATH, and commands are not run outside of their sandbox:"
                " install bubblewrap, or choose LocalShellBackend for commands that you trust"
            )
            return
        token = os.urandom(8).hex()
        launch = launch_in(("bash", "--noprofile", "--norc", "-c", _PROBE, "bash", token), found)
        program = Program(
            launch.argv, launch.env, folder="/", files=launch.files, keeps_errors=True, timeout_s=_PROBE_S
        )
        try:
            ended = await run(program)
        except ProcessError as error:
            self._refusal = _refused(error.message)
            return
        said = ended.output.head.decode("utf-8", "replace")
        errors = b"" if ended.errors is None else ended.errors.head
        if ended.cause is not EndCause.EXIT or ended.exit_status != 0 or not said.startswith(token):
            reason = errors.decode("utf-8", "replace").strip()[:500] or f"it ended with status {ended.exit_status}"
            self._refusal = _refused(reason)
            return
        shared = sorted(set(said[len(token) :].split()) & set(_own_namespaces()))
        if any(not (one.startswith("net:") and self._shares_network) for one in shared):
            self._refusal = _refused(f"a program in it shares {', '.join(shared)} with this process")
            return
        self._found = found


def sandbox_options(
    *, read_only: Sequence[str], written: Sequence[str], folder: str, shares_network: bool, tmp_bytes: int
) -> list[str]:
    """Return bwrap's options for a sandbox that stands in `folder`: of this machine's files it has what programs need,
    `read_only` and `written`, the later over the earlier."""
    options = ["--unshare-all", "--unshare-user", "--disable-userns", "--hostname", "sandbox"]
    options += ["--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    if shares_network:
        options.append("--share-net")
    for path in _SYSTEM:
        if os.path.islink(path):
            options += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            options += ["--ro-bind", path, path]
    for name in (*_ETC, *(_ETC_OF_THE_NETWORK if shares_network else ())):
        options += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    options += ["--proc", "/proc", *_proc_options(), "--dev", "/dev"]
    # Both are memory, and /dev itself would be as much of it as there is.
    for path in ("/dev/shm", "/tmp"):
        options += ["--size", str(tmp_bytes), "--tmpfs", path]
    options += ["--remount-ro", "/dev"]
    for path in read_only:
        options += ["--ro-bind", path, path]
    for path in written:
        options += ["--bind", path, path]
    options += ["--remount-ro", "/", "--chdir", folder]
    if seccomp_filter() is not None:
        options += ["--seccomp", str(_SECCOMP_FD)]
    return options


def seccomp_files() -> dict[int, bytes]:
    """Return the files that the options of a sandbox read, by descriptor."""
    filter_ = seccomp_filter()
    return {} if filter_ is None else {_SECCOMP_FD: filter_}


def _proc_options() -> list[str]:
    options = []
    for name in _PROC_READ_ONLY:
        if os.path.exists(f"/proc/{name}"):
            options += ["--ro-bind", f"/proc/{name}", f"/proc/{name}"]
    for name in _PROC_HIDDEN:
        if os.path.isdir(f"/proc/{name}"):
            options += ["--tmpfs", f"/proc/{name}", "--remount-ro", f"/proc/{name}"]
        elif os.path.exists(f"/proc/{name}"):
            options += ["--ro-bind", "/dev/null", f"/proc/{name}"]
    return options


def _own_namespaces() -> list[str]:
    return [os.readlink(f"/proc/self/ns/{kind}") for kind in ("user", "pid", "net", "mnt", "ipc", "uts")]


def _refused(reason: str) -> str:
    return (
        f"the sandbox cannot be had here ({reason}), and commands are not run outside of it: allow unprivileged user"
        " namespaces (sysctl kernel.unprivileged_userns_clone, or the container's seccomp profile), or choose another"
        " backend"
    )
