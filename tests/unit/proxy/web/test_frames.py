import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.web.frames import FrameScanner, close_frame


def frame(opcode: int, size: int, *, masked: bool, final: bool = True, rsv: int = 0) -> bytes:
    """Write a frame whose payload looks like frames."""
    first = (0x80 if final else 0) | rsv << 4 | opcode
    bit = 0x80 if masked else 0
    if size < 126:
        head = bytes((first, bit | size))
    elif size < 65_536:
        head = bytes((first, bit | 126)) + struct.pack("!H", size)
    else:
        head = bytes((first, bit | 127)) + struct.pack("!Q", size)
    return head + (b"\x12\x34\x56\x78" if masked else b"") + (b"\x88\x02\x03\xe8" * (size // 4 + 1))[:size]


frames = st.builds(
    frame,
    st.sampled_from([0, 1, 2, 9, 10]),
    st.sampled_from([0, 1, 5, 125, 126, 127, 300, 65_535, 65_536, 70_000]),
    masked=st.booleans(),
    final=st.booleans(),
    rsv=st.sampled_from([0, 4]),
)


@given(st.lists(frames, max_size=6), st.lists(st.integers(1, 3_000), min_size=1, max_size=60))
def test_frames_are_followed_in_whatever_pieces_they_come(sent: list[bytes], cuts: list[int]) -> None:
    scanner, stream, ends = FrameScanner(), b"".join(sent), {0}
    for one in sent:
        ends.add(max(ends) + len(one))
    at, turn = 0, 0
    while at < len(stream):
        piece = stream[at : at + cuts[turn % len(cuts)]]
        scanner.feed(memoryview(piece))
        at, turn = at + len(piece), turn + 1
        assert scanner.is_at_boundary == (at in ends)
    assert scanner.data_frames == sum((one[0] & 15) < 8 for one in sent)
    assert not scanner.is_closing


@pytest.mark.parametrize("masked", [False, True])
def test_nothing_may_follow_a_close(masked: bool) -> None:
    scanner = FrameScanner()
    scanner.feed(frame(2, 10, masked=masked) + close_frame(1008, "over", masked=masked))
    assert scanner.is_closing
    assert not scanner.is_at_boundary


def test_a_close_frame_is_one_of_rfc_6455() -> None:
    assert close_frame(1008, "signed out", masked=False) == b"\x88\x0c\x03\xf0signed out"
    masked = close_frame(1001, "x", masked=True)
    assert masked == b"\x88\x83\x00\x00\x00\x00\x03\xe9x"
    long = close_frame(1008, "ä" * 100, masked=False)
    assert long[1] == 124, "a character is not cut in two"
    assert long[4:].decode() == "ä" * 61
