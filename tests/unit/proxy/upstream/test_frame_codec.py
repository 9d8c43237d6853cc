"""Frames put together by hand are what protobuf makes, and are read like its own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos.shelld.v1 import shelld_pb2 as pb
from proxy.upstream.frame_codec import decode_bytes_field, decoder, encode, encode_bytes_field
from proxy.upstream.frames import Output

pieces = st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=8)


@given(pieces)
def test_what_is_encoded_by_hand_is_what_protobuf_encodes(parts: list[bytes]) -> None:
    data = b"".join(parts)
    assert encode_bytes_field(2, parts, len(data)) == pb.RunInput(stdin=data).SerializeToString()
    assert encode_bytes_field(3, parts, len(data)) == pb.ConnectionInput(data=data).SerializeToString()


@pytest.mark.parametrize("size", [1, 127, 128, 16_383, 16_384, 1024 * 1024])
def test_lengths_of_every_width_are_read_back(size: int) -> None:
    raw = encode_bytes_field(3, [bytes(size)], size)
    assert decode_bytes_field(raw) == (3, memoryview(bytes(size)))


@given(st.binary(max_size=64))
def test_any_bytes_are_read_as_protobuf_reads_them(raw: bytes) -> None:
    found = decode_bytes_field(raw)
    if found is not None and found[0] == pb.RunOutput.STDOUT_FIELD_NUMBER:
        assert pb.RunOutput.FromString(raw) == pb.RunOutput(stdout=bytes(found[1]))


def test_what_is_no_bulk_goes_through_the_generated_classes() -> None:
    decode = decoder(pb.RunOutput, {pb.RunOutput.STDOUT_FIELD_NUMBER: Output})
    exit_frame = pb.RunOutput(exit=pb.Exit(status=7))
    assert decode(encode(exit_frame)) == exit_frame
    assert decode(pb.RunOutput(stdout=b"out").SerializeToString()) == Output(memoryview(b"out"))
    assert decode(pb.RunOutput(stderr=b"err").SerializeToString()) == pb.RunOutput(stderr=b"err")
