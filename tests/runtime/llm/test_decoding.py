"""Compressed bodies: unpacked piece by piece, never beyond a limit, refused where they are none."""

from __future__ import annotations

import gzip
import zlib

import pytest

from power_loop.runtime.llm.decoding import inflater_of
from power_loop.runtime.llm.failures import ProviderFault


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_compressed_body_is_unpacked_in_pieces(pack: object, size: int) -> None:
    body = b"data: x\n\n" * 500
    packed = pack(body)  # type: ignore[operator]
    inflater = inflater_of("gzip")
    assert inflater is not None
    assert b"".join(inflater.unpack(packed[at : at + size], 1 << 20) for at in range(0, len(packed), size)) == body


def test_a_bomb_is_unpacked_to_little_more_than_the_limit() -> None:
    inflater = inflater_of("gzip")
    assert inflater is not None
    assert len(inflater.unpack(gzip.compress(bytes(64 << 20)), 1000)) < 1 << 20


def test_plain_bodies_need_nothing() -> None:
    assert inflater_of("") is None
    assert inflater_of(" Identity ") is None


def test_an_encoding_that_was_not_asked_for_is_a_fault() -> None:
    with pytest.raises(ProviderFault, match="zstd"):
        inflater_of("zstd")


def test_a_body_that_is_not_packed_as_it_says_is_a_fault() -> None:
    inflater = inflater_of("gzip")
    assert inflater is not None
    with pytest.raises(ProviderFault, match="cannot be unpacked"):
        inflater.unpack(b"plain text", 1000)
