"""Undoes the compression of an answer's body, in bounded steps: a small body may hold a thousand times its size."""

from __future__ import annotations

import zlib

from power_loop.runtime.llm.failures import ProviderFault

_STEP_BYTES = 256 * 1024
# The flags of zlib that take gzip and zlib alike, by their headers.
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32


class Inflater:
    """Unpacks gzip or deflate piece by piece."""

    def __init__(self) -> None:
        self._unpacker = zlib.decompressobj(_GZIP_OR_ZLIB)

    def unpack(self, chunk: bytes, limit: int) -> bytes:
        """Return at most `limit` bytes (and a step more) of what a chunk holds; what goes beyond is dropped."""
        pieces: list[bytes] = []
        size = 0
        try:
            while chunk and size <= limit:
                piece = self._unpacker.decompress(chunk, _STEP_BYTES)
                pieces.append(piece)
                size += len(piece)
                chunk = self._unpacker.unconsumed_tail
        except zlib.error as exc:
            raise ProviderFault.broken(f"the compressed body cannot be unpacked: {exc}") from exc
        return b"".join(pieces)


def inflater_of(content_encoding: str) -> Inflater | None:
    """Return what unpacks a body of this `content-encoding`, None for a plain one.

    Raises a fault for one we did not ask for.
    """
    name = content_encoding.strip().lower()
    if name in ("", "identity"):
        return None
    if name in ("gzip", "x-gzip", "deflate"):
        return Inflater()
    raise ProviderFault.broken(f"the body comes in the encoding {name!r}, which was not asked for")
