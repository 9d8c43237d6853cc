"""Frames that are put together by hand are what the generated classes make and take."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos.shelld.v1 import shelld_pb2 as pb
from shelld.errors import OpenError, ProtocolError, StartError
from shelld.programs.program import BreakRequest, Ended, Eof, SignalRequest, StdoutClose
from shelld.programs.pty import WindowSize
from shelld.rpc import wire

SIZES = [1, 2, 127, 128, 129, 16383, 16384, 65536, 1048576]


@pytest.mark.parametrize("size", SIZES)
def test_bulk_frames_are_the_same_on_the_wire(size: int) -> None:
    data = bytes(size)
    assert wire.bulk(3, data) == pb.RunOutput(stdout=data).SerializeToString()
    assert wire.bulk(4, data) == pb.RunOutput(stderr=data).SerializeToString()
    assert wire.bulk(3, data) == pb.ConnectionOutput(data=data).SerializeToString()
    decoded = wire.decoder(pb.RunInput)(pb.RunInput(stdin=data).SerializeToString())
    assert isinstance(decoded, memoryview)
    assert decoded == data
    assert wire.run_input(decoded) is decoded


@given(st.binary(max_size=64))
def test_noise_decodes_to_something_or_malformed(raw: bytes) -> None:
    for kind, check in ((pb.RunInput, wire.run_input), (pb.ConnectionInput, wire.connection_input)):
        frame = wire.decoder(kind)(raw)
        for first in (wire.program_spec, wire.target, wire.connection_id):
            with suppress(StartError, OpenError):
                first(frame)
        with suppress(ProtocolError):
            check(frame)


def test_later_frames_of_a_run() -> None:
    decode = wire.decoder(pb.RunInput)

    def taken(**frame: object) -> object:
        return wire.run_input(decode(pb.RunInput(**frame).SerializeToString()))  # type: ignore[arg-type]

    assert taken(stdin_eof=pb.Eof()) == Eof()
    assert taken(window=pb.WindowSize(columns=1, rows=2, width_px=3, height_px=4)) == WindowSize(1, 2, 3, 4)
    assert taken(signal="INT") == SignalRequest("INT")
    assert taken(break_ms=0) == BreakRequest()
    assert taken(stdout_close=pb.Eof()) == StdoutClose()
    for bad in ({"start": pb.Start()}, {}, {"stdin": bytes(wire.MAX_FRAME_BYTES + 1)}):
        with pytest.raises(ProtocolError):
            taken(**bad)


def test_exits() -> None:
    frame = pb.RunOutput.FromString(wire.exit_frame(Ended(status=0)))
    assert frame.exit.WhichOneof("end") == "status"
    frame = pb.RunOutput.FromString(wire.exit_frame(Ended(signal="TERM", core_dumped=True)))
    assert frame.exit.signal == pb.ExitSignal(name="TERM", core_dumped=True)
