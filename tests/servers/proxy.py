"""Stands between a client and a server, and does to the connection what a network does: cuts, holds, swallows, delays.

What passes is matched as bytes, so that it is one proxy for both wire protocols; a connection with TLS has no matches.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from dataclasses import dataclass, field

from tests.servers.server import Server

_CHUNK = 1 << 16


@dataclass(eq=False)
class Trap:
    """Waits for one message of a client; `happened` is set when it came, and a held one goes on with `release`."""

    match: bytes
    how: str  # cut-before, cut-after or hold
    happened: threading.Event = field(default_factory=threading.Event)
    _released: threading.Event = field(default_factory=threading.Event)

    def release(self) -> None:
        """Let the held message pass."""
        self._released.set()


class Proxy:
    """Listens on a port of its own and forwards to a server; a context manager."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.delay_s = 0.0
        # How often a client spoke after the server had: what the network's latency is multiplied by.
        self.round_trips = 0
        self._swallows = False
        self._traps: list[Trap] = []
        self._sprung_traps: list[Trap] = []
        self._links: set[_Link] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._listener = socket.create_server((server.address.host, 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def dsn(self, dsn: str) -> str:
        """Return the DSN of a database of the server, by way of this proxy."""
        return dsn.replace(f":{self.server.address.port}/", f":{self.port}/")

    def cut(self) -> None:
        """Break every connection that is open at this moment; new ones may come."""
        with self._lock:
            links = list(self._links)
        for link in links:
            link.cut()

    def cut_before(self, match: bytes = b"COMMIT") -> Trap:
        """Break the connection of the next client that sends this, before the server has it."""
        return self._set(Trap(match, "cut-before"))

    def cut_after(self, match: bytes = b"COMMIT") -> Trap:
        """Break the connection of the next client that sends this, when the server has done it and has said so."""
        return self._set(Trap(match, "cut-after"))

    def hold(self, match: bytes = b"COMMIT") -> Trap:
        """Keep the next message with this from the server until `release()`."""
        return self._set(Trap(match, "hold"))

    def forget(self, trap: Trap) -> None:
        """Take a trap away that nobody sprang."""
        with self._lock:
            if trap in self._traps:
                self._traps.remove(trap)

    def swallow(self) -> None:
        """Go half-open: connections stay, new ones too, and nothing passes in either direction."""
        self._swallows = True

    def pass_again(self) -> None:
        """End `swallow`, for what comes from then on."""
        self._swallows = False

    def close(self) -> None:
        """Stop listening and break every connection."""
        self._closed.set()
        # shutdown wakes the thread that waits in accept, which close alone would not.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for trap in self._sprung_traps:
            trap.release()

    def _set(self, trap: Trap) -> Trap:
        with self._lock:
            self._traps.append(trap)
        return trap

    def _sprung(self, before: bytes, data: bytes) -> Trap | None:
        """Take the trap that this message springs, be it in two pieces."""
        with self._lock:
            trap = next((one for one in self._traps if one.match in before[1 - len(one.match) :] + data), None)
            if trap is not None:
                self._traps.remove(trap)
                self._sprung_traps.append(trap)
        return trap

    def _accept(self, listener: socket.socket) -> None:
        while not self._closed.is_set():
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection((self.server.address.host, self.server.address.port))
            except OSError:
                client.close()
                continue
            link = _Link(self, client, server=server)
            with self._lock:
                self._links.add(link)
            link.start()


class _Link:
    """Is one client's connection and its other half."""

    def __init__(self, proxy: Proxy, client: socket.socket, *, server: socket.socket) -> None:
        self.proxy, self.client, self.server = proxy, client, server
        self.awaited: Trap | None = None
        self.server_spoke = True
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def start(self) -> None:
        for pump in (self._to_server, self._to_client):
            threading.Thread(target=self._run, args=(pump,), daemon=True).start()

    def cut(self) -> None:
        """Break both halves as a lost network does: with a reset, unread data and all."""
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RDWR)
        self._forget()

    def _forget(self) -> None:
        with self.proxy._lock:
            self.proxy._links.discard(self)
        self.client.close()
        self.server.close()

    def _run(self, pump: object) -> None:
        with contextlib.suppress(OSError):
            pump()  # type: ignore[operator]
        self.cut()

    def _to_server(self) -> None:
        tail = b""
        while data := self.client.recv(_CHUNK):
            if self.server_spoke:
                self.server_spoke = False
                self.proxy.round_trips += 1
            trap = self.proxy._sprung(tail, data)
            tail = data[-64:]
            if trap is not None and self._is_cut_by(trap):
                return
            self._forward(data, self.server)

    def _is_cut_by(self, trap: Trap) -> bool:
        if trap.how == "cut-before":
            trap.happened.set()
            return True
        if trap.how == "cut-after":
            self.awaited = trap
        else:
            trap.happened.set()
            trap._released.wait()
        return False

    def _to_client(self) -> None:
        while data := self.server.recv(_CHUNK):
            self.server_spoke = True
            # Until the transaction is over the client is waiting for the answers to what it sent before the end.
            if self.awaited is not None and _is_over(data, self.proxy.server.address.scheme):
                self.awaited.happened.set()
                return
            self._forward(data, self.client)

    def _forward(self, data: bytes, target: socket.socket) -> None:
        if self.proxy.delay_s:
            self.proxy._closed.wait(self.proxy.delay_s)
        if not self.proxy._swallows:
            target.sendall(data)


def _is_over(answer: bytes, scheme: str) -> bool:
    """Tell whether the server says here that no transaction is open any more, in its protocol."""
    if scheme == "postgresql":
        # CommandComplete of a COMMIT, or ReadyForQuery with the state "idle".
        return b"COMMIT\x00" in answer or answer.endswith(b"Z\x00\x00\x00\x05I")
    packet = b""
    while len(answer) >= 4:
        length = int.from_bytes(answer[:3], "little")
        packet, answer = answer[4 : 4 + length], answer[4 + length :]
    # An OK packet, which affected nothing and made no id; of its status: an open transaction is 1, more results are 8.
    return len(packet) >= 5 and packet[0] == 0 and not int.from_bytes(packet[3:5], "little") & 0b1001
