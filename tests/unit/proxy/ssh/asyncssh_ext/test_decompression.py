"""Packets inflate up to a bound and no further."""

import zlib

import asyncssh
import pytest

from proxy.ssh.asyncssh_ext.decompression import BoundedDecompressor


class _Stream:
    """Deflates packet by packet, as a client does."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj()

    def packet(self, payload: bytes) -> bytes:
        return self._deflate.compress(payload) + self._deflate.flush(zlib.Z_SYNC_FLUSH)


@pytest.mark.parametrize("size", [0, 1, 999, 1_000])
def test_up_to_the_bound_every_packet_comes_out_as_it_went_in(size: int) -> None:
    stream, inflater = _Stream(), BoundedDecompressor(lambda: 1_000)
    for fill in b"abc":
        assert inflater.decompress(stream.packet(bytes([fill]) * size)) == bytes([fill]) * size


@pytest.mark.parametrize("size", [1_001, 2_000, 50_000_000])
def test_beyond_the_bound_it_says_so(size: int) -> None:
    stream, inflater = _Stream(), BoundedDecompressor(lambda: 1_000)
    assert inflater.decompress(stream.packet(b"before")) == b"before"
    with pytest.raises(asyncssh.CompressionError, match="inflates to more than 1000 bytes"):
        inflater.decompress(stream.packet(bytes(size)))


def test_the_bound_of_the_moment_counts() -> None:
    most = 10
    stream, inflater = _Stream(), BoundedDecompressor(lambda: most)
    assert inflater.decompress(stream.packet(bytes(10))) == bytes(10)
    most = 1_000
    assert inflater.decompress(stream.packet(bytes(1_000))) == bytes(1_000)


def test_what_is_not_deflated_is_no_packet() -> None:
    assert BoundedDecompressor(lambda: 1_000).decompress(b"nonsense") is None
