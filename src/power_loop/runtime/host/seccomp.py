"""Writes the filter that a sandboxed program's system calls pass: what only an escape needs is refused."""

from __future__ import annotations

import errno
import platform
import struct
from typing import NamedTuple

# struct sock_filter: code, jump if true, jump if false, k (linux/filter.h).
_FILTER = struct.Struct("=HBBI")
_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_SET, _JUMP_IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
# struct seccomp_data: the number, the architecture, and the low halves of the first two arguments.
_NUMBER, _ARCHITECTURE, _FIRST, _SECOND = 0, 4, 16, 24
# clone() for a namespace of any kind: user, mount, cgroup, uts, ipc, pid, net, time.
_NEW_NAMESPACE = 0x7E020080
# Pushes keys into a terminal's input, and lets a console paste.
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
# What no network namespace holds back (vsock), and what is kernel surface for nothing (AF_ALG, packet, RDS, TIPC).
_SOCKET_FAMILIES = (40, 38, 17, 21, 30)
# x32 calls have numbers of their own from here on.
_X32 = 0x40000000


class _Machine(NamedTuple):
    audit: int
    clone: int
    ioctl: int
    socket: int
    refused: tuple[int, ...]


# Same numbers everywhere since 5.1: io_uring, the mount API by descriptors, pidfd_getfd.
_SINCE_5_1 = (425, 426, 427, 428, 429, 430, 431, 432, 433, 438, 442)
_CLONE3 = 435
_MACHINES = {
    # ptrace, process_vm_readv/writev, kcmp; mount, umount2, pivot_root, chroot, swapon/off, quotactl, acct;
    # reboot, kexec_load/_file_load, init/finit/delete_module, bpf, perf_event_open; keyctl, add_key, request_key;
    # userfaultfd, unshare, setns, open_by_handle_at, syslog, settimeofday, clock_settime, move_pages;
    # and of x86 alone iopl, ioperm, modify_ldt, uselib.
    "x86_64": _Machine(
        0xC000003E, 56, 16, 41,
        (101, 310, 311, 312, 165, 166, 155, 161, 167, 168, 179, 163, 169, 246, 320, 175, 313, 176, 321, 298, 250, 248,
         249, 323, 272, 308, 304, 103, 164, 227, 279, 172, 173, 154, 134, *_SINCE_5_1),
    ),
    "aarch64": _Machine(
        0xC00000B7, 220, 29, 198,
        (117, 270, 271, 272, 40, 39, 41, 51, 224, 225, 60, 89, 142, 104, 294, 105, 273, 106, 280, 241, 219, 217,
         218, 282, 97, 268, 265, 116, 170, 112, 239, *_SINCE_5_1),
    ),
}  # fmt: skip


def seccomp_filter(machine: str | None = None) -> bytes | None:
    """Return the filter for a machine (default: this one), as `bwrap --seccomp` reads it; None for one that is not
    known here."""
    known = _MACHINES.get(machine or platform.machine())
    if known is None:
        return None
    steps = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_JUMP_IF_EQUAL, 1, 0, known.audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_JUMP_IF_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
        # Its flags lie in memory, which a filter cannot read; who gets ENOSYS falls back to clone().
        (_JUMP_IF_EQUAL, 0, 1, _CLONE3),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
    ]
    for number in known.refused:
        steps += [(_JUMP_IF_EQUAL, 0, 1, number), _REFUSE]
    steps += _refuse_by_argument(known.clone, _FIRST, _JUMP_IF_SET, (_NEW_NAMESPACE,))
    steps += _refuse_by_argument(known.ioctl, _SECOND, _JUMP_IF_EQUAL, (_TIOCSTI, _TIOCLINUX))
    steps += _refuse_by_argument(known.socket, _FIRST, _JUMP_IF_EQUAL, _SOCKET_FAMILIES)
    steps.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(_FILTER.pack(*step) for step in steps)


_Step = tuple[int, int, int, int]
_REFUSE: _Step = (_RETURN, 0, 0, _ERRNO | errno.EPERM)


def _refuse_by_argument(number: int, argument: int, jump: int, values: tuple[int, ...]) -> list[_Step]:
    """Refuse a call where one of its arguments has one of these values, or bits; the call's number is loaded."""
    tests = [step for value in values for step in ((jump, 0, 1, value), _REFUSE)]
    body = [(_LOAD, 0, 0, argument), *tests, (_LOAD, 0, 0, _NUMBER)]
    return [(_JUMP_IF_EQUAL, 0, len(body), number), *body]
