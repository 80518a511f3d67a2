"""Speaks with a program over its standard input and output, and leaves nothing of it alive."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping, Sequence

from power_loop.contracts.errors import ProcessError
from power_loop.runtime.host.process import DEFAULT_GRACE_S, KeptProcess, OutputLimits, Program

# What waits to be read in this process; beyond twice of it the program waits with writing.
_BUFFERED_BYTES = 65_536


class PipedProcess:
    """Is a program that runs under a keeper: it ends, with all that it started, when it is stopped or its owner dies.

    It belongs to the event loop in which it was started. What it writes to its standard error is kept, as far as
    `error_text` shows it.
    """

    __slots__ = ("_kept", "_reader", "_readable", "_writable", "_writer")

    def __init__(self, kept: KeptProcess) -> None:
        """Take a program whose pipes are to be connected; for `start` only."""
        self._kept = kept
        self._reader = asyncio.StreamReader(limit=_BUFFERED_BYTES)
        self._writer: asyncio.StreamWriter | None = None
        self._readable: asyncio.BaseTransport | None = None
        self._writable: asyncio.BaseTransport | None = None

    @classmethod
    async def start(cls, argv: Sequence[str], *, env: Mapping[str, str], folder: str | None = None) -> PipedProcess:
        """Start a program without a shell, with exactly the environment `env`. Raises `process.failed`; that it cannot
        be run at all is said by `stop`, behind an output that ends at once."""
        their_input, our_output = os.pipe()
        our_input, their_output = os.pipe()
        try:
            pipes = {0: their_input, 1: their_output}
            # Its standard error is what the keeper keeps: its beginning and its end.
            program = Program(argv=tuple(argv), env=env, folder=folder, pipes=pipes, output=OutputLimits())
            one = cls(KeptProcess(program))
        except BaseException:
            os.close(our_output)
            os.close(our_input)
            raise
        finally:
            os.close(their_input)
            os.close(their_output)
        try:
            await one._connect(our_input, our_output)
        except BaseException:
            one.abandon()
            raise
        return one

    async def read(self, at_most: int = _BUFFERED_BYTES) -> bytes:
        """Return what the program wrote next; nothing once it has closed its output or ended."""
        return await self._reader.read(at_most)

    async def write(self, data: bytes) -> None:
        """Give the program bytes to read, and wait while it does not take them. Raises `process.failed` where it reads
        no more."""
        writer = self._writer
        if writer is None or writer.is_closing():
            raise ProcessError("the program reads no more: it was stopped, or it has ended")
        writer.write(data)
        try:
            await writer.drain()
        except OSError as error:
            raise ProcessError(f"the program reads no more: {error}") from error

    async def error_text(self) -> str:
        """Return the beginning and the end of what it wrote to its standard error so far; one task at a time."""
        output = await self._kept.look()
        left_out = f"\n... {output.left_out_bytes} bytes left out ...\n" if output.left_out_bytes else ""
        return output.head.decode("utf-8", "replace") + left_out + output.tail.decode("utf-8", "replace")

    async def stop(self, *, grace_s: float = DEFAULT_GRACE_S) -> int | None:
        """Close its input, ask it to end, kill what is left of it after `grace_s` seconds, and return its exit status,
        None where that was not seen. Raises `process.failed` if it could not be started."""
        self._disconnect()
        ended = await self._kept.stop(grace_s=grace_s)
        # Where that had nothing to wait for: the event loop closes the pipes in its next round.
        await asyncio.sleep(0)
        return ended.exit_status

    def abandon(self) -> None:
        """Have it killed, at once and without waiting for that."""
        self._disconnect()
        self._kept.abandon()

    async def _connect(self, our_input: int, our_output: int) -> None:
        loop = asyncio.get_running_loop()
        files = [os.fdopen(our_input, "rb", 0), os.fdopen(our_output, "wb", 0)]
        try:
            reader = asyncio.StreamReaderProtocol(self._reader)
            self._readable, _ = await loop.connect_read_pipe(lambda: reader, files[0])
            del files[0]
            transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, files[0])
            del files[0]
        finally:
            for file in files:
                file.close()
        self._writable = transport
        self._writer = asyncio.StreamWriter(transport, protocol, None, loop)

    def _disconnect(self) -> None:
        for one in (self._writable, self._readable):
            # One that has ended may have forgotten its loop.
            if one is None or one.is_closing():
                continue
            if isinstance(one, asyncio.WriteTransport):
                one.abort()
            else:
                one.close()
        self._writer = None
        # Where the loop is closed already, nothing has to be told to it.
        with contextlib.suppress(RuntimeError):
            self._reader.feed_eof()
