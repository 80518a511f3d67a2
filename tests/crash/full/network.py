"""Takes the server away from a process in the middle of a transaction: killed, restarted, or cut off."""

from __future__ import annotations

import functools
import signal

from power_loop.testing.matrix.histories import Kind, NotReachedError, Stage
from power_loop.testing.matrix.points import Plan, Point
from tests.servers.proxy import Proxy
from tests.servers.server import PrivateServer


def _stopped_at(stage: Stage, point: Point, **options: str) -> int:
    """Start the process and return its id when it stands still at the point."""
    pid = stage.start("begin", Plan("SIGSTOP", point), **options)
    if "stopped" not in stage.wait(pid):
        raise NotReachedError(str(point))
    stage.history.faults += 1
    return pid


def _go_on(stage: Stage, pid: int, way: str) -> None:
    """Let the process go on to its end, and another one behind it."""
    stage.wait(pid)
    _tell(stage)
    stage.settle(way)


def _tell(stage: Stage) -> None:
    error = stage.history.last.error
    if error is not None:
        stage.history.notes.append(f"the caller was told {error}")


def kill_server(server: PrivateServer, stage: Stage, point: Point, *, way: str, more: str = "") -> None:
    """Kill every process of the server with SIGKILL at the point, and start it again while the process goes on."""
    pid = _stopped_at(stage, point)
    server.kill()
    stage.history.deaths += 1
    stage.send_signal(pid, signal.SIGCONT)
    server.restart()
    _go_on(stage, pid, way)


def restart_server(server: PrivateServer, stage: Stage, point: Point, *, way: str, more: str = "") -> None:
    """Shut the server down politely at the point, and start it again while the process goes on."""
    pid = _stopped_at(stage, point)
    server.shut_down()
    stage.send_signal(pid, signal.SIGCONT)
    server.restart()
    _go_on(stage, pid, way)


def cut(proxy: Proxy, is_done: bool, stage: Stage, point: Point, *, way: str, more: str = "") -> None:
    """Break the connection at the COMMIT: before the server has it, or when it has done it and nobody heard."""
    pid = _stopped_at(stage, point, dsn=proxy.dsn(stage.dsn))
    trap = proxy.cut_after() if is_done else proxy.cut_before()
    stage.send_signal(pid, signal.SIGCONT)
    stage.wait(pid)
    if not trap.happened.is_set():
        proxy.forget(trap)
        raise NotReachedError(f"no COMMIT came behind {point}")
    _tell(stage)
    stage.settle(way)


def network_kinds(server: PrivateServer, proxy: Proxy) -> dict[str, Kind]:
    """Return the kinds of faults of a server that is ours alone."""
    return {
        "server-kill": functools.partial(kill_server, server),
        "server-restart": functools.partial(restart_server, server),
        "cut-before-commit": functools.partial(cut, proxy, False),
        "cut-after-commit": functools.partial(cut, proxy, True),
    }


#: The kinds whose histories take seconds, because a server comes back.
SLOW = ("server-kill", "server-restart")
#: The kinds that happen to a COMMIT on its way.
CUTS = ("cut-before-commit", "cut-after-commit")
