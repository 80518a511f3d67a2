"""The seam between the wires and HTTP: what a carrier is asked for, and what it gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from power_loop.contracts.frozen import frozen


@frozen
class Endpoint:
    """Is where a carrier sends, and as whom; two services of the same endpoint share connections.

    `headers` holds what every request carries, the secret included: it is never shown.
    """

    provider: str
    url: str
    headers: tuple[tuple[str, str], ...]
    connect_timeout_s: float
    idle_timeout_s: float

    def __repr__(self) -> str:
        return f"Endpoint({self.provider!r}, {self.url!r})"


class Exchange(Protocol):
    """Is one answer on its way: its head is here, its body comes in chunks, encoded as `content-encoding` says."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers; names are looked up in lower case."""
        ...

    @property
    def is_over(self) -> bool:
        """Whether the proper end is known to have come, so that `read` gives b"" at once."""
        ...

    async def read(self) -> bytes:
        """Return the next bytes, b"" at the proper end.

        Raises `ProviderFault` for a cut or a silence that lasts too long.
        """
        ...

    async def close(self) -> None:
        """Let the connection go: back to the others if the answer was read to its end, else closed.

        Never waits for the peer.
        """
        ...


class Connections(Protocol):
    """Is the open connections of one endpoint in one event loop."""

    async def post(self, body: bytes) -> Exchange:
        """Send a body and return once the head of the answer is here. Raises `ProviderFault` where no answer comes."""
        ...

    async def aclose(self) -> None:
        """Close every connection."""
        ...

    def abandon(self) -> None:
        """Close what can be closed without the event loop, which is gone."""
        ...


class Carrier(Protocol):
    """Opens connections.

    Making one imports nothing; the optional package is imported when the first connections are.
    """

    name: str

    async def connect(self, endpoint: Endpoint) -> Connections:
        """Return connections for the running event loop, which is never blocked; none is opened yet."""
        ...
