"""Is the event loop of a server's thread, on which a connection that fails leaves nothing open."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

# What was opened in the attempt to connect that runs here.
_OPENED: ContextVar[list[Any] | None] = ContextVar("power_loop_opened", default=None)


class ServerLoop(asyncio.SelectorEventLoop):
    """Notes the transports that drivers open."""

    async def create_connection(self, *args: Any, **options: Any) -> Any:
        """Open one over TCP."""
        return _noted(await super().create_connection(*args, **options))

    async def create_unix_connection(self, *args: Any, **options: Any) -> Any:
        """Open one over a Unix socket."""
        return _noted(await super().create_unix_connection(*args, **options))


def _noted(pair: tuple[Any, Any]) -> tuple[Any, Any]:
    opened = _OPENED.get()
    if opened is not None:
        opened.append(pair[0])
    return pair


@contextlib.contextmanager
def aborting_on_failure() -> Iterator[None]:
    """Abort every transport that was opened within, by tasks that were begun there too, where this raises.

    Drivers close them and forget them; with TLS, that waits for the server to say goodbye: for 30 seconds, on Python
    3.10 for ever.
    """
    opened: list[Any] = []
    token = _OPENED.set(opened)
    try:
        yield
    except BaseException:
        for transport in opened:
            transport.abort()
        raise
    finally:
        _OPENED.reset(token)
        # What goes on in this context would hold them.
        opened.clear()
